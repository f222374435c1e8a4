"""A finding of the doctor: what looks wrong with a run, and what to try."""

from dataclasses import dataclass
from typing import Literal

# A share of fewer customers than this says more about chance than about a recommender.
MIN_CUSTOMERS = 20


@dataclass(frozen=True)
class Finding:
    """What one check has seen.

    Attributes:
        kind: `leakage`, the figures are too good; `mistake`, something is built wrongly; `collapse`, a recommender
            has stopped telling customers apart.
        severity: `error`, the figures of this recommender mean nothing until it is mended; `warning`, have a look.
        recommender: Whose lists or fit; None where the whole run is concerned.
        check: Name of the check, one of `doctor.CHECKS`.
        seen: What was seen, with its numbers.
        advice: What to try.
    """

    kind: Literal["leakage", "mistake", "collapse"]
    severity: Literal["error", "warning"]
    recommender: str | None
    check: str
    seen: str
    advice: str

    @property
    def sentence(self) -> str:
        """The finding on one line, for a terminal."""
        about = f"{self.recommender}: " if self.recommender else ""
        return f"{self.severity}: {about}{self.seen} {self.advice}"
