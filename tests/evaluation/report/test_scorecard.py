import math

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.metrics.beyond_accuracy import ArticleStatistics
from tfrs_fashion.evaluation.report.scorecard import (
    Metrics,
    Scorecard,
    SourceShare,
    count_sources,
    describe_purchases,
    evaluate_recommender,
)
from tfrs_fashion.schema import CANDIDATE_COLUMNS, InputError


def make_candidates(lists: dict[int, list[int]]) -> pd.DataFrame:
    rows = [(c, article, rank, 0.0, "test") for c, shown in lists.items() for rank, article in enumerate(shown, 1)]
    return pd.DataFrame(rows, columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


def make_pairs(bought: dict[int, list[int]]) -> pd.DataFrame:
    rows = [(customer, article) for customer, articles in bought.items() for article in articles]
    return pd.DataFrame(rows, columns=["customer_index", "article_index"], dtype="int32")


def make_articles(**changes: object) -> ArticleStatistics:
    values: dict[str, object] = {
        "in_store": np.arange(2, 10),
        "num_buyers": np.array([0, 0, *[2] * 8]),
        "num_train_customers": 8,
        "price": np.array([np.nan, np.nan, 10.0, 30.0, *[np.nan] * 6]),
        "content_embedding": np.array([[0.0, 0.0], [0.0, 0.0], *[[1.0, 0.0]] * 8]),
    }
    return ArticleStatistics(**{**values, **changes})  # type: ignore[arg-type]


# Customer 1 bought 2 again and 3 for the first time; customer 2 bought only what was bought before.
CANDIDATES = make_candidates({1: [2, 4, 3], 2: [5, 6]})
CANDIDATES_NEW = make_candidates({1: [4, 3], 2: [6]})
TARGETS = make_pairs({1: [2, 3], 2: [5]})
HISTORY = make_pairs({1: [2], 2: [5, 5]})


def score(**changes: object) -> Scorecard:
    values: dict[str, object] = {
        "candidates": CANDIDATES,
        "candidates_new": CANDIDATES_NEW,
        "targets": TARGETS,
        "history_pairs": HISTORY,
        "articles": make_articles(),
        "num_samples": 50,
    }
    return evaluate_recommender(**{**values, **changes})  # type: ignore[arg-type]


def evaluate(**changes: object) -> Metrics:
    return score(**changes).metrics


def test_metrics_of_two_customers_equal_hand_worked_values() -> None:
    found = evaluate()
    values = {name: value["value"] for name, value in found.items()}
    assert values["map@12"] == pytest.approx((1 / 2 * (1 / 1 + 2 / 3) + 1) / 2)
    assert values["recall@12"] == 1
    assert values["recall@200"] == 1
    assert values["precision@12"] == pytest.approx((2 / 12 + 1 / 12) / 2)
    assert values["hit_rate@12"] == values["mrr@12"] == 1
    assert values["ndcg@12"] == pytest.approx(((1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3)) + 1) / 2)
    assert values["coverage@12"] == pytest.approx(5 / 8)
    # Five of eight shown once: sorted 0, 0, 0, 1, 1, 1, 1, 1.
    assert values["popularity_gini@12"] == pytest.approx(2 * (4 + 5 + 6 + 7 + 8) / (8 * 5) - 9 / 8)
    assert values["novelty@12"] == pytest.approx(-math.log2(2 / 8))
    assert values["price_mean@12"] == pytest.approx((10 + 30) / 2)
    assert values["diversity@12"] == pytest.approx(0)
    assert all(value["low"] <= value["value"] <= value["high"] for value in found.values())


def test_new_metrics_leave_out_customers_who_bought_nothing_new() -> None:
    found = evaluate()
    assert found["customers@12_new"]["value"] == 1
    assert found["map@12_new"] == {"value": 1 / 2, "low": 1 / 2, "high": 1 / 2}
    assert found["recall@12_new"]["value"] == 1


def test_new_metrics_are_missing_without_candidates_or_customers() -> None:
    assert not [name for name in evaluate(candidates_new=None) if name.endswith("_new")]
    found = evaluate(targets=make_pairs({2: [5]}))
    assert found["customers@12_new"]["value"] == 0
    assert "map@12_new" not in found


