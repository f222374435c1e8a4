"""The figure of recall and precision over the length of the list."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tfrs_fashion.evaluation.drawing import LINE_STYLES, format_share, make_panels, scale_axis, shorten
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics.customer_metrics import AccuracyCurve

# More lines than these cannot be told apart; and at so many lengths a curve is read.
MAX_LINES, MAX_LENGTHS = 8, 40
# What tells lines apart whose dashes are alike; and the share of the best recall below which a line lies on the axis.
MARKERS, LEAST_SHARE = ("o", "s", "^", "D", "v", "x", "P", "*"), 0.05


def list_lengths(depth: int) -> np.ndarray:
    """Chooses the lengths at which a curve is read: dense where lists are short, the last one included."""
    return np.unique(np.round(np.geomspace(1, depth, MAX_LENGTHS)).astype(int))


def style_line(number: int) -> dict[str, Any]:
    """Returns how one of `MAX_LINES` lines is drawn: no two look alike, in grey neither."""
    return LINE_STYLES[number % len(LINE_STYLES)] | {"marker": MARKERS[number], "markersize": 4.5}


def draw_accuracy(curves: Mapping[str, AccuracyCurve], *, k: int, customers: int) -> Figure:
    """Draws mean recall and precision by the length of the list, of the recommenders that find most.

    Args:
        curves: By recommender, all of one depth.
        k: Length of the list that is judged elsewhere; marked.
        customers: Behind each mean.
    """
    depth = min(len(curve.recall) for curve in curves.values())
    reached = {name: float(curve.recall[depth - 1]) for name, curve in curves.items()}
    ordered = sorted(curves, key=lambda name: -reached[name])
    kept = [name for name in ordered if reached[name] >= LEAST_SHARE * reached[ordered[0]]][:MAX_LINES]
    lengths = list_lengths(depth)
    title = "Recall and precision over the length of the list"
    panels = make_panels(title, heights=(2.9, 2.9), titles=("Recall", "Precision"))
    ticks = [found for found in (1, 2, 5, 12, 50, 200, 1000) if found < 0.7 * depth]
    for axes, which in zip(panels, ("recall", "precision"), strict=True):
        for number, name in enumerate(kept):
            # Markers of one line do not lie on those of the next.
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
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=2, fontsize=9, handlelength=3.2
    )
    panels[-1].set_xlabel("articles shown")
    first, *others = kept
    shorter = format_share(float(curves[first].recall[min(k, depth) - 1]))
    sentences = [
        f"Of {depth} articles, {first} finds {format_share(reached[first])} of what a customer buys, and of {min(k, depth)} "
        f"it finds {shorter}."
    ]
    if others:
        sentences.append(f"Next comes {others[0]} with {format_share(reached[others[0]])} of {depth}.")
    left_out = len(curves) - len(kept)
    others_words = "1 that finds less is" if left_out == 1 else f"{left_out} that find less are"
    caption = f"Means over {customers:,} customers; the dotted line marks {k}, the list that is judged."
    if left_out:
        caption += f" {others_words} left out."
    data = {
        name: {
            "k": lengths.tolist(),
            "recall": curve.recall[lengths - 1].tolist(),
            "precision": curve.precision[lengths - 1].tolist(),
        }
        for name, curve in curves.items()
    }
    return Figure("accuracy_curves", "Accuracy by length", title, tuple(sentences), caption, customers, data, panels[0])
