"""Matplotlib helpers for every figure: Agg only, no global state, and series that remain distinct in greyscale.

Figures are 5.6 inches wide with 10 pt text, which stays readable when a phone shows them at two thirds of that.
"""

import base64
import functools
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
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
BLACK, DARK, MIDDLE, LIGHT, GREY = "#111111", "#1f4e79", "#6d9dc5", "#dbe7f1", "#555555"
SMALL = 8.5
# Lightness, hatches, dashes and markers keep series apart in greyscale.
BAR_STYLES: tuple[dict[str, Any], ...] = (
    {"facecolor": DARK, "edgecolor": DARK},
    {"facecolor": LIGHT, "edgecolor": DARK, "hatch": "////"},
)
LINE_STYLES: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "linestyle": linestyle, "linewidth": 1.8, "marker": marker}
    for color, linestyle, marker in (
        (DARK, "-", "o"),
        (MIDDLE, "--", "s"),
        ("#222222", ":", "^"),
        ("#8a8a8a", "-.", "D"),
        ("#3d7ab0", (0, (6, 1, 1, 1, 1, 1)), "v"),
    )
)
# Marker, face and edge of the points of each cluster.
MAP_STYLES = (
    ("o", DARK, DARK),
    ("^", LIGHT, GREY),
    ("s", "white", BLACK),
    ("x", MIDDLE, MIDDLE),
    ("o", "#c8c8c8", "#8a8a8a"),
    ("v", BLACK, BLACK),
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
    # Dollar signs in a label do not start a formula.
    "text.parse_math": False,
}


def format_amount(value: float) -> str:
    """Formats a number briefly: 950, 12.3k, 1.2M; with three digits below 10."""
    for limit, divisor, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / divisor:.3g}{unit}" if abs(value) < 999.5 * divisor else f"{value / divisor:,.0f}{unit}"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def format_share(share: float) -> str:
    """Formats a share in percent, with as many digits as it needs to differ from zero."""
    percent = 100 * share
    return f"{percent:.0f}%" if percent >= 9.95 or percent == 0 else f"{percent:.2g}%"


def shorten(value: object, length: int = 60) -> str:
    """Formats any value as one line of at most `length` characters, with an ellipsis where it was cut."""
    text = " ".join("".join(" " if unicodedata.category(char)[0] == "C" else char for char in str(value)).split())
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


@dataclass
class Labels:
    """Replaces labels that the font cannot draw by numbers in brackets, and keeps the key to them.

    Attributes:
        length: Maximum number of characters; longer labels end in an ellipsis.
        keys: The number in brackets of each label whose script the font lacks, or which is written from right to left.
    """

    length: int = 28
    keys: dict[str, str] = field(default_factory=dict)

    def draw(self, value: object) -> str:
        """Returns the label of a value; the same value always gets the same label."""
        short = shorten(value, self.length)
        if all(ord(char) in _drawable() and unicodedata.bidirectional(char) not in {"R", "AL"} for char in short):
            return short
        return self.keys.setdefault(str(value), f"[{len(self.keys) + 1}]")

    @property
    def sentence(self) -> str:
        """A sentence that explains the numbers in brackets; empty if there are none."""
        explained = "; ".join(f"{key} is {shorten(value)}" for value, key in self.keys.items())
        return f"In the figure, {explained}." if explained else ""


@functools.cache
def _drawable() -> frozenset[int]:
    """Returns the code points of the font that Matplotlib ships."""
    path = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans"))
    return frozenset(FT2Font(path).get_charmap())


def make_panels(
    title: str, *, heights: Sequence[float], titles: Sequence[str] = (), share_x: bool = False
) -> list[Axes]:
    """Creates a figure with panels stacked vertically.

    Args:
        title: The figure's title.
        heights: Height of each panel, in inches.
        titles: Title of each panel; none by default.
        share_x: Whether all panels share one horizontal scale.
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
    """Writes the figure that `axes` belongs to, and returns it as a data URI to embed in a page."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


@dataclass(frozen=True)
class Rows:
    """The labelled rows of one panel of `draw_bars` or `draw_dots`, the first on top.

    Attributes:
        labels: `[num_rows]`.
        series: Name to `[num_rows]` values; a legend shows the names if there are several.
        texts: The same names to `[num_rows]` texts, one beside each value.
        title: Title of the panel; empty for none.
        has_rest: Whether the last row sums all smaller ones: it gets no bar, since that would dwarf the others.
    """

    labels: Sequence[str]
    series: Mapping[str, Sequence[float]]
    texts: Mapping[str, Sequence[str]]
    title: str = ""
    has_rest: bool = False


def _make_row_panels(title: str, panels: Sequence[Rows], unit: str) -> list[Axes]:
    """Creates one panel for each `Rows`, with its labels on the vertical axis."""
    num_series = len(panels[0].series)
    row_height = 0.24 if num_series == 1 else 0.17 * num_series + 0.08
    heights = [0.45 + 0.3 * (num_series > 1) + row_height * len(rows.labels) for rows in panels]
    all_axes = make_panels(title, heights=heights, titles=[rows.title for rows in panels], share_x=True)
    for axes, rows in zip(all_axes, panels, strict=True):
        _label_rows(axes, rows.labels)
    all_axes[-1].set_xlabel(unit)
    return all_axes


