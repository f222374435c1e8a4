"""The fit of a blend: quotas and a selector, from the pools of past weeks and what was bought in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrs_fashion.models.selector import Selector
from tfrs_fashion.recommenders.blend import score_by_quotas
from tfrs_fashion.recommenders.stored import StoredArrays
from tfrs_fashion.schema import InputError

_ADAPT_SAMPLE = 200_000


def best_of_customers(customer: np.ndarray, score: np.ndarray, *, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds each customer's best pairs.

    Args:
        customer: `[num_pairs]` int, in any order.
        score: `[num_pairs]`; ties keep the order of the pairs, and what is not finite is no pair.
        k: Pairs a customer.

    Returns:
        Their positions, customers ascending and best first; and the place of each, from 1.
    """
    order = np.lexsort([-score, customer])
    order = order[np.isfinite(score[order])]
    sorted_by = customer[order]
    rank = np.arange(len(order)) - np.searchsorted(sorted_by, sorted_by, side="left") + 1
    return order[rank <= k], rank[rank <= k]


@dataclass(frozen=True)
class LabelledPool(StoredArrays):
    """The candidates of one week, from generators that were fitted before it, and which of them were bought in it.

    Attributes:
        customer: `[num_pairs]` int32, position among the customers who bought in that week; ascending.
        customer_index: `[num_customers]` int32, these customers, ascending.
        article_index: `[num_pairs]` int32.
        score: `[num_pairs, num_generators]` float32; see `recommenders.blend.Pool`.
        rank: `[num_pairs, num_generators]` int16; 0 where a generator did not name the pair.
        context: `[num_pairs, 2]` float32; see `recommenders.blend.Pool`.
        article_features: `[num_articles + 2, num_features]` float32, known before the week.
        is_bought: `[num_pairs]` bool.
        num_bought: `[num_customers]` int32, distinct articles that each customer bought in that week.
    """

    customer: np.ndarray
    customer_index: np.ndarray
    article_index: np.ndarray
    score: np.ndarray
    rank: np.ndarray
    context: np.ndarray
    article_features: np.ndarray
    is_bought: np.ndarray
    num_bought: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """`[num_pairs]`, what finding a pair adds to the recall of its customer."""
        return 1.0 / self.num_bought[self.customer]

    def recall(self, score: np.ndarray, *, k: int) -> float:
        """Returns the mean recall of each customer's k best.

        Args:
            score: `[num_pairs]`; ties keep the order of the pool.
            k: Candidates a customer.
        """
        taken, _rank = best_of_customers(self.customer, score, k=k)
        taken = taken[self.is_bought[taken]]
        return float(self.weight[taken].sum() / max(len(self.num_bought), 1))


def quota_scores(rank: np.ndarray, quotas: np.ndarray) -> np.ndarray:
    """Scores all pairs of a pool, `[num_pairs]` float64; see `score_by_quotas`."""
    scores: np.ndarray = score_by_quotas(tf.constant(rank, tf.float64), tf.constant(quotas, tf.float64)).numpy()
    return scores


def fit_quotas(pools: Sequence[LabelledPool], *, budget: int, step: int = 10) -> np.ndarray:
    """Finds how many candidates to take from each generator.

    Greedily: the next few candidates are those of the generator whose next few hold the most purchases that nobody has
    named yet, for each new candidate that they cost.

    Args:
        pools: Of past weeks.
        budget: Candidates a customer, on average.
        step: Candidates of a generator that are taken together.

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
            f"blend: none of {len(gain):,} candidates of {num_customers:,} customers was bought in {len(pools)} week(s) before the "
            "cutoff, by which generators are chosen. Raise `blend.weeks` (`blend_weeks`, of two stages) or `blend.num_candidates`."
        )
    num_generators = rank.shape[1]
    quotas = np.zeros(num_generators, np.int64)
    # Of each generator what it names, the best first, and where in it the next rank begins.
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


def fit_selector(
    pools: Sequence[LabelledPool],
    *,
    num_candidates: int,
    hidden_dims: Sequence[int],
    epochs: int,
    batch_size: int,
    learning_rate: float,
    negative_share: float,
    seed: int,
) -> Selector:
    """Learns which candidates were bought.

    Args:
        pools: Of past weeks.
        num_candidates: Candidates that each generator was asked for.
        hidden_dims: Widths of the layers.
        epochs: Passes over the pairs.
        batch_size: Pairs in a batch.
        learning_rate: Of Adam at the start; it falls to a tenth.
        negative_share: Share of the candidates not bought that is learned from. It moves all scores alike.
        seed: Of weights, samples and batches.
    """
    random = np.random.default_rng(seed)
    kept = [pool.is_bought | (random.random(len(pool.is_bought)) < negative_share) for pool in pools]
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
        num_candidates=num_candidates,
        num_article_features=article.shape[1],
        hidden_dims=hidden_dims,
        seed=seed,
    )
    sample = random.permutation(len(rank))[:_ADAPT_SAMPLE]
    selector.adapt(score[sample], rank[sample], context[sample], article[sample])
    steps = epochs * -(-len(rank) // batch_size)
    schedule = tf.keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.1 * learning_rate)
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

    for _epoch in range(epochs):
        order = random.permutation(len(rank))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            learn(*(values[rows] for values in inputs))
    return selector


def selector_scores(selector: Selector, pool: LabelledPool, *, batch_size: int = 65_536) -> np.ndarray:
    """Scores all pairs of a pool, `[num_pairs]` float32."""
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(pool.customer), batch_size):
        rows = slice(start, start + batch_size)
        told = (pool.score[rows], pool.rank[rows].astype(np.float32), pool.context[rows])
        article = pool.article_features[pool.article_index[rows]]
        parts.append(selector(*(tf.constant(values) for values in (*told, article))).numpy())
    return np.concatenate(parts)
