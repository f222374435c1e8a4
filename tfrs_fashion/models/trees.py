"""Boosted trees of LightGBM as TensorFlow operations, so that a SavedModel holds them and no package is asked."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.schema import InputError

_ARRAYS = ("feature", "threshold", "goes_left", "left", "right", "value")


def import_lightgbm(name: str) -> Any:
    """Returns the package lightgbm, which fits and explains trees.

    Args:
        name: Of the recommender, for the message.

    Raises:
        InputError: It is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise InputError(
            f"{name}: trees are fitted and explained by the package lightgbm. Install it: pip install 'tfrs-fashion[baselines]'."
        ) from error
    return lightgbm


def read_trees(model: dict[str, Any]) -> dict[str, np.ndarray]:
    """Reads the trees of a LightGBM model.

    Args:
        model: What `Booster.dump_model()` returns.

    Returns:
        `feature` int32, `threshold` float32, `goes_left` bool (where the feature is unknown), `left` and `right` int32, `value`
        float64, each `[num_nodes]`: the nodes of all trees, where a leaf is followed by itself; and `root` int32
        `[num_trees]`, and `depth` int32, a scalar.

    Raises:
        ValueError: A split is not by a threshold, or 0 counts as unknown.
    """
    nodes: dict[str, list[Any]] = {name: [] for name in _ARRAYS}
    roots, deepest = [], 0

    def add(node: dict[str, Any], depth: int) -> int:
        nonlocal deepest
        deepest = max(deepest, depth)
        place = len(nodes["feature"])
        is_leaf = "leaf_value" in node
        threshold = 0.0 if is_leaf else float(node["threshold"])
        # The largest float32 that is not above: every float32 lies on the same side of it. A split by whether something is
        # known has 1e300, which is above all of them.
        with np.errstate(over="ignore"):
            rounded = np.float32(threshold)
        if float(rounded) > threshold:
            rounded = np.nextafter(rounded, np.float32(-np.inf))
        goes_left = True
        if not is_leaf:
            if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
                raise ValueError(
                    f"a split by {node['decision_type']!r} with {node['missing_type']!r} as missing; expected "
                    "thresholds with NaN"
                )
            # Where training saw nothing unknown, it counts as 0.
            goes_left = node["default_left"] if node["missing_type"] == "NaN" else threshold >= 0.0
        row = (0 if is_leaf else node["split_feature"], rounded, goes_left, place, place)
        for name, value in zip(_ARRAYS, (*row, node.get("leaf_value", 0.0)), strict=True):
            nodes[name].append(value)
        if not is_leaf:
            nodes["left"][place] = add(node["left_child"], depth + 1)
            nodes["right"][place] = add(node["right_child"], depth + 1)
        return place

    roots = [add(tree["tree_structure"], 0) for tree in model["tree_info"]]
    types = (np.int32, np.float32, bool, np.int32, np.int32, np.float64)
    arrays = {name: np.array(nodes[name], dtype) for name, dtype in zip(_ARRAYS, types, strict=True)}
    return {**arrays, "root": np.array(roots, np.int32), "depth": np.array(deepest, np.int32)}


class Trees(tf.Module):
    """The sum of boosted trees.

    Args:
        arrays: See `read_trees`.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(name="trees")
        self.arrays = arrays
        self._feature, self._left, self._right, self._root = (
            tf.Variable(arrays[name], trainable=False, dtype=tf.int32) for name in ("feature", "left", "right", "root")
        )
        self._threshold = tf.Variable(arrays["threshold"], trainable=False, dtype=tf.float32)
        self._goes_left = tf.Variable(arrays["goes_left"], trainable=False, dtype=tf.bool)
        self._value = tf.Variable(arrays["value"], trainable=False, dtype=tf.float64)

    def __call__(self, features: tf.Tensor) -> tf.Tensor:
        """Scores `[num_rows, num_features]` float32, NaN where unknown, as `[num_rows]` float32."""
        node = tf.repeat(self._root[tf.newaxis, :], tf.shape(features)[0], axis=0)
        for _level in range(int(self.arrays["depth"])):
            value = tf.gather(features, tf.gather(self._feature, node), batch_dims=1)
            is_left = tf.where(
                tf.math.is_nan(value), tf.gather(self._goes_left, node), value <= tf.gather(self._threshold, node)
            )
            node = tf.where(is_left, tf.gather(self._left, node), tf.gather(self._right, node))
        return tf.cast(tf.reduce_sum(tf.gather(self._value, node), axis=1), tf.float32)
