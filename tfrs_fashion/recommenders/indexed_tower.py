"""What query towers share as recommenders: an index over candidates, which may be exchanged."""

from typing import Any, NamedTuple, Self

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.index.exact import Exact
from tfrs_fashion.index.scann import Scann
from tfrs_fashion.recommenders.recommender import Recommendations, with_source
from tfrs_fashion.sections import IndexKind


class CandidateSet(NamedTuple):
    """Articles that an index is made of.

    Attributes:
        embedding: `[num_candidates, embedding_dim + 1]` float32.
        article_index: `[num_candidates]` int32.
    """

    embedding: np.ndarray
    article_index: np.ndarray


class IndexedTower(tf.Module):
    """Embeds a history, as a subclass says how, and looks up its nearest candidates.

    Args:
        in_store: The articles to recommend.
        never_sold: The articles that the catalogue lists and that were never sold.
        history_length: Last events of a history that are read; None for all.
        needs_history: Whether customers without a history are left to others.
        name: As used in reports.
    """

    def __init__(
        self,
        *,
        in_store: CandidateSet,
        never_sold: CandidateSet,
        history_length: int | None,
        needs_history: bool,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.history_length = history_length
        self.needs_history = needs_history
        self.in_store = in_store
        self.never_sold = never_sold
        self._index: Exact | Scann = Exact(*in_store)

    def embed(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now` as `[batch, embedding_dim + 1]` float32."""
        raise NotImplementedError

    def _renamed(self, name: str) -> Self:
        """Returns the same tower under another name, over the exact index."""
        raise NotImplementedError

    def with_index(self, kind: IndexKind, *, name: str, **settings: Any) -> Self:
        """Returns the same tower over another index; `settings` go to `Scann`."""
        other = self._renamed(name)
        match kind:
            case "exact":
                pass
            case "scann":
                other._index = Scann(*self.in_store, **settings)
            case "new_arrivals":
                other._index = Exact(*self.never_sold)
                # Nothing else knows new arrivals, so there is nobody to leave strangers to.
                other.needs_history = False
        return other

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k nearest candidates; see `Recommender`. The score is the inner product."""
        return with_source(*self._index(self.embed(histories, now), k=k, exclude=exclude), self.name)

    def score(self, histories: Histories, now: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores `[batch, width]` int32 articles as `__call__` does; -inf where an article is no candidate."""
        return self._index.score(self.embed(histories, now), article_index)

    def candidate_arrays(self) -> dict[str, np.ndarray]:
        """Returns the candidates as arrays to save, which `load_candidates` reads."""
        found: dict[str, np.ndarray] = {}
        for name in _CANDIDATE_SETS:
            candidates = getattr(self, name)
            found |= {f"{name}_embedding": candidates.embedding, f"{name}_index": candidates.article_index}
        return found


_CANDIDATE_SETS = ("in_store", "never_sold")


def load_candidates(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Reads what `candidate_arrays` made."""
    return {name: CandidateSet(arrays[f"{name}_embedding"], arrays[f"{name}_index"]) for name in _CANDIDATE_SETS}
