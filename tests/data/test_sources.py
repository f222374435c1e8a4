"""The shipped recipes over real data, with figures that pandas counts on its own."""

from pathlib import Path

import ibis
import pandas as pd
import pytest

from tfrs_fashion.data import sources
from tfrs_fashion.data.complete_journey import source_files as complete_journey_files
from tfrs_fashion.data.sources import load_source, source_files
from tfrs_fashion.data.split import make_splits, targets
from tfrs_fashion.data.tables import index_tables, read_tables, write_tables
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, InputError, Tables, check_tables
from tfrs_fashion.settings.data import DataConfig
from tfrs_fashion.settings.file import load_config

RECIPES = Path(__file__).parent.parent.parent / "pipelines"


def prepared(name: str, data_path: Path, tmp_path: Path) -> Tables:
    """Loads, checks, indexes and splits as `prepare` does."""
    config = load_config(RECIPES / f"{name}.toml", [f"data.path={data_path / name}"])
    tables = load_source(ibis.duckdb.connect(), config.data, seed=1)
    check_tables(tables)
    write_tables(index_tables(tables), tmp_path)
    tables = read_tables(ibis.duckdb.connect(), tmp_path)
    make_splits(tables.transactions, **config.split.cuts)
    features = config.features
    assert set(features.categorical) <= set(tables.articles.columns)
    assert {*features.profile, *features.profile_numbers} <= set(tables.customers.columns)
    return tables


def counts_of(tables: Tables, table: str) -> dict[str, int]:
    return {count.rule: count.rows for count in tables.counts if count.table == table}


def test_the_week_of_hm(data_path: Path, tmp_path: Path) -> None:
    raw = pd.read_parquet(data_path / "hm_week" / "transactions_train.parquet")
    people = pd.read_parquet(data_path / "hm_week" / "customers.parquet")
    tables = prepared("hm_week", data_path, tmp_path)
    figures = tables.transactions.agg(
        rows=tables.transactions.count(),
        units=tables.transactions.quantity.sum(),
        spent=tables.transactions.price.sum(),
    ).execute()
    assert figures["rows"][0] == len(raw.drop_duplicates())
    assert figures["units"][0] == len(raw)
    assert figures["spent"][0] == pytest.approx(raw.drop_duplicates()["price"].astype(float).sum())
    assert int(tables.articles.count().execute()) == 105_542
    assert int(tables.customers.count().execute()) == len({*raw["customer_id"], *people["customer_id"]})
    counts = counts_of(tables, "customers")
    assert counts["`FN` missing: '-1' instead"] == people["FN"].isna().sum()
    assert counts["`Active` missing: '-1' instead"] == people["Active"].isna().sum()


def test_rent_the_runway(data_path: Path, tmp_path: Path) -> None:
    raw = pd.read_parquet(data_path / "rent_the_runway" / "rentals.parquet")
    tables = prepared("rent_the_runway", data_path, tmp_path)
    assert int(tables.transactions.count().execute()) == len(raw)
    assert tables.transactions.price.to_pyarrow().null_count == len(raw)
    assert int(tables.articles.count().execute()) == raw["item_id"].nunique()
    customers = tables.customers.execute().set_index("customer_id")
    assert len(customers) == raw["user_id"].nunique()
    # Who rented once has the row of that rental.
    once = raw[~raw["user_id"].duplicated(keep=False)].set_index("user_id")
    age = once["age"].where(once["age"].between(10, 110))
    found = customers.loc[once.index.astype(str)]
    assert found["age"].tolist() == pytest.approx(age.tolist(), nan_ok=True)
    assert found["height_in"].tolist() == pytest.approx(once["height_in"].tolist(), nan_ok=True)
    assert (found["known_from"].to_numpy() == once["review_date"].to_numpy()).all()
    assert customers["known_from"].min() == raw["review_date"].min()
    # Of the others too, where one rental alone is on the first day.
    first = raw[raw["review_date"] == raw.groupby("user_id")["review_date"].transform("min")]
    first = first[~first["user_id"].duplicated(keep=False)].set_index("user_id")
    weight = customers.loc[first.index.astype(str), "weight_lbs"]
    assert weight.tolist() == pytest.approx(first["weight_lbs"].tolist(), nan_ok=True)


