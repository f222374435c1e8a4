"""The aggregates that `explore` shows: small tables counted by the database, which never returns the rows themselves.

Baskets, each customer's distinct articles, and sales per article are counted once, in temporary tables on the tables'
own connection that last as long as the `count_basis` block.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.schema import OUT_OF_VOCABULARY_INDEX, Tables

# From this many days on, time is counted by week.
WEEKLY_DAYS = 35
NUM_PRICE_BINS = 40
NUM_CURVE_POINTS = 1000
_KEYS = ("customer_id", "article_id", "basket_id", "customer_index", "article_index")


@dataclass(frozen=True)
class Basis:
    """The tables, and what many figures share.

    Attributes:
        transactions: Indexed transactions.
        articles: Indexed articles.
        customers: Indexed customers.
        baskets: One row per basket: `customer_index`, `t_dat`, `basket`, `lines`.
        pairs: One row per known customer and article: `customer_index`, `article_index`, `t_dat` of the first purchase, its
            number of `lines`, and the number of `times` that the customer bought it.
        sales: One row per article sold: `article_index`, `lines`, `first`.
        roles: Column of articles by role: `section_group`, `section`, `category`, `garment_group`, `colour`.
    """

    transactions: ibis.Table
    articles: ibis.Table
    customers: ibis.Table
    baskets: ibis.Table
    pairs: ibis.Table
    sales: ibis.Table
    roles: Mapping[str, str] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """The column of articles that figures are grouped by; empty if there is none."""
        return self.roles.get("section_group") or self.roles.get("section") or ""

    @cached_property
    def totals(self) -> dict[str, float]:
        """Totals over all lines; `value` and the price quantiles are NaN if no price is known."""
        lines = self.transactions.agg(
            lines=_.count(),
            anonymous_lines=(_.customer_index == OUT_OF_VOCABULARY_INDEX).sum(),
            units=_.quantity.sum(),
            value=(_.price * _.quantity).sum(),
            priced_lines=_.price.count(),
            free_lines=(_.price == 0).sum(),
            price_median=_.price.quantile(0.5),
            price_p99=_.price.quantile(0.99),
            price_max=_.price.max(),
            stores=_.store_id.nunique(),
        )
        baskets = self.baskets.agg(
            baskets=_.count(),
            buyers=_.customer_index.nunique(where=_.customer_index != OUT_OF_VOCABULARY_INDEX),
        )
        counts = [self.sales.agg(sold_articles=_.count()), self.articles.agg(articles=_.count())]
        return {name: value for table in (lines, baskets, *counts) for name, value in table.execute().iloc[0].items()}

    @cached_property
    def days(self) -> tuple[pd.Timestamp, pd.Timestamp]:
        """The first and the last day with a purchase."""
        row = self.baskets.agg(first=_.t_dat.min(), last=_.t_dat.max()).execute().iloc[0]
        return pd.Timestamp(row["first"]).normalize(), pd.Timestamp(row["last"]).normalize()

    @property
    def num_days(self) -> int:
        """Number of days from the first to the last purchase, both included."""
        return (self.days[1] - self.days[0]).days + 1

    @property
    def period(self) -> str:
        """The unit of figures over time: `week` or `day`."""
        return "week" if self.num_days >= WEEKLY_DAYS else "day"

    def period_of(self, column: ibis.Value) -> ibis.Value:
        """Returns the period of an instant: its day, or the Monday of its week."""
        return column.cast("timestamp").truncate("W" if self.period == "week" else "D")

    @cached_property
    def periods(self) -> tuple[pd.DatetimeIndex, np.ndarray]:
        """All periods from the first to the last purchase, and which of them the data cover only in part."""
        first, last = self.days
        if self.period == "day":
            days = pd.date_range(first, last, freq="D", name="period")
            return days, np.zeros(len(days), dtype=bool)
        weeks = pd.date_range(first - pd.Timedelta(days=first.weekday()), last, freq="7D", name="period")
        return weeks, np.asarray((weeks < first) | (weeks + pd.Timedelta(days=6) > last))

    @property
    def partial_note(self) -> str:
        """Names the periods that the data cover only in part; empty if there are none."""
        periods, is_partial = self.periods
        partial = ", ".join(f"{day.date()} on" for day in periods[is_partial])
        return f"Weeks that the data cover only in part ({partial}) are hollow points." if partial else ""

    @property
    def known_baskets(self) -> ibis.Table:
        """The baskets of customers who are not anonymous."""
        return self.baskets.filter(_.customer_index != OUT_OF_VOCABULARY_INDEX)

    @cached_property
    def by_period(self) -> pd.DataFrame:
        """Counts by day or week, one row each, without gaps.

        Columns: `lines`, `baskets`, and `new_articles` (first sold then); of known customers also `known_lines`, `first_lines`
        (the article was in no earlier basket of the customer), `buyers`, and `new_customers` (first seen then).
        """

        def count(table: ibis.Table, column: str, **measures: ibis.Deferred) -> pd.DataFrame:
            return table.group_by(period=self.period_of(table[column])).agg(**measures).execute().set_index("period")

        known = self.known_baskets
        buyers = known.select("customer_index", t_dat=self.period_of(known.t_dat)).distinct()
        first_seen = known.group_by("customer_index").agg(t_dat=_.t_dat.min())
        columns = [
            count(self.baskets, "t_dat", lines=_.lines.sum(), baskets=_.count()),
            count(self.sales, "first", new_articles=_.count()),
            count(known, "t_dat", known_lines=_.lines.sum()),
            count(self.pairs, "t_dat", first_lines=_.lines.sum()),
            count(buyers, "t_dat", buyers=_.count()),
            count(first_seen, "t_dat", new_customers=_.count()),
        ]
        return pd.concat(columns, axis=1).reindex(self.periods[0]).fillna(0).astype("int64")

    @cached_property
    def by_channel(self) -> pd.DataFrame:
        """`lines`, `units` and `value` by `channel` (in words, `unknown` where null) and `period`."""
        counted = self.transactions.group_by(channel=_.sales_channel_id, period=self.period_of(_.t_dat)).agg(
            lines=_.count(), units=_.quantity.sum(), value=(_.price * _.quantity).sum()
        )
        counted = counted.order_by(["channel", "period"]).execute()
        channels = counted["channel"].astype("float64")
        return counted.assign(channel=["unknown" if pd.isna(one) else f"channel {int(one)}" for one in channels])


@contextlib.contextmanager
def count_basis(tables: Tables, roles: Mapping[str, str] | None = None) -> Iterator[Basis]:
    """Counts what figures share, and drops it when the block ends.

    Args:
        tables: Indexed tables, on a DuckDB connection.
        roles: Column of articles by role; empty for none.
    """
    lines = tables.transactions.mutate(
        t_dat=_.t_dat.cast("timestamp"), price=_.price.cast("float64"), quantity=_.quantity.cast("int64")
    )
    # All lines of a basket have one instant and one customer; a hash is a narrow key for baskets of the same instant.
    baskets = lines.group_by("customer_index", "t_dat", basket=_.basket_id.hash()).agg(lines=_.count().cast("int32"))
    known = lines.filter(_.customer_index != OUT_OF_VOCABULARY_INDEX)
    purchases = known.group_by("customer_index", "article_index", "t_dat").agg(lines=_.count().cast("int32"))
    pairs = purchases.group_by("customer_index", "article_index").agg(
        lines=_.lines.argmin(_.t_dat), times=_.count().cast("int32"), t_dat=_.t_dat.min()
    )
    sales = lines.group_by("article_index").agg(lines=_.count(), first=_.t_dat.min())
    connection = lines.get_backend()
    created: list[ibis.Table] = []
    try:
        for table in (baskets, pairs, sales):
            created.append(connection.create_table(ibis.util.gen_name("explored"), table, temp=True))
        baskets, pairs, sales = created
        yield Basis(lines, tables.articles, tables.customers, baskets, pairs, sales, roles or {})
    finally:
        for table in created:
            # DuckDB 2 cannot parse the statement that Ibis 12 writes to drop a table.
            connection.raw_sql(f"DROP TABLE {table.get_name()}")


def _is_missing(column: ibis.Value) -> ibis.Value:
    if column.type().is_floating():
        return column.isnull() | column.isnan()
    return column.isnull() | (column == "") if column.type().is_string() else column.isnull()


def _split(table: ibis.Table, name: str, separator: str) -> ibis.Table:
    """Returns one row per value in the cells of a column; a value repeated within a cell counts once."""
    values = table[name].cast("string").split(separator).map(lambda value: value.strip()).unique()
    return table.select(value=values).select(value=_.value.unnest()).filter(_.value != "")


def describe_features(
    table: ibis.Table, *, is_exact: bool = True, sets: Sequence[str] = (), set_separator: str = "|"
) -> pd.DataFrame:
    """Describes each column of a table except its keys.

    Args:
        table: Customers, articles or transactions.
        is_exact: Whether to count distinct values exactly; otherwise estimated to within a few percent.
        sets: Columns whose cells hold several values; `distinct` and `common` count these, exactly.
        set_separator: The separator between these values.

    Returns:
        `column`, `type`, `rows`, `missing` (null, NaN or empty), `distinct` values, `low` and `high` (for numbers and
        dates), `common` (for strings, the most frequent value) and `common_rows`.
    """
    columns = [name for name in table.columns if name not in _KEYS]
    measures: dict[str, ibis.Value] = {"rows": table.count()}
    for number, name in enumerate(columns):
        column, known = table[name], ~_is_missing(table[name])
        measures[f"missing_{number}"] = _is_missing(column).sum()
        measures[f"distinct_{number}"] = column.nunique(where=known) if is_exact else column.approx_nunique(where=known)
        if column.type().is_numeric() or column.type().is_temporal():
            measures[f"low_{number}"] = column.min(where=known)
            measures[f"high_{number}"] = column.max(where=known)
    measured = table.agg(**measures).execute().iloc[0]
    described = []
    for number, name in enumerate(columns):
        row = {
            "column": name,
            "type": str(table[name].type()),
            "rows": int(measured["rows"]),
            "missing": int(measured[f"missing_{number}"] or 0),
            "distinct": int(measured[f"distinct_{number}"]),
            "low": measured.get(f"low_{number}"),
            "high": measured.get(f"high_{number}"),
            "common": None,
            "common_rows": 0,
        }
        if table[name].type().is_string() and row["missing"] < row["rows"]:
            known = table.filter(~_is_missing(table[name]))
            values = _split(known, name, set_separator) if name in sets else known.select(value=known[name])
            counted = values.group_by("value").agg(rows=_.count())
            if name in sets:
                row |= {"type": "set", "distinct": int(counted.count().execute())}
            most = counted.order_by([_.rows.desc(), _.value]).limit(1).execute()
            # A cell of separators alone holds no value.
            for value, rows in most.itertuples(index=False):
                row |= {"common": str(value), "common_rows": int(rows)}
        described.append(row)
    return pd.DataFrame(described)


def _label(table: ibis.Table, name: str) -> ibis.Value:
    """Returns a feature as text, with `(missing)` for missing values."""
    label = table[name].cast("string")
    return ibis.ifelse(_is_missing(table[name]) | (label == ""), "(missing)", label)


def count_assortment(basis: Basis, **roles: str) -> pd.DataFrame:
    """Counts the catalogue and its sales by features of articles.

    Args:
        basis: The tables.
        **roles: Column of articles by its name in the result.

    Returns:
        One row per combination: the roles, `articles` (of the catalogue), `sold` (articles with a line) and `lines`; most lines first.
    """
    articles = basis.articles
    labelled = articles.select("article_index", **{role: _label(articles, name) for role, name in roles.items()})
    sold = labelled.left_join(basis.sales, "article_index")
    counted = sold.group_by(*roles).agg(
        articles=_.count(), sold=_.lines.count(), lines=_.lines.sum().fill_null(0).cast("int64")
    )
    return counted.order_by([_.lines.desc(), _.articles.desc(), *roles]).execute()


def count_ages(basis: Basis, group: str = "") -> pd.DataFrame:
    """Counts `lines` by the buyer's `age` in whole years, and by the column `group` of articles if one is named."""
    ages = basis.customers.filter(~_is_missing(basis.customers.age)).select(
        "customer_index", age=_.age.floor().cast("int64")
    )
    lines = basis.transactions.select("customer_index", "article_index").join(ages, "customer_index")
    if not group:
        return lines.group_by("age").agg(lines=_.count()).order_by("age").execute()
    labels = basis.articles.select("article_index", group=_label(basis.articles, group))
    return (
        lines.join(labels, "article_index")
        .group_by("group", "age")
        .agg(lines=_.count())
        .order_by(["group", "age"])
        .execute()
    )


