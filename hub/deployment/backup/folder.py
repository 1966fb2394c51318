"""The folder of backups on this host: which there are, one program at a time, and the oldest go."""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .settings import Problem, Settings

NAME = re.compile(r"tinytorch-[0-9]{8}T[0-9]{6}Z\.tar\.gz(\.age|\.gpg)?")


def backups(settings: Settings) -> list[Path]:
    """Those of this host, newest first."""
    if not settings.folder.is_dir():
        return []
    return sorted((file for file in settings.folder.iterdir() if NAME.fullmatch(file.name)), key=lambda file: file.name, reverse=True)


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


def prune(settings: Settings) -> None:
    """Keep the newest, as many as the settings say. A name that is not a backup's is never touched."""
    for file in backups(settings)[settings.keep:]:
        file.unlink()
        file.with_name(f"{file.name}.json").unlink(missing_ok=True)


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
