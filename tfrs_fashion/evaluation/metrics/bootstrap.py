"""How sure a figure is: bootstrap intervals over customers, and paired differences between recommenders."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from tfrs_fashion.schema import InputError

# More rows than so many are drawn in so many pools.
MAX_ROWS_DRAWN, NUM_POOLS = 100_000, 20_000


class Interval(NamedTuple):
    """A mean and its interval: floats, or float64 `[num_metrics]` where several metrics were given."""

    value: Any
    low: Any
    high: Any


@dataclass(frozen=True)
class Difference:
    """The difference of two means over the same customers, also as a share of the second mean.

    Attributes:
        difference: Mean of the first minus mean of the second, with `low` and `high` around it.
        low: Lower bound of `difference`.
        high: Upper bound of `difference`.
        relative: `difference` / mean of the second; NaN if that mean is 0, as are its bounds.
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
        """The result in words, in percent where the baseline's mean allows it."""
        found = self.difference
        if np.isnan([found.relative, found.relative_low, found.relative_high]).any():
            value, low, high, unit, digits = found.difference, found.low, found.high, "", 4
        else:
            scaled = (100 * found.relative, 100 * found.relative_low, 100 * found.relative_high)
            (value, low, high), unit, digits = scaled, "%", 1
        # The sign of the difference itself decides: a ratio's interval may cross 0 where the difference's does not.
        if found.low <= 0 <= found.high:
            return (
                f"{self.recommender} and {self.baseline} cannot be told apart on {self.metric}: "
                f"{value:+.{digits}f}{unit} ({low:+.{digits}f}{unit} to {high:+.{digits}f}{unit})"
            )
        side = "above" if found.difference > 0 else "below"
        if value < 0:
            value, low, high = -value, -high, -low
        return (
            f"{self.recommender} is {value:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f}) "
            f"{side} {self.baseline} on {self.metric}"
        )


