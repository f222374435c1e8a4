import datetime
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.data.generated import simulator
from tfrs_fashion.data.split import seconds_since_1970
from tfrs_fashion.data.tables import index_tables, read_tables, write_tables
from tfrs_fashion.features.article_weeks import (
    AGE_GROUPS,
    FEATURES,
    NUM_CHANNELS,
    SEASONS,
    ArticleWeeks,
    make_article_weeks,
    read_article_weeks,
)
from tfrs_fashion.schema import FIRST_INDEX, InputError, Tables

WEEK = datetime.timedelta(days=7)
NAN = np.nan
# Week 0 begins on 4 March, in spring; week 1 on 26 February, in winter.
AS_OF = datetime.datetime(2024, 3, 4)
COLUMNS = ["article_index", "customer_index", "basket_id", "t_dat", "price", "discount", "sales_channel_id"]
# Row 8 lies exactly at week 1's instant and row 10 exactly at the cutoff. Customer 1 stands for anonymous ones.
ROWS = [
    (2, 2, "a", "2024-01-01 10:00", 10.0, 0.0, 1),
    (2, 2, "a", "2024-01-01 10:00", 10.0, 0.0, 1),
    (3, 2, "a", "2024-01-01 10:00", 20.0, 0.5, 1),
    (2, 3, "b", "2024-02-20 12:00", 8.0, 0.2, 2),
    (2, 1, "c", "2024-02-20 12:00", 8.0, 0.2, 2),
    (2, 1, "d", "2024-02-20 12:00", 6.0, None, None),
    (4, 5, "e", "2024-02-25 00:00", 0.0, None, None),
    (2, 2, "f", "2024-02-26 00:00", 12.0, 0.0, 2),
    (3, 4, "g", "2024-03-02 00:00", None, None, 2),
    (3, 3, "h", "2024-03-04 00:00", 99.0, 0.9, 2),
]
# Articles 5 and 6 were never sold; article 7 is listed from week 0 on.
ARTICLES = pd.DataFrame(
    {
        "article_index": np.arange(2, 8, dtype=np.int32),
        "product_code": ["P", "P", "Q", None, "P", "Q"],
        "category": ["hat", "hat", "shoe", None, "hat", "shoe"],
        "known_from": pd.Series([None] * 5 + ["2024-03-03"], dtype="datetime64[us]"),
    }
)
CUSTOMERS = pd.DataFrame(
    {
        "customer_index": np.arange(2, 6, dtype=np.int32),
        "age": [20.0, 40.0, None, 60.0],
        "known_from": pd.Series([None] * 4, dtype="datetime64[us]"),
    }
)


def make_transactions(rows: list[tuple]) -> ibis.Table:
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["t_dat"] = pd.to_datetime(frame["t_dat"], format="ISO8601").astype("datetime64[us]")
    frame = frame.astype({"price": float, "discount": float, "sales_channel_id": "Int64", "basket_id": object})
    frame = frame.astype({"article_index": np.int32, "customer_index": np.int32})
    return with_nulls(frame)


def with_nulls(frame: pd.DataFrame) -> ibis.Table:
    table = ibis.memtable(frame)
    floats = [name for name, dtype in table.schema().items() if dtype.is_floating()]
    return table.mutate(**{name: table[name].nullif(float("nan")) for name in floats})


def weeks_of(
    rows: list[tuple] = ROWS,
    *,
    articles: pd.DataFrame = ARTICLES,
    customers: pd.DataFrame = CUSTOMERS,
    category: str | None = "category",
    num_weeks: int = 3,
) -> ArticleWeeks:
    table = make_article_weeks(
        with_nulls(articles),
        make_transactions(rows),
        with_nulls(customers),
        as_of=AS_OF,
        num_weeks=num_weeks,
        category=category,
    )
    return read_article_weeks(table, as_of=AS_OF, num_articles=len(articles), num_weeks=num_weeks)


def features_of(weeks: ArticleWeeks, *, week: int, article: int) -> dict[str, float]:
    return dict(zip(weeks.names, weeks.values[week, article].tolist(), strict=True))


def assert_features(found: dict[str, float], expected: dict[str, float]) -> None:
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


