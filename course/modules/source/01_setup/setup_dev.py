# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] nbgrader={"grade": false, "grade_id": "setup-title", "locked": true, "schema_version": 3, "solution": false, "task": false}
# # Module 01: Arrays, shapes and your workspace
#
# **How do a million numbers move through memory, and why do we never loop over them in Python?**
#
# You write small functions about shapes, time and memory; checkpoint 00 times them, so none may loop over the numbers
# of an array. At the end they recognise handwritten digits, and they stay in your framework as
# `tinytorch.core.utils`. 180 minutes. Needed: Python functions (also as arguments), tuples,
# lists, slices.
#
# Below each **TODO** is a cell with a line `raise NotImplementedError(...)`. Put your code in its place, press
# Shift+Enter, then run the test cells that follow. A test that prints nothing has passed; one that fails says what it
# expected and what it got. The other cells are locked, but add your own wherever you like.

# %% nbgrader={"grade": false, "grade_id": "setup-imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
import math
import time
from itertools import zip_longest

import numpy as np

import tinytorch

# %% [markdown] nbgrader={"grade": false, "grade_id": "setup-recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# `No module named 'tinytorch'`? Choose Kernel > Change Kernel > Python 3. Three things from Python to be sure of:
#
# <details><summary>1. <code>a = [1, 2]; b = a; b[0] = 9</code>. What is <code>a</code>?</summary>
# [9, 2]. Two names, one list.</details>
# <details><summary>2. How many items have <code>(3,)</code> and <code>()</code>? And <code>(3)</code>?</summary>
# One and none; the third is the number 3. Shapes are tuples, so the comma matters.</details>
# <details><summary>3. <code>x = [0, 1, 2, 3, 4]</code>. What is <code>x[1:4:2]</code>?</summary>
# [1, 3]: from 1 up to but without 4, every second one.</details>
#
# **First contact.** 1,797 real digits of 8 x 8 pixels. Average the first 1,200 by class, then call each of the others
# by the average that it is nearest to. You need not understand the cell yet.

# %% nbgrader={"grade": false, "grade_id": "setup-first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
from tinytorch.data import digits

images, labels = digits()
averages = np.stack([images[:1200][labels[:1200] == digit].mean(axis=0) for digit in range(10)])
distance = ((images[1200:, None] - averages) ** 2).sum(axis=(-2, -1))
right = (distance.argmin(axis=1) == labels[1200:]).sum()

figure, places = plt.subplots(2, 10, figsize=(10, 2.3))
for digit in range(10):
    places[0, digit].imshow(images[digit], cmap="gray_r")
    places[1, digit].imshow(averages[digit], cmap="gray_r")
for place in places.flat: place.axis("off")
figure.suptitle("Ten images (top) and the averages of 1,200 (bottom): averaged, each digit is still legible")
plt.show()
print(f"{images.shape} {images.dtype}: {right} of {len(distance)} unseen digits are nearest to their own average")

# %% [markdown] nbgrader={"grade": false, "grade_id": "hello-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Step 1: edit, test, export, import (15 minutes)
#
# ### TODO 1.1: `hello_tinytorch(name="world")`, 1 line
#
# | | |
# |---|---|
# | `name` | text |
# | returns | a greeting as text; nothing is printed |
# | example | `hello_tinytorch("Ada")` gives `'Hello, Ada. This is TinyTorch 0.1.0.'` in version 0.1.0 |
# | limits | the version is what `tinytorch.__version__` says at the time of the call |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Which letter in front of a text makes Python fill in what stands between braces?</details>

# %% nbgrader={"grade": false, "grade_id": "hello-tinytorch", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def hello_tinytorch(name="world"):
    """A greeting with the version of the framework."""
    ### BEGIN SOLUTION
    return f"Hello, {name}. This is TinyTorch {tinytorch.__version__}."
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-hello", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_hello(version, want, *name):
    real, tinytorch.__version__ = tinytorch.__version__, version
    try: got = hello_tinytorch(*name)
    finally: tinytorch.__version__ = real
    why = "(None: printed, not returned. Another version: typed in, not looked up at the time of the call)"
    call = f"hello_tinytorch({', '.join(map(repr, name))})"
    assert got == want, f"{call} in version {version} should return\n{want!r}, yours\n{got!r}\n{why}"
test_hello("0.1.0", "Hello, Ada. This is TinyTorch 0.1.0.", "Ada")
test_hello("7.8.9", "Hello, world. This is TinyTorch 7.8.9.")
### BEGIN HIDDEN TESTS
test_hello("2.0", "Hello, Grace. This is TinyTorch 2.0.", "Grace")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "hello-export", "locked": true, "schema_version": 3, "solution": false, "task": false}
# So far the function lives in this notebook only. Save (Ctrl+S), open File > New > Terminal and type
#
#     tito module export 01
#
# This copies the cells that begin with `#| export` into `tinytorch/core/utils.py` of your workspace, unfinished ones
# as stubs that raise an error. Then run the next cell: it imports your own file. Repeat both after each step. `tito
# module test 01` runs all tests.

# %% nbgrader={"grade": false, "grade_id": "hello-import", "locked": true, "schema_version": 3, "solution": false, "task": false}
import importlib
import tinytorch.core.utils as mine

importlib.invalidate_caches()               # the file may be younger than this kernel
mine = importlib.reload(mine)
try: print(mine.hello_tinytorch("Ada"))
except NotImplementedError: print("in this file it is not written yet: write it, save, export")
print(mine.__file__)

