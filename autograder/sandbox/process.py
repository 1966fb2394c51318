"""The process sandbox: bubblewrap's namespaces, the kernel's limits where we may set them, and a watch over the rest.

Order of events: bwrap (or a fork of a template, see warm.py) prepares the namespaces and waits; its init gets resource limits
and a control group; we open its work folder and its /proc; only then the program starts. At the end the namespace's init is
killed, which takes every process in it along, and only then files are read, through the folders that we still hold.
"""

import contextlib
import io
import math
import os
import re
import resource
import secrets
import select
import selectors
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from autograder.jobs import Limits, Usage, Verdict, stopped
from autograder.sandbox import bubblewrap, census, cgroup, seccomp, warm
from autograder.sandbox.base import TAMPERING, WORK, ForgedReply, Outcome, SandboxUnavailable, Talk, Watch

TICK = 0.05                             # seconds between two looks at the usage
START_SECONDS = 20
CHUNK = 1 << 16
COLLECTED = 32 * 2**20                  # bytes of all collected files together
KEEP_SECONDS = 3.0                      # between two looks at what a program can go on from
MOST_FILES = 50_000                     # on one tmpfs: each costs the kernel memory that no size limit counts
LAST_WORDS = {                          # Python met a limit of the kernel (RLIMIT_DATA, RLIMIT_NPROC) and gave up by itself
    Verdict.memory: rb"MemoryError\b", Verdict.pids: rb"(BlockingIOError: \[Errno 11\]|can't start new thread)"}
TMPFS = (WORK, "/tmp", "/dev/shm")


class Process:
    """Sandbox backend `process` (see base.Sandbox): bubblewrap on this machine."""

    name = "process"

    def check(self) -> None:
        """Raise SandboxUnavailable unless a program can be isolated here: bwrap is really run, once per process."""
        bubblewrap.find()
        try:
            os.close(os.pidfd_open(os.getpid()))
        except (AttributeError, OSError) as error:
            raise SandboxUnavailable(f"no pidfd here ({error})", "Use Linux 5.3 or newer") from error

    def describe(self) -> list[tuple[str, str, bool]]:
        """See base.Sandbox.describe."""
        group, root = cgroup.create(Limits()), os.geteuid() == 0
        watched = f"watched every {TICK * 1000:.0f} ms"
        how = f"control group, version {group.version}" if group else watched
        if group:
            group.remove()
        filtered = bool(seccomp.program())
        memory = how if group else f"{watched}, RLIMIT_DATA behind it: a fast program can overshoot"
        pids = how if group or root else f"RLIMIT_NPROC of the user namespace, {watched}"
        return [
            ("isolation", f"{bubblewrap.find()}: own user, process, network, IPC and mount namespaces", True),
            ("system calls", "filtered" if filtered else "not filtered on this kind of machine", filtered),
            ("memory", memory, bool(group)),
            ("processes", pids, bool(group) or not root),
            ("cpu time", f"{how}, RLIMIT_CPU behind it", True),
            ("wall time, output, disk", "clock, counted bytes, tmpfs of fixed size", True),
        ]

    def run(self, argv: Sequence[str], files: Mapping[str, bytes], readonly: Sequence[tuple[str | Path, str | Path]],
            limits: Limits, env: Mapping[str, str], collect: Sequence[str] = (), talk: Talk | None = None,
            watch: Watch | None = None, imports: Sequence[str] | None = None) -> Outcome:
        """See base.Sandbox.run."""
        self.check()
        bubblewrap.refuse_steering(env)
        if sum(map(len, files.values())) > limits.disk_mb * 2**20:
            return Outcome(Verdict.disk, stopped(Verdict.disk, limits, Usage()), Usage())
        with contextlib.ExitStack() as stack:
            run = _Run(stack, limits, talk, watch or Watch())
            try:
                if imports is None or not run.start_warm(list(argv), files, readonly, dict(env), imports):
                    run.start(list(argv), files, readonly, dict(env))
                run.watch()
            except _Broken as broken:
                return Outcome(Verdict.infra, f"the sandbox did not start: {broken}", run.peak)
            finally:
                run.end()
            return run.outcome(collect)


class _Broken(Exception):
    """bwrap itself failed: never the program's fault."""


