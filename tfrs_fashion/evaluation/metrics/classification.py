"""How well classes are told: precision, recall and F1 of each, and the decisions that make the most of probabilities."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from tfrs_fashion.evaluation.metrics.bootstrap import Interval

# Factors of a class' probability that are tried.
_FACTORS = np.geomspace(0.25, 16, 37)


@dataclass(frozen=True)
class ClassFigures:
    """Figures of one class.

    Attributes:
        name: Of the class.
        precision: Share of those told that are.
        recall: Share of those that are that were told.
        f1: Their harmonic mean.
        support: How many there are.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def measure_classes(label: np.ndarray, told: np.ndarray, names: tuple[str, ...]) -> tuple[ClassFigures, ...]:
    """Measures each class; one that is never told has precision 0, as has recall one that is not there.

    Args:
        label: `[num_rows]` int, places in `names`.
        told: `[num_rows]` int.
        names: Of all classes.
    """
    columns = precision_recall_fscore_support(label, told, labels=range(len(names)), zero_division=0)
    return tuple(
        ClassFigures(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    )


def count_confusion(label: np.ndarray, told: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts `[num_classes, num_classes]` rows by what they are and what was told."""
    found: np.ndarray = confusion_matrix(label, told, labels=range(num_classes))
    return found


def macro_f1(label: np.ndarray, told: np.ndarray, num_classes: int) -> float:
    """Returns the mean F1 over all classes."""
    return float(f1_score(label, told, labels=range(num_classes), average="macro", zero_division=0))


def choose_factors(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Finds factors of the classes' probabilities by which the likeliest class has the best macro-F1.

    Args:
        probability: `[num_rows, num_classes]` float, of rows that nothing was learned from.
        label: `[num_rows]` int.

    Returns:
        `[num_classes]` float64, 1 for the first class; the others are found one after the other, until nothing is gained.
    """
    num_classes = probability.shape[1]
    factors = np.ones(num_classes)
    best = macro_f1(label, probability.argmax(axis=1), num_classes)
    for _pass in range(3):
        before = best
        for place in range(1, num_classes):
            for factor in _FACTORS:
                tried = np.where(np.arange(num_classes) == place, factor, factors)
                found = macro_f1(label, (probability * tried).argmax(axis=1), num_classes)
                if found > best:
                    best, factors = found, tried
        if best == before:
            break
    return factors


def bootstrap_macro_f1(
    label: np.ndarray,
    told: np.ndarray,
    group: np.ndarray,
    num_classes: int,
    *,
    other: np.ndarray | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Computes the macro-F1, or how far it is above another's, with its interval by bootstrap over groups.

    Args:
        label: `[num_rows]` int.
        told: `[num_rows]` int.
        group: `[num_rows]` int, e.g. customers: what is drawn together.
        num_classes: How many.
        other: `[num_rows]` int, what the other told; paired.
        num_samples: Bootstrap samples.
        seed: Fixes the samples.
    """
    random = np.random.default_rng(seed)
    _groups, place = np.unique(group, return_inverse=True)
    num_groups = int(place.max(initial=-1)) + 1

    def cells(answer: np.ndarray) -> np.ndarray:
        """Counts by group, and by what is and what was told."""
        flat = (place * num_classes + label) * num_classes + answer
        return np.bincount(flat, minlength=num_groups * num_classes**2).reshape(num_groups, num_classes, num_classes)

    def f1(confusion: np.ndarray) -> float:
        hits = np.diagonal(confusion)
        total = confusion.sum(axis=0) + confusion.sum(axis=1)
        return float(np.mean(2 * hits / np.maximum(total, 1)))

    told_cells = cells(told)
    other_cells = None if other is None else cells(other)

    def figure(weight: np.ndarray) -> float:
        found = f1(np.tensordot(weight, told_cells, axes=1))
        return found if other_cells is None else found - f1(np.tensordot(weight, other_cells, axes=1))

    value = figure(np.ones(num_groups))
    samples = [
        figure(np.bincount(random.integers(0, num_groups, num_groups), minlength=num_groups))
        for _sample in range(num_samples)
    ]
    low, high = np.quantile(samples, (0.025, 0.975))
    return Interval(value, float(low), float(high))
