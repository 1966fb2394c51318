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
# # Module 04: Layers
#
# **The question: which numbers are the network?**
#
# A network that reads digits and one that reads something else can be the same code. What differs is a handful of arrays:
# 101,770 numbers for a small network, 407,080 bytes. You write what holds such arrays, gives them a good start, finds
# them by name, saves them, and puts them to work.
#
# At the end a network of your layers reads handwritten digits, is saved as plain arrays, comes back in a fresh network
# with the same answers, and reads on while half of its numbers are missing. About 175 minutes. Needed: `Tensor`, `op` and
# `@` from module 02, `relu` and `ReLU` from module 03.

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import tempfile
from pathlib import Path
import matplotlib.pyplot as plt
import tinytorch.core.activations as module_03
import tinytorch.core.tensor as module_02
from tinytorch.testing.checking import needs, refuses, same
from tinytorch.core.activations import ReLU
from tinytorch.core.utils import best_ms
from tinytorch.data import digits

needs("02", module_02, "Tensor([[1, 2]]) @ [[3], [4]] is [[11]]", lambda: (module_02.Tensor([[1, 2]]) @ [[3], [4]]).item() == 11)
needs("03", module_03, "ReLU()([-1, 2]) is [0, 2]", lambda: ReLU()([-1, 2]).data.tolist() == [0, 2])
print("Tensor and ReLU come from", module_02.__file__, "and", module_03.__file__)

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
"""Layers: what holds weights, and what holds layers."""
import numpy as np
from tinytorch import randomness
from tinytorch.core.tensor import Tensor, as_float32, op
from tinytorch.given.modules import check_features, describe, inside, linear_misfit, uniform_fan_in, xavier_uniform  # noqa: F401

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary>What is the shape of <code>x @ W + b</code> for shapes (32, 784), (784, 128) and (128,)?</summary>
# (32, 128): the inner 784 disappears, and b is added to each of the 32 rows.</details>
# <details><summary>How many bytes does a float32 array of shape (784, 128) hold?</summary>
# 784 * 128 * 4 = 401,408.</details>
# <details><summary>Which numbers does <code>relu</code> replace by 0, and what is left of a signal that is as often negative as positive?</summary>
# The negative ones: half of them.</details>

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
images, labels = digits()
pixels = images.reshape(-1, 64)
hidden = np.maximum(pixels @ np.random.default_rng(0).normal(0, 0.2, size=(64, 512)), 0)

def last_layer(wanted):
    """The weights (512, columns) that lead from the hidden numbers of 1,000 digits closest to what is wanted (least squares)."""
    return np.linalg.solve(hidden[:1000].T @ hidden[:1000] + np.eye(512), hidden[:1000].T @ wanted[:1000])

