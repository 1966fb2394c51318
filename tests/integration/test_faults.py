"""Damaged work, closed doors, killed processes and a full disk: a clear message, nothing lost, all works afterwards."""

import base64
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import threading
import time

import pytest
import requests

from hub import paths
from tests.conftest import CLOSED, isolation
from tests.integration.conftest import succeeded
from tests.need import need
from tests.running import Site, solve

pytestmark = pytest.mark.site
ASSIGNMENT, FILE = CLOSED, "activations.ipynb"        # closed in ml201, open in ml101
SOURCE = paths.BUILD / "source" / ASSIGNMENT / FILE


@pytest.fixture(scope="module")
def released(loop):
    """The assignment is released in both classes and fetched by everybody."""
    for class_, teacher in loop.teachers.items():
        succeeded(teacher.formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/assign"))
        succeeded(teacher.formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/release"))
        for person in loop.students[class_].values():
            assert person.act(class_, "fetch", ASSIGNMENT)["success"]
    return loop


@pytest.fixture
def bob(released):
    """bob in ml101, whose notebook is put back afterwards."""
    person = released.students["ml101"]["bob"]
    notebook = person.notebook("ml101", ASSIGNMENT)
    before = notebook.read_bytes()
    yield person
    notebook.write_bytes(before)


@pytest.fixture(scope="module")
def token(released):
    return released.students["ml101"]["bob"].token("ml101")


def said(outcome):
    """The reason of a failure as people read it, in one line."""
    assert not outcome["success"], outcome
    text = " ".join(str(outcome.get("value") or f"{outcome['error']} {outcome['log']}").split())
    assert text
    assert "Traceback" not in text
    return text


def ask(site, token, method, path, **data):
    return requests.request(method, f"{site.url}/services/ngshare/{path}", headers={"Authorization": f"token {token}"},
                            data=data or None, timeout=60)


def stored(site, name="bob", assignment=ASSIGNMENT, known=None):
    """Every submission of that student as the exchange keeps it: timestamp -> content of the notebook, all of it readable.
    Those that are `known` already are only listed."""
    teacher, found = site.secret("service:ml101"), {}
    listed = ask(site, teacher, "GET", f"submissions/ml101/{assignment}/{name}")
    assert listed.ok, listed.text
    for timestamp in (each["timestamp"] for each in listed.json()["submissions"]):
        if known is None or timestamp not in known:
            answer = requests.get(f"{site.url}/services/ngshare/submission/ml101/{assignment}/{name}", params={"timestamp": timestamp},
                                  headers={"Authorization": f"token {teacher}"}, timeout=60)
            [file] = answer.json()["files"]
            found[timestamp] = base64.b64decode(file["content"])
        else:
            found[timestamp] = known[timestamp]
    return found


def in_background(work):
    """Start work(); the returned function waits for it and returns what it returned, or the error that it raised."""
    outcome = []

    def run():
        try:
            outcome.append(work())
        except (requests.RequestException, ValueError) as error:      # no answer at all, or a page where JSON was expected
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def finished():
        thread.join(timeout=150)
        assert outcome, "no answer within 150 s"
        return outcome[0]
    return finished


# --------------------------------------------------------------------------------------------- damaged notebooks
@pytest.mark.parametrize(("damage", "says"), [
    (lambda file: file.write_text("{'cells'"), "activations.ipynb is damaged: it is not a notebook (line 1)"),
    (lambda file: file.write_text('{"cells": 3}'), "activations.ipynb is damaged: it has no cells"),
    (lambda file: file.write_bytes(b" " * 60_000_000), "activations.ipynb has 60 MB and the limit is 20 MB"),
    (lambda file: file.unlink(), "There is no file in this submission")])
def test_what_cannot_be_handed_in_is_said_and_not_stored(bob, damage, says):
    before = stored(bob.site)
    damage(bob.files("ml101") / "modules" / "source" / ASSIGNMENT / FILE)
    assert says.lower() in said(bob.act("ml101", "submit", ASSIGNMENT)).lower()
    assert stored(bob.site) == before


def test_the_exchange_itself_refuses_what_is_too_large(bob, token):
    """Around the client: an upload of 30 MB through the proxy."""
    before = stored(bob.site)
    files = json.dumps([{"path": FILE, "content": base64.b64encode(b" " * 30_000_000).decode()}])
    refused = ask(bob.site, token, "POST", f"submission/ml101/{ASSIGNMENT}", files=files)
    assert refused.status_code == 413
    assert "has 30 MB and the limit is 20 MB" in refused.json()["message"]
    assert stored(bob.site) == before


def rows(teacher):
    return {row["student"]: row for row in teacher.formgrader("ml101", "GET", f"submissions/{ASSIGNMENT}").json()}


def test_cells_that_were_deleted_or_copied_cost_nothing(released, bob):
    """alice: cells deleted and copied, all solved; bob: a list of cells that are none. Each gets what is theirs."""
    teacher, alice = released.teachers["ml101"], released.students["ml101"]["alice"]
    notebook = alice.notebook("ml101", ASSIGNMENT)
    solve(notebook, SOURCE)
    document = json.loads(notebook.read_text())
    cells = {cell["metadata"].get("nbgrader", {}).get("grade_id"): cell for cell in document["cells"]}
    for name in ("test-relu-example", "imports", "softmax-todo"):
        document["cells"].remove(cells[name])
    document["cells"].insert(3, json.loads(json.dumps(cells["relu"])))
    document["cells"].append(json.loads(json.dumps(cells["test-sigmoid-limits"])))
    notebook.write_text(json.dumps(document))
    bob.notebook("ml101", ASSIGNMENT).write_text(json.dumps({"cells": [42, {"cell_type": "code"}, {"source": 7, "metadata": []}]}))
    for person in (alice, bob):
        assert person.act("ml101", "submit", ASSIGNMENT)["success"]
    succeeded(teacher.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/collect"))
    for person in (bob, alice):
        succeeded(teacher.formgrader("ml101", "POST", f"submission/{ASSIGNMENT}/{person.name}/autograde"))
    graded = rows(teacher)
    assert graded["alice"]["code_score"] == graded["alice"]["max_code_score"] > 0
    assert graded["bob"]["code_score"] == 0
    notes = (paths_of(released.site) / "autograded" / "alice" / ASSIGNMENT / FILE).read_text()
    assert "Cell `test-relu-example` was missing; the instructor's copy was used" in notes


def paths_of(site):
    return site.state / "classes" / "ml101"


@pytest.mark.parametrize(("content", "says"), [
    (b"{'cells'", "activations.ipynb is not a notebook"), (b" " * 60_000_000, "activations.ipynb has 57 MB, at most 20 MB are graded"),
    (b'{"cells": "none"}', "it has no list of cells")])
def test_a_damaged_file_is_named_and_stops_nobody_else(released, bob, content, says):
    """The file is damaged where the exchange does not look: in the course, after it was collected."""
    teacher = released.teachers["ml101"]
    solve(bob.notebook("ml101", ASSIGNMENT), SOURCE)
    assert bob.act("ml101", "submit", ASSIGNMENT)["success"]
    succeeded(teacher.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/collect"))
    collected = paths_of(released.site) / "submitted" / "bob" / ASSIGNMENT / FILE
    whole = collected.read_bytes()
    collected.write_bytes(content)
    reason = said(teacher.formgrader("ml101", "POST", f"submission/{ASSIGNMENT}/bob/autograde").json())
    assert f"bob, {ASSIGNMENT} was not graded" in reason
    assert says in reason
    collected.write_bytes(whole)
    succeeded(teacher.formgrader("ml101", "POST", f"submission/{ASSIGNMENT}/bob/autograde"))
    assert rows(teacher)["bob"]["code_score"] == rows(teacher)["bob"]["max_code_score"]


# --------------------------------------------------------------------------------------------- closed and unknown
def test_an_unknown_assignment_and_one_that_is_not_released(bob):
    (bob.files("ml101") / "modules" / "source" / "09_spatial").mkdir()
    try:
        assert "there is no such assignment in this class" in said(bob.act("ml101", "submit", "09_spatial")).lower()
    finally:
        (bob.files("ml101") / "modules" / "source" / "09_spatial").rmdir()
    assert "there is no such assignment in this class" in said(bob.act("ml101", "fetch", "09_spatial")).lower()
    assert "Assignment not found" in said(bob.act("ml101", "submit", "99_nothing"))
    assert not (bob.files("ml101") / "modules" / "source" / "09_spatial").exists()


def test_a_closed_assignment_takes_nothing(released):
    carol = released.students["ml201"]["carol"]
    assert f"{ASSIGNMENT} closed on 2025-01-31 at 23:59" in said(carol.act("ml201", "submit", ASSIGNMENT))
    header = {"Authorization": f"token {released.site.secret('service:ml201')}"}
    listed = requests.get(f"{released.site.url}/services/ngshare/submissions/ml201/{ASSIGNMENT}", headers=header, timeout=30)
    assert listed.json()["submissions"] == []


def test_two_submissions_at_once_from_the_page(bob):
    before = stored(bob.site)
    finished = [in_background(lambda: bob.act("ml101", "submit", ASSIGNMENT)) for _ in range(2)]
    assert all(each()["success"] for each in finished)
    assert len(stored(bob.site)) == len(before) + 2


# --------------------------------------------------------------------------------------------- the exchange stops
def test_an_exchange_that_is_stopped_is_said_and_nothing_is_lost(bob):
    site, before = bob.site, stored(bob.site)
    work = bob.notebook("ml101", ASSIGNMENT).read_bytes()
    site.supervisor("stop", "exchange")
    try:
        assert "the exchange is not running, so nothing was changed" in said(bob.act("ml101", "submit", ASSIGNMENT)).lower()
        assert "the exchange is not running" in said(bob.assignments("ml101")).lower()
    finally:
        site.supervisor("start", "exchange")
    site.wait("/services/ngshare/healthz")
    assert bob.notebook("ml101", ASSIGNMENT).read_bytes() == work
    assert stored(site) == before
    assert bob.act("ml101", "submit", ASSIGNMENT)["success"]
    assert len(stored(site)) == len(before) + 1


def marked(person, number):
    """Make the notebook different from every one before, and some megabytes large, so that handing it in takes a moment."""
    notebook = person.notebook("ml101", ASSIGNMENT)
    document = json.loads(notebook.read_text())
    document["cells"] = document["cells"][:60]
    document["cells"].append({"cell_type": "markdown", "id": f"mark{number}", "metadata": {}, "source": f"{number} " + "x" * 4_000_000})
    notebook.write_text(json.dumps(document))
    return notebook.read_bytes()


@pytest.mark.parametrize(("program", "times"), [("exchange", 5), ("hub", 3)])
def test_kill_9_while_work_is_handed_in(bob, program, times):
    """At random moments: success, and the work is there; or an error in words, and what is stored is whole."""
    site = bob.site
    marked(bob, -1)
    begun = time.monotonic()
    assert bob.act("ml101", "submit", ASSIGNMENT)["success"]
    usual, before = time.monotonic() - begun, stored(site)
    for number in range(times):
        work = marked(bob, number)
        finished, moment = in_background(lambda: bob.act("ml101", "submit", ASSIGNMENT)), random.uniform(0, usual)
        time.sleep(moment)
        os.kill(site.pid(program), signal.SIGKILL)
        outcome = finished()
        recovered(site)
        after = stored(site, known=before)
        context = f"killed after {moment:.3f} of {usual:.3f} s: {outcome}"
        assert set(before) <= set(after), context
        fresh = [content for when, content in after.items() if when not in before]
        assert fresh in ([], [work]), context
        if isinstance(outcome, dict) and (outcome["success"] or "was submitted" in said(outcome)):
            assert fresh == [work], context
        elif isinstance(outcome, dict):
            assert re.search("exchange (is not running|cannot be reached)|hub (did|does) not answer", said(outcome), re.I), context
        before = after
    assert bob.act("ml101", "submit", ASSIGNMENT)["success"]
    after = stored(site)
    assert len(after) == len(before) + 1
    assert {when: after[when] for when in before} == before


def recovered(site):
    """Wait until the supervisor has brought back what was killed."""
    site.wait("/services/ngshare/healthz")
    site.wait("/hub/health")


def test_kill_9_of_the_hub_during_a_release(released, token):
    """Afterwards it is released whole or not at all, and releasing again makes it so."""
    site, teacher, name = released.site, released.teachers["ml101"], "01_setup"
    succeeded(teacher.formgrader("ml101", "POST", f"assignment/{name}/assign"))
    for _ in range(2):
        finished, moment = in_background(lambda: teacher.formgrader("ml101", "POST", f"assignment/{name}/release")), random.uniform(0, 0.3)
        time.sleep(moment)
        os.kill(site.pid("hub"), signal.SIGKILL)
        outcome = finished()
        recovered(site)
        there = ask(site, token, "GET", f"assignment/ml101/{name}")
        context = f"killed after {moment:.3f} s: {getattr(outcome, 'text', outcome)}, now {there.status_code}"
        assert there.status_code in (200, 404), context
        if not isinstance(outcome, Exception) and outcome.ok and outcome.json()["success"]:
            assert there.status_code == 200, context
        if there.status_code == 404:
            succeeded(teacher.formgrader("ml101", "POST", f"assignment/{name}/release"))
            there = ask(site, token, "GET", f"assignment/ml101/{name}")
        files = {file["path"]: base64.b64decode(file["content"]) for file in there.json()["files"]}
        on_disk = {file.name: file.read_bytes() for file in (paths_of(site) / "release" / name).iterdir()}
        assert files == on_disk, context
        succeeded(teacher.formgrader("ml101", "POST", f"assignment/{name}/unrelease"))


def test_kill_9_of_the_autograder_while_it_grades(released, bob):
    """The job is done again by the next one, and the mark is the same."""
    site, teacher = released.site, released.teachers["ml101"]
    solve(bob.notebook("ml101", ASSIGNMENT), SOURCE)
    document = json.loads(bob.notebook("ml101", ASSIGNMENT).read_text())
    relu = next(cell for cell in document["cells"] if cell["metadata"].get("nbgrader", {}).get("grade_id") == "relu")
    relu["source"] = "".join(relu["source"]) + f"\nimport time\ntime.sleep(3)  # {time.time_ns()}\n"
    bob.notebook("ml101", ASSIGNMENT).write_text(json.dumps(document))
    assert bob.act("ml101", "submit", ASSIGNMENT)["success"]
    succeeded(teacher.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/collect"))
    finished = in_background(lambda: teacher.formgrader("ml101", "POST", f"submission/{ASSIGNMENT}/bob/autograde"))
    deadline = time.monotonic() + 60
    while not running_jobs(site) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_jobs(site)
    time.sleep(1)
    os.kill(site.pid("autograder"), signal.SIGKILL)
    succeeded(finished())
    assert rows(teacher)["bob"]["code_score"] == rows(teacher)["bob"]["max_code_score"]


def running_jobs(site):
    with sqlite3.connect(f"file:{site.state / 'autograder' / 'jobs.sqlite'}?mode=ro", uri=True) as database:
        return database.execute("SELECT count(*) FROM jobs WHERE state = 'running'").fetchone()[0]


# --------------------------------------------------------------------------------------------- a full disk
class Disk:
    """A small file system of its own in memory, whose size can be changed."""

    def __init__(self, folder):
        self.folder = folder
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=420m", "tmpfs", str(folder)], check=True)

    def resize(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True)

    def fill(self):
        """Leave no room at all: the size becomes what is used."""
        usage = os.statvfs(self.folder)
        self.resize((usage.f_blocks - usage.f_bfree) * usage.f_frsize)

    def free(self):
        self.resize("420m")

    def unmount(self):
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    need("root", os.geteuid() == 0, "a small disk can be mounted by root only")
    need("bubblewrap", not isolation(), isolation())
    small = Disk(tmp_path)
    yield small
    small.unmount()


def test_a_full_disk_is_said_and_nothing_is_lost(disk):
    """The site's whole state lies on it: homes, exchange, gradebook, the hub's database."""
    one_class = lambda text: text.partition("  - id: ml201")[0]
    site = Site(disk.folder, change=one_class)
    try:
        site.up()
        grace, alice = site.person("grace"), site.person("alice")
        succeeded(grace.formgrader("ml101", "POST", "assignment/01_setup/assign"))
        succeeded(grace.formgrader("ml101", "POST", "assignment/01_setup/release"))
        alice.start("ml101")
        token = alice.token("ml101")
        assert alice.act("ml101", "fetch", "01_setup")["success"]
        assert alice.act("ml101", "submit", "01_setup")["success"]
        before, kept = stored(site, "alice", "01_setup"), files_of(site)

        disk.fill()
        assert "there is no room left on the disk, so nothing was sent" in said(alice.act("ml101", "submit", "01_setup")).lower()
        work = base64.b64encode(json.dumps({"cells": [], "padding": "x" * 3_000_000}).encode()).decode()
        direct = ask(site, token, "POST", "submission/ml101/01_setup", files=json.dumps([{"path": "setup.ipynb", "content": work}]))
        assert direct.status_code == 507, direct.text
        assert "the exchange's disk is full: tell your admin; nothing was stored" in direct.json()["message"]
        outcome = grace.formgrader("ml101", "POST", "assignment/01_setup/collect").json()
        assert outcome["success"] or "no room left on the disk" in said(outcome).lower(), outcome
        disk.free()

        assert stored(site, "alice", "01_setup") == before
        assert files_of(site) == kept
        assert alice.act("ml101", "submit", "01_setup")["success"]
        assert len(stored(site, "alice", "01_setup")) == len(before) + 1
        assert site.person("bob").signed_in.status_code == 302
        succeeded(grace.formgrader("ml101", "POST", "assignment/01_setup/collect"))
        succeeded(grace.formgrader("ml101", "POST", "submission/01_setup/alice/autograde"))
    finally:
        disk.free()
        site.down()


def files_of(site):
    return sorted(file.name for file in (site.state / "exchange" / "files").iterdir())
