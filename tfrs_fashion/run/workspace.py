"""The workspace of a run: its settings and folder, the prepared tables, views of the splits, and its stage outputs."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
from rich.console import Console

from tfrs_fashion.data.sources import source_files
from tfrs_fashion.data.split import Split, make_splits, targets
from tfrs_fashion.data.tables import read_counts, read_tables
from tfrs_fashion.features.text import HashedWords
from tfrs_fashion.features.timelines import Timelines, read_timelines
from tfrs_fashion.features.view import View, make_view
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import code_fingerprint, damage, files_fingerprint, fingerprint, run_stage
from tfrs_fashion.schema import RowCount, Tables
from tfrs_fashion.settings.pipeline import PipelineConfig


@dataclass
class Inputs:
    """What `prepare` wrote into a run folder, each part read once and shared by all workspaces over that folder.

    Attributes:
        config: The pipeline that the folder was prepared for.
        folder: The run folder.
        words: Hashed words of the articles by the number of buckets; see `features.view.View`.
    """

    config: PipelineConfig
    folder: Path
    words: dict[int, HashedWords] = field(default_factory=dict)

    @cached_property
    def tables(self) -> Tables:
        """The prepared tables, read by DuckDB."""
        # Background threads return memory after a query; without them the largest query's memory stays allocated.
        return read_tables(ibis.duckdb.connect(allocator_background_threads=True), self.folder / "tables")

    @cached_property
    def splits(self) -> dict[str, Split]:
        """`validation`, `test` and `release`."""
        return make_splits(self.tables.transactions, **self.config.split.cuts)

    @cached_property
    def timelines(self) -> Timelines:
        """All customers with all their events and the profile features of the pipeline."""
        timelines, features = read_timelines(self.folder / "timelines"), self.config.features
        # The folder may have been prepared with a longer profile than this pipeline reads.
        return replace(
            timelines,
            profile={name: timelines.profile[name] for name in features.profile},
            profile_numbers={name: timelines.profile_numbers[name] for name in features.profile_numbers},
        )

    @cached_property
    def vectors(self) -> tuple[np.ndarray | None, tuple[RowCount, ...]]:
        """Vectors of images and descriptions, `[num_articles + 2, any]` float32, and what was counted while making them."""
        if not self.config.features.has_vectors:
            return None, ()
        folder = self.folder / "vectors"
        return np.load(folder / "vectors.npy", mmap_mode="r"), read_counts(folder)

    @cached_property
    def prepared_fingerprint(self) -> str:
        """The fingerprint of tables and timelines: source files, data settings, profile columns, cuts and code."""
        data, features = self.config.data, self.config.features
        seed = self.config.seed if data.source in ("simulator", "hm_scale") else None
        columns = (features.profile, features.profile_numbers)
        parts = (data.model_dump(), columns, self.config.split.cuts, seed, files_fingerprint(source_files(data)))
        return fingerprint("prepare", code_fingerprint(), *parts)


class Workspace:
    """One pipeline in one run folder.

    Args:
        config: The pipeline.
        folder: The run folder, where all outputs go.
        console: Where progress and metrics are shown.
        messages: The closing lines of the command: what was written and the headline metrics.
        inputs: The prepared tables, timelines and vectors; read from the folder by default.
    """

    def __init__(
        self,
        config: PipelineConfig,
        folder: Path,
        *,
        console: Console | None = None,
        messages: list[str] | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self.config = config
        self.folder = folder
        self.console = console or Console()
        self.messages = [] if messages is None else messages
        self.inputs = inputs or Inputs(config, folder)
        # Splits beyond those of the pipeline, e.g. the windows of a back-test, may be added.
        self.extra_splits: dict[str, Split] = {}
        # Fitted objects that several stages share, by the fingerprint of what they were fitted from.
        self.kept: dict[str, Any] = {}
        self._views: dict[str, View] = {}
        self._seen: set[Path] = set()
        self._base: Workspace | None = None
        self._trial_folder = folder

    def with_config(self, config: PipelineConfig, *, trial_folder: Path) -> "Workspace":
        """Returns a workspace for other model settings that shares what was read already.

        Args:
            config: A pipeline with the same data, split and prepared features.
            trial_folder: Where stage outputs go that differ from those of this workspace; see `stage_folder`.
        """
        other = Workspace(config, self.folder, console=self.console, messages=self.messages, inputs=self.inputs)
        other._base, other._trial_folder = self, trial_folder
        if config.features == self.config.features:
            other._views = self._views
        return other

    @property
    def tables(self) -> Tables:
        """The prepared tables, read by DuckDB."""
        return self.inputs.tables

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name: `validation`, `test` and `release`, and any that were added."""
        return {**self.inputs.splits, **self.extra_splits}

    @property
    def counts(self) -> tuple[RowCount, ...]:
        """Rows that were dropped, changed or missing, by rule."""
        return (*self.tables.counts, *self.inputs.vectors[1])

    # views and targets

    def view(self, split: str) -> View:
        """Returns what is visible before the cutoffs of a split; kept until `forget`."""
        if split not in self._views:
            self._views[split] = self.make_view(self.splits[split])
        return self._views[split]

    def make_view(self, split: Split) -> View:
        """Makes the view of any split; not kept."""
        features = self.config.features
        return make_view(
            self.tables,
            self.inputs.timelines,
            split,
            **features.model_dump(
                include={
                    *("categorical", "numbers", "sets", "set_separator", "min_articles", "min_customers"),
                    *("history", "article_weeks", "week_days", "num_text_buckets"),
                }
            ),
            roles=features.roles,
            vectors=self.inputs.vectors[0],
            words=self.inputs.words,
            **self.config.split.store,
        )

    def forget(self, split: str) -> None:
        """Drops a view that is no longer needed; it is made again on demand."""
        self._views.pop(split, None)

    def targets(self, split: str | Split) -> pd.DataFrame:
        """Returns the distinct `customer_index, article_index` bought in the window of a split."""
        split = self.splits[split] if isinstance(split, str) else split
        return targets(split, self.tables.transactions).execute()

    # fingerprints of the inputs

    @property
    def prepared_fingerprint(self) -> str:
        """The fingerprint of tables and timelines; see `Inputs.prepared_fingerprint`."""
        return self.inputs.prepared_fingerprint

    @cached_property
    def vectors_fingerprint(self) -> str:
        """The fingerprint of the vectors of images and descriptions."""
        features = self.config.features
        settings = (features.images.model_dump(), features.sentence_encoder, features.categorical, self.config.seed)
        return fingerprint("vectors", self.prepared_fingerprint, settings, files_fingerprint(self.vector_files))

    @property
    def vector_files(self) -> list[Path]:
        """The files that the vectors are made from."""
        features = self.config.features
        paths = [
            Path(path) for path in (features.images.folder, features.images.weights, features.sentence_encoder) if path
        ]
        return [file for path in paths for file in (path, *sorted(path.rglob("*"))) if file.is_file()]

    @property
    def input_fingerprint(self) -> str:
        """The fingerprint of everything that fits read: the tables, and the vectors if there are any."""
        return self.vectors_fingerprint if self.config.features.has_vectors else self.prepared_fingerprint

    # stage outputs

    def stage_folder(self, path: str, key: Callable[["Workspace"], str]) -> Path:
        """Returns where a stage output shared by trials belongs.

        A trial of a search reads and writes the run's own output if its settings make the same one; otherwise its
        output goes beside the search, so that the run's own is not replaced.

        Args:
            path: The path below the run folder.
            key: The fingerprint of the output for the settings of a workspace.
        """
        if self._base is None or key(self) == key(self._base):
            return self.folder / path
        return self._trial_folder / f"{path}_{key(self)[:8]}"

    def write_stage(self, folder: Path, expected: str, write: Callable[[Path], None], *, force: bool = False) -> bool:
        """Writes a stage output unless it is up to date; see `outputs.run_stage`.

        Args:
            folder: Where the output belongs.
            expected: The fingerprint of everything that it depends on.
            write: Writes it into the folder that it is given.
            force: Whether to write it even if it is up to date.

        Returns:
            Whether it was written.
        """

        def write_with_message(partial: Path) -> None:
            self.show(f"writing {folder}", style="dim")
            write(partial)

        if (missing := damage(folder)) is not None:
            self.show(f"damaged: {folder}: {missing}; writing it again")
        if is_written := run_stage(folder, expected, write_with_message, force=force):
            self.messages.append(f"wrote: {folder}")
        elif folder not in self._seen:
            self.show(f"up to date: {folder}", style="dim")
        self._seen.add(folder)
        return is_written

    def show(self, line: str, *, style: str | None = None) -> None:
        """Prints a line of plain text."""
        self.console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)

    def log(self, name: str, fitted_on: str, settings: dict[str, Any] | None = None) -> TrainingLog:
        """Returns the log of a training: the console, and a folder for TensorBoard if that is enabled.

        Args:
            name: The name of what is fitted.
            fitted_on: The name of the split, or of whatever else distinguishes several fits.
            settings: The settings to record; those of the recommender of this name by default.
        """
        options = self.config.tensorboard
        settings = self.config.settings_of(name) if settings is None else settings
        return TrainingLog(
            console=self.console,
            folder=self.folder / "tensorboard" / name / fitted_on.replace(" ", "_") if options.enabled else None,
            settings=json.dumps({**settings, "seed": self.config.seed}, indent=2, default=str),
            histograms=options.histograms,
            profile=options.profile,
        )
