"""Blend: the candidates of several generators in one pool, and those that earn their place in it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import SECONDS_PER_DAY, Histories
from tfrs_fashion.models.selector import Selector
from tfrs_fashion.recommenders.recommender import (
    Recommendations,
    Recommender,
    load_state,
    longest_history,
    save_state,
    set_weight_arrays,
    weight_arrays,
)
from tfrs_fashion.schema import PADDING_INDEX


class Pool(NamedTuple):
    """Every candidate that a generator named, once a customer; rows ascend.

    Attributes:
        row: `[num_pairs]` int64, row in the batch.
        article_index: `[num_pairs]` int32.
        score: `[num_pairs, num_generators]` float32, 0 where a generator did not name it.
        rank: `[num_pairs, num_generators]` float32, from 1; 0 where it did not.
        context: `[num_pairs, 2]` float32, of the customer: events of the history, days since the last one (0 without any).
    """

    row: tf.Tensor
    article_index: tf.Tensor
    score: tf.Tensor
    rank: tf.Tensor
    context: tf.Tensor


def describe_customers(histories: Histories, now: tf.Tensor) -> tf.Tensor:
    """Returns `[batch, 2]` float32: events of each history, and days since the last one, 0 without any."""
    num_events = histories.time.row_lengths()
    last = tf.reduce_max(histories.time, axis=1)
    days = tf.where(num_events > 0, tf.cast(now - last, tf.float32) / SECONDS_PER_DAY, 0.0)
    return tf.stack([tf.cast(num_events, tf.float32), tf.maximum(days, 0.0)], axis=1)


def make_pool(
    generators: Sequence[Recommender],
    histories: Histories,
    *,
    now: tf.Tensor,
    num_candidates: int,
    exclude: tf.Tensor,
) -> Pool:
    """Asks every generator, and puts together what they say of each candidate.

    Args:
        generators: At least one.
        histories: Of a batch.
        now: `[batch]` int64, seconds since 1970.
        num_candidates: Candidates of each generator.
        exclude: `[batch, num_excluded]` int32 article indices.
    """
    found = [generator(histories, now=now, k=num_candidates, exclude=exclude) for generator in generators]
    article = tf.stack([answer.article_index for answer in found], axis=1)
    given = tf.where(article != PADDING_INDEX)
    row, generator, position = given[:, 0], given[:, 1], given[:, 2]
    article = tf.gather_nd(article, given)
    stride = tf.cast(tf.reduce_max(tf.concat([article, [0]], 0)), tf.int64) + 1
    key, pair = tf.unique(row * stride + tf.cast(article, tf.int64), out_idx=tf.int64)
    # Given row by row, pairs are found in the order of the rows.
    shape = tf.stack([tf.size(key, out_type=tf.int64), tf.constant(len(generators), tf.int64)])
    cell = tf.stack([pair, generator], axis=1)
    score = tf.gather_nd(tf.stack([answer.score for answer in found], axis=1), given)
    return Pool(
        row=key // stride,
        article_index=tf.cast(key % stride, tf.int32),
        score=tf.scatter_nd(cell, score, shape),
        rank=tf.scatter_nd(cell, tf.cast(position + 1, tf.float32), shape),
        context=tf.gather(describe_customers(histories, now), key // stride),
    )


def score_by_quotas(rank: tf.Tensor, quotas: tf.Tensor) -> tf.Tensor:
    """Scores pairs by the earliest place, rank over quota, at which a generator is read.

    Args:
        rank: `[num_pairs, num_generators]` float, 0 where a generator did not name the pair.
        quotas: `[num_generators]` float.

    Returns:
        `[num_pairs]`, at most 0; -inf where no generator that takes part named the pair.
    """
    return -tf.reduce_min(tf.where((rank > 0) & (quotas > 0), rank / quotas, np.inf), axis=1)


def best_of_rows(score: tf.Tensor, row: tf.Tensor, batch: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """Finds the best pairs of each row.

    Args:
        score: `[num_pairs]` float32; a pair whose score is not finite is none.
        row: `[num_pairs]` int64, ascending.
        batch: Scalar int64, rows.
        k: Scalar int32.

    Returns:
        `[batch, k]` int64 positions among the pairs, best first, ties in their order; -1 where there are fewer.
    """

    def dense(values: tf.Tensor, default: float | int) -> tf.Tensor:
        ragged = tf.RaggedTensor.from_value_rowids(values, row, batch, validate=False)
        return ragged.to_tensor(default)

    by_row = dense(tf.where(tf.math.is_finite(score), score, -np.inf), -np.inf)
    taken = tf.minimum(k, tf.shape(by_row)[1])
    best = tf.math.top_k(by_row, k=taken)
    place = tf.gather(dense(tf.range(tf.size(row, tf.int64)), -1), best.indices, batch_dims=1)
    place = tf.where(tf.math.is_finite(best.values), place, -1)
    return tf.pad(place, [[0, 0], [0, k - taken]], constant_values=-1)


def answer_pairs(
    place: tf.Tensor, score: tf.Tensor, article_index: tf.Tensor, rank: tf.Tensor, generators: Sequence[str]
) -> Recommendations:
    """Makes recommendations of pairs; the source of each is the generator that ranked it highest.

    Args:
        place: `[batch, k]` int64 positions of pairs, -1 where there are fewer.
        score: `[num_pairs]` float32.
        article_index: `[num_pairs]` int32.
        rank: `[num_pairs, num_generators]` float32, 0 where a generator did not name the pair.
        generators: Their names.
    """
    highest = tf.argmin(tf.where(rank > 0, rank, np.inf), axis=1)
    source = tf.gather(tf.constant(list(generators)), highest)
    # One pair more stands for none.
    there = tf.where(place >= 0, place, tf.size(score, tf.int64))
    columns = ((article_index, PADDING_INDEX), (score, 0.0), (source, ""))
    return Recommendations(*(tf.gather(tf.concat([values, [nothing]], 0), there) for values, nothing in columns))


class Blend(tf.Module):
    """Ranks the pool of its generators, by quotas or by a selector.

    With quotas each generator's list is read at a pace of its own: the candidate at place r of one with quota q comes at
    r / q, so that a list of any length holds the generators' best in proportion to their quotas.

    Args:
        generators: By name.
        num_candidates: Candidates that each is asked for.
        quotas: `[num_generators]` float32, above 0 for those that take part.
        article_features: `[num_articles + 2, num_features]` float32 for the selector, NaN where unknown.
        selector: Ranks in place of the quotas.
        hidden_dims: Of the selector.
        name: As used in reports.
    """

    def __init__(
        self,
        generators: dict[str, Recommender],
        *,
        num_candidates: int,
        quotas: np.ndarray,
        article_features: np.ndarray,
        selector: Selector | None = None,
        hidden_dims: Sequence[int] = (),
        name: str = "blend",
    ) -> None:
        super().__init__(name=name)
        self.history_length: int | None = longest_history(generators.values())
        self.needs_history = all(generator.needs_history for generator in generators.values())
        self._generators = dict(generators)
        self._num_candidates = num_candidates
        self._quotas = tf.Variable(quotas, trainable=False, dtype=tf.float32)
        self._article_features = tf.Variable(article_features, trainable=False, dtype=tf.float32)
        self._selector = selector
        self._hidden_dims = tuple(hidden_dims)

    def pool(self, histories: Histories, *, now: tf.Tensor, exclude: tf.Tensor) -> Pool:
        """Returns everything that the generators name for a batch of customers."""
        return make_pool(
            list(self._generators.values()),
            histories,
            now=now,
            num_candidates=self._num_candidates,
            exclude=exclude,
        )

    @property
    def generators(self) -> tuple[str, ...]:
        """The names of the generators, in the order of a pool's columns."""
        return tuple(self._generators)

    def score(self, pool: Pool) -> tf.Tensor:
        """Scores `[num_pairs]` pairs of a pool."""
        if self._selector is not None:
            article = tf.gather(self._article_features, pool.article_index)
            return self._selector(pool.score, pool.rank, pool.context, article)
        return score_by_quotas(pool.rank, self._quotas)

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k best of the pool; see `Recommender`. The source is the generator that ranked each highest."""
        pool = self.pool(histories, now=now, exclude=exclude)
        score = self.score(pool)
        place = best_of_rows(score, pool.row, tf.shape(now, tf.int64)[0], k)
        return answer_pairs(place, score, pool.article_index, pool.rank, self.generators)

    def save(self, folder: Path) -> None:
        """Writes quotas and selector, and each generator into a folder of its name."""
        for name, generator in self._generators.items():
            (folder / name).mkdir()
            generator.save(folder / name)
        arrays = {} if self._selector is None else weight_arrays(self._selector)
        save_state(
            folder,
            {"quotas": self._quotas.numpy(), "article_features": self._article_features.numpy(), **arrays},
            generators=list(self._generators),
            num_candidates=self._num_candidates,
            hidden_dims=self._hidden_dims,
            name=self.name,
        )

    @classmethod
    def load(cls, folder: Path, *, load_generator: Callable[[str, Path], Recommender]) -> "Blend":
        """Reads what `save` wrote.

        Args:
            folder: Where that is.
            load_generator: Reads the generator of a name from a folder.
        """
        arrays, settings = load_state(folder)
        names = settings.pop("generators")
        selector = None
        if any(name.startswith("weight_") for name in arrays):
            selector = Selector(
                num_generators=len(names),
                num_candidates=settings["num_candidates"],
                num_article_features=arrays["article_features"].shape[1],
                hidden_dims=settings["hidden_dims"],
                seed=1,
            )
            set_weight_arrays(selector, arrays)
        generators = {name: load_generator(name, folder / name) for name in names}
        told = {name: arrays[name] for name in ("quotas", "article_features")}
        return cls(generators, **told, selector=selector, **settings)
