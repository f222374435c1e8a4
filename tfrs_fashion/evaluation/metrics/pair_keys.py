"""(customer, article) pairs as sortable integers, and fast operations on sorted arrays that metrics share."""

import numpy as np
import pandas as pd


def pair_keys(frame: pd.DataFrame, *, key: str = "article_index") -> np.ndarray:
    """Packs (customer, article) pairs into one sortable integer each.

    Args:
        frame: Columns `customer_index` and `key`, both from 0 to 2³¹ - 1.
        key: Second column of the pair.

    Returns:
        int64 `[num_rows]`: the customer in the high half, the key in the low half.
    """
    customers = frame["customer_index"].to_numpy().astype(np.int64)
    return (customers << 32) | frame[key].to_numpy().astype(np.int64)


def contains(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Tests which values occur in a sorted array: bool `[num_values]`, without the copies that `np.isin` makes."""
    if len(sorted_values) == 0:
        return np.zeros(len(values), dtype=bool)
    positions = np.searchsorted(sorted_values, values)
    positions[positions == len(sorted_values)] = 0
    return sorted_values[positions] == values


def count_runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finds the runs of equal values in an ordered array, without sorting it again as `np.unique` would.

    Args:
        ordered: `[num_values]`, equal values adjacent.

    Returns:
        The value, the start and the length of each run.
    """
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.empty(0, np.int64)
    return ordered[starts], starts, np.diff(np.append(starts, len(ordered)))
