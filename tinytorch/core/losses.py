# Generated from course/modules/source/05_losses/losses_dev.py by "python -m course.build": edit it there.

"""Losses: one number that says how wrong a prediction is."""
import numpy as np
from tinytorch.core.activations import sigmoid
from tinytorch.core.layers import as_tensor
from tinytorch.core.tensor import as_float32, op
from tinytorch.given.modules import check_labels


def same_shape(loss, predictions, targets):
    """ValueError unless both have one shape: broadcasting would compare each prediction with each target."""
    if predictions.shape != targets.shape:
        raise ValueError(f"{loss}: predictions {predictions.shape} and targets {targets.shape} must have the same shape: reshape one")
    if 0 in predictions.shape:
        raise ValueError(f"{loss}: there is nothing to compare, shape {predictions.shape}")


@op
def absolute(x):
    """x without its sign."""
    return np.abs(x)


class Loss:
    """Called with predictions and targets; gives a Tensor of one number. Its attributes are its options."""

    def __repr__(self):
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class MSELoss(Loss):
    """Mean of squared differences."""

    def __call__(self, predictions, targets):
        predictions, targets = as_tensor(predictions), as_tensor(targets)
        same_shape("MSELoss", predictions, targets)
        difference = predictions - targets
        return (difference * difference).mean()


class MAELoss(Loss):
    """Mean of absolute differences."""

    def __call__(self, predictions, targets):
        predictions, targets = as_tensor(predictions), as_tensor(targets)
        same_shape("MAELoss", predictions, targets)
        return absolute(predictions - targets).mean()

L1Loss = MAELoss


@op
def log_softmax(x, *, axis=-1):
    """log(softmax(x)) without the detour over shares that are too small for a float; kept: the shares."""
    with np.errstate(over="ignore"):            # scores 1e39 apart: -inf, whose power is 0, as it should be
        shifted = x - x.max(axis=axis, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(axis=axis, keepdims=True)
    return shifted - np.log(sums), powers / sums


def class_labels(targets, classes):
    """Class numbers as an array of integers; ValueError names the first that is broken or outside of 0 to classes - 1."""
    labels = np.asarray(targets)
    if labels.dtype.kind not in "iu":
        labels = as_float32(labels)
        broken = labels[labels != np.floor(labels)]
        if broken.size: raise ValueError(f"label {broken[0]:g} is not a whole number")
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size: raise ValueError(f"label {outside[0]:g} is outside 0 to {classes - 1}")
    return labels.astype(np.intp)


@op
def cross_entropy(scores, *, targets, label_smoothing=0.0):
    """Mean surprise of the right classes: scores (n, classes), targets n class numbers. Kept: shares minus wanted shares, where
    smoothing s wants s / classes everywhere and 1 - s more for the label."""
    labels = class_labels(targets, check_labels(scores.shape, np.shape(targets)))
    logs, shares = log_softmax.forward(scores)
    rows = np.arange(len(logs))
    loss = -logs[rows, labels].sum() / len(logs)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * logs.mean()
    if label_smoothing: shares -= label_smoothing / scores.shape[1]
    shares[np.arange(len(labels)), labels] -= 1 - label_smoothing
    return loss, shares


class CrossEntropyLoss(Loss):
    """Scores (n, classes), as the last layer gives them without softmax, against n class numbers."""

    def __init__(self, label_smoothing=0.0):
        if not 0 <= label_smoothing < 1: raise ValueError(f"label_smoothing={label_smoothing}: a share from 0 to below 1")
        self.label_smoothing = label_smoothing

    def __call__(self, scores, targets): return cross_entropy(scores, targets=targets, label_smoothing=self.label_smoothing)


@op
def bce_with_logits(x, *, targets):
    """Mean of -t log s - (1 - t) log(1 - s) with s = sigmoid(x), finite for any finite x. Kept: s - t."""
    targets = as_float32(targets)
    same_shape("BCEWithLogitsLoss", x, targets)
    if targets.min() < 0 or targets.max() > 1:
        raise ValueError(f"BCEWithLogitsLoss: targets go from 0 (no) to 1 (yes), these from {targets.min():g} to {targets.max():g}")
    power = np.exp(-np.abs(x))
    losses = np.maximum(x, 0) - targets * x + np.log1p(power)
    loss = losses.mean()
    return loss, sigmoid.forward(x) - targets


class BCEWithLogitsLoss(Loss):
    """Scores of any shape, without sigmoid, against numbers from 0 (no) to 1 (yes) of the same shape."""

    def __call__(self, scores, targets): return bce_with_logits(scores, targets=as_float32(targets))
