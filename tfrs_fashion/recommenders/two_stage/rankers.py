"""Rankers: networks and boosted trees that score pairs of a customer and a candidate."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.models.attribution import EMBEDDED, integrated_gradients
from tfrs_fashion.models.ranking import RankingNetwork
from tfrs_fashion.models.trees import Trees, import_lightgbm
from tfrs_fashion.recommenders.recommender import set_weight_arrays, weight_arrays


class Ranker(Protocol):
    """A `tf.Module` that scores pairs by the logit of a purchase, once it is calibrated.

    Attributes:
        calibration: Slope and offset that turn the fitted model's output into the logit.
    """

    calibration: tuple[float, ...]

    def __call__(self, features: tf.Tensor, article_index: tf.Tensor, customer_index: tf.Tensor) -> tf.Tensor:
        """Scores pairs.

        Args:
            features: `[num_pairs, num_features]` float32, NaN where unknown.
            article_index: `[num_pairs]` int32.
            customer_index: `[num_pairs]` int32.

        Returns:
            `[num_pairs]` float32.
        """

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Returns the arrays and settings from which `load_ranker` makes it again."""

    def attribute(
        self, features: np.ndarray, article_index: np.ndarray, customer_index: np.ndarray, *, num_compared: int
    ) -> np.ndarray:
        """Attributes the score of each pair to its features, relative to the mean of the first `num_compared`; see `__call__`.

        Returns:
            `[num_pairs, num_features + 3]` float32: of each feature, and of the embeddings of article, customer and
            categories.
        """


class NetworkRanker(tf.Module):
    """A ranking network as a ranker.

    Args:
        network: The network with its weights.
        settings: Its arguments, except `categories`.
        calibration: Slope and offset of the logit.
    """

    def __init__(self, network: RankingNetwork, *, settings: dict[str, Any], calibration: Sequence[float]) -> None:
        super().__init__(name="network_ranker")
        self.network = network
        self._settings = settings
        self.calibration = tuple(calibration)

    def __call__(self, features: tf.Tensor, article_index: tf.Tensor, customer_index: tf.Tensor) -> tf.Tensor:
        """See `Ranker`."""
        slope, offset = self.calibration
        return slope * self.network(features, article_index, customer_index).purchase + offset

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See `Ranker`."""
        return weight_arrays(self.network), {"network": self._settings, "calibration": self.calibration}

    def attribute(
        self, features: np.ndarray, article_index: np.ndarray, customer_index: np.ndarray, *, num_compared: int
    ) -> np.ndarray:
        """See `Ranker`; by integrated gradients."""
        inputs = tuple(map(tf.constant, (features, article_index, customer_index)))
        baseline = tuple(values[:num_compared] for values in inputs)
        attribution: np.ndarray = self.calibration[0] * integrated_gradients(self.network, inputs, baseline).numpy()
        return attribution


class TreesRanker(tf.Module):
    """Boosted trees as a ranker.

    Args:
        trees: The fitted trees.
        model: The same trees in LightGBM's own text format, from which LightGBM computes attributions.
        calibration: Slope and offset of the logit.
    """

    def __init__(self, trees: Trees, model: str, *, calibration: Sequence[float]) -> None:
        super().__init__(name="trees_ranker")
        self.trees = trees
        self._model = model
        self.calibration = tuple(calibration)

    def __call__(self, features: tf.Tensor, article_index: tf.Tensor, customer_index: tf.Tensor) -> tf.Tensor:
        """See `Ranker`."""
        slope, offset = self.calibration
        return slope * self.trees(features) + offset

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See `Ranker`."""
        return dict(self.trees.arrays), {"model": self._model, "calibration": self.calibration}

    def attribute(
        self, features: np.ndarray, article_index: np.ndarray, customer_index: np.ndarray, *, num_compared: int
    ) -> np.ndarray:
        """See `Ranker`; by SHAP values of the trees.

        Source: Lundberg, Erion and Lee 2018, Consistent Individualized Feature Attribution for Tree Ensembles.
        """
        lightgbm = import_lightgbm("explain")
        shap = np.asarray(lightgbm.Booster(model_str=self._model).predict(features, pred_contrib=True))[:, :-1]
        embedded = np.zeros((len(shap), len(EMBEDDED)))
        difference = shap - shap[:num_compared].mean(axis=0)
        return np.concatenate([self.calibration[0] * difference, embedded], axis=1).astype(np.float32)


def load_ranker(arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> Ranker:
    """Makes a ranker again from its `state`."""
    calibration = settings["calibration"]
    if "network" not in settings:
        return TreesRanker(Trees(arrays), settings["model"], calibration=calibration)
    # The categories are the network's only integer variable.
    categories = next(values for values in arrays.values() if values.dtype == np.int32)
    network = RankingNetwork(categories, **settings["network"])
    set_weight_arrays(network, dict(arrays))
    return NetworkRanker(network, settings=settings["network"], calibration=calibration)