def test_out_of_vocabulary_target_always_counts_as_new() -> None:
    found = evaluate(targets=make_pairs({1: [1]}), history_pairs=make_pairs({1: [1, 2]}))
    assert found["customers@12_new"]["value"] == 1
    assert found["recall@12_new"]["value"] == 0


def test_candidates_bought_before_are_refused_as_new() -> None:
    with pytest.raises(InputError, match=r"candidates_new: 2 row\(s\) within rank 12 .* e\.g\. \(1, 2\), \(2, 5\)"):
        evaluate(candidates_new=CANDIDATES)


def test_short_lists_are_counted() -> None:
    found = evaluate(targets=make_pairs({1: [2], 2: [5], 3: [6]}), ks=(2, 3), recall_at=4)
    assert {name: value["value"] for name, value in found.items() if name.startswith("fewer")} == {
        "fewer_candidates@2": 1,
        "fewer_candidates@3": 2,
        "fewer_candidates@4": 3,
    }


def test_slices_have_metrics_and_counts_unless_empty() -> None:
    found = evaluate(slices={"cold_start_customers": {2, 77}, "nobody": np.array([], dtype=int)})
    assert found["customers@12_cold_start_customers"]["value"] == 1
    assert found["map@12_cold_start_customers"]["value"] == 1
    assert found["customers@12_nobody"]["value"] == 0
    assert "map@12_nobody" not in found


def test_undefined_metrics_are_left_out() -> None:
    found = evaluate(articles=make_articles(price=np.full(10, np.nan), content_embedding=None))
    assert "price_mean@12" not in found
    assert "diversity@12" not in found
    assert evaluate(candidates=make_candidates({}))["coverage@12"]["value"] == 0


def test_empty_window_is_refused() -> None:
    with pytest.raises(InputError, match="No customer bought anything in the window of targets"):
        evaluate(targets=make_pairs({}))


def test_cold_start_articles_are_a_slice_of_the_targets() -> None:
    # Articles 7, 8 and 9 had never been sold before. Customer 1 is shown 7 second and 8 fourth, and bought both;
    # customer 2 bought 9 and is not shown it; customer 3 bought nothing new.
    candidates = make_candidates({1: [2, 7, 3, 8], 2: [5, 6], 3: [4]})
    found = evaluate(
        candidates=candidates,
        candidates_new=None,
        targets=make_pairs({1: [2, 7, 8], 2: [9], 3: [4]}),
        cold_start_articles=np.array([7, 8, 9, 77]),
        num_new_arrivals=4,
    )
    assert found["customers@4_cold_start_articles"]["value"] == 2
    assert found["recall@4_cold_start_articles"]["value"] == pytest.approx((2 / 2 + 0 / 1) / 2)
    # Hits in the second and the fourth place: precision 1/2 in both.
    assert found["map@4_cold_start_articles"]["value"] == pytest.approx((1 / 2 * (1 / 2 + 2 / 4) + 0) / 2)
    # Without the slice, the whole list counts: 2, 7 and 8 are hits of customer 1.
    assert found["recall@12"]["value"] == pytest.approx((1 + 0 + 1) / 3)


@pytest.mark.parametrize(("length", "recall"), [(1, 0.0), (2, (1 / 2 + 0) / 2), (3, (1 / 2 + 0) / 2), (9, (1 + 0) / 2)])
def test_cold_start_articles_are_evaluated_on_lists_of_their_own_length(length: int, recall: float) -> None:
    found = evaluate(
        candidates=make_candidates({1: [2, 7, 3, 8], 2: [5, 6]}),
        candidates_new=None,
        targets=make_pairs({1: [2, 7, 8], 2: [9]}),
        cold_start_articles=np.array([7, 8, 9]),
        num_new_arrivals=length,
    )
    assert found[f"recall@{length}_cold_start_articles"]["value"] == pytest.approx(recall)
    assert [name for name in found if name.endswith("cold_start_articles") and f"@{length}_" not in name] == []


def test_cold_start_metrics_are_missing_without_such_purchases() -> None:
    found = evaluate(cold_start_articles=np.array([], dtype=int))
    assert found["customers@100_cold_start_articles"]["value"] == 0
    assert "recall@100_cold_start_articles" not in found
    assert not [name for name in evaluate() if "cold_start" in name]


