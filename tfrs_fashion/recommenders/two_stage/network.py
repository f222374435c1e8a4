"""The fit of a ranking network, from the candidates of past weeks and what was bought of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.view import View
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.ranking import RankingModel, RankingNetwork
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.recommenders.two_stage.ranker_week import RankerWeek, check_weeks
from tfrs_fashion.recommenders.two_stage.rankers import NetworkRanker, Ranker
from tfrs_fashion.settings.rankers import NetworkRankerConfig

# Bins are fitted on the purchases of a week and as many other candidates, but at least this many.
_BINS_OTHERS = 1_000


def fit_network(
    weeks: Sequence[RankerWeek],
    settings: NetworkRankerConfig,
    view: View,
    context: FitContext,
    *,
    validate: Callable[[Ranker], dict[str, float]] | None = None,
    epochs: int | None = None,
) -> tuple[NetworkRanker, int]:
    """Fits a ranking network.

    Args:
        weeks: Training weeks.
        settings: Settings of network, loss and training.
        view: The view, for the categories of articles and the number of customers.
        context: Context of the fit.
        validate: Evaluates the network after each epoch; None trains for all `epochs`.
        epochs: Number of passes over the lists; None for the settings' own.

    Returns:
        The ranker after its best epoch, or after the last one without `validate`, and which that was.

    Raises:
        InputError: There is nothing to learn from.
        RunError: The loss is not finite.
    """
    check_weeks(weeks, name=context.name)
    tf.keras.utils.set_random_seed(context.seed)
    network_settings: dict[str, Any] = {
        **settings.model_dump(
            include={"num_bins", "embedding_dim", "hidden_dims", "num_cross", "uses_dot", "num_experts", "dropout"}
        ),
        "category_sizes": list(view.articles.category_sizes),
        "num_customers": view.timelines.num_customers,
        "num_features": weeks[0].features.shape[1],
        "seed": context.seed,
    }
    network = RankingNetwork(view.articles.category_matrix(), **network_settings)
    network.fit(draw_for_bins(weeks, np.random.default_rng(context.seed)))
    model = RankingModel(
        network,
        **settings.model_dump(include={"loss", "relevance_weight", "quantity_weight"}),
        k=context.k,
        name=context.name,
    )
    dataset = make_list_dataset(weeks, settings, seed=context.seed)
    num_batches = int(dataset.cardinality())
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.epochs * num_batches, alpha=0.02
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(schedule))
    model.optimizer.build(model.trainable_variables)
    ranker = NetworkRanker(network, settings=network_settings, calibration=(1.0, 0.0))
    figures: list[float] = []
    weights: list[np.ndarray] = []

    def evaluate() -> dict[str, float]:
        assert validate is not None
        metrics = validate(ranker)
        figure = next(iter(metrics.values()))
        if figure > max(figures, default=-np.inf):
            weights[:] = network.get_weights()
        figures.append(figure)
        return metrics

    best, _curves = fit_model(
        model,
        dataset,
        epochs=epochs or settings.epochs,
        validate=None if validate is None else evaluate,
        patience=settings.patience,
        log=context.log,
        section=f"{context.section}.network",
    )
    if weights:
        network.set_weights(weights)
    return ranker, best


def draw_for_bins(weeks: Sequence[RankerWeek], random: np.random.Generator) -> np.ndarray:
    """Samples the features from which the bins' edges are fitted.

    The first ranks of a list are decided where few candidates lie and much is bought: at many purchases, at high
    scores. Bins of equally many candidates would put all of these into the last one, so purchases are oversampled.
    """
    samples = []
    for week in weeks:
        bought, others = np.flatnonzero(week.is_bought), np.flatnonzero(~week.is_bought)
        size = min(len(others), max(len(bought), _BINS_OTHERS))
        samples += [week.features[bought], week.features[random.choice(others, size, replace=False)]]
    return np.concatenate(samples)


def make_list_dataset(weeks: Sequence[RankerWeek], settings: NetworkRankerConfig, *, seed: int) -> tf.data.Dataset:
    """Makes batches of lists, each of what a customer bought in a week and a sample of the other candidates.

    Args:
        weeks: Training weeks. A list of which nothing was bought says nothing about the order, and is left out except
            for the `pointwise` loss, which learns probabilities.
        settings: Settings of the lists.
        seed: Seed of samples and order, which differ from epoch to epoch.

    Returns:
        Dataset of the inputs of `RankingModel.compute_loss`.
    """
    random = np.random.default_rng(seed)
    lists = []
    for number, week in enumerate(weeks):
        splits = week.row_splits
        bought = np.concatenate([[0], np.cumsum(week.is_bought)])[splits]
        kept = np.diff(splits) > 0 if settings.loss == "pointwise" else np.diff(bought) > 0
        lists.append(np.stack([np.full(int(kept.sum()), number), np.flatnonzero(kept)], axis=1))
    order = np.concatenate(lists)
    num_features = weeks[0].features.shape[1]
    splits_of = [week.row_splits for week in weeks]
    medium, high = settings.relevance_from

    def one(number: int, customer: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the positions of sampled pairs, and how many pairs each stands for."""
        week = weeks[number]
        rows = np.arange(splits_of[number][customer], splits_of[number][customer + 1])
        is_bought = week.is_bought[rows]
        others = rows[~is_bought]
        room = max(settings.list_size - int(is_bought.sum()), 1)
        weight = 1.0
        if len(others) > room:
            weight = len(others) / room
            others = random.choice(others, room, replace=False)
        taken = np.concatenate([rows[is_bought], others])
        return taken, np.where(week.is_bought[taken], 1.0, weight).astype(np.float32)

    def epoch() -> Iterator[dict[str, np.ndarray]]:
        shuffled = random.permutation(order)
        for start in range(0, len(shuffled), settings.batch_lists):
            chosen = [
                (number, customer, *one(number, customer))
                for number, customer in shuffled[start : start + settings.batch_lists]
            ]
            width = max(len(taken) for _number, _customer, taken, _weight in chosen)
            shape = (len(chosen), width)
            batch = {
                "features": np.full((*shape, num_features), np.nan, np.float32),
                "article_index": np.zeros(shape, np.int32),
                "customer_index": np.zeros(len(chosen), np.int32),
                "label": np.full(shape, -1.0, np.float32),
                "weight": np.zeros(shape, np.float32),
                "relevance": np.zeros(shape, np.int32),
                "quantity": np.zeros(shape, np.float32),
            }
            for place, (number, customer, taken, weight) in enumerate(chosen):
                week, there = weeks[number], slice(0, len(taken))
                batch["features"][place, there] = week.features[taken]
                batch["article_index"][place, there] = week.article_index[taken]
                batch["customer_index"][place] = week.customer_index[customer]
                batch["label"][place, there] = week.is_bought[taken]
                batch["weight"][place, there] = weight
                orders = week.num_orders[taken]
                batch["relevance"][place, there] = (orders >= medium).astype(np.int32) + (orders >= high)
                batch["quantity"][place, there] = week.quantity[taken]
            yield batch

    square = {"article_index": tf.int32, "label": tf.float32, "weight": tf.float32}
    square |= {"relevance": tf.int32, "quantity": tf.float32}
    signature = {
        "features": tf.TensorSpec([None, None, num_features], tf.float32),
        "customer_index": tf.TensorSpec([None], tf.int32),
        **{name: tf.TensorSpec([None, None], dtype) for name, dtype in square.items()},
    }
    dataset = tf.data.Dataset.from_generator(epoch, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-len(order) // settings.batch_lists)))
    return dataset.prefetch(2)
