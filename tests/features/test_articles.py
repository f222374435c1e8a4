import datetime
import itertools
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.articles import ArticleTable, content_embedding, make_article_table, sales_by_article
from tfrs_fashion.schema import FIRST_INDEX, InputError

AS_OF = datetime.datetime(2024, 2, 1)
# Ten rows: article, basket, customer, price, day of January.
ROWS = [
    (2, "a", 2, 10.0, 1),
    (2, "a", 2, 20.0, 1),
    (2, "b", 3, 30.0, 4),
    (3, "a", 2, None, 1),
    (3, "c", 2, None, 31),
    (4, "d", 3, 5.0, 25),
    (4, "e", 3, 7.0, 2),
    (5, "f", 4, 1.0, 10),
    (6, "f", 4, 2.0, 10),
    (2, "f", 4, None, 10),
]
# Article 5 has an empty colour, article 6 none; article 7 was never sold, article 8 is known from the cutoff on.
ARTICLES = pd.DataFrame(
    {
        "article_id": ["p", "q", "r", "s", "t", "u", "v"],
        "article_index": np.arange(FIRST_INDEX, FIRST_INDEX + 7, dtype=np.int32),
        "description": ["red hat", None, "hat", "", "red red", "never", "later"],
        "colour": ["red", "blue", "red", "", None, "violet", "red"],
        "size": [1, 2, 1, 1, 1, 1, 1],
        "list_price": [10.0, None, 30.0, 0.0, 5.5, 7.0, 9.0],
        "known_from": pd.Series([None] * 6 + [AS_OF]).astype("datetime64[us]"),
    }
)


def make_transactions(rows: list[tuple[int, str, int, float | None, int]]) -> ibis.Table:
    frame = pd.DataFrame(rows, columns=["article_index", "basket_id", "customer_index", "price", "day"])
    frame = frame.astype({"article_index": "int32", "customer_index": "int32", "basket_id": str, "price": float})
    moments = [datetime.datetime(2024, 1, day) for day in frame.pop("day")]
    table = ibis.memtable(frame.assign(t_dat=pd.Series(moments).astype("datetime64[us]")))
    return table.mutate(price=table.price.nullif(float("nan")))


def make_articles(**columns: object) -> ibis.Table:
    table = ibis.memtable(ARTICLES.assign(**columns))
    return table.mutate(list_price=table.list_price.nullif(float("nan")))


def make_table(
    *,
    days: int = 7,
    rows: list[tuple[int, str, int, float | None, int]] = ROWS,
    articles: ibis.Table | None = None,
    as_of: datetime.datetime = AS_OF,
    categorical: tuple[str, ...] = ("colour", "size"),
    **settings: Any,
) -> ArticleTable:
    return make_article_table(
        make_articles() if articles is None else articles,
        make_transactions(rows),
        as_of=as_of,
        categorical=categorical,
        in_store_days=days,
        **settings,
    )


def test_sales_are_counted_by_article() -> None:
    found = sales_by_article(make_transactions(ROWS)).set_index("article_index")
    assert found.index.tolist() == [2, 3, 4, 5, 6]
    assert found["num_baskets"].tolist() == [3, 2, 2, 1, 1]
    assert found["num_buyers"].tolist() == [3, 1, 1, 1, 1]
    assert found["mean_price"].tolist() == pytest.approx([(10 + 20 + 30) / 3, np.nan, (5 + 7) / 2, 1, 2], nan_ok=True)
    assert found["last_sold"].dt.day.tolist() == [10, 31, 25, 10, 10]


def test_a_basket_id_is_a_customers_own() -> None:
    # As in `index_tables`: two customers may number their baskets alike, and these are two baskets.
    found = sales_by_article(make_transactions([(2, "1", 2, 1.0, 1), (2, "1", 3, 1.0, 1), (2, "1", 3, 1.0, 1)]))
    assert found["num_baskets"].tolist() == [2]


