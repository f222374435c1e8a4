"""Beyond-accuracy metrics of lists: novelty, diversity, price, popularity, and how evenly they cover the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.accuracy import first_places
from tfrs_fashion.evaluation.metrics.pair_keys import count_runs
from tfrs_fashion.schema import InputError

_LISTS_PER_CHUNK = 1 << 12


@dataclass(frozen=True)
class ArticleStatistics:
    """The article statistics that the metrics of lists read, as arrays by article_index.

    Attributes:
        in_store: int `[num_in_store]`, the article_index of each article that may be recommended.
        num_buyers: `[num_articles + 2]`, number of distinct train customers who bought the article.
        num_train_customers: Number of customers with a purchase in train.
        price: `[num_articles + 2]`, in the source's currency; NaN where unknown.
        content_embedding: `[num_articles + 2, dim]`, one fixed embedding for all compared recommenders, with
            rows of length 1 (or 0: no content, similar to nothing).
        groups: Each article's group, by name of the grouping (`product`, `category`); see `near_misses`.
    """

    in_store: np.ndarray
    num_buyers: np.ndarray
    num_train_customers: int
    price: np.ndarray
    content_embedding: np.ndarray | None = None
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)


def gini(amounts: np.ndarray) -> float:
    """Computes the Gini coefficient of amounts.

    Args:
        amounts: `[num]`, each 0 or more.

    Returns:
        0 if all are equal (or all 0), (num - 1) / num if one of them holds everything.
    """
    ordered = np.sort(np.asarray(amounts, dtype=np.float64))
    num, total = len(ordered), ordered.sum()
    if num == 0 or total == 0:
        return 0.0
    return float(2 * (np.arange(1, num + 1) * ordered).sum() / (num * total) - (num + 1) / num)


def _list_diversity(article_index: np.ndarray, starts: np.ndarray, content_embedding: np.ndarray) -> np.ndarray:
    """Computes 1 - the mean pairwise cosine of each list, NaN for fewer than two articles: float64 `[num_lists]`."""
    embedding = np.asarray(content_embedding, dtype=np.float32)
    squares = np.square(embedding).sum(axis=1, dtype=np.float64)
    ends = np.append(starts[1:], len(article_index))
    diversity = np.full(len(starts), np.nan)
    for first in range(0, len(starts), _LISTS_PER_CHUNK):
        chunk = slice(first, first + _LISTS_PER_CHUNK)
        begin, lengths = starts[first], (ends - starts)[chunk]
        articles = article_index[begin : ends[chunk][-1]]
        rows = embedding[articles]
        # Σ_{i≠j} x_i·x_j = |Σ x_i|² - Σ |x_i|²: linear in the list's length, since no pair is formed.
        if (lengths == lengths[0]).all():
            sums = rows.reshape(len(lengths), lengths[0], -1).sum(axis=1)
        else:
            sums = np.add.reduceat(rows, starts[chunk] - begin, axis=0)
        squared_sum = np.square(sums.astype(np.float64)).sum(axis=1)
        sum_of_squares = np.add.reduceat(squares[articles], starts[chunk] - begin)
        num_pairs = np.where(lengths > 1, lengths * (lengths - 1.0), np.nan)
        diversity[chunk] = 1 - (squared_sum - sum_of_squares) / num_pairs
    return diversity


def measure_lists(candidates: pd.DataFrame, articles: ArticleStatistics, *, k: int) -> pd.DataFrame:
    """Computes novelty, popularity, price and diversity of each customer's list, independent of the targets.

    Args:
        candidates: Rows of Candidates in any order; `customer_index`, `article_index` and ranks up to `k` are read.
        articles: Statistics of the articles.
        k: Length of the list.

    Returns:
        One row per customer with a list, indexed by `customer_index`, with the float64 columns
        `novelty` (mean of -log2 of the share of train customers who bought the article; an article that nobody
        bought has the share 1 / (num_train_customers + 1)), `popularity_mean` (mean of that share, 0 for an article that
        nobody bought), `price_mean` (mean of the known prices, NaN if none is known) and, given a content embedding,
        `diversity` (1 - mean cosine of the list's pairs, NaN for lists of fewer than two).
    """
    shown = first_places(candidates, k=k)
    customer_index, article_index = (shown[name].to_numpy() for name in ("customer_index", "article_index"))
    if (customer_index[1:] < customer_index[:-1]).any():
        order = np.argsort(customer_index, kind="stable")
        customer_index, article_index = customer_index[order], article_index[order]
    customers, starts, lengths = count_runs(customer_index)
    rows = np.repeat(np.arange(len(customers)), lengths)

    buyers, num_train_customers = np.asarray(articles.num_buyers, dtype=np.float64), articles.num_train_customers
    popularity = buyers / max(num_train_customers, 1)
    surprise = -np.log2(np.where(buyers > 0, popularity, 1 / (num_train_customers + 1)))
    price = np.asarray(articles.price, dtype=np.float64)
    is_priced = ~np.isnan(price)

    def sum_by_list(values: np.ndarray) -> np.ndarray:
        return np.bincount(rows, weights=values[article_index], minlength=len(customers))

    num_priced = sum_by_list(is_priced.astype(np.float64))
    total = sum_by_list(np.where(is_priced, price, 0.0))
    columns = {
        "novelty": sum_by_list(surprise) / lengths,
        "popularity_mean": sum_by_list(popularity) / lengths,
        "price_mean": np.divide(total, num_priced, out=np.full(len(customers), np.nan), where=num_priced > 0),
    }
    if articles.content_embedding is not None:
        columns["diversity"] = _list_diversity(article_index, starts, articles.content_embedding)
    return pd.DataFrame(columns, index=pd.Index(customers, name="customer_index"))


def measure_exposure(candidates: pd.DataFrame, *, k: int, in_store: np.ndarray) -> dict[str, float]:
    """Computes how much of the catalogue all lists together show, and how evenly.

    Args:
        candidates: Rows of Candidates in any order; ranks up to `k` are read.
        k: Length of the list.
        in_store: article_index of every article that may be recommended; duplicates are dropped.

    Returns:
        `coverage`, the share of in-store articles shown to anyone, and `popularity_gini`, the Gini coefficient of
        how often each in-store article is shown, counting articles that are never shown.

    Raises:
        InputError: `in_store` is empty.
    """
    in_store = np.unique(np.asarray(in_store, dtype=np.int64))
    if len(in_store) == 0:
        raise InputError("`in_store` is empty, so coverage has no denominator. Widen the rule for what is in store.")
    article_index = first_places(candidates, k=k)["article_index"].to_numpy()
    exposures = np.bincount(article_index, minlength=int(in_store.max()) + 1)[in_store]
    return {"coverage": float((exposures > 0).mean()), "popularity_gini": gini(exposures)}
