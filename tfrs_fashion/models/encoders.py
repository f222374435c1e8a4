"""Encoders of features: categories, numbers, words and vectors, and of them all, articles."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.articles import ArticleTable
from tfrs_fashion.features.hashed_words import HashedWords
from tfrs_fashion.features.vocabulary import ValueSets
from tfrs_fashion.schema import FIRST_INDEX, PADDING_INDEX
from tfrs_fashion.settings.base import CategoryEncoding, NumberEncoding

_SCALE = 2.0
# Differences of numbers up to here are finite.
_LARGEST = 1e38
# In place of the width of a bin that has none: so narrow that a number beside its edge lies wholly on one side.
_NARROW = 1e-30


class CategoryEncoder(tf.keras.layers.Layer):
    """Categorical features as one vector; missing values add nothing.

    Unknown values start at nothing too, and become what the rare values of training make of them: a value that comes
    first when it is asked for must not point anywhere by chance.

    Args:
        sizes: Number of indices of each feature, padding and out of vocabulary among them.
        output_dim: Width.
        encoding: `one_hot` multiplies the joined one-hot vectors by one matrix, which is the sum of its rows;
            `embedding` joins a narrow embedding of each feature and multiplies that.
        scale: Standard deviation of the output at the start; 0 starts at zero.
        seed: Of the initial weights.

    Source: Ziolo compared both encodings for two towers on H&M; narrow widths as in Gorishniy et al. 2021.
    """

    def __init__(
        self, sizes: Sequence[int], *, output_dim: int, encoding: CategoryEncoding, scale: float, seed: int
    ) -> None:
        super().__init__(name="category_encoder")
        self._encoding = encoding
        self._offset = tf.constant(np.cumsum([0, *sizes])[:-1], tf.int32)
        num_features = max(len(sizes), 1)
        normal = tf.keras.initializers.RandomNormal
        deviation = scale * (output_dim * num_features) ** -0.5
        if encoding == "one_hot":
            self._kernel = self.add_weight(
                "kernel", [max(sum(sizes), 1), output_dim], initializer=normal(stddev=deviation, seed=seed)
            )
            if sizes:
                _start_unknown_at_zero(self._kernel, sizes)
            return
        widths = [narrow_width(size) for size in sizes]
        self._tables = [
            self.add_weight(f"table_{number}", [size, width], initializer=normal(stddev=1.0, seed=seed + number))
            for number, (size, width) in enumerate(zip(sizes, widths, strict=True))
        ]
        for table, size in zip(self._tables, sizes, strict=True):
            _start_unknown_at_zero(table, [size])
        self._project = self.add_weight(
            "project",
            [max(sum(widths), 1), output_dim],
            initializer=normal(stddev=scale * (output_dim * max(sum(widths), 1)) ** -0.5, seed=seed - 1),
        )

    def call(self, index: tf.Tensor) -> tf.Tensor:
        """Encodes `[batch, num_features]` int32 as `[batch, output_dim]` float32."""
        known = tf.cast(index != PADDING_INDEX, tf.float32)
        if self._encoding == "one_hot":
            return _sum_rows(self._kernel, index + self._offset, known)
        if not self._tables:
            return tf.zeros([tf.shape(index)[0], tf.shape(self._project)[1]])
        parts = [
            tf.gather(table, index[:, number]) * known[:, number : number + 1]
            for number, table in enumerate(self._tables)
        ]
        return tf.matmul(tf.concat(parts, axis=1), self._project)


def _start_unknown_at_zero(kernel: tf.Variable, sizes: Sequence[int]) -> None:
    """Sets the rows of padding and of unknown values to zero, in a kernel of joined features of these sizes."""
    known = np.concatenate([np.arange(size) >= FIRST_INDEX for size in sizes])
    kernel.assign(tf.where(known[:, np.newaxis], kernel, 0.0))


def narrow_width(size: int) -> int:
    """Returns the width of a narrow embedding: it grows with the number of indices, from 2 to 32.

    >>> [narrow_width(size) for size in (2, 10, 100, 10**6)]
    [2, 4, 13, 32]
    """
    return int(np.clip(round(size**0.56), 2, 32))


def _sum_rows(kernel: tf.Tensor, index: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Sums weighted rows of a kernel: `[batch, n]` int32 rows and float32 weights, to `[batch, output_dim]`."""
    shape = tf.shape(index, out_type=tf.int64)
    row = tf.repeat(tf.range(shape[0]), tf.fill([shape[0]], shape[1]))
    return multiply_sparse(kernel, row, tf.reshape(index, [-1]), tf.reshape(weight, [-1]), shape[0])


