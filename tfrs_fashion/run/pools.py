"""Pools of past weeks: what the generators of a blend, fitted before a week, named of what was bought in it."""

import datetime
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from rich.progress import track

from tfrs_fashion.data.split import Split, days_before
from tfrs_fashion.evaluation.checks.doctor import RankerTraining
from tfrs_fashion.evaluation.report.contributions import BlendEvidence, BlendWeek, measure_contributions, pool_weeks
from tfrs_fashion.features.inputs import HistoryTable
from tfrs_fashion.features.view import View
from tfrs_fashion.models.selector import Selector
from tfrs_fashion.outputs import fingerprint, stored_fingerprint
from tfrs_fashion.recommenders.blend import Blend, Pool, make_pool
from tfrs_fashion.recommenders.fit_blend import LabelledPool, fit_quotas, fit_selector, quota_scores, selector_scores
from tfrs_fashion.recommenders.kinds import fit_recommender
from tfrs_fashion.recommenders.recommender import Recommender
from tfrs_fashion.run.evidence import latest_visible
from tfrs_fashion.run.workspace import Preparation
from tfrs_fashion.schema import InputError

# The doctor ranks every feature of a week's pairs; so many tell as much as all.
MAX_SHOWN_PAIRS = 100_000


def past_weeks(split: Split, *, num_weeks: int, week_days: int) -> list[Split]:
    """Cuts the last weeks before a split's cutoff, the latest first, at midnight.

    A week's own cutoff is its first day, so what is fitted for it has seen nothing that it is asked for; and it lies within
    the split, so that nothing which the split hides is asked for either.
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
            # Where all are cut at one instant, a week is the same for every split that it lies before, and is made once.
            within=None if split.cutoffs is None and end <= split.as_of else split,
        )
        for start, end in zip(starts, ends, strict=True)
    ]


def week_name(week: Split) -> str:
    """Names a week as folders do: weeks within splits of several cutoffs differ from split to split."""
    within = "" if week.within is None else f"_{week.within.name}"
    return f"{week.as_of:%Y-%m-%d}{within}"


def seen_until(view: View) -> datetime.datetime:
    """Returns the first instant that a fit from a view has not seen: its cutoff, unless the view's rows go beyond it."""
    latest = latest_visible(view)
    instants = [
        pd.to_datetime(rows["latest"], unit=None if name == "transactions" else "s").max()
        for name, rows in latest.items()
        if len(rows)
    ]
    return max(
        [view.split.as_of, *(instant.to_pydatetime() + datetime.timedelta(microseconds=1) for instant in instants)]
    )


def article_features(view: View) -> np.ndarray:
    """Returns what is known of each article at the cutoff: `[num_articles + 2, num_features]` float32, NaN where unknown."""
    return view.read_weeks(1).values[0]


def label_pool(
    view: View, targets: pd.DataFrame, generators: list[Recommender], *, num_candidates: int, batch_size: int
) -> LabelledPool:
    """Asks generators for every customer known before a week who bought in it.

    Args:
        view: What is visible before the week.
        targets: `customer_index, article_index` bought in it.
        generators: Fitted from the view.
        num_candidates: Candidates that each is asked for.
        batch_size: Customers a call.
    """
    table = HistoryTable(view.timelines, view.profiles)
    cutoff = tf.constant(view.now)
    # Customers who were not known yet cannot be told apart: there is nothing to learn of whom to believe for them.
    targets = targets[targets["customer_index"] < len(view.now)]
    customers = np.unique(targets["customer_index"].to_numpy(np.int32))

    @tf.function(input_signature=(tf.TensorSpec([None], tf.int32),), autograph=False)
    def ask(customer_index: tf.Tensor) -> Pool:
        exclude = tf.zeros([tf.shape(customer_index)[0], 0], tf.int32)
        now = tf.gather(cutoff, customer_index)
        return make_pool(generators, table(customer_index), now=now, num_candidates=num_candidates, exclude=exclude)

    parts = []
    # Where every buyer is new, an empty batch tells the shapes.
    for start in range(0, max(len(customers), 1), batch_size):
        found = ask(tf.constant(customers[start : start + batch_size]))
        parts.append([values.numpy() for values in found._replace(row=found.row + start)])
    customer, article_index, score, rank, context = (np.concatenate(values) for values in zip(*parts, strict=True))
    wanted = pd.MultiIndex.from_frame(targets[["customer_index", "article_index"]])
    return LabelledPool(
        customer=customer.astype(np.int32),
        customer_index=customers,
        article_index=article_index,
        score=score,
        rank=rank.astype(np.int16),
        context=context,
        article_features=article_features(view),
        is_bought=pd.MultiIndex.from_arrays([customers[customer], article_index]).isin(wanted),
        num_bought=targets.groupby("customer_index").size().to_numpy(np.int32),
    )


