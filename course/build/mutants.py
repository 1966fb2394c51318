"""The wrong solutions of a module: each must die at its first failing test, with a message that names the symptom."""

import ast
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import yaml
from yaml.nodes import MappingNode, SequenceNode

from course.build import regions
from course.build.cells import Cell, parse
from course.build.run import events

PER_SOLUTION = 8


@dataclass(frozen=True)
class Wrong:
    """One wrong solution: what takes the place of the region of a cell, and what the failing test must say."""

    cell: str
    why: str
    body: str
    says: str
    region: int = 1       # which region, for a cell that has several
    line: int = 0         # of its entry in the file


@dataclass(frozen=True)
class Fate:
    wrong: Wrong
    killed_by: str        # grade id of the first failing test, "" for a survivor
    message: str
    problem: str          # "" when it died as it should


def load(path: Path) -> tuple[list[Wrong], list[str]]:
    """The entries of a wrong_solutions.yml, and what is wrong with the file itself."""
    if not path.is_file():
        return [], [f"{path.name}: there is no such file; it holds at least {PER_SOLUTION} wrong solutions per TODO"]
    text = path.read_text(encoding="utf-8")
    try:
        node, entries = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [], [f"{path.name}: not YAML: {str(error).replace(chr(10), ' ')}"]
    if not isinstance(node, SequenceNode):
        return [], [f"{path.name}: must be a list of entries with cell, why, body, says"]
    found: list[Wrong] = []
    problems: list[str] = []
    for item, entry in zip(node.value, entries, strict=True):
        line = item.start_mark.line + 1
        problem = _entry_problem(entry) if isinstance(item, MappingNode) else "must have cell, why, body, says"
        if problem:
            problems.append(f"{path.name}, line {line}: {problem}")
        else:
            found.append(Wrong(**{key: entry[key] for key in entry}, line=line))
    return found, problems


def _entry_problem(entry: dict) -> str:
    missing = [key for key in ("cell", "why", "body", "says") if not str(entry.get(key) or "").strip()]
    wrong_kind = [key for key in ("cell", "why", "body", "says") if not isinstance(entry.get(key), str)]
    unknown = sorted(set(entry) - {"cell", "why", "body", "says", "region"})
    if missing:
        return f"needs a text for {', '.join(missing)}"
    if wrong_kind:
        return f"{', '.join(wrong_kind)}: put quotes around it, YAML does not read it as text"
    if unknown:
        return f"unknown key {', '.join(unknown)}; known are cell, why, body, says, region"
    if not isinstance(entry.get("region", 1), int) or entry.get("region", 1) < 1:
        return "region is the number of the region within the cell, from 1"
    return ""


def runs_for_mutants(cells: list[Cell]) -> list[Cell]:
    """Import cells, exported cells, solution cells and test cells: what a test may rely on."""
    first = next((cell.index for cell in cells if cell.is_code and cell.is_solution), len(cells))
    return [cell for cell in cells if cell.is_code and (
        cell.is_export or cell.is_solution or cell.is_test or _imports(cell, at_the_top=cell.index < first))]


def _imports(cell: Cell, at_the_top: bool) -> bool:
    """A cell of imports only; before the first TODO it may go on with something else."""
    tree = parse(cell)
    if tree is None or not tree.body:
        return False
    kinds = [isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body]
    return any(kinds) if at_the_top else all(kinds)


def mutate(cell: Cell, wrong: Wrong) -> str:
    """The cell with the wrong body in place of its region."""
    count = len(regions.regions(cell.source))
    if wrong.region > count:
        raise regions.RegionError(f"cell {cell.id!r} has {count} regions, not {wrong.region}")
    return regions.replace(cell.source, lambda number, region: (
        regions.indented(wrong.body, region.indent) if number == wrong.region - 1 else list(region.body)))


def run(cells: list[Cell], wrongs: list[Wrong], *, folder: Path, path: list[Path]) -> tuple[list[Fate], list[str]]:
    """The fate of each wrong solution, and problems that are not about one of them."""
    needed = runs_for_mutants(cells)
    where = {cell.id: index for index, cell in enumerate(needed)}
    job: list[dict] = [{"id": c.id, "source": c.source, "test": c.is_test, "wrong": []} for c in needed]
    order: dict[tuple[int, int], Wrong] = {}
    problems = []
    for wrong in wrongs:
        index = where.get(wrong.cell)
        if index is None or not needed[index].is_solution:
            problems.append(f"wrong_solutions.yml, line {wrong.line}: there is no solution cell {wrong.cell!r}")
            continue
        try:
            source = mutate(needed[index], wrong)
        except regions.RegionError as error:
            problems.append(f"wrong_solutions.yml, line {wrong.line}: {error}")
            continue
        order[index, len(job[index]["wrong"])] = wrong
        job[index]["wrong"].append(source)
    fates = []
    for event in events(job, timeout=60 + 10 * len(order), folder=folder, path=path):
        if "stopped" in event:
            problems.append(f"the run with wrong solutions did not come to its end: {event['stopped']}")
        elif "wrong" in event:
            wrong = order[event["cell"], event["wrong"]]
            fates.append(Fate(wrong, event["killed_by"], event["message"], _problem(wrong, event)))
        elif event.get("error"):
            problems.append(f'cell "{needed[event["cell"]].id}" fails when only import, exported, solution and test '
                            f"cells run: {_first_line(event['message'])}. Tests may only use names from those")
    return fates, problems


def _problem(wrong: Wrong, event: dict) -> str:
    if event["own"]:
        return f"its own cell fails ({_first_line(event['own'])}): a wrong solution must define what the cell defines"
    if not event["killed_by"] and event["message"]:
        return f"no test caught it, {event['message']}: choose one that comes to an end, or let a test notice in time"
    if not event["killed_by"]:
        return "it survives every test: add a test that it fails, or drop it if it is right"
    said = _first_line(event["message"], 300)
    if wrong.says not in event["message"]:
        return f"test {event['killed_by']!r} says {said!r}, which does not contain {wrong.says!r}"
    return ""


def count_problems(cells: list[Cell], wrongs: list[Wrong]) -> list[str]:
    """Solution cells of code, predictions excepted, with too few wrong solutions; and wrong solutions given twice."""
    count = Counter(wrong.cell for wrong in wrongs)
    problems = [f'cell "{cell.id}": {count[cell.id]} wrong solutions, at least {PER_SOLUTION} are needed'
                for cell in cells if is_todo(cell) and count[cell.id] < PER_SOLUTION]
    bodies = Counter((wrong.cell, wrong.region, wrong.body.strip()) for wrong in wrongs)
    return problems + [f'cell "{cell}": the same wrong solution {n} times: {body[:60]!r}'
                       for (cell, _, body), n in bodies.items() if n > 1]


def answers(cell: Cell) -> set[str]:
    """The names that a cell of typed-in answers sets (`guess = 7`); empty for a cell in which code is written."""
    tree = parse(cell) if cell.is_code and cell.is_solution else None
    names: set[str] = set()
    for node in tree.body if tree else ():
        targets = node.targets if isinstance(node, ast.Assign) and _is_literal(node.value) else []
        named = {target.id for target in targets if isinstance(target, ast.Name)}
        if not named or len(named) != len(targets):
            return set()
        names |= named
    return names


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def is_todo(cell: Cell) -> bool:
    """A cell in which the student writes code."""
    return cell.is_code and cell.is_solution and not answers(cell)


def _first_line(text: str, limit: int = 160) -> str:
    return " ".join(text.split())[:limit]
