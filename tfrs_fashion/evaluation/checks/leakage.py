"""Leakage: what was fitted or looked up has seen what it is judged on.

The first checks look at rows and instants, and allow nothing. The last two look at figures that are too good to be
true, whatever the way in which they came about.
"""

import datetime
from collections.abc import Mapping

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.checks.finding import MIN_CUSTOMERS, Finding
from tfrs_fashion.evaluation.metrics.customer_metrics import customer_metrics
from tfrs_fashion.evaluation.metrics.hits import contains, pair_keys

# A till that counts its receipts anew gives an old receipt's number to a purchase of the window: a few such are no leak.
MAX_SHARED_BASKETS = 0.01
# A random split puts half of the targets before some visible row even of a customer with two rows. Fewer are single rows
# kept by mistake, which `future_rows` names.
MAX_EARLIER_TARGETS = 0.1
# No public ranker tells purchases apart so well from all that it knows; a single number that does was made from them.
MAX_FEATURE_AUC = 0.99
MIN_LABELS = 100
# The best order possible of what was bought before; a list that knows the past alone stays far below it.
MAX_OF_REPEAT_ORACLE = 0.9
# The best published sequence models (leave-one-out, all articles ranked) have some 11 times the odds of the most popular
# articles, at a tenth of the targets. Half of them, or 30 times the odds, has been reported by nobody.
MAX_NEW_SHARE = 0.5
MAX_NEW_ODDS = 10.0
MAX_NEW_ODDS_ANYWHERE = 30.0
MIN_NEW_TARGETS = 50


def find_future_rows(
    customer_index: np.ndarray, time: np.ndarray, cutoff: np.ndarray, *, where: str = "transactions"
) -> Finding | None:
    """Looks for visible rows at or after their customer's cutoff. There may be none.

    Args:
        customer_index: `[num_rows]`, whose rows; one row a customer, the latest, is enough.
        time: `[num_rows]` instants, datetime64 or seconds.
        cutoff: `[num_rows]`, the first instant that is not visible for this customer, in the same unit.
        where: What holds the rows.
    """
    late = time >= cutoff
    if not late.any():
        return None
    customers = np.unique(customer_index[late])
    return Finding(
        kind="leakage",
        severity="error",
        recommender=None,
        check="future_rows",
        seen=(
            f"{len(customers):,} of {len(np.unique(customer_index)):,} customers have visible {where} at or after their "
            f"cutoff, e.g. customer_index {', '.join(map(str, customers[:5]))}."
        ),
        advice="Cut the rows at the cutoff before anything is fitted, counted or looked up.",
    )


def _share_in(targets: pd.DataFrame, visible: pd.DataFrame, column: str) -> tuple[int, int]:
    """Counts the targets that are visible rows too, by customer, article and one more column, and all targets."""
    keys = ["customer_index", "article_index", column]
    wanted = targets[keys].drop_duplicates()
    return len(wanted.merge(visible[keys].drop_duplicates(), on=keys)), len(wanted)


def find_test_purchases(visible: pd.DataFrame, targets: pd.DataFrame) -> Finding | None:
    """Looks for targets among the visible rows.

    That a pair of customer and article is on both sides is a repeat purchase, and no leak. The same instant is one, and
    so is the same basket, whatever instant the copy was given; see `MAX_SHARED_BASKETS`.

    Args:
        visible: Rows before the cutoffs: `customer_index, article_index, time, basket`.
        targets: Rows to be found, likewise.
    """
    same_time, num_rows = _share_in(targets, visible, "time")
    same_basket, num_lines = _share_in(targets, visible, "basket")
    if not same_time and same_basket <= MAX_SHARED_BASKETS * num_lines:
        return None
    by, count, of = ("instant", same_time, num_rows) if same_time else ("basket", same_basket, num_lines)
    return Finding(
        kind="leakage",
        severity="error",
        recommender=None,
        check="test_purchases_in_train",
        seen=f"{count:,} of {of:,} purchases to be found are among the visible rows, by customer, article and {by}.",
        advice="Take the window's rows out of what is fitted; look for a file that was read or appended twice.",
    )


