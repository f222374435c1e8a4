"""Two stages as a recommender: the candidates of a blend, ranked by the features of customer, article and both."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, cast

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.pair_lookups import PairLookups
from tfrs_fashion.features.pairs import PairFeatureLayer
from tfrs_fashion.recommenders.blend.blend import Blend
from tfrs_fashion.recommenders.blend.pool import answer_pairs, best_of_rows
from tfrs_fashion.recommenders.recommender import (
    Recommendations,
    Recommender,
    ScoringRecommender,
    load_state,
    save_state,
)
from tfrs_fashion.recommenders.two_stage.rankers import Ranker, load_ranker

Combination = Literal["score", "reciprocal_rank"]
# A rank is worth 1 / (this + rank), when rankers are combined by their ranks; the constant of the paper, see `combine`.
_RECIPROCAL_RANK = 60.0
_NAN = float("nan")


class PairDescriber(tf.Module):
    """Computes the pair features that rankers read, identically in training and in serving.

    Args:
        layer: Computes the features from histories.
        similar: Recommenders whose score is a feature, by name, fitted before the first week that a ranker learns from.
        generators: Names of the generators that the candidates come from, in the order of a pool's columns.
    """

    def __init__(
        self, layer: PairFeatureLayer, similar: Mapping[str, ScoringRecommender], generators: Sequence[str]
    ) -> None:
        super().__init__(name="pair_describer")
        self.layer = layer
        self.similar = dict(similar)
        self.generators = tuple(generators)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns of `__call__`."""
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
        """Computes the features of pairs.

        Args:
            histories: Histories of a batch of customers.
            now: `[batch]` int64.
            row: `[num_pairs]` int64, the row of each pair's customer; ascending.
            article_index: `[num_pairs]` int32.
            score: `[num_pairs, num_generators]` float32; see `blend.pool.Pool`.
            rank: `[num_pairs, num_generators]` float32; see `blend.pool.Pool`.

        Returns:
            `[num_pairs, num_features]` float32 in the order of `names`; NaN where a value is unknown, and an infinite
            best rank if no generator names a pair.
        """
        is_named = rank > 0
        columns = [
            tf.where(is_named, rank, _NAN),
            tf.where(is_named, score, _NAN),
            tf.reduce_min(tf.where(is_named, rank, np.inf), axis=1, keepdims=True),
            tf.reduce_sum(tf.cast(is_named, tf.float32), axis=1, keepdims=True),
        ]
        if self.similar:
            listed = tf.RaggedTensor.from_value_rowids(article_index, row, tf.shape(now, tf.int64)[0], validate=False)
            lengths = listed.row_lengths()
            articles = listed.to_tensor(0)
            for recommender in self.similar.values():
                by_row = tf.RaggedTensor.from_tensor(recommender.score(histories, now, articles), lengths)
                similarity = by_row.flat_values
                columns.append(tf.where(tf.math.is_finite(similarity), similarity, _NAN)[:, tf.newaxis])
        columns.append(self.layer(histories, now, row, article_index))
        return tf.concat(columns, axis=1)


class DescribedPairs(NamedTuple):
    """The candidates of a batch that are ranked.

    Attributes:
        row: `[num_pairs]` int64, the row of each pair's customer; ascending.
        article_index: `[num_pairs]` int32.
        customer_index: `[num_pairs]` int32.
        rank: `[num_pairs, num_generators]` float32; see `blend.pool.Pool`.
        features: `[num_pairs, num_features]` float32; see `PairDescriber`.
    """

    row: tf.Tensor
    article_index: tf.Tensor
    customer_index: tf.Tensor
    rank: tf.Tensor
    features: tf.Tensor


