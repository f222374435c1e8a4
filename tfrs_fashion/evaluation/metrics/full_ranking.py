"""Full rankings by embeddings: each target's rank among all candidates, and the best candidates of each query."""

from collections.abc import Sequence

import numpy as np

from tfrs_fashion.evaluation.metrics.hits import check_k
from tfrs_fashion.schema import InputError


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
    check_k(k)
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