def _pool(values: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Puts the rows into pools by chance: sums `[num_pools, num_metrics]`, and sizes `[num_pools]`."""
    pool = generator.permutation(len(values)) % NUM_POOLS
    sums = np.stack([np.bincount(pool, weights=column, minlength=NUM_POOLS) for column in values.T], axis=1)
    return sums, np.bincount(pool, minlength=NUM_POOLS).astype(np.float64)


def _resampled_means(values: np.ndarray, *, num_samples: int, seed: int) -> np.ndarray:
    """Means of bootstrap samples of the rows: float64 `[num_samples, num_metrics]`.

    Most customers buy nothing that was shown and have a row of zeros. A sample holds a binomial number of rows that
    are not zero, drawn evenly among them, so only those are drawn: the same distribution, in less time.

    Of more rows than `MAX_ROWS_DRAWN`, pools of rows that chance put together are drawn instead. A sample's mean then
    varies as much as if rows were drawn; the width of the interval is known to about sqrt(1 / (2 NUM_POOLS)), half a
    percent, which is less than the samples themselves leave open.
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


def _as_matrix(
    values: np.ndarray | pd.Series | pd.DataFrame, *, num_samples: int, level: float, window: str
) -> np.ndarray:
    matrix = np.asarray(values, dtype=np.float64)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2:
        raise InputError(f"values have shape {matrix.shape}; expected [num_customers] or [num_customers, num_metrics].")
    if len(matrix) == 0:
        raise InputError(
            f"No customer bought anything in {window}, so there is nothing to average. Move or widen the window."
        )
    if not np.isfinite(matrix).all():
        bad = int((~np.isfinite(matrix)).any(axis=1).sum())
        raise InputError(f"{bad:,} of {len(matrix):,} customers in {window} have a NaN or infinite value; drop them.")
    if num_samples < 1 or not 0 < level < 1:
        raise InputError(f"`num_samples` is {num_samples} and `level` {level}; expected 1 or more, and within (0, 1).")
    return matrix


def bootstrap_interval(
    values: np.ndarray | pd.Series | pd.DataFrame,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    window: str = "the window of targets",
) -> Interval:
    """Computes the mean over customers and its percentile bootstrap interval.

    Args:
        values: `[num_customers]` or `[num_customers, num_metrics]`, finite; metrics share their samples.
        num_samples: Bootstrap samples, each of `num_customers` drawn with replacement.
        seed: Fixes the samples.
        level: Share of samples within the interval.
        window: What to call the customers' window in messages.

    Returns:
        (value, low, high): floats, or float64 `[num_metrics]` each if a matrix was given. With one customer all
        three are equal.

    Raises:
        InputError: There is no customer, or a value is not finite.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife" (1979).
    """
    matrix = _as_matrix(values, num_samples=num_samples, level=level, window=window)
    means = _resampled_means(matrix, num_samples=num_samples, seed=seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    value = matrix.mean(axis=0)
    if np.ndim(values) == 1:
        return Interval(float(value[0]), float(low[0]), float(high[0]))
    return Interval(value, low, high)


def bootstrap_ratio(
    numerator: np.ndarray, denominator: np.ndarray, *, num_samples: int = 1000, seed: int = 0
) -> Interval:
    """Computes the ratio of two sums over customers and its interval, customers drawn once for both.

    Args:
        numerator: `[num_customers]` or `[num_customers, num_metrics]`, finite.
        denominator: The same shape.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.

    Returns:
        (value, low, high) as `bootstrap_interval` returns them; NaN where the denominator is 0. Samples where it is 0 are left
        out of the interval.

    Raises:
        InputError: There is no customer, or a value is not finite.
    """
    both = np.concatenate([np.atleast_2d(part.T) for part in (numerator, denominator)]).T
    matrix = _as_matrix(both, num_samples=num_samples, level=0.95, window="the window of targets")
    means = _resampled_means(matrix, num_samples=num_samples, seed=seed)
    half = matrix.shape[1] // 2

    def divide(sums: np.ndarray) -> np.ndarray:
        above, below = sums[..., :half], sums[..., half:]
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)

    value, ratios = divide(matrix.mean(axis=0)), divide(means)
    # A column of which no sample has anything has no interval.
    is_defined = np.isfinite(ratios).any(axis=0)
    bounds = np.full((2, half), np.nan)
    if is_defined.any():
        bounds[:, is_defined] = np.nanquantile(ratios[:, is_defined], [0.025, 0.975], axis=0)
    low, high = bounds
    if np.ndim(numerator) == 1:
        return Interval(float(value[0]), float(low[0]), float(high[0]))
    return Interval(value, low, high)


def paired_difference(
    a: np.ndarray | pd.Series,
    b: np.ndarray | pd.Series,
    *,
    num_samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    window: str = "the window of targets",
) -> Difference:
    """Compares two recommenders over the same customers by paired bootstrap: each sample draws customers once for both.

    Args:
        a: `[num_customers]`, one metric of the first recommender.
        b: `[num_customers]`, the same metric of the second, for the same customers in the same order.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.
        level: Share of samples within the intervals.
        window: What to call the customers' window in messages.

    Returns:
        mean(a) - mean(b) and (mean(a) - mean(b)) / mean(b), each with its interval. The relative figures are NaN
        if mean(b) is 0 in the data; samples where it is 0 are left out of the relative interval.

    Raises:
        InputError: The customers differ, there are none, or a value is not finite.
    """
    if isinstance(a, pd.Series) and isinstance(b, pd.Series) and not a.index.equals(b.index):
        raise InputError(
            f"{len(a):,} and {len(b):,} customers that are not the same: a paired difference needs one set."
        )
    if len(a) != len(b):
        raise InputError(f"{len(a):,} and {len(b):,} customers: a paired difference needs the same customers twice.")
    matrix = _as_matrix(
        np.column_stack([np.asarray(a), np.asarray(b)]), num_samples=num_samples, level=level, window=window
    )
    means = _resampled_means(matrix, num_samples=num_samples, seed=seed)
    quantiles = [(1 - level) / 2, (1 + level) / 2]
    mean_a, mean_b = matrix.mean(axis=0)
    differences = means[:, 0] - means[:, 1]
    low, high = np.quantile(differences, quantiles)
    relative = relative_low = relative_high = float("nan")
    is_defined = means[:, 1] != 0
    if mean_b != 0 and is_defined.any():
        relative = float((mean_a - mean_b) / mean_b)
        bounds = np.quantile(differences[is_defined] / means[is_defined, 1], quantiles)
        relative_low, relative_high = float(bounds[0]), float(bounds[1])
    return Difference(float(mean_a - mean_b), float(low), float(high), relative, relative_low, relative_high)


def compare_recommenders(
    values: Mapping[str, pd.Series],
    *,
    baselines: Sequence[str],
    metric: str = "map@12",
    num_samples: int = 1000,
    seed: int = 0,
    window: str = "the window of targets",
) -> list[Comparison]:
    """Compares every recommender with every baseline on one metric.

    Args:
        values: For each recommender, the metric by `customer_index`, the same customers in the same order.
        baselines: Names in `values` to compare with; a baseline is also compared with the baselines before it.
        metric: The metric's name, for the words of the report.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.
        window: What to call the customers' window in messages.

    Returns:
        Comparisons in the order of `values`, then of `baselines`.

    Raises:
        InputError: A baseline is unknown, or two recommenders were measured over different customers.
    """
    unknown = [name for name in baselines if name not in values]
    if unknown:
        raise InputError(f"unknown baseline(s) {', '.join(unknown)}; the recommenders are {', '.join(values)}.")
    comparisons = []
    for name, found in values.items():
        earlier = baselines[: list(baselines).index(name)] if name in baselines else baselines
        for baseline in earlier:
            difference = paired_difference(found, values[baseline], num_samples=num_samples, seed=seed, window=window)
            comparisons.append(Comparison(name, baseline, metric, len(found), difference))
    return comparisons
