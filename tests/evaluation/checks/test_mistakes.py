"""Checks of mistakes on hand-made tables, on both sides of their thresholds."""

import math

import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.evaluation.checks.finding import Finding
from tfrs_fashion.evaluation.checks.mistakes import (
    find_bad_scores,
    find_chance_level,
    find_constant_scores,
    find_disordered_scores,
    find_fallback,
    find_out_of_store,
    find_repeated_articles,
    find_short_lists,
    find_unknown_indices,
    find_zero_metrics,
)
from tfrs_fashion.schema import CANDIDATE_COLUMNS

CUSTOMERS = np.arange(2, 102)


def make_candidates(lists: dict[int, list[int]], source: str = "als") -> pd.DataFrame:
    """Lists whose scores fall by one a place."""
    rows = [
        (customer, article, rank, -float(rank), source)
        for customer, shown in lists.items()
        for rank, article in enumerate(shown, 1)
    ]
    return pd.DataFrame(rows, columns=list(CANDIDATE_COLUMNS)).astype(CANDIDATE_COLUMNS)


def healthy(num_customers: int = 100) -> pd.DataFrame:
    """Three articles in order for each customer."""
    return make_candidates({int(customer): [7, 8, 9] for customer in CUSTOMERS[:num_customers]})


def seen(finding: Finding | None, severity: str = "error") -> str:
    assert finding is not None
    assert (finding.kind, finding.severity, finding.recommender) == ("mistake", severity, "als")
    return finding.seen


def test_zero_hit_rate_is_found_if_others_have_hits_among_enough_customers() -> None:
    # The best finds something for 40%: a tenth of that, 4%, misses 113 customers with a chance below a hundredth.
    assert 0.96**112 > 0.01 > 0.96**113
    rates = {"repurchase": 0.4, "als": 0.0}
    assert find_zero_metrics(rates, num_customers=112, k=12) == []
    (found,) = find_zero_metrics(rates, num_customers=113, k=12)
    assert seen(found).startswith("None of 113 customers")
    assert find_zero_metrics({"als": 0.001}, num_customers=10_000, k=12) == []


def test_zero_hit_rate_of_all_recommenders_is_found_among_enough_customers() -> None:
    enough = math.ceil(math.log(0.01) / math.log(0.99))
    assert find_zero_metrics({"als": 0.0}, num_customers=enough - 1, k=12) == []
    assert len(find_zero_metrics({"als": 0.0, "repurchase": 0.0}, num_customers=enough, k=12)) == 2
    assert find_zero_metrics({}, num_customers=10_000, k=12) == []


@pytest.mark.parametrize(
    ("value", "low", "num_customers", "num_rankable", "is_found"),
    [
        (0.12, 0.09, 50, 120, True),  # chance is 12 / 120
        (0.15, 0.10, 50, 120, True),
        (0.151, 0.10, 50, 120, False),
        (0.12, 0.101, 50, 120, False),
        (0.12, 0.09, 19, 120, False),
        (0.5, 0.4, 50, 24, True),
        (0.5, 0.4, 50, 23, False),
        (0.0, 0.0, 50, 120, False),  # zero_metrics speaks of that
    ],
)
def test_recall_at_chance_level_is_found(
    value: float, low: float, num_customers: int, num_rankable: int, is_found: bool
) -> None:
    found = find_chance_level(
        {"value": value, "low": low}, num_customers=num_customers, k=12, num_rankable=num_rankable, recommender="als"
    )
    assert (found is not None) == is_found
    if found is not None:
        assert f"12 of {num_rankable} articles drawn at random reach {12 / num_rankable:.4f}" in seen(found, "warning")


@pytest.mark.parametrize(
    ("num_short", "severity"), [(0, None), (1, None), (2, "warning"), (50, "warning"), (51, "error")]
)
def test_more_than_one_percent_of_short_lists_is_found(num_short: int, severity: str | None) -> None:
    rows = healthy()
    rows = rows[(rows["rank"] < 3) | (rows["customer_index"] >= 2 + num_short)]
    found = find_short_lists(rows, CUSTOMERS, k=3, num_rankable=50, recommender="als")
    assert (None if found is None else found.severity) == severity
    if severity:
        assert seen(found, severity) == f"{num_short} of 100 customers get fewer than 3 articles, 0 of them none."
    # A store of two articles gives no longer list, nor is a longer list asked for.
    assert find_short_lists(rows, CUSTOMERS, k=3, num_rankable=2, recommender="als") is None
    assert find_short_lists(rows, CUSTOMERS, k=2, num_rankable=50, recommender="als") is None


def test_customers_without_a_list_count_as_short_lists() -> None:
    found = find_short_lists(healthy(90), CUSTOMERS, k=3, num_rankable=50, recommender="als")
    assert seen(found, "warning") == "10 of 100 customers get fewer than 3 articles, 10 of them none."


def test_healthy_lists_have_no_finding() -> None:
    rows = healthy()
    assert find_repeated_articles(rows, recommender="als") is None
    assert find_unknown_indices(rows, num_customers=100, num_articles=8, recommender="als") is None
    assert find_bad_scores(rows, recommender="als") is None
    assert find_disordered_scores(rows.sample(frac=1, random_state=1), recommender="als") is None
    assert find_constant_scores(rows, recommender="als") is None
    assert find_disordered_scores(rows.assign(score=1.0), recommender="als") is None


