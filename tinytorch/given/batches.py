"""Arrays in batches, and what the scores of a batch say. Module 10 builds a loader that can do more."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinytorch import randomness


class Batches:
    """Arrays x and y as pairs of batches; with shuffle, in a new order for each pass, the same for both. The last one may be smaller."""

    def __init__(self, x: Any, y: Any, batch_size: int = 32, shuffle: bool = False):
        x, y = (np.asarray(data.data if hasattr(data, "requires_grad") else data) for data in (x, y))
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs and {len(y)} targets: each input needs one")
        if not len(x) or batch_size < 1:
            raise ValueError(f"{len(x)} examples in batches of {batch_size}: there would be no batch")
        self.x, self.y, self.batch_size, self.shuffle = x, y, int(batch_size), shuffle

    def __len__(self) -> int:
        return math.ceil(len(self.x) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = randomness.generator().permutation(len(self.x)) if self.shuffle else np.arange(len(self.x))
        for start in range(0, len(order), self.batch_size):
            rows = order[start:start + self.batch_size]
            yield self.x[rows], self.y[rows]


def classes_of(scores: np.ndarray) -> np.ndarray:
    """The class of each example, flat: that of its highest score; where there is one score only, whether it is above 0."""
    if scores.ndim < 2 or scores.shape[-1] == 1:
        return (scores > 0).reshape(-1).astype(np.intp)
    return scores.argmax(axis=-1).reshape(-1)


def as_labels(y: Any) -> np.ndarray:
    """Targets, a tensor or an array, as a flat array of whole numbers."""
    return np.asarray(y.data if hasattr(y, "requires_grad") else y).reshape(-1).astype(np.intp)
