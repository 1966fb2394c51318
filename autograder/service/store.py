"""The queue and its results in a database: what was accepted survives any crash and is done, once.

A worker holds a job by a lease that it renews while it runs it. Who ends without a word lets the lease run out, and the next
one starts the job again; a result is taken only from who holds the lease, so nothing that is finished is done twice.
"""

import os
import time
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.jobs import Job, Result, Usage, Verdict
from autograder.quotas import DAY, Quota, Quotas, Used
from autograder.service import database, schema
from autograder.service.database import Change

GRADE, REGRADE, STUDENT = range(3)      # tiers: who is served first
MAX_ATTEMPTS = 3
LEASE_SECONDS = 20.0
RETRY_SECONDS = 2.0                     # before the second attempt after a fault of ours; twice as long before each further one
BOUNDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, float("inf"))
ADDRESS = "AUTOGRADER_DATABASE"         # in the environment: PostgreSQL's, without a password; SQLite where there is none
COLUMNS = "id, job, kind, class, owner, tier, state, verdict, sentence, attempts, created, started, changed, verifies"


class OverQuota(Exception):
    """The owner's quota is used up. The message is for the owner."""


@dataclass(frozen=True)
class Entry:
    """A job in the queue, whose it is and how far it is."""

    id: str
    job: Job
    kind: str
    class_: str
    owner: str
    tier: int
    state: str
    verdict: str | None
    sentence: str
    attempts: int
    created: float
    started: float | None
    changed: float
    verifies: str | None


@dataclass(frozen=True)
class Claim:
    """A job that is this worker's until the lease runs out."""

    id: str
    job: Job
    files: dict[str, bytes]
    lease: str
    attempts: int
    before: dict[str, bytes]            # what an interrupted run has left to go on from


