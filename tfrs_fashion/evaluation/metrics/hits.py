"""Hits: where in each customer's list stands what the customer bought."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfrs_fashion.schema import FIRST_INDEX, InputError


@dataclass(frozen=True)
class Hits:
    """Which places of all lists were bought, from which every metric of accuracy follows.

    Attributes:
        depth: Length of the lists that were read.
        customer_index: `[num_customers]` int64, ascending: everybody with a target.
        num_targets: `[num_customers]` int64, different targets of each.
        row: `[num_hits]` int64, the place of a hit's customer in `customer_index`, ascending.
        rank: `[num_hits]` int64, from 1, ascending within a customer.
    """

    depth: int
    customer_index: np.ndarray
    num_targets: np.ndarray
    row: np.ndarray
    rank: np.ndarray

    def first(self, k: int) -> "Hits":
        """Keeps the hits of the first k places."""
        is_first = self.rank <= k
        return Hits(min(k, self.depth), self.customer_index, self.num_targets, self.row[is_first], self.rank[is_first])


def check_k(k: int) -> None:
    """Refuses a list without places.

    Raises:
        InputError: `k` is below 1.
    """
    if k < 1:
        raise InputError(f"`k` is {k}; expected 1 or more.")


def first_places(candidates: pd.DataFrame, *, k: int) -> pd.DataFrame:
    """Returns the rows of ranks 1 to k.

    Raises:
        InputError: `k` is below 1.
    """
    check_k(k)
    ranks = candidates["rank"].to_numpy()
    is_first = (ranks >= 1) & (ranks <= k)
    return candidates if is_first.all() else candidates.loc[is_first]


def pair_keys(frame: pd.DataFrame, *, key: str = "article_index") -> np.ndarray:
    """Packs (customer, article) pairs into one sortable integer each.

    Args:
        frame: Columns `customer_index` and `key`, both from 0 to 2³¹ - 1.
        key: The second column of the pair.

    Returns:
        int64 `[num_rows]`: the customer in the high half, the key in the low half.
    """
    customers = frame["customer_index"].to_numpy().astype(np.int64)
    return (customers << 32) | frame[key].to_numpy().astype(np.int64)


def contains(sorted_values: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Tells which values occur in a sorted array: bool `[num_values]`, without the copies that `np.isin` makes."""
    if len(sorted_values) == 0:
        return np.zeros(len(values), dtype=bool)
    positions = np.searchsorted(sorted_values, values)
    positions[positions == len(sorted_values)] = 0
    return sorted_values[positions] == values


def count_runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Describes the runs of equal values in an array that is ordered, without sorting it again as `np.unique` would.

    Args:
        ordered: `[num_values]`, equal values side by side.

    Returns:
        The value of each run, where it starts, and its length.
    """
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])) if len(ordered) else np.empty(0, np.int64)
    return ordered[starts], starts, np.diff(np.append(starts, len(ordered)))


def find_hits(candidates: pd.DataFrame, targets: pd.DataFrame, *, depth: int, key: str = "article_index") -> Hits:
    """Finds what was bought in each customer's list.

    Args:
        candidates: Rows of Candidates in any order; `customer_index`, `key` and `rank` (from 1) are read. A key
            that is given to a customer twice hits once, at its lower rank.
        targets: (`customer_index`, `key`) pairs; duplicates are dropped. A key below `FIRST_INDEX` (out of
            vocabulary) counts among the targets and is never hit. Several articles out of vocabulary that share
            an index are one target; give them indices above the vocabulary to count each.
        depth: Length of the list that is read.
        key: What has to match: `article_index`, or an integer column of both tables made from it; see `near_misses`.

    Returns:
        The hits, of every customer of `targets`; a customer without candidates has none.

    Raises:
        InputError: `depth` is below 1, or a table lacks a column.
    """
    check_k(depth)
    for name, frame, needed in (
        ("candidates", candidates, ("customer_index", key, "rank")),
        ("targets", targets, ("customer_index", key)),
    ):
        missing = [column for column in needed if column not in frame.columns]
        if missing:
            raise InputError(f"{name}: missing column(s) {', '.join(missing)}; found {list(frame.columns)}.")
    target_keys = np.unique(pair_keys(targets, key=key))
    customers, _starts, num_targets = count_runs(target_keys >> 32)
    shown = first_places(candidates, k=depth)
    keys = pair_keys(shown, key=key)
    is_hit = contains(target_keys, keys)
    is_hit &= shown[key].to_numpy() >= FIRST_INDEX
    keys, ranks = keys[is_hit], shown["rank"].to_numpy()[is_hit].astype(np.int64)
    order = np.lexsort((ranks, keys))
    keys, starts, _lengths = count_runs(keys[order])
    ranks = ranks[order][starts]
    rows = np.searchsorted(customers, keys >> 32)
    order = np.lexsort((ranks, rows))
    return Hits(depth, customers, num_targets, rows[order], ranks[order])
