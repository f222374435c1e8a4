"""A simulated shop: small tables for trying things out and for tests.

Each customer has a few favourite articles, mostly from a favourite category, and buys favourites or popular articles.
So repurchase beats popularity, as it does in real baskets, and a model has something to learn.
"""

import datetime

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.schema import Tables

_GARMENT_GROUPS = ("Jersey Basic", "Trousers", "Knitwear", "Shoes", "Dresses", "Accessories")
_COLOURS = ("Black", "White", "Blue", "Grön", "Red", "ベージュ")
_SECTIONS = ("Ladieswear", "Menswear", "Kids")
_START = datetime.datetime(2024, 1, 1)


def _make_frames(
    *, num_customers: int, num_articles: int, num_days: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    random = np.random.default_rng(seed)
    group = random.integers(len(_GARMENT_GROUPS), size=num_articles)
    colour = random.integers(len(_COLOURS), size=num_articles)
    section = group % len(_SECTIONS)
    list_price = np.round(random.lognormal(3.0, 0.5, size=num_articles), 2)
    article_id = np.array([f"{108775000 + 7 * index:010d}" for index in range(num_articles)])
    articles = pd.DataFrame(
        {
            "article_id": article_id,
            "description": [
                f"{_COLOURS[c]} {_GARMENT_GROUPS[g].lower()} for {_SECTIONS[s]}"
                for c, g, s in zip(colour, group, section, strict=True)
            ],
            "list_price": list_price,
            "product_code": [value[:-1] for value in article_id],
            "garment_group": [_GARMENT_GROUPS[value] for value in group],
            "colour": [_COLOURS[value] for value in colour],
            "section": [_SECTIONS[value] for value in section],
        }
    )
    popularity = random.pareto(1.2, size=num_articles) + 0.05
    popularity /= popularity.sum()

    rows = []
    for customer in range(num_customers):
        taste = popularity * np.where(group == random.integers(len(_GARMENT_GROUPS)), 8.0, 1.0)
        num_favourites = min(int(random.integers(2, 8)), num_articles)
        favourites = random.choice(num_articles, size=num_favourites, replace=False, p=taste / taste.sum())
        num_baskets = 1 + random.poisson(random.gamma(1.5, 5.0))
        seconds = np.sort(random.integers(num_days * 86_400, size=num_baskets))
        for basket, second in enumerate(seconds):
            size = 1 + random.poisson(1.5)
            again = random.random(size) < 0.6
            bought = np.where(
                again, random.choice(favourites, size=size), random.choice(num_articles, size=size, p=popularity)
            )
            for article in np.unique(bought):
                discount = 0.0 if random.random() < 0.8 else 0.25
                rows.append((customer, article, int(second), discount, 1 + int(random.random() < 0.1), basket))
    lines = pd.DataFrame(rows, columns=["customer", "article", "second", "discount", "quantity", "basket"])
    customer_id = np.array([f"c{index:05d}" for index in range(num_customers)])
    transactions = pd.DataFrame(
        {
            "customer_id": customer_id[lines["customer"]],
            "article_id": article_id[lines["article"]],
            "t_dat": (pd.Timestamp(_START) + pd.to_timedelta(lines["second"], unit="s")).astype("datetime64[us]"),
            "price": np.round(list_price[lines["article"]] * (1 - lines["discount"]), 2),
            "quantity": lines["quantity"],
            "discount": lines["discount"],
            "sales_channel_id": 1 + lines["customer"] % 2,
            "store_id": None,
            "basket_id": lines["customer"].astype(str) + "-" + lines["basket"].astype(str),
        }
    ).astype({"store_id": "string"})
    listed = random.random(num_customers) < 0.9
    listed[0] = True
    age = random.integers(16, 80, size=num_customers).astype(float)
    customers = pd.DataFrame(
        {
            "customer_id": customer_id,
            "age": np.where(random.random(num_customers) < 0.1, np.nan, age),
            "status": np.where(random.random(num_customers) < 0.3, "ACTIVE", "NONE"),
            "age_band": [f"{int(value) // 10 * 10}s" for value in age],
        }
    )[listed]
    return customers, articles, transactions


def make_tables(
    *,
    num_customers: int = 300,
    num_articles: int = 200,
    num_days: int = 120,
    seed: int = 1,
    connection: ibis.BaseBackend | None = None,
) -> Tables:
    """Generates the three tables.

    Args:
        num_customers: Number of customers; about one in ten has no row in the customers table, as in real exports.
        num_articles: Number of articles; those that nobody buys stay in the catalogue.
        num_days: Number of days of transactions.
        seed: Random seed; equal seeds give equal tables.
        connection: Ibis backend that holds the tables; they are in-memory tables without it.

    Returns:
        Tables in canonical columns.
    """
    frames = _make_frames(num_customers=num_customers, num_articles=num_articles, num_days=num_days, seed=seed)
    tables = [ibis.memtable(frame) for frame in frames]
    if connection is not None:
        tables = [connection.create_table(ibis.util.gen_name("simulated"), table, temp=True) for table in tables]
    customers, articles, transactions = tables
    return Tables(
        customers=customers.mutate(age=_.age.nullif(float("nan"))),
        articles=articles,
        transactions=transactions.mutate(store_id=_.store_id.cast("string")),
    )
