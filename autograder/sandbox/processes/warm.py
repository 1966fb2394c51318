"""Warm starts of the process sandbox: a template that has imported what a program needs, forked once for each run.

A template (template.py) lives in a bubblewrap sandbox of its own, where no submission ever runs. It keeps capabilities inside of
its user namespace only to make namespaces for its forks. There is one per program, environment and set of modules; it ends with
this process, or when a folder that it has imported from is replaced.
"""

import base64
import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from autograder.sandbox import seccomp
from autograder.sandbox.base import WORK
from autograder.sandbox.processes import bubblewrap

PROGRAM = Path(__file__).with_name("template.py")
INNER_PROGRAM = "/opt/template.py"
MOST = 3                                # templates at a time; each holds some 60 MB
START_SECONDS = 30
ANSWER_SECONDS = 20
ENDING_SECONDS = 1
Binds = Sequence[tuple[str | Path, str | Path]]


class NoTemplate(Exception):
    """No warm start is possible here. The message says why; a cold one may be."""


@dataclass
class Seat:
    """A fork that is ready to run its program: isolated, without rights, waiting in front of the program's first line."""

    init: int                           # pidfd of its namespace's init
    pid: int
    line: socket.socket
    stdin: IO[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]

    def go(self) -> None:
        self.line.send(b"go")

    def wait(self) -> int:
        """Its exit code, as a shell gives it; negative when its init was ended by a signal. To be asked after its end."""
        with contextlib.suppress(OSError, ValueError):
            while said := self.line.recv(4096):
                word, _, rest = said.partition(b" ")
                if word in (b"ended", b"killed"):
                    return int(rest) if word == b"ended" else -int(rest)
        return -9                       # the template was killed, which would tell it, and all its forks with it


@dataclass
class _Template:
    key: str
    process: subprocess.Popen[bytes]
    control: socket.socket


_templates: dict[str, _Template] = {}
_lock = threading.Lock()
_broken = ""                            # why none can be made on this machine


def seat(stack: contextlib.ExitStack, argv: Sequence[str], imports: Sequence[str], readonly: Binds, env: Mapping[str, str],
         disk_mb: int, tmpfs: Sequence[str]) -> Seat:
    """A fork of the template for `argv` ([python, "-s", program, arguments...]). Raises NoTemplate."""
    global _broken
    if _broken or not seccomp.program():
        raise NoTemplate(_broken or "no system call filter for this kind of machine")
    for last in (False, True):                                  # a template that somebody has killed says nothing about the next one
        with _lock:
            template = _template(list(argv), list(imports), list(readonly), dict(env), list(tmpfs))
        try:
            return _seated(stack, template, json.dumps({"tmpfs": dict.fromkeys(tmpfs, disk_mb)}).encode())
        except NoTemplate as failed:
            if last or not _gone(template):
                _broken = str(failed)
                raise
    raise AssertionError


def _seated(stack: contextlib.ExitStack, template: _Template, word: bytes) -> Seat:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stack.callback(ours.close)
    ours.settimeout(ANSWER_SECONDS)
    pipes = [os.pipe() for _ in range(3)]
    inside = [pipes[0][0], pipes[1][1], pipes[2][1]]
    stdin, stdout, stderr = os.fdopen(pipes[0][1], "wb", 0), os.fdopen(pipes[1][0], "rb", 0), os.fdopen(pipes[2][0], "rb", 0)
    for each in (stdin, stdout, stderr):
        stack.callback(each.close)
    try:
        with _lock:
            socket.send_fds(template.control, [word], [theirs.fileno(), *inside])
    except OSError as error:
        raise NoTemplate(f"the template takes nothing: {error}") from error
    finally:
        theirs.close()
        for descriptor in inside:
            os.close(descriptor)
    init = _answers(stack, ours)
    pid = int(re.findall(r"^Pid:\s*(-?\d+)$", Path(f"/proc/self/fdinfo/{init}").read_text(), re.MULTILINE)[0])
    return Seat(init, pid, ours, stdin, stdout, stderr)


def _answers(stack: contextlib.ExitStack, line: socket.socket) -> int:
    """Wait until the fork says that it is ready; its init's pidfd."""
    init, ready = -1, False
    try:
        while init < 0 or not ready:                            # sitter and init speak independently of each other
            said, descriptors, *_ = socket.recv_fds(line, 4096, 1)
            if said == b"init" and descriptors:
                init = descriptors[0]
                os.set_inheritable(init, False)
                stack.callback(os.close, init)
            elif said == b"ready":
                ready = True
            else:
                raise NoTemplate(said.decode(errors="replace") or "the template ended")
    except OSError as error:
        raise NoTemplate(f"the template does not answer: {error}") from error
    return init


def _template(argv: list[str], imports: list[str], readonly: list[tuple[str | Path, str | Path]], env: dict[str, str],
              tmpfs: list[str]) -> _Template:
    states = [(str(host), str(inside), *_state(host)) for host, inside in readonly]
    key = json.dumps([argv, imports, states, sorted(env.items()), tmpfs])
    found = _templates.pop(key, None)
    if found and found.process.poll() is None:
        _templates[key] = found                                 # the last used is the last in order
        return found
    while len(_templates) >= MOST:
        _end(next(iter(_templates.values())))
    _templates[key] = _start(key, argv, imports, readonly, env, tmpfs)
    return _templates[key]


def _state(host: str | Path) -> tuple[int, int, int]:
    """Changes when a build has put another folder in the place of this one."""
    status = os.stat(host)
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _start(key: str, argv: list[str], imports: list[str], readonly: list[tuple[str | Path, str | Path]], env: dict[str, str],
           tmpfs: list[str]) -> _Template:
    python, dash_s, program, *arguments = argv
    options = bubblewrap.options(readonly=[*readonly, (PROGRAM, INNER_PROGRAM)], tmpfs=dict.fromkeys(tmpfs, 16), chdir=WORK,
                                 template=True, die_with_parent=False)     # that would be with the thread that starts it
    start = {"program": program, "arguments": arguments, "imports": imports, "work": WORK, "uid": bubblewrap.INNER_UID,
             "readonly": [str(inside) for _, inside in readonly], "filter": base64.b64encode(seccomp.program()).decode()}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(START_SECONDS)
    with theirs, tempfile.TemporaryFile() as said:
        process = subprocess.Popen([bubblewrap.find(), *options, "--", python, dash_s, INNER_PROGRAM], env=env, cwd="/",
                                   stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=said)
        theirs.close()
        template = _Template(key, process, ours)
        try:
            ours.send(json.dumps(start).encode())
            if ours.recv(16) == b"warm":
                return template
        except OSError:
            pass
        _end(template)
        said.seek(0)
        raise NoTemplate(said.read().decode(errors="replace").strip()[-500:] or "the template did not start")


def _end(template: _Template) -> None:
    """It and all that was forked from it end, because its process namespace does."""
    _templates.pop(template.key, None)
    template.control.close()
    template.process.kill()
    template.process.wait()


def _gone(template: _Template) -> bool:
    """Whether it has ended, which shows a moment after its forks and its socket do."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        template.process.wait(ENDING_SECONDS)
    with _lock:
        if template.process.poll() is not None and _templates.get(template.key) is template:
            _end(template)
    return template.process.poll() is not None


def end_all() -> None:
    """End all templates: for who wants their memory back."""
    with _lock:
        for template in list(_templates.values()):
            _end(template)


def broken() -> str:
    """Why there are no warm starts on this machine; "" as long as there are."""
    return _broken
