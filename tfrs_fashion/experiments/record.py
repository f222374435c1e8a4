"""The record of an experiment: what a report was made from, and its metrics."""

import datetime
from dataclasses import dataclass
from typing import Any

EDGES = ("value", "low", "high")


@dataclass(frozen=True)
class Experiment:
    """One row of the log: an evaluated run.

    Attributes:
        id: Time of the report (UTC) and a short hash; ids sort by time.
        time: Time of the report, UTC.
        pipeline: Name of the pipeline.
        run_folder: Name of the run folder, which is next to the folder of experiments.
        version: Version of this package.
        git_commit: Commit of the code, if it ran from a checkout.
        has_uncommitted_changes: Whether the package's files differed from the commit.
        code_fingerprint: SHA-256 over the package's files.
        data_fingerprint: Fingerprint of the tables' stage, as in the metadata of artifacts: source files, settings and code.
        purchases_fingerprint: SHA-256 over who bought what and when, however it was prepared.
        targets_fingerprint: SHA-256 over the targets of the evaluation.
        split: Dates and rule of the split.
        seed: Seed of the pipeline.
        config: Every setting, by section.
        libraries: Version by library.
        durations: Seconds that each stage took when it was last written.
        figures: All metrics, each with `recommender, metric, value, low, high`.
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
        """Length of the evaluated lists."""
        return int(self.config["evaluation"]["k"])

    @property
    def code(self) -> str:
        """The abbreviated commit, with a `+` if the code differed from it."""
        return (self.git_commit or "-")[:7] + ("+" if self.has_uncommitted_changes else "")

    def metrics(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Returns the metrics as reports hold them: by recommender, then by name."""
        metrics: dict[str, dict[str, dict[str, float | None]]] = {}
        for row in self.figures:
            metrics.setdefault(row["recommender"], {})[row["metric"]] = {edge: row[edge] for edge in EDGES}
        return metrics


def list_figures(recommenders: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the metrics of a report as rows of `recommender, metric, value, low, high`."""
    return [
        {"recommender": name, "metric": metric, **{edge: value[edge] for edge in EDGES}}
        for name, metrics in recommenders.items()
        for metric, value in metrics.items()
    ]
