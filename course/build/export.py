"""The `#| export` cells of a module become a file of the framework, as they are written."""

import ast
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from course.build import regions
from course.build.cells import Cell, SourceError, read_cells


def export_notebook(path: Path) -> str:
    """The text of `tinytorch/core/<export>.py` from a `_dev.py` or an `.ipynb`; SourceError says what is wrong."""
    command = "tito module export" if path.suffix == ".ipynb" else "python -m course.build"
    header = f'Generated from {_origin(path)} by "{command}": edit it there.'
    return export_cells(read_cells(path), path, regions.unmark, header)


def export_cells(cells: list[Cell], path: Path, body: Callable[[str], str], header: str) -> str:
    """One file from the exported cells; `body` is applied to each cell's code (unmark it, or put stubs)."""
    exported = [cell for cell in cells if cell.is_export]
    if not exported:
        raise SourceError(f"{path}: no cell starts with '#| export', so there is nothing to export. "
                          f"The line may have been deleted: put it back as the first line of the cells with your code")
    _refuse_twins(exported, path)
    parts = []
    for cell in exported:
        _refuse_broken(cell, path)
        try:
            code = body(cell.source)
        except regions.RegionError as error:
            raise SourceError(f"{where(path, cell)}: {error}") from None
        parts.append(code.lstrip("\n").split("\n", 1)[1].strip("\n") if "\n" in code.strip("\n") else "")
    return f"# {header}\n\n" + "\n\n\n".join(part for part in parts if part) + "\n"


def write_atomically(path: Path, text: str) -> bool:
    """Write a file so that nobody sees half of it; False if it had this text already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True


def where(path: Path, cell: Cell, line: int = 1) -> str:
    """`tensor.ipynb, cell "add", line 3`: of the cell in a notebook, of the file in a source."""
    return f'{path}, cell "{cell.id}", line {cell.line + line - 1 if cell.line else line}'


def defined_names(source: str) -> list[str]:
    """Functions and classes that a piece of code defines at its top level; `_` names nothing, it is a rule of an op."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node.name for node in ast.parse(source).body if isinstance(node, kinds) and node.name != "_"]


def _refuse_broken(cell: Cell, path: Path) -> None:
    try:
        compile(cell.source, "<cell>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        lines = cell.source.split("\n")
        text = lines[line - 1].strip() if line <= len(lines) else ""
        raise SourceError(f"{where(path, cell, line)}: {getattr(error, 'msg', error)}: {text}") from None


def _refuse_twins(exported: list[Cell], path: Path) -> None:
    owners: dict[str, Cell] = {}
    for cell in exported:
        _refuse_broken(cell, path)
        for name in defined_names(cell.source):
            if name in owners:
                raise SourceError(f'{where(path, cell)}: {name} is exported a second time; it is in cell '
                                  f'"{owners[name].id}" already. Delete one of the two, or its "#| export" line')
            owners[name] = cell


def _origin(path: Path) -> str:
    """The path from the `modules` folder on, or the name: never a path of this machine."""
    parts = path.resolve().parts
    if "modules" in parts:
        parts = parts[len(parts) - 1 - parts[::-1].index("modules"):]
        return "/".join(parts if path.suffix == ".ipynb" else ("course", *parts))
    return path.name
