"""The process sandbox: bubblewrap's namespaces, the kernel's limits where we may set them, and a watch over the rest.

Order of events: bwrap (or a fork of a template, see warm.py) prepares the namespaces and waits; its init gets resource limits
and a control group; we open its work folder and its /proc; only then the program starts. At the end the namespace's init is
killed, which takes every process in it along, and only then files are read, through the folders that we still hold.
"""

import contextlib
import os
import re
import resource
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from autograder.jobs import Limits, Usage, Verdict
from autograder.sandbox import regular, run, seccomp
from autograder.sandbox.base import WORK, Outcome, SandboxUnavailable, Talk, Watch
from autograder.sandbox.processes import bubblewrap, census, cgroup, warm
from autograder.sandbox.processes.pipes import Pipes
from autograder.sandbox.run import DISKS, MOST_FILES, Broken, Counted, End, Piece

START_SECONDS = 20
Binds = Sequence[tuple[str | Path, str | Path]]


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

    def image(self) -> None:
        """This machine's Python."""

    def describe(self) -> list[tuple[str, str, bool]]:
        """See base.Sandbox.describe."""
        group, root = cgroup.create(Limits()), os.geteuid() == 0
        watched = f"watched every {_Namespaces.every * 1000:.0f} ms"
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
            watch: Watch | None = None, imports: Sequence[str] | None = None, data: tuple[Path, str] | None = None) -> Outcome:
        """See base.Sandbox.run."""
        if refused := run.refused(self, files, limits, env):
            return refused
        readonly = [*readonly, *([data] if data else [])]
        with contextlib.ExitStack() as stack:
            place = _Namespaces(stack, limits)
            try:
                if imports is None or not place.start_warm(list(argv), files, readonly, dict(env), imports):
                    place.start(list(argv), files, readonly, dict(env))
                return run.follow(place, limits, talk, watch, collect)
            except Broken as broken:
                return Outcome(Verdict.infra, f"the sandbox did not start: {broken}", Usage())
            finally:
                with contextlib.suppress(Broken):       # said already
                    place.end()


