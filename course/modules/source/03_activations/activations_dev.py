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

# %% [markdown] nbgrader={"grade": false, "grade_id": "question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# # Module 03: Activations
#
# **The question: why does a network need a bend?**
#
# A **linear layer** multiplies its inputs by weights and adds constants: `x @ W + b`. A stack of such layers can do no
# more than one of them. What goes between is an **activation**: a function that bends each number. You write four of
# them, meet the three ways in which they fail (dead, saturated, overflowing) and cure each. Checkpoint 02 times them
# against plain NumPy: no Python loops over numbers, and nothing that you have measured to be slow.
#
# At the end 1,797 handwritten digits are read through layers with and without your bends, and a figure shows what a
# bend is worth. About 170 minutes. Needed: `Tensor`, `op` and `@` from module 02; `axis` and `keepdims` in NumPy.

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import tinytorch.core.tensor as module_02
from tinytorch.core.tensor import Tensor, op

needed = {
    "Tensor([1]) holds float32": lambda: Tensor([1]).data.dtype == "float32",
    "Tensor([[1, 2]]) @ [[3], [4]] is [[11]]": lambda: (Tensor([[1, 2]]) @ [[3], [4]]).data.tolist() == [[11]],
    "an @op function turns a list into a Tensor": lambda: op(lambda x: 2 * x)([1, 2]).data.tolist() == [2, 4],
}
for behaviour, holds in needed.items():
    try: found = holds()
    except Exception as error: found = f"{type(error).__name__}: {error}"
    assert found is True, (f"{behaviour}: not in {module_02.__file__} ({found}). Mend it in module 02 (20 minutes), "
                           "export it, restart this kernel. Past its due date, tito module start 02 has the reference.")
print("Tensor comes from", module_02.__file__)

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
"""The bends between linear layers, as ops on tensors and as layers without parameters."""
import numpy as np
from tinytorch.core.tensor import Tensor, op

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary>What is the shape of <code>Tensor(a) @ b</code> for shapes (1797, 64) and (64, 10)?</summary>
# (1797, 10): the inner 64 disappears.</details>
# <details><summary>A has shape (2, 3). What is the shape of <code>A.max(axis=1, keepdims=True)</code>?</summary>
# (2, 1): one number per row, kept as a column, so that it can be subtracted from A.</details>
# <details><summary>What does <code>@op</code> add to a NumPy function?</summary>
# It may be called with lists, arrays or Tensors; the function gets float32 arrays, the caller gets a Tensor.</details>

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.data import digits

images, labels = digits()                               # 8 x 8 pixels, 0 is paper and 1 is ink
pixels = images.reshape(len(images), 64)

def random_layer(units, *, seed=0, shift=0):
    """A linear layer on all 1,797 digits; its weights are drawn, not learned."""
    rng = np.random.default_rng(seed)
    return pixels @ rng.normal(size=(64, units)) + rng.normal(size=units) + shift

def accuracy(hidden):
    """Fit a linear layer to the first 1,000 digits by least squares; the share of the other 797 read correctly."""
    rows = np.column_stack([hidden, np.ones(len(hidden))])
    seen, answers = rows[:1000], np.eye(10)[labels[:1000]]
    weights = np.linalg.solve(seen.T @ seen + np.eye(rows.shape[1]), seen.T @ answers)    # + np.eye: small weights
    return (np.argmax(rows[1000:] @ weights, axis=1) == labels[1000:]).mean()

