"""Leakage: checks for purchases of the evaluation window in fitted models, features and histories.

The first checks look at rows and timestamps. The last two look for metrics that are too good to be true, however the
leak came about.
"""

import datetime
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks.finding import MIN_CUSTOMERS, Finding, make_finding
from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.evaluation.metrics.pair_keys import contains, pair_keys

# A till that restarts its receipt numbers gives some purchases of the window an old number: a few are no leak.
MAX_SHARED_BASKETS = 0.01
# A random split puts half of the targets before a visible row even for customers with two rows. A smaller share means
# single rows kept by mistake, which `future_rows` reports.
MAX_EARLIER_TARGETS = 0.1
# No published ranker reaches this with all its features; a single feature that does was made from the labels.
MAX_FEATURE_AUC = 0.99
MIN_LABELS = 100
# Share of the oracle's map: lists that know only the past stay far below the best order of earlier purchases.
MAX_SHARE_OF_REPEAT_ORACLE = 0.9
# The best published sequence models (leave-one-out, all articles ranked) reach about 11 times the odds of the most
# popular articles, at a tenth of the targets. Nobody has reported half of the targets, or 30 times the odds.
MAX_NEW_SHARE = 0.5
MAX_NEW_ODDS = 10.0
MAX_NEW_ODDS_ANYWHERE = 30.0
MIN_NEW_TARGETS = 50


def find_future_rows(
    customer_index: np.ndarray, time: np.ndarray, cutoff: np.ndarray, *, where: str = "transactions"
) -> Finding | None:
    """Checks for visible rows at or after their customer's cutoff. None is allowed.

    Args:
        customer_index: `[num_rows]` customer of each row; the latest row per customer is enough.
        time: `[num_rows]` timestamps, datetime64 or seconds.
        cutoff: `[num_rows]` first instant that is not visible for this customer, in the same unit.
        where: Name of the source of the rows, for the message.
    """
    late = time >= cutoff
    if not late.any():
        return None
    customers = np.unique(customer_index[late])
    samples = ", ".join(map(str, customers[:5]))
    total = len(np.unique(customer_index))
    return make_finding("future_rows", late=len(customers), total=total, where=where, samples=samples)


def _share_in(targets: pd.DataFrame, visible: pd.DataFrame, column: str) -> tuple[int, int]:
    """Counts the targets that are also visible rows, by customer, article and one more column; and all targets."""
    keys = ["customer_index", "article_index", column]
    distinct = targets[keys].drop_duplicates()
    return len(distinct.merge(visible[keys].drop_duplicates(), on=keys)), len(distinct)


def find_test_purchases(visible: pd.DataFrame, targets: pd.DataFrame) -> Finding | None:
    """Checks for targets among the visible rows.

    The same customer and article on both sides is a repeat purchase, and no leak. The same instant is a leak, and so is
    the same basket, even with a changed timestamp; see `MAX_SHARED_BASKETS`.

    Args:
        visible: Rows before the cutoffs: `customer_index, article_index, time, basket`.
        targets: Rows of the target purchases, with the same columns.
    """
    same_time, num_rows = _share_in(targets, visible, "time")
    same_basket, num_lines = _share_in(targets, visible, "basket")
    if not same_time and same_basket <= MAX_SHARED_BASKETS * num_lines:
        return None
    by, count, total = ("instant", same_time, num_rows) if same_time else ("basket", same_basket, num_lines)
    return make_finding("test_purchases_in_train", by=by, count=count, total=total)


def find_random_split(visible: pd.DataFrame, targets: pd.DataFrame) -> Finding | None:
    """Checks for targets that precede visible rows of the same customer.

    A split by time has none, whether by one date or by a date per customer. The check needs no cutoff, so it also
    detects splits without one. See `MAX_EARLIER_TARGETS`.

    Args:
        visible: Visible rows: `customer_index, time`.
        targets: Rows of the target purchases, with the same columns.
    """
    latest = visible.groupby("customer_index")["time"].max()
    known = targets[targets["customer_index"].isin(latest.index)]
    num_earlier = int((known["time"].to_numpy() < latest.loc[known["customer_index"]].to_numpy()).sum())
    if not len(targets) or num_earlier <= MAX_EARLIER_TARGETS * len(targets):
        return None
    total = len(targets)
    return make_finding("random_split", earlier=num_earlier, total=total, share=num_earlier / total)


