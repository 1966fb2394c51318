"""The queue: whose turn it is, what a quota stops, what a lease holds, what outlives a crash, what is forgotten, what is migrated.

All of it in either database. What only a server can do, such as be away, is in test_autograder_postgres.py.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from autograder.jobs import Job, Result, Usage, Verdict, sha256
from autograder.quotas import DAY, Quota, Quotas
from autograder.service import database, metrics, status_page
from autograder.service import store as stores
from autograder.service.store import GRADE, REGRADE, STUDENT, OverQuota, Store

IMAGE = "an image"


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request):
    return "" if request.param == "sqlite" else request.getfixturevalue("jobs_address")


@pytest.fixture
def store(tmp_path, address):
    store = Store(tmp_path / "jobs.sqlite", address)
    yield store
    store.db.close()


def job(number, kind="checkpoint"):
    return Job(kind=kind, target="01" if kind != "grade" else "", inputs={"a": sha256(str(number).encode())})


def put(store, number, owner="", class_="ml", tier=STUDENT, kind="checkpoint", **more):
    files = {"a": str(number).encode()}
    return store.accept(job(number, kind), files, IMAGE, id=sha256(f"{class_}{owner}{number}".encode()), class_=class_, owner=owner,
                        tier=tier, **more)


def result(claim, verdict=Verdict.ok, **more):
    return Result(job=claim.job.id, verdict=verdict, image=IMAGE, **more)


def served(store, **options):
    """The ids in the order in which they are claimed and done."""
    ids = []
    while claim := store.claim("w", **options):
        assert store.finish(claim, result(claim))
        ids.append(claim.id)
    return ids


# --------------------------------------------------------------------------------------------- order
def test_students_take_turns_and_who_submits_much_waits(store):
    many = [put(store, n, "ann") for n in range(3)]
    one, other = put(store, 10, "bob"), put(store, 20, "cleo")
    assert served(store) == [many[0], one, other, many[1], many[2]]
    later, next_one = put(store, 3, "ann"), put(store, 11, "bob")
    assert served(store) == [next_one, later]                              # ann was served last


def test_classes_take_turns_whatever_their_size(store):
    large = [put(store, n, f"s{n}", "large") for n in range(4)]
    small = [put(store, n, "ann", "small") for n in range(2)]
    assert served(store) == [large[0], small[0], large[1], small[1], large[2], large[3]]


def test_grading_comes_before_regrading_before_students(store):
    student = put(store, 1, "ann")
    regrade, grade = put(store, 2, tier=REGRADE, kind="grade"), put(store, 3, tier=GRADE, kind="grade")
    assert served(store) == [grade, regrade, student]


@pytest.mark.parametrize("seed", range(5))
def test_the_position_shown_is_the_order_served(store, seed):
    draw = random.Random(seed)
    served(store)
    for n in range(30):
        put(store, n, draw.choice("abcd"), draw.choice(["ml", "dl"]), draw.choice([GRADE, REGRADE, STUDENT]), "checkpoint")
        if draw.random() < 0.3 and (claim := store.claim("w")):
            store.finish(claim, result(claim))
    waiting = [id for (id,) in store.ask("SELECT id FROM jobs WHERE state = 'queued'")]
    ahead = {id: store.ahead(id) for id in waiting}
    assert served(store) == sorted(waiting, key=ahead.__getitem__)
    assert sorted(ahead.values()) == list(range(len(waiting)))


def test_a_class_runs_as_many_at_a_time_as_it_may_and_grading_is_not_held_up(store, tmp_path):
    (tmp_path / "quotas.json").write_text('{"ml": {"parallel": 1}}')
    quotas = Quotas(tmp_path / "quotas.json")
    first, _, other = put(store, 1, "ann"), put(store, 2, "bob"), put(store, 3, "cleo", "dl")
    assert [store.claim("w", quotas).id, store.claim("w", quotas).id] == [first, other]
    assert store.claim("w", quotas) is None
    grade = put(store, 4, tier=GRADE, kind="grade")
    assert store.claim("w", quotas).id == grade
    (tmp_path / "quotas.json").write_text('{"ml": {"parallel": 22}}')      # read again, no restart
    assert store.claim("w", quotas).job.inputs == job(2).inputs


def test_long_trainings_leave_a_worker_to_others(store):
    put(store, 1, "ann", kind="train"), put(store, 2, "bob", kind="train")
    short = put(store, 3, "cleo")
    assert store.claim("w", None, 1).job.kind == "train"
    assert store.claim("w", None, 1).id == short
    assert store.claim("w", None, 1) is None


# --------------------------------------------------------------------------------------------- quotas
@pytest.mark.parametrize(("quota", "says"), [
    (Quota(queued=2), "you have 2 jobs waiting or running, at most 2"), (Quota(jobs_per_day=2), "submitted 2 jobs in 24 hours, at most 2")])
def test_a_quota_is_of_one_student(store, quota, says):
    for number in range(2):
        put(store, number, "ann", quota=quota)
    with pytest.raises(OverQuota, match=says):
        put(store, 3, "ann", quota=quota)
    put(store, 1, "ann", quota=quota)                                      # what is in the queue already costs nothing
    put(store, 3, "bob", quota=quota)
    put(store, 3, "ann", "other", quota=quota)


def test_cpu_time_is_counted_over_a_day_also_of_jobs_that_run_again(store):
    quota = Quota(cpu_seconds_per_day=100)
    for _ in range(2):
        put(store, 1, "ann", quota=quota)
        claim = store.claim("w")
        store.finish(claim, result(claim, Verdict.timeout, usage=Usage(cpu_seconds=60)))
    with pytest.raises(OverQuota, match="used 120 s of CPU in 24 hours, at most 100"):
        put(store, 2, "ann", quota=quota)
    assert store.used("ml", "ann", time.time() + DAY).cpu_seconds == 0


# --------------------------------------------------------------------------------------------- leases
@pytest.fixture
def later(monkeypatch):
    """Move the clock of this process on by some seconds."""
    now = time.time

    def move(seconds):
        nonlocal now
        before = now
        now = lambda: before() + seconds
        monkeypatch.setattr(stores.time, "time", now)
    return move


def test_whose_lease_is_over_has_nothing_to_say(store, later):
    put(store, 1, "ann")
    first = store.claim("dead")
    assert store.claim("other") is None
    later(stores.LEASE_SECONDS)
    second = store.claim("other")
    assert (second.id, second.attempts) == (first.id, 2)
    assert store.renew(first) == "lost"
    assert not store.finish(first, result(first, Verdict.error))
    assert store.finish(second, result(second))
    assert not store.finish(second, result(second, Verdict.error))         # once is once
    assert store.look(first.id).verdict == "ok"


def test_a_renewed_lease_keeps_the_job(store, later):
    put(store, 1, "ann")
    claim = store.claim("w")
    for _ in range(4):
        later(stores.LEASE_SECONDS / 2)
        assert store.renew(claim) == ""
        assert store.claim("other") is None


def test_who_claim_at_the_same_time_never_get_the_same_job_and_keep_to_shares(tmp_path, store, address):
    """Two processes with two connections each; a class may run 5 at once, however many ask at once."""
    for number in range(60):
        put(store, number, f"s{number % 7}")
    for number in range(20):
        put(store, number, f"s{number}", "dl")
    (tmp_path / "quotas.json").write_text('{"ml": {"parallel": 99}, "dl": {"parallel": 5}}')
    workers = [worker(tmp_path, address, """
