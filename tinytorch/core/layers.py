# Generated from course/modules/source/04_layers/layers_dev.py by "python -m course.build": edit it there.

"""Layers: what holds weights, and what holds layers."""
import numpy as np
from tinytorch import randomness
from tinytorch.core.tensor import Tensor, as_float32, op
from tinytorch.given.modules import check_features, describe, inside, linear_misfit, uniform_fan_in, xavier_uniform  # noqa: F401


def he_normal(fan_in, shape):
    """First weights for layers with relu: float32 of spread sqrt(2 / fan_in), so that a signal keeps its mean square."""
    spread = np.float32((2 / fan_in) ** 0.5)
    return spread * randomness.generator().standard_normal(shape, dtype=np.float32)


def as_tensor(x): return x if isinstance(x, Tensor) else Tensor(x)


class Parameter(Tensor):
    """A tensor that training changes; it has memory of its own."""

    def __init__(self, data):
        super().__init__(as_float32(data).copy(), requires_grad=True)


def walk(thing, name="", seen=None):
    """(dotted name, part) of everything in a module, list, tuple or dict: itself first, depth first, each object once."""
    seen = set() if seen is None else seen
    if id(thing) not in seen:
        seen.add(id(thing))
        yield name, thing
        for key, part in inside(thing):
            yield from walk(part, f"{name}.{key}" if name else str(key), seen)


class Module:
    """A layer or a network. Of its attributes, and of lists, tuples and dicts in them, a Parameter is learned and saved, a
    NumPy array (a buffer) is saved, a Module is walked into; all else is left alone. A constant not to be saved: a Tensor."""

    training = True

    def forward(self, x): raise NotImplementedError(f"{type(self).__name__} has no forward(self, x) yet: write what it makes of x")
    def __call__(self, *inputs, **options): return self.forward(*inputs, **options)
    def __repr__(self): return describe(self)
    def named_modules(self): return [(name, part) for name, part in walk(self) if isinstance(part, Module)]
    def named_parameters(self): return [(name, part) for name, part in walk(self) if isinstance(part, Parameter)]
    def parameters(self): return [parameter for _, parameter in self.named_parameters()]

    def named_arrays(self):
        """Dotted name -> array, not copied: the data of parameters, and buffers."""
        found = [(name, part) for name, part in walk(self) if isinstance(part, (Parameter, np.ndarray))]
        return {name: part.data if isinstance(part, Parameter) else part for name, part in found}

    def state_dict(self):
        """A snapshot: copies of all arrays by their dotted names."""
        return {name: array.copy() for name, array in self.named_arrays().items()}

    def load_state_dict(self, state):
        """Take over the numbers of a state; ValueError names all that does not fit, and then nothing has changed."""
        own = self.named_arrays()
        wrong = [f"{name} is missing" for name in own if name not in state]
        wrong += [f"{name} is unexpected" for name in state if name not in own]
        shapes = [(name, np.shape(state[name]), array.shape) for name, array in own.items() if name in state]
        wrong += [f"{name} has shape {got}, this one has {want}" for name, got, want in shapes if got != want]
        if wrong: raise ValueError(f"the state does not fit this {type(self).__name__}: {'; '.join(wrong)}")
        for name, array in own.items(): array[...] = state[name]
        for parameter in self.parameters(): parameter.data = parameter.data         # so that `version` counts it

    def train(self, mode=True):
        for _, module in self.named_modules(): module.training = mode
        return self

    def eval(self): return self.train(False)


def linear_shape(shape, inputs, outputs):
    """The shape that Linear(inputs, outputs) makes of an input's; ValueError where neither last axis nor whole examples fit."""
    if shape[-1:] == (inputs,): return shape[:-1] + (outputs,)
    if len(shape) > 1 and np.prod(shape[1:]) == inputs: return shape[:1] + (outputs,)
    raise ValueError(linear_misfit(shape, inputs, outputs))


class Linear(Module):
    """x @ weight + bias along the last axis, weight (inputs, outputs); flattens examples whose sizes agree."""

    def __init__(self, inputs, outputs, bias=True):
        self.weight = Parameter(he_normal(inputs, (inputs, outputs)))
        self.bias = Parameter(np.zeros(outputs)) if bias else None

    def forward(self, x):
        x, (inputs, outputs) = as_tensor(x), self.weight.shape
        shape = linear_shape(x.shape, inputs, outputs)
        rows = x if x.ndim == 2 else x.reshape(-1, inputs)
        out = rows @ self.weight
        if self.bias is not None: out = out + self.bias
        return out if x.ndim == 2 else out.reshape(shape)


