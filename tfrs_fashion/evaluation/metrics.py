"""Metrics of recommendations: of each customer's list, of all lists together, and of a full ranking.

Every function takes tables or arrays, so that the same figures come out of evaluation, batch and early stopping.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfrs_fashion.schema import FIRST_INDEX, InputError

CUSTOMER_METRICS = ("map", "recall", "precision", "ndcg", "hit_rate", "mrr")
_LISTS_A_CHUNK = 1 << 12


@dataclass(frozen=True)
class ArticleStatistics:
    """What list metrics need to know about articles, as arrays by article_index.

    Attributes:
        in_store: int `[num_in_store]`, the article_index of each article that could be shown.
        num_buyers: `[num_articles + 2]`, distinct train customers who bought the article.
        num_train_customers: Customers with a purchase in train.
        price: `[num_articles + 2]`, in the source's currency; NaN where unknown.
        content_embedding: `[num_articles + 2, dim]`, one fixed embedding for all recommenders that are compared,
            with rows of length 1 (or 0: no content, unlike everything).
    """

    in_store: np.ndarray
    num_buyers: np.ndarray
    num_train_customers: int
    price: np.ndarray
    content_embedding: np.ndarray | None = None


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"`k` is {k}; expected 1 or more.")


def pair_keys(frame: pd.DataFrame, *, key: str = "article_index") -> np.ndarray:
    """Packs (customer, article) pairs into one sortable integer each.

    Args:
        frame: Columns `customer_index` and `key`, both from 0 to 2³¹ - 1.
        key: The second column of the pair.

    Returns:
        int64 `[num_rows]`: the customer in the high half, the key in the low half.
    """
    customers = frame["customer_index"].to_numpy().astype(np.int64)
    return (customers << 32) | frame[key].to_numpy().astype(np.int64)


def contains(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Tells which values occur in a sorted array: bool `[num_values]`, without the copies that `np.isin` makes."""
    if len(sorted_values) == 0:
        return np.zeros(len(values), dtype=bool)
    positions = np.searchsorted(sorted_values, values)
    positions[positions == len(sorted_values)] = 0
    return sorted_values[positions] == values


def customer_metrics(
    candidates: pd.DataFrame, targets: pd.DataFrame, *, k: int, key: str = "article_index"
) -> pd.DataFrame:
    """Measures each customer's list against what the customer bought.

    With `n` targets, and hits at ranks `r_1 < r_2 < …` of the first `k`:
    `map` = Σ_i (i / r_i) / min(k, n); `recall` = hits / n; `precision` = hits / k; `hit_rate` = 1 if there is a
    hit; `mrr` = 1 / r_1; `ndcg` = Σ_i 1 / log2(r_i + 1) over the same sum for ranks 1 … min(k, n).

    Args:
        candidates: Rows of Candidates in any order; `customer_index`, `key` and `rank` (from 1) are read. A key
            that is given to a customer twice hits once, at its lower rank.
        targets: (`customer_index`, `key`) pairs; duplicates are dropped. A key below `FIRST_INDEX` (out of
            vocabulary) counts among the targets and is never hit. Several articles out of vocabulary that share
            an index are one target; give them indices above the vocabulary to count each.
        k: Length of the list that is measured.
        key: What has to match: `article_index`, or an integer column of both tables made from it, such as the
            product code's index.

    Returns:
        One row for each customer of `targets`, indexed by `customer_index` in ascending order, with the float64
        columns `CUSTOMER_METRICS`. A customer without candidates has zeros.

    Raises:
        InputError: `k` is below 1, or a table lacks a column.

    Source:
        Average precision as in Kaggle's "H&M Personalized Fashion Recommendations"; NDCG with binary gains from
        Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (2002).
    """
    _check_k(k)
    for name, frame, needed in (
        ("candidates", candidates, ("customer_index", key, "rank")),
        ("targets", targets, ("customer_index", key)),
    ):
        missing = [column for column in needed if column not in frame.columns]
        if missing:
            raise InputError(f"{name}: missing column(s) {', '.join(missing)}; found {list(frame.columns)}.")

    target_keys = np.unique(pair_keys(targets, key=key))
    customers, num_targets = np.unique(target_keys >> 32, return_counts=True)
    num_relevant = np.minimum(num_targets, k)

    ranks = candidates["rank"].to_numpy()
    shown = candidates.loc[(ranks >= 1) & (ranks <= k) & (candidates[key].to_numpy() >= FIRST_INDEX)]
    shown_keys, shown_ranks = pair_keys(shown, key=key), shown["rank"].to_numpy().astype(np.int64)
    is_hit = contains(target_keys, shown_keys)
    hit_keys, hit_ranks = shown_keys[is_hit], shown_ranks[is_hit]
    order = np.lexsort((hit_ranks, hit_keys))
    hit_keys, first = np.unique(hit_keys[order], return_index=True)
    hit_ranks = hit_ranks[order][first]

    rows = np.searchsorted(customers, hit_keys >> 32)
    order = np.lexsort((hit_ranks, rows))
    rows, hit_ranks = rows[order], hit_ranks[order]
    num_hits = np.bincount(rows, minlength=len(customers))
    first_hit = np.cumsum(num_hits) - num_hits
    hit_number = np.arange(len(rows)) - first_hit[rows] + 1

    def sum_by_customer(values: np.ndarray) -> np.ndarray:
        return np.bincount(rows, weights=values, minlength=len(customers))

    ideal_gain = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(1, k + 1) + 1))])
    return pd.DataFrame(
        {
            "map": sum_by_customer(hit_number / hit_ranks) / num_relevant,
            "recall": num_hits / num_targets,
            "precision": num_hits / k,
            "ndcg": sum_by_customer(1 / np.log2(hit_ranks + 1)) / ideal_gain[num_relevant],
            "hit_rate": (num_hits > 0).astype(np.float64),
            "mrr": sum_by_customer(np.where(hit_number == 1, 1 / hit_ranks, 0.0)),
        },
        index=pd.Index(customers, name="customer_index"),
    )