def find_late_generators(
    fitted_as_of: Mapping[str, datetime.datetime], *, first_week: datetime.datetime, ranker: str
) -> list[Finding]:
    """Checks for candidate generators that were fitted on the weeks whose purchases train the ranker.

    Args:
        fitted_as_of: First instant that the fit has not seen, by generator.
        first_week: Start of the first week whose purchases are the ranker's labels.
        ranker: Name of the ranker.
    """
    return [
        make_finding("generators_saw_ranker_weeks", ranker, generator=name, as_of=as_of, first_week=first_week)
        for name, as_of in fitted_as_of.items()
        if as_of > first_week
    ]


def find_labels_in_features(
    seen_until: datetime.datetime, labels_from: datetime.datetime, *, recommender: str
) -> Finding | None:
    """Checks for features that count the same purchases as the labels.

    Args:
        seen_until: Latest purchase counted in the features.
        labels_from: First purchase counted in the labels.
        recommender: Name of the model trained or evaluated on them.
    """
    if seen_until < labels_from:
        return None
    return make_finding("labels_in_features", recommender, seen_until=seen_until, labels_from=labels_from)


def feature_auc(values: np.ndarray, labels: np.ndarray) -> float:
    """Computes how well a single feature separates the labels, in the better direction.

    Args:
        values: `[num_rows]` numbers; NaN ranks below or above everything, whichever separates better.
        labels: `[num_rows]`, true for a purchase; both must occur.

    Returns:
        The area under the ROC curve, or 1 minus it if that is more: 0.5 is no separation, 1 is perfect.

    Source:
        Mann and Whitney's U over the number of pairs, with ties counted as one half.
    """
    positive = labels.astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    is_missing, areas = np.isnan(values), []
    for end in (-np.inf, np.inf) if is_missing.any() else (0.0,):
        ranks = pd.Series(np.where(is_missing, end, values.astype(np.float64))).rank().to_numpy()
        above = ranks[positive].sum() - num_positive * (num_positive + 1) / 2
        area = float(above / (num_positive * num_negative))
        areas += [area, 1 - area]
    return max(areas)


def find_telling_features(features: pd.DataFrame, labels: np.ndarray, *, recommender: str) -> list[Finding]:
    """Checks for single features that nearly determine the labels; see `MAX_FEATURE_AUC`.

    Args:
        features: One row per example; numeric and boolean columns are read.
        labels: `[num_rows]` bool, true for a purchase. Fewer than `MIN_LABELS` of either value give no finding.
        recommender: Name of the model trained on them.
    """
    positive = np.asarray(labels).astype(bool)
    if min(positive.sum(), (~positive).sum()) < MIN_LABELS:
        return []
    numbers = features.select_dtypes(include=["number", "bool"])
    areas = {str(name): feature_auc(numbers[name].to_numpy(dtype=np.float64), positive) for name in numbers}
    others = {name: max((area for other, area in areas.items() if other != name), default=0.5) for name in areas}
    return [
        make_finding("telling_feature", recommender, feature=name, area=area, total=len(positive), other=others[name])
        for name, area in areas.items()
        if area > MAX_FEATURE_AUC
    ]


