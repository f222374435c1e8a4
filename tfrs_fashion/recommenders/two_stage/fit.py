"""The fit of two stages: a first stage, the features of pairs, and rankers, all from past weeks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from tfrs_fashion.features.pair_lookups import make_pair_lookups
from tfrs_fashion.features.pairs import PairFeatureLayer
from tfrs_fashion.features.view import View
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.blend.blend import article_features
from tfrs_fashion.recommenders.blend.fit import FirstStage
from tfrs_fashion.recommenders.recommender import FitContext, ScoringRecommender
from tfrs_fashion.recommenders.two_stage.network import fit_network
from tfrs_fashion.recommenders.two_stage.ranker_week import Calibration, RankerWeek, score_week
from tfrs_fashion.recommenders.two_stage.rankers import Ranker
from tfrs_fashion.recommenders.two_stage.trees import fit_trees
from tfrs_fashion.recommenders.two_stage.two_stage import PairDescriber, TwoStage
from tfrs_fashion.settings.rankers import BlendConfig, TwoStageConfig


class RankerWeeks(Protocol):
    """The past weeks that two stages learn from, as `FitContext.weeks` gives them.

    Attributes:
        blend: Settings of the blend that gives the candidates.
    """

    blend: BlendConfig

    def ranker_weeks(self) -> list[RankerWeek]:
        """Returns what the rankers learn from, the latest week first."""

    def first_stage(self) -> FirstStage:
        """Returns what chooses the candidates of these weeks, learned from the weeks before them."""

    def similar(self) -> dict[str, ScoringRecommender]:
        """Returns the recommenders whose scores are features by name, fitted before the first of the weeks."""


def fit(view: View, settings: TwoStageConfig, context: FitContext) -> TwoStage:
    """Fits two stages from the weeks before the view's cutoff; see `recommenders.kinds.Kind`.

    Raises:
        InputError: There is nothing to learn from.
        RunError: A loss is not finite.
    """
    past: RankerWeeks = context.weeks
    generators = {part: context.fitted_part(part) for part in past.blend.generators}
    weeks = past.ranker_weeks()
    rankers: dict[str, Ranker] = {}
    for name in settings.rankers:
        chosen = context.choice["rankers"][name]
        ranker, _length = fit_ranker(
            settings,
            name,
            weeks,
            view,
            k=context.k,
            seed=context.seed,
            name=context.name,
            length=chosen["length"],
            log=context.log,
        )
        ranker.calibration = Calibration(*chosen["calibration"]).carry_over(score_week(ranker, weeks[0]))
        rankers[name] = ranker
    return TwoStage(
        past.first_stage().make(generators, article_features(view)),
        make_describer(settings, view, past.similar(), past.blend.generators),
        rankers,
        combination=settings.combination,
        budget=settings.num_candidates,
        name=context.name,
    )


def fit_ranker(
    settings: TwoStageConfig,
    ranker: str,
    weeks: Sequence[RankerWeek],
    view: View,
    *,
    k: int,
    seed: int,
    name: str,
    length: int | None = None,
    held_out: tuple[RankerWeek, Callable[[np.ndarray], dict[str, float]]] | None = None,
    log: TrainingLog | None = None,
) -> tuple[Ranker, int]:
    """Fits one ranker, for a given length, or for the length that is best on a week held out.

    Args:
        settings: Settings of the two stages.
        ranker: `network` or `lightgbm`.
        weeks: Training weeks.
        view: The view, for what is known of articles and customers.
        k: Length of the evaluated list.
        seed: Seed of weights, samples and batches.
        name: Name of the recommender, for progress and messages.
        length: Number of epochs or of boosting rounds; None for the settings' own maximum.
        held_out: A later week, and the function that evaluates `[num_pairs]` scores of it; None for none.
        log: Log of the training's progress.

    Returns:
        The ranker, and its number of epochs or rounds.

    Raises:
        InputError: There is nothing to learn from.
        RunError: The loss is not finite.
    """
    context = FitContext(name, seed, log=log and log.part(ranker), k=k)
    if ranker == "lightgbm":
        later = held_out[0] if held_out is not None else None
        return fit_trees(weeks, settings.lightgbm, context, held_out=later, num_rounds=length)
    validate = None
    if held_out is not None:
        week, evaluate = held_out

        def validate(fitted: Ranker) -> dict[str, float]:
            return evaluate(score_week(fitted, week))

    return fit_network(weeks, settings.network, view, context, validate=validate, epochs=length)


def make_describer(
    settings: TwoStageConfig, view: View, similar: Mapping[str, ScoringRecommender], generators: Sequence[str]
) -> PairDescriber:
    """Makes the layer that computes the features of pairs.

    Args:
        settings: Settings of the two stages.
        view: The view.
        similar: Recommenders whose scores are features, by name.
        generators: Names of the blend's generators.
    """
    lookups = make_pair_lookups(view, groups_of(settings, view))
    return PairDescriber(PairFeatureLayer(lookups), similar, generators)


def groups_of(settings: TwoStageConfig, view: View) -> tuple[str, ...]:
    """Returns the columns by which histories are aggregated; by default those with a role, and the product code."""
    if settings.groups:
        return settings.groups
    columns = [view.roles.category, view.roles.garment_group, view.roles.section]
    if "product_code" in view.tables.articles.columns:
        columns.append("product_code")
    return tuple(dict.fromkeys(column for column in columns if column))
