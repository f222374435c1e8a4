"""Near misses: another colour of the article that was bought, or another article of its category, is not a plain miss.

A hit is then the same group instead of the same article. A group that a customer bought from is one target, however many
of its articles were bought, and is hit once, at the best rank of any of its articles; the other articles of the group stay
in their places of the list and hit nothing.
"""

import numpy as np
import pandas as pd

from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX

GROUP_COLUMN = "group_index"


def index_groups(values: pd.Series) -> np.ndarray:
    """Numbers the groups of articles, such as product codes.

    Args:
        values: `[num_articles]`, the value of each article in the order of article_index; null where unknown.

    Returns:
        int32 `[num_articles + 2]`, from `FIRST_INDEX`; an article whose value is unknown is a group of its own.
    """
    codes, known = pd.factorize(values)
    is_unknown = codes < 0
    codes[is_unknown] = len(known) + np.arange(is_unknown.sum())
    return np.concatenate([np.arange(FIRST_INDEX), codes + FIRST_INDEX]).astype(np.int32)


def add_groups(frame: pd.DataFrame, groups: np.ndarray) -> pd.DataFrame:
    """Adds the group of each row's article as `GROUP_COLUMN`.

    Args:
        frame: A column `article_index`; what lies beyond the known articles has no group and is never hit.
        groups: See `index_groups`.

    Returns:
        A new frame.
    """
    article_index = frame["article_index"].to_numpy()
    is_known = article_index < len(groups)
    return frame.assign(
        **{GROUP_COLUMN: np.where(is_known, groups[np.where(is_known, article_index, 0)], PADDING_INDEX)}
    )
