import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.index.exact import Exact
from tfrs_fashion.index.exclusion import is_excluded, take_allowed
from tfrs_fashion.index.scann import MIN_CANDIDATES, Scann
from tfrs_fashion.schema import PADDING_INDEX, InputError

Index = Exact | Scann


def slow_top_k(
    query: np.ndarray, candidates: np.ndarray, article_index: np.ndarray, *, k: int, exclude: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A full ranking, one query at a time; equal scores keep the order of the candidates."""
    articles = np.zeros((len(query), k), np.int32)
    scores = np.zeros((len(query), k), np.float32)
    for row, vector in enumerate(query):
        score = candidates @ vector
        order = [one for one in np.argsort(-score, kind="stable") if article_index[one] not in exclude[row]][:k]
        articles[row, : len(order)] = article_index[order]
        scores[row, : len(order)] = score[order]
    return articles, scores


def ask(index: Index, query: np.ndarray, *, k: int, exclude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    article, score = index(tf.constant(query, tf.float32), k=tf.constant(k), exclude=tf.constant(exclude, tf.int32))
    return article.numpy(), score.numpy()


def make_vectors(size: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(size, dim)).astype(np.float32)


def make_articles(size: int, seed: int = 0) -> np.ndarray:
    """Indices with gaps, in no order."""
    return np.random.default_rng(seed).permutation(np.arange(2, 2 + 3 * size, 3)).astype(np.int32)


def nobody(batch: int) -> np.ndarray:
    return np.zeros((batch, 0), np.int32)


@pytest.mark.parametrize(
    ("num_candidates", "num_queries", "k"), list(itertools.product([1, 3, 100], [1, 5], [1, 2, 10, 150]))
)
def test_exact_equals_a_full_ranking(num_candidates: int, num_queries: int, k: int) -> None:
    candidates, articles = make_vectors(num_candidates, 4), make_articles(num_candidates)
    query = make_vectors(num_queries, 4, seed=1)
    random = np.random.default_rng(2)
    exclude = np.concatenate(
        [
            random.choice(articles, size=(num_queries, min(3, num_candidates))),
            # Padding, unknown articles inside and outside the range of the known ones, and a negative number.
            np.tile(np.array([0, 1, 3, 10**6, -5], np.int32), (num_queries, 1)),
        ],
        axis=1,
    )
    for left_out in (nobody(num_queries), exclude):
        found = ask(Exact(candidates, articles), query, k=k, exclude=left_out)
        expected = slow_top_k(query, candidates, articles, k=k, exclude=left_out)
        assert found[0].shape == (num_queries, k)
        assert np.array_equal(found[0], expected[0])
        assert found[1] == pytest.approx(expected[1], abs=1e-5)


def clustered(size: int, dim: int = 16) -> np.ndarray:
    """Unit vectors around a few centres, as embeddings of articles are."""
    random = np.random.default_rng(7)
    centres = random.normal(size=(8, dim))
    vectors = centres[random.integers(8, size=size)] + 0.4 * random.normal(size=(size, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


NUM_CLUSTERED = 1000


@pytest.fixture(scope="module")
def scann() -> Scann:
    return Scann(clustered(NUM_CLUSTERED), make_articles(NUM_CLUSTERED))


def test_scann_finds_nearly_what_a_full_ranking_finds(scann: Scann) -> None:
    candidates, articles = clustered(NUM_CLUSTERED), make_articles(NUM_CLUSTERED)
    query, k = candidates[::17] + 0.05 * make_vectors(len(candidates[::17]), 16), 12
    exclude = slow_top_k(query, candidates, articles, k=3, exclude=nobody(len(query)))[0]
    for left_out in (nobody(len(query)), exclude):
        found, score = ask(scann, query, k=k, exclude=left_out)
        expected, _scores = slow_top_k(query, candidates, articles, k=k, exclude=left_out)
        hits = [len(set(row) & set(best)) / k for row, best in zip(found, expected, strict=True)]
        assert np.mean(hits) >= 0.99
        # What it finds it scores exactly, and in order.
        position = {article: row for row, article in enumerate(articles)}
        true = np.array([[candidates[position[one]] @ query[row] for one in found[row]] for row in range(len(query))])
        assert score == pytest.approx(true, abs=1e-5)
        assert (np.diff(score, axis=1) <= 1e-6).all()
        assert not any(set(row) & set(out) for row, out in zip(found, left_out, strict=True))


@pytest.mark.parametrize("kind", ["exact", "scann"])
@pytest.mark.parametrize("num_excluded", [1, 50, 300])
def test_exclusion_never_shortens_the_list(kind: str, num_excluded: int, scann: Scann) -> None:
    candidates, articles = clustered(NUM_CLUSTERED), make_articles(NUM_CLUSTERED)
    index: Index = scann if kind == "scann" else Exact(candidates, articles)
    query = candidates[:4]
    best, _score = ask(index, query, k=num_excluded, exclude=nobody(4))
    found, _score = ask(index, query, k=20, exclude=best)
    assert (found != PADDING_INDEX).all()
    for row in range(4):
        assert len(set(found[row])) == 20
        assert not set(found[row]) & set(best[row])


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_more_than_there_is_ends_in_padding(kind: str) -> None:
    size = MIN_CANDIDATES
    candidates, articles = make_vectors(size, 4), make_articles(size)
    index: Index = Exact(candidates, articles) if kind == "exact" else Scann(candidates, articles)
    exclude = np.tile(articles[:5], (2, 1))
    found, score = ask(index, make_vectors(2, 4, seed=1), k=size + 30, exclude=exclude)
    assert found.shape == score.shape == (2, size + 30)
    for row in range(2):
        assert set(found[row, : size - 5]) == set(articles[5:])
    assert (found[:, size - 5 :] == PADDING_INDEX).all()
    assert (score[:, size - 5 :] == 0).all()


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_all_excluded_is_all_padding(kind: str) -> None:
    candidates, articles = make_vectors(MIN_CANDIDATES, 4), make_articles(MIN_CANDIDATES)
    index: Index = Exact(candidates, articles) if kind == "exact" else Scann(candidates, articles)
    found, score = ask(index, candidates[:2], k=3, exclude=np.tile(articles, (2, 1)))
    assert found.tolist() == [[PADDING_INDEX] * 3] * 2
    assert score.tolist() == [[0.0] * 3] * 2


def test_ties_keep_the_order_of_the_candidates() -> None:
    candidates = np.array([[1.0], [2.0], [1.0], [2.0], [1.0]], np.float32)
    articles = np.array([9, 8, 7, 6, 5], np.int32)
    found, score = ask(Exact(candidates, articles), np.ones((1, 1)), k=4, exclude=np.array([[7]]))
    assert found.tolist() == [[8, 6, 9, 5]]
    assert score.tolist() == [[2.0, 2.0, 1.0, 1.0]]


def test_scores_below_zero_come_before_padding() -> None:
    found, score = ask(Exact(np.array([[1.0], [2.0]]), np.array([2, 3])), -np.ones((1, 1)), k=3, exclude=nobody(1))
    assert found.tolist() == [[2, 3, PADDING_INDEX]]
    assert score.tolist() == [[-1.0, -2.0, 0.0]]


def test_no_candidate_at_all() -> None:
    index = Exact(np.zeros((0, 4), np.float32), np.zeros(0, np.int32))
    found, score = ask(index, make_vectors(2, 4), k=3, exclude=np.array([[5], [0]]))
    assert found.tolist() == [[PADDING_INDEX] * 3] * 2
    assert score.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("kind", ["exact", "scann"])
def test_an_empty_batch(kind: str, scann: Scann) -> None:
    index: Index = scann if kind == "scann" else Exact(clustered(10), make_articles(10))
    found, score = ask(index, np.zeros((0, 16), np.float32), k=3, exclude=np.zeros((0, 2), np.int32))
    assert found.shape == score.shape == (0, 3)


def test_scann_refuses_a_catalogue_too_small_to_partition() -> None:
    size = MIN_CANDIDATES - 1
    with pytest.raises(
        InputError, match=rf"at least {MIN_CANDIDATES} articles in store, found {size}\. Use index.kinds"
    ):
        Scann(make_vectors(size, 4), make_articles(size))


def test_each_index_says_whether_it_is_exact(scann: Scann) -> None:
    assert Exact(make_vectors(2, 4), make_articles(2)).is_exact()
    assert not scann.is_exact()


article_rows = st.integers(1, 4).flatmap(
    lambda batch: st.tuples(
        st.lists(st.lists(st.integers(0, 6), min_size=5, max_size=5), min_size=batch, max_size=batch),
        st.lists(st.lists(st.integers(-1, 8), min_size=3, max_size=3), min_size=batch, max_size=batch),
    )
)


@settings(max_examples=50)
@given(article_rows)
def test_is_excluded_equals_a_set(rows: tuple[list[list[int]], list[list[int]]]) -> None:
    articles, exclude = rows
    found = is_excluded(tf.constant(articles), tf.constant(exclude)).numpy().tolist()
    # Padding (0) counts as excluded in every row.
    assert found == [[one in {*out, 0} for one in row] for row, out in zip(articles, exclude, strict=True)]


@settings(max_examples=50)
@given(article_rows, st.integers(0, 8))
def test_take_allowed_equals_a_filter(rows: tuple[list[list[int]], list[list[int]]], k: int) -> None:
    articles, exclude = rows
    score = [[10.0 - place for place in range(len(row))] for row in articles]
    found, found_score = take_allowed(tf.constant(articles), tf.constant(score), tf.constant(exclude), tf.constant(k))
    for row, out in enumerate(exclude):
        kept = [place for place, one in enumerate(articles[row]) if one != PADDING_INDEX and one not in out][:k]
        missing = k - len(kept)
        assert found[row].numpy().tolist() == [articles[row][place] for place in kept] + [PADDING_INDEX] * missing
        assert found_score[row].numpy().tolist() == [score[row][place] for place in kept] + [0.0] * missing


def test_take_allowed_of_nothing() -> None:
    found, score = take_allowed(
        tf.zeros([2, 0], tf.int32), tf.zeros([2, 0]), tf.zeros([2, 0], tf.int32), tf.constant(2)
    )
    assert found.numpy().tolist() == [[0, 0], [0, 0]]
    assert score.numpy().tolist() == [[0, 0], [0, 0]]
