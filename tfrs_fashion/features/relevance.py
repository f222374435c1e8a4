"""Pairs of a customer and an article as a classifier of their relevance sees them, and their classes."""

import datetime

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.schema import FIRST_INDEX

CLASSES = ("low", "medium", "high")
NONE = "none"
PAIR = ["customer_index", "article_index"]
# What one study told its models of a pair.
AMOUNTS = ("total_quantity", "total_price")


def count_pairs(transactions: ibis.Table) -> pd.DataFrame:
    """Counts what each customer bought of each article.

    Args:
        transactions: Indexed, those that may be seen; anonymous ones are left out.

    Returns:
        `customer_index`, `article_index`, `num_orders` (baskets), `total_quantity`, `total_price` (NaN where no price is known), `first` and
        `last`, ordered by the pair.
    """
    rows = transactions.filter(_.customer_index >= FIRST_INDEX)
    rows = rows.select(
        *PAIR, "basket_id", "t_dat", quantity=_.quantity.cast("float64"), paid=(_.price * _.quantity).cast("float64")
    )
    counted = rows.group_by(PAIR).agg(
        num_orders=_.basket_id.nunique(),
        total_quantity=_.quantity.sum(),
        total_price=_.paid.sum(),
        first=_.t_dat.min(),
        last=_.t_dat.max(),
    )
    return counted.order_by(PAIR).execute()


def classify(pairs: pd.DataFrame, *, medium_from: int, high_from: int, bulk_factor: float | None = None) -> np.ndarray:
    """Returns the class of each pair by its orders: places in `CLASSES`.

    Args:
        pairs: See `count_pairs`; at least one order each.
        medium_from: Orders from which it is medium.
        high_from: Orders from which it is high.
        bulk_factor: Raises a class by one where the pieces of an order are so many times the article's usual (the median over its
            pairs); None leaves quantities out.
    """
    orders = pairs["num_orders"].to_numpy()
    found = (orders >= medium_from).astype(np.int32) + (orders >= high_from)
    if bulk_factor is not None:
        pieces = pairs["total_quantity"] / pairs["num_orders"]
        usual = pieces.groupby(pairs["article_index"]).transform("median")
        found = np.minimum(found + (pieces >= bulk_factor * usual).to_numpy(), len(CLASSES) - 1).astype(np.int32)
    return found


def describe_pairs(pairs: pd.DataFrame, *, as_of: datetime.datetime) -> pd.DataFrame:
    """Tells more of pairs than their amounts: orders and times of pair, customer and article.

    Args:
        pairs: All that is visible; see `count_pairs`.
        as_of: Nothing in them is at or after it.

    Returns:
        Float columns, one row a pair, in the same order.
    """

    def days(instant: pd.Series) -> pd.Series:
        return (pd.Timestamp(as_of) - instant).dt.total_seconds() / 86_400

    customer, article = (pairs.groupby(name) for name in PAIR)
    told = pd.DataFrame(
        {
            "num_orders": pairs["num_orders"],
            "total_quantity": pairs["total_quantity"],
            "total_price": pairs["total_price"],
            "days_since": days(pairs["last"]),
            "days_since_first": days(pairs["first"]),
            "pieces_an_order": pairs["total_quantity"] / pairs["num_orders"],
            "customer_articles": customer["num_orders"].transform("size"),
            "customer_orders": customer["num_orders"].transform("sum"),
            "customer_most_orders": customer["num_orders"].transform("max"),
            "customer_days_since": days(customer["last"].transform("max")),
            "customer_days": days(customer["first"].transform("min")),
            "article_customers": article["num_orders"].transform("size"),
            "article_orders": article["num_orders"].transform("sum"),
            "article_days_since": days(article["last"].transform("max")),
            "article_days": days(article["first"].transform("min")),
        }
    )
    told["orders_an_article"] = told["customer_orders"] / told["customer_articles"]
    told["orders_a_customer"] = told["article_orders"] / told["article_customers"]
    told["order_share"] = told["num_orders"] / told["customer_most_orders"]
    return told.astype("float64")
