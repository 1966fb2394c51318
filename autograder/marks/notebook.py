"""Rebuilds a submission from the instructor's copy: of the student's file only the sources of solution cells are taken.

Whatever else a student did to the notebook (deleted, duplicated, moved or retyped cells, edited metadata, extra cells)
can therefore neither fail the submission nor cost other cells' points. What was repaired is noted for the instructor.

When a solution cell occurs several times, the last copy counts that is not empty and differs from the released cell:
copy and paste in JupyterLab copies the metadata too, and people go on in the lower copy.
"""

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_BYTES = 20 * 2**20
MAX_VALUES = 4_000_000                  # a JSON value costs about 60 bytes in memory, so a file is refused before it costs 300 MB
MAX_CELLS = 2_000
MAX_SOURCE = 200_000                    # characters of one cell


class BadSubmission(Exception):
    """This student's file cannot be graded. The message says what, where and how to mend it."""


@dataclass
class Rebuilt:
    notebook: dict[str, Any]            # nbformat 4
    notes: list[str] = field(default_factory=list)
    tampering: list[str] = field(default_factory=list)      # those of the notes that no accident explains well


def read_regular(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file, not of a link or device. Raises BadSubmission when it is not one or too large."""
    name = Path(path).name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise BadSubmission(f"{name} is not a file that can be read ({error.strerror}; links are not followed). "
                            "Ask for a new submission.") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise BadSubmission(f"{name} is not a regular file. Ask for a new submission.")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_size > limit:
            raise BadSubmission(f"{name} has {status.st_size / 2**20:.0f} MB, at most {limit / 2**20:.0f} MB are graded. Ask the "
                                "student to clear the outputs (Edit, Clear Outputs of All Cells) and submit again.")
        return file.read(limit + 1)


def parse(content: bytes, name: str = "the notebook") -> list[dict[str, Any]]:
    """The cells of a submitted notebook, as lenient as possible. Raises BadSubmission when there is nothing to take."""
    again = "Ask the student to open it in JupyterLab, repair it or fetch it again, and submit again."
    if content.count(b",") + content.count(b"[") + content.count(b"{") > MAX_VALUES:
        raise BadSubmission(f"{name} holds more than {MAX_VALUES:,} values. {again}")
    try:
        document = json.loads(content)
    except RecursionError as error:
        raise BadSubmission(f"{name} is nested too deeply. {again}") from error
    except ValueError as error:                                    # not JSON, or not UTF-8
        raise BadSubmission(f"{name} is not a notebook: {_short(str(error))}. {again}") from error
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list):
        raise BadSubmission(f"{name} is JSON but not a notebook of format 4: it has no list of cells. {again}")
    if len(cells) > MAX_CELLS:
        raise BadSubmission(f"{name} has {len(cells)} cells, at most {MAX_CELLS} are read. {again}")
    return [cell for cell in cells if isinstance(cell, dict)]


def rebuild(submitted: list[dict[str, Any]], instructors: Mapping[str, Any], released: Mapping[str, str]) -> Rebuilt:
    """The instructor's notebook with the student's solutions in it.

    `submitted`: cells from `parse`. `instructors`: the notebook as nbformat 4. `released`: grade_id to the source that the
    student was given; it stands in for a missing solution, and for locked cells it shows what was changed.
    """
    rebuilt = Rebuilt(json.loads(json.dumps(instructors)))          # a copy, ten times faster than copy.deepcopy
    copies: dict[str, list[dict[str, Any]]] = {}
    for cell in submitted:
        copies.setdefault(grade_id(cell), []).append(cell)
    known = set()
    for cell in rebuilt.notebook["cells"]:
        name = grade_id(cell)
        known.add(name)
        cell.pop("attachments", None)
        if cell["cell_type"] == "code":
            cell.update(outputs=[], execution_count=None)
        if not name:
            continue
        theirs = copies.get(name, [])
        if is_solution(cell):
            _take(cell, theirs, released.get(name, ""), rebuilt.notes)
        elif not theirs:
            rebuilt.notes.append(f"Cell `{name}` was missing; the instructor's copy was used.")
        elif name in released and any(source(copy_) != released[name] for copy_ in theirs):
            rebuilt.notes.append(f"Cell `{name}` is locked and was changed; the instructor's copy was used.")
            rebuilt.tampering += rebuilt.notes[-1:]
    extra = sum(1 for cell in submitted if grade_id(cell) not in known - {""} and source(cell).strip()
                and cell.get("cell_type") == "code") - _unnamed_code_cells(instructors)
    if extra > 0:
        rebuilt.notes.append(f"{extra} code cell{'s' if extra > 1 else ''} that the assignment does not have "
                             f"{'were' if extra > 1 else 'was'} not run: only solution cells are graded.")
    return rebuilt


def _take(cell: dict[str, Any], theirs: list[dict[str, Any]], stub: str, notes: list[str]) -> None:
    name = grade_id(cell)
    cell["source"] = stub
    if not theirs:
        notes.append(f"Solution cell `{name}` was missing; it counts as not attempted.")
        return
    if len(theirs) > 1:
        notes.append(f"Solution cell `{name}` occurred {len(theirs)} times; the last copy that was worked on was graded.")
    if any(copy_.get("cell_type") != cell["cell_type"] for copy_ in theirs):
        notes.append(f"Solution cell `{name}` had been turned into another cell type; it was graded as {cell['cell_type']}.")
    for copy_ in reversed(theirs):
        text = source(copy_)
        if len(text) > MAX_SOURCE:
            notes.append(f"Solution cell `{name}` has {len(text):,} characters, more than the {MAX_SOURCE:,} that are read.")
        elif text.strip() and text.strip() != stub.strip():
            cell["source"] = text
            if cell["cell_type"] == "markdown" and (pictures := _pictures(copy_.get("attachments"))):
                cell["attachments"] = pictures
            return


def grade_id(cell: Mapping[str, Any]) -> str:
    """The cell's nbgrader id, empty when it has none that is a string."""
    name = _nbgrader(cell).get("grade_id")
    return name if isinstance(name, str) else ""


def is_solution(cell: Mapping[str, Any]) -> bool:
    return _nbgrader(cell).get("solution") is True


def is_test(cell: Mapping[str, Any]) -> bool:
    """A cell that is graded by running it, so not an answer of the student."""
    return _nbgrader(cell).get("grade") is True and not is_solution(cell)


def source(cell: Mapping[str, Any]) -> str:
    """The text of a cell, whether it is stored as one string or as lines. Anything else counts as empty."""
    text = cell.get("source", "")
    if isinstance(text, list):
        text = "".join(line for line in text if isinstance(line, str))
    return text.encode(errors="replace").decode() if isinstance(text, str) else ""    # lone surrogates break later steps


def _nbgrader(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _unnamed_code_cells(notebook: Mapping[str, Any]) -> int:
    return sum(1 for cell in notebook["cells"] if cell["cell_type"] == "code" and not grade_id(cell) and source(cell).strip())


def _pictures(attachments: object) -> dict[str, dict[str, str]]:
    """Pictures pasted into a written answer, nothing else."""
    found: dict[str, dict[str, str]] = {}
    for name, data in (attachments.items() if isinstance(attachments, dict) else ()):
        kept = {kind: text for kind, text in data.items() if kind in ("image/png", "image/jpeg") and isinstance(text, str)
                and len(text) < 4 * 2**20} if isinstance(data, dict) else {}
        if kept:
            found[name] = kept
    return found


def _short(text: str) -> str:
    return text if len(text) <= 200 else text[:200] + "..."
