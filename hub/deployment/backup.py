"""Backups of a deployed site: one file that holds all its data, checked when it is made, and put back by one command.

    backup.py create | list | verify FILE | restore FILE [--replace] | schemas [--same-as FILE] | check

Runs as root on the host itself, with the system's Python and nothing else, so that a host whose containers do not start can
still be restored. Its settings are in /etc/tinytorch/backup.json, which `make deploy` writes.

A live SQLite database is copied by SQLite's own online backup, databases before the files that they speak of; one on a PostgreSQL
server by that server's clients, which must be as new as it is. Homes belong to students, who may exchange a file for a link at any
moment: they are walked through open folders and no link is ever followed.
"""

import argparse
import fcntl
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

SETTINGS = Path(os.environ.get("TINYTORCH_BACKUP_SETTINGS", "/etc/tinytorch/backup.json"))
FORMAT = 1
NAME = re.compile(r"tinytorch-[0-9]{8}T[0-9]{6}Z\.tar\.gz(\.age|\.gpg)?")
MANIFEST = "manifest.json"
LEFT_OUT = ("run", "logs", "metrics")      # of the state: sockets and process ids, what journals keep, what is true of this host only
HOLES = 2**30                              # a sparse file may claim any size: with more than this in holes it is left out
CHUNK = 2**20
DUMP = "postgresql.dump"                   # its name in an archive
PASSWORD = "secrets/database_password"     # in the state
SCHEMAS = ("public", "autograder")         # on a PostgreSQL server: the hub's tables, the autograder's jobs
METRIC = "metrics/backup.prom"             # in the state: what monitoring knows of backups


class Problem(Exception):
    """Why that cannot be done, and how to mend it."""


@dataclass
class Settings:
    """What `make deploy` wrote; docker is the command of the client, postgresql the address of a database server if there is one."""

    state: Path
    folder: Path                           # where backups are kept
    site: Path                             # classes.yml and rosters as deployed
    version: str
    keep: int = 14                         # newest backups that stay
    age: list[str] = field(default_factory=list)
    gpg: list[str] = field(default_factory=list)
    volumes: str = "tinytorch-home-"       # the names of homes begin with this
    docker: str = "docker"
    postgresql: str = ""

    @classmethod
    def load(cls, file: Path = SETTINGS) -> "Settings":
        try:
            given = json.loads(file.read_text())
        except FileNotFoundError:
            raise Problem(f"there is no {file}: this host has not been set up by `make deploy`") from None
        return cls(**{**given, **{key: Path(given[key]) for key in ("state", "folder", "site")}})


# --------------------------------------------------------------------------------------------- what is in an archive
@dataclass
class Part:
    """A digest over names, kinds and contents of one part of the archive: a database, a home, the rest of the state."""

    digest: Any = field(default_factory=hashlib.sha256)
    members: int = 0
    size: int = 0

    def add(self, member: tarfile.TarInfo, content_digest: bytes = b"") -> None:
        said = [member.name, member.type.decode(), member.mode, member.uid, member.gid, member.size, member.mtime, member.linkname]
        self.digest.update(json.dumps(said).encode() + content_digest)
        self.members += 1
        self.size += member.size

    def summary(self) -> dict[str, Any]:
        return {"sha256": self.digest.hexdigest(), "members": self.members, "bytes": self.size}


def part_of(name: str, databases: "set[str] | dict[str, Any]") -> str:
    """The part to which a member belongs."""
    words = name.split("/")
    return name if name in databases else "/".join(words[:2]) if words[0] == "homes" else words[0]


