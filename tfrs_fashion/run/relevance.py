"""The relevance classifier, judged in two settings: as one study did, which leaks, and honestly.

The study adds up a customer's purchases of an article over all days, takes the class of the count as label and the quantity and the
price of the same purchases as features, and divides the pairs by chance. The honest setting sees what was before a cutoff and tells the
class of what comes after it, of customers that the models have not learned from.
"""

import datetime
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import rich.box
from ibis import _
from rich.table import Table

from tfrs_fashion.evaluation.checks.finding import Finding
from tfrs_fashion.evaluation.checks.leakage import find_labels_in_features
from tfrs_fashion.evaluation.metrics.classification import (
    bootstrap_macro_f1,
    choose_factors,
    count_confusion,
    macro_f1,
    measure_classes,
)
from tfrs_fashion.evaluation.report.relevance_page import TITLES, write_relevance_report
from tfrs_fashion.features.articles import read_values
from tfrs_fashion.features.hashed_words import HashedWords, hash_texts
from tfrs_fashion.features.relevance import (
    AMOUNTS,
    CLASSES,
    NONE,
    PAIR,
    classify,
    count_pairs,
    describe_pairs,
    list_orders,
)
from tfrs_fashion.models.relevance import Imbalance
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.outputs import fingerprint
from tfrs_fashion.recommenders.fit_relevance import (
    MODELS,
    ModelKind,
    Pairs,
    fit_class_odds,
    fit_later_orders,
    fit_relevance_network,
    fit_relevance_trees,
)
from tfrs_fashion.run.workspace import Preparation
from tfrs_fashion.schema import InputError

# What may be done about rare classes.
IMBALANCES: dict[str, tuple[Imbalance, ...]] = {
    "network": ("none", "weights", "focal"),
    "trees": ("none", "weights"),
    "linear": ("none",),
}
_NUM_PARTS = 5


