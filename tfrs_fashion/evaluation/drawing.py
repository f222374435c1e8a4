"""How figures are drawn: on Agg, without global state, and told apart in grey by lightness, hatches, markers and dashes.

Figures are 5.6 inches wide with text of 10 points: readable on a phone, where a page shows them at two thirds.
"""

import base64
import functools
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import dates, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.ticker import FuncFormatter, MaxNLocator

WIDTH, DPI = 5.6, 170
DARK, MIDDLE, LIGHT, GREY = "#1f4e79", "#6d9dc5", "#dbe7f1", "#555555"
# What tells series apart in grey: the first is dark and plain, the others lighter, dashed or hatched.
BAR_STYLES: tuple[dict[str, Any], ...] = (
    {"facecolor": DARK, "edgecolor": DARK},
    {"facecolor": LIGHT, "edgecolor": DARK, "hatch": "////"},
)
LINE_STYLES: tuple[dict[str, Any], ...] = (
    {"color": DARK, "linestyle": "-", "linewidth": 1.8, "marker": "o"},
    {"color": MIDDLE, "linestyle": "--", "linewidth": 1.8, "marker": "s"},
    {"color": "#222222", "linestyle": ":", "linewidth": 1.8, "marker": "^"},
    {"color": "#8a8a8a", "linestyle": "-.", "linewidth": 1.8, "marker": "D"},
    {"color": "#3d7ab0", "linestyle": (0, (6, 1, 1, 1, 1, 1)), "linewidth": 1.8, "marker": "v"},
)
# Points of a map: marker, face and edge.
MAP_STYLES = (
    ("o", DARK, DARK),
    ("^", LIGHT, GREY),
    ("s", "white", "#111111"),
    ("x", MIDDLE, MIDDLE),
    ("o", "#c8c8c8", "#8a8a8a"),
    ("v", "#111111", "#111111"),
    ("D", LIGHT, DARK),
    ("+", GREY, GREY),
)
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    # A label that holds dollar signs is no formula.
    "text.parse_math": False,
}


def format_amount(value: float) -> str:
    """Writes a number short: 950, 12.3k, 1.2M; below 10 with three digits."""
    for limit, divisor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / divisor:.3g}{unit}" if abs(value) < 999.5 * divisor else f"{value / divisor:,.0f}{unit}"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def format_share(share: float) -> str:
    """Writes a share in percent, with as many digits as it needs to differ from zero."""
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 9.95 or percent == 0 else f"{percent:.2g}%"


def shorten(value: object, length: int = 60) -> str:
    """Writes a value of any length on one line; what is longer than `length` signs ends in an ellipsis."""
    words = " ".join("".join(" " if unicodedata.category(sign)[0] == "C" else sign for sign in str(value)).split())
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


@dataclass
class Labels:
    """Turns values of any script and length into words that the font can draw.

    Attributes:
        length: Longer labels end in an ellipsis.
        keys: What each number in brackets stands for, where the font lacks a label's letters or writes from right to left.
    """

    length: int = 28
    keys: dict[str, str] = field(default_factory=dict)

    def draw(self, value: object) -> str:
        """The label of a value: the same value gives the same label."""
        short = shorten(value, self.length)
        if all(ord(sign) in _drawable() and unicodedata.bidirectional(sign) not in {"R", "AL"} for sign in short):
            return short
        return self.keys.setdefault(str(value), f"[{len(self.keys) + 1}]")

    @property
    def sentence(self) -> str:
        """Explains the numbers in brackets; empty where there are none."""
        named = "; ".join(f"{key} is {shorten(value)}" for value, key in self.keys.items())
        return f"In the figure, {named}." if named else ""


@functools.cache
def _drawable() -> frozenset[int]:
    """Code points of the font that matplotlib brings."""
    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans"))
    return frozenset(FT2Font(path).get_charmap())