class Hashing(io.RawIOBase):
    """A readable stream of exactly `size` bytes: a file that shrinks meanwhile is filled with zeros, growth is left for next time."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream, self.left, self.digest = stream, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        data = self.stream.read(wanted) if wanted else b""
        data += b"\0" * (wanted - len(data))
        self.left -= len(data)
        self.digest.update(data)
        return data


class Writer:
    """An archive that is being written, and what its manifest will say."""

    def __init__(self, tar: tarfile.TarFile, databases: list[str]) -> None:
        self.tar, self.databases = tar, set(databases)
        self.parts: dict[str, Part] = {}
        self.left_out: list[str] = []

    def put(self, member: tarfile.TarInfo, stream: IO[bytes] | None = None) -> None:
        content = Hashing(stream, member.size) if stream else None
        self.tar.addfile(member, content)
        part = self.parts.setdefault(part_of(member.name, self.databases), Part())
        part.add(member, content.digest.digest() if content else b"")

    def file(self, name: str, content: Path, like: os.stat_result) -> None:
        with content.open("rb") as stream:
            self.put(info(name, like, os.fstat(stream.fileno()).st_size), stream)

    def tree(self, root: Path, prefix: str, skip: Callable[[str], bool] = lambda name: False) -> None:
        """Everything below a folder that somebody else may change meanwhile. `skip` sees names relative to the root."""
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self.put(info(prefix, os.fstat(top)))
            self._folder(top, prefix, "", skip)
        finally:
            os.close(top)

    def _folder(self, folder: int, prefix: str, inner: str, skip: Callable[[str], bool]) -> None:
        for entry in sorted(os.listdir(folder)):
            relative = f"{inner}{entry}"
            if skip(relative):
                continue
            name = f"{prefix}/{relative}"
            try:
                self._entry(folder, entry, name, prefix, relative, skip)
            except FileNotFoundError:
                continue                                 # removed since the folder was read
            except OSError as error:
                self.left_out.append(f"{name}: {error.strerror}")

    def _entry(self, folder: int, entry: str, name: str, prefix: str, relative: str, skip: Callable[[str], bool]) -> None:
        status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            self.put(info(name, status, link=os.readlink(entry, dir_fd=folder)))
        elif stat.S_ISDIR(status.st_mode):
            below = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                self.put(info(name, os.fstat(below)))
                self._folder(below, prefix, f"{relative}/", skip)
            finally:
                os.close(below)
        elif stat.S_ISREG(status.st_mode):
            opened = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with os.fdopen(opened, "rb") as stream:
                status = os.fstat(stream.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return
                if status.st_size - 512 * status.st_blocks > HOLES:
                    self.left_out.append(f"{name}: {status.st_size} bytes, nearly all of them holes")
                    return
                self.put(info(name, status), stream)


def info(name: str, status: os.stat_result, size: int | None = None, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    mode = status.st_mode
    member.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE if stat.S_ISDIR(mode) else tarfile.REGTYPE
    member.mode, member.uid, member.gid, member.mtime = stat.S_IMODE(mode), status.st_uid, status.st_gid, int(status.st_mtime)
    member.linkname = link
    if member.type == tarfile.REGTYPE:
        member.size = status.st_size if size is None else size
    return member


# --------------------------------------------------------------------------------------------- databases
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


# --------------------------------------------------------------------------------------------- a database on a PostgreSQL server
def postgresql(settings: Settings, program: str, *words: str, password: str | None = None) -> str:
    """Run a client of PostgreSQL; the password goes by environment, from the secrets folder if none is given."""
    if not shutil.which(program):
        raise Problem(f"the site's database is PostgreSQL, and {program} is missing here: apt-get install postgresql-client")
    secret = settings.state / PASSWORD
    if password is None and secret.exists():
        password = secret.read_text().strip()
    env = {**os.environ, "PGCONNECT_TIMEOUT": "10", **({"PGPASSWORD": password} if password else {})}
    done = subprocess.run([program, "--no-password", "--dbname", settings.postgresql, *words], env=env, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip()
        if "no password supplied" in said:
            said = f"there is no password for {settings.postgresql}: write it into {secret}, mode 600"
        raise Problem(f"{program} failed: {said}")
    return done.stdout


def statement(settings: Settings, text: str, password: str | None = None) -> str:
    """What the server answers to a statement: rows as lines, columns parted by |. All of it holds, or nothing."""
    words = ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--command", text)
    return postgresql(settings, "psql", *words, password=password).strip()


def check(settings: Settings, password: str | None = None) -> str:
    """That the database server answers and this host's clients can back it up: pg_dump refuses a server newer than itself."""
    if not settings.postgresql:
        return "the databases are files of this host"
    server = int(statement(settings, "SHOW server_version_num", password)) // 10_000
    for program in ("pg_dump", "pg_restore"):
        if not shutil.which(program):
            raise Problem(f"the site's database is PostgreSQL, and {program} is missing here: apt-get install postgresql-client")
        told = subprocess.run([program, "--version"], capture_output=True, text=True).stdout     # pg_dump (PostgreSQL) 15.14 (Debian ...)
        client = int((re.findall(r"\) (\d+)", told) or ["0"])[0])
        if client < server:
            raise Problem(f"{settings.postgresql} is PostgreSQL {server}, which {program} {client} of this host cannot back up: install "
                          f"postgresql-client-{server} here (PostgreSQL's own package archive has what the distribution lacks)")
    return f"{settings.postgresql} answers: PostgreSQL {server}"


