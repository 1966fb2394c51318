"""Files of a sandbox's folder through a descriptor of it: no link that a program left there leads anywhere else."""

import contextlib
import os
import stat
from collections.abc import Sequence

from autograder.sandbox.run import COLLECTED


def collect(folder: int, paths: Sequence[str]) -> dict[str, bytes]:
    """Those of the paths that are regular files, as long as there is room for them."""
    found: dict[str, bytes] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            content = read(folder, path, COLLECTED - sum(map(len, found.values())))
            found[path] = content
    return found


def write(folder: int, path: str, content: bytes) -> None:
    """A file for the program, in folders made as needed. Nothing runs there yet, so nothing can stand in the way."""
    *parents, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for parent in parents:
            with contextlib.suppress(FileExistsError):
                os.mkdir(parent, 0o755, dir_fd=folder)
            folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            stack.callback(os.close, folder)
        with os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder), "wb") as file:
            file.write(content)


def read(folder: int, path: str, limit: int) -> bytes:
    """A regular file below `folder`, no link on the way. Raises OSError for anything else or when it is too large."""
    *parents, name = path.split("/")
    with contextlib.ExitStack() as stack:
        for parent in parents:
            folder = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            stack.callback(os.close, folder)
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            os.close(descriptor)
            raise OSError(f"{path} is no regular file of at most {limit} bytes")
        with os.fdopen(descriptor, "rb") as file:
            return file.read(limit)
