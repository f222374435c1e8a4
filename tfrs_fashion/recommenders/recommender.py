"""The protocol that every recommender obeys.

A recommender is fitted from what is visible before `as_of`, and then is a `tf.Module` with one function of
(histories, now, k, exclude). The same function answers in evaluation, in batch and inside the SavedModel.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tfrs_fashion.features.inputs import Histories
from tfrs_fashion.schema import RunError


class Recommendations(NamedTuple):
    """Ordered articles for a batch of customers, each `[batch, k]`, best first.

    Attributes:
        article_index: int32, 0 where fewer than k were found; those come last.
        score: float32; it only orders, within one recommender.
        source: string, the recommender that gave each article; empty where there is none.
    """

    article_index: tf.Tensor
    score: tf.Tensor
    source: tf.Tensor


class Recommender(Protocol):
    """What serving and evaluation need of a recommender.

    Attributes:
        name: As used in reports and config.
        history_length: Last events of a history that it reads; None for all.
        needs_history: Whether it has nothing to say of a customer who bought nothing.
    """

    name: str
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
        """Writes what the class's own `load` needs to rebuild the recommender."""


def longest_history(recommenders: Iterable[Recommender]) -> int | None:
    """Returns how many last events of a history these read together; None for all."""
    lengths = [recommender.history_length for recommender in recommenders]
    known = [length for length in lengths if length is not None]
    return max(known, default=0) if len(known) == len(lengths) else None


def with_source(article_index: tf.Tensor, score: tf.Tensor, name: str) -> Recommendations:
    """Labels all articles with the recommender that found them."""
    return Recommendations(article_index, score, tf.where(article_index > 0, name, ""))


def save_state(folder: Path, arrays: dict[str, np.ndarray], **settings: Any) -> None:
    """Writes arrays and JSON settings into `state.npz` and `settings.json`."""
    np.savez(folder / "state.npz", allow_pickle=False, **arrays)
    (folder / "settings.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `save_state` wrote.

    Raises:
        RunError: A file is missing or corrupted.
    """
    try:
        with np.load(folder / "state.npz", allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return arrays, json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: the fitted recommender cannot be read ({error}). Run `train --force`.") from error


def weight_arrays(model: tf.keras.Model) -> dict[str, np.ndarray]:
    """Returns the weights of a model by names whose order is theirs, for `save_state`."""
    return {f"weight_{number:04d}": weight for number, weight in enumerate(model.get_weights())}


def set_weight_arrays(model: tf.keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Sets the weights of a model, all of which exist, to what `weight_arrays` named, and takes them out of the arrays."""
    model.set_weights([arrays.pop(name) for name in sorted(arrays) if name.startswith("weight_")])
