"""The docker sandbox: each run in a container of its own that was started ahead and is used once.

The container has no network, a read-only image, tmpfs of limited size, an unprivileged user without capabilities, the system call
filter of the process sandbox, and the kernel's limits on memory (swap included), processor and processes. Its first program
(holder.py) has imported what jobs import and waits; what a job needs comes over the container's stdin, so nothing of this
machine is mounted but, read-only, the folder of data sets of a training, and the engine's socket is only ours.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from autograder.jobs import Limits, Usage, Verdict
from autograder.sandbox import run, seccomp
from autograder.sandbox.base import WORK, Outcome, SandboxUnavailable, Talk, Watch
from autograder.sandbox.containers import engine
from autograder.sandbox.containers.container import LARGEST, Container
from autograder.sandbox.processes import bubblewrap
from autograder.sandbox.run import MOST_FILES

HOLDER = Path(__file__).with_name("holder.py")
LABEL = "org.tinytorch.sandbox"


class Docker:
    """Sandbox backend `docker` (see base.Sandbox). `image`: a digest or id, or a name, of which the id counts.

    `python`: the interpreter in the image. `ready`: how many containers wait started; none are kept for a kind of job that
    comes once.
    """

    name = "docker"

    def __init__(self, image: str = "", python: str = "", ready: int | None = None) -> None:
        self.named = image or os.environ.get("AUTOGRADER_SANDBOX_IMAGE", "")
        self.python = python or os.environ.get("AUTOGRADER_SANDBOX_PYTHON", "python3")
        self.ready = 2 * (os.cpu_count() or 1) if ready is None else ready
        self.versions: dict[str, str] = {}
        self.pool: dict[str, list[Future[Container]]] = {}
        self.lock = threading.Lock()
        atexit.register(self.end)

    def end(self) -> None:
        """Remove the containers that wait."""
        with self.lock:
            waiting = [container for each in self.pool.values() for container in each]
            self.pool.clear()
        _remove(waiting)

    def check(self) -> None:
        """Raise SandboxUnavailable unless the engine answers and has the image."""
        if not self.named:
            raise SandboxUnavailable("no image is named for the docker sandbox", "Set AUTOGRADER_SANDBOX_IMAGE to an image with Python "
                                     "and NumPy, best by its digest")
        try:
            engine.ask("GET", "/_ping")
            self.image_id()
        except engine.EngineError as error:
            fix = f"Build or load it: docker load, docker pull {self.named}" if error.status == 404 else \
                "Start the engine, and let this user reach its socket (DOCKER_HOST)"
            raise SandboxUnavailable(str(error), fix) from error
        try:
            self.has_python()
        except (engine.EngineError, OSError) as error:
            raise SandboxUnavailable(f"no container of {self.named} runs {self.python}: {error}", "Name an image with Python, and "
                                     "where its Python is: AUTOGRADER_SANDBOX_IMAGE, AUTOGRADER_SANDBOX_PYTHON") from error

    @functools.lru_cache(1)                              # noqa: B019  one sandbox per process
    def has_python(self) -> None:
        """Raise EngineError unless a container of the image gets ready; else every job would fail, each of them three times."""
        Container(self._settings([], Limits(), {}), []).remove()

    @functools.lru_cache(1)                              # noqa: B019  one sandbox per process
    def image_id(self) -> str:
        """The image's content id, which a name that is moved to another image does not change."""
        id = str(engine.ask("GET", f"/images/{self.named}/json")["Id"])
        _sweep()
        return id

    def image(self) -> tuple[str, dict[str, str]]:
        """See base.Sandbox.image. While the engine is away it is the name, if nobody has asked for the content yet."""
        with contextlib.suppress(engine.EngineError):
            return self.image_id(), self.versions
        return self.named, self.versions

    def describe(self) -> list[tuple[str, str, bool]]:
        return [("isolation", f"a container of {self.image_id()} for each run, used once", True),
                ("system calls", "filtered", bool(seccomp.profile())),
                ("memory, processes, processor", "control group of the container", True),
                ("cpu time", "asked of the engine, which may count once a second, RLIMIT_CPU behind it", True),
                ("wall time, output, disk", "clock, counted bytes, tmpfs of fixed size", True)]

    def run(self, argv: Sequence[str], files: Mapping[str, bytes], readonly: Sequence[tuple[str | Path, str | Path]],
            limits: Limits, env: Mapping[str, str], collect: Sequence[str] = (), talk: Talk | None = None,
            watch: Watch | None = None, imports: Sequence[str] | None = None, data: tuple[Path, str] | None = None) -> Outcome:
        """See base.Sandbox.run. What the image has of itself (Python) is not taken from `readonly`."""
        if refused := run.refused(self, files, limits, env):
            return refused
        given = dict(_given(readonly))
        everything = {**given, **{f"{WORK}/{path}": content for path, content in files.items()}}
        container = None
        try:
            settings = self._settings(sorted({str(Path(path).parent) for path in given}), limits, dict(env), data)
            container = self._container(settings, list(imports or ()))
            self.versions = container.versions
            container.start([self.python, *argv[1:]], everything, limits, env, collect, watch.keep if watch else ())
            return run.follow(container, limits, talk, watch, collect)
        except (engine.EngineError, OSError) as error:
            return Outcome(Verdict.infra, f"the container did not start: {error}", Usage())
        finally:
            if container:
                threading.Thread(target=container.remove).start()       # the next run need not wait for that

    def _container(self, settings: dict[str, Any], imports: list[str]) -> Container:
        """One that waits or starts already, or a new one; another is started in its place."""
        key = json.dumps([settings, imports], sort_keys=True)
        with self.lock:
            others = [one for other in list(self.pool) if other != key for one in self.pool.pop(other)]    # of another kind of job
            waiting = self.pool.setdefault(key, [])
            taken = waiting.pop(0) if waiting else _started(settings, imports)
            if imports and len(waiting) < self.ready:
                waiting.append(_started(settings, imports))
        if others:
            threading.Thread(target=_remove, args=(others,), daemon=True).start()
        with contextlib.suppress(engine.EngineError, OSError):
            container = taken.result()
            if container.waits():
                return container
            _remove([taken])                                                # ended meanwhile, by somebody or with the engine
        return Container(settings, imports)

    def _settings(self, folders: list[str], limits: Limits, env: dict[str, str],
                  data: tuple[Path, str] | None = None) -> dict[str, Any]:
        uid, disk, seconds = bubblewrap.INNER_UID, limits.disk_mb * 2**20, int(limits.cpu_seconds) + 2
        tmpfs = f"rw,nosuid,nodev,mode=1777,size={disk},nr_inodes={MOST_FILES}"
        wanted: dict[str, Any] = {
            "Image": self.image_id(), "User": f"{uid}:{uid}", "WorkingDir": "/", "Hostname": "sandbox", "Labels": {LABEL: str(os.getpid())},
            "Entrypoint": [self.python, "-s", "-c", HOLDER.read_text()], "Cmd": [],
            "Env": [f"{name}={value}" for name, value in env.items()],
            "OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": False,
            "HostConfig": {
                "Mounts": [_mount(*data)] if data else [],
                "NetworkMode": "none", "ReadonlyRootfs": True, "IpcMode": "private", "ShmSize": disk,
                "Tmpfs": {WORK: tmpfs, "/tmp": tmpfs, **dict.fromkeys(folders, f"rw,nosuid,nodev,mode=1777,size={LARGEST}")},
                "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges", *([f"seccomp={seccomp.profile()}"] if seccomp.profile() else [])],
                "Memory": limits.memory_mb * 2**20, "MemorySwap": limits.memory_mb * 2**20, "NanoCpus": 10**9,
                "CpusetCpus": ",".join(map(str, sorted(os.sched_getaffinity(0)))),          # where we may run ourselves (service/worker.py)
                "PidsLimit": limits.pids + 1, "LogConfig": {"Type": "none"},                # our holder is one of them
                "Ulimits": [{"Name": name, "Soft": value, "Hard": value} for name, value in (
                    ("core", 0), ("fsize", disk), ("nofile", 1024), ("cpu", seconds))]}}
        return wanted


