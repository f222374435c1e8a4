"""Fashion DNA as a recommender: the static styles of customers who buy often, over the vectors of what is in store."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from scipy.sparse import csr_matrix

from tfrs_fashion.features.purchase_matrices import customer_matrix
from tfrs_fashion.features.view import View
from tfrs_fashion.models.encoders import ArticleEncoder
from tfrs_fashion.models.fashion_dna import FashionDna, FashionDnaModel
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.factorization import Factorization
from tfrs_fashion.recommenders.fit_towers import encode_in_batches, number_rows
from tfrs_fashion.recommenders.recommender import Recommender, load_state, save_state
from tfrs_fashion.schema import FIRST_INDEX, InputError
from tfrs_fashion.settings.sequences import FashionDnaConfig


class StaticStyles(Factorization):
    """Static styles of customers, and the Fashion DNA of all articles, sold or not.

    Args:
        customer_factors: `[num_customers + 2, dim]` float32 styles; zero rows have no answer.
        vectors: `[num_articles + 2, dim]` float32, the Fashion DNA of every article known.
        article_index: `[num_candidates]` int32, those in store.
        name: As used in reports.
    """

    def __init__(
        self, customer_factors: np.ndarray, vectors: np.ndarray, article_index: np.ndarray, *, name: str
    ) -> None:
        super().__init__(customer_factors, vectors[article_index], article_index, name=name)
        self.vectors = vectors

    def save(self, folder: Path) -> None:
        """Writes styles and vectors."""
        kept = {name: self._arrays[name] for name in ("customer_factors", "article_index")}
        save_state(folder, {**kept, "vectors": self.vectors}, name=self.name)

    @classmethod
    def load(cls, folder: Path) -> "StaticStyles":
        """Reads what `save` wrote."""
        arrays, settings = load_state(folder)
        return cls(**arrays, **settings)


def _article_batches(bought: csr_matrix, *, batch_size: int, seed: int) -> tf.data.Dataset:
    """Makes shuffled batches of articles with who bought them; see `FashionDnaModel.compute_loss`.

    Args:
        bought: `[num_articles + 2, num_customers]`, what is not 0 was bought.
        batch_size: Articles in a batch.
        seed: Of the order, which differs from epoch to epoch.
    """
    sold = np.flatnonzero(np.diff(bought.indptr)).astype(np.int32)
    random = np.random.default_rng(seed)

    def epoch() -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        order = random.permutation(sold)
        for start in range(0, len(order), batch_size):
            articles = order[start : start + batch_size]
            rows = bought[articles]
            yield articles, rows.indices.astype(np.int32), np.diff(rows.indptr).astype(np.int64)

    def tell(articles: tf.Tensor, customer: tf.Tensor, length: tf.Tensor) -> dict[str, object]:
        return {
            "article_index": articles,
            "customer": tf.RaggedTensor.from_row_lengths(customer, length, validate=False),
        }

    signature = (tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None], tf.int64))
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-len(sold) // batch_size)))
    return dataset.map(tell).prefetch(tf.data.AUTOTUNE)


def fit_fashion_dna(
    view: View,
    settings: FashionDnaConfig,
    *,
    num_text_buckets: int,
    seed: int,
    name: str,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    log: TrainingLog | None = None,
) -> StaticStyles:
    """Fits Fashion DNA and the styles of customers who buy often.

    A batch has one logit for each of its articles and each of these customers: 256 articles and 100,000 customers make
    102 MB.

    Args:
        view: What may be seen.
        settings: Of the network and of its training.
        num_text_buckets: Hash buckets of the words of descriptions; 0 leaves text out.
        seed: Of weights and batches.
        name: As used in reports.
        validate: Judges the model after each epoch; without it all epochs are run.
        log: Where progress is told.

    Returns:
        Styles and vectors after the last epoch.

    Raises:
        InputError: Nobody bought enough articles, or nothing is known of the articles.
        RunError: The loss is not finite.
    """
    tf.keras.utils.set_random_seed(seed)
    articles, section = view.articles, f"generators.{name}"
    size = articles.num_articles + FIRST_INDEX
    words = view.read_words(num_text_buckets) if num_text_buckets else None
    if not (articles.vocabulary or articles.numbers or articles.sets or articles.vectors.shape[1] or words):
        raise InputError(
            f"{name}: Fashion DNA is made of what articles are, and `features` names nothing of theirs. Name categorical "
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
            f"Lower `{section}.min_articles`, or leave {name} out of `recommenders`."
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
    model.compile(optimizer=tf.keras.optimizers.Adam(settings.learning_rate))
    # A training step that makes variables is traced twice; here they are all made before.
    model.optimizer.build(model.trainable_variables)

    def recommender() -> StaticStyles:
        vectors = encode_in_batches(dna, np.arange(size, dtype=np.int32), width=dim)
        styles = np.zeros((view.timelines.num_customers + FIRST_INDEX, dim), np.float32)
        styles[frequent] = model.style.numpy()
        return StaticStyles(styles, vectors, articles.in_store, name=name)

    judge = None if validate is None else lambda: validate(recommender())
    fit_model(
        model,
        dataset,
        epochs=settings.epochs,
        validate=judge,
        patience=settings.patience,
        log=log,
        section=section,
    )
    return recommender()
