"""From the pool of a past week to what a ranker learns from: what is kept, how it is described, and how it is judged."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrs_fashion.evaluation.metrics.accuracy import measure_accuracy
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.recommenders.fit_blend import LabelledPool, best_of_customers
from tfrs_fashion.recommenders.fit_ranker import RankerWeek
from tfrs_fashion.recommenders.two_stage import PairDescriber


def describe_pairs(
    describer: PairDescriber, view: View, pool: LabelledPool, kept: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Describes pairs of a pool as they are described in an answer.

    Args:
        describer: Of the pool's generators.
        view: What is visible before the week.
        pool: Of the week.
        kept: Positions of its pairs, customers ascending.
        batch_size: Customers a call.

    Returns:
        `[len(kept), num_features]` float32.
    """
    table, cutoff = HistoryTable(view.timelines, view.profiles), tf.constant(view.now)
    num_generators = pool.rank.shape[1]

    @tf.function(
        input_signature=(
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, num_generators], tf.float32),
            tf.TensorSpec([None, num_generators], tf.float32),
        ),
        autograph=False,
    )
    def describe(
        customer_index: tf.Tensor, row: tf.Tensor, article: tf.Tensor, score: tf.Tensor, rank: tf.Tensor
    ) -> tf.Tensor:
        now = tf.gather(cutoff, customer_index)
        return describer(table(customer_index), now, row, article, score, rank)

    found = np.empty((len(kept), len(describer.names)), np.float32)
    customer = pool.customer[kept]
    starts = np.arange(0, len(pool.customer_index), batch_size)
    for start in starts:
        first, end = np.searchsorted(customer, (start, start + batch_size))
        rows = kept[first:end]
        found[first:end] = describe(
            pool.customer_index[start : start + batch_size],
            customer[first:end].astype(np.int64) - start,
            pool.article_index[rows],
            pool.score[rows],
            pool.rank[rows].astype(np.float32),
        )
    return found


def best_articles(week: RankerWeek, score: np.ndarray, *, k: int) -> pd.DataFrame:
    """Returns each customer's k best of a week's candidates, as Candidates without scores and sources.

    Args:
        week: With the candidates.
        score: `[num_pairs]`; ties keep the order of the pairs.
        k: Candidates a customer.
    """
    taken, rank = best_of_customers(week.customer, score, k=k)
    return pd.DataFrame(
        {
            "customer_index": week.customer_index[week.customer[taken]],
            "article_index": week.article_index[taken],
            "rank": rank.astype(np.int32),
        }
    )


def make_judge(
    week: RankerWeek, targets: pd.DataFrame, *, k: int, metrics: Sequence[str] = ("map", "recall")
) -> Callable[[np.ndarray], dict[str, float]]:
    """Makes the function that judges scores of a week's candidates.

    Args:
        week: Not learned from.
        targets: `customer_index, article_index` bought in it.
        k: Places that count.
        metrics: Some of `ACCURACY_METRICS`; the first is what early stopping goes by.

    Returns:
        A function of `[num_pairs]` scores that gives `val_map@k` and `val_recall@k`, or what else is asked for, over everyone who
        bought something.
    """

    def judge(score: np.ndarray) -> dict[str, float]:
        means = measure_accuracy(best_articles(week, score, k=k), targets, k=k).mean()
        return {f"val_{name}@{k}": float(means[name]) for name in metrics}

    return judge