# By hand, for article 2. Category "hat" are articles 2, 3 and 6; so is the product code P.
EXPECTED = {
    "sales_1w": (1, 3),  # f; b, c, d
    "sales_4w": (4, 3),
    "sales_13w": (5, 4),
    "trend": (np.log((1 + 1) / (4 / 4 + 1)), np.log((3 + 1) / (3 / 4 + 1))),
    "days_on_sale": (63 - 10 / 24, 56 - 10 / 24),
    "days_since_sold": (7, 5.5),
    "mean_price": ((10 + 10 + 8 + 8 + 6 + 12) / 6, (10 + 10 + 8 + 8 + 6) / 5),
    "price_to_category": (9 / ((54 + 20) / 7), 8.4 / ((42 + 20) / 6)),
    "discount_rate": (0.4 / 5, 0.4 / 4),
    "buyers": (2, 2),
    "repurchase_rate": (1 / 2, 0),
    "season_share_winter": (1, 1),
    "season_share_spring": (0, 0),
    "season_share_summer": (0, 0),
    "season_share_autumn": (0, 0),
    "seasonal_bestseller": (0, 1),  # in spring so far only article 3 was sold
    "age_preference": ((20 + 40) / 2 - (20 + 40 + 60) / 3, (20 + 40) / 2 - (20 + 40 + 60) / 3),
    "age_share_under_25": (1 / 2, 1 / 2),
    "age_share_25_34": (0, 0),
    "age_share_35_49": (1 / 2, 1 / 2),
    "age_share_50_up": (0, 0),
    "channel_share_1": (2 / 5, 2 / 4),
    "channel_share_2": (3 / 5, 2 / 4),
    "channel_share_3": (0, 0),
    "product_sales_4w": (1, 0),
    "product_sales_13w": (2, 1),
    "category_sales_4w": (5, 3),
}


@pytest.fixture(scope="module")
def by_hand() -> ArticleWeeks:
    return weeks_of()


def test_every_feature_has_a_hand_worked_value() -> None:
    assert EXPECTED.keys() == FEATURES.keys()


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("week", [0, 1])
def test_each_feature_by_hand(by_hand: ArticleWeeks, name: str, week: int) -> None:
    assert_features(features_of(by_hand, week=week, article=2), {name: EXPECTED[name][week]})


def test_a_sibling_at_both_instants(by_hand: ArticleWeeks) -> None:
    # Row 10 is at the cutoff: neither its basket nor its price of 99 is seen.
    now = {"sales_1w": 1, "sales_13w": 2, "mean_price": 20, "buyers": 2, "seasonal_bestseller": 1, "days_since_sold": 2}
    now |= {"season_share_winter": 0.5, "season_share_spring": 0.5, "age_preference": 20 - 40, "product_sales_4w": 4}
    assert_features(features_of(by_hand, week=0, article=3), now)
    before = {"sales_1w": 0, "sales_4w": 0, "sales_13w": 1, "trend": 0, "seasonal_bestseller": 0, "product_sales_4w": 3}
    assert_features(features_of(by_hand, week=1, article=3), before)


def test_a_price_of_zero_counts_and_divides_nothing(by_hand: ArticleWeeks) -> None:
    expected = {"mean_price": 0, "price_to_category": NAN, "discount_rate": NAN, "channel_share_1": NAN}
    assert_features(features_of(by_hand, week=0, article=4), expected)


UNSOLD = {name: NAN for name in FEATURES} | {
    name: 0.0 for name in ("sales_1w", "sales_4w", "sales_13w", "trend", "buyers", "seasonal_bestseller")
}


def test_an_article_never_sold_inherits_from_its_product_and_category(by_hand: ArticleWeeks) -> None:
    inherited = {"product_sales_4w": 5, "product_sales_13w": 7, "category_sales_4w": 5}
    assert_features(features_of(by_hand, week=0, article=6), UNSOLD | inherited)
    assert_features(features_of(by_hand, week=0, article=5), UNSOLD)


def test_an_article_is_unknown_before_it_is_listed(by_hand: ArticleWeeks) -> None:
    inherited = {"product_sales_4w": 1, "product_sales_13w": 1, "category_sales_4w": 1}
    assert_features(features_of(by_hand, week=0, article=7), UNSOLD | inherited)
    assert np.isnan(by_hand.values[1, 7]).all()


