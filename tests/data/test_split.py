import datetime
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.data.split import Kind, Split, cutoff_seconds, first_purchase_seconds, make_splits, targets, visible
from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.features.timelines import read_timelines, write_timelines
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, InputError, Tables

# Ten rows of four customers (2 to 5); the row number is in the first column. Purchases at midnight lie exactly at
# the cutoffs of windows, customer 3 buys in the last second, customer 5 only once.
ROWS = [
    (0, 2, 2, "2024-01-01 10:00:00"),
    (1, 2, 3, "2024-01-01 10:00:00"),
    (2, 3, 3, "2024-01-02 09:00:00"),
    (3, 5, 4, "2024-01-03 12:00:00"),
    (4, 2, 2, "2024-01-05 08:00:00"),
    (5, 3, 5, "2024-01-07 00:00:00"),
    (6, 2, 4, "2024-01-09 00:00:00"),
    (7, 4, 2, "2024-01-04 18:00:00"),
    (8, 4, 6, "2024-01-06 06:00:00"),
    (9, 3, 6, "2024-01-10 23:59:59"),
]


def make_transactions(rows: list[tuple[int, int, int, str]]) -> ibis.Table:
    frame = pd.DataFrame(rows, columns=["row", "customer_index", "article_index", "t_dat"])
    return ibis.memtable(frame.assign(t_dat=pd.to_datetime(frame["t_dat"]).astype("datetime64[us]")))


def visible_rows(split: Split, transactions: ibis.Table) -> list[int]:
    return sorted(visible(split, transactions).execute()["row"])


def target_pairs(split: Split, transactions: ibis.Table) -> list[tuple[int, int]]:
    frame = targets(split, transactions).execute()
    assert list(frame.columns) == ["customer_index", "article_index"]
    return [tuple(pair) for pair in frame.itertuples(index=False)]


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def seconds(text: str) -> int:
    return int(at(text).replace(tzinfo=datetime.UTC).timestamp())


def test_window() -> None:
    # The last day is the 10th: two test days are the 9th and 10th, two validation days the 7th and 8th.
    transactions = make_transactions(ROWS)
    splits = make_splits(transactions, kind="window", test_days=2, validation_days=2)
    assert list(splits) == ["validation", "test", "release"]
    test, validation = splits["test"], splits["validation"]
    assert (test.as_of, test.end) == (at("2024-01-09"), None)
    assert (validation.as_of, validation.end) == (at("2024-01-07"), at("2024-01-09"))
    # Row 6 lies exactly at the test cutoff and row 5 exactly at the validation cutoff: targets both, not visible.
    assert visible_rows(test, transactions) == [0, 1, 2, 3, 4, 5, 7, 8]
    assert target_pairs(test, transactions) == [(2, 4), (3, 6)]
    assert visible_rows(validation, transactions) == [0, 1, 2, 3, 4, 7, 8]
    assert target_pairs(validation, transactions) == [(3, 5)]


def test_a_repeat_purchase_is_a_target_and_counts_once() -> None:
    transactions = make_transactions([*ROWS, (10, 2, 4, "2024-01-10 01:00:00"), (11, 2, 2, "2024-01-10 01:00:00")])
    splits = make_splits(transactions, test_days=2, validation_days=2)
    assert target_pairs(splits["test"], transactions) == [(2, 2), (2, 4), (3, 6)]


def test_last_basket() -> None:
    # Last baskets: rows 6, 9 and 8; customer 5 has one basket, which stays visible.
    transactions = make_transactions(ROWS)
    test = make_splits(transactions, kind="last_basket")["test"]
    assert visible_rows(test, transactions) == [0, 1, 2, 3, 4, 5, 7]
    assert target_pairs(test, transactions) == [(2, 4), (3, 6), (4, 6)]


def test_validation_on_the_last_basket_but_one() -> None:
    # Of what test leaves visible, the last baskets are rows 4 and 5. Customer 4 keeps one basket and is not evaluated,
    # and the customer's test basket (row 8) stays hidden, although others buy later.
    transactions = make_transactions(ROWS)
    validation = make_splits(transactions, kind="last_basket")["validation"]
    assert visible_rows(validation, transactions) == [0, 1, 2, 3, 7]
    assert target_pairs(validation, transactions) == [(2, 2), (3, 5)]


