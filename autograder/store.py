"""The queue and its results in one SQLite file: what was accepted survives any crash and is done, once."""

import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from autograder.jobs import Job, Result, Verdict

MAX_ATTEMPTS = 3                        # of a job during which the service itself died
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, job TEXT NOT NULL, state TEXT NOT NULL, result TEXT,
                                 attempts INTEGER NOT NULL DEFAULT 0, created REAL NOT NULL, changed REAL NOT NULL);
CREATE TABLE IF NOT EXISTS files (job TEXT NOT NULL REFERENCES jobs, path TEXT NOT NULL, content BLOB NOT NULL,
                                  PRIMARY KEY (job, path));
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created);
"""


class Store:
    """Jobs by id with state queued, running or done. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, timeout=30)
        path.chmod(0o600)                                               # submissions are in it
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.executescript(SCHEMA)
        with self.lock, self.db:                                        # what ran when the last service died
            self.db.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def accept(self, job: Job, files: Mapping[str, bytes], image: str) -> None:
        """Queue a job unless it is there already. One that is done runs again when it ended badly or under another image."""
        now = time.time()
        with self.lock, self.db:
            row = self.db.execute("SELECT state, result FROM jobs WHERE id = ?", (job.id,)).fetchone()
            if row and (row[0] != "done" or _still_good(row[1], image)):
                return
            self.db.execute("INSERT OR REPLACE INTO jobs (id, job, state, created, changed) VALUES (?, ?, 'queued', ?, ?)",
                            (job.id, job.model_dump_json(), now, now))
            self.db.executemany("INSERT OR REPLACE INTO files (job, path, content) VALUES (?, ?, ?)",
                                [(job.id, path, content) for path, content in files.items()])

    def claim(self) -> tuple[Job, dict[str, bytes]] | Result | None:
        """The oldest queued job, now running; a Result for one that is given up; None when the queue is empty."""
        with self.lock, self.db:
            row = self.db.execute("SELECT id, job, attempts FROM jobs WHERE state = 'queued' ORDER BY created LIMIT 1").fetchone()
            if row is None:
                return None
            self.db.execute("UPDATE jobs SET state = 'running', attempts = attempts + 1, changed = ? WHERE id = ?",
                            (time.time(), row[0]))
            if row[2] >= MAX_ATTEMPTS:
                return Result(job=row[0], verdict=Verdict.infra,
                              sentence=f"given up: the autograder ended {row[2]} times while it ran this job")
            files = self.db.execute("SELECT path, content FROM files WHERE job = ?", (row[0],)).fetchall()
        return Job.model_validate_json(row[1]), dict(files)

    def finish(self, result: Result) -> None:
        """Write the result down and forget the input files: their hashes are in the job."""
        with self.lock, self.db:
            self.db.execute("UPDATE jobs SET state = 'done', result = ?, changed = ? WHERE id = ?",
                            (result.model_dump_json(), time.time(), result.job))
            self.db.execute("DELETE FROM files WHERE job = ?", (result.job,))

    def look(self, job_id: str) -> tuple[str, str | None] | None:
        """(state, result as JSON), None for an unknown job."""
        with self.lock:
            return self.db.execute("SELECT state, result FROM jobs WHERE id = ?", (job_id,)).fetchone()

    def count(self) -> dict[str, int]:
        """How many jobs are in each state."""
        with self.lock:
            return dict(self.db.execute("SELECT state, count(*) FROM jobs GROUP BY state"))


def _still_good(result_json: str, image: str) -> bool:
    result = Result.model_validate_json(result_json)
    return result.verdict is Verdict.ok and result.image == image
