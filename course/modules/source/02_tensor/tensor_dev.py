# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] nbgrader={"grade": false, "grade_id": "title", "locked": true, "schema_version": 3, "solution": false, "task": false}
# # Module 02: The tensor
#
# **The question: what does a tensor add to an array, and when does it copy the numbers?**
#
# At the end your own `Tensor` compares 797 handwritten digits with 1,000 known ones, all with all, by one matrix product,
# and names each after the nearest; nothing is trained. About 160 minutes. You need axis, broadcasting and views from
# Module 01, `try` and `raise`, and enough Python to read a class; you write functions of 3 to 11 lines.
#
# Checkpoint 01 times them against plain NumPy: no Python loops over numbers. `NotImplementedError` in a
# later cell means that a TODO above it is not written yet, or its cell not run.

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import tracemalloc

import matplotlib.pyplot as plt
import numpy as np


def outcome(function, *inputs, **options):
    """What a call returns, or the error in which it ends."""
    try: return function(*inputs, **options)
    except Exception as error: return error


def refuses(function, *inputs, kind, says, **options):
    """For tests: the call must end in an error of this kind whose message contains this text."""
    got = outcome(function, *inputs, **options)
    call = ", ".join([*map(repr, inputs), *[f"{name}={value}" for name, value in options.items()]])
    fits = isinstance(got, kind) and says in str(got)
    assert fits, f"{function.__name__}({call}) should end in a {kind.__name__} that says {says!r}, yours gives {got!r}"


def peak_mb(function):
    """The most memory that a call held at one time, in MB, beyond what was there before it."""
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


import tinytorch.core.utils as module_01     # after these three functions, so that they are there whatever is missing
from tinytorch.core.utils import best_ms, broadcast_shape, memory_bytes
from tinytorch.data import digits

needed = {"best_ms(function) returns milliseconds": lambda: 0 <= best_ms(lambda: None) < 1000,
          "broadcast_shape((3, 1), (4,)) is (3, 4)": lambda: broadcast_shape((3, 1), (4,)) == (3, 4)}
for behaviour, holds in needed.items():
    try: found = holds()
    except Exception as error: found = f"{type(error).__name__}: {error}"
    assert found is True, (f"{behaviour}: not in {module_01.__file__} ({found}). Mend it in module 01 (20 minutes), "
                           "export it, restart this kernel. Past its due date, tito module start 01 offers the reference.")
print("best_ms and broadcast_shape come from", module_01.__file__)

# %% nbgrader={"grade": false, "grade_id": "export-imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
import contextvars
import functools
import math

import numpy as np

from tinytorch.core.utils import broadcast_shape

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Three questions before you start
#
# <details><summary>1. How many bytes do 1,000 numbers take as float64, and as float32?</summary>
# 8,000 and 4,000.</details>
# <details><summary>2. <code>row = table[0]; row[0] = 7</code>. What is <code>table[0, 0]</code>?</summary>
# 7: a slice is a view, it looks at the memory of the array it was cut from.</details>
# <details><summary>3. What is the shape of <code>np.ones((3, 4)).sum(axis=1, keepdims=True)</code>?</summary>
# <code>(3, 1)</code>: the axis that is named shrinks to 1 instead of going.</details>
#
# ## First contact: the nearest known digit
#
# Module 01 compared digits with averages. Now every picture is compared with 1,000 single ones and named after the nearest,
# where near means a small sum of squared pixel differences. NumPy does it through one big array of squares.

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
images, labels = digits()
known, unseen = images[:1000].reshape(-1, 64), images[1000:].reshape(-1, 64)
block = (unseen[:100, None, :] - known) ** 2                    # 100 pictures x 1,000 known x 64 pixels
nearest = block.sum(axis=2).argmin(axis=1)
right = (labels[nearest] == labels[1000:1100]).sum()
print(f"{right} of 100 pictures named correctly, through {memory_bytes(block.shape) / 1e6:.1f} MB of squares")
plt.figure(figsize=(10, 2.4)).suptitle("Ten unseen digits (top) and the nearest of 1,000 known ones (bottom)")
for place, picture in enumerate([*unseen[:10], *known[nearest[:10]]], start=1):
    plt.subplot(2, 10, place).axis("off")
    plt.imshow(picture.reshape(8, 8), cmap="gray_r")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "numbers-idea", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 1. One kind of number (25 minutes)
