"""One contract for every recommender that a pipeline can name."""

import datetime
import importlib.util
import typing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import ibis
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tfrs_fashion.config import PipelineConfig
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.fitting import fit_recommender, load_recommender
from tfrs_fashion.recommenders.popularity import fit_popularity
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender, load_state
from tfrs_fashion.recommenders.repurchase import Repurchase
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX, RunError
from tfrs_fashion.sections import RecommenderName

NAMES: tuple[RecommenderName, ...] = typing.get_args(RecommenderName)


@pytest.fixture(scope="module", params=NAMES)
def recommender(
    request: pytest.FixtureRequest, view: View, config: PipelineConfig, skip_or_fail: Callable[[str], NoReturn]
) -> Recommender:
    if request.param == "als" and importlib.util.find_spec("implicit") is None:
        skip_or_fail("the package implicit is not installed")
    return fit_recommender(request.param, view, config, choice={"epochs": 1})


@pytest.fixture(scope="module")
def customers(view: View) -> np.ndarray:
    """Known customers between two unknown ones, who have no history."""
    last = view.timelines.num_customers + FIRST_INDEX - 1
    known = np.linspace(FIRST_INDEX, last, 30).astype(np.int32)
    unknown = [OUT_OF_VOCABULARY_INDEX]
    return np.concatenate([unknown, known, unknown]).astype(np.int32)


def ask(
    recommender: Recommender, view: View, customers: np.ndarray, *, k: int, exclude: np.ndarray | None = None
) -> Recommendations:
    table = HistoryTable(view.timelines, view.profiles)
    left_out = np.zeros((len(customers), 0), np.int32) if exclude is None else exclude
    found = recommender(
        table(tf.constant(customers, tf.int32)),
        now=tf.constant(view.now[customers], tf.int64),
        k=tf.constant(k),
        exclude=tf.constant(left_out, tf.int32),
    )
    return Recommendations(*(values.numpy() for values in found))


def same(found: Recommendations, expected: Recommendations) -> None:
    assert found.article_index.tolist() == expected.article_index.tolist()
    assert found.score == pytest.approx(expected.score, abs=1e-5)
    assert found.source.tolist() == expected.source.tolist()


@pytest.mark.parametrize("k", [1, 12, 1000])
def test_lists_have_the_length_asked_for_and_end_in_padding(
    recommender: Recommender, view: View, customers: np.ndarray, k: int
) -> None:
    found = ask(recommender, view, customers, k=k)
    for values, dtype in zip(found, (np.int32, np.float32, object), strict=True):
        assert values.shape == (len(customers), k)
        assert values.dtype == dtype
    given = found.article_index != PADDING_INDEX
    # Once padding begins it goes on to the end.
    assert (np.diff(given.astype(int), axis=1) <= 0).all()
    assert (found.score[~given] == 0).all()
    assert np.isfinite(found.score).all()
    assert (found.source[given] == recommender.name.encode()).all()
    assert (found.source[~given] == b"").all()
    assert given[1:-1, 0].all()
    assert found.article_index.max() < view.articles.num_articles + FIRST_INDEX
    if k > view.articles.num_articles:
        assert not given[:, view.articles.num_articles :].any()


@pytest.mark.parametrize("k", [12, 1000])
def test_lists_hold_each_article_once_best_first(
    recommender: Recommender, view: View, customers: np.ndarray, k: int
) -> None:
    found = ask(recommender, view, customers, k=k)
    for articles, scores in zip(found.article_index, found.score, strict=True):
        given = articles != PADDING_INDEX
        assert len(set(articles[given])) == given.sum()
        assert (articles[given] >= FIRST_INDEX).all()
        assert (np.diff(scores[given]) <= 0).all()


def test_excluded_articles_are_left_out_and_the_rest_moves_up(
    recommender: Recommender, view: View, customers: np.ndarray
) -> None:
    everything = ask(recommender, view, customers, k=1000)
    # Every other one of the best, an unknown article, one that exists nowhere, and padding in any place.
    odd = np.tile(np.array([PADDING_INDEX, OUT_OF_VOCABULARY_INDEX, 10**6], np.int32), (len(customers), 1))
    exclude = np.concatenate([odd, everything.article_index[:, :10:2]], axis=1)
    found = ask(recommender, view, customers, k=5, exclude=exclude)
    for row, out in enumerate(exclude):
        left = [article for article in everything.article_index[row] if article not in {*out, PADDING_INDEX}][:5]
        assert found.article_index[row].tolist() == left + [PADDING_INDEX] * (5 - len(left))


