"""Two towers as a recommender: a query tower with an index over candidates."""

from pathlib import Path
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.history import HistoryFeatureLayer, HistoryFeatures
from tfrs_fashion.features.history_lookups import HistoryLookups, categorical_sizes, number_names
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.models.towers import QueryTower
from tfrs_fashion.recommenders.indexed_tower import CandidateSet, IndexedTower, load_candidates
from tfrs_fashion.recommenders.recommender import load_state, save_state


class NoHistoryFeatures(tf.Module):
    """Stands in where features of the history are left out."""

    def __call__(self, histories: Histories, now: tf.Tensor) -> HistoryFeatures:
        """Returns features without columns."""
        batch = tf.shape(now)[0]
        return HistoryFeatures(tf.zeros([batch, 0], tf.float32), tf.zeros([batch, 0], tf.int32))


class TwoTower(IndexedTower):
    """Embeds a history and looks up its nearest candidates.

    Args:
        query_tower: Built, with its weights.
        history_features: Computes the features of histories.
        article_embedding: `[num_articles + 2, embedding_dim]` float32, what histories are made of.
        article_weight: `[num_articles + 2, 2]` float32; see `QueryTower.weigh`.
        in_store: The articles to recommend.
        never_sold: The articles that the catalogue lists and that were never sold.
        settings: What the query tower was made from; see `make_query_tower`.
        epochs: Epochs that it was trained for.
        curves: Figures of each epoch.
        name: As used in reports.
    """

    def __init__(
        self,
        query_tower: QueryTower,
        history_features: HistoryFeatureLayer | NoHistoryFeatures,
        article_embedding: np.ndarray,
        article_weight: np.ndarray,
        *,
        in_store: CandidateSet,
        never_sold: CandidateSet,
        settings: dict[str, Any],
        epochs: int = 0,
        curves: dict[str, list[float]] | None = None,
        name: str = "two_tower",
    ) -> None:
        super().__init__(
            in_store=in_store,
            never_sold=never_sold,
            history_length=settings["history_length"],
            needs_history=not settings["answers_strangers"],
            name=name,
        )
        self.epochs = epochs
        self.curves = curves or {}
        self._settings = settings
        self._query_tower = query_tower
        self._history_features = history_features
        self._article_embedding = tf.Variable(article_embedding, trainable=False, dtype=tf.float32)
        self._article_weight = tf.Variable(article_weight, trainable=False, dtype=tf.float32)

    def _renamed(self, name: str) -> Self:
        return type(self)(
            self._query_tower,
            self._history_features,
            self._article_embedding.numpy(),
            self._article_weight.numpy(),
            in_store=self.in_store,
            never_sold=self.never_sold,
            settings=self._settings,
            name=name,
        )

    def embed(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now` as `[batch, embedding_dim + 1]` float32."""
        if self.history_length is not None:
            histories = histories.last(self.history_length)
        _bought, strongest = self._query_tower.read(histories, now)
        embedding, weight = (
            tf.gather(values, strongest.article_index) for values in (self._article_embedding, self._article_weight)
        )
        return self._query_tower(strongest, embedding, weight, histories, self._history_features(histories, now), now)

    def save(self, folder: Path) -> None:
        """Writes the query tower's weights and lookups, and the embeddings of articles and candidates."""
        arrays = {f"weight_{number:04d}": weight for number, weight in enumerate(self._query_tower.get_weights())}
        arrays["article_embedding"] = self._article_embedding.numpy()
        arrays["article_weight"] = self._article_weight.numpy()
        arrays |= self.candidate_arrays()
        lookups = self._history_features.lookups if isinstance(self._history_features, HistoryFeatureLayer) else None
        described = None
        if lookups is not None:
            arrays |= {f"lookup_{role}": np.asarray(index) for role, index in lookups.index.items()}
            described = {"vocabulary": lookups.vocabulary, "section_shares": lookups.section_shares}
            described |= {name: getattr(lookups, name) for name in ("women", "men", "kids")}
        save_state(folder, arrays, settings=self._settings, lookups=described, epochs=self.epochs, curves=self.curves)

    @classmethod
    def load(cls, folder: Path) -> "TwoTower":
        """Reads what `save` wrote."""
        arrays, stored = load_state(folder)
        lookups = None
        if (described := stored.pop("lookups")) is not None:
            index = {role: arrays[f"lookup_{role}"] for role in described["vocabulary"]}
            parts = {name: tuple(described[name]) for name in ("section_shares", "women", "men", "kids")}
            lookups = HistoryLookups(index=index, vocabulary=described["vocabulary"], **parts)
        query_tower = make_query_tower(stored["settings"], lookups)
        query_tower.set_weights([arrays[name] for name in sorted(arrays) if name.startswith("weight_")])
        return cls(
            query_tower,
            make_history_layer(lookups),
            arrays["article_embedding"],
            arrays["article_weight"],
            **load_candidates(arrays),
            **stored,
        )


def make_history_layer(lookups: HistoryLookups | None) -> HistoryFeatureLayer | NoHistoryFeatures:
    """Makes what computes the features of histories; None leaves them out."""
    return NoHistoryFeatures() if lookups is None else HistoryFeatureLayer(lookups)


def make_query_tower(settings: dict[str, Any], lookups: HistoryLookups | None) -> QueryTower:
    """Makes a query tower whose weights all exist, by embedding an empty history.

    Args:
        settings: `history_length`, `answers_strangers`, `side_dim` (of `EncodedArticles`) and what `QueryTower` takes
            beside what the lookups tell.
        lookups: Of the history features.
    """
    outside = ("history_length", "answers_strangers", "side_dim")
    tower = QueryTower(
        history_sizes=() if lookups is None else categorical_sizes(lookups),
        num_history_numbers=0 if lookups is None else len(number_names(lookups)),
        **{name: value for name, value in settings.items() if name not in outside},
    )
    histories = Histories.empty(
        1, num_features=len(settings["profile_sizes"]), num_numbers=settings["num_profile_numbers"]
    )
    now = tf.zeros([1], tf.int64)
    _bought, strongest = tower.read(histories, now)
    features = make_history_layer(lookups)(histories, now)
    weight = tower.weigh(tf.zeros([0, settings["side_dim"]]))
    tower(strongest, tf.zeros([0, settings["embedding_dim"]]), weight, histories, features, now)
    return tower
