import numpy as np
import pytest

from tfrs_fashion.evaluation.metrics.customer_metrics import AccuracyCurve
from tfrs_fashion.evaluation.report.accuracy_figure import MAX_LINES, draw_accuracy, list_lengths


def test_lengths_begin_at_one_and_hold_the_last() -> None:
    assert list_lengths(1).tolist() == [1]
    assert list_lengths(5).tolist() == [1, 2, 3, 4, 5]
    lengths = list_lengths(300)
    assert (lengths[0], lengths[-1]) == (1, 300)
    assert len(lengths) <= 40
    assert lengths[:6].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("depth", [1, 3, 12, 300])
def test_lines_are_told_apart_and_the_worst_left_out(depth: int) -> None:
    growth, fall = np.linspace(0.1, 1, depth), np.linspace(1, 0.2, depth)
    curves = {
        f"recommender_{number}": AccuracyCurve((0.3 + number / 1e6) * growth, (0.2 + number / 1e6) * fall)
        for number in range(MAX_LINES + 3)
    }
    found = draw_accuracy(curves, k=12, customers=1234)
    assert "3 that find less are left out" in found.caption
    assert "1,234 customers" in found.caption
    assert set(found.data) == set(curves)
    figure = found.axes.get_figure(root=True)
    assert figure is not None
    (legend,) = figure.legends
    # The best first.
    assert [text.get_text() for text in legend.get_texts()] == [f"recommender_{n}" for n in range(MAX_LINES + 2, 2, -1)]
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_label().startswith("recommender")]
        assert len({(line.get_linestyle(), line.get_color(), line.get_marker()) for line in lines}) == MAX_LINES


def test_what_finds_next_to_nothing_is_left_out() -> None:
    def curve(height: float) -> AccuracyCurve:
        return AccuracyCurve(np.full(20, height), np.full(20, height))

    found = draw_accuracy({"new": curve(0.0), "als": curve(0.4), "gru": curve(0.5)}, k=12, customers=9)
    assert found.sentences == (
        "Of 20 articles, gru finds 50% of what a customer buys, and of 12 it finds 50%.",
        "Next comes als with 40% of 20.",
    )
    assert "1 that finds less is left out" in found.caption
    nothing = draw_accuracy({"new": curve(0.0)}, k=12, customers=9)
    assert nothing.sentences[0].startswith("Of 20 articles, new finds 0%")
