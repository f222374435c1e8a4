import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.report.accuracy_figure import MAX_LINES
from tfrs_fashion.evaluation.report.roc_figure import draw_roc
from tfrs_fashion.schema import TARGET_RANK_COLUMNS, InputError


def make_ranks(ranks: list[int], *, num_ranked: int = 101) -> pd.DataFrame:
    """One purchase each of the customers 2, 3, …."""
    rows = [(2 + place, 2, rank, num_ranked, "test") for place, rank in enumerate(ranks)]
    return pd.DataFrame(rows, columns=list(TARGET_RANK_COLUMNS)).astype(TARGET_RANK_COLUMNS)


def test_lines_are_told_apart_and_stand_in_the_order_of_their_areas() -> None:
    ranks = {f"recommender_{number}": make_ranks([30 - number, 50]) for number in range(MAX_LINES + 2)}
    found = draw_roc(ranks)
    assert found.title == "ROC of rank: 2 purchases among 101 articles in store"
    assert found.rows == 2
    assert "2 purchases of 2 customers" in found.caption
    assert "2 with less area are left out" in found.caption
    assert set(found.data) == set(ranks)
    lines = [line for line in found.axes.lines if line.get_label().startswith("recommender")]
    # One purchase stands below 29 - number of 100 others, the other below 49.
    areas = [1 - (29 - number + 49) / 200 for number in range(MAX_LINES + 1, 1, -1)]
    labels = [f"recommender_{MAX_LINES + 1 - place} ({area:.3f})" for place, area in enumerate(areas)]
    assert [line.get_label() for line in lines] == labels
    assert len({(line.get_linestyle(), line.get_color(), line.get_marker()) for line in lines}) == MAX_LINES
    assert len({tuple(line.get_markevery()) for line in lines}) == MAX_LINES
    chance = found.axes.lines[0]
    assert [list(chance.get_xdata()), list(chance.get_ydata())] == [[0, 1], [0, 1]]


def test_what_is_reached_is_told_in_words() -> None:
    # Below 10 of 100 others lies what stands at the rank 11.
    found = draw_roc({"als": make_ranks([12, 90, 95, 99]), "gru": make_ranks([1, 5, 11, 90])})
    assert found.sentences == (
        "When 10% of what was not bought has been shown, gru has reached 75% of purchases.",
        "Next comes als with 0%.",
    )
    assert "left out" not in found.caption
    alone = draw_roc({"als": make_ranks([12])})
    assert len(alone.sentences) == 1
    assert alone.title == "ROC of rank: 1 purchase among 101 articles in store"
    shown, reached = np.array(alone.data["als"]["shown"]), np.array(alone.data["als"]["reached"])
    # Eleven of a hundred stand above it.
    assert reached.tolist() == (shown >= 0.11 - 1e-9).astype(float).tolist()


def test_nothing_to_draw() -> None:
    with pytest.raises(InputError, match="target ranks: there is no row"):
        draw_roc({"als": make_ranks([])})
