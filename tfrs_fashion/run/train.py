"""The stage `train`: settings chosen on validation, then fits on everything before the test cutoff."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tfrs_fashion.evaluation.report.projector import write_projector
from tfrs_fashion.features.articles import check_product_codes
from tfrs_fashion.index.scann import check_size
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.kinds import load_recommender
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.choose import choose
from tfrs_fashion.run.fits import fit
from tfrs_fashion.run.prepare import prepare
from tfrs_fashion.run.projector import project
from tfrs_fashion.run.ranker_weeks import past_weeks_of
from tfrs_fashion.run.workspace import Workspace


def trained_fingerprint(workspace: Workspace, name: str) -> str:
    """Returns the fingerprint of a recommender's fit on a split."""
    config = workspace.config
    settings = (config.settings_of(name), config.split.model_dump(), config.seed)
    return fingerprint("train", workspace.input_fingerprint, name, *settings)


def model_folder(workspace: Workspace, name: str) -> Path:
    """Returns where the fit for the test split is stored."""
    return workspace.folder / "models" / name


def load_fitted(workspace: Workspace, name: str) -> Recommender:
    """Loads the fit for the test split."""
    return load_recommender(model_folder(workspace, name))


def read_chosen(workspace: Workspace, name: str) -> dict[str, Any]:
    """Reads what was chosen for a recommender, with the evidence; see `run.choose.choose`."""
    return dict(json.loads((model_folder(workspace, name) / "chosen.json").read_text(encoding="utf-8")))


def check_generators(workspace: Workspace) -> None:
    """Refuses, before an hour of fits, what the fit of one recommender would refuse."""
    for name in workspace.config.fitted:
        if workspace.config.recommender[name].needs_product_codes:
            check_product_codes(workspace.tables.articles, recommender=name)


def fit_on(
    workspace: Workspace, name: str, split: str, choice: dict[str, Any], part: Callable[[str], Recommender]
) -> Recommender:
    """Fits a recommender on what a split leaves visible.

    Args:
        workspace: The run.
        name: A recommender.
        split: The name of a split.
        choice: What was chosen on validation.
        part: Returns a recommender that this one is made from, fitted on the same split.
    """
    weeks = past_weeks_of(workspace, name, workspace.splits[split])
    log = workspace.log(name, split)
    return fit(workspace, name, workspace.view(split), choice=choice, part=part, log=log, weeks=weeks)


def train(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `models/<name>/` for every recommender that is fitted."""
    prepare(workspace)
    check_generators(workspace)
    config = workspace.config

    def write(name: str, folder: Path) -> None:
        chosen = choose(workspace, name)
        fitted = fit_on(workspace, name, "test", chosen.get("choice", {}), partial(load_fitted, workspace))
        fitted.save(folder)
        options = config.tensorboard
        if options.enabled and options.num_projected and config.recommender[name].has_index:
            place = workspace.folder / "tensorboard" / name / "test"
            write_projector(place, project(fitted, workspace.view("test"), workspace.tables, config=config))
        (folder / "chosen.json").write_text(json.dumps(chosen, indent=2), encoding="utf-8")

    towers = {name for name, kind in config.servable.values() if kind == "scann"}
    # Refused before anything is fitted; towers that are up to date have passed this check.
    if any(
        force or stored_fingerprint(model_folder(workspace, name)) != trained_fingerprint(workspace, name)
        for name in towers
    ):
        check_size(len(workspace.view("test").articles.in_store))
    for name in config.fitted:
        expected = trained_fingerprint(workspace, name)
        workspace.write_stage(model_folder(workspace, name), expected, partial(write, name), force=force)