def multiply_sparse(
    kernel: tf.Tensor, row: tf.Tensor, column: tf.Tensor, weight: tf.Tensor, num_rows: tf.Tensor
) -> tf.Tensor:
    """Multiplies a sparse matrix, given as its cells, with a kernel.

    Its gradient is one dense product: that of a gather would list every row of the kernel again.
    """
    shape = tf.stack([num_rows, tf.shape(kernel, out_type=tf.int64)[0]])
    cells = tf.stack([row, tf.cast(column, tf.int64)], axis=1)
    return tf.sparse.sparse_dense_matmul(tf.SparseTensor(cells, weight, shape), kernel)


class WordEncoder(tf.keras.layers.Layer):
    """The sum of the embeddings of hashed words and pairs of words, or of a set's values, over the root of their number.

    Args:
        words: Of all articles; of sets, what is out of vocabulary starts at nothing.
        output_dim: Width.
        scale: Length of the output at the start.
        seed: Of the initial weights.
    """

    def __init__(self, words: HashedWords | ValueSets, *, output_dim: int, scale: float, seed: int) -> None:
        super().__init__(name="word_encoder")
        self._values = tf.constant(words.values, tf.int32)
        self._row_splits = tf.constant(words.row_splits, tf.int64)
        initial = tf.keras.initializers.RandomNormal(stddev=scale * output_dim**-0.5, seed=seed)
        self._kernel = self.add_weight("kernel", [words.num_buckets, output_dim], initializer=initial)
        if isinstance(words, ValueSets):
            _start_unknown_at_zero(self._kernel, [words.num_buckets])

    def call(self, article_index: tf.Tensor) -> tf.Tensor:
        """Encodes the texts of `[batch]` int32 articles as `[batch, output_dim]` float32."""
        start, end = (tf.gather(self._row_splits, article_index + shift) for shift in (0, 1))
        position = tf.ragged.range(start, end)
        row = position.value_rowids()
        weight = tf.gather(tf.math.rsqrt(tf.maximum(tf.cast(end - start, tf.float32), 1.0)), row)
        value = tf.gather(self._values, position.flat_values)
        return multiply_sparse(self._kernel, row, value, weight, tf.size(article_index, tf.int64))


def squash(values: tf.Tensor) -> tf.Tensor:
    """Takes the logarithm of sizes, with their sign; NaN stays."""
    return tf.sign(values) * tf.math.log1p(tf.abs(values))