names, odd = last_layer(np.eye(10)[labels]), last_layer(np.eye(2)[labels % 2])
for what, array, wanted in [("unseen digits named", names, labels), ("told odd from even", odd, labels % 2)]:
    print(f"array of {array.shape}: {((hidden[1000:] @ array).argmax(axis=1) == wanted[1000:]).mean():.1%} of 797 {what}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "he-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 1. A start that lasts (30 minutes)
#
# The same code, another array, another network. Nobody calculates the arrays of a deep network, though: they start at
# random, and training (modules 06 to 08) moves them. Random how? A unit sums its inputs, each times a weight. If the
# inputs have a **mean square** of 1 (the average of their squares), this is what comes out, by hand:
#
# | inputs per unit | spread of the weights | mean square of the sum | after relu |
# |---|---|---|---|
# | 100 | 0.1 | 100 * 0.1 * 0.1 = 1 | 0.5 |
# | 100 | 0.2 | 100 * 0.2 * 0.2 = 4 | 2 |
# | 200 | 0.1 | 200 * 0.1 * 0.1 = 2 | **1** |
#
# Squares of independent numbers add up, and relu throws half away. The **spread** is the standard deviation; the number
# of inputs per unit is called **fan-in**. In the last row the signal leaves the layer as strong as it came.
#
# ### Predict, measure, explain
#
# Twenty layers of 256 units with relu: once with weights of spread 0.05, once of spread 0.1, twice as large. **How many
# times as large are the numbers that come out at the end?** Commit to a number first.

# %% nbgrader={"grade": false, "grade_id": "signal-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_signal = your number
### BEGIN SOLUTION
guess_signal = 40
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-signal-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_signal > 0, f"expected any positive number, got {guess_signal}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "signal-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
def strengths(spread, *, units=256, seed=0):
    """The root of the mean square of a random signal behind each of 20 layers with relu whose weights have this spread."""
    rng = np.random.default_rng(seed)
    x, found = rng.normal(size=(200, units)), []
    for _ in range(20):
        x = np.maximum(x @ (spread * rng.normal(size=(units, units))), 0)
        found.append((x * x).mean() ** 0.5)
    return found

for layer, small, large in zip(range(1, 21), strengths(0.05), strengths(0.1), strict=True):
    if layer in (1, 2, 10, 20): print(f"after layer {layer:2}: {small:8.2e} and {large:8.2e}, {large / small:9,.0f} times")
print("you said", guess_signal)

# %% [markdown] nbgrader={"grade": false, "grade_id": "signal-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** Explain the last column to a colleague who says that weights twice as large give
# answers twice as large. Is chance the cause, or the number 256? Say which line would look different if it were. Then
# decide: the colleague plans 100 layers of 256 units with spread 0.1, "which is close to right". A float32 ends at 3.4e38.
# Do you let it pass?
#
# | points | for |
# |---|---|
# | 2 | your own numbers after layers 1, 2 and 20, with the factor per layer, and how far your guess was off |
# | 2 | a cause that fits all four lines to the digit, and what excludes the rival causes |
# | 2 | a decision with the calculated size after 100 layers, and the spread that you would use |

# %% [markdown] nbgrader={"grade": true, "grade_id": "signal-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. 2, 4 and 1,048,576 times: exactly 2 per layer, I had said 40. A layer with doubled weights doubles its sums, and relu
# keeps a factor: relu(2x) = 2 relu(x). So every layer doubles what the layer before it has doubled already: 2 to the 20. Not
# chance: both runs draw the same numbers, and a lucky draw would not give whole powers. Not 256: it acts on both
# columns alike and cancels in the quotient; it decides how large each of them is. With 256 inputs a layer multiplies the
# strength by the root of 256 * 0.1 * 0.1 / 2 = 1.131: 11.7 after 20 layers, measured 10. After 100 layers that is 1.131
# to the 100, about 220,000. No overflow: float32 would end near layer 720. But scores of that size leave softmax with
# shares of 0 and 1, and a spread of 0.05 would have left 1e-25 of the signal. Use the root of 2 / 256, 0.088: factor 1.
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "he-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 4.1: `he_normal(fan_in, shape)`, about 2 lines
#
# He and others (2015) drew the conclusion: take the spread with which the table's last column stays at 1.
#
# | | |
# |---|---|
# | `fan_in` | inputs per unit, an integer |
# | `shape` | a tuple; any shape, since a convolution needs other shapes for the same fan-in |
# | returns | float32 array: numbers of a bell curve with mean 0 and the spread for which `fan_in` * spread * spread / 2 is 1 |
# | chance | drawn from `randomness.generator()`, so that `randomness.manual_seed(0)` makes a network repeatable |
# | example | `he_normal(200, (200, 50))`: 10,000 numbers with spread 0.1 |
#
# `randomness.generator()` is a NumPy `Generator`, as `np.random.default_rng` makes it, but one for the whole framework.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Solve the equation in the table for the spread. What does <code>standard_normal</code> offer for the dtype, and what
# becomes of float32 numbers that meet a NumPy float64?</details>

# %% nbgrader={"grade": false, "grade_id": "he-normal", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def he_normal(fan_in, shape):
    """First weights for layers with relu: float32 of spread sqrt(2 / fan_in), so that a signal keeps its mean square."""
    ### BEGIN SOLUTION
    spread = np.float32((2 / fan_in) ** 0.5)
    return spread * randomness.generator().standard_normal(shape, dtype=np.float32)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-he-spread", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_he_spread(fan_in, shape):
    w, want = he_normal(fan_in, shape), (2 / fan_in) ** 0.5
    assert (w.dtype, w.shape) == (np.float32, shape), f"expected float32 of shape {shape}, got {w.dtype} of shape {w.shape}"
    assert 0.95 < w.std() / want < 1.05, f"fan-in {fan_in}: expected a spread near {want:.4f}, got {w.std():.4f}"
    above = (w > want).mean()
    assert 0.14 < above < 0.18, f"of a bell curve around 0, 16 % lie more than one spread above 0; of yours {above:.1%}"
test_he_spread(200, (200, 50))
### BEGIN HIDDEN TESTS
for fan_in, shape in [(27, (32, 3, 15, 15)), (8, (5000,))]: test_he_spread(fan_in, shape)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-he-chance", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_he_chance(seed):
    (_, first, second), (_, again, _) = [(randomness.manual_seed(seed), he_normal(3, (4, 5)), he_normal(3, (4, 5))) for _ in range(2)]
    assert np.array_equal(first, again), "the same manual_seed should give the same weights, yours differ (another generator?)"
    assert not np.array_equal(first, second), "two layers should get different weights, yours are equal (a new generator each time?)"
test_he_chance(seed=0)
### BEGIN HIDDEN TESTS
test_he_chance(seed=7)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "he-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
rules = {"spread 0.1": 0.1, "he_normal": (2 / 256) ** 0.5, "xavier, for tanh": (1 / 256) ** 0.5, "PyTorch's default": (1 / 768) ** 0.5}
for name, spread in rules.items(): plt.semilogy(range(1, 21), strengths(spread), marker=".", label=name)
plt.gca().set(xlabel="layer, 256 units with relu", ylabel="signal", xticks=range(2, 21, 2), title="One start keeps a signal for 20 layers")
plt.legend(); plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "walk-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# All the others are straight lines on this scale: a constant factor per layer. So `Linear` will start with `he_normal`,
# where PyTorch starts with a smaller spread.
#
# ## 2. Finding the numbers (45 minutes)
#
# A network is an object: its attributes hold arrays and other layers, some of them in lists. Training must find all
# arrays, and so must saving; one that is forgotten would never learn.
#
# So the objects are **walked**: what is inside, what is inside of that, with a name that tells the way.
#
# | inside `{"w": 1.5, "parts": [2.5, 3.5]}` | name |
# |---|---|
# | the dict itself | `""`, empty |
# | 1.5 | `"w"` |
# | the list | `"parts"` |
# | 2.5 and 3.5 | `"parts.0"` and `"parts.1"` |
#
# Two traps: a part may be reached twice (transformers use one table for reading and writing), and counted twice it would
# be trained twice. And a part may lead back to where the walk began.
#
# `inside(thing)` is given: (name, part) of what a module, dict, list or tuple holds directly, and `[]` for everything else.
# `inside([2.5, 3.5])` is `[(0, 2.5), (1, 3.5)]`: the places in a list are its names.

# %% nbgrader={"grade": false, "grade_id": "parameter", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
def as_tensor(x): return x if isinstance(x, Tensor) else Tensor(x)


class Parameter(Tensor):
    """A tensor that training changes; it has memory of its own."""

    def __init__(self, data):
        super().__init__(as_float32(data).copy(), requires_grad=True)

# %% [markdown] nbgrader={"grade": false, "grade_id": "walk-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 4.2: `walk(thing, name="", seen=None)`, about 6 lines
#
# | | |
# |---|---|
# | `thing` | anything |
# | `name` | the name of `thing`; names of parts are joined to it by a dot, numbers in them become text |
# | `seen` | for your own use: which objects were met, by their `id` |
# | returns | the pairs (name, part): `thing` itself first, then each part, and **before the next part** all that is inside of it; a list, or one after the other by `yield` |
# | once | each object only where it is met first: with `p = Parameter([1])`, `{"a": p, "b": p}` has the names `""` and `"a"` |
# | example | `{"w": 1.5, "parts": [2.5, 3.5]}` has the names `""`, `"w"`, `"parts"`, `"parts.0"`, `"parts.1"` |
#
# `RecursionError: maximum recursion depth exceeded`: the walk goes around in a circle, `seen` does not reach the inner calls.
#
# <details><summary>Hint, after five minutes of trying</summary>
# What has to be done with each part is what you are writing. Who makes the set of ids, and how do the inner calls get the
# same one? <code>yield from</code> hands on all that an inner call yields.</details>

# %% nbgrader={"grade": false, "grade_id": "walk", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def walk(thing, name="", seen=None):
    """(dotted name, part) of everything in a module, list, tuple or dict: itself first, depth first, each object once."""
    ### BEGIN SOLUTION
    seen = set() if seen is None else seen
    if id(thing) not in seen:
        seen.add(id(thing))
        yield name, thing
        for key, part in inside(thing):
            yield from walk(part, f"{name}.{key}" if name else str(key), seen)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-walk-names", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_walk_names(thing, want):
    got = [name for name, _ in walk(thing)]
    assert got == want, f"{thing} should have the names\n{want}, yours are\n{got}"
test_walk_names({"w": 1.5, "parts": [2.5, 3.5]}, ["", "w", "parts", "parts.0", "parts.1"])
### BEGIN HIDDEN TESTS
test_walk_names([{"a": (0.5, {"b": 1.5})}, 2.5], ["", "0", "0.a", "0.a.0", "0.a.1", "0.a.1.b", "1"])
test_walk_names(9.5, [""])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-walk-parts", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_walk_parts(thing, want):
    got = [part for _, part in walk(thing)]
    assert got == want, f"the parts of {thing} should be\n{want}, yours are\n{got}"
test_walk_parts([7.5, [8.5]], [[7.5, [8.5]], 7.5, [8.5], 8.5])
p, q = Parameter([1]), Parameter([1]); test_walk_names({"a": p, "b": [p, q], "c": p}, ["", "a", "b", "b.1"])
### BEGIN HIDDEN TESTS
test_walk_names((p, {"q": (q, p)}, q), ["", "0", "1", "1.q", "1.q.0"])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "module-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### What counts, and the trap of the shared array
#
# A `Module` is what has attributes worth walking. Three kinds of things are found in it:
#
# | attribute | learned | saved |
# |---|---|---|
# | `Parameter` | yes | yes |
# | NumPy array, called a **buffer**: a count, an average | no | yes |
# | everything else: options, texts, a plain `Tensor` | no | no |
#
# The arrays by name are the **state**, all that must be saved. A state that shares memory with the layers would follow them
# wherever training goes next: "the best weights so far" would always be the latest ones.
#
# ### TODO 4.3: `Module.state_dict()` and `Module.load_state_dict(state)`, about 8 lines
#
# `self.named_arrays()` is given: name -> array, the arrays themselves.
#
# | | |
# |---|---|
# | `state_dict()` | the same dict with copies |
# | `load_state_dict(state)` | writes the numbers of `state`, name -> array, **into** the arrays that the module holds; `state` stays as it was |
# | refuses | `ValueError`, and the module stays as it was, if a name is missing, unexpected or of another shape |
# | its message | names all of them: `weight is missing`, `gain is unexpected`, `bias has shape (3,), this one has (2,)` (the state's, then the module's) |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Collect all complaints in a list before you decide. NumPy fills an array in place with <code>[...]</code> on the left
# side; why would a shape that is wrong not always be an error there?</details>

# %% nbgrader={"grade": false, "grade_id": "module", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
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
        ### BEGIN SOLUTION
        return {name: array.copy() for name, array in self.named_arrays().items()}
        ### END SOLUTION

    def load_state_dict(self, state):
        """Take over the numbers of a state; ValueError names all that does not fit, and then nothing has changed."""
        ### BEGIN SOLUTION
        own = self.named_arrays()
        wrong = [f"{name} is missing" for name in own if name not in state]
        wrong += [f"{name} is unexpected" for name in state if name not in own]
        shapes = [(name, np.shape(state[name]), array.shape) for name, array in own.items() if name in state]
        wrong += [f"{name} has shape {got}, this one has {want}" for name, got, want in shapes if got != want]
        if wrong: raise ValueError(f"the state does not fit this {type(self).__name__}: {'; '.join(wrong)}")
        for name, array in own.items(): array[...] = state[name]
        ### END SOLUTION
        for parameter in self.parameters(): parameter.data = parameter.data         # so that `version` counts it

    def train(self, mode=True):
        for _, module in self.named_modules(): module.training = mode
        return self

    def eval(self): return self.train(False)

# %% nbgrader={"grade": true, "grade_id": "test-module-state", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def make_pair(size):
    pair, inner = Module(), Module()
    pair.weight, pair.count, pair.inner = Parameter([[1, 2]]), np.zeros(1, np.float32), [inner]
    inner.bias, inner.rate, inner.table, inner.outer = Parameter(np.ones(size)), 0.5, Tensor([1, 2]), pair
    return pair
def test_module_state(size):
    pair, want = make_pair(size), {"weight": [[1, 2]], "count": [0], "inner.0.bias": [1] * size}
    state = pair.state_dict()
    assert list(state) == list(want), f"expected the names {list(want)}, got {list(state)}"
    pair.weight.data += 1; pair.count += 1
    for name, array in state.items(): same(array, want[name], f"{name} in a snapshot, after the module moved on")
test_module_state(size=2)
### BEGIN HIDDEN TESTS
test_module_state(size=5)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-module-load", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_module_load(weight, count):
    pair, state = make_pair(2), {"count": np.float32([count]), "inner.0.bias": np.float32([5, 6]), "weight": np.float32([weight])}
    pair.load_state_dict(state)
    for name, array in pair.state_dict().items(): same(array, state[name], f"{name} after loading")
    pair.weight.data += 1; pair.count += 1
    same([*state["weight"][0], *state["count"]], [*weight, count], "weight and count of the loaded state, after the module moved on")
test_module_load(weight=[3, 4], count=7)
### BEGIN HIDDEN TESTS
test_module_load(weight=[-1, 0], count=0)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-module-refuses", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_module_refuses(changes, says):
    pair, fitting = make_pair(2), {"weight": np.float32([[8, 9]]), "count": np.float32([3]), "inner.0.bias": np.float32([5, 6])}
    state = {name: array for name, array in (fitting | changes).items() if array is not None}
    refuses(pair.load_state_dict, state, says=says)
    same(pair.weight, [[1, 2]], "weight after a state that does not fit")
test_module_refuses({"inner.0.bias": np.float32([5, 6, 7])}, ["inner.0.bias has shape (3,), this one has (2,)"])
test_module_refuses({"count": None, "gain": np.float32([1])}, ["count is missing", "gain is unexpected"])
### BEGIN HIDDEN TESTS
test_module_refuses({"weight": np.float32([[8]]), "z": np.float32(1)}, ["weight has shape (1, 1), this one has (1, 2)", "z is unexpected"])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "linear-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 3. Linear (30 minutes)
#
# `x @ weight + bias`, where `weight` has one row per input and one column per unit. What may go in, for
# `Linear(6, 4)`?
#
# | input | what it is | output |
# |---|---|---|
# | `(10, 6)` | 10 examples of 6 numbers | `(10, 4)` |
# | `(10, 5, 6)` | 10 texts of 5 words of 6 numbers | `(10, 5, 4)`: along the last axis |
# | `(10, 2, 3)` | 10 pictures of 2 x 3 pixels | `(10, 4)`: each picture is 6 numbers, flattened |
# | `(10, 5)` | a mistake | refused |
#
# The third row is a convenience for pictures: all axes after the first together hold 6 numbers. Where both readings
# fit, the second row wins.
#
# ### TODO 4.4: `linear_shape(shape, inputs, outputs)`, about 5 lines
#
# | | |
# |---|---|
# | `shape` | the shape of the input, a tuple |
# | returns | the shape of the output of `Linear(inputs, outputs)`, a tuple |
# | example | `(10, 2, 3)`, 6, 4 give `(10, 4)`; `(10, 5, 6)`, 6, 4 give `(10, 5, 4)`; `(6,)`, 6, 4 give `(4,)` |
# | refuses | everything else, `()` too, by a `ValueError`; the given `linear_misfit`, called with the same three, makes its text, with the cure |
#
# <details><summary>Hint, after five minutes of trying</summary>
# A slice of a short tuple is empty where an index would fail. Which slice of the shape tells whether the second row of the
# table applies, and which product whether the third?</details>

# %% nbgrader={"grade": false, "grade_id": "linear-shape", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def linear_shape(shape, inputs, outputs):
    """The shape that Linear(inputs, outputs) makes of an input's; ValueError where neither last axis nor whole examples fit."""
    ### BEGIN SOLUTION
    if shape[-1:] == (inputs,): return shape[:-1] + (outputs,)
    if len(shape) > 1 and np.prod(shape[1:]) == inputs: return shape[:1] + (outputs,)
    raise ValueError(linear_misfit(shape, inputs, outputs))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-linear-shape", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_linear_shape(shape, inputs, outputs, want):
    got = linear_shape(shape, inputs, outputs)
    assert got == want, f"Linear({inputs}, {outputs}) on an input of shape {shape} should give {want}, yours says {got}"
for shape, want in [((10, 6), (10, 4)), ((10, 5, 6), (10, 5, 4)), ((10, 2, 3), (10, 4)), ((6,), (4,))]: test_linear_shape(shape, 6, 4, want)
### BEGIN HIDDEN TESTS
for case in [((7, 3, 3), 3, 2, (7, 3, 2)), ((2, 5, 1, 3), 3, 2, (2, 5, 1, 2)), ((32, 64, 28, 28), 50176, 128, (32, 128)),
             ((9, 2, 1, 3), 6, 4, (9, 4))]: test_linear_shape(*case)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-linear-shape-refuses", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
for shape in [(10, 5), (2, 3)]: refuses(linear_shape, shape, 6, 4, says=["Linear(6, 4) takes 6 numbers", f"shape {shape} has {shape[-1]}"])
### BEGIN HIDDEN TESTS
for shape in [(), (5,), (6, 5), (3, 2, 2), (2, 3, 7)]: refuses(linear_shape, shape, 6, 4, says=["Linear(6, 4) takes 6 numbers", str(shape)])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "linear-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 4.5: `Linear`, about 6 lines
#
# | | |
# |---|---|
# | `weight` | a `Parameter` (inputs, outputs), from your `he_normal` |
# | `bias` | a `Parameter` (outputs,) of zeros; `None` with `bias=False` |
# | `forward(x)` | `x` is a Tensor already, `shape` the shape wanted; the result is a Tensor of that shape |
# | made by | Tensor operations (`@`, `+`, `.reshape`), which module 06 will follow; `x.data` would be cut off |
# | speed | **one** product of two matrices: the examples and words of `(10, 5, 6)` become 50 rows of 6 |
# | example | weight `[[1, 2], [3, 4]]`, bias `[10, 20]`: `[[1, 1], [0, 2]]` gives `[[14, 26], [16, 28]]` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Which reshape turns all three kinds of input into rows of <code>inputs</code> numbers, without asking which kind it
# is?</details>

# %% nbgrader={"grade": false, "grade_id": "linear", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Linear(Module):
    """x @ weight + bias along the last axis, weight (inputs, outputs); flattens examples whose sizes agree."""

    def __init__(self, inputs, outputs, bias=True):
        ### BEGIN SOLUTION
        self.weight = Parameter(he_normal(inputs, (inputs, outputs)))
        self.bias = Parameter(np.zeros(outputs)) if bias else None
        ### END SOLUTION

    def forward(self, x):
        x, (inputs, outputs) = as_tensor(x), self.weight.shape
        shape = linear_shape(x.shape, inputs, outputs)
        ### BEGIN SOLUTION
        rows = x if x.ndim == 2 else x.reshape(-1, inputs)
        out = rows @ self.weight
        if self.bias is not None: out = out + self.bias
        return out if x.ndim == 2 else out.reshape(shape)
        ### END SOLUTION


Dense = Linear

# %% nbgrader={"grade": true, "grade_id": "test-linear-start", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_linear_start(inputs, outputs):
    got = {name: parameter.data for name, parameter in Linear(inputs, outputs).named_parameters()}
    assert list(got) == ["weight", "bias"], f"expected the parameters weight and bias, got {list(got)}"
    assert got["weight"].shape == (inputs, outputs), f"weight should be {(inputs, outputs)}, yours is {got['weight'].shape}"
    same(got["bias"], np.zeros(outputs), "the first bias")
    want, spread = (2 / inputs) ** 0.5, got["weight"].std()
    assert 0.9 < spread / want < 1.1, f"{inputs} inputs: weight should spread by about {want:.3f}, yours by {spread:.3f}"
test_linear_start(60, 20)
### BEGIN HIDDEN TESTS
test_linear_start(30, 100)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-linear-forward", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_linear_forward(x, want, **options):
    layer, numbers = Linear(2, 2, **options), {"weight": np.float32([[1, 2], [3, 4]]), "bias": np.float32([10, 20])}
    layer.load_state_dict({name: numbers[name] for name, _ in layer.named_parameters()})
    got = layer(x)
    same(got, want, f"weight [[1, 2], [3, 4]], bias [10, 20] unless {options}, x = {x}")
    assert getattr(got, "requires_grad", False), f"expected a Tensor made of self.weight (not its .data), got a {type(got).__name__}"
test_linear_forward([[1, 1], [0, 2]], [[14, 26], [16, 28]])
test_linear_forward([[[1, 1], [0, 2], [0, 0]]], [[[14, 26], [16, 28], [10, 20]]])
test_linear_forward([[[1], [1]], [[0], [2]]], [[14, 26], [16, 28]])
### BEGIN HIDDEN TESTS
test_linear_forward([1, 1], [14, 26]); test_linear_forward([[1, 1], [0, 2]], [[4, 6], [6, 8]], bias=False)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "sequential-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 4. A network (30 minutes)
#
# ### TODO 4.6: `Sequential`, about 4 lines
#
# | | |
# |---|---|
# | `Sequential(a, b, c)` | layers, or a single list (or tuple) of them: `Sequential([a, b, c])` |
# | `self.layers` | a list of its own: appending to the list that was passed changes nothing |
# | `forward(x)` | `c(b(a(x)))` |
# | `Sequential()` | gives back what it gets |
#
# <details><summary>Hint, after five minutes of trying</summary>
# What does <code>*layers</code> hold when a single list is passed? And when a single layer is passed?</details>

# %% nbgrader={"grade": false, "grade_id": "sequential", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Sequential(Module):
    """Layers one after the other: Sequential(a, b) or Sequential([a, b])."""

    def __init__(self, *layers):
        ### BEGIN SOLUTION
        if len(layers) == 1 and isinstance(layers[0], (list, tuple)): layers = layers[0]
        self.layers = list(layers)
        ### END SOLUTION
        for place, layer in enumerate(self.layers):
            if isinstance(layer, type) or not callable(layer):
                raise TypeError(f"layer {place} of Sequential is {layer!r}: pass an object such as ReLU(), with brackets")

    def forward(self, x):
        ### BEGIN SOLUTION
        for layer in self.layers: x = layer(x)
        return x
        ### END SOLUTION

    def __len__(self): return len(self.layers)
    def __getitem__(self, index): return Sequential(self.layers[index]) if isinstance(index, slice) else self.layers[index]

# %% nbgrader={"grade": true, "grade_id": "test-sequential", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
add_one, double = (lambda x: x + 1), (lambda x: 2 * x)
def test_sequential(layers, x, want):
    for form, net in {"Sequential(a, ...)": Sequential(*layers), "Sequential([a, ...])": Sequential(list(layers))}.items():
        got = net(x)
        assert got == want, f"{form} of {len(layers)} layers should make {want} of {x}, yours makes {got}"
test_sequential([add_one, double], 3, 8)
test_sequential([double], 3, 6)
### BEGIN HIDDEN TESTS
for layers, want in [([double, add_one, double, add_one], 23), ([], 5)]: test_sequential(layers, 5, want)
given = [double]; net = Sequential(given); given.append(add_one)
assert len(net) == 1, f"the list that was passed grew, and the network with it: expected 1 layer, got {len(net)}"
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "count-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
net = Sequential(Linear(784, 128), ReLU(), Linear(128, 10))
for name, array in net.state_dict().items(): print(f"{name:16} {array.shape!s:12} {array.nbytes:8,} bytes")
print(net, f"{sum(p.size for p in net.parameters()):,} numbers, {sum(p.data.nbytes for p in net.parameters()):,} bytes", sep="\n")

# %% [markdown] nbgrader={"grade": false, "grade_id": "batch-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# There they are: the 101,770 numbers of the first paragraph, almost all of them in one array. Every picture has to meet
# each of them once.
#
# ### Predict, measure, explain
#
# This network on one picture, and on 64 pictures at once, in one array of shape (64, 784). **How many times as long do
# the 64 take?** (If two runs differ by half, run it again.)

# %% nbgrader={"grade": false, "grade_id": "batch-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_batch = your number
### BEGIN SOLUTION
guess_batch = 64
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-batch-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_batch > 0, f"expected any positive number, got {guess_batch}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "batch-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
for name, model, inputs in [("4-4-4", Sequential(Linear(4, 4), ReLU(), Linear(4, 4)), 4), ("784-128-10", net, 784),
                            ("4096-4096", Linear(4096, 4096), 4096)]:
    single, batch = (best_ms(lambda: model(x), repeat=9) for x in (Tensor(np.ones((1, inputs))), Tensor(np.ones((64, inputs)))))
    held = sum(parameter.data.nbytes for parameter in model.parameters()) / 1000
    print(f"{name:11}{held:9.1f} kB: 1 picture {single:6.3f} ms, 64 pictures {batch:7.3f} ms, {batch / single:4.1f} times")
print(f"you said {guess_batch} for 784-128-10")

# %% [markdown] nbgrader={"grade": false, "grade_id": "batch-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** Why are 64 pictures so cheap? Two suspects: a fixed price per call, for Python; and
# the way of the weights from memory to the processor, which 64 pictures share. Which one do your lines convict in the
# network 784-128-10, and which in the layer of 4096? Use the first line. Then decide for a server: pictures arrive one
# by one, 100 per second. For which of the two models do you collect 64 before you calculate?
#
# | points | for |
# |---|---|
# | 2 | your own times with units and ratios, and how far your guess was off |
# | 2 | a culprit for each of the two models, with the line or the bytes per second that exclude the other |
# | 2 | a decision with calculated busy time per second of the server, with and without collecting, and the wait it costs |

# %% [markdown] nbgrader={"grade": true, "grade_id": "batch-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. 0.018 and 0.019 ms; 0.024 and 0.136 ms, 5.6 times, guessed 64; 4.2 and 34 ms, 8 times. 4-4-4 has
# 40 numbers, nothing to calculate and nothing to fetch, so 0.018 ms is the price of the calls. The
# network 784-128-10 makes as many calls, so three quarters of its 0.024 ms are that price: Python is convicted. Its 407 kB
# stay in the cache. The layer of 4096 makes fewer calls; Python could explain 0.01 of 4.2 ms. Its 67 MB in 4.2 ms are 16 GB
# per second, the speed of a memory, and 64 pictures multiply 64 times as much in 8 times the time: fetching is
# convicted. Decision: one by one, the small network is busy 100 * 0.024 = 2.4 ms per second: do not collect. The layer of
# 4096 needs 420 ms of each second; in batches of 64 it needs 34 / 64 * 100 = 53 ms, and the first picture waits
# 0.64 s: collect if other work needs the processor, perhaps fewer than 64; a busy server gains a factor of 8. (Two cores of a server, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "dropout-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## 5. Layers that know whether they are training (40 minutes)
#
# A network may rely on a few of its numbers too much. **Dropout** (2014) forbids it: during training, each number is set to
# 0 with probability p, at random, anew each time. What is left grows by 1 / (1 - p), so that sums stay what they were on average.
# By hand, p = 0.5: `[1, 2, 3, 4]` may become `[2, 0, 6, 0]`. When the network is used, nothing is dropped: `eval()` says so.
#
# ### TODO 4.7: `Dropout.forward(x)`, about 4 lines
#
# | | |
# |---|---|
# | `x` | a Tensor of any shape; it stays as it was |
# | `self.training` | False after `eval()`: then the result is `x` |
# | `self.random` | this layer's own NumPy `Generator`: the same seed drops the same numbers, whatever else is drawn |
# | returns | a Tensor, made by Tensor operations: each number **for itself** 0 with probability `self.p`, else divided by `1 - self.p` |
# | limits | `p = 0` drops nothing; no loop over the numbers |
#
# <details><summary>Hint, after five minutes of trying</summary>
# <code>random(shape)</code> draws from 0 to 1, evenly. Which share of such numbers is smaller than p? A truth value times a
# number is the number or 0.</details>

# %% nbgrader={"grade": false, "grade_id": "dropout", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
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
        ### BEGIN SOLUTION
        if not self.training or self.p == 0: return x
        kept = self.random.random(x.shape, dtype=np.float32) >= self.p
        return x * (kept / np.float32(1 - self.p))
        ### END SOLUTION

    def extra_repr(self): return f"p={self.p}"

# %% nbgrader={"grade": true, "grade_id": "test-dropout-training", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_dropout_training(p, shape):
    layer, x = Dropout(p), Tensor(np.full(shape, 3.0))
    first, second = layer(x).data, layer(x).data
    same(x, np.full(shape, 3.0), "the input after dropout")
    same(np.unique(first.round(3)), [0, 3 / (1 - p)], f"what p={p} makes of 3s, sorted")
    assert (first == 0).mean(axis=0).max() < 1, "each number is dropped for itself, yours drops whole columns"
    assert abs((first == 0).mean() - p) < 0.05, f"p={p}: about {p:.0%} of the numbers should be dropped, not {(first == 0).mean():.1%}"
    assert not np.array_equal(first, second), "two calls should drop different numbers, yours drop the same"
test_dropout_training(p=0.25, shape=(50, 40))
### BEGIN HIDDEN TESTS
for p, shape in [(0.8, (60, 10, 5)), (0.1, (60, 50))]: test_dropout_training(p, shape)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-dropout-rest", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_dropout_rest(layer, why):
    got = layer(Tensor([[1, -2, 3]], requires_grad=True))
    same(got, [[1, -2, 3]], f"[[1, -2, 3]] {why}")
    assert getattr(got, "requires_grad", False), f"{why}: expected a Tensor made of x (not x.data), got a {type(got).__name__}"
test_dropout_rest(Dropout(0.5).eval(), "after eval()"); test_dropout_rest(Dropout(0.0), "with p=0")
### BEGIN HIDDEN TESTS
def drop(draws): randomness.manual_seed(5); layer = Dropout(0.5); randomness.generator().random(draws); return layer(np.ones((4, 6))).data
same(drop(3), drop(0), "what is dropped after the same manual_seed, whatever else was drawn")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "batchnorm-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Normalisation** makes strengths right wherever they went wrong: numbers are shifted and scaled to mean 0 and variance 1
# (the square of the spread). `LayerNorm` takes the numbers of each row. `BatchNorm` takes each feature, a column, over the
# **batch**, the examples of one call; what is measured in metres or in centimetres then arrives alike. By hand:
#
# | | feature 0 | feature 1 |
# |---|---|---|
# | batch | 1 and 3 | 10 and 30 |
# | mean, variance | 2, 1 | 20, 100 |
# | normalised | -1 and 1 | -1 and 1 |
#
# But what is the batch of a single picture? Its own mean is itself, and nothing is left of it. So during training BatchNorm
# keeps running averages of means and variances, in buffers, and after `eval()` it uses those. Saved without its
# buffers, a network gives other answers: that is why the state holds more than parameters.
#
# The last row is `normalize`, given below: your `standardize` of module 01 for several axes, with a tiny `eps` against
# division by 0.

# %% nbgrader={"grade": false, "grade_id": "normalize", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
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

# %% [markdown] nbgrader={"grade": false, "grade_id": "batchnorm-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 4.8: `BatchNorm`, about 7 lines
#
# | | |
# |---|---|
# | `remember(mean, var, n)` | moves each running average by the share `self.momentum` of its distance to the batch's value |
# | variance | a batch is a little too uniform: before it is remembered, its variance is multiplied by n / (n - 1) |
# | `forward`, your part | makes `out` of the Tensor `x`, features on axis 1: variance 1 and mean 0 over all `axes`; the rest is given |
# | in training | by `normalize` with `axes` and `self.eps`; and `remember` is told the means and variances over `axes` (arrays) and the numbers per feature |
# | after `eval()` | by Tensor operations with `running_mean` and `running_var`, a spread being the root of variance + `self.eps`; nothing is remembered |
# | `column` | the shape to which an array of one number per feature is brought, so that it fits to `x` |
# | example | momentum 0.1, the batch above: running means 0, 0 become 0.2, 2; running variances 1, 1 become 1.1, 20.9 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# The example by hand: the variance 100 of two numbers counts as 200. How far is that from 1? How many numbers does each
# feature have, for any number of axes?</details>

# %% nbgrader={"grade": false, "grade_id": "batchnorm", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class BatchNorm(Module):
    """Each feature (axis 1) to mean 0 and variance 1, then times weight plus bias. In training over the batch, while running
    averages are kept in buffers; after eval() by those, so that an answer does not depend on its neighbours."""

    dimensions = (2, 3, 4, 5)

    def __init__(self, features, eps=1e-5, momentum=0.1):
        self.weight, self.bias, self.eps, self.momentum = Parameter(np.ones(features)), Parameter(np.zeros(features)), eps, momentum
        self.running_mean, self.running_var = np.zeros(features, np.float32), np.ones(features, np.float32)

    def remember(self, mean, var, n):
        ### BEGIN SOLUTION
        self.running_mean += self.momentum * (mean - self.running_mean)
        self.running_var += self.momentum * (var * n / (n - 1) - self.running_var)
        ### END SOLUTION

    def forward(self, x):
        x = as_tensor(x)
        check_features(self, x.shape, self.weight.size, self.dimensions)
        axes, column = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
        ### BEGIN SOLUTION
        if self.training:
            self.remember(x.data.mean(axis=axes), x.data.var(axis=axes), x.size // x.shape[1])
            out = normalize(x, axis=axes, eps=self.eps)
        else:
            spread = np.sqrt(self.running_var + self.eps)
            out = (x - self.running_mean.reshape(column)) / spread.reshape(column)
        ### END SOLUTION
        return out * self.weight.reshape(column) + self.bias.reshape(column)


class BatchNorm1d(BatchNorm): dimensions = (2, 3)          # (n, features) or (n, features, length)

# %% nbgrader={"grade": true, "grade_id": "test-batchnorm-training", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_batchnorm_training(seed, shape, momentum):
    x, layer = np.random.default_rng(seed).normal(3, 2, size=shape), BatchNorm(shape[1], momentum=momentum)
    out, seen = (np.moveaxis(array, 1, -1).reshape(-1, shape[1]) for array in (layer(x).data, x))
    same(out, (seen - seen.mean(axis=0)) / seen.std(axis=0), f"shape {shape} in training, one column per feature")
    same(layer.running_mean, momentum * seen.mean(axis=0), f"shape {shape}, momentum {momentum}: running_mean")
    same(layer.running_var, 1 + momentum * (seen.var(axis=0, ddof=1) - 1), f"shape {shape}, momentum {momentum}: running_var")
test_batchnorm_training(seed=0, shape=(5, 3), momentum=0.1)
### BEGIN HIDDEN TESTS
for seed, shape in [(1, (4, 2, 3)), (2, (2, 3, 2, 4))]: test_batchnorm_training(seed, shape, momentum=0.3)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-batchnorm-use", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_batchnorm_use(x, want):
    layer, state = BatchNorm(2), {"weight": [1, 2], "bias": [0, 5], "running_mean": [2, 20], "running_var": [4, 100]}
    layer.load_state_dict({name: np.float32(numbers) for name, numbers in state.items()})
    same(layer.eval()(x), want, f"weight 1, 2, bias 0, 5, running means 2, 20, variances 4, 100, after eval() x = {x}")
    same(layer.running_mean, [2, 20], "running_mean after a call after eval()")
for x, want in [([[2, 20], [4, 30]], [[0, 5], [1, 7]]), ([[0, 10]], [[-1, 3]])]: test_batchnorm_use(x, want)
### BEGIN HIDDEN TESTS
test_batchnorm_use([[[2, 4], [20, 0]]], [[[0, 1], [5, 1]]])
layer = BatchNorm(1); layer([[1], [3]]); layer([[1], [3]])
same(layer.running_mean, [0.38], "running_mean after two batches of mean 2")
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "use-it", "locked": true, "schema_version": 3, "solution": false, "task": false}
randomness.manual_seed(0)
def digit_reader(): return Sequential(Linear(64, 512), BatchNorm1d(512), ReLU(), Dropout(0.0), Linear(512, 10))
def right(model): return (model(pixels[1000:]).data.argmax(axis=1) == labels[1000:]).mean()

reader, file = digit_reader(), Path(tempfile.mkdtemp()) / "reader.npz"
for batch in np.split(pixels[:1000], 20): reader(batch)                  # BatchNorm looks at 20 batches
hidden = reader.eval()[:3](pixels).data                                  # the layers before Dropout
reader[4].weight.data = last_layer(np.eye(10)[labels])                   # calculated; learning comes in module 06
np.savez(file, **reader.state_dict())

fresh = digit_reader().eval()
print(f"{file.stat().st_size:,} bytes on disk. A fresh network reads {right(fresh):.1%} of unseen digits", end=", ")
fresh.load_state_dict(np.load(file, allow_pickle=False))                 # arrays, no code
print(f"with the saved numbers {right(fresh):.1%}; the same answers: {np.array_equal(fresh(pixels).data, reader(pixels).data)}")

# %% nbgrader={"grade": false, "grade_id": "dropout-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
drop, shares = fresh[3].train(), np.arange(0, 1, 0.1)                    # BatchNorm stays as it is in use
seen, wanted = np.concatenate([Dropout(0.5)(hidden[:1000]).data for _ in range(20)]), np.tile(np.eye(10)[labels[:1000]], (20, 1))
for name, weights in {"without": fresh[4].weight.data, "with": np.linalg.solve(seen.T @ seen + np.eye(512), seen.T @ wanted)}.items():
    fresh[4].weight.data, found = weights, []
    for drop.p in shares: found.append(100 * np.mean([right(fresh) for _ in range(5)]))
    plt.plot(100 * shares, found, "o-", label=f"last layer fitted {name} dropout")
plt.gca().set(xlabel="hidden numbers dropped, %", ylabel="digits read, %", ylim=(0, 100), title="Dropout: rely on no single number")
plt.legend(); plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# You can start a deep network so that its signal lasts, find, save and load all of its numbers by name, say which input a
# layer takes and which not, and tell the price of a call from that of fetching the weights.
#
# `tito module complete 04` makes the layers part of your framework. They return in module 05 (what comes out is judged), 06
# and 07 (`parameters()` learn), 08 (saved runs), 09 (`BatchNorm` on pictures) and 14 (`LayerNorm`).
#
# Two harder tasks, without points:
#
# - `xavier_uniform` is in `tinytorch/modules.py`. Draw the first figure with `tanh` in place of relu: who wins, and why?
# - The saved file repeats the 512 averages of `BatchNorm` beside a `Linear`. Write `fold(linear, norm)`: one `Linear` that gives
#   the same answers as both after `eval()`.
