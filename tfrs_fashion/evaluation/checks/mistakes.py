"""Mistakes: checks for lists and metrics that come from something built wrongly."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks.collapse import MIN_STORE_OF_LISTS
from tfrs_fashion.evaluation.checks.finding import MIN_CUSTOMERS, Finding, make_finding
from tfrs_fashion.evaluation.metrics.pair_keys import contains, pair_keys
from tfrs_fashion.schema import FIRST_INDEX

# Highest probability of no hit at all for a recommender with a tenth of the best hit rate of the run, or of `MIN_HIT_RATE`.
MAX_ZERO_CHANCE = 0.01
MIN_HIT_RATE = 0.01
# Random lists have a recall of k / (articles in store); a list that has learned anything has several times that.
MIN_TIMES_CHANCE = 1.5
# Artifacts fill their lists with popularity, so short lists are rare.
MAX_SHORT_LISTS = 0.01
# Popularity, which fills lists, continues with articles sold last, in store or not, after those that sell.
MAX_OUT_OF_STORE = 0.05
# Most recommenders give a customer with a history some articles of their own, though not those that need, say, a purchase
# in the last week.
MAX_FALLBACK_LISTS = 0.5
# Above this share, the metrics are those of the fallback.
MAX_FALLBACK_LISTS_BEFORE_ERROR = 0.95


def find_zero_metrics(hit_rates: Mapping[str, float], *, num_customers: int, k: int) -> list[Finding]:
    """Checks for recommenders without a single hit among enough customers; see `MAX_ZERO_CHANCE`.

    Args:
        hit_rates: Hit rate at k by recommender.
        num_customers: Number of evaluated customers.
        k: Length of the lists.
    """
    likely = max(max(hit_rates.values(), default=0.0) / 10, MIN_HIT_RATE)
    if (1 - likely) ** num_customers >= MAX_ZERO_CHANCE:
        return []
    return [
        make_finding("zero_metrics", name, customers=num_customers, k=k)
        for name, hit_rate in hit_rates.items()
        if hit_rate == 0
    ]


def find_chance_level(
    recall: Mapping[str, float], *, num_customers: int, k: int, num_rankable: int, recommender: str
) -> Finding | None:
    """Checks for a recommender that is no better than randomly drawn articles; see `MIN_TIMES_CHANCE`.

    Args:
        recall: `value` of recall@k, and `low`, the lower bound of its 95% interval.
        num_customers: Number of evaluated customers.
        k: Length of the lists.
        num_rankable: Number of articles that may be recommended.
        recommender: Name of the recommender.
    """
    if num_customers < MIN_CUSTOMERS or num_rankable < MIN_STORE_OF_LISTS * k or recall["value"] == 0:
        return None
    chance = k / num_rankable
    if recall["low"] > chance or recall["value"] > MIN_TIMES_CHANCE * chance:
        return None
    values: dict[str, Any] = {"value": recall["value"], "low": recall["low"], "chance": chance}
    return make_finding("chance_level", recommender, **values, customers=num_customers, rankable=num_rankable, k=k)


def find_short_lists(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, num_rankable: int, recommender: str
) -> Finding | None:
    """Checks for lists of fewer than k articles; see `MAX_SHORT_LISTS`.

    Args:
        candidates: Rows of Candidates.
        customers: `[num_customers]` customer_index of everyone who should have a list.
        k: Length of the lists.
        num_rankable: Number of articles that may be recommended; if fewer than k, lists of this length are expected.
        recommender: Name of the recommender.
    """
    shown = candidates.loc[candidates["rank"] <= k, "customer_index"].value_counts()
    expected = min(k, num_rankable)
    lengths = shown.reindex(customers, fill_value=0).to_numpy()
    num_short = int((lengths < expected).sum())
    if num_short <= MAX_SHORT_LISTS * len(customers):
        return None
    is_error = num_short > len(customers) / 2
    values: dict[str, Any] = {
        "short": num_short,
        "total": len(customers),
        "expected": expected,
        "empty": int((lengths == 0).sum()),
    }
    return make_finding("short_lists", recommender, is_error=is_error, **values)


def _samples(rows: pd.DataFrame) -> str:
    first = rows[["customer_index", "article_index"]].head(3).itertuples(index=False, name=None)
    return ", ".join(f"({int(customer)}, {int(article)})" for customer, article in first)


def _report_rows(check: str, candidates: pd.DataFrame, is_bad: np.ndarray, *, recommender: str) -> Finding | None:
    if not is_bad.any():
        return None
    counts: dict[str, Any] = {"bad": int(is_bad.sum()), "total": len(candidates)}
    return make_finding(check, recommender, **counts, samples=_samples(candidates.loc[is_bad]))


def find_repeated_articles(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Checks the rows of Candidates for lists that contain an article twice. None is allowed."""
    is_bad = candidates.duplicated(["customer_index", "article_index"]).to_numpy()
    return _report_rows("repeated_articles", candidates, is_bad, recommender=recommender)


