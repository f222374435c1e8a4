import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.features.hashed_words import hash_texts
from tfrs_fashion.models.relevance import Imbalance, RelevanceModel, RelevanceNetwork, class_weights, focal


def test_focal_loss_by_its_formula() -> None:
    logits = np.array([[2.0, 0.0, -1.0], [0.5, 0.1, 0.3]], np.float32)
    label = np.array([0, 2])
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chance = probability[np.arange(2), label]
    for focus in (0.0, 2.0):
        found = focal(tf.constant(label), tf.constant(logits), focus=focus).numpy()
        assert found == pytest.approx(-((1 - chance) ** focus) * np.log(chance), rel=1e-5)


def test_weights_let_every_class_weigh_alike() -> None:
    label = np.array([0] * 6 + [1] * 3 + [3])
    weights = class_weights(label, 4)
    assert weights[2] == 0
    assert weights[label].mean() == pytest.approx(1)
    assert [weights[label][label == place].sum() for place in (0, 1, 3)] == pytest.approx([10 / 3] * 3)


@pytest.mark.parametrize("imbalance", ["none", "weights", "focal"])
def test_a_rare_class_is_learned_from_words_and_numbers(imbalance: Imbalance) -> None:
    random = np.random.default_rng(1)
    words = hash_texts(["", "", "red mug", "blue mug", "tin"], num_buckets=64)
    article = random.integers(2, 5, 600).astype(np.int32)
    features = random.normal(size=(600, 1)).astype(np.float32)
    label = ((features[:, 0] > 0.5) & (article == 4)).astype(np.int32)
    network = RelevanceNetwork(
        words,
        num_customers=4,
        num_articles=3,
        num_features=1,
        num_bins=8,
        embedding_dim=4,
        hidden_dims=(8,),
        dropout=0.1,
        num_classes=2,
        seed=1,
    )
    network.fit(features)
    model = RelevanceModel(network, imbalance=imbalance, weights=class_weights(label, 2), name="relevance")
    model.compile(optimizer=tf.keras.optimizers.Adam(0.03))
    model.optimizer.build(model.trainable_variables)
    batch = {
        "customer_index": tf.constant(random.integers(2, 6, 600), tf.int32),
        "article_index": tf.constant(article),
        "features": tf.constant(features),
        "label": tf.constant(label),
    }
    step = tf.function(model.train_step)
    for _step in range(120):
        step(batch)
    # Of customers and articles that came later, too.
    later = network(tf.fill([600], 10**6), batch["article_index"], batch["features"]).numpy()
    told = later.argmax(axis=1)
    assert [float((told[label == place] == place).mean()) for place in (0, 1)] == pytest.approx([1, 1], abs=0.15)
    assert np.isfinite(network(tf.constant([1]), tf.constant([10**6]), tf.constant([[np.nan]])).numpy()).all()