def test_all_articles_excluded(recommender: Recommender, view: View, customers: np.ndarray) -> None:
    exclude = np.tile(np.arange(view.articles.num_articles + FIRST_INDEX, dtype=np.int32), (len(customers), 1))
    assert (ask(recommender, view, customers, k=3, exclude=exclude).article_index == PADDING_INDEX).all()


def test_a_shorter_list_is_the_beginning_of_a_longer_one(
    recommender: Recommender, view: View, customers: np.ndarray
) -> None:
    longer = ask(recommender, view, customers, k=20)
    same(ask(recommender, view, customers, k=1), Recommendations(*(values[:, :1] for values in longer)))
    same(ask(recommender, view, customers, k=7), Recommendations(*(values[:, :7] for values in longer)))


def test_an_answer_does_not_depend_on_the_batch(recommender: Recommender, view: View, customers: np.ndarray) -> None:
    together = ask(recommender, view, customers, k=6)
    for row in (0, 1, 15):
        alone = ask(recommender, view, customers[row : row + 1], k=6)
        same(alone, Recommendations(*(values[row : row + 1] for values in together)))
    reverse = ask(recommender, view, customers[::-1], k=6)
    same(reverse, Recommendations(*(values[::-1] for values in together)))


@pytest.mark.parametrize("num_customers", [0, 1, 3])
def test_batches_without_any_history(recommender: Recommender, view: View, num_customers: int) -> None:
    nobody = np.full(num_customers, OUT_OF_VOCABULARY_INDEX, np.int32)
    found = ask(recommender, view, nobody, k=4, exclude=np.full((num_customers, 2), FIRST_INDEX, np.int32))
    assert found.article_index.shape == (num_customers, 4)
    assert FIRST_INDEX not in found.article_index


def test_no_more_of_a_history_is_read_than_it_says(recommender: Recommender, view: View, customers: np.ndarray) -> None:
    expected = ask(recommender, view, customers, k=12)
    cut = replace(view, timelines=view.timelines.last(recommender.history_length))
    same(ask(recommender, cut, customers, k=12), expected)


