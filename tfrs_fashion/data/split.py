"""Splits: a cutoff for each customer, and the purchases after it that a recommender has to find.

Nothing at or after a customer's cutoff is visible to what is fitted and to what is looked up. `visible` is the one
place where that is decided for tables; `Timelines.before` follows the same cutoffs.
"""

import datetime
from dataclasses import dataclass, replace
from typing import Literal

import ibis
import numpy as np
from ibis import _

from tfrs_fashion.schema import FIRST_INDEX, InputError

Kind = Literal["window", "last_basket", "share", "leave_one_out", "everything"]


@dataclass(frozen=True)
class Split:
    """Cutoffs and the targets behind them.

    Attributes:
        name: `validation`, `test` or `release`.
        kind: The rule that made it.
        as_of: First instant that nobody's visible rows reach; with a window, everyone's cutoff.
        end: Targets end before this instant; None where they run to the end of the data.
        cutoffs: For rules by customer, `customer_index, cutoff` and, for `leave_one_out`, `held_out` (the
            `article_index` that alone is the target); None where `as_of` is everyone's cutoff.
        within: The split whose visible rows this one cuts again, so that validation never sees what test hides.
    """

    name: str
    kind: Kind
    as_of: datetime.datetime
    end: datetime.datetime | None = None
    cutoffs: ibis.Table | None = None
    within: "Split | None" = None

    def describe(self) -> dict[str, str | None]:
        """Returns the split in words that a report can show."""
        return {
            "name": self.name,
            "kind": self.kind,
            "as_of": self.as_of.isoformat(),
            "end": self.end.isoformat() if self.end else None,
        }


def days_before(instant: datetime.datetime, days: int) -> datetime.datetime:
    """Returns the instant some days earlier, or the earliest one there is.

    >>> days_before(datetime.datetime(2020, 9, 22), 7)
    datetime.datetime(2020, 9, 15, 0, 0)
    >>> days_before(datetime.datetime(2020, 9, 22), 10**6)
    datetime.datetime(1, 1, 1, 0, 0)
    """
    try:
        return instant - datetime.timedelta(days=days)
    except OverflowError:
        return datetime.datetime.min


def _with_cutoffs(split: Split, transactions: ibis.Table) -> ibis.Table:
    if split.within is not None:
        transactions = visible(split.within, transactions)
    if split.cutoffs is None:
        return transactions.mutate(cutoff=ibis.literal(split.as_of))
    joined = transactions.left_join(split.cutoffs, "customer_index").drop("customer_index_right")
    return joined.mutate(cutoff=joined.cutoff.fill_null(ibis.literal(split.as_of)))


def visible(split: Split, transactions: ibis.Table) -> ibis.Table:
    """Returns the transactions before each customer's cutoff: all that a fit may see."""
    return _with_cutoffs(split, transactions).filter(_.t_dat < _.cutoff).select(*transactions.columns)


def target_rows(split: Split, transactions: ibis.Table) -> ibis.Table:
    """Returns the transactions at or after the cutoff, within the window, that a recommender has to find.

    Repeat purchases count, anonymous ones do not; with `leave_one_out` they are of one article a customer.
    """
    after = _with_cutoffs(split, transactions).filter(_.t_dat >= _.cutoff)
    if split.end is not None:
        after = after.filter(_.t_dat < ibis.literal(split.end))
    if split.kind == "leave_one_out":
        after = after.filter((_.t_dat == _.cutoff) & (_.article_index == _.held_out))
    elif split.kind != "window":
        after = after.filter(_.cutoff < ibis.literal(split.as_of))
    return after.filter(_.customer_index >= FIRST_INDEX).select(*transactions.columns)


def targets(split: Split, transactions: ibis.Table) -> ibis.Table:
    """Returns the distinct `customer_index, article_index` of `target_rows`."""
    after, pair = target_rows(split, transactions), ["customer_index", "article_index"]
    # Grouped, not distinct: for Spark, Ibis would take `t_dat` of the filters into a SELECT DISTINCT.
    return after.group_by(pair).agg(lines=_.count()).select(*pair).order_by(pair)


def target_counts(split: Split, transactions: ibis.Table) -> ibis.Table:
    """Counts `num_orders` and `quantity` of each pair of `targets`, in their order."""
    pair = ["customer_index", "article_index"]
    rows = target_rows(split, transactions).select(*pair, "basket_id", quantity=_.quantity.cast("float64"))
    return rows.group_by(pair).agg(num_orders=_.basket_id.nunique(), quantity=_.quantity.sum()).order_by(pair)


def first_purchase_seconds(split: Split, transactions: ibis.Table, cutoffs: np.ndarray) -> np.ndarray:
    """Returns when each customer bought the first of the targets.

    Args:
        split: Any split.
        transactions: Indexed transactions.
        cutoffs: `[any]` int64 by `customer_index`, of `cutoff_seconds`.

    Returns:
        As `cutoffs`, in seconds since 1970; the cutoff of who has no target.
    """
    rows = target_rows(split, transactions)
    frame = rows.group_by("customer_index").agg(seconds=epoch_seconds(_.t_dat.min())).execute()
    frame, seconds = frame[frame["customer_index"] < len(cutoffs)], cutoffs.copy()
    seconds[frame["customer_index"].to_numpy()] = frame["seconds"].to_numpy()
    return seconds


