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
# # Module 05: Losses
#
# **The question: when does "how wrong?" stop being a number?**
#
# Training changes weights so that one number gets smaller: the **loss**, which says how wrong the predictions are. Its
# formulas fit into a line, and typed as they stand they fail in two ways. One is loud: `inf` or `nan` in the middle of a
# training run. The other is silent: a shape that does not fit, a loss that looks like one, and a network that learns nothing.
#
# You write the losses of this framework so that neither happens. At the end the scores of a digit reader get the scale at
# which they mean what they say, chosen by your loss, while its naive version has long turned `inf`. About 170 minutes.
# Needed: `Tensor` and `op` from module 02, `softmax` and `sigmoid` from module 03, `as_tensor` from module 04.

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import tinytorch.core.activations as module_03
import tinytorch.core.layers as module_04
from tinytorch.testing.checking import needs, refuses, same
from tinytorch.core.activations import softmax
from tinytorch.core.tensor import Tensor
from tinytorch.core.utils import best_ms
from tinytorch.data import digits
from tinytorch.testing.memory import peak_bytes

needs("03", module_03, "softmax([0, 0]) is [0.5, 0.5]", lambda: module_03.softmax([0, 0]).data.tolist() == [0.5, 0.5])
needs("03", module_03, "sigmoid([0]) is [0.5]", lambda: module_03.sigmoid([0]).data.tolist() == [0.5])
needs("04", module_04, "as_tensor([1]) is a Tensor", lambda: isinstance(module_04.as_tensor([1]), Tensor))
print("softmax and as_tensor come from", module_03.__file__, "and", module_04.__file__)

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
"""Losses: one number that says how wrong a prediction is."""
import numpy as np
from tinytorch.core.activations import sigmoid
from tinytorch.core.layers import as_tensor
from tinytorch.core.tensor import as_float32, op
from tinytorch.given.modules import check_labels

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary>What is the shape of <code>a - b</code> for shapes (4, 1) and (4,)?</summary>
# (4, 4): each number of a meets each number of b.</details>
# <details><summary>What are the logarithms of 1, 1/2 and 0?</summary>
# 0, -0.693 and, in NumPy, <code>-inf</code> with a warning.</details>
# <details><summary>Softmax of <code>[1000, 0]</code> is <code>[1, 0]</code>. Is the second share really 0?</summary>
# No, it is e to the -1000. The smallest number above 0 that a float32 knows is about 1.4e-45, e to the -103.</details>

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
images, labels = digits()
hidden = np.maximum(images.reshape(-1, 64) @ np.random.default_rng(0).normal(0, 0.2, size=(64, 512)), 0)
weights = np.linalg.solve(hidden[:1000].T @ hidden[:1000] + np.eye(512), hidden[:1000].T @ np.eye(10)[labels[:1000]])
scores, answers = (hidden[1000:] @ weights).astype(np.float32), labels[1000:]     # 797 unseen digits, 10 scores each

def naive_loss(scores, answers):
    """The mean of -log(share of the right class), as the formula stands."""
    shares = softmax(scores).data[np.arange(len(scores)), answers]
    with np.errstate(divide="ignore"): return -np.log(shares).mean()

