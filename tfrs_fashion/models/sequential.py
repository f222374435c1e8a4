"""The sequential query tower: a customer whose style moves with every purchase."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import SECONDS_PER_DAY
from tfrs_fashion.features.sequences import Steps
from tfrs_fashion.models.encoders import (
    ArticleEncoder,
    CategoryEncoder,
    CategoryEncoding,
    EncodedArticles,
    GivenArticles,
    NumberEncoder,
    NumberEncoding,
)
from tfrs_fashion.models.objectives import Objective
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.models.sequence_encoders import SequenceKind, make_sequence_encoder
from tfrs_fashion.models.towers import CandidateTower
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX

_YEAR_DAYS = 365.25
# Sales channels that are told apart; higher numbers share the last.
_NUM_CHANNELS = 8
# Length of the articles' vectors in the encoder, over the root of their width.
_STRETCH = 0.3


def describe_steps(steps: Steps, names: Sequence[str]) -> tf.Tensor:
    """Makes the features of steps beside the article: `[batch, length, any]` float32, 0 where nothing is known.

    Args:
        steps: Of sequences.
        names: `gap` (the time until the purchase that is predicted, as a logarithm of days), `season` (of that purchase),
            `price` (a logarithm, and whether it is known), `discount` and `sales_channel_id` (each number a feature).
    """
    parts = [tf.zeros([*tf.unstack(tf.shape(steps.article_index)), 0])]
    for name in names:
        match name:
            case "gap":
                days = tf.cast(steps.next_time - steps.time, tf.float32) / SECONDS_PER_DAY
                parts.append(tf.math.log1p(tf.maximum(days, 0.0))[:, :, tf.newaxis] / 3.0)
            case "season":
                turn = tf.cast(steps.next_time, tf.float64) * (2.0 * np.pi / (_YEAR_DAYS * SECONDS_PER_DAY))
                parts.append(tf.cast(tf.stack([tf.sin(turn), tf.cos(turn)], axis=2), tf.float32))
            case "price":
                known = tf.math.is_finite(steps.price)
                price = tf.where(known, tf.math.log1p(tf.maximum(steps.price, 0.0)), 0.0)
                parts.append(tf.stack([price, tf.cast(known, tf.float32)], axis=2))
            case "discount":
                parts.append(tf.where(tf.math.is_finite(steps.discount), steps.discount, 0.0)[:, :, tf.newaxis])
            case "sales_channel_id":
                channel = tf.clip_by_value(steps.sales_channel_id, 0, _NUM_CHANNELS)
                parts.append(tf.one_hot(channel - 1, _NUM_CHANNELS))
            case _:
                raise ValueError(f"{name} is no feature of an event")
    return tf.concat(parts, axis=2)


def hide_baskets(steps: Steps, *, share: float) -> tf.Tensor:
    """Chooses the baskets that are hidden: by chance, and of every other sequence the last one, as in a query.

    Args:
        steps: Of sequences.
        share: Of the baskets.

    Returns:
        `[batch, length]` bool; what is bought together is hidden together, since it would tell itself.
    """
    time = steps.next_time
    starts = tf.concat([tf.zeros_like(time[:, :1]), tf.cast(time[:, 1:] != time[:, :-1], time.dtype)], axis=1)
    basket = tf.cumsum(starts, axis=1)
    chance = tf.gather(tf.random.uniform(tf.shape(basket)), basket, batch_dims=1)
    last = tf.gather(basket, steps.num_steps - 1, batch_dims=1)[:, tf.newaxis]
    as_asked = tf.random.uniform([tf.shape(basket)[0], 1]) < 0.5
    return (chance < share) | (as_asked & (basket == last))


class SequentialTower(tf.keras.Model):
    """Query embeddings from the order of purchases and from who the customer is, at length 1.

    Args:
        kind: Of the encoder.
        embedding_dim: Width of the article embeddings, and of the query before its bias.
        hidden_dim: Width of the encoder.
        length: Events of a history that are read.
        num_layers: Of the encoder.
        num_heads: Of self-attention.
        dropout: Share of inputs and of each layer that is left out in training.
        event_features: See `describe_steps`.
        is_masked: Whether purchases are hidden and guessed from all the others, before and after them, and not each from
            those before it alone.
        num_customers: Customers that may have an embedding of their own.
        has_customer: Whether they have.
        profile_sizes: Number of indices of each categorical profile feature.
        num_profile_numbers: Numeric profile features.
        encoding: Of the categorical features.
        number_encoding: See `NumberEncoder`.
        num_bins: Bins of a numeric feature.
        seed: Of the initial weights.

    Source: Heinz, Bracher and Vollgraf 2017, An LSTM-based dynamic customer model for fashion recommendation.
    """

    def __init__(
        self,
        *,
        kind: SequenceKind,
        embedding_dim: int,
        hidden_dim: int,
        length: int,
        num_layers: int,
        num_heads: int,
        dropout: float,
        event_features: Sequence[str],
        is_masked: bool,
        num_customers: int,
        has_customer: bool,
        profile_sizes: Sequence[int],
        num_profile_numbers: int,
        encoding: CategoryEncoding,
        number_encoding: NumberEncoding,
        num_bins: int,
        seed: int,
    ) -> None:
        super().__init__(name="sequential_tower")
        self.embedding_dim = embedding_dim
        self._event_features = tuple(event_features)
        self._encoder = make_sequence_encoder(
            kind,
            dim=hidden_dim,
            # A step of nothing comes before the events.
            length=length + 1,
            num_layers=num_layers,
            num_heads=num_heads,
            dropout=dropout,
            is_causal=not is_masked,
            seed=seed,
        )
        self.is_masked = is_masked
        glorot = tf.keras.initializers.GlorotUniform
        self._from_events = tf.keras.layers.Dense(
            embedding_dim, use_bias=False, kernel_initializer=glorot(seed=seed + 50)
        )
        self._project = tf.keras.layers.Dense(embedding_dim, kernel_initializer=glorot(seed=seed + 51))
        self._dropout = tf.keras.layers.Dropout(dropout, seed=seed)
        self._customer = (
            self.add_weight("customer", [num_customers + FIRST_INDEX, embedding_dim], initializer="zeros")
            if has_customer
            else None
        )
        self._categories = CategoryEncoder(
            profile_sizes, output_dim=embedding_dim, encoding=encoding, scale=0.0, seed=seed
        )
        self._numbers = NumberEncoder(num_profile_numbers, num_bins, number_encoding)
        self._from_numbers = tf.keras.layers.Dense(embedding_dim, use_bias=False, kernel_initializer="zeros")
        self._bias = self.add_weight("bias", [], initializer="ones")

    def fit(self, profile_numbers: np.ndarray) -> None:
        """Sets the bins of the numeric profile features, `[num_rows, num_profile_numbers]` float32."""
        self._numbers.fit(profile_numbers)

    def describe_customers(
        self, customer_index: tf.Tensor, profile: tf.Tensor, profile_numbers: tf.Tensor, *, training: bool = False
    ) -> tf.Tensor:
        """Embeds what is known of `[batch]` customers beside their purchases, `[batch, embedding_dim]` float32."""
        told = self._categories(profile)
        if self._numbers.output_dim:
            told += self._from_numbers(self._numbers(profile_numbers))
        if self._customer is not None:
            known = tf.where(customer_index < tf.shape(self._customer)[0], customer_index, 0)
            told += self._dropout(tf.gather(self._customer, known), training=training)
        return told

    def arrange(self, steps: Steps) -> Steps:
        """Arranges the steps of a query: where purchases are guessed, each stands at its own place, and the last is hidden."""
        if not self.is_masked:
            return steps
        nothing = tf.fill([tf.shape(steps.article_index)[0], 1], PADDING_INDEX)
        return steps._replace(article_index=tf.concat([steps.article_index[:, 1:], nothing], axis=1))

    def encode(self, vectors: tf.Tensor, steps: Steps, *, training: bool = False) -> tf.Tensor:
        """Encodes steps.

        Args:
            vectors: `[batch, length, embedding_dim]` float32, of the articles of the steps.
            steps: Of sequences.
            training: Whether something is left out.

        Returns:
            `[batch, length, hidden_dim]` float32.
        """
        # A step of nothing, or of an unknown article, has no vector; others have length 1 and are stretched.
        is_known = tf.cast(steps.article_index >= FIRST_INDEX, tf.float32)[:, :, tf.newaxis]
        inputs = vectors * is_known * (_STRETCH * self.embedding_dim**0.5)
        if self._event_features:
            inputs += self._from_events(describe_steps(steps, self._event_features))
        inputs = self._dropout(inputs, training=training)
        encoded: tf.Tensor = self._encoder(inputs, steps.num_steps, training=training)
        return encoded

    def embed(self, encoded: tf.Tensor, customer: tf.Tensor) -> tf.Tensor:
        """Makes queries of `[num_queries, hidden_dim]` encoded steps and `[num_queries, embedding_dim]` customers.

        Returns:
            `[num_queries, embedding_dim + 1]` float32, of length 1.
        """
        query = self._project(encoded) + customer
        bias = tf.fill([tf.shape(query)[0], 1], self._bias)
        return tf.math.l2_normalize(tf.concat([query, bias], axis=1), axis=1)


def embed_targets(
    tower: SequentialTower,
    vectors: tf.Tensor,
    steps: Steps,
    inputs: dict[str, Any],
    place: tf.Tensor,
    *,
    training: bool,
) -> tf.Tensor:
    """Embeds the steps of a batch from which something is learned.

    Args:
        tower: Embeds queries.
        vectors: `[batch, length, embedding_dim]` float32, of the articles of the steps.
        steps: Of the batch, with what is hidden hidden.
        inputs: A batch of `features.sequences.make_sequence_dataset`.
        place: `[num_targets, 2]` int64, row and step of each.
        training: Whether something is left out.

    Returns:
        `[num_targets, embedding_dim + 1]` float32, of length 1.
    """
    encoded = tf.gather_nd(tower.encode(vectors, steps, training=training), place)
    told = tower.describe_customers(
        inputs["customer_index"], inputs["profile"], inputs["profile_numbers"], training=training
    )
    # A profile that was made from a purchase is not known before it, and so not to the prediction of that purchase.
    is_known = tf.gather(inputs["known_from"], place[:, 0]) < tf.gather_nd(steps.next_time, place)
    customer = tf.gather(told, place[:, 0]) * tf.cast(is_known, tf.float32)[:, tf.newaxis]
    return tower.embed(encoded, customer)


def mean_loss(losses: tf.Tensor) -> tf.Tensor:
    """Returns the mean of `[num_targets]` losses; 0 of none, for a batch that holds no target."""
    return tf.math.divide_no_nan(tf.reduce_sum(losses), tf.cast(tf.size(losses), tf.float32))


class SequentialModel(RecordedModel):
    """A sequential tower and a candidate tower whose scaled cosine predicts each next purchase.

    Args:
        encoder: Of articles, in steps and as candidates.
        tower: See `SequentialTower`.
        candidate_tower: See `CandidateTower`.
        objective: See `models.objectives`.
        temperature: Divides the cosine at the start; it is learned.
        article_dropout: Share of the articles of a batch that are their content alone, as articles never sold are.
        masked_share: Share of the baskets that are hidden and guessed, where the tower does that.
        name: Of the model, as progress shows it.
    """

    def __init__(
        self,
        *,
        encoder: ArticleEncoder | GivenArticles,
        tower: SequentialTower,
        candidate_tower: CandidateTower,
        objective: Objective,
        temperature: float,
        article_dropout: float,
        masked_share: float = 0.0,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.encoder = encoder
        self.tower = tower
        self.candidate_tower = candidate_tower
        self._objective = objective
        self._article_dropout = article_dropout
        self._masked_share = masked_share
        self._log_scale = self.add_weight(
            "log_scale", [], initializer=tf.keras.initializers.Constant(-float(np.log(temperature)))
        )

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the mean loss of the targets of a batch of `features.sequences.make_sequence_dataset`."""
        steps: Steps = inputs["steps"]
        is_target = inputs["is_target"]
        if self.tower.is_masked:
            is_hidden = hide_baskets(steps, share=self._masked_share)
            steps = steps._replace(article_index=tf.where(is_hidden, PADDING_INDEX, inputs["next_article"]))
            is_target &= is_hidden
        place = tf.where(is_target)
        target, now = (tf.gather_nd(values, place) for values in (inputs["next_article"], steps.next_time))
        drawn = self._objective.draw(target, now)
        read = tf.reshape(steps.article_index, [-1])
        # Every article of the batch is encoded once, however often it comes.
        articles, column = tf.unique(tf.concat([drawn, target, read], axis=0))
        num_drawn, num_targets = tf.size(drawn), tf.size(target)
        keep = tf.cast(tf.random.uniform(tf.shape(articles)) >= self._article_dropout, tf.float32)
        no_week = tf.constant(0)
        encoded = self.encoder(articles, no_week, keep)
        vectors = tf.gather(encoded.embedding, tf.reshape(column[num_drawn + num_targets :], tf.shape(steps.time)))
        query = embed_targets(self.tower, vectors, steps, inputs, place, training=training) * tf.exp(self._log_scale)
        # What is read alone needs no candidate.
        num_candidates = tf.reduce_max(tf.concat([column[: num_drawn + num_targets], [-1]], axis=0)) + 1
        candidate = self.candidate_tower(
            articles[:num_candidates],
            no_week,
            # The gradient of a slice is a pad, that of `[:n]` a slower assignment.
            EncodedArticles(*(tf.slice(part, [0, 0], [num_candidates, -1]) for part in encoded)),
            keep[:num_candidates],
        )
        losses = self._objective.measure(
            query,
            candidate,
            articles[:num_candidates],
            target=column[num_drawn : num_drawn + num_targets],
            drawn=column[:num_drawn],
            now=now,
        )
        return mean_loss(losses)
