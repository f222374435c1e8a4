"""Leakage by perturbation: changing every row at or after the cutoff changes nothing that a prediction is made from.

Every feature, vocabulary, bin edge, model input, candidate and score is compared by name.
"""

import datetime
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from ibis import _

from tests.every_recommender import GROUPED, SETTINGS, SINGLE
from tfrs_fashion.data.generated import simulator
from tfrs_fashion.data.split import Split, visible
from tfrs_fashion.data.tables import index_tables, read_tables, write_tables
from tfrs_fashion.features import view as view_module
from tfrs_fashion.features.article_weeks import FEATURES, make_article_weeks
from tfrs_fashion.features.history_lookups import categorical_names, number_names
from tfrs_fashion.features.inputs import HistoryTable, make_training_baskets, make_training_dataset
from tfrs_fashion.features.timelines import EVENT_TYPES, Timelines, read_timelines, write_timelines
from tfrs_fashion.features.view import View, make_view
from tfrs_fashion.models.encoders import ArticleEncoder
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.kinds import fit_by_name
from tfrs_fashion.recommenders.two_tower.query import TwoTowerQuery, make_history_layer
from tfrs_fashion.run import pools as pooling
from tfrs_fashion.run.pools import past_weeks
from tfrs_fashion.run.rankers import Ranking
from tfrs_fashion.schema import ANONYMOUS_CUSTOMER, FIRST_INDEX, Tables, check_tables
from tfrs_fashion.settings.file import load_config
from tfrs_fashion.settings.pipeline import PipelineConfig

CUTOFF = datetime.datetime(2024, 2, 20)
SPLIT = Split(name="test", kind="window", as_of=CUTOFF)
NUM_WEEKS = 7
Values = dict[str, np.ndarray]
NAMES = (*SINGLE, *GROUPED)


@pytest.fixture(scope="module")
def pipeline(root: Path) -> PipelineConfig:
    overrides = (
        'features.sets=["materials"]',
        *SETTINGS,
        "recommender.two_tower.embedding_dim=8",
        "recommender.two_tower.min_baskets=2",
        "recommender.als.iterations=3",
        "recommender.bpr.iterations=5",
    )
    return load_config(root / "pipelines" / "tiny.toml", overrides)