def gini(amounts: np.ndarray) -> float:
    """Measures how unevenly amounts are spread.

    Args:
        amounts: `[num]`, each 0 or more.

    Returns:
        0 if all are equal (or all 0), (num - 1) / num if one holds everything.
    """
    ordered = np.sort(np.asarray(amounts, dtype=np.float64))
    num, total = len(ordered), ordered.sum()
    if num == 0 or total == 0:
        return 0.0
    return float(2 * (np.arange(1, num + 1) * ordered).sum() / (num * total) - (num + 1) / num)


def _list_diversity(article_index: np.ndarray, starts: np.ndarray, content_embedding: np.ndarray) -> np.ndarray:
    """1 - mean pairwise cosine of each list, NaN where it holds fewer than two articles: float64 `[num_lists]`."""
    ends = np.append(starts[1:], len(article_index))
    diversity = np.full(len(starts), np.nan)
    for first in range(0, len(starts), _LISTS_A_CHUNK):
        chunk = slice(first, first + _LISTS_A_CHUNK)
        begin, lengths = starts[first], (ends - starts)[chunk]
        rows = content_embedding[article_index[begin : ends[chunk][-1]]].astype(np.float64)
        # Σ_{i≠j} x_i·x_j = |Σ x_i|² - Σ |x_i|²: no pair is ever formed.
        squared_sum = np.square(np.add.reduceat(rows, starts[chunk] - begin, axis=0)).sum(axis=1)
        sum_of_squares = np.add.reduceat(np.square(rows).sum(axis=1), starts[chunk] - begin)
        num_pairs = np.where(lengths > 1, lengths * (lengths - 1.0), np.nan)
        diversity[chunk] = 1 - (squared_sum - sum_of_squares) / num_pairs
    return diversity


def customer_list_metrics(candidates: pd.DataFrame, articles: ArticleStatistics, *, k: int) -> pd.DataFrame:
    """Describes each customer's list, whatever the customer bought afterwards.

    Args:
        candidates: Rows of Candidates in any order; ranks up to `k` are read.
        articles: What is known about the articles.
        k: Length of the list.

    Returns:
        One row for each customer with a list, indexed by `customer_index`, with the float64 columns
        `novelty` (mean of -log2 of the share of train customers who bought the article; an article that nobody
        bought has the share 1 / (num_train_customers + 1)),
        `price_mean` (mean of the known prices, NaN if none is known) and, given a content embedding,
        `diversity` (1 - mean cosine of the list's pairs, NaN for lists of fewer than two).
    """
    _check_k(k)
    ranks = candidates["rank"].to_numpy()
    shown = candidates.loc[(ranks >= 1) & (ranks <= k), ["customer_index", "article_index"]]
    customer_index = shown["customer_index"].to_numpy()
    order = np.argsort(customer_index, kind="stable")
    article_index = shown["article_index"].to_numpy()[order]
    customers, starts, lengths = np.unique(customer_index[order], return_index=True, return_counts=True)
    rows = np.repeat(np.arange(len(customers)), lengths)

    buyers, num_train_customers = np.asarray(articles.num_buyers, dtype=np.float64), articles.num_train_customers
    share = np.where(buyers > 0, buyers / max(num_train_customers, 1), 1 / (num_train_customers + 1))
    surprise = -np.log2(share)[article_index]
    paid = np.asarray(articles.price, dtype=np.float64)[article_index]
    is_known = ~np.isnan(paid)
    num_known = np.bincount(rows[is_known], minlength=len(customers)).astype(np.float64)
    total = np.bincount(rows[is_known], weights=paid[is_known], minlength=len(customers))
    columns = {
        "novelty": np.bincount(rows, weights=surprise, minlength=len(customers)) / lengths,
        "price_mean": np.divide(total, num_known, out=np.full(len(customers), np.nan), where=num_known > 0),
    }
    if articles.content_embedding is not None:
        columns["diversity"] = _list_diversity(article_index, starts, articles.content_embedding)
    return pd.DataFrame(columns, index=pd.Index(customers, name="customer_index"))


