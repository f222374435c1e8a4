"""Attribution: what each feature adds to a score, by integrated gradients."""

from typing import Any

import tensorflow as tf

from tfrs_fashion.models.ranking import RankingNetwork

# What is embedded, behind the numbers.
EMBEDDED = ("article", "customer", "categories")


def integrated_gradients(
    network: RankingNetwork, told: tuple[Any, Any, Any], baseline: tuple[Any, Any, Any], *, num_steps: int = 64
) -> tf.Tensor:
    """Computes what each feature adds to the logits of a purchase, on the way from a baseline to each pair.

    Args:
        network: Scores pairs.
        told: Features `[num_pairs, num_features]` float32, article and customer index `[num_pairs]` int32 of the pairs.
        baseline: The same of candidates to compare with; what is told of them is averaged, as the network reads it.
        num_steps: Of the way.

    Returns:
        `[num_pairs, num_features + 3]` float32, for each number and for the parts of `EMBEDDED`, 0 where there are none. A row
        adds up to the pair's logit less that of the mean baseline, but for the error of so many steps.

    Source: Sundararajan, Taly and Yan 2017, Axiomatic Attribution for Deep Networks, eq. 3, by the midpoint rule.
    """
    ends = network.describe(*told)
    starts = {name: tf.reduce_mean(values, axis=0) for name, values in network.describe(*baseline).items()}

    @tf.function(autograph=False)
    def slope(share: tf.Tensor) -> dict[str, tf.Tensor]:
        on_the_way = {name: starts[name] + share * (values - starts[name]) for name, values in ends.items()}
        with tf.GradientTape() as tape:
            tape.watch(on_the_way)
            logit = network.score(on_the_way).purchase
        return dict(tape.gradient(logit, on_the_way))

    total = {name: tf.zeros_like(values) for name, values in ends.items()}
    for step in range(num_steps):
        for name, gradient in slope(tf.constant((step + 0.5) / num_steps, tf.float32)).items():
            total[name] += gradient / num_steps
    added = {name: total[name] * (values - starts[name]) for name, values in ends.items()}
    num_pairs, num_features = told[0].shape
    numbers = tf.reduce_sum(tf.reshape(added.pop("numbers"), [num_pairs, num_features, -1]), axis=2)
    nothing = tf.zeros([num_pairs, 1])
    parts = [tf.reduce_sum(added[name], axis=1, keepdims=True) if name in added else nothing for name in EMBEDDED]
    return tf.concat([numbers, *parts], axis=1)
