"""The fit of rankers: networks and boosted trees, from the candidates of past weeks and what was bought of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from tfrs_fashion.models.board import write_curve
from tfrs_fashion.models.fit import fit_model
from tfrs_fashion.models.ranking import RankingModel, RankingNetwork
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.models.trees import Trees, import_lightgbm, read_trees
from tfrs_fashion.recommenders.rankers import NetworkRanker, Ranker, TreesRanker
from tfrs_fashion.recommenders.stored import StoredArrays
from tfrs_fashion.schema import InputError
from tfrs_fashion.settings.rankers import NetworkRankerConfig, TreesRankerConfig

_CHUNK = 16_384
# The bins of the numbers come from what was bought of a week, and from as many others, at least so many.
_BINS_OTHERS = 1_000
_OBJECTIVES = {"pointwise": "binary", "listwise": "rank_xendcg", "lambdarank": "lambdarank"}


@dataclass(frozen=True)
class RankerWeek(StoredArrays):
    """The candidates of one week that a ranker learns from, and what became of them.

    Attributes:
        customer: `[num_pairs]` int32, position among the customers who bought in that week; ascending.
        customer_index: `[num_customers]` int32, these customers.
        article_index: `[num_pairs]` int32.
        features: `[num_pairs, num_features]` float32, NaN where unknown; see `two_stage.PairDescriber`.
        is_bought: `[num_pairs]` bool.
        num_orders: `[num_pairs]` int32, baskets of the week that held it.
        quantity: `[num_pairs]` float32, pieces.
    """

    customer: np.ndarray
    customer_index: np.ndarray
    article_index: np.ndarray
    features: np.ndarray
    is_bought: np.ndarray
    num_orders: np.ndarray
    quantity: np.ndarray

    @property
    def row_splits(self) -> np.ndarray:
        """`[num_customers + 1]` int64, where the pairs of each customer begin."""
        return np.searchsorted(self.customer, np.arange(len(self.customer_index) + 1))


def score_week(ranker: Ranker, week: RankerWeek) -> np.ndarray:
    """Scores all pairs of a week, `[num_pairs]` float32."""
    customer_index = week.customer_index[week.customer]
    parts = [np.zeros(0, np.float32)]
    for start in range(0, len(week.customer), _CHUNK):
        rows = slice(start, start + _CHUNK)
        asked = (week.features[rows], week.article_index[rows], customer_index[rows])
        parts.append(ranker(*map(tf.constant, asked)).numpy())
    return np.concatenate(parts)


class Calibration(NamedTuple):
    """What makes the logit of a probability of a ranker's scores.

    Attributes:
        slope: Of the logit; above 0, so that the order stays.
        offset: Of the logit.
        mean: Of the scores that these were found by.
        deviation: Of the same, their standard deviation.
    """

    slope: float
    offset: float
    mean: float
    deviation: float

    def carry_over(self, score: np.ndarray) -> tuple[float, float]:
        """Returns slope and offset for a ranker of the same settings that was fitted anew.

        A loss of orders leaves open where scores lie, and hardly says how wide: both are matched before anything is made of them.

        Args:
            score: `[num_pairs]` float, what it says of candidates like those of the calibration.
        """
        if not len(score):
            return self.slope, self.offset
        deviation = float(np.std(score.astype(np.float64)))
        slope = self.slope * self.deviation / deviation if deviation > 0 and self.deviation > 0 else self.slope
        return slope, self.offset + self.slope * self.mean - slope * float(np.mean(score.astype(np.float64)))


def calibrate(score: np.ndarray, is_bought: np.ndarray) -> Calibration:
    """Finds what makes the logit of a probability of scores that a ranker has not learned from.

    Args:
        score: `[num_pairs]` float.
        is_bought: `[num_pairs]` bool.

    Returns:
        The calibration; one of no change where there is nothing to learn from.

    Source: Platt 1999, Probabilistic Outputs for Support Vector Machines.
    """
    score = score.astype(np.float64)
    told = (float(np.mean(score)), float(np.std(score))) if len(score) else (0.0, 0.0)
    if is_bought.all() or not is_bought.any():
        return Calibration(1.0, 0.0, *told)
    fitted = LogisticRegression(C=1e6).fit(score[:, np.newaxis], is_bought)
    slope = float(fitted.coef_[0, 0])
    return Calibration(slope, float(fitted.intercept_[0]), *told) if slope > 0 else Calibration(1.0, 0.0, *told)


def check_weeks(weeks: Sequence[RankerWeek], *, name: str) -> None:
    """Checks that there is something to learn.

    Raises:
        InputError: Of no candidate that was bought, or of none that was not.
    """
    num_bought = sum(int(week.is_bought.sum()) for week in weeks)
    num_pairs = sum(len(week.is_bought) for week in weeks)
    if num_bought in {0, num_pairs}:
        raise InputError(
            f"{name}: of {num_pairs:,} candidates in {len(weeks)} past week(s) {num_bought:,} were bought, so there is nothing "
            f"to tell apart. Raise `generators.{name}.weeks` or `blend.num_candidates`, or leave {name} out of `recommenders`."
        )


def fit_trees(
    weeks: Sequence[RankerWeek],
    settings: TreesRankerConfig,
    *,
    held_out: RankerWeek | None = None,
    num_rounds: int | None = None,
    k: int,
    seed: int,
    log: TrainingLog | None = None,
    name: str,
) -> tuple[TreesRanker, int]:
    """Fits boosted trees by LightGBM.

    Args:
        weeks: To learn from.
        settings: Of the trees.
        held_out: A later week, by whose map@k the number of rounds is chosen; None fits `num_rounds`.
        num_rounds: Of boosting.
        k: Places that count.
        seed: Of samples.
        log: Where map@k of the held-out week is told round by round.
        name: Of the recommender, for messages.

    Returns:
        The ranker, and its rounds.

    Raises:
        InputError: LightGBM is not installed, or there is nothing to learn from.
    """
    lightgbm = import_lightgbm(name)
    check_weeks(weeks, name=name)

    def dataset(weeks: Sequence[RankerWeek], reference: Any = None) -> Any:
        group = np.concatenate([np.diff(week.row_splits) for week in weeks])
        return lightgbm.Dataset(
            np.concatenate([week.features for week in weeks]),
            np.concatenate([week.is_bought for week in weeks]).astype(np.int32),
            # Customers without candidates are no lists.
            group=group[group > 0],
            reference=reference,
            feature_name=[f"f{place}" for place in range(weeks[0].features.shape[1])],
            free_raw_data=True,
        )

    told = {
        "objective": _OBJECTIVES[settings.loss],
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.num_leaves,
        "min_data_in_leaf": settings.min_data_in_leaf,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "lambda_l2": settings.l2,
        "max_bin": settings.max_bin,
        "lambdarank_truncation_level": 2 * k,
        "metric": "map",
        "eval_at": [k],
        "deterministic": True,
        "force_row_wise": True,
        "seed": seed,
        "verbose": -1,
    }
    train = dataset(weeks)
    if held_out is None:
        booster = lightgbm.train(told, train, num_boost_round=num_rounds or settings.rounds)
        rounds = booster.current_iteration()
    else:
        curves: dict[str, Any] = {}
        callbacks = [lightgbm.early_stopping(settings.patience, verbose=False), lightgbm.record_evaluation(curves)]
        booster = lightgbm.train(
            told, train, settings.rounds, valid_sets=[dataset([held_out], train)], callbacks=callbacks
        )
        if log is not None:
            (by_round,) = next(iter(curves.values())).values()
            write_curve(log, f"val_map@{k}", by_round)
        rounds = max(booster.best_iteration, 1)
    trees = Trees(read_trees(booster.dump_model(num_iteration=rounds)))
    return TreesRanker(trees, booster.model_to_string(num_iteration=rounds), calibration=(1.0, 0.0)), rounds


def fit_network(
    weeks: Sequence[RankerWeek],
    settings: NetworkRankerConfig,
    *,
    categories: np.ndarray,
    category_sizes: Sequence[int],
    num_customers: int,
    validate: Callable[[Ranker], dict[str, float]] | None = None,
    epochs: int | None = None,
    k: int,
    seed: int,
    log: TrainingLog | None = None,
    name: str,
) -> tuple[NetworkRanker, int]:
    """Fits a ranking network.

    Args:
        weeks: To learn from.
        settings: Of network, loss and training.
        categories: `[num_articles + 2, num_categories]` int32, the categorical features of each article.
        category_sizes: Indices of each.
        num_customers: Customers known.
        validate: Judges the network after each epoch; without it `epochs` are run.
        epochs: Passes over the lists.
        k: Places that count.
        seed: Of weights, samples and batches.
        log: Where progress is told.
        name: Of the recommender, for progress and messages.

    Returns:
        The ranker after its best epoch, or after the last one without `validate`, and which that was.

    Raises:
        InputError: There is nothing to learn from.
        RunError: The loss is not finite.
    """
    check_weeks(weeks, name=name)
    tf.keras.utils.set_random_seed(seed)
    made: dict[str, Any] = {
        **settings.model_dump(
            include={"num_bins", "embedding_dim", "hidden_dims", "num_cross", "uses_dot", "num_experts", "dropout"}
        ),
        "category_sizes": list(category_sizes),
        "num_customers": num_customers,
        "num_features": weeks[0].features.shape[1],
        "seed": seed,
    }
    network = RankingNetwork(categories, **made)
    network.fit(_draw_for_bins(weeks, np.random.default_rng(seed)))
    model = RankingModel(
        network,
        **settings.model_dump(include={"loss", "relevance_weight", "quantity_weight"}),
        k=k,
        name=name,
    )
    dataset = make_list_dataset(weeks, settings, seed=seed)
    num_batches = int(dataset.cardinality())
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, settings.epochs * num_batches, alpha=0.02
    )
    model.compile(optimizer=tf.keras.optimizers.Adam(schedule))
    model.optimizer.build(model.trainable_variables)
    ranker = NetworkRanker(network, settings=made, calibration=(1.0, 0.0))
    figures: list[float] = []
    weights: list[np.ndarray] = []

    def judge() -> dict[str, float]:
        assert validate is not None
        found = validate(ranker)
        figure = next(iter(found.values()))
        if figure > max(figures, default=-np.inf):
            weights[:] = network.get_weights()
        figures.append(figure)
        return found

    best, _curves = fit_model(
        model,
        dataset,
        epochs=epochs or settings.epochs,
        validate=None if validate is None else judge,
        patience=settings.patience,
        log=log,
        section=f"generators.{name}.network",
    )
    if weights:
        network.set_weights(weights)
    return ranker, best


def _draw_for_bins(weeks: Sequence[RankerWeek], random: np.random.Generator) -> np.ndarray:
    """Draws the features that the bins are set by.

    The first places of a list are told apart where few candidates lie and much is bought: so many frequent purchases, so high a
    score. Bins of equally many candidates would put all of these into the last one.
    """
    parts = []
    for week in weeks:
        bought, others = np.flatnonzero(week.is_bought), np.flatnonzero(~week.is_bought)
        size = min(len(others), max(len(bought), _BINS_OTHERS))
        parts += [week.features[bought], week.features[random.choice(others, size, replace=False)]]
    return np.concatenate(parts)


def make_list_dataset(weeks: Sequence[RankerWeek], settings: NetworkRankerConfig, *, seed: int) -> tf.data.Dataset:
    """Makes batches of lists, each of what a customer bought in a week and a sample of the other candidates.

    Args:
        weeks: To learn from. Lists of which nothing was bought tell nothing of an order, and are left out but for
            `pointwise`, which learns probabilities.
        settings: Of the lists.
        seed: Of samples and order, which differ from epoch to epoch.

    Returns:
        Dataset of what `RankingModel.compute_loss` takes.
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
        """Positions of the pairs that are taken, and how many each stands for."""
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
