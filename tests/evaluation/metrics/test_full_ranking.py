import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.evaluation.metrics.full_ranking import target_ranks, top_k, top_k_accuracy
from tfrs_fashion.schema import InputError


def slow_ranks(queries: np.ndarray, candidates: np.ndarray, positions: np.ndarray, owners: np.ndarray) -> list[int]:
    scores = queries.astype(np.float64) @ candidates.astype(np.float64).T
    return [
        1 + sum(score > scores[query, position] for score in scores[query])
        for query, position in zip(owners, positions, strict=True)
    ]


@settings(max_examples=100)
@given(
    num_queries=st.integers(1, 9),
    num_candidates=st.integers(1, 40),
    num_targets=st.integers(0, 30),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 1000),
)
def test_target_ranks_agree_with_counting(
    num_queries: int, num_candidates: int, num_targets: int, batch_size: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    # Small whole numbers: float32 products are exact, and ties are many.
    queries = generator.integers(-2, 3, (num_queries, 3)).astype(np.float32)
    candidates = generator.integers(-2, 3, (num_candidates, 3)).astype(np.float32)
    positions = generator.integers(0, num_candidates, num_targets)
    owners = generator.integers(0, num_queries, num_targets)
    ranks = target_ranks(queries, candidates, positions, owners, batch_size=batch_size)
    assert ranks.dtype == np.int32
    assert ranks.tolist() == slow_ranks(queries, candidates, positions, owners)


def test_target_ranks_of_known_order() -> None:
    candidates = np.array([[1.0], [3.0], [2.0], [3.0]], dtype=np.float32)
    ranks = target_ranks(np.array([[1.0], [-1.0]]), candidates, np.array([0, 1, 2, 3, 0]), np.array([0, 0, 0, 0, 1]))
    assert ranks.tolist() == [4, 1, 3, 1, 1]
    assert top_k_accuracy(ranks, (1, 3, 4)) == {1: 3 / 5, 3: 4 / 5, 4: 1.0}


def test_target_ranks_refuse_what_would_flatter() -> None:
    queries, candidates = np.ones((2, 3)), np.ones((4, 3))
    with pytest.raises(InputError, match="NaN or infinite"):
        target_ranks(np.full((2, 3), np.nan), candidates, np.array([0]), np.array([0]))
    with pytest.raises(InputError, match="`target_positions` runs from -1 to -1; expected 0 to 3"):
        target_ranks(queries, candidates, np.array([-1]), np.array([0]))
    with pytest.raises(InputError, match="`target_queries` runs from 2 to 2; expected 0 to 1"):
        target_ranks(queries, candidates, np.array([0]), np.array([2]))
    with pytest.raises(InputError, match="one query a target"):
        target_ranks(queries, candidates, np.array([0, 1]), np.array([0]))
    with pytest.raises(InputError, match="same embedding space"):
        target_ranks(np.ones((2, 5)), candidates, np.array([0]), np.array([0]))
    with pytest.raises(InputError, match="expected 2-D"):
        target_ranks(np.ones(3), candidates, np.array([0]), np.array([0]))
    with pytest.raises(InputError, match="`ranks` is empty"):
        top_k_accuracy(np.array([]), (1,))


@pytest.mark.slow
def test_accuracies_equal_factorized_top_k() -> None:
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    generator = np.random.default_rng(5)
    queries = generator.normal(size=(50, 16)).astype(np.float32)
    candidates = generator.normal(size=(700, 16)).astype(np.float32)
    owners, positions = generator.integers(0, 50, 900), generator.integers(0, 700, 900)
    ks = (1, 5, 12, 100)
    index = tfrs.layers.factorized_top_k.BruteForce(k=100).index(tf.constant(candidates), tf.range(700))
    metric = tfrs.metrics.FactorizedTopK(index, ks=ks)
    metric.update_state(queries[owners], candidates[positions], tf.constant(positions, tf.int32))
    expected = dict(zip(ks, (float(value) for value in metric.result()), strict=True))
    assert top_k_accuracy(target_ranks(queries, candidates, positions, owners), ks) == pytest.approx(expected, abs=1e-6)


@settings(max_examples=100)
@given(num_candidates=st.integers(1, 30), k=st.integers(1, 35), batch_size=st.integers(1, 4), seed=st.integers(0, 1000))
def test_top_k_breaks_ties_by_position(num_candidates: int, k: int, batch_size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    queries = generator.integers(-2, 3, (5, 2)).astype(np.float32)
    candidates = generator.integers(-2, 3, (num_candidates, 2)).astype(np.float32)
    positions, scores = top_k(queries, candidates, k, batch_size=batch_size)
    assert positions.shape == scores.shape == (5, min(k, num_candidates))
    for row, query in enumerate(queries):
        expected = sorted((-float(query @ candidate), place) for place, candidate in enumerate(candidates))[:k]
        assert positions[row].tolist() == [place for _, place in expected]
        assert scores[row].tolist() == [-loss for loss, _ in expected]


def test_top_k_of_nothing() -> None:
    assert top_k(np.ones((2, 3)), np.ones((0, 3)), 5)[0].shape == (2, 0)
    with pytest.raises(InputError, match="`k` is 0"):
        top_k(np.ones((2, 3)), np.ones((4, 3)), 0)
