"""Rankers: what they learn from, week by week, and their fits in a pipeline's run folder.

The rule of stacking: of each week that a ranker learns from, the candidates come from generators that were fitted before it, and
what keeps them from a selector of weeks before all of these; similarities come from recommenders that were fitted once, before
the first of these weeks, with histories rolled forward.
"""

import datetime
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from tfrs_fashion.data.split import Split, target_counts
from tfrs_fashion.evaluation.checks.doctor import RankerTraining
from tfrs_fashion.features.pair_lookups import make_pair_lookups
from tfrs_fashion.features.pairs import PairFeatureLayer
from tfrs_fashion.features.view import View
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.blend import Blend
from tfrs_fashion.recommenders.fit_blend import (
    LabelledPool,
    best_of_customers,
    fit_quotas,
    quota_scores,
    selector_scores,
)
from tfrs_fashion.recommenders.fit_ranker import (
    Calibration,
    RankerWeek,
    calibrate,
    check_weeks,
    fit_network,
    fit_trees,
    score_week,
)
from tfrs_fashion.recommenders.kinds import fit_recommender, load_recommender
from tfrs_fashion.recommenders.rankers import Ranker
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.recommenders.two_stage import PairDescriber, ScoringRecommender, TwoStage
from tfrs_fashion.run.objective import Objective
from tfrs_fashion.run.pools import MAX_SHOWN_PAIRS, Pooling, article_features, past_weeks, seen_until, week_name
from tfrs_fashion.run.ranker_weeks import describe_pairs, make_judge
from tfrs_fashion.settings.rankers import TwoStageConfig


@dataclass(frozen=True)
class FirstStage:
    """What keeps candidates, learned from weeks before those of a ranker.

    Attributes:
        score: Scores all pairs of a pool.
        make: Makes the blend of generators and of the features of articles at a cutoff.
    """

    score: Callable[[LabelledPool], np.ndarray]
    make: Callable[[dict[str, Recommender], np.ndarray], Blend]


