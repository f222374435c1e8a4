"""Mistakes: lists and figures that come from something built wrongly."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks.collapse import MIN_STORE_OF_LISTS
from tfrs_fashion.evaluation.checks.finding import MIN_CUSTOMERS, Finding
from tfrs_fashion.evaluation.metrics.hits import contains, pair_keys
from tfrs_fashion.schema import FIRST_INDEX

# A recommender that finds something for a tenth as many customers as the best of the run does, or for one in a hundred,
# finds nothing at all with less than this chance.
MAX_ZERO_CHANCE = 0.01
MIN_HIT_RATE = 0.01
# Random lists find k / (articles in store) of what is bought; a list that learned anything finds several times that.
MIN_TIMES_CHANCE = 1.5
# Artifacts fill their lists with popularity, so that a short one is rare whatever was bought.
MAX_SHORT_LISTS = 0.01
# Popularity, which fills lists, goes on with what was sold last, in store or not, after what sells.
MAX_OUT_OF_STORE = 0.05
# A customer with a history gets something of their own from most recommenders, though not from all that need, say, a
# purchase in the last week.
MAX_FALLBACK_LISTS = 0.5
# Above this, what is judged is the fallback.
MAX_FALLBACK_LISTS_BEFORE_ERROR = 0.95


def find_zero_metrics(hit_rates: Mapping[str, float], *, num_customers: int, k: int) -> list[Finding]:
    """Looks for recommenders that find nothing for anybody, among enough customers; see `MAX_ZERO_CHANCE`.

    Args:
        hit_rates: Share of customers who bought something of their list, by recommender.
        num_customers: Customers judged.
        k: Length of the lists.
    """
    likely = max(max(hit_rates.values(), default=0.0) / 10, MIN_HIT_RATE)
    if (1 - likely) ** num_customers >= MAX_ZERO_CHANCE:
        return []
    return [
        Finding(
            kind="mistake",
            severity="error",
            recommender=name,
            check="zero_metrics",
            seen=f"Not one of {num_customers:,} customers bought anything of their {k} articles: every figure is 0.",
            advice="Compare the ids of candidates and targets: strings or integers, leading zeros, indices off by some.",
        )
        for name, hit_rate in hit_rates.items()
        if hit_rate == 0
    ]


def find_chance_level(
    recall: Mapping[str, float], *, num_customers: int, k: int, num_rankable: int, recommender: str
) -> Finding | None:
    """Looks for a recommender that is no better than articles drawn by chance; see `MIN_TIMES_CHANCE`.

    Args:
        recall: `value` and `low`, the lower bound of its 95% interval, of recall@k.
        num_customers: Customers judged.
        k: Length of the lists.
        num_rankable: Articles that may be recommended.
        recommender: Its name.
    """
    if num_customers < MIN_CUSTOMERS or num_rankable < MIN_STORE_OF_LISTS * k or recall["value"] == 0:
        return None
    chance = k / num_rankable
    if recall["low"] > chance or recall["value"] > MIN_TIMES_CHANCE * chance:
        return None
    return Finding(
        kind="mistake",
        severity="warning",
        recommender=recommender,
        check="chance_level",
        seen=(
            f"recall@{k} is {recall['value']:.4f} (from {recall['low']:.4f}) over {num_customers:,} customers; {k} of "
            f"{num_rankable:,} articles drawn by chance find {chance:.4f}."
        ),
        advice="Look for indices off by some, or customers who get each other's lists; else it has learned nothing.",
    )


def find_short_lists(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, num_rankable: int, recommender: str
) -> Finding | None:
    """Looks for customers with fewer than k articles, where there are k; see `MAX_SHORT_LISTS`.

    Args:
        candidates: Rows of Candidates.
        customers: `[num_customers]` distinct customer_index, all who were to get a list.
        k: Length of the lists.
        num_rankable: Articles that may be recommended; with fewer than k, that many are expected.
        recommender: Its name.
    """
    shown = candidates.loc[candidates["rank"] <= k, "customer_index"].value_counts()
    expected = min(k, num_rankable)
    lengths = shown.reindex(customers, fill_value=0).to_numpy()
    num_short = int((lengths < expected).sum())
    if num_short <= MAX_SHORT_LISTS * len(customers):
        return None
    return Finding(
        kind="mistake",
        severity="error" if num_short > len(customers) / 2 else "warning",
        recommender=recommender,
        check="short_lists",
        seen=(
            f"{num_short:,} of {len(customers):,} customers get fewer than {expected} articles, "
            f"{int((lengths == 0).sum()):,} of them none."
        ),
        advice="Leave out what may not be shown before the top k are taken, and fill lists from a fallback.",
    )


def _samples(rows: pd.DataFrame) -> str:
    first = rows[["customer_index", "article_index"]].head(3).itertuples(index=False, name=None)
    return "(customer_index, article_index) e.g. " + ", ".join(f"({int(a)}, {int(b)})" for a, b in first)


def _rows_finding(
    candidates: pd.DataFrame, is_bad: np.ndarray, *, check: str, recommender: str, what: str, advice: str
) -> Finding | None:
    if not is_bad.any():
        return None
    return Finding(
        kind="mistake",
        severity="error",
        recommender=recommender,
        check=check,
        seen=f"{int(is_bad.sum()):,} of {len(candidates):,} candidates {what}; {_samples(candidates.loc[is_bad])}.",
        advice=advice,
    )


def find_repeated_articles(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Looks for lists that hold an article twice. There may be none.

    Args:
        candidates: Rows of Candidates.
        recommender: Its name.
    """
    return _rows_finding(
        candidates,
        candidates.duplicated(["customer_index", "article_index"]).to_numpy(),
        check="repeated_articles",
        recommender=recommender,
        what="repeat an article of the same list",
        advice="Drop duplicates before the top k are taken: an article may stand in the index, or in two sources, twice.",
    )


