"""Puts a module's notebook into the workspace, and never over a student's work."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import click
import yaml

from course.curriculum import ROOM, Module, find_module
from course.tito import progress
from course.tito.failure import Failed
from course.tito.workspace import Workspace, built

NOT_FOR_STUDENTS = {"README.md", "module.yaml"}          # for those who browse the course, not for a folder that is handed in


@dataclass(frozen=True)
class Started:
    notebook: Path
    added: list[Path]          # files that were not there before
    kept: list[Path]           # files that were, and stayed as they are


def start(workspace: Workspace, module: Module) -> Started:
    """Copy the files of the released module that the workspace does not have yet."""
    if workspace.is_checkout:
        raise Failed(f"this is a checkout of the course: edit {workspace.short(module.source)}. To work as a student does, "
                     f"go to a folder of your own (or set TINYTORCH_WORKSPACE) and start there", exit_code=2)
    release = built("release", module)
    if not (release / module.notebook).is_file():
        raise Failed(f"the notebook of {module.slug} has not been built ({release / module.notebook} is missing): "
                     f"in the checkout, run `python -m course.build`")
    target = workspace.notebook(module).parent
    try:
        with progress.change(workspace.state) as state:
            added, kept = _add_missing(release, target)
            state["modules"].setdefault(module.number, {}).setdefault("started", progress.now())
    except OSError as error:
        raise Failed(f"{error.filename or target}: cannot be written: {error.strerror}") from None
    return Started(workspace.notebook(module), added, kept)


def _add_missing(release: Path, target: Path) -> tuple[list[Path], list[Path]]:
    added: list[Path] = []
    kept: list[Path] = []
    for source in sorted(release.rglob("*")):
        if source.is_file() and source.name not in NOT_FOR_STUDENTS and "__pycache__" not in source.parts:
            copy = target / source.relative_to(release)
            (added if _place(source, copy) else kept).append(copy)
    return added, kept


def _place(source: Path, copy: Path) -> bool:
    """Copy a file to a name that is still free, whole or not at all; False if the name is taken."""
    if os.path.lexists(copy):
        return False
    copy.parent.mkdir(parents=True, exist_ok=True)
    draft = copy.with_name(f".{copy.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, draft)                 # contents, not modes: an edition may be read-only
        os.link(draft, copy)                           # refuses where a rename would overwrite
    except FileExistsError:
        return False
    except PermissionError:                            # a file system without hard links
        os.replace(draft, copy)
    finally:
        draft.unlink(missing_ok=True)
    return True


def say_what_is_missing(workspace: Workspace, module: Module) -> None:
    """Name the modules that this one imports and whose export is not in the student's framework."""
    for other in needed(module):
        if other.export and not workspace.is_checkout and not workspace.export(other).is_file():
            word = "export" if workspace.notebook(other).is_file() else "start"
            click.echo(f"{module.slug} needs {other.slug}, which is not in your framework yet: `tito module {word} {other.number}`")


def needed(module: Module) -> list[Module]:
    """The modules that module.yaml names as prerequisites."""
    for kind in ("release", "source"):
        file = ROOM / "modules" / kind / module.slug / "module.yaml"
        if file.is_file():
            document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
            return [find_module(str(number)) for number in document.get("prerequisites") or []]
    return []


def lab_address(notebook: Path, environment: Mapping[str, str] = os.environ) -> str | None:
    """On a hub, where a notebook opens in this server's JupyterLab: a URL, or a path where the hub's host is not known."""
    server = environment.get("JUPYTERHUB_PUBLIC_URL") or environment.get("JUPYTERHUB_SERVICE_PREFIX")
    root = Path(environment.get("JUPYTER_SERVER_ROOT") or environment.get("JUPYTERHUB_ROOT_DIR") or Path.home()).resolve()
    if not server or not notebook.is_relative_to(root):
        return None
    return f"{server.rstrip('/')}/lab/tree/{quote(str(notebook.relative_to(root)))}"
