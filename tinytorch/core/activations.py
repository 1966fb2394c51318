# Generated from course/modules/source/03_activations/activations_dev.py by "python -m course.build": edit it there.

"""The bends between linear layers, as ops on tensors and as layers without parameters."""
import numpy as np
from tinytorch.core.tensor import Tensor, op


@op
def relu(x):
    """x where it is positive, 0 elsewhere."""
    return np.maximum(x, 0)


@op
def leaky_relu(x, *, slope=0.01):
    """x where it is positive, slope * x elsewhere, so that the left side still answers a nudge."""
    return np.where(x > 0, x, slope * x)

@op
def tanh(x):
    """Squashes x between -1 and 1; 0 stays 0."""
    return np.tanh(x)


@op
def sigmoid(x):
    """1 / (1 + e**-x): between 0 and 1, safe for x of any size."""
    power = np.exp(-np.abs(x))                  # between 0 and 1 for every x
    right = 1 / (1 + power)
    left = power / (1 + power)
    return np.where(x >= 0, right, left)


@op
def softmax(x, *, axis=-1):
    """Shares of e**x along an axis: positive, summing to 1, safe for scores of any size."""
    highest = x.max(axis=axis, keepdims=True)
    with np.errstate(over="ignore"):            # scores 1e39 apart: -inf, whose power is 0, as it should be
        powers = np.exp(x - highest)
    return powers / powers.sum(axis=axis, keepdims=True)


@op
def gelu(x):
    """x times the bell curve's share below x, by the tanh approximation of Hendrycks and Gimpel (2016)."""
    near = np.clip(x, -10, 10)                  # tanh is at its end there, and the cube cannot overflow
    cube = near * near * near
    share = 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (near + 0.044715 * cube)))
    return x * share


class Activation:
    """A layer with nothing to learn: it remembers its options and applies `function`, the op of its subclass."""

    def __init__(self, **options):
        self.options = options

    def __call__(self, x):
        return self.function(x, **self.options)

    def __repr__(self):
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{type(self).__name__}({', '.join(options)})"

    def parameters(self):
        return []

class ReLU(Activation): function = relu
class LeakyReLU(Activation): function = leaky_relu
class Sigmoid(Activation): function = sigmoid
class Tanh(Activation): function = tanh
class Softmax(Activation): function = softmax
class GELU(Activation): function = gelu
