import math
from collections.abc import Callable
from fractions import Fraction
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.evaluation.metrics import (
    CUSTOMER_METRICS,
    ArticleStatistics,
    contains,
    customer_list_metrics,
    customer_metrics,
    exposure_metrics,
    gini,
    list_metrics,
    target_ranks,
    top_k,
    top_k_accuracy,
)
from tfrs_fashion.schema import CANDIDATE_COLUMNS, InputError


def make_candidates(lists: dict[int, list[int]]) -> pd.DataFrame:
    """Candidates in the order of each list, best first."""
    rows = [
        (customer, article, rank, 1 / rank, "test")
        for customer, articles in lists.items()
        for rank, article in enumerate(articles, start=1)
    ]
    return pd.DataFrame(rows, columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


def make_targets(bought: dict[int, list[int]]) -> pd.DataFrame:
    rows = [(customer, article) for customer, articles in bought.items() for article in articles]
    return pd.DataFrame(rows, columns=["customer_index", "article_index"], dtype="int32")


def slow_metrics(shown: list[int], bought: list[int], k: int) -> dict[str, float]:
    """Each metric from its definition, one customer at a time, in exact fractions where it has them."""
    distinct = set(bought)
    relevant = min(k, len(distinct))
    precision_sum, num_hits, gain, first = Fraction(0), 0, 0.0, None
    seen: set[int] = set()
    for rank in range(1, min(k, len(shown)) + 1):
        article = shown[rank - 1]
        if article >= 2 and article in distinct and article not in seen:
            seen.add(article)
            num_hits += 1
            precision_sum += Fraction(num_hits, rank)
            gain += 1 / math.log2(rank + 1)
            first = first or rank
    return {
        "map": float(precision_sum / relevant),
        "recall": num_hits / len(distinct),
        "precision": num_hits / k,
        "ndcg": gain / sum(1 / math.log2(rank + 1) for rank in range(1, relevant + 1)),
        "hit_rate": 1.0 if num_hits else 0.0,
        "mrr": 1 / first if first else 0.0,
    }


def test_hits_at_ranks_one_and_three_of_three_bought() -> None:
    found = customer_metrics(make_candidates({7: [10, 11, 12]}), make_targets({7: [10, 12, 99]}), k=3).loc[7]
    assert found["map"] == pytest.approx(1 / 3 * (1 / 1 + 2 / 3))
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["hit_rate"] == 1
    assert found["mrr"] == 1
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["ndcg"] == pytest.approx((1 / math.log2(2) + 1 / math.log2(4)) / ideal)


def test_map_is_divided_by_k_when_more_was_bought() -> None:
    found = customer_metrics(make_candidates({7: [50, 10]}), make_targets({7: [10, 11, 12, 13, 14]}), k=2).loc[7]
    assert found["map"] == pytest.approx(1 / 2 * (1 / 2))
    assert found["recall"] == pytest.approx(1 / 5)
    assert found["mrr"] == pytest.approx(1 / 2)


def test_perfect_and_worst_lists() -> None:
    found = customer_metrics(make_candidates({1: [10, 11], 2: [20, 21]}), make_targets({1: [11, 10], 2: [30, 31]}), k=2)
    assert found.loc[1].tolist() == [1.0] * len(CUSTOMER_METRICS)
    assert found.loc[2].tolist() == [0.0] * len(CUSTOMER_METRICS)


def test_every_customer_of_targets_is_there_once_in_order() -> None:
    candidates = make_candidates({5: [10], 8: [10]})
    found = customer_metrics(candidates, make_targets({9: [10], 2: [10], 5: [10]}), k=12)
    assert found.index.tolist() == [2, 5, 9]
    assert found.index.name == "customer_index"
    assert tuple(found.columns) == CUSTOMER_METRICS
    assert found["map"].tolist() == [0, 1, 0]


def test_no_candidates_and_no_targets() -> None:
    assert customer_metrics(make_candidates({}), make_targets({3: [10]}), k=12).loc[3].tolist() == [0.0] * 6
    assert customer_metrics(make_candidates({3: [10]}), make_targets({}), k=12).empty


def test_k_greater_than_the_list() -> None:
    found = customer_metrics(make_candidates({1: [10]}), make_targets({1: [10, 11]}), k=12).loc[1]
    assert found["map"] == pytest.approx(1 / 2 * (1 / 1))
    assert found["precision"] == pytest.approx(1 / 12)


def test_ranks_above_k_do_not_count() -> None:
    found = customer_metrics(make_candidates({1: [50, 51, 10]}), make_targets({1: [10]}), k=2).loc[1]
    assert found.tolist() == [0.0] * 6


def test_duplicate_targets_count_once() -> None:
    once = customer_metrics(make_candidates({1: [50, 10]}), make_targets({1: [10, 11]}), k=12)
    twice = customer_metrics(make_candidates({1: [50, 10]}), make_targets({1: [10, 11, 10, 10]}), k=12)
    pd.testing.assert_frame_equal(once, twice)


def test_out_of_vocabulary_target_counts_and_is_never_hit() -> None:
    candidates = make_candidates({1: [1, 10]})
    found = customer_metrics(candidates, make_targets({1: [1, 10]}), k=12).loc[1]
    assert found["recall"] == pytest.approx(1 / 2)
    assert found["map"] == pytest.approx(1 / 2 * (1 / 2))


def test_order_of_rows_does_not_matter() -> None:
    candidates = make_candidates({1: [10, 11, 12], 2: [12, 13, 14]})
    targets = make_targets({1: [12, 10], 2: [14, 15]})
    shuffled = candidates.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        customer_metrics(candidates, targets, k=3), customer_metrics(shuffled, targets.iloc[::-1], k=3)
    )


