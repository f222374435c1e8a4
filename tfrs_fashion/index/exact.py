"""The exact index: every candidate is scored, with TensorFlow's own operations."""

import numpy as np
import tensorflow as tf

from tfrs_fashion.index.exclusion import take_best
from tfrs_fashion.schema import PADDING_INDEX


class Exact(tf.Module):
    """Top k by inner product with every candidate.

    Runs wherever TensorFlow runs, a stock TF Serving included.

    Args:
        candidate_embeddings: `[num_candidates, embedding_dim]` float32.
        article_index: `[num_candidates]` int32, the article behind each row.
    """

    def __init__(self, candidate_embeddings: np.ndarray, article_index: np.ndarray) -> None:
        super().__init__(name="exact")
        position = np.full(int(article_index.max(initial=0)) + 1, -1, dtype=np.int32)
        position[article_index] = np.arange(len(article_index), dtype=np.int32)
        self._candidate_embeddings = tf.Variable(candidate_embeddings, trainable=False, dtype=tf.float32)
        self._article_index = tf.Variable(article_index, trainable=False, dtype=tf.int32)
        self._position = tf.Variable(position, trainable=False, dtype=tf.int32)

    def is_exact(self) -> bool:
        """Whether results are those of a full ranking."""
        return True

    def __call__(self, query_embeddings: tf.Tensor, *, k: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds the k best candidates that are not excluded.

        Args:
            query_embeddings: `[batch, embedding_dim]` float32.
            k: Scalar int32.
            exclude: `[batch, num_excluded]` int32 article indices, 0 where a row excludes fewer.

        Returns:
            `article_index` and `score`, `[batch, k]`, best first; 0 and 0 where fewer candidates are left.
        """
        score = tf.matmul(query_embeddings, self._candidate_embeddings, transpose_b=True)
        column, score = take_best(score, self._find(exclude), k)
        # One row more stands for no candidate, which column -1 is.
        article_index = tf.gather(tf.pad(self._article_index, [[1, 0]], constant_values=PADDING_INDEX), column + 1)
        return article_index, score

    def score(self, query_embeddings: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores some articles for each query.

        Args:
            query_embeddings: `[batch, embedding_dim]` float32.
            article_index: `[batch, width]` int32.

        Returns:
            `[batch, width]` float32, -inf where an article is no candidate.
        """
        column = self._find(article_index)
        candidates = tf.gather(self._candidate_embeddings, tf.maximum(column, 0))
        score = tf.linalg.matvec(candidates, query_embeddings)
        return tf.where(column >= 0, score, -np.inf)

    def _find(self, article_index: tf.Tensor) -> tf.Tensor:
        """Returns the row of each article among the candidates, -1 where it is none."""
        known = tf.clip_by_value(article_index, 0, tf.shape(self._position)[0] - 1)
        return tf.where(known == article_index, tf.gather(self._position, known), -1)
