"""A figure of `explore` or of the report: a drawing, the numbers in it, and what they say; or the reason why it is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from tfrs_fashion.evaluation.drawing import weighted_quantile

# A percentile, and how far beyond it the highest value lies before what is above the percentile is left out.
CLIP_AT, CLIP_BEYOND = 0.99, 1.3
OTHER = "other"
OTHER_WORDS = f"“{OTHER}” sums as many smaller ones as its parentheses say; it has no bar."


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: Of its file and its place in the page.
        heading: A few words for the contents.
        title: What it shows; drawn above it.
        sentences: What it shows of this source, in numbers.
        caption: The rows behind it, and what was left out or put together.
        rows: Rows behind it.
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


@dataclass(frozen=True)
class LeftOut:
    """A figure that this source cannot fill, and why."""

    name: str
    heading: str
    reason: str


def join_sentences(*sentences: str) -> str:
    """Joins what is not empty with spaces."""
    return " ".join(sentence for sentence in sentences if sentence)


def is_or_are(count: int, one: str, many: str = "") -> str:
    """Writes a count with its noun, e.g. `1 line is`, `2 lines are`."""
    return f"{count:,} {one} is" if count == 1 else f"{count:,} {many or one + 's'} are"


def name_column(column: str) -> str:
    """Writes the name of a column as words."""
    return column.replace("_", " ")


def list_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns a frame as one dictionary a row."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def list_columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Returns a frame as one list a column."""
    return {str(name): frame[name].tolist() for name in frame.columns}


def group_other(counted: pd.DataFrame, label: str, *, keep: int) -> tuple[pd.DataFrame, int]:
    """Keeps the first rows and sums the rest under one label.

    Args:
        counted: One row a label, in order; the other columns are counts.
        label: The column of labels.
        keep: Rows that are kept; one more if it alone would be the rest.

    Returns:
        The rows, and how many labels are in `other`.
    """
    if len(counted) <= keep + 1:
        return counted, 0
    rest = counted.iloc[keep:]
    sums: dict[str, Any] = {**rest.drop(columns=label).sum(), label: f"{OTHER} ({len(rest):,})"}
    return pd.concat([counted.iloc[:keep], pd.DataFrame([sums])], ignore_index=True), len(rest)


def miss_role(name: str, heading: str, *roles: str) -> LeftOut:
    """Leaves a figure out, since the pipeline names no column for these roles."""
    words = " or ".join(f"`{role}`" for role in roles)
    return LeftOut(name, heading, f"no column of articles plays the role {words}: name one in [features.roles].")


def clip_limit(values: Sequence[float] | np.ndarray, rows: Sequence[int] | np.ndarray) -> float:
    """Returns where a scale ends, so that a few extreme values do not squash the rest.

    Args:
        values: Ascending or not; equal values may repeat.
        rows: How often each was counted.

    Returns:
        The 99th percentile if the highest value lies far beyond it, else the highest value.
    """
    counted = pd.Series(np.asarray(rows), index=np.asarray(values)).groupby(level=0).sum().sort_index()
    limit, highest = weighted_quantile(counted.index.to_numpy(), counted.to_numpy(), CLIP_AT), counted.index[-1]
    found = limit if highest > CLIP_BEYOND * max(limit, 1) else highest
    return int(found) if float(found).is_integer() else float(found)
