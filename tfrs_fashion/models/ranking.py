"""The ranking model: who buys which candidate, how relevant it becomes, and how many."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_fashion.models.encoders import CategoryEncoder, NumberEncoder
from tfrs_fashion.models.list_losses import RankingLoss, lambdarank, listwise, pointwise
from tfrs_fashion.models.recorded import RecordedModel
from tfrs_fashion.schema import FIRST_INDEX, OUT_OF_VOCABULARY_INDEX

NUM_RELEVANCES = 3


class RankingLogits(NamedTuple):
    """What a ranking network says of pairs.

    Attributes:
        purchase: `[num_pairs]` float32, the logit of a purchase in the next window.
        relevance: `[num_pairs, NUM_RELEVANCES]` float32, logits of low, medium and high, should it be bought.
        quantity: `[num_pairs]` float32, the logarithm of how many beyond the first, should it be bought.
    """

    purchase: tf.Tensor
    relevance: tf.Tensor
    quantity: tf.Tensor


class RankingNetwork(tf.keras.Model):
    """Scores pairs of a customer and an article from numbers about both, embeddings of both, crosses and dense layers.

    Args:
        categories: `[num_articles + 2, num_categories]` int32, the categorical features of each article.
        category_sizes: Indices of each.
        num_customers: Customers that may have an embedding of their own.
        num_features: Numbers of a pair.
        num_bins: Bins of each number.
        embedding_dim: Width of the embeddings of article and categories, and of the customer; 0 leaves them and their
            biases out.
        hidden_dims: Widths of the dense layers; the first is that of what is crossed, too.
        num_cross: Cross layers.
        uses_dot: Whether the inner products of the parts that are crossed are told as well.
        num_experts: Experts that the tasks share, each by weights of its own (MMoE); 1 is a shared bottom.
        dropout: Share of inputs of the dense layers that is left out in training.
        seed: Of the initial weights.

    Source: Wang et al. 2021, DCN V2; Gorishniy et al. 2022, On Embeddings for Numerical Features; Ma et al. 2018, MMoE.
    """

    def __init__(
        self,
        categories: np.ndarray,
        *,
        category_sizes: Sequence[int],
        num_customers: int,
        num_features: int,
        num_bins: int,
        embedding_dim: int,
        hidden_dims: Sequence[int],
        num_cross: int,
        uses_dot: bool,
        num_experts: int,
        dropout: float,
        seed: int,
    ) -> None:
        super().__init__(name="ranking_network")
        width = hidden_dims[0]

        def dense(units: int, number: int, activation: str | None = None, *, start: str = "") -> tf.keras.layers.Dense:
            initializer = start or tf.keras.initializers.GlorotUniform(seed=seed + number)
            return tf.keras.layers.Dense(units, activation, kernel_initializer=initializer)

        self._categories = self.add_weight(
            "categories", categories.shape, tf.int32, initializer="zeros", trainable=False
        )
        self._categories.assign(categories)
        self._numbers = NumberEncoder(num_features, num_bins, "quantile")
        self._from_numbers = dense(width, 1)
        small = tf.keras.initializers.RandomNormal(stddev=0.01, seed=seed)
        self._embeds = embedding_dim > 0
        if self._embeds:
            rows = {"article": len(categories), "customer": num_customers + FIRST_INDEX}
            self._article, self._customer = (
                self.add_weight(name, [size, embedding_dim + 1], initializer=small) for name, size in rows.items()
            )
            self._category_encoder = CategoryEncoder(
                category_sizes, output_dim=embedding_dim, encoding="embedding", scale=0.1, seed=seed + 2
            )
        self._cross = [
            tfrs.layers.dcn.Cross(
                projection_dim=max(width // 4, 1),
                kernel_initializer=tf.keras.initializers.GlorotUniform(seed + 10 + number),
            )
            for number in range(num_cross)
        ]
        self._dot = tfrs.layers.feature_interaction.DotInteraction() if uses_dot and self._embeds else None
        self._experts = [
            [dense(units, 100 * expert + 20 + number, "relu") for number, units in enumerate(hidden_dims)]
            for expert in range(num_experts)
        ]
        tasks = RankingLogits._fields
        self._gates = [dense(num_experts, 30 + number) for number in range(len(tasks))] if num_experts > 1 else []
        units = (1, NUM_RELEVANCES, 1)
        self._heads = [dense(size, 40 + number, start="zeros") for number, size in enumerate(units)]
        self._dropout = tf.keras.layers.Dropout(dropout, seed=seed)
        nothing = tf.zeros([1], tf.int32)
        self(tf.zeros([1, num_features]), nothing, nothing)

    def fit(self, features: np.ndarray) -> None:
        """Sets the bins of the numbers, `[num_rows, num_features]` float32, NaN where unknown."""
        self._numbers.fit(features)

    def leave_out(self, task: str) -> None:
        """Says that nothing is learned for a task, one of `RankingLogits`."""
        place = RankingLogits._fields.index(task)
        for layer in (self._heads[place], *self._gates[place : place + 1]):
            layer.trainable = False

    def call(
        self, features: tf.Tensor, article_index: tf.Tensor, customer_index: tf.Tensor, training: bool = False
    ) -> RankingLogits:
        """Scores pairs.

        Args:
            features: `[num_pairs, num_features]` float32, NaN where unknown.
            article_index: `[num_pairs]` int32; those that came after the fit are unknown ones.
            customer_index: `[num_pairs]` int32, as above.
            training: Whether something is left out.
        """
        return self.score(self.describe(features, article_index, customer_index), training=training)

    def describe(
        self, features: tf.Tensor, article_index: tf.Tensor, customer_index: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Returns what the layers read of pairs, `[num_pairs, any]` float32 each: numbers, and what is embedded; see `call`."""
        parts = {"numbers": self._numbers(features)}
        if self._embeds:
            article, customer = (
                tf.where(index < tf.shape(table)[0], index, OUT_OF_VOCABULARY_INDEX)
                for index, table in ((article_index, self._article), (customer_index, self._customer))
            )
            # The last number of each is a bias.
            parts["article"] = tf.gather(self._article, article)
            parts["customer"] = tf.gather(self._customer, customer)
            parts["categories"] = self._category_encoder(tf.gather(self._categories, article))
        return parts

    def score(self, parts: dict[str, tf.Tensor], *, training: bool = False) -> RankingLogits:
        """Scores pairs by what `describe` returned."""
        numbers = self._from_numbers(parts["numbers"])
        bias, embedded = tf.zeros_like(numbers[:, 0]), []
        if self._embeds:
            bias = parts["article"][:, -1] + parts["customer"][:, -1]
            embedded = [parts["article"][:, :-1], parts["customer"][:, :-1], parts["categories"]]
        start = tf.concat([numbers, *embedded], axis=1)
        crossed = start
        for layer in self._cross:
            crossed = layer(start, crossed)
        if self._dot is not None:
            crossed = tf.concat([crossed, self._dot(embedded)], axis=1)
        inputs = self._dropout(crossed, training=training)
        found = []
        for layers in self._experts:
            hidden = inputs
            for layer in layers:
                hidden = self._dropout(layer(hidden), training=training)
            found.append(hidden)
        purchase, relevance, quantity = (
            head(self._mix(inputs, found, place)) for place, head in enumerate(self._heads)
        )
        return RankingLogits(purchase[:, 0] + bias, relevance, quantity[:, 0])

    def _mix(self, inputs: tf.Tensor, found: list[tf.Tensor], place: int) -> tf.Tensor:
        if not self._gates:
            return found[0]
        share = tf.nn.softmax(self._gates[place](inputs))
        return tf.reduce_sum(tf.stack(found, axis=1) * share[:, :, tf.newaxis], axis=1)


