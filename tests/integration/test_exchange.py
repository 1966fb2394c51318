"""The exchange and its client: nothing is lost, nothing is given to the wrong person, every refusal says why."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from hub import paths

SERVE = paths.REPO / "hub" / "exchange" / "serve.py"
NOTEBOOK = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def person(name):
    return {"username": name, "first_name": name.title(), "last_name": "", "email": ""}


def document(**closes):
    return {
        "ml101": {"instructors": [person("grace"), person("ml101")], "students": [person("alice"), person("bob")], "closes": closes},
        "ml201": {"instructors": [person("grace"), person("ml201")], "students": [person("alice"), person("carol")], "closes": {}},
    }


class Exchange:
    def __init__(self, folder: Path, site: dict):
        self.folder, self.site = folder, site
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            [str(paths.env_bin("exchange", "python")), str(Path(__file__).with_name("exchange_trial.py")), str(self.folder),
             json.dumps(self.site)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/services/ngshare"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, who, method, path, files=None, **data):
        if files is not None:
            data["files"] = json.dumps([{"path": name, "content": base64.b64encode(content).decode()} for name, content in files.items()])
        return requests.request(method, f"{self.url}/{path}", headers={"Authorization": f"token {who}"} if who else {},
                                data=data or None, timeout=30, allow_redirects=False)


def with_releases(folder: Path) -> Exchange:
    """One in which 02_tensor is released in both classes, 01_setup (closed long ago) in the first."""
    running = Exchange(folder / "exchange", document(**{"01_setup": "2020-01-01T00:00:00+00:00"}))
    for class_, name in (("ml101", "02_tensor"), ("ml201", "02_tensor"), ("ml101", "01_setup")):
        assert running.ask(class_, "POST", f"assignment/{class_}/{name}", {"tensor.ipynb": json.dumps(NOTEBOOK).encode()}).ok
    return running


@pytest.fixture
def released(tmp_path):
    running = with_releases(tmp_path)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory):
    """The same, one for all tests that try what is refused."""
    running = with_releases(tmp_path_factory.mktemp("unchanged"))
    yield running
    running.kill()


def test_the_round_trip_passes_in_the_pinned_environment():
    done = subprocess.run([str(paths.env_bin("exchange", "python")), str(SERVE), "--try"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "came back" in done.stdout


@pytest.fixture
def newer_sqlalchemy(tmp_path):
    """ngshare beside the hub's SQLAlchemy 2, which is what an unpinned install gives."""
    shutil.copytree(next((paths.ENVS / "exchange" / "lib").glob("python*")) / "site-packages" / "ngshare", tmp_path / "ngshare")
    return {**os.environ, "PYTHONPATH": f"{tmp_path}:{SERVE.parent}"}


def test_it_does_not_start_with_sqlalchemy_2(newer_sqlalchemy):
    done = subprocess.run([str(paths.env_bin("hub", "python")), str(SERVE), "--try"], capture_output=True, text=True, env=newer_sqlalchemy)
    assert done.returncode == 1
    assert re.search(r"SQLAlchemy 2\S* makes ngshare lose releases; it needs 1\.4", done.stderr)


def test_the_round_trip_itself_sees_a_lost_release(newer_sqlalchemy):
    code = ("import os, asyncio, serve; names = ('API_URL', 'API_TOKEN', 'CLIENT_ID', 'SERVICE_PREFIX'); "
            "os.environ.update({'JUPYTERHUB_' + name: '/' for name in names}); asyncio.run(serve.round_trip())")
    done = subprocess.run([str(paths.env_bin("hub", "python")), "-c", code], capture_output=True, text=True, env=newer_sqlalchemy)
    assert done.returncode == 1
    assert "what was released in a trial came back as" in done.stderr