for scale in (1, 10, 100, 1000):
    right = ((scale * scores).argmax(axis=1) == answers).mean()
    print(f"scores x {scale:4}: {right:.1%} read correctly, loss {naive_loss(scale * scores, answers):.3f}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "mse-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 1. Wrong by how much (45 minutes)
#
# The same answers four times, and four losses: a loss sees more than right and wrong. The last line is one of the failures of
# this module. The other belongs to the simplest losses, for predicting amounts: prices, ages, temperatures.
#
# | predicted | true | difference | squared | absolute |
# |---|---|---|---|---|
# | 3 | 2 | 1 | 1 | 1 |
# | 5 | 5 | 0 | 0 | 0 |
# | 1 | 5 | -4 | 16 | 4 |
# | **mean** | | | **5.67** | **1.67** |
#
# The **mean squared error** (MSE) minds large differences most; the **mean absolute error** (MAE) minds each by its size. A
# picture of the consequence: for 1, 2, 3, 4 and 40, which single number is the best prediction?

# %% nbgrader={"grade": false, "grade_id": "mse-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
amounts, guesses = np.array([1, 2, 3, 4, 40]), np.linspace(0, 42, 421)
for name, errors in {"mean squared error, its root": ((guesses[:, None] - amounts) ** 2).mean(axis=1) ** 0.5,
                     "mean absolute error": np.abs(guesses[:, None] - amounts).mean(axis=1)}.items():
    plt.plot(guesses, errors, label=f"{name}: smallest at {guesses[errors.argmin()]:.0f}")
plt.gca().set(xlabel="one prediction for 1, 2, 3, 4 and 40", ylabel="how wrong", title="Squares follow the outlier, amounts the majority")
plt.legend()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "shape-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# A network's last layer gives predictions of shape `(n, 1)`; the true values lie in an array of shape `(n,)`. NumPy subtracts
# them without a word. 4,000 **perfect** predictions, once with equal shapes and once like this. **How many times as
# long does the second mean squared error take?**

# %% nbgrader={"grade": false, "grade_id": "shape-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_shape = your number
### BEGIN SOLUTION
guess_shape = 2
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-shape-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_shape > 0, f"expected any positive number, got {guess_shape}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "shape-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
true = np.random.default_rng(0).normal(50, 10, size=4000).astype(np.float32)      # mean 50, variance 100
def mse(predicted, true): return ((predicted - true) ** 2).mean()

fitting = best_ms(lambda: mse(true, true), repeat=9)
for name, predicted in {"(4000,)": true, "(4000, 1)": true[:, None], "(4000, 1), all 50": np.full((4000, 1), 50, np.float32)}.items():
    took, bytes_held = best_ms(lambda: mse(predicted, true), repeat=9), peak_bytes(lambda: mse(predicted, true))
    print(f"predictions {name:17} loss {mse(predicted, true):5.1f} {took:8.3f} ms {bytes_held / 1e6:7.2f} MB {took / fitting:6.0f} times")
print(f"you said {guess_shape}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "shape-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A colleague predicts ages, with predictions `(n, 1)` against true values `(n,)`. "The
# loss falls from 2,600 to 100 and stays there, the network has learned." Explain from your three lines what it has
# learned, and why the loss of perfect predictions is no smaller. Is the time explained by the number of differences
# alone? Then decide: 50,000 examples in one call, on a server with 4 GB. What happens before anybody looks at the loss?
#
# | points | for |
# |---|---|
# | 2 | your own losses, times and megabytes, the ratios, and how far your guess was off |
# | 2 | what number the loss of the second line is, what prediction makes it smallest, and a cause for the ratio of times |
# | 2 | a decision with the calculated memory for 50,000, and a check that finds the mistake on the first call |

# %% [markdown] nbgrader={"grade": true, "grade_id": "shape-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Losses 0, 200 and 100; 0.006 and 19 ms, 3,200 times, guessed 2; 0.03 and 64 MB. Each of 4,000 predictions meets
# each of 4,000 true values: 16 million differences, 4,000 times as many. For perfect predictions the loss is the mean squared
# difference of two ages drawn at random, twice their variance: 200. A constant prediction of the mean gets their
# variance, 100, so the mean is better than the truth, and it is the best there is: the network has learned one number. The time
# grows by less than 4,000 because the small call mostly pays the fixed price of NumPy, and by more than the arithmetic
# needs because 64 MB do not stay in the cache (either direction may win on other machines). 50,000: 2.5 billion differences of 4
# bytes are 10 GB: the process is killed, or NumPy refuses, before there is a loss. The check: compare the shapes before subtracting, refuse
# unless they are equal. Two cores of a server, November 2026; any machine's figures count.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "same-shape-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 5.1: `same_shape(loss, predictions, targets)`, about 4 lines
#
# | | |
# |---|---|
# | `loss` | the name of the loss, a text for the message |
# | `predictions`, `targets` | Tensors or arrays: whatever has a `shape` |
# | returns | nothing if the shapes are equal |
# | refuses | by `ValueError`, even where NumPy would broadcast: `MSELoss: predictions (4, 1) and targets (4,) must have the same shape` |
# | refuses nothing at all | an empty batch has no mean: `ValueError` with `MSELoss: there is nothing to compare, shape (0, 3)` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Shapes are tuples of integers. How do you ask a tuple whether it contains something?</details>

# %% nbgrader={"grade": false, "grade_id": "same-shape", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def same_shape(loss, predictions, targets):
    """ValueError unless both have one shape: broadcasting would compare each prediction with each target."""
    ### BEGIN SOLUTION
    if predictions.shape != targets.shape:
        raise ValueError(f"{loss}: predictions {predictions.shape} and targets {targets.shape} must have the same shape: reshape one")
    if 0 in predictions.shape:
        raise ValueError(f"{loss}: there is nothing to compare, shape {predictions.shape}")
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-same-shape-refuses", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_same_shape_refuses(a, b, says):
    refuses(same_shape, "MSELoss", np.zeros(a), np.zeros(b), says=["MSELoss", *says])
test_same_shape_refuses((4, 1), (4,), ["predictions (4, 1) and targets (4,) must have the same shape"])
test_same_shape_refuses((0, 3), (0, 3), ["there is nothing to compare, shape (0, 3)"])
### BEGIN HIDDEN TESTS
for a, b in [((2, 3), (3, 2)), ((6,), ()), ((1, 3), (2, 3)), ((2, 3, 1), (2, 3))]:
    test_same_shape_refuses(a, b, [f"predictions {a} and targets {b} must have the same shape"])
refuses(same_shape, "MAELoss", np.zeros((0,)), np.zeros((0,)), says=["MAELoss: there is nothing to compare, shape (0,)"])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-same-shape-accepts", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
def test_same_shape_accepts(shape):
    got = same_shape("MSELoss", Tensor(np.zeros(shape)), Tensor(np.ones(shape)))
    assert got is None, f"equal shapes {shape} need no answer: expected None, got {got!r}"
for shape in [(4, 1), (4,), ()]: test_same_shape_accepts(shape)
### BEGIN HIDDEN TESTS
for shape in [(2, 3, 4), (1, 1)]: test_same_shape_accepts(shape)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "mse-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 5.2: `MSELoss` and `MAELoss`, about 3 lines each
#
# A loss is an object that is called, as a layer is. It may have options, so there is a base class; what `MSELoss()` computes is
# yours.
#
# | | |
# |---|---|
# | `predictions`, `targets` | Tensors already, of any shapes |
# | returns | a Tensor of one number: the mean of the squared (`MSELoss`) or absolute (`MAELoss`) differences |
# | refuses | what your `same_shape` refuses, under the loss's own name |
# | made of | Tensor operations, so that module 06 can follow them: `-`, `*`, `.mean()`, and the given op `absolute` |
# | example | `[3, 5, 1]` against `[2, 5, 5]` gives 5.6667 and 1.6667 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# <code>np.mean</code> of a Tensor is no Tensor any more. Where else is there a mean?</details>

# %% nbgrader={"grade": false, "grade_id": "mse", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
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
        ### BEGIN SOLUTION
        same_shape("MSELoss", predictions, targets)
        difference = predictions - targets
        return (difference * difference).mean()
        ### END SOLUTION


class MAELoss(Loss):
    """Mean of absolute differences."""

    def __call__(self, predictions, targets):
        predictions, targets = as_tensor(predictions), as_tensor(targets)
        ### BEGIN SOLUTION
        same_shape("MAELoss", predictions, targets)
        return absolute(predictions - targets).mean()
        ### END SOLUTION

L1Loss = MAELoss

# %% nbgrader={"grade": true, "grade_id": "test-mse-values", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_mse_values(predictions, targets, squared, absolute):
    for loss, want in [(MSELoss(), squared), (MAELoss(), absolute)]:
        got = loss(predictions, targets)
        assert isinstance(got, Tensor), f"{loss}: expected a Tensor, got a {type(got).__name__}"
        same(got, want, f"{loss} of {predictions} against {targets}")
test_mse_values([3, 5, 1], [2, 5, 5], 17 / 3, 5 / 3)
### BEGIN HIDDEN TESTS
test_mse_values([[1, -1], [0, 3]], [[0, 1], [0.5, 3]], 5.25 / 4, 3.5 / 4)
test_mse_values(Tensor([-7]), [-4], 9, 3)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-mse-refuses", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
refuses(MSELoss(), [[1], [2]], [1, 2], says=["MSELoss: predictions (2, 1) and targets (2,)"])
refuses(MAELoss(), [1, 2, 3], [1, 2], says=["MAELoss: predictions (3,) and targets (2,)"])
### BEGIN HIDDEN TESTS
refuses(MAELoss(), [[1], [2]], [1, 2], says=["MAELoss: predictions (2, 1) and targets (2,)"])
x = Tensor([1, 2], requires_grad=True)
assert all(loss(x, [0, 0]).requires_grad for loss in (MSELoss(), MAELoss())), "expected losses that module 06 can follow, got plain numbers"
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "log-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 2. Wrong class (60 minutes)
#
# A classifier gives shares, and one class is right. How wrong is a share of 1/2 for the right class? The usual measure is the
# **surprise**: minus its logarithm. Two independent surprises add up, and certainty costs nothing. By hand:
#
# | share of the right class | surprise | |
# |---|---|---|
# | 1 | 0 | certain and right |
# | 1/2 | 0.693 | |
# | 1/10 | 2.303 | blind guessing among ten classes |
# | e to the -104 | 104 | certain and wrong: dear, but a number |
#
# The mean surprise is called **cross entropy**. The last row is where the naive loss ends: the share is smaller than
# anything a float32 can hold, becomes 0, and its logarithm is `-inf`. But nobody needs the share! With the sum $S = \sum_j e^{x_j}$:
#
# $$\log \frac{e^{x_i}}{S} = x_i - \log S$$
#
# The score itself stands there. What is left is S, which overflows for scores above 88. Only differences between scores
# matter, so shift each row until its largest score is 0: S then lies between 1 and the number of classes.
#
# | by hand | scores | shifted | powers | S | log of the shares |
# |---|---|---|---|---|---|
# | small | 0, 0.693 | -0.693, 0 | 0.5, 1 | 1.5 | -1.099, -0.405 |
# | large | 1000, 0 | 0, -1000 | 1, 0 | 1 | 0, **-1000** |

# %% [markdown] nbgrader={"grade": false, "grade_id": "log-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 5.3: `log_softmax(x, *, axis=-1)`, about 5 lines
#
# | | |
# |---|---|
# | `x` | float32 array of scores, any shape, finite; it stays as it was |
# | returns | the pair `logs, shares`, float32: the logarithms of the shares, and the shares themselves. An op takes the first as its result and keeps the second, because module 06 will want to see it |
# | example | the two rows of the table above |
# | limits | scores `[1000, 0]` and `[-1000, -2000]` both give `[0, -1000]`, without `inf`, `nan` or a warning |
#
# <details><summary>Hint, after five minutes of trying</summary>
# The shift is an old friend from softmax, <code>keepdims</code> included. Which of the table's columns is no longer needed
# for the logs once you have S?</details>

# %% nbgrader={"grade": false, "grade_id": "log-softmax", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def log_softmax(x, *, axis=-1):
    """log(softmax(x)) without the detour over shares that are too small for a float; kept: the shares."""
    ### BEGIN SOLUTION
    with np.errstate(over="ignore"):            # scores 1e39 apart: -inf, whose power is 0, as it should be
        shifted = x - x.max(axis=axis, keepdims=True)
    powers = np.exp(shifted)
    sums = powers.sum(axis=axis, keepdims=True)
    return shifted - np.log(sums), powers / sums
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-log-softmax-example", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_log_softmax_example(x, want, axis):
    x = np.float32(x)
    before = x.copy()
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"): pair = log_softmax.forward(x, axis=axis)
    except FloatingPointError as problem: raise AssertionError(f"{before.tolist()}: expected\n{want}, NumPy says: {problem}") from None
    assert isinstance(pair, tuple), f"expected the pair logs, shares; got a {type(pair).__name__}"
    same(pair[0], want, f"log_softmax of {before.tolist()}, axis {axis}")
    same(pair[1], np.exp(want), f"the shares of {before.tolist()}, axis {axis}")
    assert np.array_equal(x, before), f"log_softmax changed its input: expected {before.tolist()} as before, got {x.tolist()}"
test_log_softmax_example([[0, 0.693], [1000, 0], [-1000, -2000]], [[-1.0985, -0.4055], [0, -1000], [0, -1000]], axis=-1)
### BEGIN HIDDEN TESTS
test_log_softmax_example([[500, -500], [-500, 500]], [[0, -1000], [-1000, 0]], axis=0)
test_log_softmax_example([[[2, 2, 2, 2]]], [[[-np.log(4)] * 4]], axis=2)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-log-softmax-axis", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_log_softmax_axis(seed, axis):
    x = np.random.default_rng(seed).normal(0, 3, size=(2, 3, 4)).astype(np.float32)
    got = log_softmax(x, axis=axis)
    assert isinstance(got, Tensor), f"expected a Tensor, got a {type(got).__name__}"
    same(got, np.log(softmax(x.astype(np.float64), axis=axis).data), f"log_softmax with axis={axis}, seed {seed}")
test_log_softmax_axis(seed=0, axis=-1)
test_log_softmax_axis(seed=1, axis=0)
### BEGIN HIDDEN TESTS
for seed in range(2, 6): test_log_softmax_axis(seed, axis=seed % 3)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "labels-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Labels that are none
#
# Which log counts is said by the label, which becomes an index. NumPy's indices have a talent for silent mistakes: -1 is the last class, a
# mark for "unknown" in many data sets; and labels that were stored as floats lose their fractions when they are made integers.
#
# ### TODO 5.4: `class_labels(targets, classes)`, about 8 lines
#
# | | |
# |---|---|
# | `targets` | a list, array or Tensor of numbers, any shape; floats are welcome if they are whole |
# | returns | an array of integers (`np.intp`) of the same shape |
# | example | `[0, 2, 1]`, `Tensor([0, 2, 1])` and `[0.0, 2.0, 1.0]` with 3 classes all give `[0, 2, 1]` |
# | refuses by `ValueError` | by name the first that is not whole, else the first outside: `label 1.5 is not a whole number`, `label 3 is outside 0 to 2`, `label -1 is outside 0 to 2` |
# | nasty cases | `nan` is not a whole number; `inf` is outside; what is no number at all is refused by `as_float32` |
# | speed | no loop over the labels: a text has a million |
#
# `f"{number:g}"` writes 3.0 as 3 and 1.5 as 1.5.
#
# <details><summary>Hint, after five minutes of trying</summary>
# What does <code>np.floor</code> leave unchanged? A boolean array as an index picks the wrong ones; then ask whether there
# are any.</details>

# %% nbgrader={"grade": false, "grade_id": "class-labels", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def class_labels(targets, classes):
    """Class numbers as an array of integers; ValueError names the first that is broken or outside of 0 to classes - 1."""
    ### BEGIN SOLUTION
    labels = np.asarray(targets)
    if labels.dtype.kind not in "iu":
        labels = as_float32(labels)
        broken = labels[labels != np.floor(labels)]
        if broken.size: raise ValueError(f"label {broken[0]:g} is not a whole number")
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size: raise ValueError(f"label {outside[0]:g} is outside 0 to {classes - 1}")
    return labels.astype(np.intp)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-class-labels", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_class_labels(targets, classes):
    got = class_labels(targets, classes)
    assert getattr(got, "dtype", None) == np.intp, f"{targets}: expected an array of {np.dtype(np.intp)}, got {got!r}"
    same(got, targets, f"labels {targets} of {classes} classes")
for targets in ([0, 2, 1], Tensor([0, 2, 1]), [0.0, 2.0, 1.0]): test_class_labels(targets, classes=3)
### BEGIN HIDDEN TESTS
for targets in (np.uint8([[9, 0], [3, 4]]), np.int64([5]), np.float64([[7], [0]]), [True, False]): test_class_labels(targets, classes=10)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-class-labels-refuses", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_class_labels_refuses(targets, says): refuses(class_labels, targets, 3, says=[says])
for targets, says in [([0, 1.5], "label 1.5 is not a whole number"), ([0, 3], "label 3 is outside 0 to 2"),
                      ([-1, 0], "label -1 is outside 0 to 2")]:
    test_class_labels_refuses(targets, says)
### BEGIN HIDDEN TESTS
for bad, name in [([2, np.nan], "nan is not a whole number"), ([np.inf, 1], "inf is outside 0 to 2"), ([0, -0.5], "-0.5 is not a whole"),
                  (np.int64([1, 7]), "7 is outside"), ([1, 2, 3.0], "3 is outside"), (np.uint8([4]), "4 is outside")]:
    test_class_labels_refuses(bad, f"label {name}")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "cross-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 5.5: `cross_entropy`, your part about 4 lines
#
# Certainty is expensive, and it can be too much: a network that is asked for shares of exactly 1 never stops enlarging its
# scores. **Label smoothing** asks for a little less. With smoothing s, the loss of a row is
#
# $$(1 - s) \cdot \text{surprise of the label} + s \cdot \text{mean surprise of all classes}$$
#
# By hand, shares 1/2, 1/4, 1/4, whose surprises are 0.693, 1.386 and 1.386, and label 0: without smoothing 0.693, with s = 0.3
# it is 0.7 * 0.693 + 0.3 * 1.155 = 0.832.
#
# | | |
# |---|---|
# | `logs` | array (n, classes): the logarithms of the shares |
# | `labels` | array (n,) of integers, checked already |
# | `label_smoothing` | s, from 0 to below 1 |
# | `loss`, to be made | one number: the mean over the rows |
# | example | scores `[[0, 0, 0], [1000, 0, 0]]` and labels 1, 0 give (1.0986 + 0) / 2 = 0.5493 |
# | limits | scores `[[1000, 0]]`, label 1 give 1000; a `nan` among the scores gives `nan`: a loss hides nothing |
#
# <details><summary>Hint, after five minutes of trying</summary>
# An index may be a pair of arrays, one place each: which row, which column. The first array counts the rows.</details>

# %% nbgrader={"grade": false, "grade_id": "cross-entropy", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def cross_entropy(scores, *, targets, label_smoothing=0.0):
    """Mean surprise of the right classes: scores (n, classes), targets n class numbers. Kept: shares minus wanted shares, where
    smoothing s wants s / classes everywhere and 1 - s more for the label."""
    labels = class_labels(targets, check_labels(scores.shape, np.shape(targets)))
    logs, shares = log_softmax.forward(scores)
    ### BEGIN SOLUTION
    rows = np.arange(len(logs))
    loss = -logs[rows, labels].sum() / len(logs)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * logs.mean()
    ### END SOLUTION
    if label_smoothing: shares -= label_smoothing / scores.shape[1]
    shares[np.arange(len(labels)), labels] -= 1 - label_smoothing
    return loss, shares


class CrossEntropyLoss(Loss):
    """Scores (n, classes), as the last layer gives them without softmax, against n class numbers."""

    def __init__(self, label_smoothing=0.0):
        if not 0 <= label_smoothing < 1: raise ValueError(f"label_smoothing={label_smoothing}: a share from 0 to below 1")
        self.label_smoothing = label_smoothing

    def __call__(self, scores, targets): return cross_entropy(scores, targets=targets, label_smoothing=self.label_smoothing)

# %% nbgrader={"grade": true, "grade_id": "test-cross-example", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_cross_example(scores, labels, smoothing, want):
    got = cross_entropy(scores, targets=labels, label_smoothing=smoothing)
    same(got, want, f"cross_entropy of {scores}, labels {labels}, label_smoothing {smoothing}")
test_cross_example([[0, 0, 0], [1000, 0, 0]], [1, 0], 0.0, 0.5493)
test_cross_example([[1000, 0]], [1], 0.0, 1000)
test_cross_example([[0.6931, 0, 0]], [0], 0.3, 0.8318)
test_cross_example([[1, np.nan], [0, 0]], [0, 0], 0.0, np.nan)
### BEGIN HIDDEN TESTS
test_cross_example([[0, -800], [0, 0]], [1, 1], 0.0, (800 + np.log(2)) / 2)
test_cross_example(np.log([[1, 2, 5], [2, 2, 4]]), Tensor([2, 0]), 0.0, (np.log(8 / 5) + np.log(4)) / 2)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-cross-smoothing", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_cross_smoothing(seed, n, classes, smoothing):
    rng = np.random.default_rng(seed)
    scores, labels = rng.normal(0, 2, size=(n, classes)).astype(np.float32), rng.integers(0, classes, size=n)
    surprise = -np.log(softmax(scores).data)
    want = np.mean([(1 - smoothing) * row[label] + smoothing * row.mean() for row, label in zip(surprise, labels, strict=True)])
    same(CrossEntropyLoss(smoothing)(scores, labels), want, f"{n} rows, {classes} classes, label_smoothing {smoothing}")
test_cross_smoothing(seed=0, n=4, classes=3, smoothing=0.1)
test_cross_smoothing(seed=1, n=2, classes=5, smoothing=0.0)
### BEGIN HIDDEN TESTS
for seed, smoothing in [(2, 0.5), (3, 0.0), (4, 0.2)]: test_cross_smoothing(seed, seed + 3, 11 - seed, smoothing)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "cross-errors", "locked": true, "schema_version": 3, "solution": false, "task": false}
# What `check_labels`, given, says about shapes is worth reading once. And the loss of first contact, with your op beside it:

# %% nbgrader={"grade": false, "grade_id": "cross-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
for wrong, targets in [(np.zeros((2, 3, 4)), [0, 1]), (np.zeros((2, 3)), [0, 1, 2]), (np.zeros((2, 3)), np.eye(3)[:2])]:
    try: cross_entropy(wrong, targets=targets)
    except ValueError as error: print("ValueError:", error)

loss, scales = CrossEntropyLoss(), np.geomspace(0.1, 3000, 40)
plt.loglog(scales, [loss(scale * scores, answers).item() for scale in scales], label="your CrossEntropyLoss")
naive = np.array([naive_loss(scale * scores, answers) for scale in scales])
plt.loglog(scales, naive, "--", linewidth=4, alpha=0.5, label=f"the formula as it stands: inf from {scales[np.isinf(naive)][0]:.0f} on")
plt.gca().set(xlabel="scores of 797 digits, multiplied by", ylabel="loss", title="Always the same answers, and a formula that ends")
plt.legend()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "bce-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. Yes or no (40 minutes)
#
# Spam or not, ten tags at once, several of which may be right: then each score has a `sigmoid` of its own, and the surprise has two sides.
# If t is 1 for yes and 0 for no, it is
#
# $$-t \log s - (1 - t) \log (1 - s), \qquad s = \text{sigmoid}(x)$$
#
# By hand: at x = 0 both sides cost 0.693. At x = 1.0986, s is 3/4: a yes costs 0.288, a no costs 1.386.
#
# ### Predict, measure, explain
#
# A spam filter is sure, and it is wrong: the score is x, the answer was no. Typed as it stands, the loss is `-log(1 - sigmoid(x))`.
# **At which score does it turn `inf` in float32?** You know the candidates: e to the x overflows at 89, e to the -x is 0 at 104.

# %% nbgrader={"grade": false, "grade_id": "bce-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_inf = your number
### BEGIN SOLUTION
guess_inf = 89
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-bce-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_inf > 0, f"expected any positive number, got {guess_inf}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "bce-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
formulas = {
    "e to the x": np.exp,
    "-log(1 - sigmoid(x))": lambda x: -np.log(1 - 1 / (1 + np.exp(-x))),
    "-log(sigmoid(-x))": lambda x: -np.log(np.exp(-x) / (1 + np.exp(-x))),
}
def first_inf(formula, dtype):
    """The first whole score at which a formula is inf."""
    with np.errstate(all="ignore"): return np.isinf(formula(np.arange(1000, dtype=dtype))).argmax()

for name, formula in formulas.items():
    print(f"{name:21} inf from {first_inf(formula, np.float32):4} on in float32, from {first_inf(formula, np.float64):4} on in float64")
near = np.array([15, 16, 17, 18], dtype=np.float32)
print("1 / (1 + e to the -x) at 15, 16, 17, 18, minus 1:", 1 / (1 + np.exp(-near)) - 1)
print(f"you said {guess_inf}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "bce-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** Three suspects: a power that overflows, a share that becomes 0, and rounding beside 1. Which
# of them turned `-log(1 - sigmoid(x))` into `inf`, and which lines clear the others? What do the columns have to do
# with the 24 and 53 binary digits of the two formats?
#
# Then decide: the scores of the filter reach 40. A colleague offers float64, or to limit the share to at most 1 - 1e-7; the third offer is
# a formula that forms no `1 - s`. Which losses do mails of score 20 and 40 get from each?
#
# | points | for |
# |---|---|
# | 2 | your own scores for both formats and all three formulas, and how far your guess was off |
# | 2 | the culprit, with the lines that clear the other two, and the calculation from binary digits to scores |
# | 2 | a decision with the calculated losses of both mails under each of the offers |

# %% [markdown] nbgrader={"grade": true, "grade_id": "bce-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. inf from 89, 17, 104 in float32 and from 710, 37, 746 in float64; I had said 89. At 17 the power e to the 17 is 2.4e7, far
# from overflow (first line), and e to the -17 is 4e-8, far from 0 (third line: that happens at 104). But 1 + 4e-8 is 1 in a float32: with 24
# binary digits the next number above 1 is 1.2e-7 away, and what is less than half of that, 2 to the -24, is
# rounded off. ln(2) * 24 = 16.6, so 17; ln(2) * 53 = 36.7, so 37. The share is 1, 1 minus it is 0, its log -inf. Rounding beside 1 is
# convicted. Offers: float64 gives 20 for score 20 and inf for 40, at twice the memory. The limit gives -log(1e-7) = 16.1 for both:
# no inf, but a wrong answer at 40 counts no more than one at 17, and module 06 will show that nothing is learned from it. Without
# forming 1 - s the losses are 20 and 40, in float32: take that.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "bce-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### The formula that lasts
#
# Put $s = 1/(1 + e^{-x})$ into both logarithms, and they become $\log(1 + e^{-x})$ for a yes and $x + \log(1 + e^{-x})$ for a no: together
#
# $$x - t x + \log(1 + e^{-x})$$
#
# Negative x overflow in the last term. For those, $\log(1 + e^{-x}) = -x + \log(1 + e^{x})$: the power of minus the **amount** of x is never
# above 1. And $\log(1 + p)$ for a tiny p loses p beside the 1, the mistake that you just measured; NumPy's `log1p(p)` does not.
#
# ### TODO 5.6: `bce_with_logits`, your part about 3 lines
#
# | | |
# |---|---|
# | `x` | float32 array of scores ("logits"), any shape, finite; it stays as it was |
# | `targets` | float32 array of the same shape, numbers from 0 to 1, checked already |
# | `loss`, to be made | one number: the mean of the surprises |
# | example | `x = [0, 1.0986, 1.0986]`, targets 1, 1, 0 give (0.6931 + 0.2877 + 1.3863) / 3 = 0.7890 |
# | limits | `x = [1000, -1000]` with targets 0, 1 gives 1000, with targets 1, 0 gives 0; `x = [-20]` with target 0 gives 2.06e-9, not 0; never a warning |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Write the two forms of the last term side by side, for positive and for negative x. What do they share, and which part is there only
# for one sign? An activation of module 03 is made of just that.</details>

# %% nbgrader={"grade": false, "grade_id": "bce", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def bce_with_logits(x, *, targets):
    """Mean of -t log s - (1 - t) log(1 - s) with s = sigmoid(x), finite for any finite x. Kept: s - t."""
    targets = as_float32(targets)
    same_shape("BCEWithLogitsLoss", x, targets)
    if targets.min() < 0 or targets.max() > 1:
        raise ValueError(f"BCEWithLogitsLoss: targets go from 0 (no) to 1 (yes), these from {targets.min():g} to {targets.max():g}")
    ### BEGIN SOLUTION
    power = np.exp(-np.abs(x))
    losses = np.maximum(x, 0) - targets * x + np.log1p(power)
    loss = losses.mean()
    ### END SOLUTION
    return loss, sigmoid.forward(x) - targets


class BCEWithLogitsLoss(Loss):
    """Scores of any shape, without sigmoid, against numbers from 0 (no) to 1 (yes) of the same shape."""

    def __call__(self, scores, targets): return bce_with_logits(scores, targets=as_float32(targets))

# %% nbgrader={"grade": true, "grade_id": "test-bce-example", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_bce_example(x, targets, want):
    x = np.float32(x)
    before = x.copy()
    try:
        with np.errstate(over="raise", divide="raise", invalid="raise"): got = bce_with_logits(x, targets=targets)
    except FloatingPointError as problem: raise AssertionError(f"{x}: expected {want}, NumPy says: {problem}") from None
    same(got, want, f"bce_with_logits of {x}, targets {targets}")
    assert np.array_equal(x, before), f"bce_with_logits changed its input: expected {before} as before, got {x}"
test_bce_example([0, 1.0986, 1.0986], [1, 1, 0], 0.7890)
test_bce_example([1000, -1000], [0, 1], 1000)
test_bce_example([1000, -1000], [1, 0], 0)
### BEGIN HIDDEN TESTS
test_bce_example([[-1.0986], [2]], [[0.5], [0.25]], (0.8370 + 1.6269) / 2)
test_bce_example([-3e38, 20, 30], [0, 0, 0], 50 / 3)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-bce-small", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_bce_small(x, target, want):
    got = bce_with_logits([x], targets=[target]).item()
    assert abs(got / want - 1) < 1e-3, f"score {x}, target {target}: expected {want:.3e}, got {got:.3e} (lost beside 1?)"
test_bce_small(-20, 0, 2.0612e-09)
### BEGIN HIDDEN TESTS
for x, target, want in [(25, 1, 1.3888e-11), (-60, 0, 8.7565e-27), (17, 0, 17)]: test_bce_small(x, target, want)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "scale-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. What a loss is good for (15 minutes)
#
# The digit reader of first contact has a flaw that its 96 % of right answers hide: its scores were never meant as scores for softmax.
# Multiplied by the right number, they would say how sure it is; the answers stay the same for every number. Your loss can find it.
#
# ### TODO 5.7: `best_scale(scores, answers, scales)`, about 3 lines
#
# | | |
# |---|---|
# | `scores`, `answers` | arrays (n, classes) and (n,), as for `CrossEntropyLoss` |
# | `scales` | a list of positive numbers |
# | returns | that one of the scales for which `scale * scores` has the smallest cross entropy |
# | example | scores `[[1, 0], [1, 0], [1, 0], [1, 0]]`, answers 0, 0, 0, 1, scales 0.5, 1.0986, 2 give 1.0986: shares of 3/4 for what is right in 3 of 4 cases |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Python's <code>min</code> compares by whatever its <code>key</code> makes of each candidate.</details>

# %% nbgrader={"grade": false, "grade_id": "best-scale", "locked": false, "schema_version": 3, "solution": true, "task": false}
def best_scale(scores, answers, scales):
    """The scale at which scale * scores has the smallest cross entropy."""
    ### BEGIN SOLUTION
    loss = CrossEntropyLoss()
    losses = [loss(scale * scores, answers).item() for scale in scales]
    return scales[np.argmin(losses)]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-best-scale", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_best_scale(right, scales, want):
    scores, answers = np.tile(np.float32([[1, 0]]), (4, 1)), [0] * right + [1] * (4 - right)
    got = best_scale(scores, answers, scales)
    assert abs(got - want) < 1e-6, f"{right} of 4 right, scales {scales}: expected {want}, got {got}"
test_best_scale(3, [0.5, 1.0986, 2], 1.0986)
### BEGIN HIDDEN TESTS
test_best_scale(4, [3, 50, 1], 50)
test_best_scale(2, [4, 0.25, 1, 900], 0.25)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "use-it", "locked": true, "schema_version": 3, "solution": false, "task": false}
scale = best_scale(scores[:400], answers[:400], np.geomspace(0.1, 1000, 81))      # chosen on 400 digits, tried on the other 397
for name, tried in {"scores x 1": scores[400:], f"scores x {scale:.1f}": scale * scores[400:], "scores x 100": 100 * scores[400:]}.items():
    shares = softmax(tried).data
    right = (tried.argmax(axis=1) == answers[400:]).mean()
    print(f"{name:13} {right:.1%} right, {shares.max(axis=1).mean():.1%} sure on average, loss {loss(tried, answers[400:]).item():.3f}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# In the middle line the reader is about as sure as it is right. Nothing in its answers told you which line that would be; the loss did.
#
# You can say what each loss minds, keep logarithms and powers inside the float's range, find the three places where it ends, and
# refuse shapes and labels that would go through in silence. `tito module complete 05` makes the losses part of your framework.
# They return in module 06 (each gets a derivative, and cross entropy's is the nicest of all), 08 (what training watches), 14 (surprise per
# character) and 18 (learning from another network's shares).
#
# Two harder tasks, without points:
#
# - Huber's loss is squared for differences below 1 and grows like their amount beyond. Write it from Tensor operations. Which number does it
#   choose for 1, 2, 3, 4 and 40?
# - Give both rows of the table before TODO 5.3 the label 1. By how much does label smoothing of 0.1 change each loss, and what does it do to
#   scores that are larger still?
