"""Article tables: the features of each article at a cutoff, from the catalogue and from the sales before the cutoff."""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.data.split import days_before
from tfrs_fashion.features.vocabulary import ValueSets, fit_vocabulary, look_up, make_value_sets
from tfrs_fashion.schema import FIRST_INDEX, InputError, check_names

_CHUNK = 10_000


@dataclass(frozen=True)
class ArticleTable:
    """The articles known before a cutoff, sold or not. Arrays are indexed by `article_index`; rows 0 and 1 are empty.

    Attributes:
        article_id: `[num_articles]` object; row i has the article index `FIRST_INDEX + i`.
        categorical: `[num_articles + 2]` int32 indices into the vocabulary, by feature.
        vocabulary: The values of each categorical feature; value i has the index `FIRST_INDEX + i`.
        numbers: `[num_articles + 2]` float32 by numeric feature, NaN where missing.
        vectors: `[num_articles + 2, any]` float32, precomputed embeddings of images and descriptions; zeros where missing.
        num_baskets: `[num_articles + 2]` int64, number of baskets that contain the article.
        in_store: Sorted int32 indices of the articles that may be recommended; see `make_article_table`.
        never_sold: Sorted int32 indices of the articles that the catalogue lists and nobody has bought.
        sets: The values of each article, by feature that holds several values per article.
    """

    article_id: np.ndarray
    categorical: dict[str, np.ndarray]
    vocabulary: dict[str, list[str]]
    numbers: dict[str, np.ndarray]
    vectors: np.ndarray
    num_baskets: np.ndarray
    in_store: np.ndarray
    never_sold: np.ndarray
    sets: dict[str, ValueSets] = field(default_factory=dict)

    @property
    def num_articles(self) -> int:
        """Number of articles known before the cutoff."""
        return len(self.article_id)

    @property
    def category_sizes(self) -> list[int]:
        """Number of indices of each categorical feature, including padding and out of vocabulary."""
        return [len(values) + FIRST_INDEX for values in self.vocabulary.values()]

    def category_matrix(self) -> np.ndarray:
        """Returns the categorical features side by side: `[num_articles + 2, num_features]` int32."""
        return _matrix(self.categorical, len(self.num_baskets), np.int32)

    def number_matrix(self) -> np.ndarray:
        """Returns the numeric features side by side: `[num_articles + 2, num_features]` float32."""
        return _matrix(self.numbers, len(self.num_baskets), np.float32)


def read_values(articles: ibis.Table, column: str) -> Iterator[str | None]:
    """Yields the values of a column in the order of `article_index`; only a chunk at a time becomes Python strings.

    The query finishes before the first value is yielded, because DuckDB cannot run another query while one is being read.
    """
    values = articles.order_by("article_index").select(column).to_pyarrow()[column]
    chunks = (values.slice(start, _CHUNK) for start in range(0, len(values), _CHUNK))
    return (value for chunk in chunks for value in chunk.to_pylist())


def _matrix(columns: dict[str, np.ndarray], num_rows: int, dtype: type) -> np.ndarray:
    return np.stack([*columns.values()], axis=1) if columns else np.zeros((num_rows, 0), dtype)


def check_product_codes(articles: ibis.Table, *, recommender: str) -> None:
    """Checks that the articles have product codes.

    Raises:
        InputError: No article has a `product_code`.
    """
    if "product_code" not in articles.columns or not int(articles.product_code.count().execute()):
        raise InputError(
            f"{recommender}: the articles have no `product_code`, the design that an article shares with its other colours. "
            f"Map a column to it, or leave {recommender} out of `recommenders`."
        )


def sales_by_article(transactions: ibis.Table) -> pd.DataFrame:
    """Aggregates the visible sales of each article.

    Returns:
        `article_index, num_baskets, num_buyers, mean_price, last_sold`, ordered by `article_index`.
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


def check_article_columns(
    articles: ibis.Table, *, categorical: Sequence[str], numbers: Sequence[str], sets: Sequence[str]
) -> None:
    """Checks that the articles have the columns to encode.

    Raises:
        InputError: `articles` lacks a column, or one of `numbers` is not numeric.
    """
    check_names(articles, categorical, setting="features.categorical", where="articles")
    check_names(articles, numbers, setting="features.numbers", where="articles", is_numeric=True)
    check_names(articles, sets, setting="features.sets", where="articles")


def availability(articles: ibis.Table) -> dict[str, ibis.Value]:
    """Returns `available_from` and `available_to` as timestamps; null where the catalogue has none."""
    return {
        name: (articles[name] if name in articles.columns else ibis.null("timestamp")).cast("timestamp")
        for name in ("available_from", "available_to")
    }


def listed_availability(
    catalogue: pd.DataFrame, *, start: datetime.datetime, end: datetime.datetime
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which articles have availability dates, and which of all articles these dates do not exclude.

    Args:
        catalogue: Articles with the columns of `availability`.
        start: Beginning of the period, inclusive.
        end: End of the period, exclusive; equal to `start` for a single instant.

    Returns:
        `[num_rows]` bool, whether either date is known; and `[num_rows]` bool, whether the article may have been available
        at some time of the period (also True where no date is known).
    """
    begins, ends = catalogue["available_from"], catalogue["available_to"]
    has_dates = (begins.notna() | ends.notna()).to_numpy()
    return has_dates, ~((begins >= end) | (ends < start)).to_numpy()


