"""Weekly article features: sales, prices and buyers of each article, as known at the start of each week.

Weeks are counted backwards from a cutoff: week 0 starts at the cutoff, week w starts 7 · w days before it. The features of
a week come only from rows strictly before its start, the week's "instant". A prediction looks up the latest instant that
is not later than itself, so a training example from March sees the features of March, not those of the cutoff.
"""

import datetime
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import ibis
import numpy as np
import pyarrow.dataset
import pyarrow.parquet
from ibis import _

from tfrs_fashion.data.split import days_before, epoch_seconds, seconds_since_1970
from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.schema import FIRST_INDEX, OLDEST, YOUNGEST, check_names

Month = TypeVar("Month", int, ibis.Value)

SEASONS = ("winter", "spring", "summer", "autumn")
# The upper ends of the age groups, exclusive.
AGE_GROUPS = {"age_share_under_25": 25, "age_share_25_34": 35, "age_share_35_49": 50, "age_share_50_up": 200}
NUM_CHANNELS = 3
_LONGEST = 13
_ONE_IN = 20  # One article in so many is a bestseller: the best 5%.

# A sale is a basket that contains the article: it counts once, whatever the quantity or the number of lines. All lines of a
# customer at one instant are one basket (anonymous customers: all lines of one basket id); `index_tables` gives the lines of
# a basket the same instant. Ages outside `YOUNGEST`..`OLDEST` are typing errors and count as unknown. "Visible" means
# strictly before the week's instant. Shares lie in [0, 1]. A feature is null (NaN in the array) where it is undefined.
FEATURES: dict[str, str] = {
    "sales_1w": "baskets in the last 7 days; 0 if none",
    "sales_4w": "baskets in the last 28 days; 0 if none",
    "sales_13w": "baskets in the last 91 days; 0 if none",
    "trend": "log((sales_1w + 1) / (sales_4w / 4 + 1)); 0 if none",
    "days_on_sale": "days since the first visible sale; null if never sold",
    "days_since_sold": "days since the last visible sale; null if never sold",
    "mean_price": "mean price of the visible lines, in the currency of the source; null where no price is known",
    "price_to_category": "mean_price over the mean price of all visible lines of the category; null where either is "
    "unknown or the latter is 0",
    "discount_rate": "mean discount of the visible lines; null where no discount is known",
    "buyers": "distinct customers, without anonymous ones; 0 if none",
    "repurchase_rate": "share of the buyers with two baskets or more of it; null without buyers",
    **{f"season_share_{name}": f"share of its sales in {name}; null if never sold" for name in SEASONS},
    "seasonal_bestseller": "1 if among the best 5% of its category (those without a category compete together) by sales "
    "in the season of the instant, of this and earlier years, ties included, else 0",
    "age_preference": "mean age of its buyers minus that of all customers who bought anything, in years; null where no "
    "buyer's age is known",
    **{name: "share of its buyers with known age in this group; null where none is" for name in AGE_GROUPS},
    **{
        f"channel_share_{number + 1}": f"share of its lines with a known channel in channel {number + 1}, in the order in "
        "which the retailer's channels first sold anything, then of their ids; null where no channel is known"
        for number in range(NUM_CHANNELS)
    },
    "product_sales_4w": "sales_4w of the other articles of its product code, summed; null without a product code",
    "product_sales_13w": "sales_13w of the other articles of its product code, summed; null without a product code",
    "category_sales_4w": "sales_4w of all articles of its category, summed; null without a category",
}


def season_of(month: Month) -> Month:
    """Returns the position in `SEASONS` of a month's meteorological season on the northern hemisphere.

    >>> [season_of(month) for month in (12, 2, 3, 11)]
    [0, 0, 1, 3]
    """
    return month % 12 // 3


def _share(part: ibis.Value, whole: ibis.Value) -> ibis.Value:
    """Divides; null where the whole is 0, because DuckDB and Spark disagree on division by zero."""
    return part.cast("float64") / whole.cast("float64").nullif(0.0)


