"""A summary of prepared tables for a terminal: a wrong mapping shows here first."""

import rich.box
from ibis import _
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.schema import Tables


def make_summary(tables: Tables) -> Table:
    """Lays out how many rows there are, the time that they span, and how many rows each rule touched.

    Args:
        tables: Indexed tables.
    """
    first, last = tables.transactions.agg(first=_.t_dat.min(), last=_.t_dat.max()).execute().iloc[0]
    days = (last.normalize() - first.normalize()).days + 1
    summary = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    summary.add_column("table", no_wrap=True)
    summary.add_column("rows", justify="right", no_wrap=True)
    summary.add_column("what")
    span = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, {days:,} day(s)"
    named = (("customers", ""), ("articles", ""), ("transactions", span))
    for place, (name, words) in enumerate(named):
        rows = int(getattr(tables, name).count().execute())
        summary.add_row(name, f"{rows:,}", words, end_section=place == len(named) - 1)
    for count in tables.counts:
        summary.add_row(count.table, f"{count.rows:,}", escape(count.rule))
    return summary
