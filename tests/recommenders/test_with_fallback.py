"""A list that is too short is filled up, and what fills it is told apart from probabilities."""

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.recommenders.recommender import Recommendations
from tfrs_fashion.recommenders.with_fallback import WithFallback


class Fixed(tf.Module):
    """Answers everyone alike, with what is not excluded; its list ends in padding."""

    needs_history = False

    def __init__(self, name: str, article_index: list[int], score: list[float]) -> None:
        super().__init__(name=name)
        self._article_index, self._score = article_index, score

    def __call__(
        self, histories: Histories | None, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor
    ) -> Recommendations:
        left_out = set(exclude.numpy().ravel().tolist())
        kept = [pair for pair in zip(self._article_index, self._score, strict=True) if pair[0] not in left_out]
        kept = (kept + [(0, 0.0)] * int(k))[: int(k)]
        article, score = (np.array([values]) for values in zip(*kept, strict=True))
        source = tf.constant([[self.name] * int(k)])
        return Recommendations(tf.constant(article, tf.int32), tf.constant(score, tf.float32), source)


def test_the_fallbacks_scores_are_below_the_lists_and_below_0() -> None:
    # However popular the fallback's articles are, and however low the list's own probability.
    likely = Fixed("two_stage", [5, 6], [0.3, 0.004])
    popular = Fixed("popularity_7d", [6, 7, 8], [100_000.0, 50_000.0, 500.0])
    nobody = tf.zeros([1, 0], tf.int32)
    answer = WithFallback(likely, popular)(None, now=tf.constant([0], tf.int64), k=tf.constant(5), exclude=nobody)
    assert answer.article_index.numpy().tolist() == [[5, 6, 7, 8, 0]]
    score = answer.score.numpy()[0]
    assert score[:2].tolist() == np.float32([0.3, 0.004]).tolist()
    assert (score[2:4] < 0).all()
    assert (np.diff(score[:4]) <= 0).all()
    assert answer.source.numpy()[0, :4].tolist() == [b"two_stage"] * 2 + [b"popularity_7d"] * 2