def test_anonymous_customers_count_for_baskets_and_are_no_buyers() -> None:
    # Two anonymous baskets and one of customer 2, of article 2; article 3 sold to anonymous customers alone.
    rows = [(2, "a", 1, 1.0, 1), (2, "b", 1, 3.0, 2), (2, "c", 2, 5.0, 3), (3, "a", 1, 1.0, 1)]
    found = sales_by_article(make_transactions(rows))
    assert found["num_baskets"].tolist() == [3, 1]
    assert found["num_buyers"].tolist() == [1, 0]
    assert found["mean_price"].tolist() == [3.0, 1.0]
    table = make_table(rows=rows, days=31)
    assert table.num_baskets.tolist() == [0, 0, 3, 1, 0, 0, 0, 0]
    assert table.in_store.tolist() == [2, 3]
    assert table.never_sold.tolist() == [4, 5, 6, 7]


def test_rows_are_the_articles_known_before_the_cutoff_sold_or_not() -> None:
    table = make_table()
    assert table.num_articles == 6
    assert table.article_id.tolist() == ["p", "q", "r", "s", "t", "u"]
    assert table.num_baskets.tolist() == [0, 0, 3, 2, 2, 1, 1, 0]
    assert table.vectors.shape == (8, 0)
    # One microsecond later article 8 is known.
    assert make_table(as_of=AS_OF + datetime.timedelta(microseconds=1)).num_articles == 7


def test_categories_are_encoded_from_the_articles_sold() -> None:
    table = make_table(min_articles=1)
    # "violet" belongs to an article that nobody has bought yet: it is not known. "" and null are missing.
    assert table.vocabulary == {"colour": ["blue", "red"], "size": ["1", "2"]}
    assert table.categorical["colour"].tolist() == [0, 0, 3, 2, 3, 0, 0, 1]
    assert table.categorical["size"].tolist() == [0, 0, 2, 3, 2, 2, 2, 2]
    assert table.categorical["colour"].dtype == np.int32
    assert table.category_sizes == [4, 4]
    assert table.category_matrix().tolist() == [
        [0, 0], [0, 0], [3, 2], [2, 3], [3, 2], [0, 2], [0, 2], [1, 2],
    ]  # fmt: skip


def test_sets_are_split_and_their_values_encoded_from_the_articles_sold() -> None:
    # Seven articles; the sixth was never sold, the last is known from the cutoff on.
    material = ["cotton|wool", " wool | cotton|wool", "silk|felt|cotton", "", None, "wool|nylon", "nylon"]
    table = make_table(articles=make_articles(material=material), sets=("material",))
    found = table.sets["material"]
    # Cotton is in three of the articles sold and wool in two; silk and felt in one each, nylon in none.
    assert found.vocabulary == ["cotton", "wool"]
    cotton, wool, unknown = 2, 3, 1
    assert found.row_splits.tolist() == [0, 0, 0, 2, 4, 6, 6, 6, 8]
    assert found.values.tolist() == [cotton, wool, cotton, wool, unknown, cotton, unknown, wool]
    assert found.values.dtype == np.int32
    assert found.num_buckets == 4
    every = make_table(articles=make_articles(material=material), sets=("material",), min_articles=1).sets["material"]
    assert every.vocabulary == ["cotton", "felt", "silk", "wool"]


@pytest.mark.parametrize(
    ("values", "separator", "expected"),
    [
        ([None] * 7, "|", [[]] * 6),
        (["| |", "a", "||a", "a.b", "a;b", "日本|a"], "|", [[], [2], [2], [1], [1], [1, 2]]),
        (["a.b", "b.a", "a|b", ".", "a..", "b"], ".", [[2, 3], [2, 3], [1], [], [2], [3]]),
        (["a, b", "b", "a", "a ,b", ", ", "c"], ", ", [[2, 3], [3], [2], [1], [], [1]]),
    ],
)
def test_sets_of_any_text(values: list[str | None], separator: str, expected: list[list[int]]) -> None:
    articles = make_articles(material=pd.Series([*values, "a"][:7], dtype=object)).mutate(
        material=ibis._.material.cast("string")
    )
    found = make_table(articles=articles, sets=("material",), set_separator=separator).sets["material"]
    rows = [found.values[start:end].tolist() for start, end in itertools.pairwise(found.row_splits)]
    assert rows == [[], [], *expected]


