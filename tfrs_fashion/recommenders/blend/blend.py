"""A blend as a recommender: the best of the pool of its generators, by quotas or by a selector."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.features.view import View
from tfrs_fashion.models.selector import Selector
from tfrs_fashion.recommenders.blend.pool import Pool, answer_pairs, best_of_rows, make_pool, score_by_quotas
from tfrs_fashion.recommenders.recommender import (
    Recommendations,
    Recommender,
    load_state,
    longest_history,
    save_state,
    set_weight_arrays,
    weight_arrays,
)


def article_features(view: View) -> np.ndarray:
    """Returns the weekly features of each article at the cutoff: `[num_articles + 2, num_features]` float32, NaN where unknown."""
    return view.read_weeks(1).values[0]


class Blend(tf.Module):
    """Ranks the pool of its generators, by quotas or by a selector.

    With quotas the candidate at rank r of a generator with quota q is placed at r / q, so that a list of any length
    holds the generators' best candidates in proportion to their quotas.

    Args:
        generators: Recommenders by name.
        num_candidates: Number of candidates requested from each generator.
        quotas: `[num_generators]` float32, above 0 for those that take part.
        article_features: `[num_articles + 2, num_features]` float32 for the selector, NaN where unknown.
        selector: Ranks in place of the quotas; None for none.
        hidden_dims: Widths of the selector's layers.
        name: Name in reports.
    """

    kind = "blend"

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
        """Returns all candidates of the generators for a batch of customers."""
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
            kind=self.kind,
            generators=list(self._generators),
            num_candidates=self._num_candidates,
            hidden_dims=self._hidden_dims,
            name=self.name,
        )


def load(folder: Path, load_part: Callable[[Path], Recommender]) -> Blend:
    """Reads what `Blend.save` wrote.

    Args:
        folder: The folder.
        load_part: Loads a generator from its folder.
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
    generators = {name: load_part(folder / name) for name in names}
    return Blend(generators, **arrays, selector=selector, **settings)