def test_week_2_has_seen_what_week_1_saw_but_for_its_own_days(by_hand: ArticleWeeks) -> None:
    # 19 February: the first basket alone.
    expected = {"sales_1w": 0, "sales_4w": 0, "sales_13w": 1, "buyers": 1, "mean_price": 10, "age_preference": 0}
    assert_features(features_of(by_hand, week=2, article=2), expected)


def test_the_array_has_no_values_but_of_articles_and_instants(by_hand: ArticleWeeks) -> None:
    assert by_hand.values.shape == (3 + 1, 6 + FIRST_INDEX, len(FEATURES))
    assert by_hand.values.dtype == np.float32
    assert by_hand.names == tuple(FEATURES)
    assert np.isnan(by_hand.values[:, :FIRST_INDEX]).all()
    assert np.isnan(by_hand.values[3]).all()
    assert not np.isinf(by_hand.values).any()


def test_a_time_looks_up_the_latest_instant_not_later(by_hand: ArticleWeeks) -> None:
    times = [AS_OF + WEEK, AS_OF, AS_OF - datetime.timedelta(seconds=1), AS_OF - WEEK]
    times += [AS_OF - WEEK - datetime.timedelta(seconds=1), AS_OF - 2 * WEEK, AS_OF - 2.1 * WEEK, AS_OF - 99 * WEEK]
    found = by_hand.week_of(np.array([[seconds_since_1970(time) for time in times]]))
    assert found.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert found.dtype == np.int32
    assert by_hand.num_weeks == 3


def test_without_a_category_all_articles_compete() -> None:
    found = weeks_of(category=None)
    # Article 2 with 4 winter baskets against one each of articles 3 and 4.
    assert found.values[1, 2:5, found.names.index("seasonal_bestseller")].tolist() == [1, 0, 0]
    for name in ("price_to_category", "category_sales_4w"):
        assert np.isnan(found.values[..., found.names.index(name)]).all()


@pytest.mark.parametrize("articles", [ARTICLES.drop(columns="product_code"), ARTICLES.assign(product_code="")])
def test_without_product_codes_product_features_are_null(articles: pd.DataFrame) -> None:
    found = features_of(weeks_of(articles=articles), week=0, article=2)
    expected = {name: values[0] for name, values in EXPECTED.items()}
    assert_features(found, expected | {"product_sales_4w": NAN, "product_sales_13w": NAN})


AGES = {"age_preference": NAN, **{name: NAN for name in AGE_GROUPS}}


@pytest.mark.parametrize(
    "customers",
    [
        CUSTOMERS.drop(columns="age"),
        CUSTOMERS.assign(age=[111.0, -1.0, 9.0, NAN]),
        # Ages that became known only after the first purchase were not known at the instants between.
        CUSTOMERS.assign(known_from=pd.Timestamp("2024-03-01")),
    ],
)
def test_without_ages_age_features_are_null(customers: pd.DataFrame) -> None:
    found = features_of(weeks_of(customers=customers), week=0, article=2)
    assert_features(found, {name: values[0] for name, values in EXPECTED.items()} | AGES)


def test_the_ages_that_tables_know_are_known_here() -> None:
    # Those who bought article 2 are the first two; the mean of all is 60 as well.
    found = features_of(weeks_of(customers=CUSTOMERS.assign(age=[10.0, 110.0, NAN, 60.0])), week=0, article=2)
    expected = {"age_preference": 0, "age_share_under_25": 0.5, "age_share_35_49": 0, "age_share_50_up": 0.5}
    assert_features(found, {name: values[0] for name, values in EXPECTED.items()} | expected)


def test_without_prices_discounts_and_channels() -> None:
    found = features_of(weeks_of([(*row[:4], None, None, None) for row in ROWS]), week=0, article=2)
    missing = ("mean_price", "price_to_category", "discount_rate", *(f"channel_share_{n + 1}" for n in range(3)))
    assert_features(found, {name: values[0] for name, values in EXPECTED.items()} | {name: NAN for name in missing})


def test_channels_are_numbered_by_their_first_sale() -> None:
    # Ids 7 and 3 sold first on one day, so by id; 1 came later, and 0 is a fourth, in the denominator alone.
    channels = [7, 3, 1, 0]
    days = ["2024-01-01", "2024-01-01", "2024-01-02", "2024-01-03"]
    rows = [(2, 2, f"{n}", days[n], 1.0, 0.0, channels[n]) for n in (0, 1, 1, 2, 3)]
    rows[2] = (2, 3, "5", "2024-02-01", 1.0, 0.0, 3)
    found = features_of(weeks_of(rows), week=0, article=2)
    assert_features(found, {"channel_share_1": 2 / 5, "channel_share_2": 1 / 5, "channel_share_3": 1 / 5})