def find_unknown_indices(
    candidates: pd.DataFrame, *, num_customers: int, num_articles: int, recommender: str
) -> Finding | None:
    """Looks for lists of customers, or with articles, that are not in the tables. There may be none.

    Args:
        candidates: Rows of Candidates.
        num_customers: Customers in the tables, numbered from `FIRST_INDEX`.
        num_articles: Articles in the tables, likewise.
        recommender: Its name.
    """
    is_bad = np.zeros(len(candidates), dtype=bool)
    for column, number in (("customer_index", num_customers), ("article_index", num_articles)):
        index = candidates[column].to_numpy()
        is_bad |= (index < FIRST_INDEX) | (index >= FIRST_INDEX + number)
    return _rows_finding(
        candidates,
        is_bad,
        check="unknown_indices",
        recommender=recommender,
        what="name a customer or an article that is not in the tables",
        advice="Make candidates from the same tables as the targets; an artifact of other tables has other indices.",
    )


def find_bad_scores(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Looks for scores that are NaN or infinite. There may be none.

    Args:
        candidates: Rows of Candidates.
        recommender: Its name.
    """
    return _rows_finding(
        candidates,
        ~np.isfinite(candidates["score"].to_numpy(dtype=np.float64)),
        check="scores_not_finite",
        recommender=recommender,
        what="have a NaN or infinite score",
        advice="The model has diverged, or a feature is not finite: lower the learning rate, look at the features.",
    )


def find_disordered_scores(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Looks for scores that rise along a list. There may be none.

    Args:
        candidates: Rows of Candidates.
        recommender: Its name.
    """
    ordered = candidates.sort_values(["customer_index", "rank"], kind="stable")
    customer_index, score = ordered["customer_index"].to_numpy(), ordered["score"].to_numpy()
    rises = np.zeros(len(ordered), dtype=bool)
    rises[1:] = (customer_index[1:] == customer_index[:-1]) & (score[1:] > score[:-1])
    return _rows_finding(
        ordered,
        rises,
        check="scores_out_of_order",
        recommender=recommender,
        what="score higher than the one before them",
        advice="Rank by the score, best first: a distance, or an ascending sort, gives the worst articles.",
    )


def find_constant_scores(candidates: pd.DataFrame, *, recommender: str) -> Finding | None:
    """Looks for one score for everything. Equal scores within a list, such as one purchase of each, are no mistake.

    Args:
        candidates: Rows of Candidates; with a single list nothing is found.
        recommender: Its name.
    """
    score = candidates["score"].to_numpy()
    if candidates["customer_index"].nunique() < MIN_CUSTOMERS or not (score == score[0]).all():
        return None
    return Finding(
        kind="mistake",
        severity="error",
        recommender=recommender,
        check="constant_scores",
        seen=f"All {len(score):,} candidates have the score {score[0]:g}.",
        advice="The order means nothing: look for a dead layer, features that are all missing, or weights not loaded.",
    )


def find_out_of_store(
    candidates: pd.DataFrame, rankable: np.ndarray, bought: pd.DataFrame, *, k: int, recommender: str
) -> Finding | None:
    """Looks for articles in the first k places that are neither in store nor the customer's own; see `MAX_OUT_OF_STORE`.

    What is in store is often presumed from the sales of the last weeks. A customer who comes back for something that
    nobody else has bought lately knows better, so that what was bought before is let pass.

    Args:
        candidates: Rows of Candidates.
        rankable: Distinct article_index of what may be recommended; with fewer than k, lists have to go beyond them.
        bought: (`customer_index`, `article_index`) bought before.
        k: Length of the lists.
        recommender: Its name.
    """
    shown = candidates[candidates["rank"] <= k]
    is_out = ~shown["article_index"].isin(rankable).to_numpy()
    is_out &= ~contains(np.sort(pair_keys(bought)), pair_keys(shown))
    num_out = int(is_out.sum())
    if len(rankable) < k or num_out <= MAX_OUT_OF_STORE * len(shown):
        return None
    return Finding(
        kind="mistake",
        severity="error" if num_out > len(shown) / 2 else "warning",
        recommender=recommender,
        check="out_of_store",
        seen=(
            f"{num_out:,} of {len(shown):,} places ({num_out / len(shown):.1%}) show articles that are not in store and "
            f"that the customer had not bought; {_samples(shown[is_out])}."
        ),
        advice="Rank the articles in store alone; leave the others out before the top k are taken.",
    )


def find_fallback(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, fallback: str, recommender: str
) -> Finding | None:
    """Looks for a fallback that answers in the recommender's place.

    Customers without a history are left to it by design, and so are the last places of a short history's list. What
    counts is customers with a history in whose first k places the recommender has none. See `MAX_FALLBACK_LISTS`.

    Args:
        candidates: Rows of Candidates; `source` says who gave each.
        customers: `[any]` customer_index, those who have a history.
        k: Length of the lists.
        fallback: Its name, as sources give it.
        recommender: Its name.
    """
    shown = candidates[(candidates["rank"] <= k) & candidates["customer_index"].isin(customers)]
    is_filled = (shown["source"] == fallback).groupby(shown["customer_index"]).all()
    share = float(is_filled.mean()) if len(is_filled) else 0.0
    if len(is_filled) < MIN_CUSTOMERS or share <= MAX_FALLBACK_LISTS:
        return None
    return Finding(
        kind="mistake",
        severity="error" if share > MAX_FALLBACK_LISTS_BEFORE_ERROR else "warning",
        recommender=recommender,
        check="answered_by_fallback",
        seen=(
            f"{int(is_filled.sum()):,} of {len(is_filled):,} customers with a history get nothing but {fallback}: the "
            "figures are mostly its own."
        ),
        advice="See that histories reach the recommender, that their articles are known to it, and that it answers.",
    )