class NumberEncoder(tf.keras.layers.Layer):
    """Numeric features, each as its place among bins, and a flag where it is missing.

    A number becomes one value for each bin: 1 for bins below it, 0 for bins above it, its share of the way for its own. So any
    monotonous function, and any other by its slopes, is linear in the output. A missing number has the place of the median,
    beside its flag.

    Args:
        num_features: Numeric features.
        num_bins: Bins of each.
        encoding: `quantile` bins hold equally many rows, `log` bins are equally wide in `sign(x) log(1 + |x|)`.

    Source: Gorishniy et al. 2022, On Embeddings for Numerical Features in Tabular Deep Learning, eq. 1.
    """

    def __init__(self, num_features: int, num_bins: int, encoding: NumberEncoding) -> None:
        super().__init__(name="number_encoder")
        self._encoding = encoding
        self._edges = self.add_weight("edges", [num_features, num_bins + 1], initializer="zeros", trainable=False)
        # NaN for a feature that is always missing, which has no place.
        nothing = tf.keras.initializers.Constant(float("nan"))
        self._median = self.add_weight("median", [num_features], initializer=nothing, trainable=False)

    def fit(self, numbers: np.ndarray) -> None:
        """Sets the bins, and the median of each feature; bins at zero for a feature that is always missing.

        Args:
            numbers: `[num_rows, num_features]` float, NaN where missing; rows that may be seen.
        """
        edges = np.zeros(self._edges.shape, dtype=np.float32)
        median = np.full(self._median.shape, np.nan, dtype=np.float32)
        for feature in range(numbers.shape[1]):
            known = numbers[np.isfinite(numbers[:, feature]), feature]
            if len(known):
                median[feature] = np.clip(np.median(known.astype(np.float64)), -_LARGEST, _LARGEST)
                if self._encoding == "log":
                    known = np.sign(known) * np.log1p(np.abs(known))
                    found = np.linspace(known.min(), known.max(), edges.shape[1])
                else:
                    found = np.quantile(known.astype(np.float64), np.linspace(0, 1, edges.shape[1]))
                edges[feature] = np.clip(found, -_LARGEST, _LARGEST)
        self._edges.assign(edges)
        self._median.assign(median)

    @property
    def output_dim(self) -> int:
        """Width of the output: a value a bin and one flag, for each feature."""
        return int(self._edges.shape[0] * self._edges.shape[1])

    def call(self, numbers: tf.Tensor) -> tf.Tensor:
        """Encodes `[batch, num_features]` float32, NaN where missing, as `[batch, output_dim]` float32."""
        missing = tf.math.is_nan(numbers)
        filled = tf.where(missing, self._median, numbers)
        if self._encoding == "log":
            filled = squash(filled)
        # What has no median has no place: it lies below every bin.
        filled = tf.where(tf.math.is_nan(filled), -np.inf, filled)[:, :, tf.newaxis]
        width = self._edges[:, 1:] - self._edges[:, :-1]
        # Bins of no width, from values that many rows share, are steps: 1 from their edge on.
        is_step = width <= 0
        inside = (filled - self._edges[:, :-1]) / tf.where(is_step, _NARROW, width) + tf.cast(is_step, tf.float32)
        # However many features there are, a step of training moves what is made of them by the same length.
        scale = _SCALE / max(self.output_dim, 1)
        share = tf.clip_by_value(inside, 0.0, 1.0) * scale
        flag = tf.cast(missing, tf.float32)[:, :, tf.newaxis] * scale
        return tf.reshape(tf.concat([share, flag], axis=2), [tf.shape(numbers)[0], self.output_dim])


class EncodedArticles(NamedTuple):
    """Articles as vectors.

    Attributes:
        embedding: `[num_articles, embedding_dim]` float32, at length 1.
        side: `[num_articles, any]` float32, at any length: what they are made of, and how they sold lately.
    """

    embedding: tf.Tensor
    side: tf.Tensor


