"""Where the progress of a training is told."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console


@dataclass(frozen=True)
class TrainingLog:
    """Where the progress of a training is told: a line an epoch, and a folder that TensorBoard reads.

    Attributes:
        console: Where each epoch's figures are shown; None for nowhere.
        folder: For TensorBoard; what a former training left there is removed. None for no such log.
        settings: Of what is fitted, as text, for TensorBoard.
        histograms: Whether the values of weights are told after each epoch.
        profile: Whether some training steps are traced, for TensorBoard's profiler.
    """

    console: Console | None = None
    folder: Path | None = None
    settings: str = ""
    histograms: bool = True
    profile: bool = False

    def part(self, name: str) -> "TrainingLog":
        """Returns the log of a model that is fitted as a part of another."""
        return self if self.folder is None else replace(self, folder=self.folder / name)
