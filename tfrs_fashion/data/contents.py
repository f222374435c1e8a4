"""What tables say, whatever code, settings or file formats they came by: fingerprints of purchases."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.schema import FIRST_INDEX, Tables

# Odd numbers that spread their factor over 64 bits (of SplitMix64 and Knuth).
_FACTORS = tuple(np.uint64(factor) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15))
_SHIFT = np.uint64(32)


def _spread(values: np.ndarray) -> np.ndarray:
    """Makes unlike numbers of unlike ones, evenly: `[any]` uint64."""
    for factor in _FACTORS[:2]:
        values = (values ^ (values >> _SHIFT)) * factor
    return values ^ (values >> _SHIFT)


def _hash_ids(ids: pd.Series) -> np.ndarray:
    """Hashes ids in the order of their indices; those that stand for no id come first: `[FIRST_INDEX + num_ids]` uint64."""
    hashed = pd.util.hash_array(ids.astype(str).to_numpy(dtype=object), categorize=False)
    return np.concatenate([np.arange(FIRST_INDEX, dtype=np.uint64), hashed])


@dataclass(frozen=True)
class Contents:
    """Hashes of the ids of some tables, by index.

    Attributes:
        customers: `[FIRST_INDEX + num_customers]` uint64.
        articles: `[FIRST_INDEX + num_articles]` uint64.
    """

    customers: np.ndarray
    articles: np.ndarray

    @classmethod
    def of(cls, tables: Tables) -> "Contents":
        """Hashes the ids of indexed tables."""
        customers = tables.customers.order_by("customer_index").customer_id.execute()
        articles = tables.articles.order_by("article_index").article_id.execute()
        return cls(_hash_ids(customers), _hash_ids(articles))

    def _sum(self, rows: pd.DataFrame) -> int:
        customer = self.customers[rows["customer_index"].to_numpy()]
        article = self.articles[rows["article_index"].to_numpy()]
        hashed = _spread(customer * _FACTORS[2] + article)
        if "t_dat" in rows:
            hashed = _spread(hashed + rows["t_dat"].to_numpy("datetime64[us]").astype(np.int64).astype(np.uint64))
        return int(hashed.sum(dtype=np.uint64))

    def _fingerprint(self, parts: Iterator[pd.DataFrame]) -> str:
        total = rows = 0
        for part in parts:
            total, rows = (total + self._sum(part)) % 2**64, rows + len(part)
        return hashlib.sha256(f"{rows} rows, {total}".encode()).hexdigest()

    def of_purchases(self, transactions: ibis.Table) -> str:
        """Returns a SHA-256 of who bought what and when, whatever the order of the rows and the other columns.

        Args:
            transactions: Indexed; ids that have no index count as one.
        """
        read = transactions.select("customer_index", "article_index", t_dat=_.t_dat.cast("timestamp"))
        return self._fingerprint(batch.to_pandas() for batch in read.to_pyarrow().to_batches(max_chunksize=1_000_000))

    def of_targets(self, judged: pd.DataFrame) -> str:
        """Returns a SHA-256 of what recommenders are judged by, whatever the order of the rows.

        Args:
            judged: `customer_index, article_index`.
        """
        return self._fingerprint(iter([judged[["customer_index", "article_index"]]]))