hidden = random_layer(256)
print(f"64 pixels                              {accuracy(pixels):.1%} of unseen digits read correctly")
print(f"256 random units                       {accuracy(hidden):.1%}")
print(f"256 random units without their signs   {accuracy(np.abs(hidden)):.1%}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "collapse", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Two layers that are one (10 minutes)
#
# Four times as many numbers per digit, mixed at random, are read no better than the pixels. Without their minus signs
# they are. Here is why, with one input x, one number h in between and one output:
#
# | x | h = 2x + 1 | output 3h - 2 | one layer: 6x + 1 | output, when negative h becomes 0 |
# |---|---|---|---|---|
# | -2 | -3 | -11 | -11 | -2 |
# | 0 | 1 | 1 | 1 | 1 |
# | 2 | 5 | 13 | 13 | 13 |
#
# Two linear layers are one linear layer with other numbers, and so are a hundred: `(x @ A) @ B` equals `x @ (A @ B)`.
# The last column has a corner: no a and b make `a * x + b` go through -2, 1 and 13.
#
# The smallest task that one linear layer fails is XOR: 1 if exactly one of two inputs is 1. The next cell finds its
# best layer by **least squares**, which means: with the smallest sum of squared errors. So did `accuracy`, nearly.

# %% nbgrader={"grade": false, "grade_id": "collapse-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
rng = np.random.default_rng(0)
A, B = rng.normal(size=(64, 256)), rng.normal(size=(256, 10))
print(f"two layers against one: largest difference {np.abs((pixels @ A) @ B - pixels @ (A @ B)).max():.0e}")
corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
rows = np.column_stack([corners, np.ones(4)])
weights = np.linalg.lstsq(rows, [0, 1, 1, 0], rcond=None)[0]
print("XOR should be [0 1 1 0]; the best linear layer, by least squares, says", (rows @ weights).round(3))

# %% [markdown] nbgrader={"grade": false, "grade_id": "relu-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 3.1: `relu(x)`, 1 line
#
# The bend of the last column: keep what is positive, replace everything else by 0.
#
# | | |
# |---|---|
# | `x` | float32 array, any shape |
# | returns | a new array of the same shape; `x` stays as it was |
# | example | `[[-2, 0, 3.5], [1, -0.5, 2]]` gives `[[0, 0, 3.5], [1, 0, 2]]` |
#
# `ValueError: The truth value of an array ... is ambiguous`: Python's `if` and `max` can only decide about one number.
#
# <details><summary>Hint, after five minutes of trying</summary>
# <code>np.max</code> looks for the largest number of an array. Which of its relatives takes two arguments and compares
# them place by place?</details>

# %% nbgrader={"grade": false, "grade_id": "relu", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def relu(x):
    """x where it is positive, 0 elsewhere."""
    ### BEGIN SOLUTION
    return np.maximum(x, 0)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-relu-example", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_relu_example(x, want):
    got = relu(x).data
    assert got.shape == np.shape(x), f"one number per input: expected shape {np.shape(x)}, got {got.shape}, for {x}"
    assert np.allclose(got, want), f"relu of {x} should be\n{want}, yours is\n{got}"
test_relu_example([[-2, 0, 3.5], [1, -0.5, 2]], [[0, 0, 3.5], [1, 0, 2]])
### BEGIN HIDDEN TESTS
test_relu_example([-1e30, -1e-30, 0, 1e-30, 1e30], [0, 0, 0, 1e-30, 1e30])
test_relu_example(-7, 0)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-relu-any-shape", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_relu_any_shape(seed, shape):
    before = np.random.default_rng(seed).normal(size=shape)
    x = Tensor(before)
    got = relu(x).data
    assert np.allclose(x.data, before), f"relu changed its input: expected\n{before} as before, got\n{x.data}"
    want = np.array([max(number, 0) for number in before.ravel()]).reshape(shape)
    assert np.allclose(got, want), f"shape {shape}: expected\n{want}, got\n{got}"
test_relu_any_shape(seed=0, shape=(2, 3, 4))
### BEGIN HIDDEN TESTS
test_relu_any_shape(seed=1, shape=(5,))
test_relu_any_shape(seed=2, shape=(3, 1, 2))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "xor-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Two bends solve XOR (15 minutes)
#
# A **unit** is one column of a layer: its weights, its sum, its bend. Two units and no constants are enough for XOR,
# if you find their weights. By hand, what `relu` makes of `a - b`:
#
# | a, b | 0, 0 | 0, 1 | 1, 0 | 1, 1 |
# |---|---|---|---|---|
# | relu(a - b) | 0 | 0 | 1 | 0 |
#
# That is half of XOR. A straight layer cannot add the other half; a second unit can.
#
# ### TODO 3.2: `xor_weights()`, 3 to 5 lines
#
# | | |
# |---|---|
# | returns | `W, v`: numbers of shapes (2, 2) and (2, 1), as nested lists or arrays |
# | `v` | `[[1], [0.5]]`: of the second unit only half counts |
# | promise | `relu(points @ W) @ v` is the distance between a and b, for every point (a, b) |
# | example | the corners (0, 0), (0, 1), (1, 0), (1, 1) give 0, 1, 1, 0; the point (0.5, 3) gives 2.5 |
#
# Each **column** of `W` is one unit: its first number multiplies a, its second b.
#
# <details><summary>Hint, after five minutes of trying</summary>
# For which points is the first unit silent although it should speak? Which difference is positive just there? Then ask
# how strong a unit must be of which half counts.</details>

# %% nbgrader={"grade": false, "grade_id": "xor-weights", "locked": false, "schema_version": 3, "solution": true, "task": false}
def xor_weights():
    """W (2, 2) and v (2, 1) with which relu(points @ W) @ v is the distance between a and b."""
    ### BEGIN SOLUTION
    W = [[1, -2],
         [-1, 2]]
    v = [[1],
         [0.5]]
    return W, v
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-xor-corners", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_xor_corners():
    W, v = (np.asarray(part) for part in xor_weights())
    assert (W.shape, v.shape) == ((2, 2), (2, 1)), f"expected W, v of shapes (2, 2), (2, 1), got {W.shape}, {v.shape}"
    assert v.tolist() == [[1], [0.5]], f"v should be [[1], [0.5]], yours is {v.tolist()}"
    sums = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]]) @ W
    got = ((sums + np.abs(sums)) / 2 @ v).ravel()          # relu, written another way
    message = f"the corners should give [0 1 1 0], yours give {got}; before the bend your units (columns) hold\n{sums}"
    assert np.allclose(got, [0, 1, 1, 0]), message
