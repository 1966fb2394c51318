"""Runs a notebook's cells in a process of its own, with a time limit, and says which tests passed."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from course.build.cells import Cell, read_cells

REPO = Path(__file__).resolve().parent.parent.parent
RUNNING = re.compile(r'File "(?:<(?!frozen|string)([^>]+)>|[^"]*/core/(\w+\.py))", line (\d+) in (\S+)')      # innermost first


@dataclass(frozen=True)
class CellResult:
    """One test cell. `message` says why it failed; `line` is the failing line within the cell, 0 if it passed."""

    grade_id: str
    points: float
    passed: bool
    message: str
    line: int


@dataclass
class Outcome:
    """What running one cell did. `ran` is False where the time was over before it."""

    cell: Cell
    ran: bool = False
    error: str = ""             # name of the exception, "" if none
    message: str = ""
    line: int = 0
    printed: str = ""
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def run_notebook(path: Path, timeout: float = 60) -> list[CellResult]:
    """Run all cells in order and say how each test cell ended; SourceError if the file cannot be read."""
    cells = [cell for cell in read_cells(path) if cell.is_code]
    outcomes = run_cells(cells, timeout=timeout, folder=path.resolve().parent)
    broken = [o for o in outcomes if o.error and not o.cell.is_test]
    return [_result(outcome, broken) for outcome in outcomes if outcome.cell.is_test]


def _result(outcome: Outcome, broken: list[Outcome]) -> CellResult:
    message = outcome.message
    earlier = [o for o in broken if o.cell.index < outcome.cell.index]
    if outcome.error == "NameError" and earlier:
        nearest = earlier[-1]
        unwritten = nearest.error == "NotImplementedError"
        reason = "is not written yet" if unwritten else f"did not run: {nearest.message} (line {nearest.line})"
        message += f'; cell "{nearest.cell.id}" above {reason}'
    passed = outcome.ran and not outcome.error
    return CellResult(outcome.cell.id, outcome.cell.points, passed, message, outcome.line)


def run_cells(cells: Sequence[Cell], *, timeout: float = 60, folder: Path, path: Sequence[Path] = ()) -> list[Outcome]:
    """Run code cells in order in one namespace, in `folder`; `path` comes first on the child's module search path."""
    outcomes = [Outcome(cell) for cell in cells]
    job = [{"id": cell.id, "source": cell.source, "test": cell.is_test} for cell in cells]
    running = None
    for event in events(job, timeout=timeout, folder=folder, path=path):
        if "stopped" in event:
            _tell_what_did_not_run(outcomes, running, event["stopped"])
        elif event.get("begins"):
            running = outcomes[event["cell"]]
        else:
            outcome = outcomes[event.pop("cell")]
            outcome.ran = True
            vars(outcome).update(event)
    return outcomes


def _tell_what_did_not_run(outcomes: list[Outcome], running: Outcome | None, reason: str) -> None:
    for outcome in outcomes:
        if outcome is running and not outcome.ran:
            outcome.error, outcome.message = "Stopped", reason
        elif not outcome.ran:
            before = f'cell "{running.cell.id}" did not come to its end: ' if running else ""
            outcome.error, outcome.message = "NotRun", f"not reached: {before}{reason}"


def events(
    job: list[dict], *, timeout: float, folder: Path, path: Sequence[Path] = (), patience: float = 10,
) -> Iterator[dict]:
    """What worker.py reports while it runs the job; an early end is told by a last event "stopped" with the reason."""
    reading, writing = os.pipe()
    search = [*map(str, path), str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search), "MPLBACKEND": "Agg",
                   "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}       # threads and forks do not go together
    command = [sys.executable, "-P", "-m", "course.build.worker"]
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stderr:
        stdin.write(json.dumps({"cells": job, "events": writing, "patience": patience}).encode())
        stdin.seek(0)
        child = subprocess.Popen(command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=stderr, cwd=folder,
                                 env=environment, pass_fds=(writing,), start_new_session=True)
        os.close(writing)
        try:
            done = 0
            deadline = time.monotonic() + timeout
            for event in _lines(reading, deadline):
                done += "error" in event
                yield event
            if done < len(job):
                yield {"stopped": _why_stopped(child, deadline, timeout, stderr)}
        finally:
            os.close(reading)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _lines(reading: int, deadline: float) -> Iterator[dict]:
    """JSON lines from a pipe until its end or the deadline."""
    rest = b""
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([reading], [], [], left)
        part = os.read(reading, 65536) if ready else b""
        if not part:
            return
        *whole, rest = (rest + part).split(b"\n")
        yield from map(json.loads, whole)


def _where(child: subprocess.Popen, stderr: IO[bytes]) -> str:
    """Which line of a cell or of the framework is running: the worker writes it to stderr when it gets a signal."""
    with suppress(ProcessLookupError):
        child.send_signal(signal.SIGUSR1)
    for _ in range(20):
        time.sleep(0.05)
        said = os.pread(stderr.fileno(), 1_000_000, 0).decode(errors="replace")      # not by seek: the child shares the position
        for cell, file, line, function in RUNNING.findall(said):
            place = f'cell "{cell}", line {line}' if cell else f"{file}, line {line}"
            return f", in {place}" if function == "<module>" else f", in {function} ({place})"
    return ""


def _why_stopped(child: subprocess.Popen, deadline: float, timeout: float, stderr: IO[bytes]) -> str:
    if time.monotonic() >= deadline:
        return f"the time of {timeout:g} seconds was over{_where(child, stderr)}"
    try:
        status = child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return "the notebook's code cut the connection to the process that watches it"
    stderr.seek(0)
    last = stderr.read()[-400:].decode(errors="replace").strip().split("\n")[-1]
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"
    return f"the Python process ended with {how}" + (f": {last}" if last else "")