def _where_known(key: ibis.Value, value: ibis.Value) -> ibis.Value:
    return ibis.ifelse(key == "", ibis.null("float64"), value)


def _visible(transactions: ibis.Table, *, end: int, oldest: int, seconds: int) -> ibis.Table:
    """Adds `second`, and `week`: the first week whose instant lies after the row, so that a row at an instant is not visible there."""
    rows = transactions.mutate(second=epoch_seconds(_.t_dat)).filter(_.second < end)
    return rows.mutate(week=ibis.least(((end - 1 - _.second) / seconds).floor().cast("int32"), oldest))


def _list_ages(customers: ibis.Table) -> ibis.Table:
    if "age" not in customers.columns:
        customers = customers.mutate(age=ibis.null("float64"))
    return customers.filter(_.age.between(YOUNGEST, OLDEST)).select(
        "customer_index", age=_.age.cast("float64"), age_since=epoch_seconds(_.known_from)
    )


def _is_age_known() -> ibis.Deferred:
    return _.age_since.isnull() | (_.age_since <= _.second)


def _number_baskets(visible: ibis.Table) -> ibis.Table:
    """Adds `position`, the rank of the basket among the customer's baskets with the article, and `is_first_line`.

    All lines at one instant are one basket, as in a timeline. Each basket of an anonymous customer counts as a customer.
    """
    buyer = ["article_index", "customer_index", "anonymous_basket"]
    in_time = ibis.window(group_by=buyer, order_by="second")
    return visible.mutate(
        position=ibis.dense_rank().over(in_time),
        is_first_line=(visible.second.lag().over(in_time) != visible.second).fill_null(True),
    )


def _sum_by_week(visible: ibis.Table, ages: ibis.Table, channels: ibis.Table) -> ibis.Table:
    """Aggregates by `article_index, week`. A buyer counts once, with the age known then, in the week of the first basket."""
    lines = _number_baskets(visible).left_join(channels, "sales_channel_id").left_join(ages, "customer_index")
    is_named_basket = _.is_first_line & (_.customer_index >= FIRST_INDEX)
    lines = lines.mutate(is_buyer=is_named_basket & (_.position == 0), season=season_of(lines.t_dat.month()))
    lines = lines.mutate(age=ibis.ifelse(_.is_buyer & _is_age_known(), _.age, ibis.null("float64")))
    counts = {f"season_{number}": _.is_first_line & (_.season == number) for number in range(len(SEASONS))}
    counts |= {f"channel_{number}": _.channel == number for number in range(NUM_CHANNELS)}
    low = 0
    for name, high in AGE_GROUPS.items():
        counts[name] = (_.age >= low) & (_.age < high)
        low = high
    return lines.group_by(["article_index", "week"]).agg(
        sales=_.count(where=_.is_first_line),
        buyers=_.count(where=_.is_buyer),
        repeat_buyers=_.count(where=is_named_basket & (_.position == 1)),
        age_sum=_.age.sum(),
        num_ages=_.age.count(),
        price_sum=_.price.cast("float64").sum(),
        num_prices=_.price.count(),
        discount_sum=_.discount.cast("float64").sum(),
        num_discounts=_.discount.count(),
        num_channels=_.channel.count(),
        first_second=_.second.min(),
        last_second=_.second.max(),
        **{name: _.count(where=condition) for name, condition in counts.items()},
    )


def _list_channels(visible: ibis.Table) -> ibis.Table:
    """Numbers the channels by their first sale; an order by frequency could change with later sales and leak the future."""
    channels = visible.filter(_.sales_channel_id.notnull()).group_by("sales_channel_id").agg(first=_.second.min())
    order = ibis.window(order_by=[channels.first, channels.sales_channel_id])
    return channels.select("sales_channel_id", channel=ibis.row_number().over(order))


