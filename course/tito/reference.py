"""The reference of a module whose due date has passed: one bad week does not end the course.

A hub puts the files that a class has opened into the folder named by TINYTORCH_REFERENCE, one per module. The student's own
file always wins until they take the reference, and then it is kept beside their progress.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from course.build.export import write_atomically
from course.curriculum import Module
from course.tito import progress
from course.tito.failure import Failed
from course.tito.workspace import Workspace


@dataclass(frozen=True)
class Taken:
    path: Path
    own: Path | None           # where the student's own export lies now


def offered(module: Module) -> Path | None:
    """The module's reference file, None while it is not open to this class."""
    folder = os.environ.get("TINYTORCH_REFERENCE", "")
    file = Path(folder, f"{module.export}.py")
    return file if folder and module.export and file.is_file() else None


def in_place(workspace: Workspace, module: Module) -> bool:
    """Whether the export in this workspace is the reference, not what the notebook makes."""
    file, path = offered(module), workspace.export(module)
    return file is not None and path.is_file() and path.read_bytes() == file.read_bytes()


def take(workspace: Workspace, module: Module) -> Taken:
    """Put the reference in the place of the student's export, whose text is kept. Raises Failed while it is not open."""
    file = offered(module)
    if file is None:
        raise Failed(f"the reference of {module.slug} is not open: your class opens it after the due date, or not at all. "
                     "If it is open by now, stop your server on the home page and start it again")
    path, own = workspace.export(module), None
    with progress.change(workspace.state) as state:
        record = state["modules"].setdefault(module.number, {})
        text = file.read_text(encoding="utf-8")
        if path.is_file() and path.read_text(encoding="utf-8") != text:
            stamp = progress.now().replace(":", "").replace("-", "")
            own = workspace.state / "replaced" / f"{module.export}-{stamp}.py"
            own.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(own, path.read_text(encoding="utf-8"))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
        record["reference"] = progress.now()
    return Taken(path, own)
