"""The stages of a run in their order; each runs the stages before it and skips what is up to date.

Models are chosen with train -> validation, refitted on everything before the test cutoff, evaluated once, and refitted on
all data for release.
"""

from collections.abc import Callable

from tfrs_fashion.run.evaluate import check_experiments, evaluate
from tfrs_fashion.run.export import export
from tfrs_fashion.run.prepare import prepare
from tfrs_fashion.run.recommend import recommend
from tfrs_fashion.run.release import check_owners, release
from tfrs_fashion.run.train import train
from tfrs_fashion.run.workspace import Workspace

STAGES: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "train": train,
    "export": export,
    "evaluate": evaluate,
    "release": release,
    "recommend": recommend,
}


def run_pipeline(workspace: Workspace, *, force: bool = False) -> None:
    """Runs every stage.

    Args:
        workspace: The run.
        force: Whether to run every stage again, even those that are up to date.
    """
    # Refused now, not after hours of training.
    check_owners(workspace)
    check_experiments(workspace)
    for stage in STAGES.values():
        stage(workspace, force=force)
    # The closing lines of a whole run name what it is for, not every output.
    workspace.messages[:] = [line for line in workspace.messages if not line.startswith("wrote: ")]
