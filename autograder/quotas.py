"""What each class may ask of the autograder, and what one of its students has used of it."""

import json
from pathlib import Path

from pydantic import Field

from autograder.jobs import Frozen, Limits

DAY = 86400.0


class Quota(Frozen):
    """The `autograder` section of a class in classes.yml, in the units of autograder.jobs.Limits."""

    jobs_per_day: int = Field(default=20, ge=1)         # of one student in 24 hours
    cpu_seconds_per_day: float = Field(default=3600, gt=0)
    queued: int = Field(default=5, ge=1)                # of one student, waiting or running
    parallel: int = Field(default=2, ge=1)              # students' jobs of the class at the same time
    cpu_seconds: float = Field(default=900, gt=0)       # of one job; its wall time may be twice that
    memory_mb: int = Field(default=2048, ge=32)         # of one job; CIFAR-10 as floats takes three quarters of it
    keep_days: float = Field(default=14, gt=0)          # after which a finished job and its outputs are removed

    @property
    def largest(self) -> Limits:
        """The largest limits that a student's job may have."""
        return Limits(cpu_seconds=self.cpu_seconds, wall_seconds=2 * self.cpu_seconds, cell_seconds=2 * self.cpu_seconds,
                      memory_mb=self.memory_mb, pids=64, output_kb=8192, disk_mb=256)


class Used(Frozen):
    """What one student has used in the last 24 hours, and has in the queue now."""

    jobs: int = 0
    cpu_seconds: float = 0.0
    queued: int = 0

    def exhausted(self, quota: Quota) -> str:
        """One sentence when no further job fits into the quota, else nothing."""
        if self.queued >= quota.queued:
            return (f"you have {self.queued} jobs waiting or running, at most {quota.queued} at a time: "
                    "wait for one, or cancel it (tito job cancel ID)")
        if self.jobs >= quota.jobs_per_day:
            return f"you have submitted {self.jobs} jobs in 24 hours, at most {quota.jobs_per_day} are allowed: try again tomorrow"
        if self.cpu_seconds >= quota.cpu_seconds_per_day:
            return (f"your jobs have used {self.cpu_seconds:.0f} s of CPU in 24 hours, at most {quota.cpu_seconds_per_day:.0f} s "
                    "are allowed: try again tomorrow")
        return ""


class Quotas:
    """The quotas of all classes, read again when their file changes; without a file every class has the default."""

    def __init__(self, file: Path | None) -> None:
        self.file, self.stamp, self.known = file, 0, {}  # type: Path | None, int, dict[str, Quota]

    def of(self, class_id: str) -> Quota:
        return self.all().get(class_id, Quota())

    def all(self) -> dict[str, Quota]:
        if self.file and self.file.exists() and (stamp := self.file.stat().st_mtime_ns) != self.stamp:
            self.known = {name: Quota.model_validate(quota) for name, quota in json.loads(self.file.read_text()).items()}
            self.stamp = stamp
        return self.known
