"""The fits of relevance classifiers: from labelled pairs to a function that predicts their classes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrs_fashion.features.hashed_words import HashedWords
from tfrs_fashion.features.relevance import AMOUNTS
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.relevance import Imbalance, RelevanceModel, RelevanceNetwork, class_weights
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.models.trees import import_lightgbm
from tfrs_fashion.schema import FIRST_INDEX
from tfrs_fashion.settings.rankers import RelevanceConfig


@dataclass(frozen=True)
class Pairs:
    """Labelled pairs of a customer and an article.

    Attributes:
        customer_index: `[num_pairs]` int32.
        article_index: `[num_pairs]` int32.
        features: `[num_pairs]` rows of float columns.
        label: `[num_pairs]` int32, positions in `names`.
        names: Names of the classes.
        past: `[num_pairs]` int32, the class of the visible orders; None if the labels count these themselves.
        later_orders: `[num_pairs]` float, the later orders behind the label; None as above.
    """

    customer_index: np.ndarray
    article_index: np.ndarray
    features: pd.DataFrame
    label: np.ndarray
    names: tuple[str, ...]
    past: np.ndarray | None
    later_orders: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Pairs":
        """Returns the pairs at some positions."""
        past, later = (None if values is None else values[rows] for values in (self.past, self.later_orders))
        return Pairs(
            self.customer_index[rows],
            self.article_index[rows],
            self.features.iloc[rows],
            self.label[rows],
            self.names,
            past,
            later,
        )


@dataclass(frozen=True)
class ModelKind:
    """A model in the comparison.

    Attributes:
        name: Name in the report.
        columns: Names of the features that it reads; None for all.
        has_words: Whether it reads descriptions.
        stops_early: Whether it has dropout and stops by its macro-F1 on validation, instead of after all epochs.
        family: A network, boosted trees, or a linear model of later orders.
        num_parts: Number of fifths of the training pairs that are predicted by models trained on the others: model choices
            are made on these predictions, and the models' predictions are averaged.
    """

    name: str
    columns: tuple[str, ...] | None = AMOUNTS
    has_words: bool = False
    stops_early: bool = False
    family: Literal["network", "trees", "linear"] = "network"
    num_parts: int = 1


MODELS = (
    ModelKind("ids, quantity, price"),
    ModelKind("with description", has_words=True),
    ModelKind("with dropout and early stopping", has_words=True, stops_early=True),
    ModelKind("with orders and times", None, has_words=True, stops_early=True),
    ModelKind("lightgbm, orders and times", None, family="trees", num_parts=5),
    ModelKind("linear, orders to come", None, family="linear", num_parts=5),
)


def fit_relevance_trees(learned: Pairs, held_out: Pairs, *, imbalance: str, seed: int) -> Callable[[Pairs], np.ndarray]:
    """Fits boosted trees by LightGBM, for the number of rounds that is best on held-out pairs.

    Args:
        learned: Training pairs.
        held_out: Pairs for early stopping.
        imbalance: `none` or `weights`; see `models.relevance`.
        seed: Seed of samples.

    Returns:
        A function that predicts the probabilities of pairs, `[num_pairs, num_classes]` float64.

    Raises:
        InputError: LightGBM is not installed.
    """
    lightgbm = import_lightgbm("relevance")
    num_classes = len(learned.names)
    weight = class_weights(learned.label, num_classes)[learned.label] if imbalance == "weights" else None
    parameters = {
        "objective": "multiclass",
        "num_class": num_classes,
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": 80,
        "feature_fraction": 0.7,
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbose": -1,
    }
    train = lightgbm.Dataset(learned.features.to_numpy(), learned.label, weight=weight, free_raw_data=False)
    later = lightgbm.Dataset(held_out.features.to_numpy(), held_out.label, reference=train)
    stop = lightgbm.early_stopping(30, verbose=False)
    booster = lightgbm.train(parameters, train, 400, valid_sets=[later], callbacks=[stop])
    return lambda pairs: np.asarray(booster.predict(pairs.features.to_numpy(), num_iteration=booster.best_iteration))


def fit_later_orders(learned: Pairs) -> Callable[[Pairs], np.ndarray]:
    """Fits a ridge regression of the logarithm of later orders on those of the features.

    It extrapolates linearly beyond the training customers, where trees and networks become constant: the few customers who
    order most make up most of the highest class.

    Args:
        learned: Training pairs, with `later_orders`.

    Returns:
        A function that predicts the logarithm of 1 + the later orders of pairs, `[num_pairs, 1]` float64.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert learned.later_orders is not None

    def numbers(pairs: Pairs) -> np.ndarray:
        logs: np.ndarray = np.log1p(np.clip(np.nan_to_num(pairs.features.to_numpy()), 0, None))
        return logs

    model = make_pipeline(StandardScaler(), Ridge(10.0)).fit(numbers(learned), np.log1p(learned.later_orders))
    return lambda pairs: model.predict(numbers(pairs))[:, np.newaxis]


