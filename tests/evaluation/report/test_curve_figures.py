import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.metrics.accuracy import AccuracyCurve
from tfrs_fashion.evaluation.report.curve_figures import MAX_LINES, draw_accuracy, draw_roc, list_lengths
from tfrs_fashion.schema import TARGET_RANK_COLUMNS, InputError


def test_list_lengths_run_from_1_to_the_depth() -> None:
    assert list_lengths(1).tolist() == [1]
    assert list_lengths(5).tolist() == [1, 2, 3, 4, 5]
    lengths = list_lengths(300)
    assert (lengths[0], lengths[-1]) == (1, 300)
    assert len(lengths) <= 40
    assert lengths[:6].tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("depth", [1, 3, 12, 300])
def test_accuracy_lines_differ_in_style_and_the_lowest_are_left_out(depth: int) -> None:
    growth, fall = np.linspace(0.1, 1, depth), np.linspace(1, 0.2, depth)
    curves = {
        f"recommender_{number}": AccuracyCurve((0.3 + number / 1e6) * growth, (0.2 + number / 1e6) * fall)
        for number in range(MAX_LINES + 3)
    }
    found = draw_accuracy(curves, k=12, customers=1234)
    assert "3 with lower recall are left out" in found.caption
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


def test_recommender_with_negligible_recall_is_left_out() -> None:
    def curve(height: float) -> AccuracyCurve:
        return AccuracyCurve(np.full(20, height), np.full(20, height))

    found = draw_accuracy({"new": curve(0.0), "als": curve(0.4), "gru": curve(0.5)}, k=12, customers=9)
    assert found.sentences == (
        "The first 20 articles of gru include 50% of a customer's purchases; the first 12 include 50%.",
        "The runner-up is als with 40% in the first 20.",
    )
    assert "1 with lower recall is left out" in found.caption
    nothing = draw_accuracy({"new": curve(0.0)}, k=12, customers=9)
    assert nothing.sentences[0].startswith("The first 20 articles of new include 0%")


def make_ranks(ranks: list[int], *, num_ranked: int = 101) -> pd.DataFrame:
    """Makes TargetRanks of one purchase each of the customers 2, 3, …."""
    rows = [(2 + place, 2, rank, num_ranked, "test") for place, rank in enumerate(ranks)]
    return pd.DataFrame(rows, columns=list(TARGET_RANK_COLUMNS)).astype(TARGET_RANK_COLUMNS)


def test_roc_lines_differ_in_style_and_are_ordered_by_area() -> None:
    ranks = {f"recommender_{number}": make_ranks([30 - number, 50]) for number in range(MAX_LINES + 2)}
    found = draw_roc(ranks)
    assert found.title == "ROC of rank: 2 purchases among 101 articles in store"
    assert found.rows == 2
    assert "2 purchases of 2 customers" in found.caption
    assert "2 with a smaller area are left out" in found.caption
    assert set(found.data) == set(ranks)
    lines = [line for line in found.axes.lines if line.get_label().startswith("recommender")]
    # One purchase ranks below 29 - number of 100 other articles, the other below 49.
    areas = [1 - (29 - number + 49) / 200 for number in range(MAX_LINES + 1, 1, -1)]
    labels = [f"recommender_{MAX_LINES + 1 - place} ({area:.3f})" for place, area in enumerate(areas)]
    assert [line.get_label() for line in lines] == labels
    assert len({(line.get_linestyle(), line.get_color(), line.get_marker()) for line in lines}) == MAX_LINES
    assert len({tuple(line.get_markevery()) for line in lines}) == MAX_LINES
    chance = found.axes.lines[0]
    assert [list(chance.get_xdata()), list(chance.get_ydata())] == [[0, 1], [0, 1]]


def test_roc_sentences_state_the_share_reached() -> None:
    # An article of rank 11 ranks below 10 of the 100 others.
    found = draw_roc({"als": make_ranks([12, 90, 95, 99]), "gru": make_ranks([1, 5, 11, 90])})
    assert found.sentences == (
        "By the time 10% of the articles not bought have been shown, gru has reached 75% of purchases.",
        "The runner-up is als with 0%.",
    )
    assert "left out" not in found.caption
    alone = draw_roc({"als": make_ranks([12])})
    assert len(alone.sentences) == 1
    assert alone.title == "ROC of rank: 1 purchase among 101 articles in store"
    shown, reached = np.array(alone.data["als"]["shown"]), np.array(alone.data["als"]["reached"])
    # Eleven of a hundred others rank above it.
    assert reached.tolist() == (shown >= 0.11 - 1e-9).astype(float).tolist()


def test_roc_without_targets_is_refused() -> None:
    with pytest.raises(InputError, match="target ranks: there is no row"):
        draw_roc({"als": make_ranks([])})
