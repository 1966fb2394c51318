"""Counting a module: words, code lines, TODO lines, points. The limits are those of the teaching standard."""

import ast
import io
import math
import re
import tokenize
from dataclasses import dataclass
from statistics import median

from course.build import regions
from course.build.cells import Cell
from course.build.mutants import is_todo

LONG_MODULES = {"06": 20}                  # the walk through the graph may be longer than 15 lines
QUIET = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Counts:
    """What a module amounts to."""

    cells: int
    words: int
    code_lines: int
    todo_lines: tuple[int, ...]
    student_lines: int
    exported_by_student: int   # the student's lines that stand in exported cells
    exported_lines: int
    test_points: float
    manual_points: float


def count(cells: list[Cell]) -> Counts:
    todos = [cell for cell in cells if is_todo(cell)]
    exported = [cell for cell in cells if cell.is_export]
    return Counts(
        cells=len(cells),
        words=sum(len(words(visible_text(cell))) for cell in cells if cell.kind == "markdown"),
        code_lines=sum(len(code_lines(cell.source)) for cell in cells if cell.is_code),
        todo_lines=tuple(region_lines(cell) for cell in todos),
        student_lines=sum(region_lines(cell) for cell in todos),
        exported_by_student=sum(region_lines(cell) for cell in exported),
        exported_lines=sum(len(code_lines(cell.source)) for cell in exported),
        test_points=sum(cell.points for cell in cells if cell.is_test),
        manual_points=sum(cell.points for cell in cells if cell.is_manual),
    )


def over_budget(n: Counts, number: str) -> list[str]:
    """Every budget that is not kept, with the figure and the limit."""
    longest = LONG_MODULES.get(number, 15)
    p90 = sorted(n.todo_lines)[math.ceil(0.9 * len(n.todo_lines)) - 1] if n.todo_lines else 0
    share = n.exported_by_student / n.exported_lines if n.exported_lines else 0
    all_points = n.test_points + n.manual_points
    ratio = n.words / max(n.code_lines, 1)
    most = max(n.todo_lines, default=0)
    tested = n.test_points / all_points if all_points else 0
    checks = [
        (40 <= n.cells <= 60, f"{n.cells} cells; 40 to 60 are allowed"),
        (1200 <= n.words <= 2500, f"{n.words} words in markdown; 1,200 to 2,500 are allowed"),
        (8 <= ratio <= 20, f"{ratio:.2f} words per code line ({n.words} / {n.code_lines}); 8 to 20 are allowed"),
        (5 <= len(n.todo_lines) <= 8, f"{len(n.todo_lines)} TODOs; 5 to 8 are allowed"),
        (median(n.todo_lines or [0]) <= 6, f"TODO lines {list(n.todo_lines)}: the median may be at most 6"),
        (p90 <= 12, f"TODO lines {list(n.todo_lines)}: nine of ten may have at most 12"),
        (most <= longest, f"a TODO of {most} lines; at most {longest} are allowed"),
        (30 <= n.student_lines <= 80, f"the student writes {n.student_lines} lines; 30 to 80 are allowed"),
        (share >= 0.25, f"the student writes {n.exported_by_student} of {n.exported_lines} exported lines "
                        f"({share:.0%}); at least 25 % are needed"),
        (0.7 <= tested <= 0.8, f"tests carry {n.test_points:g} of {all_points:g} points ({tested:.0%}); "
                               f"70 to 80 % are allowed"),
    ]
    return [message for kept, message in checks if not kept]


def visible_text(cell: Cell) -> str:
    """A text cell as a student gets it."""
    return regions.remove(cell.source, regions.SOLUTION)


def words(text: str) -> list[str]:
    """Words of markdown: no tags, no formulas, no table rules, no code blocks."""
    text = re.sub(r"```.*?```|\$\$.*?\$\$|<[^>]+>|!?\[([^]]*)\]\([^)]*\)", r" \1 ", text, flags=re.DOTALL)
    return [word for word in re.split(r"[\s|]+", text) if re.search(r"\w", word)]


def paragraphs(text: str) -> list[str]:
    """Running text: blocks between blank lines; each list item for itself; no headings, tables and code blocks."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"(?m)^\s*([-*+]|\d+[.)])\s+", "\n\n", text)
    text = re.sub(r"(?m)^\s*(\||#).*$", "\n\n", text)
    text = re.sub(r"</?(details|summary|p|br|ul|ol|li)[^>]*>", "\n\n", text)
    return [block for block in re.split(r"\n\s*\n", text) if block.strip()]


def region_lines(cell: Cell) -> int:
    """Code lines inside the solution regions of a cell."""
    inside = {number + 1 for region in regions.regions(cell.source) for number in range(region.first + 1, region.last)}
    return len(code_lines(cell.source) & inside)


def code_lines(source: str) -> set[int]:
    """Numbers (from 1) of the lines with code: no blank line, comment or docstring."""
    lines: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type not in QUIET:
                lines.update(range(token.start[0], token.end[0] + 1))
        return lines - docstring_lines(ast.parse(source))
    except (SyntaxError, tokenize.TokenError, ValueError):
        stripped = [line.strip() for line in source.split("\n")]
        return {number for number, line in enumerate(stripped, 1) if line and not line.startswith("#")}


def docstring_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            continue
        if ast.get_docstring(node) is not None:
            first = node.body[0]
            lines.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines
