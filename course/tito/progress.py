"""What a student has done, in `<workspace>/.tito/progress.json`: written whole or not at all, one writer at a time."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from course.tito.failure import Failed

VERSION = 1
PATIENCE = 10.0          # seconds to wait for another tito in the same workspace

State = dict[str, Any]   # {"version": 1, "modules": {"02": {...}}, "checkpoints": {"01": {...}}}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read(folder: Path) -> State:
    """The recorded state; empty where there is none. A damaged file is set aside, said, and not fatal."""
    file = folder / "progress.json"
    try:
        return _parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _empty()
    except ValueError:
        with _lock(folder):
            return _read_locked(file)
    except OSError as error:
        raise Failed(f"{file}: cannot be read: {error.strerror}") from None


@contextmanager
def change(folder: Path) -> Iterator[State]:
    """Hold the lock, hand out the state, and put it in place as one step if the block ends without an exception."""
    with _lock(folder):
        file = folder / "progress.json"
        state = _read_locked(file)
        yield state
        _replace(file, state)


def set_aside(folder: Path) -> Path | None:
    """Forget the progress, keeping a copy. Returns the copy, or None where nothing was recorded."""
    file = folder / "progress.json"
    with _lock(folder):
        if not file.exists():
            return None
        copy = _free_name(folder / f"progress-before-reset-{_stamp()}.json")
        os.replace(file, copy)
        return copy


def _empty() -> State:
    return {"version": VERSION, "modules": {}, "checkpoints": {}}


def _parse(text: str) -> State:
    """Raises ValueError for anything that is not a progress file of a version known here."""
    state = json.loads(text)
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise ValueError("unknown format")
    for key in ("modules", "checkpoints"):
        if not isinstance(state.get(key), dict) or not all(isinstance(entry, dict) for entry in state[key].values()):
            raise ValueError(f"{key} is not a table")
    return state


def _read_locked(file: Path) -> State:
    try:
        return _parse(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return _empty()
    except ValueError as error:
        copy = _free_name(file.with_name(f"progress-damaged-{_stamp()}.json"))
        shutil.copy2(file, copy)
        _replace(file, _empty())
        click.echo(f"tito: {file} was damaged ({error}); a copy is kept as {copy.name} and a new record begins. "
                   f"Your notebooks and exports are not touched", err=True)
        return _empty()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One writer per workspace. The kernel frees the lock of a process that dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = open(folder / "lock", "a")          # noqa: SIM115 (closed by the `with` below)
    except OSError as error:
        raise Failed(f"{folder}: cannot record anything here: {error.strerror}") from None
    with handle:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Failed(f"another tito has been writing in {folder} for {PATIENCE:.0f} s; "
                                 f"wait for it or end it, then try again") from None
                time.sleep(0.02)
        yield


def _replace(file: Path, state: State) -> None:
    """Write beside, flush to disk, rename: a reader sees the old record or the new one, never half of one."""
    draft = file.with_name(f".progress-{os.getpid()}.json")
    try:
        with open(draft, "w", encoding="utf-8") as handle:
            json.dump(state, handle, indent=1, sort_keys=True)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise Failed(f"{file}: cannot be written: {error.strerror}") from None


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def _free_name(path: Path) -> Path:
    """The path, or the same with -2, -3 ... when it is taken: no copy overwrites another."""
    number = 2
    candidate = path
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate
