"""Ranking every target among a whole catalogue: one sort per query against TensorFlow Recommenders' `FactorizedTopK`.

Both compute top-k accuracy for the same targets over the same candidates, in the same process and run.
`FactorizedTopK` takes a query row for each target, so a customer's query is repeated for each of the customer's
targets; its best time over index, batch size and way of matching is the one that is compared. The accuracies must
equal those of its matching by id to 1e-6.

    python benchmarks/evaluate_catalogue.py --candidates 24000 67000
    python benchmarks/evaluate_catalogue.py --embeddings trained.npz
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import tfrs_fashion  # noqa: F401  (chooses the Keras 2 API before TensorFlow loads)

KS = (1, 5, 10, 12, 50, 100)
TOLERANCE = 1e-6
OURS = "target_ranks"
# Index, rows in a batch, and whether targets are matched by id; by score, rounding costs exactness.
CONFIGURATIONS = (
    ("brute_force", 512, True),
    ("brute_force", 2048, True),
    ("brute_force", 512, False),
    ("brute_force", 2048, False),
    ("streaming", 512, True),
    ("streaming", 2048, True),
)


@dataclass(frozen=True)
class Problem:
    """Embeddings `[num, dim]` and, for each target, its query's row and its candidate's row."""

    query_embeddings: np.ndarray
    candidate_embeddings: np.ndarray
    target_queries: np.ndarray
    target_positions: np.ndarray


def make_problem(*, num_queries: int, num_targets: int, num_candidates: int, dim: int, seed: int) -> Problem:
    """Draws queries and candidates around shared cluster centres; targets lie mostly in the query's cluster."""
    generator = np.random.default_rng(seed)
    num_clusters = 50
    centres = generator.normal(size=(num_clusters, dim))
    candidate_clusters = generator.integers(0, num_clusters, num_candidates)
    query_clusters = generator.integers(0, num_clusters, num_queries)
    candidates = centres[candidate_clusters] + 0.8 * generator.normal(size=(num_candidates, dim))
    queries = centres[query_clusters] + 0.8 * generator.normal(size=(num_queries, dim))
    owners = generator.integers(0, num_queries, num_targets)
    # The best of a handful of random candidates: some targets rank near the top, as after training.
    drawn = generator.integers(0, num_candidates, (num_targets, 200))
    scores = np.stack([(candidates[drawn[:, i]] * queries[owners]).sum(axis=1) for i in range(drawn.shape[1])], axis=1)
    noise = generator.normal(size=scores.shape) * scores.std() * 0.3
    positions = drawn[np.arange(num_targets), (scores + noise).argmax(axis=1)]
    return Problem(queries.astype(np.float32), candidates.astype(np.float32), owners, positions)


def load_problem(path: str) -> Problem:
    """Reads the four arrays of a `Problem` from a .npz file."""
    with np.load(path) as arrays:
        return Problem(
            arrays["query_embeddings"].astype(np.float32),
            arrays["candidate_embeddings"].astype(np.float32),
            arrays["target_queries"],
            arrays["target_positions"],
        )


def target_ranks(problem: Problem, *, batch_size: int = 128) -> np.ndarray:
    """Ranks each target among all candidates by dot product.

    One matrix product serves all targets of a query. Each row of scores is sorted once, and each target's score is
    looked up in it by binary search. Ties do not push a target down.

    Returns:
        int32 `[num_targets]`: 1 + the number of candidates that score strictly above the target.
    """
    queries, embeddings = problem.query_embeddings, problem.candidate_embeddings
    order = np.argsort(problem.target_queries, kind="stable")
    asked, num_targets = np.unique(problem.target_queries, return_counts=True)
    bounds = np.concatenate([[0], np.cumsum(num_targets)])
    num_candidates = len(embeddings)
    ranks = np.empty(len(order), dtype=np.int32)
    buffer = np.empty((min(batch_size, len(asked)), num_candidates), dtype=np.float32)
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        targets = order[bounds[start] : bounds[start + len(batch)]]
        rows = np.repeat(np.arange(len(batch)), num_targets[start : start + len(batch)])
        scores = np.matmul(queries[batch], embeddings.T, out=buffer[: len(batch)])
        target_scores = scores[rows, problem.target_positions[targets]]
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


