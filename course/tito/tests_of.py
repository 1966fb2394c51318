"""Runs a module's visible tests and remembers the points."""

import click

from course.build.cells import SourceError
from course.build.run import CellResult, run_notebook
from course.curriculum import Module
from course.tito import progress, show, stubs
from course.tito.failure import Failed
from course.tito.workspace import Workspace

SECONDS = 60


def run(workspace: Workspace, module: Module, quiet: bool = False) -> list[CellResult]:
    """The result of each test cell; Failed where the notebook cannot be read or has no tests."""
    notebook = workspace.started(module)
    try:
        with show.working(f"running the tests of {module.slug}", quiet):
            results = run_notebook(notebook, timeout=SECONDS)
    except SourceError as error:
        raise Failed(str(error)) from None
    if not results:
        raise Failed(f"{notebook} has no test cells: they may have been deleted; `tito module validate {module.number}` says which")
    return results


def points(results: list[CellResult]) -> tuple[float, float]:
    """Reached, and possible."""
    return sum(r.points for r in results if r.passed), sum(r.points for r in results)


def record(workspace: Workspace, module: Module, results: list[CellResult]) -> None:
    reached, possible = points(results)
    with progress.change(workspace.state) as state:
        state["modules"].setdefault(module.number, {})["tested"] = {"points": reached, "of": possible, "when": progress.now()}


def state(result: CellResult) -> str:
    """passed, failed, or not written: the code that the test is about still raises NotImplementedError."""
    return "passed" if result.passed else "not written" if stubs.waits(result.message) else "failed"


def print_table(results: list[CellResult]) -> None:
    """All tests with their points, then why the failed ones failed."""
    show.table(["test", "points", "result"],
               [(r.grade_id, f"{r.points if r.passed else 0:g}/{r.points:g}", state(r)) for r in results], right=["points"])
    for r in results:
        if state(r) == "failed":
            place = f", line {r.line}" if r.line else ""
            click.echo(f"\n{r.grade_id}{place}")
            click.echo("\n".join(f"  {line}" for line in r.message.splitlines()))
    reached, possible = points(results)
    waiting = sum(state(r) == "not written" for r in results)
    tests = "1 test waits" if waiting == 1 else f"{waiting} tests wait"
    click.echo(f"\n{reached:g} of {possible:g} points" + (f"; {tests} for code that is not written yet" if waiting else ""))
