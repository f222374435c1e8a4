"""A query tower with an index over candidates: the form of two towers and of sequential towers as recommenders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.articles import ArticleTable
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.index.scann import Scann
from tfrs_fashion.models.towers import CandidateTower
from tfrs_fashion.recommenders.recommender import Recommendations, load_kind, load_state, save_state, with_source
from tfrs_fashion.recommenders.trained import encode_in_batches
from tfrs_fashion.settings.base import IndexKind


class CandidateSet(NamedTuple):
    """The articles in an index, with their embeddings.

    Attributes:
        embedding: `[num_candidates, embedding_dim + 1]` float32.
        article_index: `[num_candidates]` int32.
    """

    embedding: np.ndarray
    article_index: np.ndarray


class Query(Protocol):
    """A `tf.Module` that embeds histories.

    Attributes:
        history_length: Number of latest events of a history that it reads; None for all.
    """

    history_length: int | None

    def __call__(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now`, `[batch]` int64, as `[batch, embedding_dim + 1]` float32."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the arrays and settings from which it can be made again."""


class IndexedTower(tf.Module):
    """Embeds a history and looks up its nearest candidates.

    Args:
        query: Embeds histories.
        in_store: The articles to recommend.
        never_sold: The articles of the catalogue that were never sold.
        needs_history: Whether customers without a history are left to the fallback.
        kind: The kind of recommender, e.g. `two_tower`.
        name: Name in reports.
    """

    def __init__(
        self,
        query: Query,
        *,
        in_store: CandidateSet,
        never_sold: CandidateSet,
        needs_history: bool,
        kind: str,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.kind = kind
        self.query = query
        self.history_length = query.history_length
        self.needs_history = needs_history
        self.in_store = in_store
        self.never_sold = never_sold
        self._index: Exact | Scann = Exact(*in_store)

    def with_index(self, kind: IndexKind, *, name: str, **settings: Any) -> "IndexedTower":
        """Returns the same tower over another index; `settings` go to `Scann`."""
        # Nothing else knows new arrivals, so there is no fallback to leave cold-start customers to.
        other = IndexedTower(
            self.query,
            in_store=self.in_store,
            never_sold=self.never_sold,
            needs_history=self.needs_history and kind != "new_arrivals",
            kind=self.kind,
            name=name,
        )
        match kind:
            case "exact":
                pass
            case "scann":
                other._index = Scann(*self.in_store, **settings)
            case "new_arrivals":
                other._index = Exact(*self.never_sold)
        return other

    def embed(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now` as `[batch, embedding_dim + 1]` float32."""
        return self.query(histories, now)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k nearest candidates; see `Recommender`. The score is the inner product."""
        return with_source(*self._index(self.embed(histories, now), k=k, exclude=exclude), self.name)

    def score(self, histories: Histories, now: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores `[batch, width]` int32 articles as `__call__` does; -inf where an article is no candidate."""
        return self._index.score(self.embed(histories, now), article_index)

    def save(self, folder: Path) -> None:
        """Writes the query, and the embeddings of the candidates."""
        arrays, settings = self.query.state()
        for name in _CANDIDATE_SETS:
            candidates = getattr(self, name)
            arrays |= {f"{name}_embedding": candidates.embedding, f"{name}_index": candidates.article_index}
        save_state(folder, arrays, kind=self.kind, query=settings, needs_history=self.needs_history, name=self.name)


_CANDIDATE_SETS = ("in_store", "never_sold")


def load_indexed_tower(
    folder: Path, load_query: Callable[[dict[str, np.ndarray], dict[str, Any]], Query]
) -> IndexedTower:
    """Reads what `IndexedTower.save` wrote.

    Args:
        folder: The folder.
        load_query: Makes the query again from the arrays and settings of its `state`.
    """
    arrays, stored = load_state(folder)
    candidates: dict[str, Any] = {
        name: CandidateSet(arrays.pop(f"{name}_embedding"), arrays.pop(f"{name}_index")) for name in _CANDIDATE_SETS
    }
    return IndexedTower(load_query(arrays, stored.pop("query")), **candidates, **stored, kind=load_kind(folder))


def index_tower(
    query: Query,
    tower: CandidateTower,
    articles: ArticleTable,
    *,
    width: int,
    needs_history: bool,
    kind: str,
    name: str,
) -> IndexedTower:
    """Embeds the candidates of a query, those in store and those never sold, and indexes them exactly.

    Args:
        query: Embeds histories.
        tower: Embeds candidates, as `[num_candidates, width]`.
        articles: The articles known.
        width: Width of an embedding, its bias included.
        needs_history: See `IndexedTower`, as for the next two.
        kind: The kind of recommender.
        name: Name in reports.
    """
    in_store, never_sold = (
        CandidateSet(
            encode_in_batches(lambda rows: tower(rows, tf.constant(0)), article_index, width=width), article_index
        )
        for article_index in (articles.in_store, articles.never_sold)
    )
    return IndexedTower(
        query, in_store=in_store, never_sold=never_sold, needs_history=needs_history, kind=kind, name=name
    )
