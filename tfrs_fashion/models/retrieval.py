"""The retrieval model: two towers, trained on the next basket."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.bought_articles import BoughtArticles
from tfrs_fashion.features.history import HistoryFeatures
from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.models.encoders import ArticleEncoder, EncodedArticles
from tfrs_fashion.models.losses import basket_softmax
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.models.towers import CandidateTower, QueryTower


class TwoTowerModel(RecordedModel):
    """Two towers whose scaled cosine predicts what the next basket holds.

    A query is computed once a basket, whatever the number of its articles. The candidates of a batch are the distinct
    articles of its baskets and some sampled ones.

    Args:
        encoder: Of articles, in histories and as candidates.
        query_tower: See `QueryTower`.
        candidate_tower: See `CandidateTower`.
        history_features: Computes the features of histories.
        temperature: Divides the cosine at the start; it is learned.
        log_probability: `[num_weeks, num_articles + 2]` float32, log of the probability that a batch of each week holds
            each article.
        sampling_rate: `[num_articles + 2]` float32, probability that a batch draws each article as a further candidate.
        new_weight: Weight of a positive that the history lacks, against one that it holds.
        article_dropout: Share of the articles of a batch that are their content alone, as articles never sold are.
        customer_dropout: Share of the customers of a batch without an embedding of their own, like customers never seen.
        name: Name in progress and messages.
    """

    def __init__(
        self,
        *,
        encoder: ArticleEncoder,
        query_tower: QueryTower,
        candidate_tower: CandidateTower,
        history_features: Callable[[Histories, tf.Tensor], HistoryFeatures],
        temperature: float,
        log_probability: np.ndarray,
        sampling_rate: np.ndarray,
        new_weight: float,
        article_dropout: float,
        customer_dropout: float,
        name: str = "two_tower",
    ) -> None:
        super().__init__(name=name)
        self.encoder = encoder
        self.query_tower = query_tower
        self.candidate_tower = candidate_tower
        self._history_features = history_features
        self._log_probability = tf.constant(log_probability, tf.float32)
        self._sampling_rate = tf.constant(sampling_rate, tf.float32)
        self._new_weight = new_weight
        self._article_dropout = article_dropout
        self._customer_dropout = customer_dropout
        self._log_scale = self.add_weight(
            "log_scale", [], initializer=tf.keras.initializers.Constant(-float(np.log(temperature)))
        )

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the loss of a batch of `features.inputs.make_training_dataset`.

        Each basket weighs as the square root of the number of its articles.
        """
        histories, now, target, week = inputs["histories"], inputs["now"], inputs["target"], inputs["week"]
        bought, strongest = self.query_tower.read(histories, now)
        drawn = tf.where(tf.random.uniform(tf.shape(self._sampling_rate)) < self._sampling_rate)[:, 0]
        candidates, column = tf.unique(tf.concat([target.flat_values, tf.cast(drawn, tf.int32)], axis=0))
        # Every article of the batch is encoded once, whatever the number of histories that hold it.
        articles, order = tf.unique(tf.concat([candidates, strongest.article_index], axis=0))
        keep = tf.cast(tf.random.uniform(tf.shape(articles)) >= self._article_dropout, tf.float32)
        encoded = self.encoder(articles, week, keep)
        num_candidates = tf.size(candidates)
        query = self.query_tower(
            strongest,
            tf.gather(encoded.embedding, order[num_candidates:]),
            tf.gather(self.query_tower.weigh(encoded.side), order[num_candidates:]),
            histories,
            self._history_features(histories, now),
            now,
            tf.cast(tf.random.uniform(tf.shape(now)) >= self._customer_dropout, tf.int32),
        )
        candidate = self.candidate_tower(
            candidates, week, EncodedArticles(*(part[:num_candidates] for part in encoded)), keep[:num_candidates]
        )
        row = tf.cast(target.value_rowids(), tf.int32)
        loss = basket_softmax(
            tf.matmul(query, candidate, transpose_b=True) * tf.exp(self._log_scale),
            query=row,
            candidate=column[: tf.size(row)],
            log_probability=tf.gather(self._log_probability[week], candidates),
        )
        weight = tf.math.rsqrt(tf.cast(tf.gather(target.row_lengths(), row), tf.float32))
        weight *= tf.where(_holds(bought, row, target.flat_values), 1.0, self._new_weight)
        return tf.reduce_sum(weight * loss) / tf.reduce_sum(weight)


def _holds(bought: BoughtArticles, row: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
    """Tells which `[num_pairs]` (row, article) are among the bought ones, which ascend by row and article."""
    stride = tf.constant(2**32, tf.int64)
    known = bought.row * stride + tf.cast(bought.article_index, tf.int64)
    asked = tf.cast(row, tf.int64) * stride + tf.cast(article_index, tf.int64)
    known = tf.concat([known, [tf.int64.max]], axis=0)
    return tf.gather(known, tf.searchsorted(known, asked)) == asked