quotas, claimed = Quotas(Path(sys.argv[1]) / "quotas.json"), []
def work(own):
    while claim := own.claim("w", quotas):
        claimed.append(claim.id)
        time.sleep(0.01)                    # or who came first would be through before the others
threads = [threading.Thread(target=work, args=(own,)) for own in (store, again())]
say("ready"); hear()
for each in threads: each.start()
for each in threads: each.join()
say(*claimed)""") for _ in range(2)]
    for each in workers:
        assert line(each) == ["ready"]
    for each in workers:
        tell(each)
    claimed = [line(each) for each in workers]
    assert all(claimed)                                                    # else nobody competed
    both = [id for ids in claimed for id in ids]
    assert len(both) == len(set(both)) == 65
    assert [(class_, n) for class_, n in store.ask("SELECT class, count(*) FROM jobs WHERE state = 'running' GROUP BY class ORDER BY class")
            ] == [("dl", 5), ("ml", 60)]


def test_kill_9_in_the_middle_of_a_change_leaves_nothing_half_done_and_holds_up_nobody(tmp_path, store, address, later):
    first, second = put(store, 1, "ann"), put(store, 2, "bob")
    killed = worker(tmp_path, address, """
claim = store.claim("killed")
with store.change() as db:
    db.execute("UPDATE jobs SET state = 'done'")
    db.execute("DELETE FROM files")
    say(claim.id)
    time.sleep(60)""")
    assert line(killed) == [first]
    assert store.state(second) == "queued"                                 # who only looks does not wait
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    begun = time.monotonic()
    assert served(store) == [second]
    assert time.monotonic() - begun < database.PATIENCE / 3
    later(stores.LEASE_SECONDS)
    claim = store.claim("other")
    assert (claim.id, claim.attempts, claim.files) == (first, 2, {"a": b"1"})


PREPARE = """
import sys, threading, time
from pathlib import Path
from autograder.service import store as stores
from autograder.quotas import Quotas
def again(): return stores.Store(Path(sys.argv[1]) / "jobs.sqlite", sys.argv[2])
def say(*words): print(*words, flush=True)
def hear(): sys.stdin.readline()
store = again()
"""


def worker(folder, address, code):
    """A process of its own with a store of its own."""
    return subprocess.Popen([sys.executable, "-c", PREPARE + code, str(folder), address], env={**os.environ, "PYTHONPATH": os.pathsep.join(
        sys.path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process):
    return process.stdout.readline().split()


def tell(process):
    process.stdin.write("\n")
    process.stdin.flush()


def test_only_faults_of_ours_are_tried_again_and_not_for_ever(store, monkeypatch):
    monkeypatch.setattr(stores, "RETRY_SECONDS", 0.0)
    put(store, 1, "ann")
    tries = []
    while claim := store.claim("w"):
        tries.append(claim.attempts)
        if not store.retry(claim):
            store.finish(claim, result(claim, Verdict.infra, sentence="the disk"))
    assert tries == [1, 2, 3]
    put(store, 2, "bob")
    for _ in range(stores.MAX_ATTEMPTS):
        store.claim("w")
        store.worker_died("w")
    assert store.claim("w") is None
    assert "given up: the autograder ended 3 times" in store.ask("SELECT result FROM jobs WHERE owner = 'bob'")[0][0]


def test_a_job_given_back_has_lost_no_attempt(store):
    put(store, 1, "ann")
    for _ in range(5):
        claim = store.claim("w")
        assert claim.attempts == 1
        store.give_back(claim)


def test_cancelled_before_it_runs_and_while_it_runs(store):
    waiting, running = put(store, 2, "ann"), put(store, 1, "bob")
    store.cancel(waiting)
    assert store.look(waiting).verdict == "cancelled"
    claim = store.claim("w")
    assert claim.id == running
    store.cancel(running)
    assert store.renew(claim) == "cancelled"
    store.worker_died("w")                                                 # before it could say so
    assert store.claim("w") is None
    assert store.look(running).verdict == "cancelled"


# --------------------------------------------------------------------------------------------- what stays, what goes
def test_finished_jobs_are_forgotten_after_their_classs_days(store, tmp_path):
    (tmp_path / "quotas.json").write_text('{"ml": {"keep_days": 2}, "dl": {"keep_days": 9}}')
    quotas = Quotas(tmp_path / "quotas.json")
    old, kept, waiting = put(store, 1, "ann"), put(store, 1, "ann", "dl"), put(store, 2, "ann")
    for _ in range(2):
        claim = store.claim("w")
        store.log_file(claim.id).write_text("x")
        store.finish(claim, result(claim))
    assert (store.look(old).state, store.look(waiting).state) == ("done", "queued")
    assert store.forget(quotas) == 0
    assert store.forget(quotas, time.time() + 3 * DAY) == 1
    assert store.look(old) is None
    assert (store.files(old), store.log_file(old).exists()) == ({}, False)
    assert (store.look(kept).state, store.look(waiting).state) == ("done", "queued")
    assert store.files(waiting)


def test_a_students_files_are_kept_to_verify_and_a_submission_is_not(store):
    mine, graded = put(store, 1, "ann"), put(store, 2, tier=GRADE, kind="grade")
    served(store)
    assert store.files(mine) == {"a": b"1"}
    assert store.files(graded) == {}


OLD = """
CREATE TABLE jobs (id TEXT PRIMARY KEY, job TEXT NOT NULL, state TEXT NOT NULL, result TEXT,
                   attempts INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, changed REAL NOT NULL);