class Relevance(Preparation):
    """Classifiers of relevance in a pipeline's run folder."""

    def relevance(self, *, force: bool = False) -> None:
        """Writes `relevance/`: what each model tells in both settings.

        Raises:
            InputError: There is nothing before or after the cutoff.
        """
        self.prepare()
        settings = self.config.relevance
        folder = self.folder / "relevance"

        def write(partial: Path) -> None:
            words = hash_texts(
                ["", "", *(text or "" for text in read_values(self.tables.articles, "description"))],
                num_buckets=settings.num_text_buckets,
            )
            cutoff = self._relevance_cutoff()
            found = {
                # One part, as the study; all of them where fewer pairs are told of.
                "study": self._judge(
                    self._study_pairs(), words, folds=_random_folds, num_judged=1, title=TITLES["study"]
                ),
                "honest": self._judge(
                    self._honest_pairs(cutoff),
                    words,
                    folds=_customer_folds,
                    num_judged=settings.num_folds,
                    title=TITLES["honest"],
                ),
            }
            for name, (seen, labelled) in self._sides(cutoff).items():
                until, since = (found.execute().to_pydatetime() for found in (seen.t_dat.max(), labelled.t_dat.min()))
                leak = find_labels_in_features(until, since, recommender=f"relevance, {TITLES[name]}")
                found[name]["findings"] = [] if leak is None else [asdict(leak)]
            told = {"cutoff": f"{cutoff:%Y-%m-%d}", "settings": settings.model_dump(mode="json")}
            write_relevance_report(partial, values=told, settings=found)

        measured = (self.config.evaluation.bootstrap_samples, self.config.seed)
        key = fingerprint("relevance", self._prepared, settings.model_dump(mode="json"), measured)
        self._stage(folder, key, write, force=force)
        document = json.loads((folder / "relevance.json").read_text(encoding="utf-8"))
        for name, title in TITLES.items():
            self.console.print(_table(document[name], title))
            self.messages += [f"doctor: {Finding(**found).sentence}" for found in document[name]["findings"]]
        self.messages.append(f"relevance: {folder / 'relevance.html'}")

    def _relevance_cutoff(self) -> datetime.datetime:
        if self.config.relevance.cutoff is not None:
            return datetime.datetime.combine(self.config.relevance.cutoff, datetime.time())
        rows = self.tables.transactions
        first, last = (rows.t_dat.min().execute(), rows.t_dat.max().execute())
        return ((first + (last - first) / 2).to_pydatetime()).replace(hour=0, minute=0, second=0, microsecond=0)

    def _class(self, pairs: pd.DataFrame) -> np.ndarray:
        settings = self.config.relevance
        told = settings.model_dump(include={"medium_from", "high_from"})
        return classify(
            pairs, **told, bulk_factor=settings.bulk_factor if settings.label == "orders_and_quantity" else None
        )

    def _sides(self, cutoff: datetime.datetime) -> dict[str, tuple[ibis.Table, ibis.Table]]:
        """The purchases that each setting makes features from, and those that it makes labels from."""
        rows = self.tables.transactions
        return {"study": (rows, rows), "honest": (rows.filter(_.t_dat < cutoff), rows.filter(_.t_dat >= cutoff))}

    def _study_pairs(self) -> Pairs:
        pairs = count_pairs(self.tables.transactions)
        # What a count is made of is told beside it: the count alone is left out.
        return _make_pairs(pairs, pairs[list(AMOUNTS)], self._class(pairs), CLASSES)

    def _honest_pairs(self, cutoff: datetime.datetime) -> Pairs:
        settings, (seen, labelled) = self.config.relevance, self._sides(cutoff)["honest"]
        before, after = count_pairs(seen), count_pairs(labelled)
        told, past = describe_pairs(before, list_orders(seen), as_of=cutoff), self._class(before)
        later = pd.DataFrame(
            {"label": self._class(after), "orders": after["num_orders"].to_numpy()},
            pd.MultiIndex.from_frame(after[PAIR]),
        ).reindex(pd.MultiIndex.from_frame(before[PAIR]))
        label, orders = later["label"].to_numpy(), later["orders"].to_numpy()
        if settings.label == "orders_and_quantity":
            # What quantity raises counts as the orders of that class.
            told["past_class"] = past
            least = np.array([1, settings.medium_from, settings.high_from])
            orders = np.maximum(orders, least[np.nan_to_num(label).astype(int)])
        is_kept = np.ones(len(before), bool) if settings.has_none else np.isfinite(label)
        if not np.isfinite(label).any():
            raise InputError(
                f"relevance: of {len(before):,} pairs bought before {cutoff:%Y-%m-%d} and {len(after):,} from then on, none is in "
                "both. Set `relevance.cutoff` to another day."
            )
        names: tuple[str, ...] = CLASSES
        if settings.has_none:
            label, past, names = np.nan_to_num(label + 1, nan=0.0), past + 1, (NONE, *CLASSES)
        kept = np.flatnonzero(is_kept)
        return _make_pairs(
            before.iloc[kept],
            told.iloc[kept],
            label[kept].astype(np.int32),
            names,
            past=past[kept].astype(np.int32),
            later_orders=np.nan_to_num(orders[kept]),
        )

    def _judge(
        self,
        pairs: Pairs,
        words: HashedWords,
        *,
        folds: Callable[[Pairs, int, np.random.Generator], np.ndarray],
        num_judged: int,
        title: str,
    ) -> dict[str, Any]:
        """Tells the pairs of the first folds by models that have not learned from them, and measures what they tell."""
        settings, num_classes = self.config.relevance, len(pairs.names)
        num_customers, least = len(np.unique(pairs.customer_index)), settings.num_folds * _NUM_PARTS
        if num_customers < least:
            raise InputError(
                f"relevance, {title}: {len(pairs.label):,} pairs of {num_customers} customers; expected at least {least} customers, "
                "since models of some are judged by others. Lower `relevance.num_folds`, or move `relevance.cutoff`."
            )
        fold = folds(pairs, settings.num_folds, np.random.default_rng(self.config.seed))
        document: dict[str, Any] = {
            "names": pairs.names,
            "models": {},
            "curves": {},
        }
        judged = np.flatnonzero(fold < num_judged)
        asked = pairs.take(judged)
        document |= {"num_pairs": len(judged), "num_customers": len(np.unique(asked.customer_index))}
        past = asked.past
        if past is not None:
            document["models"]["the class of the past count"] = self._measure(asked, past, None)
        for kind in MODELS:
            if kind.columns is None and past is None:
                continue
            probability, told = np.zeros((len(fold), num_classes)), np.zeros(len(fold), np.int64)
            chosen: list[Imbalance] = []
            for number in range(num_judged):
                rows = np.flatnonzero(fold == number)
                probability[rows], factors, found = self._tell(
                    kind, pairs, fold == number, words, folds, log_name=f"{title}/{kind.name}/fold {number}"
                )
                told[rows] = (probability[rows] * factors).argmax(axis=1)
                chosen.append(found)
            done = {"imbalance": ", ".join(dict.fromkeys(chosen))}
            document["models"][kind.name] = self._measure(asked, told[judged], past) | done
            document["curves"][kind.name] = (asked.label, probability[judged])
            shown = document["models"][kind.name]["macro_f1"]
            self.console.print(f"  {title}: {kind.name}  macro-F1 {shown['value']:.4f}", highlight=False)
        return document

    def _measure(self, pairs: Pairs, told: np.ndarray, past: np.ndarray | None) -> dict[str, Any]:
        num_classes, seed = len(pairs.names), self.config.seed
        options: dict[str, Any] = {"num_samples": self.config.evaluation.bootstrap_samples, "seed": seed}
        found = bootstrap_macro_f1(pairs.label, told, pairs.customer_index, num_classes, **options)
        document: dict[str, Any] = {
            "macro_f1": found._asdict(),
            "classes": [asdict(figures) for figures in measure_classes(pairs.label, told, pairs.names)],
            "confusion": count_confusion(pairs.label, told, num_classes).tolist(),
        }
        if past is not None:
            gain = bootstrap_macro_f1(pairs.label, told, pairs.customer_index, num_classes, other=past, **options)
            document["above_past_count"] = gain._asdict()
        return document

    def _tell(
        self,
        kind: ModelKind,
        pairs: Pairs,
        is_judged: np.ndarray,
        words: HashedWords,
        folds: Callable[[Pairs, int, np.random.Generator], np.ndarray],
        *,
        log_name: str,
    ) -> tuple[np.ndarray, np.ndarray, Imbalance]:
        """Fits one model on what is not judged; what to do about rare classes is chosen on parts of that.

        Returns:
            Probabilities of what is judged, the factors of the classes, and what was done.
        """
        known, judged = pairs.take(np.flatnonzero(~is_judged)), pairs.take(np.flatnonzero(is_judged))
        part = folds(known, _NUM_PARTS, np.random.default_rng(self.config.seed + 1))
        is_told, num_classes = part < kind.num_parts, len(pairs.names)
        label = known.label[is_told]
        best: tuple[float, np.ndarray, np.ndarray, Imbalance] | None = None
        for imbalance in IMBALANCES[kind.family]:
            width = 1 if kind.family == "linear" else num_classes
            found, answer = np.zeros((len(part), width)), np.zeros((len(judged.label), width))
            for number in range(kind.num_parts):
                rows = np.flatnonzero(part == number)
                held_out, learned = known.take(rows), known.take(np.flatnonzero(part != number))
                log = self._log(f"{log_name}/{imbalance} {number}")
                ask = self._fit(kind, learned, held_out, words, imbalance, log)
                found[rows] = ask(held_out)
                answer += ask(judged) / kind.num_parts
            found = found[is_told]
            if kind.family == "linear":
                tell = fit_class_odds(found, label, num_classes)
                found, answer = tell(found), tell(answer)
            factors = choose_factors(found, label)
            figure = macro_f1(label, (found * factors).argmax(axis=1), num_classes)
            if best is None or figure > best[0]:
                best = (figure, answer, factors, imbalance)
        assert best is not None
        return best[1:]

    def _log(self, name: str) -> TrainingLog:
        # Hundreds of fits: their lines would bury what comes of them.
        log = self.log("relevance", name, self.config.relevance.model_dump(mode="json"))
        return replace(log, console=None)

    def _fit(
        self,
        kind: ModelKind,
        learned: Pairs,
        held_out: Pairs,
        words: HashedWords,
        imbalance: Imbalance,
        log: TrainingLog,
    ) -> Callable[[Pairs], np.ndarray]:
        seed = self.config.seed
        if kind.family == "linear":
            return fit_later_orders(learned)
        if kind.family == "trees":
            return fit_relevance_trees(learned, held_out, imbalance=imbalance, seed=seed)

        def judge(probability: np.ndarray) -> float:
            told = (probability * choose_factors(probability, held_out.label)).argmax(axis=1)
            return macro_f1(held_out.label, told, len(held_out.names))

        settings = self.config.relevance
        return fit_relevance_network(
            kind, learned, held_out, words, settings, imbalance=imbalance, judge=judge, seed=seed, log=log
        )


