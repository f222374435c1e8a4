"""The report on relevance classifiers in two settings: `relevance.json` for programs, `relevance.html` for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.drawing import STYLE
from tfrs_fashion.evaluation.report.relevance_figure import draw_curves

TITLES = {"study": "as the study", "honest": "honest"}


def write_relevance_report(folder: Path, *, told: Mapping[str, Any], settings: Mapping[str, dict[str, Any]]) -> None:
    """Writes `relevance.json`, `relevance.html` and `figures/`.

    Args:
        folder: Where to.
        told: `cutoff`, and the `settings` of the pipeline file.
        settings: By its name in `TITLES`, `names` of the classes, `num_pairs`, `num_customers`, `findings` of the doctor, `models` by
            name with `macro_f1`, `classes`, `confusion` and, in the honest setting, `above_past_count`; and `curves`, labels and
            probabilities by model, which are drawn alone.
    """
    (folder / "figures").mkdir()
    images = {}
    with matplotlib.rc_context(STYLE):
        for name, found in settings.items():
            path = folder / "figures" / f"{name}_precision_recall.png"
            images[name] = draw_curves(found["curves"], found["names"], path)
    shown = {name: {key: value for key, value in found.items() if key != "curves"} for name, found in settings.items()}
    document = to_json_types({**told, **shown})
    write_json(folder / "relevance.json", document)
    html = render("relevance.html", document=document, titles=TITLES, images=images)
    write_text(folder / "relevance.html", html)
