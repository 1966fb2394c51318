"""Pictures of a training run: learning curves and the confusion matrix. matplotlib is loaded when the first one is drawn.

Each function draws on a figure of its own and writes it to a file if `path` is given (the suffix chooses the kind: .png, .svg,
.pdf). Where somebody can look, in a notebook or a window, it shows the figure; elsewhere it returns it.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def plot_training_history(history: Mapping[str, Sequence[float]], path: str | os.PathLike | None = None, title: str = "") -> Any:
    """One panel per quantity of a history such as {"loss": [...], "val_loss": [...]}; the best unseen value is marked."""
    names = quantities(history)
    if not names:
        raise ValueError("this history is empty: fit() fills it, one value per epoch")
    plt = _pyplot()
    figure, axes = plt.subplots(1, len(names), figsize=(4.6 * len(names), 3.4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        draw_history(axis, history, name)
    if title:
        figure.suptitle(title)
    return _finish(plt, figure, path)


def quantities(history: Mapping[str, Sequence[float]]) -> list[str]:
    """What a history tells, without the values on unseen data and the learning rate."""
    return [name for name in history if not name.startswith("val_") and name != "lr" and len(history[name])]


def draw_history(axis: Any, history: Mapping[str, Sequence[float]], name: str) -> None:
    """One quantity of a history on an axis, beside its value on unseen data."""
    for key, label in ((name, "training"), (f"val_{name}", "unseen")):
        values = np.asarray(history.get(key, []), float)
        if len(values):
            axis.plot(np.arange(1, len(values) + 1), values, marker="." if len(values) < 40 else None, label=label)
        if len(values) and key.startswith("val_") and np.isfinite(values).any():
            best = int(np.nanargmin(values) if "loss" in name else np.nanargmax(values))
            axis.plot(best + 1, values[best], "o", color="black", fillstyle="none", label=f"best: {values[best]:.4g}, epoch {best + 1}")
    axis.set(xlabel="epoch", title=name)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend()


def plot_confusion_matrix(matrix: Any, names: Sequence[str] | None = None, path: str | os.PathLike | None = None, title: str = "") -> Any:
    """Rows are what an example is, columns what it was taken for; the colour is the share of the row, so rare classes show, too."""
    counts = _square(matrix)
    plt = _pyplot()
    size = min(max(3.2, 0.5 * len(counts) + 1.5), 12)
    figure, axis = plt.subplots(figsize=(size, size), layout="constrained")
    draw_confusion(axis, counts, names, title)
    return _finish(plt, figure, path)


def draw_confusion(axis: Any, matrix: Any, names: Sequence[str] | None = None, title: str = "") -> None:
    """A confusion matrix on an axis, with its numbers where there is room for them."""
    counts = _square(matrix)
    classes = len(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if classes <= 20:
        for row, column in np.argwhere(counts):
            axis.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8,
                      color="white" if shares[row, column] > 0.5 else "black")
        labels = [str(name) for name in (names if names is not None else range(classes))]
        long = max(map(len, labels)) > 3
        axis.set_xticks(range(classes), labels, rotation=45 if long else 0, ha="right" if long else "center")
        axis.set_yticks(range(classes), labels)
    axis.set(xlabel="taken for", ylabel="is", title=title)


def _square(matrix: Any) -> np.ndarray:
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(f"a confusion matrix is square, this one has the shape {counts.shape}")
    return counts


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError("drawing needs matplotlib: pip install matplotlib") from error
    return plt


def _finish(plt: Any, figure: Any, path: str | os.PathLike | None) -> Any:
    """Save it if asked. A notebook would draw a figure that was shown a second time if it were returned, too."""
    if path is not None:
        figure.savefig(path, dpi=120)
    if plt.get_backend().lower() not in ("agg", "pdf", "svg", "ps", "cairo"):
        plt.show()
        return None
    plt.close(figure)                   # pyplot keeps every open one in memory
    return figure