def test_article_twice_in_a_list_is_found() -> None:
    rows = pd.concat([healthy(), make_candidates({2: [7], 3: [7, 10]})], ignore_index=True)
    assert seen(find_repeated_articles(rows, recommender="als")) == (
        "2 of 303 candidates repeat an article of the same list; (customer_index, article_index) e.g. (2, 7), (3, 7)."
    )


@pytest.mark.parametrize(("num_customers", "num_articles"), [(99, 8), (100, 7)])
def test_index_beyond_the_tables_is_found(num_customers: int, num_articles: int) -> None:
    # Customers are 2 to 101, articles 7 to 9; the first index is 2.
    found = find_unknown_indices(healthy(), num_customers=num_customers, num_articles=num_articles, recommender="als")
    assert seen(found).startswith("3 of 300 candidates" if num_customers == 99 else "100 of 300 candidates")


@pytest.mark.parametrize("index", [0, 1, -1])
def test_padding_index_is_found(index: int) -> None:
    for column in ("customer_index", "article_index"):
        rows = healthy()
        rows.loc[4, column] = index
        found = find_unknown_indices(rows, num_customers=100, num_articles=8, recommender="als")
        assert seen(found).startswith("1 of 300 candidates")


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_score_that_is_not_finite_is_found(score: float) -> None:
    rows = healthy()
    rows.loc[4, "score"] = score
    assert "(3, 8)" in seen(find_bad_scores(rows, recommender="als"))


def test_score_that_rises_along_a_list_is_found() -> None:
    rows = healthy()
    rows.loc[5, "score"] = -1.5
    rises = "1 of 300 candidates score higher than the one before them; (customer_index, article_index) e.g. (3, 9)."
    assert seen(find_disordered_scores(rows.sample(frac=1, random_state=1), recommender="als")) == rises


def test_one_score_for_all_candidates_is_found() -> None:
    assert seen(find_constant_scores(healthy(20).assign(score=0.5), recommender="als")) == (
        "All 60 candidates have the score 0.5."
    )
    assert find_constant_scores(healthy(19).assign(score=0.5), recommender="als") is None


@pytest.mark.parametrize(("num_out", "severity"), [(15, None), (16, "warning"), (150, "warning"), (151, "error")])
def test_more_than_five_percent_of_places_out_of_store_is_found(num_out: int, severity: str | None) -> None:
    rows = healthy()
    rows.loc[: num_out - 1, "article_index"] = 50
    longer = pd.concat([rows, rows.assign(rank=4, article_index=51)])
    nothing = rows[["customer_index", "article_index"]].head(0)
    store = np.array([7, 8, 9])
    found = find_out_of_store(longer, store, nothing, k=3, recommender="als")
    assert (None if found is None else found.severity) == severity
    if severity:
        assert seen(found, severity).startswith(f"{num_out} of 300 places")
        assert "(2, 50)" in seen(found, severity)
    # A store of two cannot fill a list of three.
    assert find_out_of_store(longer, store[:2], nothing, k=3, recommender="als") is None


def test_articles_bought_before_may_be_out_of_store() -> None:
    rows = healthy().assign(article_index=50)
    own = pd.DataFrame({"customer_index": CUSTOMERS, "article_index": 50})
    store = np.array([7, 8, 9])
    assert find_out_of_store(rows, store, own, k=3, recommender="als") is None
    # Purchases of other customers or articles do not count.
    assert find_out_of_store(rows, store, own.assign(article_index=51), k=3, recommender="als") is not None
    others = own.assign(customer_index=own["customer_index"] + 100)
    assert find_out_of_store(rows, store, others, k=3, recommender="als") is not None


@pytest.mark.parametrize(("num_filled", "severity"), [(50, None), (51, "warning"), (95, "warning"), (96, "error")])
def test_fallback_that_serves_more_than_half_the_histories_is_found(num_filled: int, severity: str | None) -> None:
    # Lists with one place of the recommender's own do not count, nor do places after the first k.
    rows = healthy()
    is_filled = rows["customer_index"] < 2 + num_filled
    rows["source"] = np.where(is_filled | (rows["rank"] > 1), "popularity_7d", "als")
    below = rows[rows["rank"] == 1].assign(rank=4, source="als")
    found = find_fallback(pd.concat([rows, below]), CUSTOMERS, k=3, fallback="popularity_7d", recommender="als")
    assert (None if found is None else found.severity) == severity
    if severity:
        assert seen(found, severity).startswith(f"{num_filled} of 100 customers with a history get only articles of")


def test_fallback_may_serve_cold_start_customers() -> None:
    rows = healthy().assign(source="popularity_7d")
    for customers, is_found in ((CUSTOMERS[:20], True), (CUSTOMERS[:19], False), (np.array([]), False)):
        found = find_fallback(rows, customers, k=3, fallback="popularity_7d", recommender="als")
        assert (found is not None) == is_found
