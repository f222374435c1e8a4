"""The stage `prepare`: tables, timelines and vectors of a data source."""

from pathlib import Path

import numpy as np

from tfrs_fashion.data.sources import load_source
from tfrs_fashion.data.split import make_splits
from tfrs_fashion.data.summary import make_summary
from tfrs_fashion.data.tables import index_tables, open_scratch, write_counts, write_tables
from tfrs_fashion.features.timelines import write_timelines
from tfrs_fashion.features.vectors import make_vectors
from tfrs_fashion.features.view import check_features
from tfrs_fashion.run.workspace import Workspace
from tfrs_fashion.schema import check_tables


def prepare_tables(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `tables/`: the source's tables, cleaned, checked and indexed."""

    def write(folder: Path) -> None:
        config = workspace.config
        with open_scratch(folder) as connection:
            tables = load_source(connection, config.data, seed=config.seed, console=workspace.console)
            check_tables(tables)
            write_tables(index_tables(tables), folder)

    folder = workspace.folder / "tables"
    if workspace.write_stage(folder, workspace.prepared_fingerprint, write, force=force):
        workspace.console.print(make_summary(workspace.tables))
        workspace.messages.append(f"wrote: {folder / 'counts.json'}")


def prepare(workspace: Workspace, *, force: bool = False) -> None:
    """Writes `tables/`, `timelines/` and, if the pipeline reads images or sentences, `vectors/`."""
    prepare_tables(workspace, force=force)
    features = workspace.config.features
    check_features(workspace.tables, features)

    def write_dataset(folder: Path) -> None:
        # A split that cannot be made is refused now, not after an hour of training.
        make_splits(workspace.tables.transactions, **workspace.config.split.cuts)
        write_timelines(workspace.tables, folder, profile=features.profile, profile_numbers=features.profile_numbers)

    def write_vectors(folder: Path) -> None:
        vectors, counts = make_vectors(
            workspace.tables.articles,
            images=features.images,
            sentence_encoder=features.sentence_encoder,
            categorical=features.categorical,
            as_of=workspace.splits["validation"].as_of,
            cache=workspace.folder / "cache",
            seed=workspace.config.seed,
            console=workspace.console,
        )
        np.save(folder / "vectors.npy", vectors)
        write_counts(counts, folder)

    workspace.write_stage(workspace.folder / "timelines", workspace.prepared_fingerprint, write_dataset, force=force)
    if features.has_vectors:
        workspace.write_stage(workspace.folder / "vectors", workspace.vectors_fingerprint, write_vectors, force=force)