def forms_on_server(settings: Settings) -> dict[str, str]:
    """The forms of the hub's and the autograder's tables, where there are any yet."""
    found = {}
    for name, table, column in (("hub", "public.alembic_version", "version_num"), ("jobs", "autograder.version", "version")):
        if statement(settings, f"SELECT to_regclass('{table}')"):
            found[f"PostgreSQL ({name})"] = ",".join(sorted(statement(settings, f"SELECT {column} FROM {table}").split()))
    return found


def tables_on_server(settings: Settings, password: str) -> int:
    schemas = ", ".join(f"'{name}'" for name in SCHEMAS)
    return int(statement(settings, f"SELECT count(*) FROM pg_tables WHERE schemaname IN ({schemas})", password))


def put_back(settings: Settings, dump: Path, password: str) -> None:
    """Replace all that this user has in the two schemas, also what a newer version has added since, by what the dump holds."""
    statement(settings, """
        SET client_min_messages TO warning; SET lock_timeout TO '30s';
        DROP SCHEMA IF EXISTS autograder CASCADE;
        CREATE SCHEMA autograder;
        DO $$ DECLARE each text; BEGIN
            FOR each IN
                SELECT format('%s IF EXISTS public.%I',
                              CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, relname)
                    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
                                    AND pg_get_userbyid(relowner) = current_user
                UNION ALL SELECT format('TYPE IF EXISTS public.%I', typname)
                    FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typtype IN ('d', 'e')
                                   AND pg_get_userbyid(typowner) = current_user
            LOOP EXECUTE 'DROP ' || each || ' CASCADE'; END LOOP;
        END $$""", password)
    only = [word for name in SCHEMAS for word in ("--schema", name)]
    try:
        postgresql(settings, "pg_restore", *only, "--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", str(dump),
                   password=password)
    except Problem as problem:
        raise Problem(f"{problem}. The site's tables on the server are empty now, and nothing else was changed: mend that, then restore "
                      "again, this backup or the one that was made just before") from None


# --------------------------------------------------------------------------------------------- volumes
def docker(settings: Settings, *words: str) -> str:
    done = subprocess.run([settings.docker, *words], capture_output=True, text=True)
    if done.returncode:
        raise Problem(f"docker {' '.join(words[:2])} failed: {done.stderr.strip()}")
    return done.stdout


def homes(settings: Settings) -> dict[str, dict[str, Any]]:
    """The volumes with students' homes: name -> folder on the host and labels."""
    names = [name for name in docker(settings, "volume", "ls", "--quiet").split() if name.startswith(settings.volumes)]
    if not names:
        return {}
    found = json.loads(docker(settings, "volume", "inspect", *names))
    return {volume["Name"]: {"folder": volume["Mountpoint"], "labels": volume["Labels"] or {}} for volume in found}