def test_leave_one_out_has_one_target_per_customer() -> None:
    transactions = make_transactions([*ROWS, (10, 2, 7, "2024-01-09 00:00:00"), (11, 2, 5, "2024-01-09 00:00:00")])
    splits = make_splits(transactions, kind="leave_one_out")
    found = target_pairs(splits["test"], transactions)
    assert [customer for customer, _article in found] == [2, 3, 4]
    # One of the last basket, whichever; the basket as a whole is hidden.
    assert found[0][1] in {4, 5, 7}
    assert found[1:] == [(3, 6), (4, 6)]
    assert visible_rows(splits["test"], transactions) == [0, 1, 2, 3, 4, 5, 7]
    assert target_pairs(splits["validation"], transactions) == [(2, 2), (3, 5)]
    assert visible_rows(splits["validation"], transactions) == [0, 1, 2, 3, 7]


def test_share() -> None:
    # Ten baskets of one customer, one a day: seven stay visible, three are targets. Of the seven, floor(4.9) = 4 stay
    # visible in validation, and the three between them and the test cutoff are its targets.
    transactions = make_transactions([(day, 2, 2 + day, f"2024-01-{day + 1:02d} 12:00:00") for day in range(10)])
    splits = make_splits(transactions, kind="share", share=0.7)
    assert visible_rows(splits["test"], transactions) == [0, 1, 2, 3, 4, 5, 6]
    assert target_pairs(splits["test"], transactions) == [(2, 9), (2, 10), (2, 11)]
    assert visible_rows(splits["validation"], transactions) == [0, 1, 2, 3]
    assert target_pairs(splits["validation"], transactions) == [(2, 6), (2, 7), (2, 8)]


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_share_keeps_a_basket_on_either_side(share: float) -> None:
    # Customer 2 has four baskets, customer 3 two; at least one stays visible and at least one is a target. With the
    # small share each keeps one for validation, which is too few.
    rows = [(day, 2, 2 + day, f"2024-01-{day + 1:02d} 12:00:00") for day in range(4)]
    transactions = make_transactions([*rows, (4, 3, 2, "2024-01-01 12:00:00"), (5, 3, 3, "2024-01-02 12:00:00")])
    if share == 0.01:
        with pytest.raises(InputError, match="`share` leaves nobody to evaluate"):
            make_splits(transactions, kind="share", share=share)
    else:
        test = make_splits(transactions, kind="share", share=share)["test"]
        assert target_pairs(test, transactions) == [(2, 5), (3, 3)]


@pytest.mark.parametrize("kind", ["window", "last_basket", "share", "leave_one_out"])
def test_validation_lies_within_what_test_leaves_visible(kind: str, tables: Tables) -> None:
    frame = tables.transactions.select("customer_index", "article_index", "t_dat").execute()
    transactions = ibis.memtable(frame.assign(row=range(len(frame))))
    splits = make_splits(transactions, kind=kind)  # type: ignore[arg-type]
    test_seen = visible(splits["test"], transactions).execute()
    seen = visible(splits["validation"], transactions).execute()
    assert set(seen["row"]) < set(test_seen["row"])
    within = set(test_seen[["customer_index", "article_index"]].itertuples(index=False, name=None))
    wanted = set(target_pairs(splits["validation"], transactions))
    assert wanted
    assert wanted <= within


def test_release_sees_everything() -> None:
    transactions = make_transactions(ROWS)
    release = make_splits(transactions, test_days=2, validation_days=2)["release"]
    assert visible_rows(release, transactions) == list(range(10))
    assert target_pairs(release, transactions) == []
    assert release.as_of == at("2024-01-11 00:00:00")


