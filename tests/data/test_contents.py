"""Fingerprints of purchases: what changes them, and what does not."""

import ibis
import pandas as pd
import pytest

from tfrs_fashion.data.contents import Contents
from tfrs_fashion.schema import Tables

# Who, what, and the day of January.
PURCHASES = [("c1", "a1", 1), ("c1", "a2", 2), ("c2", "a1", 2), ("größe", "a2", 3)]


def make(purchases: list[tuple[str, str, int]], *more_customers: str, **columns: object) -> Tables:
    """Indexed tables of purchases, ids in their order."""
    frame = pd.DataFrame(purchases, columns=["customer_id", "article_id", "day"])
    ids = {name: sorted({*frame[name], *more}) for name, more in (("customer_id", more_customers), ("article_id", ()))}
    tables = {
        name: pd.DataFrame({f"{name}_id": ids[f"{name}_id"], f"{name}_index": range(2, 2 + len(ids[f"{name}_id"]))})
        for name in ("customer", "article")
    }
    frame["t_dat"] = pd.Timestamp("2023-12-31") + pd.to_timedelta(frame["day"], unit="D")
    for name, table in tables.items():
        frame = frame.merge(table)
        frame[f"{name}_index"] = frame[f"{name}_index"].astype("int32")
    return Tables(
        ibis.memtable(tables["customer"]), ibis.memtable(tables["article"]), ibis.memtable(frame.assign(**columns))
    )


def of_purchases(tables: Tables) -> str:
    return Contents.of(tables).of_purchases(tables.transactions)


def test_fingerprint_ignores_row_order_other_columns_and_indices() -> None:
    expected = of_purchases(make(PURCHASES))
    assert len(expected) == 64
    assert of_purchases(make(PURCHASES[::-1])) == expected
    assert of_purchases(make(PURCHASES, price=9.5)) == expected
    # Of a customer who bought nothing, who moves all others' indices.
    assert of_purchases(make(PURCHASES, "a customer")) == expected


@pytest.mark.parametrize(
    "changed",
    [
        PURCHASES[:-1],
        [*PURCHASES, PURCHASES[0]],
        [*PURCHASES[:-1], ("grösse", "a2", 3)],
        [*PURCHASES[:-1], ("größe", "a1", 3)],
        [*PURCHASES[:-1], ("größe", "a2", 4)],
        # The same customers, articles and days, otherwise together.
        [("c1", "a2", 1), ("c1", "a1", 2), *PURCHASES[2:]],
    ],
)
def test_fingerprint_changes_with_any_purchase(changed: list[tuple[str, str, int]]) -> None:
    assert of_purchases(make(changed)) != of_purchases(make(PURCHASES))


def test_fingerprint_of_targets_ignores_time() -> None:
    tables = make(PURCHASES)
    contents, rows = Contents.of(tables), tables.transactions.execute()
    assert contents.of_targets(rows) == contents.of_targets(rows[::-1].assign(t_dat=pd.Timestamp("2020-01-01")))
    assert contents.of_targets(rows) != contents.of_targets(rows[1:])
    assert contents.of_targets(rows) != contents.of_purchases(tables.transactions)
