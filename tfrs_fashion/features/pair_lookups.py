"""Lookup tables of the pair features, fitted before a cutoff, and the names of these features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, OLDEST, YOUNGEST, check_names

# The kind of key that is the article itself; the other kinds are the groups that articles belong to.
ARTICLE = "article"
# Half-lives in days of the decayed counts of a key.
HALF_LIVES_DAYS = (15.0, 60.0, 240.0)
# Minimum number of gaps between purchases of a key from which a usual gap is estimated.
MIN_GAPS = 5
# Features of each key of a candidate: when and how often the history contains the key.
KEY_FEATURES = (
    *("times", "share", "days_since", "days_since_first", "mean_gap_days", "gap_ratio", "gap_to_usual"),
    *(f"decayed_{days:.0f}d" for days in HALF_LIVES_DAYS),
)
CUSTOMER_FEATURES = (
    *("num_baskets", "num_articles", "days_since_basket", "basket_gap_days", "articles_per_basket"),
    *("price_paid", "discount_taken", "age"),
)
# Weekly article features that are compared with the customer; see `features.article_weeks.FEATURES`.
COMPARED = ("mean_price", "discount_rate", "age_preference")
PRICE_FEATURES = ("price_to_paid", "discount_gap", "age_gap", "season_share_now")


@dataclass(frozen=True)
class PairLookups:
    """What the pair features look up about articles; fitted before the cutoff.

    Attributes:
        groups: `[num_articles + 2]` int32 index of each article's group, by column of groups; 0 where it has none. NumPy arrays,
            or variables inside a `PairFeatureLayer`.
        usual_gap_days: `[num_keys]` float32 by kind of key (`ARTICLE` and each column of groups): the geometric mean of the
            days between two baskets of a customer with the key; NaN where there were too few.
        article: `[num_articles + 2, num_article_features]` float32, the article features at the cutoff; NaN where unknown.
        article_names: The names of the article features.
        age_column: Position of the age among the numeric profile features; None if there is none.
        mean_age: Mean age of the customers with a visible purchase and a known age; NaN if there are none.
    """

    groups: dict[str, Any]
    usual_gap_days: dict[str, Any]
    article: Any
    article_names: tuple[str, ...]
    age_column: int | None
    mean_age: float

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns of `features.pairs.make_pair_features`."""
        keys = [ARTICLE, *self.groups]
        compared = PRICE_FEATURES if set(COMPARED) <= set(self.article_names) else ()
        return (
            *(f"{key} {name}" for key in keys for name in KEY_FEATURES),
            *(f"customer {name}" for name in CUSTOMER_FEATURES),
            *compared,
            *self.article_names,
        )


def make_pair_lookups(view: View, groups: Sequence[str]) -> PairLookups:
    """Fits the lookups of the pair features.

    Args:
        view: What the fit may see.
        groups: Columns of articles by which purchases are described, in addition to the article itself.

    Raises:
        InputError: The articles lack one of the columns.
    """
    size = view.articles.num_articles + FIRST_INDEX
    articles = view.tables.articles
    check_names(articles, list(groups), setting="groups", where="articles")
    table = articles.select("article_index", *groups).execute()
    table = table[table["article_index"] < size]
    indices = {}
    for name in groups:
        index = np.zeros(size, np.int32)
        codes, _values = pd.factorize(table[name].astype("string"), sort=True)
        index[table["article_index"]] = codes + FIRST_INDEX
        index[index < FIRST_INDEX] = 0
        indices[name] = index
    weeks = view.read_weeks(1)
    names = list(view.timelines.profile_numbers)
    age_column = names.index("age") if "age" in names else None
    ages = np.zeros(0)
    if age_column is not None:
        has_bought = np.flatnonzero(np.diff(view.timelines.row_splits) > 0) + FIRST_INDEX
        ages = view.profiles.numbers[has_bought, age_column].astype(np.float64)
        ages = ages[(ages >= YOUNGEST) & (ages <= OLDEST)]
    keys = {ARTICLE: np.arange(size, dtype=np.int32), **indices}
    return PairLookups(
        groups=indices,
        usual_gap_days={name: usual_gap_days(view.timelines, index) for name, index in keys.items()},
        article=weeks.values[0],
        article_names=weeks.names,
        age_column=age_column,
        mean_age=float(ages.mean()) if len(ages) else float("nan"),
    )


def usual_gap_days(timelines: Timelines, index: np.ndarray) -> np.ndarray:
    """Returns the usual number of days between two baskets of a customer with the same key.

    Args:
        timelines: The visible timelines.
        index: `[num_articles + 2]` int32, the key of each article; below `FIRST_INDEX` if it has none.

    Returns:
        `[max(index) + 1]` float32 by key, the geometric mean of the days: gaps are skewed, and a few long ones would dominate
        the arithmetic mean. NaN where fewer than `MIN_GAPS` gaps are known.
    """
    key = index[timelines.article_index]
    size = int(index.max(initial=0)) + 1
    known = np.flatnonzero(key >= FIRST_INDEX)
    # Timelines are in time order, so after a stable sort by customer and key each pair's baskets are still in order.
    pair = timelines.row[known] * size + key[known]
    order = np.argsort(pair, kind="stable")
    pair, time = pair[order], timelines.time[known][order]
    days = np.diff(time) / SECONDS_PER_DAY
    is_gap = (np.diff(pair) == 0) & (days > 0)
    of_key = pair[1:][is_gap] % size
    count = np.bincount(of_key, minlength=size)
    total = np.bincount(of_key, weights=np.log(days[is_gap]), minlength=size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count >= MIN_GAPS, np.exp(total / count), np.nan).astype(np.float32)