def find_random_split(visible: pd.DataFrame, targets: pd.DataFrame) -> Finding | None:
    """Looks for targets that lie before visible rows of the same customer.

    A split by time, be it by one date or by each customer's own, has none. It needs no cutoff, so that it finds a split
    that has none. See `MAX_EARLIER_TARGETS`.

    Args:
        visible: Visible rows: `customer_index, time`.
        targets: Rows to be found, likewise.
    """
    latest = visible.groupby("customer_index")["time"].max()
    known = targets[targets["customer_index"].isin(latest.index)]
    num_earlier = int((known["time"].to_numpy() < latest.loc[known["customer_index"]].to_numpy()).sum())
    if not len(targets) or num_earlier <= MAX_EARLIER_TARGETS * len(targets):
        return None
    return Finding(
        kind="leakage",
        severity="error",
        recommender=None,
        check="random_split",
        seen=(
            f"{num_earlier:,} of {len(targets):,} purchases to be found ({num_earlier / len(targets):.0%}) lie before a "
            "visible purchase of the same customer, as after a random split."
        ),
        advice="Split by time: everything before a cutoff is visible, and what comes after it has to be found.",
    )


def find_late_generators(
    fitted_as_of: Mapping[str, datetime.datetime], *, first_week: datetime.datetime, ranker: str
) -> list[Finding]:
    """Looks for candidate generators that have seen the weeks from which a ranker learns to trust them.

    Args:
        fitted_as_of: For each generator the first instant that its fit has not seen.
        first_week: Start of the first week whose purchases are the ranker's labels.
        ranker: Its name.
    """
    return [
        Finding(
            kind="leakage",
            severity="error",
            recommender=ranker,
            check="generators_saw_ranker_weeks",
            seen=f"{name} was fitted on rows until {as_of}, and the ranker's labels begin on {first_week}.",
            advice=f"Fit {name} on what lies before each week that trains the ranker, or begin those weeks later.",
        )
        for name, as_of in fitted_as_of.items()
        if as_of > first_week
    ]


def find_labels_in_features(
    seen_until: datetime.datetime, labels_from: datetime.datetime, *, recommender: str
) -> Finding | None:
    """Looks for features that are counted from the very purchases that make the labels.

    Args:
        seen_until: The latest purchase in the features.
        labels_from: The first one in the labels.
        recommender: What learns from them, or is judged by them.
    """
    if seen_until < labels_from:
        return None
    return Finding(
        kind="leakage",
        severity="error",
        recommender=recommender,
        check="labels_in_features",
        seen=f"Features count purchases until {seen_until}, and the labels those from {labels_from} on.",
        advice="Count features from what lies before a cutoff, and labels from what comes after it.",
    )


