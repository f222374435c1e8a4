"""Contribution of each candidate generator to a pool: its recall, its marginal recall, and its precision by rank."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RANK_BANDS = ((1, 1), (2, 5), (6, 12), (13, 50), (51, 200))


def name_bands() -> list[str]:
    """Names the `RANK_BANDS`, as `1` or `2-5`."""
    return [str(first) if first == last else f"{first}-{last}" for first, last in RANK_BANDS]


@dataclass(frozen=True)
class Contribution:
    """The contribution of one generator to a pool.

    Attributes:
        name: Name of the generator.
        candidates: Number of its candidates per customer, mean over all evaluated customers.
        recall: Share of a customer's purchases among its candidates, mean over customers.
        marginal_recall: Share of the purchases among its candidates only, and no other generator's.
        precision: Share of its candidates that was bought, for each of `RANK_BANDS`; None without candidates there.
        quota: Number of candidates per customer that the blend takes from it by quotas.
    """

    name: str
    candidates: float
    recall: float
    marginal_recall: float
    precision: tuple[float | None, ...]
    quota: float


@dataclass(frozen=True)
class BlendWeek:
    """The recall of each blending method in one week, trained on the weeks before it.

    Attributes:
        start: First day of the week.
        customers: Number of customers who were known before the week and bought in it.
        recall: Recall by method at the budget, mean over customers.
    """

    start: str
    customers: int
    recall: dict[str, float]


def pool_weeks(weeks: Sequence[BlendWeek]) -> dict[str, float]:
    """Computes the mean recall of each method over all pairs of a week and a customer.

    >>> pool_weeks([BlendWeek("a", 1, {"quotas": 0.4}), BlendWeek("b", 3, {"quotas": 0.2})])
    {'quotas': 0.25}
    """
    customers = sum(week.customers for week in weeks)
    return {
        method: sum(week.customers * week.recall[method] for week in weeks) / customers for method in weeks[0].recall
    }


@dataclass(frozen=True)
class BlendEvidence:
    """The validation results by which a blending method was chosen.

    Attributes:
        budget: Number of candidates per customer at which the methods are compared.
        weeks: Results of each week, the latest first.
        recall: Recall by method at the budget, mean over the customers of all weeks.
        method: Chosen method.
        pool: Recall of the whole pool of the latest week.
        candidates: Number of candidates in a customer's pool of that week, mean over customers.
        contributions: Contributions of the generators in that week.
    """

    budget: int
    weeks: tuple[BlendWeek, ...]
    recall: dict[str, float]
    method: str
    pool: float
    candidates: float
    contributions: tuple[Contribution, ...]


def measure_contributions(
    names: tuple[str, ...],
    rank: np.ndarray,
    is_bought: np.ndarray,
    weight: np.ndarray,
    *,
    num_customers: int,
    quotas: np.ndarray,
) -> tuple[Contribution, ...]:
    """Computes the contribution of each generator to a pool.

    Args:
        names: Names of the generators.
        rank: `[num_pairs, num_generators]` int from 1; 0 if the pair is not among the generator's candidates.
        is_bought: `[num_pairs]` bool.
        weight: `[num_pairs]` float, 1 / the number of the customer's purchases.
        num_customers: Number of evaluated customers, including those without any candidate.
        quotas: `[num_generators]` candidates per customer that the blend takes from each.
    """
    is_listed = rank > 0
    is_single = is_listed.sum(axis=1) == 1
    contributions = []
    for column, name in enumerate(names):
        own, ranks = is_listed[:, column], rank[:, column]
        precision: list[float | None] = []
        for first, last in RANK_BANDS:
            band = (ranks >= first) & (ranks <= last)
            precision.append(float(is_bought[band].mean()) if band.any() else None)
        contributions.append(
            Contribution(
                name=name,
                candidates=float(own.sum() / num_customers),
                recall=float(weight[own & is_bought].sum() / num_customers),
                marginal_recall=float(weight[own & is_single & is_bought].sum() / num_customers),
                precision=tuple(precision),
                quota=float(quotas[column]),
            )
        )
    return tuple(contributions)
