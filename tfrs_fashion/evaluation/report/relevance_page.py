"""The report on relevance classifiers in two settings: `relevance.json` for programs, `relevance.html` for people."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfrs_fashion.evaluation.document import render, to_json_types, write_json, write_text
from tfrs_fashion.evaluation.report.curve_figures import write_precision_recall

TITLES = {"study": "as the study", "honest": "honest"}


def write_relevance_report(folder: Path, *, values: Mapping[str, Any], settings: Mapping[str, dict[str, Any]]) -> None:
    """Writes `relevance.json`, `relevance.html` and `figures/`.

    Args:
        folder: Output folder.
        values: `cutoff`, and the `settings` of the pipeline file.
        settings: Results by setting, a key of `TITLES`: `names` of the classes, `num_pairs`, `num_customers`, `findings`
            of the doctor, `models` by name with `macro_f1`, `classes`, `confusion` and, in the honest setting,
            `above_past_count`; and `curves`, true classes and probabilities by model, which are drawn only.
    """
    (folder / "figures").mkdir()
    images = {
        name: write_precision_recall(
            results["curves"], results["names"], folder / "figures" / f"{name}_precision_recall.png"
        )
        for name, results in settings.items()
    }
    tables = {
        name: {key: value for key, value in results.items() if key != "curves"} for name, results in settings.items()
    }
    document = to_json_types({**values, **tables})
    write_json(folder / "relevance.json", document)
    html = render("relevance.html", document=document, titles=TITLES, images=images)
    write_text(folder / "relevance.html", html)
