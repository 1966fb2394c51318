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
# # Module 06: Automatic differentiation
#
# **The question: how can one walk back through a calculation say what each number in it did to the result?**
#
# To learn, a net must know for each weight by how much the loss changes per unit of that weight. A million nudges answer that for
# a million weights; one walk answers it for all of them. At the end a net of your own layers learns to read handwritten digits
# by your own `backward`.
#
# About 240 minutes, one idea an hour: slopes multiply; arrays; one walk; memory. Needed: `Tensor` and `op` (02), `relu` and
# `tanh` (03), `Linear` (04), `cross_entropy` (05), `broadcast_shape` and `sum_to_shape` (01), functions as values (`lambda`).

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import numpy as np

def outcome(function, *inputs):
    """What a call returns, or the error in which it ends."""
    try: return function(*inputs)
    except Exception as error: return error

def drawn(seed, *shape): return np.random.default_rng(seed).normal(size=shape)

def small_graph(a, b):
    """The leaves a and b and what is made from them, by name."""
    a, b = Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)
    c = a * b
    d = c + a
    return {"a": a, "b": b, "c": c, "d": d, "L": c * d}

def doublings(n):
    """x, and x doubled n times by y = y + y."""
    x = y = Tensor(0, requires_grad=True)
    for _ in range(n): y = y + y
    return x, y

from tinytorch.core import layers as module_04, losses as module_05, utils as module_01
from tinytorch.core.tensor import Tensor, concat, op
from tinytorch.data import digits
from tinytorch.testing.gradcheck import check_gradient, check_rule, gradients_of
from tinytorch.testing.memory import memory_of

needed = {"sum_to_shape sums": (module_01, lambda: module_01.sum_to_shape(np.ones((2, 3)), (3,)).tolist() == [2, 2, 2]),
          "Linear(3, 2) makes 2 of 3": (module_04, lambda: module_04.Linear(3, 2)(np.ones((4, 3))).shape == (4, 2)),
          "cross_entropy of [[0, 0]] is 0.69": (module_05, lambda: 0.69 < module_05.cross_entropy([[0, 0]], targets=[1]).item() < 0.7)}
for behaviour, (module, holds) in needed.items():
    found = outcome(holds)
    assert found is True, (f"{behaviour}: not in {module.__file__} ({found!r}). Mend it (20 minutes), export it, restart this "
                           "kernel. Past its due date, tito module start offers the reference of that module.")
    print(module.__name__, "comes from", module.__file__)

# %% nbgrader={"grade": false, "grade_id": "exports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
"""Gradients: rules for single ops, and one walk through the graph from a loss back to its leaves."""
import contextlib

import numpy as np

from tinytorch.core.activations import relu, tanh
from tinytorch.core.tensor import div, matmul, mul, op
from tinytorch.core.utils import broadcast_shape, sum_to_shape
from tinytorch.given.graphs import first_gradient, input_gradients, inputs_of, total
from tinytorch.given.rules import as_rows     # and with it the rules that are given

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary>What does <code>nudge(f, x)</code> of module 03 measure?</summary>
# By how much f changes per unit of x: f(x + h) - f(x - h), divided by 2h.</details>
# <details><summary>A bias of shape (3,) is added to rows of shape (2, 3). How often is each of its numbers used?</summary>
# Twice, once per row: broadcasting copies it.</details>
# <details><summary>What does a tensor note in <code>origin</code> when an input requires a gradient?</summary>
# The op, its inputs, what the op kept, its options, and the versions of the data of those tensors.</details>
#
# ## First contact: learning by nudging
#
# No walk yet: each of 640 weights is nudged up and down and then moved to where the loss is lower. It works, slowly.

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
images, labels = digits()
pixels = images.reshape(-1, 64)

def loss_of(weights): return module_05.cross_entropy(pixels[:200] @ weights, targets=labels[:200]).item()

weights = np.zeros((64, 10), np.float32)
for _ in range(8):
    slopes = np.zeros_like(weights)
    for index in np.ndindex(weights.shape):
        nudge = np.zeros_like(weights); nudge[index] = 0.1
        slopes[index] = (loss_of(weights + nudge) - loss_of(weights - nudge)) / 0.2
    weights -= 1.5 * slopes
right = ((pixels[1000:] @ weights).argmax(axis=1) == labels[1000:]).mean()
print(f"8 steps, {8 * 2 * weights.size:,} forward passes, {right:.0%} of 797 unseen digits read correctly")

