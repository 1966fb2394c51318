"""Feedback without the hidden tests: nbgrader's pages for students show them otherwise, in the cell and in its traceback.

A student reads that a hidden test failed and its message, which says what was expected; never the test's code.
"""

import re

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import GetGrades, NbGraderPreprocessor

from course.build import regions

NOTE = "# Here run hidden tests: the same promises, other inputs."


class HideTests(NbGraderPreprocessor):
    """Takes the hidden regions out of the sources, and out of tracebacks every line of code."""

    def preprocess_cell(self, cell, resources, cell_index):
        if cell.cell_type != "code" or not regions.regions(cell.source, regions.HIDDEN):
            return cell, resources
        cell.source = regions.replace(cell.source, lambda _number, region: [region.indent + NOTE], regions.HIDDEN)
        for output in cell.outputs:
            if output.output_type == "error":
                output.traceback = [f"{output.ename}: {plain(output.evalue)}"]
        return cell, resources


def plain(text: str) -> str:
    """Without the colour codes of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def configure(c) -> None:
    """Make `nbgrader generate_feedback` and the formgrader's button use it."""
    c.GenerateFeedback.preprocessors = [GetGrades, HideTests, CSSHTMLHeaderPreprocessor]
