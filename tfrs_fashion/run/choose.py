"""What is chosen on validation before the refits: epochs, who serves cold-start customers, how to blend, how long rankers learn."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from tfrs_fashion.evaluation.report.contributions import BlendEvidence, BlendWeek, measure_contributions, pool_weeks
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.recommenders.blend.fit import fit_quotas, fit_selector_of, quota_scores, selector_scores
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.two_stage.fit import calibrate, check_weeks, fit_ranker, score_week
from tfrs_fashion.run.fits import fit
from tfrs_fashion.run.objective import Objective, beats_fallback_on_cold_start, make_measure, make_validator
from tfrs_fashion.run.pools import Pools
from tfrs_fashion.run.ranker_weeks import RankerWeeks, make_week_validator, past_weeks_of
from tfrs_fashion.run.workspace import Workspace


def choose(workspace: Workspace, name: str, *, on: str = "validation", before: str = "test") -> dict[str, Any]:
    """Chooses what the refits of a recommender keep.

    Args:
        workspace: The run.
        name: A recommender.
        on: The split whose targets models are evaluated on after each epoch.
        before: The split before whose cutoff the weeks lie on which blends and rankers are compared.

    Returns:
        `choice`, and the evidence for it, which the report shows; empty if there is nothing to choose.
    """
    match workspace.config.recommender[name].chooses:
        case "epochs":
            return choose_epochs(workspace, name, on=on)
        case "method":
            return choose_method(workspace, name, before=before)
        case "rankers":
            return choose_rankers(workspace, name, before=before)
    return {}


def choose_epochs(workspace: Workspace, name: str, *, on: str) -> dict[str, Any]:
    """Chooses the number of epochs of a model, and whether it or the fallback serves cold-start customers."""
    config, k = workspace.config, workspace.config.evaluation.k
    view, targets = workspace.view(on), workspace.targets(on)
    validator, metrics = make_validator(view, targets, k=k), []

    def validate(recommender: Recommender) -> dict[str, float]:
        metrics.append(validator(recommender))
        return metrics[-1]

    fitted = fit(workspace, name, view, validate=validate, log=workspace.log(name, on))
    choice: dict[str, Any] = {"epochs": int(np.argmax([epoch[f"val_map@{k}"] for epoch in metrics])) + 1}
    curves = {metric: [epoch[metric] for epoch in metrics] for metric in metrics[0]}
    curves = getattr(fitted, "curves", None) or curves
    if config.recommender[name].chooses_cold_start:
        fallback = fit(workspace, config.export.fallback, view)
        is_better = beats_fallback_on_cold_start(fitted, fallback, view, targets, k=k)
        if is_better is not None:
            choice["serves_cold_start"] = is_better
    workspace.forget(on)
    return {"choice": choice, "curves": curves}


def choose_method(workspace: Workspace, name: str, *, before: str) -> dict[str, Any]:
    """Compares both ways to blend on the last weeks before a split, each learned from the weeks before them.

    Returns:
        `choice` of the `method`, and `blend`, a `BlendEvidence`.
    """
    past = Pools(workspace, name, workspace.splits[before])
    blend, seed = past.blend, workspace.config.seed
    pools = past.pools(blend.weeks + blend.validation_weeks)
    weeks, quotas_by_week = [], []
    for number, week in enumerate(past.weeks(blend.validation_weeks)):
        pool, earlier = pools[number], pools[number + 1 : number + 1 + blend.weeks]
        quotas = fit_quotas(earlier, budget=blend.budget)
        quotas_by_week.append(quotas)
        selector = fit_selector_of(blend, earlier, seed=seed)
        recall = {
            "selector": pool.recall(selector_scores(selector, pool), k=blend.budget),
            "quotas": pool.recall(quota_scores(pool.rank, quotas), k=blend.budget),
        }
        weeks.append(BlendWeek(f"{week.as_of:%Y-%m-%d}", len(pool.num_bought), recall))
        values = "  ".join(f"{method} {value:.4f}" for method, value in recall.items())
        workspace.console.print(
            f"  {name}  week from {weeks[-1].start}  recall@{blend.budget}: {values}", highlight=False
        )
    recall, pool = pool_weeks(weeks), pools[0]
    contributions = measure_contributions(
        blend.generators,
        pool.rank,
        pool.is_bought,
        pool.weight,
        num_customers=len(pool.num_bought),
        quotas=quotas_by_week[0],
    )
    method = max(recall, key=lambda each: recall[each]) if blend.method == "best" else blend.method
    evidence = BlendEvidence(
        budget=blend.budget,
        weeks=tuple(weeks),
        recall=recall,
        method=method,
        pool=pool.recall(np.zeros(len(pool.customer)), k=len(pool.customer)),
        candidates=len(pool.customer) / len(pool.num_bought),
        contributions=contributions,
    )
    return {"choice": {"method": method}, "blend": asdict(evidence)}


def choose_rankers(workspace: Workspace, name: str, *, before: str) -> dict[str, Any]:
    """Chooses how long each ranker learns, and calibrates it, on the last week before a split.

    Returns:
        `choice`, with `length` and `calibration` of each ranker; and `figures`, each ranker's metrics on that week.
    """
    split, k = workspace.splits[before], workspace.config.evaluation.k
    past = RankerWeeks(workspace, name, split)
    last, *earlier = past.ranker_weeks()
    check_weeks(earlier, name=name)
    check_weeks([last], name=name)
    validate = make_week_validator(last, workspace.targets(past.weeks[0]), k=k)
    view, log = workspace.make_view(split), workspace.log(name, "validation")
    choice, figures = {}, {}
    for ranker in past.settings.rankers:
        fitted, length = fit_ranker(
            past.settings,
            ranker,
            earlier,
            view,
            k=k,
            seed=workspace.config.seed,
            name=name,
            held_out=(last, validate),
            log=log,
        )
        score = score_week(fitted, last)
        choice[ranker] = {"length": length, "calibration": calibrate(score, last.is_bought)}
        figures[ranker] = validate(score)
        values = "  ".join(f"{metric} {value:.4f}" for metric, value in figures[ranker].items())
        workspace.console.print(f"  {name}  {ranker}, length {length}: {values}", highlight=False)
    return {"choice": {"rankers": choice}, "figures": figures}


def evaluate_settings(
    workspace: Workspace,
    name: str,
    *,
    objective: Objective,
    watch: Callable[[dict[str, float]], None],
    part: Callable[[str], Recommender] | None = None,
    log: TrainingLog | None = None,
) -> None:
    """Fits a recommender as `train` does to choose, and evaluates it on validation, after each epoch if it has any.

    Args:
        workspace: The run, or a trial of a search.
        name: A recommender.
        objective: The metric that settings are chosen by.
        watch: Receives the metrics; what it raises ends the fit.
        part: Returns a recommender that this one is made from, fitted on the validation view.
        log: The log of the training.
    """
    settings = workspace.config.recommender[name]
    if settings.chooses == "rankers":
        _evaluate_ranker(workspace, name, objective=objective, watch=watch, log=log)
        return
    view, targets = workspace.view("validation"), workspace.targets("validation")
    measure = make_measure(objective, view=view, tables=workspace.tables, targets=targets, config=workspace.config)
    is_watched = False

    def evaluate(recommender: Recommender) -> dict[str, float]:
        nonlocal is_watched
        metrics = measure(recommender)
        watch(metrics)
        is_watched = True
        return metrics

    split = workspace.splits["validation"]
    choice = choose_method(workspace, name, before="validation")["choice"] if settings.chooses == "method" else {}
    weeks = past_weeks_of(workspace, name, split)
    recommender = fit(workspace, name, view, choice=choice, part=part, validate=evaluate, log=log, weeks=weeks)
    if not is_watched:
        evaluate(recommender)


def _evaluate_ranker(
    workspace: Workspace,
    name: str,
    *,
    objective: Objective,
    watch: Callable[[dict[str, float]], None],
    log: TrainingLog | None,
) -> None:
    """Fits the one ranker of two stages on all weeks before test but the last, and evaluates it on that one.

    Networks are evaluated after each epoch, boosted trees once, after the best of their rounds.
    """
    split, k = workspace.splits["test"], workspace.config.evaluation.k
    past = RankerWeeks(workspace, name, split)
    (ranker,) = past.settings.rankers
    last, *earlier = past.ranker_weeks()
    targets = workspace.targets(past.weeks[0])
    measure_objective = make_week_validator(last, targets, k=objective.k, metrics=(objective.metric,))
    validate = make_week_validator(last, targets, k=k)

    def evaluate(score: np.ndarray) -> dict[str, float]:
        metrics = validate(score)
        if f"val_{objective.figure}" not in metrics:
            metrics |= measure_objective(score)
        metrics = objective.order(objective.read(metrics), metrics)
        watch(metrics)
        return metrics

    fitted, _length = fit_ranker(
        past.settings,
        ranker,
        earlier,
        workspace.make_view(split),
        k=k,
        seed=workspace.config.seed,
        name=name,
        held_out=(last, evaluate),
        log=log or workspace.log(name, "validation"),
    )
    if ranker == "lightgbm":
        evaluate(score_week(fitted, last))