def find_unknown_indices(
    candidates: pd.DataFrame, *, num_customers: int, num_articles: int, recommender: str
) -> Finding | None:
    """Checks for customers and articles that are not in the tables. None is allowed.

    Args:
        candidates: Rows of Candidates.
        num_customers: Number of customers in the tables, whose indices begin at `FIRST_INDEX`.
        num_articles: Number of articles in the tables, likewise.
        recommender: Name of the recommender.
    """
    is_bad = np.zeros(len(candidates), dtype=bool)
    for column, number in (("customer_index", num_customers), ("article_index", num_articles)):
        index = candidates[column].to_numpy()
        is_bad |= (index < FIRST_INDEX) | (index >= FIRST_INDEX + number)
    return _report_rows("unknown_indices", candidates, is_bad, recommender=recommender)


def find_bad_scores(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Checks the rows of Candidates for NaN and infinite scores. None is allowed."""
    is_bad = ~np.isfinite(candidates["score"].to_numpy(dtype=np.float64))
    return _report_rows("scores_not_finite", candidates, is_bad, recommender=recommender)


def find_disordered_scores(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Checks the rows of Candidates for scores that rise along a list. None is allowed."""
    ordered = candidates.sort_values(["customer_index", "rank"], kind="stable")
    customer_index, score = ordered["customer_index"].to_numpy(), ordered["score"].to_numpy()
    rises = np.zeros(len(ordered), dtype=bool)
    rises[1:] = (customer_index[1:] == customer_index[:-1]) & (score[1:] > score[:-1])
    return _report_rows("scores_out_of_order", ordered, rises, recommender=recommender)


def find_constant_scores(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Checks for one score for all candidates. Equal scores within a list, such as one purchase each, are no mistake.

    Args:
        candidates: Rows of Candidates; fewer than `MIN_CUSTOMERS` lists give no finding.
        recommender: Name of the recommender.
    """
    score = candidates["score"].to_numpy()
    if candidates["customer_index"].nunique() < MIN_CUSTOMERS or not (score == score[0]).all():
        return None
    return make_finding("constant_scores", recommender, total=len(score), score=score[0])


def find_out_of_store(
    candidates: pd.DataFrame, rankable: np.ndarray, bought: pd.DataFrame, *, k: int, recommender: str
) -> Finding | None:
    """Checks for articles in the first k that are neither in store nor bought before; see `MAX_OUT_OF_STORE`.

    Without stock data, what is in store is inferred from the sales of the last weeks. Articles that the customer bought
    before are allowed, since a returning customer may still find something that nobody else has bought lately.

    Args:
        candidates: Rows of Candidates.
        rankable: Distinct article_index of articles that may be recommended; fewer than k give no finding, since lists
            have to go beyond them.
        bought: (`customer_index`, `article_index`) pairs bought before.
        k: Length of the lists.
        recommender: Name of the recommender.
    """
    shown = candidates[candidates["rank"] <= k]
    is_out = ~shown["article_index"].isin(rankable).to_numpy()
    is_out &= ~contains(np.sort(pair_keys(bought)), pair_keys(shown))
    num_out, total = int(is_out.sum()), len(shown)
    if len(rankable) < k or num_out <= MAX_OUT_OF_STORE * total:
        return None
    is_error = num_out > total / 2
    values: dict[str, Any] = {
        "out": num_out,
        "total": total,
        "share": num_out / total,
        "samples": _samples(shown[is_out]),
    }
    return make_finding("out_of_store", recommender, is_error=is_error, **values)


def find_fallback(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, fallback: str, recommender: str
) -> Finding | None:
    """Checks for a fallback that answers in the recommender's place.

    By design the fallback serves customers without a history, and fills the last places of other lists. Only customers
    with a history whose first k articles all come from the fallback count. See `MAX_FALLBACK_LISTS`.

    Args:
        candidates: Rows of Candidates, whose `source` names the recommender of each.
        customers: `[any]` customer_index of customers with a history.
        k: Length of the lists.
        fallback: Name of the fallback, as in `source`.
        recommender: Name of the recommender.
    """
    shown = candidates[(candidates["rank"] <= k) & candidates["customer_index"].isin(customers)]
    is_filled = (shown["source"] == fallback).groupby(shown["customer_index"]).all()
    share = float(is_filled.mean()) if len(is_filled) else 0.0
    if len(is_filled) < MIN_CUSTOMERS or share <= MAX_FALLBACK_LISTS:
        return None
    is_error = share > MAX_FALLBACK_LISTS_BEFORE_ERROR
    values: dict[str, Any] = {"filled": int(is_filled.sum()), "total": len(is_filled), "fallback": fallback}
    return make_finding("answered_by_fallback", recommender, is_error=is_error, **values)
