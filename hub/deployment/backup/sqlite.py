"""The databases of the state that are SQLite's: found, copied while others write to them, and looked into."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from .settings import LEFT_OUT, Problem


def databases(state: Path) -> list[str]:
    """The SQLite databases of the state, by their first bytes, relative to it."""
    found = []
    for folder, folders, files in os.walk(state):
        relative = Path(folder).relative_to(state)
        if relative == Path("."):
            folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in files:
            file = Path(folder) / name
            if file.is_symlink() or not file.is_file() or file.stat().st_size < 100:
                continue
            with file.open("rb") as stream:
                if stream.read(16) == b"SQLite format 3\0":
                    found.append(str(relative / name))
    return sorted(found)


def copy_database(source: Path, target: Path) -> None:
    """A consistent copy of a database that others write to. Its own process may hold it for a moment: that is waited for."""
    with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=60)) as live, \
            closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
        copy.execute("PRAGMA journal_mode=delete")


def look_into(database: Path) -> dict[str, Any]:
    """Rows of every table of a database that is whole. Problem, for one that is not."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
        try:
            said = opened.execute("PRAGMA integrity_check").fetchone()[0]
            if said != "ok":
                raise Problem(f"the database {database.name} is damaged: {said}")
            tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
            rows = {table: opened.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0] for table in tables}
        except sqlite3.DatabaseError as error:
            raise Problem(f"the database {database.name} cannot be read: {error}") from None
        return {"schema": schema(opened, tables), "rows": rows}


def schema(opened: sqlite3.Connection, tables: list[str]) -> str:
    """Which form a database has, as those who migrate it write it down."""
    if "alembic_version" in tables:
        return ",".join(sorted(row[0] for row in opened.execute("SELECT version_num FROM alembic_version")))
    return str(opened.execute("PRAGMA user_version").fetchone()[0])