def repeat_oracle(targets: pd.DataFrame, bought: pd.DataFrame, *, k: int) -> pd.Series:
    """Computes the AP@k of an oracle that ranks exactly the targets that the customer had bought before first.

    With `n` targets of which `r` are repeats, the first min(r, k) places are hits, each with a precision of 1:
    min(r, k) / min(k, n).

    Args:
        targets: Distinct (`customer_index`, `article_index`) pairs of the targets.
        bought: Distinct (`customer_index`, `article_index`) pairs bought before.
        k: Length of the lists.

    Returns:
        float64 by `customer_index` of the targets, ascending.
    """
    is_repeat = contains(np.sort(pair_keys(bought)), pair_keys(targets))
    counts = pd.Series(is_repeat).groupby(targets["customer_index"].to_numpy()).agg(["sum", "count"])
    return counts["sum"].clip(upper=k) / counts["count"].clip(upper=k)


def find_beaten_repeat_oracle(
    candidates: pd.DataFrame, targets: pd.DataFrame, bought: pd.DataFrame, *, k: int, recommender: str
) -> Finding | None:
    """Checks for lists that are as good as the oracle of repeat purchases.

    Only customers count who bought something again and had bought more than `k` articles before, so that a list has to
    choose among these. An honest list is wrong about many of them and reaches a fraction of the oracle; a list that
    comes close knows the window; see `MAX_SHARE_OF_REPEAT_ORACLE`.

    Args:
        candidates: Rows of Candidates.
        targets: Distinct (`customer_index`, `article_index`) pairs of the targets.
        bought: Distinct (`customer_index`, `article_index`) pairs bought before.
        k: Length of the lists.
        recommender: Name of the recommender.
    """
    oracle = repeat_oracle(targets, bought, k=k)
    num_bought = bought["customer_index"].value_counts().reindex(oracle.index, fill_value=0)
    oracle = oracle[(oracle > 0) & (num_bought > k)]
    if len(oracle) < MIN_CUSTOMERS:
        return None
    value = float(measure_accuracy(candidates, targets, k=k).loc[oracle.index, "map"].mean())
    best = float(oracle.mean())
    if value < MAX_SHARE_OF_REPEAT_ORACLE * best:
        return None
    values: dict[str, Any] = {"customers": len(oracle), "k": k, "value": value, "oracle": best}
    return make_finding("beats_repeat_oracle", recommender, **values)


def find_foreseen_purchases(
    candidates: pd.DataFrame, targets: pd.DataFrame, bought: pd.DataFrame, *, k: int, recommender: str
) -> Finding | None:
    """Checks for lists that contain too many purchases of articles new to the customer.

    What is too many depends on the shop. The yardstick is the best list in hindsight that is the same for everyone: the k
    articles that most customers bought for the first time, which no popularity model can beat. Odds, share / (1 - share),
    are compared, since they stay meaningful if that list already contains many; see `MAX_NEW_ODDS`.

    Args:
        candidates: Rows of Candidates, preferably those that exclude earlier purchases.
        targets: Distinct (`customer_index`, `article_index`) pairs of the targets.
        bought: Distinct (`customer_index`, `article_index`) pairs bought before.
        k: Length of the lists.
        recommender: Name of the recommender.
    """
    keys = np.unique(pair_keys(targets))
    keys = keys[~contains(np.sort(pair_keys(bought)), keys)]
    num_new = len(keys)
    if num_new < MIN_NEW_TARGETS or len(np.unique(keys >> 32)) < MIN_CUSTOMERS:
        return None
    shown = np.unique(pair_keys(candidates.loc[candidates["rank"] <= k]))
    _articles, num_customers = np.unique(keys & 0xFFFFFFFF, return_counts=True)
    counts = int(contains(shown, keys).sum()), int(np.sort(num_customers)[-k:].sum())
    # Half a purchase is added on either side, so that the odds of none and of all are defined too.
    found_odds, hindsight_odds = ((count + 0.5) / (num_new - count + 0.5) for count in counts)
    odds, share = found_odds / hindsight_odds, counts[0] / num_new
    if odds < MAX_NEW_ODDS_ANYWHERE and not (odds >= MAX_NEW_ODDS and share >= MAX_NEW_SHARE):
        return None
    values: dict[str, Any] = {"k": k, "share": share, "total": num_new, "hindsight": counts[1] / num_new, "odds": odds}
    return make_finding("foresees_new_purchases", recommender, **values)