#
# NumPy chooses a dtype from what it is given: integers, or float64 with 8 bytes each. Networks are trained in float32: 4
# bytes, so half the memory and twice as many numbers per transfer. The price is precision: 24 binary digits, about 7
# decimal ones. Every tensor of this course holds float32.
#
# | you pass | what happens | memory |
# |---|---|---|
# | float32 array | nothing: same numbers, same place | shared |
# | float64 or integer array, list, number | rounded to float32 | new |
# | `["7"]`, `[1, None]`, complex numbers | refused: not numbers, or not real ones | |
# | `[[1, 2], [3]]` | refused: *ragged*, the rows have different lengths | |
#
# The next cell shows the price, and what NumPy makes of the third row if nobody stops it.

# %% nbgrader={"grade": false, "grade_id": "numbers-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
print(np.float32(16_777_216) + np.float32(1))        # 2 to the 24: all binary digits are in use, the 1 is lost
print(np.asarray(["7"], dtype=np.float32), np.asarray([1, None], dtype=np.float32))

# %% [markdown] nbgrader={"grade": false, "grade_id": "numbers-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 2.1: `as_float32(data)`, about 7 lines
#
# | | |
# |---|---|
# | `data` | a number, a list (of lists), or an array of any shape; it stays as it was |
# | returns | a float32 array of the same shape; shares the memory of `data` if that is a float32 array already |
# | example | `[[1, 2], [3, 4.5]]` gives `[[1, 2], [3, 4.5]]`; `[True, False]` gives `[1, 0]`; `3` gives an array of shape `()` |
# | refuses text, objects, complex | `TypeError` that names the dtype: `a tensor holds numbers, not object`; for `["7"]` `not <U1` |
# | refuses ragged lists | `ValueError`, and the message contains `rows of equal length` |
#
# `array.dtype.kind` is one letter: `b` truth values, `i` and `u` integers, `f` real numbers; `c` complex, `U` text,
# `O` objects such as None. For a ragged list NumPy raises a `ValueError` of its own (`inhomogeneous shape`), which you replace
# by one that helps.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Which dtype does NumPy choose for <code>[1, None]</code> when you ask for none? Look at it before you convert.
# Then read what the <code>copy</code> option of <code>astype</code> is for.</details>

# %% nbgrader={"grade": false, "grade_id": "as-float32", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def as_float32(data):
    """Numbers as a float32 array: shares memory with a float32 array, copies all else, refuses what is not numbers."""
    ### BEGIN SOLUTION
    try:
        array = np.asarray(data)
    except ValueError:
        raise ValueError("a tensor needs rows of equal length: pad the shorter ones") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"a tensor holds numbers, not {array.dtype}: replace names and gaps by numbers first")
    return array.astype(np.float32, copy=False)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-as-float32-values", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_as_float32_values(data):
    got, want = outcome(as_float32, data), np.array(data).astype(np.float32)
    assert getattr(got, "dtype", None) == np.float32, f"{data!r} should become an array of float32, yours is {got!r}"
    assert np.array_equal(got, want), f"{data!r} should become\n{want}, yours is\n{got}"
for data in ([[1, 2], [3, 4.5]], [True, False], 3): test_as_float32_values(data)
### BEGIN HIDDEN TESTS
test_as_float32_values(np.random.default_rng(0).normal(size=(2, 3, 4)))
test_as_float32_values(np.random.default_rng(1).integers(0, 255, size=(4, 1, 2)).astype(np.uint8))
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-as-float32-memory", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_as_float32_memory(array):
    before = array.copy()
    assert np.shares_memory(as_float32(array), array), "a float32 array should be used where it is, yours is a copy"
    assert np.array_equal(array, before), f"as_float32 changed its input from\n{before} to\n{array}"
test_as_float32_memory(np.ones((2, 3), np.float32))
### BEGIN HIDDEN TESTS
test_as_float32_memory(np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, 1].T)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-as-float32-refuses", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
refuses(as_float32, [1, None], kind=TypeError, says="object")
refuses(as_float32, ["7"], kind=TypeError, says="<U1")
refuses(as_float32, [[1, 2], [3]], kind=ValueError, says="rows of equal length")
### BEGIN HIDDEN TESTS
refuses(as_float32, [1, 2j], kind=TypeError, says="complex128")
refuses(as_float32, "seven", kind=TypeError, says="<U5")
refuses(as_float32, [[[1], [2, 3]], [[4], [5]]], kind=ValueError, says="rows of equal length")
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "numbers-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
pixels = np.tile(images.reshape(-1, 64), (10, 1))
sources = {"float32 array": pixels, "float64 array": pixels.astype(np.float64), "list of lists": pixels.tolist()}
for name, source in sources.items():
    print(f"{pixels.size:,} numbers from a {name}: {best_ms(lambda: as_float32(source)):8.4f} ms")

