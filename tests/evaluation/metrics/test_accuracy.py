import math
from collections.abc import Callable
from fractions import Fraction
from typing import NoReturn

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_fashion.evaluation.metrics.accuracy import (
    ACCURACY_METRICS,
    find_hits,
    first_places,
    measure_accuracy,
    measure_hits,
    trace_accuracy,
)
from tfrs_fashion.evaluation.metrics.pair_keys import contains, count_runs
from tfrs_fashion.schema import CANDIDATE_COLUMNS, InputError


def make_candidates(lists: dict[int, list[int]]) -> pd.DataFrame:
    """Makes Candidates in the order of each list, best first."""
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
    """Computes each metric from its definition for one customer, in exact fractions where possible."""
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


def test_metrics_of_hits_at_ranks_one_and_three_equal_hand_worked_fractions() -> None:
    found = measure_accuracy(make_candidates({7: [10, 11, 12]}), make_targets({7: [10, 12, 99]}), k=3).loc[7]
    assert found["map"] == pytest.approx(1 / 3 * (1 / 1 + 2 / 3))
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["hit_rate"] == 1
    assert found["mrr"] == 1
    ideal = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert found["ndcg"] == pytest.approx((1 / math.log2(2) + 1 / math.log2(4)) / ideal)


def test_map_is_divided_by_k_when_more_than_k_were_bought() -> None:
    found = measure_accuracy(make_candidates({7: [50, 10]}), make_targets({7: [10, 11, 12, 13, 14]}), k=2).loc[7]
    assert found["map"] == pytest.approx(1 / 2 * (1 / 2))
    assert found["recall"] == pytest.approx(1 / 5)
    assert found["mrr"] == pytest.approx(1 / 2)


def test_perfect_list_scores_1_and_list_without_hits_scores_0() -> None:
    found = measure_accuracy(make_candidates({1: [10, 11], 2: [20, 21]}), make_targets({1: [11, 10], 2: [30, 31]}), k=2)
    assert found.loc[1].tolist() == [1.0] * len(ACCURACY_METRICS)
    assert found.loc[2].tolist() == [0.0] * len(ACCURACY_METRICS)


def test_every_customer_with_targets_has_one_row_in_ascending_order() -> None:
    candidates = make_candidates({5: [10], 8: [10]})
    found = measure_accuracy(candidates, make_targets({9: [10], 2: [10], 5: [10]}), k=12)
    assert found.index.tolist() == [2, 5, 9]
    assert found.index.name == "customer_index"
    assert tuple(found.columns) == ACCURACY_METRICS
    assert found["map"].tolist() == [0, 1, 0]


def test_customer_without_candidates_scores_0_and_without_targets_has_no_row() -> None:
    assert measure_accuracy(make_candidates({}), make_targets({3: [10]}), k=12).loc[3].tolist() == [0.0] * 6
    assert measure_accuracy(make_candidates({3: [10]}), make_targets({}), k=12).empty


def test_k_beyond_the_list_counts_missing_places_as_misses() -> None:
    found = measure_accuracy(make_candidates({1: [10]}), make_targets({1: [10, 11]}), k=12).loc[1]
    assert found["map"] == pytest.approx(1 / 2 * (1 / 1))
    assert found["precision"] == pytest.approx(1 / 12)


def test_ranks_above_k_do_not_count() -> None:
    found = measure_accuracy(make_candidates({1: [50, 51, 10]}), make_targets({1: [10]}), k=2).loc[1]
    assert found.tolist() == [0.0] * 6


def test_duplicate_targets_count_once() -> None:
    once = measure_accuracy(make_candidates({1: [50, 10]}), make_targets({1: [10, 11]}), k=12)
    twice = measure_accuracy(make_candidates({1: [50, 10]}), make_targets({1: [10, 11, 10, 10]}), k=12)
    pd.testing.assert_frame_equal(once, twice)


def test_out_of_vocabulary_target_counts_and_is_never_hit() -> None:
    candidates = make_candidates({1: [1, 10]})
    found = measure_accuracy(candidates, make_targets({1: [1, 10]}), k=12).loc[1]
    assert found["recall"] == pytest.approx(1 / 2)
    assert found["map"] == pytest.approx(1 / 2 * (1 / 2))


def test_order_of_rows_does_not_matter() -> None:
    candidates = make_candidates({1: [10, 11, 12], 2: [12, 13, 14]})
    targets = make_targets({1: [12, 10], 2: [14, 15]})
    shuffled = candidates.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        measure_accuracy(candidates, targets, k=3), measure_accuracy(shuffled, targets.iloc[::-1], k=3)
    )


def test_repeated_key_hits_once_at_its_first_rank() -> None:
    candidates = make_candidates({1: [10, 11, 12]}).assign(product_index=[40, 41, 41])
    targets = make_targets({1: [99]}).assign(product_index=[41])
    found = measure_accuracy(candidates, targets, k=3, key="product_index").loc[1]
    assert found["map"] == pytest.approx(1 / 2)
    assert found["recall"] == 1
    assert found["precision"] == pytest.approx(1 / 3)


