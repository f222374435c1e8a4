"""Fixtures that all tests share: the tiny pipeline's tables, timelines and splits, and how to skip."""

import datetime
import gc
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hypothesis
import ibis
import pytest

from tfrs_fashion.schema import FIRST_INDEX, Tables
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.pipeline import PipelineConfig

# TensorFlow takes seconds to load: only tests that need it shall pay.
if TYPE_CHECKING:
    from tfrs_fashion.data.split import Split
    from tfrs_fashion.features.timelines import Timelines
    from tfrs_fashion.features.view import View
    from tfrs_fashion.recommenders.two_stage.two_stage import TwoStage
    from tfrs_fashion.run.run import Run

ROOT = Path(__file__).parent.parent
# Before a test imports it: MLflow tells its makers of its use.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

# How long an example takes says more of the machine's other work than of the example. On a machine that judges a
# change, the same change meets the same examples each time.
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


# A wrapper, since pytest-xdist reads the marks in this very hook, and may do so before any other.
@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Keeps what shares fixtures in one worker of pytest-xdist: all tests of the tiny run, or else those of a file."""
    for item in items:
        of_tiny_run = "tiny_run" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("tiny_run" if of_tiny_run else str(item.path)))
    yield


@pytest.fixture(scope="session")
def skip_or_fail() -> Callable[[str], NoReturn]:
    """Skips for a reason; with TFRS_FASHION_NO_SKIP=1 nothing may be missing, so the test fails instead."""

    def stop(reason: str) -> NoReturn:
        if os.environ.get("TFRS_FASHION_NO_SKIP") == "1":
            pytest.fail(f"TFRS_FASHION_NO_SKIP=1, but {reason}")
        pytest.skip(reason)

    return stop


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def data_path(skip_or_fail: Callable[[str], NoReturn]) -> Path:
    """The folder of shared data, named by TFRS_FASHION_DATA."""
    folder = os.environ.get("TFRS_FASHION_DATA")
    if not folder or not Path(folder).is_dir():
        skip_or_fail("TFRS_FASHION_DATA names no folder of data")
    return Path(folder)


@pytest.fixture(scope="session")
def config() -> PipelineConfig:
    """The tiny pipeline."""
    return load_config(ROOT / "pipelines" / "tiny.toml")


@pytest.fixture(scope="session")
def tables(config: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The tiny pipeline's tables, checked, indexed, written and read back."""
    from tfrs_fashion.data.generated.simulator import make_tables
    from tfrs_fashion.data.tables import index_tables, read_tables, write_tables
    from tfrs_fashion.schema import check_tables

    made = make_tables(**config.data.model_dump(include={"num_customers", "num_articles", "num_days"}), seed=1)
    check_tables(made)
    folder = tmp_path_factory.mktemp("tables")
    write_tables(index_tables(made), folder)
    return read_tables(ibis.duckdb.connect(), folder)