# %% [markdown] nbgrader={"grade": false, "grade_id": "check-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Step 2: NumPy check (10 to 30 minutes)
#
# ### TODO 1.2: `numpy_check()`, 12 lines
#
# Write down what NumPy answers, without running it: `answers["a1"] = (2, 3)` for a shape, a number, or `"error"`.
# Given are `x = np.zeros((2, 3, 4))`, `line = np.zeros(5)` and `grid = np.arange(6).reshape(2, 3)`, each time afresh.
#
# | | a: axis, the shape of | b: broadcasting, the shape of | c: views, the number | d: dtypes, the number |
# |---|---|---|---|---|
# | 1 | `x.sum(axis=0)` | `x + np.zeros(4)` | `y = line[1:3]; y[:] = 7; line.sum()` | `np.zeros((3, 32, 32), dtype=np.uint8).nbytes` |
# | 2 | `x.max(axis=-1, keepdims=True)` | `np.zeros((3, 1)) * np.zeros(4)` | `y = line[[1, 2]]; y[:] = 7; line.sum()` | `np.zeros((2, 5)).nbytes` |
# | 3 | `x[:, 1]` | `x + np.zeros(3)` | `y = grid.T; y[0, 1] = 100; grid[1, 0]` | `(np.uint8([250]) + np.uint8([10]))[0]` |
#
# All twelve right at the first go? Then skip the introductions of steps 3 to 6. Otherwise read the step that the
# message names, try the expression in a cell of your own, and correct.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Guess. It is free, and the test tells where to read.</details>

# %% nbgrader={"grade": false, "grade_id": "numpy-check", "locked": false, "schema_version": 3, "solution": true, "task": false}
def numpy_check():
    answers = {}
    ### BEGIN SOLUTION
    answers["a1"] = (3, 4)
    answers["a2"] = (2, 3, 1)
    answers["a3"] = (2, 4)
    answers["b1"] = (2, 3, 4)
    answers["b2"] = (3, 4)
    answers["b3"] = "error"
    answers["c1"] = 14
    answers["c2"] = 0
    answers["c3"] = 100
    answers["d1"] = 3072
    answers["d2"] = 80
    answers["d3"] = 4
    ### END SOLUTION
    return answers

# %% nbgrader={"grade": true, "grade_id": "test-check-shapes", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
x, got = np.zeros((2, 3, 4)), numpy_check()
axis = {"a1": x.sum(axis=0).shape, "a2": x.max(axis=-1, keepdims=True).shape, "a3": x[:, 1].shape}
meeting = {"b1": (x + np.zeros(4)).shape, "b2": (np.zeros((3, 1)) * np.zeros(4)).shape, "b3": "error"}
for name, want in {**axis, **meeting}.items():
    step = "step 4, axis" if name in axis else "step 5, broadcasting"
    assert got.get(name) == want, f"{name} is {want}, you said {got.get(name)}: read {step}"

# %% nbgrader={"grade": true, "grade_id": "test-check-views", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
first, second, grid, got = np.zeros(5), np.zeros(5), np.arange(6).reshape(2, 3), numpy_check()
y = first[1:3]; y[:] = 7
y = second[[1, 2]]; y[:] = 7
y = grid.T; y[0, 1] = 100
for name, want in {"c1": int(first.sum()), "c2": int(second.sum()), "c3": int(grid[1, 0])}.items():
    assert got.get(name) == want, f"{name} is {want}, you said {got.get(name)}: read step 6, views"

# %% nbgrader={"grade": true, "grade_id": "test-check-dtypes", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
got, image, total = numpy_check(), np.zeros((3, 32, 32), dtype=np.uint8), np.uint8([250]) + np.uint8([10])
for name, want in {"d1": image.nbytes, "d2": np.zeros((2, 5)).nbytes, "d3": int(total[0])}.items():
    assert got.get(name) == want, f"{name} is {want}, you said {got.get(name)}: read step 3, dtypes"

# %% [markdown] nbgrader={"grade": false, "grade_id": "cost-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Step 3: what a million numbers cost (35 minutes)
#
# An array is one block of memory with a **shape**, the tuple of its sizes, and a **dtype**, the type of all its
# numbers. Each float64, which `np.zeros` makes unless told otherwise, takes 8 bytes, a float32 or int32 4, a uint8
# one byte. By hand: a colour image of 3 x 32 x 32 numbers takes 3,072 bytes as uint8 and 12,288 as float32.
#
# Small types have a price. uint8 counts from 0 to 255 and then starts again at 0, without an error.

# %% nbgrader={"grade": false, "grade_id": "memory-bytes", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
def memory_bytes(shape, dtype=np.float32):
    """Bytes of an array of this shape and dtype, without making it."""
    return math.prod(shape) * np.dtype(dtype).itemsize