Dense = Linear


class Sequential(Module):
    """Layers one after the other: Sequential(a, b) or Sequential([a, b])."""

    def __init__(self, *layers):
        if len(layers) == 1 and isinstance(layers[0], (list, tuple)): layers = layers[0]
        self.layers = list(layers)
        for place, layer in enumerate(self.layers):
            if isinstance(layer, type) or not callable(layer):
                raise TypeError(f"layer {place} of Sequential is {layer!r}: pass an object such as ReLU(), with brackets")

    def forward(self, x):
        for layer in self.layers: x = layer(x)
        return x

    def __len__(self): return len(self.layers)
    def __getitem__(self, index): return Sequential(self.layers[index]) if isinstance(index, slice) else self.layers[index]


class Dropout(Module):
    """In training each number becomes 0 with probability p and the others grow by 1 / (1 - p); after eval() nothing happens.

    `random` is this layer's own generator. Who saves a run in order to go on with it saves `random.bit_generator.state`, too;
    who copies the module for another thread gives the copy a stream of its own: `copy.random = randomness.spawn()`.
    """

    def __init__(self, p=0.5):
        if not 0 <= p < 1: raise ValueError(f"Dropout(p={p}): p is the share that is dropped, from 0 to below 1")
        self.p, self.random = p, randomness.spawn()

    def forward(self, x):
        x = as_tensor(x)
        if not self.training or self.p == 0: return x
        kept = self.random.random(x.shape, dtype=np.float32) >= self.p
        return x * (kept / np.float32(1 - self.p))

    def extra_repr(self): return f"p={self.p}"


@op
def normalize(x, *, axis=-1, eps=1e-5):
    """x shifted and scaled to mean 0 and variance 1 along an axis or several."""
    deviation = x - x.mean(axis=axis, keepdims=True)
    inverse = 1 / np.sqrt((deviation * deviation).mean(axis=axis, keepdims=True) + eps)
    out = deviation * inverse
    return out, (out, inverse)              # the pair is kept: module 06 will want to see it


class LayerNorm(Module):
    """Each row along the last axis to mean 0 and variance 1, then times weight plus bias; the same in training and use."""

    def __init__(self, size, eps=1e-5):
        self.weight, self.bias, self.eps = Parameter(np.ones(size)), Parameter(np.zeros(size)), eps

    def forward(self, x):
        x, size = as_tensor(x), self.weight.size
        if x.shape[-1:] != (size,): raise ValueError(f"LayerNorm({size}) got an input of shape {x.shape}: its last axis must be {size}")
        return normalize(x, axis=-1, eps=self.eps) * self.weight + self.bias


class Flatten(Module):
    """(n, a, b, ...) becomes (n, a * b * ...)."""
    def forward(self, x): return (x := as_tensor(x)).reshape(x.shape[0], int(np.prod(x.shape[1:])))


class Identity(Module): forward = staticmethod(as_tensor)


class BatchNorm(Module):
    """Each feature (axis 1) to mean 0 and variance 1, then times weight plus bias. In training over the batch, while running
    averages are kept in buffers; after eval() by those, so that an answer does not depend on its neighbours."""

    dimensions = (2, 3, 4, 5)

    def __init__(self, features, eps=1e-5, momentum=0.1):
        self.weight, self.bias, self.eps, self.momentum = Parameter(np.ones(features)), Parameter(np.zeros(features)), eps, momentum
        self.running_mean, self.running_var = np.zeros(features, np.float32), np.ones(features, np.float32)

    def remember(self, mean, var, n):
        self.running_mean += self.momentum * (mean - self.running_mean)
        self.running_var += self.momentum * (var * n / (n - 1) - self.running_var)

    def forward(self, x):
        x = as_tensor(x)
        check_features(self, x.shape, self.weight.size, self.dimensions)
        axes, column = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
        if self.training:
            self.remember(x.data.mean(axis=axes), x.data.var(axis=axes), x.size // x.shape[1])
            out = normalize(x, axis=axes, eps=self.eps)
        else:
            spread = np.sqrt(self.running_var + self.eps)
            out = (x - self.running_mean.reshape(column)) / spread.reshape(column)
        return out * self.weight.reshape(column) + self.bias.reshape(column)


class BatchNorm1d(BatchNorm): dimensions = (2, 3)          # (n, features) or (n, features, length)
