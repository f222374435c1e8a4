"""The fits of relevance classifiers: pairs in, a function that tells their classes out."""

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
    """Pairs that classes are told of.

    Attributes:
        customer_index: `[num_pairs]` int32.
        article_index: `[num_pairs]` int32.
        features: `[num_pairs]` rows of float columns.
        label: `[num_pairs]` int32, places in `names`.
        names: Of the classes.
        past: `[num_pairs]` int32, the class of the visible orders; None where these are the label's.
        later_orders: `[num_pairs]` float, the orders that make the label; None as above.
    """

    customer_index: np.ndarray
    article_index: np.ndarray
    features: pd.DataFrame
    label: np.ndarray
    names: tuple[str, ...]
    past: np.ndarray | None
    later_orders: np.ndarray | None

    def take(self, rows: np.ndarray) -> "Pairs":
        """Returns some of them."""
        past, later = (None if told is None else told[rows] for told in (self.past, self.later_orders))
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
    """A model that is compared.

    Attributes:
        name: As shown.
        columns: Features that it is told; None for all.
        has_words: Whether it reads descriptions.
        stops_early: Whether it has dropout and stops by its macro-F1 on validation, and not after all epochs.
        family: A network, boosted trees, or a linear model of the orders to come.
        num_parts: Parts of what is learned from, fifths, that are told by models which learned from the others: to choose
            by, and their mean answers.
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
    """Fits boosted trees by LightGBM, for as many rounds as are best for what is held out.

    Args:
        learned: To learn from.
        held_out: To stop by.
        imbalance: `none` or `weights`; see `models.relevance`.
        seed: Of samples.

    Returns:
        A function that tells the probabilities of pairs, `[num_pairs, num_classes]` float64.

    Raises:
        InputError: LightGBM is not installed.
    """
    lightgbm = import_lightgbm("relevance")
    num_classes = len(learned.names)
    weight = class_weights(learned.label, num_classes)[learned.label] if imbalance == "weights" else None
    told = {
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
    booster = lightgbm.train(told, train, 400, valid_sets=[later], callbacks=[stop])
    return lambda pairs: np.asarray(booster.predict(pairs.features.to_numpy(), num_iteration=booster.best_iteration))


def fit_later_orders(learned: Pairs) -> Callable[[Pairs], np.ndarray]:
    """Fits a ridge regression of the logarithm of the orders to come by those of the features.

    It goes on in a straight line beyond the customers that it has seen, where trees and networks stop: the few who order most
    make most of the highest class.

    Args:
        learned: To learn from, with `later_orders`.

    Returns:
        A function that tells the logarithm of 1 + the orders to come of pairs, `[num_pairs, 1]` float64.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert learned.later_orders is not None

    def numbers(pairs: Pairs) -> np.ndarray:
        told: np.ndarray = np.log1p(np.clip(np.nan_to_num(pairs.features.to_numpy()), 0, None))
        return told

    model = make_pipeline(StandardScaler(), Ridge(10.0)).fit(numbers(learned), np.log1p(learned.later_orders))
    return lambda pairs: model.predict(numbers(pairs))[:, np.newaxis]


def fit_class_odds(score: np.ndarray, label: np.ndarray, num_classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Fits the probabilities of classes by a score of pairs that it was not learned from.

    Args:
        score: `[num_pairs, 1]` float.
        label: `[num_pairs]` int32.
        num_classes: How many.

    Returns:
        A function of scores that tells `[num_pairs, num_classes]` float64; 0 of a class that is not among the labels.
    """
    from sklearn.linear_model import LogisticRegression

    present = np.unique(label)
    fitted = LogisticRegression(C=1e4).fit(score, label) if len(present) > 1 else None

    def tell(score: np.ndarray) -> np.ndarray:
        found = np.zeros((len(score), num_classes))
        found[:, present] = 1.0 if fitted is None else fitted.predict_proba(score)
        return found

    return tell


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
        kind: What it is told, and whether it stops early.
        learned: To learn from.
        held_out: To stop by.
        words: Of the descriptions of all articles.
        settings: Of network and training.
        imbalance: See `models.relevance.RelevanceModel`.
        judge: Of probabilities of what is held out; a model that stops early does so by it.
        seed: Of weights and batches.
        log: Where progress is told.

    Returns:
        A function that tells the probabilities of pairs, `[num_pairs, num_classes]` float64.
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
    # Customers that nothing was learned of are unknown ones, and so are some of those that are learned from.
    random = np.random.default_rng(seed)
    customer = np.where(random.random(len(learned.label)) < 0.2, 1, learned.customer_index).astype(np.int32)
    told = {
        "customer_index": customer,
        "article_index": learned.article_index,
        "features": numbers(learned),
        "label": learned.label.astype(np.int32),
    }
    dataset = tf.data.Dataset.from_tensor_slices(told).shuffle(len(customer), seed=seed).batch(settings.batch_size)
    model.compile(optimizer=tf.keras.optimizers.Adam(settings.learning_rate))
    model.optimizer.build(model.trainable_variables)

    @tf.function(reduce_retracing=True)
    def tell(customer_index: tf.Tensor, article_index: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(network(customer_index, article_index, features))

    def ask(pairs: Pairs) -> np.ndarray:
        is_known = np.isin(pairs.customer_index, learned.customer_index)
        customer_index = np.where(is_known, pairs.customer_index, 1).astype(np.int32)
        found: np.ndarray = tell(customer_index, pairs.article_index, numbers(pairs)).numpy().astype(np.float64)
        return found

    if not kind.stops_early:
        fit_model(model, dataset, epochs=settings.epochs, log=log)
        return ask
    best: dict[str, Any] = {"figure": -1.0, "weights": network.get_weights()}

    def validate() -> dict[str, float]:
        figure = judge(ask(held_out))
        if figure > best["figure"]:
            best.update(figure=figure, weights=network.get_weights())
        return {"val_macro_f1": figure}

    fit_model(model, dataset, epochs=settings.epochs, validate=validate, patience=settings.patience, log=log)
    network.set_weights(best["weights"])
    return ask
