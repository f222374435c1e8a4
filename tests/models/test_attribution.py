"""Attributions add up to the score, and go to what made it."""

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.models.attribution import integrated_gradients
from tfrs_fashion.models.ranking import RankingNetwork

CATEGORIES = np.array([[0], [0], [2], [3], [2]], np.int32)


def make_network(*, embedding_dim: int) -> RankingNetwork:
    """A network with weights by chance, which reads nothing of the second number."""
    random = np.random.default_rng(1)
    network = RankingNetwork(
        CATEGORIES,
        category_sizes=[4],
        num_customers=3,
        num_features=3,
        num_bins=4,
        embedding_dim=embedding_dim,
        hidden_dims=(8, 4),
        num_cross=1,
        uses_dot=embedding_dim > 0,
        num_experts=2,
        dropout=0.0,
        seed=1,
    )
    weights = [
        values + random.normal(0, 0.3, values.shape) if values.dtype == np.float32 else values
        for values in network.get_weights()
    ]
    network.set_weights(weights)
    network.fit(random.normal(size=(200, 3)).astype(np.float32))
    kernel = network._from_numbers.kernel
    kernel.assign(tf.tensor_scatter_nd_update(kernel, [[place] for place in range(5, 10)], tf.zeros([5, 8])))
    return network


@pytest.mark.parametrize("embedding_dim", [0, 4])
def test_attributions_add_up_and_leave_out_what_is_not_read(embedding_dim: int) -> None:
    random = np.random.default_rng(2)
    network = make_network(embedding_dim=embedding_dim)

    def pairs(size: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        features = random.normal(size=(size, 3)).astype(np.float32)
        features[random.random(size) < 0.2, 0] = np.nan
        indices = (tf.constant(random.integers(1, 5, size), tf.int32) for _place in range(2))
        return (tf.constant(features), *indices)

    told, baseline = pairs(6), pairs(40)
    found = integrated_gradients(network, told, baseline, num_steps=200).numpy()
    assert found.shape == (6, 6)
    mean = {name: tf.reduce_mean(values, axis=0, keepdims=True) for name, values in network.describe(*baseline).items()}
    expected = network(*told).purchase - network.score(mean).purchase
    assert found.sum(axis=1) == pytest.approx(expected.numpy(), abs=5e-3)
    assert (found[:, 1] == 0).all()
    assert (np.abs(found[:, 0]) > 1e-4).all()
    assert (found[:, 3:] != 0).any() == (embedding_dim > 0)