def containers(settings: Settings) -> list[str]:
    """Containers that use a home, running or not."""
    words = [word for name in homes(settings) for word in ("--filter", f"volume={name}")]
    return docker(settings, "ps", "--all", "--quiet", *words).split() if words else []


# --------------------------------------------------------------------------------------------- create
def create(settings: Settings, reason: str, version: str = "") -> Path:
    """Write a new backup, read it again from the disk to check it, encrypt it if that is asked for, remove the oldest.

    `version`: of the software whose data it is, where that is not the one that the settings are of.
    """
    settings = replace(settings, version=version or settings.version)
    if not settings.state.is_dir():
        raise Problem(f"there is no data in {settings.state}")
    made = datetime.now(UTC)
    name = f"tinytorch-{made:%Y%m%dT%H%M%SZ}.tar.gz"
    with only_one(settings.folder):
        for rest in settings.folder.glob(".*.partial"):
            rest.unlink()                                # of a backup that was cut off
        partial = settings.folder / f".{name}.partial"
        try:
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                write(settings, stream, made, reason)
                stream.flush()
                os.fsync(stream.fileno())
            manifest = verify(partial)
            final = encrypt(settings, partial, settings.folder / name)
        except OSError as error:
            raise Problem(f"no backup was made: {error.strerror} ({error.filename or settings.folder})") from None
        except sqlite3.Error as error:
            raise Problem(f"no backup was made: a database could not be copied ({error})") from None
        finally:
            partial.unlink(missing_ok=True)
        summary = {**manifest, "sha256": file_digest(final), "size": final.stat().st_size}
        write_private(final.with_name(f"{final.name}.json"), json.dumps(summary, indent=1))
        prune(settings)
        tell_monitoring(settings, made)
    return final


def tell_monitoring(settings: Settings, made: datetime) -> None:
    """When the last backup that succeeded was made, for the exporter of the host, another user; nothing where nothing is monitored."""
    file = settings.state / METRIC
    if file.parent.is_dir():
        partial = file.with_suffix(".partial")
        partial.write_text(f"tinytorch_backup_last_success_timestamp_seconds {made.timestamp():.0f}\n")
        partial.chmod(0o644)
        partial.rename(file)


def write(settings: Settings, stream: IO[bytes], made: datetime, reason: str) -> None:
    state = settings.state
    found = databases(state)
    names = [f"state/{name}" for name in found]
    volumes = homes(settings)
    beside = {f"{name}{end}" for name in found for end in ("", "-wal", "-shm", "-journal")}
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=3, filename="", mtime=0) as packed, \
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar, \
            tempfile.TemporaryDirectory(dir=settings.folder, prefix=".databases-") as scratch:
        archive = Writer(tar, names)
        contents = {}
        copies = []
        for number, name in enumerate(found):            # all of them first, quickly: files are only ever added
            copies.append(Path(scratch) / str(number))
            copy_database(state / name, copies[-1])
        for name, copy in zip(found, copies, strict=True):
            contents[f"state/{name}"] = look_into(copy)
            archive.file(f"state/{name}", copy, os.stat(state / name))
            copy.unlink()
        if settings.postgresql:
            dump = Path(scratch) / DUMP
            postgresql(settings, "pg_dump", "--format=custom", "--file", str(dump))
            archive.file(DUMP, dump, os.stat(dump))
        archive.tree(state, "state", lambda name: name in beside or name in LEFT_OUT)
        archive.tree(settings.site, "site")
        for name, volume in volumes.items():
            archive.tree(Path(volume["folder"]), f"homes/{name}")
        manifest = {
            "format": FORMAT, "version": settings.version, "made": made.isoformat(timespec="seconds"), "reason": reason,
            "databases": contents, "volumes": {name: volume["labels"] for name, volume in volumes.items()},
            "parts": {name: part.summary() for name, part in archive.parts.items()}, "left_out": archive.left_out,
        }
        text = json.dumps(manifest, indent=1).encode()
        member = tarfile.TarInfo(MANIFEST)
        member.size, member.mode, member.mtime = len(text), 0o600, int(made.timestamp())
        tar.addfile(member, io.BytesIO(text))