def make_article_table(
    articles: ibis.Table,
    transactions: ibis.Table,
    *,
    as_of: datetime.datetime,
    categorical: Sequence[str],
    numbers: Sequence[str] = (),
    sets: Sequence[str] = (),
    set_separator: str = "|",
    min_articles: int = 2,
    in_store_days: int,
    never_sold_in_store: bool = False,
) -> ArticleTable:
    """Makes the article table at a cutoff.

    The availability dates decide whether an article is in store. An article without dates is in store if it was sold within
    `in_store_days` before the cutoff. An article that was never sold may be recommended as new unless its dates exclude it.

    Args:
        articles: Indexed articles.
        transactions: The transactions before the cutoff, and no others.
        as_of: The cutoff.
        categorical: Categorical columns of `articles` to encode.
        numbers: Numeric columns of `articles`.
        sets: Columns of `articles` that hold several values per article.
        set_separator: Separator between these values.
        min_articles: Minimum number of sold articles that share a value; rarer values are out of vocabulary. The value of a
            single article teaches a model nothing that the article's id does not.
        in_store_days: Days before the cutoff in which a sale keeps an article without dates in store.
        never_sold_in_store: Whether articles without dates that were never sold are in store as well.

    Raises:
        InputError: `articles` lacks a column, or one of `numbers` is not numeric.
    """
    check_article_columns(articles, categorical=categorical, numbers=numbers, sets=sets)
    sales = sales_by_article(transactions)
    catalogue = (
        articles.filter(_.known_from.isnull() | (_.known_from < ibis.literal(as_of)))
        .select(
            "article_id",
            "article_index",
            **{name: _[name].cast("string") for name in categorical},
            **{f"number {name}": _[name].cast("float64") for name in numbers},
            **{f"set {name}": _[name].cast("string") for name in sets},
            **availability(articles),
        )
        .order_by("article_index")
        .execute()
    )
    size = len(catalogue) + FIRST_INDEX
    sold = sales["article_index"].to_numpy()
    num_baskets = np.zeros(size, dtype=np.int64)
    num_baskets[sold] = sales["num_baskets"].to_numpy()
    is_sold = num_baskets[FIRST_INDEX:] > 0
    encoded, vocabulary = {}, {}
    for name in categorical:
        vocabulary[name] = fit_vocabulary(catalogue.loc[is_sold, name], min_count=min_articles)
        encoded[name] = _with_padding(look_up(catalogue[name], vocabulary[name]), 0)
    recent = np.zeros(size, dtype=bool)
    recent[sold] = (sales["last_sold"] >= days_before(as_of, in_store_days)).to_numpy()
    has_dates, is_available = listed_availability(catalogue, start=as_of, end=as_of)
    in_store = np.where(has_dates, is_available, recent[FIRST_INDEX:] | (never_sold_in_store & ~is_sold))
    return ArticleTable(
        article_id=catalogue["article_id"].to_numpy(dtype=object),
        categorical=encoded,
        vocabulary=vocabulary,
        numbers={name: _with_padding(catalogue[f"number {name}"].to_numpy(np.float32), np.nan) for name in numbers},
        vectors=np.zeros((size, 0), np.float32),
        num_baskets=num_baskets,
        in_store=_indices(in_store),
        never_sold=_indices(~is_sold & is_available),
        sets={
            name: make_value_sets(
                catalogue[f"set {name}"], separator=set_separator, is_sold=is_sold, min_articles=min_articles
            )
            for name in sets
        },
    )


def _with_padding(values: np.ndarray, fill: object) -> np.ndarray:
    return np.concatenate([np.full(FIRST_INDEX, fill, dtype=values.dtype), values])


def _indices(is_selected: np.ndarray) -> np.ndarray:
    return (np.flatnonzero(is_selected) + FIRST_INDEX).astype(np.int32)


def content_embedding(articles: ibis.Table, *, categorical: Sequence[str], dim: int = 64) -> np.ndarray:
    """Embeds the categorical features of all articles by a fixed random projection of their one-hot encoding.

    It depends on the catalogue alone, never on a model, so that the diversity of different recommenders is comparable.

    Args:
        articles: Indexed articles.
        categorical: Columns to embed.
        dim: Width of the embedding.

    Returns:
        `[num_articles + 2, dim]` float32 with rows of unit length; zeros where all features are missing.
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
