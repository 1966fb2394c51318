"""The servers of people that run on this machine, as files: a restarted hub and `make down` find them there.

A file per server says which processes it is. It is written when they start, also by a hub that is killed a moment later.
"""

import contextlib
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from hub import paths
from hub.spawning import limits, processes
from hub.spawning.processes import Process

GRACE = 10.0                                      # seconds for a server to save and end by itself


@dataclass(frozen=True)
class Record:
    """One server. All values are empty where none runs."""

    pid: int = 0
    started: str = ""
    inner_pid: int = 0                            # the sandbox's first process: when it ends, all in the sandbox ends
    inner_started: str = ""
    edition: str = ""                             # its copy of the student edition
    group: str = ""                               # its cgroup, where one could be made

    @property
    def root(self) -> Process:
        return Process(self.pid, self.started)

    @property
    def alive(self) -> bool:
        return bool(self.pid) and self.root.alive()

    def processes(self) -> list[Process]:
        """All that it is made of, as far as that is known."""
        found = processes.tree(self.root) if self.pid else []
        if self.inner_pid:
            found.append(Process(self.inner_pid, self.inner_started))
        for pid in limits.Group(self.group).processes() if self.group else []:
            with contextlib.suppress(ProcessLookupError):
                found.append(processes.identify(pid))
        return found


def file(user: str, class_id: str) -> Path:
    return paths.RUN / "servers" / user / f"{class_id}.json"


def read(file: Path) -> Record:
    """What the file says; nothing where it is missing or cut off."""
    try:
        return Record(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return Record()


def write(file: Path, record: Record) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(file)


def files() -> Iterator[Path]:
    """Those of all servers of this site."""
    return (paths.RUN / "servers").glob("*/*.json")


def end(file: Path, grace: float = GRACE) -> list[int]:
    """End that server and all that runs in it: ask it, wait for `grace` seconds, then kill. Returns what did not end."""
    record = read(file)
    everything = record.processes()
    if grace and record.alive:
        processes.served(record.root).signal(signal.SIGTERM)
        processes.wait([record.root], grace)
    everything = [*dict.fromkeys([*everything, *record.processes()])]
    processes.kill(reversed(everything))
    processes.wait(everything, 5)
    left = [process.pid for process in everything if process.alive()]
    if record.group and not left:
        limits.Group(record.group).remove()
    if not left:
        file.unlink(missing_ok=True)
    return left


def end_all(grace: float = GRACE) -> list[int]:
    """End all servers of this site, at the same time. Returns what did not end."""
    with ThreadPoolExecutor(32) as threads:
        return [pid for left in threads.map(lambda each: end(each, grace), list(files())) for pid in left]
