"""The fit of one recommender of a pipeline on a view, with what it may need beside the view."""

import gc
from collections.abc import Callable, Mapping
from typing import Any

from tfrs_fashion.features.view import View
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.recommenders.recommender import FitContext, Recommender
from tfrs_fashion.run.workspace import Workspace


def fit(
    workspace: Workspace,
    name: str,
    view: View,
    *,
    choice: Mapping[str, Any] | None = None,
    part: Callable[[str], Recommender] | None = None,
    validate: Callable[[Recommender], dict[str, float]] | None = None,
    log: TrainingLog | None = None,
    weeks: Any = None,
) -> Recommender:
    """Fits a recommender by its name.

    Args:
        workspace: The run.
        name: A name in `recommenders` or of a preset.
        view: What the fit may see.
        choice: Settings chosen on validation, e.g. `epochs`; they take precedence over the pipeline's.
        part: Returns a recommender that this one is made from, fitted on the same view; by default it is fitted here.
        validate: Evaluates a model after each epoch, for early stopping.
        log: The log of the training.
        weeks: The past weeks that it learns from, if its kind does; see `run.ranker_weeks.past_weeks_of`.
    """
    config = workspace.config

    def fit_part(part_name: str) -> Recommender:
        return fit(workspace, part_name, view, log=log and log.part(part_name))

    settings = config.recommender[name]
    if settings.chooses == "epochs":
        # Keras models are in reference cycles: the memory of an earlier fit is freed before the next one begins.
        gc.collect()
    context = FitContext(
        name=name,
        seed=config.seed,
        k=config.evaluation.k,
        choice=choice or {},
        part=part or fit_part,
        validate=validate,
        log=log,
        weeks=weeks,
    )
    return fit_recommender(view, settings, context)