# %% [markdown] nbgrader={"grade": false, "grade_id": "chain-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Hour 1: slopes multiply
#
# The **slope** of y per unit of x is an exchange rate: nudge x by a little, y changes by slope times that little. For
# u = 3x and y = u², at x = 2, with a nudge of 0.01:
#
# | | x | u | y |
# |---|---|---|---|
# | nudged down, up | 1.99, 2.01 | 5.97, 6.03 | 35.6409, 36.3609 |
# | slope of this step | | 3 per x | 2u = 12 per u |
# | slope of the whole way | | | 0.72 / 0.02 = **36 = 3 · 12** per x |
#
# 1. Each step has a slope of its own: 3 for 3x, 2u for u², 1 for a sum, the other factor for a product.
# 2. **Along a way, slopes multiply.**
# 3. **Where a number goes several ways, the ways add up.** In x·x it goes two: 3 + 3 = 6 at x = 3.
#
# ### TODO 6.1: `chain_check()`, 8 numbers (up to 20 minutes)
#
# The slope of y per unit of x, in your head or on paper. All right at the first go? Then skip the table above.
#
# | name | calculation | at | name | calculation | at |
# |---|---|---|---|---|---|
# | `a` | y = 3x + 7 | x = 2 | `e` | y = x·x + x | x = 3 |
# | `b` | y = x² | x = 5 | `f` | u = relu(x), y = 5u | x = -2 |
# | `c` | y = w·x, w = -4 | x = 2 | `g` | u = x / 2, y = 6 / u | x = 4 |
# | `d` | u = 2x, y = u² | x = 1 | `h` | u = 2x, v = 3x, y = u·v | x = 1 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Nudge x by 0.01 with a calculator. By how many hundredths does y change?</details>

# %% nbgrader={"grade": false, "grade_id": "chain-check", "locked": false, "schema_version": 3, "solution": true, "task": false}
def chain_check():
    """The eight slopes, by name."""
    answers = {}
    ### BEGIN SOLUTION
    answers["a"] = 3
    answers["b"] = 10
    answers["c"] = -4
    answers["d"] = 8
    answers["e"] = 7
    answers["f"] = 0
    answers["g"] = -0.75
    answers["h"] = 12
    ### END SOLUTION
    return answers

# %% nbgrader={"grade": true, "grade_id": "test-chain-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_chain(name, f, at, read):
    want, got = (f(at + 1e-4) - f(at - 1e-4)) / 2e-4, chain_check().get(name)
    right = got is not None and abs(got - want) < 1e-3
    assert right, f"{name}: a nudge of x says {want:.4g}, you said {got}; read again: {read}"
step, way, ways = "1, each step has a slope", "2, along a way slopes multiply", "3, several ways add up"
for case in [("a", lambda x: 3 * x + 7, 2, step), ("b", lambda x: x * x, 5, step), ("c", lambda x: -4 * x, 2, step),
             ("d", lambda x: (2 * x) ** 2, 1, way), ("e", lambda x: x * x + x, 3, ways), ("f", lambda x: 5 * max(x, 0), -2, way),
             ("g", lambda x: 6 / (x / 2), 4, way), ("h", lambda x: 2 * x * 3 * x, 1, ways)]: test_chain(*case)

# %% [markdown] nbgrader={"grade": false, "grade_id": "rules-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### A rule for each op
#
# From now on one number stands at the end, the loss, and its slope per unit of x is called the **gradient** of x. Nobody has to
# find slopes of long calculations. Each op gets a **rule**: from the gradient of its result, make the gradient of each input. The
# rule sees the numbers that went in and came out, nothing else.
#
# | op | went in | came out | gradient that arrives | the rule gives |
# |---|---|---|---|---|
# | add | a = 2, b = 5 | 7 | 3 | 3 and 3: a sum passes it on |
# | mul | a = 2, b = 5 | 10 | 3 | 15 and 6: times the other factor |
# | div | a = 6, b = 2 | 3 | 4 | 4 · 0.5 = 2 and 4 · (-1.5) = -6 |
# | relu | -2, 0, 3 | 0, 0, 3 | 7, 7, 7 | 0, 0, 7: at 0 the slope counts as 0 |
# | tanh | 0, 1 | 0, 0.762 | 10, 10 | 10, 4.2: the slope is $1 - t^2$, where t came out |
#
# ### TODO 6.2: the rules of `mul`, `div`, `relu` and `tanh`, 1 or 2 lines each
#
# | | |
# |---|---|
# | `grad` | the gradient that arrives: array of the result's shape |
# | `out`, `a`, `b`, `x` | the arrays that came out and went in; `a` and `b` may have different shapes, which were broadcast |
# | returns | one gradient per input, `a`'s first: arrays as large as `grad` will do, also for an input that was broadcast |
# | or | instead of an array a function that makes it, `lambda: ...`: the walk calls it only where that gradient is needed |
# | limits | always new arrays; nothing given is changed |
#
# <details><summary>Hint, after five minutes of trying</summary>
# How does 6 / b change when b = 2 becomes 2.01? Which power of b does that come from, and how can you write it with
# <code>out</code>?</details>

# %% nbgrader={"grade": false, "grade_id": "elementwise-rules", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@mul.backward
def _(grad, out, a, b):
    ### BEGIN SOLUTION
    return lambda: grad * b, lambda: grad * a
    ### END SOLUTION
@div.backward
def _(grad, out, a, b):
    ### BEGIN SOLUTION
    return lambda: grad / b, lambda: -grad * out / b
    ### END SOLUTION
@relu.backward
def _(grad, out, x):
    ### BEGIN SOLUTION
    return grad * (out > 0)
    ### END SOLUTION
@tanh.backward
def _(grad, out, x):
    ### BEGIN SOLUTION
    return grad * (1 - out * out)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-rules-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_by_hand(op, inputs, arrives, want):
    for place, (got, right) in enumerate(zip(gradients_of(op, arrives, *inputs), want, strict=True)):
        message = f"{op.__name__} of {inputs}, {arrives} arrives: input {place} should get {right}, yours gets {got.tolist()}"
        assert np.allclose(got, right, atol=1e-3), message
