"""Fingerprints of the purchases in tables, which do not depend on code, settings, file formats or the order of rows."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import ibis
import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.schema import FIRST_INDEX, Tables

# Odd multipliers that spread a number over 64 bits (those of SplitMix64 and Knuth).
_FACTORS = tuple(np.uint64(factor) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 0x9E3779B97F4A7C15))
_SHIFT = np.uint64(32)


def _spread(values: np.ndarray) -> np.ndarray:
    """Mixes the bits of `[any]` uint64, so that similar inputs give unrelated numbers."""
    for factor in _FACTORS[:2]:
        values = (values ^ (values >> _SHIFT)) * factor
    return values ^ (values >> _SHIFT)


def _hash_ids(ids: pd.Series) -> np.ndarray:
    """Hashes ids, after the reserved indices that stand for no id: `[FIRST_INDEX + num_ids]` uint64."""
    hashed = pd.util.hash_array(ids.astype(str).to_numpy(dtype=object), categorize=False)
    return np.concatenate([np.arange(FIRST_INDEX, dtype=np.uint64), hashed])


@dataclass(frozen=True)
class Contents:
    """Hashes of the ids of indexed tables, by index.

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

    def _fingerprint(self, frames: Iterator[pd.DataFrame]) -> str:
        total = rows = 0
        for frame in frames:
            # A sum does not depend on the order of the rows.
            total, rows = (total + self._sum(frame)) % 2**64, rows + len(frame)
        return hashlib.sha256(f"{rows} rows, {total}".encode()).hexdigest()

    def of_purchases(self, transactions: ibis.Table) -> str:
        """Returns a SHA-256 of who bought what and when, independent of the order of rows and of other columns.

        Args:
            transactions: Indexed transactions; all ids without an index count as the same.
        """
        purchases = transactions.select("customer_index", "article_index", t_dat=_.t_dat.cast("timestamp"))
        return self._fingerprint(
            batch.to_pandas() for batch in purchases.to_pyarrow().to_batches(max_chunksize=1_000_000)
        )

    def of_targets(self, targets: pd.DataFrame) -> str:
        """Returns a SHA-256 of the targets of an evaluation, independent of the order of rows.

        Args:
            targets: `customer_index, article_index`.
        """
        return self._fingerprint(iter([targets[["customer_index", "article_index"]]]))
