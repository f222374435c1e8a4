"""The stage `explore`: a page about the tables, which needs neither timelines nor a split."""

from functools import partial

from tfrs_fashion.evaluation.exploration.page import write_exploration
from tfrs_fashion.outputs import fingerprint
from tfrs_fashion.run.prepare import prepare_tables
from tfrs_fashion.run.workspace import Workspace


def explore(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `exploration/`."""
    prepare_tables(workspace)
    features, title, folder = workspace.config.features, workspace.config.name, workspace.folder / "exploration"
    roles = features.roles.model_dump(include={"section_group", "section", "category", "garment_group", "colour"})
    sets = features.model_dump(include={"sets", "set_separator"})
    key = fingerprint("explore", workspace.prepared_fingerprint, title, sets, roles)
    write = partial(write_exploration, tables=workspace.tables, title=title, **sets, **roles)
    workspace.write_stage(folder, key, write, force=force)
    workspace.messages.append(f"exploration: {folder / 'exploration.html'}")