test_xor_corners()

# %% nbgrader={"grade": true, "grade_id": "test-xor-distance", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_xor_distance(a, b):
    W, v = (np.asarray(part, dtype=np.float64) for part in xor_weights())
    sums = np.array([[a, b]]) @ W
    got = ((sums + np.abs(sums)) / 2 @ v).item()
    assert np.isclose(got, abs(a - b), atol=1e-5), f"({a}, {b}): expected {abs(a - b)}, got {got} from units {sums}"
test_xor_distance(0.5, 3)
### BEGIN HIDDEN TESTS
for a, b in [(-2, -2), (-1, 4), (7, -0.25), (100, 99)]: test_xor_distance(a, b)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "nudge-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Does it answer? (20 minutes)
#
# From module 06 on, networks learn: nudge a weight, see how the output answers, move the weight where the output gets
# better. **What does not answer cannot learn.** So you can test today which bends will learn.
#
# Nudge both ways: how much does the output change per unit of input? For the square at 3, with a nudge of 0.01:
#
# $$\frac{3.01^2 - 2.99^2}{2 \cdot 0.01} = \frac{9.0601 - 8.9401}{0.02} = 6$$
#
# ### TODO 3.3: `nudge(f, x, *, h=0.01)`, about 3 lines
#
# | | |
# |---|---|
# | `f` | an op, such as `relu`: takes an array, returns a Tensor |
# | `x` | float32 array, any shape |
# | `h` | size of the nudge |
# | returns | an array (no Tensor) like `x`: change of `f` from `x - h` to `x + h`, per distance between these two |
# | example | `op(np.square)` at `[3, -1]` gives `[6, -2]`; `op(np.abs)` at `[-2, 0, 5]` gives `[-1, 0, 1]` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Where does a Tensor keep its array? And how far apart are the two places at which you ask f?</details>

# %% nbgrader={"grade": false, "grade_id": "nudge", "locked": false, "schema_version": 3, "solution": true, "task": false}
def nudge(f, x, *, h=0.01):
    """By how much f changes per unit of x, measured between x - h and x + h."""
    ### BEGIN SOLUTION
    above = f(x + h).data
    below = f(x - h).data
    return (above - below) / (2 * h)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-nudge-example", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_nudge_example(f, x, want):
    got = nudge(f, np.float32(x))
    assert isinstance(got, np.ndarray), f"expected an array, got a {type(got).__name__}"
    symptom = "(off by 0.01: asked on one side only? twice or half: another distance?)"
    assert np.allclose(got, want, atol=2e-3), f"{f.__name__} at {x} should answer {want}, yours says {got} {symptom}"
test_nudge_example(op(np.square), [3, -1], [6, -2])
test_nudge_example(op(np.abs), [-2, 0, 5], [-1, 0, 1])
### BEGIN HIDDEN TESTS
test_nudge_example(op(np.square), [[0.5, -2.5], [1, 0]], [[1, -5], [2, 0]])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-nudge-size", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_nudge_size(h, want):
    got = nudge(op(np.exp), np.float32([0]), h=h)
    assert np.allclose(got, want, atol=2e-3), f"exp at 0 with h={h}: expected {want}, got {got} (another nudge than h?)"
test_nudge_size(h=1.0, want=[1.1752])
### BEGIN HIDDEN TESTS
test_nudge_size(h=0.5, want=[1.0422])
test_nudge_size(h=2.0, want=[1.8134])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "dead", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Dead units
#
# Left of 0, `relu` does not answer. A unit whose sum is negative for **every** input always says 0 and never learns its
# way back: it is **dead**. One overshooting step of training can do that, by pushing a constant far down. Below, all
# constants move by -10. The cure is a bend that answers on the left, too; the next cell gives it to you, and `tanh`.

# %% nbgrader={"grade": false, "grade_id": "given-bends", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
@op
def leaky_relu(x, *, slope=0.01):
    """x where it is positive, slope * x elsewhere, so that the left side still answers a nudge."""
    return np.where(x > 0, x, slope * x)

@op
def tanh(x):
    """Squashes x between -1 and 1; 0 stays 0."""
    return np.tanh(x)

# %% nbgrader={"grade": false, "grade_id": "dead-cure", "locked": true, "schema_version": 3, "solution": false, "task": false}
hidden = random_layer(256, shift=-10)
for bend in [relu, leaky_relu]:
    out = bend(hidden).data
    print(f"{bend.__name__:10} {(out == 0).all(axis=0).mean():4.0%} of units dead, {accuracy(out):.1%} of digits read")