def test_values_that_too_few_articles_sold_share_are_out_of_vocabulary() -> None:
    # Of the articles sold, two are red and one is blue; four have size 1 and one size 2. Article 7 was never sold, so
    # its "blue" makes blue no more frequent.
    colour = ["red", "blue", "red", "", None, "blue", "blue"]
    table = make_table(articles=make_articles(colour=colour))
    assert table.vocabulary == {"colour": ["red"], "size": ["1"]}
    assert table.categorical["colour"].tolist() == [0, 0, 2, 1, 2, 0, 0, 1]
    assert table.categorical["size"].tolist() == [0, 0, 2, 1, 2, 2, 2, 2]
    assert make_table(min_articles=3).vocabulary == {"colour": [], "size": ["1"]}
    assert make_table(min_articles=5).vocabulary == {"colour": [], "size": []}


def test_numbers_are_kept_as_they_are_and_missing_ones_are_no_numbers() -> None:
    table = make_table(numbers=("list_price", "size"))
    nan = np.nan
    expected = [[nan, nan, 10.0, nan, 30.0, 0.0, 5.5, 7.0], [nan, nan, 1, 2, 1, 1, 1, 1]]
    np.testing.assert_array_equal(table.number_matrix().T, expected)
    assert table.numbers["size"].dtype == np.float32
    empty = make_table(numbers=("list_price",), articles=make_articles().mutate(list_price=ibis.null("float64")))
    assert np.isnan(empty.numbers["list_price"]).all()
    untyped = make_table(numbers=("list_price",), articles=make_articles().mutate(list_price=ibis.null()))
    assert np.isnan(untyped.numbers["list_price"]).all()


def test_without_columns_matrices_have_no_columns() -> None:
    table = make_table(categorical=())
    assert table.category_matrix().shape == table.number_matrix().shape == (8, 0)
    assert table.category_sizes == []


def test_before_anything_is_known_there_are_no_articles() -> None:
    table = make_table(articles=make_articles(known_from=AS_OF), rows=[], numbers=("list_price",))
    assert table.num_articles == 0
    assert table.in_store.tolist() == table.never_sold.tolist() == []
    assert table.category_matrix().tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        # January 31 is one day before the cutoff, January 25 seven, January 10 twenty-two: each window holds its edge.
        (1, [3]),
        (6, [3]),
        (7, [3, 4]),
        (21, [3, 4]),
        (22, [2, 3, 4, 5, 6]),
        (28, [2, 3, 4, 5, 6]),
    ],
)
def test_article_sold_in_the_last_days_is_in_store(days: int, expected: list[int]) -> None:
    found = make_table(days=days).in_store
    assert found.tolist() == expected
    assert found.dtype == np.int32


@pytest.mark.parametrize(("before", "expected"), [(0, [2]), (1, [2, 3])])
def test_in_store_goes_by_the_instant(before: int, expected: list[int]) -> None:
    # A day before the cutoff to the second, and a second earlier.
    rows = make_transactions([(2, "a", 2, 1.0, 31), (3, "b", 2, 1.0, 31)])
    rows = rows.mutate(t_dat=ibis.ifelse(rows.article_index == 3, rows.t_dat - ibis.interval(seconds=1), rows.t_dat))
    as_of = AS_OF - datetime.timedelta(seconds=before)
    found = make_article_table(make_articles(), rows, as_of=as_of, categorical=(), in_store_days=1)
    assert found.in_store.tolist() == expected


