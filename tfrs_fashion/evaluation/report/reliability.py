"""The section of the report on probabilities: how often what is said to be bought with some probability is bought."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, NullFormatter

from tfrs_fashion.evaluation.drawing import GREY, STYLE, format_share, make_panels, shorten
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics.bootstrap import Interval, bootstrap_ratio
from tfrs_fashion.evaluation.metrics.hits import contains, pair_keys
from tfrs_fashion.evaluation.report.accuracy_figure import MAX_LINES, style_line
from tfrs_fashion.evaluation.report.measured_section import MeasuredSection
from tfrs_fashion.evaluation.report.scorecard import Figures
from tfrs_fashion.schema import InputError

MEANINGS = {
    "expected": "The sum of the probabilities of a list, mean over customers: purchases that are to be expected of it.",
    "bought": "How many of the list were bought, mean over customers.",
    "expected_to_bought": "The former over the latter: 1 is right, 2 promises twice what came.",
}
# Candidates are put together by their probability, so that as many purchases are to be expected of each group.
NUM_GROUPS = 10


@dataclass(frozen=True)
class _Curve:
    """Groups of candidates by their probability, the least likely first.

    Attributes:
        pairs: `[num_groups]` how many.
        expected: `[num_groups]` mean probability.
        bought: `[num_groups]` share that was bought, with its interval.
    """

    pairs: np.ndarray
    expected: np.ndarray
    bought: Interval


def describe_reliability(
    candidates: Mapping[str, pd.DataFrame],
    targets: pd.DataFrame,
    *,
    ks: Sequence[int],
    num_samples: int,
    seed: int,
) -> MeasuredSection:
    """Compares the probabilities of candidates with what was bought.

    Args:
        candidates: By recommender, at least one: `customer_index, article_index, rank, score`, where a score within (0, 1) is the
            probability that a customer who comes buys the article; rows whose score is none are left out.
        targets: `customer_index, article_index` bought in the window.
        ks: Lengths of the lists that are measured.
        num_samples: Bootstrap samples of customers.
        seed: Fixes the samples.

    Raises:
        InputError: A recommender has no row with a probability.
    """
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    bought = np.sort(pair_keys(targets))
    figures: dict[str, Figures] = {}
    curves: dict[str, _Curve] = {}
    sizes = {}
    for name, found in candidates.items():
        told = found[(found["score"] > 0) & (found["score"] < 1)]
        if told.empty:
            raise InputError(
                f"{name}: none of {len(found):,} scores lies between 0 and 1, so no probability can be compared with what was bought."
            )
        told = told.assign(is_bought=contains(bought, pair_keys(told)).astype(float))
        figures[name] = {metric: row for k in ks for metric, row in _measure(told, k=k, **options).items()}
        curves[name] = _group(told, **options)
        sizes[f"{len(told):,} candidates of {told['customer_index'].nunique():,} customers"] = len(told)
    notes = (
        "The scores of these recommenders are the probabilities that a customer who comes in the window buys the article. "
        "Here they are compared with what those who came did buy.",
    )
    with matplotlib.rc_context(STYLE):
        figure = _draw(curves, sizes=sizes)
    return MeasuredSection("reliability", "Probabilities", figures, figure, notes, MEANINGS)


def _measure(told: pd.DataFrame, *, k: int, num_samples: int, seed: int) -> Figures:
    options: dict[str, Any] = {"num_samples": num_samples, "seed": seed}
    per = told[told["rank"] <= k].groupby("customer_index")[["score", "is_bought"]].sum()
    expected, bought = per["score"].to_numpy(np.float64), per["is_bought"].to_numpy()
    found = {
        "expected": bootstrap_ratio(expected, np.ones(len(per)), **options),
        "bought": bootstrap_ratio(bought, np.ones(len(per)), **options),
        "expected_to_bought": bootstrap_ratio(expected, bought, **options),
    }
    return {
        f"{name}@{k}": {bound: float(value) for bound, value in interval._asdict().items()}
        for name, interval in found.items()
    }


def _group(told: pd.DataFrame, *, num_samples: int, seed: int) -> _Curve:
    told = told.sort_values("score", kind="stable")
    so_far = told["score"].to_numpy(np.float64).cumsum()
    group = np.minimum((NUM_GROUPS * so_far / so_far[-1]).astype(int), NUM_GROUPS - 1)
    _groups, group = np.unique(group, return_inverse=True)
    shape = (told["customer_index"].nunique(), int(group.max()) + 1)
    customer = np.unique(told["customer_index"], return_inverse=True)[1]

    def sums(weights: np.ndarray) -> np.ndarray:
        return np.bincount(customer * shape[1] + group, weights, minlength=shape[0] * shape[1]).reshape(shape)

    pairs, bought = sums(np.ones(len(told))), sums(told["is_bought"].to_numpy())
    expected = sums(told["score"].to_numpy(np.float64)).sum(axis=0) / pairs.sum(axis=0)
    share = bootstrap_ratio(bought, pairs, num_samples=num_samples, seed=seed)
    return _Curve(pairs.sum(axis=0), expected, share)


def _draw(curves: Mapping[str, _Curve], *, sizes: Mapping[str, int]) -> Figure:
    title = "How often what has some probability is bought"
    (axes,) = make_panels(title, heights=(4.2,))
    shown = dict(list(curves.items())[:MAX_LINES])
    lowest = min(float(found.expected[0]) for found in shown.values())
    ends = [lowest, max(float(found.expected[-1]) for found in shown.values())]
    axes.plot(ends, ends, color="#8a8a8a", linewidth=1, linestyle="--")
    axes.annotate("as it was said", (ends[0], ends[0]), (12, 2), textcoords="offset points", fontsize=8.5, color=GREY)
    for number, (name, found) in enumerate(shown.items()):
        style = style_line(number)
        value, low, high = (np.where(bound > 0, bound, np.nan) for bound in found.bought)
        axes.plot(found.expected, value, label=shorten(name, 30), **style)
        axes.vlines(found.expected, np.fmax(low, lowest / 10), high, color=style["color"], linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _place: format_share(value)))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("probability that was said")
    axes.set_ylabel("share that was bought")
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9, handlelength=3.2)
    sentences = tuple(
        f"Of what {name} thinks likeliest, with a probability of {format_share(found.expected[-1])} on average, "
        f"{format_share(found.bought.value[-1])} ({format_share(found.bought.low[-1])} to {format_share(found.bought.high[-1])}) "
        "was bought."
        for name, found in shown.items()
    )
    caption = (
        f"{' and '.join(sizes)}, in groups of which as many purchases are to be expected; the lines upright are 95% intervals over "
        "customers."
    )
    data = {
        name: {
            "pairs": found.pairs.tolist(),
            "expected": found.expected.tolist(),
            "bought": {bound: value.tolist() for bound, value in found.bought._asdict().items()},
        }
        for name, found in curves.items()
    }
    return Figure("reliability", "Probabilities", title, sentences, caption, max(sizes.values()), data, axes)
