"""Counts what the processes of one sandbox use by reading the sandbox's own /proc: for machines without control groups.

The sandbox's /proc lists exactly its processes, orphans included, and nothing inside can hide from it.
"""

import contextlib
import os
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Count:
    cpu_seconds: float = 0.0
    memory_mb: float = 0.0
    pids: int = 0                               # processes and threads, without bwrap's own init


def count(proc: int, memory_limit_mb: float) -> Count:
    """`proc`: a descriptor of the sandbox's /proc. Children that were waited for are in their parent's CPU time."""
    now = Count()
    pids = [name for name in os.listdir(proc) if name.isdigit()]
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _read(proc, f"{pid}/stat").rpartition(")")[2].split()        # from the state on: field 3
            now.cpu_seconds += sum(map(int, fields[11:15])) / TICKS
            if pid != "1":
                now.pids += int(fields[17])
                now.memory_mb += int(fields[21]) * PAGE / 2**20
    if now.memory_mb > memory_limit_mb:                                           # shared pages were counted many times
        now.memory_mb = sum(_proportional_mb(proc, pid) for pid in pids if pid != "1")
    return now


def _proportional_mb(proc: int, pid: str) -> float:
    try:
        for line in _read(proc, f"{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 2**10
        return 0.0
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError):                                                 # not ours to read: the plain figure
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(_read(proc, f"{pid}/statm").split()[1]) * PAGE / 2**20
        return 0.0


def _read(proc: int, path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY, dir_fd=proc)
    try:
        return os.read(descriptor, 1 << 16).decode(errors="replace")
    finally:
        os.close(descriptor)
