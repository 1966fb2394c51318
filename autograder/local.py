"""Runs one job here, without a service: what `tito job` does where there is no hub.

    python -m autograder.local FOLDER [--sandbox process|none]

FOLDER holds request.json ({"job": ..., "files": {path: base64}}, and "verifies": the name of a folder beside it to compare with).
It gets `log` while the job runs and result.json at its end; `lock` is held meanwhile, so that others see whether somebody is
still at work. SIGTERM cancels the job.
"""

import argparse
import fcntl
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from autograder import kinds, runner
from autograder.jobs import FilePath, Job, Result, Verdict, differences
from autograder.sandbox.base import Sandbox, SandboxUnavailable, Watch
from autograder.sandbox.none import NoSandbox
from autograder.sandbox.processes.process import Process


class Request(BaseModel):
    model_config = ConfigDict(extra="ignore", val_json_bytes="base64")
    job: Job
    files: dict[FilePath, bytes]
    verifies: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class Kept(Result):
    """A result, and what is different from that of the job that it verifies; None where there is nothing to compare."""

    differs: list[str] | None = None


def compared(folder: Path, result: Result) -> Kept:
    verifies = Request.model_validate_json((folder / "request.json").read_bytes()).verifies
    first = folder.parent / (verifies or "") / "result.json"
    differs = differences(Kept.model_validate_json(first.read_bytes()), result) if verifies and first.is_file() else None
    return Kept(**dict(result), differs=differs)


def run(folder: Path, sandbox: Sandbox, stop: threading.Event) -> Result:
    """The result of the request in a folder; what cannot be run becomes a result that says why."""
    request = Request.model_validate_json((folder / "request.json").read_bytes())
    job = request.job
    with open(folder / "log", "wb", buffering=0) as log:
        def hear(chunk: bytes) -> None:
            log.write(chunk)

        def kept(files: dict[str, bytes]) -> None:
            for path, content in files.items():
                replace(folder / "kept" / path, content)
        keep = kinds.GOES_ON_FROM.get(job.kind, ())
        before = {path: (folder / "kept" / path).read_bytes() for path in keep if (folder / "kept" / path).is_file()}
        try:
            kinds.check(job.kind, job.target, request.files)
            result = runner.run(job, request.files, sandbox, Watch(hear, stop.is_set, keep, kept), before)
        except (SandboxUnavailable, runner.BadJob, kinds.Unfit) as error:
            return Result(job=job.id, verdict=Verdict.infra, sentence=str(error), inputs=job.inputs, sandbox=sandbox.name)
    shutil.rmtree(folder / "kept", ignore_errors=True)
    return result


def replace(file: Path, content: bytes) -> None:
    """All at once."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_bytes(content)
    fresh.replace(file)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m autograder.local", description="Run one job on this machine.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sandbox", choices=["process", "none"], default="process")
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)                            # Ctrl-C is for who follows the job
    with open(options.folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{options.folder} is being run already", file=sys.stderr)
            return 1
        (options.folder / "pid").write_text(str(os.getpid()))
        result = run(options.folder, NoSandbox() if options.sandbox == "none" else Process(), stop)
        replace(options.folder / "result.json", compared(options.folder, result).model_dump_json().encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
