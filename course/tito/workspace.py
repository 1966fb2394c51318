"""Where a student's things are: notebooks, exports and progress, in a workspace or in a checkout of the course."""

import os
from dataclasses import dataclass
from pathlib import Path

from course.curriculum import ROOM, Module
from course.tito.failure import Failed

CODE = ROOM.parent                     # the folder that holds `course` and `tinytorch`: a checkout or an edition


@dataclass(frozen=True)
class Workspace:
    root: Path
    why: str                           # how it was found, for `system info`
    exists: bool = True                # False: the current folder, which `module start` may make one

    @property
    def is_checkout(self) -> bool:
        """Its modules are the course's own sources."""
        return self.root == CODE and has_sources()

    @property
    def state(self) -> Path:
        return self.root / ".tito"

    @property
    def core(self) -> Path:
        """The folder of exported modules, first on the search path of `tinytorch.core`."""
        return self.root / "tinytorch" / "core"

    def notebook(self, module: Module) -> Path:
        """What the student edits: the notebook, in a checkout the module's source."""
        if self.is_checkout:
            return module.source
        return self.root / "modules" / "source" / module.slug / module.notebook

    def export(self, module: Module) -> Path:
        return self.core / f"{module.export}.py"

    def started(self, module: Module) -> Path:
        """The notebook, or a clear failure when there is none yet."""
        notebook = self.notebook(module)
        if not notebook.is_file():
            raise Failed(f"{notebook} is not there yet: `tito module start {module.number}` puts it there", exit_code=2)
        return notebook

    def short(self, path: Path) -> str:
        """A path as a person in the workspace would type it."""
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)


def has_sources() -> bool:
    """The module sources are beside this code: a checkout, not the edition that students get."""
    return any((ROOM / "modules" / "source").glob("*/*_dev.py"))


def find() -> Workspace:
    """The workspace that is meant here: TINYTORCH_WORKSPACE, a parent with `.tito`, the checkout, or the current folder."""
    named = os.environ.get("TINYTORCH_WORKSPACE")
    if named:
        return Workspace(Path(named).expanduser().resolve(), "TINYTORCH_WORKSPACE")
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / ".tito").is_dir():
            return Workspace(folder, "it holds a .tito folder")
    if has_sources() and here.is_relative_to(CODE):
        return Workspace(CODE, "a checkout of the course")
    return Workspace(here, "the current folder", exists=False)


def need() -> Workspace:
    """The workspace, or a failure that says how to get one."""
    workspace = find()
    if not workspace.exists:
        raise Failed(f"{workspace.root} is not in a workspace: go to yours, set TINYTORCH_WORKSPACE, "
                     f"or make one here with `tito module start 01`", exit_code=2)
    if not workspace.root.is_dir():
        raise Failed(f"{workspace.root}, named by TINYTORCH_WORKSPACE, is not a folder: make it or correct the variable",
                     exit_code=2)
    return workspace


def built(kind: str, module: Module) -> Path:
    """The folder that the build made for a module. `kind`: "release" (for students) or "source" (with solutions)."""
    in_edition = ROOM / "modules" / kind / module.slug
    if kind == "release" and not has_sources():
        return in_edition
    return Path(os.environ.get("TINYTORCH_BUILD") or CODE / "build") / kind / module.slug
