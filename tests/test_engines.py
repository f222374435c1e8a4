"""Every Ibis function gives on Spark what it gives on DuckDB: real Spark, in local mode.

What does not work on Spark, and so is not used: ASOF joins, `mode`, `nunique` over windows, `collect(order_by=)`,
temporary tables, `distinct` over fewer columns than the filters before it read (Ibis takes those into the SELECT
DISTINCT), division by zero (null or an error there, infinite on DuckDB).
Spark's session must keep its time in UTC, and timestamps must carry no time zone.
"""

import datetime
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.data.generated import simulator
from tfrs_fashion.data.split import Split, cutoff_seconds, epoch_seconds, make_splits, targets, visible
from tfrs_fashion.data.tables import index_tables
from tfrs_fashion.features.article_weeks import FEATURES, make_article_weeks, read_article_weeks
from tfrs_fashion.features.articles import content_embedding, make_article_table, sales_by_article
from tfrs_fashion.recommenders.popularity import count_windows, fit_popularity
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, Tables, check_tables

NAMES = ("customers", "articles", "transactions")
AS_OF = datetime.datetime(2024, 2, 5)
CATEGORICAL = ("garment_group", "colour", "section")
KINDS = ("window", "last_basket", "share", "leave_one_out")


@pytest.fixture(scope="module")
def spark(
    tmp_path_factory: pytest.TempPathFactory, skip_or_fail: Callable[[str], NoReturn]
) -> Iterator[ibis.BaseBackend]:
    """A backend over a local Spark session."""
    if importlib.util.find_spec("pyspark") is None:
        skip_or_fail("the package pyspark is not installed")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        skip_or_fail("Spark needs Java, and there is no `java` on the path")
    from pyspark.sql import SparkSession

    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.warehouse.dir": str(tmp_path_factory.mktemp("warehouse")),
        # Tiny tables: what would be compiled or planned anew for speed costs more than it saves.
        "spark.sql.codegen.wholeStage": "false",
        "spark.sql.codegen.factoryMode": "NO_CODEGEN",
        "spark.sql.adaptive.enabled": "false",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    builder = SparkSession.builder.master("local[2]").appName("tests")
    for name, value in settings.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    yield ibis.pyspark.connect(session)
    session.stop()


