"""Objectives: which candidates each next purchase is told apart from, and by which loss."""

from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.models.losses import (
    basket_softmax,
    calibrated_sigmoid,
    sampled_sigmoid,
    sampled_softmax,
    sigmoid_rank,
)
from tfrs_fashion.schema import FIRST_INDEX

LossKind = Literal[
    "full_softmax", "in_batch", "sampled_softmax", "sampled_sigmoid", "sigmoid_rank", "calibrated_sigmoid"
]


class Objective(Protocol):
    """Draws candidates and measures the loss of the targets among them."""

    def draw(self, target: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        """Draws `[any]` int32 articles to tell `[num_targets]` int32 targets of `[num_targets]` int64 seconds apart from."""

    def measure(
        self,
        query: tf.Tensor,
        candidate: tf.Tensor,
        article_index: tf.Tensor,
        *,
        target: tf.Tensor,
        drawn: tf.Tensor,
        now: tf.Tensor,
    ) -> tf.Tensor:
        """Measures `[num_targets]` float32 losses.

        Args:
            query: `[num_targets, dim]` float32.
            candidate: `[num_candidates, dim]` float32, each a different article.
            article_index: `[num_candidates]` int32, which.
            target: `[num_targets]` int32, the candidate that is each target.
            drawn: Like what `draw` returned, the candidate that is each of these.
            now: `[num_targets]` int64.
        """


class FullSoftmax:
    """The softmax over all articles, known before the cutoff or not.

    Args:
        num_articles: Articles known.
    """

    def __init__(self, num_articles: int) -> None:
        self._articles = tf.range(FIRST_INDEX, num_articles + FIRST_INDEX, dtype=tf.int32)

    def draw(self, target: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        """Returns all articles."""
        return self._articles

    def measure(self, query: tf.Tensor, candidate: tf.Tensor, article_index: tf.Tensor, **told: tf.Tensor) -> tf.Tensor:
        """See `Objective`."""
        # A fifth faster, with its gradient, than the softmax that takes the target's logit out of the matrix.
        positive = tf.reduce_sum(query * tf.gather(candidate, told["target"]), axis=1)
        losses: tf.Tensor = tf.reduce_logsumexp(tf.matmul(query, candidate, transpose_b=True), axis=1) - positive
        return losses


class InBatch:
    """The softmax over the targets of the batch and some drawn articles, corrected for how often each is there (logQ).

    Args:
        log_probability: `[num_articles + 2]` float32, log of the probability that a batch holds each article.
        sampling_rate: `[num_articles + 2]` float32, probability that a batch draws each.
    """

    def __init__(self, log_probability: np.ndarray, sampling_rate: np.ndarray) -> None:
        self._log_probability = tf.constant(log_probability, tf.float32)
        self._sampling_rate = tf.constant(sampling_rate, tf.float32)

    def draw(self, target: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        """Draws each article by its rate."""
        drawn = tf.where(tf.random.uniform(tf.shape(self._sampling_rate)) < self._sampling_rate)
        return tf.cast(drawn[:, 0], tf.int32)

    def measure(self, query: tf.Tensor, candidate: tf.Tensor, article_index: tf.Tensor, **told: tf.Tensor) -> tf.Tensor:
        """See `Objective`."""
        return basket_softmax(
            tf.matmul(query, candidate, transpose_b=True),
            query=tf.range(tf.shape(query)[0]),
            candidate=told["target"],
            log_probability=tf.gather(self._log_probability, article_index),
        )


class Sampled:
    """One of the losses over negatives that are drawn for each target, evenly among the articles in store at its time.

    They are drawn with replacement, so that more may be asked for than are in store; one that is the target is left out.

    Args:
        loss: Which.
        num_negatives: Of each target.
        store_splits: `[num_weeks + 1]` int64, where the articles in store in each week before the cutoff begin in `store`.
        store: `[any]` int32 article indices.
        as_of: Seconds since 1970 of the cutoff.
        week_seconds: Of a week.
        num_articles: Articles known.
        calibration: Of `calibrated_sigmoid`.
    """

    def __init__(
        self,
        loss: LossKind,
        *,
        num_negatives: int,
        store_splits: np.ndarray,
        store: np.ndarray,
        as_of: int,
        week_seconds: int,
        num_articles: int,
        calibration: float,
    ) -> None:
        losses: dict[str, Callable[..., tf.Tensor]] = {
            "sampled_softmax": sampled_softmax,
            "sampled_sigmoid": sampled_sigmoid,
            "sigmoid_rank": sigmoid_rank,
            "calibrated_sigmoid": partial(calibrated_sigmoid, num_candidates=num_articles, calibration=calibration),
        }
        self._measure = losses[loss]
        self._num_negatives = num_negatives
        self._store_splits = tf.constant(store_splits, tf.int64)
        self._store = tf.constant(store, tf.int32)
        self._as_of = as_of
        self._week_seconds = week_seconds

    def draw(self, target: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        """Draws `num_negatives` articles for each target, flat."""
        last = tf.shape(self._store_splits, tf.int64)[0] - 2
        week = tf.clip_by_value((self._as_of - 1 - now) // self._week_seconds, 0, last)
        start, end = tf.gather(self._store_splits, week), tf.gather(self._store_splits, week + 1)
        share = tf.random.uniform([tf.size(target), self._num_negatives], dtype=tf.float64)
        size = tf.cast(end - start, tf.float64)[:, tf.newaxis]
        return tf.reshape(tf.gather(self._store, start[:, tf.newaxis] + tf.cast(share * size, tf.int64)), [-1])

    def measure(self, query: tf.Tensor, candidate: tf.Tensor, article_index: tf.Tensor, **told: tf.Tensor) -> tf.Tensor:
        """See `Objective`."""
        target, drawn = told["target"], tf.reshape(told["drawn"], [-1, self._num_negatives])
        positive = tf.reduce_sum(query * tf.gather(candidate, target), axis=1)
        negative = tf.linalg.matvec(tf.gather(candidate, drawn), query)
        is_hit = drawn == target[:, tf.newaxis]
        return self._measure(positive, negative, is_hit=is_hit)