# %% [markdown] nbgrader={"grade": false, "grade_id": "matmul-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The same numbers, three prices: that is why data sets are stored as float32 arrays, and why a tensor shares where it
# can. The other side of sharing: who writes into the array afterwards, writes into the tensor.
#
# ## 2. Shape rules (40 minutes)
#
# A *shape rule* says what shape comes out before a single number is computed, and names what does not fit. Your
# `broadcast_shape` of Module 01 is the rule for `+ - * /`. Two more are needed. First the matrix product: each number of
# `a @ b` is a row of `a` times a column of `b`, number by number, added up. By hand, with `a = [[1, 2], [3, 4]]` and
# `b = [[5, 6], [7, 8]]`:
#
# | | column 0 | column 1 |
# |---|---|---|
# | row 0 | 1·5 + 2·7 = 19 | 1·6 + 2·8 = 22 |
# | row 1 | 3·5 + 4·7 = 43 | 3·6 + 4·8 = 50 |
#
# A row and a column must be equally long: these *inner* sizes, the last of `a` and the last but one of `b`, vanish. Axes
# before the last two number a stack of matrices, and stacks broadcast. A shape with a single axis counts as one row on
# the left, as one column on the right, and that axis of 1 is left out of the result.
#
# ### TODO 2.2: `matmul_shape(a, b)`, about 7 lines
#
# | | |
# |---|---|
# | `a`, `b` | shapes, tuples of any length |
# | returns | the shape of `a @ b`, a tuple; no array is made |
# | example | `(2, 3)`, `(3, 4)` give `(2, 4)`; `(5, 1, 2, 3)`, `(6, 3, 4)` give `(5, 6, 2, 4)`; `(3,)`, `(3, 4)` give `(4,)`; `(2, 3)`, `(3,)` give `(2,)` |
# | refuses | `ValueError`: `cannot multiply (2, 3) by (4, 5): the inner sizes 3 and 4 must agree` |
# | refuses `()` on either side | `ValueError`: `cannot multiply () by (4, 5): both sides need an axis` |
# | refuses stacks | that do not broadcast: the `ValueError` of `broadcast_shape` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Cut each shape into three parts: stack, rows, columns. Slices of a short tuple are empty where an index would fail.
# Which parts of which side are left in the result?</details>

# %% nbgrader={"grade": false, "grade_id": "matmul-shape", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def matmul_shape(a, b):
    """The shape of a matrix product; ValueError names the sizes that do not fit."""
    ### BEGIN SOLUTION
    if a == () or b == ():
        raise ValueError(f"cannot multiply {a} by {b}: both sides need an axis; use * to multiply by a number")
    inner = b[0] if len(b) == 1 else b[-2]
    if a[-1] != inner:
        raise ValueError(f"cannot multiply {a} by {b}: the inner sizes {a[-1]} and {inner} must agree")
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    return broadcast_shape(a[:-2], b[:-2]) + rows + columns
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-matmul-fits", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_matmul_fits(a, b):
    got, want = outcome(matmul_shape, a, b), np.matmul(np.ones(a), np.ones(b)).shape
    why = "(what is missing or too much: the stack, the rows, or the columns?)"
    assert got == want, f"{a} times {b} should give {want}, yours gives {got!r}\n{why}"
for pair in [((2, 3), (3, 4)), ((5, 1, 2, 3), (6, 3, 4)), ((3,), (3, 4)), ((2, 3), (3,))]: test_matmul_fits(*pair)
### BEGIN HIDDEN TESTS
pairs = [((3,), (3,)), ((1, 7), (7, 1)), ((2, 3, 4), (4, 5)), ((4,), (6, 4, 2)), ((6, 2, 4), (4,)), ((2, 0), (0, 3))]
for pair in pairs: test_matmul_fits(*pair)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-matmul-refuses", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
refuses(matmul_shape, (2, 3), (4, 5), kind=ValueError, says="(2, 3) by (4, 5): the inner sizes 3 and 4 must agree")
refuses(matmul_shape, (), (4, 5), kind=ValueError, says="both sides need an axis")
### BEGIN HIDDEN TESTS
for a, b, text in [((7, 2, 3), (2, 3), "inner sizes 3 and 2"), ((2, 3), (2,), "inner sizes 3 and 2"),
                   ((3,), (), "both sides need an axis"), ((2, 3, 4), (5, 4, 6), "2 against 5")]:
    refuses(matmul_shape, a, b, kind=ValueError, says=text)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "reshape-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The other rule is about `reshape`, which reads the same numbers in the same order with other axes. One size may be given