def _label_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(np.arange(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def draw_bars(title: str, panels: Sequence[Rows], *, unit: str, is_share: bool) -> Axes:
    """Draws horizontal bars in panels of one scale, and returns the first panel.

    Args:
        title: The figure's title.
        panels: The bars of each panel; all have the same series.
        unit: What the horizontal axis counts.
        is_share: Whether it shows shares.
    """
    all_axes, highest, longest = _make_row_panels(title, panels, unit), 0.0, 0
    for axes, rows in zip(all_axes, panels, strict=True):
        thickness = 0.8 / len(rows.series)
        for number, (name, values) in enumerate(rows.series.items()):
            places = np.arange(len(values)) + (number - (len(rows.series) - 1) / 2) * thickness
            lengths = [*values[:-1], 0.0] if rows.has_rest else list(values)
            bars = axes.barh(places, lengths, height=0.88 * thickness, label=name, **BAR_STYLES[number])
            texts = axes.bar_label(bars, rows.texts[name], padding=3, fontsize=SMALL)
            if rows.has_rest:
                bars[-1].set_visible(False)
                texts[-1].set_color(GREY)
            highest, longest = max(highest, *lengths), max(longest, *map(len, rows.texts[name]))
        if len(rows.series) > 1:
            _add_legend(axes)
    # The longest text fits beside the longest bar.
    all_axes[0].set_xlim(0, (highest or 1.0) / (1 - min(0.022 * longest, 0.45)))
    scale_axis(all_axes[-1], "x", is_share=is_share)
    return all_axes[0]


def draw_dots(title: str, panels: Sequence[Rows], *, unit: str) -> Axes:
    """Draws shares of very different sizes as dots on one logarithmic scale, and returns the first panel.

    Args:
        title: The figure's title.
        panels: The dots of each panel: one series of shares above 0.
        unit: What the horizontal axis counts.
    """
    all_axes = _make_row_panels(title, panels, unit)
    shares = np.concatenate([values for rows in panels for values in rows.series.values()])
    start, end = shares.min() / 3, max(shares.max(), 10 * shares.min()) * 60
    for axes, rows in zip(all_axes, panels, strict=True):
        axes.set_xscale("log")
        for place, (share, text) in enumerate(zip(rows.series[""], rows.texts[""], strict=True)):
            axes.plot([start, share], [place, place], color=MIDDLE, linewidth=1, linestyle=":")
            axes.plot([share], [place], color=DARK, marker="o", markersize=6)
            axes.annotate(text, (share, place), (7, 0), textcoords="offset points", va="center", fontsize=SMALL)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _place: format_share(value)))
        axes.minorticks_off()
    all_axes[0].set_xlim(start, end)
    return all_axes[0]


