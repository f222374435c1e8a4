"""Trees in TensorFlow give what LightGBM gives."""

from collections.abc import Callable
from types import ModuleType
from typing import NoReturn

import numpy as np
import pytest
import tensorflow as tf

from tfrs_fashion.models.trees import Trees, read_trees


def make_features(size: int) -> np.ndarray:
    """Some with unknown values, one without, one of a single value, one of float32 that thresholds lie between."""
    random = np.random.default_rng(1)
    features = random.normal(size=(size, 5)).astype(np.float32)
    features[random.random(size) < 0.3, 0] = np.nan
    features[:, 2] = 7.0
    features[:, 3] = random.integers(0, 4, size)
    features[:, 4] = np.float32(1.0) + random.integers(0, 3, size) * np.spacing(np.float32(1.0))
    return features


@pytest.mark.parametrize("objective", ["binary", "lambdarank"])
def test_equal_lightgbm(objective: str, skip_or_fail: Callable[[str], NoReturn]) -> None:
    lightgbm = _lightgbm(skip_or_fail)
    features = make_features(4000)
    label = (np.nan_to_num(features[:, 0], nan=1.0) + features[:, 3] + (features[:, 4] > 1) > 2).astype(int)
    group = {"group": [40] * 100} if objective == "lambdarank" else {}
    settings = {"objective": objective, "num_leaves": 15, "min_data_in_leaf": 5, "verbose": -1, "seed": 1}
    booster = lightgbm.train(settings, lightgbm.Dataset(features, label, **group), num_boost_round=30)
    # Unknown where training knew everything, too, and numbers at the thresholds.
    asked = make_features(4000)
    asked[::7, 1:] = np.nan
    thresholds = read_trees(booster.dump_model())["threshold"]
    asked[: len(thresholds), 1] = thresholds[:4000]
    found = Trees(read_trees(booster.dump_model()))(tf.constant(asked)).numpy()
    expected = booster.predict(asked, raw_score=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert len(np.unique(expected)) > 25


def _lightgbm(skip_or_fail: Callable[[str], NoReturn]) -> ModuleType:
    try:
        import lightgbm
    except ImportError:
        skip_or_fail("the package lightgbm is not installed")
    return lightgbm


def test_a_split_by_categories_is_refused() -> None:
    leaf = {"leaf_value": 1.0}
    node = {
        "split_feature": 0,
        "threshold": "1||2",
        "decision_type": "==",
        "missing_type": "None",
        "default_left": True,
    }
    with pytest.raises(ValueError, match="=="):
        read_trees(
            {"tree_info": [{"tree_structure": {**node, "threshold": 1.0, "left_child": leaf, "right_child": leaf}}]}
        )


def test_a_tree_that_is_one_leaf() -> None:
    trees = Trees(read_trees({"tree_info": [{"tree_structure": {"leaf_value": 0.25}}] * 2}))
    assert trees(tf.zeros([3, 2])).numpy().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.filterwarnings("error")
def test_a_split_by_whether_something_is_known() -> None:
    """LightGBM's threshold for it is 1e300, which no float32 reaches."""
    node = {
        "split_feature": 0,
        "threshold": 1e300,
        "decision_type": "<=",
        "missing_type": "NaN",
        "default_left": False,
        "left_child": {"leaf_value": 1.0},
        "right_child": {"leaf_value": 2.0},
    }
    trees = Trees(read_trees({"tree_info": [{"tree_structure": node}]}))
    largest = np.finfo(np.float32).max
    assert trees(tf.constant([[-largest], [0.0], [largest], [np.nan]])).numpy().tolist() == [1.0, 1.0, 1.0, 2.0]
