import ibis
import pandas as pd
import pytest

from tfrs_fashion.data.generated.simulator import make_tables
from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.schema import Tables, check_tables
from tfrs_fashion.settings.pipeline import PipelineConfig

NAMES = ("customers", "articles", "transactions")


def frames(tables: Tables) -> dict[str, pd.DataFrame]:
    return {name: getattr(tables, name).execute() for name in NAMES}


def small(seed: int) -> dict[str, pd.DataFrame]:
    return frames(make_tables(num_customers=20, num_articles=15, num_days=30, seed=seed))


def test_equal_seeds_give_equal_tables() -> None:
    first, second = small(3), small(3)
    for name in NAMES:
        pd.testing.assert_frame_equal(first[name], second[name])


def test_different_seeds_give_different_tables() -> None:
    first, second = small(3), small(4)
    assert all(not first[name].equals(second[name]) for name in NAMES)


def test_tables_have_the_requested_sizes() -> None:
    made = frames(make_tables(num_customers=100, num_articles=15, num_days=30, seed=1))
    assert len(made["articles"]) == 15
    assert made["transactions"]["customer_id"].nunique() == 100
    # About one in ten customers has no row, as in real exports: 90 do, plus or minus four standard deviations of 3.
    assert 78 <= len(made["customers"]) < 100
    days = made["transactions"]["t_dat"]
    assert days.min() >= pd.Timestamp("2024-01-01")
    assert days.max() < pd.Timestamp("2024-01-01") + pd.Timedelta(days=30)


def test_the_columns_that_its_pipelines_declare_exist(config: PipelineConfig, tables: Tables) -> None:
    assert set(config.features.categorical) <= set(tables.articles.columns)
    assert set(config.features.profile) <= set(tables.customers.columns)


def test_price_is_the_list_price_less_the_discount() -> None:
    made = small(1)
    lines = made["transactions"].merge(made["articles"], on="article_id")
    assert lines["price"].tolist() == pytest.approx((lines["list_price"] * (1 - lines["discount"])).tolist(), abs=0.01)


def test_a_basket_is_one_instant_without_repeated_articles() -> None:
    lines = small(1)["transactions"]
    assert (lines.groupby(["customer_id", "basket_id"])["t_dat"].nunique() == 1).all()
    assert not lines.duplicated(["customer_id", "basket_id", "article_id"]).any()


@pytest.mark.parametrize(
    ("customers", "articles", "days", "seed"),
    [(1, 1, 1, 1), (1, 1, 1, 2), (1, 50, 10, 3), (50, 1, 10, 4), (30, 20, 40, 5)],
)
def test_tables_of_any_size_pass_every_check(customers: int, articles: int, days: int, seed: int) -> None:
    made = make_tables(num_customers=customers, num_articles=articles, num_days=days, seed=seed)
    check_tables(made)
    indexed = index_tables(made)
    assert int(indexed.customers.count().execute()) == customers
    assert int(indexed.articles.count().execute()) == articles


def test_unknown_ages_are_null_not_nan() -> None:
    customers = make_tables(num_customers=100, num_articles=5, num_days=5, seed=1).customers
    assert int(customers.age.isnull().sum().execute()) > 0
    assert int(customers.age.isnan().sum().execute() or 0) == 0
    assert isinstance(customers, ibis.Table)
