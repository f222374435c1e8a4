"""Article tables by week: what was known of each article at the start of each week.

Weeks are periods of seven days that end at a cutoff. Week 0 begins at the cutoff, week w begins 7 · w days before it, and
what it holds comes only from rows strictly before that instant. A prediction looks up the latest instant that is not
later than itself: an example of March sees March.
"""

import datetime
from dataclasses import dataclass

import ibis
import numpy as np
from ibis import _

from tfrs_fashion.data.split import days_before, epoch_seconds, seconds_since_1970
from tfrs_fashion.schema import FIRST_INDEX, InputError

SEASONS = ("winter", "spring", "summer", "autumn")
# The upper ends of the age groups, exclusive; ages outside `_AGES` are typing errors and count as unknown.
AGE_GROUPS = {"age_share_under_25": 25, "age_share_25_34": 35, "age_share_35_49": 50, "age_share_50_up": 200}
_AGES = (10, 100)
NUM_CHANNELS = 3
_WEEK = 7 * 86_400
_LONGEST = 13

# Sales are baskets: a basket that held the article counts once, however many pieces or lines. "Visible" means strictly
# before the week's instant. Shares lie in [0, 1]. A feature is null (NaN in the array) where it is undefined.
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


def _season_of(month: ibis.Value) -> ibis.Value:
    """Meteorological seasons of the northern half: winter is December to February."""
    return ((month % 12) / 3).floor().cast("int32")


def _count(condition: ibis.Value) -> ibis.Value:
    return condition.cast("int64").sum()


def _share(part: ibis.Value, whole: ibis.Value) -> ibis.Value:
    """Null where the whole is 0; DuckDB and Spark do not agree on what division by zero gives."""
    return part.cast("float64") / whole.nullif(0)


def _where_known(key: ibis.Value, value: ibis.Value) -> ibis.Value:
    return ibis.ifelse(key == "", ibis.null("float64"), value.cast("float64"))


def _visible(transactions: ibis.Table, *, end: int, oldest: int) -> ibis.Table:
    """Adds `second` and `week`, the earliest instant of the weeks that see the row: one at an instant is not seen there."""
    rows = transactions.mutate(second=epoch_seconds(_.t_dat)).filter(_.second < end)
    return rows.mutate(week=ibis.least(((end - 1 - _.second) / _WEEK).floor().cast("int32"), oldest))


def _list_ages(customers: ibis.Table) -> ibis.Table:
    if "age" not in customers.columns:
        customers = customers.mutate(age=ibis.null("float64"))
    return customers.filter(_.age.between(*_AGES)).select(
        "customer_index", age=_.age.cast("float64"), age_since=epoch_seconds(_.known_from)
    )


def _number_baskets(visible: ibis.Table) -> ibis.Table:
    """Adds `position`, of the basket among those with the article of one customer, and whether a line begins its basket.

    One instant is one basket, as in a timeline; anonymous customers are told apart by the basket.
    """
    is_named = visible.customer_index >= FIRST_INDEX
    one_buyer = {
        "group_by": [
            visible.article_index,
            visible.customer_index,
            ibis.ifelse(is_named, ibis.null("string"), visible.basket_id),
        ],
        "order_by": visible.second,
    }
    return visible.mutate(
        position=ibis.dense_rank().over(ibis.window(**one_buyer)),
        is_first_line=(visible.second.lag().over(ibis.window(**one_buyer)) != visible.second).fill_null(True),
        is_named=is_named,
    )


def _sum_by_week(visible: ibis.Table, ages: ibis.Table) -> ibis.Table:
    """Sums by `article_index, week`; a buyer counts, and has an age, at the first basket."""
    channels = visible.filter(_.sales_channel_id.notnull()).group_by("sales_channel_id").agg(first=_.second.min())
    # Not the most common ones: which these are could change with rows of the future.
    order = ibis.window(order_by=[channels.first, channels.sales_channel_id])
    channels = channels.select("sales_channel_id", channel=ibis.row_number().over(order))
    lines = _number_baskets(visible).left_join(channels, "sales_channel_id").left_join(ages, "customer_index")
    lines = lines.mutate(is_buyer=_.is_first_line & _.is_named & (_.position == 0), season=_season_of(_.t_dat.month()))
    lines = lines.mutate(age=ibis.ifelse(_.is_buyer & _is_age_known(), _.age, ibis.null("float64")))
    sums = {f"season_{number}": _count(_.is_first_line & (_.season == number)) for number in range(len(SEASONS))}
    sums |= {f"channel_{number}": _count(_.channel == number) for number in range(NUM_CHANNELS)}
    low = 0
    for name, high in AGE_GROUPS.items():
        sums[name] = _count((_.age >= low) & (_.age < high))
        low = high
    return lines.group_by(["article_index", "week"]).agg(
        sales=_count(_.is_first_line),
        buyers=_count(_.is_buyer),
        repeat_buyers=_count(_.is_first_line & _.is_named & (_.position == 1)),
        age_sum=_.age.sum(),
        num_ages=_.age.count(),
        price_sum=_.price.cast("float64").sum(),
        num_prices=_.price.count(),
        discount_sum=_.discount.cast("float64").sum(),
        num_discounts=_.discount.count(),
        num_channels=_.channel.count(),
        first_second=_.second.min(),
        last_second=_.second.max(),
        **sums,
    )


