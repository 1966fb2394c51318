"""Who ended a program in the process sandbox? What nothing in it can bring about is a fault of the machine, everything else its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.jobs import Limits, Verdict
from autograder.sandbox.base import Watch
from autograder.sandbox.processes import bubblewrap, process, warm
from tests.need import need

SLEEP = "import time\nprint('begun', flush=True)\ntime.sleep(30)"
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["cold", "warm"])
def started(request, sandbox, program, monkeypatch):
    """started(code, strike) -> outcome; `strike(place, pid of the namespace's init)` is called at the first output."""
    places, opened = [], process._Namespaces._open
    monkeypatch.setattr(process._Namespaces, "_open", lambda place, pid: (places.append((place, pid)), opened(place, pid))[1])

    def run(code, strike=None, **limits):
        acts = [strike] if strike else []
        watch = Watch(hear=lambda chunk: acts.pop()(*places[-1]) if acts else None)
        argv, files, imports = [sys.executable, "-c", code], {}, None
        if request.param == "warm":
            argv, files, imports = [sys.executable, "-s", "/opt/program.py"], {"main.py": code.encode()}, ["json"]
        outcome = sandbox.run(argv, files, [*bubblewrap.python_paths(), (program, "/opt/program.py")],
                              Limits(**{"wall_seconds": 20, **limits}), {"PATH": "/usr/bin:/bin"}, watch=watch, imports=imports)
        assert warm.broken() == ""
        return outcome
    run.kind = request.param
    return run


def test_a_sandbox_that_somebody_ends_is_not_the_programs_crash(started):
    def strike(place, init):
        os.kill(place.process.pid if place.process else init, signal.SIGKILL)       # bwrap tells nobody how its init ended
    outcome = started(SLEEP, strike)
    assert (outcome.verdict, outcome.sentence) == (Verdict.infra, "the sandbox was ended from outside")
    assert started("print(1)").verdict is Verdict.ok


def test_a_template_that_somebody_ends_takes_no_blame_to_its_forks(started):
    def strike(place, init):
        for template in list(warm._templates.values()):
            bwrap = template.process.pid
            for child in Path(f"/proc/{bwrap}/task/{bwrap}/children").read_text().split():          # the init of all its forks' world
                os.kill(int(child), signal.SIGKILL)
    if started.kind == "warm":
        assert started(SLEEP, strike).verdict is Verdict.infra
        assert started("print(1)").verdict is Verdict.ok


@pytest.mark.parametrize("code", [
    "import os\nos.kill(os.getpid(), 9)",
    "import os\nos.kill(1, 9); os.kill(1, 15); os.kill(-1, 9); os.kill(os.getpid(), 9)",
    "import os, time\nparent = os.getpid()\nif os.fork() == 0:\n    os.kill(parent, 9)\ntime.sleep(20)",
    "import os\nos._exit(137)", "import os\nos._exit(247)",
    "import os\nos.closerange(3, 1000)\nos.abort()",
])
def test_no_program_can_end_itself_as_if_somebody_else_had(started, code):
    """It would be graded anew for ever."""
    assert started(code).verdict in (Verdict.crashed, Verdict.error)


def test_over_its_own_limit_of_memory_is_its_own_doing(started):
    assert started("x = bytearray(400 * 2**20)\nx[::4096] = b'x' * len(x[::4096])", memory_mb=100).verdict is Verdict.memory


INNER = f"""import json, os, sys
sys.path.insert(0, {str(REPO)!r})
for folder in sys.argv[1:]:
    open(folder + "/cgroup.procs", "w").write("0")
from autograder.jobs import Limits
from autograder.sandbox.processes import bubblewrap, cgroup
from autograder.sandbox.processes.process import Process
code = "x = bytearray(600 * 2**20)\\nx[::4096] = b'x' * len(x[::4096])\\nimport time; time.sleep(10)"
outcome = Process().run([sys.executable, "-c", code], {{}}, bubblewrap.python_paths(), Limits(memory_mb=1000, wall_seconds=30), {{}})
print(json.dumps([outcome.verdict, outcome.sentence]))
"""


def test_memory_that_runs_out_for_others_is_not_the_programs_limit(sandbox):
    """All sandboxes of a service that may use 200 MB together, as a machine that has no more: the kernel ends the largest process."""
    group = Path("/sys/fs/cgroup/memory", f"test-{os.getpid()}")
    need("root, and control groups of version 1", os.geteuid() == 0 and group.parent.is_dir(), "run it as root where there are some")
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(200 * 2**20))
        done = subprocess.run([sys.executable, "-c", INNER, str(group)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        verdict, sentence = json.loads(done.stdout)
        assert (verdict, "no memory left" in sentence) == ("infra", True), sentence
    finally:
        group.rmdir()
