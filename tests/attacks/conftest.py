"""What the attacks share: the sandbox of this machine, and short ways to run a program or a notebook in it."""

import json
import sys

import pytest

from autograder import runner
from autograder.jobs import Job, Limits, sha256
from autograder.sandbox import bubblewrap
from autograder.sandbox.base import SandboxUnavailable
from autograder.sandbox.process import Process
from tests.need import need


@pytest.fixture(scope="session")
def sandbox():
    process = Process()
    try:
        process.check()
        lacking = ""
    except SandboxUnavailable as error:
        lacking = str(error)
    need("a machine that can isolate", not lacking, lacking)
    return process


@pytest.fixture
def python(sandbox):
    """Run Python code in the sandbox: python(code, files={...}, collect=[...], memory_mb=..., ...) -> Outcome."""
    def run(code, *, files=None, collect=(), env=None, **limits):
        return sandbox.run([sys.executable, "-c", code], files or {}, bubblewrap.python_paths(), Limits(**limits),
                           {"PATH": "/usr/bin:/bin", **(env or {})}, collect)
    return run


class Graded:
    """What came of a notebook: its result, and for each cell what it printed and how it failed."""

    def __init__(self, result, names):
        self.result, self.verdict = result, str(result.verdict)
        self.outputs = dict(zip(names, json.loads(result.outputs["cells.json"]).values(), strict=True))

    def error(self, name):
        """`ename: evalue` of a cell's error, None when it passed."""
        return next((f"{one['ename']}: {one['evalue']}" for one in self.outputs[name] if one["output_type"] == "error"), None)

    def text(self, name):
        return "".join(one.get("text", "") + one.get("data", {}).get("text/plain", "") for one in self.outputs[name])

    def passed(self):
        return [name for name in self.outputs if name.startswith("test") and self.error(name) is None]


@pytest.fixture
def grade(sandbox):
    """Grade cells given by name: grade({"f": code, "test_f": code}, where="outside", cell_seconds=...) -> Graded."""
    def run(cells, *, files=None, where="inside", seed=None, **limits):
        listed = [{"id": str(at), "name": name, "source": code, "kind": "test" if name.startswith("test") else "student", "where": where}
                  for at, (name, code) in enumerate(cells.items())]
        inputs = {runner.NOTEBOOK: json.dumps({"cells": listed, "seed": seed}).encode(),
                  **{runner.EXTRA + path: content for path, content in (files or {}).items()}}
        job = Job(kind="grade", inputs={path: sha256(content) for path, content in inputs.items()}, limits=Limits(**limits))
        return Graded(runner.run(job, inputs, sandbox), cells)
    return run
