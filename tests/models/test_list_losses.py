"""Losses over lists, against their formulas in NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.models.list_losses import lambdarank, listwise, pointwise

LABEL = np.array([[1, 0, 1, 0, -1], [0, 0, 1, -1, -1], [0, 0, 0, 0, 0], [-1, -1, -1, -1, -1]], np.float32)
LOGIT = np.array([[0.3, 1.2, -0.4, 2.0, 9.0], [0.1, -0.2, 0.7, 5.0, 5.0], [1, 2, 3, 4, 5], [0] * 5], np.float32)
WEIGHT = np.array([[1, 3, 1, 3, 0], [2, 2, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], np.float32)
INPUTS = tuple(map(tf.constant, (LABEL, LOGIT, WEIGHT)))


def test_pointwise_is_the_weighted_mean_of_cross_entropies() -> None:
    expected = []
    for label, logit, weight in zip(LABEL, LOGIT, WEIGHT, strict=True):
        there = label >= 0
        probability = 1 / (1 + np.exp(-logit[there].astype(float)))
        entropy = -np.where(label[there] == 1, np.log(probability), np.log(1 - probability))
        expected.append(np.average(entropy, weights=weight[there]) if there.any() else 0.0)
    assert pointwise(*INPUTS).numpy() == pytest.approx(expected, rel=1e-5)


def test_listwise_is_the_softmax_over_what_the_sample_stands_for() -> None:
    expected = []
    for label, logit, weight in zip(LABEL, LOGIT, WEIGHT, strict=True):
        there, bought = label >= 0, label == 1
        total = np.sum(weight[there] * np.exp(logit[there]))
        expected.append(-np.mean(np.log(np.exp(logit[bought]) / total)) if bought.any() else 0.0)
    assert listwise(*INPUTS).numpy() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("k", [1, 2, 12])
def test_lambdarank_weighs_pairs_by_what_their_exchange_changes(k: int) -> None:
    expected = []
    for label, logit, weight in zip(LABEL, LOGIT, WEIGHT, strict=True):
        places = {}
        order = sorted((row for row in range(5) if label[row] >= 0), key=lambda row: -logit[row])
        for place, row in enumerate(order, start=1):
            places[row] = 1 / math.log2(1 + place) if place <= k else 0.0
        bought = [row for row in order if label[row] == 1]
        ideal = sum(1 / math.log2(1 + place) for place in range(1, min(len(bought), k) + 1))
        total = sum(
            weight[other] * abs(places[row] - places[other]) * math.log(1 + math.exp(logit[other] - logit[row]))
            for row in bought
            for other in order
            if label[other] == 0
        )
        expected.append(total / ideal if bought else 0.0)
    assert lambdarank(*INPUTS, k=k).numpy() == pytest.approx(expected, rel=1e-5)


def test_no_list_gives_nan_to_a_gradient() -> None:
    for loss in (pointwise, listwise, lambda *told: lambdarank(*told, k=3)):
        logit = tf.Variable(LOGIT)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(loss(tf.constant(LABEL), logit, tf.constant(WEIGHT)))
        assert np.isfinite(tape.gradient(total, logit).numpy()).all()
        assert np.isfinite(total.numpy())
