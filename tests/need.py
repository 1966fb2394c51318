"""What a test needs from the machine: a user who lacks it gets a skip with a word, CI gets a failure."""

import os

import pytest


def need(what: str, found: object, how: str) -> None:
    """Go on if `found`; otherwise skip, or fail where CI is set, saying what is missing and how to get it."""
    if found:
        return
    message = f"needs {what}: {how}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
