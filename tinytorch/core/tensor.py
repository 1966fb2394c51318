# Generated from course/modules/source/02_tensor/tensor_dev.py by "python -m course.build": edit it there.

import contextvars
import functools
import math

import numpy as np

from tinytorch.core.utils import broadcast_shape


def as_float32(data):
    """Numbers as a float32 array: shares memory with a float32 array, copies all else, refuses what is not numbers."""
    try:
        array = np.asarray(data)
    except ValueError:
        raise ValueError("a tensor needs rows of equal length: pad the shorter ones") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a tensor holds numbers, not {array.dtype}: replace names and gaps by numbers first")
    return array.astype(np.float32, copy=False)


def matmul_shape(a, b):
    """The shape of a matrix product; ValueError names the sizes that do not fit."""
    if a == () or b == ():
        raise ValueError(f"cannot multiply {a} by {b}: both sides need an axis; use * to multiply by a number")
    inner = b[0] if len(b) == 1 else b[-2]
    if a[-1] != inner:
        raise ValueError(f"cannot multiply {a} by {b}: the inner sizes {a[-1]} and {inner} must agree")
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return broadcast_shape(a[:-2], b[:-2]) + rows + columns


def reshape_shape(old, shape):
    """The shape after a reshape, with its -1 filled in; ValueError if the numbers do not fit."""
    size, given = math.prod(old), math.prod(n for n in shape if n != -1)
    filled = tuple(size // given if n == -1 and given else n for n in shape)
    if math.prod(filled) != size or shape.count(-1) > 1 or -1 in filled:
        raise ValueError(f"cannot reshape {old} into {shape}: it holds {size} numbers")
    return filled


def one_tuple(sizes): return tuple(sizes[0]) if sizes and isinstance(sizes[0], (tuple, list)) else sizes


class Tensor:
    """An n-dimensional float32 array that remembers how it was made; shares memory with a float32 array passed in."""

    __array_ufunc__ = None      # so array + tensor comes to us, and np.exp(tensor) is refused, not half done

    def __init__(self, data, requires_grad=False):
        if isinstance(data, (list, tuple)) and any(isinstance(x, Tensor) and x.requires_grad for x in data):
            raise TypeError("a list of tensors would lose their gradients: use concat(a, b) instead of Tensor([a, b])")
        self.data = data
        self.requires_grad, self.grad, self.origin = requires_grad, None, None      # Module 06 needs them

    def assign(self, data): self._data, self.version = as_float32(data), self.version + 1
    version, data = 0, property(lambda self: self._data, assign)        # version: how often data was assigned

    shape = property(lambda self: self.data.shape)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    dtype = property(lambda self: self.data.dtype)
    T = property(lambda self: self.transpose())

    def __add__(self, other): return add(self, other)
    def __radd__(self, other): return add(other, self)
    def __sub__(self, other): return sub(self, other)
    def __rsub__(self, other): return sub(other, self)
    def __mul__(self, other): return mul(self, other)
    def __rmul__(self, other): return mul(other, self)
    def __truediv__(self, other): return div(self, other)
    def __rtruediv__(self, other): return div(other, self)
    def __pow__(self, other): return power(self, other)
    def __rpow__(self, other): return power(other, self)
    def __matmul__(self, other): return matmul(self, other)
    def __rmatmul__(self, other): return matmul(other, self)
    def __neg__(self): return neg(self)
    def __getitem__(self, index): return getitem(self, index=index)

    def sum(self, axis=None, keepdims=False): return reduce_sum(self, axis=axis, keepdims=keepdims)
    def mean(self, axis=None, keepdims=False): return reduce_mean(self, axis=axis, keepdims=keepdims)
    def max(self, axis=None, keepdims=False): return reduce_max(self, axis=axis, keepdims=keepdims)
    def reshape(self, *shape): return reshape(self, shape=one_tuple(shape))
    def transpose(self, *axes): return transpose(self, axes=one_tuple(axes) or tuple(range(self.ndim))[::-1])

    def item(self):
        """The number in a tensor of one element, as a Python float."""
        if self.size != 1:
            raise ValueError(f"item() needs one element, this tensor has shape {self.shape}: index or sum it first")
        return self.data.item()

    def numpy(self):
        """The array itself, not a copy."""
        return self.data

    def __array__(self, dtype=None, copy=None): return np.array(self.data, dtype=dtype, copy=copy)
    def __len__(self): return len(self.data)
    def __iter__(self): return (self[i] for i in range(len(self)))
    def __float__(self): return self.item()
    def __bool__(self): return bool(self.item())

    def __repr__(self):
        grad = ", requires_grad=True" if self.requires_grad else ""
        if self.size > 24:
            return f"Tensor(shape={self.shape}, from {self.data.min():.4g} to {self.data.max():.4g}{grad})"
        return f"Tensor({np.array2string(self.data, separator=', ', prefix='Tensor(')}{grad})"

    def backward(self, grad=None):
        """Gradients of everything this tensor was made from."""
        try:
            from tinytorch.core.autograd import backward
        except ModuleNotFoundError as missing:
            raise NotImplementedError("backward() is what you write in Module 06") from missing
        backward(self, grad)


class op:
    """A function on arrays, lifted to tensors. Module 06 gives it a derivative: `@name.backward`."""

    recording = contextvars.ContextVar("recording", default=True)       # for each thread; Module 06 switches it off

    def __init__(self, forward, name=None, shape_rule=None):
        functools.update_wrapper(self, forward)
        self.__name__ = name or forward.__name__
        self.forward, self.shape_rule, self.derivative = forward, shape_rule, None

    def __call__(self, *inputs, **options):
        inputs = [x if isinstance(x, Tensor) else Tensor(x) for x in inputs]
        try:
            out = self.forward(*[x.data for x in inputs], **options)
        except ValueError:
            if self.shape_rule: self.shape_rule(*[x.shape for x in inputs], **options)
            raise
        out, kept = out if isinstance(out, tuple) else (out, None)      # kept: what a derivative will want to see
        result = Tensor(out)
        if op.recording.get() and any([x.requires_grad for x in inputs]):
            result.requires_grad = True
            result.origin = self, inputs, result.data if kept is None else kept, options, [x.version for x in (result, *inputs)]
        return result

    def backward(self, derivative):
        """Decorator: `derivative(grad, kept, *arrays, **options)` returns the gradient of each input."""
        self.derivative = derivative
        return derivative


add = op(np.add, "add", broadcast_shape)
sub = op(np.subtract, "sub", broadcast_shape)
mul = op(np.multiply, "mul", broadcast_shape)
div = op(np.divide, "div", broadcast_shape)
power = op(lambda a, b: a ** (b.item() if b.ndim == 0 else b), "power", broadcast_shape)
matmul = op(np.matmul, "matmul", matmul_shape)
neg, exp, log, sqrt = op(np.negative, "neg"), op(np.exp), op(np.log), op(np.sqrt)
reduce_sum, reduce_mean = op(np.ndarray.sum, "reduce_sum"), op(np.ndarray.mean, "reduce_mean")
reduce_max = op(np.ndarray.max, "reduce_max")
reshape = op(lambda x, *, shape: x.reshape(shape), "reshape", reshape_shape)
transpose = op(lambda x, *, axes=None: x.transpose(axes), "transpose")
getitem = op(lambda x, *, index: x[index], "getitem")


@op
def concat(*parts, axis=0):
    """The parts one after the other along an axis, in new memory; ValueError names the shapes that do not fit."""
    rows = [np.moveaxis(part, axis, 0) for part in parts]
    for part, row in zip(parts, rows, strict=True):
        if row.shape[1:] != rows[0].shape[1:]:
            raise ValueError(f"cannot join {parts[0].shape} and {part.shape} along axis {axis}: other sizes must agree")
    shape = list(parts[0].shape)
    shape[axis] = sum(len(row) for row in rows)
    out, start = np.empty(shape, np.float32), 0
    for row in rows:
        np.moveaxis(out, axis, 0)[start:start + len(row)] = row
        start += len(row)
    return out


def held_bytes(array):
    """Bytes of the memory block that an array keeps alive: its own, or that of the array it looks into."""
    while array.base is not None:
        array = array.base
    return array.nbytes


def squared_distances(a, b):
    """Squared distances of all rows of a (n, k) to all rows of b (m, k): Tensor (n, m), by one matrix product."""
    squares_a = (a * a).sum(axis=1, keepdims=True)
    squares_b = (b * b).sum(axis=1)
    return squares_a - 2 * (a @ b.T) + squares_b
