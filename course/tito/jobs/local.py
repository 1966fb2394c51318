"""Jobs on this machine, each in a process of its own that goes on when tito ends; kept in `.tito/jobs/ID/`."""

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from course.tito.failure import Failed
from course.tito.jobs.request import Request
from course.tito.workspace import CODE, Workspace, has_sources

START_SECONDS = 20
STEP = 0.1
TRAINING = {"cpu_seconds": 14400, "wall_seconds": 28800, "memory_mb": 4096, "disk_mb": 512}      # limits, where no class has a quota


def edition() -> Path:
    """The student edition: this code, or beside a checkout what the build made of it."""
    if not has_sources():
        return CODE
    built = Path(os.environ.get("TINYTORCH_BUILD") or CODE / "build") / "editions" / "student"
    if not built.is_dir():
        raise Failed(f"there is no {built}, with which jobs are run: make it with `python -m course.build`", exit_code=2)
    return built


class Local:
    """The same as service.Service, without a queue and without a quota."""

    where = "this machine"

    def __init__(self, workspace: Workspace, sandbox: str) -> None:
        self.folder, self.sandbox = workspace.state / "jobs", sandbox

    def submit(self, request: Request) -> dict[str, Any]:
        """Start it, unless the same job runs or has ended well."""
        if request["job"]["kind"] == "train":
            job = {**request["job"], "limits": {**TRAINING, **request["job"]["limits"]}}
            request = {**request, "job": job}
        state = edition().stat()               # changes with every build: another course may give another result
        content = json.dumps([request["job"], self.sandbox, state.st_ino, state.st_mtime_ns], sort_keys=True).encode()
        return self._start(hashlib.sha256(content).hexdigest(), request, {})

    def verify(self, id: str) -> dict[str, Any]:
        first = self.look(id)
        if first["state"] != "done" or first["verdict"] in ("cancelled", "infra"):
            raise Failed("only a job that is done, with a result of its own, can be verified")
        request = json.loads((self.folder / id / "request.json").read_text())
        self.sandbox = request["sandbox"]
        return self._start(hashlib.sha256(f"{id}{time.time()}".encode()).hexdigest(), request, {"verifies": id})

    def _start(self, id: str, request: Request, more: dict[str, Any]) -> dict[str, Any]:
        folder = self.folder / id
        if (folder.is_dir() and (known := self.look(id))["state"] != "done") or (folder.is_dir() and known["verdict"] == "ok"):
            return known
        folder.mkdir(parents=True, exist_ok=True)
        for old in ("result.json", "log", "pid"):
            (folder / old).unlink(missing_ok=True)
        job = {**request["job"], "edition": "student"}
        (folder / "request.json").write_text(json.dumps(
            {**request, "job": job, "created": time.time(), "sandbox": self.sandbox, **more}))
        with open(folder / "errors", "wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "autograder.local", str(folder), "--sandbox", self.sandbox], stdin=subprocess.DEVNULL,
                stdout=errors, stderr=errors, cwd=folder, start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")])),
                     "TINYTORCH_STUDENT_EDITION": str(edition())})
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "pid").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                said = (folder / "errors").read_text(errors="replace").strip().splitlines()
                raise Failed(f"the job was not started: {said[-1] if said else 'no reason was given'}")
            time.sleep(0.02)
        return self.look(id)

    def mine(self) -> dict[str, Any]:
        folders = [path.name for path in self.folder.glob("*") if (path / "request.json").is_file()] if self.folder.is_dir() else []
        jobs = [{**self.look(id), "result": None} for id in folders]
        return {"jobs": sorted(jobs, key=lambda job: -job["created"]), "quota": None, "used": None}

    def look(self, id: str, wait: float = 0) -> dict[str, Any]:
        folder, deadline = self.folder / id, time.monotonic() + wait
        while (running := self._running(folder)) and not (folder / "result.json").exists() and time.monotonic() < deadline:
            time.sleep(STEP)
        request = json.loads((folder / "request.json").read_text())
        result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else None
        lost = not result and not running
        differs = result.get("differs") if result else None
        return {"id": id, "kind": request["job"]["kind"], "target": request["job"]["target"], "created": request["created"],
                "state": "done" if result or lost else "running", "verdict": result["verdict"] if result else "infra" if lost else None,
                "sentence": result["sentence"] if result else "its process ended without a result: submit it again" if lost else "",
                "started": request["created"], "finished": (folder / "result.json").stat().st_mtime if result else None, "attempts": 1,
                "ahead": None, "verifies": request.get("verifies"), "same": None if differs is None else not differs,
                "differs": differs or [], "result": result}

    def _running(self, folder: Path) -> bool:
        """Whether its process holds the lock: the kernel lets go of it when that ends, however it does."""
        try:
            with open(folder / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def log(self, id: str, offset: int = 0, wait: float = 0) -> dict[str, Any]:
        file, deadline = self.folder / id / "log", time.monotonic() + wait
        while True:
            done = self.look(id)["state"] == "done"
            content = file.read_bytes()[offset:] if file.exists() else b""
            if content or done or time.monotonic() > deadline:
                return {"text": content.decode(errors="replace"), "offset": offset + len(content), "done": done}
            time.sleep(STEP)

    def cancel(self, id: str) -> dict[str, Any]:
        folder = self.folder / id
        if self._running(folder):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int((folder / "pid").read_text()), signal.SIGTERM)
        return self.look(id, wait=10)