def test_anonymous_customers_count_as_sales_and_never_as_buyers() -> None:
    rows = [(2, 1, basket, "2024-03-01", 5.0, 0.0, 1) for basket in "aab"]
    found = features_of(weeks_of(rows), week=0, article=2)
    assert_features(found, {"sales_1w": 2, "buyers": 0, "repurchase_rate": NAN, "mean_price": 5, **AGES})


def test_one_instant_of_a_customer_is_one_basket() -> None:
    rows = [(2, 2, basket, "2024-03-01", 5.0, 0.0, 1) for basket in "ab"]
    found = features_of(weeks_of(rows), week=0, article=2)
    assert_features(found, {"sales_1w": 1, "buyers": 1, "repurchase_rate": 0})


def test_sales_older_than_all_windows_count_in_what_adds_up() -> None:
    rows = [(2, 2, "a", "2019-07-01", 5.0, 0.0, 1), (2, 2, "b", "2019-12-01", 5.0, 0.0, 1)]
    found = features_of(weeks_of(rows, num_weeks=1), week=0, article=2)
    expected = {"sales_13w": 0, "buyers": 1, "repurchase_rate": 1, "season_share_summer": 0.5, "mean_price": 5}
    assert_features(
        found,
        expected | {"season_share_winter": 0.5, "days_since_sold": (AS_OF.date() - datetime.date(2019, 12, 1)).days},
    )


def test_the_window_of_13_weeks_is_whole_at_the_oldest_instant() -> None:
    # 91 days before the cutoff is the earliest instant that the window holds; a second earlier is out.
    start = AS_OF - 13 * WEEK
    rows = [(2, 2, "a", str(start), 5.0, 0.0, 1), (2, 2, "b", str(start - datetime.timedelta(seconds=1)), 5.0, 0.0, 1)]
    found = features_of(weeks_of(rows, num_weeks=1), week=0, article=2)
    assert_features(found, {"sales_13w": 1, "buyers": 1, "repurchase_rate": 1})


def test_bestsellers_are_one_in_twenty_of_those_sold_in_the_season_ties_included() -> None:
    def best(sold: list[int]) -> list[float]:
        articles = pd.DataFrame({"article_index": np.arange(2, 2 + len(sold), dtype=np.int32), "category": "hat"})
        articles["known_from"] = pd.Series([None] * len(sold), dtype="datetime64[us]")
        rows = [
            (2 + n, 2, f"{n}-{b}", f"2024-03-01 00:{b:02d}", 1.0, 0.0, 1)
            for n in range(len(sold))
            for b in range(sold[n])
        ]
        found = weeks_of(rows, articles=articles, num_weeks=1)
        return found.values[0, 2:, found.names.index("seasonal_bestseller")].tolist()

    assert best([3, 2, *[1] * 18]) == [1, *[0] * 19]  # 20 sold: one
    assert best([3, 2, *[1] * 19]) == [1, 1, *[0] * 19]  # 21 sold: two
    assert best([3, 3, *[1] * 18]) == [1, 1, *[0] * 18]  # a tie
    assert best([0, 1, 0]) == [0, 1, 0]


def test_without_visible_transactions_an_article_is_unsold() -> None:
    found = weeks_of([ROWS[-1]])
    expected = UNSOLD | {"product_sales_4w": 0, "product_sales_13w": 0, "category_sales_4w": 0}
    assert_features(features_of(found, week=0, article=3), expected)


def test_missing_category_raises_and_is_named() -> None:
    with pytest.raises(
        InputError, match=r"features\.roles\.category: the articles table has no column\(s\) `section`; found `arti"
    ):
        weeks_of(category="section")


def test_num_weeks_below_one_raises() -> None:
    with pytest.raises(ValueError, match="`num_weeks` is 0, expected at least 1"):
        weeks_of(num_weeks=0)


# Generated tables: the same features, recomputed from the definitions, one week after the other.
NUM_WEEKS = 12
END = datetime.datetime(2024, 4, 1)


def stored(tables: Tables, folder: Path) -> Tables:
    folder.mkdir()
    write_tables(index_tables(tables), folder)
    return read_tables(ibis.duckdb.connect(), folder)