def test_k_below_one_and_missing_columns_are_refused() -> None:
    with pytest.raises(InputError, match="`k` is 0"):
        measure_accuracy(make_candidates({1: [10]}), make_targets({1: [10]}), k=0)
    with pytest.raises(InputError, match=r"candidates: missing column\(s\) rank"):
        measure_accuracy(make_candidates({1: [10]}).drop(columns="rank"), make_targets({1: [10]}), k=1)
    candidates = make_candidates({1: [10]}).assign(product_index=2)
    with pytest.raises(InputError, match=r"targets: missing column\(s\) product_index"):
        measure_accuracy(candidates, make_targets({1: [10]}), k=1, key="product_index")


articles_of = st.lists(st.integers(1, 9), max_size=8)


@settings(max_examples=200)
@given(
    shown=st.dictionaries(st.integers(0, 5), articles_of, max_size=6),
    bought=st.dictionaries(st.integers(0, 5), articles_of.filter(bool), max_size=6),
    k=st.integers(1, 10),
)
def test_metrics_agree_with_their_definitions(
    shown: dict[int, list[int]], bought: dict[int, list[int]], k: int
) -> None:
    found = measure_accuracy(make_candidates(shown).sample(frac=1, random_state=1), make_targets(bought), k=k)
    assert found.index.tolist() == sorted(bought)
    for customer, articles in bought.items():
        expected = slow_metrics(shown.get(customer, []), articles, k)
        assert found.loc[customer].to_dict() == pytest.approx(expected)


def test_every_metric_agrees_with_trec_eval(skip_or_fail: Callable[[str], NoReturn]) -> None:
    try:
        import pytrec_eval
    except ImportError:
        skip_or_fail("the package pytrec-eval-terrier is not installed")
    generator = np.random.default_rng(3)
    # Lists of any length, none for some customers, and from no hit at all to more purchases than k.
    bought = {c: generator.choice(np.arange(2, 60), generator.integers(1, 25), replace=False) for c in range(300)}
    shown = {c: generator.permutation(np.arange(2, 60))[: generator.integers(0, 40)] for c in range(20, 330)}
    candidates = make_candidates({c: found.tolist() for c, found in shown.items()})
    targets = make_targets({c: found.tolist() for c, found in bought.items()})
    relevance = {str(c): {str(article): 1 for article in found} for c, found in bought.items()}
    for k in (1, 5, 12, 50):
        found = measure_accuracy(candidates, targets, k=k)
        # Its reciprocal rank has no cutoff k, so it gets the first k only.
        run = {str(c): {str(article): -rank for rank, article in enumerate(shown[c][:k])} for c in shown}
        measures = {f"{name}.{k}" for name in ("map_cut", "recall", "P", "ndcg_cut", "success")} | {"recip_rank"}
        theirs = pytrec_eval.RelevanceEvaluator(relevance, measures).evaluate(
            {c: {a: float(score) for a, score in scores.items()} for c, scores in run.items() if scores}
        )
        nothing = dict.fromkeys([f"{name}_{k}" for name in ("map_cut", "recall", "P", "ndcg_cut", "success")], 0.0)
        for c, articles in bought.items():
            expected = theirs.get(str(c), {**nothing, "recip_rank": 0.0})
            # It divides by the number bought; Kaggle by at most the length of the list.
            average_precision = expected[f"map_cut_{k}"] * len(articles) / min(k, len(articles))
            assert found.loc[c].to_dict() == pytest.approx(
                {
                    "map": average_precision,
                    "recall": expected[f"recall_{k}"],
                    "precision": expected[f"P_{k}"],
                    "ndcg": expected[f"ndcg_cut_{k}"],
                    "hit_rate": expected[f"success_{k}"],
                    "mrr": expected["recip_rank"],
                }
            )


@pytest.mark.parametrize("k", [1, 5, 12, 58])
def test_every_metric_agrees_with_scikit_learn(k: int) -> None:
    generator = np.random.default_rng(3)
    articles = np.arange(2, 60)
    shown = {c: generator.permutation(articles) for c in range(30)}
    bought = {c: generator.choice(articles, generator.integers(1, 25), replace=False) for c in shown}
    found = measure_accuracy(
        make_candidates({c: order.tolist() for c, order in shown.items()}),
        make_targets({c: order.tolist() for c, order in bought.items()}),
        k=k,
    )
    for c, order in shown.items():
        is_bought = np.isin(articles, bought[c])
        # Scores that put `order` from best to worst.
        scores = np.zeros(len(articles))
        scores[order - 2] = np.arange(len(order), 0, -1)
        is_listed = np.isin(articles, order[:k])
        num_hits = int((is_bought & is_listed).sum())
        # Average precision within the list is divided by the hits; Kaggle's by the possible hits.
        within = sklearn.metrics.average_precision_score(is_bought[is_listed], scores[is_listed]) if num_hits else 0
        # With one article bought, the average precision over a ranking of labels is 1 / its rank.
        reciprocal = [
            sklearn.metrics.label_ranking_average_precision_score([articles == article], [scores])
            for article in np.intersect1d(bought[c], order[:k])
        ]
        assert found.loc[c].to_dict() == pytest.approx(
            {
                "map": within * num_hits / min(k, len(bought[c])),
                "recall": sklearn.metrics.recall_score(is_bought, is_listed),
                "precision": sklearn.metrics.precision_score(is_bought, is_listed),
                "ndcg": sklearn.metrics.ndcg_score([is_bought], [scores], k=k),
                "hit_rate": float(num_hits > 0),
                "mrr": max(reciprocal, default=0.0),
            }
        )


