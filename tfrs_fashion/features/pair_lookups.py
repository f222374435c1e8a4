"""What features of pairs look up about articles, and the names of these features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.timelines import Timelines
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, OLDEST, YOUNGEST, check_names

# The key of an article itself, beside those of the groups that it belongs to.
ARTICLE = "article"
# Half-lives in days of a key's decayed counts.
HALF_LIVES_DAYS = (15.0, 60.0, 240.0)
# Gaps of a key below which there is no usual one.
MIN_GAPS = 5
# What is told of the history of each key, for a candidate that has it.
KEY_FEATURES = (
    *("times", "share", "days_since", "days_since_first", "mean_gap_days", "gap_ratio", "gap_to_usual"),
    *(f"decayed_{days:.0f}d" for days in HALF_LIVES_DAYS),
)
CUSTOMER_FEATURES = (
    *("num_baskets", "num_articles", "days_since_basket", "basket_gap_days", "articles_per_basket"),
    *("price_paid", "discount_taken", "age"),
)
# Features of an article's weeks that are compared with the customer; see `features.article_weeks.FEATURES`.
COMPARED = ("mean_price", "discount_rate", "age_preference")
PRICE_FEATURES = ("price_to_paid", "discount_gap", "age_gap", "season_share_now")


@dataclass(frozen=True)
class PairLookups:
    """What features of pairs look up; fitted before the cutoff.

    Attributes:
        groups: For each group `[num_articles + 2]` int32, which an article belongs to: NumPy, or variables inside a
            `PairFeatureLayer`; 0 where it belongs to none.
        usual_gap_days: For `ARTICLE` and each group `[size]` float32 by its index, days between two baskets of a customer
            that held it (the geometric mean); NaN where there were too few.
        article: `[num_articles + 2, num_article_features]` float32, as known at the cutoff; NaN where unknown.
        article_names: Of these.
        age_column: Of the numeric profile features, that of the age; None without one.
        mean_age: Of the customers with a visible purchase and a known age; NaN without any.
    """

    groups: dict[str, Any]
    usual_gap_days: dict[str, Any]
    article: Any
    article_names: tuple[str, ...]
    age_column: int | None
    mean_age: float

    @property
    def names(self) -> tuple[str, ...]:
        """Names the columns of `features.pairs.make_pair_features`."""
        keys = [ARTICLE, *self.groups]
        compared = PRICE_FEATURES if set(COMPARED) <= set(self.article_names) else ()
        return (
            *(f"{key} {name}" for key in keys for name in KEY_FEATURES),
            *(f"customer {name}" for name in CUSTOMER_FEATURES),
            *compared,
            *self.article_names,
        )


def make_pair_lookups(view: View, groups: Sequence[str]) -> PairLookups:
    """Fits what features of pairs look up.

    Args:
        view: What may be seen.
        groups: Columns of articles; a history is told of by each, beside the article itself.

    Raises:
        InputError: The articles lack a column.
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
    """Returns the days that usually pass between two baskets of a customer with the same key.

    Args:
        timelines: What is visible.
        index: `[num_articles + 2]` int32, the key of each article; below `FIRST_INDEX` without one.

    Returns:
        `[max(index) + 1]` float32 by key, the geometric mean of the days; NaN where fewer than `MIN_GAPS` are known.
    """
    key = index[timelines.article_index]
    size = int(index.max(initial=0)) + 1
    known = np.flatnonzero(key >= FIRST_INDEX)
    # Timelines are in time order, so a stable sort by customer and key keeps the baskets of each in order.
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
