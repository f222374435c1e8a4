"""Metrics of full rankings: AUC, ROC and rank quantiles from each target's rank among all articles in store (TargetRanks)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.bootstrap import Interval, bootstrap_interval
from tfrs_fashion.evaluation.metrics.pair_keys import count_runs
from tfrs_fashion.schema import TARGET_RANK_COLUMNS, InputError

QUANTILES = (0.1, 0.5, 0.9)


def find_rankable(targets: pd.DataFrame, in_store: np.ndarray) -> pd.DataFrame:
    """Selects the targets that a ranking of the articles in store can be evaluated on.

    Args:
        targets: `customer_index, article_index` bought in the window; duplicates are dropped.
        in_store: `[num_in_store]` article indices in store at the cutoff.

    Returns:
        Ordered targets in store, without customers who bought everything in store: no other article could rank above.
    """
    pair = ["customer_index", "article_index"]
    rankable = targets.loc[targets["article_index"].isin(in_store), pair].drop_duplicates().sort_values(pair)
    num_targets = rankable.groupby("customer_index")["article_index"].transform("size")
    return rankable[num_targets < len(in_store)].reset_index(drop=True)


def draw_rankable(targets: pd.DataFrame, in_store: np.ndarray, *, num_customers: int, seed: int) -> pd.DataFrame:
    """Returns the rankable targets of at most `num_customers` randomly drawn customers; see `find_rankable`."""
    rankable = find_rankable(targets, in_store)
    drawn = np.random.default_rng(seed).permutation(rankable["customer_index"].unique())[:num_customers]
    return rankable[rankable["customer_index"].isin(drawn)]


def spread_evenly(num_customers: int, *, seed: int) -> np.ndarray:
    """Returns evenly spaced offsets within (0, 1) in random order: float64 `[num_customers]`; see `place_targets`."""
    return (np.random.default_rng(seed).permutation(num_customers) + 0.5) / num_customers


def place_targets(
    lists: np.ndarray,
    customers: np.ndarray,
    targets: pd.DataFrame,
    in_store: np.ndarray,
    *,
    offset: np.ndarray,
    name: str,
) -> pd.DataFrame:
    """Ranks each customer's targets among all articles in store, given a recommender's list.

    Listed articles keep their order, without those not in store. The other articles follow in no particular order, so
    the targets among them are spaced evenly over the remaining ranks, where chance would put them on average: of t
    targets over n ranks the i-th gets rank 1 + floor((i - 1 + offset) n / t) among these. No two share a rank. Over many
    customers with different offsets all ranks are equally frequent: unlisted targets add a straight segment to the ROC,
    and a recommender with empty lists has an AUC of 1/2 and the rank quantiles of chance. If all unlisted targets got
    their mean rank instead, the AUC would be the same, but the 90% quantile would be the middle rank.

    Args:
        lists: `[num_customers, width]` int32 article indices, best first, padded with 0.
        customers: `[num_customers]` customer_index of each list, ascending.
        targets: Targets of these customers only; see `find_rankable`.
        in_store: `[num_in_store]` article indices.
        offset: `[num_customers]` float64 within (0, 1), the same for all compared recommenders; see `spread_evenly`.
        name: Name of the recommender.

    Returns:
        TargetRanks, one row per target, ordered; `source` is the recommender, or empty if it did not list the target.

    Raises:
        InputError: An article in store occurs twice in a list.
    """
    num_indices = 1 + max(int(lists.max(initial=0)), int(in_store.max(initial=0)))
    is_in_store = np.zeros(num_indices, dtype=bool)
    is_in_store[in_store] = True
    counts = is_in_store[lists]
    place = np.cumsum(counts, axis=1, dtype=np.int32)
    num_named = np.count_nonzero(counts, axis=1)
    rank_of = np.zeros((len(lists), num_indices), dtype=np.int32)
    np.put_along_axis(rank_of, lists, np.where(counts, place, 0), axis=1)
    if num_repeated := int((np.count_nonzero(rank_of, axis=1) != num_named).sum()):
        raise InputError(
            f"{name}: {num_repeated:,} of {len(lists):,} lists contain an article twice, so the articles after it would rank too low. "
            "A recommender must list each article once."
        )
    ordered = targets.sort_values(["customer_index", "article_index"])
    row = np.searchsorted(customers, ordered["customer_index"].to_numpy())
    rank = rank_of[row, ordered["article_index"].to_numpy()].astype(np.int64)
    is_named = rank > 0
    _rows, starts, lengths = count_runs(row[~is_named])
    before = num_named[row[~is_named]]
    number = np.arange(len(before)) - np.repeat(starts, lengths)
    place_left = (number + offset[row[~is_named]]) * (len(in_store) - before) / np.repeat(lengths, lengths)
    rank[~is_named] = before + np.floor(place_left).astype(np.int64) + 1
    ranks = {"rank": rank, "num_ranked": len(in_store), "source": np.where(is_named, name, "")}
    return ordered.assign(**ranks)[list(TARGET_RANK_COLUMNS)].astype(TARGET_RANK_COLUMNS)


def _order(ranks: pd.DataFrame) -> pd.DataFrame:
    if ranks.empty:
        raise InputError("target ranks: there is no row, so nothing to measure. Widen the window of targets.")
    return ranks.sort_values(["customer_index", "rank"], kind="stable")


def share_above(ranks: pd.DataFrame) -> pd.Series:
    """Computes for each target the share of the articles not bought by the customer that rank above it.

    Args:
        ranks: TargetRanks of one recommender that `table_checks.check_target_ranks` accepts.

    Returns:
        float64 by `customer_index`, ordered by customer and rank; 0 is best, 1 is worst.

    Raises:
        InputError: There is no row.
    """
    ordered = _order(ranks)
    customers, starts, lengths = count_runs(ordered["customer_index"].to_numpy())
    # Above the customer's i-th target, i - 1 of the articles are targets too.
    above = ordered["rank"].to_numpy() - 1 - (np.arange(len(ordered)) - np.repeat(starts, lengths))
    others = ordered["num_ranked"].to_numpy() - np.repeat(lengths, lengths)
    return pd.Series(above / others, index=pd.Index(np.repeat(customers, lengths), name="customer_index"))


def customer_auc(ranks: pd.DataFrame) -> pd.Series:
    """Computes each customer's AUC: how often a target ranks above an article that the customer did not buy.

    Args:
        ranks: TargetRanks; see `share_above`.

    Returns:
        float64 by `customer_index`, ascending; 1/2 is chance. Its mean is `auc`.

    Raises:
        InputError: There is no row.
    """
    return 1 - share_above(ranks).groupby(level=0).mean()


def pooled_auc(ranks: pd.DataFrame) -> float:
    """Computes the AUC over all targets, which weights customers by their purchases: the area under `roc_curve`.

    Raises:
        InputError: There is no row.
    """
    return float(1 - share_above(ranks).mean())


def roc_curve(ranks: pd.DataFrame, shares: np.ndarray) -> np.ndarray:
    """Computes the ROC of ranks: the share of targets reached once a given share of all other articles has been shown.

    Args:
        ranks: TargetRanks; see `share_above`.
        shares: `[num_points]` float64, shares of the articles not bought at which the curve is evaluated.

    Returns:
        `[num_points]` float64, shares of the targets that rank at least that high.

    Raises:
        InputError: There is no row.

    Source:
        The ROC of ranks in Heinz, Bracher and Vollgraf, "An LSTM-based dynamic customer model for fashion
        recommendation" (2017).
    """
    places = np.sort(share_above(ranks).to_numpy())
    # The tolerance counts shares that differ only by rounding as reached.
    return np.searchsorted(places, shares + 1e-9, side="right") / len(places)


def rank_quantile(ranks: pd.DataFrame, share: float) -> int:
    """Computes how many recommendations are needed to reach a share of the targets: the smallest such rank.

    Raises:
        InputError: There is no row, or `share` does not lie in (0, 1].
    """
    if not 0 < share <= 1:
        raise InputError(f"`share` is {share}; expected above 0, at most 1.")
    ordered = np.sort(_order(ranks)["rank"].to_numpy())
    # The tolerance keeps rounding from requiring one more target: 0.1 * 30 is above 3.
    return int(ordered[int(np.ceil(share * len(ordered) - 1e-9)) - 1])


def _quantile_interval(ranks: pd.DataFrame, share: float, **options: Any) -> Interval:
    """Computes a rank quantile whose interval is that of the reached share, converted to ranks (Woodruff)."""
    value = rank_quantile(ranks, share)
    reached = (ranks["rank"] <= value).groupby(ranks["customer_index"]).agg(["sum", "count"])
    # Linearisation of a ratio of two sums over customers: each customer's reached targets above expectation.
    surplus = (reached["sum"] - share * reached["count"]) / reached["count"].mean()
    interval = bootstrap_interval(surplus, **options)
    width = (interval.value - interval.low, interval.high - interval.value)
    low, high = (min(max(share + step, 1 / len(ranks)), 1.0) for step in (-width[1], width[0]))
    return Interval(value, min(rank_quantile(ranks, low), value), max(rank_quantile(ranks, high), value))


def measure_target_ranks(
    ranks: pd.DataFrame, *, quantiles: Sequence[float] = QUANTILES, num_samples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """Computes the metrics of a full ranking with their 95% intervals.

    Args:
        ranks: TargetRanks; see `share_above`.
        quantiles: Shares of the targets.
        num_samples: Number of bootstrap samples of customers.
        seed: Seed of the samples.

    Returns:
        `auc` (mean over customers), `auc_pooled` (mean over targets), and `rank_q10`, `rank_q50`, … for each quantile,
        each with its interval.

    Raises:
        InputError: There is no row, or a quantile does not lie in (0, 1].

    Source:
        Intervals of quantiles as in Woodruff, "Confidence intervals for medians and other position measures" (1952).
    """
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    by_customer = customer_auc(ranks)
    num_targets = ranks.groupby("customer_index").size()
    pooled = pooled_auc(ranks)
    centred = bootstrap_interval((by_customer - pooled) * num_targets / num_targets.mean(), **options)
    metrics = {
        "auc": bootstrap_interval(by_customer, **options),
        "auc_pooled": Interval(pooled, pooled + centred.low, pooled + centred.high),
    }
    for share in quantiles:
        metrics[f"rank_q{100 * share:g}"] = _quantile_interval(ranks, share, **options)
    return metrics
