"""Sparse matrices of purchases (by basket or customer, and article), for neighbours, factorization and graph filters.

They come from the visible timelines, so nothing at or after a cutoff enters them. Anonymous purchases have no timeline and
are left out.
"""

import numpy as np
from scipy.sparse import csr_matrix

from tfrs_fashion.data.split import days_before, seconds_since_1970
from tfrs_fashion.features.articles import availability, listed_availability
from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX


def num_article_indices(view: View) -> int:
    """Returns the width of matrices by `article_index`: the articles known, padding and out of vocabulary."""
    return view.articles.num_articles + FIRST_INDEX


def number_baskets(view: View) -> np.ndarray:
    """Returns the basket number of each event; baskets are numbered in the order of the timelines.

    Returns:
        `[num_events]` int64, ascending; events of a customer at one instant share a number.
    """
    return np.cumsum(view.timelines.starts_basket) - 1


def age_days(view: View) -> np.ndarray:
    """Returns the days from each event to the cutoff: `[num_events]` float64."""
    return (seconds_since_1970(view.split.as_of) - view.timelines.time) / SECONDS_PER_DAY


def _distinct(row: np.ndarray, column: np.ndarray, *, shape: tuple[int, int]) -> csr_matrix:
    matrix = csr_matrix((np.ones(len(row), np.float32), (row, column)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def basket_matrix(view: View, *, days: float | None = None) -> csr_matrix:
    """Returns which basket contains which article.

    Args:
        view: What the fit may see.
        days: Maximum age of baskets in days; the rows of older ones are empty. None keeps all.

    Returns:
        `[num_baskets, num_articles + 2]` float32, 1 where the basket contains the article.
    """
    basket = number_baskets(view)
    shape = (int(basket[-1]) + 1 if len(basket) else 0, num_article_indices(view))
    kept = np.ones(len(basket), bool) if days is None else age_days(view) <= days
    return _distinct(basket[kept], view.timelines.article_index[kept], shape=shape)


def customer_matrix(view: View, *, half_life_days: float | None = None) -> csr_matrix:
    """Returns the weight of each article for each customer: the sum over baskets of 0.5 ** (age / half-life).

    Args:
        view: What the fit may see.
        half_life_days: Half-life of a basket's weight in days; None counts baskets without decay.

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
    """Returns for each basket the weighted articles of the customer's baskets before it, without its own.

    Args:
        view: What the fit may see.
        num_baskets: Number of earlier baskets that are read.
        half_life_days: Days between two baskets after which the earlier one weighs half.

    Returns:
        `[num_baskets, num_articles + 2]` float32, the sum of the weights of the earlier baskets with the article.
    """
    baskets = basket_matrix(view)
    first = np.flatnonzero(view.timelines.starts_basket)
    number = np.arange(len(first))
    row, day = view.timelines.row[first], view.timelines.time[first] / SECONDS_PER_DAY
    later, earlier, weight = [], [], []
    for back in range(1, num_baskets + 1):
        # Baskets are numbered by customer, then time: `back` rows earlier is an earlier basket if the customer is the same.
        same = np.flatnonzero(row[back:] == row[:-back])
        later.append(same + back)
        earlier.append(same)
        weight.append(0.5 ** ((day[same + back] - day[same]) / half_life_days))
    data = np.concatenate(weight).astype(np.float32) if weight else np.zeros(0, np.float32)
    cells = (np.concatenate(later), np.concatenate(earlier)) if weight else (number, number)
    return csr_matrix((data, cells), shape=(len(number), len(number))) @ baskets


def list_in_store_by_week(view: View, *, num_weeks: int, in_store_days: int) -> tuple[np.ndarray, np.ndarray]:
    """Lists the articles that were in store in each of the last weeks.

    As in `make_article_table`, the availability dates decide; an article without dates was in store if it was sold in the
    week or within `in_store_days` before it.

    Args:
        view: What the fit may see; sales are those of customers with timelines.
        num_weeks: Number of weeks before the cutoff.
        in_store_days: Days before the start of a week in which a sale keeps an article in store.

    Returns:
        `[num_weeks + 1]` int64 row splits of the weeks, the last week before the cutoff first; and `[num_in_store]` int32
        article indices. For a week without any article in store, all articles ever sold.
    """
    size = num_article_indices(view)
    articles = view.tables.articles
    catalogue = articles.select("article_index", **availability(articles)).execute()
    catalogue = catalogue[catalogue["article_index"] < size]
    listed = catalogue["article_index"].to_numpy()
    # Whole days suffice, and several sales of an article in a day say no more than one.
    pair = np.unique(np.ceil(age_days(view)).astype(np.int64) * size + view.timelines.article_index)
    age, article = pair // size, (pair % size).astype(np.int32)
    known = article >= FIRST_INDEX
    in_store_by_week = []
    for week in range(num_weeks):
        last, first = week * view.week_days, (week + 1) * view.week_days
        in_store = np.zeros(size, bool)
        in_store[article[(age > last) & (age <= first + in_store_days) & known]] = True
        start, end = (days_before(view.split.as_of, days) for days in (first, last))
        has_dates, is_available = listed_availability(catalogue, start=start, end=end)
        in_store[listed[has_dates]] = is_available[has_dates]
        if not in_store.any():
            in_store[article[known]] = True
        in_store_by_week.append(np.flatnonzero(in_store).astype(np.int32))
    splits = np.concatenate([[0], np.cumsum([len(index) for index in in_store_by_week])]).astype(np.int64)
    return splits, np.concatenate(in_store_by_week)