def test_hits_of_deep_lists_give_metrics_of_every_shorter_list() -> None:
    candidates, targets = make_candidates({1: [10, 11, 12, 13], 2: [20]}), make_targets({1: [11, 13], 2: [20, 21]})
    hits = find_hits(candidates, targets, depth=4)
    for k in (1, 2, 3, 4):
        pd.testing.assert_frame_equal(measure_hits(hits, k=k), measure_accuracy(candidates, targets, k=k))
    with pytest.raises(InputError, match="`k` is 5, but only the first 4 places were searched for hits"):
        measure_hits(hits, k=5)


def test_curve_of_three_customers_equals_hand_worked_means() -> None:
    # Customer 1 is hit second and fourth of two targets, customer 2 first of two, customer 3 has no list.
    candidates = make_candidates({1: [10, 11, 12, 13], 2: [20]})
    targets = make_targets({1: [11, 13], 2: [20, 21], 3: [30]})
    found = trace_accuracy(find_hits(candidates, targets, depth=5))
    assert found.recall == pytest.approx(np.array([1 / 2, 1 / 2 + 1 / 2, 1, 1 + 1 / 2, 3 / 2]) / 3)
    assert found.precision == pytest.approx(np.array([1 / 1, 2 / 2, 2 / 3, 3 / 4, 3 / 5]) / 3)
    with pytest.raises(InputError, match="No customer bought anything"):
        trace_accuracy(find_hits(candidates, make_targets({}), depth=5))


@given(
    shown=st.dictionaries(st.integers(0, 5), articles_of, max_size=6),
    bought=st.dictionaries(st.integers(0, 5), articles_of.filter(bool), min_size=1, max_size=6),
    depth=st.integers(1, 9),
)
def test_curve_equals_mean_metrics_at_every_k_and_recall_never_falls(
    shown: dict[int, list[int]], bought: dict[int, list[int]], depth: int
) -> None:
    candidates, targets = make_candidates(shown), make_targets(bought)
    found = trace_accuracy(find_hits(candidates, targets, depth=depth))
    means = [measure_accuracy(candidates, targets, k=k).mean() for k in range(1, depth + 1)]
    assert found.recall.tolist() == pytest.approx([mean["recall"] for mean in means])
    assert found.precision.tolist() == pytest.approx([mean["precision"] for mean in means])
    assert (np.diff(found.recall) >= -1e-12).all()


@given(
    shown=st.dictionaries(st.integers(0, 5), articles_of, max_size=6),
    bought=st.dictionaries(st.integers(0, 5), articles_of.filter(bool), min_size=1, max_size=6),
    k=st.integers(1, 9),
)
def test_metrics_lie_between_0_and_1_and_agree_on_whether_there_is_a_hit(
    shown: dict[int, list[int]], bought: dict[int, list[int]], k: int
) -> None:
    found = measure_accuracy(make_candidates(shown), make_targets(bought), k=k)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all(axis=None)
    assert ((found > 0).nunique(axis=1) == 1).all()
    assert (found["recall"] <= found["hit_rate"]).all()


def test_contains_marks_values_that_occur() -> None:
    assert contains(np.array([2, 5, 9]), np.array([9, 1, 5, 12])).tolist() == [True, False, True, False]
    assert contains(np.array([], dtype=int), np.array([1])).tolist() == [False]


def test_count_runs_and_first_places_by_hand() -> None:
    values, starts, lengths = count_runs(np.array([7, 7, 2, 2, 2, 7]))
    assert (values.tolist(), starts.tolist(), lengths.tolist()) == ([7, 2, 7], [0, 2, 5], [2, 3, 1])
    assert [found.tolist() for found in count_runs(np.array([], dtype=int))] == [[], [], []]
    candidates = make_candidates({1: [10, 11, 12]})
    assert first_places(candidates, k=2)["article_index"].tolist() == [10, 11]
    assert first_places(candidates, k=3) is candidates
    with pytest.raises(InputError, match="`k` is 0; expected 1 or more"):
        first_places(candidates, k=0)
