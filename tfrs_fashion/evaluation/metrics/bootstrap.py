"""Bootstrap confidence intervals over customers, and paired differences between recommenders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfrs_fashion.schema import InputError

# Above `MAX_ROWS_DRAWN` rows, `NUM_POOLS` pools of rows are resampled instead of the rows themselves.
MAX_ROWS_DRAWN, NUM_POOLS = 100_000, 20_000
# Quantiles that bound a 95% interval; (1 - level) / 2 and (1 + level) / 2 in floating point.
BOUNDS = [(1 - 0.95) / 2, (1 + 0.95) / 2]


class Interval(NamedTuple):
    """A mean and its 95% confidence interval: floats, or float64 `[num_metrics]` each for several metrics."""

    value: Any
    low: Any
    high: Any


@dataclass(frozen=True)
class Difference:
    """The difference of two means over the same customers, also as a share of the second mean.

    Attributes:
        difference: Mean of the first minus mean of the second.
        low: Lower bound of `difference`.
        high: Upper bound of `difference`.
        relative: `difference` / mean of the second; NaN, like its bounds, if that mean is 0.
        relative_low: Lower bound of `relative`.
        relative_high: Upper bound of `relative`.
    """

    difference: float
    low: float
    high: float
    relative: float
    relative_low: float
    relative_high: float


@dataclass(frozen=True)
class Comparison:
    """A recommender against a baseline on one metric, over the same customers."""

    recommender: str
    baseline: str
    metric: str
    customers: int
    difference: Difference

    @property
    def sentence(self) -> str:
        """The difference in words, in percent unless the baseline's mean is 0."""
        found = self.difference
        values: tuple[float, ...] = (found.difference, found.low, found.high)
        unit, style = "", "+.4f"
        relative = (found.relative, found.relative_low, found.relative_high)
        if not np.isnan(relative).any():
            values, unit, style = tuple(100 * share for share in relative), "%", "+.1f"
        value, low, high = (f"{number:{style}}{unit}" for number in values)
        # The absolute difference decides: the interval of a ratio may include 0 where that of the difference does not.
        significance = "not significant" if found.low <= 0 <= found.high else "significant"
        pair = f"{self.recommender} vs {self.baseline} on {self.metric}"
        return f"{pair}: {value} (95% CI {low} to {high}), {significance}"


def _pool(values: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Assigns the rows to random pools: sums `[num_pools, num_metrics]` and sizes `[num_pools]`, both float64."""
    pool = generator.permutation(len(values)) % NUM_POOLS
    sums = np.stack([np.bincount(pool, weights=column, minlength=NUM_POOLS) for column in values.T], axis=1)
    return sums, np.bincount(pool, minlength=NUM_POOLS).astype(np.float64)


def _resampled_means(values: np.ndarray, *, num_samples: int, seed: int) -> np.ndarray:
    """Computes the means of bootstrap samples of the rows: float64 `[num_samples, num_metrics]`.

    Most customers buy nothing that was shown and have a row of zeros. The number of non-zero rows in a sample is
    binomial, and these are drawn uniformly, so drawing them alone gives the same distribution in less time.

    Above `MAX_ROWS_DRAWN` rows, random pools of rows are drawn instead. A sample's mean then has the same variance as
    if rows were drawn; the width of the interval is known to about sqrt(1 / (2 NUM_POOLS)), half a percent, which is
    less than the error from the number of samples.
    """
    generator = np.random.default_rng(seed)
    means = np.zeros((num_samples, values.shape[1]))
    if len(values) > MAX_ROWS_DRAWN:
        sums, sizes = _pool(values, generator)
        for sample in range(num_samples):
            drawn = np.bincount(generator.integers(0, NUM_POOLS, size=NUM_POOLS, dtype=np.int32), minlength=NUM_POOLS)
            means[sample] = drawn @ sums / (drawn @ sizes)
        return means
    nonzero = values[(values != 0).any(axis=1)]
    num_drawn = generator.binomial(len(values), len(nonzero) / len(values), size=num_samples)
    for sample, drawn in enumerate(num_drawn):
        if drawn:
            rows = generator.integers(0, len(nonzero), size=drawn, dtype=np.int32)
            means[sample] = np.bincount(rows, minlength=len(nonzero)) @ nonzero / len(values)
    return means


def _resample(
    values: np.ndarray | pd.Series | pd.DataFrame, *, num_samples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Checks values per customer; returns their means `[num_metrics]` and those of samples `[num_samples, num_metrics]`."""
    matrix = np.asarray(values, dtype=np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2:
        raise InputError(f"values have shape {matrix.shape}; expected [num_customers] or [num_customers, num_metrics].")
    if len(matrix) == 0:
        raise InputError(
            "No customer bought anything in the window of targets, so there is nothing to average. Move or widen the window."
        )
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix)).any(axis=1).sum())
        raise InputError(f"{bad:,} of {len(matrix):,} customers have a NaN or infinite value; drop them.")
    if num_samples < 1:
        raise InputError(f"`num_samples` is {num_samples}; expected 1 or more.")
    return matrix.mean(axis=0), _resampled_means(matrix, num_samples=num_samples, seed=seed)


