"""Views of a few purchases that a test writes out."""

import datetime
from collections.abc import Callable, Sequence

import ibis
import numpy as np
import pandas as pd
import pytest

from tfrs_fashion.data.split import Split, seconds_since_1970
from tfrs_fashion.features.articles import ArticleTable
from tfrs_fashion.features.inputs import Profiles
from tfrs_fashion.features.timelines import ALWAYS, Timelines
from tfrs_fashion.features.view import View
from tfrs_fashion.schema import FIRST_INDEX, Tables

AS_OF = datetime.datetime(2024, 1, 11)
NUM_ARTICLES = 6


@pytest.fixture(scope="session")
def make_view() -> Callable[[Sequence[tuple[int, int, int]]], View]:
    """Makes the view before 11 January of `(customer_index, article_index, day)`, each bought at noon.

    There are six articles, of which those sold are in store, and nothing is known but who bought what.
    """

    def make(purchases: Sequence[tuple[int, int, int]]) -> View:
        frame = pd.DataFrame(purchases, columns=["customer_index", "article_index", "day"])
        frame = frame.sort_values(["customer_index", "day", "article_index"])
        frame["t_dat"] = pd.Timestamp("2023-12-31 12:00") + pd.to_timedelta(frame["day"], unit="D")
        num_customers = int(frame["customer_index"].max()) + 1 - FIRST_INDEX
        size, events = NUM_ARTICLES + FIRST_INDEX, len(frame)
        counts = np.bincount(frame["customer_index"] - FIRST_INDEX, minlength=num_customers)
        timelines = Timelines(
            customer_id=np.array([f"c{number}" for number in range(num_customers)], dtype=object),
            row_splits=np.concatenate([[0], np.cumsum(counts)]),
            article_index=frame["article_index"].to_numpy(np.int32),
            time=(frame["t_dat"].astype("datetime64[s]").astype("int64")).to_numpy(),
            price=np.ones(events, np.float32),
            quantity=np.ones(events, np.int32),
            discount=np.zeros(events, np.float32),
            sales_channel_id=np.zeros(events, np.int32),
            store_index=np.zeros(events, np.int32),
            store_id=np.array([], dtype=object),
            known_from=np.full(num_customers, ALWAYS),
            profile={},
            profile_numbers={},
        )
        sold = np.unique(frame["article_index"].to_numpy(np.int32))
        articles = ArticleTable(
            article_id=np.array([f"a{number}" for number in range(NUM_ARTICLES)], dtype=object),
            categorical={},
            vocabulary={},
            numbers={},
            vectors=np.zeros((size, 0), np.float32),
            num_baskets=np.bincount(frame["article_index"], minlength=size),
            in_store=sold,
            never_sold=np.setdiff1d(np.arange(FIRST_INDEX, size, dtype=np.int32), sold),
        )
        transactions = frame.drop(columns="day").assign(basket_id=frame["day"].astype(str))
        nothing = ibis.memtable(pd.DataFrame({"article_index": pd.Series([], dtype="int32")}))
        return View(
            split=Split(name="test", kind="window", as_of=AS_OF),
            tables=Tables(customers=nothing, articles=nothing, transactions=ibis.memtable(transactions)),
            timelines=timelines,
            articles=articles,
            profile_vocabulary={},
            profiles=Profiles(
                np.zeros((num_customers + FIRST_INDEX, 0), np.int32),
                np.zeros((num_customers + FIRST_INDEX, 0), np.float32),
            ),
            now=np.full(num_customers + FIRST_INDEX, seconds_since_1970(AS_OF)),
            lookups=None,
            category=None,
        )

    return make
