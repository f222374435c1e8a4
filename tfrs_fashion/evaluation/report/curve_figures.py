"""Line figures of the reports: accuracy by list length, ROC of ranks, precision over recall, reliability of probabilities."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from sklearn.metrics import average_precision_score, precision_recall_curve

from tfrs_fashion.evaluation.drawing import (
    GREY,
    LINE_STYLES,
    STYLE,
    format_share,
    make_panels,
    scale_axis,
    shorten,
    write_png,
)
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics.accuracy import AccuracyCurve
from tfrs_fashion.evaluation.metrics.bootstrap import Interval
from tfrs_fashion.evaluation.metrics.target_ranks import pooled_auc, roc_curve

# Maximum number of lines that can be distinguished in one panel, by dashes and markers.
MAX_LINES = 8
MARKERS = ("o", "s", "^", "D", "v", "x", "P", "*")
REFERENCE: dict[str, Any] = {"color": "#8a8a8a", "linewidth": 1, "linestyle": "--"}
# Maximum number of list lengths per accuracy curve, and the share of the best recall below which a line is left out.
MAX_LENGTHS, LEAST_SHARE = 40, 0.05
# Where ROC curves are evaluated: evenly, and evenly in the logarithm for the inset; and the share quoted in the text.
SHARES, LOG_SHARES = np.linspace(0, 1, 201), np.geomspace(1e-3, 1, 61)
QUOTED_SHARE = 0.1


def list_lengths(depth: int) -> np.ndarray:
    """Returns the list lengths at which accuracy curves are drawn: dense for short lists, the last one included."""
    return np.unique(np.round(np.geomspace(1, depth, MAX_LENGTHS)).astype(int))


def style_line(number: int) -> dict[str, Any]:
    """Returns the style of one of `MAX_LINES` lines; no two look alike, even in grey."""
    return LINE_STYLES[number % len(LINE_STYLES)] | {"marker": MARKERS[number], "markersize": 4.5}


def _annotate(axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float]) -> None:
    axes.annotate(text, place, offset, textcoords="offset points", fontsize=8.5, color=GREY)


def _format_logarithmic(axis: Axis, write: Callable[[float], str]) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _place: write(value)))
    axis.set_minor_formatter(NullFormatter())


def _add_legend(axes: Axes) -> None:
    """Puts the legend of a panel below the whole figure."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9, handlelength=3.2)


def _count_left_out(number: int, which: str) -> str:
    return f" {number} {which} {'is' if number == 1 else 'are'} left out." if number else ""


