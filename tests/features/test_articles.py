import datetime
from dataclasses import replace

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.features.articles import (
    ArticleTable,
    content_embedding,
    in_store,
    make_article_table,
    make_content_values,
    sales_by_article,
)
from tfrs_fashion.features.text import hash_words
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
# Article 5 has an empty colour, article 6 none; article 7 is sold only later, article 8 never.
ARTICLES = pd.DataFrame(
    {
        "article_id": ["p", "q", "r", "s", "t", "u", "v"],
        "article_index": np.arange(FIRST_INDEX, FIRST_INDEX + 7, dtype=np.int32),
        "description": ["red hat", None, "hat", "", "red red", "later", "never"],
        "colour": ["red", "blue", "red", "", None, "violet", "red"],
        "size": [1, 2, 1, 1, 1, 1, 1],
    }
)


def make_transactions(rows: list[tuple[int, str, int, float | None, int]]) -> ibis.Table:
    frame = pd.DataFrame(rows, columns=["article_index", "basket_id", "customer_index", "price", "day"])
    moments = [datetime.datetime(2024, 1, day) for day in frame.pop("day")]
    table = ibis.memtable(frame.assign(t_dat=pd.Series(moments).astype("datetime64[us]")))
    return table.mutate(price=table.price.nullif(float("nan")))


def make_table(*, days: int = 7, rows: list[tuple[int, str, int, float | None, int]] = ROWS) -> ArticleTable:
    return make_article_table(
        ibis.memtable(ARTICLES),
        make_transactions(rows),
        as_of=AS_OF,
        categorical=("colour", "size"),
        in_store_days=days,
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


def test_rows_follow_the_index_and_end_with_the_last_article_sold() -> None:
    table = make_table()
    assert table.num_articles == 5
    assert table.article_id.tolist() == ["p", "q", "r", "s", "t"]
    assert table.num_baskets.tolist() == [0, 0, 3, 2, 2, 1, 1]
    nan = np.nan
    assert table.price.tolist() == pytest.approx([nan, nan, 20.0, nan, 6.0, 1.0, 2.0], nan_ok=True)
    assert table.price.dtype == np.float32
    assert table.description.tolist() == ["", "", "red hat", "", "hat", "", "red red"]


def test_categories_are_encoded_from_the_articles_sold() -> None:
    table = make_table()
    # "violet" belongs to an article that nobody has bought yet: it is not known.
    assert table.vocabulary == {"colour": ["blue", "red"], "size": ["1", "2"]}
    assert table.categorical["colour"].tolist() == [0, 0, 3, 2, 3, 0, 0]
    assert table.categorical["size"].tolist() == [0, 0, 2, 3, 2, 2, 2]
    assert table.categorical["colour"].dtype == np.int32


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
def test_in_store_is_sold_in_the_last_days(days: int, expected: list[int]) -> None:
    found = make_table(days=days).in_store
    assert found.tolist() == expected
    assert found.dtype == np.int32


def test_in_store_goes_by_the_instant() -> None:
    sales = pd.DataFrame({"article_index": [3, 2], "last_sold": [AS_OF - pd.Timedelta(days=1, seconds=1)] * 2})
    assert in_store(sales, as_of=AS_OF, days=1).tolist() == []
    assert in_store(sales, as_of=AS_OF - datetime.timedelta(seconds=1), days=1).tolist() == [2, 3]


def test_a_missing_column_is_named_beside_those_found() -> None:
    with pytest.raises(InputError) as caught:
        make_article_table(
            ibis.memtable(ARTICLES),
            make_transactions(ROWS),
            as_of=AS_OF,
            categorical=("colour", "section"),
            in_store_days=7,
        )
    assert str(caught.value).startswith("features.categorical: the articles table has no column(s) `section`; found `")


# Of the table above, "colour" has 2 + FIRST_INDEX entries and "size" as many, so prices begin at 8.
COLOUR, SIZE, PRICE = 0, 4, 8


def test_content_is_categories_price_bin_and_words() -> None:
    # Prices 20, 6, 1 and 2: two bins part at their median 4.
    num_bins, num_buckets = 2, 64
    content = make_content_values(make_table(), num_text_buckets=num_buckets, num_price_bins=num_bins)
    words = PRICE + num_bins
    texts = hash_words(["red hat", "hat", "red red"], num_buckets=num_buckets).to_list()
    expected = [
        [],
        [],
        [COLOUR + 3, SIZE + 2, PRICE + 1, *(words + value for value in texts[0])],
        [COLOUR + 2, SIZE + 3],
        [COLOUR + 3, SIZE + 2, PRICE + 1, *(words + value for value in texts[1])],
        [SIZE + 2, PRICE + 0],
        [SIZE + 2, PRICE + 0, *(words + value for value in texts[2])],
    ]
    found = np.split(content.values, content.row_splits[1:-1])
    assert [row.tolist() for row in found] == expected
    assert content.row_splits[0] == 0
    assert len(content.row_splits) == len(expected) + 1
    assert content.size == words + num_buckets
    assert content.values.dtype == np.int32


def test_content_without_words() -> None:
    content = make_content_values(make_table(), num_text_buckets=0, num_price_bins=2)
    assert content.size == PRICE + 2
    assert np.diff(content.row_splits).tolist() == [0, 0, 3, 2, 3, 2, 2]


def test_prices_fall_into_bins_of_equal_counts_and_keep_their_order() -> None:
    table = make_table(rows=[(index, "a", 2, float(index), 1) for index in range(2, 9)])
    content = make_content_values(replace(table, categorical={}, vocabulary={}), num_text_buckets=0, num_price_bins=7)
    assert content.values.tolist() == list(range(7))


def test_articles_of_one_price_share_a_bin() -> None:
    table = make_table(rows=[(index, "a", 2, 3.0, 1) for index in range(2, 9)])
    content = make_content_values(replace(table, categorical={}, vocabulary={}), num_text_buckets=0)
    assert len(set(content.values.tolist())) == 1
    assert content.size == 20


def test_articles_without_any_content_have_empty_rows() -> None:
    table = make_table(rows=[(2, "a", 2, None, 1), (3, "a", 2, None, 1)])
    content = make_content_values(replace(table, categorical={}, vocabulary={}), num_text_buckets=0)
    assert content.values.tolist() == []
    assert content.row_splits.tolist() == [0] * 5
    assert content.size == 1


def test_the_content_embedding_is_one_ruler_for_the_whole_catalogue() -> None:
    embedding = content_embedding(ibis.memtable(ARTICLES), categorical=("colour",), dim=8)
    assert embedding.shape == (7 + FIRST_INDEX, 8)
    # Articles 5 and 6 have no colour, and no article has the indices 0 and 1.
    assert np.linalg.norm(embedding, axis=1).tolist() == pytest.approx([0, 0, 1, 1, 1, 0, 0, 1, 1])
    red, blue = [2, 4, 8], 3
    assert all((embedding[index] == embedding[2]).all() for index in red)
    assert abs(embedding[2] @ embedding[blue]) < 0.99
    again = content_embedding(ibis.memtable(ARTICLES.iloc[::-1]), categorical=("colour",), dim=8)
    assert np.array_equal(again, embedding)
