"""`module complete`: validate, export, test, checkpoint, record. All of it, or nothing changes."""

from collections.abc import Callable

from course.build.run import CellResult
from course.checkpoints.run import Result
from course.curriculum import Checkpoint, Module
from course.tito import capabilities, progress, tests_of
from course.tito.exports import Exported, provisional_export
from course.tito.failure import Failed
from course.tito.validate import validate
from course.tito.workspace import Workspace

Say = Callable[[str, str], None]           # (step, what came of it)


def complete(workspace: Workspace, module: Module, say: Say) -> None:
    """Raises Failed at the first step that fails; the previous export is put back and nothing is recorded."""
    _validate(workspace, module, say)
    if module.export:
        with provisional_export(workspace, module) as exported:
            say("export", f"tinytorch.core.{module.export} is now {exported.imported}")
            try:
                _prove_and_record(workspace, module, say)
            except Failed as error:
                raise Failed(error.message + _taken_back(module, exported)) from None
    else:
        _prove_and_record(workspace, module, say)


def _taken_back(module: Module, exported: Exported) -> str:
    if not exported.changed:
        return ""
    return f"\n      The export was taken back: tinytorch.core.{module.export} is again what it was before this command"


def _validate(workspace: Workspace, module: Module, say: Say) -> None:
    findings = validate(workspace, module)
    failures = [f for f in findings if f.level == "failed"]
    if failures:
        lines = "\n".join(f"      {f.cell}: {f.message}" for f in failures)
        raise Failed(f"{module.slug} is not complete, nothing was recorded. The notebook:\n{lines}")
    for finding in findings:
        say("warning", f"{finding.cell} {finding.message}")
    say("validate", "the notebook is whole")


def _prove_and_record(workspace: Workspace, module: Module, say: Say) -> None:
    results = tests_of.run(workspace, module)
    _stop_at_failed_tests(module, results)
    reached, possible = tests_of.points(results)
    say("test", f"{reached:g} of {possible:g} points")
    shown: dict[str, dict] = {}
    for checkpoint in capabilities.unlocked_by(module, progress.read(workspace.state)):
        outcome = capabilities.run_all(checkpoint, workspace)
        _stop_at_failed_checkpoint(module, checkpoint, outcome)
        shown[checkpoint.number] = capabilities.entry(outcome)
        say("checkpoint", f"{checkpoint.number} passed: {checkpoint.question} Yes")
    with progress.change(workspace.state) as state:
        record = state["modules"].setdefault(module.number, {})
        record["tested"] = {"points": reached, "of": possible, "when": progress.now()}
        record["completed"] = progress.now()
        state["checkpoints"].update(shown)


def _stop_at_failed_tests(module: Module, results: list[CellResult]) -> None:
    failed = [r for r in results if not r.passed]
    if failed:
        first = failed[0]
        raise Failed(f"{module.slug} is not complete, nothing was recorded: {len(failed)} of {len(results)} tests fail, first "
                     f"{first.grade_id}:\n" + _indented(first.message) +
                     f"\n      All of them: tito module test {module.number}")


def _stop_at_failed_checkpoint(module: Module, checkpoint: Checkpoint, results: list[Result]) -> None:
    failed = [r for r in results if not r.passed]
    if failed:
        first = failed[0]
        raise Failed(f"{module.slug} is not complete, nothing was recorded: checkpoint {checkpoint.number} fails at "
                     f"\"{first.capability}\":\n" + _indented(first.message) +
                     f"\n      All of it: tito module export {module.number}; tito checkpoint test {checkpoint.number}")


def _indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())
