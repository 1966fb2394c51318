"""The tables of the store, and how a store of an older version becomes one of this version."""

import json
import sqlite3

VERSION = 2
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


def prepare(db: sqlite3.Connection) -> None:
    """Make or migrate the tables, once, whoever of several processes comes first. Raises OSError for a newer version."""
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise OSError(f"this store is of version {version}, this autograder knows {VERSION}: use the newer one")
        if version < VERSION:
            old = _first_version(db)
            for statement in TABLES.split(";"):
                db.execute(statement)
            _take_over(db, *old)
            db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _first_version(db: sqlite3.Connection) -> tuple[list, list]:
    """The content of a store that had no owners, no classes and no kinds; its tables are removed."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'jobs'").fetchone():
        return [], []
    jobs = db.execute("SELECT id, job, state, result, attempts, created, changed FROM jobs").fetchall()
    files = db.execute("SELECT job, path, content FROM files").fetchall()
    db.execute("DROP TABLE files")
    db.execute("DROP TABLE jobs")
    return jobs, files


def _take_over(db: sqlite3.Connection, jobs: list, files: list) -> None:
    for id, job, state, result, attempts, created, changed in jobs:
        ended = json.loads(result) if result else {}
        db.execute("INSERT INTO jobs (id, job, kind, state, result, verdict, sentence, attempts, created, changed)"
                   " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                   (id, job, json.loads(job)["kind"], "done" if state == "done" else "queued", result, ended.get("verdict"),
                    ended.get("sentence", ""), attempts, created, changed))
    db.executemany("INSERT INTO files (job, path, content) VALUES (?, ?, ?)", files)
