"""The same limits for an ordinary user, who may set no control groups: the watch and the kernel's other limits hold."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import autograder
from tests.attacks.test_limits import FLOODS
from tests.need import need

SOMEBODY = "54321"
PACKAGES = ("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection")
LATE = {"memory, by many processes"}                  # the watch sees the processes' sum, RLIMIT_DATA each alone: both stop it

PROGRAM = """
import json, os, secrets, sys, time
from autograder.jobs import Limits
from autograder.sandbox.processes import bubblewrap
from autograder.sandbox.processes.process import Process
sandbox, cases, said = Process(), json.load(sys.stdin), {}
for name, (code, limits, _) in cases.items():
    begun = time.monotonic()
    outcome = sandbox.run([sys.executable, "-c", code], {}, bubblewrap.python_paths(), Limits(**{"wall_seconds": 30, **limits}),
                          {"PATH": "/usr/bin:/bin"})
    said[name] = [outcome.verdict, outcome.sentence, time.monotonic() - begun]
said["uid"] = sandbox.run(["/usr/bin/id", "-u"], {}, [], Limits(), {}).stdout.decode()
print(json.dumps({"outer": os.getuid(), "how": sandbox.describe(), **said}))
"""


@pytest.fixture(scope="module")
def somebody():
    """A command prefix that makes an ordinary user of us, and a Python that such a user can read."""
    if os.geteuid():
        yield [], sys.executable, str(Path(autograder.__file__).parents[1])
        return
    need("setpriv", shutil.which("setpriv"), "apt-get install util-linux")
    prefix = ["setpriv", "--reuid", SOMEBODY, "--regid", SOMEBODY, "--clear-groups", "env", "-i", "PATH=/usr/bin:/bin"]
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = next((path for path in (sys.executable, f"/usr/bin/python{version}") if subprocess.run(
        [*prefix, path, "-c", ""], capture_output=True, check=False).returncode == 0), None)
    need(f"a Python {version} that every user can read", python, f"apt-get install python{version}")
    folder = Path(tempfile.mkdtemp(prefix="ordinary-user-"))
    folder.chmod(0o755)
    try:
        shutil.copytree(Path(autograder.__file__).parent, folder / "autograder", ignore=shutil.ignore_patterns("__pycache__"))
        for name in PACKAGES:
            source = Path(importlib.util.find_spec(name).origin)
            if source.name == "__init__.py":
                shutil.copytree(source.parent, folder / name)
            else:
                shutil.copy(source, folder)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        yield prefix, python, str(folder)
    finally:
        shutil.rmtree(folder)


def test_limits_hold_without_control_groups(sandbox, somebody):
    import json
    prefix, python, folder = somebody
    done = subprocess.run([*prefix, *(["env"] if not prefix else []), f"PYTHONPATH={folder}", python, "-B", "-c", PROGRAM],
                          input=json.dumps(FLOODS), capture_output=True, text=True, timeout=280, cwd="/")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["outer"] != 0
    assert said["uid"] == "60902\n"
    wrong = {name: said[name] for name, (_, _, verdict) in FLOODS.items() if said[name][0] != verdict or said[name][2] > 25}
    assert not wrong, said["how"]
