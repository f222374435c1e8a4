"""Collapse: a recommender that has stopped telling customers, or articles, apart.

Customers without a history may share a list, since nothing tells them apart. So the checks of lists are handed the
customers who have one.
"""

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks.finding import MIN_CUSTOMERS, Finding
from tfrs_fashion.evaluation.metrics.list_metrics import exposure_metrics

# Most customers with a history of their own have nobody else's list, in any shop whose range is larger than a list.
MAX_SAME_LISTS = 0.5
# One list for all shows k articles. A quarter more leaves three places in twelve that differ at all.
MIN_ARTICLES_OF_A_LIST = 1.25
# Fewer independent directions than these cannot hold more tastes than these. Healthy towers fill most of their width.
MIN_EFFECTIVE_RANK = 4.0
MIN_EFFECTIVE_RANK_SHARE = 0.1
# Lists from a store of few articles are alike, whoever makes them: from twice their length on they can be told apart, from
# four times on their unevenness says something.
MIN_STORE_OF_LISTS = 2
MIN_STORE_OF_EXPOSURE = 4


def list_keys(candidates: pd.DataFrame, *, k: int) -> pd.Series:
    """Gives each customer's first k articles one number, equal for equal sets, whatever their order.

    Args:
        candidates: Rows of Candidates, each article once in a list.
        k: Length of the list.

    Returns:
        uint64 by `customer_index`, ascending: the sum of random numbers that stand for the articles. Two different sets
        share one with a chance of 2⁻⁶⁴.
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
    """Looks for a recommender that gives customers with a history popularity's lists; see `MAX_SAME_LISTS`.

    Args:
        candidates: Rows of Candidates.
        popular: Those of popularity.
        customers: `[any]` customer_index, those who have a history.
        k: Length of the lists.
        num_rankable: Articles that may be recommended.
        recommender: Its name.
        popularity: The name of popularity.
    """
    own = list_keys(candidates[candidates["customer_index"].isin(customers)], k=k)
    if len(own) < MIN_CUSTOMERS or num_rankable < MIN_STORE_OF_LISTS * k:
        return None
    num_same = int((own == list_keys(popular, k=k).reindex(own.index)).sum())
    if num_same <= MAX_SAME_LISTS * len(own):
        return None
    return Finding(
        kind="collapse",
        severity="error",
        recommender=recommender,
        check="equals_popularity",
        seen=f"{num_same:,} of {len(own):,} customers with a history get the {k} articles of {popularity}.",
        advice=(
            "See whether it answers at all, or its fallback does. A model that has learned popularity alone needs a logQ "
            "correction, or features that tell customers apart."
        ),
    )


def find_same_list(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, num_rankable: int, recommender: str
) -> Finding | None:
    """Looks for one list, in whatever order, that most customers with a history get; see `MAX_SAME_LISTS`.

    Args:
        candidates: Rows of Candidates.
        customers: `[any]` customer_index, those who have a history.
        k: Length of the lists.
        num_rankable: Articles that may be recommended.
        recommender: Its name.
    """
    keys = list_keys(candidates[candidates["customer_index"].isin(customers)], k=k)
    if len(keys) < MIN_CUSTOMERS or num_rankable < MIN_STORE_OF_LISTS * k:
        return None
    num_same = int(keys.value_counts().iloc[0])
    if num_same <= MAX_SAME_LISTS * len(keys):
        return None
    return Finding(
        kind="collapse",
        severity="error",
        recommender=recommender,
        check="same_list_for_everyone",
        seen=f"{num_same:,} of {len(keys):,} customers with a history get the same {k} articles.",
        advice=(
            "See that the query differs between customers. Normalise the embeddings, lower the temperature, correct for "
            "sampling by logQ."
        ),
    )


def find_concentrated_exposure(
    candidates: pd.DataFrame, customers: np.ndarray, *, k: int, rankable: np.ndarray, recommender: str
) -> Finding | None:
    """Looks for lists that differ between customers in a few places only, by the Gini coefficient of exposure.

    The coefficient alone says little: the larger the catalogue, the nearer it is to 1 for anyone. But m articles shown
    equally often, of N, have a coefficient of 1 - m / N. So (1 - Gini) · N is the number of articles that the lists are
    worth: k where all lists are one. See `MIN_ARTICLES_OF_A_LIST`.

    Args:
        candidates: Rows of Candidates.
        customers: `[any]` customer_index, those who have a history.
        k: Length of the lists.
        rankable: Distinct article_index that may be recommended.
        recommender: Its name.
    """
    own = candidates[candidates["customer_index"].isin(customers) & candidates["article_index"].isin(rankable)]
    num_customers = own["customer_index"].nunique()
    if num_customers < MIN_CUSTOMERS or len(rankable) < MIN_STORE_OF_EXPOSURE * k:
        return None
    gini = exposure_metrics(own, k=k, in_store=rankable)["popularity_gini"]
    worth = (1 - gini) * len(rankable)
    if worth >= MIN_ARTICLES_OF_A_LIST * k:
        return None
    return Finding(
        kind="collapse",
        severity="warning",
        recommender=recommender,
        check="concentrated_exposure",
        seen=(
            f"The lists of {num_customers:,} customers with a history are as uneven (Gini {gini:.4f}) as if "
            f"{worth:.0f} of {len(rankable):,} articles were shown to everyone; one list for all would show {k}."
        ),
        advice="Correct for sampling by logQ, lower the temperature, and compare its recall with popularity's.",
    )


def effective_rank(embedding: np.ndarray) -> float:
    """Computes how many directions an embedding uses: exp of the entropy of its singular values' shares.

    It is not centred: vectors that are all alike have an effective rank of 1, though what little differs between them
    may point anywhere.

    Args:
        embedding: `[num_rows, dim]`, finite.

    Returns:
        From 1 to min(num_rows, dim); 0 where all is 0.

    Source:
        Roy and Vetterli, "The effective rank: a measure of effective dimensionality" (2007).
    """
    # From the Gram matrix, which is small however many rows there are.
    values = np.linalg.eigvalsh(embedding.astype(np.float64).T @ embedding.astype(np.float64))
    singular = np.sqrt(np.clip(values, 0, None))
    if singular.sum() == 0:
        return 0.0
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def find_low_rank(embedding: np.ndarray, *, recommender: str) -> Finding | None:
    """Looks for embeddings that are not finite, or use few of their directions.

    They need 4 directions or a tenth of their width, whichever is more; of a width below 8, half.

    Args:
        embedding: `[num_rows, dim]`; with fewer rows than `MIN_CUSTOMERS` or than dimensions nothing is found.
        recommender: Whose it is.
    """
    num_rows, width = embedding.shape
    advice = "Lower the learning rate, normalise, use more negatives; see that the features differ between articles."
    if (num_bad := int((~np.isfinite(embedding)).any(axis=1).sum())) > 0:
        seen = f"{num_bad:,} of {num_rows:,} embeddings hold NaN or infinite numbers."
    elif num_rows < max(MIN_CUSTOMERS, width):
        return None
    else:
        needed = max(MIN_EFFECTIVE_RANK_SHARE * width, min(MIN_EFFECTIVE_RANK, width / 2))
        rank = effective_rank(embedding)
        if rank >= needed:
            return None
        seen = (
            f"{num_rows:,} embeddings of width {width} use {rank:.1f} directions; {needed:.1f} are expected at least."
        )
    return Finding("collapse", "error", recommender, "embedding_rank", seen, advice)
