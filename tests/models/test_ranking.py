"""The ranking network: its parts, its tasks, and one step of training."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.models.ranking import NUM_RELEVANCES, RankingModel, RankingNetwork

CATEGORIES = np.array([[0, 0], [0, 0], [2, 2], [2, 3], [3, 2]], np.int32)
SETTINGS: dict[str, Any] = {
    "category_sizes": [4, 4],
    "num_customers": 3,
    "num_features": 2,
    "num_bins": 4,
    "embedding_dim": 3,
    "hidden_dims": (8, 4),
    "num_cross": 1,
    "uses_dot": False,
    "num_experts": 1,
    "dropout": 0.0,
    "seed": 1,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dot": {"uses_dot": True},
    "experts": {"num_experts": 3},
    "no embeddings": {"embedding_dim": 0},
    "no crosses": {"num_cross": 0},
}


def make_network(**changed: Any) -> RankingNetwork:
    network = RankingNetwork(CATEGORIES, **{**SETTINGS, **changed})
    network.fit(np.random.default_rng(1).normal(size=(50, 2)).astype(np.float32))
    return network


def make_batch(size: int = 64) -> dict[str, tf.Tensor]:
    """Lists of three, of which the one with the larger first number was bought; the last place is padding."""
    random = np.random.default_rng(2)
    features = random.normal(size=(size, 4, 2)).astype(np.float32)
    features[:, :, 1] = np.nan
    label = np.zeros((size, 4), np.float32)
    label[np.arange(size), features[:, :3, 0].argmax(axis=1)] = 1.0
    label[:, 3] = -1.0
    return {
        "features": tf.constant(features),
        "article_index": tf.constant(random.integers(2, 5, (size, 4)), tf.int32),
        "customer_index": tf.constant(random.integers(2, 5, size), tf.int32),
        "label": tf.constant(label),
        "weight": tf.constant((label >= 0).astype(np.float32)),
        "relevance": tf.constant((2 * label).clip(0).astype(np.int32)),
        "quantity": tf.constant(3 * label.clip(0)),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_learns_and_is_made_again_from_its_weights(variant: str) -> None:
    network, batch = make_network(**VARIANTS[variant]), make_batch()
    model = RankingModel(network, loss="listwise", k=3, relevance_weight=0.1, quantity_weight=0.1, name="two_stage")
    model.compile(optimizer=tf.keras.optimizers.Adam(0.03))
    model.optimizer.build(model.trainable_variables)
    before = float(model.compute_loss(batch))
    weights = [weight.copy() for weight in network.get_weights()]
    step = tf.function(model.train_step)
    for _step in range(40):
        step(batch)
    assert float(model.compute_loss(batch)) < 0.7 * before
    told = network(batch["features"][:, 0], batch["article_index"][:, 0], batch["customer_index"])
    assert [values.shape for values in told] == [(64,), (64, NUM_RELEVANCES), (64,)]
    again = make_network(**VARIANTS[variant])
    assert any((left != right).any() for left, right in zip(weights, network.get_weights(), strict=True))
    again.set_weights(network.get_weights())
    same = again(batch["features"][:, 0], batch["article_index"][:, 0], batch["customer_index"])
    np.testing.assert_array_equal(told.purchase, same.purchase)


@pytest.mark.parametrize("loss", ["pointwise", "listwise", "lambdarank"])
def test_every_loss_finds_what_was_bought(loss: Any) -> None:
    network, batch = make_network(embedding_dim=0), make_batch()
    model = RankingModel(network, loss=loss, k=3, relevance_weight=0.0, quantity_weight=0.0, name="two_stage")
    model.compile(optimizer=tf.keras.optimizers.Adam(0.03))
    model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step)
    for _step in range(60):
        step(batch)
    flat = tf.reshape(batch["features"], [-1, 2])
    nobody = tf.zeros([256], tf.int32)
    logit = tf.reshape(network(flat, nobody, nobody).purchase, [64, 4]).numpy()[:, :3]
    assert (logit.argmax(axis=1) == batch["label"].numpy().argmax(axis=1)).mean() > 0.85


def test_the_other_tasks_are_of_what_was_bought_alone() -> None:
    network, batch = make_network(), make_batch(4)
    losses = {}
    for relevance, quantity in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)):
        model = RankingModel(
            network, loss="listwise", k=3, relevance_weight=relevance, quantity_weight=quantity, name="two_stage"
        )
        losses[relevance, quantity] = float(model.compute_loss(batch))
    # All heads start at zero: three relevances are equally likely, and the rate beyond the first piece is 1 where 2 more
    # were bought, so that Poisson's `rate - count log(rate)` is 1.
    assert losses[1.0, 0.0] - losses[0.0, 0.0] == pytest.approx(np.log(3), rel=1e-4)
    assert losses[0.0, 1.0] - losses[0.0, 0.0] == pytest.approx(1.0, rel=1e-4)


def test_a_batch_without_a_purchase_has_no_loss_that_is_not_a_number() -> None:
    network, batch = make_network(), make_batch(4)
    nothing = {**batch, "label": tf.minimum(batch["label"], 0.0)}
    model = RankingModel(network, loss="listwise", k=3, relevance_weight=1.0, quantity_weight=1.0, name="two_stage")
    assert float(model.compute_loss(nothing)) == 0.0


def test_unknown_articles_and_customers_are_scored_as_unknown() -> None:
    network = make_network()
    features = tf.zeros([2, 2])
    found = network(features, tf.constant([1, 99]), tf.constant([1, 10**6])).purchase.numpy()
    assert found[0] == found[1]