def test_what_is_saved_is_loaded(recommender: Recommender, view: View, customers: np.ndarray, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    name = typing.cast(RecommenderName, recommender.name)
    loaded = load_recommender(name, tmp_path)
    assert loaded.name == recommender.name
    assert loaded.history_length == recommender.history_length
    same(ask(loaded, view, customers, k=20), ask(recommender, view, customers, k=20))


def test_a_damaged_state_is_told(recommender: Recommender, tmp_path: Path) -> None:
    recommender.save(tmp_path)
    (tmp_path / "state.npz").write_bytes(b"PK no more")
    with pytest.raises(RunError, match=r"the fitted recommender cannot be read .* Run `train --force`"):
        load_state(tmp_path)


def test_a_graph_answers_the_same(recommender: Recommender, view: View, customers: np.ndarray) -> None:
    table = HistoryTable(view.timelines, view.profiles)

    @tf.function(
        input_signature=(
            table.spec(),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([None, None], tf.int32),
        )
    )
    def answer(histories: object, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        return recommender(histories, now=now, k=k, exclude=exclude)  # type: ignore[arg-type]

    exclude = np.tile(np.array([[FIRST_INDEX, PADDING_INDEX]], np.int32), (len(customers), 1))
    for k, batch in ((9, customers), (3, customers[:4])):
        found = answer(
            table(tf.constant(batch)),
            tf.constant(view.now[batch]),
            tf.constant(k),
            tf.constant(exclude[: len(batch)]),
        )
        expected = ask(recommender, view, batch, k=k, exclude=exclude[: len(batch)])
        same(Recommendations(*(values.numpy() for values in found)), expected)


def test_repurchase_is_what_was_in_most_baskets_ties_by_recency(view: View, customers: np.ndarray) -> None:
    lines = view.transactions.execute()
    baskets = lines.drop_duplicates(["customer_index", "article_index", "basket_id"])
    counts = baskets.groupby(["customer_index", "article_index"])["t_dat"].agg(["size", "max"]).reset_index()
    counts = counts.sort_values(
        ["customer_index", "size", "max", "article_index"], ascending=[True, False, False, True], kind="stable"
    )
    found = ask(Repurchase(), view, customers, k=5)
    for row, customer in enumerate(customers):
        expected = counts[counts["customer_index"] == customer].head(5)
        num = len(expected)
        assert found.article_index[row, :num].tolist() == expected["article_index"].tolist()
        assert found.score[row, :num].tolist() == expected["size"].tolist()
        assert (found.article_index[row, num:] == PADDING_INDEX).all()


def test_popularity_counts_the_baskets_of_the_last_days(view: View, customers: np.ndarray) -> None:
    as_of, days = view.split.as_of, 7
    lines = view.transactions.execute()
    recent = lines[lines["t_dat"] >= as_of - pd.Timedelta(days=days)]
    baskets = recent.drop_duplicates(["customer_index", "basket_id", "article_index"]).groupby("article_index").size()
    table = lines.groupby("article_index")["t_dat"].max().to_frame("last").reset_index()
    table["count"] = table["article_index"].map(baskets).fillna(0)
    table = table.sort_values(["count", "last", "article_index"], ascending=[False, False, True], kind="stable")
    popularity = fit_popularity(view.transactions, as_of=as_of, days=days)
    found = ask(popularity, view, customers, k=len(table))
    for row in range(len(customers)):
        assert found.article_index[row].tolist() == table["article_index"].tolist()
        assert found.score[row].tolist() == table["count"].tolist()


def make_transactions(rows: list[tuple[int, int, str, int]]) -> ibis.Table:
    frame = pd.DataFrame(rows, columns=["customer_index", "article_index", "basket_id", "day"])
    moments = [datetime.datetime(2024, 1, day) for day in frame.pop("day")]
    return ibis.memtable(frame.assign(t_dat=pd.Series(moments).astype("datetime64[us]")))


def test_popularity_by_hand() -> None:
    # Seven days before January 20 begin on the 13th, which counts; article 5 was sold on the 12th, article 6 earlier.
    rows = [
        (2, 2, "a", 13),
        (2, 3, "b", 14),
        (2, 3, "b", 14),
        (3, 3, "c", 19),
        (2, 4, "d", 19),
        (2, 6, "e", 2),
        (2, 6, "f", 3),
        (3, 5, "g", 12),
    ]
    found = fit_popularity(make_transactions(rows), as_of=datetime.datetime(2024, 1, 20), days=7)
    # 3 in two baskets; 4 and 2 in one, the later first; then those not sold in time, the last sold first.
    assert found._article_index.numpy().tolist() == [3, 4, 2, 5, 6]
    assert found._score.numpy().tolist() == [2, 1, 1, 0, 0]


def test_popularity_counts_baskets_of_two_customers_with_one_number_as_two() -> None:
    # As in `index_tables`, a basket belongs to a customer; sources may number each customer's own.
    rows = [(2, 2, "1", 19), (3, 2, "1", 19), (4, 2, "1", 19), (2, 3, "2", 19), (3, 3, "3", 19)]
    found = fit_popularity(make_transactions(rows), as_of=datetime.datetime(2024, 1, 20), days=7)
    assert found._article_index.numpy().tolist() == [2, 3]
    assert found._score.numpy().tolist() == [3, 2]


def test_towers_learn_where_no_article_is_frequent(view: View, config: PipelineConfig) -> None:
    found = fit_recommender("two_tower", view, config, choice={"epochs": 1, "min_baskets": 10**6})
    table, customers = HistoryTable(view.timelines, view.profiles), tf.range(FIRST_INDEX, FIRST_INDEX + 5)
    now = tf.gather(tf.constant(view.now), customers)
    answer = found(table(customers), now=now, k=tf.constant(12), exclude=tf.zeros([5, 0], tf.int32))
    assert np.isfinite(answer.score.numpy()).all()
    assert (answer.article_index.numpy() >= FIRST_INDEX).all()
