"""Classification metrics: precision, recall and F1 per class, and class weights that maximise the macro-F1."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from tfrs_fashion.evaluation.metrics.bootstrap import Interval

# Candidate factors by which a class's probability is multiplied.
_FACTORS = np.geomspace(0.25, 16, 37)


@dataclass(frozen=True)
class ClassMetrics:
    """Metrics of one class.

    Attributes:
        name: Name of the class.
        precision: Share of the rows predicted as this class that belong to it.
        recall: Share of the rows of this class that were predicted as such.
        f1: Harmonic mean of precision and recall.
        support: Number of rows of this class.
    """

    name: str
    precision: float
    recall: float
    f1: float
    support: int


def measure_classes(label: np.ndarray, predicted: np.ndarray, names: tuple[str, ...]) -> tuple[ClassMetrics, ...]:
    """Computes the metrics of each class; precision is 0 for a class that is never predicted, recall 0 for an absent one.

    Args:
        label: `[num_rows]` int, true class as a position in `names`.
        predicted: `[num_rows]` int, predicted class likewise.
        names: Names of all classes.
    """
    columns = precision_recall_fscore_support(label, predicted, labels=range(len(names)), zero_division=0)
    return tuple(
        ClassMetrics(name, float(precision), float(recall), float(f1), int(support))
        for name, precision, recall, f1, support in zip(names, *columns, strict=True)
    )


def count_confusion(label: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts rows by true class (rows) and predicted class (columns): int `[num_classes, num_classes]`."""
    counts: np.ndarray = confusion_matrix(label, predicted, labels=range(num_classes))
    return counts


def macro_f1(label: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """Returns the mean F1 over all classes."""
    return float(f1_score(label, predicted, labels=range(num_classes), average="macro", zero_division=0))


def choose_factors(probability: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Finds the factors of the class probabilities under which the most likely class has the best macro-F1.

    Args:
        probability: `[num_rows, num_classes]` float, predictions for rows that were not trained on.
        label: `[num_rows]` int, true classes.

    Returns:
        `[num_classes]` float64, 1 for the first class; the others by coordinate ascent, until the macro-F1 stops rising.
    """
    num_classes = probability.shape[1]
    factors = np.ones(num_classes)
    best = macro_f1(label, probability.argmax(axis=1), num_classes)
    for _pass in range(3):
        before = best
        for column in range(1, num_classes):
            for factor in _FACTORS:
                tried = np.where(np.arange(num_classes) == column, factor, factors)
                score = macro_f1(label, (probability * tried).argmax(axis=1), num_classes)
                if score > best:
                    best, factors = score, tried
        if best == before:
            break
    return factors


def bootstrap_macro_f1(
    label: np.ndarray,
    predicted: np.ndarray,
    group: np.ndarray,
    num_classes: int,
    *,
    other: np.ndarray | None = None,
    num_samples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Computes the macro-F1, or its lead over other predictions, with a 95% interval by bootstrap over groups.

    Args:
        label: `[num_rows]` int, true classes.
        predicted: `[num_rows]` int, predicted classes.
        group: `[num_rows]` int, e.g. customers: rows of one group are drawn together.
        num_classes: Number of classes.
        other: `[num_rows]` int, other predictions for the same rows; the result is then the paired difference.
        num_samples: Number of bootstrap samples.
        seed: Seed of the samples.
    """
    random = np.random.default_rng(seed)
    _groups, place = np.unique(group, return_inverse=True)
    num_groups = int(place.max(initial=-1)) + 1

    def count_by_group(predictions: np.ndarray) -> np.ndarray:
        """Counts rows by group, true class and predicted class."""
        flat = (place * num_classes + label) * num_classes + predictions
        return np.bincount(flat, minlength=num_groups * num_classes**2).reshape(num_groups, num_classes, num_classes)

    def f1(confusion: np.ndarray) -> float:
        hits = np.diagonal(confusion)
        total = confusion.sum(axis=0) + confusion.sum(axis=1)
        return float(np.mean(2 * hits / np.maximum(total, 1)))

    counts = count_by_group(predicted)
    other_counts = None if other is None else count_by_group(other)

    def score(weight: np.ndarray) -> float:
        own = f1(np.tensordot(weight, counts, axes=1))
        return own if other_counts is None else own - f1(np.tensordot(weight, other_counts, axes=1))

    value = score(np.ones(num_groups))
    samples = [
        score(np.bincount(random.integers(0, num_groups, num_groups), minlength=num_groups))
        for _sample in range(num_samples)
    ]
    low, high = np.quantile(samples, (0.025, 0.975))
    return Interval(value, float(low), float(high))