# %% [markdown] nbgrader={"grade": false, "grade_id": "sigmoid-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Sigmoid: a yes between 0 and 1 (20 minutes)
#
# Spam or not? A network answers with one score; sigmoid turns it into a share between 0 and 1.
#
# $$\text{sigmoid}(x) = \frac{1}{1 + e^{-x}}$$
#
# | score | e to the minus score | sigmoid |
# |---|---|---|
# | 0 | 1 | 1/2 |
# | 1.0986 | 1/3 | 1 / (4/3) = 3/4 |
# | -1.0986 | 3 | 1/4 |
#
# The formula is right, and typing it is not enough: a float32 ends at about 3.4e38, and powers get there early. The
# result **overflows** to `inf`, NumPy warns, and `inf / inf` is `nan`, which spreads to everything it meets.

# %% nbgrader={"grade": false, "grade_id": "overflow-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
with np.errstate(over="ignore"):
    print("e to the 80, 88, 89, 100 in float32:", np.exp(np.float32([80, 88, 89, 100])))
print("e to the -80, -100, -1000, too small and harmless:", np.exp(np.float32([-80, -100, -1000])))

# %% [markdown] nbgrader={"grade": false, "grade_id": "sigmoid-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 3.4: `sigmoid(x)`, about 4 lines
#
# | | |
# |---|---|
# | `x` | float32 array, any shape, finite |
# | returns | a new array of the same shape; `x` stays as it was |
# | example | `[0, 1.0986, -1.0986]` gives `[0.5, 0.75, 0.25]` |
# | limits | `[-1000, 1000]` gives `[0, 1]` without overflow; `[-20]` gives 2.06e-09, not 0: module 05 takes its log |
#
# `RuntimeWarning: overflow encountered in exp` although you use `np.where`? It computes **both** sides everywhere, and
# chooses afterwards.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Multiply numerator and denominator of the formula by e to the x: a second formula for the same value. For which sign
# of x is each of the two harmless? Is there one exponent that is never positive and serves both?</details>

# %% nbgrader={"grade": false, "grade_id": "sigmoid", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def sigmoid(x):
    """1 / (1 + e**-x): between 0 and 1, safe for x of any size."""
    ### BEGIN SOLUTION
    power = np.exp(-np.abs(x))                  # between 0 and 1 for every x
    right = 1 / (1 + power)
    left = power / (1 + power)
    return np.where(x >= 0, right, left)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-sigmoid-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_sigmoid_by_hand(x, want):
    x = Tensor(x)
    before = x.data.copy()
    got = sigmoid(x).data
    assert np.allclose(got, want, atol=1e-4), f"sigmoid of {before} should be\n{want}, yours is\n{got}"
    assert (x.data == before).all(), f"sigmoid changed its input from {before} to {x.data}"
test_sigmoid_by_hand([0, 1.0986, -1.0986], [0.5, 0.75, 0.25])
### BEGIN HIDDEN TESTS
test_sigmoid_by_hand([[1.9459, -1.9459, 0], [3, -3, 1]], [[0.875, 0.125, 0.5], [0.9526, 0.0474, 0.7311]])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-sigmoid-limits", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_sigmoid_limits(x, want):
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"): got = sigmoid(x).data
    except FloatingPointError as problem:
        raise AssertionError(f"sigmoid of {x} should be {want}; NumPy says: {problem} (a large power?)") from None
    message = f"sigmoid of {x} should be {want}, yours is {got} (was something small lost beside 1?)"
    assert np.allclose(got, want, rtol=1e-3, atol=1e-30), message
test_sigmoid_limits([-1000, 1000], [0, 1])
test_sigmoid_limits([-20], [2.0612e-9])
### BEGIN HIDDEN TESTS
test_sigmoid_limits([[3e38, -3e38, 0]], [[1, 0, 0.5]])
test_sigmoid_limits([-30, 30, -60], [9.3576e-14, 1, 8.7565e-27])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "saturation", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Saturated units
#
# Far from 0, sigmoid and tanh are flat: they no longer answer. Such a unit is **saturated**. The cure is to keep sums
# small. Below, the sums of random units are divided by 8, the root of their 64 inputs; module 04 comes back to this.
# Look at the right panel, too: even where sigmoid answers best, only a quarter of a nudge comes out.

# %% nbgrader={"grade": false, "grade_id": "saturation-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
x = np.linspace(-8, 8, 321, dtype=np.float32)
for bend, style in [(sigmoid, "-"), (tanh, "-"), (leaky_relu, "-"), (relu, "--")]:
    left.plot(x, bend(x).data, style, label=bend.__name__)
    right.plot(x, nudge(bend, x), style)
left.set(title="What comes out", xlabel="x", ylim=(-1.2, 3))
right.set(title="Answer to a nudge: flat ends fall silent", xlabel="x")
left.legend()
plt.show()
for times in [1/8, 1, 8]:
    out = tanh(random_layer(256) * times).data
    print(f"sums x {times:<5}  {(abs(out) > 0.99).mean():4.0%} of outputs beyond 0.99; {accuracy(out):.1%} of digits")