def _make_pairs(
    pairs: pd.DataFrame,
    told: pd.DataFrame,
    label: np.ndarray,
    names: tuple[str, ...],
    *,
    past: np.ndarray | None = None,
    later_orders: np.ndarray | None = None,
) -> Pairs:
    customer, article = (pairs[name].to_numpy(np.int32) for name in PAIR)
    return Pairs(customer, article, told.reset_index(drop=True), label, names, past, later_orders)


def _random_folds(pairs: Pairs, num_folds: int, random: np.random.Generator) -> np.ndarray:
    return random.permutation(len(pairs.label)) % num_folds


def _customer_folds(pairs: Pairs, num_folds: int, random: np.random.Generator) -> np.ndarray:
    customers, place = np.unique(pairs.customer_index, return_inverse=True)
    found: np.ndarray = (random.permutation(len(customers)) % num_folds)[place]
    return found


def _table(document: dict[str, Any], title: str) -> Table:
    title = f"relevance, {title}: {document['num_pairs']:,} pairs"
    table = Table(title=title, box=rich.box.SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("model")
    table.add_column("macro-F1", justify="right")
    for name in document["names"]:
        table.add_column(f"{name} F1", justify="right")
    table.add_column("above the past count", justify="right")
    for name, found in document["models"].items():
        figure, gain = found["macro_f1"], found.get("above_past_count")
        cells = [f"{figure['value']:.4f} ({figure['low']:.4f} to {figure['high']:.4f})"]
        cells += [f"{one['f1']:.4f}" for one in found["classes"]]
        cells.append("" if gain is None else f"{gain['value']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})")
        table.add_row(name, *cells)
    return table