class _ListLoss(tf.keras.losses.Loss):
    """The mean over lists, as a task of TFRS takes it."""

    def __init__(self, measure: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]) -> None:
        super().__init__()
        self._measure = measure

    def __call__(self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(self._measure(y_true, y_pred, sample_weight))


class RankingModel(RecordedModel):
    """A ranking network and its tasks.

    Args:
        network: Scores pairs.
        loss: Of the order by purchases.
        k: Places that count, with `lambdarank`.
        relevance_weight: Of the task of telling low, medium and high relevance apart; 0 leaves it out.
        quantity_weight: Of the task of telling how many are bought (Poisson); 0 leaves it out.
        name: Of the model, as progress shows it.
    """

    def __init__(
        self,
        network: RankingNetwork,
        *,
        loss: RankingLoss,
        k: int,
        relevance_weight: float,
        quantity_weight: float,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.network = network
        measures: dict[str, Callable[..., tf.Tensor]] = {
            "pointwise": pointwise,
            "listwise": listwise,
            "lambdarank": partial(lambdarank, k=k),
        }
        self._purchase = tfrs.tasks.Ranking(loss=_ListLoss(measures[loss]))
        self._relevance = tfrs.tasks.Ranking(loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        # Labels without a purchase have no weight, and the mean is over all.
        self._quantity = tfrs.tasks.Ranking(loss=tf.keras.losses.Poisson())
        self._weights = (relevance_weight, quantity_weight)
        for task, weight in zip(("relevance", "quantity"), self._weights, strict=True):
            if not weight:
                network.leave_out(task)

    def compute_loss(self, inputs: dict[str, Any], training: bool = False) -> tf.Tensor:
        """Computes the loss of a batch of lists.

        Args:
            inputs: `features` `[batch, width, num_features]` float32, `article_index` `[batch, width]` int32, `customer_index`
                `[batch]` int32, `label` and `weight` as in `list_losses.pointwise`, `relevance` `[batch, width]` int32 and
                `quantity` `[batch, width]` float32, both 0 where nothing was bought.
            training: Whether something is left out.
        """
        label = inputs["label"]
        shape = tf.shape(label)
        flat = tf.reshape(inputs["features"], [-1, inputs["features"].shape[2]])
        customer = tf.repeat(inputs["customer_index"], shape[1])
        told = self.network(flat, tf.reshape(inputs["article_index"], [-1]), customer, training=training)
        loss = self._purchase(
            labels=label, predictions=tf.reshape(told.purchase, shape), sample_weight=inputs["weight"]
        )
        is_bought = tf.cast(tf.reshape(label, [-1]) > 0, tf.float32)
        share = tf.math.divide_no_nan(tf.cast(tf.size(is_bought), tf.float32), tf.reduce_sum(is_bought))
        relevance, quantity = (tf.reshape(inputs[name], [-1]) for name in ("relevance", "quantity"))
        for weight, task, labels, predictions in (
            (self._weights[0], self._relevance, relevance, told.relevance),
            (self._weights[1], self._quantity, tf.maximum(quantity - 1.0, 0.0), tf.exp(told.quantity)),
        ):
            if weight:
                # The mean over what was bought alone; a vector of predictions is one figure a row.
                rows = predictions if len(predictions.shape) == 2 else predictions[:, tf.newaxis]
                truth = labels if len(predictions.shape) == 2 else labels[:, tf.newaxis]
                loss += weight * share * task(labels=truth, predictions=rows, sample_weight=is_bought)
        return loss
