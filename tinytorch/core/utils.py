# Generated from course/modules/source/01_setup/setup_dev.py by "python -m course.build": edit it there.

import math
import time
from itertools import zip_longest

import numpy as np

import tinytorch


def hello_tinytorch(name="world"):
    """A greeting with the version of the framework."""
    return f"Hello, {name}. This is TinyTorch {tinytorch.__version__}."


def memory_bytes(shape, dtype=np.float32):
    """Bytes of an array of this shape and dtype, without making it."""
    return math.prod(shape) * np.dtype(dtype).itemsize


def best_ms(function, *, repeat=5, clock=time.perf_counter):
    """The shortest of `repeat` calls of `function`, in milliseconds."""
    best = math.inf
    for _ in range(repeat):
        start = clock()
        function()
        best = min(best, clock() - start)
    return 1000 * best


def standardize(x, *, axis):
    """x with mean 0 and standard deviation 1 along an axis; 0 where all numbers along it are equal."""
    centred = x - x.mean(axis=axis, keepdims=True)
    spread = x.std(axis=axis, keepdims=True)
    equal = x.max(axis=axis, keepdims=True) == x.min(axis=axis, keepdims=True)
    return centred / np.where(equal, 1, spread)


def broadcast_shape(a, b):
    """The shape in which arrays of shapes a and b meet; ValueError naming both and the two sizes that clash."""
    pairs = list(zip_longest(reversed(a), reversed(b), fillvalue=1))
    for m, n in pairs:
        if m != n and 1 not in (m, n):
            raise ValueError(f"shapes {a} and {b} do not fit: {m} against {n}")
    return tuple(n if m == 1 else m for m, n in reversed(pairs))


def one_hot(labels, classes):
    """Integers 0..classes-1 as float32 rows with a single 1: labels.shape + (classes,)."""
    labels = np.asarray(labels)
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(f"label {outside[0]} is outside 0 to {classes - 1}")
    return (labels[..., None] == np.arange(classes)).astype(np.float32)


def sum_to_shape(x, shape):
    """Undo broadcasting from `shape` to x.shape: the sum over all places that an entry was copied to."""
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    return x.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def tiles(images, size):
    """Square tiles of images (n, height, width), as a view: (n, height // size, width // size, size, size)."""
    n, height, width = images.shape
    if height % size or width % size:
        raise ValueError(f"tiles of {size} x {size} do not fill images of {height} x {width}")
    rows, columns = height // size, width // size
    cut = images.reshape(n, rows, size, columns, size)
    return cut.swapaxes(2, 3)