def _is_age_known() -> ibis.Deferred:
    return _.age_since.isnull() | (_.age_since <= _.second)


def _mean_age(visible: ibis.Table, ages: ibis.Table, weeks: ibis.Table) -> ibis.Table:
    """Adds `mean_age` of the customers with known age who had bought anything before each week's instant."""
    known = visible.inner_join(ages, "customer_index").filter(_is_age_known())
    customers = known.group_by("customer_index").agg(week=_.week.max(), age=_.age.max())
    sums = customers.group_by("week").agg(age_sum=_.age.sum(), num_ages=_.count())
    so_far = ibis.cumulative_window(order_by=ibis.desc("week"))
    joined = weeks.left_join(sums, "week").drop("week_right")
    return joined.mutate(mean_age=_share(joined.age_sum.sum().over(so_far), joined.num_ages.sum().over(so_far))).drop(
        "age_sum", "num_ages"
    )


def _add_up(grid: ibis.Table, sums: ibis.Table) -> ibis.Table:
    """Joins the sums of each week to a grid without gaps, and adds up what was visible at each instant."""
    names = [name for name in sums.columns if name not in {"article_index", "week"}]
    joined = grid.left_join(sums, ["article_index", "week"]).drop("article_index_right", "week_right")
    order = {"group_by": "article_index", "order_by": ibis.desc("week")}
    so_far = ibis.cumulative_window(**order)
    added = {name: joined[name].sum().over(so_far).fill_null(0) for name in names if not name.endswith("_second")}
    sales = joined.sales.fill_null(0)
    return joined.mutate(
        **added,
        first_second=joined.first_second.min().over(so_far),
        last_second=joined.last_second.max().over(so_far),
        sales_1w=sales,
        sales_4w=sales.sum().over(ibis.window(preceding=3, following=0, **order)),
        sales_13w=sales.sum().over(ibis.window(preceding=_LONGEST - 1, following=0, **order)),
    )


