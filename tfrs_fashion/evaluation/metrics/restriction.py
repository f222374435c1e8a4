"""Restriction: lists that may hold given articles alone, as when only what was bought before may be shown again."""

import numpy as np
import pandas as pd

from tfrs_fashion.evaluation.metrics.hits import contains, pair_keys
from tfrs_fashion.schema import InputError


def restrict(candidates: pd.DataFrame, allowed: np.ndarray | pd.DataFrame) -> pd.DataFrame:
    """Keeps the candidates that are allowed, and ranks them anew.

    Lists become shorter: ask for long ones, or none may be left within the first k.

    Args:
        candidates: Rows of Candidates in any order.
        allowed: article_index of the articles that anybody may be shown, or (`customer_index`, `article_index`)
            pairs of what each customer may be.

    Returns:
        A new table, ordered by customer and rank; ranks are 1, 2, 3, … again. Customers without an allowed candidate
        have no row.

    Raises:
        InputError: A table of pairs lacks a column.
    """
    if isinstance(allowed, pd.DataFrame):
        missing = [name for name in ("customer_index", "article_index") if name not in allowed.columns]
        if missing:
            raise InputError(f"allowed: missing column(s) {', '.join(missing)}; found {list(allowed.columns)}.")
        is_allowed = contains(np.unique(pair_keys(allowed)), pair_keys(candidates))
    else:
        is_allowed = contains(np.unique(allowed), candidates["article_index"].to_numpy())
    kept = candidates.loc[is_allowed].sort_values(["customer_index", "rank"], kind="stable", ignore_index=True)
    rank = kept.groupby("customer_index").cumcount() + 1
    return kept.assign(rank=rank.astype(candidates["rank"].dtype))