def read_training(folder: Path, *, name: str, seed: int) -> RankerTraining:
    """Reads what a pool of one week says of its making, and a sample of what is learned from it.

    Args:
        folder: Of the pool.
        name: Of what learns from it.
        seed: Of the sample, of `MAX_SHOWN_PAIRS` at most.
    """
    record = json.loads((folder / "week.json").read_text(encoding="utf-8"))
    pool = LabelledPool.load(folder / "pool.npz")
    rows = np.random.default_rng(seed).permutation(len(pool.customer))[:MAX_SHOWN_PAIRS]
    parts = {"score": pool.score, "rank": pool.rank, "customer": pool.context}
    names = {"score": list(record["fitted_as_of"]), "rank": list(record["fitted_as_of"])}
    features = {
        f"{part} {names[part][column] if part in names else column}": values[rows, column]
        for part, values in parts.items()
        for column in range(values.shape[1])
    }
    article = pool.article_features[pool.article_index[rows]]
    features |= {f"article {column}": article[:, column] for column in range(article.shape[1])}
    return RankerTraining(
        recommender=name,
        fitted_as_of={made: datetime.datetime.fromisoformat(as_of) for made, as_of in record["fitted_as_of"].items()},
        first_week=datetime.datetime.fromisoformat(record["start"]),
        features=pd.DataFrame(features),
        labels=pool.is_bought[rows],
    )