def test_another_key_hits_once_at_its_first_rank() -> None:
    candidates = make_candidates({1: [10, 11, 12]}).assign(product_index=[40, 41, 41])
    targets = make_targets({1: [99]}).assign(product_index=[41])
    found = customer_metrics(candidates, targets, k=3, key="product_index").loc[1]
    assert found["map"] == pytest.approx(1 / 2)
    assert found["recall"] == 1
    assert found["precision"] == pytest.approx(1 / 3)


def test_k_below_one_and_missing_columns_are_refused() -> None:
    with pytest.raises(InputError, match="`k` is 0"):
        customer_metrics(make_candidates({1: [10]}), make_targets({1: [10]}), k=0)
    with pytest.raises(InputError, match=r"candidates: missing column\(s\) rank"):
        customer_metrics(make_candidates({1: [10]}).drop(columns="rank"), make_targets({1: [10]}), k=1)
    candidates = make_candidates({1: [10]}).assign(product_index=2)
    with pytest.raises(InputError, match=r"targets: missing column\(s\) product_index"):
        customer_metrics(candidates, make_targets({1: [10]}), k=1, key="product_index")


articles_of = st.lists(st.integers(1, 9), max_size=8)


@settings(max_examples=200)
@given(
    shown=st.dictionaries(st.integers(0, 5), articles_of, max_size=6),
    bought=st.dictionaries(st.integers(0, 5), articles_of.filter(bool), max_size=6),
    k=st.integers(1, 10),
)
def test_agrees_with_the_definitions(shown: dict[int, list[int]], bought: dict[int, list[int]], k: int) -> None:
    found = customer_metrics(make_candidates(shown).sample(frac=1, random_state=1), make_targets(bought), k=k)
    assert found.index.tolist() == sorted(bought)
    for customer, articles in bought.items():
        expected = slow_metrics(shown.get(customer, []), articles, k)
        assert found.loc[customer].to_dict() == pytest.approx(expected)


def test_ndcg_agrees_with_scikit_learn(skip_or_fail: Callable[[str], NoReturn]) -> None:
    try:
        from sklearn.metrics import ndcg_score
    except ImportError:
        skip_or_fail("the package scikit-learn is not installed")
    generator = np.random.default_rng(3)
    for k in (1, 5, 12):
        order = generator.permutation(40) + 2
        bought = generator.choice(np.arange(2, 42), size=6, replace=False)
        # Scores that put `order` from best to worst.
        scores = np.zeros(42)
        scores[order] = np.arange(40, 0, -1)
        relevance = np.isin(np.arange(2, 42), bought).astype(float)
        expected = ndcg_score([relevance], [scores[2:]], k=k)
        found = customer_metrics(make_candidates({1: order.tolist()}), make_targets({1: bought.tolist()}), k=k)
        assert found.loc[1, "ndcg"] == pytest.approx(expected)


def test_contains() -> None:
    assert contains(np.array([2, 5, 9]), np.array([9, 1, 5, 12])).tolist() == [True, False, True, False]
    assert contains(np.array([], dtype=int), np.array([1])).tolist() == [False]


