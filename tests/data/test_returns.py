import datetime

import ibis
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.data.returns import net_returns


def netted(rows: list[tuple[str, str, int, int]]) -> tuple[list[tuple[str, str, int, int]], dict[str, int]]:
    """Nets lines of customer, article, day and quantity."""
    frame = pd.DataFrame(rows, columns=["customer_id", "article_id", "day", "quantity"])
    frame["t_dat"] = [datetime.datetime(2024, 1, day) for day in frame.pop("day")]
    kept, counts = net_returns(ibis.memtable(frame))
    lines = sorted(
        (row.customer_id, row.article_id, row.t_dat.day, row.quantity) for row in kept.execute().itertuples()
    )
    return lines, {count.rule: count.rows for count in counts}


def test_a_return_reduces_the_latest_earlier_purchase() -> None:
    lines, counts = netted([("a", "x", 1, 3), ("a", "x", 2, 2), ("a", "x", 3, -1), ("a", "x", 4, 5)])
    assert lines == [("a", "x", 1, 3), ("a", "x", 2, 1), ("a", "x", 4, 5)]
    assert counts == {
        "a return, subtracted from the latest earlier purchases": 1,
        "quantity reduced by returns": 1,
    }


def test_the_rest_of_a_return_reduces_the_purchase_before() -> None:
    # Of 3 + 2 units 4 come back: both of day 2 and two of day 1.
    lines, counts = netted([("a", "x", 1, 3), ("a", "x", 2, 2), ("a", "x", 3, -4)])
    assert lines == [("a", "x", 1, 1)]
    assert counts["dropped: returned completely"] == 1
    assert counts["quantity reduced by returns"] == 1


def test_another_customer_article_or_a_later_purchase_is_not_touched() -> None:
    rows = [("b", "x", 1, 1), ("a", "y", 1, 1), ("a", "x", 3, 1)]
    lines, counts = netted([*rows, ("a", "x", 2, -1)])
    assert lines == sorted(rows)
    assert counts == {"dropped: a return without an earlier purchase": 1}


def test_a_return_of_more_units_than_were_bought_is_cut() -> None:
    lines, counts = netted([("a", "x", 1, 2), ("a", "x", 2, -5), ("a", "x", 3, 1)])
    assert lines == [("a", "x", 3, 1)]
    assert counts["a return of more units than were bought: the rest is dropped"] == 1


def test_at_one_instant_purchases_come_first() -> None:
    assert netted([("a", "x", 1, -1), ("a", "x", 1, 2)])[0] == [("a", "x", 1, 1)]


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 28), st.integers(-3, 3).filter(bool)), min_size=1))
def test_net_returns_equals_a_stack_of_units(drawn: list[tuple[str, int, int]]) -> None:
    expected: list[tuple[str, str, int, int]] = []
    for customer in "ab":
        stack: list[int] = []
        for _customer, day, quantity in sorted(
            (row for row in drawn if row[0] == customer), key=lambda r: (r[1], -r[2])
        ):
            stack = stack + [day] * quantity if quantity > 0 else stack[:quantity]
        expected += [(customer, "x", day, stack.count(day)) for day in set(stack)]
    lines = pd.DataFrame(netted([(c, "x", d, q) for c, d, q in drawn])[0], columns=["c", "a", "d", "q"])
    found = lines.groupby(["c", "a", "d"])["q"].sum().reset_index().itertuples(index=False)
    assert sorted(tuple(row) for row in found) == sorted(expected)