test_by_hand(mul, [2, 5], 3, [15, 6]); test_by_hand(div, [6, 2], 4, [2, -6])
test_by_hand(relu, [[-2, 0, 3]], [7, 7, 7], [[0, 0, 7]]); test_by_hand(tanh, [[0, 1]], [10, 10], [[10, 4.1997]])

# %% nbgrader={"grade": true, "grade_id": "test-rules-nudged", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check_rule(mul, drawn(0, 2, 3), drawn(1, 3))            # every number of every input is nudged, in float64
check_rule(div, drawn(2, 2, 1), 2 + drawn(3, 1, 4) ** 2)
check_rule(relu, drawn(4, 2, 3)); check_rule(tanh, drawn(5, 2, 3))
### BEGIN HIDDEN TESTS
check_rule(mul, drawn(6), drawn(7, 2, 2)); check_rule(div, drawn(8, 3), 3 * drawn(9, 2, 3)); check_rule(tanh, 3 * drawn(10, 4))
check_rule(relu, drawn(11, 3, 2, 2)); check_rule(div, -2.0, -3.0)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "unbroadcast-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Hour 2: arrays
#
# **What broadcasting copied, the walk must sum**, since ways add up. A bias `[1, 2, 3]` is added to two rows. The gradients
# that arrive, `[1, 2, 3]` for the first row and `[10, 20, 30]` for the second, have shape (2, 3); the bias gets `[11, 22, 33]`.
# One place does that after every rule, so that no rule has to.
#
# ### TODO 6.3: `unbroadcast(grad, shape)`, about 4 lines
#
# | | |
# |---|---|
# | `grad` | float32 array that a rule returned for an input of shape `shape` |
# | returns | array of shape `shape`: each number the sum over all places that it was copied to |
# | example | shape (2, 3) for `(3,)`: `[11, 22, 33]` as above; for `(2, 1)`: `[[6], [60]]`; for `()`: an array of 66 |
# | limits | shapes agree already: `grad` itself, no copy. Always an array: NumPy's sums like to give a number |
# | refuses | `ValueError` if an input of `shape` could not have been broadcast to `grad.shape`: (3, 2) or () for an input of (2, 3) |
#
# Module 01 left you two functions for this: `sum_to_shape(x, shape)` sums, `broadcast_shape(a, b)` says in which shape two
# shapes meet, or raises a `ValueError`.
#
# <details><summary>Hint, after five minutes of trying</summary>
# If an input of shape <code>shape</code> was broadcast to <code>grad.shape</code>: in which shape do these two meet?</details>

# %% nbgrader={"grade": false, "grade_id": "unbroadcast", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def unbroadcast(grad, shape):
    """What a rule returned, summed to the shape of its input; ValueError if that was never broadcast to grad's shape."""
    ### BEGIN SOLUTION
    if grad.shape == shape:
        return grad
    if broadcast_shape(grad.shape, shape) != grad.shape:
        raise ValueError(f"{shape} does not broadcast to {grad.shape}")
    return np.asarray(sum_to_shape(grad, shape))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-unbroadcast", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_unbroadcast(grad, shape, want):
    grad = np.asarray(grad, np.float32)
    got, what = unbroadcast(grad, shape), f"{grad.shape} for an input of shape {shape}"
    assert isinstance(got, np.ndarray), f"{what}: an array is due, got {type(got).__name__}"
    right = got.shape == shape and np.allclose(got, want)
    assert right, f"{what}: expected\n{want}, got\n{got}"
    assert shape != grad.shape or got is grad, f"{what}: grad itself is due, yours is a copy"
rows = [[1, 2, 3], [10, 20, 30]]
for shape, want in [((3,), [11, 22, 33]), ((2, 1), [[6], [60]]), ((), 66), ((2, 3), rows)]: test_unbroadcast(rows, shape, want)
### BEGIN HIDDEN TESTS
x = drawn(0, 2, 3, 4)
test_unbroadcast(x, (3, 1), x.sum(axis=(0, 2))[:, None]); test_unbroadcast(x, (1, 1, 4), x.sum(axis=(0, 1))[None, None])
test_unbroadcast(np.ones((0, 3)), (3,), [0, 0, 0]); test_unbroadcast(x[0, 0, 0], (), x[0, 0, 0])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-unbroadcast-refuses", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_refuses(shape, of):
    got = outcome(unbroadcast, np.ones(shape, np.float32), of)
    assert isinstance(got, ValueError), f"a gradient of shape {shape} for an input of {of} should end in a ValueError, got {got!r}"
