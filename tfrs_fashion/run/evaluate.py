"""The stage `evaluate`: the artifacts' answers for the customers of the test window, and the report over them."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrs_fashion.data.contents import Contents
from tfrs_fashion.data.split import first_purchase_seconds
from tfrs_fashion.evaluation.checks.doctor import RankerTraining
from tfrs_fashion.evaluation.checks.finding import Finding
from tfrs_fashion.evaluation.report.page import load_metrics, metrics_table
from tfrs_fashion.experiments.log import LOG, experiments_folder, keep_record, read_log, write_record
from tfrs_fashion.models.board import write_images
from tfrs_fashion.outputs import fingerprint, recover, stage_seconds, stored_fingerprint
from tfrs_fashion.run.export import artifact_folder, export, exported_fingerprint
from tfrs_fashion.run.ranker_weeks import past_weeks_of
from tfrs_fashion.run.report import write_candidates, write_run_report, write_target_ranks
from tfrs_fashion.run.scoring import Scoring
from tfrs_fashion.run.train import load_fitted, model_folder, read_chosen, trained_fingerprint
from tfrs_fashion.run.workspace import Workspace


def check_experiments(workspace: Workspace) -> None:
    """Refuses to do work that could not be recorded."""
    read_log(experiments_folder(workspace.folder))


def ranker_trainings(workspace: Workspace) -> list[RankerTraining]:
    """Returns what blends and rankers have learned from, for the checks."""
    test = workspace.splits["test"]
    weeks = (past_weeks_of(workspace, name, test) for name in workspace.config.recommenders)
    return [training for past in weeks if past is not None for training in past.trainings()]


def rank_in_full(workspace: Workspace, targets: pd.DataFrame, *, force: bool) -> dict[str, Path]:
    """Writes `target_ranks/<name>/` for recommenders that rank every article in store, and returns these folders."""
    config = workspace.config
    folders = {name: workspace.folder / "target_ranks" / name for name in config.ranked_in_full}
    if not folders:
        return {}
    number, at = config.evaluation.full_ranking_customers, config.evaluation.full_ranking_at
    view = workspace.view("test")
    if at == "first_purchase":
        now = first_purchase_seconds(view.split, workspace.tables.transactions, view.now)
        view = replace(view, now=now)

    def write(name: str, folder: Path) -> None:
        recommender = load_fitted(workspace, name)
        write_target_ranks(
            folder, recommender=recommender, view=view, targets=targets, num_customers=number, seed=config.seed
        )

    for name, folder in folders.items():
        expected = fingerprint("ranks", trained_fingerprint(workspace, name), number, at)
        workspace.write_stage(folder, expected, partial(write, name), force=force)
    return folders


def _durations(workspace: Workspace) -> dict[str, float]:
    """Returns the seconds that each stage output took when it was written."""
    config = workspace.config
    names = ["tables", "timelines", *(["vectors"] if config.features.has_vectors else [])]
    folders = {name: workspace.folder / name for name in names}
    folders |= {f"models/{name}": model_folder(workspace, name) for name in config.fitted}
    folders |= {f"saved_models/{name}": artifact_folder(workspace, name) for name in config.servable}
    names = [f"candidates/{name}" for name in config.servable]
    names += [f"target_ranks/{name}" for name in config.ranked_in_full]
    folders |= {name: workspace.folder / name for name in names}
    seconds = {name: stage_seconds(folder) for name, folder in folders.items()}
    return {name: value for name, value in seconds.items() if value is not None}


def _write_record(workspace: Workspace, report: Path, *, targets: pd.DataFrame, split: dict[str, Any]) -> None:
    contents = Contents.of(workspace.tables)
    write_record(
        report,
        config=workspace.config,
        run_folder=workspace.folder,
        split=split,
        recommenders=load_metrics(report)["recommenders"],
        durations=_durations(workspace),
        fingerprints={
            "data": stored_fingerprint(workspace.folder / "tables"),
            "purchases": contents.of_purchases(workspace.tables.transactions),
            "targets": contents.of_targets(targets),
        },
    )


def _write_report(
    workspace: Workspace, report: Path, *, expected: str, answers: dict[str, str], length: int, force: bool
) -> None:
    """Writes the answers of the artifacts, the full rankings and the report over them."""
    config = workspace.config
    scoring = Scoring(workspace.view("test"), workspace.tables, workspace.targets("test"), config)
    targets = scoring.targets
    folders = {name: workspace.folder / "candidates" / name for name in config.servable}
    write_answers = partial(
        write_candidates,
        tables=workspace.tables,
        bought=scoring.bought,
        customers=np.unique(targets["customer_index"].to_numpy()),
        k=length,
        batch_size=config.recommend.batch_size,
        console=workspace.console,
    )
    for name, folder in folders.items():
        write_of_artifact = partial(write_answers, artifact_folder(workspace, name))
        workspace.write_stage(folder, answers[name], write_of_artifact, force=force)
    ranked = rank_in_full(workspace, targets, force=force)
    chosen = {name: read_chosen(workspace, name) for name in config.recommenders}
    towers = {name: load_fitted(workspace, name) for name, kind in config.servable.values() if kind is not None}
    clustered = towers.get("two_tower") if config.evaluation.num_clusters else None
    validation, test = (workspace.splits[name].describe() for name in ("validation", "test"))
    split = {
        "pipeline": config.name,
        "seed": config.seed,
        **test,
        "validation_as_of": validation["as_of"],
        "validation_end": validation["end"],
    }

    def write(folder: Path) -> None:
        write_run_report(
            folder,
            scoring=scoring,
            candidates=folders,
            artifacts={name: artifact_folder(workspace, name) for name in config.servable},
            split=split,
            counts=(*workspace.counts, *workspace.view("test").counts),
            curves={name: record["curves"] for name, record in chosen.items() if "curves" in record},
            towers=clustered,
            # The last column of an embedding is the bias.
            embeddings={name: tower.in_store.embedding[:, :-1] for name, tower in towers.items()},
            blend=chosen.get("blend", {}).get("blend"),
            rankers=ranker_trainings(workspace),
            ranked=ranked,
        )
        _write_record(workspace, folder, targets=targets, split=split)

    workspace.write_stage(report, expected, write, force=True)
    if config.tensorboard.enabled:
        figures = sorted((report / "figures").glob("*.png"))
        images = {figure.stem: figure.read_bytes() for figure in figures}
        write_images(workspace.folder / "tensorboard" / "report", images)


def evaluate(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `candidates/<name>/`, the answers of the artifacts, `target_ranks/<name>/` where asked for, and `report/`.

    Each report adds a record to the log of experiments beside the run folder.
    """
    check_experiments(workspace)
    export(workspace)
    config, evaluation = workspace.config, workspace.config.evaluation
    length = max(evaluation.k, evaluation.num_candidates)
    answers = {
        name: fingerprint("candidates", exported_fingerprint(workspace, name), length) for name in config.servable
    }
    report = workspace.folder / "report"
    expected = fingerprint("report", answers, evaluation.model_dump(), config.features.roles.category)
    recover(report)
    if force or stored_fingerprint(report) != expected:
        _write_report(workspace, report, expected=expected, answers=answers, length=length, force=force)
    experiments = experiments_folder(workspace.folder)
    # A record that an earlier process was killed before keeping is kept now.
    record = keep_record(report, experiments)
    metrics = load_metrics(report)
    workspace.console.print(metrics_table(metrics))
    served = config.recommend.recommender
    workspace.messages += [row["sentence"] for row in metrics["differences"] if row["recommender"] == served]
    workspace.messages += [f"doctor: {Finding(**finding).sentence}" for finding in metrics.get("findings", [])]
    workspace.messages.append(f"report: {report / 'report.html'}")
    workspace.messages.append(f"experiment: {record} in {experiments / LOG}")