@matplotlib.rc_context(STYLE)
def draw_accuracy(curves: Mapping[str, AccuracyCurve], *, k: int, customers: int) -> Figure:
    """Draws mean recall and precision by list length for the recommenders with the highest recall.

    Args:
        curves: Accuracy curves of equal depth, by recommender.
        k: Length of the evaluated lists, marked in the figure.
        customers: Number of customers behind each mean.
    """
    depth = min(len(curve.recall) for curve in curves.values())
    recall = {name: float(curve.recall[depth - 1]) for name, curve in curves.items()}
    ordered = sorted(curves, key=lambda name: -recall[name])
    kept = [name for name in ordered if recall[name] >= LEAST_SHARE * recall[ordered[0]]][:MAX_LINES]
    lengths = list_lengths(depth)
    title = "Recall and precision by list length"
    panels = make_panels(title, heights=(2.9, 2.9), titles=("Recall", "Precision"))
    ticks = [tick for tick in (1, 2, 5, 12, 50, 200, 1000) if tick < 0.7 * depth]
    for axes, which in zip(panels, ("recall", "precision"), strict=True):
        for number, name in enumerate(kept):
            # Shifted so that the markers of different lines do not overlap.
            style = style_line(number) | {"markevery": (number % 6, 6)}
            axes.plot(lengths, getattr(curves[name], which)[lengths - 1], label=shorten(name, 30), **style)
        axes.set_xscale("log")
        axes.set_ylim(0, None)
        axes.axvline(k, color="#8a8a8a", linewidth=0.8, linestyle=":")
        axes.xaxis.set_major_locator(FixedLocator([*ticks, depth]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("mean over customers")
        scale_axis(axes, "y", is_share=True)
    _add_legend(panels[0])
    panels[-1].set_xlabel("list length")
    first, *others = kept
    shorter = format_share(float(curves[first].recall[min(k, depth) - 1]))
    sentences = [
        f"The first {depth} articles of {first} include {format_share(recall[first])} of a customer's purchases; the first "
        f"{min(k, depth)} include {shorter}."
    ]
    if others:
        sentences.append(f"The runner-up is {others[0]} with {format_share(recall[others[0]])} in the first {depth}.")
    caption = f"Means over {customers:,} customers; the dotted line marks {k}, the length of the evaluated lists."
    caption += _count_left_out(len(curves) - len(kept), "with lower recall")
    data = {
        name: {
            "k": lengths.tolist(),
            "recall": curve.recall[lengths - 1].tolist(),
            "precision": curve.precision[lengths - 1].tolist(),
        }
        for name, curve in curves.items()
    }
    return Figure("accuracy_curves", "Accuracy by length", title, tuple(sentences), caption, customers, data, panels[0])


@matplotlib.rc_context(STYLE)
def draw_roc(ranks: Mapping[str, pd.DataFrame]) -> Figure:
    """Draws the ROC of ranks for the recommenders with the highest AUC, and the diagonal of chance.

    The inset has logarithmic axes, since only the beginning of a ranking is ever shown.

    Args:
        ranks: TargetRanks of the same targets by recommender, at least one.

    Raises:
        InputError: A recommender has no row.
    """
    area = {name: pooled_auc(rows) for name, rows in ranks.items()}
    curves = {name: roc_curve(rows, SHARES) for name, rows in ranks.items()}
    kept = sorted(ranks, key=lambda name: -area[name])[:MAX_LINES]
    some = ranks[kept[0]]
    purchases = f"{len(some):,} purchase{'' if len(some) == 1 else 's'}"
    title = f"ROC of rank: {purchases} among {int(some['num_ranked'].max()):,} articles in store"
    (axes,) = make_panels(title, heights=(4.4,))
    axes.plot([0, 1], [0, 1], **REFERENCE)
    _annotate(axes, "chance", (0.3, 0.3), (4, -12))
    inset = axes.inset_axes((0.6, 0.1, 0.38, 0.36), xscale="log", yscale="log")
    inset.plot(LOG_SHARES, LOG_SHARES, **REFERENCE)
    for number, name in enumerate(kept):
        style = style_line(number)
        label = f"{shorten(name, 30)} ({area[name]:.3f})"
        axes.plot(SHARES, curves[name], label=label, **style | {"markevery": (3 * number, 24)})
        inset.plot(LOG_SHARES, roc_curve(ranks[name], LOG_SHARES), **style | {"marker": "", "linewidth": 1.2})
    inset.set_xlim(LOG_SHARES[0], 1)
    inset.set_ylim(LOG_SHARES[0], 1.2)
    inset.tick_params(labelsize=7.5)
    for axis in (inset.xaxis, inset.yaxis):
        _format_logarithmic(axis, lambda value: f"{100 * value:.3g}%")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("share of the articles not bought that rank above")
    axes.set_ylabel("share of purchases reached")
    for which in ("x", "y"):
        scale_axis(axes, which, is_share=True)
    _add_legend(axes)
    first, *others = kept

    def reached(name: str) -> str:
        return format_share(float(curves[name][round(QUOTED_SHARE * (len(SHARES) - 1))]))

    sentences = [
        f"By the time {format_share(QUOTED_SHARE)} of the articles not bought have been shown, {first} has reached "
        f"{reached(first)} of purchases."
    ]
    if others:
        sentences.append(f"The runner-up is {others[0]} with {reached(others[0])}.")
    caption = (
        f"{purchases} of {some['customer_index'].nunique():,} customers; in parentheses the area under the curve, "
        "`auc_pooled`. Inset: the same on logarithmic axes."
    )
    caption += _count_left_out(len(ranks) - len(kept), "with a smaller area")
    data = {name: {"shown": SHARES.tolist(), "reached": curve.tolist()} for name, curve in curves.items()}
    return Figure("roc_of_rank", "ROC of rank", title, tuple(sentences), caption, len(some), data, axes)


@matplotlib.rc_context(STYLE)
def write_precision_recall(
    predictions: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str], path: Path
) -> str:
    """Draws precision over recall, one panel per class, and returns the image as a data URL.

    Args:
        predictions: True classes `[num_rows]` and probabilities `[num_rows, num_classes]` by model, at least one.
        names: Names of the classes.
        path: PNG file to write.
    """
    panels = make_panels("Precision over recall of each class", heights=(2.6,) * len(names))
    for column, (axes, name) in enumerate(zip(panels, names, strict=True)):
        for number, (model, (label, probability)) in enumerate(predictions.items()):
            is_class = label == column
            precision, recall, _threshold = precision_recall_curve(is_class, probability[:, column])
            area = average_precision_score(is_class, probability[:, column])
            style = style_line(number) | {"marker": ""}
            axes.plot(recall, precision, label=f"{shorten(model, 40)} ({area:.2f})", **style)
        num_pairs = int((next(iter(predictions.values()))[0] == column).sum())
        axes.set_title(f"{name}: {num_pairs:,} pairs", loc="left", fontsize=9)
        for which in ("x", "y"):
            scale_axis(axes, which, is_share=True)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.legend(fontsize=7.5, frameon=False)
    return write_png(panels[-1], path)


@dataclass(frozen=True)
class ReliabilityCurve:
    """Candidates grouped by predicted probability, the least likely first.

    Attributes:
        pairs: `[num_groups]` number of candidates.
        expected: `[num_groups]` mean predicted probability.
        bought: `[num_groups]` share that was bought, with its interval.
    """

    pairs: np.ndarray
    expected: np.ndarray
    bought: Interval


@matplotlib.rc_context(STYLE)
def draw_reliability(curves: Mapping[str, ReliabilityCurve], *, sizes: Mapping[str, int]) -> Figure:
    """Draws the share that was bought over the predicted probability, and the diagonal of calibrated probabilities.

    Args:
        curves: Curves by recommender, at least one.
        sizes: Number of candidates by its description for the caption.
    """
    title = "Share bought by predicted probability"
    (axes,) = make_panels(title, heights=(4.2,))
    shown = dict(list(curves.items())[:MAX_LINES])
    lowest = min(float(curve.expected[0]) for curve in shown.values())
    ends = [lowest, max(float(curve.expected[-1]) for curve in shown.values())]
    axes.plot(ends, ends, **REFERENCE)
    _annotate(axes, "calibrated", (ends[0], ends[0]), (12, 2))
    for number, (name, curve) in enumerate(shown.items()):
        style = style_line(number)
        value, low, high = (np.where(bound > 0, bound, np.nan) for bound in curve.bought)
        axes.plot(curve.expected, value, label=shorten(name, 30), **style)
        axes.vlines(curve.expected, np.fmax(low, lowest / 10), high, color=style["color"], linewidth=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        _format_logarithmic(axis, format_share)
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share bought")
    _add_legend(axes)
    sentences = tuple(
        f"Of the candidates most likely according to {name}, with a mean probability of {format_share(curve.expected[-1])}, "
        f"{format_share(curve.bought.value[-1])} ({format_share(curve.bought.low[-1])} to "
        f"{format_share(curve.bought.high[-1])}) were bought."
        for name, curve in shown.items()
    )
    caption = (
        f"{' and '.join(sizes)}, in groups of equal expected purchases; vertical lines are 95% intervals by bootstrap over "
        "customers."
    )
    data = {
        name: {
            "pairs": curve.pairs.tolist(),
            "expected": curve.expected.tolist(),
            "bought": {bound: value.tolist() for bound, value in curve.bought._asdict().items()},
        }
        for name, curve in curves.items()
    }
    return Figure("reliability", "Probabilities", title, sentences, caption, max(sizes.values()), data, axes)
