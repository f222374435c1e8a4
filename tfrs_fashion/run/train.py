"""Training: what is chosen on validation, and the fits of a pipeline's recommenders in its run folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfrs_fashion.evaluation.report.projector import write_projector
from tfrs_fashion.features.articles import check_product_codes
from tfrs_fashion.index.scann import check_size
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.indexed_tower import IndexedTower
from tfrs_fashion.recommenders.kinds import fit_recommender, load_recommender
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.towers import TwoTower
from tfrs_fashion.run.objective import Objective, beats_fallback_for_strangers, make_measure, make_validator
from tfrs_fashion.run.projector_tables import project
from tfrs_fashion.run.rankers import Ranking
from tfrs_fashion.settings.pipeline import MODELS
from tfrs_fashion.settings.recommenders import (
    BaseTwoTowerConfig,
    BasketMlpConfig,
    FashionDnaConfig,
    NextCategoryConfig,
    SameProductConfig,
    SequentialConfig,
    SiblingsConfig,
    TwoStageConfig,
)


@dataclass
class Training(Ranking):
    """Everything that is fitted for the test split."""

    def _trained(self, name: str) -> str:
        config = self.config
        return fingerprint(
            "train",
            self._shown,
            name,
            config.settings_of(name),
            config.split.model_dump(),
            config.seed,
        )

    def _model(self, name: str) -> Path:
        return self.folder / "models" / name

    def _has_choice(self, name: str) -> bool:
        trained = BasketMlpConfig | BaseTwoTowerConfig | FashionDnaConfig | NextCategoryConfig | SequentialConfig
        return name in MODELS or isinstance(self.config.generators[name], trained | TwoStageConfig)

    def _choose(self, name: str, *, on: str = "validation", before: str = "test") -> dict[str, Any]:
        """Chooses what the refits keep: a model's epochs, whether the towers answer strangers, how to blend.

        Args:
            name: A recommender.
            on: The split whose targets a model is judged by.
            before: The split before whose cutoff the weeks lie that blends are compared on.

        Returns:
            `choice`, and what it was made by, for the report; nothing where there is nothing to choose.
        """
        if name == "blend":
            return self.choose_blend(self.splits[before])
        if isinstance(self.config.generators.get(name), TwoStageConfig):
            return self.choose_two_stage(name, self.splits[before])
        if not self._has_choice(name):
            return {}
        view, wanted, k = self.view(on), self._targets(on), self.config.evaluation.k
        judge, figures = make_validator(view, wanted, k=k), []

        def validate(recommender: Recommender) -> dict[str, float]:
            figures.append(judge(recommender))
            return figures[-1]

        fitted = fit_recommender(name, view, self.config, choice={}, validate=validate, log=self.log(name, on))
        choice: dict[str, Any] = {"epochs": int(np.argmax([found[f"val_map@{k}"] for found in figures])) + 1}
        curves = {metric: [found[metric] for found in figures] for metric in figures[0]}
        if isinstance(fitted, TwoTower):
            curves = fitted.curves
        if isinstance(fitted, IndexedTower):
            fallback = fit_recommender(self.config.export.fallback, view, self.config, choice={})
            if (better := beats_fallback_for_strangers(fitted, fallback, view, wanted, k=k)) is not None:
                choice["answers_strangers"] = better
        self.forget(on)
        return {"choice": choice, "curves": curves}

    def judge_settings(
        self,
        name: str,
        *,
        objective: Objective,
        watch: Callable[[dict[str, float]], None],
        fitted: Callable[[str], Recommender] | None = None,
        log: TrainingLog | None = None,
    ) -> None:
        """Fits a recommender as `train` does to choose, and judges it on the validation window, after each epoch if it has any.

        Args:
            name: A recommender.
            objective: What settings are chosen by.
            watch: Is told the figures; what it raises ends the fit.
            fitted: Gives those that it is made from, fitted on the same.
            log: Where progress is told.
        """
        if isinstance(self.config.generators.get(name), TwoStageConfig):
            self.judge_ranker(name, objective=objective, watch=watch, log=log)
            return
        view = self.view("validation")
        measure = make_measure(
            objective, view=view, tables=self.tables, targets=self._targets("validation"), config=self.config
        )
        is_watched = False

        def judge(recommender: Recommender) -> dict[str, float]:
            nonlocal is_watched
            figures = measure(recommender)
            watch(figures)
            is_watched = True
            return figures

        fitted = fitted or partial(fit_recommender, view=view, config=self.config, choice={})
        if name == "blend":
            choice = self.choose_blend(self.splits["validation"])["choice"]
            parts = {part: fitted(part) for part in self.config.blend.generators}
            recommender: Recommender = self.fit_blend(view, parts, **choice)
        else:
            told: dict[str, Any] = {"fitted": fitted, "validate": judge, "log": log}
            recommender = fit_recommender(name, view, self.config, choice={}, **told)
        if not is_watched:
            judge(recommender)

    def _chosen(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self._model(name) / "chosen.json").read_text(encoding="utf-8")))

    def _check_generators(self) -> None:
        """Refuses, before an hour of fits, what one of them would refuse."""
        for name in self.config.fitted:
            if isinstance(self.config.generators.get(name), SameProductConfig | SiblingsConfig):
                check_product_codes(self.tables.articles, recommender=name)

    def train(self, *, force: bool = False) -> None:
        """Writes `models/<name>/`: settings chosen on validation, then fitted on all that test leaves visible."""
        self.prepare()
        self._check_generators()

        def write(name: str, folder: Path) -> None:
            chosen = self._choose(name)
            fitted = self._fit(name, "test", chosen.get("choice", {}), self._load)
            fitted.save(folder)
            self._project(name, fitted)
            (folder / "chosen.json").write_text(json.dumps(chosen, indent=2), encoding="utf-8")

        towers = {name for name, kind in self.config.servable.values() if kind == "scann"}
        # Told before anything is fitted; of towers that are fitted it was told then.
        if any(force or stored_fingerprint(self._model(name)) != self._trained(name) for name in towers):
            check_size(len(self.view("test").articles.in_store))
        for name in self.config.fitted:
            self._stage(self._model(name), self._trained(name), partial(write, name), force=force)

    def _project(self, name: str, fitted: Recommender) -> None:
        """Writes what TensorBoard's projector shows of towers, beside what their training logged."""
        told = self.config.tensorboard
        if told.enabled and told.num_projected and isinstance(fitted, IndexedTower):
            place = self.folder / "tensorboard" / name / "test"
            write_projector(place, project(fitted, self.view("test"), self.tables, config=self.config))

    def _load(self, name: str) -> Recommender:
        return load_recommender(name, self._model(name), self.config)

    def _fit(self, name: str, split: str, choice: dict[str, Any], fitted: Callable[[str], Recommender]) -> Recommender:
        """Fits on what a split leaves visible; `fitted` gives those that a recommender is made from, fitted on the same."""
        if name == "blend":
            generators = {part: fitted(part) for part in self.config.blend.generators}
            return self.fit_blend(self.view(split), generators, **choice)
        if isinstance(self.config.generators.get(name), TwoStageConfig):
            generators = {part: fitted(part) for part in self.config.blend.generators}
            return self.fit_two_stage(name, self.view(split), generators, **choice)
        view = self.view(split)
        return fit_recommender(name, view, self.config, choice=choice, fitted=fitted, log=self.log(name, split))
