"""Nothing made for a prediction has seen a row at or after the cutoff: every such row is changed, nothing else is."""

import datetime
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfrs_fashion.data import simulator
from tfrs_fashion.data.split import Split, visible
from tfrs_fashion.data.tables import index_tables, read_tables, write_tables
from tfrs_fashion.features import view as view_module
from tfrs_fashion.features.articles import make_content_values
from tfrs_fashion.features.inputs import HistoryTable, make_training_baskets, make_training_dataset
from tfrs_fashion.features.timelines import Timelines, read_timelines, write_timelines
from tfrs_fashion.features.view import View, make_view
from tfrs_fashion.recommenders.factorization import fit_als
from tfrs_fashion.recommenders.popularity import fit_popularity
from tfrs_fashion.recommenders.repurchase import Repurchase
from tfrs_fashion.recommenders.towers import fit_two_tower
from tfrs_fashion.schema import FIRST_INDEX, Tables

CUTOFF = datetime.datetime(2024, 2, 20)
CATEGORICAL = ("garment_group", "colour", "section")
SPLIT = Split(name="test", kind="window", as_of=CUTOFF)


@pytest.fixture(scope="module")
def tables() -> Tables:
    return simulator.make_tables(num_customers=60, num_articles=120, num_days=70, seed=5)


def perturbed(tables: Tables) -> Tables:
    """Changes each row from the cutoff on: other customers, new articles, other prices; some gone, some doubled."""
    frame = tables.transactions.execute()
    after = frame["t_dat"] >= CUTOFF
    assert after.sum() > 100
    future = frame[after].copy()
    random = np.random.default_rng(1)
    future["customer_id"] = random.permutation(future["customer_id"].to_numpy())
    future.iloc[::3, future.columns.get_loc("customer_id")] = "a customer of the future"
    future["article_id"] = random.permutation(future["article_id"].to_numpy())
    future.iloc[::4, future.columns.get_loc("article_id")] = "an article of the future"
    future["price"] = future["price"] * 100 + 1
    future["basket_id"] = "future-" + future["basket_id"] + future["customer_id"]
    future["t_dat"] = future["t_dat"] + pd.Timedelta(days=3)
    future = pd.concat([future.iloc[: len(future) // 2], future.iloc[:20]])
    changed = pd.concat([future, frame[~after]])
    return Tables(tables.customers, tables.articles, ibis.memtable(changed, schema=tables.transactions.schema()))


def view_of(tables: Tables, folder: Path) -> View:
    folder.mkdir()
    write_tables(index_tables(tables), folder)
    tables = read_tables(ibis.duckdb.connect(), folder)
    write_timelines(tables, folder, profile=("age_band", "status"))
    return make_view(tables, read_timelines(folder), SPLIT, categorical=CATEGORICAL, in_store_days=28)


def features_of(view: View) -> dict[str, np.ndarray]:
    """Every feature and vocabulary."""
    articles, timelines = view.articles, view.timelines
    content = make_content_values(articles, num_text_buckets=64)
    found = {
        "articles: ids": articles.article_id,
        "articles: price": articles.price,
        "articles: description": articles.description,
        "articles: baskets": articles.num_baskets,
        "articles: in store": articles.in_store,
        "articles: content": content.values,
        "articles: content splits": content.row_splits,
        "customers: ids": timelines.customer_id,
        "customers: profile": view.profile,
        "customers: cutoffs": view.now,
        "histories: splits": timelines.row_splits,
        "histories: articles": timelines.article_index,
        "histories: times": timelines.time,
        "histories: prices": timelines.price,
    }
    found |= {f"articles: {name}": index for name, index in articles.categorical.items()}
    found |= {f"vocabulary: {name}": np.array(values) for name, values in articles.vocabulary.items()}
    return found | {f"vocabulary: {name}": np.array(values) for name, values in view.profile_vocabulary.items()}


def made_from(tables: Tables, folder: Path) -> dict[str, np.ndarray]:
    """Everything that a prediction at the cutoff rests on: features, vocabularies, model inputs, candidates."""
    view = view_of(tables, folder)
    articles, timelines = view.articles, view.timelines
    found = features_of(view)
    tf.keras.utils.set_random_seed(1)
    table = HistoryTable(timelines, view.profiles)
    baskets = make_training_baskets(timelines, since=0, history_length=30)
    batch = next(iter(make_training_dataset(table, baskets, batch_size=16, seed=1)))
    for name, value in (("history", batch["histories"].article_index), ("target", batch["target"])):
        found[f"training input: {name}"] = value.flat_values.numpy()
        found[f"training input: {name} splits"] = value.row_splits.numpy()
    found["training input: now"] = batch["now"].numpy()
    recommenders = [
        fit_popularity(view.transactions, as_of=CUTOFF, days=7),
        Repurchase(),
        fit_two_tower(view, embedding_dim=8, num_text_buckets=64, batch_size=32, min_baskets=2, seed=1),
        fit_als(view.transactions, as_of=CUTOFF, candidate_articles=articles.in_store, factors=4, iterations=3),
    ]
    customers = tf.range(FIRST_INDEX, timelines.num_customers + FIRST_INDEX)
    for recommender in recommenders:
        answer = recommender(
            table(customers),
            now=tf.constant(view.now[FIRST_INDEX:]),
            k=tf.constant(12),
            exclude=tf.zeros([timelines.num_customers, 0], tf.int32),
        )
        found[f"candidates: {recommender.name}"] = answer.article_index.numpy()
        found[f"scores: {recommender.name}"] = answer.score.numpy()
    return found


def assert_same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert left.keys() == right.keys()
    different = [
        name
        for name in left
        if left[name].shape != right[name].shape
        or not np.array_equal(left[name], right[name], equal_nan=_floats(left[name]))
    ]
    assert not different, f"changed by rows at or after the cutoff: {different}"


def _floats(values: np.ndarray) -> bool:
    return bool(np.issubdtype(values.dtype, np.floating))


def test_the_future_changes_nothing(tables: Tables, tmp_path: Path) -> None:
    assert_same(made_from(tables, tmp_path / "a"), made_from(perturbed(tables), tmp_path / "b"))


def test_the_check_notices_tables_that_are_not_cut(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "visible", lambda split, transactions: transactions)
    with pytest.raises(AssertionError, match=r"articles: price.*candidates: popularity_7d"):
        assert_same(made_from(tables, tmp_path / "a"), made_from(perturbed(tables), tmp_path / "b"))


def test_the_check_notices_timelines_that_are_not_cut(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Timelines, "before", lambda self, cutoff: self)
    with pytest.raises(AssertionError, match=r"customers: ids.*histories: articles"):
        assert_same(
            features_of(view_of(tables, tmp_path / "a")), features_of(view_of(perturbed(tables), tmp_path / "b"))
        )


def test_a_row_at_the_cutoff_is_not_visible_and_one_just_before_is() -> None:
    instants = [CUTOFF - datetime.timedelta(microseconds=1), CUTOFF, CUTOFF + datetime.timedelta(microseconds=1)]
    table = ibis.memtable(pd.DataFrame({"t_dat": pd.Series(instants, dtype="datetime64[us]"), "customer_index": 2}))
    assert visible(SPLIT, table).execute()["t_dat"].tolist() == instants[:1]
