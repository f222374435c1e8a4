"""Two stages: the candidates of a blend, put in order by rankers that are told of customer, article and both."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.pair_lookups import PairLookups
from tfrs_fashion.features.pairs import PairFeatureLayer
from tfrs_fashion.recommenders.blend import Blend, answer_pairs, best_of_rows
from tfrs_fashion.recommenders.rankers import Ranker, load_ranker
from tfrs_fashion.recommenders.recommender import (
    Recommendations,
    Recommender,
    load_state,
    save_state,
)

Combination = Literal["score", "reciprocal_rank"]
# Places are worth 1 / (this + place), when rankers are combined by these.
_RECIPROCAL_RANK = 60.0
_NAN = float("nan")


class ScoringRecommender(Recommender, Protocol):
    """A recommender that scores any article it is asked for."""

    def score(self, histories: Histories, now: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores `[batch, width]` int32 articles, as float32; -inf where one is no candidate."""


class PairDescriber(tf.Module):
    """All that rankers are told of pairs, computed for training and in an answer alike.

    Args:
        layer: Of the histories' features.
        similar: Recommenders whose score is a feature, by name. Where they are networks, they were fitted before the
            first week that a ranker learns from.
        generators: Names of those that the candidates come from, in the order of a pool's columns.
    """

    def __init__(
        self, layer: PairFeatureLayer, similar: dict[str, ScoringRecommender], generators: Sequence[str]
    ) -> None:
        super().__init__(name="pair_describer")
        self.layer = layer
        self.similar = dict(similar)
        self.generators = tuple(generators)

    @property
    def names(self) -> tuple[str, ...]:
        """Names the columns of `__call__`."""
        return (
            *(f"rank {name}" for name in self.generators),
            *(f"score {name}" for name in self.generators),
            "best rank",
            "num_generators",
            *(f"similarity {name}" for name in self.similar),
            *self.layer.lookups.names,
        )

    def __call__(
        self,
        histories: Histories,
        now: tf.Tensor,
        row: tf.Tensor,
        article_index: tf.Tensor,
        score: tf.Tensor,
        rank: tf.Tensor,
    ) -> tf.Tensor:
        """Describes pairs.

        Args:
            histories: Of a batch.
            now: `[batch]` int64.
            row: `[num_pairs]` int64, the row of each pair's customer; ascending.
            article_index: `[num_pairs]` int32.
            score: `[num_pairs, num_generators]` float32; see `blend.Pool`.
            rank: `[num_pairs, num_generators]` float32; see `blend.Pool`.

        Returns:
            `[num_pairs, num_features]` float32 in the order of `names`; NaN where something is not known, and an infinite best
            rank where no generator names a pair.
        """
        is_named = rank > 0
        parts = [
            tf.where(is_named, rank, _NAN),
            tf.where(is_named, score, _NAN),
            tf.reduce_min(tf.where(is_named, rank, np.inf), axis=1, keepdims=True),
            tf.reduce_sum(tf.cast(is_named, tf.float32), axis=1, keepdims=True),
        ]
        if self.similar:
            listed = tf.RaggedTensor.from_value_rowids(article_index, row, tf.shape(now, tf.int64)[0], validate=False)
            lengths = listed.row_lengths()
            asked = listed.to_tensor(0)
            for recommender in self.similar.values():
                found = tf.RaggedTensor.from_tensor(recommender.score(histories, now, asked), lengths).flat_values
                parts.append(tf.where(tf.math.is_finite(found), found, _NAN)[:, tf.newaxis])
        parts.append(self.layer(histories, now, row, article_index))
        return tf.concat(parts, axis=1)


class DescribedPairs(NamedTuple):
    """The candidates of a batch that rankers put in order.

    Attributes:
        row: `[num_pairs]` int64, the row of each pair's customer; ascending.
        article_index: `[num_pairs]` int32.
        customer_index: `[num_pairs]` int32.
        rank: `[num_pairs, num_generators]` float32; see `blend.Pool`.
        features: `[num_pairs, num_features]` float32; see `PairDescriber`.
    """

    row: tf.Tensor
    article_index: tf.Tensor
    customer_index: tf.Tensor
    rank: tf.Tensor
    features: tf.Tensor


