"""The student edition as a server got it: it stays the same while the server runs, whatever the next build puts in its place.

A build exchanges the edition's folder for a new one and removes old ones, also under the mounts of running servers. So
each state of the edition is kept once more, as hard links where the file system allows, until no server uses it.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from hub import paths


def take(used: Iterable[str]) -> Path:
    """A copy of the edition as it is now. `used`: the names of the copies that servers still run with; others are removed."""
    state = paths.STUDENT_EDITION.stat()
    kept = paths.RUN / "editions"
    copy = kept / f"{state.st_ino}-{state.st_mtime_ns}"
    if not copy.exists():
        kept.mkdir(parents=True, exist_ok=True)
        fresh = kept / f".{copy.name}.{os.getpid()}"
        shutil.copytree(paths.STUDENT_EDITION, fresh, copy_function=_link, dirs_exist_ok=True)
        fresh.rename(copy)
    needed = {copy.name, *used}
    for other in kept.iterdir():
        if other.name not in needed:
            shutil.rmtree(other, ignore_errors=True)
    return copy


def _link(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:                                    # another file system
        shutil.copy2(source, target)
    return target
