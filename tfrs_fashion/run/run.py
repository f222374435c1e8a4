"""The stages of a run, in order: prepare → train → export → evaluate → release → recommend; explore needs tables alone.

Each does the stages before it, skips what is up to date, and writes whole outputs only. Models are chosen with train →
validation, refitted on everything before the test cutoff, evaluated once, and refitted on all data for release.
"""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ibis import _

from tfrs_fashion.data.contents import Contents
from tfrs_fashion.data.customers import read_customers
from tfrs_fashion.data.raw import make_dialect
from tfrs_fashion.data.split import first_purchase_seconds
from tfrs_fashion.evaluation.checks.doctor import RankerTraining
from tfrs_fashion.evaluation.checks.finding import Finding
from tfrs_fashion.evaluation.exploration.page import write_exploration
from tfrs_fashion.evaluation.report.page import load_metrics, metrics_table
from tfrs_fashion.experiments.log import LOG, experiments_folder, keep_record, read_log, write_record
from tfrs_fashion.features.view import View
from tfrs_fashion.models.board import write_images
from tfrs_fashion.outputs import exclusive_lock, fingerprint, recover, stage_seconds, stored_fingerprint
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.popularity import nobody
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.towers import TwoTower
from tfrs_fashion.run.report import ids_by_index, write_candidates, write_judgement, write_target_ranks
from tfrs_fashion.run.scoring import Scoring
from tfrs_fashion.run.train import Training
from tfrs_fashion.schema import InputError
from tfrs_fashion.serving.batch import (
    SUBMITTED,
    load_artifact,
    recommend_batches,
    write_recommendations,
    write_submission,
)
from tfrs_fashion.serving.export import export_artifact, latest_artifact, list_versions, write_models_config
from tfrs_fashion.settings.rankers import TwoStageConfig


@dataclass
class Run(Training):
    """One pipeline in one run folder."""

    # explore

    def explore(self, *, force: bool = False) -> None:
        """Writes `exploration/`, a look at the tables; it needs neither timelines nor a split."""
        self._write_tables()
        roles = self.config.features.roles.model_dump(
            include={"section_group", "section", "category", "garment_group", "colour"}
        )
        folder, title = self.folder / "exploration", self.config.name
        sets = self.config.features.model_dump(include={"sets", "set_separator"})
        write = partial(write_exploration, tables=self.tables, title=title, **sets, **roles)
        self._stage(folder, fingerprint("explore", self._prepared, title, sets, roles), write, force=force)
        self.messages.append(f"exploration: {folder / 'exploration.html'}")

    # export

    def _exported(self, artifact: str) -> str:
        name, index = self.config.servable[artifact]
        settings = self.config.index.model_dump(exclude={"kinds"}) if index == "scann" else None
        fallback = self._trained(self.config.export.fallback)
        return fingerprint("export", self._trained(name), fallback, index, settings, self.config.export.k)

    def _write_artifact(
        self, artifact: str, folder: Path, *, view: View, recommender: Recommender, fallback: Recommender
    ) -> None:
        _name, kind = self.config.servable[artifact]
        if isinstance(recommender, IndexedTower) and kind is not None:
            settings = self.config.index.model_dump(exclude={"kinds"}) if kind == "scann" else {}
            recommender = recommender.with_index(kind, name=artifact, **settings)
        export_artifact(
            recommender,
            nobody() if artifact in self.config.new_arrivals else fallback,
            folder,
            view=view,
            k=self.config.export.k,
            metadata={
                "pipeline": self.config.name,
                "config": self.config.model_dump(mode="json"),
                "data_fingerprint": stored_fingerprint(self.folder / "tables"),
                "split": view.split.describe(),
            },
        )

    def _artifact(self, artifact: str) -> Path:
        return self.folder / "saved_models" / artifact / "1"

    def export(self, *, force: bool = False) -> None:
        """Writes `saved_models/<name>/1/` in the run folder: the artifacts that are judged."""
        self.train()

        def write(artifact: str, folder: Path) -> None:
            name, _kind = self.config.servable[artifact]
            recommender, fallback = self._load(name), self._load(self.config.export.fallback)
            self._write_artifact(artifact, folder, view=self.view("test"), recommender=recommender, fallback=fallback)

        for artifact in self.config.servable:
            self._stage(self._artifact(artifact), self._exported(artifact), partial(write, artifact), force=force)

    # evaluate

    def _ranker_training(self) -> list[RankerTraining]:
        """What blends and rankers have learned from, for the doctor."""
        config, test = self.config, self.splits["test"]
        found = self.blend_training(test) if "blend" in config.recommenders else []
        for name in config.recommenders:
            if isinstance(config.generators.get(name), TwoStageConfig):
                found += self.ranker_training(name, test)
        return found

    @property
    def _has_clusters(self) -> bool:
        return self.config.evaluation.num_clusters > 0 and "two_tower" in self.config.recommenders

    def _rank_in_full(self, judged: pd.DataFrame, *, force: bool) -> dict[str, Path]:
        """Writes `target_ranks/<name>/` where wanted, and returns where."""
        places = {name: self.folder / "target_ranks" / name for name in self.config.ranked_in_full}
        if not places:
            return {}
        number, at = self.config.evaluation.full_ranking_customers, self.config.evaluation.full_ranking_at
        view = self.view("test")
        if at == "first_purchase":
            view = replace(view, now=first_purchase_seconds(view.split, self.tables.transactions, view.now))
        rank = partial(write_target_ranks, view=view, judged=judged, num_customers=number, seed=self.config.seed)

        def write(name: str, folder: Path) -> None:
            rank(folder, recommender=self._load(name))

        for name, place in places.items():
            self._stage(place, fingerprint("ranks", self._trained(name), number, at), partial(write, name), force=force)
        return places

    def _durations(self) -> dict[str, float]:
        """How many seconds each stage before the report took when it was written."""
        config = self.config
        stages = ["tables", "timelines", *(["vectors"] if self._has_vectors else [])]
        stages += [f"models/{name}" for name in config.fitted]
        places = {stage: self.folder / stage for stage in stages}
        places |= {f"saved_models/{name}": self._artifact(name) for name in config.servable}
        stages = [f"candidates/{name}" for name in config.servable]
        stages += [f"target_ranks/{name}" for name in config.ranked_in_full]
        places |= {stage: self.folder / stage for stage in stages}
        found = {stage: stage_seconds(place) for stage, place in places.items()}
        return {stage: seconds for stage, seconds in found.items() if seconds is not None}

    def _write_record(self, report: Path, *, judged: pd.DataFrame, split: dict[str, Any]) -> None:
        contents = Contents.of(self.tables)
        write_record(
            report,
            config=self.config,
            run_folder=self.folder,
            split=split,
            recommenders=load_metrics(report)["recommenders"],
            durations=self._durations(),
            fingerprints={
                "data": stored_fingerprint(self.folder / "tables"),
                "purchases": contents.of_purchases(self.tables.transactions),
                "targets": contents.of_targets(judged),
            },
        )

    def _check_experiments(self) -> None:
        """Refuses to do work that could not be recorded."""
        read_log(experiments_folder(self.folder))

    def evaluate(self, *, force: bool = False) -> None:
        """Writes `candidates/<name>/`, the answers of the artifacts, `target_ranks/<name>/` where wanted, and `report/`.

        Each report that is written adds a record to the log of experiments beside the run folder.
        """
        self._check_experiments()
        self.export()
        config, evaluation = self.config, self.config.evaluation
        length = max(evaluation.k, evaluation.num_candidates)
        answered = {name: fingerprint("candidates", self._exported(name), length) for name in config.servable}
        places = {name: self.folder / "candidates" / name for name in config.servable}
        report = self.folder / "report"
        wanted = fingerprint("report", answered, evaluation.model_dump(), config.features.roles.category)
        recover(report)
        if force or stored_fingerprint(report) != wanted:
            scoring = Scoring(self.view("test"), self.tables, self._targets("test"), config)
            judged = scoring.judged
            ask = partial(
                write_candidates,
                tables=self.tables,
                bought=scoring.bought,
                customers=np.unique(judged["customer_index"].to_numpy()),
                k=length,
                batch_size=config.recommend.batch_size,
                console=self.console,
            )
            for name, place in places.items():
                self._stage(place, answered[name], partial(ask, self._artifact(name)), force=force)
            ranked = self._rank_in_full(judged, force=force)
            chosen = {name: self._chosen(name) for name in config.recommenders}
            loaded = {name: self._load(name) for name, kind in config.servable.values() if kind is not None}
            towers = {name: found for name, found in loaded.items() if isinstance(found, IndexedTower)}
            clustered = towers["two_tower"] if self._has_clusters else None
            assert clustered is None or isinstance(clustered, TwoTower)
            split = {
                "pipeline": config.name,
                "seed": config.seed,
                **self.splits["test"].describe(),
                "validation_as_of": self.splits["validation"].describe()["as_of"],
                "validation_end": self.splits["validation"].describe()["end"],
            }
            judge = partial(
                write_judgement,
                scoring=scoring,
                candidates=places,
                artifacts={name: self._artifact(name) for name in config.servable},
                split=split,
                counts=(*self.counts, *self.view("test").counts),
                curves={name: found["curves"] for name, found in chosen.items() if "curves" in found},
                towers=clustered,
                # The last column is the bias.
                embeddings={name: found.in_store.embedding[:, :-1] for name, found in towers.items()},
                blend=chosen.get("blend", {}).get("blend"),
                rankers=self._ranker_training(),
                ranked=ranked,
            )

            def write(folder: Path) -> None:
                judge(folder)
                self._write_record(folder, judged=judged, split=split)

            self._stage(report, wanted, write, force=True)
            if config.tensorboard.enabled:
                figures = sorted((report / "figures").glob("*.png"))
                write_images(
                    self.folder / "tensorboard" / "report", {figure.stem: figure.read_bytes() for figure in figures}
                )
        experiments = experiments_folder(self.folder)
        # Killed before it was kept, a record is kept now.
        record = keep_record(report, experiments)
        metrics = load_metrics(report)
        self.console.print(metrics_table(metrics))
        asked = config.recommend.recommender
        self.messages += [found["sentence"] for found in metrics["differences"] if found["recommender"] == asked]
        self.messages += [f"doctor: {Finding(**found).sentence}" for found in metrics.get("findings", [])]
        self.messages.append(f"report: {report / 'report.html'}")
        self.messages.append(f"experiment: {record} in {experiments / LOG}")

    # release

    def _released(self, artifact: str) -> Path:
        return Path(self.config.export.folder) / artifact

    def release(self, *, force: bool = False) -> None:
        """Fits on all data with the chosen settings, and writes the next version of every artifact."""
        self._check_owners()
        self.train()
        self.forget("test")
        fitted: dict[str, Recommender] = {}

        def fit(name: str) -> Recommender:
            if name not in fitted:
                fitted[name] = self._fit(name, "release", self._chosen(name).get("choice", {}), fit)
            return fitted[name]

        def write(artifact: str, folder: Path) -> None:
            recommender, fallback = (
                fit(name) for name in (self.config.servable[artifact][0], self.config.export.fallback)
            )
            view = self.view("release")
            self._write_artifact(artifact, folder, view=view, recommender=recommender, fallback=fallback)

        folder = Path(self.config.export.folder)
        with exclusive_lock(folder):
            self._check_owners()
            for artifact in self.config.servable:
                wanted = fingerprint("release", self._exported(artifact))
                versions = list_versions(self._released(artifact))
                latest = versions[-1][1] if versions else None
                if latest is not None and not force and stored_fingerprint(latest) == wanted:
                    continue
                version = versions[-1][0] + 1 if versions else 1
                self._stage(self._released(artifact) / str(version), wanted, partial(write, artifact), force=True)
            write_models_config(folder)
        self.messages += [f"SavedModel: {latest_artifact(self._released(name))}" for name in self.config.servable]

    def _check_owners(self) -> None:
        """Refuses to put a version above one that another pipeline released."""
        for artifact in self.config.servable:
            versions = list_versions(self._released(artifact))
            if not versions:
                continue
            latest = versions[-1][1]
            try:
                owner = json.loads((latest / "metadata.json").read_text(encoding="utf-8"))["pipeline"]
            except (OSError, ValueError, KeyError):
                owner = None
            if owner != self.config.name:
                raise InputError(
                    f"{latest}: released by {f'pipeline `{owner}`' if owner else 'something else'}, and a server would "
                    f"take a version of `{self.config.name}` for its successor. Set `export.folder` to another folder."
                )

    # recommend

    def _bought_ids(self, customers: list[str]) -> dict[str, list[str]]:
        pairs = self.tables.transactions.select("customer_id", "article_id").distinct()
        pairs = pairs.filter(_.customer_id.isin(customers)).order_by(["customer_id", "article_id"]).execute()
        return {str(key): rows.tolist() for key, rows in pairs.groupby("customer_id")["article_id"]}

    def recommend(self, *, customers: Path | None = None, force: bool = False) -> None:
        """Writes `recommendations/` for every customer, or for those in a file, from the released artifact."""
        listed: list[str] | None = None
        if customers is not None:
            mapped = (self.config.data.customers.customer_id, self.config.data.transactions.customer_id)
            names = tuple(dict.fromkeys(name for name in ("customer_id", *mapped) if name))
            listed, left_out = read_customers(customers, names=names, dialect=make_dialect(self.config.data))
            if left_out:
                self.messages.append(f"{customers}: {left_out:,} empty or repeated id(s) left out")
        self.release()
        config = self.config.recommend
        known = [str(customer) for customer in ids_by_index(self.tables)[0]]
        asked = known if listed is None else listed
        folder = self.folder / "recommendations"
        artifact = latest_artifact(self._released(config.recommender))
        wanted = fingerprint("recommend", stored_fingerprint(artifact), str(artifact), config.model_dump(), listed)

        def write(partial: Path) -> None:
            answers = recommend_batches(
                load_artifact(artifact),
                asked,
                k=config.k,
                batch_size=config.batch_size,
                exclude=self._bought_ids(asked) if config.exclude_bought else None,
                console=self.console,
            )
            rows = write_recommendations(answers, partial)
            self.messages.append(f"{rows:,} recommendations for {len(asked):,} customers, by {artifact}")

        self._stage(folder, wanted, write, force=force)
        unknown = len(set(asked) - set(known))
        if unknown:
            self.messages.append(f"{unknown:,} of {len(asked):,} customers are unknown: answered without a history")
        self.messages += [f"recommendations: {folder / f'recommendations.{kind}'}" for kind in ("parquet", "csv")]

    def submit(self, *, force: bool = False) -> None:
        """Writes `submission/submission.csv` for Kaggle: every customer, and what the artifact or its fallback gives."""
        self.release()
        config, folder = self.config.recommend, self.folder / "submission"
        customers = [str(customer) for customer in ids_by_index(self.tables)[0]]
        artifact = latest_artifact(self._released(config.recommender))
        asked = config.model_dump(exclude={"k"})

        def write(partial: Path) -> None:
            answers = recommend_batches(
                load_artifact(artifact),
                customers,
                k=SUBMITTED,
                batch_size=config.batch_size,
                exclude=self._bought_ids(customers) if config.exclude_bought else None,
                console=self.console,
            )
            short = write_submission(answers, partial, customer_id=customers)
            self.messages.append(
                f"{len(customers):,} customers, {short:,} with fewer than {SUBMITTED} articles, by {artifact}, filled "
                f"by {self.config.export.fallback}"
            )

        wanted = fingerprint("submit", stored_fingerprint(artifact), str(artifact), asked)
        self._stage(folder, wanted, write, force=force)
        self.messages.append(f"submission: {folder / 'submission.csv'}")

    def everything(self) -> None:
        """Does every stage; with `force`, every stage again."""
        # Not after hours of training.
        self._check_owners()
        self._check_experiments()
        for stage in (self.prepare, self.train, self.export, self.evaluate, self.release, self.recommend):
            stage(force=self.force)
        # Of a whole run the last lines name what it is for.
        self.messages = [line for line in self.messages if not line.startswith("wrote: ")]
