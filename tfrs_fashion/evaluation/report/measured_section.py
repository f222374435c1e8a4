"""A section of the report that measures recommenders apart from their lists: figures, a drawing, and how they came about."""

from collections.abc import Mapping
from dataclasses import dataclass

from tfrs_fashion.evaluation.figure import Figure
from tfrs_fashion.evaluation.report.scorecard import Figures


@dataclass(frozen=True)
class MeasuredSection:
    """What such a section says.

    Attributes:
        name: Of the drawing's numbers in `metrics.json`.
        heading: Of the section.
        figures: By recommender and name, with intervals; see `meanings`.
        figure: The drawing.
        notes: How it came about, a sentence each.
        meanings: What each figure is, by name.
    """

    name: str
    heading: str
    figures: dict[str, Figures]
    figure: Figure
    notes: tuple[str, ...]
    meanings: Mapping[str, str]