def make_article_weeks(
    articles: ibis.Table,
    transactions: ibis.Table,
    customers: ibis.Table,
    *,
    as_of: datetime.datetime,
    num_weeks: int,
    category: str | None = None,
) -> ibis.Table:
    """Computes the features of each article at the start of each week, as one expression for DuckDB and Spark.

    Args:
        articles: Indexed articles; `product_code` is used where there is one.
        transactions: Indexed transactions; those at or after `as_of` are ignored.
        customers: Indexed customers; `age` is used where there is one, from `known_from` on.
        as_of: The instant of week 0, in whole seconds.
        num_weeks: Instants, the last one `7 * (num_weeks - 1)` days before `as_of`. Older sales count, too.
        category: The column of `articles` within which prices and bestsellers are compared.

    Returns:
        `article_index` int32, `week` int32 and the `FEATURES` as float32: one row for each week and each article that
        the catalogue listed before its instant, sold or not.

    Raises:
        InputError: `articles` lacks the category.
        ValueError: `num_weeks` is below 1.
    """
    if num_weeks < 1:
        raise ValueError(f"`num_weeks` is {num_weeks}, expected at least 1.")
    if category is not None and category not in articles.columns:
        raise InputError(
            f"features: the articles table has no column `{category}` to serve as category; "
            f"found {', '.join(f'`{name}`' for name in articles.columns)}."
        )
    end = seconds_since_1970(as_of)
    # All that is older than any window reaches goes into one last week.
    oldest = num_weeks + _LONGEST - 1
    visible = _visible(transactions, end=end, oldest=oldest)
    ages = _list_ages(customers)
    sums = _sum_by_week(visible, ages)

    seasons = [(days_before(as_of, 7 * week).month % 12) // 3 for week in range(oldest + 1)]
    weeks = ibis.range(oldest + 1).unnest().name("week").as_table().mutate(week=_.week.cast("int32"))
    weeks = weeks.mutate(instant=end - _.week.cast("int64") * _WEEK, season=ibis.literal(seasons)[weeks.week])
    listed = articles.select(
        "article_index",
        known_second=epoch_seconds(_.known_from),
        category=(_[category].cast("string") if category else ibis.null("string")).fill_null(""),
        product=(_.product_code if "product_code" in articles.columns else ibis.null("string")).fill_null(""),
    )
    grid = _add_up(listed.cross_join(_mean_age(visible, ages, weeks)), sums)
    grid = grid.filter((_.week < num_weeks) & (_.known_second.isnull() | (_.known_second < _.instant)))
    in_season = ibis.cases(*((_.season == number, _[f"season_{number}"]) for number in range(len(SEASONS))))
    grid = grid.mutate(in_season=in_season)
    products = grid.group_by(["week", "product"]).agg(product_4w=_.sales_4w.sum(), product_13w=_.sales_13w.sum())
    categories = grid.group_by(["week", "category"]).agg(
        category_4w=_.sales_4w.sum(),
        category_price=_share(_.price_sum.sum(), _.num_prices.sum()),
        num_in_season=_count(_.in_season > 0),
    )
    best_first = ibis.window(group_by=["week", "category"], order_by=ibis.desc("in_season"))
    grid = grid.mutate(place=ibis.rank().over(best_first))
    grid = grid.left_join(products, ["week", "product"]).drop("week_right", "product_right")
    grid = grid.left_join(categories, ["week", "category"]).drop("week_right", "category_right")
    return grid.select("article_index", "week", **{name: _features()[name].cast("float32") for name in FEATURES})


def _features() -> dict[str, ibis.Deferred]:
    """Each of `FEATURES`, from the visible sums."""
    sold = _.last_second.notnull()
    price = _share(_.price_sum, _.num_prices)
    return {
        "sales_1w": _.sales_1w,
        "sales_4w": _.sales_4w,
        "sales_13w": _.sales_13w,
        "trend": ((_.sales_1w + 1.0) / (_.sales_4w / 4.0 + 1.0)).ln(),
        "days_on_sale": (_.instant - _.first_second) / 86_400.0,
        "days_since_sold": (_.instant - _.last_second) / 86_400.0,
        "mean_price": price,
        "price_to_category": _where_known(_.category, _share(price, _.category_price)),
        "discount_rate": _share(_.discount_sum, _.num_discounts),
        "buyers": _.buyers,
        "repurchase_rate": _share(_.repeat_buyers, _.buyers),
        **{f"season_share_{name}": _share(_[f"season_{number}"], _.sales) for number, name in enumerate(SEASONS)},
        "seasonal_bestseller": (sold & (_.in_season > 0) & (_.place * 20 < _.num_in_season)).cast("int8"),
        "age_preference": _share(_.age_sum, _.num_ages) - _.mean_age,
        **{name: _share(_[name], _.num_ages) for name in AGE_GROUPS},
        **{
            f"channel_share_{number + 1}": _share(_[f"channel_{number}"], _.num_channels)
            for number in range(NUM_CHANNELS)
        },
        "product_sales_4w": _where_known(_.product, _.product_4w - _.sales_4w),
        "product_sales_13w": _where_known(_.product, _.product_13w - _.sales_13w),
        "category_sales_4w": _where_known(_.category, _.category_4w),
    }


@dataclass(frozen=True)
class ArticleWeeks:
    """The features of every article at each instant, to be looked up by time.

    Attributes:
        values: `[num_weeks + 1, num_articles + 2, num_features]` float32 by week and `article_index`; NaN where
            unknown: features without a definition there, articles not yet listed, rows 0 and 1, and all of the last
            week, which stands for the time before the oldest instant.
        names: Of the features.
        as_of_seconds: The instant of week 0, seconds since 1970.
    """

    values: np.ndarray
    names: tuple[str, ...]
    as_of_seconds: int

    @property
    def num_weeks(self) -> int:
        """Instants."""
        return len(self.values) - 1

    def week_of(self, seconds: np.ndarray | int) -> np.ndarray:
        """Returns the week whose instant is the latest one that is not later than a time.

        Args:
            seconds: Any shape, int64 seconds since 1970.

        Returns:
            int32 of the same shape: 0 from the cutoff on, `num_weeks` for what lies before the oldest instant.
        """
        week = -((np.asarray(seconds, dtype=np.int64) - self.as_of_seconds) // _WEEK)
        return np.clip(week, 0, self.num_weeks).astype(np.int32)


def read_article_weeks(
    table: ibis.Table, *, as_of: datetime.datetime, num_articles: int, num_weeks: int
) -> ArticleWeeks:
    """Runs the expression of `make_article_weeks` and fills a dense array.

    Args:
        table: From `make_article_weeks` with the same `as_of`; it may hold more weeks.
        as_of: The instant of week 0.
        num_articles: Articles to keep; indices beyond them are left out.
        num_weeks: Instants to keep, the most recent ones.
    """
    names = tuple(FEATURES)
    values = np.full((num_weeks + 1, num_articles + FIRST_INDEX, len(names)), np.nan, dtype=np.float32)
    kept = table.filter((_.week < num_weeks) & (_.article_index < num_articles + FIRST_INDEX))
    rows = kept.to_pyarrow()
    week, article = rows["week"].to_numpy(), rows["article_index"].to_numpy()
    for number, name in enumerate(names):
        values[week, article, number] = rows[name].to_numpy()
    return ArticleWeeks(values, names, seconds_since_1970(as_of))