# as -1, "whatever fits": 12 numbers reshaped to `(2, -1)` become `(2, 6)`.
#
# ### TODO 2.3: `reshape_shape(old, shape)`, about 5 lines
#
# | | |
# |---|---|
# | `old`, `shape` | tuples of sizes from 0 on; `shape` may contain one -1 |
# | returns | `shape` with the -1 replaced by the size that fits |
# | example | `(3, 4)` to `(2, -1)` gives `(2, 6)`; `(2, 3)` to `(3, 2)` gives `(3, 2)`; `()` to `(1, -1)` gives `(1, 1)` |
# | refuses | `ValueError`: `cannot reshape (2, 3) into (4, -1): it holds 6 numbers` |
# | also refused | a second -1, even if only 1 fits: `(1,)` to `(-1, -1)`; a -1 beside a 0, where any size fits: `(0, 3)` to `(0, -1)` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# How many numbers do the given sizes hold without the -1? When can the missing one be found? What is true of every
# right answer, so that you can check it at the end?</details>

# %% nbgrader={"grade": false, "grade_id": "reshape-shape", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def reshape_shape(old, shape):
    """The shape after a reshape, with its -1 filled in; ValueError if the numbers do not fit."""
    ### BEGIN SOLUTION
    size, given = math.prod(old), math.prod(n for n in shape if n != -1)
    filled = tuple(size // given if n == -1 and given else n for n in shape)
    if math.prod(filled) != size or shape.count(-1) > 1 or -1 in filled:
        raise ValueError(f"cannot reshape {old} into {shape}: it holds {size} numbers")
    return filled
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-reshape-fits", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_reshape_fits(old, shape):
    got, want = outcome(reshape_shape, old, shape), np.ones(old).reshape(shape).shape
    assert got == want, f"{old} reshaped to {shape} should have shape {want}, yours says {got!r}"
for pair in [((3, 4), (2, -1)), ((2, 3), (3, 2)), ((), (1, -1))]: test_reshape_fits(*pair)
### BEGIN HIDDEN TESTS
for pair in [((2, 3, 4), (-1,)), ((24,), (4, -1, 3)), ((2, 0), (0, 7)), ((0, 3), (-1, 3)), ((1, 1), ())]: test_reshape_fits(*pair)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-reshape-refuses", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
for old, shape in [((2, 3), (4, -1)), ((2, 3), (4, 2)), ((1,), (-1, -1)), ((0, 3), (0, -1)), ((6,), (0,))]:
    refuses(reshape_shape, old, shape, kind=ValueError, says=f"cannot reshape {old} into {shape}: it holds {math.prod(old)} numbers")
### BEGIN HIDDEN TESTS
for old, shape in [((4,), (-1, -1)), ((2, 3), ()), ((6,), (-1, 4)), ((2,), (4,)), ((24,), (0, -1)), ((0,), (-1, 0, 5))]:
    refuses(reshape_shape, old, shape, kind=ValueError, says=f"cannot reshape {old} into {shape}: it holds")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "tensor-idea", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. The tensor and its one door (15 minutes, nothing to write)
#
# The machinery is given, and it runs on what you wrote. A `Tensor` is an array with three slots for Module 06. Its
# operators hand over to *ops*. An op is a function on arrays, lifted to tensors: `op.__call__` takes the arrays out,
# calls the function, puts the result into a new tensor. Where NumPy objects to the shapes, your shape rule speaks first.
# Every operation of this course passes through that one door.
#
# What happens in `10 - x`, step by step: the number 10 does not know tensors, so Python asks `x.__rsub__(10)`. That calls
# `sub(10, x)`. The door makes a tensor of 10, takes both arrays out, and `np.subtract` broadcasts `()` with the shape of
# `x`. The new array becomes a tensor; had `x` required a gradient, it would also note `sub` and its two inputs.
#
# Two decisions you will notice. `==` asks whether two names mean the same object, because Module 06 uses tensors as keys;
# compare numbers with `np.allclose(a.data, b.data)`. And `x += 1` makes a new tensor, it never writes into the old one;
# `x.data += 1` does. Module 06 notices a change that comes too late by `x.version`, which grows by one with every assignment
# to `data`.

# %% nbgrader={"grade": false, "grade_id": "tensor-class", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
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

# %% nbgrader={"grade": false, "grade_id": "op-class", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
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

# %% nbgrader={"grade": false, "grade_id": "tensor-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
prices = Tensor([[1, 2, 3], [4, 5, 6]])
print(10 - prices, np.float64(2) * prices, prices @ [1, 0, -1], prices.mean(axis=1, keepdims=True), sep="\n")
for wrong in (lambda: prices + [1, 2], lambda: prices @ prices, lambda: prices.reshape(4, -1), lambda: np.exp(prices)):
    print(repr(outcome(wrong)))

# %% [markdown] nbgrader={"grade": false, "grade_id": "concat-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# You will meet the last error again: NumPy's functions refuse a tensor, so that no calculation leaves the framework
# unnoticed. The cure is `exp(x)` for a tensor, `np.exp(x.data)` for its array.
#
# ## 4. An op of your own: `concat` (25 minutes)
#
# Some operations only look: `reshape`, `transpose` and slices give views. Joining two tensors cannot be one of them: they
# lie in two places, and a view has one starting point and one step per axis. So `concat` makes room for the result and
# writes every part into it. If the joined axis comes first, each part fills a slice of the room.
# `np.moveaxis(x, 1, 0)` shows an array with its axis 1 in front, as a view: **what is written into it lands in `x`.**
#
# | `a` = `[[1, 2], [3, 4]]`, `b` = `[[5], [6]]`, axis 1 | |
# |---|---|
# | room | shape (2, 3) |
# | the room with axis 1 first | shape (3, 2): the columns have become rows |
# | written into rows 0 and 1, then row 2 | `[1, 3]` and `[2, 4]`, then `[5, 6]` |
# | the room itself | `[[1, 2, 5], [3, 4, 6]]` |
#
# ### TODO 2.4: `concat(*parts, axis=0)`, about 11 lines
#
# `@op` does the lifting: your function gets float32 arrays and returns one. `could not broadcast input array from shape
# (2,3) into shape (2,2)` means that a slice and the part written into it have different shapes: print both.
#
# | | |
# |---|---|
# | `parts` | one or more arrays with at least one axis; they stay as they were |
# | `axis` | the axis along which they are joined; may be negative, -1 is the last; the message may name it either way |
# | returns | a new array, also for a single part; along `axis` the sizes add up, the others stay |
# | example | `concat([[1, 2], [3, 4]], [[5], [6]], axis=1)` is `[[1, 2, 5], [3, 4, 6]]` |
# | refuses | `ValueError`: `cannot join (2, 2) and (3, 2) along axis 1: other sizes must agree`, of several parts any two that clash; nothing is broadcast |
# | limits | slices and `moveaxis` only: this once, `np.concatenate` is what you build |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Turn the joined axis to the front in every part, too. Then all sizes but the first must be the same, and each part fills
# the next rows of the room. Where does the next part begin?</details>

# %% nbgrader={"grade": false, "grade_id": "concat", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def concat(*parts, axis=0):
    """The parts one after the other along an axis, in new memory; ValueError names the shapes that do not fit."""
    ### BEGIN SOLUTION
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
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-concat", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_concat(*parts, axis):
    parts = [np.float32(part) for part in parts]
    got, want = outcome(concat, *parts, axis=axis), Tensor(np.concatenate(parts, axis=axis))
    call = f"concat of {', '.join(str(part.shape) for part in parts)} along axis {axis}"
    right = isinstance(got, Tensor) and np.array_equal(got.data, want.data)
    why = "(another shape: which axis grew? Right shape: which part was written where?)"
    assert right, f"{call} should give {want.shape}\n{want}, yours gives {np.shape(got)}\n{got!r}\n{why}"
test_concat([[1, 2], [3, 4]], [[5], [6]], axis=1); test_concat([1, 2], [3], [4, 5, 6], axis=0)
### BEGIN HIDDEN TESTS
numbers = np.random.default_rng(0).normal(size=(2, 6, 4))
for axis in (0, 1, 2, -1, -2, -3): test_concat(numbers, -numbers, numbers + 1, axis=axis)
test_concat(numbers[:, :1], numbers[:, 1:3], numbers[:, :0], axis=1)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-concat-limits", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
refuses(concat, np.ones((2, 2)), np.ones((3, 2)), axis=1, kind=ValueError, says="join (2, 2) and (3, 2) along axis 1")
part = np.ones((2, 3), np.float32)
assert not np.shares_memory(concat(part).data, part), "a single part should be copied, too; yours shares its memory"
### BEGIN HIDDEN TESTS
refuses(concat, np.ones((4, 2)), np.ones((4, 1)), axis=0, kind=ValueError, says="join (4, 2) and (4, 1) along axis 0")
refuses(concat, np.ones((2, 3)), np.ones((2, 3)), np.ones((3, 2)), axis=-1, kind=ValueError, says="(2, 3) and (3, 2) along axis")
concat(part, 2 * part, axis=1)
assert (part == 1).all(), f"concat changed its input from ones to\n{part}"
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "views-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. Views and copies (30 minutes)
#
# | | result | why |
# |---|---|---|
# | `x.reshape(...)`, `x.transpose(...)`, `x.T`, slices `x[2:5, 0]` | a view | another shape, other steps, another start: enough to say which numbers are meant |
# | `x.T.reshape(-1)` | a copy | no single step reads the columns one after the other |
# | `x[[2, 5, 6]]`, `x[x.data > 0]` | a copy | such places have no common step |
# | arithmetic, `sum`, `concat` | new numbers | |
#
# Making a view touches no number, so it takes the same time whatever the size.
#
# A program reads 20 *batches*, tensors of 20,000 pictures or 5.12 MB each. Of every batch it keeps the first picture, 256
# bytes, in a list, and forgets the rest. **How many MB are in use at the end?** Type a number, then measure.

# %% nbgrader={"grade": false, "grade_id": "views-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_mb = your number
### BEGIN SOLUTION
guess_mb = 0.005
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-views-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_mb >= 0, "any number from 0 on will do: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "views-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
def used_mb(keep, batches):
    """MB in use after the loop, while the list of what was kept is still there."""
    tracemalloc.start()
    kept = [keep(Tensor(np.full((20_000, 64), number, np.float32))) for number in range(batches)]
    used = tracemalloc.get_traced_memory()[0] if kept else 0
    tracemalloc.stop()
    return used / 1e6

ways = {"batch[0], a view": lambda batch: batch[0], "batch[0] + 0, a copy": lambda batch: batch[0] + 0,
        "batch[[0]], by a list": lambda batch: batch[[0]], "the whole batch": lambda batch: batch}
for name, keep in ways.items():
    print(f"kept: {name:22} {used_mb(keep, 20):8.3f} MB after 20 batches, {used_mb(keep, 40):8.3f} MB after 40")
print(f"you said {guess_mb} MB for the first line after 20")

# %% [markdown] nbgrader={"grade": false, "grade_id": "views-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# An array that owns its memory has the `base` `None`. The `base` of a view is the object whose memory it uses, and as
# long as the view lives, all of that stays.
#
# ### TODO 2.5: `held_bytes(array)`, about 3 lines
#
# | | |
# |---|---|
# | `array` | a NumPy array, owner of its memory or view into another array (not into bytes or a file) |
# | returns | the bytes of the memory block that stays as long as `array` does |
# | example | for `x = np.zeros((1000, 64), np.float32)`: 256000 for `x`, `x[0]` and `x.T`, but 256 for `x[0].copy()` |
# | nasty case | a base may have a base itself: that of `sliding_window_view(x, (2, 2))`, all 2 x 2 pieces of `x`, is a helper without `nbytes`, whose base is `x` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Who owns the memory at the end of the chain, and what does the attribute <code>nbytes</code> of an array count?</details>

# %% nbgrader={"grade": false, "grade_id": "held-bytes", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def held_bytes(array):
    """Bytes of the memory block that an array keeps alive: its own, or that of the array it looks into."""
    ### BEGIN SOLUTION
    while array.base is not None:
        array = array.base
    return array.nbytes
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-held-bytes", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_held_bytes(array, want, what):
    got = outcome(held_bytes, array)
    assert got == want, f"{what} keeps {want} bytes, yours says {got!r}; the numbers it shows take {array.nbytes}"
table = np.zeros((1000, 64), np.float32)
test_held_bytes(table, 256_000, "an owner")
test_held_bytes(table[0], 256_000, "a row of 1,000")
test_held_bytes(table[0].copy(), 256, "a copy of a row")
test_held_bytes(np.lib.stride_tricks.sliding_window_view(table, (2, 2)), 256_000, "a sliding window")
### BEGIN HIDDEN TESTS
test_held_bytes(np.zeros((3, 5)).T[1:][:, 2], 120, "a view of a view of 15 float64 numbers")
test_held_bytes(np.lib.stride_tricks.sliding_window_view(np.zeros(9), 3)[1:], 72, "a view of a sliding window")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "views-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A colleague sees a program use more memory with every batch and says: "Python
# does not clean up, or all those small tensors add up." Explain your four lines to her, with `held_bytes`. Which lines
# exclude her two causes? Then decide: a run of 5,000 such batches keeps the first picture of every 100th, in a server
# with 512 MB. View or copy? And if all pictures are cut from one tensor that stays in memory anyway?
#
# | points | for |
# |---|---|
# | 2 | your own figures, with unit and ratio, and how far your guess was off |
# | 2 | the cause, and for each rival cause the line that excludes it |
# | 2 | both decisions, with calculated MB |

# %% [markdown] nbgrader={"grade": true, "grade_id": "views-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline (nearly the same on every machine). View 102.4 MB, copy 0.01 MB, list 0.01 MB, whole batch 102.4 MB, and twice that after 40 (guess 0.005 MB: 20,000
# times too low). `batch[0]` shows 256 bytes, but held_bytes says 5,120,000: its base is the batch, which stays. 20 x 5.12 =
# 102.4 MB, exactly what keeping whole batches costs. "Python does not clean up": the second and third line run the same
# loop, forget the same batches, and their memory is free again. "Small tensors add up": these lines keep as many tensors,
# about 0.5 kB each with the objects around the numbers. 5,000 batches, every 100th: 50 views hold 256 MB, half of the server;
# 50 copies take 0.03 MB, and copying 64 numbers costs a microsecond. Copy. If all pictures are cut from one tensor that stays
# anyway, views hold nothing that is not there already: then the view is right, unless somebody writes into it.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "distances-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 6. All distances by one product (25 minutes)
#
# First contact took 25.6 MB for 100 pictures. The array of all differences is not needed:
#
# $$|a - b|^2 = |a|^2 - 2\,a \cdot b + |b|^2$$
#
# | by hand | a = (1, 2) | b = (4, 6) | |
# |---|---|---|---|
# | difference (3, 4) | | | 9 + 16 = **25** |
# | squares, product | 1 + 4 = 5 | 16 + 36 = 52 | 1·4 + 2·6 = 16 |
# | 5 - 2·16 + 52 | | | **25** |
#
# For n rows against m rows all products are one matrix of shape (n, m). The squares of `a` belong to its rows, those of
# `b` to its columns; broadcasting adds both.
#
# ### TODO 2.6: `squared_distances(a, b)`, about 3 lines
#
# | | |
# |---|---|
# | `a`, `b` | `Tensor` of shape `(n, k)` and `Tensor` of shape `(m, k)`; they stay as they were |
# | returns | `Tensor` of shape `(n, m)`: at `[i, j]` the sum of the squares of `a[i] - b[j]` |
# | example | `[[1, 2], [0, 0]]` against `[[4, 6], [1, 2], [0, 3]]` gives `[[25, 0, 2], [52, 5, 9]]` |
# | limits | no array of n x m x k numbers; tensor operations only, so that Module 06 can follow: if `a` requires a gradient, so does the result |
# | precision | where rows are equal, rounding may leave a tiny number, even below 0 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Write the shape of each of the three terms. One of them needs an axis that the sum would drop: which option of
# <code>sum</code> keeps it?</details>

# %% nbgrader={"grade": false, "grade_id": "squared-distances", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def squared_distances(a, b):
    """Squared distances of all rows of a (n, k) to all rows of b (m, k): Tensor (n, m), by one matrix product."""
    ### BEGIN SOLUTION
    squares_a = (a * a).sum(axis=1, keepdims=True)
    squares_b = (b * b).sum(axis=1)
    return squares_a - 2 * (a @ b.T) + squares_b
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-distances", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_distances(a, b):
    got = outcome(squared_distances, Tensor(a), Tensor(b))
    want = np.float32([[((row - other) ** 2).sum() for other in np.array(b)] for row in np.array(a)])
    right = isinstance(got, Tensor) and got.shape == want.shape and np.allclose(got.data, want, atol=1e-4)
    why = "(an error: which two terms met? Numbers: compare each of the three terms with the table by hand)"
    assert right, f"{a} against {b} should give\n{want}, yours gives {np.shape(got)}\n{got!r}\n{why}"
test_distances([[1, 2], [0, 0]], [[4, 6], [1, 2], [0, 3]])
### BEGIN HIDDEN TESTS
for seed, (n, m, k) in enumerate([(2, 3, 4), (5, 1, 3), (1, 6, 2), (4, 4, 3)]):
    draw = np.random.default_rng(seed).normal(size=(n + m, k)).round(2)
    test_distances(draw[:n], draw[n:])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-distances-limits", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_distances_limits(n, m, k):
    a, b = Tensor(np.ones((n, k)), requires_grad=True), Tensor(np.ones((m, k)))
    assert squared_distances(a, b).requires_grad, "the result does not know of a: somewhere numbers left the tensors"
    peak = peak_mb(lambda: squared_distances(a, b)) * 1e6 / 4
    assert peak < n * m * k / 4, f"yours held {peak:,.0f} numbers at a time; {n} x {m} x {k} is {n * m * k:,}"
    assert (a.data + b.data[:1] == 2).all(), "squared_distances changed its input"
test_distances_limits(60, 50, 80)
### BEGIN HIDDEN TESTS
test_distances_limits(40, 90, 100)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "distances-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# 400 digits against 400, three ways: one block of 400 x 400 x 64 differences, as in first contact; the same differences row
# by row in a Python loop of 400 steps; your product. Each way multiplies 10 million pairs of numbers. **How many times as
# long as your product does the block take?**

# %% nbgrader={"grade": false, "grade_id": "distances-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_block = your number
### BEGIN SOLUTION
guess_block = 2.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-distances-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_block > 0, "any positive number will do: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "distances-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
a, b = known[:400], known[400:800]
ways = {"block": lambda: ((a[:, None, :] - b) ** 2).sum(axis=2),
        "row by row": lambda: np.stack([((row - b) ** 2).sum(axis=1) for row in a]),
        "product": lambda: squared_distances(Tensor(a), Tensor(b)).data}
rounds = [{name: best_ms(way, repeat=9) for name, way in ways.items()} for _ in range(2)]
took = {name: min(times[name] for times in rounds) for name in ways}
for name, way in ways.items():
    print(f"{name:10} {took[name]:7.2f} ms  {took[name] / took['product']:5.1f} times the product  {peak_mb(way):6.1f} MB at the peak")
busy = any(times[name] > 1.5 * took[name] for times in rounds for name in ways)
print(f"you said {guess_block} for the block", "\ntwo measurements differ by more than 1.5 times: run this cell again" * busy)

# %% [markdown] nbgrader={"grade": false, "grade_id": "distances-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** Explain the three lines to a student who has learned that a Python loop is always
# slower than NumPy, and that equal arithmetic takes equal time. What does the middle line tell about the memory of the
# block, and what cause does it leave for the rest? Then decide: all 1,797 digits against all 1,797, in a server with
# 512 MB. Which ways are possible?
#
# | points | for |
# |---|---|
# | 2 | your own times and megabytes, with ratios, and how far your guess was off |
# | 2 | a cause for each of the two steps between the three lines, and what excludes its rival |
# | 2 | time and memory for 1,797 x 1,797 calculated for each way, and a decision |

# %% [markdown] nbgrader={"grade": true, "grade_id": "distances-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline (two shared Xeon cores, November 2026). 17, 9 and 0.3 ms; 42, 1.4 and 1.3 MB; the block takes 51 times as long as the
# product, guessed 2. Block to rows: same arithmetic, a Python loop more, and yet half the time, because 400 x 64
# differences (0.1 MB) stay in the cache while 41 MB go out to memory and come back. So memory traffic explains a factor
# of 2, not 50. Rows to product: the same number of multiplications and the same memory, 27 times faster. What is left is
# how often a fetched number is used: subtracting, squaring and summing go over all differences and use each once; the
# matrix product keeps small tiles in registers and uses each number many times. 1,797 against 400 is a factor of 4.5
# squared, 20: block 826 MB and 0.35 s, impossible in 512 MB; rows 26 MB and 0.19 s; product 26 MB and 7 ms. Both fit, take
# the product. (The grader accepts any machine's figures.)
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "use-it", "locked": true, "schema_version": 3, "solution": false, "task": false}
def errors(known, names):
    """How many % of the 797 unseen digits are named wrongly after the nearest known one."""
    nearest = squared_distances(Tensor(unseen), known.reshape(len(known), -1)).data.argmin(axis=1)
    return 100 * (names[nearest] != labels[1000:]).mean()

