"""Pairs of customer and article for the relevance classifier: their purchases, their class and their features."""

import datetime

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.schema import FIRST_INDEX

CLASSES = ("low", "medium", "high")
NONE = "none"
PAIR = ["customer_index", "article_index"]
# Days after which an order counts half in the decayed counts.
_HALF_LIFE_DAYS = (15, 45, 90)
# More seconds than any instant has, so that customer and instant fit into one sortable integer.
_LONG = 1 << 35
# The only pair features that one published study gave its models.
AMOUNTS = ("total_quantity", "total_price")


def count_pairs(transactions: ibis.Table) -> pd.DataFrame:
    """Aggregates the purchases of each pair of customer and article.

    Args:
        transactions: Visible indexed transactions; anonymous ones are left out.

    Returns:
        `customer_index`, `article_index`, `num_orders` (baskets), `total_quantity`, `total_price` (NaN where no price is known),
        `first` and `last` (instants), ordered by the pair.
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
    """Lists the orders of each pair of customer and article.

    Args:
        transactions: Visible indexed transactions; anonymous ones are left out.

    Returns:
        `customer_index`, `article_index`, `basket_id` and `t_dat`, the basket's first instant.
    """
    rows = transactions.filter(_.customer_index >= FIRST_INDEX)
    return rows.group_by([*PAIR, "basket_id"]).agg(t_dat=_.t_dat.min()).order_by([*PAIR, "basket_id"]).execute()


def classify(pairs: pd.DataFrame, *, medium_from: int, high_from: int, bulk_factor: float | None = None) -> np.ndarray:
    """Returns the relevance class of each pair: `[num_pairs]` int32 positions in `CLASSES`.

    Args:
        pairs: The result of `count_pairs`, of at least one order per pair.
        medium_from: Minimum number of orders of class medium.
        high_from: Minimum number of orders of class high.
        bulk_factor: A pair whose pieces per order are at least this multiple of the article's median over its pairs is raised by
            one class; None ignores quantities.
    """
    orders = pairs["num_orders"].to_numpy()
    index = (orders >= medium_from).astype(np.int32) + (orders >= high_from)
    if bulk_factor is not None:
        pieces = pairs["total_quantity"] / pairs["num_orders"]
        usual = pieces.groupby(pairs["article_index"]).transform("median")
        index = np.minimum(index + (pieces >= bulk_factor * usual).to_numpy(), len(CLASSES) - 1).astype(np.int32)
    return index


def describe_pairs(pairs: pd.DataFrame, orders: pd.DataFrame, *, as_of: datetime.datetime) -> pd.DataFrame:
    """Computes the features of pairs: orders, amounts and times of the pair, its customer and its article.

    Args:
        pairs: The result of `count_pairs` for all visible transactions.
        orders: The result of `list_orders` for the same transactions.
        as_of: The cutoff; all orders are before it.

    Returns:
        Float columns, one row per pair, in the order of `pairs`. `baskets` counts all baskets of the customer,
        `baskets_since_first` those from the pair's first order on, `baskets_since_last` those after its last order. In
        `decayed_15d`, an order counts half after 15 days.
    """

    def days(instant: pd.Series) -> pd.Series:
        return (pd.Timestamp(as_of) - instant).dt.total_seconds() / SECONDS_PER_DAY

    customer, article = (pairs.groupby(name) for name in PAIR)
    features = pd.DataFrame(
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
    features["orders_per_article"] = features["customer_orders"] / features["customer_articles"]
    features["orders_per_customer"] = features["article_orders"] / features["article_customers"]
    features["order_share"] = features["num_orders"] / features["customer_most_orders"]
    usual = features["pieces_per_order"].groupby(pairs["article_index"]).transform("median")
    features["pieces_to_usual"] = features["pieces_per_order"] / usual
    features["gap_days"] = (features["days_since_first"] - features["days_since"]) / (
        features["num_orders"] - 1
    ).replace(0, np.nan)
    features["gap_ratio"] = features["days_since"] / features["gap_days"].replace(0, np.nan)

    baskets = orders.groupby(["customer_index", "basket_id"], as_index=False).agg({"t_dat": "min"})
    starts, index = np.sort(_instants(baskets, "t_dat")), pairs["customer_index"].to_numpy(np.int64)
    first = np.searchsorted(starts, index * _LONG)
    end = np.searchsorted(starts, (index + 1) * _LONG)
    features["baskets"] = end - first
    features["baskets_since_first"] = end - np.searchsorted(starts, _instants(pairs, "first"))
    features["baskets_since_last"] = end - np.searchsorted(starts, _instants(pairs, "last"), side="right")
    features["basket_articles"] = features["customer_orders"] / features["baskets"]
    features["basket_share"] = features["num_orders"] / features["baskets"]
    features["basket_share_since_first"] = features["num_orders"] / features["baskets_since_first"]
    features["baskets_per_day"] = features["baskets"] / features["customer_days"].clip(lower=7)
    for half_life in _HALF_LIFE_DAYS:
        of_orders, of_baskets = (
            frame.assign(weight=0.5 ** (days(frame["t_dat"]) / half_life)) for frame in (orders, baskets)
        )
        by_pair = of_orders.groupby(PAIR)["weight"].sum()
        name = f"decayed_{half_life}d"
        features[name] = by_pair.reindex(pd.MultiIndex.from_frame(pairs[PAIR])).to_numpy()
        for column, frame in (("article", of_orders), ("customer", of_baskets)):
            total = frame.groupby(f"{column}_index")["weight"].sum()
            features[f"{column}_{name}"] = pairs[f"{column}_index"].map(total)
        features[f"basket_share_{name}"] = features[name] / features[f"customer_{name}"]
    return features.astype("float64")


def _instants(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Returns sort keys: by `customer_index`, then by the seconds of an instant."""
    seconds = frame[column].to_numpy().astype("datetime64[s]").astype(np.int64)
    keys: np.ndarray = frame["customer_index"].to_numpy(np.int64) * _LONG + seconds
    return keys
