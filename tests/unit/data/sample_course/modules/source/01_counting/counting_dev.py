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

# %% [markdown] nbgrader={"grade": false, "grade_id": "why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# # What is in the middle?
#
# The mean of 1, 2 and 6 is 3.

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
import math

# %% [markdown] nbgrader={"grade": false, "grade_id": "mean-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 1.1: `mean(values)`, about 2 lines
#
# | | |
# |---|---|
# | `values` | a list of numbers, not empty |
# | example | `[1, 2, 6]` gives `3.0` |
#
# <details><summary>Hint</summary>
# How many values are there?</details>

# %% nbgrader={"grade": false, "grade_id": "mean", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def mean(values):
    """The mean of a list of numbers."""
    ### BEGIN SOLUTION
    total_of_all_values = math.fsum(values)
    return total_of_all_values / len(values)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-mean", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
def test_mean(values, want):
    got = mean(values)
    assert got == want, f"the mean of {values} should be {want}, yours is {got}"


test_mean([1, 2, 6], 3.0)
### BEGIN HIDDEN TESTS
test_mean([1e16, 1.0, -1e16], 1 / 3)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "window-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 1.2: the methods of `Window`, 1 and 2 lines
#
# `push(value)` keeps the last `size` values, `full()` says whether there are so many.

# %% nbgrader={"grade": false, "grade_id": "window", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Window:
    """The last values of a stream."""

    def __init__(self, size):
        self.size = size
        self.values = []

    def push(self, value):
        """Take one more value; the oldest goes when there is no room."""
        ### BEGIN SOLUTION
        self.values = [*self.values, value][-self.size:]
        ### END SOLUTION

    def full(self) -> bool:
        """Whether there are as many values as there may be."""
        ### BEGIN SOLUTION
        return len(self.values) == self.size
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-window-push", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_window(size, stream, want):
    window = Window(size)
    for value in stream:
        window.push(value)
    assert window.values == want, f"size {size} and {stream} should leave {want}, yours has {window.values}"


test_window(2, [5, 6, 7], [6, 7])
### BEGIN HIDDEN TESTS
test_window(3, [1, 2, 3, 4, 5], [3, 4, 5])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-window-full", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_full():
    window = Window(1)
    assert not window.full(), "an empty window of size 1 is not full"
    window.push(4)
    assert window.full(), "a window of size 1 is full after one push"


test_full()

# %% [markdown] nbgrader={"grade": false, "grade_id": "guess-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict
#
# How many times as long does a mean of ten times as many values take?

# %% nbgrader={"grade": false, "grade_id": "guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess = your number
### BEGIN SOLUTION
guess = 10.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess > 0, "any positive number will do: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
print(f"{mean([1, 2, 6])}; you said {guess}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (4 points).** Explain your figure.

# %% [markdown] nbgrader={"grade": true, "grade_id": "answer", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Ten times: each value is looked at once, and nothing else grows.
# ### END SOLUTION