def fit_class_odds(score: np.ndarray, label: np.ndarray, num_classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fits the probabilities of classes as a function of a score, on pairs that the score's model has not learned from.

    Args:
        score: `[num_pairs, 1]` float.
        label: `[num_pairs]` int32.
        num_classes: Number of classes.

    Returns:
        A function from scores to `[num_pairs, num_classes]` float64; 0 for a class that is not among the labels.
    """
    from sklearn.linear_model import LogisticRegression

    present = np.unique(label)
    fitted = LogisticRegression(C=1e4).fit(score, label) if len(present) > 1 else None

    def predict(score: np.ndarray) -> np.ndarray:
        probability = np.zeros((len(score), num_classes))
        probability[:, present] = 1.0 if fitted is None else fitted.predict_proba(score)
        return probability

    return predict


def fit_relevance_network(
    kind: ModelKind,
    learned: Pairs,
    held_out: Pairs,
    words: HashedWords,
    settings: RelevanceConfig,
    *,
    imbalance: Imbalance,
    judge: Callable[[np.ndarray], float],
    seed: int,
    log: TrainingLog | None = None,
) -> Callable[[Pairs], np.ndarray]:
    """Fits a relevance network.

    Args:
        kind: The features that it reads, and whether it stops early.
        learned: Training pairs.
        held_out: Pairs for early stopping.
        words: Hashed words of the descriptions of all articles.
        settings: Settings of network and training.
        imbalance: See `models.relevance.RelevanceModel`.
        judge: Evaluates the probabilities of the held-out pairs, for early stopping.
        seed: Seed of weights and batches.
        log: Log of the training's progress.

    Returns:
        A function that predicts the probabilities of pairs, `[num_pairs, num_classes]` float64.
    """
    tf.keras.utils.set_random_seed(seed)
    columns = list(learned.features.columns if kind.columns is None else kind.columns)

    def numbers(pairs: Pairs) -> np.ndarray:
        return pairs.features[columns].to_numpy(np.float32)

    network = RelevanceNetwork(
        words if kind.has_words else None,
        num_customers=int(learned.customer_index.max()) + 1 - FIRST_INDEX,
        num_articles=len(words.row_splits) - 1 - FIRST_INDEX,
        num_features=len(columns),
        dropout=settings.dropout if kind.stops_early else 0.0,
        num_classes=len(learned.names),
        seed=seed,
        **settings.model_dump(include={"num_bins", "embedding_dim", "hidden_dims"}),
    )
    network.fit(numbers(learned))
    model = RelevanceModel(
        network,
        imbalance=imbalance,
        weights=class_weights(learned.label, len(learned.names)),
        name=kind.name,
    )
    # Customers outside the training pairs are predicted as unknown ones, so some training customers are unknown as well.
    random = np.random.default_rng(seed)
    customer = np.where(random.random(len(learned.label)) < 0.2, 1, learned.customer_index).astype(np.int32)
    inputs = {
        "customer_index": customer,
        "article_index": learned.article_index,
        "features": numbers(learned),
        "label": learned.label.astype(np.int32),
    }
    dataset = tf.data.Dataset.from_tensor_slices(inputs).shuffle(len(customer), seed=seed).batch(settings.batch_size)
    model.compile(optimizer=tf.keras.optimizers.Adam(settings.learning_rate))
    model.optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def predict(customer_index: tf.Tensor, article_index: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(network(customer_index, article_index, features))

    def predict_pairs(pairs: Pairs) -> np.ndarray:
        is_known = np.isin(pairs.customer_index, learned.customer_index)
        customer_index = np.where(is_known, pairs.customer_index, 1).astype(np.int32)
        probability = predict(customer_index, pairs.article_index, numbers(pairs)).numpy()
        return np.asarray(probability, np.float64)

    if not kind.stops_early:
        fit_model(model, dataset, epochs=settings.epochs, log=log)
        return predict_pairs
    best: dict[str, Any] = {"figure": -1.0, "weights": network.get_weights()}

    def validate() -> dict[str, float]:
        figure = judge(predict_pairs(held_out))
        if figure > best["figure"]:
            best.update(figure=figure, weights=network.get_weights())
        return {"val_macro_f1": figure}

    fit_model(model, dataset, epochs=settings.epochs, validate=validate, patience=settings.patience, log=log)
    network.set_weights(best["weights"])
    return predict_pairs
