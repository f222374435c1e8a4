"""Preparation: tables, timelines and vectors of a pipeline, in its run folder, and views of what a split leaves visible."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import ibis
import numpy as np
import pandas as pd
from rich.console import Console

from tfrs_fashion.data.sources import load_source, source_files
from tfrs_fashion.data.split import Split, make_splits, targets
from tfrs_fashion.data.summary import make_summary
from tfrs_fashion.data.tables import index_tables, open_scratch, read_counts, read_tables, write_counts, write_tables
from tfrs_fashion.features.content_vectors import make_vectors
from tfrs_fashion.features.hashed_words import HashedWords
from tfrs_fashion.features.timelines import Timelines, read_timelines, write_timelines
from tfrs_fashion.features.view import View, check_features, make_view
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import code_fingerprint, damage, files_fingerprint, fingerprint, run_stage
from tfrs_fashion.schema import RowCount, Tables, check_tables
from tfrs_fashion.settings.pipeline import PipelineConfig


@dataclass
class Preparation:
    """What a pipeline's models are made from, in one run folder.

    Attributes:
        config: The pipeline.
        folder: Where its outputs go.
        force: Repeat the stage that is asked for, even if it is up to date.
        console: Where progress and figures are shown.
        messages: The last lines for whoever ran it: what was written.
    """

    config: PipelineConfig
    folder: Path
    force: bool = False
    console: Console = field(default_factory=Console)
    messages: list[str] = field(default_factory=list)

    @cached_property
    def tables(self) -> Tables:
        """The prepared tables, read by DuckDB."""
        return read_tables(self._connection, self.folder / "tables")

    @cached_property
    def splits(self) -> dict[str, Split]:
        """`validation`, `test` and `release`."""
        return make_splits(self.tables.transactions, **self.config.split.cuts)

    @cached_property
    def _connection(self) -> ibis.BaseBackend:
        # Its threads give back what a query needed; without them the largest query's memory stays taken.
        return ibis.duckdb.connect(allocator_background_threads=True)

    @cached_property
    def _timelines(self) -> Timelines:
        timelines, features = read_timelines(self.folder / "timelines"), self.config.features
        # The folder may have been prepared with a longer profile than this pipeline reads.
        return replace(
            timelines,
            profile={name: timelines.profile[name] for name in features.profile},
            profile_numbers={name: timelines.profile_numbers[name] for name in features.profile_numbers},
        )

    @cached_property
    def _seen(self) -> set[Path]:
        return set()

    @cached_property
    def _views(self) -> dict[str, View]:
        return {}

    @cached_property
    def _words(self) -> dict[int, HashedWords]:
        return {}

    def view(self, split: str) -> View:
        """What is visible in `validation`, `test` or `release`."""
        if split not in self._views:
            self._views[split] = self._make_view(self.splits[split])
        return self._views[split]

    def _make_view(self, split: Split) -> View:
        features = self.config.features
        return make_view(
            self.tables,
            self._timelines,
            split,
            **features.model_dump(
                include={
                    *("categorical", "numbers", "sets", "set_separator", "min_articles", "min_customers"),
                    *("history", "article_weeks", "week_days", "num_text_buckets"),
                }
            ),
            roles=features.roles,
            vectors=self._vectors[0],
            words=self._words,
            **self.config.split.store,
        )

    def log(self, name: str, fitted_on: str, settings: dict[str, Any] | None = None) -> TrainingLog:
        """Returns where a training tells its progress.

        Args:
            name: Of what is fitted.
            fitted_on: Of the split, or of whatever else tells its fits apart.
            settings: Of it; those of the recommender of this name by default.
        """
        told = self.config.tensorboard
        settings = self.config.settings_of(name) if settings is None else settings
        return TrainingLog(
            console=self.console,
            folder=self.folder / "tensorboard" / name / fitted_on.replace(" ", "_") if told.enabled else None,
            settings=json.dumps({**settings, "seed": self.config.seed}, indent=2, default=str),
            histograms=told.histograms,
            profile=told.profile,
        )

    def with_config(self, config: PipelineConfig) -> Self:
        """Returns the same preparation for other settings of models; what was read already is shared.

        Args:
            config: Of the same data, split and prepared features.
        """
        other = replace(self, config=config)
        shared = {"_connection", "tables", "splits", "_timelines", "_vectors", "_words", "_prepared"}
        if config.features == self.config.features:
            shared.add("_views")
        other.__dict__.update({name: value for name, value in self.__dict__.items() if name in shared})
        return other

    def forget(self, split: str) -> None:
        """Drops a view that is needed no longer; asked for again, it is made again."""
        self._views.pop(split, None)

    def _targets(self, split: str) -> pd.DataFrame:
        return self._targets_of(self.splits[split])

    def _targets_of(self, split: Split) -> pd.DataFrame:
        return targets(split, self.tables.transactions).execute()

    def _stage(self, folder: Path, wanted: str, write: Callable[[Path], None], *, force: bool) -> bool:
        def write_aloud(partial: Path) -> None:
            self.console.print(f"writing {folder}", style="dim", markup=False, highlight=False, soft_wrap=True)
            write(partial)

        if (lost := damage(folder)) is not None:
            self.console.print(f"damaged: {folder}: {lost}; writing it again", markup=False, soft_wrap=True)
        if is_written := run_stage(folder, wanted, write_aloud, force=force):
            self.messages.append(f"wrote: {folder}")
        elif folder not in self._seen:
            self.console.print(f"up to date: {folder}", style="dim", markup=False, highlight=False, soft_wrap=True)
        self._seen.add(folder)
        return is_written

    # prepare

    @cached_property
    def _prepared(self) -> str:
        data = self.config.data
        seed = self.config.seed if data.source in ("simulator", "hm_scale") else None
        features = self.config.features
        kept = (features.profile, features.profile_numbers)
        parts = (data.model_dump(), kept, self.config.split.cuts, seed, files_fingerprint(source_files(data)))
        return fingerprint("prepare", code_fingerprint(), *parts)

    @property
    def _has_vectors(self) -> bool:
        return bool(self.config.features.images.folder or self.config.features.sentence_encoder)

    @cached_property
    def _embedded(self) -> str:
        features = self.config.features
        settings = (features.images.model_dump(), features.sentence_encoder, features.categorical, self.config.seed)
        return fingerprint("vectors", self._prepared, settings, files_fingerprint(self._vector_files))

    @property
    def _vector_files(self) -> list[Path]:
        """The files that the vectors are made from."""
        features = self.config.features
        named = [
            Path(path) for path in (features.images.folder, features.images.weights, features.sentence_encoder) if path
        ]
        return [file for path in named for file in (path, *sorted(path.rglob("*"))) if file.is_file()]

    @property
    def _shown(self) -> str:
        """The fingerprint of what fits are shown: the tables, and the vectors where there are any."""
        return self._embedded if self._has_vectors else self._prepared

    @cached_property
    def _vectors(self) -> tuple[np.ndarray | None, tuple[RowCount, ...]]:
        if not self._has_vectors:
            return None, ()
        folder = self.folder / "vectors"
        return np.load(folder / "vectors.npy", mmap_mode="r"), read_counts(folder)

    @property
    def counts(self) -> tuple[RowCount, ...]:
        """What was dropped, changed or missing, by rule."""
        return (*self.tables.counts, *self._vectors[1])

    def _write_tables(self, *, force: bool = False) -> None:
        def write_checked(folder: Path) -> None:
            with open_scratch(folder) as connection:
                tables = load_source(connection, self.config.data, seed=self.config.seed, console=self.console)
                check_tables(tables)
                write_tables(index_tables(tables), folder)

        folder = self.folder / "tables"
        if self._stage(folder, self._prepared, write_checked, force=force):
            self.console.print(make_summary(self.tables))
            self.messages.append(f"wrote: {folder / 'counts.json'}")

    def prepare(self, *, force: bool = False) -> None:
        """Writes `tables/`, `timelines/` and, where images or sentences are wanted, `vectors/`."""
        self._write_tables(force=force)
        check_features(self.tables, self.config.features)

        def write_dataset(folder: Path) -> None:
            # A split that cannot be made is told now, not after an hour of training.
            make_splits(self.tables.transactions, **self.config.split.cuts)
            features = self.config.features
            write_timelines(self.tables, folder, profile=features.profile, profile_numbers=features.profile_numbers)

        def write_vectors(folder: Path) -> None:
            features = self.config.features
            vectors, counts = make_vectors(
                self.tables.articles,
                images=features.images,
                sentence_encoder=features.sentence_encoder,
                categorical=features.categorical,
                as_of=self.splits["validation"].as_of,
                cache=self.folder / "cache",
                seed=self.config.seed,
                console=self.console,
            )
            np.save(folder / "vectors.npy", vectors)
            write_counts(counts, folder)

        self._stage(self.folder / "timelines", self._prepared, write_dataset, force=force)
        if self._has_vectors:
            self._stage(self.folder / "vectors", self._embedded, write_vectors, force=force)