pictures, blank, names = Tensor(images[:1000]), np.zeros((1000, 8, 1)), labels[:1000]
left, right = concat(pictures[:, :, 1:], blank, axis=2), concat(blank, pictures[:, :, :-1], axis=2)
more = errors(concat(left, pictures, right), np.tile(names, 3))
print(f"{errors(pictures, names):.1f} % wrong; {more:.1f} % with copies shifted to the left and to the right, "
      f"for which a block of squares would take {memory_bytes((797, 3000, 64)) / 1e6:.0f} MB")
counts = [10, 20, 50, 100, 200, 500, 1000]
plt.figure(figsize=(6, 3)).suptitle("More known digits, fewer errors: nothing is trained, only compared")
plt.semilogx(counts, [errors(pictures[:count], names[:count]) for count in counts], "o-")
plt.xticks(counts, counts); plt.xlabel("known digits"); plt.ylabel("% of 797 named wrongly")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# The last point of the curve is the first contact again, with eight times as many pictures and without its block of squares.
#
# You can say what makes an array a tensor; predict shapes and name what does not fit; tell which operations copy, and what a view
# holds; replace a block of differences by one product.
#
# `tito module complete 02` checks and exports your work; from then on `from tinytorch.core.tensor import Tensor` is
# yours. Module 03 writes ops, Module 06 gives each a derivative, Module 13 returns to the product of all rows with all
# rows, Module 19 to joining.
#
# Two harder tasks, without points:
#
# 1. The shifted pictures were copied. Show a picture and its shift as two views of one wider picture instead.
# 2. Adding the same vector to all rows changes no distance. Which vector makes `squared_distances` more precise for rows
#    like `[10000.1, 10000.2]`? Measure before and after.
