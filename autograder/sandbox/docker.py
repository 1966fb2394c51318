"""The docker sandbox: each run in a container of its own that was started ahead and is used once.

The container has no network, a read-only image, tmpfs of limited size, an unprivileged user without capabilities, the system call
filter of the process sandbox, and the kernel's limits on memory (swap included), processor and processes. Its first program
(holder.py) has imported what jobs import and waits; what a job needs comes over the container's stdin, so nothing of this
machine is mounted, and the engine's socket is only ours.
"""

from __future__ import annotations

import atexit
import base64
import contextlib
import functools
import json
import math
import os
import platform
import re
import secrets
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.jobs import Limits, Usage, Verdict, stopped
from autograder.sandbox import bubblewrap, engine, seccomp
from autograder.sandbox.base import TAMPERING, WORK, ForgedReply, Outcome, SandboxUnavailable, Talk, Watch

HOLDER = Path(__file__).with_name("holder.py")
LABEL = "org.tinytorch.sandbox"
TICK = 0.05
LOOK_SECONDS = 0.25                     # between two questions to the engine about usage
START_SECONDS = 60
MOST_FILES = 50_000                     # on one tmpfs
DISKS = (WORK, "/tmp", "/dev/shm")
LAST_WORDS = {
    Verdict.memory: rb"MemoryError\b", Verdict.pids: rb"(BlockingIOError: \[Errno 11\]|can't start new thread)"}
LARGEST = 64 * 2**20                    # of what is sent into a container


@dataclass
class _Container:
    id: str
    line: socket.socket
    frames: engine.Frames = field(default_factory=engine.Frames)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self.line.close()
        with contextlib.suppress(engine.EngineError):
            engine.ask("DELETE", f"/containers/{self.id}", force="1", v="1")


