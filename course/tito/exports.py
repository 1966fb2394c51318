"""From a notebook to `tinytorch/core/<name>.py`: written whole, imported once to see that it works, taken back if not."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from course.build.cells import SourceError
from course.build.export import export_notebook, write_atomically
from course.curriculum import Module
from course.tito import reference
from course.tito.failure import Failed
from course.tito.workspace import CODE, Workspace

SECONDS = 30               # for an import; a notebook that trains while it is imported has lost its way

# Prints the file that an import really took, or where it failed.
LOOK = """
import importlib, sys, traceback
try:
    print(importlib.import_module("tinytorch.core." + sys.argv[1]).__file__)
except BaseException as error:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<")]
    place = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    sys.exit(f"{place}{type(error).__name__}: {error}")
"""


@dataclass(frozen=True)
class Exported:
    path: Path
    imported: Path             # what `import tinytorch.core.<name>` takes now
    changed: bool


def export(workspace: Workspace, module: Module) -> Exported:
    """Write a module's `#| export` cells into the student's framework. Failed, with the old file in place, if that breaks it."""
    with provisional_export(workspace, module) as exported:
        return exported


@contextmanager
def provisional_export(workspace: Workspace, module: Module) -> Iterator[Exported]:
    """As `export`; the previous file comes back if the block ends with an exception."""
    if not module.export:
        raise Failed(f"{module.slug} exports nothing: it is there to be read", exit_code=2)
    notebook = workspace.started(module)
    path = workspace.export(module)
    try:
        text = export_notebook(notebook)
        before = path.read_bytes() if path.is_file() else None
        changed = write_atomically(path, text)
    except SourceError as error:
        raise Failed(f"{error}\n      Nothing was exported") from None
    except OSError as error:
        raise Failed(f"{error.filename or path}: cannot be written: {error.strerror}") from None
    try:
        yield Exported(path, imported(workspace, module), changed)
    except BaseException:
        _put_back(path, before)
        raise


def imported(workspace: Workspace, module: Module) -> Path:
    """The file that `import tinytorch.core.<name>` takes in this workspace; Failed if the import fails."""
    try:
        done = subprocess.run([sys.executable, "-P", "-c", LOOK, module.export], cwd=workspace.root, env=environment(workspace),
                              capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Failed(f"importing tinytorch.core.{module.export} took longer than {SECONDS} s: "
                     f"put what computes into a function or a cell without '#| export'. The export was taken back") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"Python ended with code {done.returncode}"])[-1]
        raise Failed(f"tinytorch.core.{module.export} cannot be imported: {said}. The export was taken back")
    return Path(done.stdout.strip().splitlines()[-1])


def environment(workspace: Workspace) -> dict[str, str]:
    """What a child process needs to see this code and this workspace."""
    path = os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "TINYTORCH_WORKSPACE": str(workspace.root), "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"}


def in_step(workspace: Workspace, module: Module) -> bool | None:
    """Whether the exported file is what the notebook would export now; None where there is nothing to compare."""
    notebook, path = workspace.notebook(module), workspace.export(module)
    if not module.export or not notebook.is_file() or not path.is_file() or reference.in_place(workspace, module):
        return None
    try:
        return export_notebook(notebook) == path.read_text(encoding="utf-8")
    except (SourceError, OSError, UnicodeDecodeError):
        return None


def _put_back(path: Path, before: bytes | None) -> None:
    if before is None:
        path.unlink(missing_ok=True)
    else:
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_bytes(before)
        os.replace(draft, path)
