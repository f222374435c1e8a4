"""Pools: the candidates that generators, fitted before a past week, named for the customers who bought in it."""

import datetime
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf
from rich.progress import track

from tfrs_fashion.data.split import Split, days_before
from tfrs_fashion.evaluation.checks.doctor import RankerTraining
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.blend.blend import Pool, article_features, make_pool
from tfrs_fashion.recommenders.blend.fit import LabelledPool
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.evidence import latest_visible
from tfrs_fashion.run.fits import fit
from tfrs_fashion.run.workspace import Workspace
from tfrs_fashion.schema import InputError

# The checks rank every feature of a week's pairs; a sample of this size shows as much as all of them.
MAX_CHECKED_PAIRS = 100_000


def past_weeks(split: Split, *, num_weeks: int, week_days: int) -> list[Split]:
    """Cuts the last weeks before a split's cutoff, the latest first, at midnight.

    The cutoff of a week is its first day, so a fit for it has seen nothing that it is asked for; and a week lies within
    the split, so nothing that the split hides is asked for either.
    """
    end = split.as_of.replace(hour=0, minute=0, second=0, microsecond=0)
    if end < split.as_of:
        end += datetime.timedelta(days=1)
    starts = [days_before(end, week_days * (number + 1)) for number in range(num_weeks)]
    ends = [start + datetime.timedelta(days=week_days) for start in starts]
    return [
        Split(
            name=f"week from {start:%Y-%m-%d}",
            kind="window",
            as_of=start,
            end=end,
            # With one cutoff for all customers, a week is the same for every split after it, and is written once.
            within=None if split.cutoffs is None and end <= split.as_of else split,
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def week_name(week: Split) -> str:
    """Names the folder of a week; weeks within splits of several cutoffs differ from split to split."""
    within = "" if week.within is None else f"_{week.within.name}"
    return f"{week.as_of:%Y-%m-%d}{within}"


def seen_until(view: View) -> datetime.datetime:
    """Returns the first instant that a fit from a view has not seen: its cutoff, unless the view's rows go beyond it."""
    instants = [
        pd.to_datetime(rows["latest"], unit=None if name == "transactions" else "s").max()
        for name, rows in latest_visible(view).items()
        if len(rows)
    ]
    return max(
        [view.split.as_of, *(instant.to_pydatetime() + datetime.timedelta(microseconds=1) for instant in instants)]
    )


def label_pool(
    view: View, targets: pd.DataFrame, generators: list[Recommender], *, num_candidates: int, batch_size: int
) -> LabelledPool:
    """Collects the generators' candidates for each customer who bought in a week and was known before it.

    Args:
        view: What is visible before the week.
        targets: `customer_index, article_index` bought in it.
        generators: Candidate generators fitted from the view.
        num_candidates: Candidates per generator and customer.
        batch_size: Customers per call.
    """
    table = HistoryTable(view.timelines, view.profiles)
    cutoff = tf.constant(view.now)
    # Customers who were not known yet all look the same: nothing can be learned about which generator serves them best.
    targets = targets[targets["customer_index"] < len(view.now)]
    customers = np.unique(targets["customer_index"].to_numpy(np.int32))

    @tf.function(input_signature=(tf.TensorSpec([None], tf.int32),), autograph=False)
    def generate(customer_index: tf.Tensor) -> Pool:
        exclude = tf.zeros([tf.shape(customer_index)[0], 0], tf.int32)
        now = tf.gather(cutoff, customer_index)
        return make_pool(generators, table(customer_index), now=now, num_candidates=num_candidates, exclude=exclude)

    batches = []
    # If every buyer is new there is nothing to batch; one empty batch still fixes the shapes.
    for start in range(0, max(len(customers), 1), batch_size):
        pool = generate(tf.constant(customers[start : start + batch_size]))
        batches.append([values.numpy() for values in pool._replace(row=pool.row + start)])
    customer, article_index, score, rank, context = (np.concatenate(values) for values in zip(*batches, strict=True))
    bought = pd.MultiIndex.from_frame(targets[["customer_index", "article_index"]])
    return LabelledPool(
        customer=customer.astype(np.int32),
        customer_index=customers,
        article_index=article_index,
        score=score,
        rank=rank.astype(np.int16),
        context=context,
        article_features=article_features(view),
        is_bought=pd.MultiIndex.from_arrays([customers[customer], article_index]).isin(bought),
        num_bought=targets.groupby("customer_index").size().to_numpy(np.int32),
    )


def read_training(folder: Path, *, name: str, seed: int) -> RankerTraining:
    """Reads how the pool of one week was made, and a sample of what is learned from it, for the checks.

    Args:
        folder: The folder of the pool.
        name: The recommender that learns from it.
        seed: The seed of the sample, of `MAX_CHECKED_PAIRS` at most.
    """
    record = json.loads((folder / "week.json").read_text(encoding="utf-8"))
    pool = LabelledPool.load(folder / "pool.npz")
    rows = np.random.default_rng(seed).permutation(len(pool.customer))[:MAX_CHECKED_PAIRS]
    groups = {"score": pool.score, "rank": pool.rank, "customer": pool.context}
    names = {"score": list(record["fitted_as_of"]), "rank": list(record["fitted_as_of"])}
    features = {
        f"{group} {names[group][column] if group in names else column}": values[rows, column]
        for group, values in groups.items()
        for column in range(values.shape[1])
    }
    article = pool.article_features[pool.article_index[rows]]
    features |= {f"article {column}": article[:, column] for column in range(article.shape[1])}
    return make_training(name, record, pd.DataFrame(features), pool.is_bought[rows])


def make_training(name: str, record: dict, features: pd.DataFrame, labels: np.ndarray) -> RankerTraining:
    """Describes one week of a ranker's training data for the checks.

    Args:
        name: The recommender that learns from the week.
        record: The week's `week.json`.
        features: `[num_pairs, num_features]`.
        labels: `[num_pairs]` bool.
    """
    return RankerTraining(
        recommender=name,
        fitted_as_of={part: datetime.datetime.fromisoformat(as_of) for part, as_of in record["fitted_as_of"].items()},
        first_week=datetime.datetime.fromisoformat(record["start"]),
        features=features,
        labels=labels,
    )


class Pools:
    """The pools of the weeks before a split, for one blend; a pool that is missing is written on demand.

    Args:
        workspace: The run.
        name: A recommender of kind `blend`.
        split: The weeks lie before its cutoff.
        setting: The setting that asks for weeks, for messages.
    """

    def __init__(self, workspace: Workspace, name: str, split: Split, *, setting: str = "") -> None:
        self.name, self.split = name, split
        self.blend = workspace.config.recommender[name]
        self._workspace = workspace
        self._setting = setting or f"recommender.{name}.weeks"

    def weeks(self, num_weeks: int) -> list[Split]:
        """Returns the last weeks before the split's cutoff, the latest first."""
        return past_weeks(self.split, num_weeks=num_weeks, week_days=self.blend.week_days)

    def key(self, week: Split, workspace: Workspace | None = None) -> str:
        """Returns the fingerprint of a week's pool, for the settings of this or another workspace."""
        workspace = workspace or self._workspace
        config = workspace.config
        blend = config.recommender[self.name]
        generators = {name: config.settings_of(name) for name in blend.generators}
        parts = (week_name(week), week.describe(), list(generators), generators, config.features.model_dump())
        split = config.split.model_dump()
        return fingerprint("pool", workspace.input_fingerprint, parts, split, blend.num_candidates, config.seed)

    def folder(self, week: Split) -> Path:
        """Returns where the pool of a week is stored."""
        return self._workspace.stage_folder(f"pools/{week_name(week)}_{self.name}", partial(self.key, week))

    def pools(self, num_weeks: int, *, skip: int = 0) -> list[LabelledPool]:
        """Returns the pools of the last weeks before the split, the latest first.

        Args:
            num_weeks: The number of pools.
            skip: The number of latest weeks to leave out.

        Raises:
            InputError: A week has no purchases, or no row lies before it.
        """
        weeks = self.weeks(skip + num_weeks)
        for week in weeks:
            write = partial(self._write, week, len(weeks))
            self._workspace.write_stage(self.folder(week), self.key(week), write)
        return [LabelledPool.load(self.folder(week) / "pool.npz") for week in weeks[skip:]]

    def _write(self, week: Split, num_weeks: int, folder: Path) -> None:
        workspace, blend = self._workspace, self.blend
        targets = workspace.targets(week)
        first = workspace.tables.transactions.t_dat.min().execute().to_pydatetime()
        if not len(targets) or first >= week.as_of:
            raise InputError(
                f"`{self._setting}` asks for {num_weeks} weeks before {self.split.as_of:%Y-%m-%d}, but the {week.name} has "
                f"{len(targets):,} purchase(s) (the data begin on {first:%Y-%m-%d}). Lower it, or leave the recommenders that "
                "learn from these weeks out of `recommenders`."
            )
        view = workspace.make_view(week)
        title = f"generators before {week.as_of:%Y-%m-%d}"
        names = track(blend.generators, title, console=workspace.console, transient=True)
        generators = [fit(workspace, name, view) for name in names]
        # The checks read what was done here, not what should have been done.
        record = {"start": week.as_of, "fitted_as_of": dict.fromkeys(blend.generators, seen_until(view))}
        (folder / "week.json").write_text(json.dumps(record, indent=2, default=str), encoding="utf-8")
        batch_size = workspace.config.recommend.batch_size
        pool = label_pool(view, targets, generators, num_candidates=blend.num_candidates, batch_size=batch_size)
        pool.save(folder / "pool.npz")

    def trainings(self) -> list[RankerTraining]:
        """Returns what the blend has learned from, week by week, as it was stored; empty if a pool is missing.

        The weeks on which its method was chosen are included.
        """
        weeks = self.weeks(self.blend.weeks + self.blend.validation_weeks)
        if any(stored_fingerprint(self.folder(week)) != self.key(week) for week in weeks):
            return []
        return [read_training(self.folder(week), name=self.name, seed=self._workspace.config.seed) for week in weeks]
