"""The form of every database: whether an older version of the software can read what a newer one has migrated."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from .postgresql import forms_on_server
from .settings import Problem, Settings
from .sqlite import databases, schema


def schemas(settings: Settings) -> dict[str, str]:
    """The form of every database of the running site: an older version of the software cannot read what a newer has migrated."""
    found = {}
    for name in databases(settings.state):
        with closing(sqlite3.connect(f"{(settings.state / name).as_uri()}?mode=ro", uri=True, timeout=60)) as opened:
            tables = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            found[name] = schema(opened, tables)
    return {**found, **(forms_on_server(settings) if settings.postgresql else {})}


def same(settings: Settings, file: Path) -> dict[str, str]:
    """The forms of the databases, if they are those of the file as far as it knows them."""
    if not file.exists():
        raise Problem(f"there is no {file}, which says what that version can read")
    now, known = schemas(settings), json.loads(file.read_text())
    if changed := sorted(name for name in known.keys() & now.keys() if known[name] != now[name]):
        raise Problem(f"the version that wrote {file} cannot read {', '.join(changed)}, which a newer one has changed")
    return now
