"""`kill -9` of supervisor, worker, container and engine at random moments: every submission is graded once, and right.

Real services, workers and containers, and a Docker engine of the test's own. `KILLS=100` takes some minutes; `KILL_SEED` draws others.
"""

import base64
import collections
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autograder import runner
from autograder.jobs import Job, Limits, Verdict, sha256
from autograder.sandbox.base import SandboxUnavailable, Watch
from autograder.sandbox.containers import docker, engine
from autograder.sandbox.containers.docker import Docker
from autograder.sandbox.processes import bubblewrap
from tests.attacks.engine import IMAGE, containers, own_engine
from tests.attacks.test_jobs import worker_pids
from tests.attacks.test_service import Service, body

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]
KILLS = int(os.environ.get("KILLS", "4"))
KINDS = ("supervisor", "worker", "container", "engine")
AT_ONCE = 4                              # submissions that wait or run


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    made = own_engine(tmp_path_factory)
    yield made
    made.end()


@pytest.fixture
def reached(own, monkeypatch):
    """The engine, also by this process."""
    for name, value in own.env.items():
        monkeypatch.setenv(name, value)
    return own


def submission(number):
    """A notebook that takes half a second; of its tests, one inside and one outside of the sandbox, two pass and one fails."""
    cells = [("double", f"import time\ntime.sleep(0.5)\ndef double(n):\n    return 2 * n  # {number}", "student", "inside"),
             ("right", f"assert double({number}) == {2 * number}", "test", "outside"),
             ("also", f"assert double(-{number}) <= 0", "test", "inside"),
             ("wrong", f"assert double({number}) == {2 * number + 1}, 'no'", "test", "outside")]
    notebook = json.dumps({"cells": [{"id": name, "name": name, "source": source, "kind": kind, "where": where}
                                     for name, source, kind, where in cells]}).encode()
    return Job(kind="grade", inputs={runner.NOTEBOOK: sha256(notebook)}, limits=Limits(wall_seconds=120, cell_seconds=60)), {
        runner.NOTEBOOK: notebook}


@contextlib.contextmanager
def served(own, state):
    """A service with two workers and the docker sandbox on that engine."""
    service = Service(state, **own.env, AUTOGRADER_SANDBOX="docker", AUTOGRADER_SANDBOX_IMAGE=IMAGE,
                      AUTOGRADER_SANDBOX_PYTHON="/usr/bin/python3")
    try:
        yield service
    finally:
        service.process.terminate()
        assert service.process.wait(60) == 0


class Class:
    """Hands in one submission after the other and notes each result as soon as there is one."""

    def __init__(self, service):
        self.service, self.results, self.jobs, self.asked_again = service, {}, {}, 0

    def hand_in(self, job, files):
        status, answer = self.service.ask("POST", "/api/jobs", body(job, files))
        assert status == 202, answer
        self.jobs[job.id] = job, files

    def note(self):
        """A fault of the machine is never the last word: who was told so asks again."""
        for id, (job, files) in list(self.jobs.items()):
            answer = self.service.ask("GET", f"/api/jobs/{id}")[1]
            if answer["state"] != "done":
                assert id not in self.results                              # what was graded stays graded
            elif answer["verdict"] == "infra":
                self.asked_again += 1
                self.hand_in(job, files)
            else:
                assert self.results.setdefault(id, answer["result"]) == answer["result"]       # measured times included: never again

    @property
    def unfinished(self):
        return len(self.jobs) - len(self.results)

    def finish(self, seconds=180):
        deadline = time.monotonic() + seconds
        while self.unfinished:
            assert time.monotonic() < deadline, f"{self.unfinished} lost"
            self.note()
            time.sleep(0.1)


def strike(kind, service, own, draw):
    """Kill one of that kind; False when there was none at work."""
    if kind == "supervisor":
        service.kill()
        service.start()
    elif kind == "worker":
        os.kill(draw.choice(worker_pids(service)), signal.SIGKILL)
    elif kind == "container":
        busy = [id for id, processes in containers(docker.LABEL).items() if processes > 1]
        if not busy:
            return False
        try:
            engine.ask("POST", f"/containers/{draw.choice(busy)}/kill")
        except engine.EngineError:                                          # it has just ended by itself
            return False
    else:
        own.kill()
        time.sleep(draw.uniform(0, 2))
        own.start()
    return True


def test_kills_at_any_moment_lose_no_submission_and_grade_none_twice(reached, sandbox, tmp_path):
    draw, struck, number = random.Random(int(os.environ.get("KILL_SEED", "1"))), collections.Counter(), 0
    with served(reached, tmp_path / "state") as service:
        course = Class(service)
        while struck.total() < KILLS:
            while course.unfinished < AT_ONCE:
                number += 1
                course.hand_in(*submission(number))
            time.sleep(draw.uniform(0.1, 1.5))
            course.note()
            kind = KINDS[struck.total() % len(KINDS)]
            struck[kind] += strike(kind, service, reached, draw)
        course.finish()
    print(f"\n{dict(struck)}: {number} submissions, {course.asked_again} asked again")
    assert len(course.results) == number
    with sqlite3.connect(tmp_path / "state" / "jobs.sqlite") as db:         # each was finished once, and once more when asked again
        assert db.execute("SELECT sum(count) FROM tally").fetchone() == (number + course.asked_again,)
    for id, (job, files) in course.jobs.items():
        assert course.results[id]["verdict"] == "ok", course.results[id]
        outputs = json.loads(base64.urlsafe_b64decode(course.results[id]["outputs"]["cells.json"]))
        if id == next(iter(course.jobs)):                                   # the oracle: the same without a kill, in the other sandbox
            assert json.loads(runner.run(job, files, sandbox).outputs["cells.json"]) == outputs
        assert [bool(one) for one in outputs.values()] == [False, False, False, True]
    wait_until_swept()


