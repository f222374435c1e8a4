"""The protocol that every recommender obeys, and the context in which each kind is fitted.

A recommender is fitted from what is visible before `as_of`, and then is a `tf.Module` with one function of
(histories, now, k, exclude). The same function answers in evaluation, in batch and inside the SavedModel.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.models.training_log import TrainingLog
from tfrs_fashion.schema import RunError


class Recommendations(NamedTuple):
    """Ordered articles for a batch of customers, each `[batch, k]`, best first.

    Attributes:
        article_index: int32; 0, at the end, if there are fewer than k.
        score: float32; it only orders, within one recommender.
        source: string, the recommender that gave each article; empty where there is none.
    """

    article_index: tf.Tensor
    score: tf.Tensor
    source: tf.Tensor


class Recommender(Protocol):
    """A fitted recommender, as serving and evaluation use it.

    Attributes:
        name: Name in reports and settings.
        kind: Key of `kinds.KINDS`, by which a saved recommender is loaded.
        history_length: Number of latest events of a history that it reads; None for all.
        needs_history: Whether it has no answer for a customer who bought nothing.
    """

    name: str
    kind: str
    history_length: int | None
    needs_history: bool

    def __call__(self, histories: Histories, *, now: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor) -> Recommendations:
        """Recommends k articles to each customer.

        Args:
            histories: What each customer bought before `now`.
            now: `[batch]` int64, seconds since 1970.
            k: Scalar int32.
            exclude: `[batch, num_excluded]` int32 article indices, 0 where a row excludes fewer.
        """

    def save(self, folder: Path) -> None:
        """Writes arrays and settings, from which the `load` of its kind makes it again."""


class ScoringRecommender(Recommender, Protocol):
    """A recommender that scores any article, not only its best ones."""

    def score(self, histories: Histories, now: tf.Tensor, article_index: tf.Tensor) -> tf.Tensor:
        """Scores some articles for each customer.

        Args:
            histories: What each customer bought before `now`.
            now: `[batch]` int64, seconds since 1970.
            article_index: `[batch, width]` int32.

        Returns:
            `[batch, width]` float32, -inf where an article is not a candidate.
        """


@dataclass(frozen=True)
class FitContext:
    """What a fit may need beside the view and its own settings.

    Attributes:
        name: Name of the recommender in the pipeline.
        seed: Seed of initial weights, batches and samples.
        choice: What was chosen on validation: `epochs` and `serves_cold_start`, or a blend's `method`, or `rankers`.
        part: Returns a recommender that this one is made from, fitted on the same view.
        validate: Evaluates a recommender after each epoch, for early stopping; None trains for all epochs.
        log: Log of the training's progress; None for none.
        weeks: The past weeks to learn from, for kinds that learn from them; see `BlendWeeks` and `RankerWeeks`.
        k: Length of the evaluated list.
        curves: Filled by the fit of a trained model: the values of each metric, the loss among them, by epoch.
    """

    name: str
    seed: int = 1
    choice: Mapping[str, Any] = field(default_factory=dict)
    part: Callable[[str], Recommender] | None = None
    validate: Callable[[Recommender], dict[str, float]] | None = None
    log: TrainingLog | None = None
    weeks: Any = None
    k: int = 12
    curves: dict[str, list[float]] = field(default_factory=dict)

    @property
    def section(self) -> str:
        """The section of the pipeline file with the recommender's settings, for messages."""
        return f"recommender.{self.name}"

    def fitted_part(self, name: str) -> Recommender:
        """Returns a recommender that this one is made from."""
        assert self.part is not None, f"{self.name} is made from {name}, and the context has no `part`"
        return self.part(name)


Fitted = TypeVar("Fitted", bound=Recommender)


def longest_history(recommenders: Iterable[Recommender]) -> int | None:
    """Returns the largest number of latest events that any of these recommenders reads; None for all."""
    lengths = [recommender.history_length for recommender in recommenders]
    known = [length for length in lengths if length is not None]
    return max(known, default=0) if len(known) == len(lengths) else None


def with_source(article_index: tf.Tensor, score: tf.Tensor, name: str) -> Recommendations:
    """Labels all articles with the name of their recommender."""
    return Recommendations(article_index, score, tf.where(article_index > 0, name, ""))


def save_state(folder: Path, arrays: dict[str, np.ndarray], **settings: Any) -> None:
    """Writes arrays and JSON settings into `state.npz` and `settings.json`; the settings of a recommender name its `kind`."""
    np.savez(folder / "state.npz", allow_pickle=False, **arrays)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads the arrays and settings that `save_state` wrote, without the `kind`, which the reader knows.

    Raises:
        RunError: A file is missing or corrupted.
    """
    try:
        with np.load(folder / "state.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        settings.pop("kind", None)
        return arrays, settings
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: the fitted recommender cannot be read ({error}). Run `train --force`.") from error


def load_kind(folder: Path) -> str:
    """Reads the kind of the recommender that was saved in a folder."""
    try:
        return str(json.loads((folder / "settings.json").read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: the fitted recommender cannot be read ({error}). Run `train --force`.") from error


def load_as(make: type[Fitted]) -> Callable[[Path], Fitted]:
    """Returns the `load` of a class whose constructor takes all that its `save` wrote."""

    def load(folder: Path) -> Fitted:
        arrays, settings = load_state(folder)
        # A class that serves several kinds is told which of them it is.
        kind = {} if hasattr(make, "kind") else {"kind": load_kind(folder)}
        return make(**arrays, **settings, **kind)

    return load


def weight_arrays(model: tf.keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights of a model by names that sort in their order, for `save_state`."""
    return {f"weight_{number:04d}": weight for number, weight in enumerate(model.get_weights())}


def set_weight_arrays(model: tf.keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Moves the weights named by `weight_arrays` from the arrays into a model whose variables all exist."""
    model.set_weights([arrays.pop(name) for name in sorted(arrays) if name.startswith("weight_")])