def _add_mean_age(weeks: ibis.Table, visible: ibis.Table, ages: ibis.Table) -> ibis.Table:
    """Adds `mean_age`, of the customers of known age with a purchase before each week's instant."""
    known = visible.inner_join(ages, "customer_index").filter(_is_age_known())
    customers = known.group_by("customer_index").agg(week=_.week.max(), age=_.age.max())
    sums = customers.group_by("week").agg(age_sum=_.age.sum(), num_ages=_.count())
    so_far = ibis.cumulative_window(order_by=ibis.desc("week"))
    joined = weeks.left_join(sums, "week").drop("week_right")
    return joined.mutate(mean_age=_share(joined.age_sum.sum().over(so_far), joined.num_ages.sum().over(so_far))).drop(
        "age_sum", "num_ages"
    )


def _add_up(grid: ibis.Table, sums: ibis.Table) -> ibis.Table:
    """Computes the totals that were visible at each instant of a complete grid of `article_index, week`.

    Most articles sell in few weeks. The running totals are therefore computed over the weeks with sales alone, and each
    instant looks up the latest of them. The grid is much larger, so only few of its columns are sorted.
    """
    order = {"group_by": "article_index", "order_by": ibis.desc("week")}
    so_far = ibis.cumulative_window(**order)
    # In float64, which represents these counts exactly; DuckDB would sum integers in 128 bits.
    added = {
        name: sums[name].cast("float64").sum().over(so_far)
        for name in sums.columns
        if name not in {"article_index", "week", "first_second", "last_second"}
    }
    seen = sums.select(
        "article_index",
        sold_week=sums.week,
        first_second=sums.first_second.min().over(so_far),
        last_second=sums.last_second.max().over(so_far),
        **added,
    )
    joined = grid.left_join(sums.select("article_index", "week", "sales"), ["article_index", "week"])
    joined = joined.drop("article_index_right")
    sales = joined.sales.cast("float64").fill_null(0.0)
    windowed = joined.select(
        "article_index",
        "week",
        sold_week=joined.week_right.min().over(so_far),
        sales_1w=sales,
        sales_4w=sales.sum().over(ibis.window(preceding=3, following=0, **order)),
        sales_13w=sales.sum().over(ibis.window(preceding=_LONGEST - 1, following=0, **order)),
    )
    totals = windowed.left_join(seen, ["article_index", "sold_week"]).drop("article_index_right", "sold_week_right")
    return totals.mutate(**{name: totals[name].fill_null(0.0) for name in added})


def _sum_categories(grid: ibis.Table) -> ibis.Table:
    """Aggregates by `week, category`; `best_from` is the number of sales in the season that makes a bestseller there."""
    keys = ["week", "category"]
    sums = grid.group_by(keys).agg(
        category_4w=_.sales_4w.sum(), category_price=_share(_.price_sum.sum(), _.num_prices.sum())
    )
    sold = grid.filter(_.in_season > 0).select(*keys, best_from="in_season")
    of_category = ibis.window(group_by=keys)
    sold = sold.mutate(
        place=ibis.row_number().over(ibis.window(group_by=keys, order_by=ibis.desc("best_from"))),
        last_place=((sold.count().over(of_category) - 1) / _ONE_IN).floor(),
    )
    best = sold.filter(_.place == _.last_place).select(*keys, "best_from")
    return sums.left_join(best, keys).drop("week_right", "category_right")