class Docker:
    """Sandbox backend `docker` (see base.Sandbox). `image`: a digest or id, or a name, of which the id counts.

    `python`: the interpreter in the image. `ready`: how many containers wait started; none are kept for a kind of job that
    comes once.
    """

    name = "docker"

    def __init__(self, image: str = "", python: str = "", ready: int | None = None) -> None:
        self.image = image or os.environ.get("AUTOGRADER_SANDBOX_IMAGE", "")
        self.python = python or os.environ.get("AUTOGRADER_SANDBOX_PYTHON", "python3")
        self.ready = 2 * (os.cpu_count() or 1) if ready is None else ready
        self.pool: dict[str, list[_Container]] = {}
        self.lock = threading.Lock()
        atexit.register(self.end)

    def end(self) -> None:
        """Remove the containers that wait."""
        with self.lock:
            waiting = [container for each in self.pool.values() for container in each]
            self.pool.clear()
        for container in waiting:
            container.remove()

    def check(self) -> None:
        """Raise SandboxUnavailable unless the engine answers and has the image."""
        if not self.image:
            raise SandboxUnavailable("no image is named for the docker sandbox", "Set AUTOGRADER_SANDBOX_IMAGE to an image with Python "
                                     "and NumPy, best by its digest")
        try:
            self.image_id()
        except engine.EngineError as error:
            fix = f"Build or load it: docker load, docker pull {self.image}" if error.status == 404 else \
                "Start the engine, and let this user reach its socket (DOCKER_HOST)"
            raise SandboxUnavailable(str(error), fix) from error

    @functools.lru_cache(1)                              # noqa: B019  one sandbox per process
    def image_id(self) -> str:
        """The image's content id, which a name that is moved to another image does not change."""
        id = str(engine.ask("GET", f"/images/{self.image}/json")["Id"])
        _sweep()
        return id

    def describe(self) -> list[tuple[str, str, bool]]:
        return [("isolation", f"a container of {self.image_id()} for each run, used once", True),
                ("system calls", "filtered", bool(_profile())),
                ("memory, processes, processor", "control group of the container", True),
                ("cpu time", f"asked of the engine every {LOOK_SECONDS:g} s, RLIMIT_CPU behind it", True),
                ("wall time, output, disk", "clock, counted bytes, tmpfs of fixed size", True)]

    def run(self, argv: Sequence[str], files: Mapping[str, bytes], readonly: Sequence[tuple[str | Path, str | Path]],
            limits: Limits, env: Mapping[str, str], collect: Sequence[str] = (), talk: Talk | None = None,
            watch: Watch | None = None, imports: Sequence[str] | None = None) -> Outcome:
        """See base.Sandbox.run. What the image has of itself (Python) is not taken from `readonly`."""
        self.check()
        bubblewrap.refuse_steering(env)
        if sum(map(len, files.values())) > limits.disk_mb * 2**20:
            return Outcome(Verdict.disk, stopped(Verdict.disk, limits, Usage()), Usage())
        given = dict(_given(readonly))
        try:
            container = self._container(sorted({str(Path(path).parent) for path in given}), limits, dict(env), list(imports or ()))
        except (engine.EngineError, OSError) as error:
            return Outcome(Verdict.infra, f"the container did not start: {error}", Usage())
        run = _Run(container, limits, talk, watch or Watch())
        try:
            everything = {**given, **{f"{WORK}/{path}": content for path, content in files.items()}}
            run.start({"argv": [self.python, *argv[1:]], "env": dict(env), "work": WORK, "collect": list(collect), "disks": DISKS,
                       "sizes": [(path, 0o644, len(content)) for path, content in everything.items()]}, b"".join(everything.values()))
            run.watch()
            return run.outcome()
        except (engine.EngineError, OSError) as error:
            return Outcome(Verdict.infra, f"the engine failed: {error}", run.peak)
        finally:
            threading.Thread(target=container.remove).start()       # the next run need not wait for that

    def _container(self, folders: list[str], limits: Limits, env: dict[str, str], imports: list[str]) -> _Container:
        """One that waits, or a new one; another is started in its place."""
        settings = self._settings(folders, limits, env)
        key = json.dumps([settings, imports], sort_keys=True)
        with self.lock:
            for other in [other for other in self.pool if other != key]:                   # of another kind of job
                threading.Thread(target=lambda old: [one.remove() for one in old], args=(self.pool.pop(other),), daemon=True).start()
            waiting = self.pool.setdefault(key, [])
            taken = waiting.pop() if waiting else None
        if imports and self.ready:
            threading.Thread(target=self._refill, args=(key, settings, imports), daemon=True).start()
        return taken or self._started(settings, imports)

    def _refill(self, key: str, settings: dict[str, Any], imports: list[str]) -> None:
        with contextlib.suppress(engine.EngineError, OSError):
            fresh = self._started(settings, imports)
            with self.lock:
                if key in self.pool and len(self.pool[key]) < self.ready:
                    self.pool[key].append(fresh)
                    return
            fresh.remove()

    def _started(self, settings: dict[str, Any], imports: list[str]) -> _Container:
        id = engine.ask("POST", "/containers/create", settings)["Id"]
        container = None
        try:
            container = _Container(id, engine.attach(id))
            engine.ask("POST", f"/containers/{id}/start")
            container.line.sendall(json.dumps({"imports": imports}).encode() + b"\n")
            container.line.settimeout(START_SECONDS)
            said = b""
            while b"\n" not in said:
                if not (chunk := container.line.recv(1 << 16)):
                    raise engine.EngineError(f"the image's first program ended: {said.decode(errors='replace')[-500:]}")
                for name, piece in container.frames.feed(chunk):
                    said += piece
                    if name == "stderr":
                        raise engine.EngineError(piece.decode(errors="replace")[-500:])
            return container
        except BaseException:
            (container or _Container(id, socket.socket())).remove()
            raise

    def _settings(self, folders: list[str], limits: Limits, env: dict[str, str]) -> dict[str, Any]:
        uid, disk, seconds = bubblewrap.INNER_UID, limits.disk_mb * 2**20, int(limits.cpu_seconds) + 2
        tmpfs = f"rw,nosuid,nodev,mode=1777,size={disk},nr_inodes={MOST_FILES}"
        wanted: dict[str, Any] = {
            "Image": self.image_id(), "User": f"{uid}:{uid}", "WorkingDir": "/", "Hostname": "sandbox", "Labels": {LABEL: str(os.getpid())},
            "Entrypoint": [self.python, "-s", "-c", HOLDER.read_text()], "Cmd": [],
            "Env": [f"{name}={value}" for name, value in env.items()],
            "OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": False,
            "HostConfig": {
                "NetworkMode": "none", "ReadonlyRootfs": True, "IpcMode": "private", "ShmSize": disk,
                "Tmpfs": {WORK: tmpfs, "/tmp": tmpfs, **dict.fromkeys(folders, f"rw,nosuid,nodev,mode=1777,size={LARGEST}")},
                "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges", *([f"seccomp={_profile()}"] if _profile() else [])],
                "Memory": limits.memory_mb * 2**20, "MemorySwap": limits.memory_mb * 2**20, "NanoCpus": 10**9,
                "PidsLimit": limits.pids + 1, "LogConfig": {"Type": "none"},                # our holder is one of them
                "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in (
                    ("core", 0), ("fsize", disk), ("nofile", 1024), ("cpu", seconds))]}}
        return wanted