def _distribution(values: ibis.Table, column: str) -> pd.DataFrame:
    return values.group_by(value=values[column].cast("int64")).agg(rows=_.count()).order_by("value").execute()


def count_basket_sizes(basis: Basis) -> pd.DataFrame:
    """Counts baskets (`rows`) by their lines (`value`)."""
    return _distribution(basis.baskets, "lines")


def count_quantities(basis: Basis) -> pd.DataFrame:
    """Counts lines (`rows`) by their quantity (`value`)."""
    return _distribution(basis.transactions, "quantity")


def count_activity(basis: Basis) -> pd.DataFrame:
    """Counts customers with a purchase (`rows`) by their baskets (`value`)."""
    return _distribution(basis.known_baskets.group_by("customer_index").agg(baskets=_.count()), "baskets")


def count_gaps(basis: Basis) -> pd.DataFrame:
    """Counts pairs of consecutive days on which a customer bought (`rows`) by the days between them (`value`)."""
    days = basis.known_baskets.select("customer_index", day=_.t_dat.truncate("D")).distinct()
    before = days.day.lag().over(ibis.window(group_by="customer_index", order_by="day"))
    gaps = days.mutate(before=before).filter(_.before.notnull())
    return _distribution(gaps.mutate(gap=_.day.delta(_.before, unit="day")), "gap")