class _Namespaces:
    """The place of one program: namespaces with an init of their own, and a control group where there can be one."""

    first, every = 0.005, 0.05          # soon, since many programs end soon

    def __init__(self, stack: contextlib.ExitStack, limits: Limits) -> None:
        self.stack, self.limits = stack, limits
        self.process: subprocess.Popen[bytes] | None = None    # bwrap, in a cold start
        self.pipes: Pipes | None = None                 # there is something to end
        self.wait: Callable[[], int] = lambda: -1
        self.init = -1                                  # pidfd of the namespace's init
        self.group: cgroup.Group | None = None
        self.folders: dict[str, int] = {}               # inside path -> descriptor, open beyond the sandbox's end
        self.disk_was_full = False
        self.ended = End(-1)

    # Start

    def start(self, argv: list[str], files: Mapping[str, bytes], readonly: Binds, env: dict[str, str]) -> None:
        ready = f"/.ready-{secrets.token_hex(8)}"
        with contextlib.ExitStack() as inherited:       # descriptors for bwrap, closed here once it has them
            block, release = self._pipe(inherited, ours="write")
            info, information = self._pipe(inherited, ours="read")
            copies = [(_memory(inherited, content), f"{WORK}/{path}") for path, content in files.items()]
            options = bubblewrap.options(
                readonly=readonly, tmpfs=dict.fromkeys(DISKS, self.limits.disk_mb), chdir=WORK,
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
        ended = os.pidfd_open(process.pid)
        self.stack.callback(os.close, ended)
        self.wait, self.pipes = process.wait, Pipes(process.stdin, process.stdout, process.stderr, ended)
        pid = self._init_pid(info)
        self.init = os.pidfd_open(pid)
        self.stack.callback(os.close, self.init)
        self._wait_until(Path(f"/proc/{pid}/root{ready}"))
        self._open(pid)
        self._limit(pid)
        os.write(release, b"1")

    def start_warm(self, argv: list[str], files: Mapping[str, bytes], readonly: Binds, env: dict[str, str],
                   imports: Sequence[str]) -> bool:
        """The same from a process that has imported what the program needs; False where there can be none."""
        try:
            seat = warm.seat(self.stack, argv, imports, readonly, env, self.limits.disk_mb, DISKS)
        except warm.NoTemplate:
            return False
        self.init, self.wait, self.pipes = seat.init, seat.wait, Pipes(seat.stdin, seat.stdout, seat.stderr, seat.init)
        try:
            self._open(seat.pid)
            for path, content in files.items():
                regular.write(self.folders[WORK], path, content)
            self._limit(seat.pid)
            seat.go()
        except OSError as error:
            raise Broken(f"the fork of the template is gone: {error}") from error
        return True

    def _open(self, pid: int) -> None:
        for inside in (*DISKS, "/proc"):
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
                raise Broken("bwrap says nothing")
            chunk = os.read(info, 4096)
            if not chunk:
                raise Broken(self._last_words())
            said += chunk
        return int(found[1])

    def _wait_until(self, ready: Path) -> None:
        """Until bwrap has moved into the new root. The file's name is random, so no other root has it."""
        assert self.process
        deadline = time.monotonic() + START_SECONDS
        while not ready.exists():
            if self.process.poll() is not None:
                raise Broken(self._last_words())
            if time.monotonic() > deadline:
                raise Broken(f"bwrap is not ready after {START_SECONDS} s")
            time.sleep(0.001)

    def _last_words(self) -> str:
        assert self.process
        assert self.process.stderr
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(START_SECONDS)
        return (self.process.stderr.read() or b"").decode(errors="replace").strip() or "bwrap ended without a word"

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

    def exchange(self, waiting: bytearray, seconds: float) -> tuple[list[Piece], bool]:
        assert self.pipes
        return self.pipes.exchange(waiting, seconds)

    def hang_up(self) -> None:
        assert self.pipes
        self.pipes.hang_up()

    def count(self) -> Counted:
        """What its /proc shows and its control group says; without a group both are held to the limits here."""
        counted = census.count(self.folders["/proc"], self.limits.memory_mb)
        now = Counted(counted.cpu_seconds, counted.memory_mb, counted.pids)
        for inside in DISKS:
            space = os.fstatvfs(self.folders[inside])
            now.disk_mb = max(now.disk_mb, (space.f_blocks - space.f_bfree) * space.f_frsize / 2**20)
            self.disk_was_full |= space.f_bavail == 0
            if space.f_files - space.f_ffree > MOST_FILES:
                now.over, now.sentence = Verdict.disk, f"made more than {MOST_FILES} files"
        if self.group:
            self._account(self.group.read(), now)
        elif now.memory_mb > self.limits.memory_mb:
            now.over = now.over or Verdict.memory
        if now.pids > self.limits.pids:
            now.over = now.over or Verdict.pids
        return now

    def _account(self, reading: cgroup.Reading, counted: Counted) -> None:
        """The kernel's own word, which also knows what happened between two looks."""
        if reading.out_of_memory_above:
            raise Broken("the machine had no memory left, or what it grants to all sandboxes together")
        counted.cpu_seconds = max(counted.cpu_seconds, reading.cpu_seconds or 0.0)
        counted.memory_mb = reading.memory_mb or counted.memory_mb
        counted.over = counted.over or (Verdict.memory if reading.out_of_memory else Verdict.pids if reading.out_of_pids else None)

    def collect(self, paths: Sequence[str]) -> dict[str, bytes]:
        return regular.collect(self.folders[WORK], paths)

    def end(self) -> End:
        if not self.pipes:
            return self.ended
        by_us = not self.process and not select.select([self.init], [], [], 0)[0]          # bwrap is never ended by us once it has an init
        if self.init >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.init, signal.SIGKILL)
            select.select([self.init], [], [], START_SECONDS)   # readable once every process of the namespace is gone
        elif self.process:
            self.process.kill()
        self.ended = End(self.wait(), rest=self.pipes.close())
        self.pipes = None
        if self.group:
            group, self.group = self.group, None
            reading = group.read()
            group.remove()
            self._account(reading, self.ended.counted)
        if self.ended.code < 0 and not by_us and not self.ended.counted.over:
            raise Broken("the sandbox was ended from outside")          # its init or bwrap was, which no program in it reaches
        disks = [self.folders[inside] for inside in DISKS if inside in self.folders]
        self.ended.full = self.disk_was_full or any(os.fstatvfs(disk).f_bavail == 0 for disk in disks)
        return self.ended


def _memory(stack: contextlib.ExitStack, content: bytes) -> int:
    """A descriptor that reads `content`, for bwrap to inherit."""
    descriptor = os.memfd_create("sandbox")
    stack.callback(os.close, descriptor)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