test_refuses((3, 2), (2, 3)); test_refuses((), (2, 3)); test_refuses((1, 3), (2, 3))
### BEGIN HIDDEN TESTS
test_refuses((4,), (3,)); test_refuses((6,), (2, 3))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "matmul-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Matrix products
#
# By hand: `[[2, 3]] @ [[5], [7]]` is `[[31]]`, and 1 arrives. Per unit of the 2 the result changes by 5: the left side gets
# `[[5, 7]]`, the right side `[[2], [3]]`. Each gets the other one, turned.
#
# For larger ones the shapes leave one way. (2, 3) @ (3, 4) gives (2, 4), the shape of `grad`; the gradients must be (2, 3) and
# (3, 4). Each is a product of `grad` and the other side.
#
# ### TODO 6.4: the rule of `matmul`, 2 to 4 lines
#
# | | |
# |---|---|
# | `a`, `b` | shapes (..., n, k) and (..., k, m), at least two axes: vectors are dealt with above your lines |
# | `grad` | shape (..., n, m) |
# | returns | two gradients, arrays or functions; leading axes of `grad` may be left in, the walk sums them |
# | example | `a` `[[1, 2], [3, 4]]`, `b` `[[5], [6]]`, `grad` `[[10], [100]]`: `[[50, 60], [500, 600]]` and `[[310], [420]]` |
# | limits | a batch `a` with a single `b` (k, m): no array with a (k, m) for each of the batch. `as_rows(x)` makes a batch one table |
#
# `x.swapaxes(-1, -2)` turns each matrix of a batch; `x.T` reverses all axes.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Write the three shapes under each other and cross out what the result must not have. For the limit: what does a product of
# two tables sum over?</details>

# %% nbgrader={"grade": false, "grade_id": "matmul-rule", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@matmul.backward
def _(grad, out, a, b):
    if b.ndim == 1: return lambda: grad[..., None] * b, lambda: as_rows(a).T @ grad.reshape(-1)
    if a.ndim == 1: a, grad = a[None, :], grad[..., None, :]
    ### BEGIN SOLUTION
    if b.ndim == 2:
        return lambda: grad @ b.T, lambda: as_rows(a).T @ as_rows(grad)
    return lambda: grad @ b.swapaxes(-1, -2), lambda: a.swapaxes(-1, -2) @ grad
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-matmul-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
test_by_hand(matmul, [[[2, 3]], [[5], [7]]], [[1]], [[[5, 7]], [[2], [3]]])
test_by_hand(matmul, [[[1, 2], [3, 4]], [[5], [6]]], [[10], [100]], [[[50, 60], [500, 600]], [[310], [420]]])

# %% nbgrader={"grade": true, "grade_id": "test-matmul-nudged", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check_rule(matmul, drawn(0, 2, 3), drawn(1, 3, 4))
check_rule(matmul, drawn(2, 5, 2, 3), drawn(3, 5, 3, 4))
check_rule(matmul, drawn(4, 5, 2, 3), drawn(5, 3, 4))
### BEGIN HIDDEN TESTS
check_rule(matmul, drawn(6, 2, 3), drawn(7, 5, 3, 4)); check_rule(matmul, drawn(8, 2, 1, 2, 3), drawn(9, 4, 3, 1))
check_rule(matmul, drawn(10, 3), drawn(11, 3, 4)); check_rule(matmul, drawn(12, 5, 2, 3), drawn(13, 3))
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-matmul-memory", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_matmul_memory(batch, n, k, m):
    a, b, grad = np.ones((batch, n, k)), np.ones((k, m)), np.ones((batch, n, m))
    peak = memory_of(lambda: gradients_of(matmul, grad, a, b))[1] * 1e6 / 8
    assert peak < batch * k * m / 2, f"a (k, m) per batch? At the peak {peak:,.0f} numbers; {batch} x {k} x {m} is {batch * k * m:,}"
test_matmul_memory(64, 1, 100, 110)
### BEGIN HIDDEN TESTS
test_matmul_memory(100, 2, 90, 80)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "graph-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Hour 3: one walk
#
# The other rules are given in `tinytorch/rules.py`, most in one line. Open it: a sum sends its gradient to all that it added, a
# maximum to the winner, a reshape turns it back, a loss begins with what was wrong.
#
# Each result knows the inputs it was made from, and these know theirs: a **graph**, back to the **leaves**, the tensors that no op
# made. The obvious walk: a tensor that gets a gradient adds it to its total and passes it on at once, by the rule.

# %% nbgrader={"grade": false, "grade_id": "graph-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.given.graphs import draw

def by_paths(t, grad, totals):
    """Add grad to t's total and pass it on, to each input and so on, to the leaves."""
    totals[t] = totals.get(t, 0) + grad
    if t.origin is not None:
        op, inputs, kept, options, _ = t.origin
        made = op.derivative(grad, kept, *[x.data for x in inputs], **options)
        for x, gx in zip(inputs, made if isinstance(made, tuple) else (made,), strict=True):
            by_paths(x, gx() if callable(gx) else gx, totals)

graph, totals = small_graph(2, 5), {}
by_paths(graph["L"], np.float32(1), totals)
draw(graph["L"], names={t: name for name, t in graph.items()}, grads=totals,
     title="10 reaches a through d alone, 110 through c: ways add up")
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "paths-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Check it on paper: L = c·d sends 12 to c and 10 to d. d passes its 10 on, to c and to a. Now c has 22 in all, but `by_paths` did
# not wait for that: it passed 12 on from c, and later 10 more. The totals come out right.
#
# ### Predict, measure, explain
#
# The next cell walks by paths through `y = y + y`, repeated 6, 9, 12, 15 and 18 times. **How many times as long as 12 will 18
# doublings take?**

