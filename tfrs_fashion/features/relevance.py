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
# Days after which an order counts half.
_HALF_LIFE_DAYS = (15, 45, 90)
# Seconds: more than any instant has.
_LONG = 1 << 35
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


def list_orders(transactions: ibis.Table) -> pd.DataFrame:
    """Lists when each customer ordered each article: `customer_index`, `article_index`, `basket_id` and the first `t_dat` of it.

    Args:
        transactions: See `count_pairs`.
    """
    rows = transactions.filter(_.customer_index >= FIRST_INDEX)
    return rows.group_by([*PAIR, "basket_id"]).agg(t_dat=_.t_dat.min()).order_by([*PAIR, "basket_id"]).execute()


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


def describe_pairs(pairs: pd.DataFrame, orders: pd.DataFrame, *, as_of: datetime.datetime) -> pd.DataFrame:
    """Tells more of pairs than their amounts: orders and times of pair, customer and article.

    Args:
        pairs: All that is visible; see `count_pairs`.
        orders: Of the same; see `list_orders`.
        as_of: Nothing in them is at or after it.

    Returns:
        Float columns, one row a pair, in the same order. `baskets_*` count those of the customer: all of them, from the first of
        the pair on, and after its last; an order `decayed_15d` counts half after so many days.
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
            "pieces_per_order": pairs["total_quantity"] / pairs["num_orders"],
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
    told["orders_per_article"] = told["customer_orders"] / told["customer_articles"]
    told["orders_per_customer"] = told["article_orders"] / told["article_customers"]
    told["order_share"] = told["num_orders"] / told["customer_most_orders"]
    usual = told["pieces_per_order"].groupby(pairs["article_index"]).transform("median")
    told["pieces_to_usual"] = told["pieces_per_order"] / usual
    told["gap_days"] = (told["days_since_first"] - told["days_since"]) / (told["num_orders"] - 1).replace(0, np.nan)
    told["gap_ratio"] = told["days_since"] / told["gap_days"].replace(0, np.nan)

    baskets = orders.groupby(["customer_index", "basket_id"], as_index=False).agg({"t_dat": "min"})
    starts, index = np.sort(_instants(baskets, "t_dat")), pairs["customer_index"].to_numpy(np.int64)
    first = np.searchsorted(starts, index * _LONG)
    end = np.searchsorted(starts, (index + 1) * _LONG)
    told["baskets"] = end - first
    told["baskets_since_first"] = end - np.searchsorted(starts, _instants(pairs, "first"))
    told["baskets_since_last"] = end - np.searchsorted(starts, _instants(pairs, "last"), side="right")
    told["basket_articles"] = told["customer_orders"] / told["baskets"]
    told["basket_share"] = told["num_orders"] / told["baskets"]
    told["basket_share_since_first"] = told["num_orders"] / told["baskets_since_first"]
    told["baskets_per_day"] = told["baskets"] / told["customer_days"].clip(lower=7)
    for half_life in _HALF_LIFE_DAYS:
        of_orders, of_baskets = (
            frame.assign(weight=0.5 ** (days(frame["t_dat"]) / half_life)) for frame in (orders, baskets)
        )
        by_pair = of_orders.groupby(PAIR)["weight"].sum()
        name = f"decayed_{half_life}d"
        told[name] = by_pair.reindex(pd.MultiIndex.from_frame(pairs[PAIR])).to_numpy()
        for column, frame in (("article", of_orders), ("customer", of_baskets)):
            total = frame.groupby(f"{column}_index")["weight"].sum()
            told[f"{column}_{name}"] = pairs[f"{column}_index"].map(total)
        told[f"basket_share_{name}"] = told[name] / told[f"customer_{name}"]
    return told.astype("float64")


def _instants(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Seconds that are ordered by customer first."""
    seconds = frame[column].to_numpy().astype("datetime64[s]").astype(np.int64)
    found: np.ndarray = frame["customer_index"].to_numpy(np.int64) * _LONG + seconds
    return found
