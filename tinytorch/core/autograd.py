# Generated from course/modules/source/06_autograd/autograd_dev.py by "python -m course.build": edit it there.

"""Gradients: rules for single ops, and one walk through the graph from a loss back to its leaves."""
import contextlib

import numpy as np

from tinytorch.core.activations import relu, tanh
from tinytorch.core.tensor import div, matmul, mul, op
from tinytorch.core.utils import broadcast_shape, sum_to_shape
from tinytorch.given.graphs import first_gradient, input_gradients, inputs_of, total
from tinytorch.given.rules import as_rows     # and with it the rules that are given


@mul.backward
def _(grad, out, a, b):
    return lambda: grad * b, lambda: grad * a
@div.backward
def _(grad, out, a, b):
    return lambda: grad / b, lambda: -grad * out / b
@relu.backward
def _(grad, out, x):
    return grad * (out > 0)
@tanh.backward
def _(grad, out, x):
    return grad * (1 - out * out)


def unbroadcast(grad, shape):
    """What a rule returned, summed to the shape of its input; ValueError if that was never broadcast to grad's shape."""
    if grad.shape == shape:
        return grad
    if broadcast_shape(grad.shape, shape) != grad.shape:
        raise ValueError(f"{shape} does not broadcast to {grad.shape}")
    return np.asarray(sum_to_shape(grad, shape))


@matmul.backward
def _(grad, out, a, b):
    if b.ndim == 1: return lambda: grad[..., None] * b, lambda: as_rows(a).T @ grad.reshape(-1)
    if a.ndim == 1: a, grad = a[None, :], grad[..., None, :]
    if b.ndim == 2:
        return lambda: grad @ b.T, lambda: as_rows(a).T @ as_rows(grad)
    return lambda: grad @ b.swapaxes(-1, -2), lambda: a.swapaxes(-1, -2) @ grad


def count_uses(root):
    """How often each tensor behind root was used on the way to it: {tensor: times}."""
    uses, unasked = {}, [root]
    while unasked:
        for x in inputs_of(unasked.pop()):
            if x not in uses:
                unasked.append(x)
            uses[x] = uses.get(x, 0) + 1
    return uses


def outputs_first(root):
    """From root back: each tensor that an op made, once, after all that was made from it; then it is forgotten."""
    waits, ready = count_uses(root), [root]
    while ready:
        t = ready.pop()
        inputs = inputs_of(t)
        if inputs: yield t
        for x in inputs:
            waits[x] -= 1
            if waits[x] == 0:
                del waits[x]                # else its memory would stay until the end
                ready.append(x)


def backward(loss, grad=None):
    """Add to the grad of each leaf behind loss how much the loss changes per unit of it; grad weighs a loss of several numbers."""
    grads = {loss: first_gradient(loss, grad)}
    for t in outputs_first(loss):
        for x, gx in input_gradients(t, grads.pop(t)):
            grads[x] = total(grads.get(x), unbroadcast(gx, x.shape))
    for leaf, g in grads.items():
        leaf.grad = total(leaf.grad, g)


@contextlib.contextmanager
def no_grad():
    """Inside this block, or a function decorated with it, this thread records nothing: no graph, no memory held."""
    before = op.recording.set(False)
    try:
        yield
    finally:
        op.recording.reset(before)
