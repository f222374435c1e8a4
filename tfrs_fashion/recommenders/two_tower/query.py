"""The query side of two towers: who the customer is and what was bought."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.history import HistoryFeatureLayer, HistoryFeatures
from tfrs_fashion.features.history_lookups import HistoryLookups, categorical_sizes, number_names
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.models.towers import QueryTower
from tfrs_fashion.recommenders.recommender import set_weight_arrays, weight_arrays


class NoHistoryFeatures(tf.Module):
    """Takes the place of `HistoryFeatureLayer` if features of the history are left out."""

    def __call__(self, histories: Histories, now: tf.Tensor) -> HistoryFeatures:
        """Returns features without columns."""
        batch = tf.shape(now)[0]
        return HistoryFeatures(tf.zeros([batch, 0], tf.float32), tf.zeros([batch, 0], tf.int32))


class TwoTowerQuery(tf.Module):
    """The query side of two towers: who the customer is and what they bought, how often and how recently.

    Args:
        tower: The built tower with its weights.
        history_features: Computes the features of histories.
        article_embedding: `[num_articles + 2, embedding_dim]` float32, embeddings of a history's articles.
        article_weight: `[num_articles + 2, 2]` float32; see `QueryTower.weigh`.
        settings: Settings of the query tower; see `make_query_tower`.
    """

    def __init__(
        self,
        tower: QueryTower,
        history_features: HistoryFeatureLayer | NoHistoryFeatures,
        article_embedding: np.ndarray,
        article_weight: np.ndarray,
        *,
        settings: dict[str, Any],
    ) -> None:
        super().__init__(name="two_tower_query")
        self.history_length: int | None = settings["history_length"]
        self.tower = tower
        self._settings = settings
        self._history_features = history_features
        self._article_embedding = tf.Variable(article_embedding, trainable=False, dtype=tf.float32)
        self._article_weight = tf.Variable(article_weight, trainable=False, dtype=tf.float32)

    def __call__(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Embeds `[batch]` histories at `now` as `[batch, embedding_dim + 1]` float32."""
        if self.history_length is not None:
            histories = histories.last(self.history_length)
        _bought, strongest = self.tower.read(histories, now)
        embedding, weight = (
            tf.gather(values, strongest.article_index) for values in (self._article_embedding, self._article_weight)
        )
        return self.tower(strongest, embedding, weight, histories, self._history_features(histories, now), now)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the tower's weights and lookups and the embeddings of articles; see `load`."""
        arrays = weight_arrays(self.tower)
        arrays["article_embedding"] = self._article_embedding.numpy()
        arrays["article_weight"] = self._article_weight.numpy()
        lookups = self._history_features.lookups if isinstance(self._history_features, HistoryFeatureLayer) else None
        described = None
        if lookups is not None:
            arrays |= {f"lookup_{role}": np.asarray(index) for role, index in lookups.index.items()}
            described = {"vocabulary": lookups.vocabulary, "section_shares": lookups.section_shares}
            described |= {name: getattr(lookups, name) for name in ("women", "men", "kids")}
        return arrays, {"settings": self._settings, "lookups": described}

    @classmethod
    def load(cls, arrays: dict[str, np.ndarray], stored: dict[str, Any]) -> "TwoTowerQuery":
        """Makes the query again from its `state`."""
        described, lookups = stored["lookups"], None
        if described is not None:
            index = {role: arrays[f"lookup_{role}"] for role in described["vocabulary"]}
            tuples = {name: tuple(described[name]) for name in ("section_shares", "women", "men", "kids")}
            lookups = HistoryLookups(index=index, vocabulary=described["vocabulary"], **tuples)
        tower = make_query_tower(stored["settings"], lookups)
        set_weight_arrays(tower, arrays)
        embeddings = (arrays["article_embedding"], arrays["article_weight"])
        return cls(tower, make_history_layer(lookups), *embeddings, settings=stored["settings"])


def make_history_layer(lookups: HistoryLookups | None) -> HistoryFeatureLayer | NoHistoryFeatures:
    """Makes the layer that computes the features of histories; None leaves them out."""
    return NoHistoryFeatures() if lookups is None else HistoryFeatureLayer(lookups)


def make_query_tower(settings: dict[str, Any], lookups: HistoryLookups | None) -> QueryTower:
    """Makes a query tower whose weights all exist, by embedding an empty history.

    Args:
        settings: `history_length`, `side_dim` (of `EncodedArticles`) and the arguments of `QueryTower` that do not
            follow from the lookups.
        lookups: Lookups of the history features; None leaves these out.
    """
    outside = ("history_length", "side_dim")
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