@pytest.mark.parametrize(("who", "method", "path", "status"), [
    ("bob@ml101", "GET", "submission/ml101/02_tensor/alice", 403),          # another student's work
    ("bob@ml101", "GET", "submissions/ml101/02_tensor", 403),               # who has submitted
    ("bob@ml101", "GET", "submissions/ml101/02_tensor/alice", 403),
    ("bob@ml101", "GET", "feedback/ml101/02_tensor/alice?timestamp=2026-01-01 00:00:00.0 UTC", 403),
    ("bob@ml101", "GET", "students/ml101", 403),                            # the roster
    ("bob@ml101", "GET", "assignments/ml201", 403),                         # another class
    ("bob", "GET", "assignments/ml201", 403),
    ("bob", "GET", "assignment/ml201/02_tensor", 403),
    ("bob", "POST", "assignment/ml101/03_activations", 403),                # releasing
    ("bob", "DELETE", "assignment/ml101/02_tensor", 403),
    ("bob", "POST", "course/mine", 403),
    ("alice@ml101", "GET", "assignments/ml201", 403),                       # her other class, from this class's server
    ("ml201", "GET", "submissions/ml101/02_tensor", 403),                   # one class's formgrader in the other class
    ("unknown", "GET", "assignment/ml101/02_tensor", 401),
    ("", "GET", "submission/ml101/02_tensor/alice", 401),
    ("grace", "GET", "initialize-Data6ase?action=dump", 404),
])
def test_what_is_refused(unchanged, who, method, path, status):
    files = {"a.ipynb": b"{}"} if method == "POST" else None
    assert unchanged.ask(who, method, path, files).status_code == status


def test_two_classes_do_not_mix(released):
    mine = {"tensor.ipynb": json.dumps({**NOTEBOOK, "cells": [{"source": "in ml201"}]}).encode()}
    assert released.ask("alice@ml201", "POST", "submission/ml201/02_tensor", mine).ok
    assert released.ask("grace", "GET", "submissions/ml101/02_tensor").json()["submissions"] == []
    assert [s["student_id"] for s in released.ask("grace", "GET", "submissions/ml201/02_tensor").json()["submissions"]] == ["alice"]


@pytest.mark.parametrize(("path", "files", "status", "says"), [
    ("submission/ml101/01_setup", {"setup.ipynb": json.dumps(NOTEBOOK).encode()}, 403, r"01_setup closed on 2020-01-01 at 00:00 UTC"),
    ("submission/ml101/09_nothing", {"a.ipynb": json.dumps(NOTEBOOK).encode()}, 404, r"no such assignment"),
    ("submission/ml101/02_tensor", {"tensor.ipynb": b"{not json"}, 400, r"tensor\.ipynb is damaged"),
    ("submission/ml101/02_tensor", {"tensor.ipynb": b"[" * 100_000}, 400, r"tensor\.ipynb is damaged"),
    ("submission/ml101/02_tensor", {"tensor.ipynb": b'{"cells": 3}'}, 400, r"tensor\.ipynb is damaged"),
    ("submission/ml101/02_tensor", {"data.bin": b"x" * 21_000_000}, 413, r"data\.bin has 21 MB and the limit is 20 MB"),
    ("submission/ml101/02_tensor", {}, 400, r"no file in this submission"),
    ("submission/ml101/02_tensor", {"../../etc/x": b"x"}, 400, r"Illegal path"),
])
def test_a_bad_submission_is_refused_with_the_reason_and_stores_nothing(unchanged, path, files, status, says):
    answer = unchanged.ask("alice@ml101", "POST", path, files)
    assert answer.status_code == status
    assert re.search(says, answer.json()["message"])
    assert unchanged.ask("grace", "GET", "submissions/ml101/02_tensor").json()["submissions"] == []


def submissions(exchange):
    return len(exchange.ask("grace", "GET", "submissions/ml101/02_tensor").json()["submissions"])


