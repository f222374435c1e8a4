"""The summary of prepared tables that the command prints; a wrong mapping is noticed here first."""

import rich.box
from ibis import _
from rich.markup import escape
from rich.table import Table

from tfrs_fashion.schema import Tables


def make_summary(tables: Tables) -> Table:
    """Makes a table of the row counts, the time span of the transactions, and the rows that each rule touched.

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
    for name in ("customers", "articles", "transactions"):
        rows, is_last = int(getattr(tables, name).count().execute()), name == "transactions"
        summary.add_row(name, f"{rows:,}", span if is_last else "", end_section=is_last)
    for count in tables.counts:
        summary.add_row(count.table, f"{count.rows:,}", escape(count.rule))
    return summary
