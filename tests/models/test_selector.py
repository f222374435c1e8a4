"""The selector's features by hand, and what it can tell."""

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.models.selector import Selector, describe_pool


def test_what_generators_said_becomes_features() -> None:
    score = tf.constant([[np.e - 1, -(np.e**2 - 1)], [0.0, 3.0]], tf.float32)
    rank = tf.constant([[1.0, 10.0], [0.0, 99.0]])
    found = describe_pool(score, rank, num_candidates=99).numpy()
    # The first of 99 is at height 1, the tenth at one half of log 100, the last near 0.
    expected = [
        [1, 1, 1.0, 0.5, 1.0, -2.0],
        [0, 1, 0.0, 1 - np.log(99) / np.log(100), 0.0, np.log(4)],
    ]
    assert found == pytest.approx(np.array(expected), abs=1e-5)


def test_features_are_measured_before_they_are_weighed() -> None:
    selector = Selector(num_generators=2, num_candidates=9, num_article_features=1, hidden_dims=(3,), seed=1)
    random = np.random.default_rng(1)
    score = random.normal(5.0, 2.0, (500, 2)).astype(np.float32)
    rank = random.integers(0, 10, (500, 2)).astype(np.float32)
    context = random.integers(0, 99, (500, 2)).astype(np.float32)
    article = random.normal(0.0, 9.0, (500, 1)).astype(np.float32)
    article[::3] = np.nan
    told = (score, rank, context, article)
    selector.adapt(*told)
    inputs = selector._inputs(*(tf.constant(values) for values in told))
    scaled = ((inputs - selector._mean) / selector._scale).numpy()
    assert np.nanmean(scaled, axis=0) == pytest.approx(np.zeros(9), abs=1e-4)
    assert np.nanstd(scaled, axis=0) == pytest.approx(np.ones(9), abs=1e-3)
    assert np.isnan(scaled).sum() == 167
    found = selector(*told).numpy()
    assert np.isfinite(found).all()
    # What is unknown counts as the mean.
    usual = np.sign(selector._mean[-1]) * np.expm1(abs(selector._mean[-1]))
    filled = np.where(np.isnan(article), usual, article).astype(np.float32)
    assert selector(score, rank, context, filled).numpy() == pytest.approx(found, abs=1e-5)


def test_a_feature_of_one_value_does_no_harm() -> None:
    selector = Selector(num_generators=1, num_candidates=9, num_article_features=1, hidden_dims=(), seed=1)
    nothing = np.zeros((4, 1), np.float32)
    told = (nothing, nothing, np.zeros((4, 2), np.float32), np.full((4, 1), np.nan, np.float32))
    selector.adapt(*told)
    assert np.isfinite(selector(*told).numpy()).all()
