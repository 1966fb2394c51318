"""The nbgrader source notebook of a module, and the release notebook that students fetch. Same source, same bytes."""

import hashlib
import re
from pathlib import Path

import nbformat
from nbformat.notebooknode import NotebookNode

from course.build import nbgrader_settings
from course.build.cells import Cell, SourceError, read_cells

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def source_notebook(path: Path) -> NotebookNode:
    """The notebook with solutions and hidden tests that `nbgrader generate_assignment` starts from."""
    seen: set[str] = set()
    cells = [_notebook_cell(cell, seen) for cell in read_cells(path)]
    notebook = nbformat.from_dict({"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5})
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise SourceError(f"{path}: not a valid notebook: {str(error).splitlines()[0]}") from None
    return notebook


def release_notebook(path: Path) -> NotebookNode:
    """The student's version, made by nbgrader's own preprocessors; only its gradebook is left out."""
    from nbgrader import preprocessors as steps  # here: it takes over a second
    from nbgrader.nbgraderformat import ValidationError
    from traitlets.config import Config

    config = Config()
    nbgrader_settings.apply(config)
    notebook, resources = source_notebook(path), {"metadata": {"path": str(path.parent)}}
    order = (steps.LockCells, steps.ClearSolutions, steps.ClearOutput, steps.CheckCellMetadata, steps.ComputeChecksums,
             steps.ClearHiddenTests, steps.ClearMarkScheme, steps.ComputeChecksums, steps.CheckCellMetadata)
    for step in order:
        try:
            notebook, resources = step(config=config).preprocess(notebook, resources)
        except (RuntimeError, ValidationError) as error:
            raise SourceError(f"{path}: nbgrader's {step.__name__} refuses it: {error}. "
                              f'"python -m course.build.check" names the cell') from None
    return notebook


def text(notebook: NotebookNode) -> str:
    """A notebook as it is written to a file."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def _notebook_cell(cell: Cell, seen: set[str]) -> dict:
    metadata = {"nbgrader": cell.nbgrader} if cell.nbgrader else {}
    entry = {"cell_type": cell.kind, "id": _cell_id(cell, seen), "metadata": metadata, "source": cell.source}
    return {**entry, "execution_count": None, "outputs": []} if cell.is_code else entry


def _cell_id(cell: Cell, seen: set[str]) -> str:
    """The grade id where there is one; otherwise from the content, so that other cells may come and go."""
    grade_id = str(cell.nbgrader.get("grade_id", ""))
    fits = re.fullmatch(r"[\w-]{1,64}", grade_id, re.ASCII)
    base = grade_id if fits else hashlib.sha256(cell.source.encode()).hexdigest()[:12]
    chosen, number = base, 1
    while chosen in seen:
        number += 1
        chosen = f"{base[:58]}-{number}"
    seen.add(chosen)
    return chosen