# %% nbgrader={"grade": false, "grade_id": "paths-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_paths = your number
### BEGIN SOLUTION
guess_paths = 1.5
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-paths-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_paths > 0, f"expected any positive number, got {guess_paths}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "paths-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
def paths_ms(n):
    y = doublings(n)[1]
    return module_01.best_ms(lambda: by_paths(y, np.float32(1), {}), repeat=9 if n < 15 else 2)

paths = {n: paths_ms(n) for n in (6, 9, 12, 15, 18)}
for n, took in paths.items(): print(f"{n:2} doublings {took:10.3f} ms by paths")
print(f"18 against 12: {paths[18] / paths[12]:.0f} times; you said {guess_paths}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "count-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Better: every tensor passes on its total, **once**, when all that was made from it has reported. So first count on how many
# reports each must wait.
#
# ### TODO 6.5: `count_uses(root)`, about 7 lines
#
# | | |
# |---|---|
# | `inputs_of(t)` | given: the inputs of `t` that need a gradient, one entry per use; `[]` for a leaf |
# | returns | a dict: each tensor behind `root` that needs a gradient, and how often it was used on the way to `root` |
# | example | for L above: d once, c twice, a twice, b once. In `y = y + y` each y has two uses |
# | limits | asks `inputs_of` once per tensor, however many ways lead to it; a loop, since Python ends recursions at a depth of 1,000 |
#
# Tensors can be keys: `==` compares identity.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Keep a list of tensors whose inputs have not been asked for. When does a tensor go onto it: at each use, or at its
# first?</details>

# %% nbgrader={"grade": false, "grade_id": "count-uses", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def count_uses(root):
    """How often each tensor behind root was used on the way to it: {tensor: times}."""
    ### BEGIN SOLUTION
    uses, unasked = {}, [root]
    while unasked:
        for x in inputs_of(unasked.pop()):
            if x not in uses:
                unasked.append(x)
            uses[x] = uses.get(x, 0) + 1
    return uses
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-count-uses", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_count(graph, root, want):
    uses = count_uses(graph[root])
    got = {({other: name for name, other in graph.items()}).get(t, "?"): times for t, times in uses.items()}
    assert got == want, f"uses behind {root} should be {want}, yours are {got}"
graph = small_graph(2, 5)
graph["e"] = 3 * graph["L"]
test_count(graph, "L", {"a": 2, "b": 1, "c": 2, "d": 1}); test_count(graph, "e", {"a": 2, "b": 1, "c": 2, "d": 1, "L": 1})
### BEGIN HIDDEN TESTS
graph["e"] = graph["L"] * graph["d"]
test_count(graph, "e", {"a": 2, "b": 1, "c": 2, "d": 2, "L": 1}); test_count(graph, "a", {})
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-count-size", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_count_size(n):
    x, y = doublings(n); uses = count_uses(y)
    assert (len(uses), uses.get(x)) == (n, 2), f"{n} doublings: expected {n} tensors, x used twice; got {len(uses)}, {uses.get(x)}"
for n in (3, 25, 3000): test_count_size(n)          # does 25 never end? Then inputs are asked for once per way

# %% [markdown] nbgrader={"grade": false, "grade_id": "order-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 6.6: `outputs_first(root)`, about 9 lines
#
# | | |
# |---|---|
# | hands over | from root on, each tensor that an op made, **after all that was made from it**; leaves are left out |
# | how | `yield t` hands t over and pauses until the next one is asked for. The walk then frees `t.origin`: ask for `inputs_of(t)` before |
# | example | for L above: L, d, c. Not L, c, d: c waits for d's report. Nothing for a leaf |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Root waits for nobody. Each tensor whose turn it is reports to its inputs, which then wait for one report fewer. Whose turn
# is it next?</details>

# %% nbgrader={"grade": false, "grade_id": "outputs-first", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def outputs_first(root):
    """From root back: each tensor that an op made, once, after all that was made from it; then it is forgotten."""
    ### BEGIN SOLUTION
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
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-order", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_order(graph, root, want):
    names = {t: name for name, t in graph.items()}
    got = " ".join([names.get(t, "?") for t in outputs_first(graph[root])])
    assert got == want, f"from {root} back the order should be {want!r}, yours is {got!r}"
for root, want in {"L": "L d c", "d": "d c", "a": ""}.items(): test_order(small_graph(2, 5), root, want)
graph = small_graph(2, 5)
test_order(graph | {"e": graph["d"] * graph["c"]}, "e", "e d c")
### BEGIN HIDDEN TESTS
p = Tensor([1, 2], requires_grad=True) * 3; q = p * 2; r = q + 1
for s in (r * p, p * r, concat(p, r, p), r * r): test_order({"p": p, "q": q, "r": r, "s": s}, "s", "s r q p")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "backward-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 6.7: `backward(loss, grad=None)`, about 6 lines
#
# Given: `first_gradient(loss, grad)`, what arrives at the loss; `input_gradients(t, grad)`, the pairs (input, gradient) that t's rule
# makes of `grad`, only for inputs that need one, and not yet summed to their shapes; `total(so_far, grad)`, the sum of what meets,
# where `so_far` may be `None`.
#
# | | |
# |---|---|
# | does | one walk; a dict says what has arrived where. Whoever has had a turn leaves it, so that in the end only leaves are left |
# | leaves | `leaf.grad` grows by what arrived, `None` becomes that: two walks add up. No other tensor gets a `grad` |
# | example | L above: `a.grad` is 120, `b.grad` is 44 |
# | limits | if a rule fails, no leaf's `grad` has changed |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Which method of a dict takes something out and hands it to you, and which one answers <code>None</code> for a key that is not
# there?</details>

# %% nbgrader={"grade": false, "grade_id": "backward", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def backward(loss, grad=None):
    """Add to the grad of each leaf behind loss how much the loss changes per unit of it; grad weighs a loss of several numbers."""
    ### BEGIN SOLUTION
    grads = {loss: first_gradient(loss, grad)}
    for t in outputs_first(loss):
        for x, gx in input_gradients(t, grads.pop(t)):
            grads[x] = total(grads.get(x), unbroadcast(gx, x.shape))
    for leaf, g in grads.items():
        leaf.grad = total(leaf.grad, g)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-backward-by-hand", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_backward(graph, root, want):
    backward(graph[root])
    for name, t in graph.items():
        grad, right = t.grad, want.get(name)
        got = None if grad is None else np.asarray(grad).tolist()
        assert got == right, f"after a walk from {root}, {name}.grad should be {right}, yours is {got}"
test_backward(small_graph(2, 5), "L", {"a": 120, "b": 44}); test_backward(small_graph(2, 5), "d", {"a": 6, "b": 2})
### BEGIN HIDDEN TESTS
test_backward(small_graph(-1, 3), "L", {"a": -24, "b": 7}); test_backward(small_graph(2, 5), "a", {"a": 1})
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-backward-adds", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_adds(x, walks, want):
    x = Tensor(x, requires_grad=True)
    for arrives in walks: backward(x * x, arrives)
    assert np.allclose(x.grad, want), f"x * x at {x.data}, walks with {walks}: x.grad should be {want}, yours is {x.grad}"
test_adds([1, 2], walks=[[1, 1]], want=[2, 4]); test_adds([1, 2], walks=[[1, 1], [1, 10]], want=[4, 44])
### BEGIN HIDDEN TESTS
test_adds(3, walks=[None, None, 2], want=24)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-backward-network", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_network(n, inputs, units):
    x, W, b = drawn(n, n, inputs), drawn(inputs, inputs, units), drawn(units, units)
    f = lambda: (np.tanh(x @ W + b) ** 2).mean()                        # the net in float64, to be nudged
    leaves = Tensor(W, requires_grad=True), Tensor(b, requires_grad=True)
    backward((tanh(x @ leaves[0] + leaves[1]) ** 2).mean())
    check_gradient(f, W, leaves[0].grad, "mean of tanh(x @ W + b)², W"); check_gradient(f, b, leaves[1].grad, "the same, b")
test_network(4, 2, 3)
### BEGIN HIDDEN TESTS
test_network(1, 3, 2); test_network(5, 1, 1)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-backward-limits", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_limits(n, more):
    x, y = doublings(n)
    for _ in range(more): y = y + 1
    backward(y)
    assert x.grad == 2.0 ** n, f"{n} doublings, {more} sums: x.grad should be {2.0 ** n:.4g}, yours is {x.grad}"
test_limits(25, more=3000)

w, broken = Tensor([3, 4], requires_grad=True), op(lambda x: x + 0, "broken")
broken.backward(lambda grad, out, x: np.ones(7))
error = outcome(backward, broken(w * 2) + w, [1, 1])
assert "shape (7,)" in str(error), f"the mistake of a rule should come through, backward gives {error!r}"
assert w.grad is None, f"a rule failed ({error}); w.grad should still be None, it is {w.grad}"

# %% nbgrader={"grade": false, "grade_id": "nodes-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
def nodes_ms(n):
    graphs = [doublings(n)[1] for _ in range(9)]           # a graph is walked once, so each walk has its own
    return module_01.best_ms(lambda: backward(graphs.pop()), repeat=9)

nodes, row = {n: nodes_ms(n) for n in paths}, Tensor(1, requires_grad=True)
for n in paths: print(f"{n:2} doublings: {2 ** n:7,} paths {paths[n]:10.3f} ms; {n:2} results, once each {nodes[n]:6.3f} ms")
for _ in range(18): row = row + 1
print(f"18 sums in a row, 1 path: {module_01.best_ms(lambda: by_paths(row, np.float32(1), {}), repeat=9):.3f} ms by paths")
plt.figure(figsize=(6, 3)).suptitle("By paths each doubling doubles the time; once each, it adds one step")
for way, name in [(paths, "by paths"), (nodes, "once each")]: plt.semilogy(list(way), list(way.values()), "o-", label=name)
plt.xlabel("doublings"); plt.ylabel("ms"); plt.legend(); plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "paths-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A colleague says: "by_paths is slow because it is recursive; a loop would save it." Explain
# your figures to her: which line shows what recursion costs, and what is the cause? Then decide: in a residual net each block
# adds its input to its output, which doubles the paths. She wants to walk 24 blocks by paths on a machine ten times as fast as
# yours. How long does one walk take?
#
# | points | for |
# |---|---|
# | 2 | your own times for 12 and 18 doublings, both ways, with ratios, and how far your guess was off |
# | 2 | a cause that fits both columns, and the line that excludes the recursion |
# | 2 | a decision with a calculated time for 24 blocks |

# %% [markdown] nbgrader={"grade": true, "grade_id": "paths-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline (two shared EPYC cores, November 2026). By paths 6.9 ms for 12 doublings and 386 ms for 18, 56 times (I had said 1.5); once each,
# 0.067 and 0.090 ms, 1.3 times. Each doubling gives every earlier tensor twice as many ways to the end, so by_paths visits x 4,096 and
# 262,144 times, 64 times as often. Once each there are 12 and 18 steps of about 5 us. Recursion is cleared by the last line:
# 18 sums in a row are as deep a recursion, but one path, and take 0.018 ms, less than the walk with a loop. A loop that follows every
# path would make as many visits. 24 blocks: 64 times 386 ms is 25 s here, 2.5 s on her machine, for one walk of a training
# that needs thousands; once each, about 0.12 ms here. Refuse. (Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "memory-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Hour 4: memory
#
# A graph holds all numbers that a rule may want to see. So a walk frees it, tensor by tensor, and afterwards it is gone. You will
# meet these messages; the next cell provokes the first five:
#
# | message | happens when | cure |
# |---|---|---|
# | `cube() has no derivative yet` | an op has no rule | write it under the op: `@cube.backward` |
# | `needs a scalar loss or a grad` | the loss is an array | `.mean()` or `.sum()` it |
# | `found nothing to learn` | no leaf has `requires_grad=True` | make weights with it, or a `Parameter` |
# | `was walked already` | a graph, or part of one, is walked twice | forward again; add two losses up |
# | `was changed after the forward pass` | weights moved too early | walk first, then move |
# | `returned a gradient of shape` | a rule is wrong | `check_rule` it |

# %% nbgrader={"grade": false, "grade_id": "errors-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
cube, x = op(lambda x: x ** 3, "cube"), Tensor([1, 2], requires_grad=True)
walked, moved = (x * x).sum(), (x * x).sum()
backward(walked)
x.data -= 0.1
for wrong in (cube(x).sum(), x * x, Tensor([1]) * 2, walked, moved): print(repr(outcome(backward, wrong)))

# %% [markdown] nbgrader={"grade": false, "grade_id": "no-grad-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# What is written into an array (`x.data[0] = 5`) instead of assigned goes unnoticed: no `version` counts it.
#
# Where no gradient is wanted, nothing needs to be kept: when digits are read after training, say. `op.recording` is a *context
# variable*, with a value for each thread. Every op asks `op.recording.get()`. Its method `set` takes a new value and returns a token;
# `reset(token)` restores what was before.
#
# ### TODO 6.8: `no_grad()`, about 5 lines
#
# | | |
# |---|---|
# | use | `with no_grad():` and a block, or `@no_grad()` above a function |
# | does | ops inside record nothing: their results have no `origin` and need no gradient |
# | how | `contextlib.contextmanager` runs your function up to its `yield`, then the block, then the rest |
# | limits | afterwards recording is what it was **before**: still off after an inner one of two blocks, and restored after an error |
#
# <details><summary>Hint, after five minutes of trying</summary>
# An error in the block appears at your <code>yield</code>. Which part of <code>try</code> runs in any case?</details>

# %% nbgrader={"grade": false, "grade_id": "no-grad", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@contextlib.contextmanager
def no_grad():
    """Inside this block, or a function decorated with it, this thread records nothing: no graph, no memory held."""
    ### BEGIN SOLUTION
    before = op.recording.set(False)
    try:
        yield
    finally:
        op.recording.reset(before)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-no-grad", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def recorded(): return (Tensor(1, requires_grad=True) + 1).requires_grad
with no_grad():
    seen = [recorded()]
    with no_grad(): seen.append(recorded())
    seen.append(recorded())
assert [*seen, recorded()] == [False] * 3 + [True], f"outer, inner, outer, after: False 3 times, then True; yours {seen, recorded()}"

# %% nbgrader={"grade": true, "grade_id": "test-no-grad-errors", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
@no_grad()
def fails(): raise KeyError("seven")
error, still = outcome(fails), (Tensor(1, requires_grad=True) + 1).requires_grad
op.recording.set(True)                      # for the cells below
assert isinstance(error, KeyError), f"the block's own error should come through, yours gives {error!r}"
assert still, "after an error inside no_grad() nothing is recorded any more"
### BEGIN HIDDEN TESTS
with no_grad(): inner = outcome(fails), (Tensor(1, requires_grad=True) + 1).requires_grad
assert not inner[1], f"an inner block failed; in the outer one nothing should be recorded: {inner}"
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "memory-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# Thirty layers of tanh(x @ W), each result 500 x 500 numbers (1 MB): recorded, the forward pass leaves about 60 MB. The walk makes a
# gradient for each result, as large as the result. **How many MB are in use at the walk's peak?**

# %% nbgrader={"grade": false, "grade_id": "memory-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_mb = your number
### BEGIN SOLUTION
guess_mb = 120
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-memory-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_mb > 0, f"expected any positive number, got {guess_mb}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "memory-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
W, rows = Tensor(drawn(0, 500, 500) / 20, requires_grad=True), drawn(1, 500, 500)

def thirty_layers():
    x = Tensor(rows)
    for _ in range(30): x = tanh(x @ W)
    return x.sum()

def graph_held():
    loss = thirty_layers()
    held = [t.origin for t in outputs_first(loss)]
    backward(loss)
    return held

def gradients_kept():
    """Your walk, but nothing leaves the dict."""
    here = {(loss := thirty_layers()): first_gradient(loss)}
    for t in outputs_first(loss):
        for x, gx in input_gradients(t, here[t]): here[x] = total(here.get(x), gx)

ways = {"forward, recorded": thirty_layers, "forward in no_grad()": no_grad()(thirty_layers), "forward, your walk":
        lambda: backward(thirty_layers()), "same, graph held": graph_held, "same, gradients kept": gradients_kept}
for name, way in ways.items(): print("{:22} {:6.1f} MB afterwards, {:6.1f} MB at the peak".format(name, *memory_of(way)))
print(f"you said {guess_mb} MB for the third peak")

# %% [markdown] nbgrader={"grade": false, "grade_id": "memory-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** Your walk frees the graph, and takes each gradient out of the dict at its turn. What does each
# of the two save, at the peak and afterwards, and which lines show it? Then decide for a server with 512 MB and 120 such layers, all
# sharing W: does training fit, and reading? And if someone keeps the losses of all steps in a list, as tensors: of steps that were
# walked, or of steps that were not?
#
# | points | for |
# |---|---|
# | 2 | your own five peaks, with ratios, and how far your guess was off |
# | 2 | what each of the two saves, and the lines that show it |
# | 2 | decisions with calculated MB |

# %% [markdown] nbgrader={"grade": true, "grade_id": "memory-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline (nearly the same on every machine). Peaks 61, 3, 64, 66 and 124 MB; I had said 120 for the third, 1.9 times too much. Gradients
# that leave the dict: 124 - 64 = 60 MB less at the peak. A gradient lives from its first arrival to its turn, so two or three
# of 1 MB exist at a time. Freeing the graph: 66 - 64 = 2 MB at the peak, since the peak comes at the start of the walk, when all of the forward pass is
# still there; but 62 - 1 = 61 MB afterwards. 120 layers: four times 61 is 244, the walk's peak about 247 MB: training fits; with gradients kept
# it would be about 490, which hardly fits beside Python. Reading in no_grad() takes 3 MB, whatever the depth. A loss that was walked
# has no origin, a list of them holds bytes; one that was not holds its graph, 244 MB, and the third is too much. Keep `loss.item()`.
# ### END SOLUTION

# %% nbgrader={"grade": false, "grade_id": "use-it", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch import randomness
from tinytorch.core.activations import ReLU

randomness.manual_seed(0)
net, order, errors = module_04.Sequential(module_04.Linear(64, 128), ReLU(), module_04.Linear(128, 10)), np.random.default_rng(0), []

def loss_on(batch): return module_05.cross_entropy(net(pixels[batch]), targets=labels[batch])
@no_grad()
def wrong(): return 100 * (net(pixels[1000:]).data.argmax(axis=1) != labels[1000:]).mean()

for _ in range(30):
    for batch in order.permutation(1000).reshape(20, 50):
        backward(loss_on(batch))
        for p in net.parameters(): p.data -= 0.2 * p.grad; p.grad = None
    errors.append(wrong())
size = sum(p.size for p in net.parameters())
print(f"{size:,} weights, 600 steps, {100 - errors[-1]:.1f} % read correctly; by nudging: {600 * 2 * size:,} forward passes")
forward, both = [module_01.best_ms(way, repeat=9) for way in (lambda: loss_on(slice(1000)), lambda: backward(loss_on(slice(1000))))]
print(f"1,000 digits: {forward:.2f} ms forward, {both - forward:.2f} ms for the walk back, which gives all gradients")
plt.figure(figsize=(6, 3)).suptitle(f"Your walk at work: from {errors[0]:.1f} % to {errors[-1]:.1f} % of unseen digits misread")
plt.plot(range(1, 31), errors, "o-"); plt.xlabel("epochs"); plt.ylabel("% of 797 misread"); plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# You can give any op a rule and check it by nudges, say what a walk costs in time and memory, and read its complaints.
# `tito module complete 06` exports your walk; from then on `loss.backward()` is yours. In this notebook write `backward(loss)`:
# `loss.backward()` would load the exported file, whose rules would replace those above.
#
# Gradients return in module 07, which says how far to move, in 08, which trains, and in 09 and 13, where op and rule stand side by side.
#
# Two harder tasks, without points:
#
# 1. *Checkpointing.* `again(f, x)` computes f forward without recording, and once more in its rule. What does it save,
#    at what price?
# 2. Rules work on arrays, so a gradient has no graph. What would have to change for gradients of gradients?