class _Run:
    """One program in one sandbox, from its start to its outcome."""

    def __init__(self, stack: contextlib.ExitStack, limits: Limits, talk: Talk | None, follower: Watch) -> None:
        self.stack, self.limits, self.talk, self.follower = stack, limits, talk, follower
        self.process: subprocess.Popen[bytes] | None = None    # bwrap, in a cold start
        self.running, self.wait = False, lambda: -1
        self.ended = -1                                 # pidfd, readable at the end
        self.stdin: IO[bytes] = io.BytesIO()
        self.streams: dict[str, IO[bytes]] = {}
        self.code = -1
        self.init = -1                                  # pidfd of the namespace's init
        self.group: cgroup.Group | None = None
        self.folders: dict[str, int] = {}               # inside path -> descriptor, open beyond the sandbox's end
        self.begun = time.monotonic()                   # start of the program
        self.spoke = math.inf                           # when the last message was sent to it
        self.kept = {"stdout": bytearray(), "stderr": bytearray()}
        self.written = {"stdout": 0, "stderr": 0}
        self.to_send = b""
        self.peak = Usage()
        self.disk_was_full = False
        self.last_kept, self.next_keep = {}, time.monotonic() + KEEP_SECONDS  # type: dict[str, bytes], float
        self.verdict: Verdict | None = None
        self.sentence = ""

    # Start

    def start(self, argv: list[str], files: Mapping[str, bytes],
              readonly: Sequence[tuple[str | Path, str | Path]], env: dict[str, str]) -> None:
        ready = f"/.ready-{secrets.token_hex(8)}"
        with contextlib.ExitStack() as inherited:       # descriptors for bwrap, closed here once it has them
            block, release = self._pipe(inherited, ours="write")
            info, information = self._pipe(inherited, ours="read")
            copies = [(_memory(inherited, content), f"{WORK}/{path}") for path, content in files.items()]
            options = bubblewrap.options(
                readonly=readonly, tmpfs=dict.fromkeys(TMPFS, self.limits.disk_mb), chdir=WORK,
                files=[*copies, (_memory(inherited, b""), ready)])
            if filtered := seccomp.program():
                options += ["--seccomp", str(_memory(inherited, filtered))]
            options += ["--block-fd", str(block), "--info-fd", str(information)]
            arguments = _memory(inherited, "\0".join(options).encode() + b"\0")    # argv would show inside
            fds = (block, information, arguments, *(int(options[at + 1]) for at, word in enumerate(options)
                                                    if word in ("--file", "--seccomp")))
            process = self.process = subprocess.Popen(
                [bubblewrap.find(), "--args", str(arguments), "--", *argv], env=env, cwd="/", pass_fds=fds,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin, self.streams = process.stdin, {"stdout": process.stdout, "stderr": process.stderr}
        self.running, self.wait, self.ended = True, process.wait, os.pidfd_open(process.pid)
        self.stack.callback(os.close, self.ended)
        pid = self._init_pid(info)
        self.init = os.pidfd_open(pid)
        self.stack.callback(os.close, self.init)
        self._wait_until(Path(f"/proc/{pid}/root{ready}"))
        self._open(pid)
        self._limit(pid)
        os.write(release, b"1")
        self.begun = time.monotonic()

    def start_warm(self, argv: list[str], files: Mapping[str, bytes], readonly: Sequence[tuple[str | Path, str | Path]],
                   env: dict[str, str], imports: Sequence[str]) -> bool:
        """The same from a process that has imported what the program needs; False where there can be none."""
        try:
            seat = warm.seat(self.stack, argv, imports, readonly, env, self.limits.disk_mb, TMPFS)
        except warm.NoTemplate:
            return False
        self.stdin, self.streams = seat.stdin, {"stdout": seat.stdout, "stderr": seat.stderr}
        self.running, self.wait, self.ended, self.init = True, seat.wait, seat.init, seat.init
        try:
            self._open(seat.pid)
            for path, content in files.items():
                _write(self.folders[WORK], path, content)
            self._limit(seat.pid)
            seat.go()
        except OSError as error:
            raise _Broken(f"the fork of the template is gone: {error}") from error
        self.begun = time.monotonic()
        return True

    def _open(self, pid: int) -> None:
        for inside in (*TMPFS, "/proc"):
            self.folders[inside] = os.open(f"/proc/{pid}/root{inside}", os.O_RDONLY | os.O_DIRECTORY)
            self.stack.callback(os.close, self.folders[inside])

    def _pipe(self, inherited: contextlib.ExitStack, ours: str) -> tuple[int, int]:
        read, write = os.pipe()
        inherited.callback(os.close, write if ours == "read" else read)
        self.stack.callback(os.close, read if ours == "read" else write)
        return read, write

    def _init_pid(self, info: int) -> int:
        said = b""
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(rb'"child-pid":\s*(\d+)\D', said)):
            if not select.select([info], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise _Broken("bwrap says nothing")
            chunk = os.read(info, 4096)
            if not chunk:
                raise _Broken(self._last_words())
            said += chunk
        return int(found[1])

    def _wait_until(self, ready: Path) -> None:
        """Until bwrap has moved into the new root. The file's name is random, so no other root has it."""
        assert self.process
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self.process.poll() is not None:
                raise _Broken(self._last_words())
            if time.monotonic() > deadline:
                raise _Broken(f"bwrap is not ready after {START_SECONDS} s")
            time.sleep(0.001)

    def _last_words(self) -> str:
        assert self.process
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(START_SECONDS)
        os.set_blocking(self.streams["stderr"].fileno(), False)
        return (self.streams["stderr"].read() or b"").decode(errors="replace").strip() or "bwrap ended without a word"

    def _limit(self, pid: int) -> None:
        """Limits on the namespace's init, which all its children inherit."""
        limits = self.limits
        self.group = cgroup.create(limits)
        if self.group:
            self.group.add(pid)
        data = int(limits.memory_mb * 1.5 + 256) * 2**20                # RLIMIT_AS breaks NumPy, this does not
        for which, value in [
            (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, limits.disk_mb * 2**20), (resource.RLIMIT_DATA, data),
            (resource.RLIMIT_NOFILE, 1024), (resource.RLIMIT_CPU, int(limits.cpu_seconds) + 2),
            (resource.RLIMIT_NPROC, limits.pids + 1),                   # counts within the user namespace (Linux 5.14)
        ]:
            hard = resource.prlimit(pid, which)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.prlimit(pid, which, (value, value))

    # While it runs

    def watch(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self.ended, selectors.EVENT_READ, "ended")
            for name, pipe in self.streams.items():
                os.set_blocking(pipe.fileno(), False)
                ready.register(pipe, selectors.EVENT_READ, name)
            os.set_blocking(self.stdin.fileno(), False)
            self._converse(b"")
            next_look = time.monotonic() + 0.005
            while not self.verdict:
                self._send(ready)
                events = ready.select(max(0.0, min(TICK, next_look - time.monotonic())))
                for key, _ in events:
                    if key.data in self.kept and not self._receive(key.data, key.fd):
                        ready.unregister(key.fileobj)
                if any(key.data == "ended" for key, _ in events):
                    break
                if time.monotonic() >= next_look:
                    self._look()
                    next_look = time.monotonic() + TICK

    def _receive(self, name: str, descriptor: int) -> bool:
        """Take what there is. Returns False at the end of the stream."""
        try:
            chunk = os.read(descriptor, CHUNK)
        except BlockingIOError:
            return True
        self.written[name] += len(chunk)
        if self.written[name] > self.limits.output_kb * 2**10:
            self._stop(Verdict.output)
        elif name == "stdout" and self.talk:
            if chunk:
                self._converse(chunk)
        else:
            self.kept[name] += chunk
            if chunk:
                self.follower.hear(chunk)
        return bool(chunk)

    def _converse(self, chunk: bytes) -> None:
        try:
            answer = self.talk(chunk) if self.talk else None
        except ForgedReply as forged:
            self._stop(Verdict.crashed, f"{TAMPERING}{forged}")
            return
        if answer:
            self.to_send += answer
            self.spoke = time.monotonic()
        elif answer is None:
            self._hang_up()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.stdin.close()

    def _send(self, ready: selectors.BaseSelector) -> None:
        if self.stdin.closed:
            return
        try:
            self.to_send = self.to_send[os.write(self.stdin.fileno(), self.to_send) if self.to_send else 0:]
        except BlockingIOError:
            pass
        except OSError:                                 # it closed its end: its exit follows or its silence is timed
            self.to_send = b""
        watched = self.stdin.fileno() in ready.get_map()
        if self.to_send and not watched:
            ready.register(self.stdin, selectors.EVENT_WRITE, "stdin")
        elif watched and not self.to_send:
            ready.unregister(self.stdin)

    def _look(self) -> None:
        """Measure, and stop the program when it is over a limit."""
        limits, now = self.limits, self._measure()
        reading = self.group.read() if self.group else None
        wall = time.monotonic()
        if self.follower.keep and wall > self.next_keep:
            size = self._keep()
            self.next_keep = wall + max(KEEP_SECONDS, size / 2**20)     # a megabyte a second: nobody's weights fill the disk's time
        if self.follower.stop():
            self._stop(Verdict.cancelled)
        elif (reading and reading.out_of_memory) or (not self.group and now.memory_mb > limits.memory_mb):
            self._stop(Verdict.memory)
        elif (reading and reading.out_of_pids) or now.pids > limits.pids:
            self._stop(Verdict.pids)
        elif now.cpu_seconds > limits.cpu_seconds:
            self._stop(Verdict.cpu)
        elif wall - self.begun > limits.wall_seconds:
            self._stop(Verdict.timeout)
        elif self.talk and wall - self.spoke > limits.cell_seconds:
            self._stop(Verdict.timeout, stopped(Verdict.timeout, limits, now, cell=True))

    def _keep(self) -> int:
        found = self._collect(self.follower.keep)
        if found and found != self.last_kept:
            self.follower.kept(found)
            self.last_kept = found
        return sum(map(len, found.values()))

    def _measure(self) -> Usage:
        counted = census.count(self.folders["/proc"], self.limits.memory_mb)
        reading = self.group.read() if self.group else None
        disk = 0.0
        for inside in TMPFS:
            space = os.fstatvfs(self.folders[inside])
            disk = max(disk, (space.f_blocks - space.f_bfree) * space.f_frsize / 2**20)
            self.disk_was_full |= space.f_bavail == 0
            if space.f_files - space.f_ffree > MOST_FILES:
                self._stop(Verdict.disk, f"made more than {MOST_FILES} files")
        self.peak = Usage(
            cpu_seconds=max(self.peak.cpu_seconds, counted.cpu_seconds, (reading and reading.cpu_seconds) or 0.0),
            wall_seconds=time.monotonic() - self.begun,
            memory_mb=max(self.peak.memory_mb, (reading and reading.memory_mb) or counted.memory_mb),
            pids=max(self.peak.pids, counted.pids), disk_mb=max(self.peak.disk_mb, disk),
            output_kb=sum(self.written.values()) / 2**10)
        return self.peak

    def _stop(self, verdict: Verdict, sentence: str = "") -> None:
        if not self.verdict:
            self.verdict = verdict
            self.sentence = sentence or stopped(verdict, self.limits, self.peak)

    # The end

    def end(self) -> None:
        """End everything in the sandbox, whatever state it is in. May be called again."""
        if not self.running:
            return
        if self.init >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.init, signal.SIGKILL)
            select.select([self.init], [], [], START_SECONDS)   # readable once every process of the namespace is gone
        elif self.process:
            self.process.kill()
        self.code = self.wait()
        self.peak = self.peak.model_copy(update={"wall_seconds": time.monotonic() - self.begun})
        self._hang_up()
        for name, pipe in self.streams.items():         # what was written before the end counts
            os.set_blocking(pipe.fileno(), False)
            while not self.verdict and self._receive(name, pipe.fileno()) and select.select([pipe], [], [], 0)[0]:
                pass
            pipe.close()
        self.streams.clear()
        if self.group:
            self._account(self.group.read())
            self.group.remove()
            self.group = None
        self.running = False

    def _account(self, reading: cgroup.Reading) -> None:
        """The kernel's last word, which also knows what happened between two looks."""
        self.peak = self.peak.model_copy(update={
            "cpu_seconds": max(self.peak.cpu_seconds, reading.cpu_seconds or 0.0),
            "memory_mb": max(self.peak.memory_mb, reading.memory_mb or 0.0)})
        if reading.out_of_memory:
            self._stop(Verdict.memory)
        elif reading.out_of_pids:
            self._stop(Verdict.pids)

    def outcome(self, collect: Sequence[str]) -> Outcome:
        self.peak = self.peak.model_copy(update={"output_kb": sum(self.written.values()) / 2**10})
        if not self.verdict:
            disk = [self.folders[inside] for inside in TMPFS]
            full = self.disk_was_full or any(os.fstatvfs(folder).f_bavail == 0 for folder in disk)
            self.verdict, self.sentence = self._verdict_of(self.code, full)
        return Outcome(self.verdict, self.sentence, self.peak, self.code, bytes(self.kept["stdout"]),
                       bytes(self.kept["stderr"]), self._collect(collect))

    def _verdict_of(self, code: int, full: bool) -> tuple[Verdict, str]:
        if code == 0:
            return Verdict.ok, ""
        if full:
            return Verdict.disk, stopped(Verdict.disk, self.limits, self.peak)
        for verdict, words in LAST_WORDS.items():
            if re.search(words + rb"[^\n]*\n?$", self.kept["stderr"]):
                return verdict, stopped(verdict, self.limits, self.peak)
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if number == signal.SIGXCPU:
            return Verdict.cpu, stopped(Verdict.cpu, self.limits, self.peak)
        if number:
            with contextlib.suppress(ValueError):
                return Verdict.crashed, f"the process was ended by {signal.Signals(number).name}"
        return Verdict.error, f"the process ended with exit code {code}"

    def _collect(self, paths: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in paths:
            with contextlib.suppress(OSError):
                content = _read_regular(self.folders[WORK], path, COLLECTED - sum(map(len, found.values())))
                found[path] = content
        return found


def _memory(stack: contextlib.ExitStack, content: bytes) -> int:
    """A descriptor that reads `content`, for bwrap to inherit."""
    descriptor = os.memfd_create("sandbox")
    stack.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _write(folder: int, path: str, content: bytes) -> None:
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


def _read_regular(folder: int, path: str, limit: int) -> bytes:
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
