"""What query towers share as recommenders: an index over candidates, which may be exchanged."""

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.index.scann import Scann
from tfrs_fashion.recommenders.recommender import Recommendations, save_state, with_source
from tfrs_fashion.settings.base import IndexKind


class CandidateSet(NamedTuple):
    """Articles that an index is made of.

    Attributes:
        embedding: `[num_candidates, embedding_dim + 1]` float32.
        article_index: `[num_candidates]` int32.
    """

    embedding: np.ndarray
    article_index: np.ndarray


class Query(Protocol):
    """A `tf.Module` that embeds histories.

    Attributes:
        history_length: Last events of a history that it reads; None for all.
    """

    history_length: int | None

    def __call__(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now`, `[batch]` int64, as `[batch, embedding_dim + 1]` float32."""

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the arrays and the settings that it can be made from again."""


class IndexedTower(tf.Module):
    """Embeds a history and looks up its nearest candidates.

    Args:
        query: Embeds histories.
        in_store: The articles to recommend.
        never_sold: The articles that the catalogue lists and that were never sold.
        needs_history: Whether customers without a history are left to others.
        name: As used in reports.
    """

    def __init__(
        self, query: Query, *, in_store: CandidateSet, never_sold: CandidateSet, needs_history: bool, name: str
    ) -> None:
        super().__init__(name=name)
        self.query = query
        self.history_length = query.history_length
        self.needs_history = needs_history
        self.in_store = in_store
        self.never_sold = never_sold
        self._index: Exact | Scann = Exact(*in_store)

    def with_index(self, kind: IndexKind, *, name: str, **settings: Any) -> "IndexedTower":
        """Returns the same tower over another index; `settings` go to `Scann`."""
        # Nothing else knows new arrivals, so there is nobody to leave strangers to.
        other = IndexedTower(
            self.query,
            in_store=self.in_store,
            never_sold=self.never_sold,
            needs_history=self.needs_history and kind != "new_arrivals",
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

    def _told(self) -> dict[str, Any]:
        """Returns what is saved beside the query and the candidates."""
        return {"needs_history": self.needs_history, "name": self.name}

    def save(self, folder: Path) -> None:
        """Writes the query, and the embeddings of the candidates."""
        arrays, settings = self.query.state()
        for name in _CANDIDATE_SETS:
            candidates = getattr(self, name)
            arrays |= {f"{name}_embedding": candidates.embedding, f"{name}_index": candidates.article_index}
        save_state(folder, arrays, query=settings, **self._told())


_CANDIDATE_SETS = ("in_store", "never_sold")


def load_candidates(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Reads the candidates of what `IndexedTower.save` wrote."""
    return {name: CandidateSet(arrays[f"{name}_embedding"], arrays[f"{name}_index"]) for name in _CANDIDATE_SETS}