def bootstrap_interval(
    values: np.ndarray | pd.Series | pd.DataFrame, *, num_samples: int = 1000, seed: int = 0
) -> Interval:
    """Computes the mean over customers and its 95% percentile bootstrap interval.

    Args:
        values: `[num_customers]` or `[num_customers, num_metrics]`, finite; metrics share their samples.
        num_samples: Number of bootstrap samples, each of `num_customers` drawn with replacement.
        seed: Seed of the samples.

    Returns:
        (value, low, high): floats, or float64 `[num_metrics]` each for a matrix. With one customer all three are equal.

    Raises:
        InputError: There is no customer, or a value is not finite.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife" (1979).
    """
    value, means = _resample(values, num_samples=num_samples, seed=seed)
    low, high = np.quantile(means, BOUNDS, axis=0)
    if np.ndim(values) == 1:
        return Interval(float(value[0]), float(low[0]), float(high[0]))
    return Interval(value, low, high)


def bootstrap_ratio(
    numerator: np.ndarray, denominator: np.ndarray, *, num_samples: int = 1000, seed: int = 0
) -> Interval:
    """Computes the ratio of two sums over customers and its 95% interval, drawing customers once for both sums.

    Args:
        numerator: `[num_customers]` or `[num_customers, num_metrics]`, finite.
        denominator: The same shape.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        (value, low, high) as from `bootstrap_interval`; NaN where the denominator is 0. Samples whose denominator is 0
        are left out of the interval.

    Raises:
        InputError: There is no customer, or a value is not finite.
    """
    both = np.concatenate([np.atleast_2d(part.T) for part in (numerator, denominator)]).T
    mean, means = _resample(both, num_samples=num_samples, seed=seed)
    half = len(mean) // 2

    def divide(sums: np.ndarray) -> np.ndarray:
        above, below = sums[..., :half], sums[..., half:]
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)

    value, ratios = divide(mean), divide(means)
    # A column that is undefined in every sample has no interval.
    is_defined = np.isfinite(ratios).any(axis=0)
    bounds = np.full((2, half), np.nan)
    if is_defined.any():
        bounds[:, is_defined] = np.nanquantile(ratios[:, is_defined], [0.025, 0.975], axis=0)
    low, high = bounds
    if np.ndim(numerator) == 1:
        return Interval(float(value[0]), float(low[0]), float(high[0]))
    return Interval(value, low, high)


def paired_difference(
    a: np.ndarray | pd.Series, b: np.ndarray | pd.Series, *, num_samples: int = 1000, seed: int = 0
) -> Difference:
    """Compares two recommenders over the same customers by paired bootstrap: each sample draws customers once for both.

    Args:
        a: `[num_customers]`, one metric of the first recommender.
        b: `[num_customers]`, the same metric of the second, for the same customers in the same order.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        mean(a) - mean(b) and (mean(a) - mean(b)) / mean(b), each with its 95% interval. The relative values are NaN
        if mean(b) is 0 in the data; samples in which it is 0 are left out of the relative interval.

    Raises:
        InputError: The customers differ, there are none, or a value is not finite.
    """
    if isinstance(a, pd.Series) and isinstance(b, pd.Series) and not a.index.equals(b.index):
        raise InputError(
            f"{len(a):,} and {len(b):,} customers that are not the same: a paired difference needs one set."
        )
    if len(a) != len(b):
        raise InputError(f"{len(a):,} and {len(b):,} customers: a paired difference needs the same customers twice.")
    columns = np.column_stack([np.asarray(a), np.asarray(b)])
    (mean_a, mean_b), means = _resample(columns, num_samples=num_samples, seed=seed)
    differences = means[:, 0] - means[:, 1]
    low, high = np.quantile(differences, BOUNDS)
    relative = relative_low = relative_high = float("nan")
    is_defined = means[:, 1] != 0
    if mean_b != 0 and is_defined.any():
        relative = float((mean_a - mean_b) / mean_b)
        bounds = np.quantile(differences[is_defined] / means[is_defined, 1], BOUNDS)
        relative_low, relative_high = float(bounds[0]), float(bounds[1])
    return Difference(float(mean_a - mean_b), float(low), float(high), relative, relative_low, relative_high)


def compare_recommenders(
    values: Mapping[str, pd.Series],
    *,
    baselines: Sequence[str],
    metric: str = "map@12",
    num_samples: int = 1000,
    seed: int = 0,
) -> list[Comparison]:
    """Compares every recommender with every baseline on one metric.

    Args:
        values: The metric by `customer_index` for each recommender, for the same customers in the same order.
        baselines: Names in `values`; a baseline is itself compared with the baselines before it.
        metric: Name of the metric, for the sentences of the report.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.

    Returns:
        Comparisons in the order of `values`, then of `baselines`.

    Raises:
        InputError: A baseline is unknown, or two recommenders were evaluated on different customers.
    """
    unknown = [name for name in baselines if name not in values]
    if unknown:
        raise InputError(f"unknown baseline(s) {', '.join(unknown)}; the recommenders are {', '.join(values)}.")
    comparisons = []
    for name, by_customer in values.items():
        earlier = baselines[: list(baselines).index(name)] if name in baselines else baselines
        for baseline in earlier:
            difference = paired_difference(by_customer, values[baseline], num_samples=num_samples, seed=seed)
            comparisons.append(Comparison(name, baseline, metric, len(by_customer), difference))
    return comparisons
