"""A module as a list of cells, whether it is a percent source or a notebook."""

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

EXPORT = re.compile(r"\s*#\s*\|\s*export\s*$")
CELL_HEADER = re.compile(r"# %%( |$)")


class SourceError(ValueError):
    """A module source or notebook that cannot be used; the message says file, cell and cure."""


@dataclass(frozen=True)
class Cell:
    """One cell with its nbgrader metadata. `line` is that of its first source line in a percent file, else 0."""

    index: int
    kind: str                                     # "code" or "markdown"
    source: str
    nbgrader: dict = field(default_factory=dict)
    line: int = 0

    @property
    def id(self) -> str:
        """The grade id, or the position for a cell without one."""
        return self.nbgrader.get("grade_id") or f"cell {self.index + 1}"

    @property
    def points(self) -> float:
        return float(self.nbgrader.get("points") or 0)

    @property
    def is_code(self) -> bool:
        return self.kind == "code"

    @property
    def is_solution(self) -> bool:
        """The student writes here: code, a prediction or an answer."""
        return bool(self.nbgrader.get("solution"))

    @property
    def is_test(self) -> bool:
        """Code that decides points."""
        return self.is_code and bool(self.nbgrader.get("grade")) and not self.is_solution

    @property
    def is_manual(self) -> bool:
        """An answer that a person grades."""
        return bool(self.nbgrader.get("grade")) and self.is_solution

    @property
    def is_export(self) -> bool:
        return self.is_code and bool(EXPORT.match(self.source.lstrip("\n").split("\n", 1)[0]))


def read_cells(path: Path) -> list[Cell]:
    """The cells of a `.py` percent source or an `.ipynb` notebook."""
    return read_notebook(path) if path.suffix == ".ipynb" else read_source(path)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from None


def read_notebook(path: Path) -> list[Cell]:
    """The cells of a notebook, by the standard library alone: a student's command must start fast."""
    text = read_text(path)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(
            f"{path}: not a notebook: line {error.lineno} is not JSON ({error.msg}). Restore it from a checkpoint "
            f"(File > Revert Notebook to Checkpoint) or fetch the module again") from None
    try:
        return [_notebook_cell(index, entry) for index, entry in enumerate(document["cells"])]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise SourceError(f"{path}: JSON, but not a notebook of format 4: {type(error).__name__} {error}") from None


def _notebook_cell(index: int, entry: dict) -> Cell:
    source = entry["source"]
    text = source if isinstance(source, str) else "".join(source)
    metadata = entry.get("metadata", {}).get("nbgrader", {})
    return Cell(index, str(entry["cell_type"]), text, dict(metadata))


def read_source(path: Path) -> list[Cell]:
    """The cells of a jupytext percent source, with line numbers."""
    import jupytext  # here, not above: it takes half a second, and reading a notebook does not need it

    text = read_text(path)
    notebook = jupytext.reads(text, fmt="py:percent")
    lines = [number for number, line in enumerate(text.split("\n"), 1) if CELL_HEADER.match(line)]
    if len(lines) != len(notebook.cells):
        raise SourceError(f"{path}: {len(lines)} lines start with '# %%' but there are {len(notebook.cells)} cells: "
                          f"keep '# %%' out of strings, and put nothing but the jupytext header above the first cell")
    cells = []
    for index, (cell, line) in enumerate(zip(notebook.cells, lines, strict=True)):
        if "incorrectly_encoded_metadata" in cell.metadata:
            raise SourceError(f"{path}, line {line}: the metadata after '# %%' is not valid JSON: "
                              f"{cell.metadata['incorrectly_encoded_metadata'][:80]}")
        cells.append(Cell(index, cell.cell_type, cell.source, dict(cell.metadata.get("nbgrader", {})), line + 1))
    return cells


def parse(cell: Cell) -> ast.Module | None:
    """The syntax tree of a code cell, or None where it is not Python."""
    try:
        return ast.parse(cell.source)
    except (SyntaxError, ValueError):
        return None
