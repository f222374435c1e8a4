"""Fashion DNA: static styles of customers who buy often, and vectors of articles in store computed from their content."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.models.encoders import ArticleEncoder
from tfrs_fashion.models.fashion_dna import FashionDna, FashionDnaModel
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.recommender import FitContext, Recommendations, save_state
from tfrs_fashion.recommenders.trained import encode_in_batches, number_rows, train
from tfrs_fashion.schema import FIRST_INDEX, InputError
from tfrs_fashion.settings.sequences import FashionDnaConfig


class StaticStyles(tf.Module):
    """Static styles of customers, and the Fashion DNA of all articles, sold or not.

    Args:
        customer_factors: `[num_customers + 2, dim]` float32 styles; zero rows have no answer.
        vectors: `[num_articles + 2, dim]` float32, the Fashion DNA of every article known.
        article_index: `[num_candidates]` int32, those in store.
        name: Name in reports.
    """

    kind = "fashion_dna"
    history_length: int | None = Factorization.history_length
    needs_history = True

    def __init__(
        self, customer_factors: np.ndarray, vectors: np.ndarray, article_index: np.ndarray, *, name: str
    ) -> None:
        super().__init__(name=name)
        self.vectors = vectors
        self._kept = {"customer_factors": customer_factors, "article_index": article_index}
        self._factors = Factorization(
            customer_factors, vectors[article_index], article_index, kind=self.kind, name=name
        )

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k articles nearest to the style; see `Recommender`."""
        return self._factors(histories, now=now, k=k, exclude=exclude)

    def score(self, histories: Histories, now: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores `[batch, width]` int32 articles; see `ScoringRecommender`."""
        return self._factors.score(histories, now, article_index)

    def save(self, folder: Path) -> None:
        """Writes styles and vectors."""
        save_state(folder, {**self._kept, "vectors": self.vectors}, kind=self.kind, name=self.name)


def _article_batches(bought: csr_matrix, *, batch_size: int, seed: int) -> tf.data.Dataset:
    """Makes shuffled batches of articles with the customers who bought them; see `FashionDnaModel.compute_loss`.

    Args:
        bought: `[num_articles + 2, num_customers]`, not 0 where a customer bought an article.
        batch_size: Articles per batch.
        seed: Seed of the order, which differs from epoch to epoch.
    """
    sold = np.flatnonzero(np.diff(bought.indptr)).astype(np.int32)
    random = np.random.default_rng(seed)

    def epoch() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        order = random.permutation(sold)
        for start in range(0, len(order), batch_size):
            articles = order[start : start + batch_size]
            rows = bought[articles]
            yield articles, rows.indices.astype(np.int32), np.diff(rows.indptr).astype(np.int64)

    def label(articles: tf.Tensor, customer: tf.Tensor, length: tf.Tensor) -> dict[str, object]:
        return {
            "article_index": articles,
            "customer": tf.RaggedTensor.from_row_lengths(customer, length, validate=False),
        }

    signature = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64))
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-len(sold) // batch_size)))
    return dataset.map(label).prefetch(tf.data.AUTOTUNE)


def fit(view: View, settings: FashionDnaConfig, context: FitContext) -> StaticStyles:
    """Fits Fashion DNA and the styles of customers who buy often; see `recommenders.kinds.Kind`.

    A batch has one logit for each of its articles and each of these customers: 256 articles and 100,000 customers take
    102 MB.

    Raises:
        InputError: Nobody bought enough articles, or nothing is known of the articles.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(context.seed)
    articles, name, seed = view.articles, context.name, context.seed
    size = articles.num_articles + FIRST_INDEX
    words = view.read_words(view.num_text_buckets) if view.num_text_buckets else None
    if not (articles.vocabulary or articles.numbers or articles.sets or articles.vectors.shape[1] or words):
        raise InputError(
            f"{name}: Fashion DNA is computed from the content of articles, and `features` declares none. Declare categorical "
            f"features, numbers, sets, text or images there, or leave {name} out of `recommenders`."
        )
    matrix = customer_matrix(view)
    matrix.data[matrix.indices < FIRST_INDEX] = 0.0
    matrix.eliminate_zeros()
    num_bought = np.diff(matrix.indptr)
    frequent = np.flatnonzero(num_bought >= settings.min_articles)
    if not len(frequent):
        raise InputError(
            f"{name}: none of {int((num_bought > 0).sum()):,} customer(s) bought {settings.min_articles} articles before the cutoff. "
            f"Lower `{context.section}.min_articles`, or leave {name} out of `recommenders`."
        )
    dataset = _article_batches(matrix[frequent].T.tocsr(), batch_size=settings.batch_size, seed=seed)
    encoder = ArticleEncoder(
        number_rows(np.zeros(size, bool)),
        articles,
        words,
        np.zeros((1, size, 0), np.float32),
        embedding_dim=settings.content_dim,
        content_scale=1.0,
        encoding=settings.categorical_encoding,
        number_encoding=settings.number_encoding,
        num_bins=settings.num_bins,
        seed=seed,
    )
    dim = settings.dim
    dna = FashionDna(encoder, hidden_dims=settings.hidden_dims, dim=dim, dropout=settings.dropout, seed=seed)
    share = (num_bought[frequent] + 0.5) / (int((articles.num_baskets > 0).sum()) + 1.0)
    model = FashionDnaModel(dna, dim=dim, share=share.astype(np.float32), seed=seed)

    def recommender() -> StaticStyles:
        vectors = encode_in_batches(dna, np.arange(size, dtype=np.int32), width=dim)
        styles = np.zeros((view.timelines.num_customers + FIRST_INDEX, dim), np.float32)
        styles[frequent] = model.style.numpy()
        return StaticStyles(styles, vectors, articles.in_store, name=name)

    return train(
        model,
        dataset,
        recommender,
        context,
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        patience=settings.patience,
    )
