"""A figure of the report or of the exploration: the drawing, its numbers, and what they say."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tfrs_fashion.evaluation.drawing import weighted_quantile

# Values above this percentile are left out if the highest value lies this many times beyond it.
CLIP_AT, CLIP_BEYOND = 0.99, 1.3
OTHER = "other"
OTHER_NOTE = f"“{OTHER}” sums the number of smaller ones in its parentheses; it has no bar."


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: Name of its file and anchor in the page.
        heading: A few words for the table of contents.
        title: What it shows; drawn above it.
        sentences: What it says about this source, in numbers.
        caption: The rows behind it, and what was left out or summed.
        rows: Number of rows behind it.
        data: The numbers that are drawn, in JSON's types or NumPy's.
        axes: One of its panels.
    """

    name: str
    heading: str
    title: str
    sentences: tuple[str, ...]
    caption: str
    rows: int
    data: dict[str, Any]
    axes: Axes


class Drawing(NamedTuple):
    """A `Figure` before the table of figures gives it a name and a heading."""

    title: str
    sentences: tuple[str, ...]
    caption: str
    rows: int
    data: dict[str, Any]
    axes: Axes


def join_sentences(*sentences: str) -> str:
    """Joins the sentences that are not empty with spaces."""
    return " ".join(sentence for sentence in sentences if sentence)


def count_noun(count: int, noun: str, plural: str = "") -> str:
    """Formats a count with its noun and verb, e.g. `1 line is`, `2 lines are`."""
    return f"{count:,} {noun} is" if count == 1 else f"{count:,} {plural or noun + 's'} are"


def list_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a frame as one dictionary per row."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def list_columns(frame: pd.DataFrame) -> dict[str, Any]:
    """Returns a frame as one list per column."""
    return {str(name): frame[name].tolist() for name in frame}


def group_other(counted: pd.DataFrame, label: str, *, keep: int) -> tuple[pd.DataFrame, int]:
    """Keeps the first rows and sums the rest in one row.

    Args:
        counted: One row per label, in order; the other columns are counts.
        label: The column of labels.
        keep: Number of rows to keep; one more if the rest would be a single row.

    Returns:
        The rows, and how many labels were summed.
    """
    if len(counted) <= keep + 1:
        return counted.reset_index(drop=True), 0
    rest = counted.iloc[keep:]
    sums: dict[str, Any] = {**rest.drop(columns=label).sum(), label: f"{OTHER} ({len(rest):,})"}
    return pd.concat([counted.iloc[:keep], pd.DataFrame([sums])], ignore_index=True), len(rest)


def clip_limit(values: Sequence[float] | np.ndarray, rows: Sequence[int] | np.ndarray) -> float:
    """Returns where an axis ends, so that a few extreme values do not squash the rest.

    Args:
        values: `[num_values]`, in any order; may repeat.
        rows: `[num_values]`, how often each was counted.

    Returns:
        The 99th percentile if the highest value lies far beyond it, else the highest value.
    """
    counted = pd.Series(np.asarray(rows), index=np.asarray(values)).groupby(level=0).sum().sort_index()
    percentile, highest = weighted_quantile(counted.index.to_numpy(), counted.to_numpy(), CLIP_AT), counted.index[-1]
    limit = float(percentile if highest > CLIP_BEYOND * max(percentile, 1) else highest)
    return int(limit) if limit.is_integer() else limit
