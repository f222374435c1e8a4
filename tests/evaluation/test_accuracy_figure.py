import numpy as np
import pytest

from tfrs_fashion.evaluation.accuracy_figure import MAX_LINES, draw_accuracy, list_lengths
from tfrs_fashion.evaluation.metrics import AccuracyCurve


def test_lengths_begin_at_one_and_hold_the_last() -> None:
    assert list_lengths(1).tolist() == [1]
    assert list_lengths(5).tolist() == [1, 2, 3, 4, 5]
    lengths = list_lengths(300)
    assert (lengths[0], lengths[-1]) == (1, 300)
    assert len(lengths) <= 40
    assert lengths[:6].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("depth", [1, 3, 12, 300])
def test_lines_are_named_apart_and_the_worst_left_out(depth: int) -> None:
    growth, fall = np.linspace(0.1, 1, depth), np.linspace(1, 0.2, depth)
    curves = {
        f"recommender_{number}": AccuracyCurve((0.3 + number / 1e6) * growth, (0.2 + number / 1e6) * fall)
        for number in range(MAX_LINES + 3)
    }
    figure = draw_accuracy(curves, k=12, customers=1234)
    assert "3 that find less" in figure.caption
    assert "1,234 customers" in figure.caption
    assert set(figure.data) == set(curves)
    axes = figure.axes
    names = [text for text in axes.texts if text.get_text().startswith("recommender")]
    assert {text.get_text() for text in names} == {f"recommender_{number}" for number in range(3, MAX_LINES + 3)}
    # All but equal ends: names stand a line of text apart, inside the panel.
    low, high = axes.get_ylim()
    places = sorted(text.xyann[1] for text in names)
    assert min(np.diff(places)) >= (high - low) / 16
    assert low <= places[0] <= places[-1] <= high
