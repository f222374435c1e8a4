"""What each generator adds to a pool of candidates: how much it finds, how much nobody else finds, and how far down."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RANK_BANDS = ((1, 1), (2, 5), (6, 12), (13, 50), (51, 200))


def name_bands() -> list[str]:
    """Names `RANK_BANDS`, as `1` or `2-5`."""
    return [str(first) if first == last else f"{first}-{last}" for first, last in RANK_BANDS]


@dataclass(frozen=True)
class Contribution:
    """What one generator does for a pool.

    Attributes:
        name: Of the generator.
        candidates: Candidates that it names a customer, mean over all customers judged.
        recall: Share of a customer's purchases that it names, mean over customers.
        marginal_recall: Share that it names and no other does.
        precision: For each of `RANK_BANDS` the share of what it ranked there that was bought; None where it named nothing.
        quota: Candidates a customer that the blend takes from it by quotas.
    """

    name: str
    candidates: float
    recall: float
    marginal_recall: float
    precision: tuple[float | None, ...]
    quota: float


@dataclass(frozen=True)
class BlendWeek:
    """What each way to blend found in one week, learned from the weeks before it.

    Attributes:
        start: Its first day.
        customers: Known before it, who bought in it.
        recall: Of each method at the budget, mean over customers.
    """

    start: str
    customers: int
    recall: dict[str, float]


def pool_weeks(weeks: Sequence[BlendWeek]) -> dict[str, float]:
    """Returns the mean recall of each method over the customers of all weeks, each once a week.

    >>> pool_weeks([BlendWeek("a", 1, {"quotas": 0.4}), BlendWeek("b", 3, {"quotas": 0.2})])
    {'quotas': 0.25}
    """
    customers = sum(week.customers for week in weeks)
    return {
        method: sum(week.customers * week.recall[method] for week in weeks) / customers for method in weeks[0].recall
    }


@dataclass(frozen=True)
class BlendEvidence:
    """What a blend was chosen by, on validation.

    Attributes:
        budget: Candidates a customer at which the methods are compared.
        weeks: The weeks on which they are, the latest first.
        recall: Of each method at the budget, mean over the customers of all these weeks.
        method: That the blend goes by.
        pool: Recall of the whole pool of the latest week.
        candidates: In the pool of a customer of that week, mean over customers.
        contributions: Of the generators, in that week.
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
    """Measures what each generator does for a pool.

    Args:
        names: Of the generators.
        rank: `[num_pairs, num_generators]`, from 1; 0 where a generator did not name the pair.
        is_bought: `[num_pairs]` bool.
        weight: `[num_pairs]`, one over the number that the pair's customer bought.
        num_customers: Customers judged, those without any candidate among them.
        quotas: `[num_generators]`.
    """
    named = rank > 0
    alone = named.sum(axis=1) == 1
    found = []
    for place, name in enumerate(names):
        own, ranks = named[:, place], rank[:, place]
        precision: list[float | None] = []
        for first, last in RANK_BANDS:
            band = (ranks >= first) & (ranks <= last)
            precision.append(float(is_bought[band].mean()) if band.any() else None)
        found.append(
            Contribution(
                name=name,
                candidates=float(own.sum() / num_customers),
                recall=float(weight[own & is_bought].sum() / num_customers),
                marginal_recall=float(weight[own & alone & is_bought].sum() / num_customers),
                precision=tuple(precision),
                quota=float(quotas[place]),
            )
        )
    return tuple(found)