def measure(
    runs: dict[str, Callable[[], dict[int, float]]], *, repeats: int
) -> tuple[dict[str, float], dict[str, dict[int, float]]]:
    """Median seconds and accuracies of each run, after one that warms up; runs take turns, so load hits all alike."""
    accuracies = {name: run() for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _repeat in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            accuracies[name] = run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, accuracies


def make_factorized_top_k(
    problem: Problem, *, index: str, batch_size: int, by_id: bool
) -> Callable[[], dict[int, float]]:
    """Builds one configuration of `FactorizedTopK`; indexing and tracing are left out of its time."""
    import tensorflow as tf
    import tensorflow_recommenders as tfrs

    identifiers = np.arange(len(problem.candidate_embeddings), dtype=np.int32)
    candidates: Any
    if index == "brute_force":
        candidates = tfrs.layers.factorized_top_k.BruteForce(k=max(KS))
        candidates.index(tf.constant(problem.candidate_embeddings), tf.constant(identifiers))
    else:
        rows = tf.data.Dataset.from_tensor_slices((identifiers, problem.candidate_embeddings))
        candidates = tfrs.layers.factorized_top_k.Streaming(k=max(KS)).index_from_dataset(rows.batch(4096).cache())
    metric = tfrs.metrics.FactorizedTopK(candidates, ks=KS)
    queries = tf.constant(problem.query_embeddings[problem.target_queries])
    trues = tf.constant(problem.candidate_embeddings[problem.target_positions])
    true_ids = tf.constant(problem.target_positions.astype(np.int32))
    num_targets = len(problem.target_queries)

    @tf.function(reduce_retracing=True, autograph=False)
    def update(start: tf.Tensor, end: tf.Tensor) -> None:
        metric.update_state(queries[start:end], trues[start:end], true_ids[start:end] if by_id else None)

    def run() -> dict[int, float]:
        metric.reset_states()
        for start in range(0, num_targets, batch_size):
            update(tf.constant(start), tf.constant(min(start + batch_size, num_targets)))
        return {k: float(value) for k, value in zip(KS, metric.result(), strict=True)}

    return run


def largest_difference(ours: dict[int, float], theirs: dict[int, float]) -> float:
    """Largest absolute difference of accuracy over `KS`."""
    return max(abs(ours[k] - theirs[k]) for k in KS)


def compare(problem: Problem, *, repeats: int) -> bool:
    """Prints both times and the difference; returns whether the accuracies are equal."""
    num_queries, num_candidates = len(np.unique(problem.target_queries)), len(problem.candidate_embeddings)
    print(
        f"{num_queries:,} queries, {len(problem.target_queries):,} targets, {num_candidates:,} candidates, "
        f"{problem.candidate_embeddings.shape[1]} dimensions; median of {repeats}"
    )

    def run_target_ranks() -> dict[int, float]:
        ranks = target_ranks(problem)
        return {k: float((ranks <= k).mean()) for k in KS}

    runs: dict[str, Callable[[], dict[int, float]]] = {OURS: run_target_ranks}
    for index, batch_size, by_id in CONFIGURATIONS:
        name = f"FactorizedTopK {index} {batch_size} {'by id' if by_id else 'by score'}"
        runs[name] = make_factorized_top_k(problem, index=index, batch_size=batch_size, by_id=by_id)
    seconds, accuracies = measure(runs, repeats=repeats)
    differences = {name: largest_difference(accuracies[OURS], found) for name, found in accuracies.items()}
    for name, taken in seconds.items():
        print(f"  {name:<40} {taken:8.2f} s   max difference {differences[name]:.1e}")
    best = min((name for name in seconds if name != OURS), key=lambda name: seconds[name])
    difference = max(found for name, found in differences.items() if name.endswith("by id"))
    print("  accuracies " + ", ".join(f"@{k} {accuracies[OURS][k]:.4f}" for k in KS))
    print(
        f"  ratio {seconds[best] / seconds[OURS]:.1f} ({best} {seconds[best]:.2f} s / {seconds[OURS]:.2f} s), "
        f"max difference by id {difference:.1e}"
    )
    return difference <= TOLERANCE


def main() -> int:
    """Runs the benchmark; exit code 1 if any accuracy differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embeddings", help="a .npz file with the four arrays of a problem")
    parser.add_argument("--queries", type=int, default=1220)
    parser.add_argument("--targets", type=int, default=24_400)
    parser.add_argument("--candidates", type=int, nargs="+", default=[24_000, 67_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.embeddings:
        return 0 if compare(load_problem(arguments.embeddings), repeats=arguments.repeats) else 1
    is_equal = [
        compare(
            make_problem(
                num_queries=arguments.queries,
                num_targets=arguments.targets,
                num_candidates=num_candidates,
                dim=arguments.dim,
                seed=arguments.seed,
            ),
            repeats=arguments.repeats,
        )
        for num_candidates in arguments.candidates
    ]
    return 0 if all(is_equal) else 1


if __name__ == "__main__":
    sys.exit(main())