class ArticleEncoder(tf.keras.layers.Layer):
    """The sum of an article's own embedding and of the embeddings of what it is made of, at length 1.

    Own embeddings start as random directions, which are nearly orthogonal, and content starts small, so that before
    training every article resembles itself alone. Without its own embedding an article is its content.

    Args:
        id_index: `[num_articles + 2]` int32, the row of each article's own embedding; 0 for those without one.
            Where all are 0 there is content alone.
        table: Of the cutoff: categorical features, sets, numbers and vectors.
        words: Of the descriptions; None leaves text out.
        weeks: `[num_weeks, num_articles + 2, num_features]` float32, NaN where unknown: what was known of each article
            so many weeks before the cutoff.
        embedding_dim: Width.
        content_scale: Length that content starts with, relative to an own embedding.
        encoding: Of the categorical features.
        number_encoding: Of the numbers.
        num_bins: Bins of a numeric feature.
        seed: Of the initial embeddings.
    """

    def __init__(
        self,
        id_index: np.ndarray,
        table: ArticleTable,
        words: HashedWords | None,
        weeks: np.ndarray,
        *,
        embedding_dim: int,
        content_scale: float,
        encoding: CategoryEncoding = "one_hot",
        number_encoding: NumberEncoding,
        num_bins: int = 16,
        seed: int,
    ) -> None:
        super().__init__(name="article_encoder")
        self._id_index = tf.constant(id_index, tf.int32)
        normal = tf.keras.initializers.RandomNormal
        self._id_embedding = self.add_weight(
            "id_embedding",
            [int(id_index.max(initial=0)) + 1, embedding_dim],
            initializer=normal(stddev=embedding_dim**-0.5, seed=seed),
            trainable=bool(id_index.any()),
        )
        self._index = tf.constant(table.category_matrix(), tf.int32)
        self._categories = CategoryEncoder(
            table.category_sizes, output_dim=embedding_dim, encoding=encoding, scale=content_scale, seed=seed + 1
        )
        self._words = (
            WordEncoder(words, output_dim=embedding_dim, scale=content_scale, seed=seed + 2) if words else None
        )
        self._sets = [
            WordEncoder(values, output_dim=embedding_dim, scale=content_scale, seed=seed + 100 + number)
            for number, values in enumerate(table.sets.values())
        ]
        numbers = table.number_matrix()
        self._numbers = tf.constant(numbers, tf.float32)
        self._number_encoder = NumberEncoder(numbers.shape[1], num_bins, number_encoding)
        self._number_encoder.fit(numbers[table.num_baskets > 0])
        self._vectors = tf.constant(table.vectors, tf.float32)
        width = self._number_encoder.output_dim + table.vectors.shape[1]
        self._dense_kernel = (
            self.add_weight(
                "dense_kernel",
                [width, embedding_dim],
                initializer=normal(stddev=content_scale * (width * embedding_dim) ** -0.5, seed=seed + 3),
            )
            if width
            else None
        )
        self._weeks = tf.constant(weeks, tf.float32)
        self._week_encoder = NumberEncoder(weeks.shape[2], num_bins, number_encoding)
        self._week_encoder.fit(_sample_rows(weeks, seed=seed))

    def _content(self, article_index: tf.Tensor) -> tf.Tensor:
        content = self._categories(tf.gather(self._index, article_index))
        if self._words is not None:
            content += self._words(article_index)
        for encoder in self._sets:
            content += encoder(article_index)
        if self._dense_kernel is not None:
            numbers = self._number_encoder(tf.gather(self._numbers, article_index))
            dense = tf.concat([numbers, tf.gather(self._vectors, article_index)], axis=1)
            content += tf.matmul(dense, self._dense_kernel)
        return content

    def call(self, article_index: tf.Tensor, week: tf.Tensor, keep: tf.Tensor | None = None) -> EncodedArticles:
        """Encodes articles.

        Args:
            article_index: `[num_articles]` int32.
            week: Scalar int32, whole weeks before the cutoff.
            keep: `[num_articles]` float32, 0 where the own embedding is dropped, so that content learns to stand alone.
        """
        row = tf.gather(self._id_index, article_index)
        kept = tf.cast(row > 0, tf.float32) * (1.0 if keep is None else keep)
        own = tf.gather(self._id_embedding, row) * kept[:, tf.newaxis]
        content = self._content(article_index)
        sales = self._week_encoder(tf.gather(self._weeks[week], article_index))
        return EncodedArticles(
            embedding=tf.math.l2_normalize(own + content, axis=1, epsilon=1e-6),
            side=tf.concat([content, sales], axis=1),
        )


class GivenArticles(tf.keras.layers.Layer):
    """Articles as vectors that were made elsewhere, at length 1, in place of an `ArticleEncoder`.

    Args:
        vectors: `[num_articles + 2, embedding_dim]` float32.
        trainable: Whether they are learned further.
    """

    def __init__(self, vectors: np.ndarray, *, trainable: bool) -> None:
        super().__init__(name="given_articles")
        self._vectors = self.add_weight(
            "vectors",
            vectors.shape,
            initializer=tf.keras.initializers.Constant(vectors),
            trainable=trainable,
        )

    def call(self, article_index: tf.Tensor, week: tf.Tensor, keep: tf.Tensor | None = None) -> EncodedArticles:
        """Looks up `[num_articles]` int32 articles; nothing of them is dropped, and there is nothing beside them."""
        vectors = tf.gather(self._vectors, article_index)
        return EncodedArticles(tf.math.l2_normalize(vectors, axis=1, epsilon=1e-6), vectors[:, :0])


def _sample_rows(weeks: np.ndarray, *, seed: int, limit: int = 1_000_000) -> np.ndarray:
    """Draws rows of all weeks, `[num_rows, num_features]`."""
    rows = weeks.reshape(weeks.shape[0] * weeks.shape[1], weeks.shape[2])
    chosen = np.random.default_rng(seed).integers(len(rows), size=min(len(rows), limit))
    return rows[np.sort(chosen)]
