"""The ScaNN index: approximate, and many times faster on large catalogues.

A server that loads it needs ScaNN's custom operation (`import scann` in Python).
Source: Guo et al. 2020, Accelerating Large-Scale Inference with Anisotropic Vector Quantization.
"""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_fashion.index.exact import Exact
from tfrs_fashion.index.exclusion import take_allowed
from tfrs_fashion.schema import PADDING_INDEX, InputError

# The quantizer learns 16 centres, so it needs as many vectors.
MIN_CANDIDATES = 16
MIN_PER_LEAF = 100


def check_size(num_candidates: int) -> None:
    """Checks that there are enough candidates for ScaNN.

    Raises:
        InputError: There are fewer than `MIN_CANDIDATES`.
    """
    if num_candidates < MIN_CANDIDATES:
        raise InputError(
            f"index.kinds: `scann` needs at least {MIN_CANDIDATES} articles in store, found {num_candidates}. "
            'Use index.kinds = ["exact"].'
        )


class Scann(tf.Module):
    """Approximate top k by inner product.

    Args:
        candidate_embeddings: `[num_candidates, embedding_dim]` float32.
        article_index: `[num_candidates]` int32, the article behind each row.
        num_leaves: Partitions; 0 for the square root of the number of candidates, but no less than 100 in each.
        leaves_to_search_share: Share of the partitions that a query visits.
        num_reordering_candidates: Candidates scored again exactly. Who asks for more, exclusions included, is
            answered by the exact index.

    Raises:
        InputError: ScaNN is not installed, or there are too few candidates to partition.
    """

    def __init__(
        self,
        candidate_embeddings: np.ndarray,
        article_index: np.ndarray,
        *,
        num_leaves: int = 0,
        leaves_to_search_share: float = 0.7,
        num_reordering_candidates: int = 500,
    ) -> None:
        super().__init__(name="scann")
        num_candidates = len(article_index)
        check_size(num_candidates)
        num_leaves = num_leaves or max(1, min(int(num_candidates**0.5), num_candidates // MIN_PER_LEAF))
        try:
            self._searcher = tfrs.layers.factorized_top_k.ScaNN(
                k=min(num_reordering_candidates, num_candidates),
                num_leaves=num_leaves,
                num_leaves_to_search=max(1, round(num_leaves * leaves_to_search_share)),
                num_reordering_candidates=min(num_reordering_candidates, num_candidates),
            )
        except ImportError as error:
            raise InputError(
                'index.kinds: `scann` needs the package scann, which is not installed. Use index.kinds = ["exact"].'
            ) from error
        self._searcher.index(tf.constant(candidate_embeddings, tf.float32), tf.constant(article_index, tf.int32))
        self._num_reordering_candidates = min(num_reordering_candidates, num_candidates)
        self._exact = Exact(candidate_embeddings, article_index)

    def is_exact(self) -> bool:
        """Whether results are those of a full ranking."""
        return False

    def __call__(self, query_embeddings: tf.Tensor, *, k: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Finds about the k best candidates that are not excluded; see `Exact.__call__`.

        As many more are looked for as a row excludes, so that exclusion never shortens the list.
        """
        width = k + tf.shape(exclude)[1]
        found: tuple[tf.Tensor, tf.Tensor] = tf.cond(
            width <= self._num_reordering_candidates,
            lambda: self._search(query_embeddings, width, k, exclude),
            lambda: self._exact(query_embeddings, k=k, exclude=exclude),
        )
        return found

    def score(self, query_embeddings: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores some articles for each query, exactly; see `Exact.score`."""
        return self._exact.score(query_embeddings, article_index)

    def _search(
        self, query_embeddings: tf.Tensor, width: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        score, article_index = self._searcher(query_embeddings, k=width)
        # ScaNN answers NaN where the partitions that it visited hold fewer.
        found = tf.math.is_finite(score)
        article_index = tf.where(found, article_index, PADDING_INDEX)
        return take_allowed(article_index, tf.where(found, score, 0.0), exclude, k)
