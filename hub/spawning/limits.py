"""Limits of one server: a cgroup (v1 or v2) where the hub may make one, resource limits of its processes otherwise.

A cgroup holds the server and all that it starts: memory, number of processes and CPU share. Without one, each process
has its own bound on memory (RLIMIT_DATA: unlike RLIMIT_AS it leaves NumPy's address space alone), their number is
bounded inside a user namespace only, and the CPU share is not. One file is never larger than the disk limit.
"""

import contextlib
import os
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub.config.site import Limits

CGROUP = Path("/sys/fs/cgroup")
PERIOD = 100_000                       # microseconds, the kernel's usual period of CPU quotas
OPEN_FILES = 4096


class Group:
    """A cgroup for one server; `name` is unique on the machine. `make` says whether there could be one."""

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def folders(self) -> list[Path]:
        if (CGROUP / "cgroup.controllers").exists():
            return [CGROUP / "tinytorch" / self.name]
        return [CGROUP / controller / "tinytorch" / self.name for controller in ("memory", "pids", "cpu")]

    def make(self, limits: "Limits") -> bool:
        """Make it and set the limits; False, and nothing left behind, where this user or machine cannot."""
        version2 = len(self.folders) == 1
        try:
            for folder in self.folders:
                folder.parent.mkdir(exist_ok=True)
                if version2:
                    for above in (CGROUP, folder.parent):
                        (above / "cgroup.subtree_control").write_text("+cpu +memory +pids")
                folder.mkdir(exist_ok=True)
            for folder, values in zip(self.folders, _values(version2, limits), strict=True):
                for file, value in values.items():
                    if (folder / file).exists():       # swap accounting is often switched off
                        (folder / file).write_text(str(value))
        except OSError:
            for folder in self.folders:                # none that holds a process, and none of another user
                with contextlib.suppress(OSError):
                    folder.rmdir()
            return False
        return True

    def entry(self) -> Callable[[], None]:
        """For Popen's preexec_fn: the new process enters before it runs anything, so nothing it starts is outside."""
        files = [str(folder / "cgroup.procs") for folder in self.folders]

        def enter() -> None:
            for file in files:
                descriptor = os.open(file, os.O_WRONLY)
                os.write(descriptor, b"0")             # 0 means the process that writes
                os.close(descriptor)

        return enter

    def processes(self) -> list[int]:
        """The pids inside, in whatever session or namespace they are."""
        with contextlib.suppress(OSError):
            return [int(line) for line in (self.folders[0] / "cgroup.procs").read_text().split()]
        return []

    def remove(self) -> None:
        """Remove it, once its processes have ended: the kernel needs a moment after the last one."""
        deadline = time.monotonic() + 1
        for folder in self.folders:
            while folder.exists() and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.02)


def _values(version2: bool, limits: "Limits") -> list[dict[str, int | str]]:
    memory, quota = limits.memory_mb * 2**20, int(limits.cpu * PERIOD)
    if version2:
        return [{"memory.max": memory, "memory.swap.max": 0, "pids.max": limits.pids, "cpu.max": f"{quota} {PERIOD}"}]
    return [{"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory}, {"pids.max": limits.pids},
            {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": quota}]


def of_each_process(limits: "Limits", in_cgroup: bool, in_user_namespace: bool) -> dict[str, int]:
    """Resource limits that the server sets on itself before it starts anything: name without RLIMIT_, value."""
    values = {"CORE": 0, "FSIZE": limits.disk_mb * 2**20, "NOFILE": OPEN_FILES}
    if not in_cgroup:
        values["DATA"] = limits.memory_mb * 2**20
        if in_user_namespace and _counts_per_namespace():
            values["NPROC"] = limits.pids
    return values


def _counts_per_namespace() -> bool:
    """Before Linux 5.14 RLIMIT_NPROC counted all processes of the user, on the whole machine."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) >= (5, 14)