def make_article_weeks(
    articles: ibis.Table,
    transactions: ibis.Table,
    customers: ibis.Table,
    *,
    as_of: datetime.datetime,
    num_weeks: int,
    week_days: int = 7,
    category: str | None = None,
) -> ibis.Table:
    """Builds the features of each article at the start of each week, as one expression that DuckDB and Spark can run.

    Args:
        articles: Indexed articles; `product_code` is used where there is one.
        transactions: Indexed transactions; those at or after `as_of` are ignored.
        customers: Indexed customers; `age` is used where there is one, from `known_from` on.
        as_of: The instant of week 0, in whole seconds.
        num_weeks: Number of instants; the oldest is `num_weeks - 1` weeks before `as_of`. Sales before it count as well.
        week_days: Days per week. Data too short for weeks of 7 days may use fewer; every window in weeks shrinks with it.
        category: Column of `articles` within which prices and bestsellers are compared; None compares all articles.

    Returns:
        `article_index` int32, `week` int32 and the `FEATURES` as float32: one row per week and article that the catalogue
        listed before the week's instant, sold or not.

    Raises:
        InputError: `articles` has no column `category`.
        ValueError: `num_weeks` is below 1.
    """
    if num_weeks < 1:
        raise ValueError(f"`num_weeks` is {num_weeks}, expected at least 1.")
    check_names(articles, [category] if category else [], setting="features.roles.category", where="articles")
    end = seconds_since_1970(as_of)
    # Sales older than the longest window of the oldest instant only enter running totals: one last week holds them all.
    oldest = num_weeks + _LONGEST - 1
    seasons = [season_of(days_before(as_of, week_days * week).month) for week in range(oldest + 1)]
    weeks = ibis.range(oldest + 1).unnest().name("week").as_table().mutate(week=_.week.cast("int32"))
    weeks = weeks.mutate(
        instant=end - _.week.cast("int64") * (week_days * SECONDS_PER_DAY), season=ibis.literal(seasons)[weeks.week]
    )

    def see(**columns: ibis.Value | str) -> ibis.Table:
        # Each use selects its own few columns; DuckDB would hold a shared selection of all columns in memory.
        return _visible(
            transactions.select("t_dat", **columns), end=end, oldest=oldest, seconds=week_days * SECONDS_PER_DAY
        )

    ages = _list_ages(customers)
    lines = see(
        article_index=_.article_index,
        customer_index=_.customer_index,
        anonymous_basket=ibis.ifelse(_.customer_index >= FIRST_INDEX, ibis.null("string"), _.basket_id),
        price=_.price,
        discount=_.discount,
        sales_channel_id=_.sales_channel_id,
    )
    sums = _sum_by_week(lines, ages, _list_channels(see(sales_channel_id=_.sales_channel_id)))
    weeks = _add_mean_age(weeks, see(customer_index=_.customer_index), ages)
    listed = articles.select(
        "article_index",
        known_second=epoch_seconds(_.known_from),
        category=(_[category].cast("string") if category else ibis.null("string")).fill_null(""),
        product=(_.product_code if "product_code" in articles.columns else ibis.null("string")).fill_null(""),
    )
    grid = _add_up(listed.select("article_index").cross_join(weeks.select("week")), sums).filter(_.week < num_weeks)
    grid = grid.inner_join(weeks, "week").inner_join(listed, "article_index")
    grid = grid.filter(_.known_second.isnull() | (_.known_second < _.instant))
    grid = grid.select(
        "article_index",
        "week",
        "category",
        "product",
        "price_sum",
        "num_prices",
        in_season=ibis.cases(*((_.season == number, _[f"season_{number}"]) for number in range(len(SEASONS)))),
        **{name: value.cast("float32") for name, value in _own_features().items()},
    )
    products = grid.group_by(["week", "product"]).agg(product_4w=_.sales_4w.sum(), product_13w=_.sales_13w.sum())
    grid = grid.left_join(products, ["week", "product"]).drop("week_right", "product_right")
    grid = grid.left_join(_sum_categories(grid), ["week", "category"]).drop("week_right", "category_right")
    grid = grid.mutate(**{name: value.cast("float32") for name, value in _compared_features().items()})
    return grid.select("article_index", "week", *FEATURES)


def _own_features() -> dict[str, ibis.Deferred]:
    """Returns the features that depend on the article's own visible sales alone."""
    return {
        "sales_1w": _.sales_1w,
        "sales_4w": _.sales_4w,
        "sales_13w": _.sales_13w,
        # Smoothed by one sale, so that it is defined without sales, and small counts do not swing it.
        "trend": ((_.sales_1w + 1.0) / (_.sales_4w / 4.0 + 1.0)).ln(),
        "days_on_sale": (_.instant - _.first_second) / float(SECONDS_PER_DAY),
        "days_since_sold": (_.instant - _.last_second) / float(SECONDS_PER_DAY),
        "mean_price": _share(_.price_sum, _.num_prices),
        "discount_rate": _share(_.discount_sum, _.num_discounts),
        "buyers": _.buyers,
        "repurchase_rate": _share(_.repeat_buyers, _.buyers),
        **{f"season_share_{name}": _share(_[f"season_{number}"], _.sales) for number, name in enumerate(SEASONS)},
        "age_preference": _share(_.age_sum, _.num_ages) - _.mean_age,
        **{name: _share(_[name], _.num_ages) for name in AGE_GROUPS},
        **{
            f"channel_share_{number + 1}": _share(_[f"channel_{number}"], _.num_channels)
            for number in range(NUM_CHANNELS)
        },
    }


