"""One examination: a process of its own that runs the test cells of one submission, forked from a warm one (examiner.py).

Importing NumPy takes longer than most notebooks, and the tests are the instructor's: one process per environment has it
ready, and a fork of it serves one submission and is gone.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from autograder.exam.words import TEST
from autograder.jobs import sha256

HERE = Path(__file__).parent.parent.parent
START_SECONDS = 30
_warm: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}
_lock = threading.Lock()


class Examination:
    """Use as a context manager; `step` lets it go on. After an error it serves the next test with a fresh process."""

    def __init__(self, cells: list[dict[str, Any]], seed: int | None, path: list[str], python: str, env: dict[str, str]) -> None:
        self.cells = json.dumps(cells).encode()
        self.seed, self.path, self.python, self.env = seed, path, python, env
        self.line: socket.socket | None = None
        self.process, self.heard = -1, b""

    def __enter__(self) -> "Examination":
        self.folder = tempfile.TemporaryDirectory(prefix="examiner-")
        with contextlib.suppress(OSError):                  # met again at the first test, which then fails
            self.begin()                                    # now: it gets ready while the sandbox starts
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.folder.cleanup()

    def begin(self) -> None:
        self.line, theirs = socket.socketpair()
        with theirs:
            place = {"path": self.path, "folder": self.folder.name, "seed": self.seed}
            self.process = fork(self.python, self.env, place, self.cells, theirs)

    def end(self) -> None:
        """Whatever it does just now."""
        if self.line is not None:
            self.line.close()
            self.line, self.heard = None, b""
        if self.process >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self.process, signal.SIGKILL)
            os.close(self.process)
            self.process = -1

    def step(self, message: bytes, seconds: float) -> bytes:
        """Its next word: ASK, DONE or FORGED and JSON. Raises TimeoutError, OSError or EOFError; then it is ended."""
        try:
            if self.line is None:
                if not message.startswith(TEST):
                    raise EOFError
                self.begin()
            assert self.line is not None
            self.line.settimeout(seconds)
            self.line.sendall(message + b"\n")
            return self.next_line(seconds)
        except BaseException:
            self.end()
            raise

    def next_line(self, seconds: float) -> bytes:
        assert self.line is not None
        deadline, parts = time.monotonic() + seconds, [self.heard]
        while b"\n" not in parts[-1]:
            self.line.settimeout(max(0.001, deadline - time.monotonic()))
            part = self.line.recv(1 << 20)
            if not part:
                raise EOFError
            parts.append(part)
        said, _, self.heard = b"".join(parts).partition(b"\n")
        return said


def fork(python: str, env: dict[str, str], place: dict[str, Any], cells: bytes, line: socket.socket) -> int:
    """A pidfd of a new examiner that talks over `line`. Raises OSError.

    The cells, which are the same for a whole class, are read and compiled once, before the fork.
    """
    key = json.dumps([python, sorted(env.items())])
    place = {**place, "cells": sha256(cells)}
    with _lock, tempfile.TemporaryFile() as file:
        file.write(cells)
        file.flush()
        for last in (False, True):
            if key not in _warm or _warm[key][0].poll() is not None:
                _warm[key] = warm(python, env)
            control = _warm[key][1]
            try:
                socket.send_fds(control, [json.dumps(place).encode()], [line.fileno(), file.fileno()])
                return os.pidfd_open(int(control.recv(32)))
            except (OSError, ValueError):                    # it was killed: once more with a new one
                _warm.pop(key)[0].kill()
                if last:
                    raise
    raise OSError("no examiner")


def warm(python: str, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(START_SECONDS)
    with theirs:
        process = subprocess.Popen([python, "-s", "-m", "autograder.exam.examiner"], stdin=theirs.fileno(), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, cwd="/", start_new_session=True,
                                   env={**env, "PYTHONPATH": str(HERE), "HOME": "/nonexistent"})
    return process, ours
