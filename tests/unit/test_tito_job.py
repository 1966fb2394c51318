"""`tito job` without a hub: the student's own exports, in the sandbox of this machine, in processes that outlive tito."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autograder.jobs import Limits, Verdict
from autograder.sandbox.base import Watch
from autograder.sandbox.none import NoSandbox
from autograder.sandbox.processes import bubblewrap
from tests.need import need

REPO = Path(__file__).resolve().parents[2]
SLOW = "import time\nfor n in range(300):\n    time.sleep(0.1)\n"


@pytest.fixture
def worker(student):
    """A student who has exported what the reference holds."""
    core = student.home / "tinytorch" / "core"
    core.mkdir(parents=True)
    (student.home / ".tito").mkdir()
    for name in ("utils", "tensor", "activations"):
        (core / f"{name}.py").write_text((REPO / "tinytorch" / "core" / f"{name}.py").read_text())
    return student


@pytest.fixture
def isolated():
    try:
        works, said = bool(bubblewrap.find()), ""
    except bubblewrap.SandboxUnavailable as lacking:
        works, said = False, str(lacking)
    need("bubblewrap", works, said)


def job(student, *words, code=0, **environment):
    done = student.tito("job", *words, **environment)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def core(student, name):
    return student.home / "tinytorch" / "core" / f"{name}.py"


# --------------------------------------------------------------------------------------------- checkpoints
def test_a_checkpoint_in_the_sandbox_from_submit_to_verify(worker, isolated):
    said = job(worker, "submit", "checkpoint", "01")
    assert "passed  can multiply matrices" in said.stdout
    assert said.stdout.endswith("Yes\n")
    again = job(worker, "submit", "checkpoint", "01")
    assert "it was done before" in again.stderr
    [listed] = json.loads(job(worker, "status", "--json").stdout)["jobs"]
    assert (listed["kind"], listed["target"], listed["state"], listed["verdict"]) == ("checkpoint", "01", "done", "ok")
    assert listed["id"][:8] in job(worker, "status").stdout
    job(worker, "fetch", listed["id"][:6], "--out", "taken")
    record = json.loads((worker.home / "taken" / "record.json").read_text())["result"]
    assert record["sandbox"] == "process"
    assert record["packages"].keys() >= {"python", "numpy"}
    for name in ("image", "cpu", "blas_core", "threads", "limits", "usage", "inputs", "output_hashes"):
        assert record[name], name
    assert json.loads((worker.home / "taken" / "result.json").read_text())["passed"]
    assert "The result is the same" in job(worker, "verify", listed["id"]).stdout


def test_a_failing_capability_is_named_and_the_exit_code_is_1(worker, isolated):
    core(worker, "tensor").write_text(core(worker, "tensor").read_text() + "\nTensor.__sub__ = Tensor.__add__\n")
    said = json.loads(job(worker, "submit", "checkpoint", "01", "--json", code=1).stdout)
    assert (said["verdict"], said["said"]["passed"]) == ("ok", False)
    assert "can add subtract multiply and divide" in said["said"]["failed"]
    assert "FAILED  can add subtract multiply and divide" in job(worker, "logs").stdout


def test_without_a_sandbox_the_result_says_so(worker):
    said = job(worker, "submit", "profile", "activations.relu", "--input", "8x8", "--sandbox", "none")
    assert "This ran without a sandbox: the result counts for you alone" in said.stdout
    assert json.loads(job(worker, "status", "--json").stdout)["jobs"][0]["verdict"] == "ok"
    job(worker, "fetch", "--out", "taken")
    assert json.loads((worker.home / "taken" / "record.json").read_text())["result"]["sandbox"] == "none"


# --------------------------------------------------------------------------------------------- profiles
def profiled(student, *words):
    said = json.loads(job(student, "submit", "profile", *words, "--json").stdout)["said"]
    return said, {one["operation"]: one["flops"] for one in said["operations"]}


def test_a_product_costs_two_operations_per_multiply_add(worker, isolated):
    said, operations = profiled(worker, "tensor.Tensor.__matmul__", "--input", "32x48", "--input", "48x64")
    assert operations == {"matmul": 2 * 32 * 48 * 64}
    assert said["output_shape"] == [32, 64]
    assert said["peak_bytes"] >= 32 * 64 * 4
    job(worker, "fetch", "--out", "taken")
    measured = json.loads((worker.home / "taken" / "measured.json").read_text())
    assert measured["best_seconds"] > 0
    assert (worker.home / "taken" / "picture.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_elementwise_operations_and_reductions_are_counted_by_their_sizes(worker, isolated):
    numbers = 64 * 100
    _, operations = profiled(worker, "activations.Softmax", "--input", "64x100")
    assert operations == {"max": numbers, "subtract": numbers, "exp": 8 * numbers, "sum": numbers, "divide": numbers}


def test_memory_is_what_is_allocated(worker, isolated):
    wasteful = "\nimport numpy\ndef wasteful(x):\n    big = numpy.zeros(5_000_000, numpy.float32)\n    return x\n"
    core(worker, "utils").write_text(core(worker, "utils").read_text() + wasteful)
    said, _ = profiled(worker, "utils.wasteful", "--input", "2x2")
    assert 20_000_000 - 1024 <= said["peak_bytes"] < 20_100_000
    assert said["kept_bytes"] < 10_000


@pytest.mark.parametrize(("words", "says"), [
    (["nothing.here"], "there is no tinytorch.core.nothing; your exports are: activations, tensor, utils"),
    (["activations.Nope"], "tinytorch.core.activations has no Nope; it has: "),
    (["activations.LeakyReLU", "--make", "1", "--make", "2", "--make", "3"], "Say its arguments with --make")])
def test_a_name_that_does_not_fit_is_explained(worker, isolated, words, says):
    said = job(worker, "submit", "profile", *words, code=1)
    assert says in said.stdout + said.stderr


@pytest.mark.parametrize("words", [["tensor.exp", "--input", "3xtwo"], ["tensor.exp", "--input", "0x2"]])
def test_a_shape_that_is_none_is_refused(worker, words):
    assert "write a shape such as 32x784" in job(worker, "submit", "profile", *words, code=2).stderr


COMPARE = """
import sys, importlib.util, json
import numpy as np
if sys.argv[1] == "counted":
    spec = importlib.util.spec_from_file_location("flops", sys.argv[2])
    flops = importlib.util.module_from_spec(spec); spec.loader.exec_module(flops)
    counted = flops.install(); counted.on = True
