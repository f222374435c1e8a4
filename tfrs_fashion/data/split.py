"""Splits: a cutoff for each customer, and the purchases after it, which are the targets of recommenders.

No fit and no lookup sees anything at or after a customer's cutoff. For tables, `visible` is the only place that decides
this; `Timelines.before` follows the same cutoffs.
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
    """Cutoffs, and the window of the targets after them.

    Attributes:
        name: `validation`, `test` or `release`.
        kind: The rule by which it was made.
        as_of: First instant after every visible row; for a window, the cutoff of all customers.
        end: First instant after the targets; None if they extend to the end of the data.
        cutoffs: `customer_index, cutoff` and `held_out` (for `leave_one_out`, the `article_index` of the only target);
            None if `as_of` is the cutoff of all customers.
        within: A split whose visible rows are split again, so that validation never sees what test hides; None if all
            rows are split.
    """

    name: str
    kind: Kind
    as_of: datetime.datetime
    end: datetime.datetime | None = None
    cutoffs: ibis.Table | None = None
    within: "Split | None" = None

    def describe(self) -> dict[str, str | None]:
        """Returns the split as text for a report."""
        return {
            "name": self.name,
            "kind": self.kind,
            "as_of": self.as_of.isoformat(),
            "end": self.end.isoformat() if self.end else None,
        }


def days_before(instant: datetime.datetime, days: int) -> datetime.datetime:
    """Returns the instant some days earlier, or the earliest possible instant.

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
    """Returns the transactions before each customer's cutoff, which are all that a fit may see."""
    return _with_cutoffs(split, transactions).filter(_.t_dat < _.cutoff).select(*transactions.columns)


def target_rows(split: Split, transactions: ibis.Table) -> ibis.Table:
    """Returns the transactions from each cutoff to the end of the window, which contain the targets.

    Repeat purchases count, anonymous ones do not. With `leave_one_out` there is only one article per customer.
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
    # Not `distinct`: on Spark, Ibis would add the `t_dat` that the filters read to the SELECT DISTINCT.
    return after.group_by(pair).agg(lines=_.count()).select(*pair).order_by(pair)


def target_counts(split: Split, transactions: ibis.Table) -> ibis.Table:
    """Returns `num_orders` and `quantity` of each pair of `targets`, in the same order."""
    pair = ["customer_index", "article_index"]
    rows = target_rows(split, transactions).select(*pair, "basket_id", quantity=_.quantity.cast("float64"))
    return rows.group_by(pair).agg(num_orders=_.basket_id.nunique(), quantity=_.quantity.sum()).order_by(pair)


def first_purchase_seconds(split: Split, transactions: ibis.Table, cutoffs: np.ndarray) -> np.ndarray:
    """Returns the time of each customer's first target.

    Args:
        split: Any split.
        transactions: Indexed transactions.
        cutoffs: `[any]` int64, seconds since 1970 by `customer_index`, from `cutoff_seconds`.

    Returns:
        Seconds since 1970, in the shape of `cutoffs`; the cutoff for customers without a target.
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
        num_customers: Number of rows in the customers table.

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
    """Converts to whole seconds, rounded down as event times are: events in the cutoff's own second are never visible."""
    return int((instant - datetime.datetime(1970, 1, 1)).total_seconds() // 1)


def epoch_seconds(instants: ibis.Value) -> ibis.Value:
    """Converts a column of dates or timestamps to whole seconds since 1970, rounded down on every engine.

    Without `truncate`, DuckDB's fractions would be rounded to the nearest second, and Spark would round towards 1970.
    """
    return instants.cast("timestamp").truncate("s").epoch_seconds().cast("int64")


def _after(transactions: ibis.Table) -> datetime.datetime:
    """Returns the first whole second after all transactions."""
    latest = transactions.t_dat.max().execute().to_pydatetime()
    return latest.replace(microsecond=0) + datetime.timedelta(seconds=1)


def _window(transactions: ibis.Table, name: str, *, start: datetime.datetime, end: datetime.datetime | None) -> Split:
    split = Split(name=name, kind="window", as_of=start, end=end)
    num_visible = int(visible(split, transactions).count().execute())
    num_targets = int(targets(split, transactions).count().execute())
    if num_visible and num_targets:
        return split
    first, last = transactions.agg(first=_.t_dat.min(), last=_.t_dat.max()).execute().loc[0]
    raise InputError(
        f"split: the {name} window from {start:%Y-%m-%d} to {end or last:%Y-%m-%d} has {num_visible:,} row(s) before it and "
        f"{num_targets:,} purchase(s) in it; the transactions run from {first:%Y-%m-%d} to {last:%Y-%m-%d}. "
        "Shorten `split.test_days` and `split.validation_days`."
    )


def _by_customer(transactions: ibis.Table, name: str, *, kind: Kind, share: float) -> Split:
    """Splits each customer's own history; customers with a single basket stay visible and are not evaluated."""
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
    if backend.name == "pyspark":  # has no temporary tables; a cached one lives as long as the split
        cutoffs = cutoffs.cache()
    else:
        cutoffs = backend.create_table(ibis.util.gen_name("cutoffs"), cutoffs, temp=True)
    if int(cutoffs.count().execute()) == 0:
        customers = int(named.customer_index.nunique().execute())
        raise InputError(
            f"split: none of {customers:,} customer(s) has two baskets before the {name} targets, so `{kind}` leaves "
            'nobody to evaluate. Use `split.kind = "window"`, or bring longer histories.'
        )
    return Split(name=name, kind=kind, as_of=latest, cutoffs=cutoffs)


def make_splits(
    transactions: ibis.Table, *, kind: Kind = "window", test_days: int = 7, validation_days: int = 7, share: float = 0.7
) -> dict[str, Split]:
    """Makes the three splits of a run.

    The validation split applies the same rule to the rows that the test split leaves visible, so that choosing settings
    on it reveals nothing about the test. The release split sees everything and has no targets.

    Args:
        transactions: Indexed transactions.
        kind: The rule; see `SplitConfig`.
        test_days: Number of calendar days in the test window, which ends with the last day of the data.
        validation_days: Number of days in the window before it.
        share: Share of a customer's baskets that stay visible, for `share`.

    Returns:
        Splits named `validation`, `test` and `release`.

    Raises:
        InputError: A window has no purchase, or there is no row before it.
    """
    if kind == "window":
        last_day = _after(transactions) - datetime.timedelta(seconds=1)
        first_day = days_before(last_day.replace(hour=0, minute=0, second=0), test_days - 1)
        test = _window(transactions, "test", start=first_day, end=None)
        first_day = days_before(first_day, validation_days)
        validation = _window(transactions, "validation", start=first_day, end=test.as_of)
    else:
        test = _by_customer(transactions, "test", kind=kind, share=share)
        validation = _by_customer(visible(test, transactions), "validation", kind=kind, share=share)
        validation = replace(validation, within=test)
    release = Split(name="release", kind="everything", as_of=_after(transactions))
    return {"validation": validation, "test": test, "release": release}
