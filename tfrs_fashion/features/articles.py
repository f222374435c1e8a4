"""Article tables: what is known of each article at a cutoff, from the catalogue and from the sales before it."""

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
    """The articles known before a cutoff, sold or not; arrays are indexed by `article_index`, rows 0 and 1 are empty.

    Attributes:
        article_id: `[num_articles]` object; index `FIRST_INDEX + i` is row i.
        categorical: For each feature `[num_articles + 2]` int32 into its vocabulary.
        vocabulary: For each feature its values; index `FIRST_INDEX + i` is value i.
        numbers: For each numeric feature `[num_articles + 2]` float32, NaN where missing.
        vectors: `[num_articles + 2, any]` float32, embeddings of images and texts made elsewhere, zeros where missing.
        num_baskets: `[num_articles + 2]` int64, baskets that held the article.
        in_store: Sorted int32 article indices that may be recommended; see `make_article_table`.
        never_sold: Sorted int32 article indices that the catalogue lists and that were never sold.
        sets: For each feature of several values the set of each article.
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
        """Articles known before the cutoff."""
        return len(self.article_id)

    @property
    def category_sizes(self) -> list[int]:
        """Number of indices of each categorical feature, padding and out of vocabulary among them."""
        return [len(values) + FIRST_INDEX for values in self.vocabulary.values()]

    def category_matrix(self) -> np.ndarray:
        """Joins the categorical features: `[num_articles + 2, num_features]` int32."""
        return _matrix(self.categorical, len(self.num_baskets), np.int32)

    def number_matrix(self) -> np.ndarray:
        """Joins the numeric features: `[num_articles + 2, num_features]` float32."""
        return _matrix(self.numbers, len(self.num_baskets), np.float32)


def read_values(articles: ibis.Table, column: str) -> Iterator[str | None]:
    """Reads a column in the order of the articles; its strings become Python's a part at a time.

    The query is over before the first one is asked for: DuckDB allows no other work beside one that is being read.
    """
    values = articles.order_by("article_index").select(column).to_pyarrow()[column]
    parts = (values.slice(start, _CHUNK) for start in range(0, len(values), _CHUNK))
    return (value for part in parts for value in part.to_pylist())


def _matrix(columns: dict[str, np.ndarray], num_rows: int, dtype: type) -> np.ndarray:
    return np.stack([*columns.values()], axis=1) if columns else np.zeros((num_rows, 0), dtype)


def check_product_codes(articles: ibis.Table, *, recommender: str) -> None:
    """Checks that designs are known.

    Raises:
        InputError: No article has a `product_code`.
    """
    if "product_code" not in articles.columns or not int(articles.product_code.count().execute()):
        raise InputError(
            f"{recommender}: the articles have no `product_code`, the design that an article shares with its other colours. "
            f"Map a column to it, or leave {recommender} out of `recommenders`."
        )


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


def check_article_columns(
    articles: ibis.Table, *, categorical: Sequence[str], numbers: Sequence[str], sets: Sequence[str]
) -> None:
    """Checks that articles have the columns to encode.

    Raises:
        InputError: `articles` lacks a column, or one of `numbers` is not numeric.
    """
    check_names(articles, categorical, setting="features.categorical", where="articles")
    check_names(articles, numbers, setting="features.numbers", where="articles", is_numeric=True)
    check_names(articles, sets, setting="features.sets", where="articles")


def availability(articles: ibis.Table) -> dict[str, ibis.Value]:
    """Returns `available_from` and `available_to` as timestamps, null where the catalogue has none."""
    return {
        name: (articles[name] if name in articles.columns else ibis.null("timestamp")).cast("timestamp")
        for name in ("available_from", "available_to")
    }


def listed_availability(
    catalogue: pd.DataFrame, *, start: datetime.datetime, end: datetime.datetime
) -> tuple[np.ndarray, np.ndarray]:
    """Tells of which articles the catalogue says when they are in store, and which it does not say are not.

    Args:
        catalogue: With the columns of `availability`.
        start: Of the time that is asked about.
        end: Behind it; the same for an instant.

    Returns:
        Two `[num_rows]` bool; the second holds at some time between start and end.
    """
    begins, ends = catalogue["available_from"], catalogue["available_to"]
    is_told = (begins.notna() | ends.notna()).to_numpy()
    return is_told, ~((begins >= end) | (ends < start)).to_numpy()


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
    """Makes the article table of a cutoff.

    An article is in store if `available_from` and `available_to` say so; where the catalogue gives neither, if it was
    sold in the last days. An article that was never sold may be recommended as new unless these say otherwise.

    Args:
        articles: Indexed articles.
        transactions: The visible transactions only.
        as_of: The cutoff.
        categorical: Columns of `articles` to encode.
        numbers: Numeric columns of `articles`.
        sets: Columns of `articles` that hold several values each.
        set_separator: What stands between these.
        min_articles: Values that fewer of the articles sold share are out of vocabulary, since nothing can be learned
            from one article's value that its id does not say.
        in_store_days: How many these last days are.
        never_sold_in_store: Whether what was never sold is in store too where the catalogue gives no dates.

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
    is_told, is_available = listed_availability(catalogue, start=as_of, end=as_of)
    in_store = np.where(is_told, is_available, recent[FIRST_INDEX:] | (never_sold_in_store & ~is_sold))
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


def _indices(chosen: np.ndarray) -> np.ndarray:
    return (np.flatnonzero(chosen) + FIRST_INDEX).astype(np.int32)


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
