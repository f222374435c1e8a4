"""The weeks that the rankers of two stages learn from.

Stacking: for each week that a ranker learns from, the candidates come from generators fitted before that week; which of
them are kept is decided by a first stage learned from weeks before all of these; and similarities come from recommenders
fitted once, before the first of these weeks, while the histories move on week by week.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrs_fashion.data.split import Split, target_counts
from tfrs_fashion.evaluation.checks.doctor import RankerTraining
from tfrs_fashion.evaluation.metrics.customer_metrics import customer_metrics
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.blend.fit import FirstStage, LabelledPool, best_of_customers, fit_first_stage
from tfrs_fashion.recommenders.kinds import load_recommender
from tfrs_fashion.recommenders.two_stage.fit import make_describer
from tfrs_fashion.recommenders.two_stage.ranker_weeks import RankerWeek
from tfrs_fashion.recommenders.two_stage.two_stage import PairDescriber, ScoringRecommender
from tfrs_fashion.run.fits import fit
from tfrs_fashion.run.pools import MAX_CHECKED_PAIRS, Pools, make_training, past_weeks, seen_until, week_name
from tfrs_fashion.run.workspace import Workspace


def describe_pairs(
    describer: PairDescriber, view: View, pool: LabelledPool, kept: np.ndarray, *, batch_size: int
) -> np.ndarray:
    """Computes the pair features of a pool exactly as they are computed in serving.

    Args:
        describer: The pair features over the pool's generators.
        view: What is visible before the week.
        pool: The pool of the week.
        kept: `[num_kept]` positions of the pairs to describe, customers ascending.
        batch_size: Customers per call.

    Returns:
        `[num_kept, num_features]` float32.
    """
    table, cutoff = HistoryTable(view.timelines, view.profiles), tf.constant(view.now)
    num_generators = pool.rank.shape[1]

    @tf.function(
        input_signature=(
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.int32),
            tf.TensorSpec([None, num_generators], tf.float32),
            tf.TensorSpec([None, num_generators], tf.float32),
        ),
        autograph=False,
    )
    def describe(
        customer_index: tf.Tensor, row: tf.Tensor, article: tf.Tensor, score: tf.Tensor, rank: tf.Tensor
    ) -> tf.Tensor:
        now = tf.gather(cutoff, customer_index)
        return describer(table(customer_index), now, row, article, score, rank)

    features = np.empty((len(kept), len(describer.names)), np.float32)
    customer = pool.customer[kept]
    for start in np.arange(0, len(pool.customer_index), batch_size):
        first, end = np.searchsorted(customer, (start, start + batch_size))
        rows = kept[first:end]
        features[first:end] = describe(
            pool.customer_index[start : start + batch_size],
            customer[first:end].astype(np.int64) - start,
            pool.article_index[rows],
            pool.score[rows],
            pool.rank[rows].astype(np.float32),
        )
    return features


def best_articles(week: RankerWeek, score: np.ndarray, *, k: int) -> pd.DataFrame:
    """Returns each customer's k best candidates of a week, as Candidates without scores and sources.

    Args:
        week: The week with its candidates.
        score: `[num_pairs]`; ties keep the order of the pairs.
        k: Candidates per customer.
    """
    taken, rank = best_of_customers(week.customer, score, k=k)
    return pd.DataFrame(
        {
            "customer_index": week.customer_index[week.customer[taken]],
            "article_index": week.article_index[taken],
            "rank": rank.astype(np.int32),
        }
    )


def make_week_validator(
    week: RankerWeek, targets: pd.DataFrame, *, k: int, metrics: Sequence[str] = ("map", "recall")
) -> Callable[[np.ndarray], dict[str, float]]:
    """Makes the function that evaluates scores of a week's candidates.

    Args:
        week: A week that the ranker has not learned from.
        targets: `customer_index, article_index` bought in it.
        k: Length of the lists.
        metrics: Names in `CUSTOMER_METRICS`; early stopping goes by the first.

    Returns:
        A function from `[num_pairs]` scores to `val_<metric>@k`, means over everyone who bought in the week.
    """

    def evaluate(score: np.ndarray) -> dict[str, float]:
        means = customer_metrics(best_articles(week, score, k=k), targets, k=k).mean()
        return {f"val_{name}@{k}": float(means[name]) for name in metrics}

    return evaluate


class RankerWeeks:
    """The weeks that the rankers of two stages learn from, before a split; a missing one is written on demand.

    Args:
        workspace: The run.
        name: A recommender of kind `two_stage`.
        split: The weeks lie before its cutoff.
    """

    def __init__(self, workspace: Workspace, name: str, split: Split) -> None:
        self.name, self.split = name, split
        self.settings = workspace.config.recommender[name]
        self.blend = workspace.config.recommender[self.settings.blend]
        self._workspace = workspace
        self._pools = Pools(workspace, self.settings.blend, split, setting=f"recommender.{name}.weeks")

    @property
    def weeks(self) -> list[Split]:
        """The weeks that the rankers learn from, the latest first."""
        return past_weeks(self.split, num_weeks=self.settings.weeks, week_days=self.blend.week_days)

    def _blend_weeks(self) -> list[Split]:
        """The weeks before these, which the first stage learns from; the latest first."""
        return self._pools.weeks(self.settings.weeks + self.settings.blend_weeks)[self.settings.weeks :]

    # the first stage

    def first_stage(self) -> FirstStage:
        """Returns what keeps the best candidates of a pool: one for all the weeks and for serving, fitted once per run."""
        settings = self.settings
        keys = [self._pools.key(week) for week in (*self.weeks, *self._blend_weeks())]
        key = fingerprint("first stage", keys, settings.weeks, settings.num_candidates, self.blend.model_dump())
        if key not in self._workspace.kept:
            pools = self._pools.pools(settings.blend_weeks, skip=settings.weeks)
            seed = self._workspace.config.seed
            self._workspace.kept[key] = fit_first_stage(pools, self.blend, budget=settings.num_candidates, seed=seed)
        return cast(FirstStage, self._workspace.kept[key])

    # similarities

    def _similar_key(self, similar: str, workspace: Workspace) -> str:
        first, config = self.weeks[-1], workspace.config
        parts = (week_name(first), first.describe(), similar, config.settings_of(similar))
        return fingerprint("similar", workspace.input_fingerprint, parts, config.split.model_dump(), config.seed)

    def _similar_folder(self, similar: str) -> Path:
        path = f"similar/{week_name(self.weeks[-1])}/{similar}"
        return self._workspace.stage_folder(path, partial(self._similar_key, similar))

    def similar(self) -> dict[str, ScoringRecommender]:
        """Returns the recommenders whose scores are pair features, fitted before the first of the weeks."""
        workspace, first, recommenders = self._workspace, self.weeks[-1], {}

        def write(similar: str, folder: Path) -> None:
            view = workspace.make_view(first)
            # An article that is not in store by then may be so in a later week.
            sold = np.flatnonzero(view.articles.num_baskets > 0).astype(np.int32)
            view = replace(view, articles=replace(view.articles, in_store=sold))
            fit(workspace, similar, view, log=workspace.log(similar, first.name)).save(folder)
            record = {"fitted_as_of": seen_until(view)}
            (folder / "week.json").write_text(json.dumps(record, default=str), encoding="utf-8")

        for similar in self.settings.similar:
            folder = self._similar_folder(similar)
            workspace.write_stage(folder, self._similar_key(similar, workspace), partial(write, similar))
            recommenders[similar] = cast(ScoringRecommender, load_recommender(folder))
        return recommenders

    # the weeks

    def _key(self, week: Split) -> str:
        own = self.settings.model_dump(
            exclude={"rankers", "combination", "network", "lightgbm", "weeks", "blend_weeks"}
        )
        similar = [self._similar_key(other, self._workspace) for other in self.settings.similar]
        first_stage = ([self._pools.key(other) for other in self._blend_weeks()], self.blend.model_dump())
        return fingerprint("ranked", self._pools.key(week), own, similar, first_stage, week.describe())

    def _folder(self, week: Split) -> Path:
        # Rankers that read the same features share it.
        return self._workspace.folder / "ranked" / f"{week.as_of:%Y-%m-%d}_{self._key(week)[:8]}"

    def _is_stored(self, week: Split) -> bool:
        return stored_fingerprint(self._folder(week)) == self._key(week)

    def _record(self, week: Split) -> dict[str, Any]:
        return dict(json.loads((self._folder(week) / "week.json").read_text(encoding="utf-8")))

    def ranker_weeks(self) -> list[RankerWeek]:
        """Returns what the rankers learn from, the latest week first.

        Raises:
            InputError: A week has no purchases, or no row lies before it.
        """
        if not all(self._is_stored(week) for week in self.weeks):
            write = partial(self._write, first_stage=self.first_stage(), similar=self.similar())
            self._pools.pools(self.settings.weeks)
            for week in self.weeks:
                self._workspace.write_stage(self._folder(week), self._key(week), partial(write, week))
        return [RankerWeek.load(self._folder(week) / "week.npz") for week in self.weeks]

    def _write(
        self, week: Split, folder: Path, *, first_stage: FirstStage, similar: dict[str, ScoringRecommender]
    ) -> None:
        workspace, settings = self._workspace, self.settings
        pool_folder = self._pools.folder(week)
        pool, view = LabelledPool.load(pool_folder / "pool.npz"), workspace.make_view(week)
        kept, _rank = best_of_customers(pool.customer, first_stage.score(pool), k=settings.num_candidates)
        describer = make_describer(settings, view, similar, self.blend.generators)
        batch_size = workspace.config.recommend.batch_size
        features = describe_pairs(describer, view, pool, kept, batch_size=batch_size)
        counts = target_counts(week, workspace.tables.transactions).execute()
        pairs = pd.MultiIndex.from_arrays([pool.customer_index[pool.customer[kept]], pool.article_index[kept]])
        bought = counts.set_index(["customer_index", "article_index"]).reindex(pairs).fillna(0)
        RankerWeek(
            customer=pool.customer[kept],
            customer_index=pool.customer_index,
            article_index=pool.article_index[kept],
            features=features,
            is_bought=pool.is_bought[kept],
            num_orders=bought["num_orders"].to_numpy(np.int32),
            quantity=bought["quantity"].to_numpy(np.float32),
        ).save(folder / "week.npz")
        record = json.loads((pool_folder / "week.json").read_text(encoding="utf-8"))
        for other in settings.similar:
            path = self._similar_folder(other) / "week.json"
            record["fitted_as_of"][other] = json.loads(path.read_text(encoding="utf-8"))["fitted_as_of"]
        record["names"] = list(describer.names)
        (folder / "week.json").write_text(json.dumps(record, indent=2), encoding="utf-8")

    def feature_names(self) -> list[str]:
        """Returns the names of the pair features, as they were stored."""
        return list(self._record(self.weeks[0])["names"])

    def trainings(self) -> list[RankerTraining]:
        """Returns what the rankers have learned from, week by week, as it was stored; empty if some of it is missing."""
        if not all(self._is_stored(week) for week in self.weeks):
            return []
        trainings = []
        for week in self.weeks:
            record, pairs = self._record(week), RankerWeek.load(self._folder(week) / "week.npz")
            rows = np.random.default_rng(self._workspace.config.seed).permutation(len(pairs.customer))
            rows = rows[:MAX_CHECKED_PAIRS]
            features = pd.DataFrame(pairs.features[rows], columns=record["names"])
            trainings.append(make_training(self.name, record, features, pairs.is_bought[rows]))
        return trainings


# What each kind that learns from past weeks learns from.
PAST_WEEKS: dict[str, type[Pools] | type[RankerWeeks]] = {"blend": Pools, "two_stage": RankerWeeks}


def past_weeks_of(workspace: Workspace, name: str, split: Split) -> Pools | RankerWeeks | None:
    """Returns the past weeks before a split that a recommender learns from; None if its kind learns from none."""
    make = PAST_WEEKS.get(workspace.config.recommender[name].kind)
    return None if make is None else make(workspace, name, split)