@pytest.mark.parametrize(
    ("test_days", "validation_days", "name", "window"),
    [
        # No row lies before a window of eleven days.
        (11, 1, "test", "2023-12-31 to 2024-01-10"),
        (9999, 1, "test", f"{datetime.date(2024, 1, 10) - datetime.timedelta(days=9998)} to 2024-01-10"),
        (1, 99, "validation", f"{datetime.date(2024, 1, 10) - datetime.timedelta(days=99)} to 2024-01-10"),
        # Nobody buys on the 8th.
        (2, 1, "validation", "2024-01-08 to 2024-01-09"),
    ],
)
def test_an_empty_window_names_the_dates(test_days: int, validation_days: int, name: str, window: str) -> None:
    with pytest.raises(InputError) as caught:
        make_splits(make_transactions(ROWS), test_days=test_days, validation_days=validation_days)
    message = str(caught.value)
    assert message.startswith(f"split: the {name} window from {window} has ")
    assert "the transactions run from 2024-01-01 to 2024-01-10" in message
    assert "`split.test_days`" in message


@pytest.mark.parametrize("days", [{"test_days": 10**7}, {"validation_days": 10**7}, {"test_days": 10**12}])
def test_a_window_longer_than_the_calendar_is_refused_like_any_other(days: dict[str, int]) -> None:
    with pytest.raises(InputError, match="split"):
        make_splits(make_transactions(ROWS), **days)


@pytest.mark.parametrize("kind", ["last_basket", "share", "leave_one_out"])
def test_customers_with_one_basket_each_leave_nobody_to_evaluate(kind: str) -> None:
    rows = [(number, 2 + number, 2, f"2024-01-{number + 1:02d}") for number in range(3)]
    with pytest.raises(InputError, match=f"none of 3 customer.* two baskets before the test targets, so `{kind}`"):
        make_splits(make_transactions(rows), kind=kind)  # type: ignore[arg-type]


def test_cutoff_seconds_of_a_window_are_the_same_for_all() -> None:
    split = make_splits(make_transactions(ROWS), test_days=2, validation_days=2)["test"]
    found = cutoff_seconds(split, 4)
    assert found.dtype == np.int64
    assert found.tolist() == [seconds("2024-01-09")] * (4 + FIRST_INDEX)


def test_cutoff_seconds_by_customer() -> None:
    split = make_splits(make_transactions(ROWS), kind="last_basket")["test"]
    # After the last row for those without a cutoff of their own: 0, 1 and customer 5.
    after = seconds("2024-01-11 00:00:00")
    expected = [after, after]
    expected += [seconds("2024-01-09"), seconds("2024-01-10 23:59:59"), seconds("2024-01-06 06:00:00"), after]
    assert cutoff_seconds(split, 4).tolist() == expected


def test_first_purchase_seconds_are_the_cutoff_for_customers_without_a_target() -> None:
    transactions = make_transactions([*ROWS, (10, 2, 2, "2024-01-10 01:00:00"), (11, 9, 2, "2024-01-10 01:00:00")])
    split = make_splits(transactions, test_days=2, validation_days=2)["test"]
    found = first_purchase_seconds(split, transactions, cutoff_seconds(split, 4))
    # Customers 2 and 3 buy in the window, 4 and 5 do not, and 9 came after the cutoffs were counted.
    cutoff = seconds("2024-01-09")
    assert found.tolist() == [cutoff, cutoff, seconds("2024-01-09"), seconds("2024-01-10 23:59:59"), cutoff, cutoff]
    assert found.dtype == np.int64


def make_tables(purchases: list[tuple[str, str, str]], *, listed: list[str] | None = None) -> Tables:
    """Indexed tables of (customer, article, time), each a basket of its own; all customers have rows, or some."""
    lines = pd.DataFrame(purchases, columns=["customer_id", "article_id", "t_dat"])
    lines["t_dat"] = pd.to_datetime(lines["t_dat"], format="ISO8601").astype("datetime64[us]")
    lines = lines.assign(price=1.0, quantity=1, discount=0.0, sales_channel_id=1, store_id="s")
    lines["basket_id"] = [str(number) for number in range(len(lines))]
    customers = pd.DataFrame({"customer_id": sorted(set(lines["customer_id"])) if listed is None else listed})
    articles = pd.DataFrame({"article_id": sorted(set(lines["article_id"])), "description": "x"})
    return index_tables(Tables(ibis.memtable(customers), ibis.memtable(articles), ibis.memtable(lines)))


