"""The tables of the store, and how a store of an older version, or one in a file that is to be on a server, becomes this one."""

import json
import logging
from pathlib import Path

from autograder.service.database import Change, Database, SQLite

VERSION = 2
log = logging.getLogger("autograder")
TABLES = """
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,                    -- of the request: the job's own for staff, else of class, owner and job
    job TEXT NOT NULL,                      -- autograder.jobs.Job as JSON
    kind TEXT NOT NULL, class TEXT NOT NULL DEFAULT '', owner TEXT NOT NULL DEFAULT '',     -- owner '': the class's staff
    tier INTEGER NOT NULL DEFAULT 0,        -- 0 grade, 1 regrade, 2 student
    state TEXT NOT NULL,                    -- queued, running, done
    result TEXT, verdict TEXT, sentence TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, changed REAL NOT NULL, started REAL,
    not_before REAL NOT NULL DEFAULT 0,
    lease TEXT NOT NULL DEFAULT '', lease_until REAL NOT NULL DEFAULT 0,
    cancel INTEGER NOT NULL DEFAULT 0,
    verifies TEXT                           -- the id of the job whose result this one is to reproduce
);
CREATE TABLE files (job TEXT NOT NULL REFERENCES jobs, path TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (job, path));
CREATE TABLE kept (job TEXT NOT NULL REFERENCES jobs, path TEXT NOT NULL, content BLOB NOT NULL, PRIMARY KEY (job, path));
CREATE TABLE turns (tier INTEGER NOT NULL, class TEXT NOT NULL, owner TEXT NOT NULL, served REAL NOT NULL,
                    PRIMARY KEY (tier, class, owner));
CREATE TABLE spent (class TEXT NOT NULL, owner TEXT NOT NULL, at REAL NOT NULL, jobs INTEGER NOT NULL, cpu REAL NOT NULL);
CREATE TABLE tally (kind TEXT NOT NULL, class TEXT NOT NULL, verdict TEXT NOT NULL, count INTEGER NOT NULL,
                    PRIMARY KEY (kind, class, verdict));
CREATE TABLE durations (kind TEXT NOT NULL, bound REAL NOT NULL, count INTEGER NOT NULL, seconds REAL NOT NULL,
                        PRIMARY KEY (kind, bound));
CREATE INDEX jobs_by_turn ON jobs (state, tier, class, owner, created);
CREATE INDEX jobs_by_owner ON jobs (class, owner, created);
CREATE INDEX spent_by_owner ON spent (class, owner, at);
"""


def prepare(db: Database, file: Path) -> None:
    """Make or migrate the tables, once, whoever of several processes comes first; `file` is where a store in SQLite would be.

    Raises OSError for a newer version.
    """
    taken = None
    with db.change() as change:
        version = db.version(change)
        if version > VERSION:
            raise OSError(f"this store is of version {version}, this autograder knows {VERSION}: use the newer one")
        if version < VERSION:
            old = _first_version(change) if isinstance(db, SQLite) else ([], [])
            for statement in TABLES.split(";"):
                for word, here in db.types.items():
                    statement = statement.replace(f" {word}", f" {here}")
                change.execute(statement)
            _take_over(change, *old)
            if not isinstance(db, SQLite) and file.exists():
                taken = _move(file, change)
            db.note_version(change, VERSION)
    if taken is not None:                                       # a crash before this leaves a file that nobody reads any more
        file.rename(aside := file.with_name(f"{file.name}.moved"))
        log.info("%s jobs are in the database now; the file in which they were is %s", taken, aside)


def _move(file: Path, change: Change) -> int:
    """Copy all rows of a store in a file, which nobody may change meanwhile; returns how many jobs these are."""
    old = SQLite(file)
    prepare(old, file)
    with old.change() as rows:
        for table in ("jobs", "files", "kept", "turns", "spent", "tally", "durations"):
            columns = [row[1] for row in rows.execute(f"PRAGMA table_info({table})")]
            whole = " WHERE job IN (SELECT id FROM jobs)" if table in ("files", "kept") else ""      # a file checks no reference
            change.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
                               rows.execute(f"SELECT {', '.join(columns)} FROM {table}{whole}"))
        jobs = rows.execute("SELECT count(*) FROM jobs").fetchone()[0]
    old.close()
    return int(jobs)


def _first_version(db: Change) -> tuple[list, list]:
    """The content of a store that had no owners, no classes and no kinds; its tables are removed."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
        return [], []
    jobs = db.execute("SELECT id, job, state, result, attempts, created, changed FROM jobs").fetchall()
    files = db.execute("SELECT job, path, content FROM files").fetchall()
    db.execute("DROP TABLE files")
    db.execute("DROP TABLE jobs")
    return jobs, files


def _take_over(db: Change, jobs: list, files: list) -> None:
    for id, job, state, result, attempts, created, changed in jobs:
        ended = json.loads(result) if result else {}
        db.execute("INSERT INTO jobs (id, job, kind, state, result, verdict, sentence, attempts, created, changed)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   (id, job, json.loads(job)["kind"], "done" if state == "done" else "queued", result, ended.get("verdict"),
                    ended.get("sentence", ""), attempts, created, changed))
    db.executemany("INSERT INTO files (job, path, content) VALUES (?, ?, ?)", files)
