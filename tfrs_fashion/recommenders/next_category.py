"""The next category as a recommender: what sells in the categories from which a customer is to buy next."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.models.next_category import NextCategoryModel, stretch
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.group_popularity import CategoryPopularity, count_baskets
from tfrs_fashion.recommenders.recommender import Recommender, load_state, save_state
from tfrs_fashion.recommenders.sequence_parts import make_sequence_parts, train_sequence_model
from tfrs_fashion.recommenders.sequential import SequenceQuery
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX, InputError
from tfrs_fashion.settings.sequences import NextCategoryConfig


class NextCategory(CategoryPopularity):
    """What sells in a customer's likeliest categories: sales times the probability that a tower gives the category.

    Args:
        query: Embeds histories.
        kernel: `[embedding_dim + 1, num_categories]` float32, of the softmax.
        bias: `[num_categories]` float32.
        taken: The likeliest categories that are kept.
        article_index: `[num_candidates]` int32.
        sales: `[num_candidates]` float32, above 0.
        category: `[num_articles + 2]` int32, 0 where unknown.
        name: As used in reports.
    """

    def __init__(
        self,
        query: SequenceQuery,
        kernel: np.ndarray,
        bias: np.ndarray,
        *,
        taken: int,
        article_index: np.ndarray,
        sales: np.ndarray,
        category: np.ndarray,
        name: str,
    ) -> None:
        super().__init__(article_index, sales, category, name=name)
        self.history_length = query.history_length
        self._query, self._taken = query, taken
        self._kernel = tf.Variable(kernel, trainable=False, dtype=tf.float32)
        self._bias = tf.Variable(bias, trainable=False, dtype=tf.float32)

    def probabilities(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Returns `[batch, num_categories]` float32, of the category of the next purchase; column 0 is none."""
        logits = tf.matmul(stretch(self._query(histories, now)), self._kernel) + self._bias
        return tf.nn.softmax(tf.concat([tf.fill([tf.shape(now)[0], 1], -np.inf), logits[:, 1:]], axis=1))

    def _share(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Keeps the likeliest categories, of customers who have a history."""
        found = self.probabilities(histories, now)
        least = tf.math.top_k(found, k=min(self._taken, found.shape[1])).values[:, -1:]
        has_history = (histories.article_index.row_lengths() > 0)[:, tf.newaxis]
        return tf.where((found >= least) & has_history, found, 0.0)

    def save(self, folder: Path) -> None:
        """Writes the tower, the softmax, sales and categories."""
        arrays, settings = self._query.state()
        for name in ("kernel", "bias", "article_index", "sales", "category"):
            arrays[name] = getattr(self, f"_{name}").numpy()
        save_state(folder, arrays, query=settings, taken=self._taken, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "NextCategory":
        """Reads what `save` wrote."""
        arrays, stored = load_state(folder)
        return cls(SequenceQuery.load(arrays, stored.pop("query")), **arrays, **stored)


def fit_next_category(
    view: View,
    settings: NextCategoryConfig,
    *,
    category: str,
    max_epochs: int,
    num_text_buckets: int,
    seed: int,
    name: str,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    log: TrainingLog | None = None,
) -> NextCategory:
    """Fits a tower that tells the category of what each customer bought next, and counts what sells in each.

    Args:
        view: What may be seen.
        settings: Of tower and training.
        category: A categorical feature of articles.
        max_epochs: Epochs over which the learning rate falls.
        num_text_buckets: Hash buckets of the words of descriptions; 0 leaves text out.
        seed: Of weights and batches.
        name: As used in reports.
        validate: Judges the lists after each epoch; without it all epochs are run.
        log: Where progress is told.

    Raises:
        InputError: There is no such feature, or no basket to learn from.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    articles = view.articles
    if category not in articles.categorical:
        known = ", ".join(articles.categorical) or "none"
        raise InputError(
            f"generators.{name}.category: `{category}` is no categorical feature of articles; known are {known}. Name one there, "
            f"or in `features.roles.category`."
        )
    index = articles.categorical[category]
    group = np.where(index >= FIRST_INDEX, index, PADDING_INDEX).astype(np.int32)
    nobody = np.zeros(len(view.timelines.time), np.int32)
    sales = count_baskets(view, days=settings.days, group=nobody, num_groups=1)[0]
    sold = articles.in_store[sales[articles.in_store] > 0].astype(np.int32)
    parts = make_sequence_parts(view, settings, num_text_buckets=num_text_buckets, seed=seed, name=name)
    model = NextCategoryModel(
        parts.encoder,
        parts.tower,
        category=group,
        num_categories=len(articles.vocabulary[category]) + FIRST_INDEX,
        article_dropout=settings.article_dropout,
        seed=seed,
        name=name,
    )

    def recommender() -> NextCategory:
        kernel, bias = model.head.get_weights()
        return NextCategory(
            parts.query(articles.num_articles + FIRST_INDEX),
            kernel,
            bias,
            taken=settings.num_categories,
            article_index=sold,
            sales=sales[sold],
            category=group,
            name=name,
        )

    told: dict[str, Any] = {"max_epochs": max_epochs, "validate": validate, "log": log, "name": name}
    train_sequence_model(model, parts, settings, recommender, **told)
    return recommender()
