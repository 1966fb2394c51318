"""What the attacks share: the sandbox of this machine, and short ways to run a program or a notebook in it."""

import json
import shutil
import subprocess
import sys

import pytest

from autograder import runner
from autograder.jobs import Job, Limits, sha256
from autograder.sandbox.base import SandboxUnavailable
from autograder.sandbox.containers.docker import Docker
from autograder.sandbox.processes import bubblewrap, warm
from autograder.sandbox.processes.process import Process
from tests.deploy.debian import bare_debian
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


PROGRAM = """import os
with open("main.py") as file:
    code = compile(file.read(), "<string>", "exec")
os.remove("main.py")
del file, os
exec(code, {"__name__": "__main__"})
"""


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """A file that carries out the main.py of its work folder, for warm starts, which take a file."""
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="session")
def containers(tmp_path_factory):
    """The docker sandbox, with a bare Debian's Python: enough for attacks, which need no NumPy."""
    need("a Docker engine", shutil.which("docker") and not subprocess.run(["docker", "info"], capture_output=True).returncode,
         "install and start Docker")
    made = Docker(bare_debian(tmp_path_factory), "/usr/bin/python3")
    yield made
    made.end()


@pytest.fixture(params=["cold", "warm", pytest.param("docker", marks=pytest.mark.docker)])
def python(request, program):
    """Run Python code in a sandbox: python(code, files={...}, collect=[...], memory_mb=..., ...) -> Outcome.

    Each test runs three times: in a process started for it, in a fork of a warm one, in a container.
    """
    sandbox = request.getfixturevalue("containers" if request.param == "docker" else "sandbox")

    def run(code, *, files=None, collect=(), env=None, **limits):
        env = {"PATH": "/usr/bin:/bin", **(env or {})}
        if request.param != "warm":
            return sandbox.run([sys.executable, "-c", code], files or {}, bubblewrap.python_paths(), Limits(**limits), env, collect)
        outcome = sandbox.run([sys.executable, "-s", "/opt/program.py"], {**(files or {}), "main.py": code.encode()},
                              [*bubblewrap.python_paths(), (program, "/opt/program.py")], Limits(**limits), env, collect, imports=["json"])
        assert warm.broken() == ""                       # or it was a cold start
        return outcome
    run.kind = request.param
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