def labels():
    """Whose the engine's containers are."""
    return [one["Labels"][docker.LABEL] for one in engine.ask("GET", "/containers/json", all="1", filters={"label": [docker.LABEL]}) or ()]


def wait_until_swept(seconds=20):
    """What killed supervisors left ends, and whoever starts next removes it."""
    deadline = time.monotonic() + seconds
    while docker._sweep() or (left := set(labels()) - {str(os.getpid())}):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def test_jobs_wait_while_the_engine_is_away(reached, tmp_path):
    with served(reached, tmp_path / "state") as service:
        course, (job, files) = Class(service), submission(1)
        reached.kill()
        course.hand_in(job, files)
        time.sleep(2.5)                                                     # a worker looks each second
        with sqlite3.connect(tmp_path / "state" / "jobs.sqlite") as db:
            assert db.execute("SELECT state, attempts FROM jobs").fetchall() == [("queued", 0)]
        reached.start()
        course.finish(60)
    assert course.results[job.id]["verdict"] == "ok"


@pytest.fixture
def started(reached):
    """start(code, talk=None) -> outcome, in a container of the engine that may be killed."""
    made = Docker(IMAGE, "/usr/bin/python3", ready=1)

    def start(code, watch=None, **limits):
        return made.run(["python3", "-s", "main.py"], {"main.py": code.encode()}, bubblewrap.python_paths(), Limits(**limits),
                        {"PATH": "/usr/bin:/bin"}, watch=watch, imports=["json"])
    start.sandbox = made
    yield start
    made.end()


def once(act):
    """A follower that does something when the program has written for the first time."""
    acts = [act]
    return Watch(hear=lambda chunk: acts.pop()() if acts else None)


def kill_containers():
    for id in containers(docker.LABEL):
        engine.ask("POST", f"/containers/{id}/kill")


def test_a_container_that_somebody_kills_is_not_the_programs_crash(started):
    outcome = started("import time\nprint('begun', flush=True)\ntime.sleep(60)", once(kill_containers))
    assert (outcome.verdict, outcome.sentence) == (Verdict.infra, "the container was ended from outside")


def test_an_engine_that_goes_away_is_not_the_programs_crash_and_comes_back(started, reached):
    outcome = started("import time\nprint('begun', flush=True)\ntime.sleep(60)", once(reached.kill))
    assert outcome.verdict is Verdict.infra, outcome
    assert "engine" in outcome.sentence
    with pytest.raises(SandboxUnavailable, match="does not answer"):
        started.sandbox.check()
    reached.start()
    assert started("print('again')").stdout == b"again\n"                  # not in one of the containers that went with the engine
    started.sandbox.end()
    deadline = time.monotonic() + 20
    while str(os.getpid()) in labels():                                     # nor did those stay
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(("code", "verdict"), [
    ("import os\nos.kill(os.getpid(), 9)", "crashed"),
    ("import os\nos.kill(1, 9); os.kill(1, 15); os.kill(1, 2); os.kill(os.getpid(), 9)", "crashed"),
    ("import os, signal, time\ntime.sleep(0.5)\nos.kill(1, signal.SIGALRM)\ntime.sleep(60)", "timeout"),
    ("import os\nos.write(2, b'x' * 5000)\nos._exit(137)", "crashed"),
    ("import resource\ntry: resource.prlimit(1, resource.RLIMIT_CPU, (0, 0))\nexcept PermissionError: pass\n"
     "end = __import__('time').time() + 2\nwhile __import__('time').time() < end: pass\n"
     "__import__('os').kill(__import__('os').getpid(), 9)", "crashed"),
])
def test_no_program_can_end_itself_as_if_somebody_else_had(started, code, verdict):
    """It would be graded anew for ever."""
    assert started(code, wall_seconds=30).verdict is Verdict(verdict)


def test_a_container_whose_supervisor_was_killed_ends_by_itself(reached, tmp_path):
    code = ("from autograder.jobs import Limits\nfrom autograder.sandbox.containers.docker import Docker\n"
            f"Docker({IMAGE!r}, '/usr/bin/python3').run(['python3', '-s', 'main.py'], {{'main.py': b'import time; time.sleep(600)'}}, [],"
            " Limits(wall_seconds=1.5), {'PATH': '/usr/bin'})")
    supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while not any(processes > 1 for processes in containers(docker.LABEL).values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    supervisor.kill()
    supervisor.wait()
    assert containers(docker.LABEL)
    wait_until_swept()