def encrypt(settings: Settings, plain: Path, target: Path) -> Path:
    """The finished backup under its name; encrypted for the recipients of the settings, if there are any."""
    if settings.age:
        command, ending = ["age", *(word for key in settings.age for word in ("--recipient", key))], ".age"
    elif settings.gpg:
        recipients = [word for key in settings.gpg for word in ("--recipient", key)]
        command, ending = ["gpg", "--batch", "--quiet", "--trust-model", "always", *recipients, "--encrypt"], ".gpg"
    else:
        plain.rename(target)
        return target
    if not shutil.which(command[0]):
        raise Problem(f"backups are to be encrypted, and {command[0]} is missing here: apt-get install {command[0]}")
    final = target.with_name(target.name + ending)
    with plain.open("rb") as source, os.fdopen(os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        done = subprocess.run(command, stdin=source, stdout=sink, stderr=subprocess.PIPE, text=False)
        os.fsync(sink.fileno())
    if done.returncode:
        final.unlink()
        raise Problem(f"{command[0]} could not encrypt the backup: {done.stderr.decode(errors='replace').strip()}")
    return final


def prune(settings: Settings) -> None:
    """Keep the newest, as many as the settings say. A name that is not a backup's is never touched."""
    for file in backups(settings)[settings.keep:]:
        file.unlink()
        file.with_name(f"{file.name}.json").unlink(missing_ok=True)


def backups(settings: Settings) -> list[Path]:
    """Those of this host, newest first."""
    if not settings.folder.is_dir():
        return []
    return sorted((file for file in settings.folder.iterdir() if NAME.fullmatch(file.name)), key=lambda file: file.name, reverse=True)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem("another backup or restore is at work here: wait for it") from None
        yield


def write_private(file: Path, text: str) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)


