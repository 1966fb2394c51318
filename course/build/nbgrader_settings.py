"""The nbgrader settings that decide what a release notebook looks like: the build and the hub apply the same."""

from typing import Any

# Two lines, as in nbgrader's own default: a prediction cell tells its reader to replace "the two lines below".
CODE_STUB = '# YOUR CODE HERE\nraise NotImplementedError("not written yet: replace this line and the one above it")'
TEXT_STUB = "YOUR ANSWER HERE"


def apply(config: Any) -> None:
    """Put the settings into a traitlets config (`c` in an nbgrader_config.py)."""
    config.ClearSolutions.code_stub = {"python": CODE_STUB}
    config.ClearSolutions.text_stub = TEXT_STUB
