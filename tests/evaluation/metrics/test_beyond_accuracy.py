import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrs_fashion.evaluation.metrics.beyond_accuracy import (
    ArticleStatistics,
    gini,
    measure_exposure,
    measure_lists,
)
from tfrs_fashion.schema import CANDIDATE_COLUMNS, InputError


def make_candidates(lists: dict[int, list[int]]) -> pd.DataFrame:
    """Makes Candidates in the order of each list, best first."""
    rows = [
        (customer, article, rank, 1 / rank, "test")
        for customer, articles in lists.items()
        for rank, article in enumerate(articles, start=1)
    ]
    return pd.DataFrame(rows, columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


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
def test_gini_of_small_amounts_equals_hand_worked_values(amounts: list[int], expected: float) -> None:
    assert gini(np.array(amounts)) == pytest.approx(float(expected))


def test_exposure_counts_only_articles_in_store_and_within_k() -> None:
    candidates = make_candidates({1: [2, 5, 3], 2: [2, 5, 3]})
    found = measure_exposure(candidates, k=2, in_store=np.array([2, 3, 4, 4]))
    assert found["coverage"] == pytest.approx(1 / 3)
    assert found["popularity_gini"] == pytest.approx(2 / 3)
    assert measure_exposure(make_candidates({}), k=2, in_store=np.array([2])) == {"coverage": 0, "popularity_gini": 0}
    with pytest.raises(InputError, match="`in_store` is empty"):
        measure_exposure(candidates, k=2, in_store=np.array([]))


def test_novelty_price_and_diversity_equal_hand_worked_values() -> None:
    candidates = make_candidates({1: [2, 3, 4], 2: [4], 3: [2, 5]}).sample(frac=1, random_state=0)
    found = measure_lists(candidates, make_articles(), k=3)
    # Shares 4/8, 2/8, and 1/9 for the article that nobody bought.
    assert found.loc[1, "novelty"] == pytest.approx((1 + 2 + math.log2(9)) / 3)
    assert found.loc[3, "novelty"] == pytest.approx((1 + 0) / 2)
    assert found.loc[1, "price_mean"] == pytest.approx((10 + 20) / 2)
    assert math.isnan(found.loc[2, "price_mean"])
    assert found.loc[1, "popularity_mean"] == pytest.approx((4 / 8 + 2 / 8 + 0) / 3)
    assert found.loc[3, "popularity_mean"] == pytest.approx((4 / 8 + 8 / 8) / 2)
    # Cosines 1, 0 and 0; one article alone has no pair.
    assert found.loc[1, "diversity"] == pytest.approx(1 - (1 + 0 + 0) / 3)
    assert math.isnan(found.loc[2, "diversity"])
    assert found.loc[3, "diversity"] == pytest.approx(1 - 0.6)


def test_diversity_of_many_lists_agrees_with_all_pairs() -> None:
    generator = np.random.default_rng(0)
    embedding = generator.normal(size=(60, 8))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    lists = {c: (generator.permutation(50)[: generator.integers(1, 8)] + 2).tolist() for c in range(9000)}
    articles = ArticleStatistics(np.arange(2, 52), np.ones(60), 10, np.ones(60), embedding)
    found = measure_lists(make_candidates(lists), articles, k=5)["diversity"]
    for customer in (0, 1, 4095, 4096, 4097, 8999):
        rows = embedding[lists[customer][:5]]
        pairs = [rows[i] @ rows[j] for i in range(len(rows)) for j in range(i)]
        expected = 1 - np.mean(pairs) if pairs else np.nan
        assert found.loc[customer] == pytest.approx(expected, nan_ok=True)


def test_diversity_is_the_same_for_equal_and_mixed_list_lengths() -> None:
    # Chunks of lists of equal length take a faster path.
    candidates = make_candidates({1: [2, 4], 2: [2, 3], 3: [5, 4]})
    alike = measure_lists(candidates, make_articles(), k=2)["diversity"]
    mixed = measure_lists(pd.concat([candidates, make_candidates({9: [2]})]), make_articles(), k=2)["diversity"]
    assert alike.tolist() == pytest.approx([1 - 0, 1 - 1, 1 - 0.8])
    assert mixed.loc[[1, 2, 3]].tolist() == pytest.approx(alike.tolist())


def test_lists_are_measured_without_candidates_and_without_an_embedding() -> None:
    assert measure_lists(make_candidates({}), make_articles(), k=3).empty
    found = measure_lists(make_candidates({1: [2, 3]}), make_articles(content_embedding=None), k=3)
    assert list(found) == ["novelty", "popularity_mean", "price_mean"]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 9))
def test_gini_is_half_the_relative_mean_difference_and_independent_of_the_unit(amounts: list[int], unit: int) -> None:
    found = gini(np.array(amounts))
    total, num = sum(amounts), len(amounts)
    differences = sum(abs(a - b) for a in amounts for b in amounts)
    assert found == pytest.approx(differences / (2 * num * total) if total else 0)
    assert gini(unit * np.array(amounts[::-1])) == pytest.approx(found)


@given(st.dictionaries(st.integers(0, 9), st.lists(st.integers(2, 5), max_size=6, unique=True), max_size=9))
def test_metrics_of_each_list_agree_with_their_definitions(lists: dict[int, list[int]]) -> None:
    articles = make_articles()
    found = measure_lists(make_candidates(lists).sample(frac=1, random_state=0), articles, k=3)
    shown = {customer: listed[:3] for customer, listed in sorted(lists.items()) if listed}
    assert found.index.tolist() == list(shown)
    for customer, listed in shown.items():
        shares = [articles.num_buyers[article] / 8 for article in listed]
        paid = [articles.price[article] for article in listed if not math.isnan(articles.price[article])]
        row = found.loc[customer]
        assert row["popularity_mean"] == pytest.approx(sum(shares) / len(listed))
        assert row["novelty"] == pytest.approx(sum(-math.log2(share or 1 / 9) for share in shares) / len(listed))
        assert row["price_mean"] == pytest.approx(sum(paid) / len(paid) if paid else math.nan, nan_ok=True)
