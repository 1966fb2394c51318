"""Where each module and checkpoint of a workspace stands, from its files and its record."""

from course.curriculum import Checkpoint, Module, checkpoints, find_module, modules
from course.tito.exports import in_step
from course.tito.progress import State
from course.tito.reference import in_place
from course.tito.workspace import Workspace


def shown_modules() -> list[Module]:
    """The graded modules, and ungraded ones whose source is here."""
    return [m for m in modules() if m.graded or m.ready]


def module_state(workspace: Workspace, module: Module, state: State) -> str:
    """not in this course yet, not started, started, exported or complete, and what has happened to the export since."""
    if not module.ready:
        return "not in this course yet"
    exported = bool(module.export) and workspace.export(module).is_file()
    if state["modules"].get(module.number, {}).get("completed"):
        word = "complete"
    elif exported:
        word = "exported (the reference)" if in_place(workspace, module) else "exported"
    elif workspace.notebook(module).is_file():
        word = "started"
    else:
        word = "not started"
    if exported and in_step(workspace, module) is False:
        return f"{word}, changed since its export"
    return f"{word}, its export is missing" if word == "complete" and module.export and not exported else word


def checkpoint_state(checkpoint: Checkpoint, state: State) -> str:
    """passed, failed, open, or not in this course yet."""
    if not checkpoint.ready:
        return "not in this course yet"
    recorded = state["checkpoints"].get(checkpoint.number)
    if recorded is None:
        return "open"
    return "passed" if recorded.get("passed") else "failed"


def next_module(state: State) -> Module | None:
    """The first module of this course that is not complete."""
    return next((m for m in modules() if m.ready and m.graded and not state["modules"].get(m.number, {}).get("completed")), None)


def next_checkpoint(state: State) -> Checkpoint | None:
    """The checkpoint that is next in reach: first by the modules it needs."""
    reachable = [c for c in checkpoints() if c.ready and checkpoint_state(c, state) != "passed"]
    return min(reachable, key=lambda c: (max(find_module(n).number for n in c.after), c.number), default=None)