@pytest.fixture
def submitted(released):
    """alice has submitted 02_tensor in ml101."""
    assert released.ask("alice@ml101", "POST", "submission/ml101/02_tensor", {"tensor.ipynb": json.dumps(NOTEBOOK).encode()}).ok
    return released


FRESH = json.dumps({**NOTEBOOK, "metadata": {"version": 2}}).encode()


def test_releasing_again_replaces_the_files_and_keeps_submissions(submitted):
    assert submitted.ask("ml101", "POST", "assignment/ml101/02_tensor", {"tensor.ipynb": FRESH}).status_code == 409
    assert submitted.ask("ml101", "POST", "assignment/ml101/02_tensor", {"tensor.ipynb": FRESH}, replace="true").ok
    [file] = submitted.ask("bob", "GET", "assignment/ml101/02_tensor").json()["files"]
    assert base64.b64decode(file["content"]) == FRESH
    assert submissions(submitted) == 1


def test_withdrawing_hides_an_assignment_and_keeps_submissions(submitted):
    assert submitted.ask("ml101", "DELETE", "assignment/ml101/02_tensor").ok
    assert submitted.ask("ml101", "DELETE", "assignment/ml101/02_tensor").ok
    for who in ("bob@ml101", "ml101"):
        assert "02_tensor" not in submitted.ask(who, "GET", "assignments/ml101").json()["assignments"]
    assert "withdrawn" in submitted.ask("bob@ml101", "GET", "assignment/ml101/02_tensor").json()["message"]
    late = submitted.ask("bob@ml101", "POST", "submission/ml101/02_tensor", {"tensor.ipynb": json.dumps(NOTEBOOK).encode()})
    assert late.status_code == 403
    assert "nothing was stored" in late.json()["message"]
    assert submissions(submitted) == 1
    submitted.kill()
    submitted.start()
    assert "02_tensor" not in submitted.ask("bob@ml101", "GET", "assignments/ml101").json()["assignments"]
    assert submitted.ask("ml101", "POST", "assignment/ml101/02_tensor", {"tensor.ipynb": FRESH}).ok
    assert "02_tensor" in submitted.ask("bob@ml101", "GET", "assignments/ml101").json()["assignments"]
    assert submissions(submitted) == 1


def test_withdrawing_what_nobody_submitted_removes_it(released):
    assert released.ask("ml101", "DELETE", "assignment/ml101/02_tensor").ok
    assert released.ask("ml101", "DELETE", "assignment/ml101/02_tensor").status_code == 404


def test_what_was_stored_survives_kill_9(released):
    content = json.dumps({**NOTEBOOK, "metadata": {"mine": True}}).encode()
    assert released.ask("bob@ml101", "POST", "submission/ml101/02_tensor", {"tensor.ipynb": content}).ok
    released.kill()
    released.start()
    [file] = released.ask("grace", "GET", "submission/ml101/02_tensor/bob").json()["files"]
    assert base64.b64decode(file["content"]) == content


def test_a_student_who_left_loses_access_and_the_work_stays(released):
    assert released.ask("bob@ml101", "POST", "submission/ml101/02_tensor", {"tensor.ipynb": json.dumps(NOTEBOOK).encode()}).ok
    released.kill()
    released.site["ml101"]["students"] = [person("alice")]
    released.start()
    assert released.ask("bob@ml101", "GET", "assignments/ml101").status_code == 403
    assert [s["student_id"] for s in released.ask("grace", "GET", "submissions/ml101/02_tensor").json()["submissions"]] == ["bob"]