# %% [markdown] nbgrader={"grade": false, "grade_id": "softmax-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Softmax: from scores to shares (35 minutes)
#
# A classifier's last layer gives one score per class. `[0, 0.693, 1.609]` says that class 2 leads, but not by
# how much. Softmax turns scores into shares: positive, summing to 1.
#
# $$\text{softmax}(x)_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# | by hand | class 0 | class 1 | class 2 | sum |
# |---|---|---|---|---|
# | score | 0 | 0.693 | 1.609 | |
# | e to the score | 1 | 2 | 5 | 8 |
# | share | 0.125 | 0.250 | 0.625 | 1 |
#
# Add 3 to all three scores: every power grows by the same factor $e^3$, which cancels. **Only differences between
# scores matter.** You will need that: scores of 100 occur, and you saw what becomes of their powers.

# %% [markdown] nbgrader={"grade": false, "grade_id": "softmax-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 3.5: `softmax(x, *, axis=-1)`, 2 to 4 lines
#
# | | |
# |---|---|
# | `x` | float32 array, any shape, finite |
# | `axis` | the axis along which the shares sum to 1 |
# | returns | a new array of the same shape; `x` stays as it was |
# | example | `[[0, 0.693, 1.609], [5, 5, 5]]` gives `[[0.125, 0.25, 0.625], [0.333, 0.333, 0.333]]` |
# | limits | never `nan`: `[1000, 1001]` gives `[0.269, 0.731]`, as `[0, 1]` does; `[0, 1000]` gives `[0, 1]` |
#
# `ValueError: operands could not be broadcast together with shapes (2,3) (2,)`: there is one number per row, but it
# does not stand in a column.
#
# <details><summary>Hint, after five minutes of trying</summary>
# You may subtract any number from all scores of a row. Which one makes the largest exponent 0? Every row needs its
# own number, so look up what <code>keepdims</code> does to the shape of a maximum.</details>

# %% nbgrader={"grade": false, "grade_id": "softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def softmax(x, *, axis=-1):
    """Shares of e**x along an axis: positive, summing to 1, safe for scores of any size."""
    ### BEGIN SOLUTION
    highest = x.max(axis=axis, keepdims=True)
    with np.errstate(over="ignore"):            # scores 1e39 apart: -inf, whose power is 0, as it should be
        powers = np.exp(x - highest)
    return powers / powers.sum(axis=axis, keepdims=True)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-softmax-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_softmax_by_hand():
    x = Tensor([[0, 0.693, 1.609], [5, 5, 5]])
    got, want = softmax(x).data, [[1/8, 2/8, 5/8], [1/3, 1/3, 1/3]]
    assert np.allclose(got, want, atol=1e-3), f"the TODO's example should give\n{np.round(want, 3)}, yours gives\n{got}"
    assert x.data[1, 0] == 5, f"softmax changed its input: expected the row of fives as before, got {x.data[1]}"
test_softmax_by_hand()

# %% nbgrader={"grade": true, "grade_id": "test-softmax-axis", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_softmax_axis(seed, axis):
    x = np.random.default_rng(seed).normal(size=(2, 3, 4)).astype(np.float32)
    got = softmax(x, axis=axis).data
    assert got.shape == x.shape, f"one share per score: expected shape {x.shape}, got {got.shape}"
    sums = got.sum(axis=axis)
    assert np.allclose(sums, 1, atol=1e-5), f"with axis={axis} all sums along that axis should be 1, they are\n{sums}"
test_softmax_axis(seed=0, axis=-1)
test_softmax_axis(seed=1, axis=0)
### BEGIN HIDDEN TESTS
for seed in range(2, 8): test_softmax_axis(seed, axis=seed % 3)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-softmax-large", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_softmax_large(scores, want, axis):
    with np.errstate(all="ignore"):
        got = softmax(scores, axis=axis).data
    why = "(nan? A power overflowed, inf / inf, or all powers of one row vanished, 0 / 0)"
    assert np.allclose(got, want, atol=1e-3), f"{scores}, axis={axis}, should give\n{want}, yours gives\n{got}\n{why}"
test_softmax_large([[1000, 1001], [0, 1]], [[0.269, 0.731], [0.269, 0.731]], axis=-1)
test_softmax_large([[0, 1000]], [[0, 1]], axis=-1)
### BEGIN HIDDEN TESTS
test_softmax_large([[-1000, -1001], [300, 299]], [[0.731, 0.269], [0.731, 0.269]], axis=1)
test_softmax_large([[-500, 500, 0]], [[0, 1, 0]], axis=-1)
test_softmax_large([[400, 3], [400, 2], [401, -300]], [[0.212, 0.731], [0.212, 0.269], [0.576, 0]], axis=0)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "softmax-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# The same million scores, once as 1,000 rows of 1,000 and once as 100,000 rows of 10. Both need a million
# exponentials. How many times as long do the short rows take? Commit to a number before you run the cell after it.

# %% nbgrader={"grade": false, "grade_id": "softmax-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_rows = your number
### BEGIN SOLUTION
guess_rows = 1.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-softmax-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_rows > 0, f"expected any positive number, got {guess_rows}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "softmax-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
from timeit import repeat

