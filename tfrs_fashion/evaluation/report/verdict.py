"""The verdict: which recommender to ship, and how certain that is, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.bootstrap import Comparison, bootstrap_interval, paired_difference


@dataclass(frozen=True)
class Verdict:
    """Which recommender to ship.

    Attributes:
        recommender: Name of the best recommender; empty if none has a hit.
        alike: Others that are not significantly worse, the best of them first.
        headline: What to do.
        reasons: Why, and how certain it is; one sentence each.
    """

    recommender: str
    alike: tuple[str, ...]
    headline: str
    reasons: tuple[str, ...]


def _join(names: Sequence[str], last: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"


def decide(
    values: Mapping[str, pd.Series],
    *,
    baselines: Sequence[str],
    metric: str = "map@12",
    num_windows: int = 1,
    num_samples: int = 1000,
    seed: int = 0,
) -> Verdict:
    """Decides which recommender to ship: the one with the best mean, and those not significantly worse.

    Args:
        values: The metric by `customer_index` for each recommender, for the same customers in the same order.
        baselines: Names in `values` that the best must beat to be worth its cost.
        metric: Name of the metric.
        num_windows: Number of windows behind the means.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Raises:
        InputError: There is no customer, or two recommenders were evaluated on different customers.
    """
    ordered = sorted(values, key=lambda name: (-float(values[name].mean()), list(values).index(name)))
    if not ordered or not np.any(values[ordered[0]]):
        reason = f"{metric} is 0 for every evaluated recommender: look for a mistake before anything else."
        return Verdict("", (), "Ship none of them yet.", (reason,))
    best, *others = ordered
    num_customers = len(values[best])
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    comparisons = {
        name: Comparison(best, name, metric, num_customers, paired_difference(values[best], values[name], **options))
        for name in others
    }
    alike = tuple(name for name in others if comparisons[name].difference.low <= 0)
    value, low, high = bootstrap_interval(values[best], **options)
    if not others:
        headline = f"Only {best} was evaluated: {metric} {value:.4f} (95% CI {low:.4f} to {high:.4f})."
        reason = f"It was evaluated alone, on {num_customers:,} customers: there is nothing to compare it with."
        return Verdict(best, (), headline, (reason,))
    headline = f"Ship {_join([best, *alike], 'or')}."
    standing = f"{best} has the highest {metric}, {value:.4f} (95% CI {low:.4f} to {high:.4f})"
    if alike:
        reasons = [
            f"{standing}, but its lead over {_join(alike, 'and')} is not significant with {num_customers:,} customers: decide by "
            "cost, speed and the composition of the lists."
        ]
    else:
        reasons = [
            f"{standing}, and its lead over each of the {len(others)} others is significant at 95%, on the same "
            f"{num_customers:,} customers."
        ]
    shown = [others[0], *(name for name in baselines if name in comparisons and name != others[0])]
    reasons += [f"{comparisons[name].sentence}{_role(name, others[0], baselines)}." for name in shown]
    if best in baselines:
        reasons.append(f"{best} is itself a baseline: nothing more expensive has a higher {metric} here.")
    windows = "one window" if num_windows == 1 else f"{num_windows} windows"
    reasons.append(
        f"It was chosen from {len(ordered)} on the customers that measure it, in {windows}: a small lead may not last."
    )
    return Verdict(best, alike, headline, tuple(reasons))


def _role(name: str, runner_up: str, baselines: Sequence[str]) -> str:
    roles = [role for role, holds in (("the runner-up", name == runner_up), ("a baseline", name in baselines)) if holds]
    return f" ({' and '.join(roles)})"
