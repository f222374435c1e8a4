"""Sets of values: an article column that holds several values at once, such as `cotton|wool`."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tfrs_fashion.features.vocabulary import fit_vocabulary, look_up
from tfrs_fashion.schema import FIRST_INDEX


@dataclass(frozen=True)
class ValueSets:
    """The sets of all articles, flat.

    Attributes:
        values: `[num_values]` int32 into the vocabulary, each once in a set, ascending; all unknown values of a set are
            one, out of vocabulary.
        row_splits: `[num_articles + 3]` int64, where each article's set begins and ends; those of rows 0 and 1 are empty.
        vocabulary: Index `FIRST_INDEX + i` is value i.
    """

    values: np.ndarray
    row_splits: np.ndarray
    vocabulary: list[str]

    @property
    def num_buckets(self) -> int:
        """Number of indices, padding and out of vocabulary among them."""
        return len(self.vocabulary) + FIRST_INDEX


def make_value_sets(
    texts: Iterable[str | None], *, separator: str, is_sold: np.ndarray, min_articles: int
) -> ValueSets:
    """Splits texts into sets, and fits their vocabulary.

    Args:
        texts: `[num_articles]`; spaces around a value do not matter, and null, empty and blank ones have none.
        separator: What stands between values.
        is_sold: `[num_articles]` bool, the articles whose values may enter the vocabulary.
        min_articles: Values that fewer of these share are out of vocabulary.
    """
    parts = pd.Series(list(texts), dtype=object).str.split(separator, regex=False).explode().dropna().str.strip()
    cells = pd.DataFrame({"row": parts.index.to_numpy(np.int64), "value": parts.to_numpy(object)})
    cells = cells[cells["value"] != ""].drop_duplicates()
    vocabulary = fit_vocabulary(cells.loc[is_sold[cells["row"]], "value"], min_count=min_articles)
    pairs = np.stack([cells["row"], look_up(cells["value"], vocabulary)], axis=1).astype(np.int64)
    pairs = np.unique(pairs, axis=0)
    lengths = np.bincount(pairs[:, 0] + FIRST_INDEX, minlength=len(is_sold) + FIRST_INDEX)
    return ValueSets(pairs[:, 1].astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]), vocabulary)
