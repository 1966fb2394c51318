"""Hear of a change in a folder from the kernel, at once and without looking: inotify, through the C library."""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

CREATED, DELETED, MOVED_IN, MOVED_OUT = 0x100, 0x200, 0x80, 0x40


class Folder:
    """Calls `changed` whenever something in the folder is made, moved or removed. Needs a running event loop."""

    def __init__(self, path: Path, changed: Callable[[], None]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0 or libc.inotify_add_watch(
                self.descriptor, os.fsencode(path), CREATED | DELETED | MOVED_IN | MOVED_OUT) < 0:
            raise OSError(ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())} (inotify)", str(path))
        self.changed = changed
        asyncio.get_running_loop().add_reader(self.descriptor, self._hear)

    def _hear(self) -> None:
        os.read(self.descriptor, 1 << 16)          # which names changed does not matter: whoever hears looks at all of them
        self.changed()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.descriptor)
        os.close(self.descriptor)
