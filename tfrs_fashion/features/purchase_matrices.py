"""Purchases as sparse matrices: what neighbours, factors and graphs are counted from.

Everything comes from the visible timelines, so whatever is made here has seen nothing at or after a cutoff. Anonymous
lines have no timeline and no part in it.
"""

import numpy as np
from scipy.sparse import csr_matrix

from tfrs_fashion.data.split import days_before, seconds_since_1970
from tfrs_fashion.features.articles import availability, listed_availability
from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX


def num_article_indices(view: View) -> int:
    """Returns the width of matrices by `article_index`: all articles known, padding and out of vocabulary included."""
    return view.articles.num_articles + FIRST_INDEX


def number_baskets(view: View) -> np.ndarray:
    """Numbers the baskets of all customers in the order of the timelines.

    Returns:
        `[num_events]` int64, ascending; events of one customer at one instant share a number.
    """
    return np.cumsum(view.timelines.starts_basket) - 1


def age_days(view: View) -> np.ndarray:
    """Returns `[num_events]` float64, days between each event and the cutoff."""
    return (seconds_since_1970(view.split.as_of) - view.timelines.time) / SECONDS_PER_DAY


def _distinct(row: np.ndarray, column: np.ndarray, *, shape: tuple[int, int]) -> csr_matrix:
    matrix = csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def basket_matrix(view: View, *, days: float | None = None) -> csr_matrix:
    """Tells which basket held which article.

    Args:
        view: What may be seen.
        days: Baskets older than this are left out (their rows are empty); None for all.

    Returns:
        `[num_baskets, num_articles + 2]` float32 of ones.
    """
    basket = number_baskets(view)
    shape = (int(basket[-1]) + 1 if len(basket) else 0, num_article_indices(view))
    kept = np.ones(len(basket), bool) if days is None else age_days(view) <= days
    return _distinct(basket[kept], view.timelines.article_index[kept], shape=shape)


def customer_matrix(view: View, *, half_life_days: float | None = None) -> csr_matrix:
    """Weighs each customer and article by their baskets, which lose half their weight in a half-life.

    Args:
        view: What may be seen.
        half_life_days: None for a plain count of baskets.

    Returns:
        `[num_customers + 2, num_articles + 2]` float32 by `customer_index` and `article_index`.
    """
    baskets = basket_matrix(view)
    first = np.flatnonzero(view.timelines.starts_basket)
    number = np.arange(len(first))
    customer = view.timelines.row[first] + FIRST_INDEX
    weight = np.ones(len(number))
    if half_life_days is not None:
        weight = 0.5 ** (age_days(view)[first] / half_life_days)
    shape = (view.timelines.num_customers + FIRST_INDEX, len(number))
    summed = csr_matrix((weight.astype(np.float32), (customer, number)), shape=shape)
    return summed @ baskets


def previous_baskets(view: View, *, num_baskets: int, half_life_days: float) -> csr_matrix:
    """Gathers for each basket the articles of the customer's baskets before it.

    Args:
        view: What may be seen.
        num_baskets: How many baskets back.
        half_life_days: Days between two baskets at which the former weighs half.

    Returns:
        `[num_baskets, num_articles + 2]` float32, an article's weights added up.
    """
    baskets = basket_matrix(view)
    first = np.flatnonzero(view.timelines.starts_basket)
    number = np.arange(len(first))
    row, day = view.timelines.row[first], view.timelines.time[first] / SECONDS_PER_DAY
    later, earlier, weight = [], [], []
    for back in range(1, num_baskets + 1):
        same = np.flatnonzero(row[back:] == row[:-back])
        later.append(same + back)
        earlier.append(same)
        weight.append(0.5 ** ((day[same + back] - day[same]) / half_life_days))
    data = np.concatenate(weight).astype(np.float32) if weight else np.zeros(0, np.float32)
    where = (np.concatenate(later), np.concatenate(earlier)) if weight else (number, number)
    return csr_matrix((data, where), shape=(len(number), len(number))) @ baskets


def list_in_store_by_week(view: View, *, num_weeks: int, in_store_days: int) -> tuple[np.ndarray, np.ndarray]:
    """Tells which articles were in store in each of the last weeks.

    As at the cutoff, the catalogue's dates say so; where it gives none, what was sold in the week or in the days before it.

    Args:
        view: What may be seen; sales are those of its customers with timelines.
        num_weeks: Weeks before the cutoff.
        in_store_days: Days before a week's first instant in which a sale keeps an article in store.

    Returns:
        `[num_weeks + 1]` int64, where each week's articles begin, the last week first; and `[any]` int32 articles. A week in
        which nothing was in store has everything that was ever sold.
    """
    size = num_article_indices(view)
    articles = view.tables.articles
    catalogue = articles.select("article_index", **availability(articles)).execute()
    catalogue = catalogue[catalogue["article_index"] < size]
    listed = catalogue["article_index"].to_numpy()
    # An article sold often in a day is in store once.
    pair = np.unique(np.ceil(age_days(view)).astype(np.int64) * size + view.timelines.article_index)
    age, article = pair // size, (pair % size).astype(np.int32)
    known = article >= FIRST_INDEX
    found = []
    for week in range(num_weeks):
        last, first = week * view.week_days, (week + 1) * view.week_days
        in_store = np.zeros(size, bool)
        in_store[article[(age > last) & (age <= first + in_store_days) & known]] = True
        start, end = (days_before(view.split.as_of, days) for days in (first, last))
        is_told, is_available = listed_availability(catalogue, start=start, end=end)
        in_store[listed[is_told]] = is_available[is_told]
        if not in_store.any():
            in_store[article[known]] = True
        found.append(np.flatnonzero(in_store).astype(np.int32))
    splits = np.concatenate([[0], np.cumsum([len(sold) for sold in found])]).astype(np.int64)
    return splits, np.concatenate(found)