CLIENT = """
import os, sys
os.environ["JUPYTERHUB_USER"], os.environ["JUPYTERHUB_API_TOKEN"] = sys.argv[2].split("@")[0], sys.argv[2]
sys.path.insert(0, {single_user!r})
import exchange_client
from nbgrader.auth import Authenticator
from nbgrader.coursedir import CourseDirectory
from nbgrader.exchange import ExchangeError
from traitlets.config import Config
c = Config()
exchange_client.configure(c, sys.argv[1])
c.CourseDirectory.course_id = "ml101"
c.CourseDirectory.assignment_id = "" if sys.argv[3] == "ExchangeList" else "02_tensor"
c.CourseDirectory.max_file_size, c.CourseDirectory.ignore = 20000, ["feedback"]
c.CourseDirectory.root = os.getcwd()
c.Exchange.assignment_dir = os.getcwd()
c.ExchangeReleaseAssignment.force = True
what = getattr(exchange_client, sys.argv[3])(coursedir=CourseDirectory(config=c), authenticator=Authenticator(config=c), config=c)
try:
    what.start()
except (ExchangeError, exchange_client.ExchangeTrouble) as error:
    print(error)
    sys.exit(1)
"""


def client(exchange, folder, who, what):
    """Run one of our exchange classes as nbgrader would, in the given folder."""
    code = CLIENT.format(single_user=str(paths.REPO / "hub" / "single_user"))
    return subprocess.run([sys.executable, "-c", code, exchange.url, who, what], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def work(tmp_path):
    """A student's folder with the assignment, fetched feedback and a checkpoint in it."""
    folder = tmp_path / "home" / "02_tensor"
    for name in ("feedback/2026", ".ipynb_checkpoints"):
        (folder / name).mkdir(parents=True)
        (folder / name / "old.html").write_text("not mine to send")
    (folder / "tensor.ipynb").write_text(json.dumps(NOTEBOOK))
    return folder


def test_the_client_submits_the_work_and_nothing_else(released, work):
    (work / "linked.txt").symlink_to("/etc/passwd")
    done = client(released, work.parent, "alice@ml101", "ExchangeSubmit")
    assert done.returncode == 0, done.stdout + done.stderr
    files = released.ask("grace", "GET", "submission/ml101/02_tensor/alice").json()["files"]
    assert [file["path"] for file in files] == ["tensor.ipynb"]


@pytest.mark.parametrize(("damage", "says"), [
    (lambda folder: (folder / "tensor.ipynb").write_text("{'cells'"), r"tensor\.ipynb is damaged: it is not a notebook \(line 1\)"),
    (lambda folder: (folder / "tensor.ipynb").write_bytes(b"x" * 60_000_000), r"tensor\.ipynb has 60 MB and the limit is 20 MB"),
])
def test_the_client_says_what_is_wrong_with_the_file(released, work, damage, says):
    damage(work)
    done = client(released, work.parent, "alice@ml101", "ExchangeSubmit")
    assert done.returncode == 1
    assert re.search(says, done.stdout)
    assert released.ask("grace", "GET", "submissions/ml101/02_tensor").json()["submissions"] == []


@pytest.mark.parametrize("what", ["ExchangeSubmit", "ExchangeFetchAssignment", "ExchangeList", "ExchangeCollect"])
def test_an_exchange_that_is_down_is_an_error(released, work, what):
    released.kill()
    if what == "ExchangeFetchAssignment":
        shutil.rmtree(work)
    done = client(released, work.parent, "alice@ml101", what)
    assert done.returncode == 1
    assert "the exchange cannot be reached, so nothing was changed" in done.stdout


def test_a_forced_release_keeps_submissions(submitted, tmp_path):
    """With the plain client it deletes every submission first."""
    course = tmp_path / "course"
    (course / "release" / "02_tensor").mkdir(parents=True)
    (course / "release" / "02_tensor" / "tensor.ipynb").write_text(json.dumps({**NOTEBOOK, "metadata": {"second": True}}))
    done = client(submitted, course, "ml101", "ExchangeReleaseAssignment")
    assert done.returncode == 0, done.stdout + done.stderr
    assert submissions(submitted) == 1
    assert b'"second"' in base64.b64decode(submitted.ask("bob", "GET", "assignment/ml101/02_tensor").json()["files"][0]["content"])
