"""The figure of recall and precision over the length of the list."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from tfrs_fashion.evaluation.drawing import GREY, LINE_STYLES, format_share, make_panels, scale_axis, shorten
from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.metrics import AccuracyCurve

# More lines than these cannot be told apart; and at so many lengths a curve is read.
MAX_LINES, MAX_LENGTHS = 8, 40


def list_lengths(depth: int) -> np.ndarray:
    """Chooses the lengths at which a curve is read: dense where lists are short, the last one included."""
    return np.unique(np.round(np.geomspace(1, depth, MAX_LENGTHS)).astype(int))


def _name_lines(axes: Axes, ends: Mapping[str, float], *, at: int) -> None:
    """Writes each line's name where it ends, moved apart where they would lie on each other."""
    low, high = axes.get_ylim()
    room = (high - low) / 15
    names = sorted(ends, key=lambda name: ends[name])
    places = np.array([ends[name] for name in names])
    for number in range(1, len(places)):
        places[number] = max(places[number], places[number - 1] + room)
    # What was pushed beyond the top comes down again, and pushes those below.
    for number in range(len(places) - 1, -1, -1):
        limit = high - room / 2 if number == len(places) - 1 else places[number + 1] - room
        places[number] = min(places[number], limit)
    for name, place in zip(names, places, strict=True):
        style = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5}
        axes.annotate(
            shorten(name, 20), (at, ends[name]), (at * 1.18, place), va="center", fontsize=8.5, arrowprops=style
        )


def draw_accuracy(curves: Mapping[str, AccuracyCurve], *, k: int, customers: int) -> Figure:
    """Draws mean recall and precision by the length of the list, of the recommenders that find most.

    Args:
        curves: By recommender, all of one depth.
        k: Length of the list that is judged elsewhere; marked.
        customers: Behind each mean.
    """
    depth = min(len(curve.recall) for curve in curves.values())
    lengths = list_lengths(depth)
    kept = sorted(curves, key=lambda name: -float(curves[name].recall[depth - 1]))[:MAX_LINES]
    title = "Recall and precision over the length of the list"
    panels = make_panels(title, heights=(3.3, 3.3), titles=("Recall", "Precision"))
    for axes, which in zip(panels, ("recall", "precision"), strict=True):
        for number, name in enumerate(kept):
            style = LINE_STYLES[number % len(LINE_STYLES)] | {"markersize": 4, "markevery": (number % 5, 6)}
            axes.plot(lengths, getattr(curves[name], which)[lengths - 1], **style)
        axes.set_xscale("log")
        axes.set_xlim(0.95, depth**1.42 if depth > 10 else depth * 4)
        axes.set_ylim(0, None)
        axes.axvline(k, color="#8a8a8a", linewidth=0.8, linestyle=":")
        ticks = sorted({*(found for found in (1, 2, 5, 12, 50, 200) if found <= depth), depth})
        ticks = [found for found in ticks if found == depth or found < 0.7 * depth]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("mean over customers")
        scale_axis(axes, "y", is_share=True)
        _name_lines(axes, {name: float(getattr(curves[name], which)[depth - 1]) for name in kept}, at=depth)
    panels[-1].set_xlabel("articles shown")
    first, last = kept[0], kept[-1]
    sentences = [
        f"Of {depth} articles, {first} finds {format_share(float(curves[first].recall[depth - 1]))} of what a customer buys, "
        f"and of {min(k, depth)} it finds {format_share(float(curves[first].recall[min(k, depth) - 1]))}."
    ]
    if len(kept) > 1:
        sentences.append(
            f"{last}, the last drawn, finds {format_share(float(curves[last].recall[depth - 1]))} of {depth}."
        )
    left_out = len(curves) - len(kept)
    caption = f"Means over {customers:,} customers; the dotted line marks {k}, the list that is judged."
    if left_out:
        caption += f" {left_out} that find less of {depth} are left out."
    data = {
        name: {
            "k": lengths.tolist(),
            "recall": curve.recall[lengths - 1].tolist(),
            "precision": curve.precision[lengths - 1].tolist(),
        }
        for name, curve in curves.items()
    }
    return Figure("accuracy_curves", "Accuracy by length", title, tuple(sentences), caption, customers, data, panels[0])
