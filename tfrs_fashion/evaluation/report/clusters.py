"""Clusters: articles or customers whose embeddings point the same way, and the values that set each cluster apart."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import pairwise_distances_argmin_min
from threadpoolctl import threadpool_limits

from tfrs_fashion.schema import InputError

# So many rows, chosen by chance, decide where the centres are; more would move them little and take long.
MAX_FITTED = 20_000
# On average; a cluster of fewer says nothing.
MIN_MEMBERS = 10
# k-means keeps the best of so many starts.
NUM_STARTS = 3
# A value sets a cluster apart that it holds so much more often than all do, so many times, and in such a share.
MIN_LIFT, MIN_COUNT, MIN_SHARE = 1.2, 2, 0.02


@dataclass(frozen=True)
class Clusters:
    """Rows in clusters, the largest first.

    Attributes:
        cluster: `[num_rows]` int32, from 1.
        distance: `[num_rows]` float32, between an embedding of length 1 and the centre of its cluster.
        place: `[num_rows, 2]` float32, in the two directions along which the embeddings differ most.
        place_share: Share of their variance along each of these.
        num_clusters: Clusters found.
        num_fitted: Rows that decided where the centres are.
    """

    cluster: np.ndarray
    distance: np.ndarray
    place: np.ndarray
    place_share: tuple[float, float]
    num_clusters: int
    num_fitted: int


def fit_clusters(embedding: np.ndarray, *, num_clusters: int, seed: int) -> Clusters:
    """Finds clusters by k-means over embeddings of length 1, so that direction alone counts.

    Args:
        embedding: `[num_rows, dim]`, at least one row and one column.
        num_clusters: Clusters to find; fewer where they would have fewer than `MIN_MEMBERS` rows on average, or where
            fewer embeddings differ.
        seed: Of the rows that are fitted and of the starts.

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
    wanted = min(num_clusters, max(1, len(unit) // MIN_MEMBERS), len(np.unique(fitted, axis=0)))
    # Threads add in whichever order they finish, and the last digits would differ from run to run.
    with threadpool_limits(1):
        centres = KMeans(wanted, n_init=NUM_STARTS, random_state=seed).fit(fitted).cluster_centers_
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
    """Projects `[num_rows, dim]` on the first two principal components of the fitted ones.

    Returns:
        `[num_rows, 2]` and the share of the fitted rows' variance along each direction; zeros where there is but one.
    """
    middle = fitted.mean(axis=0, dtype=np.float64)
    variance, directions = np.linalg.eigh(np.cov((fitted - middle).T, bias=True).reshape(2 * fitted.shape[1:]))
    whole = float(variance.sum())
    variance, directions = variance[::-1][:2], directions[:, ::-1][:, :2]
    # The sign of a direction is free: its largest part is positive, so that equal input gives an equal map.
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(directions.shape[1])])
    place, share = np.zeros((len(unit), 2), np.float32), np.zeros(2)
    place[:, : directions.shape[1]] = unit @ directions.astype(np.float32) - middle @ directions
    if whole > 1e-12:
        share[: len(variance)] = np.maximum(variance, 0.0) / whole
    return place, (float(share[0]), float(share[1]))


@dataclass(frozen=True)
class Trait:
    """A value that a cluster holds more often than all do.

    Attributes:
        role: The role of the column, e.g. `colour`.
        value: The value.
        count: How often the cluster holds it.
        share: Its share of what the cluster holds.
        lift: That share divided by its share of what all hold.
    """

    role: str
    value: str
    count: int
    share: float
    lift: float


def find_traits(counted: pd.DataFrame, role: str, *, limit: int = 3) -> dict[int, tuple[Trait, ...]]:
    """Finds which values of a column set each cluster apart.

    Values are ordered by count times the logarithm of lift, so that neither what is common everywhere nor what is rare
    comes first; what is hardly more common than elsewhere, or rare in the cluster, is left out.

    Args:
        counted: `cluster, value, count`, one row a pair; rows without a value are left out.
        role: The role of the column.
        limit: Values a cluster.
    """
    known = counted.dropna(subset="value")
    known = known[known["value"].astype(str).str.strip() != ""]
    of_cluster = known.groupby("cluster")["count"].transform("sum")
    of_value = known.groupby("value")["count"].transform("sum")
    share = known["count"] / of_cluster
    lift = share / (of_value / known["count"].sum())
    found = known.assign(share=share, lift=lift, weight=known["count"] * np.log(lift))
    is_told = (found["lift"] >= MIN_LIFT) & (found["count"] >= MIN_COUNT) & (found["share"] >= MIN_SHARE)
    found = found[is_told]
    found = found.sort_values(["cluster", "weight", "value"], ascending=[True, False, True])
    rows = found.groupby("cluster").head(limit)
    traits: dict[int, tuple[Trait, ...]] = {}
    for row in rows.to_dict("records"):
        trait = Trait(role, str(row["value"]), int(row["count"]), float(row["share"]), float(row["lift"]))
        traits[int(row["cluster"])] = (*traits.get(int(row["cluster"]), ()), trait)
    return traits
