"""One container of the docker sandbox: waits with what jobs import, runs one program, tells how it ended, is removed.

What happens to it is the program's doing or not. Its first program (holder.py) cannot be killed from inside, so a container that ends
by SIGKILL and not for want of memory was ended by somebody else, and so was one that the engine no longer knows or answers for.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import select
import signal
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from autograder.jobs import PACKAGES, Limits, Verdict
from autograder.sandbox import run
from autograder.sandbox.base import WORK
from autograder.sandbox.containers import engine
from autograder.sandbox.containers.aside import Aside
from autograder.sandbox.run import CHUNK, COLLECTED, DISKS, Broken, Counted, End, Piece

LARGEST = 64 * 2**20                    # of what is sent into a container
LOOK_SECONDS = 0.25                     # between two looks at what the engine has counted
START_SECONDS = 60
AGAIN_SECONDS = 5.0                     # until an engine that does not answer is asked again to remove something
STATE_SECONDS = 2.0                     # for the engine to notice how a container ended
GRACE_SECONDS = 5.0                     # after the wall time, until a container ends by itself: its supervisor is gone
TIMED_OUT, NOTHING_RAN = 124, 75        # how holder.py ends when these seconds are over, and when it was given nothing
KILLED = 128 + signal.SIGKILL
KEPT_A_SECOND = 4 * 2**20               # bytes that can be said of what is to be kept: the holder says a third of that


def forget(id: str) -> None:
    """End and remove a container; one that an engine has kept which went away, when it is back."""
    try:
        engine.ask("DELETE", f"/containers/{id}", force="1", v="1")
    except engine.EngineError as error:
        if not error.status:
            again = threading.Timer(AGAIN_SECONDS, forget, [id])
            again.daemon = True                     # what is left at our own end the next one sweeps
            again.start()


class Container:
    """The place (see run.Place) of one program. Made running, attached and ready; EngineError or OSError when it does not start."""

    first = every = LOOK_SECONDS

    def __init__(self, settings: Mapping[str, Any], imports: Sequence[str]) -> None:
        self.id, self.frames = str(engine.ask("POST", "/containers/create", settings)["Id"]), engine.Frames()
        with contextlib.ExitStack() as undo:
            undo.callback(forget, self.id)
            self.line = undo.enter_context(engine.attach(self.id))
            engine.ask("POST", f"/containers/{self.id}/start")
            self.line.sendall(json.dumps({"imports": list(imports), "packages": PACKAGES}).encode() + b"\n")
            self.line.settimeout(START_SECONDS)
            self.versions: dict[str, str] = json.loads(self._ready())
            undo.pop_all()
        self.limits, self.collected = Limits(), {}  # type: Limits, dict[str, bytes]
        mark = f"{secrets.token_hex(16)} ".encode()
        self.last, self.printed = Aside(mark), Aside(mark)      # in stderr; in stdout, where only its end is told
        self.broke_off, self.counted = False, Counted()
        self.over = threading.Event()

    def _ready(self) -> bytes:
        said = b""
        while b"\n" not in said:
            if not (chunk := self.line.recv(CHUNK)):
                raise engine.EngineError(f"the image's first program ended: {said.decode(errors='replace')[-500:]}")
            for name, piece in self.frames.feed(chunk):
                said += piece
                if name == "stderr":
                    raise engine.EngineError(piece.decode(errors="replace")[-500:])
        return said

    def waits(self) -> bool:
        """Whether it still waits for a program: nobody has ended it."""
        return not select.select([self.line], [], [], 0)[0]

    def remove(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self.line.close()
        forget(self.id)

    def start(self, argv: list[str], files: Mapping[str, bytes], limits: Limits, env: Mapping[str, str], collect: Sequence[str],
              keep: Sequence[str] = ()) -> None:
        """Give it its program. `files` by their whole paths; `keep` see base.Watch."""
        self.limits, self.begun = limits, time.monotonic()
        wanted = {"argv": argv, "env": dict(env), "work": WORK, "collect": list(collect), "disks": DISKS, "mark": self.last.mark.decode(),
                  "seconds": limits.wall_seconds + GRACE_SECONDS, "keep": list(keep), "keep_seconds": run.KEEP_SECONDS,
                  "sizes": [(path, 0o644, len(content)) for path, content in files.items()]}
        self.line.settimeout(START_SECONDS)
        self.line.sendall(json.dumps(wanted).encode() + b"\n" + b"".join(files.values()))
        self.line.setblocking(False)
        threading.Thread(target=self._watch, daemon=True).start()

    def exchange(self, waiting: bytearray, seconds: float) -> tuple[list[Piece], bool]:
        try:
            readable, writable, _ = select.select([self.line], [self.line] if waiting else [], [], seconds)
            if writable:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    del waiting[:self.line.send(waiting)]
            chunk = self.line.recv(CHUNK) if readable else None
        except OSError as error:
            raise Broken(f"the engine failed: {error}") from error
        self.broke_off = chunk == b""
        aside = {"stdout": self.printed, "stderr": self.last}
        pieces = [(name, aside[name].before(piece)) for name, piece in self.frames.feed(chunk or b"")]
        # the engine carries the two over by themselves: what one told last can come before the rest of the other
        return [one for one in pieces if one[1]], self.broke_off or (self.last.whole and self.printed.whole)

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.line.shutdown(socket.SHUT_WR)

    def count(self) -> Counted:
        """What the engine has counted. Between two looks the kernel's own limits hold."""
        if self.last.said + self.printed.said > 2 * COLLECTED + KEPT_A_SECOND * (time.monotonic() - self.begun):
            self.counted.over = Verdict.output              # never the holder: a program that has found out its mark
        return self.counted

    def _watch(self) -> None:
        """Ask the engine until the program's end. Docker 20.10 lets all but the first question wait for a second: nobody waits along."""
        once: dict[str, Any] = {"stream": "false", "one-shot": "true"}
        with contextlib.suppress(engine.EngineError):                       # it has ended meanwhile
            while not self.over.wait(LOOK_SECONDS) and (said := engine.ask("GET", f"/containers/{self.id}/stats", **once)):
                memory, now = said.get("memory_stats", {}), self.counted
                now.cpu_seconds = max(now.cpu_seconds, said.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9)
                now.memory_mb = max(now.memory_mb, memory.get("max_usage", memory.get("usage", 0)) / 2**20)
                now.pids = max(now.pids, said.get("pids_stats", {}).get("current", 0) - 1)

    def collect(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Of a program that has ended; while it runs, what the holder has said of the files that are to be kept."""
        found = self.collected if self.over.is_set() else self.last.kept
        return {path: found[path] for path in paths if path in found}

    def end(self) -> End:
        """How the program ended, as the holder tells it. Raises Broken when something else ended the container."""
        self.over.set()
        told = self._told()
        if self.broke_off and not told:
            return self._broken_off()
        code = told.get("code", KILLED)
        if self.counted.memory_mb > self.limits.memory_mb * 0.9 or code == KILLED:
            with contextlib.suppress(engine.EngineError):
                if self._state()["OOMKilled"]:
                    self.counted.over = Verdict.memory
        return End(code if isinstance(code, int) else 1, bool(told.get("full")), [], self.counted)

    def _told(self) -> dict[str, Any]:
        """The holder's last word, {} when there is none or it is nonsense."""
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            told: dict[str, Any] = json.loads(self.last.text)
            self.collected = {str(name): base64.b64decode(text) for name, text in told["files"].items()}
            self.counted.disk_mb = max(0, int(told["used"])) / 2**20
            self.counted.cpu_seconds = max(self.counted.cpu_seconds, float(told["cpu"]))
            self.counted.memory_mb = max(self.counted.memory_mb, int(told["memory"]) / 2**20)
            if int(told["refused"]):
                self.counted.over = Verdict.pids
            return told
        return {}

    def _broken_off(self) -> End:
        try:
            state = self._state()
        except engine.EngineError as error:
            raise Broken(f"the engine failed: {error}") from error
        if state["OOMKilled"]:
            self.counted.over = Verdict.memory
        elif state["ExitCode"] == TIMED_OUT:
            self.counted.over = Verdict.timeout
        elif state["Running"] or state["ExitCode"] in (0, NOTHING_RAN, KILLED):
            raise Broken("the engine let go of the container" if state["Running"] else "the container was ended from outside")
        rest = [("stdout", bytes(self.printed.doubtful)), ("stderr", bytes(self.last.doubtful))]
        return End(int(state["ExitCode"]), False, rest, self.counted)

    def _state(self) -> dict[str, Any]:
        """What the engine knows for sure once the container has ended, or that the kernel ended a process in it for want of memory."""
        deadline = time.monotonic() + STATE_SECONDS
        while True:
            state: dict[str, Any] = engine.ask("GET", f"/containers/{self.id}/json")["State"]
            if state["OOMKilled"] or not state["Running"] or time.monotonic() > deadline:
                return state
            time.sleep(0.02)