def exposure_metrics(candidates: pd.DataFrame, *, k: int, in_store: np.ndarray) -> dict[str, float]:
    """Describes how the lists together use the store.

    Args:
        candidates: Rows of Candidates in any order; ranks up to `k` are read.
        k: Length of the list.
        in_store: article_index of every article that could be shown; duplicates are dropped.

    Returns:
        `coverage`, the share of in-store articles shown to anyone, and `popularity_gini`, the Gini coefficient of
        how often each in-store article is shown, articles that are never shown included.

    Raises:
        InputError: `in_store` is empty.
    """
    _check_k(k)
    in_store = np.unique(np.asarray(in_store, dtype=np.int64))
    if len(in_store) == 0:
        raise InputError("`in_store` is empty, so coverage has no denominator. Widen the rule of what is in store.")
    ranks = candidates["rank"].to_numpy()
    article_index = candidates["article_index"].to_numpy()[(ranks >= 1) & (ranks <= k)]
    exposures = np.bincount(article_index, minlength=int(in_store.max()) + 1)[in_store]
    return {"coverage": float((exposures > 0).mean()), "popularity_gini": gini(exposures)}


def list_metrics(candidates: pd.DataFrame, articles: ArticleStatistics, *, k: int) -> dict[str, float]:
    """Describes the lists of all customers: `exposure_metrics`, and the means of `customer_list_metrics`.

    Args:
        candidates: Rows of Candidates in any order; ranks up to `k` are read.
        articles: What is known about the articles.
        k: Length of the list.

    Returns:
        `coverage`, `popularity_gini`, `novelty`, `price_mean` and, given a content embedding, `diversity`; the last
        three are means over the customers for whom they are defined, NaN if there are none.
    """
    by_customer = customer_list_metrics(candidates, articles, k=k)
    means = {str(name): float(values.mean()) for name, values in by_customer.items()}
    return {**exposure_metrics(candidates, k=k, in_store=articles.in_store), **means}


def _check_embeddings(query_embeddings: np.ndarray, candidate_embeddings: np.ndarray) -> None:
    if query_embeddings.ndim != 2 or candidate_embeddings.ndim != 2:
        raise InputError(
            f"embeddings have shapes {query_embeddings.shape}, {candidate_embeddings.shape}; expected 2-D."
        )
    if query_embeddings.shape[1] != candidate_embeddings.shape[1]:
        raise InputError(
            f"queries have {query_embeddings.shape[1]} dimensions and candidates {candidate_embeddings.shape[1]}; "
            "expected the same embedding space."
        )
    for name, rows in (("query_embeddings", query_embeddings), ("candidate_embeddings", candidate_embeddings)):
        # NaN is greater than nothing, so a collapsed model would rank every target first.
        if not np.isfinite(rows).all():
            raise InputError(f"`{name}` holds NaN or infinite values: the model has diverged.")


