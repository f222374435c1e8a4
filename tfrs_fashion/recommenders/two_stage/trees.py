"""The fit of boosted trees as a ranker, by LightGBM."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrs_fashion.models.board import write_curve
from tfrs_fashion.models.trees import Trees, import_lightgbm, read_trees
from tfrs_fashion.recommenders.recommender import FitContext
from tfrs_fashion.recommenders.two_stage.ranker_week import RankerWeek, check_weeks
from tfrs_fashion.recommenders.two_stage.rankers import TreesRanker
from tfrs_fashion.settings.rankers import TreesRankerConfig

_OBJECTIVES = {"pointwise": "binary", "listwise": "rank_xendcg", "lambdarank": "lambdarank"}


def fit_trees(
    weeks: Sequence[RankerWeek],
    settings: TreesRankerConfig,
    context: FitContext,
    *,
    held_out: RankerWeek | None = None,
    num_rounds: int | None = None,
) -> tuple[TreesRanker, int]:
    """Fits boosted trees by LightGBM.

    Args:
        weeks: Training weeks.
        settings: Settings of the trees.
        context: Context of the fit. Its log shows map@k on the held-out week by round.
        held_out: A later week, whose map@k chooses the number of rounds; None for `num_rounds`.
        num_rounds: Number of rounds of boosting; None for the settings' own.

    Returns:
        The ranker, and its number of rounds.

    Raises:
        InputError: LightGBM is not installed, or there is nothing to learn from.
    """
    lightgbm = import_lightgbm(context.name)
    check_weeks(weeks, name=context.name)

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

    parameters = {
        "objective": _OBJECTIVES[settings.loss],
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.num_leaves,
        "min_data_in_leaf": settings.min_data_in_leaf,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1,
        "lambda_l2": settings.l2,
        "max_bin": settings.max_bin,
        "lambdarank_truncation_level": 2 * context.k,
        "metric": "map",
        "eval_at": [context.k],
        "deterministic": True,
        "force_row_wise": True,
        "seed": context.seed,
        "verbose": -1,
    }
    train = dataset(weeks)
    if held_out is None:
        booster = lightgbm.train(parameters, train, num_boost_round=num_rounds or settings.rounds)
        rounds = booster.current_iteration()
    else:
        curves: dict[str, Any] = {}
        callbacks = [lightgbm.early_stopping(settings.patience, verbose=False), lightgbm.record_evaluation(curves)]
        booster = lightgbm.train(
            parameters, train, settings.rounds, valid_sets=[dataset([held_out], train)], callbacks=callbacks
        )
        if context.log is not None:
            (by_round,) = next(iter(curves.values())).values()
            write_curve(context.log, f"val_map@{context.k}", by_round)
        rounds = max(booster.best_iteration, 1)
    trees = Trees(read_trees(booster.dump_model(num_iteration=rounds)))
    return TreesRanker(trees, booster.model_to_string(num_iteration=rounds), calibration=(1.0, 0.0)), rounds