def ms(*works):
    """For each work, milliseconds of the fastest run in two rounds of nine; says when the rounds do not agree."""
    rounds = np.array([[1000 * min(repeat(work, number=1, repeat=9)) for work in works] for _ in range(2)])
    best = rounds.min(axis=0)
    if (rounds > 1.5 * best).any():
        print("two measurements differ by more than 1.5 times: run this cell again\n")
    return best

million = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
long_rows, short_rows, columns = million.reshape(1000, 1000), million.reshape(-1, 10), million.reshape(10, -1)
long_ms, short_ms, columns_ms, layer_ms = ms(lambda: softmax(long_rows), lambda: softmax(short_rows),
                                             lambda: softmax(columns, axis=0), lambda: long_rows[:256] @ long_rows)
print(f"1,000 rows of 1,000     {long_ms:6.2f} ms")
print(f"100,000 rows of 10      {short_ms:6.2f} ms   {short_ms / long_ms:.1f} times; you said {guess_rows}")
print(f"100,000 columns of 10   {columns_ms:6.2f} ms")
print(f"a layer, for comparison {layer_ms:6.2f} ms   256 images, 1,000 inputs and units")

# %% [markdown] nbgrader={"grade": false, "grade_id": "softmax-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** Explain your first three timings to a colleague who says that equal arithmetic
# takes equal time. What does the third line rule out? Then decide: for a batch of 256 images and 10 classes, behind
# layers like that of the last line, should we store the scores the other way round?
#
# | points | for |
# |---|---|
# | 2 | your own three numbers, with unit and ratio, and how far your guess was off |
# | 2 | a cause that fits all three lines, and the line that excludes the rival cause |
# | 2 | a decision with a calculated time for 256 x 10, set against the layer's time |

# %% [markdown] nbgrader={"grade": true, "grade_id": "softmax-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. 2.0, 9.9 and 1.5 ms: 5 times, I had said once. All three take a million exponentials, so exp is not the
# cause. Nor are ten items per sum: the columns sum ten too, and are the fastest. What differs is the inner loop:
# 100,000 visits of length 10 against 10 sweeps of length 100,000, and a visit has a fixed cost, here (9.9 - 1.5) ms /
# 100,000 = 84 ns. For 256 rows that is 0.02 ms, beside 1.7 ms for one layer: leave the layout alone. (Two cores of a
# server, November 2026. Any machine's figures count, and so does another cause that fits all three lines.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "gelu-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## GELU: a smooth bend (30 minutes)
#
# GELU has no corner. It multiplies x by the share of the bell curve (mean 0, standard deviation 1) that lies below x:
# 84.13 % lie below 1, so 1 becomes 0.8413; 15.87 % lie below -1, so -1 becomes -0.1587. NumPy has no function for that
# share. Hendrycks and Gimpel, who proposed GELU in 2016 (arXiv 1606.08415), give this approximation:
#
# $$\text{gelu}(x) = 0.5\,x\,\left(1 + \tanh\left(\sqrt{2/\pi}\,(x + 0.044715\,x^3)\right)\right)$$
#
# At 1 it gives 0.8412, at -1 it gives -0.1588. In this course, GELU means this formula.
#
# ### TODO 3.6: `gelu(x)`, about 4 lines
#
# | | |
# |---|---|
# | `x` | float32 array, any shape, finite |
# | returns | a new array of the same shape, by the formula above; `x` stays as it was |
# | example | `[-3, -1, 0, 1, 3]` gives `[-0.0036, -0.1588, 0, 0.8412, 2.9964]` |
# | limits | `[-1e20, 1e20]` gives `[0, 1e20]` without any overflow, although the cube of 1e20 is no float32 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# What is tanh of 50, and of 5,000? So how far out does tanh need to know x? And which x of the formula must stay whole?
# <code>np.clip</code> keeps numbers between two bounds.</details>

# %% nbgrader={"grade": false, "grade_id": "gelu", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def gelu(x):
    """x times the bell curve's share below x, by the tanh approximation of Hendrycks and Gimpel (2016)."""
    ### BEGIN SOLUTION
    near = np.clip(x, -10, 10)                  # tanh is at its end there, and the cube cannot overflow
    cube = near * near * near
    share = 0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (near + 0.044715 * cube)))
    return x * share
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-gelu-example", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_gelu_example(x, want):
    x = Tensor(x)
    before = x.data.copy()
    got = gelu(x).data
    symptom = "(at 1, other formulas give 0.8413 or 0.8458)"
    assert np.allclose(got, want, atol=6e-5), f"gelu of {before} should be\n{want}, yours is\n{got.round(4)}\n{symptom}"
    assert (x.data == before).all(), f"gelu changed its input from {before} to {x.data}"
test_gelu_example([-3, -1, 0, 1, 3], [-0.0036, -0.1588, 0, 0.8412, 2.9964])
### BEGIN HIDDEN TESTS
test_gelu_example([[-2, -0.5], [0.5, 2]], [[-0.0454, -0.1543], [0.3457, 1.9546]])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-gelu-limits", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_gelu_limits(x, want):
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"): got = gelu(x).data
    except FloatingPointError as problem:
        raise AssertionError(f"gelu of {x} should be {want}; NumPy says: {problem} (a cube beyond 3.4e38?)") from None
    message = f"gelu of {x} should be {want}, yours is {got} (far out, gelu is 0 on the left, x on the right)"
    assert np.allclose(got, want, atol=1e-4), message