def _mount(data: Path, inside: str) -> dict[str, Any]:
    """The folder alone: what else is mounted below it stays away, since engines before 25 would let that be written to."""
    if data.stat().st_mode & 0o5 != 0o5:
        raise SandboxUnavailable(f"the data sets in {data} cannot be read by everybody, and a container's user is nobody here",
                                 f"Allow it: chmod -R a+rX {data}")
    return {"Type": "bind", "Source": str(data), "Target": inside, "ReadOnly": True,
            "BindOptions": {"NonRecursive": True, "Propagation": "rprivate"}}


def _started(settings: dict[str, Any], imports: list[str]) -> Future[Container]:
    """A container that gets ready by itself."""
    future: Future[Container] = Future()

    def start() -> None:
        try:
            future.set_result(Container(settings, imports))
        except BaseException as error:
            future.set_exception(error)
    threading.Thread(target=start, daemon=True).start()
    return future


def _remove(containers: Sequence[Future[Container]]) -> None:
    for one in containers:
        with contextlib.suppress(engine.EngineError, OSError):
            one.result().remove()


def _sweep() -> None:
    """Remove what supervisors left that were killed: a container ends when nobody holds its stdin, but stays to be looked at."""
    wanted = json.dumps({"label": [LABEL], "status": ["exited", "dead", "created"]})
    for one in engine.ask("GET", "/containers/json", all="1", filters=wanted) or ():
        if not Path("/proc", one["Labels"][LABEL]).exists():
            with contextlib.suppress(engine.EngineError):
                engine.ask("DELETE", f"/containers/{one['Id']}", force="1", v="1")


def _given(readonly: Sequence[tuple[str | Path, str | Path]]) -> Iterator[tuple[str, bytes]]:
    """(inside path, content) of what a run is shown read-only, but for Python, which is the image's own."""
    python = {inside for _, inside in bubblewrap.python_paths()}
    room = LARGEST
    for host, inside in readonly:
        if str(inside) in python or str(host) == str(inside):
            continue
        folder = Path(host)
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                room -= len(content)
                if room < 0:
                    raise SandboxUnavailable(f"{host} is larger than the {LARGEST // 2**20} MB that go into a container",
                                             "Only data sets may be larger (TINYTORCH_DATA)")
                yield (str(Path(inside) / path.relative_to(folder)) if folder.is_dir() else str(inside)), content