def make_panels(
    title: str, *, heights: Sequence[float], titles: Sequence[str] = (), share_x: bool = False
) -> list[Axes]:
    """Makes a figure with one panel above the other.

    Args:
        title: What the figure shows.
        heights: Of the panels, in inches.
        titles: Of the panels; none by default.
        share_x: Whether all panels have one scale.
    """
    wrapped = textwrap.fill(title, 58)
    head = 0.25 + 0.2 * len(wrapped.splitlines())
    figure = Figure(figsize=(WIDTH, sum(heights) + head), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(wrapped, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
    axes = figure.subplots(len(heights), 1, squeeze=False, sharex=share_x, height_ratios=list(heights))[:, 0].tolist()
    for panel, name in zip(axes, titles, strict=False):
        panel.set_title(name)
    return axes


def write_png(axes: Axes, path: Path) -> str:
    """Writes the figure that a panel belongs to, and returns it as an address that a page can hold."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def bars_height(num_labels: int, num_series: int = 1) -> float:
    """The height of a panel of horizontal bars, in inches."""
    return 0.45 + num_labels * (0.24 if num_series == 1 else 0.17 * num_series + 0.08)


def draw_bars(
    axes: Axes,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    texts: Mapping[str, Sequence[str]],
    unit: str,
    is_share: bool,
    has_rest: bool = False,
    limit: float | None = None,
) -> None:
    """Draws horizontal bars, the first label on top, each with its value in words.

    Args:
        axes: The panel.
        labels: `[num_labels]`.
        series: `[num_labels]` numbers by name; names are shown where there are several.
        texts: `[num_labels]` words at the end of each bar, by the same names.
        unit: What the horizontal axis counts; empty where another panel says so.
        is_share: Whether it counts shares.
        has_rest: Whether the last label sums what has no bar of its own: it gets words alone, since it would squash the rest.
        limit: The longest bar of all panels that share a scale; this panel's own by default.
    """
    thickness = 0.8 / len(series)
    num_bars = len(labels) - has_rest
    for number, (name, values) in enumerate(series.items()):
        places = np.arange(len(labels)) + (number - (len(series) - 1) / 2) * thickness
        bars = {"height": 0.88 * thickness, "label": name, **BAR_STYLES[number]}
        axes.barh(places[:num_bars], values[:num_bars], **bars)
        for place, value, words in zip(places, [*values[:num_bars], 0][: len(labels)], texts[name], strict=True):
            style: dict[str, Any] = {
                "va": "center",
                "fontsize": 8.5,
                "color": "black" if place < num_bars - 0.5 else GREY,
            }
            axes.annotate(words, (value, place), (3, 0), textcoords="offset points", **style)
    longest = max(len(words) for found in texts.values() for words in found)
    highest = limit or max(max(values[:num_bars]) for values in series.values()) or 1.0
    axes.set_xlim(0, highest / (1 - min(0.022 * longest, 0.45)))
    _end_rows(axes, labels, unit)
    scale_axis(axes, "x", is_share=is_share)
    if len(series) > 1:
        _add_legend(axes)


def _end_rows(axes: Axes, labels: Sequence[str], unit: str) -> None:
    axes.set_yticks(np.arange(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit)


def draw_dots(
    axes: Axes,
    labels: Sequence[str],
    shares: Sequence[float],
    *,
    texts: Sequence[str],
    unit: str,
    limits: tuple[float, float],
) -> None:
    """Draws one dot a label on a logarithmic axis, each with its value in words, for shares of many sizes.

    Args:
        axes: The panel.
        labels: `[num_labels]`.
        shares: `[num_labels]`, above 0.
        texts: `[num_labels]` words beside each dot.
        unit: What the horizontal axis counts; empty where another panel says so.
        limits: The lowest and the highest share of all panels that share a scale.
    """
    start, end = limits[0] / 3, max(limits[1], 10 * limits[0]) * 60
    axes.set_xscale("log")
    axes.set_xlim(start, end)
    for place, (share, words) in enumerate(zip(shares, texts, strict=True)):
        axes.plot([start, share], [place, place], color=MIDDLE, linewidth=1, linestyle=":")
        axes.plot([share], [place], color=DARK, marker="o", markersize=6)
        axes.annotate(words, (share, place), (7, 0), textcoords="offset points", va="center", fontsize=8.5)
    _end_rows(axes, labels, unit)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: format_share(value)))
    axes.minorticks_off()


def scale_axis(axes: Axes, which: str, *, is_share: bool) -> None:
    """Labels an axis in percent, or in short numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(
        FuncFormatter(lambda value, _place: f"{100 * value:.3g}%" if is_share else format_amount(value))
    )


def _add_legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handlelength=2.6, columnspacing=1.2
    )


def draw_series(
    axes: Axes,
    series: Mapping[str, Sequence[float]],
    *,
    periods: pd.DatetimeIndex,
    is_partial: np.ndarray,
    unit: str,
    is_share: bool = False,
    upper: float | None = None,
) -> None:
    """Draws values over time; periods that are not whole are hollow points beside the line.

    Args:
        axes: The panel.
        series: `[num_periods]` values by name; names are shown where there are several.
        periods: `[num_periods]`, ascending, without gaps.
        is_partial: `[num_periods]`.
        unit: What the vertical axis counts.
        is_share: Whether it counts shares.
        upper: Where the vertical axis ends; what is higher is marked at its edge. The highest value by default.
    """
    whole = np.flatnonzero(~is_partial)
    highest = upper or max(float(np.nanmax([0.0, *values])) for values in series.values()) or 1.0
    every = 1 if len(periods) <= 31 else len(periods) // 12
    # Hundreds of periods would run into one band.
    thin: dict[str, Any] = {"linewidth": 1.0} if len(periods) > 150 else {}
    for number, (name, values) in enumerate(series.items()):
        style = LINE_STYLES[number % len(LINE_STYLES)] | thin
        shown = np.asarray(values, dtype=float)
        # Markers tell several series apart, and do not lie on each other; one line of many periods is clearer without.
        marks = (number * every // len(series), every)
        size = 4 if len(series) > 1 or len(periods) <= 31 else 0
        axes.plot(periods[whole], shown[whole], label=name, markersize=size, markevery=marks, **style)
        hollow = {"color": style["color"], "marker": style["marker"], "markerfacecolor": "white", "linestyle": ""}
        axes.plot(periods[is_partial], shown[is_partial], markersize=4.5, **hollow)
        cut = shown > highest
        if cut.any():
            axes.plot(
                periods[cut], [highest] * int(cut.sum()), color=style["color"], marker=6, linestyle="", clip_on=False
            )
    axes.set_ylim(0, highest * (1.0 if upper else 1.06))
    locator = dates.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_ylabel(unit)
    scale_axis(axes, "y", is_share=is_share)
    if len(series) > 1:
        _add_legend(axes)


def draw_histogram(
    axes: Axes, low: Sequence[float], high: Sequence[float], shares: Sequence[float], *, x: str, y: str
) -> None:
    """Draws shares of a whole by steps of a number; a step of one whole number is a bar around it.

    Args:
        axes: The panel.
        low: `[num_steps]` where each step begins.
        high: `[num_steps]` where it ends; for whole numbers its last number.
        shares: `[num_steps]` of the whole.
        x: What the horizontal axis counts, with its unit.
        y: Of what the vertical axis gives the share.
    """
    left, width = np.asarray(low, dtype=float), np.asarray(high, dtype=float) - np.asarray(low, dtype=float)
    if not width.any():
        left, width = left - 0.45, width + 0.9
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.bar(left, shares, width=width, align="edge", facecolor=MIDDLE, edgecolor=DARK, linewidth=0.6)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(x)
    axes.set_ylabel(f"share of {y}")
    scale_axis(axes, "y", is_share=True)


def draw_violins(axes: Axes, labels: Sequence[str], ages: np.ndarray, counts: np.ndarray, *, unit: str) -> None:
    """Draws one smooth violin a label, all of one height, with quartiles (bar) and median (dot).

    Args:
        axes: The panel.
        labels: `[num_labels]`.
        ages: `[num_ages]`, whole years without gaps.
        counts: `[num_labels, num_ages]`.
        unit: What the horizontal axis counts.
    """
    reach = np.arange(-6, 7)
    kernel = np.exp(-0.5 * (reach / 1.5) ** 2)
    padded = np.arange(ages[0] - 6, ages[-1] + 7)
    for place, found in enumerate(counts):
        density = np.convolve(found, kernel, mode="full")
        half = 0.42 * density / density.max()
        seen = half > 0.002
        style: dict[str, Any] = {"facecolor": (LIGHT, MIDDLE)[place % 2], "edgecolor": DARK, "linewidth": 0.9}
        axes.fill_between(padded[seen], place - half[seen], place + half[seen], **style)
        low, middle, high = (weighted_quantile(ages, found, share) for share in (0.25, 0.5, 0.75))
        axes.plot([low, high], [place, place], color="#111111", linewidth=4, solid_capstyle="butt")
        axes.plot([middle], [place], marker="o", color="white", markeredgecolor="#111111", markersize=6)
    _end_rows(axes, labels, unit)


def weighted_quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    """The smallest of ascending values at or below which at least this share of the counts lies."""
    so_far = np.cumsum(counts)
    return float(values[int(np.searchsorted(so_far, share * so_far[-1], side="left"))])


def draw_curve(
    axes: Axes, x: Sequence[float], y: Sequence[float], *, marked: Mapping[float, float], x_unit: str, y_unit: str
) -> None:
    """Draws a share against a share, with some points marked and the line of equality."""
    axes.plot(x, y, color=DARK, linewidth=2)
    axes.plot([0, 1], [0, 1], color="#8a8a8a", linewidth=1, linestyle="--")
    axes.annotate("if all sold alike", (0.62, 0.62), (4, -11), textcoords="offset points", fontsize=8.5, color=GREY)
    for place, reached in marked.items():
        axes.plot([place], [reached], marker="o", color="white", markeredgecolor=DARK, markersize=6)
        words = f"{format_share(place)}: {format_share(reached)}"
        axes.annotate(words, (place, reached), (8, -7), textcoords="offset points", fontsize=8.5)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x_unit)
    axes.set_ylabel(y_unit)
    for which in ("x", "y"):
        scale_axis(axes, which, is_share=True)


def draw_map(axes: Axes, place: np.ndarray, cluster: np.ndarray, *, x_unit: str, y_unit: str) -> None:
    """Draws points by cluster, told apart by marker and lightness, with each cluster's number at its median.

    Args:
        axes: The panel.
        place: `[num_points, 2]`.
        cluster: `[num_points]`, from 1.
        x_unit: What the horizontal axis counts.
        y_unit: What the vertical axis counts.
    """
    for number in np.unique(cluster):
        found, (marker, face, edge) = place[cluster == number], MAP_STYLES[(number - 1) % len(MAP_STYLES)]
        style: dict[str, Any] = {"marker": marker, "markerfacecolor": face, "markeredgecolor": edge}
        axes.plot(*found.T, linestyle="", markersize=3.4, markeredgewidth=0.6, alpha=0.8, **style)
    for number in np.unique(cluster):
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#222222", "linewidth": 0.8}
        middle = np.median(place[cluster == number], axis=0)
        axes.annotate(str(number), middle, ha="center", va="center", fontsize=10, fontweight="bold", bbox=box, zorder=5)
    axes.set_xlabel(x_unit)
    axes.set_ylabel(y_unit)