class Store:
    """Safe to use from several threads and several processes. Raises database.Unavailable where the database does not answer."""

    def __init__(self, file: Path, address: str = "") -> None:
        """In that file, or at that address of PostgreSQL. Logs of jobs are beside the file in either case."""
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.logs = file.parent / "logs"
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self.db = database.at(file, address)
        schema.prepare(self.db, file)

    def change(self) -> AbstractContextManager[Change]:
        """One transaction, alone among all processes."""
        return self.db.change()

    def ask(self, question: str, *values: Any) -> list[tuple]:
        return self.db.ask(question, *values)

    # ------------------------------------------------------------------------------------------ in
    def accept(self, job: Job, files: Mapping[str, bytes], image: str, *, id: str = "", class_: str = "", owner: str = "",
               tier: int = GRADE, quota: Quota | None = None, verifies: str | None = None) -> str:
        """Queue a job unless it is there already; returns its id. One that is done runs again when it ended badly or under
        another image. OverQuota when the owner's quota is used up."""
        now, id = time.time(), id or job.id
        with self.change() as db:
            row = db.execute("SELECT state, result FROM jobs WHERE id = ?", (id,)).fetchone()
            if row and (row[0] != "done" or _still_good(row[1], image)):
                return id
            if quota and (exhausted := self.used(class_, owner, now).exhausted(quota)):
                raise OverQuota(exhausted)
            for table, column in (("files", "job"), ("kept", "job"), ("jobs", "id")) if row else ():
                db.execute(f"DELETE FROM {table} WHERE {column} = ?", (id,))
            db.execute("INSERT INTO jobs (id, job, kind, class, owner, tier, state, created, changed, verifies)"
                       " VALUES (?, ?, ?, ?, ?, ?, 'queued', ?, ?, ?)",
                       (id, job.model_dump_json(), job.kind, class_, owner, tier, now, now, verifies))
            db.executemany("INSERT INTO files (job, path, content) VALUES (?, ?, ?)",
                           [(id, path, content) for path, content in files.items()])
            db.execute("INSERT INTO spent VALUES (?, ?, ?, 1, 0)", (class_, owner, now))
            self.log_file(id).unlink(missing_ok=True)
        return id

    def used(self, class_: str, owner: str, now: float) -> Used:
        jobs, cpu = self.ask("SELECT coalesce(sum(jobs), 0), coalesce(sum(cpu), 0) FROM spent WHERE class = ? AND owner = ? AND at > ?",
                             class_, owner, now - DAY)[0]
        [(queued,)] = self.ask("SELECT count(*) FROM jobs WHERE class = ? AND owner = ? AND state != 'done'", class_, owner)
        return Used(jobs=jobs, cpu_seconds=cpu, queued=queued)

    # ------------------------------------------------------------------------------------------ run
    def claim(self, worker: str = "", quotas: Quotas | None = None, trainings: int = 1000) -> Claim | None:
        """Whose turn it is: tiers in order, in a tier the class and in it the owner who has waited longest since their last turn.

        At most `trainings` jobs of kind train run at once, so that long jobs never hold all workers.
        """
        with self.change() as db:
            while row := self._next(db, time.time(), quotas, trainings):
                id, job_json, class_, owner, tier, attempts, cancel = row
                job, now = Job.model_validate_json(job_json), time.time()
                if cancel:
                    self._done(db, id, Result(job=job.id, verdict=Verdict.cancelled, inputs=job.inputs), now)
                    continue
                if attempts >= MAX_ATTEMPTS:
                    self._done(db, id, Result(job=job.id, verdict=Verdict.infra, inputs=job.inputs, sentence=(
                        f"given up: the autograder ended {attempts} times while it ran this job")), now)
                    continue
                lease = f"{worker}:{uuid.uuid4().hex}"
                db.execute("UPDATE jobs SET state = 'running', attempts = attempts + 1, started = ?, changed = ?,"
                           " lease = ?, lease_until = ? WHERE id = ?", (now, now, lease, now + LEASE_SECONDS, id))
                db.executemany("INSERT INTO turns VALUES (?, ?, ?, ?) ON CONFLICT (tier, class, owner)"
                               " DO UPDATE SET served = excluded.served", {(tier, class_, "", now), (tier, class_, owner, now)})
                files = db.execute("SELECT path, content FROM files WHERE job = ?", (id,)).fetchall()
                before = db.execute("SELECT path, content FROM kept WHERE job = ?", (id,)).fetchall()
                return Claim(id, job, dict(files), lease, attempts + 1, dict(before))
        return None

    def _next(self, db: Change, now: float, quotas: Quotas | None, trainings: int) -> tuple | None:
        running = db.execute("SELECT class, kind, count(*) FROM jobs WHERE state = 'running' AND lease_until >= ? AND tier = ?"
                             " GROUP BY class, kind", (now, STUDENT)).fetchall()
        classes = {name for name, _, _ in running}
        full = sorted(name for name in classes if quotas and sum(n for c, _, n in running if c == name) >= quotas.of(name).parallel)
        no_training = sum(n for _, kind, n in running if kind == "train") >= trainings
        over = f" AND NOT (jobs.tier = ? AND jobs.class IN ({','.join('?' * len(full))}))" if full else ""
        return db.execute(
            "SELECT id, job, jobs.class, jobs.owner, jobs.tier, attempts, cancel FROM jobs"
            " LEFT JOIN turns AS c ON c.tier = jobs.tier AND c.class = jobs.class AND c.owner = ''"
            " LEFT JOIN turns AS o ON o.tier = jobs.tier AND o.class = jobs.class AND o.owner = jobs.owner"
            " WHERE ((state = 'queued' AND not_before <= ?) OR (state = 'running' AND lease_until < ?))"
            f"{over} AND NOT (? AND kind = 'train')"
            " ORDER BY jobs.tier, coalesce(c.served, 0), coalesce(o.served, 0), created LIMIT 1",
            (now, now, *((STUDENT, *full) if full else ()), no_training)).fetchone()

    def renew(self, claim: Claim) -> str:
        """Hold a job longer. Returns "" while it is ours, else why it is to be stopped: "cancelled" or "lost"."""
        with self.change() as db:
            row = db.execute("SELECT cancel FROM jobs WHERE id = ? AND lease = ? AND state = 'running'", (claim.id, claim.lease)).fetchone()
            if row is None:
                return "lost"
            db.execute("UPDATE jobs SET lease_until = ? WHERE id = ?", (time.time() + LEASE_SECONDS, claim.id))
            return "cancelled" if row[0] else ""

    def keep(self, claim: Claim, files: Mapping[str, bytes]) -> None:
        """What the job can go on from, all of it at once, until it is finished."""
        with self.change() as db:
            if db.execute("SELECT 1 FROM jobs WHERE id = ? AND lease = ? AND state = 'running'", (claim.id, claim.lease)).fetchone():
                db.execute("DELETE FROM kept WHERE job = ?", (claim.id,))
                db.executemany("INSERT INTO kept (job, path, content) VALUES (?, ?, ?)",
                               [(claim.id, path, content) for path, content in files.items()])

    def finish(self, claim: Claim, result: Result) -> bool:
        """Write the result down; of a grade job forget the files, whose hashes are in it. False when the lease is another's by now."""
        with self.change() as db:
            if not db.execute("SELECT 1 FROM jobs WHERE id = ? AND lease = ? AND state = 'running'", (claim.id, claim.lease)).fetchone():
                return False
            self._done(db, claim.id, result, time.time())
            return True

    def _done(self, db: Change, id: str, result: Result, now: float) -> None:
        kind, class_, owner, started = db.execute("SELECT kind, class, owner, started FROM jobs WHERE id = ?", (id,)).fetchone()
        db.execute("UPDATE jobs SET state = 'done', result = ?, verdict = ?, sentence = ?, changed = ?, lease = '' WHERE id = ?",
                   (result.model_dump_json(), str(result.verdict), result.sentence.replace("\0", "\ufffd"), now, id))
        db.execute("DELETE FROM kept WHERE job = ?", (id,))
        if kind == "grade" or not owner:
            db.execute("DELETE FROM files WHERE job = ?", (id,))
        db.execute("INSERT INTO spent VALUES (?, ?, ?, 0, ?)", (class_, owner, now, result.usage.cpu_seconds))
        db.execute("INSERT INTO tally VALUES (?, ?, ?, 1) ON CONFLICT (kind, class, verdict) DO UPDATE SET count = tally.count + 1",
                   (kind, class_, str(result.verdict)))
        if started:
            bound = next(bound for bound in BOUNDS if now - started <= bound)
            db.execute("INSERT INTO durations VALUES (?, ?, 1, ?) ON CONFLICT (kind, bound) DO UPDATE"
                       " SET count = durations.count + 1, seconds = durations.seconds + excluded.seconds", (kind, bound, now - started))

    def retry(self, claim: Claim) -> bool:
        """After a fault of ours: queue it again for a while later. False when it has been tried often enough."""
        if claim.attempts >= MAX_ATTEMPTS:
            return False
        with self.change() as db:
            db.execute("UPDATE jobs SET state = 'queued', lease = '', not_before = ? WHERE id = ? AND lease = ?",
                       (time.time() + RETRY_SECONDS * 2 ** (claim.attempts - 1), claim.id, claim.lease))
        return True

    def give_back(self, claim: Claim) -> None:
        """A worker that is told to end gives its job back; the attempt does not count."""
        with self.change() as db:
            db.execute("UPDATE jobs SET state = 'queued', lease = '', attempts = attempts - 1 WHERE id = ? AND lease = ?",
                       (claim.id, claim.lease))

    def worker_died(self, worker: str) -> None:
        """Queue again at once what it held, without waiting for the lease to run out."""
        with self.change() as db:
            db.execute("UPDATE jobs SET state = 'queued', lease = '' WHERE state = 'running' AND lease LIKE ?", (f"{worker}:%",))

    def cancel(self, id: str) -> None:
        """A queued job is done at once; one that runs is stopped by its worker."""
        with self.change() as db:
            row = db.execute("SELECT state, job FROM jobs WHERE id = ?", (id,)).fetchone()
            if row and row[0] == "queued":
                job = Job.model_validate_json(row[1])
                self._done(db, id, Result(job=job.id, verdict=Verdict.cancelled, inputs=job.inputs, usage=Usage()), time.time())
            elif row and row[0] == "running":
                db.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (id,))

    # ------------------------------------------------------------------------------------------ look
    def look(self, id: str) -> Entry | None:
        rows = self.ask(f"SELECT {COLUMNS} FROM jobs WHERE id = ?", id)
        return _entry(rows[0]) if rows else None

    def result(self, id: str) -> Result | None:
        rows = self.ask("SELECT result FROM jobs WHERE id = ? AND result IS NOT NULL", id)
        return Result.model_validate_json(rows[0][0]) if rows else None

    def state(self, id: str) -> str | None:
        rows = self.ask("SELECT state FROM jobs WHERE id = ?", id)
        return rows[0][0] if rows else None

    def of_owner(self, class_: str, owner: str) -> list[Entry]:
        """All jobs of one person in one class, the newest first."""
        return [_entry(row) for row in self.ask(f"SELECT {COLUMNS} FROM jobs WHERE class = ? AND owner = ? ORDER BY created DESC",
                                                class_, owner)]

    def files(self, id: str) -> dict[str, bytes]:
        """What a student's job brought, as long as it is kept."""
        return dict(self.ask("SELECT path, content FROM files WHERE job = ?", id))

    def ahead(self, id: str) -> int | None:
        """How many jobs would be started before a queued one, were all allowed to run; None when it is not queued."""
        queued = self.ask("SELECT id, tier, class, owner FROM jobs WHERE state = 'queued' ORDER BY created")
        if id not in {row[0] for row in queued}:
            return None
        served: dict[tuple, float] = {(tier, class_, owner): at for tier, class_, owner, at in self.ask("SELECT * FROM turns")}
        turn, left = max(served.values(), default=0.0), queued
        for before in range(len(queued)):
            first = min(range(len(left)), key=lambda at: (left[at][1], served.get((left[at][1], left[at][2], ""), 0.0),
                                                          served.get(left[at][1:4], 0.0), at))
            taken = left.pop(first)
            if taken[0] == id:
                return before
            turn += 1
            served[taken[1], taken[2], ""] = served[taken[1:4]] = turn
        return None

    def log_file(self, id: str) -> Path:
        return self.logs / f"{id}.log"

    def count(self) -> dict[str, int]:
        """How many jobs are in each state."""
        return dict(self.ask("SELECT state, count(*) FROM jobs GROUP BY state"))

    # ------------------------------------------------------------------------------------------ retention
    def forget(self, quotas: Quotas, now: float | None = None) -> int:
        """Remove finished jobs, their outputs, files and logs once their class's days are over; returns how many."""
        now = now or time.time()
        with self.change() as db:
            classes = [row[0] for row in db.execute("SELECT DISTINCT class FROM jobs")]
            old = [row[0] for class_ in classes for row in db.execute(
                "SELECT id FROM jobs WHERE state = 'done' AND class = ? AND changed < ?",
                (class_, now - quotas.of(class_).keep_days * DAY))]
            for id in old:
                db.execute("DELETE FROM files WHERE job = ?", (id,))
                db.execute("DELETE FROM jobs WHERE id = ?", (id,))
                self.log_file(id).unlink(missing_ok=True)
            db.execute("DELETE FROM spent WHERE at < ?", (now - DAY,))
        return len(old)


def opened(state: Path) -> Store:
    """The store of a service, whose workers find it by the same environment."""
    return Store(state / "jobs.sqlite", os.environ.get(ADDRESS, ""))


def _entry(row: tuple) -> Entry:
    return Entry(row[0], Job.model_validate_json(row[1]), *row[2:])


def _still_good(result_json: str, image: str) -> bool:
    result = Result.model_validate_json(result_json)
    return result.verdict is Verdict.ok and result.image == image