@pytest.fixture(scope="module")
def made() -> Tables:
    tables = simulator.make_tables(num_customers=60, num_articles=50, num_days=100, seed=3)
    lines = tables.transactions.execute()
    # Some lines exactly at instants; some of anonymous customers; some without price, discount or channel.
    moved = lines.index[::40]
    lines.loc[moved, "t_dat"] = [END - WEEK * (number % 9) for number in range(len(moved))]
    lines.loc[moved, "basket_id"] = [f"moved-{number}" for number in range(len(moved))]
    lines["sales_channel_id"] = lines["sales_channel_id"].astype("Int64")
    lines.loc[::17, "customer_id"] = "<anonymous>"
    lines.loc[5::11, ["price", "discount", "sales_channel_id"]] = None
    lines.loc[::5, "sales_channel_id"] = 9
    transactions = ibis.memtable(lines).mutate(store_id=ibis.null("string"))
    floats = {name: transactions[name].nullif(float("nan")) for name in ("price", "discount")}
    return Tables(tables.customers, tables.articles, transactions.mutate(**floats))


def weeks_of_tables(tables: Tables) -> tuple[ArticleWeeks, Tables]:
    table = make_article_weeks(
        tables.articles,
        tables.transactions,
        tables.customers,
        as_of=END,
        num_weeks=NUM_WEEKS,
        category="garment_group",
    )
    num_articles = int(tables.articles.count().execute())
    return read_article_weeks(table, as_of=END, num_articles=num_articles, num_weeks=NUM_WEEKS), tables


