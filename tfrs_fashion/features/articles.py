"""Article tables: what is known of each article at a cutoff, from the catalogue and from the sales before it."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.data.split import days_before
from tfrs_fashion.features.text import hash_words
from tfrs_fashion.features.vocabulary import fit_vocabulary, look_up
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX, InputError


@dataclass(frozen=True)
class ArticleTable:
    """The articles known before a cutoff, sold or not; arrays are indexed by `article_index`, rows 0 and 1 are empty.

    Attributes:
        article_id: `[num_articles]` object; index `FIRST_INDEX + i` is row i.
        categorical: For each feature `[num_articles + 2]` int32 into its vocabulary.
        vocabulary: For each feature its values; index `FIRST_INDEX + i` is value i.
        price: `[num_articles + 2]` float32, the mean price paid; NaN where unknown.
        description: `[num_articles + 2]` object.
        num_baskets: `[num_articles + 2]` int64, baskets that held the article.
        in_store: Sorted int32 article indices sold in the last days before the cutoff.
    """

    article_id: np.ndarray
    categorical: dict[str, np.ndarray]
    vocabulary: dict[str, list[str]]
    price: np.ndarray
    description: np.ndarray
    num_baskets: np.ndarray
    in_store: np.ndarray

    @property
    def num_articles(self) -> int:
        """Articles known before the cutoff."""
        return len(self.article_id)


def sales_by_article(transactions: ibis.Table) -> pd.DataFrame:
    """Counts the visible sales of each article.

    Returns:
        `article_index, num_baskets, num_buyers, mean_price, last_sold`, ordered by index.
    """
    return (
        transactions.group_by("article_index")
        .agg(
            num_baskets=ibis.struct({"customer": _.customer_index, "basket": _.basket_id}).nunique(),
            num_buyers=_.customer_index.nunique(where=_.customer_index >= FIRST_INDEX),
            mean_price=_.price.mean(),
            last_sold=_.t_dat.max(),
        )
        .order_by("article_index")
        .execute()
    )


def in_store(sales: pd.DataFrame, *, as_of: datetime.datetime, days: int) -> np.ndarray:
    """Returns the sorted int32 indices of articles sold in `days` before `as_of`."""
    recent = sales["last_sold"] >= days_before(as_of, days)
    return np.sort(sales.loc[recent, "article_index"].to_numpy(dtype=np.int32))


def make_article_table(
    articles: ibis.Table,
    transactions: ibis.Table,
    *,
    as_of: datetime.datetime,
    categorical: Sequence[str],
    in_store_days: int,
) -> ArticleTable:
    """Makes the article table of a cutoff.

    Args:
        articles: Indexed articles.
        transactions: The visible transactions only.
        as_of: The cutoff.
        categorical: Columns of `articles` to encode.
        in_store_days: See `in_store`.

    Raises:
        InputError: `articles` lacks a categorical column.
    """
    missing = [name for name in categorical if name not in articles.columns]
    if missing:
        raise InputError(
            f"features.categorical: the articles table has no column(s) {', '.join(f'`{name}`' for name in missing)}; "
            f"found {', '.join(f'`{name}`' for name in articles.columns)}."
        )
    sales = sales_by_article(transactions)
    catalogue = (
        articles.filter(_.known_from.isnull() | (_.known_from < ibis.literal(as_of)))
        .select("article_id", "description", "article_index", **{name: _[name].cast("string") for name in categorical})
        .order_by("article_index")
        .execute()
    )
    size = len(catalogue) + FIRST_INDEX
    rows = catalogue["article_index"].to_numpy()
    sold = sales["article_index"].to_numpy()
    encoded, vocabulary = {}, {}
    for name in categorical:
        vocabulary[name] = fit_vocabulary(catalogue[name])
        encoded[name] = np.zeros(size, dtype=np.int32)
        encoded[name][rows] = look_up(catalogue[name], vocabulary[name])
    price = np.full(size, np.nan, dtype=np.float32)
    price[sold] = sales["mean_price"].to_numpy(dtype=np.float32)
    description = np.full(size, "", dtype=object)
    description[rows] = catalogue["description"].fillna("").to_numpy()
    num_baskets = np.zeros(size, dtype=np.int64)
    num_baskets[sold] = sales["num_baskets"].to_numpy()
    return ArticleTable(
        article_id=catalogue["article_id"].to_numpy(dtype=object),
        categorical=encoded,
        vocabulary=vocabulary,
        price=price,
        description=description,
        num_baskets=num_baskets,
        in_store=in_store(sales, as_of=as_of, days=in_store_days),
    )


def content_embedding(articles: ibis.Table, *, categorical: Sequence[str], dim: int = 64) -> np.ndarray:
    """Embeds the categorical features of all articles by a fixed random projection of their one-hot encoding.

    It depends on the catalogue alone, so that the diversity of all recommenders is measured with one ruler.

    Args:
        articles: Indexed articles.
        categorical: Columns to embed.
        dim: Width.

    Returns:
        `[num_articles + 2, dim]` float32 with rows of length 1; zeros where all features are missing.
    """
    columns = {name: articles[name].cast("string") for name in categorical}
    catalogue = articles.select("article_index", **columns).order_by("article_index").execute()
    embedding = np.zeros((len(catalogue) + FIRST_INDEX, dim), dtype=np.float32)
    random = np.random.default_rng(0)
    for name in categorical:
        vocabulary = fit_vocabulary(catalogue[name])
        table = random.normal(size=(len(vocabulary) + FIRST_INDEX, dim)).astype(np.float32)
        table[:FIRST_INDEX] = 0.0
        embedding[catalogue["article_index"].to_numpy()] += table[look_up(catalogue[name], vocabulary)]
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    return np.divide(embedding, length, out=embedding, where=length > 0)


@dataclass(frozen=True)
class ContentValues:
    """What an article is made of, as one set of integers, so that one embedding table serves all features.

    Attributes:
        values: `[num_values]` int32, flat.
        row_splits: `[num_articles + 3]` int64, where the values of each `article_index` begin and end.
        size: One more than the largest value there can be.
    """

    values: np.ndarray
    row_splits: np.ndarray
    size: int


def make_content_values(table: ArticleTable, *, num_text_buckets: int, num_price_bins: int = 20) -> ContentValues:
    """Joins categorical values, the price's quantile bin and the hashed words of the description.

    Missing values add nothing; a value that the vocabulary lacks adds the feature's own entry for that.

    Args:
        table: Of the cutoff.
        num_text_buckets: Hash buckets of the description; 0 leaves it out.
        num_price_bins: Bins of equal counts.
    """
    size = table.num_articles + FIRST_INDEX
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    offset = 0
    for name, index in table.categorical.items():
        rows = np.flatnonzero(index != PADDING_INDEX)
        parts.append((rows, index[rows] + offset))
        offset += len(table.vocabulary[name]) + FIRST_INDEX
    priced = np.flatnonzero(np.isfinite(table.price))
    if len(priced):
        edges = np.unique(np.quantile(table.price[priced], np.linspace(0, 1, num_price_bins + 1)[1:-1]))
        parts.append((priced, np.searchsorted(edges, table.price[priced]) + offset))
        offset += num_price_bins
    if num_text_buckets:
        words = hash_words(table.description.tolist(), num_buckets=num_text_buckets)
        parts.append((words.value_rowids().numpy(), words.flat_values.numpy() + offset))
        offset += num_text_buckets
    rows = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
    values = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int64)
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=size)
    return ContentValues(values[order].astype(np.int32), np.concatenate([[0], np.cumsum(counts)]), max(offset, 1))
