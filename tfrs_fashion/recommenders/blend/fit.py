"""The fit of a blend: quotas and a selector, from the pools of past weeks and what was bought in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.view import View
from tfrs_fashion.models.selector import Selector
from tfrs_fashion.recommenders.blend.blend import Blend, article_features
from tfrs_fashion.recommenders.blend.labelled_pool import LabelledPool
from tfrs_fashion.recommenders.blend.pool import score_by_quotas
from tfrs_fashion.recommenders.recommender import FitContext, Recommender
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.rankers import BlendConfig

_ADAPT_SAMPLE = 200_000


class BlendWeeks(Protocol):
    """The past weeks that a blend learns from, as `FitContext.weeks` gives them."""

    def pools(self, num_weeks: int, *, skip: int = 0) -> list[LabelledPool]:
        """Returns the pools of the weeks before the view's cutoff, the latest first.

        Args:
            num_weeks: Number of weeks.
            skip: Number of latest weeks that are left out.
        """


@dataclass(frozen=True)
class FirstStage:
    """What chooses among the candidates of a pool, learned from past weeks.

    Attributes:
        blend: Settings of the blend.
        quotas: `[num_generators]` float32.
        selector: Scores candidates in place of the quotas; None for quotas.
    """

    blend: BlendConfig
    quotas: np.ndarray
    selector: Selector | None

    def score(self, pool: LabelledPool) -> np.ndarray:
        """Scores all pairs of a pool, `[num_pairs]` float."""
        if self.selector is None:
            return quota_scores(pool.rank, self.quotas)
        return selector_scores(self.selector, pool)

    def make(self, generators: dict[str, Recommender], article_features: np.ndarray, *, name: str = "blend") -> Blend:
        """Makes the blend.

        Args:
            generators: The blend's generators by name, fitted on one view.
            article_features: Features of articles at the cutoff of that view.
            name: Name in reports.
        """
        return Blend(
            generators,
            num_candidates=self.blend.num_candidates,
            quotas=self.quotas,
            article_features=article_features,
            selector=self.selector,
            hidden_dims=self.blend.hidden_dims,
            name=name,
        )


def fit_first_stage(pools: Sequence[LabelledPool], blend: BlendConfig, *, budget: int, seed: int) -> FirstStage:
    """Learns from past weeks which candidates to keep.

    Args:
        pools: Pools of past weeks.
        blend: Settings of the blend; its method `quotas` leaves out the selector.
        budget: Number of candidates per customer for which quotas are fitted.
        seed: Seed of the selector.

    Raises:
        InputError: Nothing in the pools was bought.
    """
    quotas = fit_quotas(pools, budget=budget)
    return FirstStage(blend, quotas, None if blend.method == "quotas" else fit_selector_of(blend, pools, seed=seed))


def fit(view: View, settings: BlendConfig, context: FitContext) -> Blend:
    """Fits a blend from the weeks before the view's cutoff; see `recommenders.kinds.Kind`.

    Raises:
        InputError: Nothing in the pools was bought.
    """
    weeks: BlendWeeks = context.weeks
    generators = {part: context.fitted_part(part) for part in settings.generators}
    chosen = settings.model_copy(update=dict(context.choice))
    first_stage = fit_first_stage(weeks.pools(settings.weeks), chosen, budget=settings.budget, seed=context.seed)
    return first_stage.make(generators, article_features(view), name=context.name)


def quota_scores(rank: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Scores all pairs of a pool, `[num_pairs]` float64; see `score_by_quotas`."""
    scores: np.ndarray = score_by_quotas(tf.constant(rank, tf.float64), tf.constant(quotas, tf.float64)).numpy()
    return scores


