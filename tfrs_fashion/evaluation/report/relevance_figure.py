"""The figure of precision and recall of each class of relevance."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve

from tfrs_fashion.evaluation.drawing import make_panels, scale_axis, shorten, write_png
from tfrs_fashion.evaluation.report.accuracy_figure import style_line


def draw_curves(found: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str], path: Path) -> str:
    """Draws precision over recall of each class, a panel each, and returns it as an address that a page can hold.

    Args:
        found: Labels `[num_rows]` and probabilities `[num_rows, num_classes]` by model, at least one.
        names: Of the classes.
        path: Where to write the PNG.
    """
    panels = make_panels("Precision over recall of each class", heights=(2.6,) * len(names))
    for place, (axes, name) in enumerate(zip(panels, names, strict=True)):
        for number, (model, (label, probability)) in enumerate(found.items()):
            is_class = label == place
            precision, recall, _threshold = precision_recall_curve(is_class, probability[:, place])
            area = average_precision_score(is_class, probability[:, place])
            style = style_line(number) | {"marker": ""}
            axes.plot(recall, precision, label=f"{shorten(model, 40)} ({area:.2f})", **style)
        axes.set_title(f"{name}: {int((next(iter(found.values()))[0] == place).sum()):,} pairs", loc="left", fontsize=9)
        for which in ("x", "y"):
            scale_axis(axes, which, is_share=True)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")
        axes.legend(fontsize=7.5, frameon=False)
    return write_png(panels[-1], path)
