"""The queue: whose turn it is, what a quota stops, what a lease holds, what outlives a crash, what is forgotten, what is migrated."""

import json
import random
import sqlite3
import threading
import time

import pytest

from autograder import store as stores
from autograder.jobs import Job, Result, Usage, Verdict, sha256
from autograder.quotas import DAY, Quota, Quotas
from autograder.store import GRADE, REGRADE, STUDENT, OverQuota, Store

IMAGE = "an image"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "jobs.sqlite")


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
def test_whose_lease_is_over_has_nothing_to_say(store, monkeypatch):
    monkeypatch.setattr(stores, "LEASE_SECONDS", 0.05)
    put(store, 1, "ann")
    first = store.claim("dead")
    assert store.claim("other") is None
    time.sleep(0.06)
    second = store.claim("other")
    assert (second.id, second.attempts) == (first.id, 2)
    assert store.renew(first) == "lost"
    assert not store.finish(first, result(first, Verdict.error))
    assert store.finish(second, result(second))
    assert not store.finish(second, result(second, Verdict.error))         # once is once
    assert store.look(first.id).verdict == "ok"


def test_a_renewed_lease_keeps_the_job(store, monkeypatch):
    monkeypatch.setattr(stores, "LEASE_SECONDS", 0.2)
    put(store, 1, "ann")
    claim = store.claim("w")
    for _ in range(4):
        time.sleep(0.1)
        assert store.renew(claim) == ""
        assert store.claim("other") is None


def test_two_processes_never_claim_the_same_job(tmp_path, store):
    for number in range(60):
        put(store, number, f"s{number % 7}")
    claimed, stores_ = [], [Store(tmp_path / "jobs.sqlite") for _ in range(4)]

    def work(own):
        while claim := own.claim("w"):
            claimed.append(claim.id)

    threads = [threading.Thread(target=work, args=(own,)) for own in stores_]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claimed) == len(set(claimed)) == 60


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


def test_a_store_of_the_first_version_is_taken_over_whole(tmp_path):
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
        store = Store(path)
        assert [store.look(one.id).state for one in jobs] == ["done", "queued", "queued"]
        assert store.look(jobs[0].id).verdict == "ok"
    claim = store.claim("w")
    assert (claim.id, claim.job, claim.files) == (jobs[1].id, jobs[1], {"a": b"1"})
    assert served(store) == [jobs[2].id]


def test_a_store_of_a_newer_version_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OSError, match="version 99"):
        Store(tmp_path / "jobs.sqlite")
