"""Processes that outlive the hub: known by pid and start time, so that no signal reaches a later owner of a pid."""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process of this machine. `started` is whatever the system says about its start; only equality matters."""

    pid: int
    started: str

    def alive(self) -> bool:
        """Whether this very process still runs; one that ended and waits to be reaped does not."""
        return _row(self.pid)[1:] == (self.started, True)

    def signal(self, number: int) -> bool:
        """Send it a signal; False when it is gone."""
        try:
            if not self.alive():
                return False
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def identify(pid: int) -> Process:
    """The process that has this pid now. Raises ProcessLookupError when there is none."""
    parent, started, _ = _row(pid)
    if parent < 0:
        raise ProcessLookupError(f"no process has pid {pid}")
    return Process(pid, started)


def tree(root: Process) -> list[Process]:
    """The process and all its descendants, parents before children; empty when it is gone."""
    rows = dict(_rows())
    if rows.get(root.pid, (0, ""))[1] != root.started:
        return []
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in rows.items():
        children.setdefault(parent, []).append(pid)
    found = [root]
    for process in found:                              # grows while it is walked
        found.extend(Process(pid, rows[pid][1]) for pid in children.get(process.pid, []))
    return found


def served(root: Process) -> Process:
    """The program that was asked for: below bubblewrap's own processes where the root is one."""
    line = tree(root)
    while line and _name(line[0].pid) == "bwrap" and len(line) > 1:
        line = line[1:]
    return line[0] if line else root


def kill(processes: Iterable[Process]) -> None:
    """End them at once. Gone ones are passed over."""
    for process in processes:
        process.signal(signal.SIGKILL)


def wait(processes: Iterable[Process], seconds: float) -> bool:
    """Wait until all have ended; False when some still run after that time."""
    deadline = time.monotonic() + seconds
    remaining = list(processes)
    while remaining := [process for process in remaining if process.alive()]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def command_line(pid: int) -> str:
    """The command of a process; empty when it is gone."""
    if not PROC.joinpath("self").exists():
        return _ps("-p", str(pid), "-o", "command=")
    try:
        return (PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def commands() -> Iterator[tuple[int, str]]:
    """Every process that is ours to see: its pid, and its command with the environment it was started with."""
    if not PROC.joinpath("self").exists():
        for line in _ps("-axEww", "-o", "pid=,command=").splitlines():
            pid, _, command = line.strip().partition(" ")
            yield int(pid), command
        return
    for name in filter(str.isdigit, os.listdir(PROC)):
        try:
            environment = (PROC / name / "environ").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:                                # another user's, or ended meanwhile
            environment = ""
        yield int(name), f"{command_line(int(name))} {environment}"


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return ""


def _row(pid: int) -> tuple[int, str, bool]:
    """Parent, start and whether it runs; the parent is -1 when there is no such process."""
    if PROC.joinpath("self").exists():
        return _stat(pid) or (-1, "", False)
    return dict(_ps_rows("-p", str(pid))).get(pid, (-1, "", False))


def _rows() -> Iterator[tuple[int, tuple[int, str, bool]]]:
    if not PROC.joinpath("self").exists():
        yield from _ps_rows("-ax")
        return
    for name in os.listdir(PROC):
        row = _stat(int(name)) if name.isdigit() else None
        if row:
            yield int(name), row


def _stat(pid: int) -> tuple[int, str, bool] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:                                    # ended meanwhile
        return None
    fields = text.rpartition(")")[2].split()           # the name before it may hold spaces and brackets
    return int(fields[1]), fields[19], fields[0] not in "ZX"


def _ps_rows(*selection: str) -> Iterator[tuple[int, tuple[int, str, bool]]]:
    for line in _ps(*selection, "-o", "pid=,ppid=,stat=,lstart=").splitlines():
        pid, parent, state, started = line.split(maxsplit=3)
        yield int(pid), (int(parent), started.strip(), not state.startswith("Z"))


def _ps(*words: str) -> str:
    """What `ps` prints, on systems without /proc; a bare Linux need not have it."""
    return subprocess.run(["ps", *words], capture_output=True, text=True, check=False).stdout
