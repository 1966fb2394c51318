"""Metrics: what is counted over the batches of an epoch. Each has a name, reset(), update(scores, y) and compute()."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinytorch.given.batches import as_labels, classes_of


def labels_for(scores: np.ndarray, y: Any) -> np.ndarray:
    """Targets as whole numbers, one for each row of scores."""
    labels, rows = as_labels(y), scores.size // max(scores.shape[-1], 1) if scores.ndim > 1 else scores.size
    if len(labels) != rows:
        raise ValueError(f"scores {scores.shape} need {rows} class numbers, got targets of shape {np.shape(y)}"
                         + (": take argmax(axis=1) of one-hot rows" if np.shape(y) == scores.shape else ""))
    return labels


class Accuracy:
    """The share of examples whose highest score is that of their label, 0 to 1."""

    name = "accuracy"

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right = self.seen = 0

    def update(self, scores: np.ndarray, y: Any) -> None:
        labels = labels_for(scores, y)
        self.right += int((classes_of(scores) == labels).sum())
        self.seen += len(labels)

    def compute(self) -> float:
        return self.right / self.seen


def matrix_metrics(confusion_matrix: Callable, precision_recall: Callable) -> tuple[type, type, type]:
    """Precision, Recall and F1, which are read off a confusion matrix by these two functions (module 08 writes them)."""

    class MatrixMetric:
        """Of the class `of` (its name is then `recall_3`), or the mean over the classes that occur among labels or answers."""

        name = ""

        def __init__(self, of: int | None = None) -> None:
            self.of = of
            self.name = self.name if of is None else f"{self.name}_{of}"
            self.reset()

        def reset(self) -> None:
            self.matrix = np.zeros((0, 0), np.int64)

        def update(self, scores: np.ndarray, y: Any) -> None:
            classes, labels = max(2, scores.shape[-1]) if scores.ndim > 1 else 2, labels_for(scores, y)
            if (wrong := (labels < 0) | (labels >= classes)).any():
                raise ValueError(f"label {labels[wrong][0]} is outside 0 to {classes - 1}: the scores are for {classes} classes")
            counted = confusion_matrix(labels, classes_of(scores), classes)
            self.matrix = counted if not self.matrix.size else self.matrix + counted

        def compute(self) -> float:
            each = self.read(*precision_recall(self.matrix))
            occurs = self.matrix.sum(axis=0) + self.matrix.sum(axis=1) > 0
            return float(each[occurs].mean() if self.of is None else each[self.of])

        def read(self, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
            raise NotImplementedError

    class Precision(MatrixMetric):
        name = "precision"

        def read(self, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
            return precision

    class Recall(MatrixMetric):
        name = "recall"

        def read(self, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
            return recall

    class F1(MatrixMetric):
        name = "f1"

        def read(self, precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
            return 2 * precision * recall / np.maximum(precision + recall, 1e-12)

    return Precision, Recall, F1
