"""A new backup: written, read again, encrypted, and told to whoever watches the site."""

import gzip
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from .archive import DUMP, FORMAT, MANIFEST, Writer
from .folder import file_digest, only_one, prune, write_private
from .homes import homes
from .postgresql import postgresql
from .settings import LEFT_OUT, Problem, Settings
from .sqlite import copy_database, databases, look_into
from .verify import verify

METRIC = "metrics/backup.prom"             # in the state: what monitoring knows of backups


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


def tell_monitoring(settings: Settings, made: datetime) -> None:
    """When the last backup that succeeded was made, for the exporter of the host, another user; nothing where nothing is monitored."""
    file = settings.state / METRIC
    if file.parent.is_dir():
        partial = file.with_suffix(".partial")
        partial.write_text(f"tinytorch_backup_last_success_timestamp_seconds {made.timestamp():.0f}\n")
        partial.chmod(0o644)
        partial.rename(file)
