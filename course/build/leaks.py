"""Does anything that students get hold a line of a solution or of a hidden test?"""

import json
from collections.abc import Iterable

from course.build import regions
from course.build.cells import Cell

TRIVIAL = 20        # shorter lines (`return total`) may be written by anyone


def secrets(cells: Iterable[Cell]) -> set[str]:
    """The lines of one or several modules that students must not get: solutions, answers' outlines, hidden tests.

    Short lines are left out, and those that one of their code cells shows openly.
    """
    hidden: set[str] = set()
    shown: set[str] = set()
    for cell in cells:
        for what in (regions.SOLUTION, regions.HIDDEN):
            hidden |= {line.strip() for region in regions.regions(cell.source, what) for line in region.body}
        if cell.is_code:
            openly = regions.remove(regions.remove(cell.source, regions.SOLUTION), regions.HIDDEN)
            shown |= {line.strip() for line in openly.split("\n")}
    return {line for line in hidden - shown if len(line) >= TRIVIAL and not line.startswith("#")}


def leaks(tree: dict[str, bytes], hidden: set[str]) -> list[str]:
    """`file: line` for each secret line that stands in a file, as it is or as a notebook writes it."""
    written = {line: {line.encode(), json.dumps(line, ensure_ascii=False)[1:-1].encode()} for line in hidden}
    return [f"{name}: {line}" for name, data in sorted(tree.items())
            for line, forms in sorted(written.items()) if any(form in data for form in forms)]