@pytest.fixture(scope="module")
def duckdb() -> ibis.BaseBackend:
    return ibis.duckdb.connect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw tables, with what engines might take differently: fractions of seconds, nulls, ids that have no row."""
    tables = simulator.make_tables(num_customers=25, num_articles=30, num_days=45, seed=2)
    lines = tables.transactions.execute()
    lines["t_dat"] = (lines["t_dat"] + pd.to_timedelta(np.arange(len(lines)) % 4 * 0.3, unit="s")).astype(
        "datetime64[us]"
    )
    lines["sales_channel_id"] = lines["sales_channel_id"].astype("Int64")
    lines.loc[::7, ["price", "discount", "sales_channel_id"]] = None
    lines.loc[::9, "price"] = 0.0
    lines.loc[::11, "customer_id"] = ANONYMOUS_CUSTOMER
    lines.loc[3::50, "article_id"] = "an article without a row: ベージュ"
    articles = tables.articles.execute()
    articles.loc[::5, ["colour", "product_code", "description"]] = None
    articles.loc[4, "colour"] = ""
    articles["known_from"] = pd.Series([None, pd.Timestamp("2023-12-31")] * 15, dtype="datetime64[us]")
    folder = tmp_path_factory.mktemp("raw")
    backend = ibis.duckdb.connect()
    frames = {"customers": tables.customers.execute(), "articles": articles, "transactions": lines}
    for name, frame in frames.items():
        table = ibis.memtable(frame)
        floats = {key: table[key].nullif(float("nan")) for key, dtype in table.schema().items() if dtype.is_floating()}
        texts = {key: table[key].cast("string") for key in ("store_id",) if key in table.columns}
        backend.to_parquet(table.mutate(**floats, **texts), folder / f"{name}.parquet")
    return folder


def raw_tables(backend: ibis.BaseBackend, folder: Path) -> Tables:
    return Tables(*(backend.read_parquet(str(folder / f"{name}.parquet")) for name in NAMES))


def store(backend: ibis.BaseBackend, tables: Tables, folder: Path) -> Tables:
    """Written and read by the engine itself, so that a test does not plan all that came before it."""
    folder.mkdir()
    for name in NAMES:
        getattr(tables, name).to_parquet(str(folder / f"{name}.parquet"))
    return raw_tables(backend, folder)


@pytest.fixture(scope="module")
def on_duckdb(duckdb: ibis.BaseBackend, folder: Path) -> Tables:
    return store(duckdb, index_tables(raw_tables(duckdb, folder)), folder / "duckdb")


@pytest.fixture(scope="module")
def on_spark(spark: ibis.BaseBackend, folder: Path) -> Tables:
    return store(spark, index_tables(raw_tables(spark, folder)), folder / "spark")


def assert_equal(left: pd.DataFrame, right: pd.DataFrame, *, keys: list[str]) -> None:
    assert list(left.columns) == list(right.columns)
    assert len(left)
    left, right = (frame.sort_values(keys).reset_index(drop=True) for frame in (left, right))
    for name in left.columns:
        if pd.api.types.is_numeric_dtype(left[name]) or pd.api.types.is_numeric_dtype(right[name]):
            values = (frame[name].to_numpy(dtype=float, na_value=np.nan) for frame in (left, right))
            np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-6, err_msg=name)
        else:
            found = (frame[name].astype(object).where(frame[name].notna(), None).tolist() for frame in (left, right))
            assert next(found) == next(found), name


def test_check_tables_passes_on_spark(spark: ibis.BaseBackend, folder: Path) -> None:
    check_tables(raw_tables(spark, folder))


def test_index_tables(on_duckdb: Tables, on_spark: Tables, duckdb: Any, spark: Any, folder: Path) -> None:
    assert index_tables(raw_tables(spark, folder)).counts == index_tables(raw_tables(duckdb, folder)).counts
    for name, keys in (
        ("customers", ["customer_index"]),
        ("articles", ["article_index"]),
        ("transactions", ["customer_index", "t_dat", "basket_id", "article_index"]),
    ):
        left, right = getattr(on_duckdb, name), getattr(on_spark, name)
        assert [type(kind) for kind in left.schema().types] == [type(kind) for kind in right.schema().types]
        assert_equal(left.execute(), right.execute(), keys=keys)


def split_rows(tables: Tables, kind: str) -> dict[str, dict[str, Any]]:
    splits = make_splits(tables.transactions, kind=kind, test_days=5, validation_days=5)  # type: ignore[arg-type]
    num_customers = int(tables.customers.count().execute())
    return {
        name: {
            "described": split.describe(),
            "visible": visible(split, tables.transactions).execute(),
            "targets": targets(split, tables.transactions).execute() if name != "release" else None,
            "cutoffs": cutoff_seconds(split, num_customers),
        }
        for name, split in splits.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_splits(on_duckdb: Tables, on_spark: Tables, kind: str) -> None:
    left, right = (split_rows(tables, kind) for tables in (on_duckdb, on_spark))
    for name in left:
        assert left[name]["described"] == right[name]["described"]
        assert left[name]["cutoffs"].tolist() == right[name]["cutoffs"].tolist()
        keys = ["customer_index", "t_dat", "basket_id", "article_index"]
        assert_equal(left[name]["visible"], right[name]["visible"], keys=keys)
        if name != "release":
            assert_equal(left[name]["targets"], right[name]["targets"], keys=["customer_index", "article_index"])


@pytest.fixture(scope="module")
def seen(on_duckdb: Tables, on_spark: Tables) -> tuple[ibis.Table, ibis.Table]:
    split = Split(name="test", kind="window", as_of=AS_OF)
    return visible(split, on_duckdb.transactions), visible(split, on_spark.transactions)


def test_sales_by_article(seen: tuple[ibis.Table, ibis.Table]) -> None:
    left, right = (sales_by_article(transactions) for transactions in seen)
    assert_equal(left, right, keys=["article_index"])
    assert right["article_index"].is_monotonic_increasing


def test_article_table(on_duckdb: Tables, on_spark: Tables, seen: tuple[ibis.Table, ibis.Table]) -> None:
    left, right = (
        make_article_table(
            tables.articles, rows, as_of=AS_OF, categorical=CATEGORICAL, numbers=("list_price",), in_store_days=7
        )
        for tables, rows in zip((on_duckdb, on_spark), seen, strict=True)
    )
    assert left.vocabulary == right.vocabulary
    for name in ("article_id", "num_baskets", "in_store", "never_sold"):
        assert getattr(left, name).tolist() == getattr(right, name).tolist()
    for name in CATEGORICAL:
        assert left.categorical[name].tolist() == right.categorical[name].tolist()
    np.testing.assert_allclose(left.numbers["list_price"], right.numbers["list_price"], rtol=1e-6)


def test_content_embedding(on_duckdb: Tables, on_spark: Tables) -> None:
    left, right = (content_embedding(tables.articles, categorical=CATEGORICAL) for tables in (on_duckdb, on_spark))
    np.testing.assert_allclose(left, right, atol=1e-6)


def test_article_weeks(on_duckdb: Tables, on_spark: Tables) -> None:
    left, right = (
        read_article_weeks(
            make_article_weeks(
                tables.articles,
                tables.transactions,
                tables.customers,
                as_of=AS_OF,
                num_weeks=5,
                category="garment_group",
            ),
            as_of=AS_OF,
            num_articles=31,
            num_weeks=5,
        )
        for tables in (on_duckdb, on_spark)
    )
    for number, name in enumerate(FEATURES):
        np.testing.assert_allclose(
            left.values[..., number], right.values[..., number], rtol=1e-6, atol=1e-6, err_msg=name
        )
    # All is null in the plane before all instants, and no feature is null throughout.
    assert np.isfinite(left.values[0]).any(axis=0).all()


def test_popularity(seen: tuple[ibis.Table, ibis.Table], tmp_path: Path) -> None:
    left, right = (fit_popularity(transactions, as_of=AS_OF, days=7) for transactions in seen)
    for first, second in zip(left.variables, right.variables, strict=True):
        assert first.numpy().tolist() == second.numpy().tolist()


def test_baskets_of_two_windows(seen: tuple[ibis.Table, ibis.Table]) -> None:
    left, right = (count_windows(transactions, as_of=AS_OF, days=7) for transactions in seen)
    assert (left[["recent", "former"]] > 0).all(axis=1).any()
    assert_equal(left, right, keys=["article_index"])


def test_seconds_are_rounded_down(duckdb: ibis.BaseBackend, spark: ibis.BaseBackend, tmp_path: Path) -> None:
    times = ["2024-01-04 23:59:59.400", "2024-01-04 23:59:59.999999", "2024-01-05", "1969-12-31 23:59:59.700", None]
    frame = pd.DataFrame({"row": range(5), "t_dat": pd.to_datetime(times, format="ISO8601").astype("datetime64[us]")})
    duckdb.to_parquet(ibis.memtable(frame), tmp_path / "times.parquet")
    expected = [1704412799, 1704412799, 1704412800, -1]
    for backend in (duckdb, spark):
        table = backend.read_parquet(str(tmp_path / "times.parquet")).order_by("row")
        found = table.select(second=epoch_seconds(table.t_dat)).execute()["second"]
        assert found[:4].tolist() == expected
        assert pd.isna(found[4])