class TwoStage(tf.Module):
    """Keeps the best of a blend's pool, and puts these in order by rankers.

    Args:
        blend: Gives the candidates; what it learned from lies before what the rankers learned from.
        describer: Tells the rankers of pairs.
        rankers: By name; several are combined.
        combination: `score`, the mean of their probabilities; or `reciprocal_rank`, of their places.
        budget: Candidates of the blend that are put in order.
        name: As used in reports.
    """

    # Features of pairs are of the whole history.
    history_length: int | None = None

    def __init__(
        self,
        blend: Blend,
        describer: PairDescriber,
        rankers: dict[str, Ranker],
        *,
        combination: Combination,
        budget: int,
        name: str,
    ) -> None:
        super().__init__(name=name)
        self.needs_history = blend.needs_history
        self.blend = blend
        self.describer = describer
        self.rankers = dict(rankers)
        self._combination = combination
        self._budget = budget

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends the k best; see `Recommender`.

        The score is the probability of a purchase, where rankers are not combined by their places; the source is the
        generator that ranked an article highest.
        """
        found = self.candidates(histories, now=now, exclude=exclude)
        logits = self._logits(found)
        batch = tf.shape(now, tf.int64)[0]
        score = combine(logits, found.row, combination=self._combination)
        # Probabilities may be equal where logits are not.
        order = next(iter(logits.values())) if len(logits) == 1 else score
        place = best_of_rows(order, found.row, batch, k)
        return answer_pairs(place, score, found.article_index, found.rank, self.describer.generators)

    def candidates(self, histories: Histories, *, now: tf.Tensor, exclude: tf.Tensor) -> DescribedPairs:
        """Returns what is put in order, and what the rankers are told of it; see `__call__` for the arguments."""
        pool = self.blend.pool(histories, now=now, exclude=exclude)
        batch = tf.shape(now, tf.int64)[0]
        first = best_of_rows(self.blend.score(pool), pool.row, batch, tf.constant(self._budget))
        kept = tf.where(first >= 0)
        place, row = tf.gather_nd(first, kept), kept[:, 0]
        article, rank = tf.gather(pool.article_index, place), tf.gather(pool.rank, place)
        features = self.describer(histories, now, row, article, tf.gather(pool.score, place), rank)
        return DescribedPairs(row, article, tf.gather(histories.customer_index, row), rank, features)

    def score(self, found: DescribedPairs) -> tf.Tensor:
        """Scores what `candidates` returned, `[num_pairs]` float32."""
        return combine(self._logits(found), found.row, combination=self._combination)

    def _logits(self, found: DescribedPairs) -> dict[str, tf.Tensor]:
        return {
            name: ranker(found.features, found.article_index, found.customer_index)
            for name, ranker in self.rankers.items()
        }

    def save(self, folder: Path) -> None:
        """Writes blend, similar recommenders and rankers, each into a folder of its own."""
        (folder / "blend").mkdir()
        self.blend.save(folder / "blend")
        for name, recommender in self.describer.similar.items():
            (folder / "similar" / name).mkdir(parents=True)
            recommender.save(folder / "similar" / name)
        for name, ranker in self.rankers.items():
            arrays, settings = ranker.state()
            (folder / "rankers" / name).mkdir(parents=True)
            save_state(folder / "rankers" / name, arrays, **settings)
        lookups = self.describer.layer.lookups
        arrays = {f"group_{name}": np.asarray(index) for name, index in lookups.groups.items()}
        arrays |= {f"gap_{name}": np.asarray(days) for name, days in lookups.usual_gap_days.items()}
        save_state(
            folder,
            {**arrays, "article": np.asarray(lookups.article)},
            groups=list(lookups.groups),
            article_names=lookups.article_names,
            age_column=lookups.age_column,
            mean_age=lookups.mean_age,
            similar=list(self.describer.similar),
            rankers=list(self.rankers),
            combination=self._combination,
            budget=self._budget,
            name=self.name,
        )

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        load_generator: Callable[[str, Path], Recommender],
        load_similar: Callable[[str, Path], ScoringRecommender],
    ) -> "TwoStage":
        """Reads what `save` wrote.

        Args:
            folder: Where that is.
            load_generator: Reads the generator of a name from a folder.
            load_similar: Reads a recommender that scores.
        """
        arrays, settings = load_state(folder)
        groups = settings.pop("groups")
        lookups = PairLookups(
            groups={name: arrays[f"group_{name}"] for name in groups},
            usual_gap_days={
                name.removeprefix("gap_"): days for name, days in arrays.items() if name.startswith("gap_")
            },
            article=arrays["article"],
            article_names=tuple(settings.pop("article_names")),
            age_column=settings.pop("age_column"),
            mean_age=settings.pop("mean_age"),
        )
        blend = Blend.load(folder / "blend", load_generator=load_generator)
        similar = {name: load_similar(name, folder / "similar" / name) for name in settings.pop("similar")}
        rankers = {name: load_ranker(*load_state(folder / "rankers" / name)) for name in settings.pop("rankers")}
        describer = PairDescriber(PairFeatureLayer(lookups), similar, blend.generators)
        return cls(blend, describer, rankers, **settings)


def combine(logits: dict[str, tf.Tensor], row: tf.Tensor, *, combination: Combination) -> tf.Tensor:
    """Combines the rankers' scores of pairs.

    Args:
        logits: `[num_pairs]` float32 by ranker.
        row: `[num_pairs]` int64, ascending.
        combination: See `TwoStage`.

    Returns:
        `[num_pairs]` float32.

    Source: Cormack, Clarke and Büttcher 2009, Reciprocal Rank Fusion, for the latter.
    """
    if combination == "score":
        return tf.add_n([tf.sigmoid(logit) for logit in logits.values()]) / len(logits)
    total = tf.zeros_like(row, tf.float32)
    start = tf.searchsorted(row, row)
    for logit in logits.values():
        # Sorted by row, and within it by the logit: a stable sort by the row of what is sorted by the logit.
        by_logit = tf.argsort(-logit, stable=True)
        order = tf.gather(by_logit, tf.argsort(tf.gather(row, by_logit), stable=True))
        place = tf.scatter_nd(order[:, tf.newaxis], tf.range(tf.size(row)), tf.shape(row)) - start
        total += 1.0 / (_RECIPROCAL_RANK + 1.0 + tf.cast(place, tf.float32))
    return total / len(logits)