def seen_by_table_and_by_timeline(
    tables: Tables, split: Split, folder: Path
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The article ids of each customer before the cutoff, by `visible` and by `Timelines.before`."""
    rows = visible(split, tables.transactions).order_by(["customer_index", "t_dat"]).execute()
    by_table = {str(key): group["article_id"].tolist() for key, group in rows.groupby("customer_id")}
    write_timelines(tables, folder, profile=())
    timelines = read_timelines(folder)
    cut = timelines.before(cutoff_seconds(split, timelines.num_customers))
    article_id = tables.articles.order_by("article_index").execute()["article_id"]
    events = [article_id[index - FIRST_INDEX] for index in cut.article_index]
    by_timeline: dict[str, list[str]] = {}
    for row, customer in enumerate(cut.customer_id):
        bought = events[cut.row_splits[row] : cut.row_splits[row + 1]]
        if bought:
            by_timeline[customer] = bought
    return by_table, by_timeline


# Half seconds to either side of a midnight, on days of their own so that no two baskets share a second.
SUB_SECOND = [
    ("a", "p", "2024-01-01 00:00:00"),
    ("a", "q", "2024-01-04 23:59:59.400"),
    ("b", "p", "2024-01-02 12:00:00.999999"),
    ("b", "q", "2024-01-04 23:59:59.700"),
    ("b", "r", "2024-01-05 00:00:00.300"),
    ("a", "r", "2024-01-05 00:00:00.800"),
    ("c", "p", "2024-01-06 08:00:00.500"),
    ("c", "q", "2024-01-06 08:00:01.500"),
]


def test_sub_second_times_before_a_window_are_seen_in_both_and_later_ones_in_neither(tmp_path: Path) -> None:
    tables = make_tables(SUB_SECOND)
    split = make_splits(tables.transactions, test_days=2, validation_days=1)["test"]
    assert split.as_of == at("2024-01-05")
    by_table, by_timeline = seen_by_table_and_by_timeline(tables, split, tmp_path)
    assert by_table == {"a": ["p", "q"], "b": ["p", "q"]}
    assert by_timeline == by_table


def test_sub_second_cutoffs_by_customer_are_the_same_in_both(tmp_path: Path) -> None:
    tables = make_tables(SUB_SECOND)
    split = make_splits(tables.transactions, kind="last_basket")["test"]
    by_table, by_timeline = seen_by_table_and_by_timeline(tables, split, tmp_path)
    assert by_table == {"a": ["p", "q"], "b": ["p", "q"], "c": ["p"]}
    assert by_timeline == by_table


def test_release_sees_a_last_purchase_within_a_second(tmp_path: Path) -> None:
    tables = make_tables(SUB_SECOND)
    split = make_splits(tables.transactions, test_days=2, validation_days=1)["release"]
    by_table, by_timeline = seen_by_table_and_by_timeline(tables, split, tmp_path)
    assert by_table == {"a": ["p", "q", "r"], "b": ["p", "q", "r"], "c": ["p", "q"]}
    assert by_timeline == by_table


@pytest.mark.parametrize("times", [("10:00:00.200", "10:00:00.600"), ("10:00:00.600", "10:00:01.400")])
def test_two_baskets_near_one_second_never_leak(tmp_path: Path, times: tuple[str, str]) -> None:
    # Seconds cannot tell the two apart; that may hide the first, but never shows the second.
    earlier = [("a", "o", "2024-01-01"), ("a", "n", "2024-01-02"), ("a", "m", "2024-01-03")]
    later = [("a", article, f"2024-01-04 {time}") for article, time in zip("pq", times, strict=True)]
    tables = make_tables(earlier + later)
    split = make_splits(tables.transactions, kind="last_basket")["test"]
    by_table, by_timeline = seen_by_table_and_by_timeline(tables, split, tmp_path)
    assert by_table == {"a": ["o", "n", "m", "p"]}
    assert "q" not in by_timeline["a"]


# The ten rows, and three of anonymous customers: before, at and after the cutoffs.
ANONYMOUS_ROWS = [
    *ROWS,
    (10, OUT_OF_VOCABULARY_INDEX, 2, "2024-01-05 10:00:00"),
    (11, OUT_OF_VOCABULARY_INDEX, 3, "2024-01-09 10:00:00"),
    (12, OUT_OF_VOCABULARY_INDEX, 4, "2024-01-10 10:00:00"),
]


@pytest.mark.parametrize("kind", ["window", "last_basket", "share", "leave_one_out"])
def test_anonymous_customers_are_never_evaluated_and_change_no_cutoff(kind: Kind) -> None:
    plain, more = make_transactions(ROWS), make_transactions(ANONYMOUS_ROWS)
    for name in ("validation", "test", "release"):
        split, other = (make_splits(rows, kind=kind, test_days=2, validation_days=2)[name] for rows in (plain, more))
        assert target_pairs(other, more) == target_pairs(split, plain)
        # A customer without a cutoff of their own has the last instant of all rows, which anonymous ones move.
        own = cutoff_seconds(split, 4) < cutoff_seconds(split, 4)[0] if kind != "window" else slice(None)
        assert cutoff_seconds(other, 4)[own].tolist() == cutoff_seconds(split, 4)[own].tolist()
        assert [row for row in visible_rows(other, more) if row < 10] == visible_rows(split, plain)


def test_anonymous_purchases_before_the_cutoff_are_visible() -> None:
    transactions = make_transactions(ANONYMOUS_ROWS)
    splits = make_splits(transactions, test_days=2, validation_days=2)
    assert [row for row in visible_rows(splits["test"], transactions) if row >= 10] == [10]
    assert [row for row in visible_rows(splits["release"], transactions) if row >= 10] == [10, 11, 12]
    # With cutoffs by customer there is none for them: they are visible as long as everyone's rows are.
    by_customer = make_splits(transactions, kind="last_basket")["test"]
    assert [row for row in visible_rows(by_customer, transactions) if row >= 10] == [10, 11, 12]


def test_anonymous_customers_alone_leave_nobody_to_evaluate() -> None:
    rows = [(number, OUT_OF_VOCABULARY_INDEX, 2, f"2024-01-{number + 1:02d}") for number in range(9)]
    with pytest.raises(InputError, match=r"split: the test window .* and 0 purchase\(s\) in it"):
        make_splits(make_transactions(rows), kind="window", test_days=2)
    with pytest.raises(InputError, match=r"split: none of 0 customer\(s\) has two baskets"):
        make_splits(make_transactions(rows), kind="last_basket")


def test_a_first_purchase_in_the_last_half_second_is_known_to_both(tmp_path: Path) -> None:
    # c has no row of their own: known from 23:59:59.700, which no rounding may move to the cutoff.
    purchases = [("a", "p", "2024-01-01"), ("a", "q", "2024-01-05"), ("c", "p", "2024-01-04 23:59:59.700")]
    tables = make_tables(purchases, listed=["a"])
    split = make_splits(tables.transactions, test_days=1, validation_days=1)["test"]
    assert split.as_of == at("2024-01-05")
    by_table, by_timeline = seen_by_table_and_by_timeline(tables, split, tmp_path)
    assert by_table == {"a": ["p"], "c": ["p"]}
    assert by_timeline == by_table


def test_purchases_with_a_date_alone_are_at_its_midnight() -> None:
    frame = pd.DataFrame({"row": [0, 1, 2], "customer_index": [2, 3, 2], "article_index": [2, 2, 3]})
    frame["t_dat"] = [datetime.date(2024, 1, day) for day in (1, 2, 3)]
    transactions = ibis.memtable(frame)
    assert transactions.t_dat.type().is_date()
    splits = make_splits(transactions, test_days=1, validation_days=1)
    assert visible_rows(splits["test"], transactions) == [0, 1]
    assert target_pairs(splits["test"], transactions) == [(2, 3)]


def test_describe_returns_name_kind_and_dates() -> None:
    splits = make_splits(make_transactions(ROWS), test_days=2, validation_days=2)
    assert splits["validation"].describe() == {
        "name": "validation",
        "kind": "window",
        "as_of": "2024-01-07T00:00:00",
        "end": "2024-01-09T00:00:00",
    }
    assert splits["test"].describe()["end"] is None
