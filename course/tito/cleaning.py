"""Which files of a workspace are generated and can be made again: only those are removed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from course.curriculum import modules
from course.tito.exports import in_step
from course.tito.workspace import Workspace


def clean(workspace: Workspace) -> list[Path]:
    """Remove generated files; returns what was removed."""
    removed = []
    for path in sorted({*_exports(workspace), *_caches(workspace)}):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def _exports(workspace: Workspace) -> Iterator[Path]:
    """Exports equal to what their notebook makes. In a checkout they are part of the repository and stay."""
    if not workspace.is_checkout:
        yield from (workspace.export(module) for module in modules() if in_step(workspace, module))


def _caches(workspace: Workspace) -> Iterator[Path]:
    """Compiled Python beside our own code; not the whole home, which may hold other things."""
    for folder in ("tinytorch", "modules", "course"):
        yield from (path for path in (workspace.root / folder).rglob("__pycache__") if path.is_dir() and not path.is_symlink())
