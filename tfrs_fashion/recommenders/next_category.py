"""The next category as a recommender: what sells in the categories from which a customer is predicted to buy next."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.models.next_category import NextCategoryModel, stretch
from tfrs_fashion.recommenders.group_popularity import CategorySales, count_baskets
from tfrs_fashion.recommenders.recommender import FitContext, Recommendations, load_state, save_state, with_source
from tfrs_fashion.recommenders.sequence_query import SequenceQuery
from tfrs_fashion.recommenders.sequence_training import make_sequence_parts, train_sequence_model
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX, InputError
from tfrs_fashion.settings.sequences import NextCategoryConfig


class NextCategory(tf.Module):
    """What sells in a customer's likeliest categories: sales times the category's probability from a tower.

    Args:
        query: Embeds histories.
        kernel: `[embedding_dim + 1, num_categories]` float32, kernel of the softmax.
        bias: `[num_categories]` float32, bias of the softmax.
        num_kept: Number of likeliest categories that are kept.
        sales: Sales of articles by category.
        name: Name in reports.
    """

    kind = "next_category"
    needs_history = True

    def __init__(
        self,
        query: SequenceQuery,
        kernel: np.ndarray,
        bias: np.ndarray,
        *,
        num_kept: int,
        sales: CategorySales,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.history_length = query.history_length
        self._query, self._num_kept, self._sales = query, num_kept, sales
        self._kernel = tf.Variable(kernel, trainable=False, dtype=tf.float32)
        self._bias = tf.Variable(bias, trainable=False, dtype=tf.float32)

    def probabilities(self, histories: Histories, now: tf.Tensor) -> tf.Tensor:
        """Returns `[batch, num_categories]` float32, of the category of the next purchase; column 0 is none."""
        logits = tf.matmul(stretch(self._query(histories, now)), self._kernel) + self._bias
        return tf.nn.softmax(tf.concat([tf.fill([tf.shape(now)[0], 1], -np.inf), logits[:, 1:]], axis=1))

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles with the largest product, to customers who have a history; see `Recommender`."""
        probability = self.probabilities(histories, now)
        least = tf.math.top_k(probability, k=min(self._num_kept, probability.shape[1])).values[:, -1:]
        has_history = (histories.article_index.row_lengths() > 0)[:, tf.newaxis]
        share = tf.where((probability >= least) & has_history, probability, 0.0)
        return with_source(*self._sales(share, k, exclude), self.name)

    def save(self, folder: Path) -> None:
        """Writes the tower, the softmax, sales and categories."""
        arrays, settings = self._query.state()
        arrays |= {"kernel": self._kernel.numpy(), "bias": self._bias.numpy(), **self._sales.arrays()}
        save_state(folder, arrays, kind=self.kind, query=settings, num_kept=self._num_kept, name=self.name)


def load(folder: Path) -> NextCategory:
    """Reads what `NextCategory.save` wrote."""
    arrays, stored = load_state(folder)
    sales = CategorySales(*(arrays.pop(name) for name in ("article_index", "sales", "category")))
    return NextCategory(SequenceQuery.load(arrays, stored.pop("query")), **arrays, sales=sales, **stored)


def fit(view: View, settings: NextCategoryConfig, context: FitContext) -> NextCategory:
    """Fits a tower that predicts the category of what each customer bought next; see `recommenders.kinds.Kind`.

    Raises:
        InputError: There is no such feature, or no basket to learn from.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(context.seed)
    articles, category = view.articles, settings.category or view.roles.category
    if category not in articles.categorical:
        known = ", ".join(articles.categorical) or "none"
        raise InputError(
            f"{context.section}.category: `{category}` is no categorical feature of articles; known are {known}. Name one "
            "there, or in `features.roles.category`."
        )
    index = articles.categorical[category]
    group = np.where(index >= FIRST_INDEX, index, PADDING_INDEX).astype(np.int32)
    one_group = np.zeros(len(view.timelines.time), np.int32)
    sales = count_baskets(view, days=settings.days, group=one_group, num_groups=1)[0]
    sold = articles.in_store[sales[articles.in_store] > 0].astype(np.int32)
    parts = make_sequence_parts(view, settings, context)
    model = NextCategoryModel(
        parts.encoder,
        parts.tower,
        category=group,
        num_categories=len(articles.vocabulary[category]) + FIRST_INDEX,
        article_dropout=settings.article_dropout,
        seed=context.seed,
        name=context.name,
    )

    def recommender() -> NextCategory:
        return NextCategory(
            parts.query(articles.num_articles + FIRST_INDEX),
            *model.head.get_weights(),
            num_kept=settings.num_categories,
            sales=CategorySales(sold, sales[sold], group),
            name=context.name,
        )

    return train_sequence_model(model, parts, settings, recommender, context)