def scale_axis(axes: Axes, which: str, *, is_share: bool) -> None:
    """Labels the axis `which` (`x` or `y`) in percent, or in short numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    write: Callable[[float, int], str] = (
        (lambda value, _place: f"{100 * value:.3g}%") if is_share else (lambda value, _place: format_amount(value))
    )
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(write))


def _add_legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2, handlelength=2.6, columnspacing=1.2
    )


def draw_series(
    axes: Axes, frame: pd.DataFrame, is_partial: np.ndarray, *, unit: str, is_share: bool = False, upper: float = 0.0
) -> None:
    """Draws values over time; incomplete periods are hollow points beside the line.

    Args:
        axes: The panel.
        frame: One row per period without gaps, one column per series; a legend shows the names if there are several.
        is_partial: `[num_periods]` bool, whether the data cover only part of a period.
        unit: What the vertical axis counts.
        is_share: Whether it shows shares.
        upper: Upper limit of the vertical axis; higher values are marked at the edge. The highest value if 0.
    """
    periods, num_series = frame.index, frame.shape[1]
    highest = upper or np.nanmax(np.append(frame.to_numpy(dtype=float), 0.0)) or 1.0
    every = 1 if len(periods) <= 31 else len(periods) // 12
    # Markers keep several series apart and are staggered so as not to cover each other; a long single line needs none.
    size = 4 if num_series > 1 or len(periods) <= 31 else 0
    for number, name in enumerate(frame):
        values, style = frame[name], dict(LINE_STYLES[number % len(LINE_STYLES)])
        if len(periods) > 150:
            style["linewidth"] = 1.0  # Hundreds of periods would merge into a band.
        marks = (number * every // num_series, every)
        axes.plot(values[~is_partial], label=name, markersize=size, markevery=marks, **style)
        axes.plot(values[is_partial], **style | {"markersize": 4.5, "markerfacecolor": "white", "linestyle": ""})
        above = values[values > highest].clip(upper=highest)
        # An empty line that is not clipped would break the layout.
        if len(above):
            axes.plot(above, color=style["color"], marker=6, linestyle="", clip_on=False)
    axes.set_ylim(0, highest * (1.0 if upper else 1.06))
    locator = dates.AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_ylabel(unit)
    scale_axis(axes, "y", is_share=is_share)
    if num_series > 1:
        _add_legend(axes)


def draw_histogram(axes: Axes, low: np.ndarray, width: float, shares: np.ndarray, *, x: str, y: str) -> None:
    """Draws the shares of equal intervals; with `width` 0, each of `low` is a whole number and gets a bar around it.

    Args:
        axes: The panel.
        low: `[num_intervals]` lower edges.
        width: Width of the intervals.
        shares: `[num_intervals]` of the whole.
        x: What the horizontal axis counts, with its unit.
        y: What the shares are of.
    """
    if not width:
        low, width = low - 0.45, 0.9
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.bar(low, shares, width=width, align="edge", facecolor=MIDDLE, edgecolor=DARK, linewidth=0.6)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(x)
    axes.set_ylabel(f"share of {y}")
    scale_axis(axes, "y", is_share=True)


def draw_violins(axes: Axes, labels: Sequence[str], ages: np.ndarray, counts: np.ndarray, *, unit: str) -> None:
    """Draws one smoothed violin per label, all of the same height, with quartiles (bar) and median (dot).

    Args:
        axes: The panel.
        labels: `[num_labels]`.
        ages: `[num_ages]` consecutive whole years.
        counts: `[num_labels, num_ages]`.
        unit: What the horizontal axis counts.
    """
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 1.5) ** 2)
    padded, places = np.arange(ages[0] - 6, ages[-1] + 7), range(len(labels))
    violins = []
    for row in counts:
        density = np.convolve(row, kernel, mode="full")
        visible = density > 0.005 * density.max()
        violins.append(
            {"coords": padded[visible], "vals": density[visible], "mean": 0, "median": 0, "min": 0, "max": 0}
        )
    drawn: dict[str, Any] = axes.violin(violins, places, orientation="horizontal", widths=0.84, showextrema=False)
    for place, body in enumerate(drawn["bodies"]):
        body.set(facecolor=(LIGHT, MIDDLE)[place % 2], edgecolor=DARK, linewidth=0.9, alpha=1)
    low, middle, high = ([weighted_quantile(ages, row, share) for row in counts] for share in (0.25, 0.5, 0.75))
    axes.hlines(places, low, high, color=BLACK, linewidth=4)
    axes.plot(middle, places, linestyle="", marker="o", color="white", markeredgecolor=BLACK, markersize=6)
    _label_rows(axes, labels)
    axes.set_xlabel(unit)


def weighted_quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    """Returns the smallest of ascending `values` at or below which at least `share` of the counts lies."""
    cumulative = np.cumsum(counts)
    return float(values[int(np.searchsorted(cumulative, share * cumulative[-1], side="left"))])


def draw_curve(axes: Axes, x: np.ndarray, y: np.ndarray, *, marked: Mapping[float, float], xlabel: str) -> None:
    """Draws the share of lines over a share of articles, with some points marked and the line of equality."""
    axes.plot(x, y, color=DARK, linewidth=2)
    axes.plot([0, 1], [0, 1], color="#8a8a8a", linewidth=1, linestyle="--")
    axes.annotate("if all sold equally", (0.62, 0.62), (4, -11), textcoords="offset points", fontsize=SMALL, color=GREY)
    axes.plot(*zip(*marked.items(), strict=True), linestyle="", marker="o", color="white", markeredgecolor=DARK)
    for point in marked.items():
        text = ": ".join(map(format_share, point))
        axes.annotate(text, point, (8, -7), textcoords="offset points", fontsize=SMALL)
    axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02), xlabel=xlabel, ylabel="share of lines")
    for which in ("x", "y"):
        scale_axis(axes, which, is_share=True)


def draw_map(axes: Axes, place: np.ndarray, cluster: np.ndarray, *, x_unit: str, y_unit: str) -> None:
    """Draws points by cluster, distinguished by marker and lightness, with each cluster's number at its median.

    Args:
        axes: The panel.
        place: `[num_points, 2]` coordinates.
        cluster: `[num_points]` cluster numbers, from 1.
        x_unit: Label of the horizontal axis.
        y_unit: Label of the vertical axis.
    """
    box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#222222", "linewidth": 0.8}
    for number in np.unique(cluster):
        points, (marker, face, edge) = place[cluster == number], MAP_STYLES[(number - 1) % len(MAP_STYLES)]
        style: dict[str, Any] = {"marker": marker, "markerfacecolor": face, "markeredgecolor": edge}
        axes.plot(*points.T, linestyle="", markersize=3.4, markeredgewidth=0.6, alpha=0.8, **style)
        middle = np.median(points, axis=0)
        axes.annotate(str(number), middle, ha="center", va="center", fontsize=10, fontweight="bold", bbox=box, zorder=5)
    axes.set_xlabel(x_unit)
    axes.set_ylabel(y_unit)
