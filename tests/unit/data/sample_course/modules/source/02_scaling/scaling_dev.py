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
# # Where is zero?
#
# After scaling, the mean is 0.

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
from tinytorch.core.counting import mean

# %% [markdown] nbgrader={"grade": false, "grade_id": "centre-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 2.1: `centre(values)`, about 2 lines
#
# `[1, 2, 6]` gives `[-2.0, -1.0, 3.0]`; the list that came in stays as it was.

# %% nbgrader={"grade": false, "grade_id": "centre", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def centre(values):
    """The values minus their mean."""
    ### BEGIN SOLUTION
    middle_of_values = mean(values)
    return [value - middle_of_values for value in values]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-centre", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_centre(values, want):
    got = centre(values)
    assert got == want, f"{values} should give {want}, yours gives {got}"


test_centre([1, 2, 6], [-2.0, -1.0, 3.0])
### BEGIN HIDDEN TESTS
test_centre([4.0, 8.0], [-2.0, 2.0])
### END HIDDEN TESTS
