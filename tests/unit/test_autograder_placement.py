"""Where tests run is found out by trying; a machine that fails meanwhile decides nothing, least of all for a whole class."""

import json

import pytest

from autograder.jobs import Result, Verdict
from autograder.marks import placement
from autograder.sandbox.base import SandboxUnavailable

NOTEBOOK = {"cells": [{"cell_type": "code", "source": "assert True", "metadata": {"nbgrader": {
    "grade_id": "t", "grade": True, "solution": False, "locked": True, "points": 1}}}]}


def result(cells, verdict=Verdict.ok):
    outputs = {"cells.json": json.dumps({cell["id"]: [] for cell in cells}).encode()} if verdict is Verdict.ok else {}
    return Result(job="0" * 64, verdict=verdict, sentence="" if outputs else "the container was ended from outside", outputs=outputs)


def test_a_fault_of_the_machine_puts_no_test_inside(tmp_path):
    failing = iter([Verdict.ok, Verdict.infra])
    with pytest.raises(SandboxUnavailable, match="ended from outside"):
        placement.of_tests(NOTEBOOK, lambda cells, seed: result(cells, next(failing)), tmp_path, None)
    assert not list(tmp_path.rglob("tests-*"))                              # it is tried again the next time
    assert placement.of_tests(NOTEBOOK, lambda cells, seed: result(cells), tmp_path, None) == {"t": "outside"}
