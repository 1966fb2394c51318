"""The life of one run, the same in every sandbox: converse, measure, stop at a limit, say what came of it.

A sandbox brings a Place: it has started the program, carries bytes to and from it, counts what it uses and ends it. It decides
nothing; limits become verdicts here, and the first verdict stands.
"""

import contextlib
import math
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from autograder.jobs import Limits, Usage, Verdict, stopped
from autograder.sandbox.base import TAMPERING, WORK, ForgedReply, Outcome, Sandbox, Talk, Watch
from autograder.sandbox.processes import bubblewrap

TICK = 0.05                             # seconds between two looks at the clock and at who follows
KEEP_SECONDS = 3.0                      # between two looks at what a program can go on from
CHUNK = 1 << 16                         # bytes of one read
COLLECTED = 32 * 2**20                  # bytes of all collected files together
MOST_FILES = 50_000                     # on one tmpfs: each costs the kernel memory that no size limit counts
DISKS = (WORK, "/tmp", "/dev/shm")      # what a program may write to
LAST_WORDS = {                          # Python met a limit of the kernel and gave up by itself
    Verdict.memory: rb"MemoryError\b[^\n]*\n?$",
    Verdict.pids: rb"(BlockingIOError: \[Errno 11\]|can't start new thread)"}     # anywhere: the processes write into each other's words
Piece = tuple[str, bytes]               # "stdout" or "stderr", and what was written there


class Broken(Exception):
    """The sandbox or its machine failed: never the program's fault. The message says how."""


@dataclass
class Counted:
    """What a place has counted so far, in the units of Usage. `over`: a limit that the place itself knows to be hit."""

    cpu_seconds: float = 0.0
    memory_mb: float = 0.0
    pids: int = 0
    disk_mb: float = 0.0
    over: Verdict | None = None
    sentence: str = ""                  # where the usual one about that limit says too little


@dataclass
class End:
    """How a program ended. `code`: negative or above 128 for a signal. `full`: whether one of its disks was."""

    code: int
    full: bool = False
    rest: list[Piece] = field(default_factory=list)             # written before the end, not exchanged yet
    counted: Counted = field(default_factory=Counted)
    limited: bool = True                # whether the kernel refuses it memory and processes beyond its limits


