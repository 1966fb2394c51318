"""The form of a module: what can be seen in its source without running it. Each finding names cell and cure."""

import ast
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from course.build import regions
from course.build.budgets import paragraphs, visible_text, words
from course.build.cells import Cell, parse
from course.build.mutants import answers, is_todo

READABLE = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")
FORBIDDEN = re.compile(
    r"\b(simply|production-ready|congratulations|obviously|awesome|amazing|well done|great job|let's dive|blazing(ly)?"
    r"|discuss the importance|test cases will fail)\b", re.IGNORECASE)
EMOJI = re.compile("[\U0001F000-\U0001FAFF\u2600-\u27BF\u2B50\u2B55\uFE0F]")
BANNER = re.compile(r"[=*#~-]{8,}")
KEYS = {"grade": bool, "solution": bool, "locked": bool, "task": bool, "schema_version": int, "grade_id": str}


def errors(cells: list[Cell]) -> Iterator[tuple[Cell | None, str]]:
    """Every breach of the standard, as (cell or None for the whole module, what and how to mend it)."""
    yield from _ids(cells)
    for cell in cells:
        yield from ((cell, message) for message in _metadata(cell))
        yield from ((cell, message) for message in _regions(cell))
        yield from ((cell, message) for message in _language(cell))
        if cell.is_test:
            yield from ((cell, message) for message in _test(cell))
    yield from _order(cells)


def warnings(cells: list[Cell]) -> Iterator[tuple[Cell | None, str]]:
    """What an editor should look at."""
    for cell in cells:
        tree = parse(cell) if cell.is_test else None
        for node in ast.walk(tree) if tree else ():
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 10:
                yield cell, f"{node.name} has more than 10 lines: one behaviour per test, in about 8"
    for cell, tests in _tests_after(cells):
        if tests and is_todo(cell) and not any(regions.HIDDEN in test.source for test in tests):
            yield cell, "no hidden test follows this TODO: same promises, other inputs"


def _ids(cells: list[Cell]) -> Iterator[tuple[Cell | None, str]]:
    counted = Counter(cell.nbgrader["grade_id"] for cell in cells if cell.nbgrader.get("grade_id"))
    for cell in cells:
        grade_id = cell.nbgrader.get("grade_id")
        if not cell.nbgrader:
            continue
        text = grade_id if isinstance(grade_id, str) else ""
        if not READABLE.fullmatch(text) or re.fullmatch(r"cell-[0-9a-f]+", text):
            yield cell, f"grade_id {grade_id!r}: use lower-case words with hyphens that say what the cell is about"
        elif counted[grade_id] > 1:
            yield cell, f"grade_id {grade_id!r} is used {counted[grade_id]} times: each cell needs its own"


def _metadata(cell: Cell) -> Iterator[str]:
    meta = cell.nbgrader
    if not meta:
        marked = "BEGIN SOLUTION" in cell.source or "BEGIN HIDDEN" in cell.source
        if marked or (cell.is_code and re.search(r"^(def test_|assert )", cell.source, re.MULTILINE)):
            yield "the header line lacks nbgrader={...}; copy it from a cell of the same kind"
        return
    for key, kind in KEYS.items():
        if not isinstance(meta.get(key), kind):
            yield f"nbgrader metadata: {key!r} must be given as {kind.__name__}"
    if meta.get("schema_version") != 3:
        yield 'nbgrader metadata: "schema_version" must be 3'
    if cell.is_test and not meta.get("locked"):
        yield 'a test cell needs "locked": true'
    if cell.is_solution and meta.get("locked"):
        yield 'a solution cell needs "locked": false, or the student cannot write into it'
    if not cell.is_solution and not meta.get("grade") and not meta.get("locked"):
        yield 'a read-only cell needs "locked": true'
    if meta.get("grade") and not cell.points > 0:
        yield 'a graded cell needs "points" above 0'
    if not meta.get("grade") and "points" in meta:
        yield '"points" without "grade": true count nothing; remove one or add the other'
    if cell.is_manual and cell.is_code:
        yield "code answers are graded by test cells: set grade to false here and put a test cell after it"
    if cell.kind == "markdown" and meta.get("grade") and not cell.is_solution:
        yield 'a graded text cell is an answer: set "solution": true'


def _regions(cell: Cell) -> Iterator[str]:
    try:
        solutions, hidden = regions.regions(cell.source), regions.regions(cell.source, regions.HIDDEN)
    except regions.RegionError as error:
        yield str(error)
        return
    if cell.is_solution and not solutions:
        yield "a solution cell needs ### BEGIN SOLUTION and ### END SOLUTION, or nbgrader clears all of it"
    if solutions and not cell.is_solution:
        yield 'has a solution region, so its metadata needs "solution": true'
    if hidden and not cell.is_test:
        yield 'has hidden tests, so its metadata needs "grade": true'
    if is_todo(cell):
        for region in solutions:
            if not regions.owner(cell.source, region):
                yield "the solution region stands outside of a function, so an unfinished notebook would not define it"
            if not "".join(region.body).strip():
                yield "the solution region is empty"
    if cell.is_code and parse(cell) is None:
        yield f"is not Python: {_syntax(cell)} (magics and shell lines are not allowed in modules)"