def with_late_rows(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    """Adds rows that become known at or after the cutoff, and gives some of the others a date before it."""
    known_from = pd.Series([None] * len(frame), index=frame.index, dtype="datetime64[us]")
    known_from.iloc[::7] = CUTOFF - datetime.timedelta(days=30)
    known_from.iloc[3] = CUTOFF - datetime.timedelta(microseconds=1)
    late = frame.iloc[:5].assign(**{key: [f"late {number}" for number in range(5)]})
    late_from = [CUTOFF + datetime.timedelta(days=number // 2) for number in range(5)]
    return pd.concat([frame.assign(known_from=known_from), late.assign(known_from=late_from)], ignore_index=True)


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    """Makes customers, articles and transactions, some of them anonymous."""
    made = simulator.make_tables(num_customers=60, num_articles=120, num_days=70, seed=5)
    customers, articles = made.customers.execute(), made.articles.execute()
    lines = made.transactions.execute()
    anonymous = lines["customer_id"].isin(["c00050", "c00051"])
    articles["available_from"], articles["available_to"] = pd.NaT, pd.NaT
    articles.loc[::10, "available_from"] = CUTOFF - datetime.timedelta(days=20)
    articles.loc[5::20, "available_to"] = CUTOFF - datetime.timedelta(days=2)
    articles["materials"] = [("cotton", "cotton|wool", "silk|wool", "")[number % 4] for number in range(len(articles))]
    articles.loc[3, "materials"] = "felt"
    # Three stores, one of them opened shortly before the cutoff, and lines without a store.
    store = np.where(lines["t_dat"] < CUTOFF - datetime.timedelta(days=9), "Wien", "Linz")
    lines["store_id"] = pd.Series(np.where(np.arange(len(lines)) % 3 > 0, "Graz", store), dtype=object)
    lines.loc[::5, "store_id"] = None
    return {
        "customers": with_late_rows(customers, "customer_id"),
        "articles": with_late_rows(articles, "article_id"),
        "transactions": lines.assign(customer_id=lines["customer_id"].where(~anonymous, ANONYMOUS_CUSTOMER)),
    }


def make_tables(frames: dict[str, pd.DataFrame]) -> Tables:
    tables = Tables(**{name: ibis.memtable(frame) for name, frame in frames.items()})
    customers, articles = tables.customers, tables.articles
    transactions = tables.transactions.mutate(store_id=_.store_id.cast("string"))
    made = Tables(
        customers=customers.mutate(age=_.age.nullif(float("nan"))),
        articles=articles.mutate(**{name: _[name].cast("timestamp") for name in ("available_from", "available_to")}),
        transactions=transactions,
    )
    check_tables(made)
    return made


def perturbed(frames: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Changes each row from the cutoff on: other customers, new articles, other prices; some removed, some duplicated.

    Some get the customer and the basket id of an earlier purchase, as from a till that restarts its receipt numbers.
    """
    lines = frames["transactions"]
    after = lines["t_dat"] >= CUTOFF
    assert after.sum() > 100
    future = lines[after].copy()
    random = np.random.default_rng(1)
    future["customer_id"] = random.permutation(future["customer_id"].to_numpy())
    future.iloc[::3, future.columns.get_loc("customer_id")] = "a customer of the future"
    future.iloc[1::9, future.columns.get_loc("customer_id")] = ANONYMOUS_CUSTOMER
    future["article_id"] = random.permutation(future["article_id"].to_numpy())
    future.iloc[::4, future.columns.get_loc("article_id")] = "an article of the future"
    future["price"] = future["price"] * 100 + 1
    future["quantity"] = 7
    future["discount"] = 0.9
    future["sales_channel_id"] = 9
    future["store_id"] = "a store of the future"
    future["basket_id"] = "future-" + future["basket_id"] + future["customer_id"]
    future["t_dat"] = future["t_dat"] + pd.Timedelta(days=3)
    # Receipt numbers of the last days, continued exactly at the cutoff, and of long ago.
    used = lines[~after].sort_values("t_dat", kind="stable")
    for first, again in ((0, used.iloc[-20:]), (20, used.iloc[:20])):
        for name in ("customer_id", "basket_id"):
            future.iloc[first : first + 20, future.columns.get_loc(name)] = again[name].to_numpy()
    future.iloc[:20, future.columns.get_loc("t_dat")] = CUTOFF
    future = pd.concat([future.iloc[: len(future) // 2], future.iloc[:20]])
    changed = {"transactions": pd.concat([future, lines[~after]], ignore_index=True)}
    for name, key in (("customers", "customer_id"), ("articles", "article_id")):
        frame = frames[name]
        late = frame["known_from"] >= CUTOFF
        assert late.sum() == 5
        other = frame[late].iloc[:-1].assign(known_from=CUTOFF)
        other[key] = "other " + other[key]
        words = [column for column in other if other[column].dtype == object and column != key]
        numbers = [column for column in other if other[column].dtype == float]
        other = other.assign(**dict.fromkeys(words, "of the future"), **dict.fromkeys(numbers, 99.0))
        changed[name] = pd.concat([other, frame[~late]], ignore_index=True)
    return changed


def view_of(frames: dict[str, pd.DataFrame], folder: Path, config: PipelineConfig) -> View:
    folder.mkdir()
    write_tables(index_tables(make_tables(frames)), folder)
    tables = read_tables(ibis.duckdb.connect(), folder)
    features = config.features
    write_timelines(tables, folder, profile=features.profile, profile_numbers=features.profile_numbers)
    return make_view(
        tables,
        read_timelines(folder),
        SPLIT,
        **features.model_dump(
            include={
                *("categorical", "numbers", "min_articles", "min_customers", "history", "article_weeks"),
                "num_text_buckets",
            }
        ),
        sets=features.sets,
        roles=features.roles,
        in_store_days=28,
    )


def look_up_all(view: View) -> tuple[typing.Any, tf.Tensor]:
    """Looks up the histories of all known customers, and the time of each request."""
    customers = tf.range(FIRST_INDEX, view.timelines.num_customers + FIRST_INDEX)
    return HistoryTable(view.timelines, view.profiles)(customers), tf.constant(view.now[FIRST_INDEX:])


def features_of(view: View) -> Values:
    """Collects every feature and vocabulary by name."""
    articles, timelines, lookups = view.articles, view.timelines, view.lookups
    assert lookups is not None
    words = view.read_words(64)
    found: Values = {
        "articles: ids": articles.article_id,
        "articles: words": words.values,
        "articles: words splits": words.row_splits,
        "articles: baskets": articles.num_baskets,
        "articles: in store": articles.in_store,
        "articles: never sold": articles.never_sold,
        "customers: ids": timelines.customer_id,
        "customers: known from": timelines.known_from,
        "customers: cutoffs": view.now,
        "stores: ids": timelines.store_id,
        "histories: splits": timelines.row_splits,
        "lookups: section shares": np.array(lookups.section_shares),
    }
    found |= {f"articles: {name}": index for name, index in articles.categorical.items()}
    found |= {f"articles: {name}": values for name, values in articles.numbers.items()}
    found |= {f"articles: {name}": sets.values for name, sets in articles.sets.items()}
    found |= {f"articles: {name} splits": sets.row_splits for name, sets in articles.sets.items()}
    found |= {f"vocabulary: {name}": np.array(sets.vocabulary) for name, sets in articles.sets.items()}
    found |= {f"vocabulary: {name}": np.array(values) for name, values in articles.vocabulary.items()}
    found |= {f"vocabulary: {name}": np.array(values) for name, values in view.profile_vocabulary.items()}
    for column, name in enumerate(view.profile_vocabulary):
        found[f"profile: {name}"] = view.profiles.categorical[:, column]
    for column, name in enumerate(timelines.profile_numbers):
        found[f"profile: {name}"] = view.profiles.numbers[:, column]
    found |= {f"histories: {name}": getattr(timelines, name) for name in EVENT_TYPES}
    found |= {f"lookups: {role}": index for role, index in lookups.index.items()}
    found |= {f"lookups: vocabulary of {role}": np.array(values) for role, values in lookups.vocabulary.items()}
    features = make_history_layer(lookups)(*look_up_all(view))
    for names, values in (
        (number_names(lookups), features.numbers),
        (categorical_names(lookups), features.categorical),
    ):
        found |= {f"history: {name}": values.numpy()[:, column] for column, name in enumerate(names)}
    weeks = view.read_weeks(NUM_WEEKS)
    found |= {f"weeks: {name}": weeks.values[:, :, column] for column, name in enumerate(weeks.names)}
    return found


def edges_of(view: View) -> Values:
    """Collects the bin edges and medians of article and week numbers."""
    size = view.articles.num_articles + FIRST_INDEX
    encoder = ArticleEncoder(
        np.zeros(size, np.int32),
        view.articles,
        None,
        view.read_weeks(NUM_WEEKS).values,
        embedding_dim=4,
        content_scale=0.1,
        number_encoding="quantile",
        num_bins=8,
        seed=1,
    )
    return {
        "edges: articles": encoder._number_encoder._edges.numpy(),
        "edges: weeks": encoder._week_encoder._edges.numpy(),
        "medians: articles": encoder._number_encoder._median.numpy(),
        "medians: weeks": encoder._week_encoder._median.numpy(),
    }


def training_inputs_of(view: View) -> Values:
    table = HistoryTable(view.timelines, view.profiles)
    baskets = make_training_baskets(view.timelines, since=0, history_length=30)
    week = view.read_weeks(NUM_WEEKS).week_of(baskets.time)
    found: Values = {"training input: weeks": week}
    for number, batch in enumerate(make_training_dataset(table, baskets, week=week, batch_size=16, seed=1).take(3)):
        values = {**batch["histories"]._asdict(), **{name: batch[name] for name in ("now", "target", "week")}}
        for name, value in values.items():
            is_ragged = isinstance(value, tf.RaggedTensor)
            found[f"training input: {name} {number}"] = (value.flat_values if is_ragged else value).numpy()
            if is_ragged:
                found[f"training input: {name} splits {number}"] = value.row_splits.numpy()
    return found


def candidates_of(view: View, config: PipelineConfig, names: Sequence[str]) -> Values:
    """Collects every recommender's candidates and scores for every customer."""
    histories, now = look_up_all(view)
    exclude = tf.zeros([view.timelines.num_customers, 0], tf.int32)
    found: Values = {}
    for name in names:
        fitted = fit_by_name(name, view, config.recommender)
        asked = [fitted]
        if isinstance(fitted, IndexedTower) and isinstance(fitted.query, TwoTowerQuery):
            asked.append(fitted.with_index("new_arrivals", name="two_tower_new_arrivals"))
            found["edges: profile and history"] = fitted.query.tower._numbers._edges.numpy()
            found["medians: profile and history"] = fitted.query.tower._numbers._median.numpy()
            for number, weight in enumerate(fitted.query.tower.get_weights()):
                found[f"weights: query tower {number}"] = weight
        for recommender in asked:
            answer = recommender(histories, now=now, k=tf.constant(12), exclude=exclude)
            found[f"candidates: {recommender.name}"] = answer.article_index.numpy()
            found[f"scores: {recommender.name}"] = answer.score.numpy()
    return found


def collect_all(view: View, config: PipelineConfig) -> Values:
    """Collects everything that a prediction at the cutoff is made from."""
    return features_of(view) | edges_of(view) | training_inputs_of(view) | candidates_of(view, config, NAMES)


@pytest.fixture(scope="module")
def unchanged(
    frames: dict[str, pd.DataFrame], pipeline: PipelineConfig, tmp_path_factory: pytest.TempPathFactory
) -> Values:
    return collect_all(view_of(frames, tmp_path_factory.mktemp("leakage") / "a", pipeline), pipeline)


def assert_same(left: Values, right: Values) -> None:
    """Asserts that all values of `right` are equal in `left`."""
    different = [
        name
        for name in right
        if left[name].shape != right[name].shape
        or not np.array_equal(left[name], right[name], equal_nan=_floats(left[name]))
    ]
    assert not different, f"changed by rows at or after the cutoff: {different}"


def _floats(values: np.ndarray) -> bool:
    return bool(np.issubdtype(values.dtype, np.floating))


def test_every_feature_is_compared_by_name_and_has_values(unchanged: Values, pipeline: PipelineConfig) -> None:
    features = pipeline.features
    named = [f"weeks: {name}" for name in FEATURES]
    named += [f"profile: {name}" for name in (*features.profile, *features.profile_numbers)]
    named += [f"articles: {name}" for name in (*features.categorical, *features.numbers, *features.sets)]
    named += [f"vocabulary: {name}" for name in (*features.profile, *features.categorical, *features.sets)]
    named += [
        f"history: {name}" for name in ("has_history", "recency_days", "spend", "predicted_sex", "predicted_kids")
    ]
    named += ["history: preferred_sales_channel", "history: favourite_colour_this_season"]
    named += ["history: favourite_garment_group", "history: section_share/Ladieswear"]
    named += ["history: usual_store", "histories: store_index", "lookups: vocabulary of store"]
    names = (*NAMES, "two_tower_new_arrivals")
    named += [f"{what}: {name}" for name in names for what in ("candidates", "scores")]
    assert [name for name in named if name not in unchanged] == []
    assert len([name for name in unchanged if name.startswith("weeks: ")]) == len(FEATURES)
    # Comparing values that are missing everywhere would prove nothing.
    empty = [
        name for name, values in unchanged.items() if not values.size or (_floats(values) and np.isnan(values).all())
    ]
    assert empty == []
    late = [value for value in unchanged["articles: ids"] if str(value).startswith("late")]
    assert late == []


def test_rows_after_the_cutoff_change_nothing(
    unchanged: Values, frames: dict[str, pd.DataFrame], pipeline: PipelineConfig, tmp_path: Path
) -> None:
    changed = collect_all(view_of(perturbed(frames), tmp_path / "b", pipeline), pipeline)
    assert changed.keys() == unchanged.keys()
    assert_same(unchanged, changed)


@pytest.fixture
def leave_uncut(unchanged: Values, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Returns a function that disables the filter by time, for articles known before the cutoff."""

    def uncut(split: Split, transactions: ibis.Table) -> ibis.Table:
        return transactions.filter(_.article_index < FIRST_INDEX + len(unchanged["articles: ids"]))

    def patch() -> None:
        monkeypatch.setattr(view_module, "visible", uncut)

    return patch


def noticed(unchanged: Values, changed: Values) -> str:
    with pytest.raises(AssertionError, match="changed by rows at or after the cutoff") as caught:
        assert_same(unchanged, changed)
    return str(caught.value)


def test_uncut_tables_are_noticed(
    unchanged: Values,
    frames: dict[str, pd.DataFrame],
    pipeline: PipelineConfig,
    tmp_path: Path,
    leave_uncut: Callable[..., None],
) -> None:
    leave_uncut()
    view = view_of(perturbed(frames), tmp_path / "b", pipeline)
    names = ("popularity_7d", "popularity_trend", "popularity_siblings")
    message = noticed(unchanged, features_of(view) | candidates_of(view, pipeline, names))
    for name in ("articles: baskets", "articles: never sold", *(f"candidates: {name}" for name in names)):
        assert name in message
    # Tables by week are also cut where they are made.
    assert "weeks: " not in message


def test_weeks_beyond_the_cutoff_are_noticed(
    unchanged: Values,
    frames: dict[str, pd.DataFrame],
    pipeline: PipelineConfig,
    tmp_path: Path,
    leave_uncut: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_uncut()

    def too_late(*tables: ibis.Table, as_of: datetime.datetime, **settings: typing.Any) -> ibis.Table:
        return make_article_weeks(*tables, as_of=as_of + datetime.timedelta(days=7), **settings)

    monkeypatch.setattr(view_module, "make_article_weeks", too_late)
    view = view_of(perturbed(frames), tmp_path / "b", pipeline)
    message = noticed(unchanged, features_of(view) | edges_of(view))
    for name in ("sales_1w", "trend", "mean_price", "buyers", "channel_share_1", "category_sales_4w"):
        assert f"weeks: {name}" in message
    assert "edges: weeks" in message


def test_uncut_timelines_are_noticed(
    unchanged: Values,
    frames: dict[str, pd.DataFrame],
    pipeline: PipelineConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Only articles known before the cutoff, since matrices have no column for others.
    known = FIRST_INDEX + len(unchanged["articles: ids"])
    monkeypatch.setattr(Timelines, "before", lambda self, cutoff: self._keep(self.article_index < known))
    view = view_of(perturbed(frames), tmp_path / "b", pipeline)
    counted = (
        "item_knn",
        "item_knn_bm25",
        "co_visitation",
        "basket_pairs",
        "customer_knn",
        "als",
        "graph_filter",
        *GROUPED,
    )
    message = noticed(unchanged, features_of(view) | candidates_of(view, pipeline, counted))
    for name in (
        *(f"scores: {name}" for name in counted),
        "customers: ids",
        "histories: article_index",
        "profile: age",
        "history: recency_days",
        "history: spend",
    ):
        assert name in message


BLENDED = ("repurchase", "item_knn", "co_visitation", "popularity_age_band")


def blended(frames: dict[str, pd.DataFrame], folder: Path, root: Path) -> Values:
    """Collects the pools and ranker weeks of a blend before the cutoff, and its candidates and scores."""
    settings = [
        f"recommender.popularity_age_band={{kind='popularity', by='{GROUPED['popularity_age_band']}'}}",
        f"recommender.blend.generators={list(BLENDED)}",
        "recommender.blend.num_candidates=30",
        "recommender.blend.weeks=2",
        "recommender.two_tower.epochs=1",
        *(f"recommender.two_stage.{setting}" for setting in ("weeks=2", "blend_weeks=1", "num_candidates=30")),
        "recommender.two_stage.network.epochs=1",
    ]
    config = load_config(root / "pipelines" / "tiny.toml", settings)
    # Some rows that become known late were sold earlier, which only works for a single cutoff: weeks need them from the start.
    frames = {
        name: rows.assign(known_from=rows["known_from"].where(rows["known_from"] >= CUTOFF))
        if "known_from" in rows
        else rows
        for name, rows in frames.items()
    }
    view = view_of(frames, folder, config)
    run = Ranking(config=config, folder=folder / "run")
    # The run has no stages of its own: it gets tables and timelines, including those of the future.
    run.__dict__["tables"] = read_tables(ibis.duckdb.connect(), folder)
    run.__dict__["_timelines"] = read_timelines(folder)
    pools = run.pools(SPLIT, num_weeks=2)
    found = {
        f"pool {number}: {field.name}": getattr(pool, field.name)
        for number, pool in enumerate(pools)
        for field in fields(pool)
    }
    generators = {name: fit_by_name(name, view, config.recommender) for name in BLENDED}
    histories, now = look_up_all(view)
    for method in ("selector", "quotas"):
        blend = run.fit_blend(view, generators, method=method)
        exclude = tf.zeros([view.timelines.num_customers, 0], tf.int32)
        answer = blend(histories, now=now, k=tf.constant(12), exclude=exclude)
        found[f"candidates by {method}"] = answer.article_index.numpy()
        found[f"scores by {method}"] = answer.score.numpy()
    for number, week in enumerate(run.ranker_weeks("two_stage", SPLIT)):
        names = run.feature_names("two_stage", SPLIT)
        found |= {f"ranked {number}: {name}": week.features[:, place] for place, name in enumerate(names)}
        columns = ("customer_index", "article_index", "is_bought", "num_orders", "quantity")
        found |= {f"ranked {number}: {name}": getattr(week, name) for name in columns}
    # Stacking: generators are fitted before their week, and the towers before the first of all weeks.
    trained = run.ranker_training("two_stage", SPLIT)
    assert [training.first_week for training in trained] == [
        CUTOFF - datetime.timedelta(days=7 * back) for back in (1, 2)
    ]
    for training in trained:
        assert set(training.fitted_as_of) == {*BLENDED, "two_tower"}
        assert all(as_of <= training.first_week for as_of in training.fitted_as_of.values())
        assert training.fitted_as_of["two_tower"] <= trained[-1].first_week
    chosen = run.choose_two_stage("two_stage", SPLIT)["choice"]
    two_stage = run.fit_two_stage("two_stage", view, generators, **chosen)
    answer = two_stage(histories, now=now, k=tf.constant(12), exclude=exclude)
    found["candidates of two stages"], found["scores of two stages"] = (
        answer.article_index.numpy(),
        answer.score.numpy(),
    )
    return found


def test_rows_after_the_cutoff_change_no_blend_and_no_ranker(
    frames: dict[str, pd.DataFrame], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unchanged = blended(frames, tmp_path / "a", root)
    assert unchanged["pool 0: is_bought"].sum() > 20
    assert unchanged["ranked 0: is_bought"].sum() > 20
    assert np.isfinite(unchanged["ranked 1: similarity two_tower"]).any()
    assert_same(unchanged, blended(perturbed(frames), tmp_path / "b", root))
    # Weeks that end after the cutoff read purchases of the future.
    late = replace(SPLIT, as_of=CUTOFF + datetime.timedelta(days=7))
    monkeypatch.setattr(pooling, "past_weeks", partial(lambda weeks, _split, **other: weeks(late, **other), past_weeks))
    message = noticed(unchanged, blended(perturbed(frames), tmp_path / "c", root))
    assert "pool 0: is_bought" in message


def test_row_just_before_the_cutoff_is_visible_and_row_at_the_cutoff_is_not() -> None:
    instants = [CUTOFF - datetime.timedelta(microseconds=1), CUTOFF, CUTOFF + datetime.timedelta(microseconds=1)]
    table = ibis.memtable(pd.DataFrame({"t_dat": pd.Series(instants, dtype="datetime64[us]"), "customer_index": 2}))
    assert visible(SPLIT, table).execute()["t_dat"].tolist() == instants[:1]