def target_ranks(
    query_embeddings: np.ndarray,
    candidate_embeddings: np.ndarray,
    target_positions: np.ndarray,
    target_queries: np.ndarray,
    *,
    batch_size: int = 128,
) -> np.ndarray:
    """Ranks each target among all candidates by dot product.

    One matrix product serves all targets of a query. Each row of scores is sorted once, and each target's score is
    looked up in it by binary search, so that no ranking is kept.

    Ties go to the target: candidates with exactly the target's score do not push it down. Scores come from one
    product, so a target always ties with itself. `FactorizedTopK` with candidate ids gives the same accuracies
    unless two scores are equal (it puts the earlier candidate first) or differ by less than float32 resolves.
    Without ids, it compares a score computed in another order with its own copy in the index, and rounding may put
    that copy above the target.

    Args:
        query_embeddings: float32 `[num_queries, dim]`.
        candidate_embeddings: float32 `[num_candidates, dim]`.
        target_positions: int `[num_targets]`, the row of each target in `candidate_embeddings`.
        target_queries: int `[num_targets]`, the row of `query_embeddings` that each target belongs to, any order.
        batch_size: Queries scored at once; memory is about `batch_size * num_candidates * 4` bytes.

    Returns:
        int32 `[num_targets]`: 1 + the number of candidates that score strictly above the target.

    Raises:
        InputError: Shapes do not match, a position is out of range, or an embedding is not finite.
    """
    queries = np.asarray(query_embeddings, dtype=np.float32)
    embeddings = np.asarray(candidate_embeddings, dtype=np.float32)
    _check_embeddings(queries, embeddings)
    positions, owners = np.asarray(target_positions, dtype=np.int64), np.asarray(target_queries, dtype=np.int64)
    if positions.shape != owners.shape or positions.ndim != 1:
        raise InputError(
            f"`target_positions` {positions.shape} and `target_queries` {owners.shape}: expected one query a target."
        )
    for name, values, limit in (
        ("target_positions", positions, len(embeddings)),
        ("target_queries", owners, len(queries)),
    ):
        if len(values) and (values.min() < 0 or values.max() >= limit):
            raise InputError(f"`{name}` runs from {values.min()} to {values.max()}; expected 0 to {limit - 1}.")

    order = np.argsort(owners, kind="stable")
    asked, num_targets = np.unique(owners, return_counts=True)
    bounds = np.concatenate([[0], np.cumsum(num_targets)])
    num_candidates = len(embeddings)
    ranks = np.empty(len(owners), dtype=np.int32)
    buffer = np.empty((min(batch_size, len(asked)), num_candidates), dtype=np.float32)
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        targets = order[bounds[start] : bounds[start + len(batch)]]
        rows = np.repeat(np.arange(len(batch)), num_targets[start : start + len(batch)])
        scores = np.matmul(queries[batch], embeddings.T, out=buffer[: len(batch)])
        target_scores = scores[rows, positions[targets]]
        scores.sort(axis=1)
        # Binary search in all rows at once for the first score above the target's.
        low, high = np.zeros(len(rows), dtype=np.int64), np.full(len(rows), num_candidates, dtype=np.int64)
        for _step in range(num_candidates.bit_length()):
            middle = (low + high) // 2
            is_open = low < high
            is_above = scores[rows, np.minimum(middle, num_candidates - 1)] > target_scores
            high = np.where(is_open & is_above, middle, high)
            low = np.where(is_open & ~is_above, middle + 1, low)
        ranks[targets] = num_candidates - low + 1
    return ranks


def top_k_accuracy(ranks: np.ndarray, ks: Sequence[int]) -> dict[int, float]:
    """Computes the share of targets that rank within the first k, for each k.

    Args:
        ranks: int `[num_targets]`, from `target_ranks`.
        ks: Lengths, each 1 or more.

    Returns:
        For each k, the mean over targets (not over customers), as `FactorizedTopK` reports it.

    Raises:
        InputError: There are no targets.
    """
    if len(ranks) == 0:
        raise InputError("`ranks` is empty: there is no target to measure. Widen the window of targets.")
    return {k: float((np.asarray(ranks) <= k).mean()) for k in ks}


def top_k(
    query_embeddings: np.ndarray, candidate_embeddings: np.ndarray, k: int, batch_size: int = 128
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the k candidates with the highest dot product for each query; equal scores go to the lower position.

    Args:
        query_embeddings: float32 `[num_queries, dim]`.
        candidate_embeddings: float32 `[num_candidates, dim]`.
        k: Candidates for each query; fewer are returned if there are fewer.
        batch_size: Queries scored at once; memory is a few times `batch_size * num_candidates * 4` bytes.

    Returns:
        Positions, int32, and scores, float32, both `[num_queries, min(k, num_candidates)]`, best first.

    Raises:
        InputError: `k` is below 1, shapes do not match, or an embedding is not finite.
    """
    _check_k(k)
    queries = np.asarray(query_embeddings, dtype=np.float32)
    embeddings = np.asarray(candidate_embeddings, dtype=np.float32)
    _check_embeddings(queries, embeddings)
    k = min(k, len(embeddings))
    positions = np.empty((len(queries), k), dtype=np.int32)
    best = np.empty((len(queries), k), dtype=np.float32)
    if k == 0:
        return positions, best
    for start in range(0, len(queries), batch_size):
        losses = -(queries[start : start + batch_size] @ embeddings.T)
        found = np.argpartition(losses, k - 1, axis=1)[:, :k]
        found_losses = np.take_along_axis(losses, found, axis=1)
        # argpartition picks any of the candidates that tie for the last place: choose again by position.
        is_tied = (losses <= found_losses.max(axis=1, keepdims=True)).sum(axis=1) > k
        if is_tied.any():
            found[is_tied] = np.argsort(losses[is_tied], axis=1, kind="stable")[:, :k]
            found_losses = np.take_along_axis(losses, found, axis=1)
        order = np.lexsort((found, found_losses), axis=1)
        positions[start : start + batch_size] = np.take_along_axis(found, order, axis=1)
        best[start : start + batch_size] = -np.take_along_axis(found_losses, order, axis=1)
    return positions, best