from tinytorch.core.tensor import Tensor, squared_distances, concat, exp
from tinytorch.core.activations import Softmax, GELU, Sigmoid
x, y = (Tensor(np.random.default_rng(n).standard_normal((7, 5))) for n in (1, 2))
out = [x + y, 2 - x, x @ y.T, squared_distances(x, y), concat(x, y), exp(x).sum(axis=0), Softmax()(x), GELU()(x * y), Sigmoid()(x / 3),
       x ** 2]
try:
    x @ y
except ValueError as error:
    out.append(Tensor([len(str(error))]))
print(json.dumps([o.data.tolist() for o in out]))
"""


def test_counting_changes_no_result():
    """The rewritten framework computes the same numbers and the same messages."""
    def run(how):
        return subprocess.run([sys.executable, "-c", COMPARE, how, str(REPO / "autograder" / "programs" / "flops.py")], cwd=REPO,
                              capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(REPO)}).stdout
    assert run("counted") == run("plain")


# --------------------------------------------------------------------------------------------- while it runs
def started(student, *words):
    return json.loads(job(student, "submit", *words, "--detach", "--json").stdout)["id"]


def state(student, id):
    return json.loads(job(student, "status", id, "--json").stdout)


def test_a_detached_job_is_followed_and_cancelled(worker, isolated):
    core(worker, "tensor").write_text(SLOW)
    id = started(worker, "checkpoint", "01")
    assert state(worker, id)["state"] == "running"
    assert "is not done yet" in job(worker, "fetch", id, code=1).stderr
    assert "Can I create" in job(worker, "logs", "--no-follow").stdout
    assert job(worker, "cancel", id).stdout == f"job {id[:8]}: cancelled\n"
    assert "is done already (cancelled)" in job(worker, "cancel", id, code=1).stderr


def test_kill_9_of_a_local_job_is_seen_and_mended(worker, isolated):
    core(worker, "tensor").write_text(SLOW)
    id = started(worker, "checkpoint", "01")
    os.kill(int((worker.home / ".tito" / "jobs" / id / "pid").read_text()), signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (seen := state(worker, id))["state"] != "done":
        assert time.monotonic() < deadline
    assert (seen["verdict"], "submit it again" in seen["sentence"]) == ("infra", True)
    assert started(worker, "checkpoint", "01") == id
    assert state(worker, id)["state"] == "running"
    job(worker, "cancel", id)


# --------------------------------------------------------------------------------------------- mistakes
def test_mistakes_are_told_with_the_way_out(student, worker, tmp_path):
    (tmp_path / "empty" / ".tito").mkdir(parents=True)
    empty = str(tmp_path / "empty")
    assert "tito module export 01" in job(student, "submit", "checkpoint", "01", code=2, TINYTORCH_WORKSPACE=empty).stderr
    assert "you have no jobs yet" in job(student, "status", "abc", code=2, TINYTORCH_WORKSPACE=empty).stderr
    assert "there is no recipe nothing" in job(worker, "submit", "train", "nothing", code=2).stderr
    refused = job(worker, "submit", "checkpoint", "01", "--sandbox", "none", code=2, AUTOGRADER_URL="http://127.0.0.1:9")
    assert "--sandbox is for a machine without a hub" in refused.stderr
    assert "does not answer" in job(worker, "status", code=1, AUTOGRADER_URL="http://127.0.0.1:9").stderr


# --------------------------------------------------------------------------------------------- no sandbox
def plainly(code, watch=None, files=None, collect=(), readonly=(), **limits):
    return NoSandbox().run([sys.executable, "-c", code], files or {}, readonly, Limits(**limits), {"PATH": "/usr/bin:/bin"}, collect,
                           watch=watch)


def test_no_sandbox_keeps_time_and_output_limits():
    assert plainly("import time; time.sleep(30)", wall_seconds=0.3).verdict is Verdict.timeout
    assert plainly("while True: print('x' * 1000)", output_kb=50).verdict is Verdict.output
    assert plainly("while True: pass", cpu_seconds=1).verdict is Verdict.cpu
    assert plainly("import os; os.kill(os.getpid(), 11)").verdict is Verdict.crashed
    assert plainly("raise SystemExit(3)").verdict is Verdict.error


def test_no_sandbox_hands_on_files_and_what_is_written():
    heard = []
    code = "print(open('a/b').read()); open('result.json', 'w').write('{}')"
    done = plainly(code, Watch(heard.append), {"a/b": b"here"}, ["result.json"])
    assert (done.verdict, done.stdout, done.files, b"".join(heard)) == (Verdict.ok, b"here\n", {"result.json": b"{}"}, b"here\n")


def test_no_sandbox_is_stopped_when_told():
    begun = time.monotonic()
    assert plainly("import time; time.sleep(30)", Watch(stop=lambda: time.monotonic() - begun > 0.3)).verdict is Verdict.cancelled
