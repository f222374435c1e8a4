"""Vocabularies: the values of a categorical feature, seen before a cutoff, and the integers that stand for them."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX


def fit_vocabulary(values: Iterable[str | None], *, min_count: int = 1) -> list[str]:
    """Lists the distinct values, sorted; null and empty ones are missing values and get no entry.

    Args:
        values: One a row.
        min_count: Rarer values get no entry.

    >>> fit_vocabulary(["Shoes", None, "Dresses", "Shoes", ""])
    ['Dresses', 'Shoes']
    >>> fit_vocabulary(["Shoes", None, "Dresses", "Shoes", ""], min_count=2)
    ['Shoes']
    """
    counts = Counter(value for value in values if isinstance(value, str) and value)
    return sorted(value for value, count in counts.items() if count >= min_count)


def look_up(values: Iterable[str | None], vocabulary: Sequence[str]) -> np.ndarray:
    """Encodes values as int32: missing ones as padding, unknown ones as out of vocabulary.

    >>> look_up(["Shoes", None, "Hats"], ["Dresses", "Shoes"]).tolist()
    [3, 0, 1]
    """
    series = pd.Series(list(values), dtype=object)
    position = pd.Index(list(vocabulary)).get_indexer(pd.Index(series)) if len(vocabulary) else np.full(len(series), -1)
    index = np.where(position >= 0, position + FIRST_INDEX, OUT_OF_VOCABULARY_INDEX)
    missing = series.isna().to_numpy() | (series == "").to_numpy()
    return np.where(missing, PADDING_INDEX, index).astype(np.int32)