def count_repeating_customers(basis: Basis) -> int:
    """Counts customers who bought an article again in a later basket."""
    return int(basis.pairs.filter(_.times > 1).customer_index.nunique().execute())


def count_prices(basis: Basis, *, upper: float) -> pd.DataFrame:
    """Counts lines by price in `NUM_PRICE_BINS` equal bins from 0 to `upper`.

    Returns:
        `low`, `high` and `rows` of each bin; the last one includes `upper`.
    """
    width = upper / NUM_PRICE_BINS
    bin_of_line = ibis.least((_.price / width).floor().cast("int64"), NUM_PRICE_BINS - 1)
    counted = basis.transactions.filter(_.price <= upper).group_by(bin=bin_of_line).agg(rows=_.count()).execute()
    rows = counted.set_index("bin")["rows"].reindex(range(NUM_PRICE_BINS), fill_value=0).to_numpy()
    edges = np.linspace(0, upper, NUM_PRICE_BINS + 1)
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], "rows": rows})


def count_long_tail(basis: Basis) -> pd.DataFrame:
    """Accumulates the lines of the articles sold, best-selling first.

    Returns:
        About `NUM_CURVE_POINTS` points from none to all: cumulative `articles` and `lines`.
    """
    order_by = [_.lines.desc(), _.article_index]
    order = ibis.window(order_by=order_by)
    ranked = basis.sales.mutate(place=ibis.row_number().over(order) + 1, so_far=_.lines.cumsum(order_by=order_by))
    step = max(1, int(np.ceil(basis.totals["sold_articles"] / NUM_CURVE_POINTS)))
    # The curve always reaches the last article.
    kept = ranked.filter((_.place % step == 0) | (_.place == int(basis.totals["sold_articles"])))
    points = kept.select(articles=_.place, lines=_.so_far).order_by("articles").execute()
    start = pd.DataFrame({"articles": [0], "lines": [0]})
    return pd.concat([start, points.astype("int64")], ignore_index=True)
