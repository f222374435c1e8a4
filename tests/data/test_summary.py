import datetime
from dataclasses import replace
from io import StringIO

import ibis
import pandas as pd
from rich.console import Console

from tfrs_fashion.data.summary import make_summary
from tfrs_fashion.schema import RowCount, Tables


def show(tables: Tables) -> list[str]:
    console = Console(file=StringIO(), width=80)
    console.print(make_summary(tables))
    assert isinstance(console.file, StringIO)
    return [line.strip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_summary_shows_rows_time_span_and_each_rule() -> None:
    lines = pd.DataFrame({"t_dat": [datetime.datetime(2024, 2, 28, 23), datetime.datetime(2024, 3, 1, 1)] * 600})
    tables = Tables(
        customers=ibis.memtable(pd.DataFrame({"customer_id": ["a"]})),
        articles=ibis.memtable(pd.DataFrame({"article_id": ["x", "y"]})),
        transactions=ibis.memtable(lines),
        counts=(RowCount("articles", "`a[red]`: trimmed", 1234),),
    )
    shown = [" ".join(line.split()) for line in show(tables)]
    # The year has a 29 February.
    assert shown[0] == "table rows what"
    assert shown[2:5] == ["customers 1", "articles 2", "transactions 1,200 2024-02-28 to 2024-03-01, 3 day(s)"]
    assert shown[-1] == "articles 1,234 `a[red]`: trimmed"
    # Nothing stands below where no rule touched a row.
    assert len(show(replace(tables, counts=()))) == 5