def make_articles(**changes: object) -> ArticleStatistics:
    """Articles 2, 3 and 4 are in store; article 5 is not. Articles 2 and 3 point the same way."""
    values: dict[str, object] = {
        "in_store": np.array([2, 3, 4]),
        "num_buyers": np.array([0, 0, 4, 2, 0, 8]),
        "num_train_customers": 8,
        "price": np.array([np.nan, np.nan, 10.0, 20.0, np.nan, 40.0]),
        "content_embedding": np.array([[0, 0], [0, 0], [1, 0], [1, 0], [0, 1], [0.6, 0.8]]),
    }
    return ArticleStatistics(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("amounts", "expected"),
    [
        ([5, 5, 5, 5], 0),
        ([0, 0, 0, 8], 3 / 4),
        ([0, 0], 0),
        ([], 0),
        # Half the mean difference over the mean: of 9 ordered pairs, 4 differ by 1 and 2 by 2; the mean is 2.
        ([3, 1, 2], Fraction(8, 9) / 2 / 2),
    ],
)
def test_gini(amounts: list[int], expected: float) -> None:
    assert gini(np.array(amounts)) == pytest.approx(float(expected))


def test_exposure_counts_only_what_is_in_store_and_within_k() -> None:
    candidates = make_candidates({1: [2, 5, 3], 2: [2, 5, 3]})
    found = exposure_metrics(candidates, k=2, in_store=np.array([2, 3, 4, 4]))
    assert found["coverage"] == pytest.approx(1 / 3)
    assert found["popularity_gini"] == pytest.approx(2 / 3)
    assert exposure_metrics(make_candidates({}), k=2, in_store=np.array([2])) == {"coverage": 0, "popularity_gini": 0}
    with pytest.raises(InputError, match="`in_store` is empty"):
        exposure_metrics(candidates, k=2, in_store=np.array([]))


def test_novelty_price_and_diversity_of_each_list() -> None:
    candidates = make_candidates({1: [2, 3, 4], 2: [4], 3: [2, 5]}).sample(frac=1, random_state=0)
    found = customer_list_metrics(candidates, make_articles(), k=3)
    # Shares 4/8, 2/8 and, bought by nobody, 1/9.
    assert found.loc[1, "novelty"] == pytest.approx((1 + 2 + math.log2(9)) / 3)
    assert found.loc[3, "novelty"] == pytest.approx((1 + 0) / 2)
    assert found.loc[1, "price_mean"] == pytest.approx((10 + 20) / 2)
    assert math.isnan(found.loc[2, "price_mean"])
    # Cosines 1, 0 and 0; one article alone has no pair.
    assert found.loc[1, "diversity"] == pytest.approx(1 - (1 + 0 + 0) / 3)
    assert math.isnan(found.loc[2, "diversity"])
    assert found.loc[3, "diversity"] == pytest.approx(1 - 0.6)


def test_diversity_of_many_lists_agrees_with_pairs() -> None:
    generator = np.random.default_rng(0)
    embedding = generator.normal(size=(60, 8))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    lists = {c: (generator.permutation(50)[: generator.integers(1, 8)] + 2).tolist() for c in range(9000)}
    articles = ArticleStatistics(np.arange(2, 52), np.ones(60), 10, np.ones(60), embedding)
    found = customer_list_metrics(make_candidates(lists), articles, k=5)["diversity"]
    for customer in (0, 1, 4095, 4096, 4097, 8999):
        rows = embedding[lists[customer][:5]]
        pairs = [rows[i] @ rows[j] for i in range(len(rows)) for j in range(i)]
        expected = 1 - np.mean(pairs) if pairs else np.nan
        assert found.loc[customer] == pytest.approx(expected, nan_ok=True)


def test_list_metrics_are_means_over_lists() -> None:
    candidates = make_candidates({1: [2, 3, 4], 2: [4], 3: [2, 5]})
    found = list_metrics(candidates, make_articles(), k=3)
    assert set(found) == {"coverage", "popularity_gini", "novelty", "price_mean", "diversity"}
    assert found["price_mean"] == pytest.approx((15 + 25) / 2)
    assert found["diversity"] == pytest.approx(((1 - 1 / 3) + (1 - 0.6)) / 2)
    assert "diversity" not in list_metrics(candidates, make_articles(content_embedding=None), k=3)
    assert math.isnan(list_metrics(make_candidates({}), make_articles(), k=3)["novelty"])


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
