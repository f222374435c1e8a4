"""An experiment: what a report was made from, and what it found."""

import datetime
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Experiment:
    """One record of the log.

    Attributes:
        id: When the report was written (UTC) and a short hash: ids sort by time.
        time: The same instant.
        pipeline: Its name.
        run_folder: Name of the run folder, which lies beside that of the experiments.
        version: Of this package.
        git_commit: Of the code, where it ran from a checkout.
        has_uncommitted_changes: Whether the package's files differed from the commit.
        code_fingerprint: SHA-256 over the package's files.
        data_fingerprint: Of the tables' stage, as in the metadata of artifacts: source files, settings and code.
        purchases_fingerprint: SHA-256 over who bought what and when, whatever prepared it.
        targets_fingerprint: SHA-256 over what recommenders were judged by.
        split: Dates and rule of the split, by name.
        seed: Of the pipeline.
        config: Every setting, by section.
        libraries: Version by library.
        durations: Seconds that each stage took when it was written.
        figures: `recommender, metric, value, low, high` each.
    """

    id: str
    time: datetime.datetime
    pipeline: str
    run_folder: str
    version: str
    git_commit: str | None
    has_uncommitted_changes: bool | None
    code_fingerprint: str
    data_fingerprint: str | None
    purchases_fingerprint: str
    targets_fingerprint: str
    split: dict[str, Any]
    seed: int
    config: dict[str, Any]
    libraries: dict[str, str]
    durations: dict[str, float]
    figures: list[dict[str, Any]]

    @property
    def k(self) -> int:
        """Length of the judged lists."""
        return int(self.config["evaluation"]["k"])

    @property
    def code(self) -> str:
        """The commit in a few characters, with a `+` where the code differed from it."""
        return (self.git_commit or "-")[:7] + ("+" if self.has_uncommitted_changes else "")

    def figures_by_recommender(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Returns the figures as reports hold them: by recommender, then by metric."""
        found: dict[str, dict[str, dict[str, float | None]]] = {}
        for row in self.figures:
            figure = {edge: row[edge] for edge in ("value", "low", "high")}
            found.setdefault(row["recommender"], {})[row["metric"]] = figure
        return found


def list_figures(recommenders: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the figures of a report one by one: `recommender, metric, value, low, high` each."""
    return [
        {"recommender": name, "metric": metric, **{edge: figure[edge] for edge in ("value", "low", "high")}}
        for name, figures in recommenders.items()
        for metric, figure in figures.items()
    ]
