"""The two databases in which a queue can be: one SQLite file, or a schema of its own on a PostgreSQL server.

The statements of store.py are the same for both: `?` for a value, and only words that both know. What differs is here. A change is
alone among all processes in either, since whose turn it is, a quota and a class's share are questions about the whole queue; a lock
on the row that a worker takes would answer them wrongly when two workers ask at once.
"""

import contextlib
import functools
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit, urlunsplit

SCHEMA = "autograder"
OLDEST = 15                             # of PostgreSQL: the oldest that its makers still repair
LOCK = 0x74696E79746F7263               # "tinytorc": one number for all who change a queue in that database
PATIENCE = 30                           # seconds to wait for one's turn to change something
CONNECT_SECONDS = 5
AGAIN_SECONDS = 1.0                     # after a connection that failed: until the next one is tried
SESSION = f"""SET search_path TO {SCHEMA}; SET lock_timeout TO '{PATIENCE}s';
    SET idle_in_transaction_session_timeout TO '{PATIENCE}s'"""         # who stopped in the middle of a change holds up all others
# a server that is gone without a word is noticed in half a minute; of several servers the one that can be written to
CONNECTION: dict[str, Any] = {
    "application_name": "tinytorch-autograder", "connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8", "keepalives_idle": 10,
    "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000, "target_session_attrs": "read-write"}


class Unavailable(Exception):
    """The database cannot be used now. The message says which, why, and what to look at."""


class Unfit(Unavailable):
    """It never will be as it is: too old, or its user may too little."""


class Rows(Protocol):
    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...


class Change(Protocol):
    """What is inside of one transaction."""

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows: ...
    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> Any: ...


class Database(Protocol):
    """Safe to use from several threads."""

    types: dict[str, str]               # words of schema.py that are others here

    def change(self) -> AbstractContextManager[Change]:
        """One transaction, alone among all processes."""

    def ask(self, question: str, *values: Any) -> list[tuple]: ...
    def version(self, change: Change) -> int:
        """Of the tables; 0 where there are none yet, and then a place for them is made."""

    def note_version(self, change: Change, version: int) -> None: ...
    def close(self) -> None: ...


def at(file: Path, address: str = "") -> Database:
    """The queue in that file, or at that address of PostgreSQL."""
    return Postgres(address) if address else SQLite(file)


class SQLite:
    """One file, in which readers do not wait for who writes."""

    types: dict[str, str] = {}

    def __init__(self, file: Path) -> None:
        self.lock = threading.RLock()
        self.db = sqlite3.connect(file, check_same_thread=False, timeout=PATIENCE, isolation_level=None)
        file.chmod(0o600)                                               # submissions are in it
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")

    @contextlib.contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        with self.lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    def ask(self, question: str, *values: Any) -> list[tuple]:
        with self.lock:
            return self.db.execute(question, values).fetchall()

    def version(self, change: Change) -> int:
        return int(change.execute("PRAGMA user_version").fetchone()[0])

    def note_version(self, change: Change, version: int) -> None:
        change.execute(f"PRAGMA user_version = {version}")

    def close(self) -> None:
        self.db.close()


class Postgres:
    """A schema on a server. Connects when it is first needed, and again when the connection is lost; nothing that began is repeated.

    The address holds no password: libpq reads it from the file that `passfile` in the address names.
    """

    types = {"REAL": "DOUBLE PRECISION", "BLOB": "BYTEA"}               # REAL has 24 bits there

    def __init__(self, address: str) -> None:
        self.address, self.lock = address, threading.RLock()
        self.shown = urlunsplit(urlsplit(address)._replace(query=""))
        self.connection: Any = None
        self.changing, self.not_before, self.why = False, 0.0, ""

    @contextlib.contextmanager
    def change(self) -> Iterator["Postgres"]:
        """READ COMMITTED: what the others did before one's turn is seen, whatever the server's default is."""
        with self.lock, self._explained():
            self._first(f"BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({LOCK})", None, binary=False)
            self.changing = True
            try:
                yield self
                self.connection.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
            finally:
                self.changing = False

    def ask(self, question: str, *values: Any) -> list[tuple]:
        with self.lock, self._explained():
            return (self.execute(question, values) if self.changing else self._first(translated(question), values or None)).fetchall()

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Any:
        return self.connection.execute(translated(statement), values or None, binary=True)

    def executemany(self, statement: str, values: Iterable[Sequence[Any]], /) -> None:
        with self.connection.cursor() as cursor:
            cursor.executemany(translated(statement), values)

    def version(self, change: Change) -> int:
        [(schema, table)] = change.execute("SELECT to_regnamespace(?)::text, to_regclass(?)::text",
                                           (SCHEMA, f"{SCHEMA}.version")).fetchall()
        if schema is None:                                              # asked first, since IF NOT EXISTS needs the right all the same
            change.execute(f"CREATE SCHEMA {SCHEMA}")
        return int(change.execute("SELECT version FROM version").fetchone()[0]) if table else 0

    def note_version(self, change: Change, version: int) -> None:
        change.execute("CREATE TABLE IF NOT EXISTS version (version INTEGER NOT NULL)")
        change.execute("DELETE FROM version")
        change.execute("INSERT INTO version VALUES (?)", (version,))

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()

    # ------------------------------------------------------------------------------------------ the connection
    def _first(self, statement: str, values: Sequence[Any] | None, binary: bool = True) -> Any:
        """What nothing went before, and so may be said again on another connection when this one turns out to be lost."""
        import psycopg  # here, since who stays with SQLite does not load it
        if self.connection is not None and not self.connection.closed:
            try:
                return self.connection.execute(statement, values, binary=binary)
            except psycopg.Error:
                if not self.connection.closed:
                    self._roll_back()
                    raise
        self.connection = self._connect()
        return self.connection.execute(statement, values, binary=binary)

    def _connect(self) -> Any:
        import psycopg
        if time.monotonic() < self.not_before:
            raise Unavailable(self.why)
        try:
            connection = psycopg.connect(self.address, autocommit=True, **CONNECTION)
        except psycopg.Error:
            self.not_before = time.monotonic() + AGAIN_SECONDS
            raise
        version, encoding = connection.info.server_version, connection.info.parameter_status("server_encoding")
        if version < OLDEST * 10_000:
            self._unfit(connection, f"it is PostgreSQL {version // 10_000}, and {OLDEST} or newer is needed: upgrade that server, name a "
                        "newer one, or keep site.database in classes.yml at sqlite")
        if encoding != "UTF8":
            self._unfit(connection, f"it keeps text as {encoding}, which not all names fit: CREATE DATABASE ... ENCODING 'UTF8' "
                        "TEMPLATE template0 makes one that does")
        connection.execute(SESSION)
        return connection

    def _unfit(self, connection: Any, why: str) -> NoReturn:
        connection.close()
        raise Unfit(f"the jobs' database {self.shown} cannot be used: {why}")

    def _roll_back(self) -> None:
        with contextlib.suppress(Exception):                            # the server did it when the connection was lost
            self.connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """The driver's errors as one sentence. Its words hold no password."""
        import psycopg
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            user, name = urlsplit(self.address).username, urlsplit(self.address).path.strip("/")
            raise Unfit(f"the jobs' database {self.shown} cannot be used ({_first_line(error)}): the jobs have a schema of their own, so "
                        f"let its owner say GRANT CREATE ON DATABASE \"{name}\" TO \"{user}\"") from None
        except psycopg.Error as error:
            demoted = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)      # another server has taken over
            if not (demoted or isinstance(error, psycopg.OperationalError) or self.connection is None or self.connection.closed):
                raise
            if demoted:
                self.close()
            self.why = (f"the jobs' database {self.shown} cannot be used ({_first_line(error)}): see whether it runs, whether "
                        "site.database in classes.yml names it, and whether database_password in the secrets folder is its password")
            raise Unavailable(self.why) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@functools.lru_cache(256)
def translated(statement: str) -> str:
    """With the driver's own sign for a value. No statement has a question mark or a percent sign in its text."""
    return statement.replace("?", "%s")
