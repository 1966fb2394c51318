"""What a job is and what a result says: the same job gives the same result, on any machine with the same image."""

import hashlib
import json
import math
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def relative_path(path: str) -> str:
    """Refuse a path that leaves the folder it is relative to, or that no file system takes. Raises ValueError."""
    parts = PurePosixPath(path).parts
    usual = path == "/".join(parts) and path.isprintable() and len(path.encode()) <= 400
    if not parts or not usual or parts[0] == "/" or ".." in parts:
        raise ValueError(f"not a relative path inside the work folder: {path!r}")
    return path


FilePath = Annotated[str, AfterValidator(relative_path)]


Kind = Literal["grade", "checkpoint", "profile", "train"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Limits(Frozen):
    """What one job may use. Seconds, MB (2**20 bytes), kB (2**10 bytes); `cell_seconds` is wall time of one cell."""

    cpu_seconds: float = Field(default=120, gt=0, le=86400)
    wall_seconds: float = Field(default=300, gt=0, le=86400)
    cell_seconds: float = Field(default=30, gt=0, le=86400)
    memory_mb: int = Field(default=1024, ge=32, le=2**20)
    pids: int = Field(default=64, ge=2, le=4096)
    output_kb: int = Field(default=8192, ge=1, le=2**20)
    disk_mb: int = Field(default=64, ge=1, le=2**20)

    def minus(self, used: "Usage") -> "Limits | None":
        """What is left of the budgets that add up over several runs, None when nothing useful is."""
        cpu, wall = self.cpu_seconds - used.cpu_seconds, self.wall_seconds - used.wall_seconds
        if cpu < 0.5 or wall < 0.5:
            return None
        return self.model_copy(update={"cpu_seconds": cpu, "wall_seconds": wall})


class Usage(Frozen):
    """What one job used: sums of seconds, peaks of the rest, in the units of Limits."""

    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    memory_mb: float = 0.0
    pids: int = 0
    output_kb: float = 0.0
    disk_mb: float = 0.0

    def plus(self, other: "Usage") -> "Usage":
        return Usage(cpu_seconds=self.cpu_seconds + other.cpu_seconds,
                     wall_seconds=self.wall_seconds + other.wall_seconds,
                     memory_mb=max(self.memory_mb, other.memory_mb), pids=max(self.pids, other.pids),
                     output_kb=self.output_kb + other.output_kb, disk_mb=max(self.disk_mb, other.disk_mb))


class Job(Frozen):
    """Work to do: the files by their hashes, the edition of the framework, the image, seed and limits.

    `grade` needs `notebook.json` (see grading.py) and may bring `files/...`. The other kinds run our program for the `target`
    (a checkpoint's number, a name of the framework, a recipe) on the student's files, see kinds.py; without a target
    they run the `main.py` that they bring, which only staff may ask for.
    """

    kind: Kind
    target: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]{0,100}$")
    inputs: dict[FilePath, Sha256] = Field(min_length=1, max_length=300)
    edition: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")    # an assignment's name
    edition_hash: Sha256 | None = None
    image: str = Field(default="", max_length=200)        # a container image by digest; empty: the runner's environment
    seed: int = Field(default=0, ge=0, le=2**32 - 1)
    limits: Limits = Limits()

    @property
    def id(self) -> str:
        """Hash of everything above: two jobs with the same id are the same job."""
        content = self.model_dump(mode="json", exclude=None if self.target else {"target"})     # ids from before there were targets
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


class Verdict(StrEnum):
    ok = "ok"                # ran to its end within its limits
    error = "error"          # ended with an exit code that is not 0
    timeout = "timeout"      # wall time, of the job or of one cell
    cpu = "cpu"
    memory = "memory"
    pids = "pids"
    output = "output"
    disk = "disk"
    crashed = "crashed"      # ended by a signal, or in the middle of a cell
    cancelled = "cancelled"  # by who submitted it
    infra = "infra"          # not the student's fault: the sandbox or its machine failed; to be run again


class Result(Frozen):
    """What came of a job, and all that is needed to run it again and compare.

    `sentence` is for humans: the limit hit and by how much, empty when all went well.
    """

    job: Sha256
    verdict: Verdict
    sentence: str = ""
    usage: Usage = Usage()
    inputs: dict[str, Sha256] = {}
    outputs: dict[str, bytes] = {}
    output_hashes: dict[str, Sha256] = {}
    sandbox: str = ""        # which backend, and how it enforced the limits
    image: str = ""          # a container's by its content, else Python and packages by one hash
    threads: int = 1
    blas_core: str = ""
    seed: int = 0
    limits: Limits | None = None
    edition_hash: str = ""
    cpu: str = ""                       # the model of the machine's processor
    packages: dict[str, str] = {}       # versions of Python and PACKAGES; `image` stands for all packages


PACKAGES = ("numpy", "matplotlib", "pydantic", "PyYAML")        # that decide about numbers and pictures
MEASURED = frozenset({"measured.json", "picture.png", "stdout", "stderr", "log.jsonl"})


def differences(one: Result, other: Result) -> list[str]:
    """What two results of one job do not have in common: the verdict, and every output except those that measure (times, memory,
    and the pictures and lines that show them). Empty: the same result."""
    names = (one.output_hashes.keys() | other.output_hashes.keys()) - MEASURED
    return [*(["verdict"] if one.verdict is not other.verdict else []),
            *sorted(name for name in names if one.output_hashes.get(name) != other.output_hashes.get(name))]


def stopped(verdict: Verdict, limits: Limits, usage: Usage, cell: bool = False) -> str:
    """One sentence for a student: which limit was hit and by how much."""
    match verdict:
        case Verdict.cpu:
            return f"used {_seconds(usage.cpu_seconds)} of CPU, limit {_seconds(limits.cpu_seconds)}"
        case Verdict.timeout if cell:
            return f"one cell ran for more than {_seconds(limits.cell_seconds)}, the limit for a cell"
        case Verdict.timeout:
            return f"ran for {_seconds(usage.wall_seconds)}, limit {_seconds(limits.wall_seconds)}"
        case Verdict.memory:
            if usage.memory_mb > limits.memory_mb:
                return f"used {math.ceil(usage.memory_mb)} MB of memory, limit {limits.memory_mb} MB"
            return f"asked for more memory than its limit of {limits.memory_mb} MB"
        case Verdict.pids:
            return f"wanted more than {limits.pids} processes and threads at once, limit {limits.pids}"
        case Verdict.output:
            return f"wrote more than {limits.output_kb} kB of output, limit {limits.output_kb} kB"
        case Verdict.disk:
            return f"filled {limits.disk_mb} MB of disk, limit {limits.disk_mb} MB"
    return ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}".removesuffix(".0") + " s"
