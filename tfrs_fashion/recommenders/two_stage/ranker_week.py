"""What rankers learn from, week by week; and the scores of a week with their calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from tfrs_fashion.recommenders.stored import read_arrays, write_arrays
from tfrs_fashion.recommenders.two_stage.rankers import Ranker
from tfrs_fashion.schema import InputError

_CHUNK = 16_384


@dataclass(frozen=True)
class RankerWeek:
    """The candidates of one week that a ranker learns from, and which of them were bought.

    Attributes:
        customer: `[num_pairs]` int32, position among the customers who bought in that week; ascending.
        customer_index: `[num_customers]` int32, these customers.
        article_index: `[num_pairs]` int32.
        features: `[num_pairs, num_features]` float32, NaN where unknown; see `two_stage.PairDescriber`.
        is_bought: `[num_pairs]` bool.
        num_orders: `[num_pairs]` int32, number of baskets of the week that held it.
        quantity: `[num_pairs]` float32, number of pieces.
    """

    customer: np.ndarray
    customer_index: np.ndarray
    article_index: np.ndarray
    features: np.ndarray
    is_bought: np.ndarray
    num_orders: np.ndarray
    quantity: np.ndarray

    def save(self, path: Path) -> None:
        """Writes all arrays as `.npz`."""
        write_arrays(self, path)

    @classmethod
    def load(cls, path: Path) -> "RankerWeek":
        """Reads what `save` wrote."""
        return read_arrays(cls, path)

    @property
    def row_splits(self) -> np.ndarray:
        """`[num_customers + 1]` int64, where the pairs of each customer begin."""
        return np.searchsorted(self.customer, np.arange(len(self.customer_index) + 1))


def score_week(ranker: Ranker, week: RankerWeek) -> np.ndarray:
    """Scores all pairs of a week, `[num_pairs]` float32."""
    customer_index = week.customer_index[week.customer]
    scores = [np.zeros(0, np.float32)]
    for start in range(0, len(week.customer), _CHUNK):
        rows = slice(start, start + _CHUNK)
        inputs = (week.features[rows], week.article_index[rows], customer_index[rows])
        scores.append(ranker(*map(tf.constant, inputs)).numpy())
    return np.concatenate(scores)


class Calibration(NamedTuple):
    """The linear function that turns a ranker's scores into logits of a purchase probability.

    Attributes:
        slope: Slope; above 0, so that the order stays.
        offset: Offset.
        mean: Mean of the scores that slope and offset were fitted on.
        deviation: Standard deviation of the same scores.
    """

    slope: float
    offset: float
    mean: float
    deviation: float

    def carry_over(self, score: np.ndarray) -> tuple[float, float]:
        """Returns slope and offset for a ranker of the same settings that was fitted again.

        A ranking loss does not determine the location of scores, and hardly their scale: both are matched to those of
        the scores that the calibration was fitted on.

        Args:
            score: `[num_pairs]` float, the new ranker's scores of candidates like those of the calibration.
        """
        if not len(score):
            return self.slope, self.offset
        deviation = float(np.std(score.astype(np.float64)))
        slope = self.slope * self.deviation / deviation if deviation > 0 and self.deviation > 0 else self.slope
        return slope, self.offset + self.slope * self.mean - slope * float(np.mean(score.astype(np.float64)))


def calibrate(score: np.ndarray, is_bought: np.ndarray) -> Calibration:
    """Fits the calibration of scores of pairs that a ranker has not learned from.

    Args:
        score: `[num_pairs]` float.
        is_bought: `[num_pairs]` bool.

    Returns:
        The calibration; the identity if there is nothing to learn from.

    Source: Platt 1999, Probabilistic Outputs for Support Vector Machines.
    """
    score = score.astype(np.float64)
    moments = (float(np.mean(score)), float(np.std(score))) if len(score) else (0.0, 0.0)
    if is_bought.all() or not is_bought.any():
        return Calibration(1.0, 0.0, *moments)
    fitted = LogisticRegression(C=1e6).fit(score[:, np.newaxis], is_bought)
    slope = float(fitted.coef_[0, 0])
    return Calibration(slope, float(fitted.intercept_[0]), *moments) if slope > 0 else Calibration(1.0, 0.0, *moments)


def check_weeks(weeks: Sequence[RankerWeek], *, name: str) -> None:
    """Checks that some candidates were bought and some were not.

    Raises:
        InputError: One of the two is missing, so that there is nothing to learn.
    """
    num_bought = sum(int(week.is_bought.sum()) for week in weeks)
    num_pairs = sum(len(week.is_bought) for week in weeks)
    if num_bought in {0, num_pairs}:
        raise InputError(
            f"{name}: of {num_pairs:,} candidates in {len(weeks)} past week(s) {num_bought:,} were bought, so there is nothing "
            f"to learn. Raise `recommender.{name}.weeks` or the blend's `num_candidates`, or leave {name} out of `recommenders`."
        )