# %% nbgrader={"grade": false, "grade_id": "memory-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
print("an image:", memory_bytes((3, 32, 32), np.uint8), memory_bytes((3, 32, 32)), "one number:", memory_bytes(()))
print("two pixels of 250, averaged as uint8:", (np.uint8([250]) + np.uint8([250])) // 2)

# %% [markdown] nbgrader={"grade": false, "grade_id": "best-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The other cost is time. Other programs can hold a run up but never speed it up, so the shortest of several runs
# comes closest to the work itself.
#
# ### TODO 1.3: `best_ms(function, *, repeat=5, clock=time.perf_counter)`, about 6 lines
#
# | | |
# |---|---|
# | `*` | what follows is given by name: `repeat=3` |
# | `function` | called without arguments, exactly `repeat` times, at least once |
# | `clock` | called just before and just after each call of `function`; returns seconds since some moment |
# | returns | the shortest of the times in milliseconds (thousandths of a second) |
# | example | calls that take 3, 2 and 4 seconds with `repeat=3` give 2000 |
# | limits | the clock may stand at 1,000,000 or at -5 when you start: only its differences count |
#
# <details><summary>Hint, after five minutes of trying</summary>
# What must you remember before a call to know its length after it? What do you keep from one call to the next, and
# which first value loses against every time?</details>

# %% nbgrader={"grade": false, "grade_id": "best-ms", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def best_ms(function, *, repeat=5, clock=time.perf_counter):
    """The shortest of `repeat` calls of `function`, in milliseconds."""
    ### BEGIN SOLUTION
    best = math.inf
    for _ in range(repeat):
        start = clock()
        function()
        best = min(best, clock() - start)
    return 1000 * best
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-best-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_best(durations, start, want, **options):
    now, calls = [start], []
    def work(): now[0] += [*durations, 100, 100][len(calls)]; calls.append(1)
    try: got = best_ms(work, clock=lambda: now[0], **options)
    except IndexError: got = None
    why = "(1000 times off? Units. Larger? Mean, sum, longest, first, last. 0? The first best. Nearly 0? Another clock)"
    assert len(calls) == len(durations), f"there should be {len(durations)} calls, yours made {len(calls)}"
    assert abs((got or 0) - want) < 1e-6, f"calls of {durations} s should give {want} ms, yours gives {got}\n{why}"
test_best([3, 2, 4], 1_000_000, 2000, repeat=3)
### BEGIN HIDDEN TESTS
test_best([0.5, 0.25, 0.75, 1.0, 2.0], -5, 250)
test_best([4, 3, 2, 1], 0, 1000, repeat=4); test_best([1, 2], 0, 1000, repeat=2)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-best-calls", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
def test_best_calls(repeat):
    did = []
    def clock(): did.append("clock"); return len(did)
    best_ms(lambda: did.append("work"), repeat=repeat, clock=clock)
    assert did.count("work") == repeat, f"repeat={repeat} means {repeat} calls, yours made {did.count('work')}"
    want = ["clock", "work", "clock"] * repeat
    assert did == want, f"the clock should be read just before and just after each call:\n{want}, yours did\n{did}"
test_best_calls(2)
### BEGIN HIDDEN TESTS
test_best_calls(1); test_best_calls(6)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "calls-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain: a million additions
#
# A million numbers are added up by a Python loop over a list, and by NumPy in 100,000 calls with ten numbers each.
# NumPy is compiled C. How many times as fast as the loop are the 100,000 calls? (0.5 would mean half as fast.) Commit
# to a number before you measure.

# %% nbgrader={"grade": false, "grade_id": "guess-calls", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_calls = your number
### BEGIN SOLUTION
guess_calls = 8.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-guess-calls", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_calls > 0, f"expected any positive number, got {guess_calls}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "calls-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
million = np.random.default_rng(0).random(1_000_000, dtype=np.float32)
numbers, rows_of_10, rows_of_1000 = million.tolist(), million.reshape(-1, 10), million.reshape(-1, 1000)

def by_number(values):
    total = 0.0
    for value in values: total += value
    return total

def by_row(rows):
    total = 0.0
    for row in rows: total += row.sum()
    return total

python, tens = best_ms(lambda: by_number(numbers)), best_ms(lambda: by_row(rows_of_10))
print(f"Python loop, list of a million   {python:7.2f} ms")
print(f"NumPy, 100,000 calls of 10       {tens:7.2f} ms   {python / tens:.2f} times as fast; you said {guess_calls}")
print(f"NumPy, 1,000 calls of 1,000      {best_ms(lambda: by_row(rows_of_1000)):7.2f} ms")
print(f"NumPy, one call of a million     {best_ms(million.sum):7.2f} ms")

# %% [markdown] nbgrader={"grade": false, "grade_id": "calls-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question 1 (150 to 300 words, 6 points).** A colleague says: "NumPy is fast because it is written in C." Explain
# your four lines to her: split the time into a cost per call and a cost per number. Then decide: her program
# normalizes 60,000 images of 784 pixels, one NumPy call per image, and then trains for 20 minutes. What would a
# single call save, and is that worth an hour of her time?
#
# | points | for |
# |---|---|
# | 2 | your own four figures with units, and how far your guess was off |
# | 2 | both costs, calculated from two lines; the line that rules out C alone as the cause |
# | 2 | a decision with a calculated time for 60,000 x 784, set against the 20 minutes |

# %% [markdown] nbgrader={"grade": true, "grade_id": "calls-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. 13.4 ms, 74 ms, 0.96 ms, 0.19 ms (two shared Xeon cores, November 2026): 100,000 calls are 0.18 times as
# fast as Python's loop, the guess of 8 was 44 times too high. One call of a million costs 0.19 ms, so 0.19 ns per
# number. 100,000 calls cost 73.8 ms more, so 0.74 us per call, cutting the row out included, as much as 3,900
# numbers. Check: 1,000 calls predict 0.74 + 0.19 = 0.93 ms, measured 0.96. All NumPy lines run the same compiled
# additions, so C alone explains nothing: what counts is how often Python hands over. A Python step costs 13 ns,
# cheaper than a call, so ten numbers per call lose. 60,000 images: 60,000 x 0.74 us = 44 ms for the calls, 47 million
# numbers x 0.19 ns = 9 ms for the work. One call saves about 44 ms once, against 1,200,000 ms: not worth an hour.
# Inside a loop of 20 epochs, still under a second. (Any machine's figures are accepted; a decision the other way
# needs a reason, such as a run repeated all day.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "standardize-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Step 4: axis (15 minutes)
#
# An **axis** is a direction to count in: the shape `(2, 3)` has 2 places along axis 0 and 3 along axis 1. **The axis
# you name is the one that goes.** An index such as `x[:, 1]` takes an axis away too; `keepdims=True` leaves a 1 in
# its place.
#
# | `[[1, 2, 3], [4, 5, 6]]` | result | shape |
# |---|---|---|
# | `.sum(axis=0)` | `[5, 7, 9]` | `(3,)` |
# | `.sum(axis=1)` | `[6, 15]` | `(2,)` |
# | `.sum(axis=1, keepdims=True)` | `[[6], [15]]` | `(2, 1)` |
#
# ### TODO 1.4: `standardize(x, *, axis)`, about 4 lines
#
# Makes numbers of different units comparable. By hand: `[1, 3]` has mean 2 and standard deviation (`.std`, the
# typical distance from the mean) 1, so it becomes `[-1, 1]`.
#
# | | |
# |---|---|
# | `x` | float array, any shape; numbers of size 1e-9 to 1e9, and 0 |
# | `axis` | along it, the mean becomes 0 and the standard deviation 1 |
# | returns | a new array of the same shape and dtype; `x` stays as it was |
# | example | `[[1, 3], [5, 5]]` with `axis=1` gives `[[-1, 1], [0, 0]]`, with `axis=0` `[[-1, -1], [1, 1]]` |
# | small | `[1e-9, 3e-9]` gives `[-1, 1]` too |
# | limits | equal numbers along the axis, as in the empty corner of all our images, give 0, not nan (0 / 0) |
# | nasty case | `[0.1] * 7` gives 0 too (to 1e-6), although rounding makes its float32 `.std()` 7e-9 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Which shape must the means have so that each row meets its own? How do largest and smallest number tell that all are
# equal, and by what may you divide then? One NumPy function chooses between two arrays, place by place.</details>

# %% nbgrader={"grade": false, "grade_id": "standardize", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def standardize(x, *, axis):
    """x with mean 0 and standard deviation 1 along an axis; 0 where all numbers along it are equal."""
    ### BEGIN SOLUTION
    centred = x - x.mean(axis=axis, keepdims=True)
    spread = x.std(axis=axis, keepdims=True)
    equal = x.max(axis=axis, keepdims=True) == x.min(axis=axis, keepdims=True)
    return centred / np.where(equal, 1, spread)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-standardize-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_standardize(x, axis, want):
    with np.errstate(all="ignore"):
        got = standardize(np.float32(x), axis=axis)
    why = ("(Equal numbers: nan? 0 / 0. Or 1? Their deviation is rounded, and not 0. Other numbers:\n"
           "Right but for a factor? The divisor. inf, or all wrong? which mean met which row?)")
    right = np.shape(got) == np.shape(want) and np.allclose(got, want, atol=1e-3)
    assert right, f"{x} with axis={axis} should give\n{want}, yours gives\n{got}\n{why}"
test_standardize([[1, 3], [5, 5]], 1, [[-1, 1], [0, 0]])
test_standardize([[1, 3], [5, 5]], 0, [[-1, -1], [1, 1]])
test_standardize([[1e-9, 3e-9]], 1, [[-1, 1]])
test_standardize([[0.1] * 7], 1, [[0] * 7])
### BEGIN HIDDEN TESTS
test_standardize([[-0.7]] * 10, 0, [[0]] * 10)
test_standardize([[2e-8, 8e8], [2e-9, 4e8]], 0, [[1, 1], [-1, -1]])
test_standardize([[7, 7, 7], [0, 0, 3]], 1, [[0, 0, 0], [-0.7071, -0.7071, 1.4142]])
test_standardize([[2, 8], [2, 4], [2, 6]], 0, [[0, 1.2247], [0, -1.2247], [0, 0]])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-standardize-property", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_standardize_property(seed, axis, scale):
    x = (scale * np.random.default_rng(seed).normal(3, 2, size=(2, 3, 4))).astype(np.float32)
    before, got = x.copy(), standardize(x, axis=axis)
    assert np.array_equal(x, before), f"x should stay as it was; its first number {before.flat[0]} is now {x.flat[0]}"
    assert got.dtype == x.dtype, f"float32 should come back as float32, yours is {got.dtype}"
    for name, along, want in [("mean", got.mean(axis=axis), 0), ("standard deviation", got.std(axis=axis), 1)]:
        assert np.allclose(along, want, atol=1e-2), f"with axis={axis} each {name} should be {want}, yours are\n{along}"
test_standardize_property(seed=0, axis=-1, scale=1)
test_standardize_property(seed=1, axis=0, scale=1)
### BEGIN HIDDEN TESTS
for seed in range(2, 8): test_standardize_property(seed, axis=seed % 3, scale=10.0 ** (seed - 4))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "broadcast-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Step 5: broadcasting (40 minutes)
#
# **Broadcasting** lets arrays of different shapes meet without copying. Write the shapes under each other, aligned at
# the **right**. In each column the sizes must be equal or one of them 1; a missing size counts as 1. The 1 is
# stretched to its partner.
#
# | | | | |
# |---|---|---|---|
# | a: `(2, 3, 4)` | 2 | 3 | 4 |
# | b: `(3, 1)` | | 3 | 1 |
# | result | 2 | 3 | 4 |
#
# Two failures, run below. The loud one is cured by a 1 in the right place: `[:, None]` puts it second, `[..., None]`
# last. The silent one: a column of four predictions minus a line of four targets makes sixteen differences.

# %% nbgrader={"grade": false, "grade_id": "broadcast-fails", "locked": true, "schema_version": 3, "solution": false, "task": false}
try: np.ones((2, 3)) + np.ones(2)
except ValueError as error: print(error)
print((np.ones((2, 3)) + np.ones(2)[:, None]).shape)

predicted, target = np.float32([[1], [2], [3], [4]]), np.float32([1, 2, 3, 4])
print("all right, but the mean error is", abs(predicted - target).mean(), "from the shape", (predicted - target).shape)

# %% [markdown] nbgrader={"grade": false, "grade_id": "broadcast-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 1.5: `broadcast_shape(a, b)`, about 5 lines
#
# | | |
# |---|---|
# | `a`, `b` | shapes, tuples of any length |
# | returns | the tuple of sizes in which arrays of these shapes meet; no array is made |
# | example | `(2, 3, 4)` and `(3, 1)` give `(2, 3, 4)`; `(3, 1)` and `(4,)` give `(3, 4)`; `()` and `(2,)` give `(2,)` |
# | error | `ValueError`: `shapes (2, 3) and (2,) do not fit: 3 against 2`, with a size of `a` first; of several clashes any |
# | limits | a 1 gives way to a 0 too: `(3, 1)` and `(0,)` give `(3, 0)`, no numbers at all |
#
# `zip_longest("abc", "x", fillvalue="-")` gives the pairs `("a", "x")`, `("b", "-")`, `("c", "-")`.
#
# <details><summary>Hint, after five minutes of trying</summary>
# With what must the shorter shape be filled up, and at which end? Which order of the sizes brings the last ones
# together?</details>

# %% nbgrader={"grade": false, "grade_id": "broadcast-shape", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def broadcast_shape(a, b):
    """The shape in which arrays of shapes a and b meet; ValueError naming both and the two sizes that clash."""
    ### BEGIN SOLUTION
    pairs = list(zip_longest(reversed(a), reversed(b), fillvalue=1))
    for m, n in pairs:
        if m != n and 1 not in (m, n):
            raise ValueError(f"shapes {a} and {b} do not fit: {m} against {n}")
    return tuple(n if m == 1 else m for m, n in reversed(pairs))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-broadcast-shape", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_broadcast(a, b):
    want = np.broadcast_shapes(a, b)
    try: got = broadcast_shape(a, b)
    except Exception as error: got = error
    why = "(an error? At which end do you align, and what fills up the shorter one? A wrong size? Which gives way?)"
    assert got == want, f"{a} and {b} meet in {want}, yours gives {got!r}\n{why}"
for a, b in [((2, 3, 4), (3, 1)), ((3, 1), (4,)), ((), (2,)), ((3, 1), (0,))]: test_broadcast(a, b)
### BEGIN HIDDEN TESTS
for seed in range(20):
    rng = np.random.default_rng(seed)
    full = rng.integers(0, 6, size=rng.integers(0, 5))
    cuts = [np.where(rng.random(len(full)) < 0.3, 1, full)[rng.integers(0, len(full) + 1):] for _ in range(2)]
    test_broadcast(*(tuple(cut.tolist()) for cut in cuts))
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-broadcast-clash", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_clash(a, b, sizes):
    try: got = broadcast_shape(a, b)
    except Exception as error: got = error
    want = f"shapes {a} and {b} do not fit: {sizes}"
    assert isinstance(got, ValueError), f"{a} and {b} should raise a ValueError with {want!r}, yours gives {got!r}"
    assert want in str(got), f"{a} and {b}: the ValueError should say {want!r}, yours says {str(got)!r}"
test_clash((2, 3), (2,), "3 against 2")
test_clash((5, 2, 7), (3, 7), "2 against 3")
### BEGIN HIDDEN TESTS
test_clash((4,), (2, 3), "4 against 3"); test_clash((0, 2), (3, 2), "0 against 3")
test_clash((6, 1, 5), (7, 4, 1), "6 against 7")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "one-hot-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Broadcasting replaces loops. To calculate with a class label, one turns it into a row of zeros with a single 1:
# compare a *column* of labels with a *line* of all classes, and each label meets each class.
#
# | | class 0 | class 1 | class 2 |
# |---|---|---|---|
# | label 2 | 0 | 0 | 1 |
# | label 0 | 1 | 0 | 0 |
#
# ### TODO 1.6: `one_hot(labels, classes)`, about 4 lines
#
# | | |
# |---|---|
# | `labels` | array of integers, any shape, at least one |
# | `classes` | their number; classes count from 0 |
# | returns | float32 array of shape `labels.shape + (classes,)` |
# | example | `[2, 0]` with 3 classes gives `[[0, 0, 1], [1, 0, 0]]` |
# | error | a label below 0 or above `classes - 1`: `ValueError`, its text contains that label (of several, any one) |
#
# `x[(x > 5) | (x == 0)]` picks the numbers that are above 5 or 0; `x.astype(np.uint8)` is a copy of another dtype.
#
# <details><summary>Hint, after five minutes of trying</summary>
# How do you hang an axis of size 1 behind an array of any shape? What comes out when you compare a column with a
# line? If you index with labels instead: what does Python do with -1?</details>

# %% nbgrader={"grade": false, "grade_id": "one-hot", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def one_hot(labels, classes):
    """Integers 0..classes-1 as float32 rows with a single 1: labels.shape + (classes,)."""
    labels = np.asarray(labels)
    ### BEGIN SOLUTION
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise ValueError(f"label {outside[0]} is outside 0 to {classes - 1}")
    return (labels[..., None] == np.arange(classes)).astype(np.float32)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-one-hot", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_one_hot(labels, classes):
    want = np.float32([[label == c for c in range(classes)] for label in np.ravel(labels)])
    want = want.reshape(*np.shape(labels), classes)
    try: got = one_hot(np.array(labels), classes)
    except Exception as error: got = error
    assert np.array_equal(got, want), f"{labels} with {classes} classes should give\n{want}, yours gives\n{got!r}"
    assert got.dtype == np.float32, f"the result should be float32, yours is {got.dtype}"
test_one_hot([2, 0], 3)
test_one_hot([[0, 3, 1], [1, 1, 2]], 5)
### BEGIN HIDDEN TESTS
test_one_hot(np.random.default_rng(0).integers(0, 4, size=(2, 3, 5)).tolist(), 4)
test_one_hot([1, 1, 1], 2); test_one_hot(2, 4)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-one-hot-outside", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_outside(labels, classes, label):
    try: got = one_hot(np.array(labels), classes)
    except Exception as error: got = error
    assert isinstance(got, ValueError), f"label {label} of {classes} classes should raise a ValueError, yours: {got!r}"
    assert str(label) in str(got), f"the ValueError should name the label {label}, yours says {str(got)!r}"
test_outside([0, -1, 2], 3, -1)
test_outside([3, 0], 3, 3)
### BEGIN HIDDEN TESTS
test_outside([[1, 0], [0, 12]], 10, 12); test_outside([1, -7], 2, -7)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "sum-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Broadcasting copies a number to many places. The way back **adds up what stands in those places**. It gives totals
# per row, per column or overall by one rule, and module 06 is built on it.
#
# ### TODO 1.7: `sum_to_shape(x, shape)`, about 2 lines
#
# | | |
# |---|---|
# | `x` | array |
# | `shape` | a shape that broadcasts to `x.shape` |
# | returns | array of this shape: each entry is the sum over the places of `x` that it would be copied to |
# | example | `[[1, 2, 3], [4, 5, 6]]` to `(3,)`: `[5, 7, 9]`; to `(2, 1)`: `[[6], [15]]`; to `()`: 21; to `(2, 3)`: the same |
# | limits | both at once: `(2, 3, 4)` to `(3, 1)` sums axis 0, which is missing, and axis 2, which is 1 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Two kinds of axes are summed: those that the shape lacks, and those where it has a 1. At which end are the missing
# ones, and how many? Which kind must leave a 1 behind? An axis argument may be a tuple.</details>

# %% nbgrader={"grade": false, "grade_id": "sum-to-shape", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def sum_to_shape(x, shape):
    """Undo broadcasting from `shape` to x.shape: the sum over all places that an entry was copied to."""
    ### BEGIN SOLUTION
    x = x.sum(axis=tuple(range(x.ndim - len(shape))))
    return x.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-sum-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_sum_to(shape, want):
    try: got = sum_to_shape(np.float32([[1, 2, 3], [4, 5, 6]]), shape)
    except Exception as error: got = error
    told = repr(got) if isinstance(got, Exception) else f"{np.asarray(got).tolist()} of shape {np.shape(got)}"
    right = np.shape(got) == shape and np.array_equal(got, want)
    why = "(which axes were summed, which left a 1 behind?)"
    assert right, f"[[1, 2, 3], [4, 5, 6]] to shape {shape} should give {want}, yours gives {told}\n{why}"
for shape, want in {(3,): [5, 7, 9], (2, 1): [[6], [15]], (): 21, (2, 3): [[1, 2, 3], [4, 5, 6]]}.items():
    test_sum_to(shape, want)
### BEGIN HIDDEN TESTS
test_sum_to((1, 3), [[5, 7, 9]]); test_sum_to((1, 1), [[21]]); test_sum_to((1,), [21])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-sum-property", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_sum_property(shape, full, seed):
    x = np.random.default_rng(seed).integers(0, 10, size=full).astype(np.float32)
    copy_of = np.broadcast_to(np.arange(math.prod(shape)).reshape(shape), full)      # the entry that each place copies
    want = np.bincount(copy_of.ravel(), weights=x.ravel()).reshape(shape)
    try: got = sum_to_shape(x, shape)
    except Exception as error: got = error
    why = "(an axis that is missing, or has a 1, was not summed, or another one was)"
    assert np.array_equal(got, want), f"{full} to {shape} should give\n{want}, yours gives\n{got!r}\n{why}"
test_sum_property((3, 1), (2, 3, 4), seed=0)
### BEGIN HIDDEN TESTS
for seed, shape in enumerate([(4,), (1, 4), (2, 1, 4), (1, 3, 1), (), (2, 3, 4), (1,), (2, 1, 1)]):
    test_sum_property(shape, (2, 3, 4), seed)
test_sum_property((1, 5), (3, 1, 5), seed=1); test_sum_property((5,), (3, 2, 1, 5), seed=2)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "views-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Step 6: views and copies (35 minutes)
#
# Memory is one long street of bytes. An array is an address on it, a shape, and per axis a **stride**: how many bytes
# to walk to the next item. A **view** is another array on the same bytes. Only shape and strides are new, so it costs
# next to nothing, and **writing into it changes the original**.
#
# Slices, `.T`, `.swapaxes` and most `.reshape` give views. A list of positions and sums such as `x + 0` give copies.

# %% nbgrader={"grade": false, "grade_id": "views-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
x = np.arange(12, dtype=np.int32).reshape(3, 4)
for text, y in {"x": x, "x.T": x.T, "x[:, ::2]": x[:, ::2], "x[[0, 2]]": x[[0, 2]], "x + 0": x + 0}.items():
    print(f"{text:10} shape {y.shape!s:7} strides {y.strides!s:8} same memory: {np.shares_memory(x, y)}")

corner = x[:2, :2]
corner[:] = 0                # someone tidies up "their" corner
print(x)                     # the cure where this is not wanted: x[:2, :2].copy()

# %% [markdown] nbgrader={"grade": false, "grade_id": "tiles-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Many layers look at an image in square tiles. A reshape can only cut an axis into two neighbours:
#
# | | shape | axes |
# |---|---|---|
# | image | `(4, 6)` | row, column |
# | both axes cut | `(2, 2, 3, 2)` | tile row, row in tile, tile column, column in tile |
# | wanted | `(2, 3, 2, 2)` | tile row, tile column, row in tile, column in tile |
#
# `cannot reshape array of size 24 into shape (2,2,2,2)` means that the new sizes do not multiply to the old number.
#
# ### TODO 1.8: `tiles(images, size)`, about 3 lines
#
# | | |
# |---|---|
# | `images` | array of shape `(n, height, width)`, stored in one piece |
# | `size` | side of a tile; divides height and width (already checked) |
# | returns | `(n, height // size, width // size, size, size)`: `[i, r, c]` is the tile in row r, column c of image i |
# | example | `[[[0, 1, 2, 3], [4, 5, 6, 7]]]` with `size=2` gives `[[[[[0, 1], [4, 5]], [[2, 3], [6, 7]]]]]` |
# | limits | a view: `np.shares_memory(images, tiles(images, size))`, and `images` keeps its shape |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Write the middle row of the table with height, width and size, and n in front. Which two axes are then in the wrong
# order?</details>

# %% nbgrader={"grade": false, "grade_id": "tiles", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def tiles(images, size):
    """Square tiles of images (n, height, width), as a view: (n, height // size, width // size, size, size)."""
    n, height, width = images.shape
    if height % size or width % size:
        raise ValueError(f"tiles of {size} x {size} do not fill images of {height} x {width}")
    ### BEGIN SOLUTION
    rows, columns = height // size, width // size
    cut = images.reshape(n, rows, size, columns, size)
    return cut.swapaxes(2, 3)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tiles", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_tiles(n, height, width, size):
    images = np.arange(n * height * width).reshape(n, height, width)
    got, shape = tiles(images.copy(), size), (n, height // size, width // size, size, size)
    assert np.shape(got) == shape, f"{images.shape}, size {size}: expected shape {shape}, got {np.shape(got)}"
    for i, r, c in np.ndindex(shape[:3]):
        want, tile = images[i, r * size:(r + 1) * size, c * size:(c + 1) * size], got[i, r, c]
        why = "(in which order is each axis cut, and which axes changed places?)"
        assert np.array_equal(tile, want), f"{images.shape}: tile [{i}, {r}, {c}] should be\n{want}, got\n{tile}\n{why}"
test_tiles(1, 2, 4, 2)
test_tiles(2, 6, 8, 2)
### BEGIN HIDDEN TESTS
test_tiles(3, 8, 12, 4); test_tiles(2, 3, 6, 3); test_tiles(2, 3, 4, 1); test_tiles(4, 5, 5, 5)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-tiles-view", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_tiles_view(n, height, width, size):
    images = np.zeros((n, height, width), dtype=np.float32)
    got = tiles(images, size)
    assert np.shares_memory(images, got), f"tiles of {images.shape} should share memory with them, yours do not: a copy"
    assert images.shape == (n, height, width), f"images had shape {n, height, width}, now {images.shape}: changed"
test_tiles_view(2, 6, 4, 2)
### BEGIN HIDDEN TESTS
test_tiles_view(3, 4, 6, 2); test_tiles_view(2, 9, 3, 3); test_tiles_view(1, 4, 4, 4)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "stride-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain: the same sum, further apart
#
# A view costs nothing to make. What does it cost to use? We add up a million float32 that lie side by side, and a
# million in the view `street[::16]`, every 16th of sixteen million. How many times as long does the second take?

# %% nbgrader={"grade": false, "grade_id": "guess-stride", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_stride = your number
### BEGIN SOLUTION
guess_stride = 1.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-guess-stride", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_stride > 0, f"expected any positive number, got {guess_stride}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "stride-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
street = np.ones(16_000_000, dtype=np.float32)
steps = [1, 2, 4, 8, 16]
times = [best_ms(street[:1_000_000 * step:step].sum, repeat=9) for step in steps]
print(f"a million, side by side         {times[0]:8.4f} ms")
print(f"a million, every 2nd            {times[1]:8.4f} ms")
print(f"a million, every 16th           {times[4]:8.4f} ms   {times[4] / times[0]:.1f} times; you said {guess_stride}")
print(f"all sixteen million             {best_ms(street.sum, repeat=9):8.4f} ms")
print(f"to make the view street[::16]   {best_ms(lambda: street[::16], repeat=9):8.4f} ms")
print(f"to copy it, street[::16].copy() {best_ms(street[::16].copy, repeat=9):8.4f} ms")

plt.figure(figsize=(6, 3))
plt.plot(steps, times, "o-", label="measured")
plt.plot(steps, [times[0]] * len(steps), "--", label="if equal work took equal time")
plt.xticks(steps); plt.xlabel("a million numbers, every n-th"); plt.ylabel("ms"); plt.legend()
plt.title("The same additions take longer the further apart the numbers lie")
plt.show()
street = None      # gives the memory back

# %% [markdown] nbgrader={"grade": false, "grade_id": "stride-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question 2 (150 to 300 words, 6 points).** Processors fetch memory in lines, on most machines 64 bytes long,
# whether all of it is needed or 4 bytes. Explain your six figures by this. Which of them rules out that a stepped sum
# is slow merely because it steps? What does "all sixteen million" show? Then decide: a training run sums the same
# view `street[::16]` 50 times. Copy it first?
#
# | points | for |
# |---|---|
# | 2 | your own figures with units, the ratio, and how far your guess was off |
# | 2 | lines fetched for a million numbers at steps 1, 2 and 16; the figure that excludes the rival cause |
# | 2 | a decision with calculated times for both ways, and from how many sums on it pays |

# %% [markdown] nbgrader={"grade": true, "grade_id": "stride-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline (two shared Xeon cores, November 2026). 0.18, 0.32 and 2.2 ms: 12 times, guessed 1. A line holds 16 float32.
# Side by side one line serves 16 numbers, every 2nd 8, every 16th a single one: a million lines, 64 MB moved for 4 MB
# of use. All sixteen million need the same lines and take 4.2 ms: sixteen times the additions in twice the time, so
# additions are not the cause. Nor is stepping as such: every 2nd steps as well and takes 1.7 times as long, which
# fits twice the memory. The view takes 0.0002 ms to make and the copy 2.3 ms, about as long as one sum over the view,
# since it fetches the same lines once. 50 sums: view 50 x 2.2 = 110 ms; copy 2.3 + 50 x 0.18 = 11 ms. Copy; it pays
# from the second sum on (2.3 + 0.36 against 4.4). Price: 4 MB more, and later writes to street do not reach the copy.
# (Any machine's figures are accepted.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "use-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Use it: three ways to look at a digit (10 minutes)
#
# First contact again, now with your functions. `@` multiplies matrices (module 02): one-hot rows times images are the
# sums per class. We compare plain pixels, the means of 2 x 2 tiles, and pixels standardized per image, each also on
# unseen digits at half their brightness. Last in each line: the array of all differences.

# %% nbgrader={"grade": false, "grade_id": "use-it", "locked": true, "schema_version": 3, "solution": false, "task": false}
def class_averages(x, labels):
    members = one_hot(labels, 10)                                       # (n, 10)
    return members.T @ x / sum_to_shape(members, (1, 10)).T             # sums (10, pixels) / counts (10, 1)

def nearest(x, averages):
    return ((x[:, None] - averages) ** 2).sum(axis=-1).argmin(axis=-1)

def pixels(x): return x.reshape(len(x), -1)
def tiled(x): return pixels(tiles(x, 2).mean(axis=(-2, -1)))
def standard(x): return standardize(pixels(x), axis=1)

known, unseen = images[:1200], images[1200:]
for look in [pixels, tiled, standard]:
    averages = class_averages(look(known), labels[:1200])
    full, half = ((nearest(look(light * unseen), averages) == labels[1200:]).mean() for light in [1, 0.5])
    meeting = broadcast_shape(look(unseen)[:, None].shape, averages.shape)
    ms, size = best_ms(lambda: nearest(look(unseen), averages)), memory_bytes(meeting)
    print(f"{look.__name__:8} {full:6.1%} right, {half:6.1%} at half light; {ms:4.2f} ms; {meeting} {size:,} bytes")

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# One line should not have moved when the light was halved: why, by the contract of `standardize`? And what did a
# quarter of the bytes cost in accuracy?
#
# **What you can do now:** predict the shape of an expression and the bytes behind it, tell a view from a copy, and
# measure with a baseline. **Where it returns:** `one_hot` in losses (05), `sum_to_shape` in the backward pass (06),
# `tiles` in pooling (09), `best_ms` and `memory_bytes` wherever we measure.
#
# Finish with `tito module complete 01`: it tests, exports, runs checkpoint 00 and records it. In a class, then submit:
# Nbgrader > Assignment List.
#
# Two harder tasks, without points:
#
# - `nearest` makes an array of all differences. Expand `(a - b) ** 2` into three terms so that the largest array has
#   the shape `(597, 10)`, and measure.
# - Continue the curve of step 6 to every 64th and 256th number, with fewer numbers. By question 2 it should be flat
#   from 16 on. Is it?
