"""Which files go to whom: students get no solution and no hidden test, the sandbox gets what a module may build upon.

An edition is a tree in memory (path -> bytes) until it is complete; then its folder is exchanged in one step.
"""

import ctypes
import os
import py_compile
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from course import curriculum
from course.build import framework
from course.build.run import REPO
from course.curriculum import Module

Tree = dict[str, bytes]

# What a student's tito needs of the build: export and run a notebook. The rest of the build would only be in the way.
BUILD_FILES = ("__init__.py", "cells.py", "regions.py", "export.py", "run.py", "worker.py", "nbgrader_settings.py")
# What `tito job` needs to run a job here, where there is no service: the sandbox and our programs, nothing of grading.
JOB_FILES = ("__init__.py", "jobs.py", "kinds.py", "runner.py", "local.py",
             *(f"exam/{name}.py" for name in ("__init__", "grading", "examination", "words", "run_notebook", "crossing")))
PREDECESSORS = 1        # earlier editions that stay on disk: an autograder job in the middle of its run keeps its own whole


def student(releases: dict[str, str]) -> Tree:
    """What a student's server has on its path. `releases` holds the release notebooks by module slug."""
    tree = _framework({module.export: framework.stubs(module) for module in framework.available() if module.export})
    for name in ("course/__init__.py", "course/curriculum.py", "course/curriculum.yml", "bin/tito",
                 *(f"course/build/{name}" for name in BUILD_FILES), *(f"autograder/{name}" for name in JOB_FILES)):
        tree[name] = (REPO / name).read_bytes()
    for room in ("course/tito", "course/checkpoints", "course/recipes", "autograder/sandbox", "autograder/programs"):
        tree |= _folder(REPO / room, room)
    for module in framework.available():
        folder = f"course/modules/release/{module.slug}"
        tree[f"{folder}/{module.notebook}"] = releases[module.slug].encode()
        for name in ("README.md", "module.yaml"):
            if (file := module.source.with_name(name)).is_file():
                tree[f"{folder}/{name}"] = file.read_bytes()
    return tree


def grading(module: Module, others: Iterable[Module] | None = None) -> Tree:
    """The framework while `module` is graded: reference before it, stubs from it on, so nothing is punished twice."""
    return _framework({
        other.export: framework.reference(other) if other.number < module.number else framework.stubs(other)
        for other in (framework.available() if others is None else others) if other.export})


def _framework(core: dict[str, str]) -> Tree:
    """tinytorch without solutions: the files generated from modules are the given ones, others lose what gives one away."""
    generated = {f"tinytorch/core/{module.export}.py" for module in curriculum.modules() if module.export}
    tree = {name: framework.without_solutions(data.decode()).encode() if name.endswith(".py") else data
            for name, data in _folder(REPO / "tinytorch", "tinytorch").items() if name not in generated}
    return tree | {f"tinytorch/core/{name}.py": text.encode() for name, text in core.items()}


def _folder(folder: Path, prefix: str) -> Tree:
    """All files of a folder under another name; hidden ones (an editor's, the system's) stay behind."""
    return {f"{prefix}/{name}": data for name, data in stored(folder).items()
            if not any(part.startswith(".") for part in name.split("/"))}


def write(tree: Tree, folder: Path) -> bool:
    """Make `folder` hold exactly this tree, all at once; False if it does already."""
    if stored(folder) == tree:
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        fill(tree, fresh)
        _exchange(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    _forget_old(folder)
    return True


def fill(tree: Tree, folder: Path) -> None:
    """Write the files, with their bytecode: students cannot write beside them, and compiling makes starts slow."""
    for name, data in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    for name in tree:
        if name.endswith(".py"):
            py_compile.compile(str(folder / name), dfile=name, doraise=True,
                               invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    for path in (folder, *folder.rglob("*")):       # whatever the builder's umask: students are other users
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)


def stored(folder: Path) -> Tree:
    """The tree that a folder holds."""
    if not folder.is_dir():
        return {}
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def _exchange(fresh: Path, folder: Path) -> None:
    """Put `fresh` in the place of `folder`; what was there goes to `.old/`."""
    if not folder.exists():
        os.rename(fresh, folder)
        return
    attic = folder.parent / ".old"
    attic.mkdir(exist_ok=True)
    number = max((int(p.suffix[1:]) for p in attic.glob(f"{folder.name}.*")), default=0) + 1
    grave = attic / f"{folder.name}.{number}"
    if _swap(fresh, folder):
        os.rename(fresh, grave)
    else:
        os.rename(folder, grave)
        os.rename(fresh, folder)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, where the system can (Linux: renameat2 with RENAME_EXCHANGE)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    at_cwd, exchange = -100, 2
    return renameat2 is not None and renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0


def _forget_old(folder: Path) -> None:
    old = sorted((folder.parent / ".old").glob(f"{folder.name}.*"), key=lambda path: int(path.suffix[1:]))
    for path in old[:-PREDECESSORS]:
        shutil.rmtree(path, ignore_errors=True)