test_gelu_limits([-1e20, 1e20], [0, 1e20])
### BEGIN HIDDEN TESTS
test_gelu_limits([[-3e38, 3e38], [-30, 30]], [[0, 3e38], [0, 30]])
test_gelu_limits([-12.5, 12.5, 100], [0, 12.5, 100])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "gelu-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# The cubes of a million numbers, half of them negative, once as `x * x * x` and once as `x ** 3`. How many times as
# long does the power take? Commit to a number before you run the cell after it.

# %% nbgrader={"grade": false, "grade_id": "gelu-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_cube = your number
### BEGIN SOLUTION
guess_cube = 1.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-gelu-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_cube > 0, f"expected any positive number, got {guess_cube}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "gelu-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
product, power, positive, square, bend, layer = ms(
    lambda: million * million * million, lambda: million ** 3, lambda: np.abs(million) ** 3, lambda: million ** 2,
    lambda: gelu(million), lambda: long_rows @ long_rows)
print(f"x * x * x               {product:6.2f} ms")
print(f"x ** 3                  {power:6.2f} ms   {power / product:.1f} times; you said {guess_cube}")
print(f"abs(x) ** 3             {positive:6.2f} ms")
print(f"x ** 2                  {square:6.2f} ms")
print(f"your gelu               {bend:6.2f} ms")
print(f"the layer before it     {layer:6.2f} ms   1,000 images, 1,000 inputs and units")

# %% [markdown] nbgrader={"grade": false, "grade_id": "gelu-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A colleague's `gelu` contains `x ** 3`, "because the formula does". There
# are two suspects: NumPy's power function as such, and negative numbers. Which do your lines convict: one, both, or only
# the two together? (NumPy computes `x ** 2` as a product.) Then decide: `gelu` follows the layer of the last line; do you
# ask the colleague to change the cube?
#
# | points | for |
# |---|---|
# | 2 | your own numbers for the three cubes, with unit and ratios, and how far your guess was off |
# | 2 | a cause that fits the first four lines, and the line that clears or convicts the other suspect |
# | 2 | a decision with the calculated time of layer and `gelu`, before and after the change |

# %% [markdown] nbgrader={"grade": true, "grade_id": "gelu-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. 0.5, 49 and 1.2 ms: 92 times, I had said once. abs(x) ** 3 is a power, too, and costs about twice the
# product (part of it abs), so here the power function as such is cleared. The product is fast with negative numbers, and
# so is x ** 2, a product: they are cleared, too. Only both together are slow, powers of negative numbers. Where
# abs(x) ** 3 is as slow as x ** 3, the power function is convicted instead. Layer 16 ms and gelu 7 ms are 23 ms; with
# x ** 3 they are about 23 - 0.5 + 49 = 71 ms, three times as long: ask for the change, it is one line and the numbers stay the same to the
# last digit or two. (Two cores of a server, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "layers-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Bends as layers (10 minutes)
#
# Module 04 stacks layers: `[Linear(64, 32), ReLU(), Linear(32, 10), Softmax(axis=1)]`. For that, a bend must be an
# object that remembers its options and is called with `x` alone. The subclasses are given; what they share is yours.
#
# ### TODO 3.7: `Activation`, three methods of 1 or 2 lines
#
# | | |
# |---|---|
# | `Softmax(axis=0)` | any options by name; nothing is computed yet |
# | `ReLU()([-1, 0, 1])` | what `self.function` makes of `x` and the options: `Tensor([0, 0, 1])` |
# | `repr(...)` | how it was made: `ReLU()`, `Softmax(axis=0)`, several options separated by a comma and a space |
#
# `TypeError: a tensor holds numbers, not object`: the dict of options itself was passed on.
#
# <details><summary>Hint, after five minutes of trying</summary>
# In a <code>def</code>, <code>**</code> gathers named options into a dict; what does it do in a call? And what has a
# <code>__name__</code>, the object or its class?</details>

# %% nbgrader={"grade": false, "grade_id": "layers", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Activation:
    """A layer with nothing to learn: it remembers its options and applies `function`, the op of its subclass."""

    def __init__(self, **options):
        ### BEGIN SOLUTION
        self.options = options
        ### END SOLUTION

    def __call__(self, x):
        ### BEGIN SOLUTION
        return self.function(x, **self.options)
        ### END SOLUTION

    def __repr__(self):
        ### BEGIN SOLUTION
        options = [f"{name}={value!r}" for name, value in self.options.items()]
        return f"{type(self).__name__}({', '.join(options)})"
        ### END SOLUTION

    def parameters(self):
        return []