def feature_auc(values: np.ndarray, labels: np.ndarray) -> float:
    """Computes how well one feature tells labels apart, in whichever direction.

    Args:
        values: `[num_rows]` numbers; NaN is below or above everything, whichever tells more.
        labels: `[num_rows]`, true for a purchase; both must occur.

    Returns:
        The area under the ROC curve, or 1 minus it if that is more: 0.5 tells nothing, 1 everything.

    Source:
        Mann and Whitney's U over the number of pairs, ties counting one half.
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
    """Looks for single features that explain the labels nearly alone; see `MAX_FEATURE_AUC`.

    Args:
        features: A row an example; numeric and boolean columns are read.
        labels: `[num_rows]`, true for a purchase. With fewer than `MIN_LABELS` of either, nothing is found.
        recommender: What learns from them.
    """
    positive = np.asarray(labels).astype(bool)
    if min(positive.sum(), (~positive).sum()) < MIN_LABELS:
        return []
    numbers = features.select_dtypes(include=["number", "bool"])
    areas = {str(name): feature_auc(numbers[name].to_numpy(dtype=np.float64), positive) for name in numbers}
    others = {name: max((area for other, area in areas.items() if other != name), default=0.5) for name in areas}
    return [
        Finding(
            kind="leakage",
            severity="error",
            recommender=recommender,
            check="telling_feature",
            seen=(
                f"Feature `{name}` alone has an AUC of {area:.4f} over {len(positive):,} examples; the best of the others "
                f"has {others[name]:.4f}."
            ),
            advice=f"Find out when `{name}` is known. Leave it out if that is after the purchase.",
        )
        for name, area in areas.items()
        if area > MAX_FEATURE_AUC
    ]


def repeat_oracle(targets: pd.DataFrame, bought: pd.DataFrame, *, k: int) -> pd.Series:
    """Computes the best AP@k of a list that ranks just those targets first that the customer had bought before.

    With `n` targets of which `r` are repeats, the first min(r, k) places are hits, each with a precision of 1:
    min(r, k) / min(k, n).

    Args:
        targets: Distinct (`customer_index`, `article_index`) to be found.
        bought: Distinct (`customer_index`, `article_index`) bought before.
        k: Length of the lists.

    Returns:
        By `customer_index` of the targets, ascending.
    """
    is_repeat = contains(np.sort(pair_keys(bought)), pair_keys(targets))
    counts = pd.Series(is_repeat).groupby(targets["customer_index"].to_numpy()).agg(["sum", "count"])
    return counts["sum"].clip(upper=k) / counts["count"].clip(upper=k)


def find_beaten_repeat_oracle(
    candidates: pd.DataFrame, targets: pd.DataFrame, bought: pd.DataFrame, *, k: int, recommender: str
) -> Finding | None:
    """Looks for lists that are as good as the oracle of repeats.

    Only customers count who bought something again, and who had bought more than `k` articles, so that a list has to know
    which of them come back. An honest list is wrong about many of them and reaches a fraction of the oracle. To come near
    it, a list must know which ones, or find as many new articles; see `MAX_OF_REPEAT_ORACLE`.

    Args:
        candidates: Rows of Candidates.
        targets: Distinct (`customer_index`, `article_index`) to be found.
        bought: Distinct (`customer_index`, `article_index`) bought before.
        k: Length of the lists.
        recommender: Its name.
    """
    oracle = repeat_oracle(targets, bought, k=k)
    num_bought = bought["customer_index"].value_counts().reindex(oracle.index, fill_value=0)
    oracle = oracle[(oracle > 0) & (num_bought > k)]
    if len(oracle) < MIN_CUSTOMERS:
        return None
    found = float(customer_metrics(candidates, targets, k=k).loc[oracle.index, "map"].mean())
    best = float(oracle.mean())
    if found < MAX_OF_REPEAT_ORACLE * best:
        return None
    return Finding(
        kind="leakage",
        severity="error",
        recommender=recommender,
        check="beats_repeat_oracle",
        seen=(
            f"For {len(oracle):,} customers who bought something again, map@{k} is {found:.4f}. Lists that knew exactly "
            f"which of more than {k} articles would be bought again would have {best:.4f}."
        ),
        advice="Look for the window's purchases in its features, histories, vocabularies and neighbours.",
    )


def find_foreseen_purchases(
    candidates: pd.DataFrame, targets: pd.DataFrame, bought: pd.DataFrame, *, k: int, recommender: str
) -> Finding | None:
    """Looks for lists that find far too much of what customers had never bought.

    What is too much depends on the shop. The yardstick is the best list in hindsight that is the same for everyone: the k
    articles that most customers bought for the first time. No popularity can find more. Odds are compared, share / (1 -
    share), which keep their meaning where that list already finds much; see `MAX_NEW_ODDS`.

    Args:
        candidates: Rows of Candidates; best those from which what was bought is left out.
        targets: Distinct (`customer_index`, `article_index`) to be found.
        bought: Distinct (`customer_index`, `article_index`) bought before.
        k: Length of the lists.
        recommender: Its name.
    """
    keys = np.unique(pair_keys(targets))
    keys = keys[~contains(np.sort(pair_keys(bought)), keys)]
    num_new = len(keys)
    if num_new < MIN_NEW_TARGETS or len(np.unique(keys >> 32)) < MIN_CUSTOMERS:
        return None
    shown = np.unique(pair_keys(candidates.loc[candidates["rank"] <= k]))
    _articles, num_customers = np.unique(keys & 0xFFFFFFFF, return_counts=True)
    counts = int(contains(shown, keys).sum()), int(np.sort(num_customers)[-k:].sum())
    # Half a purchase is added on either side, so that none and all have odds too.
    found, hindsight = ((count + 0.5) / (num_new - count + 0.5) for count in counts)
    odds, share = found / hindsight, counts[0] / num_new
    if odds < MAX_NEW_ODDS_ANYWHERE and not (odds >= MAX_NEW_ODDS and share >= MAX_NEW_SHARE):
        return None
    return Finding(
        kind="leakage",
        severity="error",
        recommender=recommender,
        check="foresees_new_purchases",
        seen=(
            f"The first {k} hold {share:.1%} of {num_new:,} purchases of articles that the customer had never bought. The "
            f"best list for everyone, chosen in hindsight, holds {counts[1] / num_new:.1%}; the odds are {odds:.0f} times its."
        ),
        advice="Look for the window's purchases in its features, histories, vocabularies and neighbours.",
    )
