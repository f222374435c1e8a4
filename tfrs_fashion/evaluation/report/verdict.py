"""The verdict: which recommender to ship, and how sure to be, in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.bootstrap import Comparison, bootstrap_interval, paired_difference


@dataclass(frozen=True)
class Verdict:
    """What to ship.

    Attributes:
        recommender: The best; empty where none found anything.
        alike: Others that cannot be told apart from it, the best of them first.
        headline: What to do.
        reasons: Why, and how sure to be; one sentence each.
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
    """Decides which recommender to ship: the best mean, and whoever cannot be told apart from it.

    Args:
        values: For each recommender, the metric by `customer_index`, the same customers in the same order.
        baselines: Names in `values` that the best must beat to be worth its cost.
        metric: The metric's name.
        num_windows: Windows that the means are over.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.

    Raises:
        InputError: There is no customer, or two recommenders were measured over different customers.
    """
    ordered = sorted(values, key=lambda name: (-float(values[name].mean()), list(values).index(name)))
    if not ordered or not np.any(values[ordered[0]]):
        reason = f"{metric} is 0 for every recommender that was judged: look for a mistake before anything else."
        return Verdict("", (), "Ship none of them yet.", (reason,))
    best, *others = ordered
    num_customers = len(values[best])
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    found = {
        name: Comparison(best, name, metric, num_customers, paired_difference(values[best], values[name], **options))
        for name in others
    }
    alike = tuple(name for name in others if found[name].difference.low <= 0)
    value, low, high = bootstrap_interval(values[best], **options)
    standing = f"{best} has the highest {metric}, {value:.4f} ({low:.4f} to {high:.4f})"
    if not others:
        reasons = [f"It was judged alone, by {num_customers:,} customers: there is nothing to compare it with."]
        return Verdict(
            best, (), f"Only {best} was judged: {metric} {value:.4f} ({low:.4f} to {high:.4f}).", tuple(reasons)
        )
    if alike:
        headline = f"Ship {_join([best, *alike], 'or')}."
        reasons = [
            f"{standing}, but {num_customers:,} customers do not tell it from {_join(alike, 'or')}: let cost, speed and "
            "the make-up of the lists decide."
        ]
    else:
        headline = f"Ship {best}."
        reasons = [
            f"{standing}, and each of the {len(others)} others lies below it by more than chance explains at 95%, over "
            f"the same {num_customers:,} customers."
        ]
    told = [others[0], *(name for name in baselines if name in found and name != others[0])]
    reasons += [f"{found[name].sentence}{_role(name, others[0], baselines)}." for name in told]
    if best in baselines:
        reasons.append(f"{best} is itself a baseline: nothing that costs more has a higher {metric} here.")
    windows = "one window" if num_windows == 1 else f"{num_windows} windows"
    reasons.append(
        f"It was chosen from {len(ordered)} by the customers that measure it, and by {windows}: a small lead may not last."
    )
    return Verdict(best, alike, headline, tuple(reasons))


def _role(name: str, runner_up: str, baselines: Sequence[str]) -> str:
    roles = [role for role, holds in (("the runner-up", name == runner_up), ("a baseline", name in baselines)) if holds]
    return f" ({' and '.join(roles)})"
