"""Batched inference with fitted recommenders that are not exported: lists, ranks of targets, embeddings of customers."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrs_fashion.evaluation.metrics.target_ranks import place_targets, spread_evenly
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.recommender import Recommendations, Recommender
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX, PADDING_INDEX, TARGET_RANK_COLUMNS

# Places of the lists that are held at once while every article is ranked: a few hundred megabytes.
MAX_PLACES = 4_000_000


def ask_customers(
    recommender: Callable[..., Recommendations],
    view: View,
    customers: np.ndarray,
    *,
    k: int,
    exclude: pd.DataFrame | None = None,
    batch_size: int,
) -> Iterator[np.ndarray]:
    """Asks a recommender that is not exported for customers at their cutoffs.

    Args:
        recommender: Fitted from the view.
        view: What it was fitted from.
        customers: `[num_customers]` int32 customer indices; those that the view does not know are strangers.
        k: Length of the lists.
        exclude: `customer_index, article_index` that are not recommended.
        batch_size: Customers ranked together.

    Yields:
        `[batch_size, k]` int32 article indices, best first; 0 where there is none. The last batch may be smaller.
    """
    table, cutoff = HistoryTable(view.timelines, view.profiles), tf.constant(view.now)
    known = np.where(customers < len(view.now), customers, OUT_OF_VOCABULARY_INDEX).astype(np.int32)
    excluded = _list_by_customer(exclude, customers)
    for start in range(0, len(known), batch_size):
        rows = slice(start, start + batch_size)
        now = tf.gather(cutoff, known[rows])
        left_out = tf.constant(excluded[rows].to_tensor(PADDING_INDEX))
        answer = recommender(table(tf.constant(known[rows])), now=now, k=tf.constant(k), exclude=left_out)
        yield answer.article_index.numpy()


def rank_customers(
    recommender: Callable[..., Recommendations],
    view: View,
    customers: np.ndarray,
    *,
    k: int,
    exclude: pd.DataFrame | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Returns the lists of `ask_customers` as `customer_index, article_index, rank`."""
    batches = ask_customers(recommender, view, customers, k=k, exclude=exclude, batch_size=batch_size)
    articles = np.concatenate([np.zeros((0, k), np.int32), *batches])
    candidates = pd.DataFrame(
        {
            "customer_index": np.repeat(customers, k),
            "article_index": articles.ravel(),
            "rank": np.tile(np.arange(1, k + 1), len(customers)),
        }
    )
    return candidates[candidates["article_index"] > PADDING_INDEX]


def _list_by_customer(pairs: pd.DataFrame | None, customers: np.ndarray) -> tf.RaggedTensor:
    """Lists the articles of `customer_index, article_index` pairs for each of some customers, in their order."""
    if pairs is None:
        return tf.RaggedTensor.from_row_lengths(tf.zeros([0], tf.int32), np.zeros(len(customers), np.int64))
    order = np.argsort(customers, kind="stable")
    place = np.searchsorted(customers[order], pairs["customer_index"].to_numpy())
    is_asked = customers[order][np.minimum(place, len(customers) - 1)] == pairs["customer_index"].to_numpy()
    row, article = order[place[is_asked]], pairs["article_index"].to_numpy(dtype=np.int32)[is_asked]
    by_row = np.argsort(row, kind="stable")
    return tf.RaggedTensor.from_value_rowids(article[by_row], row[by_row], len(customers))


def rank_targets(
    recommender: Recommender, view: View, targets: pd.DataFrame, *, seed: int, max_places: int = MAX_PLACES
) -> pd.DataFrame:
    """Ranks every article in store for the customers of some targets, and keeps the targets' ranks alone.

    The recommender is asked and not its artifact, of which it is the part that ranks: an artifact fills up what the
    recommender does not name with what is popular, whose figures would be taken for its own. Recommenders may name what is
    no longer in store, so each is asked for as many articles as are known, and what is not in store is left out of the
    ranks.

    Args:
        recommender: Fitted from the view.
        view: What it was fitted from.
        targets: See `evaluation.metrics.target_ranks.find_rankable`.
        seed: Fixes where what is not named stands; the same for every recommender that is compared.
        max_places: Customers times known articles whose lists are held at once.

    Returns:
        See `evaluation.metrics.target_ranks.place_targets`. Who has no history is told nothing by a recommender that needs one.
    """
    k, in_store = view.articles.num_articles, view.articles.in_store
    batch_size = max(1, max_places // k)
    customers = np.unique(targets["customer_index"].to_numpy(np.int32))
    has_history = np.isin(customers, np.flatnonzero(np.diff(view.timelines.row_splits)) + FIRST_INDEX)
    offset = spread_evenly(len(customers), seed=seed)
    silent = ~has_history & recommender.needs_history
    batches = ask_customers(recommender, view, customers, k=k, batch_size=batch_size)
    parts = [pd.DataFrame(columns=list(TARGET_RANK_COLUMNS)).astype(TARGET_RANK_COLUMNS)]
    for start, lists in zip(range(0, len(customers), batch_size), batches, strict=True):
        batch = slice(start, start + batch_size)
        heard = np.where(silent[batch, np.newaxis], PADDING_INDEX, lists)
        of_batch = targets[targets["customer_index"].isin(customers[batch])]
        placed = place_targets(heard, customers[batch], of_batch, in_store, offset=offset[batch], name=recommender.name)
        parts.append(placed)
    return pd.concat(parts, ignore_index=True)


def embed_customers(towers: IndexedTower, view: View, customers: np.ndarray, *, batch_size: int = 256) -> np.ndarray:
    """Embeds customers at their cutoffs.

    Args:
        towers: Fitted from the view.
        view: What they were fitted from.
        customers: `[num_customers]` int32 indices of customers that the view knows, at least one.
        batch_size: Customers embedded together.

    Returns:
        `[num_customers, embedding_dim + 1]` float32.
    """
    table, cutoff = HistoryTable(view.timelines, view.profiles), tf.constant(view.now)

    # Not a tf.function: tracing it costs more than it saves on so few batches.
    def embed(customer_index: np.ndarray) -> np.ndarray:
        return towers.embed(table(tf.constant(customer_index)), tf.gather(cutoff, customer_index)).numpy()

    batches = [customers[start : start + batch_size] for start in range(0, len(customers), batch_size)]
    return np.concatenate([embed(batch) for batch in batches])