def _sweep() -> None:
    """Remove what supervisors left that were killed: a container ends when nobody holds its stdin, but stays to be looked at."""
    wanted = json.dumps({"label": [LABEL], "status": ["exited", "dead", "created"]})
    for one in engine.ask("GET", "/containers/json", all="1", filters=wanted) or ():
        if not Path("/proc", one["Labels"][LABEL]).exists():
            with contextlib.suppress(engine.EngineError):
                engine.ask("DELETE", f"/containers/{one['Id']}", force="1", v="1")


def _given(readonly: Sequence[tuple[str | Path, str | Path]]) -> Iterator[tuple[str, bytes]]:
    """(inside path, content) of what a run is shown read-only, but for Python, which is the image's own."""
    python = {inside for _, inside in bubblewrap.python_paths()}
    room = LARGEST
    for host, inside in readonly:
        if str(inside) in python or str(host) == str(inside):
            continue
        folder = Path(host)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                room -= len(content)
                if room < 0:
                    raise SandboxUnavailable(f"{host} is larger than the {LARGEST // 2**20} MB that go into a container",
                                             "Use the sandbox `process` for jobs with large data")
                yield (str(Path(inside) / path.relative_to(folder)) if folder.is_dir() else str(inside)), content


@functools.cache
def _profile() -> str:
    """The system call filter of seccomp.py as a profile of Docker; empty on an unknown machine."""
    if platform.machine() not in seccomp.ARCHITECTURES:
        return ""
    column = seccomp.ARCHITECTURES[platform.machine()][1]

    def refuse(names: list[str], number: int = 1, *arguments: dict[str, Any]) -> dict[str, Any]:
        return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(arguments)}
    flags = [1 << bit for bit in range(32) if seccomp.CLONE_NEW >> bit & 1]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        refuse([name for name, numbers in seccomp.CALLS.items() if numbers[column] is not None]), refuse(["clone3"], 38),
        *(refuse(["clone"], 1, {"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}) for flag in flags),
        *(refuse(["socket"], 1, {"index": 0, "value": family, "op": "SCMP_CMP_EQ"}) for family in range(64)
          if family not in seccomp.FAMILIES)]})


