"""What this server may use at most: cgroups (version 1 and 2), process limits, disk."""

import os
import resource
import shutil
from pathlib import Path

UNLIMITED = 1 << 60                        # cgroup v1 writes "no limit" as a number of about 2**63
MIB, GIB = 1 << 20, 1 << 30

RLIMITS = {"RLIMIT_AS": "address space", "RLIMIT_CPU": "CPU seconds", "RLIMIT_FSIZE": "file size",
           "RLIMIT_NOFILE": "open files", "RLIMIT_NPROC": "processes"}
BYTES = {"RLIMIT_AS", "RLIMIT_FSIZE"}


def cgroup(proc: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> dict[str, float]:
    """The tightest limits of this process's cgroups: memory in bytes, cpus, pids; only those that are set."""
    try:
        lines = proc.read_text().splitlines()
    except OSError:
        return {}
    found: dict[str, float] = {}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(",") if controllers else ("",):
            base = mounted / controller if controller else mounted
            if controller:
                _keep_tightest(found, _version_1(controller, base, path))
            else:
                _keep_tightest(found, _version_2(base, path))
    return found


def _keep_tightest(found: dict[str, float], limits: list[tuple[str, float]]) -> None:
    for name, value in limits:
        found[name] = min(value, found.get(name, value))


def _folders(base: Path, path: str) -> list[Path]:
    """A cgroup's folder and those above it; in a container the path may be the host's, and only the root is there."""
    inside = base / path.lstrip("/")
    return [folder for folder in (inside, *inside.parents) if folder.is_relative_to(base) and folder.is_dir()]


def _version_2(base: Path, path: str) -> list[tuple[str, float]]:
    limits = []
    for folder in _folders(base, path):
        for name, file in (("memory", "memory.max"), ("pids", "pids.max")):
            limits += _number(name, folder / file)
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(("cpus", int(quota) / int(period)))
    return limits


def _version_1(controller: str, base: Path, path: str) -> list[tuple[str, float]]:
    limits = []
    for folder in _folders(base, path):
        if controller == "memory":
            limits += _number("memory", folder / "memory.limit_in_bytes")
        elif controller == "pids":
            limits += _number("pids", folder / "pids.max")
        elif controller == "cpu":
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
            if quota.isdigit() and period.isdigit():
                limits.append(("cpus", int(quota) / int(period)))
    return limits


def _number(name: str, file: Path) -> list[tuple[str, float]]:
    text = _read(file)
    return [(name, int(text))] if text.isdigit() and int(text) < UNLIMITED else []


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def process() -> dict[str, int]:
    """The soft resource limits that are set, by their usual names."""
    found = {}
    for constant in RLIMITS:
        if hasattr(resource, constant):
            soft, _ = resource.getrlimit(getattr(resource, constant))
            if soft != resource.RLIM_INFINITY:
                found[constant] = soft
    return found


def free_bytes(folder: Path) -> int:
    """What an ordinary user may still write at a place."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def size(count: float) -> str:
    """Bytes as people read them."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def described() -> dict[str, str]:
    """All limits in words, for `system info`."""
    grouped = cgroup()
    words: dict[str, str] = {}
    words["memory"] = size(grouped["memory"]) if "memory" in grouped else "not limited here"
    words["cpus"] = f"{grouped['cpus']:g}" if "cpus" in grouped else "not limited here"
    words["processes and threads"] = f"{grouped['pids']:.0f}" if "pids" in grouped else "not limited here"
    for variable, label in (("MEM_LIMIT", "memory, as the hub set it"), ("CPU_LIMIT", "cpus, as the hub set it")):
        value = os.environ.get(variable, "")
        if value:
            words[label] = size(int(value)) if variable == "MEM_LIMIT" and value.isdigit() else value
    for constant, limit in process().items():
        words[f"{RLIMITS[constant]} ({constant})"] = size(limit) if constant in BYTES else str(limit)
    return words
