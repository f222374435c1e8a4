"""The stage `export`: the fitted recommenders as SavedModels in the run folder, which are the ones that are evaluated."""

from functools import partial
from pathlib import Path

from tfrs_fashion.features.view import View
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.popularity import no_recommendations
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.train import load_fitted, train, trained_fingerprint
from tfrs_fashion.run.workspace import Workspace
from tfrs_fashion.serving.export import export_artifact


def exported_fingerprint(workspace: Workspace, artifact: str) -> str:
    """Returns the fingerprint of an artifact: its recommender, its fallback and its index."""
    config = workspace.config
    name, index = config.servable[artifact]
    settings = config.index.model_dump(exclude={"kinds"}) if index == "scann" else None
    fallback = trained_fingerprint(workspace, config.export.fallback)
    return fingerprint("export", trained_fingerprint(workspace, name), fallback, index, settings, config.export.k)


def artifact_folder(workspace: Workspace, artifact: str) -> Path:
    """Returns where the artifact that is evaluated is stored."""
    return workspace.folder / "saved_models" / artifact / "1"


def write_artifact(
    workspace: Workspace, artifact: str, folder: Path, *, view: View, recommender: Recommender, fallback: Recommender
) -> None:
    """Writes a recommender with its index and its fallback as a SavedModel.

    Args:
        workspace: The run.
        artifact: The name of the artifact.
        folder: An empty folder.
        view: What both recommenders were fitted from.
        recommender: The recommender.
        fallback: Serves the customers whom the recommender cannot, and fills lists that are too short.
    """
    config = workspace.config
    _name, kind = config.servable[artifact]
    if kind is not None:
        settings = config.index.model_dump(exclude={"kinds"}) if kind == "scann" else {}
        recommender = recommender.with_index(kind, name=artifact, **settings)
    export_artifact(
        recommender,
        no_recommendations() if artifact in config.new_arrivals else fallback,
        folder,
        view=view,
        k=config.export.k,
        metadata={
            "pipeline": config.name,
            "config": config.model_dump(mode="json"),
            "data_fingerprint": stored_fingerprint(workspace.folder / "tables"),
            "split": view.split.describe(),
        },
    )


def export(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `saved_models/<name>/1/` in the run folder."""
    train(workspace)

    def write(artifact: str, folder: Path) -> None:
        name, _kind = workspace.config.servable[artifact]
        recommender = load_fitted(workspace, name)
        fallback = load_fitted(workspace, workspace.config.export.fallback)
        view = workspace.view("test")
        write_artifact(workspace, artifact, folder, view=view, recommender=recommender, fallback=fallback)

    for artifact in workspace.config.servable:
        expected = exported_fingerprint(workspace, artifact)
        workspace.write_stage(artifact_folder(workspace, artifact), expected, partial(write, artifact), force=force)