def test_near_misses_have_metrics_of_their_own() -> None:
    # Articles 2 and 3 are one design, 4 and 5 another. Customer 1 bought 3 and is shown 2; customer 2 bought 5 and 9.
    groups = np.array([0, 1, 2, 2, 3, 3, 4, 5, 6, 7])
    found = evaluate(
        candidates=make_candidates({1: [6, 2], 2: [4, 5]}),
        candidates_new=None,
        targets=make_pairs({1: [3], 2: [5, 9]}),
        articles=make_articles(groups={"product": groups}),
    )
    assert found["map@12"]["value"] == pytest.approx((0 + 1 / 2 * 1 / 2) / 2)
    # The design of 4 and 5 is hit once, at rank 1.
    assert found["map@12_product"]["value"] == pytest.approx((1 / 2 + 1 / 2 * 1) / 2)
    assert found["recall@12_product"]["value"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["precision@12_product"]["value"] == pytest.approx((1 / 12 + 1 / 12) / 2)
    assert found["hit_rate@12_product"]["value"] == 1


def test_sources_have_their_share_of_places_and_their_precision() -> None:
    candidates = make_candidates({1: [2, 4, 3], 2: [5, 1], 3: [6]})
    candidates["source"] = ["als", "als", "popular", "als", "popular", "popular"]
    # Of three places each, als has 2 and 5 hit, popular none: 1 is out of vocabulary.
    assert count_sources(candidates, make_pairs({1: [2], 2: [5, 1], 3: [7]}), k=12) == (
        SourceShare("als", 1 / 2, 2 / 3),
        SourceShare("popular", 1 / 2, 0),
    )
    assert [found.share for found in count_sources(candidates, TARGETS, k=1)] == pytest.approx([2 / 3, 1 / 3])
    assert count_sources(make_candidates({}), TARGETS, k=12) == ()


def test_candidate_without_a_source_is_refused() -> None:
    candidates = make_candidates({1: [2, 4, 3], 2: [5, 1]}).astype({"source": object})
    candidates.loc[(candidates["customer_index"] == 2) | (candidates["rank"] == 3), "source"] = None
    # The missing source at rank 3 is beyond k and does not matter.
    expected = r"candidates: 2 row\(s\) within rank 2 without a source; .* e\.g\. \(2, 5\), \(2, 1\)\. Write the name"
    with pytest.raises(InputError, match=expected):
        count_sources(candidates, TARGETS, k=2)


def test_scorecard_holds_curve_sources_and_map_by_customer() -> None:
    found = score(recall_at=4)
    # Customer 1: hits first and third of two; customer 2: first of one.
    assert found.curve.recall == pytest.approx(np.array([1 / 2 + 1, 1 / 2 + 1, 2, 2]) / 2)
    assert found.curve.precision == pytest.approx(np.array([2, 2 / 2, 3 / 3, 3 / 4]) / 2)
    assert found.by_customer.to_dict() == pytest.approx({1: 1 / 2 * (1 + 2 / 3), 2: 1})
    assert found.sources == (SourceShare("test", 1, 3 / 5),)


def test_purchases_are_described_like_lists() -> None:
    # Articles out of vocabulary and beyond the catalogue are ignored; repeated purchases count once.
    found = describe_purchases(make_pairs({1: [2, 3, 3, 1], 2: [3, 99]}), make_articles(), k=12, num_samples=20)
    values = {name: value["value"] for name, value in found.items()}
    assert values["coverage@12"] == pytest.approx(2 / 8)
    # Sorted exposures: six of 0, then 1 and 2.
    assert values["popularity_gini@12"] == pytest.approx(2 * (7 * 1 + 8 * 2) / (8 * 3) - 9 / 8)
    assert values["price_mean@12"] == pytest.approx(((10 + 30) / 2 + 30) / 2)
    assert values["popularity_mean@12"] == pytest.approx(2 / 8)
    # Only customer 1 has a pair.
    assert values["diversity@12"] == pytest.approx(0)


def test_lists_longer_than_the_catalogue_are_counted_as_short() -> None:
    # Lists of 5,000 are asked for, but there are only eight articles.
    found = evaluate(candidates=make_candidates({1: [*range(2, 10)], 2: [*range(2, 10)]}), ks=(5000,), recall_at=5000)
    assert found["fewer_candidates@5000"]["value"] == 2
    assert found["recall@5000"]["value"] == 1
    assert found["precision@5000"]["value"] == pytest.approx((2 + 1) / 2 / 5000)