def _compared_features() -> dict[str, ibis.Deferred]:
    """Returns the features that compare the article with its product code and category."""
    return {
        "price_to_category": _where_known(_.category, _share(_.mean_price, _.category_price)),
        "seasonal_bestseller": ((_.in_season > 0) & (_.in_season >= _.best_from)).fill_null(False).cast("int8"),
        "product_sales_4w": _where_known(_.product, _.product_4w - _.sales_4w),
        "product_sales_13w": _where_known(_.product, _.product_13w - _.sales_13w),
        "category_sales_4w": _where_known(_.category, _.category_4w),
    }


@dataclass(frozen=True)
class ArticleWeeks:
    """The weekly features of every article in a dense array, looked up by time.

    Attributes:
        values: `[num_weeks + 1, num_articles + 2, num_features]` float32 by week and `article_index`. NaN where a feature is
            undefined, for articles not yet listed, in rows 0 and 1, and in the whole last week, which stands for all time
            before the oldest instant.
        names: The names of the features.
        as_of_seconds: The instant of week 0, in seconds since 1970.
        week_days: Days per week.
    """

    values: np.ndarray
    names: tuple[str, ...]
    as_of_seconds: int
    week_days: int = 7

    @property
    def num_weeks(self) -> int:
        """Number of instants."""
        return len(self.values) - 1

    def week_of(self, seconds: np.ndarray | int) -> np.ndarray:
        """Returns the week whose instant is the latest that is not later than the given time.

        Args:
            seconds: Any shape, int64 seconds since 1970.

        Returns:
            int32 of the same shape: 0 from the cutoff on, `num_weeks` before the oldest instant.
        """
        # Floor division, so that a time within a week maps to the week's start: never to an instant after it.
        week = -((np.asarray(seconds, dtype=np.int64) - self.as_of_seconds) // (self.week_days * SECONDS_PER_DAY))
        return np.clip(week, 0, self.num_weeks).astype(np.int32)


def read_article_weeks(
    table: ibis.Table, *, as_of: datetime.datetime, num_articles: int, num_weeks: int, week_days: int = 7
) -> ArticleWeeks:
    """Runs the expression of `make_article_weeks` and reads the result into a dense array.

    Args:
        table: The result of `make_article_weeks` for the same `as_of`, of at least `num_weeks` weeks.
        as_of: The instant of week 0.
        num_articles: Number of articles to keep; those with higher indices are left out.
        num_weeks: Number of instants to keep, the most recent ones.
        week_days: Days per week, as given to `make_article_weeks`.
    """
    names = tuple(FEATURES)
    kept = table.filter((_.week < num_weeks) & (_.article_index < num_articles + FIRST_INDEX))
    with tempfile.TemporaryDirectory() as folder:
        # By way of a file (several, from Spark), so that the engine has freed its memory before the array is allocated.
        path = Path(folder) / "article_weeks.parquet"
        kept.to_parquet(path)
        values = np.full((num_weeks + 1, num_articles + FIRST_INDEX, len(names)), np.nan, dtype=np.float32)
        for file in pyarrow.dataset.dataset(path).files:
            for rows in pyarrow.parquet.ParquetFile(file).iter_batches():
                columns = [rows[name].to_numpy(zero_copy_only=False) for name in names]
                values[rows["week"].to_numpy(), rows["article_index"].to_numpy()] = np.stack(columns, axis=1)
    return ArticleWeeks(values, names, seconds_since_1970(as_of), week_days)