class Place(Protocol):
    """Where one program runs, and how it is reached. Each method raises Broken when that is no longer possible."""

    first: float                        # seconds until the first count
    every: float                        # and between two

    def exchange(self, waiting: bytearray, seconds: float) -> tuple[list[Piece], bool]:
        """Send from the front of `waiting` what is taken; what the program writes within the time, and whether it has ended."""

    def hang_up(self) -> None:
        """The end of the program's input. May be called again."""

    def count(self) -> Counted: ...

    def collect(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Those of the work folder's files that are regular ones, COLLECTED bytes at most."""

    def end(self) -> End:
        """End everything in it, whatever state it is in. May be called again."""


def refused(sandbox: Sandbox, files: Mapping[str, bytes], limits: Limits, env: Mapping[str, str]) -> Outcome | None:
    """Before every run: the outcome of one whose files alone fill its disk. Raises as Sandbox.check, ValueError for an env that would
    act on the sandbox itself."""
    sandbox.check()
    bubblewrap.refuse_steering(env)
    if sum(map(len, files.values())) > limits.disk_mb * 2**20:
        return Outcome(Verdict.disk, stopped(Verdict.disk, limits, Usage()), Usage())
    return None


def follow(place: Place, limits: Limits, talk: Talk | None, watch: Watch | None, collect: Sequence[str]) -> Outcome:
    """Stay with the program that was just started until its end; see base.Sandbox.run."""
    return _Run(place, limits, talk, watch or Watch()).outcome(collect)


def verdict_of(end: End, stderr: bytes, limits: Limits, used: Usage) -> tuple[Verdict, str]:
    """Verdict and sentence for a program that ended by itself."""
    if end.code == 0:
        return Verdict.ok, ""
    if end.full:
        return Verdict.disk, stopped(Verdict.disk, limits, used)
    for verdict, words in LAST_WORDS.items() if end.limited else ():
        if re.search(words, stderr):
            return verdict, stopped(verdict, limits, used)
    number = -end.code if end.code < 0 else end.code - 128 if end.code > 128 else 0
    if number in (signal.SIGXCPU, signal.SIGKILL) and used.cpu_seconds > limits.cpu_seconds * 0.9:        # RLIMIT_CPU
        return Verdict.cpu, stopped(Verdict.cpu, limits, used)
    if number:
        with contextlib.suppress(ValueError):
            return Verdict.crashed, f"the process was ended by {signal.Signals(number).name}"
    return Verdict.error, f"the process ended with exit code {end.code}"


class _Run:
    """One program in its place, from its first byte to its outcome."""

    def __init__(self, place: Place, limits: Limits, talk: Talk | None, follower: Watch) -> None:
        self.place, self.limits, self.talk, self.follower = place, limits, talk, follower
        self.begun = time.monotonic()
        self.spoke = math.inf                           # when the last message was sent to it
        self.to_send, self.closing = bytearray(), False
        self.kept = {"stdout": bytearray(), "stderr": bytearray()}
        self.written, self.peak = 0, Usage()
        self.last_kept, self.next_keep = {}, self.begun + KEEP_SECONDS  # type: dict[str, bytes], float
        self.verdict: Verdict | None = None
        self.sentence = ""

    def outcome(self, collect: Sequence[str]) -> Outcome:
        code, files = None, {}  # type: int | None, dict[str, bytes]
        try:
            self._stay()
            end = self.place.end()
            self._hear(end.rest)
            self._take(end.counted)
            if not self.verdict:
                self._stop(*verdict_of(end, bytes(self.kept["stderr"]), self.limits, self.peak))
            code, files = end.code, self.place.collect(collect)
        except Broken as broken:
            self._stop(Verdict.infra, str(broken))
        assert self.verdict
        return Outcome(self.verdict, self.sentence, self.peak, code, bytes(self.kept["stdout"]), bytes(self.kept["stderr"]), files)

    def _stay(self) -> None:
        """Until the program ends by itself or is to be stopped."""
        self._converse(b"")
        next_count = self.begun + self.place.first
        while not self.verdict:
            if self.closing and not self.to_send:
                self.place.hang_up()
            pieces, ended = self.place.exchange(self.to_send, max(0.0, min(TICK, next_count - time.monotonic())))
            self._hear(pieces)
            if ended:
                return
            if time.monotonic() >= next_count:
                self._take(self.place.count())
                self._keep()
                next_count = time.monotonic() + self.place.every
            self._compare()

    def _hear(self, pieces: Sequence[Piece]) -> None:
        for name, piece in pieces:
            if self.verdict:
                return
            self.written += len(piece)
            if self.written > self.limits.output_kb * 2**10:
                self._stop(Verdict.output)
            elif name == "stdout" and self.talk:
                self._converse(piece)
            else:
                self.kept[name] += piece
                self.follower.hear(piece)

    def _converse(self, piece: bytes) -> None:
        try:
            answer = self.talk(piece) if self.talk else None
        except ForgedReply as forged:
            self._stop(Verdict.crashed, f"{TAMPERING}{forged}")
            return
        if answer:
            self.to_send += answer
            self.spoke = time.monotonic()
        elif answer is None:
            self.closing = True

    def _compare(self) -> None:
        """Stop the program when it is over a limit that no place knows, or when its follower wants that."""
        now = time.monotonic()
        if self.follower.stop():
            self._stop(Verdict.cancelled)
        elif self.peak.cpu_seconds > self.limits.cpu_seconds:
            self._stop(Verdict.cpu)
        elif now - self.begun > self.limits.wall_seconds:
            self.peak = self.peak.model_copy(update={"wall_seconds": now - self.begun})
            self._stop(Verdict.timeout)
        elif self.talk and now - self.spoke > self.limits.cell_seconds:
            self._stop(Verdict.timeout, stopped(Verdict.timeout, self.limits, self.peak, cell=True))

    def _take(self, counted: Counted) -> None:
        peak = self.peak
        self.peak = Usage(
            cpu_seconds=max(peak.cpu_seconds, counted.cpu_seconds), wall_seconds=time.monotonic() - self.begun,
            memory_mb=max(peak.memory_mb, counted.memory_mb), pids=max(peak.pids, counted.pids),
            disk_mb=max(peak.disk_mb, counted.disk_mb), output_kb=self.written / 2**10)
        if counted.over:
            self._stop(counted.over, counted.sentence)

    def _keep(self) -> None:
        if not self.follower.keep or time.monotonic() < self.next_keep:
            return
        found = self.place.collect(self.follower.keep)
        if found and found != self.last_kept:
            self.follower.kept(found)
            self.last_kept = found
        # A megabyte a second at most: nobody's weights fill the disk's time.
        self.next_keep = time.monotonic() + max(KEEP_SECONDS, sum(map(len, found.values())) / 2**20)

    def _stop(self, verdict: Verdict, sentence: str = "") -> None:
        if not self.verdict:
            self.verdict, self.sentence = verdict, sentence or stopped(verdict, self.limits, self.peak)
