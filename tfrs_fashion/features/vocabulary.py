"""Vocabularies: the distinct values of a categorical feature that were seen before a cutoff, and their integer indices.

A cell may hold one value, or several at once (`cotton|wool`); see `ValueSets`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX


def fit_vocabulary(values: Iterable[str | None], *, min_count: int = 1) -> list[str]:
    """Returns the distinct values, sorted; null and empty values are missing values and get no entry.

    Args:
        values: One value per row.
        min_count: Minimum number of rows with a value; rarer values get no entry.

    >>> fit_vocabulary(["Shoes", None, "Dresses", "Shoes", ""])
    ['Dresses', 'Shoes']
    >>> fit_vocabulary(["Shoes", None, "Dresses", "Shoes", ""], min_count=2)
    ['Shoes']
    """
    counts = Counter(value for value in values if isinstance(value, str) and value)
    return sorted(value for value, count in counts.items() if count >= min_count)


def look_up(values: Iterable[str | None], vocabulary: Sequence[str]) -> np.ndarray:
    """Encodes values as int32 indices: missing values as padding, unknown ones as out of vocabulary.

    >>> look_up(["Shoes", None, "Hats"], ["Dresses", "Shoes"]).tolist()
    [3, 0, 1]
    """
    series = pd.Series(list(values), dtype=object)
    position = pd.Index(list(vocabulary)).get_indexer(pd.Index(series)) if len(vocabulary) else np.full(len(series), -1)
    index = np.where(position >= 0, position + FIRST_INDEX, OUT_OF_VOCABULARY_INDEX)
    missing = series.isna().to_numpy() | (series == "").to_numpy()
    return np.where(missing, PADDING_INDEX, index).astype(np.int32)


@dataclass(frozen=True)
class ValueSets:
    """The sets of values of all articles, stored flat.

    Attributes:
        values: `[num_values]` int32 indices into the vocabulary, ascending and distinct within a set; all unknown values of
            a set share one out-of-vocabulary entry.
        row_splits: `[num_articles + 3]` int64, where each article's set begins and ends; the sets of rows 0 and 1 are empty.
        vocabulary: The values; value i has the index `FIRST_INDEX + i`.
    """

    values: np.ndarray
    row_splits: np.ndarray
    vocabulary: list[str]

    @property
    def num_buckets(self) -> int:
        """Number of indices, including padding and out of vocabulary."""
        return len(self.vocabulary) + FIRST_INDEX


def make_value_sets(
    texts: Iterable[str | None], *, separator: str, is_sold: np.ndarray, min_articles: int
) -> ValueSets:
    """Splits texts into sets of values and fits their vocabulary.

    Args:
        texts: `[num_articles]` str or null; null and blank texts have no values, and spaces around a value are ignored.
        separator: Separator between values.
        is_sold: `[num_articles]` bool, the articles from which the vocabulary is fitted.
        min_articles: Minimum number of these articles that share a value; rarer values are out of vocabulary.
    """
    values = pd.Series(list(texts), dtype=object).str.split(separator, regex=False).explode().dropna().str.strip()
    cells = pd.DataFrame({"row": values.index.to_numpy(np.int64), "value": values.to_numpy(object)})
    cells = cells[cells["value"] != ""].drop_duplicates()
    vocabulary = fit_vocabulary(cells.loc[is_sold[cells["row"]], "value"], min_count=min_articles)
    pairs = np.stack([cells["row"], look_up(cells["value"], vocabulary)], axis=1).astype(np.int64)
    pairs = np.unique(pairs, axis=0)
    lengths = np.bincount(pairs[:, 0] + FIRST_INDEX, minlength=len(is_sold) + FIRST_INDEX)
    return ValueSets(pairs[:, 1].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]), vocabulary)
