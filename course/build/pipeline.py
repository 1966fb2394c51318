"""Builds everything from the modules' sources; does nothing when nothing has changed."""

import fcntl
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from course import curriculum
from course.build.export import write_atomically
from course.build.run import REPO
from course.curriculum import Module

BUILD = Path(os.environ.get("TINYTORCH_BUILD", REPO / "build")).resolve()
CORE = REPO / "tinytorch" / "core"
MARK = "# Generated from course/modules/"


def build(say: Callable[[str], None], folder: Path | None = None, force: bool = False) -> bool:
    """Bring framework files, notebooks and editions up to date; False if they were. `say` gets a line per module."""
    folder = folder or BUILD
    with _one_at_a_time(folder):
        stamp = folder / "stamp.json"
        if not force and stamp.is_file() and stamp.read_text() == _state(folder):
            return False
        _build(say, folder)
        write_atomically(stamp, _state(folder))
        return True


def _build(say: Callable[[str], None], folder: Path) -> None:
    from course.build import editions, framework, notebooks  # here: nbgrader and jupytext take seconds

    modules = framework.available()
    for name, text in generated(modules).items():
        write_atomically(CORE / name, text)
    for name in stale(modules):
        (CORE / name).unlink()
    sources, releases = {}, {}
    for module in modules:
        source, release = notebooks.source_notebook(module.source), notebooks.release_notebook(module.source)
        sources[module.slug], releases[module.slug] = notebooks.text(source), notebooks.text(release)
        editions.write(editions.grading(module), folder / "editions" / "grading" / module.slug)
        points = sum(cell.metadata.get("nbgrader", {}).get("points") or 0 for cell in source.cells)
        exported = f", tinytorch/core/{module.export}.py" if module.export else ""
        say(f"{module.slug:<16} {len(source.cells)} cells, {points:g} points{exported}")
    for kind, texts in (("source", sources), ("release", releases)):
        for module in modules:
            write_atomically(folder / kind / module.slug / module.notebook, texts[module.slug])
    editions.write(editions.student(releases), folder / "editions" / "student")
    _drop_leftovers(folder, {module.slug for module in modules})
    say(f"{'student edition':<16} {folder / 'editions' / 'student'}")


def generated(modules: list[Module]) -> dict[str, str]:
    """The files of tinytorch/core that the sources make, by name."""
    from course.build import framework

    return {f"{module.export}.py": framework.reference(module) for module in modules if module.export}


def stale(modules: list[Module]) -> list[str]:
    """Generated files of tinytorch/core whose source is gone."""
    made = {f"{module.export}.py" for module in modules if module.export}
    others = [path for path in CORE.glob("*.py") if path.name not in made]
    return sorted(path.name for path in others if path.read_text(encoding="utf-8").startswith(MARK))


def out_of_step() -> list[str]:
    """Files of tinytorch/core that differ from what their sources make, are missing, or are left over."""
    from course.build import framework

    modules = framework.available()
    made = generated(modules).items()
    differ = [name for name, text in made if not (CORE / name).is_file() or (CORE / name).read_text() != text]
    return sorted(differ + stale(modules))


def _drop_leftovers(folder: Path, slugs: set[str]) -> None:
    """Modules that are no longer built disappear from the build, too."""
    for kind in ("source", "release", "editions/grading"):
        for path in (folder / kind).glob("[0-9]*"):
            if path.name not in slugs:
                shutil.rmtree(path)


def _state(folder: Path) -> str:
    """What the build has read and made: the same text again means that there is nothing to do."""
    return f"inputs {_inputs()}\noutputs {_outputs(folder)}\n"


def _inputs() -> str:
    """One hash of all that the build reads, and of the tools whose output it keeps."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {' '.join(_tool_versions())}".encode())
    for folder in sorted({REPO / "course", REPO / "tinytorch", REPO / "bin", curriculum.ROOM}):
        _add_files(digest, folder)
    return digest.hexdigest()


def _tool_versions() -> Iterator[str]:
    for name in ("nbgrader", "jupytext", "nbformat"):
        try:
            yield f"{name}={version(name)}"
        except PackageNotFoundError:
            yield f"{name} missing"


def _outputs(folder: Path) -> str:
    digest = hashlib.sha256()
    _add_files(digest, CORE)
    for name in ("source", "release", "editions/student", "editions/grading"):
        _add_files(digest, folder / name)
    return digest.hexdigest()


def _add_files(digest: "hashlib._Hash", folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
