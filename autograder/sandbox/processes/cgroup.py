"""Control groups, versions 1 and 2: the kernel's own limits on memory and processes of one sandbox, if we may set them.

A group is made below our own group or the nearest one above it that lets us (root, or a systemd user session), so that
whatever limits us also limits what we start.
"""

import contextlib
import functools
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from autograder.jobs import Limits

CHARGED = 4 * 2**20                             # bytes at most that the kernel takes for a group in one go
ROOT = Path("/sys/fs/cgroup")


@dataclass
class Reading:
    """What the kernel has counted for a group so far; None where this kernel does not count it."""

    cpu_seconds: float | None
    memory_mb: float | None                     # the peak so far
    out_of_memory: bool                         # a process was killed, or would have been, by the memory limit
    out_of_memory_above: bool                   # one was killed though this limit was never reached: by another's, or the machine's end
    out_of_pids: bool                           # a fork was refused


class Group:
    """One sandbox's control group. Made by `create`, entered by `add`, always left by `remove`."""

    version = 0

    def __init__(self, folders: dict[str, Path]) -> None:
        self.folders = folders                  # controller -> folder

    def add(self, pid: int) -> None:
        for folder in set(self.folders.values()):
            _write(folder, "cgroup.procs", pid)

    def read(self) -> Reading:
        raise NotImplementedError

    def remove(self) -> None:
        """Wait until the kernel lets go of the dead processes, a second at most."""
        for folder in set(self.folders.values()):
            for _ in range(100):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)


class Version1(Group):
    version = 1

    def limit(self, limits: Limits) -> None:
        _write(self.folders["memory"], "memory.limit_in_bytes", limits.memory_mb * 2**20)
        with contextlib.suppress(OSError):      # absent without swap accounting
            _write(self.folders["memory"], "memory.memsw.limit_in_bytes", limits.memory_mb * 2**20)
        with contextlib.suppress(OSError):
            _write(self.folders["memory"], "memory.swappiness", 0)
        _write(self.folders["pids"], "pids.max", limits.pids + 1)                # bwrap's own init is one of them

    def read(self) -> Reading:
        cpu = self.folders.get("cpuacct")
        memory = self.folders["memory"]
        killed = _table(memory, "memory.oom_control").get("oom_kill", 0) > 0
        # newer kernels do not count in failcnt any more; with equal limits that of memory and swap is met first
        peak = max(_number(memory, f"memory.{which}max_usage_in_bytes") for which in ("", "memsw."))
        reached = peak >= _number(memory, "memory.limit_in_bytes") - CHARGED
        return Reading(_number(cpu, "cpuacct.usage") / 1e9 if cpu else None,
                       _number(memory, "memory.max_usage_in_bytes") / 2**20,
                       killed and reached, killed and not reached,
                       _table(self.folders["pids"], "pids.events").get("max", 0) > 0)


class Version2(Group):
    version = 2

    def __init__(self, folders: dict[str, Path]) -> None:
        super().__init__(folders)
        self.folder = folders["memory"]
        self.peak = 0.0

    def limit(self, limits: Limits) -> None:
        _write(self.folder, "memory.max", limits.memory_mb * 2**20)
        with contextlib.suppress(OSError):
            _write(self.folder, "memory.swap.max", 0)
        _write(self.folder, "pids.max", limits.pids + 1)

    def read(self) -> Reading:
        self.peak = max(self.peak, (_number(self.folder, "memory.peak") or _number(self.folder, "memory.current")) / 2**20)   # Linux 5.19
        cpu, memory = _table(self.folder, "cpu.stat").get("usage_usec"), _table(self.folder, "memory.events")
        killed, reached = memory.get("oom_kill", 0) > 0, memory.get("oom", 0) > 0
        return Reading(None if cpu is None else cpu / 1e6, self.peak,
                       killed and reached, killed and not reached,
                       _table(self.folder, "pids.events").get("max", 0) > 0)


def create(limits: Limits) -> Group | None:
    """A new group with these limits, or None where none can be made (an ordinary user outside of a systemd session)."""
    name = f"sandbox-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    for make in (_version_2, _version_1):
        group = make(name)
        if group is None:
            continue
        try:
            group.limit(limits)
            return group
        except OSError:
            group.remove()
    return None


def _version_1(name: str) -> Version1 | None:
    own = _own_groups()
    folders: dict[str, Path] = {}
    for controller in ("memory", "pids", "cpuacct"):
        base = _base(controller, own.get(controller, ""))
        try:
            if base is None:
                raise FileNotFoundError(controller)
            _sweep(base)
            (base / name).mkdir()
            folders[controller] = base / name
        except OSError:
            if controller != "cpuacct":
                Group(folders).remove()
                return None
    return Version1(folders)


@functools.lru_cache(8)
def _base(controller: str, own: str) -> Path | None:
    """Our own group. In a container its path may lie outside of what is mounted here; the mount's root is it then."""
    places = (ROOT / controller / own.strip("/"), ROOT / controller)
    return next((place for place in places if (place / "cgroup.procs").exists()), None)


def _version_2(name: str) -> Version2 | None:
    own = ROOT / _own_groups().get("", "").strip("/")
    for base in (own, *own.parents):
        if not base.is_relative_to(ROOT) or not base.is_dir():
            continue
        try:
            enabled = set((base / "cgroup.subtree_control").read_text().split())
        except OSError:
            continue
        if {"memory", "pids"} <= enabled and os.access(base / "cgroup.procs", os.W_OK):
            with contextlib.suppress(OSError):
                _sweep(base)
                (base / name).mkdir()
                return Version2({"memory": base / name})
    return None


@functools.cache
def _sweep(base: Path) -> None:
    """Remove the empty groups that supervisors left which were killed; a group with processes in it stays by itself."""
    for folder in base.glob("sandbox-*-*"):
        if not Path("/proc", folder.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def _own_groups() -> dict[str, str]:
    """Controller -> path of our own group; the controller of version 2 is the empty name."""
    found = {}
    with contextlib.suppress(OSError):
        for line in _read("/proc/self/cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            found.update(dict.fromkeys(controllers.split(","), path))
    return found


# Some thirty of these files are read and written for each run: without pathlib and Python's file objects in a quarter of the time.

def _write(folder: Path, name: str, value: int) -> None:
    descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(descriptor, b"%d" % value)
    finally:
        os.close(descriptor)


def _read(path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 1 << 16).decode()
    finally:
        os.close(descriptor)


def _number(folder: Path, name: str) -> int:
    try:
        return int(_read(f"{folder}/{name}"))
    except (OSError, ValueError):
        return 0


def _table(folder: Path, name: str) -> dict[str, int]:
    try:
        return {key: int(value) for key, value in (line.split() for line in _read(f"{folder}/{name}").splitlines())}
    except (OSError, ValueError):
        return {}