def _syntax(cell: Cell) -> str:
    try:
        compile(cell.source, cell.id, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return str(error)
    return ""


def _language(cell: Cell) -> Iterator[str]:
    for match in FORBIDDEN.finditer(cell.source):
        yield f"{match.group()!r} is a word the standard forbids: say what is the case instead"
    for match in EMOJI.finditer(cell.source):
        yield f"contains {match.group()!r}: no emoji or dingbats"
    if cell.is_code:
        for number, line in enumerate(cell.source.split("\n"), 1):
            if len(line) > 140:
                yield f"line {number} of the cell has {len(line)} characters: at most 140"
    if cell.is_code and BANNER.search(cell.source):
        yield f"contains the banner {BANNER.search(cell.source).group()[:12]!r}: print what is measured, nothing else"  # type: ignore[union-attr]
    if cell.kind == "markdown":
        try:
            text = visible_text(cell)
        except regions.RegionError:
            return
        for paragraph in paragraphs(text):
            if (length := len(words(paragraph))) > 90:
                start = " ".join(paragraph.split()[:6])
                yield f"a paragraph of {length} words ({start} ...): at most 90, divide or shorten it"


def _test(cell: Cell) -> Iterator[str]:
    tree = parse(cell)
    if tree is None:
        return
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    if any(call.func.id == "print" for call in calls):  # type: ignore[attr-defined]
        yield "a test prints nothing: it is silent when it passes, and says why when it fails"
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.msg is None:
            yield f"line {node.lineno} of the cell: an assert without a message; say expected, got and likely reason"
    called = {call.func.id for call in calls}  # type: ignore[attr-defined]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and node.name not in called:
            yield f"{node.name} is never called, so it tests nothing"


def _order(cells: list[Cell]) -> Iterator[tuple[Cell | None, str]]:
    for before, cell in pairwise(cells):
        if is_todo(cell) and not re.search(r"^#+ TODO ", before.source, re.MULTILINE):
            yield cell, "the text cell before it must be its contract, with a heading like '### TODO 3.5: `softmax(x)`'"
        if is_todo(cell) and (shared := shared_expressions(before, cell)):
            yield cell, f"its contract or hint gives the answer away: {shared[0]} stands in both"
    code = [cell for cell in cells if cell.is_code]
    for cell, after in zip(code, [*code[1:], None], strict=True):
        if cell.is_solution and not (after and after.is_test):
            yield cell, "the next code cell must be its test (grade: true, locked)"
    if not any(name.startswith("guess") for cell in cells for name in answers(cell)):
        yield None, "no prediction: one solution cell must ask for `guess = ` (or guess_something) before a measurement"
    if not any(cell.is_manual for cell in cells):
        yield None, "no question to be answered in words: add one with its rubric and an answer cell"


def shared_expressions(text: Cell, solution: Cell) -> list[str]:
    """Expressions of some size (`np.maximum(0, x.data)`) that stand both in a text and in the solution below it."""
    try:
        lines = [line for region in regions.regions(solution.source) for line in region.body]
        tree = ast.parse(textwrap.dedent("\n".join(lines)))
    except (regions.RegionError, SyntaxError):
        return []
    sizable = [node for node in ast.walk(tree) if isinstance(node, ast.Call | ast.BinOp) and _size(node) >= 4]
    written = {ast.unparse(node) for node in sizable}
    quoted = re.findall(r"`([^`\n]+)`|<code>(.+?)</code>", text.source)
    return [plain for pair in quoted if (plain := _normal("".join(pair))) in written]


def _size(node: ast.AST) -> int:
    return sum(isinstance(part, ast.Name | ast.Constant | ast.Attribute) for part in ast.walk(node))


def _normal(code: str) -> str:
    try:
        return ast.unparse(ast.parse(code.removeprefix("return "), mode="eval"))
    except (SyntaxError, ValueError):
        return ""


def _tests_after(cells: list[Cell]) -> Iterator[tuple[Cell, list[Cell]]]:
    """Each code solution cell with the tests that stand between it and the next one."""
    code = [cell for cell in cells if cell.is_code]
    for position, cell in enumerate(code):
        if cell.is_solution:
            rest = code[position + 1:]
            end = next((n for n, other in enumerate(rest) if other.is_solution), len(rest))
            yield cell, [other for other in rest[:end] if other.is_test]