CREATE TABLE files (job TEXT NOT NULL REFERENCES jobs, path TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (job, path));
CREATE INDEX jobs_by_state ON jobs (state, created);
"""


def test_what_prometheus_and_the_status_page_show_is_in_the_database(store):
    for number in range(3):
        put(store, number, "ann")
    for verdict in (Verdict.ok, Verdict.timeout):
        claim = store.claim("w")
        store.finish(claim, result(claim, verdict, sentence="a byte \0 of a student's", outputs={"x": bytes(range(256))}))
    assert store.look(claim.id).sentence == "a byte \ufffd of a student's"
    assert store.result(claim.id).outputs == {"x": bytes(range(256))}
    store.claim("w")
    shown = metrics.text(store, 4).decode()
    for wanted in ('autograder_jobs_total{class="ml",kind="checkpoint",verdict="ok"} 1.0', "autograder_busy_workers 1.0",
                   'autograder_run_seconds_bucket{kind="checkpoint",le="0.1"} 2.0', 'autograder_run_seconds_count{kind="checkpoint"} 2.0'):
        assert wanted in shown
    page = status_page.page(store, 4)
    assert "<p>1 of 4 workers are busy. " in page
    assert "<td>checkpoint<td>ml<td>timeout<td class=number>1" in page
    store.accept(job(1), {"a": b"1"}, IMAGE, id=claim.id)                  # ended badly: it runs again, as if it were new
    assert (store.look(claim.id).sentence, store.look(claim.id).attempts, store.result(claim.id)) == ("", 0, None)


def test_the_status_page_says_why_jobs_wait(store, monkeypatch):
    monkeypatch.setenv("AUTOGRADER_SANDBOX", "<none>")
    page = status_page.page(store, 4)
    assert "Jobs wait, because student code cannot be isolated: AUTOGRADER_SANDBOX is &#x27;&lt;none&gt;&#x27;" in page
    assert [status_page.duration(seconds) for seconds in (0.4, 119, 120, 7199, 7261)] == ["0 s", "119 s", "2 min", "119 min", "2 h 1 min"]


def test_a_store_of_the_first_version_is_taken_over_whole(tmp_path, address):
    """As the service before owners and classes left it, killed in the middle of a job."""
    path, jobs = tmp_path / "jobs.sqlite", [job(number, "grade") for number in range(3)]
    with sqlite3.connect(path) as db:
        db.executescript(OLD)
        for number, (one, state) in enumerate(zip(jobs, ("done", "running", "queued"), strict=True)):
            text = json.loads(one.model_dump_json())
            del text["target"]                                             # there were none
            kept = Result(job=one.id, verdict=Verdict.ok, image=IMAGE).model_dump_json() if state == "done" else None
            db.execute("INSERT INTO jobs VALUES (?, ?, ?, ?, 1, ?, ?)", (one.id, json.dumps(text), state, kept, number, number))
            db.execute("INSERT INTO files VALUES (?, 'a', ?)", (one.id, str(number).encode()))
    db.close()
    for _ in range(2):                                                     # the second time there is nothing to do
        store = Store(path, address)
        assert [store.look(one.id).state for one in jobs] == ["done", "queued", "queued"]
        assert store.look(jobs[0].id).verdict == "ok"
    claim = store.claim("w")
    assert (claim.id, claim.job, claim.files) == (jobs[1].id, jobs[1], {"a": b"1"})
    assert served(store) == [jobs[2].id]


def test_a_store_of_a_newer_version_is_left_alone(tmp_path, store, address):
    put(store, 1, "ann")
    with store.change() as db:
        store.db.note_version(db, 99)
    with pytest.raises(OSError, match="version 99"):
        Store(tmp_path / "jobs.sqlite", address)
    assert store.count() == {"queued": 1}


# --------------------------------------------------------------------------------------------- from a file to a server
def test_a_site_that_takes_a_server_takes_its_jobs_along(tmp_path, jobs_address):
    """In whatever state they are, and whose turn it is: the rest is served in the order in which a copy of the file serves it."""
    file = tmp_path / "jobs.sqlite"
    before = Store(file)
    for number in range(12):
        put(before, number, "abc"[number % 3], ["ml", "dl"][number % 2])
    served_before = [before.claim("w") for _ in range(5)]
    for claim in served_before[:3]:
        before.finish(claim, result(claim, usage=Usage(cpu_seconds=2.5)))
    before.keep(served_before[3], {"weights": bytes(range(256)) * 100})
    with before.change() as db:                                            # as old versions of a file may have it
        db.execute("INSERT INTO files VALUES ('of no job', 'a', ?)", (b"",))
    before.worker_died("w")
    (tmp_path / "copy").mkdir()
    with sqlite3.connect(tmp_path / "copy" / "jobs.sqlite") as copy:
        before.db.db.backup(copy)
    copy.close()
    before.db.close()
    twin = Store(tmp_path / "copy" / "jobs.sqlite")
    for _ in range(2):
        moved = Store(file, jobs_address)
        for question in ("SELECT * FROM jobs ORDER BY id", "SELECT * FROM kept", "SELECT * FROM turns ORDER BY tier, class, owner",
                         "SELECT * FROM spent ORDER BY at, jobs", "SELECT * FROM tally ORDER BY class", "SELECT * FROM durations",
                         "SELECT * FROM files WHERE job != 'of no job' ORDER BY job"):
            assert moved.ask(question) == twin.ask(question) != []
        assert not file.exists()
        assert file.with_name("jobs.sqlite.moved").stat().st_mode & 0o777 == 0o600
    for owner in "abc":
        assert moved.used("ml", owner, time.time()) == twin.used("ml", owner, time.time())
    rest = [claim for claim in iter(lambda: twin.claim("w"), None)]
    assert [(claim.id, claim.files, claim.before) for claim in rest] == [
        (claim.id, claim.files, claim.before) for claim in iter(lambda: moved.claim("w"), None)]
    assert {"weights": bytes(range(256)) * 100} in [claim.before for claim in rest]
