"""Runs checkpoints against the student's exports and remembers what was shown."""

from course.checkpoints.run import Result, run
from course.curriculum import Checkpoint, Module, checkpoints, find_module
from course.tito import progress, show, stubs
from course.tito.workspace import Workspace


def run_all(checkpoint: Checkpoint, workspace: Workspace, quiet: bool = False) -> list[Result]:
    with show.working(f"testing checkpoint {checkpoint.number} ({checkpoint.name})", quiet):
        return list(run(checkpoint, workspace.root))


def passed(results: list[Result]) -> bool:
    return bool(results) and all(result.passed for result in results)


def state(result: Result) -> str:
    """passed, failed, or not written."""
    return "passed" if result.passed else "not written" if stubs.waits(result.message) else "failed"


def entry(results: list[Result]) -> dict:
    """What is recorded of a checkpoint's run."""
    return {"passed": passed(results), "when": progress.now(),
            "capabilities": {result.capability: result.passed for result in results}}


def record(checkpoint: Checkpoint, workspace: Workspace, results: list[Result]) -> None:
    with progress.change(workspace.state) as state:
        state["checkpoints"][checkpoint.number] = entry(results)


def unlocked_by(module: Module, state: progress.State) -> list[Checkpoint]:
    """The checkpoints that need this module and whose other modules are complete."""
    done = {number for number, entry in state["modules"].items() if entry.get("completed")} | {module.number}
    return [c for c in checkpoints()
            if c.ready and module.number in c.after and all(find_module(number).number in done for number in c.after)]


def print_failures(results: list[Result]) -> None:
    for result in results:
        if not result.passed:
            lines = result.message.splitlines() or ["no reason was given"]
            print(f"\n{result.capability}")
            print("\n".join(f"  {line}" for line in lines))