class ReLU(Activation): function = relu
class LeakyReLU(Activation): function = leaky_relu
class Sigmoid(Activation): function = sigmoid
class Tanh(Activation): function = tanh
class Softmax(Activation): function = softmax
class GELU(Activation): function = gelu

# %% nbgrader={"grade": true, "grade_id": "test-layers", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
class Line(Activation): function = op(lambda x, *, slope=1, shift=0: slope * x + shift)
def test_layers(layer, name, x, want):
    assert repr(layer) == name, f"expected the repr {name}, got {layer!r}"
    got = layer(x)
    assert isinstance(got, Tensor), f"{name} called with {x}: expected a Tensor, got a {type(got).__name__}"
    assert np.allclose(got.data, want), f"{name} called with {x}: expected {want}, got {got.data}"
test_layers(Line(), "Line()", [-1, 0, 1], [-1, 0, 1])
test_layers(Line(slope=3, shift=1), "Line(slope=3, shift=1)", [-1, 0, 1], [-2, 1, 4])
### BEGIN HIDDEN TESTS
one, other = Line(slope=2), Line(shift=5)
test_layers(one, "Line(slope=2)", Tensor([[1], [2]]), [[2], [4]])
test_layers(other, "Line(shift=5)", np.float32([1, 2]), [6, 7])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "compare-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What is a bend worth? (15 minutes)
#
# The opening experiment, done properly: several bends and widths, and the same random layers for every bend, so that
# only the bend differs. One random layer may be lucky; the mean over several seeds is less so.
#
# ### TODO 3.8: `compare(bends, widths, seeds)`, about 6 lines
#
# | | |
# |---|---|
# | `bends` | list of ops or layers |
# | `widths` | list of numbers of units |
# | `seeds` | list of seeds; each gives one random layer |
# | returns | array (bends, widths): `accuracy` of the bent `random_layer`, mean over the seeds |
# | example | `compare([relu, tanh], [16, 32, 64], [0, 1])` has shape (2, 3); each number is the mean of two runs |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Get the number for one bend, one width and one seed in a cell of its own. Which of the three loops produces the
# numbers that are averaged?</details>

# %% nbgrader={"grade": false, "grade_id": "compare", "locked": false, "schema_version": 3, "solution": true, "task": false}
def compare(bends, widths, seeds):
    """Mean accuracy over the seeds, one row per bend, one column per width."""
    ### BEGIN SOLUTION
    table = np.zeros((len(bends), len(widths)))
    for row, bend in enumerate(bends):
        for column, units in enumerate(widths):
            runs = [accuracy(bend(random_layer(units, seed=seed)).data) for seed in seeds]
            table[row, column] = np.mean(runs)
    return table
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-compare", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_compare(widths, seeds):
    got, shape = np.asarray(compare([tanh, op(np.abs)], widths, seeds)), (2, len(widths))
    assert got.shape == shape, f"2 bends, {len(widths)} widths: expected shape {shape}, got {got.shape}"
    runs = [accuracy(np.abs(random_layer(widths[0], seed=seed))) for seed in seeds]
    expected = f"second bend, {widths[0]} units, seeds {seeds}: expected the mean of {np.round(runs, 3)}"
    assert abs(got[1, 0] - np.mean(runs)) < 0.004, f"{expected}, got {got[1, 0]:.3f}"
test_compare([4, 8, 16], [0, 1])
### BEGIN HIDDEN TESTS
test_compare([12], [5, 3, 4])
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "compare-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
widths, straight = [16, 32, 64, 128, 256, 512], op(lambda x: x)
table = compare([straight, relu, tanh, gelu], widths, range(3))
for name, row in zip(["no bend", "relu", "tanh", "gelu"], 100 * table, strict=True):
    plt.plot(row, marker="o", label=name)
plt.axhline(100 * accuracy(pixels), color="gray", linestyle=":", label="64 pixels, one linear layer")
plt.xticks(range(len(widths)), widths)
plt.gca().set(xlabel="random units", ylabel="unseen digits read, %", title="Beyond 64 units, only a bend adds anything")
plt.legend()
plt.show()
fewer = (1 - table[0, -1]) / (1 - table[1, -1])
print(f"512 units: {table[0, -1]:.1%} without a bend, {table[1, -1]:.1%} with relu, {fewer:.1f} times fewer errors")

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# The figure repeats the first table on real data: without a bend, a random layer of 64 units or more is read like the
# 64 pixels themselves; a narrower one is read worse.
#
# You can say why a network needs a bend, build bends that stay finite, and tell a dead unit from a saturated one.
# `tito module complete 03` makes them part of your framework. They return in module 04 (between layers), 05 (softmax in
# the loss), 06 (a nudge checks every derivative) and 13 (softmax as attention).
#
# Two harder tasks, without points:
#
# - `log_softmax(x, *, axis=-1)`: the logarithm of softmax, finite for `[0, 1000]`, where `np.log(softmax(...))` is not.
# - Left of 64 units, `no bend` is ahead. What does a bend lose there, and how could `random_layer` prevent it?