@pytest.fixture(scope="session")
def timelines_folder(config: PipelineConfig, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny timelines on disk; read only."""
    from tfrs_fashion.features.timelines import write_timelines

    folder = tmp_path_factory.mktemp("timelines")
    write_timelines(tables, folder, profile=config.features.profile, profile_numbers=config.features.profile_numbers)
    return folder


@pytest.fixture(scope="session")
def timelines(timelines_folder: Path) -> "Timelines":
    """The tiny timelines in memory."""
    from tfrs_fashion.features.timelines import read_timelines

    return read_timelines(timelines_folder)


@pytest.fixture(scope="session")
def splits(config: PipelineConfig, tables: Tables) -> "dict[str, Split]":
    """`validation`, `test` and `release` of the tiny pipeline."""
    from tfrs_fashion.data.split import make_splits

    return make_splits(tables.transactions, **config.split.cuts)


@pytest.fixture(scope="session")
def view(config: PipelineConfig, tables: Tables, timelines: "Timelines", splits: "dict[str, Split]") -> "View":
    """What the tiny pipeline's test split leaves visible."""
    from tfrs_fashion.features.view import make_view

    return make_view(
        tables,
        timelines,
        splits["test"],
        **config.features.model_dump(
            include={"categorical", "numbers", "min_articles", "min_customers", "num_text_buckets"}
        ),
        roles=config.features.roles,
        **config.split.store,
    )


@pytest.fixture(scope="session")
def tiny_settings() -> tuple[str, ...]:
    """What `tiny_run` changes in the tiny pipeline: every recommender and every index is in it."""
    recommenders = ["popularity_7d", "popularity_siblings", "repurchase", "als", "two_tower"]
    return f"recommenders={recommenders}", 'index.kinds=["exact", "scann", "new_arrivals"]'


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_settings: tuple[str, ...]) -> "Run":
    """The tiny pipeline with every recommender and every index, run whole; read only."""
    from tfrs_fashion.run.run import Run

    folder = tmp_path_factory.mktemp("tiny")
    settings = [f"export.folder={folder / 'released'}", *tiny_settings]
    run = Run(config=load_config(ROOT / "pipelines" / "tiny.toml", settings), folder=folder / "run")
    run.everything()
    return run


def pytest_unconfigure() -> None:
    """Lets go of ibis's own backend, about which DuckDB would complain at length as the process ends."""
    ibis.options.default_backend = None
    gc.collect()


@pytest.fixture(scope="session")
def make_view() -> "Callable[[Sequence[tuple[int, int, int]]], View]":
    """Makes the view before 11 January of `(customer_index, article_index, day)`, each bought at noon.

    There are six articles, of which those sold are in store, and nothing is known but who bought what.
    """

    import numpy as np
    import pandas as pd

    from tfrs_fashion.data.split import Split, seconds_since_1970
    from tfrs_fashion.features.articles import ArticleTable
    from tfrs_fashion.features.inputs import Profiles
    from tfrs_fashion.features.timelines import ALWAYS, Timelines
    from tfrs_fashion.features.view import View

    as_of, num_articles = datetime.datetime(2024, 1, 11), 6

    def make(purchases: Sequence[tuple[int, int, int]]) -> View:
        frame = pd.DataFrame(purchases, columns=["customer_index", "article_index", "day"])
        frame = frame.sort_values(["customer_index", "day", "article_index"])
        frame["t_dat"] = pd.Timestamp("2023-12-31 12:00") + pd.to_timedelta(frame["day"], unit="D")
        num_customers = int(frame["customer_index"].max()) + 1 - FIRST_INDEX
        size, events = num_articles + FIRST_INDEX, len(frame)
        counts = np.bincount(frame["customer_index"] - FIRST_INDEX, minlength=num_customers)
        timelines = Timelines(
            customer_id=np.array([f"c{number}" for number in range(num_customers)], dtype=object),
            row_splits=np.concatenate([[0], np.cumsum(counts)]),
            article_index=frame["article_index"].to_numpy(np.int32),
            time=(frame["t_dat"].astype("datetime64[s]").astype("int64")).to_numpy(),
            price=np.ones(events, np.float32),
            quantity=np.ones(events, np.int32),
            discount=np.zeros(events, np.float32),
            sales_channel_id=np.zeros(events, np.int32),
            store_index=np.zeros(events, np.int32),
            store_id=np.array([], dtype=object),
            known_from=np.full(num_customers, ALWAYS),
            profile={},
            profile_numbers={},
        )
        sold = np.unique(frame["article_index"].to_numpy(np.int32))
        articles = ArticleTable(
            article_id=np.array([f"a{number}" for number in range(num_articles)], dtype=object),
            categorical={},
            vocabulary={},
            numbers={},
            vectors=np.zeros((size, 0), np.float32),
            num_baskets=np.bincount(frame["article_index"], minlength=size),
            in_store=sold,
            never_sold=np.setdiff1d(np.arange(FIRST_INDEX, size, dtype=np.int32), sold),
        )
        transactions = frame.drop(columns="day").assign(basket_id=frame["day"].astype(str))
        nothing = ibis.memtable(pd.DataFrame({"article_index": pd.Series([], dtype="int32")}))
        return View(
            split=Split(name="test", kind="window", as_of=as_of),
            tables=Tables(customers=nothing, articles=nothing, transactions=ibis.memtable(transactions)),
            timelines=timelines,
            articles=articles,
            profile_vocabulary={},
            profiles=Profiles(
                np.zeros((num_customers + FIRST_INDEX, 0), np.int32),
                np.zeros((num_customers + FIRST_INDEX, 0), np.float32),
            ),
            now=np.full(num_customers + FIRST_INDEX, seconds_since_1970(as_of)),
            lookups=None,
            category=None,
        )

    return make