def dates(*values: datetime.datetime | None) -> pd.Series:
    return pd.Series(values).astype("datetime64[us]")


BEFORE, FOREVER = AS_OF - datetime.timedelta(days=1), datetime.datetime(9999, 12, 31)


def test_the_catalogue_says_what_is_in_store_and_elsewhere_the_last_sales_do() -> None:
    # Article 2 has no dates and was sold too long ago; 3 is available since yesterday; 4 from the cutoff on, although
    # it was sold; 5 was available until yesterday; 6 is, until the cutoff; 7 is, and was never sold.
    table = make_table(
        articles=make_articles(
            available_from=dates(None, BEFORE, AS_OF, None, None, BEFORE, BEFORE),
            available_to=dates(None, None, FOREVER, BEFORE, AS_OF, FOREVER, None),
        )
    )
    assert table.in_store.tolist() == [3, 6, 7]
    assert table.never_sold.tolist() == [7]
    assert table.in_store.dtype == table.never_sold.dtype == np.int32
    # 22 days reach the sale of article 2; the others go by their dates.
    later = make_articles(
        available_from=dates(None, BEFORE, AS_OF, None, None, AS_OF, BEFORE),
        available_to=dates(None, None, FOREVER, BEFORE, AS_OF, FOREVER, None),
    )
    assert make_table(articles=later, days=22).in_store.tolist() == [2, 3, 6]
    assert make_table(articles=later).never_sold.tolist() == []


def test_an_article_never_sold_is_new_unless_the_catalogue_denies_it() -> None:
    assert make_table().never_sold.tolist() == [7]
    assert make_table(rows=[]).never_sold.tolist() == [2, 3, 4, 5, 6, 7]
    assert make_table(rows=[]).in_store.tolist() == []
    gone = make_articles(available_to=dates(*[None] * 5, BEFORE, None))
    assert make_table(articles=gone).never_sold.tolist() == []


def test_what_was_never_sold_is_in_store_where_that_is_said_and_the_catalogue_does_not_deny_it() -> None:
    # Of those sold, 3 and 4 were sold in the last week; 7 never was.
    sold, both = make_table(), make_table(never_sold_in_store=True)
    assert both.in_store.tolist() == [*sold.in_store, 7]
    assert both.never_sold.tolist() == [7]
    gone = make_articles(available_to=dates(*[None] * 5, BEFORE, None))
    assert make_table(articles=gone, never_sold_in_store=True).in_store.tolist() == sold.in_store.tolist()


@pytest.mark.parametrize("setting", ["categorical", "numbers"])
def test_a_missing_column_is_named_beside_those_found(setting: str) -> None:
    with pytest.raises(InputError) as caught:
        make_table(**{setting: ("size", "zone")})
    assert str(caught.value).startswith(
        f"features.{setting}: the articles table has no column(s) `zone`; found `article_id`"
    )


def test_text_column_as_number_raises() -> None:
    with pytest.raises(
        InputError, match=r"features\.numbers: column\(s\) colour, description of the articles do not hold numbers"
    ):
        make_table(numbers=("colour", "size", "description"))


def test_content_embedding_depends_on_the_catalogue_alone() -> None:
    embedding = content_embedding(ibis.memtable(ARTICLES), categorical=("colour",), dim=8)
    assert embedding.shape == (7 + FIRST_INDEX, 8)
    # Articles 5 and 6 have no colour, and no article has the indices 0 and 1.
    assert np.linalg.norm(embedding, axis=1).tolist() == pytest.approx([0, 0, 1, 1, 1, 0, 0, 1, 1])
    red, blue = [2, 4, 8], 3
    assert all((embedding[index] == embedding[2]).all() for index in red)
    assert abs(embedding[2] @ embedding[blue]) < 0.99
    again = content_embedding(ibis.memtable(ARTICLES.iloc[::-1]), categorical=("colour",), dim=8)
    assert np.array_equal(again, embedding)