def fit_quotas(pools: Sequence[LabelledPool], *, budget: int, step: int = 10) -> np.ndarray:
    """Finds how many candidates to take from each generator.

    Greedily: the next few candidates are those of the generator whose next few hold the most purchases that no
    generator has named yet, per new candidate that they cost.

    Args:
        pools: Pools of past weeks.
        budget: Mean number of candidates per customer.
        step: Number of candidates of a generator that are taken together.

    Returns:
        `[num_generators]` float32.

    Raises:
        InputError: Nothing in the pools was bought.
    """
    rank = np.concatenate([pool.rank for pool in pools])
    gain = np.concatenate([np.where(pool.is_bought, pool.weight, 0.0) for pool in pools])
    num_customers = sum(len(pool.num_bought) for pool in pools)
    if not gain.any():
        raise InputError(
            f"blend: none of {len(gain):,} candidates of {num_customers:,} customers was bought in the {len(pools)} week(s) before "
            "the cutoff from which quotas are fitted. Raise the blend's `weeks` (two stages: `blend_weeks`) or `num_candidates`."
        )
    num_generators = rank.shape[1]
    quotas = np.zeros(num_generators, np.int64)
    # The pairs that each generator names, the best first, and where the next rank begins among them.
    named = [np.flatnonzero(rank[:, place]) for place in range(num_generators)]
    named = [pairs[np.argsort(rank[pairs, place], kind="stable")] for place, pairs in enumerate(named)]
    ends = [
        np.searchsorted(rank[pairs, place], np.arange(1, int(rank[:, place].max(initial=0)) + 2))
        for place, pairs in enumerate(named)
    ]
    is_taken, num_taken = np.zeros(len(rank), bool), 0
    while num_taken < budget * num_customers:
        best, best_rate, best_pairs = -1, 0.0, np.zeros(0, np.int64)
        for place, pairs in enumerate(named):
            begin, end = (ends[place][min(quotas[place] + further, len(ends[place]) - 1)] for further in (0, step))
            fresh = pairs[begin:end]
            fresh = fresh[~is_taken[fresh]]
            rate = gain[fresh].sum() / len(fresh) if len(fresh) else 0.0
            if rate > best_rate:
                best, best_rate, best_pairs = place, rate, fresh
        if best < 0:
            break
        is_taken[best_pairs] = True
        num_taken += len(best_pairs)
        quotas[best] += step
    return quotas.astype(np.float32)


def fit_selector_of(blend: BlendConfig, pools: Sequence[LabelledPool], *, seed: int) -> Selector:
    """Trains a selector of candidates on which of them were bought.

    Args:
        blend: Settings of the blend.
        pools: Pools of past weeks.
        seed: Seed of weights, samples and batches.
    """
    random = np.random.default_rng(seed)
    kept = [pool.is_bought | (random.random(len(pool.is_bought)) < blend.negative_share) for pool in pools]
    score, rank, context, is_bought = (
        np.concatenate([getattr(pool, name)[chosen] for pool, chosen in zip(pools, kept, strict=True)])
        for name in ("score", "rank", "context", "is_bought")
    )
    article = np.concatenate(
        [pool.article_features[pool.article_index[chosen]] for pool, chosen in zip(pools, kept, strict=True)]
    )
    rank = rank.astype(np.float32)
    selector = Selector(
        num_generators=rank.shape[1],
        num_candidates=blend.num_candidates,
        num_article_features=article.shape[1],
        hidden_dims=blend.hidden_dims,
        seed=seed,
    )
    sample = random.permutation(len(rank))[:_ADAPT_SAMPLE]
    selector.adapt(score[sample], rank[sample], context[sample], article[sample])
    steps = blend.epochs * -(-len(rank) // blend.batch_size)
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(blend.learning_rate, steps, 0.1 * blend.learning_rate)
    optimizer = tf.keras.optimizers.Adam(schedule)
    optimizer.build(selector.trainable_variables)
    inputs = (score, rank, context, article, is_bought.astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, *values.shape[1:]], tf.float32) for values in inputs])
    def learn(score: tf.Tensor, rank: tf.Tensor, context: tf.Tensor, article: tf.Tensor, label: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            logit = selector(score, rank, context, article)
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(label, logit))
        gradients = tape.gradient(loss, selector.trainable_variables)
        optimizer.apply_gradients(zip(gradients, selector.trainable_variables, strict=True))

    for _epoch in range(blend.epochs):
        order = random.permutation(len(rank))
        for start in range(0, len(order), blend.batch_size):
            rows = order[start : start + blend.batch_size]
            learn(*(values[rows] for values in inputs))
    return selector


def selector_scores(selector: Selector, pool: LabelledPool, *, batch_size: int = 65_536) -> np.ndarray:
    """Scores all pairs of a pool, `[num_pairs]` float32."""
    scores = [np.zeros(0, np.float32)]
    for start in range(0, len(pool.customer), batch_size):
        rows = slice(start, start + batch_size)
        inputs = (pool.score[rows], pool.rank[rows].astype(np.float32), pool.context[rows])
        article = pool.article_features[pool.article_index[rows]]
        scores.append(selector(*(tf.constant(values) for values in (*inputs, article))).numpy())
    return np.concatenate(scores)
