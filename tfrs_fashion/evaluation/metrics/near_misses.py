"""Near misses: recommending another colour of the purchased article, or another article of its category.

A hit is then the same group instead of the same article. A group from which a customer bought is one target, however many
of its articles were bought. It is hit once, at the best rank of any of its articles; its other articles keep their places
in the list and count as misses.
"""

import numpy as np
import pandas as pd

from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX

GROUP_COLUMN = "group_index"


def index_groups(values: pd.Series) -> np.ndarray:
    """Numbers the groups of articles, such as product codes.

    Args:
        values: `[num_articles]`, the value of each article by article_index; null where unknown.

    Returns:
        int32 `[num_articles + 2]`, from `FIRST_INDEX`; an article whose value is unknown forms its own group.
    """
    codes, known = pd.factorize(values)
    is_unknown = codes < 0
    codes[is_unknown] = len(known) + np.arange(is_unknown.sum())
    return np.concatenate([np.arange(FIRST_INDEX), codes + FIRST_INDEX]).astype(np.int32)


def add_groups(frame: pd.DataFrame, groups: np.ndarray) -> pd.DataFrame:
    """Adds the group of each row's article as `GROUP_COLUMN`.

    Args:
        frame: A table with the column `article_index`; an index beyond the known articles has no group and is never hit.
        groups: int32 `[num_articles + 2]` from `index_groups`.

    Returns:
        A copy with the column.
    """
    article_index = frame["article_index"].to_numpy()
    is_known = article_index < len(groups)
    return frame.assign(
        **{GROUP_COLUMN: np.where(is_known, groups[np.where(is_known, article_index, 0)], PADDING_INDEX)}
    )