def file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --------------------------------------------------------------------------------------------- verify
@contextmanager
def opened(file: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream of members, decrypted on the way where the key is at hand."""
    reader: subprocess.Popen | None = None
    source: IO[bytes]
    if file.suffix == ".age":
        identity = os.environ.get("AGE_IDENTITY", "")
        if not identity:
            raise Problem("this backup is encrypted: name the file with age's private key, IDENTITY=/path/to/key")
        reader = subprocess.Popen(["age", "--decrypt", "--identity", identity, str(file)], stdout=subprocess.PIPE)
        source = reader.stdout                                                      # type: ignore[assignment]
    elif file.suffix == ".gpg":
        reader = subprocess.Popen(["gpg", "--batch", "--quiet", "--decrypt", str(file)], stdout=subprocess.PIPE)
        source = reader.stdout                                                      # type: ignore[assignment]
    else:
        source = file.open("rb")
    try:
        with source, gzip.GzipFile(fileobj=source) as packed:
            with tarfile.open(fileobj=packed, mode="r|", bufsize=CHUNK) as tar:
                yield tar
            while packed.read(CHUNK):
                pass                                     # to the end, where gzip's own sum stands
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Problem(f"{file.name} is damaged or not a backup: {error}") from None
    finally:
        if reader is not None and reader.wait() not in (0, -13):
            raise Problem(f"{file.name} could not be decrypted: is that the right key?")


def verify(file: Path, keep: Path | None = None) -> dict[str, Any]:
    """Read a whole backup: every part has the digest that its manifest says, every database opens. Returns the manifest.

    `keep`: a folder into which what a database server needs is copied on the way, under its last name.
    """
    parts: dict[str, Part] = {}
    manifest: dict[str, Any] | None = None
    links: set[str] = set()
    digests: list[tuple[tarfile.TarInfo, bytes]] = []
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".verify-") as scratch:
        found: dict[str, Path] = {}
        with opened(file) as tar:
            for member in tar:
                if manifest is not None:
                    raise Problem(f"{file.name} goes on after its manifest: it was altered")
                if member.name == MANIFEST:
                    manifest = read_manifest(tar, member, file)
                    continue
                refuse_escapes(member, links, file)
                content = b""
                if member.isreg():
                    stream = Hashing(tar.extractfile(member), member.size)          # type: ignore[arg-type]
                    first = stream.read(16)
                    kept = keep / Path(member.name).name if keep and member.name in (DUMP, f"state/{PASSWORD}") else None
                    if first == b"SQLite format 3\0" and member.name.startswith("state/"):
                        found[member.name] = Path(scratch) / str(len(found))
                        with found[member.name].open("wb") as copy:
                            copy.write(first)
                            shutil.copyfileobj(stream, copy, CHUNK)
                    elif kept:
                        with kept.open("wb") as copy:
                            copy.write(first)
                            shutil.copyfileobj(stream, copy, CHUNK)
                    else:
                        while stream.read(CHUNK):
                            pass
                    content = stream.digest.digest()
                digests.append((member, content))
        if manifest is None:
            raise Problem(f"{file.name} has no manifest: it was cut off, or is no backup of a site")
        if manifest["format"] > FORMAT:
            raise Problem(f"{file.name} was made by a newer version ({manifest['version']}): deploy that one first")
        for member, content in digests:
            parts.setdefault(part_of(member.name, manifest["databases"]), Part()).add(member, content)
        if wrong := differences({name: part.summary() for name, part in parts.items()}, manifest["parts"]):
            raise Problem(f"{file.name} is damaged: {', '.join(wrong[:5])} not as it was written")
        for name, said in manifest["databases"].items():
            if name not in found or look_into(found[name]) != said:
                raise Problem(f"{file.name} is damaged: the database {name} does not hold what it did")
    return manifest


def read_manifest(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(tar.extractfile(member).read())                       # type: ignore[union-attr]
        if not manifest.keys() >= {"format", "version", "made", "databases", "volumes", "parts"}:
            raise ValueError("it lacks something")
    except (ValueError, AttributeError) as error:
        raise Problem(f"{file.name} is damaged: its manifest cannot be read ({error})") from None
    return manifest


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def refuse_escapes(member: tarfile.TarInfo, links: set[str], file: Path) -> None:
    """A backup that this program wrote never leads out of its folder; one that somebody altered might."""
    words = member.name.split("/")
    above = {"/".join(words[:n]) for n in range(1, len(words))}
    if "" in words or "." in words or ".." in words or above & links or not (member.isreg() or member.isdir() or member.issym()):
        raise Problem(f"{file.name} was not written by this program: {member.name!r} leads elsewhere")
    if member.issym():
        links.add(member.name)


# --------------------------------------------------------------------------------------------- restore
def restore(settings: Settings, file: Path, replace: bool) -> dict[str, Any]:
    """Put a backup in the place of this site's data; the services must be stopped. Nothing is touched before all of it is checked."""
    with only_one(settings.folder), tempfile.TemporaryDirectory(dir=settings.folder, prefix=".restore-") as scratch:
        manifest = verify(file, keep=Path(scratch))
        volumes = homes(settings)
        dump = Path(scratch) / DUMP
        refuse_another_kind(settings, dump.exists())
        password = ""
        if dump.exists():
            # the server's of today if this host knows it: it may have been changed since
            known = next((each for each in (settings.state / PASSWORD, Path(scratch) / Path(PASSWORD).name) if each.exists()), None)
            password = known.read_text().strip() if known else ""
            check(settings, password)
        tables = tables_on_server(settings, password) if dump.exists() else 0
        if (has_data(settings.state) or volumes or tables) and not replace:
            there = f"{settings.state}, {len(volumes)} homes{f', {tables} tables of {settings.postgresql}' if tables else ''}"
            raise Problem(f"this host has data ({there}), which a restore would replace. "
                          "Nothing was changed. To go on all the same: make restore FROM=... REPLACE=1, which first makes a backup of it")
        refuse_too_little_room(settings, manifest)
        if dump.exists():
            put_back(settings, dump, password)
        if users := containers(settings):
            docker(settings, "rm", "--force", *users)
        old = settings.state.with_name(f"{settings.state.name}.replaced-{time.time_ns()}")
        if settings.state.exists():
            settings.state.rename(old)
        try:
            fill(settings, file, manifest, list(volumes))
            if password:
                write_private(settings.state / PASSWORD, f"{password}\n")
        except (OSError, Problem) as error:
            why = f"{error.strerror} ({error.filename or settings.state})" if isinstance(error, OSError) else str(error)
            raise Problem(f"the restore broke off, the site is incomplete: {why}. Mend that, then restore {file.name} again with "
                          f"REPLACE=1. What was there before is in {old}, its homes in the backup made just before") from None
        shutil.rmtree(old, ignore_errors=True)
    return manifest


def fill(settings: Settings, file: Path, manifest: dict[str, Any], volumes: list[str]) -> None:
    """Write all of a backup: the state into a new folder, the homes into new volumes in the place of `volumes`."""
    if volumes:
        docker(settings, "volume", "rm", *volumes)
    roots = {"state": settings.state}
    settings.state.mkdir(parents=True)
    for name, labels in manifest["volumes"].items():
        docker(settings, "volume", "create", *(word for item in labels.items() for word in ("--label", "=".join(item))), name)
    for name, volume in homes(settings).items():
        roots[f"homes/{name}"] = Path(volume["folder"])
    with opened(file) as tar:
        unpack(tar, roots)


def refuse_too_little_room(settings: Settings, manifest: dict[str, Any]) -> None:
    """What is replaced stays until all is written, so there must be room for all of the backup beside it."""
    engine = docker(settings, "info", "--format", "{{.DockerRootDir}}").strip()
    needed: dict[int, tuple[Path, int]] = {}
    for name, part in manifest["parts"].items():
        place = Path(engine) if name.startswith("homes/") and engine else settings.state.parent
        disk = os.stat(place).st_dev
        needed[disk] = (place, needed.get(disk, (place, 0))[1] + part["bytes"] + 4096 * part["members"])
    for place, size in needed.values():
        if (free := shutil.disk_usage(place).free) < size:
            raise Problem(f"this backup takes {size / 2**20:.0f} MB on the disk of {place}, where {free / 2**20:.0f} MB are free. Nothing "
                          "was changed. Make room; where only the site itself is in the way: make destroy (backups stay), then restore")


def refuse_another_kind(settings: Settings, dumped: bool) -> None:
    """Accounts and jobs go back to where they were: a backup that holds them in another kind of database would leave them behind."""
    if dumped and not settings.postgresql:
        raise Problem("accounts and jobs of this backup were on a PostgreSQL server, and site.database in classes.yml is sqlite. Nothing "
                      "was changed. Name a server there and let `make restore` read it again")
    if settings.postgresql and not dumped:
        raise Problem(f"accounts and jobs of this backup were in SQLite files, and site.database in classes.yml is {settings.postgresql}. "
                      "Nothing was changed. Write `database: sqlite` there and let `make restore` read it again; then switch")


def has_data(state: Path) -> bool:
    """Whether there is a site: the folders that a deployment makes before it starts anything are none."""
    return any(state.glob("hub/*.sqlite")) or any(state.glob("exchange/*.db")) or any(state.glob("classes/*/gradebook.db"))


def unpack(tar: tarfile.TarFile, roots: dict[str, Path]) -> None:
    """Write the members below their roots, with owner and mode; folders get theirs at the end, since they may be read-only."""
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    for member in tar:
        root = next((root for root in roots if member.name == root or member.name.startswith(f"{root}/")), None)
        if root is None:
            continue
        target = roots[root] / member.name[len(root) + 1:]
        target.parent.mkdir(parents=True, exist_ok=True)         # databases come before the folders that they are in
        if member.isdir():
            target.mkdir(exist_ok=True)
            folders.append((target, member))
            continue
        if member.issym():
            target.symlink_to(member.linkname)
            os.lchown(target, member.uid, member.gid)
            continue
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as stream:
            shutil.copyfileobj(tar.extractfile(member), stream, CHUNK)              # type: ignore[arg-type]
            os.fchown(stream.fileno(), member.uid, member.gid)
            os.fchmod(stream.fileno(), member.mode)
            os.utime(stream.fileno(), (member.mtime, member.mtime))
    for target, member in reversed(folders):
        os.chown(target, member.uid, member.gid)
        target.chmod(member.mode)


# --------------------------------------------------------------------------------------------- commands
def find(settings: Settings, name: str) -> Path:
    """A path, the name of one of this host's backups, or `latest`."""
    here = backups(settings)
    if name == "latest" and here:
        return here[0]
    for file in (Path(name), settings.folder / name):
        if file.is_file():
            return file
    listed = "\n  ".join(file.name for file in here) or "none"
    raise Problem(f"there is no backup {name!r} on this host. There are:\n  {listed}")


def show(settings: Settings) -> None:
    for file in backups(settings):
        record = file.with_name(f"{file.name}.json")
        said = json.loads(record.read_text()) if record.exists() else {}
        print(f"{file.name}  {file.stat().st_size / 2**20:9.1f} MB  {len(said.get('volumes', {})):4} homes  "
              f"version {said.get('version', '?')}  {said.get('reason', '')}")


def told(manifest: dict[str, Any]) -> str:
    return (f"version {manifest['version']}, made {manifest['made']}, {len(manifest['databases'])} databases, "
            f"{len(manifest['volumes'])} homes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    creating = commands.add_parser("create")
    creating.add_argument("--reason", default="by hand")
    creating.add_argument("--version", default="", help="of the software whose data it is, where another one is about to take over")
    commands.add_parser("list")
    commands.add_parser("check", help="whether the databases can be reached and backed up from here")
    commands.add_parser("schemas").add_argument("--same-as", type=Path, help="exit 1 where a database's form differs from that file's")
    verifying = commands.add_parser("verify")
    verifying.add_argument("file")
    verifying.add_argument("--fits", action="store_true", help="also: whether this host's site, as it is set up now, can take it")
    restoring = commands.add_parser("restore")
    restoring.add_argument("file")
    restoring.add_argument("--replace", action="store_true")
    args = parser.parse_args()
    os.umask(0o077)
    try:
        settings = Settings.load()
        match args.command:
            case "create":
                file = create(settings, args.reason, args.version)
                said = json.loads(file.with_name(f"{file.name}.json").read_text())
                for line in said["left_out"]:
                    print(f"left out: {line}", file=sys.stderr)
                print(f"{file} ({file.stat().st_size / 2**20:.1f} MB, {len(said['databases'])} databases, {len(said['volumes'])} homes), "
                      "read again and whole")
            case "list":
                show(settings)
            case "schemas":
                print(json.dumps(schemas(settings) if args.same_as is None else same(settings, args.same_as)))
            case "check":
                print(check(settings))
            case "verify":
                said = verify(find(settings, args.file))
                if args.fits:
                    refuse_another_kind(settings, DUMP in said["parts"])
                print(f"whole: {told(said)}")
            case "restore":
                said = restore(settings, find(settings, args.file), args.replace)
                print(f"restored: {told(said)}")
    except Problem as problem:
        sys.exit(f"tinytorch-backup: {problem}")


if __name__ == "__main__":
    main()
