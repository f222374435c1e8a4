"""The stage `release`: fits on all data with the chosen settings, as the next version of every artifact."""

import json
from functools import partial
from pathlib import Path

from tfrs_fashion.outputs import exclusive_lock, fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.export import exported_fingerprint, write_artifact
from tfrs_fashion.run.train import fit_on, read_chosen, train
from tfrs_fashion.run.workspace import Workspace
from tfrs_fashion.schema import InputError
from tfrs_fashion.serving.export import latest_artifact, list_versions, write_models_config


def released_folder(workspace: Workspace, artifact: str) -> Path:
    """Returns the folder of an artifact's released versions."""
    return Path(workspace.config.export.folder) / artifact


def check_owners(workspace: Workspace) -> None:
    """Refuses to put a version above one that another pipeline released."""
    config = workspace.config
    for artifact in config.servable:
        versions = list_versions(released_folder(workspace, artifact))
        if not versions:
            continue
        latest = versions[-1][1]
        try:
            owner = json.loads((latest / "metadata.json").read_text(encoding="utf-8"))["pipeline"]
        except (OSError, ValueError, KeyError):
            owner = None
        if owner != config.name:
            raise InputError(
                f"{latest}: released by {f'pipeline `{owner}`' if owner else 'something else'}; a server would take a "
                f"version of `{config.name}` for its successor. Set `export.folder` to another folder."
            )


def release(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `<export.folder>/<name>/<version>/` for every artifact that is not up to date."""
    check_owners(workspace)
    train(workspace)
    workspace.forget("test")
    config = workspace.config
    fitted: dict[str, Recommender] = {}

    def fit(name: str) -> Recommender:
        if name not in fitted:
            choice = read_chosen(workspace, name).get("choice", {})
            fitted[name] = fit_on(workspace, name, "release", choice, fit)
        return fitted[name]

    def write(artifact: str, folder: Path) -> None:
        recommender, fallback = fit(config.servable[artifact][0]), fit(config.export.fallback)
        view = workspace.view("release")
        write_artifact(workspace, artifact, folder, view=view, recommender=recommender, fallback=fallback)

    folder = Path(config.export.folder)
    with exclusive_lock(folder):
        check_owners(workspace)
        for artifact in config.servable:
            expected = fingerprint("release", exported_fingerprint(workspace, artifact))
            versions = list_versions(released_folder(workspace, artifact))
            number, latest = versions[-1] if versions else (0, None)
            if latest is not None and not force and stored_fingerprint(latest) == expected:
                continue
            place = released_folder(workspace, artifact) / str(number + 1)
            workspace.write_stage(place, expected, partial(write, artifact), force=True)
        write_models_config(folder)
    workspace.messages += [
        f"SavedModel: {latest_artifact(released_folder(workspace, artifact))}" for artifact in config.servable
    ]