class TwoStage(tf.Module):
    """Re-ranks a blend's best candidates with one or more rankers.

    Args:
        blend: Gives the candidates; it learned from weeks before those of the rankers.
        describer: Computes the features of pairs.
        rankers: Rankers by name; several are combined.
        combination: `score`, the mean of their probabilities; or `reciprocal_rank`, that of their reciprocal ranks.
        budget: Number of the blend's candidates that are ranked.
        name: Name in reports.
    """

    kind = "two_stage"
    # Features of pairs read the whole history.
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

        The score is the probability of a purchase, unless rankers are combined by reciprocal ranks; the source is the
        generator that ranked an article highest.
        """
        pairs = self.candidates(histories, now=now, exclude=exclude)
        logits = self._logits(pairs)
        batch = tf.shape(now, tf.int64)[0]
        score = combine(logits, pairs.row, combination=self._combination)
        # Probabilities may be equal where logits are not.
        order = next(iter(logits.values())) if len(logits) == 1 else score
        place = best_of_rows(order, pairs.row, batch, k)
        return answer_pairs(place, score, pairs.article_index, pairs.rank, self.describer.generators)

    def candidates(self, histories: Histories, *, now: tf.Tensor, exclude: tf.Tensor) -> DescribedPairs:
        """Returns the candidates with the features that rankers read; see `__call__` for the arguments."""
        pool = self.blend.pool(histories, now=now, exclude=exclude)
        batch = tf.shape(now, tf.int64)[0]
        first = best_of_rows(self.blend.score(pool), pool.row, batch, tf.constant(self._budget))
        kept = tf.where(first >= 0)
        place, row = tf.gather_nd(first, kept), kept[:, 0]
        article, rank = tf.gather(pool.article_index, place), tf.gather(pool.rank, place)
        features = self.describer(histories, now, row, article, tf.gather(pool.score, place), rank)
        return DescribedPairs(row, article, tf.gather(histories.customer_index, row), rank, features)

    def score(self, pairs: DescribedPairs) -> tf.Tensor:
        """Scores what `candidates` returned, `[num_pairs]` float32."""
        return combine(self._logits(pairs), pairs.row, combination=self._combination)

    def _logits(self, pairs: DescribedPairs) -> dict[str, tf.Tensor]:
        return {
            name: ranker(pairs.features, pairs.article_index, pairs.customer_index)
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
            kind=self.kind,
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


def load(folder: Path, load_part: Callable[[Path], Recommender]) -> TwoStage:
    """Reads what `TwoStage.save` wrote.

    Args:
        folder: The folder.
        load_part: Loads the blend, or a similar recommender, from its folder.
    """
    arrays, settings = load_state(folder)
    groups = settings.pop("groups")
    lookups = PairLookups(
        groups={name: arrays[f"group_{name}"] for name in groups},
        usual_gap_days={name.removeprefix("gap_"): days for name, days in arrays.items() if name.startswith("gap_")},
        article=arrays["article"],
        article_names=tuple(settings.pop("article_names")),
        age_column=settings.pop("age_column"),
        mean_age=settings.pop("mean_age"),
    )
    blend = cast(Blend, load_part(folder / "blend"))
    similar = {name: cast(ScoringRecommender, load_part(folder / "similar" / name)) for name in settings.pop("similar")}
    rankers = {name: load_ranker(*load_state(folder / "rankers" / name)) for name in settings.pop("rankers")}
    describer = PairDescriber(PairFeatureLayer(lookups), similar, blend.generators)
    return TwoStage(blend, describer, rankers, **settings)


def combine(logits: dict[str, tf.Tensor], row: tf.Tensor, *, combination: Combination) -> tf.Tensor:
    """Combines the rankers' scores of pairs.

    Args:
        logits: `[num_pairs]` float32 of each ranker by name.
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
        # A stable sort by row after a sort by logit orders the pairs by row, and by logit within it.
        by_logit = tf.argsort(-logit, stable=True)
        order = tf.gather(by_logit, tf.argsort(tf.gather(row, by_logit), stable=True))
        place = tf.scatter_nd(order[:, tf.newaxis], tf.range(tf.size(row)), tf.shape(row)) - start
        total += 1.0 / (_RECIPROCAL_RANK + 1.0 + tf.cast(place, tf.float32))
    return total / len(logits)