class Ranking(Pooling):
    """Preparation, pools, and the rankers that learn from them."""

    def _two_stage(self, name: str) -> TwoStageConfig:
        settings = self.config.generators[name]
        assert isinstance(settings, TwoStageConfig)
        return settings

    def _groups(self, settings: TwoStageConfig) -> tuple[str, ...]:
        """The columns by which histories are told of; by default those that play a role, and the product code."""
        if settings.groups:
            return settings.groups
        roles = self.config.features.roles
        columns = [roles.category, roles.garment_group, roles.section]
        if "product_code" in self.tables.articles.columns:
            columns.append("product_code")
        return tuple(dict.fromkeys(column for column in columns if column))

    def _stacked_weeks(self, name: str, split: Split) -> tuple[list[Split], list[Split]]:
        """The weeks that rankers learn from, and those before them, which the first stage learns from; the latest first."""
        settings = self._two_stage(name)
        weeks = past_weeks(
            split, num_weeks=settings.weeks + settings.blend_weeks, week_days=self.config.blend.week_days
        )
        return weeks[: settings.weeks], weeks[settings.weeks :]

    @cached_property
    def _first_stages(self) -> dict[str, FirstStage]:
        return {}

    def _first_stage(self, name: str, split: Split) -> FirstStage:
        """What keeps the candidates of a ranker's weeks, and of an answer: the same, and so it is fitted once in a run."""
        ranked, before = self._stacked_weeks(name, split)
        keys = [self._pooled(week) for week in (*ranked, *before)]
        key = fingerprint("first stage", keys, len(ranked), self._two_stage(name).num_candidates)
        if key not in self._first_stages:
            self._first_stages[key] = self._fit_first_stage(name, split)
        return self._first_stages[key]

    def _fit_first_stage(self, name: str, split: Split) -> FirstStage:
        blend = self.config.blend
        ranked, _before = self._stacked_weeks(name, split)
        settings = self._two_stage(name)
        num_weeks = settings.weeks + settings.blend_weeks
        pools = self.pools(split, num_weeks=num_weeks, setting=f"generators.{name}.weeks")[len(ranked) :]
        quotas = fit_quotas(pools, budget=settings.num_candidates)
        selector = None if blend.method == "quotas" else self._selector(pools)

        def score(pool: LabelledPool) -> np.ndarray:
            return quota_scores(pool.rank, quotas) if selector is None else selector_scores(selector, pool)

        def make(generators: dict[str, Recommender], features: np.ndarray) -> Blend:
            return Blend(
                generators,
                num_candidates=blend.num_candidates,
                quotas=quotas,
                article_features=features,
                selector=selector,
                hidden_dims=blend.hidden_dims,
            )

        return FirstStage(score, make)

    def _similar(self, name: str, split: Split) -> dict[str, ScoringRecommender]:
        """The recommenders whose scores are features, fitted before the first week of a ranker; see `TwoStageConfig`."""
        ranked, _before = self._stacked_weeks(name, split)
        first, found = ranked[-1], {}

        def write(similar: str, folder: Path) -> None:
            view = self._make_view(first)
            # What is not in store by then may be so later.
            sold = np.flatnonzero(view.articles.num_baskets > 0).astype(np.int32)
            view = replace(view, articles=replace(view.articles, in_store=sold))
            fit_recommender(similar, view, self.config, choice={}, log=self.log(similar, first.name)).save(folder)
            told = {"fitted_as_of": seen_until(view)}
            (folder / "week.json").write_text(json.dumps(told, default=str), encoding="utf-8")

        for similar in self._two_stage(name).similar:
            folder = self._similar_folder(similar, first)
            self._stage(folder, self._similar_key(similar, first), partial(write, similar), force=False)
            found[similar] = cast(ScoringRecommender, load_recommender(similar, folder, self.config))
        return found

    def _similar_folder(self, similar: str, first: Split) -> Path:
        return self.folder / "similar" / week_name(first) / similar

    def _similar_key(self, similar: str, first: Split) -> str:
        config = self.config
        parts = (week_name(first), first.describe(), similar, config.settings_of(similar))
        return fingerprint("similar", self._shown, parts, config.split.model_dump(), config.seed)

    def _describer(self, name: str, view: View, similar: dict[str, ScoringRecommender]) -> PairDescriber:
        lookups = make_pair_lookups(view, self._groups(self._two_stage(name)))
        return PairDescriber(PairFeatureLayer(lookups), similar, self.config.blend.generators)

    def _week_folder(self, name: str, split: Split, week: Split) -> Path:
        # Several rankers that are told the same share it.
        return self.folder / "ranked" / f"{week.as_of:%Y-%m-%d}_{self._week_key(name, split, week)[:8]}"

    def _week_key(self, name: str, split: Split, week: Split) -> str:
        settings, blend = self._two_stage(name), self.config.blend
        ranked, before = self._stacked_weeks(name, split)
        own = settings.model_dump(exclude={"rankers", "combination", "network", "lightgbm", "weeks", "blend_weeks"})
        similar = [self._similar_key(other, ranked[-1]) for other in settings.similar]
        learned = ([self._pooled(other) for other in before], blend.model_dump())
        return fingerprint("ranked", self._pooled(week), own, similar, learned, week.describe())

    def ranker_weeks(self, name: str, split: Split) -> list[RankerWeek]:
        """Returns what a ranker before a split learns from, the latest week first, and writes what is not there yet.

        Args:
            name: Of the two stages.
            split: Before whose cutoff the weeks lie.

        Raises:
            InputError: A week holds no purchase, or no row lies before it.
        """
        ranked, _before = self._stacked_weeks(name, split)
        folders = [self._week_folder(name, split, week) for week in ranked]
        keys = [self._week_key(name, split, week) for week in ranked]
        if all(stored_fingerprint(folder) == key for folder, key in zip(folders, keys, strict=True)):
            return [RankerWeek.load(folder / "week.npz") for folder in folders]
        first_stage, similar = self._first_stage(name, split), self._similar(name, split)
        settings = self._two_stage(name)

        def write(week: Split, folder: Path) -> None:
            pool_folder = self._pool_folder(week)
            pool, view = LabelledPool.load(pool_folder / "pool.npz"), self._make_view(week)
            kept, _rank = best_of_customers(pool.customer, first_stage.score(pool), k=settings.num_candidates)
            describer = self._describer(name, view, similar)
            features = describe_pairs(describer, view, pool, kept, batch_size=self.config.recommend.batch_size)
            counts = target_counts(week, self.tables.transactions).execute()
            bought = counts.set_index(["customer_index", "article_index"])
            pairs = pd.MultiIndex.from_arrays([pool.customer_index[pool.customer[kept]], pool.article_index[kept]])
            told = bought.reindex(pairs).fillna(0)
            RankerWeek(
                customer=pool.customer[kept],
                customer_index=pool.customer_index,
                article_index=pool.article_index[kept],
                features=features,
                is_bought=pool.is_bought[kept],
                num_orders=told["num_orders"].to_numpy(np.int32),
                quantity=told["quantity"].to_numpy(np.float32),
            ).save(folder / "week.npz")
            record = json.loads((pool_folder / "week.json").read_text(encoding="utf-8"))
            first = self._stacked_weeks(name, split)[0][-1]
            for other in settings.similar:
                path = self._similar_folder(other, first) / "week.json"
                record["fitted_as_of"][other] = json.loads(path.read_text(encoding="utf-8"))["fitted_as_of"]
            record["names"] = list(describer.names)
            (folder / "week.json").write_text(json.dumps(record, indent=2), encoding="utf-8")

        for week, folder, key in zip(ranked, folders, keys, strict=True):
            self._stage(folder, key, partial(write, week), force=False)
        return [RankerWeek.load(folder / "week.npz") for folder in folders]

    def feature_names(self, name: str, split: Split) -> list[str]:
        """Names the features of what a ranker learned from, as it was stored."""
        ranked, _before = self._stacked_weeks(name, split)
        record = json.loads((self._week_folder(name, split, ranked[0]) / "week.json").read_text(encoding="utf-8"))
        return list(record["names"])

    def ranker_training(self, name: str, split: Split) -> list[RankerTraining]:
        """Returns what rankers before a split have learned from, as it was stored; nothing if some of it is gone."""
        ranked, _before = self._stacked_weeks(name, split)
        found = []
        for week in ranked:
            folder = self._week_folder(name, split, week)
            if stored_fingerprint(folder) != self._week_key(name, split, week):
                return []
            record = json.loads((folder / "week.json").read_text(encoding="utf-8"))
            pairs = RankerWeek.load(folder / "week.npz")
            rows = np.random.default_rng(self.config.seed).permutation(len(pairs.customer))[:MAX_SHOWN_PAIRS]
            found.append(
                RankerTraining(
                    recommender=name,
                    fitted_as_of={
                        made: datetime.datetime.fromisoformat(as_of) for made, as_of in record["fitted_as_of"].items()
                    },
                    first_week=datetime.datetime.fromisoformat(record["start"]),
                    features=pd.DataFrame(pairs.features[rows], columns=record["names"]),
                    labels=pairs.is_bought[rows],
                )
            )
        return found

    def _fit_ranker(
        self,
        name: str,
        ranker: str,
        weeks: Sequence[RankerWeek],
        view: View,
        *,
        length: int | None = None,
        held_out: tuple[RankerWeek, Callable[[np.ndarray], dict[str, float]]] | None = None,
        log: TrainingLog | None = None,
    ) -> tuple[Ranker, int]:
        """Fits one ranker, as long as was chosen, or as is best for a week that is held out."""
        settings, k, seed = self._two_stage(name), self.config.evaluation.k, self.config.seed
        log = log or self.log(name, view.split.name if held_out is None else "validation")
        told: dict[str, Any] = {"k": k, "seed": seed, "name": name, "log": log.part(ranker)}
        if ranker == "lightgbm":
            later = held_out[0] if held_out is not None else None
            return fit_trees(weeks, settings.lightgbm, held_out=later, num_rounds=length, **told)
        validate = None
        if held_out is not None:
            week, judge = held_out

            def validate(fitted: Ranker) -> dict[str, float]:
                return judge(score_week(fitted, week))

        return fit_network(
            weeks,
            settings.network,
            categories=view.articles.category_matrix(),
            category_sizes=view.articles.category_sizes,
            num_customers=view.timelines.num_customers,
            validate=validate,
            epochs=length,
            **told,
        )

    def choose_two_stage(self, name: str, split: Split) -> dict[str, Any]:
        """Chooses how long each ranker learns, and calibrates it, on the last week before a split.

        Returns:
            `choice`, of each ranker `length` and `calibration`; and `figures` of each and of all of them on that week.
        """
        settings, k = self._two_stage(name), self.config.evaluation.k
        ranked, _before = self._stacked_weeks(name, split)
        last, *earlier = self.ranker_weeks(name, split)
        check_weeks(earlier, name=name)
        check_weeks([last], name=name)
        judge = make_judge(last, self._targets_of(ranked[0]), k=k)
        view = self._make_view(split)
        choice, figures = {}, {}
        for ranker in settings.rankers:
            fitted, length = self._fit_ranker(name, ranker, earlier, view, held_out=(last, judge))
            score = score_week(fitted, last)
            choice[ranker] = {"length": length, "calibration": calibrate(score, last.is_bought)}
            figures[ranker] = judge(score)
            shown = "  ".join(f"{figure} {value:.4f}" for figure, value in figures[ranker].items())
            self.console.print(f"  {name}  {ranker}, {length} long: {shown}", highlight=False)
        return {"choice": {"rankers": choice}, "figures": figures}

    def judge_ranker(
        self,
        name: str,
        *,
        objective: Objective,
        watch: Callable[[dict[str, float]], None],
        log: TrainingLog | None = None,
    ) -> None:
        """Fits the ranker of two stages from all weeks before test but the last, and judges it on that, after each epoch.

        Args:
            name: Of two stages with one ranker.
            objective: A mean over customers of how well lists foretell what they bought.
            watch: Is told the figures; boosted trees are judged once, after the best of their rounds.
            log: Where progress is told.
        """
        settings, split, k = self._two_stage(name), self.splits["test"], self.config.evaluation.k
        (ranker,) = settings.rankers
        (week, *_others), _before = self._stacked_weeks(name, split)
        last, *earlier = self.ranker_weeks(name, split)
        wanted = self._targets_of(week)
        asked = make_judge(last, wanted, k=objective.k, metrics=(objective.metric,))
        plain = make_judge(last, wanted, k=k)

        def judge(score: np.ndarray) -> dict[str, float]:
            figures = plain(score)
            if f"val_{objective.figure}" not in figures:
                figures |= asked(score)
            figures = objective.order(objective.read(figures), figures)
            watch(figures)
            return figures

        fitted, _length = self._fit_ranker(
            name, ranker, earlier, self._make_view(split), held_out=(last, judge), log=log
        )
        if ranker == "lightgbm":
            judge(score_week(fitted, last))

    def fit_two_stage(
        self, name: str, view: View, generators: dict[str, Recommender], *, rankers: dict[str, dict[str, Any]]
    ) -> TwoStage:
        """Fits two stages from the weeks before a split.

        Args:
            name: As in `recommenders`.
            view: What the split leaves visible.
            generators: Of the blend, fitted from the view.
            rankers: What was chosen of each; see `choose_two_stage`.
        """
        settings, split = self._two_stage(name), view.split
        weeks = self.ranker_weeks(name, split)
        fitted: dict[str, Ranker] = {}
        for ranker in settings.rankers:
            chosen = rankers[ranker]
            found, _length = self._fit_ranker(name, ranker, weeks, view, length=chosen["length"])
            found.calibration = Calibration(*chosen["calibration"]).carry_over(score_week(found, weeks[0]))
            fitted[ranker] = found
        blend = self._first_stage(name, split).make(generators, article_features(view))
        return TwoStage(
            blend,
            self._describer(name, view, self._similar(name, split)),
            fitted,
            combination=settings.combination,
            budget=settings.num_candidates,
            name=name,
        )