@pytest.fixture(scope="session")
def make_two_stage() -> "Callable[..., TwoStage]":
    """Makes two stages over three generators of a view, with rankers that have not learned but tell candidates apart."""
    import numpy as np

    from tfrs_fashion.features.pair_lookups import make_pair_lookups
    from tfrs_fashion.features.pairs import PairFeatureLayer
    from tfrs_fashion.models.ranking import RankingNetwork
    from tfrs_fashion.models.trees import Trees, read_trees
    from tfrs_fashion.recommenders.blend.blend import Blend
    from tfrs_fashion.recommenders.kinds import fit_by_name
    from tfrs_fashion.recommenders.two_stage.rankers import NetworkRanker, TreesRanker
    from tfrs_fashion.recommenders.two_stage.two_stage import PairDescriber, TwoStage

    names = ("popularity_7d", "repurchase", "co_visitation")

    def make(view: "View", config: PipelineConfig, *rankers: str, combination: str = "score") -> TwoStage:
        generators = {name: fit_by_name(name, view, config.recommender) for name in names}
        quotas, size = np.array([1.0, 3.0, 2.0], np.float32), view.articles.num_articles + FIRST_INDEX
        known = np.zeros((size, 0), np.float32)
        blend = Blend(generators, num_candidates=40, quotas=quotas, article_features=known)
        tower = fit_by_name("two_tower", view, config.recommender, choice={"epochs": 1})
        layer = PairFeatureLayer(make_pair_lookups(view, ["section", "product_code"]))
        describer = PairDescriber(layer, {"two_tower": tower}, blend.generators)
        settings = {
            "category_sizes": view.articles.category_sizes,
            "num_customers": view.timelines.num_customers,
            "num_features": len(describer.names),
            **{"num_bins": 3, "embedding_dim": 4, "hidden_dims": (8, 4), "num_cross": 1, "uses_dot": True},
            **{"num_experts": 2, "dropout": 0.5, "seed": 1},
        }
        network = RankingNetwork(view.articles.category_matrix(), **settings)
        random = np.random.default_rng(1)
        network.fit(np.abs(random.normal(size=(100, len(describer.names)))).astype(np.float32))
        weights = [
            values + random.normal(0, 0.3, values.shape) if values.dtype == np.float32 else values
            for values in network.get_weights()
        ]
        network.set_weights(weights)
        place = describer.names.index("days_since_sold")
        leaves = [{"leaf_value": value} for value in (0.5, -0.25)]
        split = {"split_feature": place, "decision_type": "<=", "missing_type": "NaN", "default_left": False}
        trees = [
            {"tree_structure": {**split, "threshold": days, "left_child": leaves[0], "right_child": leaves[1]}}
            for days in (0.7, 2.2, 5.1)
        ]
        made = {
            "network": NetworkRanker(network, settings=settings, calibration=(0.5, -1.0)),
            "lightgbm": TreesRanker(Trees(read_trees({"tree_info": trees})), "", calibration=(2.0, -1.0)),
        }
        return TwoStage(
            blend,
            describer,
            {name: made[name] for name in rankers},
            combination=combination,
            budget=60,
            name="two_stage",
        )

    return make
