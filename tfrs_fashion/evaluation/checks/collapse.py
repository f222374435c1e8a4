"""Collapse: checks for recommenders that no longer distinguish customers, or articles.

Customers without a history may share a list, since nothing distinguishes them. The checks of lists therefore look only
at customers with a history.
"""

from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks.finding import MIN_CUSTOMERS, Finding, make_finding
from tfrs_fashion.evaluation.metrics.beyond_accuracy import measure_exposure

# In a catalogue larger than a list, most customers with a history share their list with nobody.
MAX_SAME_LISTS = 0.5
# A single list for all shows k articles. With a quarter more, only three places in twelve differ at all.
MIN_ARTICLES_PER_LIST = 1.25
# An embedding with few independent directions separates few tastes. Healthy towers fill most of their width.
MIN_EFFECTIVE_RANK = 4.0
MIN_EFFECTIVE_RANK_SHARE = 0.1
# Lists from a small store are alike for any recommender: they can be compared if the store has twice as many articles as a
# list, and their concentration is informative from four times on.
MIN_STORE_OF_LISTS = 2
MIN_STORE_OF_EXPOSURE = 4


def list_keys(candidates: pd.DataFrame, *, k: int) -> pd.Series:
    """Computes one number for each customer's first k articles, equal for equal sets in any order.

    Args:
        candidates: Rows of Candidates without repeated articles in a list.
        k: Length of the lists.

    Returns:
        uint64 by `customer_index`, ascending: the sum of a random number per article. Two different sets have the same
        key with a probability of 2⁻⁶⁴.
    """
    shown = candidates.loc[candidates["rank"] <= k, ["customer_index", "article_index"]]
    if not len(shown):
        return pd.Series([], index=pd.Index([], name="customer_index"), dtype=np.uint64)
    shown = shown.sort_values("customer_index", kind="stable")
    customers, starts = np.unique(shown["customer_index"].to_numpy(), return_index=True)
    article_index = shown["article_index"].to_numpy()
    number = np.random.default_rng(0).integers(2**64, size=int(article_index.max()) + 1, dtype=np.uint64)
    return pd.Series(np.add.reduceat(number[article_index], starts), index=pd.Index(customers, name="customer_index"))


def find_popularity_copy(
    candidates: pd.DataFrame,
    popular: pd.DataFrame,
    customers: np.ndarray,
    *,
    k: int,
    num_rankable: int,
    recommender: str,
    popularity: str,
) -> Finding | None:
    """Checks for a recommender that gives customers with a history popularity's lists; see `MAX_SAME_LISTS`.

    Args:
        candidates: Rows of Candidates.
        popular: Rows of Candidates of popularity.
        customers: `[any]` customer_index of customers with a history.
        k: Length of the lists.
        num_rankable: Number of articles that may be recommended.
        recommender: Name of the recommender.
        popularity: Name of the popularity recommender.
    """
    keys = list_keys(candidates[candidates["customer_index"].isin(customers)], k=k)
    if len(keys) < MIN_CUSTOMERS or num_rankable < MIN_STORE_OF_LISTS * k:
        return None
    same = int((keys == list_keys(popular, k=k).reindex(keys.index)).sum())
    if same <= MAX_SAME_LISTS * len(keys):
        return None
    return make_finding("equals_popularity", recommender, same=same, total=len(keys), k=k, popularity=popularity)


def find_same_list(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, num_rankable: int, recommender: str
) -> Finding | None:
    """Checks whether most customers with a history get the same articles, in any order; see `MAX_SAME_LISTS`.

    Args:
        candidates: Rows of Candidates.
        customers: `[any]` customer_index of customers with a history.
        k: Length of the lists.
        num_rankable: Number of articles that may be recommended.
        recommender: Name of the recommender.
    """
    keys = list_keys(candidates[candidates["customer_index"].isin(customers)], k=k)
    if len(keys) < MIN_CUSTOMERS or num_rankable < MIN_STORE_OF_LISTS * k:
        return None
    same = int(keys.value_counts().iloc[0])
    if same <= MAX_SAME_LISTS * len(keys):
        return None
    return make_finding("same_list_for_everyone", recommender, same=same, total=len(keys), k=k)


def find_concentrated_exposure(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, rankable: np.ndarray, recommender: str
) -> Finding | None:
    """Checks for lists that differ between customers in a few places only, by the Gini coefficient of exposure.

    The coefficient itself is not informative: the larger the catalogue, the nearer it is to 1 for any recommender. But
    m equally exposed articles of N have a coefficient of 1 - m / N. So (1 - Gini) · N is the effective number of
    articles shown: k if all lists are the same. See `MIN_ARTICLES_PER_LIST`.

    Args:
        candidates: Rows of Candidates.
        customers: `[any]` customer_index of customers with a history.
        k: Length of the lists.
        rankable: Distinct article_index of articles that may be recommended.
        recommender: Name of the recommender.
    """
    rows = candidates[candidates["customer_index"].isin(customers) & candidates["article_index"].isin(rankable)]
    num_customers = rows["customer_index"].nunique()
    if num_customers < MIN_CUSTOMERS or len(rankable) < MIN_STORE_OF_EXPOSURE * k:
        return None
    gini = measure_exposure(rows, k=k, in_store=rankable)["popularity_gini"]
    worth = (1 - gini) * len(rankable)
    if worth >= MIN_ARTICLES_PER_LIST * k:
        return None
    values: dict[str, Any] = {
        "customers": num_customers,
        "gini": gini,
        "worth": worth,
        "rankable": len(rankable),
        "k": k,
    }
    return make_finding("concentrated_exposure", recommender, **values)


def effective_rank(embedding: np.ndarray) -> float:
    """Computes how many dimensions an embedding uses: exp of the entropy of its normalised singular values.

    The embedding is not centred: nearly equal vectors have an effective rank of 1, wherever their small differences
    point.

    Args:
        embedding: `[num_rows, dim]`, finite.

    Returns:
        A number from 1 to min(num_rows, dim); 0 if everything is 0.

    Source:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007).
    """
    # The Gram matrix is small, however many rows there are.
    values = np.linalg.eigvalsh(embedding.astype(np.float64).T @ embedding.astype(np.float64))
    singular = np.sqrt(np.clip(values, 0, None))
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def find_low_rank(embedding: np.ndarray, *, recommender: str) -> Finding | None:
    """Checks for embeddings that are not finite, or that use few of their dimensions.

    The effective rank has to be at least 4 or a tenth of the width, whichever is more; half of a width below 8.

    Args:
        embedding: `[num_rows, dim]`; with fewer rows than `MIN_CUSTOMERS` or than dimensions only NaN is reported.
        recommender: Name of the recommender.
    """
    num_rows, width = embedding.shape
    if (num_bad := int((~np.isfinite(embedding)).any(axis=1).sum())) > 0:
        detail = f"{num_bad:,} of {num_rows:,} embeddings hold NaN or infinite numbers."
        return make_finding("embedding_rank", recommender, detail=detail)
    needed = max(MIN_EFFECTIVE_RANK_SHARE * width, min(MIN_EFFECTIVE_RANK, width / 2))
    if num_rows < max(MIN_CUSTOMERS, width) or (rank := effective_rank(embedding)) >= needed:
        return None
    detail = f"{num_rows:,} embeddings of width {width} have an effective rank of {rank:.1f}; expected at least {needed:.1f}."
    return make_finding("embedding_rank", recommender, detail=detail)
