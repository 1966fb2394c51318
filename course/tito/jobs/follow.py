"""Follows a job until it is done: its place in the queue, then what it writes as it writes it, then what came of it."""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from course.tito import show

WAIT = 10.0
PAUSE = 0.2
OUTPUTS = ("result.json", "measured.json", "picture.png", "log.jsonl", "stdout", "stderr")

Status = dict[str, Any]


def backend(sandbox: str | None = None):
    """The service where AUTOGRADER_URL names one, else this machine."""
    import os

    from course.tito.failure import Failed
    from course.tito.workspace import need
    url = os.environ.get("AUTOGRADER_URL", "")
    if url:
        if sandbox:
            raise Failed(f"--sandbox is for a machine without a hub: here jobs run on the autograder at {url}", exit_code=2)
        from course.tito.jobs.service import Service
        return Service(url)
    from course.tito.jobs.local import Local
    return Local(need(), sandbox or "process")


def to_end(jobs, status: Status, quiet: bool = False) -> Status:
    """Wait until it is done, showing what happens unless `quiet`. Ctrl-C leaves the job alone."""
    try:
        if not quiet:
            _wait_in_queue(jobs, status)
            logs(jobs, status["id"])
        while status["state"] != "done" or not status.get("result"):
            status = jobs.look(status["id"], wait=WAIT)
            if status["state"] == "done":
                break
    except KeyboardInterrupt:
        short = status["id"][:8]
        click.echo(f"\nThe job goes on. `tito job logs {short}` follows it again, `tito job cancel {short}` ends it", err=True)
        raise
    return status


def _wait_in_queue(jobs, status: Status) -> None:
    told = None
    while status["state"] == "queued":
        if status["ahead"] != told:
            told = status["ahead"]
            click.echo(f"queued: {place(told)}", err=True)
        time.sleep(PAUSE if told == 0 else 1.0)
        status = jobs.look(status["id"])


def place(ahead: int | None) -> str:
    return "yours is next" if not ahead else f"{ahead} job{'s' if ahead > 1 else ''} before yours"


def logs(jobs, id: str, follow: bool = True) -> None:
    """Print what the job has written; with `follow`, go on until it is done."""
    offset = 0
    while True:
        part = jobs.log(id, offset, WAIT if follow else 0)
        click.echo(part["text"], nl=False)
        sys.stdout.flush()
        if part["done"] or (not follow and part["offset"] == offset):
            return
        offset = part["offset"]


def output(status: Status, name: str) -> bytes | None:
    """One of the result's files. Its base64 is the one for URLs."""
    content = ((status.get("result") or {}).get("outputs") or {}).get(name)
    return None if content is None else base64.urlsafe_b64decode(content)


def said(status: Status) -> dict[str, Any]:
    return json.loads(output(status, "result.json") or b"{}")


def succeeded(status: Status) -> bool:
    return status["verdict"] == "ok" and said(status).get("passed", True)


def record(status: Status) -> Status:
    """All about a job and its result except the content of its files."""
    return {**status, "result": {key: value for key, value in (status["result"] or {}).items() if key != "outputs"}}


def write(status: Status, folder: Path) -> list[Path]:
    """The result's files and its record (record.json: image, versions, processor, limits, usage, hashes) in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in OUTPUTS:
        if (content := output(status, name)) is not None and (content or name.startswith("result")):
            (folder / name).write_bytes(content)
            written.append(folder / name)
    (folder / "record.json").write_text(json.dumps(record(status), indent=1) + "\n")
    return [*written, folder / "record.json"]


def print_result(status: Status, followed: bool = False) -> None:
    """What came of it, for people; without what they have just read in its log."""
    found, short = said(status), status["id"][:8]
    if status["verdict"] == "ok" and status["kind"] == "checkpoint" and followed:
        pass
    elif status["verdict"] == "ok" and status["kind"] == "checkpoint":
        for one in found.get("capabilities", []):
            if not one["passed"]:
                click.echo(f"\n{one['capability']}\n  " + "\n  ".join(one["message"].splitlines() or ["no reason was given"]))
        answer = "Yes" if found["passed"] else f"Not yet: {len(found['failed'])} of {len(found['capabilities'])} fail"
        click.echo(f"\n{found['checkpoint']} {found['question']} {answer}")
    elif status["verdict"] == "ok" and status["kind"] == "profile":
        _print_profile(found, json.loads(output(status, "measured.json") or b"{}"))
    elif status["verdict"] == "ok" and status["kind"] == "train":
        if not followed:
            click.echo("test  " + "  ".join(f"{name} {value:.4f}" for name, value in found.get("results", {}).items()))
        if mistakes := _mistakes(found.get("confusion")):
            click.echo(f"most often mistaken: {mistakes}")
        for name, reached in found.get("goal", {}).items():
            click.echo(f"goal  {name} {reached['least']:g}: {'reached' if reached['reached'] else 'missed'}")
    else:
        click.echo(f"\n{status['verdict']}: {status['sentence'] or 'no result'}", err=True)
    if (status.get("result") or {}).get("sandbox") == "none":
        click.echo("This ran without a sandbox: the result counts for you alone")
    if status["verifies"] and status["same"] is not None:
        click.echo("The result is the same" if status["same"] else f"The result is NOT the same: {', '.join(status['differs'])} differ")
    if output(status, "picture.png"):
        click.echo(f"`tito job fetch {short}` writes the picture and all figures to a folder")


def _mistakes(confusion: dict[str, Any] | None) -> str:
    """The three most frequent of a confusion matrix."""
    names, matrix = (confusion["classes"], confusion["matrix"]) if confusion else ([], [])
    wrong = sorted(((-count, row, column) for row, counts in enumerate(matrix) for column, count in enumerate(counts)
                    if row != column and count))[:3]
    return ", ".join(f"{names[row]} for {names[column]} ({-count} of {sum(matrix[row])})" for count, row, column in wrong)


def _print_profile(found: dict[str, Any], measured: dict[str, Any]) -> None:
    best, median = measured["best_seconds"] * 1000, measured["median_seconds"] * 1000
    show.table(["", ""], [
        ("time", f"{best:.3f} ms (best of {measured['runs']}, median {median:.3f} ms)"),
        ("peak memory", f"{found['peak_bytes'] / 2**20:.3f} MB, of it kept {found['kept_bytes'] / 2**20:.3f} MB"),
        ("operations", f"{found['flops']:,} (estimate), {measured['gflops_per_second']:.2f} GFLOP/s"),
        ("shapes", f"{found['input_shapes']} -> {found['output_shape']}")], header=False)
    if found["operations"]:
        click.echo()
        show.table(["operation", "FLOP", "calls"], [(o["operation"], f"{o['flops']:,}", o["calls"]) for o in found["operations"][:10]],
                   right=["FLOP", "calls"])
