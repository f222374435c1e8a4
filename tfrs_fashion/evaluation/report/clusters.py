"""Clusters of embeddings by direction (k-means), and the feature values that distinguish each cluster."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin_min
from threadpoolctl import threadpool_limits

from tfrs_fashion.schema import InputError

# Maximum number of randomly chosen rows on which the centres are fitted; more would hardly move them and take long.
MAX_FITTED = 20_000
# Minimum mean size of the clusters; smaller ones are not informative.
MIN_MEMBERS = 10
# Number of random starts of k-means, of which the best is kept.
NUM_STARTS = 3
# Minimum lift, count and share within the cluster of a value that distinguishes it.
MIN_LIFT, MIN_COUNT, MIN_SHARE = 1.2, 2, 0.02


@dataclass(frozen=True)
class Clusters:
    """Rows assigned to clusters, which are numbered by size from the largest.

    Attributes:
        cluster: `[num_rows]` int32, from 1.
        distance: `[num_rows]` float32, Euclidean distance of the normalised embedding from its centre.
        place: `[num_rows, 2]` float32, the first two principal components.
        place_share: Share of the variance along each of these.
        num_clusters: Number of clusters.
        num_fitted: Number of rows on which the centres were fitted.
    """

    cluster: np.ndarray
    distance: np.ndarray
    place: np.ndarray
    place_share: tuple[float, float]
    num_clusters: int
    num_fitted: int


def fit_clusters(embedding: np.ndarray, *, num_clusters: int, seed: int) -> Clusters:
    """Clusters embeddings by k-means after scaling them to length 1, so that only direction counts.

    Args:
        embedding: `[num_rows, dim]`, at least one row and one column.
        num_clusters: Number of clusters; fewer if they would have fewer than `MIN_MEMBERS` rows on average, or if there are
            fewer distinct embeddings.
        seed: Seed of the fitted rows and of the starts.

    Raises:
        InputError: There is no row, or an embedding is not finite.
    """
    if embedding.ndim != 2 or 0 in embedding.shape:
        raise InputError(f"clusters: embeddings of shape {embedding.shape}, expected at least one row and one column.")
    broken = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if len(broken):
        raise InputError(
            f"clusters: {len(broken):,} of {len(embedding):,} embeddings are not finite, e.g. those of rows "
            f"{', '.join(str(row) for row in broken[:5])}. Train again, with a smaller learning rate."
        )
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    unit = np.divide(embedding, length, out=np.zeros(embedding.shape, np.float32), where=length > 0)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(len(unit))[:MAX_FITTED])
    fitted = unit[chosen]
    num_centres = min(num_clusters, max(1, len(unit) // MIN_MEMBERS), len(np.unique(fitted, axis=0)))
    # Threads sum in the order in which they finish, so the last digits would differ between runs.
    with threadpool_limits(1):
        centres = KMeans(num_centres, n_init=NUM_STARTS, random_state=seed).fit(fitted).cluster_centers_
        nearest, distance = pairwise_distances_argmin_min(unit, centres)
        place, share = _project(unit, fitted)
    sizes = np.bincount(nearest, minlength=len(centres))
    order = np.argsort(-sizes, kind="stable")
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(1, len(order) + 1)
    return Clusters(
        cluster=number[nearest],
        distance=distance.astype(np.float32),
        place=place,
        place_share=share,
        num_clusters=int(np.count_nonzero(sizes)),
        num_fitted=len(fitted),
    )


def _project(unit: np.ndarray, fitted: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Projects `[num_rows, dim]` on the first two principal components of the fitted rows.

    Returns:
        `[num_rows, 2]`, and the share of the fitted rows' variance along each component; zeros if there is only one.
    """
    middle = fitted.mean(axis=0, dtype=np.float64)
    variance, directions = np.linalg.eigh(np.cov((fitted - middle).T, bias=True).reshape(2 * fitted.shape[1:]))
    whole = float(variance.sum())
    variance, directions = variance[::-1][:2], directions[:, ::-1][:, :2]
    # The sign of a component is arbitrary: making its largest entry positive gives equal maps for equal input.
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    place, share = np.zeros((len(unit), 2), np.float32), np.zeros(2)
    place[:, : directions.shape[1]] = unit @ directions.astype(np.float32) - middle @ directions
    if whole > 1e-12:
        share[: len(variance)] = np.maximum(variance, 0.0) / whole
    return place, (float(share[0]), float(share[1]))


@dataclass(frozen=True)
class Trait:
    """A value that is more frequent in a cluster than overall.

    Attributes:
        role: Role of the column, e.g. `colour`.
        value: Value of the column.
        count: Number of times the value occurs in the cluster.
        share: Share of the value in the cluster.
        lift: That share divided by the overall share of the value.
    """

    role: str
    value: str
    count: int
    share: float
    lift: float


def find_traits(counted: pd.DataFrame, role: str, *, limit: int = 3) -> dict[int, tuple[Trait, ...]]:
    """Finds the values of a column that distinguish each cluster.

    Values are ordered by count times the logarithm of lift, so that neither values that are common everywhere nor rare
    ones come first. Values below `MIN_LIFT`, `MIN_COUNT` or `MIN_SHARE` are left out.

    Args:
        counted: `cluster, value, count`, one row per pair; rows without a value are ignored.
        role: Role of the column.
        limit: Maximum number of values per cluster.
    """
    known = counted.dropna(subset="value")
    known = known[known["value"].astype(str).str.strip() != ""]
    of_cluster = known.groupby("cluster")["count"].transform("sum")
    of_value = known.groupby("value")["count"].transform("sum")
    share = known["count"] / of_cluster
    lift = share / (of_value / known["count"].sum())
    values = known.assign(share=share, lift=lift, weight=known["count"] * np.log(lift))
    values = values[(lift >= MIN_LIFT) & (values["count"] >= MIN_COUNT) & (share >= MIN_SHARE)]
    values = values.sort_values(["cluster", "weight", "value"], ascending=[True, False, True])
    rows = values.groupby("cluster").head(limit)
    traits: dict[int, tuple[Trait, ...]] = {}
    for row in rows.to_dict("records"):
        trait = Trait(role, str(row["value"]), int(row["count"]), float(row["share"]), float(row["lift"]))
        traits[int(row["cluster"])] = (*traits.get(int(row["cluster"]), ()), trait)
    return traits