class _Run:
    """One program in its container, from its start to its outcome."""

    def __init__(self, container: _Container, limits: Limits, talk: Talk | None, follower: Watch) -> None:
        self.container, self.limits, self.talk, self.follower = container, limits, talk, follower
        self.mark = f"{secrets.token_hex(16)} "
        self.kept = {"stdout": bytearray(), "stderr": bytearray()}
        self.written, self.peak, self.begun, self.spoke = 0, Usage(), time.monotonic(), math.inf
        self.to_send = bytearray()
        self.closing, self.ended = False, False
        self.verdict: Verdict | None = None
        self.sentence = ""
        self.looks, self.found = threading.Event(), {}  # type: threading.Event, dict[str, Any]

    def start(self, wanted: dict[str, Any], contents: bytes) -> None:
        self.container.line.settimeout(START_SECONDS)
        self.container.line.sendall(json.dumps({**wanted, "mark": self.mark}).encode() + b"\n" + contents)
        self.container.line.setblocking(False)
        self.begun = time.monotonic()
        self._converse(b"")
        self.closing |= self.talk is None

    def watch(self) -> None:
        line, next_look = self.container.line, self.begun + LOOK_SECONDS
        while not self.verdict and not self.ended:
            if self.closing and not self.to_send:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_WR)
                self.closing = False
            readable, writable, _ = select.select([line], [line] if self.to_send else [], [], TICK)
            if writable:
                with contextlib.suppress(BlockingIOError, BrokenPipeError):
                    del self.to_send[:line.send(self.to_send)]
            if readable:
                chunk = line.recv(1 << 16)
                self.ended = not chunk
                for name, piece in self.container.frames.feed(chunk):
                    self._receive(name, piece)
            now = time.monotonic()
            if now > next_look:
                self._measure()
                next_look = time.monotonic() + LOOK_SECONDS
            self._limits(now)

    def _receive(self, name: str, piece: bytes) -> None:
        self.written += len(piece)
        if self.written > self.limits.output_kb * 2**10 + (64 * 2**20 if self.mark.encode() in self.kept["stderr"] else 0):
            self._stop(Verdict.output)
        elif name == "stdout" and self.talk:
            self._converse(piece)
        else:
            self.kept[name] += piece
            if name == "stdout" or self.mark.encode() not in self.kept[name]:
                self.follower.hear(piece)
        if name == "stderr" and self.mark.encode() in self.kept["stderr"] and self.kept["stderr"].endswith(b"\n"):
            self.ended = True                                       # the holder has said its last word

    def _converse(self, piece: bytes) -> None:
        try:
            answer = self.talk(piece) if self.talk else None
        except ForgedReply as forged:
            self._stop(Verdict.crashed, f"{TAMPERING}{forged}")
            return
        if answer:
            self.to_send += answer
            self.spoke = time.monotonic()
        elif answer is None and self.talk:
            self.closing = True

    def _limits(self, now: float) -> None:
        if self.follower.stop():
            self._stop(Verdict.cancelled)
        elif self.peak.cpu_seconds > self.limits.cpu_seconds:
            self._stop(Verdict.cpu)
        elif now - self.begun > self.limits.wall_seconds:
            self._stop(Verdict.timeout)
        elif self.talk and now - self.spoke > self.limits.cell_seconds:
            self._stop(Verdict.timeout, stopped(Verdict.timeout, self.limits, self.peak, cell=True))

    def _measure(self) -> None:
        """What the engine counts. Between two looks the kernel's own limits hold."""
        try:
            once: dict[str, Any] = {"stream": "false", "one-shot": "true"}
            said = engine.ask("GET", f"/containers/{self.container.id}/stats", **once)
        except engine.EngineError:
            return                                                  # it has ended meanwhile
        if not said:
            return
        memory, pids = said.get("memory_stats", {}), said.get("pids_stats", {})
        self.peak = self.peak.model_copy(update={
            "cpu_seconds": max(self.peak.cpu_seconds, said.get("cpu_stats", {}).get("cpu_usage", {}).get("total_usage", 0) / 1e9),
            "wall_seconds": time.monotonic() - self.begun, "output_kb": self.written / 2**10,
            "memory_mb": max(self.peak.memory_mb, memory.get("max_usage", memory.get("usage", 0)) / 2**20),
            "pids": max(self.peak.pids, pids.get("current", 0) - 1)})

    def _stop(self, verdict: Verdict, sentence: str = "") -> None:
        if not self.verdict:
            self.verdict, self.sentence = verdict, sentence or stopped(verdict, self.limits, self.peak)

    def outcome(self) -> Outcome:
        self._measure()
        self.peak = self.peak.model_copy(update={"wall_seconds": time.monotonic() - self.begun, "output_kb": self.written / 2**10})
        stderr, _, last = bytes(self.kept["stderr"]).rpartition(self.mark.encode())
        told: dict[str, Any] = {}
        files: dict[str, bytes] = {}
        if not _:
            stderr = last
        else:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                told = json.loads(last)
                files = {str(name): base64.b64decode(text) for name, text in told["files"].items()}
        if isinstance(told.get("used"), int):
            self.peak = self.peak.model_copy(update={"disk_mb": max(0, told["used"]) / 2**20})
        if self.peak.memory_mb > self.limits.memory_mb * 0.9 and self._out_of_memory():
            self._stop(Verdict.memory)
        code = int(told.get("code", 137)) if isinstance(told.get("code", 137), int) else 1
        if not self.verdict:
            self.verdict, self.sentence = self._verdict_of(code, bool(told.get("full")), stderr)
        return Outcome(self.verdict, self.sentence, self.peak, code, bytes(self.kept["stdout"]), stderr, files)

    def _out_of_memory(self) -> bool:
        """Whether the kernel ended any of its processes for that. The engine knows for sure once the container has ended."""
        deadline = time.monotonic() + 2
        with contextlib.suppress(engine.EngineError):
            while True:
                state = engine.ask("GET", f"/containers/{self.container.id}/json")["State"]
                if state["OOMKilled"] or not state["Running"] or time.monotonic() > deadline:
                    return bool(state["OOMKilled"])
                time.sleep(0.02)
        return False

    def _verdict_of(self, code: int, full: bool, stderr: bytes) -> tuple[Verdict, str]:
        if code == 0:
            return Verdict.ok, ""
        if full:
            return Verdict.disk, stopped(Verdict.disk, self.limits, self.peak)
        for verdict, words in LAST_WORDS.items():
            if re.search(words + rb"[^\n]*\n?$", stderr):
                return verdict, stopped(verdict, self.limits, self.peak)
        number = code - 128 if code > 128 else 0
        if number == signal.SIGKILL and self._out_of_memory():
            return Verdict.memory, stopped(Verdict.memory, self.limits, self.peak)
        if number in (signal.SIGXCPU, signal.SIGKILL) and self.peak.cpu_seconds > self.limits.cpu_seconds * 0.9:
            return Verdict.cpu, stopped(Verdict.cpu, self.limits, self.peak)
        if number:
            with contextlib.suppress(ValueError):
                return Verdict.crashed, f"the process was ended by {signal.Signals(number).name}"
        return Verdict.error, f"the process ended with exit code {code}"
