"""The given rules: what the ops of modules 02 to 05 make of a gradient, as far as module 06 does not write them itself.

A rule gets the gradient of its op's result, what the op kept (its result, unless it says otherwise) and the arrays that went in. It
returns the gradient of each input: an array, or a function that makes it where it is needed. An array may be as large as the result:
the walk undoes broadcasting. A rule never writes into what it gets.
"""
import math

import numpy as np

from tinytorch.core import activations, layers, losses
from tinytorch.core.tensor import (
    add,
    concat,
    exp,
    getitem,
    log,
    matmul,
    neg,
    power,
    reduce_max,
    reduce_mean,
    reduce_sum,
    reshape,
    sqrt,
    sub,
    transpose,
)
from tinytorch.fast import products


def as_rows(x):
    """x as a table: its last axis, and all others as one."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# number by number


@add.backward
def _(grad, out, a, b): return grad, grad


@sub.backward
def _(grad, out, a, b): return grad, lambda: -grad


@neg.backward
def _(grad, out, x): return -grad


@exp.backward
def _(grad, out, x): return grad * out


@log.backward
def _(grad, out, x): return grad / x


@sqrt.backward
def _(grad, out, x): return grad / (2 * out)


@power.backward
def _(grad, out, a, b):
    """b a ** (b - 1) and out log(a), with slope 0 for what is constant: a ** 0 everywhere, 0 ** b for b >= 0 (and not 0 * inf)."""
    return (lambda: grad * b * power.forward(a, np.where(b == 0, 0, b - 1)),
            lambda: grad * out * np.log(np.where((a == 0) & (b >= 0), 1, a)))


@losses.absolute.backward
def _(grad, out, x): return grad * np.sign(x)


@activations.leaky_relu.backward
def _(grad, out, x, *, slope=0.01): return np.where(x > 0, grad, slope * grad)


@activations.sigmoid.backward
def _(grad, out, x): return grad * out * (1 - out)


@activations.gelu.backward
def _(grad, out, x):
    """The share below x, plus x times the slope of that share, which is 0 where the forward clips x."""
    near, c = np.clip(x, -10, 10), (2 / np.pi) ** 0.5
    squared = near * near
    bend = np.tanh(c * near * (1 + 0.044715 * squared))
    return grad * (0.5 * (1 + bend) + 0.5 * c * near * (1 - bend * bend) * (1 + 3 * 0.044715 * squared))


# sums, means, maxima

def widen(x, axis, keepdims):
    """What a reduction gave, with the lost axes back as size 1, so that it fits what was reduced."""
    return x if keepdims or axis is None else np.expand_dims(x, axis)


@reduce_sum.backward
def _(grad, out, x, *, axis=None, keepdims=False): return np.full_like(x, widen(grad, axis, keepdims))


@reduce_mean.backward
def _(grad, out, x, *, axis=None, keepdims=False):
    return np.full_like(x, widen(grad * (out.size / max(x.size, 1)), axis, keepdims))


@reduce_max.backward
def _(grad, out, x, *, axis=None, keepdims=False):
    """All to the largest; equal ones share."""
    wins = x == widen(out, axis, keepdims)
    return wins * (widen(grad, axis, keepdims) / wins.sum(axis=axis, keepdims=True, dtype=x.dtype))


# other shapes, other places

@reshape.backward
def _(grad, out, x, *, shape):
    """In the order in which x lies in memory: a convolution's result has its channels last, and mixed orders are slow."""
    grad = grad.reshape(x.shape)
    return grad if x.flags.c_contiguous else np.full_like(x, grad)


@transpose.backward
def _(grad, out, x, *, axes=None): return grad.transpose(axes and np.argsort([axis % x.ndim for axis in axes]))


@getitem.backward
def _(grad, out, x, *, index):
    """Back to where each number was taken from. Only a list of places can name one twice; then what arrives adds up, which is slower."""
    gx = np.zeros_like(x)
    lists = [part for part in (index if isinstance(index, tuple) else (index,)) if isinstance(part, (list, tuple, np.ndarray))]
    if all(np.asarray(part).dtype == bool for part in lists):
        gx[index] = grad
    else:
        np.add.at(gx, index, grad)
    return gx


@concat.backward
def _(grad, out, *parts, axis=0):
    return tuple(np.split(grad, np.cumsum([part.shape[axis] for part in parts])[:-1], axis))


# shares, layers, losses

@activations.softmax.backward
def _(grad, out, x, *, axis=-1):
    """Every share depends on every score: raise one, and the others fall."""
    return out * (grad - (grad * out).sum(axis=axis, keepdims=True))


@layers.normalize.backward
def _(grad, kept, x, *, axis=-1, eps=1e-5):
    """Moving all numbers together, or stretching them, changes nothing: these two parts of the gradient are taken out."""
    out, inverse = kept
    return inverse * (grad - grad.mean(axis=axis, keepdims=True) - out * (grad * out).mean(axis=axis, keepdims=True))


@losses.log_softmax.backward
def _(grad, shares, x, *, axis=-1): return grad - shares * grad.sum(axis=axis, keepdims=True)


@losses.cross_entropy.backward
def _(grad, difference, scores, *, targets, label_smoothing=0.0): return grad / len(scores) * difference


@losses.bce_with_logits.backward
def _(grad, difference, x, *, targets): return grad / x.size * difference


# module 06 writes the rule of matmul; what does not need it are few rows times a large weight

products.in_pieces(matmul)