def recompute(tables: Tables, instant: datetime.datetime) -> pd.DataFrame:
    """The features of one instant from the rows before it, as `FEATURES` defines them."""
    lines = tables.transactions.execute()
    lines = lines[lines["t_dat"] < instant].merge(tables.customers.execute()[["customer_index", "age"]], how="left")
    articles = tables.articles.execute().set_index("article_index")
    lines["category"] = lines["article_index"].map(articles["garment_group"])
    is_named = lines["customer_index"] >= FIRST_INDEX
    lines["basket"] = np.where(is_named, lines["t_dat"].astype(str), lines["basket_id"])
    baskets = lines.drop_duplicates(["article_index", "customer_index", "basket"])
    season = (instant.month % 12) // 3
    channels = lines.dropna(subset="sales_channel_id").groupby("sales_channel_id")["t_dat"].min().reset_index()
    channels = channels.sort_values(["t_dat", "sales_channel_id"])["sales_channel_id"].tolist()
    overall_age = lines[is_named].drop_duplicates("customer_index")["age"].mean()
    rows = []
    for article, listed in articles[articles["known_from"].isna() | (articles["known_from"] < instant)].iterrows():
        own_lines = lines[lines["article_index"] == article]
        own = baskets[baskets["article_index"] == article]
        named = own[own["customer_index"] >= FIRST_INDEX]
        ages = named.drop_duplicates("customer_index")["age"].dropna()
        siblings = articles.index[(articles["product_code"] == listed["product_code"]) & (articles.index != article)]
        category = baskets[baskets["category"] == listed["garment_group"]]

        def sales(frame: pd.DataFrame, weeks: int) -> int:
            return int((frame["t_dat"] >= instant - weeks * WEEK).sum())

        def share(values: pd.Series | np.ndarray) -> float:
            return float(np.mean(values)) if len(values) else NAN

        row = {f"sales_{weeks}w": sales(own, weeks) for weeks in (1, 4, 13)}
        row |= {"article_index": article, "trend": np.log((row["sales_1w"] + 1) / (row["sales_4w"] / 4 + 1))}
        row["days_on_sale"] = (instant - own["t_dat"].min()) / pd.Timedelta(days=1) if len(own) else NAN
        row["days_since_sold"] = (instant - own["t_dat"].max()) / pd.Timedelta(days=1) if len(own) else NAN
        row["mean_price"] = own_lines["price"].mean()
        row["price_to_category"] = (
            row["mean_price"] / lines.loc[lines["category"] == listed["garment_group"], "price"].mean()
        )
        row["discount_rate"] = own_lines["discount"].mean()
        row["buyers"] = named["customer_index"].nunique()
        row["repurchase_rate"] = share(named["customer_index"].value_counts() >= 2)
        for number, name in enumerate(SEASONS):
            row[f"season_share_{name}"] = share((own["t_dat"].dt.month % 12) // 3 == number)
        in_season = category[(category["t_dat"].dt.month % 12) // 3 == season]["article_index"].value_counts()
        better = int((in_season > in_season.get(article, 0)).sum())
        row["seasonal_bestseller"] = float(article in in_season.index and better < 0.05 * len(in_season))
        row["age_preference"] = ages.mean() - overall_age
        for (name, high), low in zip(AGE_GROUPS.items(), [0, 25, 35, 50], strict=True):
            row[name] = share((ages >= low) & (ages < high))
        known = own_lines["sales_channel_id"].dropna()
        for number in range(NUM_CHANNELS):
            row[f"channel_share_{number + 1}"] = (
                share(known == channels[number]) if number < len(channels) else 0 if len(known) else NAN
            )
        for weeks in (4, 13):
            row[f"product_sales_{weeks}w"] = sales(baskets[baskets["article_index"].isin(siblings)], weeks)
        row["category_sales_4w"] = sales(category, 4)
        rows.append(row)
    return pd.DataFrame(rows).set_index("article_index")[list(FEATURES)]


def test_equal_to_a_slow_recomputation_week_by_week(made: Tables, tmp_path: Path) -> None:
    found, tables = weeks_of_tables(stored(made, tmp_path / "tables"))
    for week in (0, 1, 6, NUM_WEEKS - 1):
        expected = recompute(tables, END - week * WEEK)
        unlisted = np.setdiff1d(np.arange(found.values.shape[1]), expected.index)
        assert np.isnan(found.values[week, unlisted]).all()
        for number, name in enumerate(FEATURES):
            values = found.values[week, expected.index, number]
            np.testing.assert_allclose(
                values, expected[name].to_numpy(float), rtol=1e-5, atol=1e-5, err_msg=f"{name} in week {week}"
            )


@pytest.mark.parametrize("week", [0, 4])
def test_rows_at_or_after_an_instant_change_nothing_before_it(made: Tables, tmp_path: Path, week: int) -> None:
    instant = END - week * WEEK
    lines = made.transactions.execute()
    after = lines["t_dat"] >= instant
    assert (lines["t_dat"] == instant).any()
    changed = lines[after].copy()
    random = np.random.default_rng(1)
    changed["customer_id"] = random.permutation(changed["customer_id"].to_numpy())
    changed.iloc[::3, changed.columns.get_loc("customer_id")] = "a customer of the future"
    changed["article_id"] = random.permutation(changed["article_id"].to_numpy())
    changed.iloc[::4, changed.columns.get_loc("article_id")] = "an article of the future"
    changed["price"] = changed["price"] * 100 + 1
    changed["discount"] = 0.9
    changed["sales_channel_id"] = changed["sales_channel_id"] - 5
    changed["basket_id"] = "future-" + changed["basket_id"] + changed["customer_id"]
    changed["t_dat"] = instant + (changed["t_dat"] - instant) / 2
    future = pd.concat([lines[~after], changed.iloc[: len(changed) // 2], changed.iloc[:20]])
    future["t_dat"] = future["t_dat"].astype("datetime64[us]")
    transactions = ibis.memtable(future, schema=made.transactions.schema())
    transactions = transactions.mutate(price=transactions.price.nullif(float("nan")))
    transactions = transactions.mutate(discount=transactions.discount.nullif(float("nan")))
    before, tables = weeks_of_tables(stored(made, tmp_path / "before"))
    later, _tables = weeks_of_tables(stored(Tables(made.customers, made.articles, transactions), tmp_path / "later"))
    known = before.values.shape[1]
    different = [
        name
        for number, name in enumerate(FEATURES)
        if not np.array_equal(before.values[week:, :known, number], later.values[week:, :known, number], equal_nan=True)
    ]
    assert not different
    assert np.isnan(later.values[week:, known:]).all()
    if week:
        # The same comparison notices each feature in the weeks that do see the changed rows.
        seen = [
            name
            for number, name in enumerate(FEATURES)
            if np.array_equal(before.values[:week, :known, number], later.values[:week, :known, number], equal_nan=True)
        ]
        assert set(seen) <= {"product_sales_4w", "product_sales_13w"}
    assert int(tables.transactions.count().execute()) == len(lines)