def test_online_retail(data_path: Path, tmp_path: Path) -> None:
    raw = pd.read_parquet(data_path / "online_retail" / "online_retail.parquet")
    config = load_config(RECIPES / "online_retail.toml").data
    goods = raw[~raw["StockCode"].isin(config.transactions.not_merchandise)]
    tables = prepared("online_retail", data_path, tmp_path)
    assert int(tables.transactions.count().execute()) == len(goods)
    assert int(tables.transactions.quantity.sum().execute()) == goods["Quantity"].sum()
    assert int(tables.articles.count().execute()) == goods["StockCode"].nunique()
    named = goods[goods["CustomerID"] != 0]
    assert int(tables.customers.count().execute()) == named["CustomerID"].nunique()
    anonymous = tables.transactions.filter(tables.transactions.customer_id == ANONYMOUS_CUSTOMER)
    assert int(anonymous.count().execute()) == len(goods) - len(named)
    assert sorted(tables.customers.customer_id.execute()) == sorted(
        named["CustomerID"].astype(int).astype(str).unique()
    )
    counts = counts_of(tables, "transactions")
    assert counts["dropped: the article is not merchandise"] == len(raw) - len(goods)
    assert counts["price is 0: unknown instead"] == (goods["UnitPrice"] == 0).sum()
    assert tables.transactions.basket_id.nunique().execute() == goods["InvoiceNo"].nunique()


@pytest.mark.parametrize("name", ["beauty", "clothing"])
def test_amazon(data_path: Path, tmp_path: Path, name: str) -> None:
    raw = [line.split() for line in (data_path / "amazon" / f"{name}.txt").read_text(encoding="utf-8").splitlines()]
    config = load_config(RECIPES / f"amazon_{name}.toml", [f"data.path={data_path / 'amazon'}"])
    tables = index_tables(load_source(ibis.duckdb.connect(), config.data, seed=1))
    assert int(tables.transactions.count().execute()) == sum(len(line) - 1 for line in raw)
    assert int(tables.customers.count().execute()) == len(raw)
    splits = make_splits(tables.transactions, **config.split.cuts)
    # Of everyone the last purchase is asked for, and the one before it on validation.
    for split, place in (("test", -1), ("validation", -2)):
        wanted = targets(splits[split], tables.transactions).left_join(tables.customers, "customer_index")
        found = wanted.left_join(tables.articles, "article_index").select("customer_id", "article_id").execute()
        assert dict(found.to_numpy().tolist()) == {line[0]: line[place] for line in raw}


@pytest.mark.parametrize("name", ["hm", "hm_week", "rent_the_runway", "online_retail", "amazon_beauty"])
def test_a_missing_folder_says_how_to_set_it(name: str, tmp_path: Path) -> None:
    config = load_config(RECIPES / f"{name}.toml", [f"data.path={tmp_path / 'nowhere'}"]).data
    for ask in (lambda: source_files(config), lambda: load_source(ibis.duckdb.connect(), config, seed=1)):
        with pytest.raises(InputError, match=r"nowhere.*no such (file|folder)\b.*et `data\.path`"):
            ask()


def test_embedded_and_generated_data_need_no_folder() -> None:
    assert source_files(DataConfig(source="simulator")) == []
    assert source_files(DataConfig(source="complete_journey")) == complete_journey_files()
    sizes = {"num_customers": 5, "num_articles": 6, "num_days": 30}
    tables = load_source(ibis.duckdb.connect(), DataConfig(source="simulator", **sizes), seed=1)
    assert int(tables.articles.count().execute()) == 6


def test_invented_files_of_another_generator_are_not_taken_for_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []

    def write(folder: Path, **_settings: object) -> None:
        written.append(folder)
        folder.mkdir(parents=True)
        raise InputError("written")

    monkeypatch.setattr(sources, "write_hm_scale", write)
    config = DataConfig(source="hm_scale", path=str(tmp_path))
    for version in (1, 2):
        monkeypatch.setattr(sources, "GENERATOR_VERSION", version)
        with pytest.raises(InputError, match="written"):
            load_source(ibis.duckdb.connect(), config, seed=7)
        # Now the folder is there, and is read.
        with pytest.raises(InputError, match="no such file as"):
            load_source(ibis.duckdb.connect(), config, seed=7)
    first, second = (folder.name for folder in written)
    assert (first[:3], second[:3]) == ("v1-", "v2-")
    assert first[3:] == second[3:]
    assert first.endswith("-7")