def cutoff_seconds(split: Split, num_customers: int) -> np.ndarray:
    """Returns each customer's cutoff.

    Args:
        split: Any split.
        num_customers: Customers known to the tables.

    Returns:
        `[num_customers + 2]` int64, seconds since 1970 by `customer_index`.
    """
    seconds = np.full(num_customers + 2, seconds_since_1970(split.as_of), dtype=np.int64)
    if split.cutoffs is not None:
        frame = split.cutoffs.select("customer_index", seconds=epoch_seconds(_.cutoff)).execute()
        seconds[frame["customer_index"].to_numpy()] = frame["seconds"].to_numpy()
    if split.within is not None:
        seconds = np.minimum(seconds, cutoff_seconds(split.within, num_customers))
    return seconds


def seconds_since_1970(instant: datetime.datetime) -> int:
    """Rounds down, as event times are, so that an event in the cutoff's own second is never visible."""
    return int((instant - datetime.datetime(1970, 1, 1)).total_seconds() // 1)


def epoch_seconds(instants: ibis.Value) -> ibis.Value:
    """Returns a column of dates or timestamps as whole seconds since 1970, rounded down, whichever the engine.

    DuckDB's own function gives fractions, which a cast rounds to the nearest, and Spark's truncates towards 1970.
    """
    return instants.cast("timestamp").truncate("s").epoch_seconds().cast("int64")


def _after(transactions: ibis.Table) -> datetime.datetime:
    """Returns the first whole second after all transactions."""
    latest = transactions.t_dat.max().execute().to_pydatetime()
    return latest.replace(microsecond=0) + datetime.timedelta(seconds=1)


def _window(transactions: ibis.Table, name: str, *, start: datetime.datetime, end: datetime.datetime | None) -> Split:
    split = Split(name=name, kind="window", as_of=start, end=end)
    seen, bought = (
        int(rows.count().execute()) for rows in (visible(split, transactions), targets(split, transactions))
    )
    if seen and bought:
        return split
    first, last = (
        value.to_pydatetime() for value in transactions.agg(a=_.t_dat.min(), b=_.t_dat.max()).execute().loc[0]
    )
    raise InputError(
        f"split: the {name} window from {start:%Y-%m-%d} to {end or last:%Y-%m-%d} has {seen:,} row(s) before it and "
        f"{bought:,} purchase(s) in it; the transactions run from {first:%Y-%m-%d} to {last:%Y-%m-%d}. "
        "Shorten `split.test_days` and `split.validation_days`."
    )


def _by_customer(transactions: ibis.Table, name: str, *, kind: Kind, share: float) -> Split:
    """Cuts each customer's own history; customers with a single basket stay visible and are not judged."""
    latest = _after(transactions)
    named = transactions.filter(_.customer_index >= FIRST_INDEX)
    baskets = named.group_by(["customer_index", "t_dat"]).agg(last_article=_.article_index.max())
    position = ibis.row_number().over(ibis.window(group_by="customer_index", order_by=baskets.t_dat))
    num_baskets = baskets.count().over(ibis.window(group_by="customer_index"))
    numbered = baskets.mutate(position=position, num_baskets=num_baskets).filter(_.num_baskets >= 2)
    if kind == "share":
        first_held_out = ibis.greatest((_.num_baskets * share).floor().cast("int64"), 1)
    else:
        first_held_out = _.num_baskets - 1
    cutoffs = numbered.filter(_.position == first_held_out).select(
        "customer_index", cutoff=_.t_dat, held_out=_.last_article
    )
    backend = transactions.get_backend()
    if backend.name == "pyspark":  # has no temporary tables; what is cached lives as long as the split
        cutoffs = cutoffs.cache()
    else:
        cutoffs = backend.create_table(ibis.util.gen_name("cutoffs"), cutoffs, temp=True)
    if int(cutoffs.count().execute()) == 0:
        customers = int(named.customer_index.nunique().execute())
        raise InputError(
            f"split: none of {customers:,} customer(s) has two baskets before the {name} targets, so `{kind}` leaves "
            'nobody to judge. Use `split.kind = "window"`, or bring longer histories.'
        )
    return Split(name=name, kind=kind, as_of=latest, cutoffs=cutoffs)


def _one(transactions: ibis.Table, name: str, *, kind: Kind, days: int, share: float) -> Split:
    if kind != "window":
        return _by_customer(transactions, name, kind=kind, share=share)
    last_day = transactions.t_dat.max().execute().to_pydatetime().replace(hour=0, minute=0, second=0, microsecond=0)
    return _window(transactions, name, start=days_before(last_day, days - 1), end=None)


def make_splits(
    transactions: ibis.Table, *, kind: Kind = "window", test_days: int = 7, validation_days: int = 7, share: float = 0.7
) -> dict[str, Split]:
    """Makes the three splits of a run.

    The validation split is made by the same rule from what the test split leaves visible, so that choosing on it
    sees nothing of the test. The release split sees everything and has no targets.

    Args:
        transactions: Indexed transactions.
        kind: The rule; see `SplitConfig`.
        test_days: Calendar days in the test window, the last one being the last day of the data.
        validation_days: Days in the window before it.
        share: Share of the baskets of a customer that stays visible, for `share`.

    Returns:
        Splits named `validation`, `test` and `release`.

    Raises:
        InputError: A window holds no purchase, or no row lies before it.
    """
    test = _one(transactions, "test", kind=kind, days=test_days, share=share)
    if kind == "window":
        start = days_before(test.as_of, validation_days)
        validation = _window(transactions, "validation", start=start, end=test.as_of)
    else:
        cut = _one(visible(test, transactions), "validation", kind=kind, days=validation_days, share=share)
        validation = replace(cut, within=test)
    release = Split(name="release", kind="everything", as_of=_after(transactions))
    return {"validation": validation, "test": test, "release": release}
