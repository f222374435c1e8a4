"""What the doctor is shown: whose rows, on which side of which cutoff."""

import datetime
from dataclasses import replace

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.data.split import Split
from tfrs_fashion.features.view import View
from tfrs_fashion.run.evidence import gather_purchases, latest_visible, make_answers

CUTOFF = datetime.datetime(2024, 1, 5, 12, 0, 0, 500_000)
# Customer 2 buys just before the cutoff and in its own second; customer 3 is not judged; customer 4 comes later.
ROWS = [
    (2, 7, "2024-01-03 10:00:00", "a"),
    (2, 8, "2024-01-05 12:00:00.400000", "b"),
    (2, 7, "2024-01-05 12:00:00.500000", "c"),
    (2, 9, "2024-01-06 09:00:00", "d"),
    (3, 7, "2024-01-01 09:00:00", "e"),
    (4, 7, "2024-01-07 09:00:00", "f"),
]


def table(rows: list[tuple[int, int, str, str]]) -> ibis.Table:
    frame = pd.DataFrame(rows, columns=["customer_index", "article_index", "t_dat", "basket_id"])
    times = pd.to_datetime(frame["t_dat"], format="ISO8601").astype("datetime64[us]")
    return ibis.memtable(frame.assign(t_dat=times))


def shown(view: View, split: Split, rows: list[tuple[int, int, str, str]]) -> View:
    """A view of these rows, whatever the split says of them."""
    return replace(view, split=split, tables=replace(view.tables, transactions=table(rows)))


def test_purchases_of_those_judged(view: View) -> None:
    window = Split(name="test", kind="window", as_of=CUTOFF)
    judged = pd.DataFrame({"customer_index": [2, 2, 4], "article_index": [7, 9, 7]})
    found = gather_purchases(shown(view, window, [*ROWS[:2], ROWS[4]]), table(ROWS), judged)
    assert sorted(found.visible["basket"]) == ["a", "b"]
    assert sorted(found.targets["basket"]) == ["c", "d", "f"]
    assert list(found.visible.columns) == list(found.targets.columns) == [
        "customer_index", "article_index", "time", "basket"
    ]  # fmt: skip
    # A pair that nobody judges is no target.
    found = gather_purchases(shown(view, window, ROWS[:2]), table(ROWS), judged.iloc[1:])
    assert sorted(found.targets["basket"]) == ["d", "f"]


def test_the_latest_instants_beside_one_cutoff(view: View) -> None:
    window = Split(name="test", kind="window", as_of=CUTOFF)
    found = latest_visible(shown(view, window, [*ROWS[:2], ROWS[4]]))["transactions"].sort_values("customer_index")
    assert found["customer_index"].tolist() == [2, 3]
    # The fraction counts: it is before the cutoff, though of the same second.
    assert found["latest"].tolist() == [pd.Timestamp("2024-01-05 12:00:00.4"), pd.Timestamp("2024-01-01 09:00:00")]
    assert found["cutoff"].tolist() == [pd.Timestamp(CUTOFF)] * 2


def test_customers_without_a_cutoff_of_their_own_have_everyones(view: View) -> None:
    cutoffs = pd.DataFrame({"customer_index": [3], "cutoff": [datetime.datetime(2024, 1, 2)], "held_out": [7]})
    split = Split(name="test", kind="last_basket", as_of=CUTOFF, cutoffs=ibis.memtable(cutoffs))
    found = latest_visible(shown(view, split, [*ROWS[:2], ROWS[4]]))["transactions"].set_index("customer_index")
    assert found["cutoff"].to_dict() == {2: pd.Timestamp(CUTOFF), 3: pd.Timestamp("2024-01-02")}


def test_the_latest_events_of_timelines(view: View) -> None:
    found = latest_visible(view)["timelines"]
    timelines = view.timelines
    latest = pd.Series(timelines.time).groupby(timelines.row + 2).max()
    assert found.set_index("customer_index")["latest"].to_dict() == latest.to_dict()
    assert (found["cutoff"] == view.now[-1]).all()
    assert 0 < len(found) <= timelines.num_customers


@pytest.mark.parametrize(
    ("name", "is_arrivals", "is_constant"),
    [
        ("als", False, False),
        ("popularity_7d", False, True),
        ("popularity_siblings", True, True),
        ("two_tower_new_arrivals", True, False),
    ],
)
def test_answers_of_each_kind_of_artifact(view: View, name: str, is_arrivals: bool, is_constant: bool) -> None:
    rows = pd.DataFrame({"customer_index": 2, "article_index": [5, 6, 7], "rank": [1, 2, 3]})
    figures = {"recall@2": {"value": 0.5, "low": 0.5, "high": 0.5}}
    kind = {"is_arrivals": is_arrivals, "is_constant": is_constant}
    found = make_answers(
        name, rows, rows, view=view, figures=figures, k=2, fallback="popularity_age_band", **kind, embedding=np.eye(3)
    )
    assert found.candidates["article_index"].tolist() == [5, 6]
    assert found.candidates_new is not None
    assert len(found.candidates_new) == 2
    assert found.is_constant == is_constant
    assert found.fallback == (None if is_arrivals else "popularity_age_band")
    assert found.metrics == ({} if is_arrivals else figures)
    ranked = view.articles.never_sold if is_arrivals else view.articles.in_store
    assert found.rankable is ranked
