"""Is a notebook fit to be handed in? Compared with the released one: whole, no cell lost or doubled, everything written."""

import re
import warnings
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from course.build.cells import Cell, SourceError, read_cells
from course.build.nbgrader_settings import CODE_STUB, TEXT_STUB
from course.build.worker import without_magics
from course.curriculum import Module
from course.tito.failure import Failed
from course.tito.workspace import Workspace, built

LARGEST = 20_000_000                       # bytes; the exchange refuses more
NOT_WRITTEN = re.compile(r"^\s*raise NotImplementedError\b", re.MULTILINE)


@dataclass(frozen=True)
class Finding:
    """`level` "failed" stops a hand-in, "warning" is for the student to decide."""

    level: str
    cell: str
    message: str

    as_dict = asdict


def validate(workspace: Workspace, module: Module) -> list[Finding]:
    """What is wrong with a module's notebook; an empty list means nothing."""
    notebook = workspace.started(module)
    if workspace.is_checkout:
        return _teaching_standard(module)
    size = notebook.stat().st_size
    if size > LARGEST:
        return [Finding("failed", "-", f"{size / 1e6:.0f} MB, at most {LARGEST / 1e6:.0f} MB can be handed in: "
                                       "clear the outputs (Edit > Clear Outputs of All Cells) and save")]
    try:
        cells = read_cells(notebook)
    except SourceError as error:
        return [Finding("failed", "-", str(error))]
    released = _released(module)
    return [*_duplicates(cells), *_missing(cells, released), *_broken(cells), *_not_exported(cells, released),
            *_unwritten(cells, released), *_changed(cells, released)]


def _teaching_standard(module: Module) -> list[Finding]:
    """In a checkout the notebook is a module's source: what its author is told, without the wrong solutions."""
    from course.build.check import check_module
    report = check_module(module, with_mutants=False)
    return [Finding(level, "-", text) for level, texts in (("failed", report.errors), ("warning", report.warnings)) for text in texts]


def _released(module: Module) -> list[Cell]:
    path: Path = built("release", module) / module.notebook
    try:
        return read_cells(path)
    except SourceError as error:
        raise Failed(f"cannot compare with the released notebook: {error}") from None


def _duplicates(cells: list[Cell]) -> list[Finding]:
    counts = Counter(cell.nbgrader["grade_id"] for cell in cells if cell.nbgrader.get("grade_id"))
    return [Finding("failed", name, f"is there {count} times: delete the copies, keep the one with your work")
            for name, count in counts.items() if count > 1]


def _missing(cells: list[Cell], released: list[Cell]) -> list[Finding]:
    present = {cell.id for cell in cells}
    return [Finding("failed", cell.id, "is missing: undo its deletion (Edit > Undo Cell Operation), or copy it from a fresh notebook")
            for cell in released if cell.nbgrader.get("grade_id") and cell.id not in present]


def _broken(cells: list[Cell]) -> list[Finding]:
    """Graded code that is not Python. Lines such as %timeit are a notebook's own, but an exported cell is a file."""
    found = []
    for cell in cells:
        if cell.is_code and cell.is_solution:
            try:
                with warnings.catch_warnings(action="ignore"):
                    compile(cell.source if cell.is_export else without_magics(cell.source), cell.id, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                line = getattr(error, "lineno", None) or 1
                text = [*cell.source.split("\n"), ""][min(line, cell.source.count("\n") + 1) - 1].strip()
                found.append(Finding("failed", cell.id, f"is not Python, line {line}: {getattr(error, 'msg', error)}: {text}"))
    return found


def _not_exported(cells: list[Cell], released: list[Cell]) -> list[Finding]:
    exported = {cell.id for cell in released if cell.is_export}
    return [Finding("failed", cell.id, "does not begin with #| export, so your framework would be without it: put that line back, "
                                       "as the first one of the cell") for cell in cells if cell.id in exported and not cell.is_export]


def _unwritten(cells: list[Cell], released: list[Cell]) -> list[Finding]:
    given = {cell.id: cell for cell in released}
    found = []
    for cell in cells:
        if not cell.is_solution or cell.id not in given:
            continue
        if cell.is_code and _stubs(cell) > _stubs(given[cell.id]) - given[cell.id].source.count(CODE_STUB.split("\n")[-1]):
            found.append(Finding("failed", cell.id, "is not written yet: it still raises NotImplementedError"))
        elif not cell.is_code and (TEXT_STUB in cell.source or not cell.source.strip()):
            found.append(Finding("warning", cell.id, "is not answered yet"))
    return found


def _stubs(cell: Cell) -> int:
    return len(NOT_WRITTEN.findall(cell.source))


def _changed(cells: list[Cell], released: list[Cell]) -> list[Finding]:
    given = {cell.id: cell.source.strip() for cell in released if cell.nbgrader.get("locked")}
    return [Finding("warning", cell.id, "is locked but was changed: grading uses the original")
            for cell in cells if cell.id in given and cell.source.strip() != given[cell.id]]