class Pooling(Preparation):
    """Preparation, and the pools that blends learn from."""

    def _pool_folder(self, week: Split) -> Path:
        return self.folder / "pools" / week_name(week)

    def _pooled(self, week: Split) -> str:
        blend = self.config.blend
        generators = {name: self.config.settings_of(name) for name in blend.generators}
        parts = (week_name(week), week.describe(), list(generators), generators, self.config.features.model_dump())
        return fingerprint(
            "pool", self._shown, parts, self.config.split.model_dump(), blend.num_candidates, self.config.seed
        )

    def pools(self, split: Split, *, num_weeks: int, setting: str = "blend.weeks") -> list[LabelledPool]:
        """Returns the pools of the weeks before a split, the latest first, and writes those that are not there yet.

        Args:
            split: Before whose cutoff the weeks lie.
            num_weeks: How many.
            setting: That says so, for messages.

        Raises:
            InputError: A week holds no purchase, or no row lies before it.
        """
        blend = self.config.blend
        weeks = past_weeks(split, num_weeks=num_weeks, week_days=blend.week_days)

        def write(week: Split, folder: Path) -> None:
            targets = self._targets_of(week)
            first = self.tables.transactions.t_dat.min().execute().to_pydatetime()
            if not len(targets) or first >= week.as_of:
                raise InputError(
                    f"{setting}: the {week.name} has {len(targets):,} purchase(s) in it, and the transactions begin on "
                    f"{first:%Y-%m-%d}. {num_weeks} weeks before {split.as_of:%Y-%m-%d} are asked for: lower `{setting}`, or leave "
                    "what learns from them out of `recommenders`."
                )
            view = self._make_view(week)
            names = track(
                blend.generators, f"generators before {week.as_of:%Y-%m-%d}", console=self.console, transient=True
            )
            generators = [fit_recommender(name, view, self.config, choice={}) for name in names]
            # What the doctor is shown is what was done here, and not what should have been.
            record = {"start": week.as_of, "fitted_as_of": dict.fromkeys(blend.generators, seen_until(view))}
            (folder / "week.json").write_text(json.dumps(record, indent=2, default=str), encoding="utf-8")
            pool = label_pool(
                view,
                targets,
                generators,
                num_candidates=blend.num_candidates,
                batch_size=self.config.recommend.batch_size,
            )
            pool.save(folder / "pool.npz")

        for week in weeks:
            self._stage(self._pool_folder(week), self._pooled(week), partial(write, week), force=False)
        return [LabelledPool.load(self._pool_folder(week) / "pool.npz") for week in weeks]

    def blend_training(self, split: Split) -> list[RankerTraining]:
        """Returns what a blend before a split has learned from, week by week, as it was stored; nothing if a pool is gone.

        The weeks by which it was chosen how to blend are among them.
        """
        blend = self.config.blend
        weeks = past_weeks(split, num_weeks=blend.weeks + blend.validation_weeks, week_days=blend.week_days)
        folders = {self._pool_folder(week): self._pooled(week) for week in weeks}
        if any(stored_fingerprint(folder) != wanted for folder, wanted in folders.items()):
            return []
        return [read_training(folder, name="blend", seed=self.config.seed) for folder in folders]

    def _selector(self, pools: list[LabelledPool]) -> Selector:
        settings = self.config.blend.model_dump(
            include={
                *("num_candidates", "hidden_dims", "epochs", "batch_size", "learning_rate", "negative_share"),
            }
        )
        return fit_selector(pools, **settings, seed=self.config.seed)

    def choose_blend(self, split: Split) -> dict[str, Any]:
        """Compares both ways to blend on the last weeks before a split, each learned from the weeks before it.

        Returns:
            `choice` of the `method`, and `blend`, a `BlendEvidence`.
        """
        blend = self.config.blend
        pools = self.pools(split, num_weeks=blend.weeks + blend.validation_weeks)
        weeks = past_weeks(split, num_weeks=blend.validation_weeks, week_days=blend.week_days)
        found, fitted = [], []
        for number, week in enumerate(weeks):
            judged, known = pools[number], pools[number + 1 : number + 1 + blend.weeks]
            quotas = fit_quotas(known, budget=blend.budget)
            fitted.append(quotas)
            recall = {
                "selector": judged.recall(selector_scores(self._selector(known), judged), k=blend.budget),
                "quotas": judged.recall(quota_scores(judged.rank, quotas), k=blend.budget),
            }
            found.append(BlendWeek(f"{week.as_of:%Y-%m-%d}", len(judged.num_bought), recall))
            shown = "  ".join(f"{method} {value:.4f}" for method, value in recall.items())
            self.console.print(f"  blend  week from {found[-1].start}  recall@{blend.budget}: {shown}", highlight=False)
        recall = pool_weeks(found)
        judged = pools[0]
        contributions = measure_contributions(
            blend.generators,
            judged.rank,
            judged.is_bought,
            judged.weight,
            num_customers=len(judged.num_bought),
            quotas=fitted[0],
        )
        method = max(recall, key=lambda name: recall[name]) if blend.method == "best" else blend.method
        evidence = BlendEvidence(
            budget=blend.budget,
            weeks=tuple(found),
            recall=recall,
            method=method,
            pool=judged.recall(np.zeros(len(judged.customer)), k=len(judged.customer)),
            candidates=len(judged.customer) / len(judged.num_bought),
            contributions=contributions,
        )
        return {"choice": {"method": method}, "blend": asdict(evidence)}

    def fit_blend(self, view: View, generators: dict[str, Recommender], *, method: str) -> Blend:
        """Fits a blend from the weeks before a split.

        Args:
            view: What the split leaves visible.
            generators: Fitted from the view.
            method: `selector` or `quotas`.
        """
        blend = self.config.blend
        pools = self.pools(view.split, num_weeks=blend.weeks)
        return Blend(
            generators,
            num_candidates=blend.num_candidates,
            quotas=fit_quotas(pools, budget=blend.budget),
            article_features=article_features(view),
            selector=self._selector(pools) if method == "selector" else None,
            hidden_dims=blend.hidden_dims,
        )
