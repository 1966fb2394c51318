"""Does a module keep the teaching standard? `python -m course.build.check 03 --mutants` says what does not."""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from course import curriculum
from course.build import budgets, editions, framework, leaks, manifest, mutants, regions, standard
from course.build.cells import Cell, SourceError, read_cells
from course.build.nbgrader_settings import CODE_STUB
from course.build.run import REPO, Outcome, run_cells
from course.curriculum import Module, UnknownName, find_module

TIME_LIMIT = 60


@dataclass
class Report:
    """What the checks of one module found."""

    module: Module
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: budgets.Counts | None = None
    points: float = 0
    seconds: float = 0
    slowest: str = ""
    wrong: list[mutants.Fate] = field(default_factory=list)

    def error(self, cell: Cell | None, message: str) -> None:
        self.errors.append(self._located(cell, message))

    def warn(self, cell: Cell | None, message: str) -> None:
        self.warnings.append(self._located(cell, message))

    def _located(self, cell: Cell | None, message: str) -> str:
        name = self.module.source.name
        return f'{name}:{cell.line} cell "{cell.id}": {message}' if cell else f"{name}: {message}"


def check_module(module: Module, with_mutants: bool = True) -> Report:
    """All checks of one module; the wrong solutions only on demand, since they take a few seconds."""
    report = Report(module)
    try:
        cells = read_cells(module.source)
    except SourceError as error:
        report.errors.append(str(error))
        return report
    _check_form(report, cells)
    if report.counts is None:
        return report       # BEGIN and END do not match: nothing can be run
    with tempfile.TemporaryDirectory(prefix="check-") as name:
        folder = Path(name)
        try:
            _surroundings(module, folder)
        except (SourceError, regions.RegionError) as error:
            report.errors.append(str(error))
            return report
        _check_reference(report, cells, folder)
        _check_untouched(report, cells, folder)
        wrongs, problems = mutants.load(module.source.with_name("wrong_solutions.yml"))
        report.errors += problems + mutants.count_problems(cells, wrongs)
        if with_mutants and wrongs:
            report.wrong, problems = mutants.run(cells, wrongs, folder=folder, path=[folder])
            report.errors += problems
            report.errors += [f"wrong_solutions.yml:{fate.wrong.line} {fate.wrong.cell} ({fate.wrong.why}): "
                              f"{fate.problem}" for fate in report.wrong if fate.problem]
    return report


def _check_form(report: Report, cells: list[Cell]) -> None:
    for cell, message in standard.errors(cells):
        report.error(cell, message)
    for cell, message in standard.warnings(cells):
        report.warn(cell, message)
    report.errors += manifest.errors(report.module, cells)
    try:
        report.counts = budgets.count(cells)
    except regions.RegionError:
        return      # reported with its cell above
    report.errors += [f"students would see a solution or hidden test: {leak}" for leak in _leaks(report.module, cells)]
    for message in budgets.over_budget(report.counts, report.module.number):
        report.error(None, message)


def _leaks(module: Module, cells: list[Cell]) -> list[str]:
    tree = {f'cell "{cell.id}"': untouched(cell).source.encode() for cell in cells}
    for name in ("README.md", "module.yaml"):
        if (file := module.source.with_name(name)).is_file():
            tree[name] = file.read_bytes()
    return leaks.leaks(tree, leaks.secrets(cells))


def _surroundings(module: Module, folder: Path) -> None:
    """The framework as a student of this module has it: earlier modules' reference, and this one's frame."""
    others = [other for other in framework.available() if other.number <= module.number]
    tree = editions.grading(module, others)
    for other in curriculum.modules():
        written = REPO / "tinytorch" / "core" / f"{other.export}.py"
        if other.number < module.number and other not in others and other.export and written.is_file():
            tree[f"tinytorch/core/{written.name}"] = written.read_bytes()       # its source is still being written
    editions.fill(tree, folder)


def _check_reference(report: Report, cells: list[Cell], folder: Path) -> None:
    outcomes = run_cells([cell for cell in cells if cell.is_code], timeout=3 * TIME_LIMIT, folder=folder, path=[folder])
    report.seconds = sum(outcome.seconds for outcome in outcomes)
    report.points = sum(outcome.cell.points for outcome in outcomes if outcome.cell.is_test and not outcome.error)
    slowest = max(outcomes, key=lambda outcome: outcome.seconds, default=None)
    report.slowest = f"{slowest.cell.id} {slowest.seconds:.1f} s" if slowest else ""
    for outcome in outcomes:
        if outcome.error:
            report.error(outcome.cell, f"the reference fails, {_place(outcome)}: {outcome.message}")
        if outcome.warnings:
            report.error(outcome.cell, f"the reference warns: {outcome.warnings[0]}")
        if outcome.cell.is_test and outcome.printed:
            report.error(outcome.cell, f"a test prints: {outcome.printed.strip()[:60]!r}; tests are silent")
    if report.seconds > TIME_LIMIT:
        report.error(None, f"run all takes {report.seconds:.0f} s, at most {TIME_LIMIT}; slowest: {report.slowest}")


def _check_untouched(report: Report, cells: list[Cell], folder: Path) -> None:
    typed = {name for cell in cells for name in mutants.answers(cell)}       # not defined while nothing is typed in
    released = [untouched(cell) for cell in cells if cell.is_code]
    for outcome in run_cells(released, timeout=2 * TIME_LIMIT, folder=folder, path=[folder]):
        failure = f"{_place(outcome)}: {outcome.message}"
        if outcome.error in ("Stopped", "NotRun"):
            report.error(outcome.cell, f"untouched notebook: {outcome.message}")
        elif outcome.cell.is_test and not outcome.error:
            report.error(outcome.cell, "passes in an untouched notebook: it gives points for nothing")
        elif outcome.cell.is_test and not _fails_as_it_should(outcome, typed):
            report.error(outcome.cell, f"in an untouched notebook it should fail with NotImplementedError or an "
                                       f"assertion, {failure}")
        elif outcome.cell.is_export and outcome.error:
            report.error(outcome.cell, f"this exported cell must run in an untouched notebook, too, {failure}")


def _fails_as_it_should(outcome: Outcome, typed: set[str]) -> bool:
    missing_answer = outcome.error == "NameError" and any(f"'{name}'" in outcome.message for name in typed)
    return missing_answer or outcome.error in ("NotImplementedError", "AssertionError")


def untouched(cell: Cell) -> Cell:
    """The cell as it is released: stubs for solutions, no hidden tests."""
    source = regions.replace(cell.source, lambda _number, region: regions.indented(CODE_STUB, region.indent))
    return Cell(cell.index, cell.kind, regions.remove(source), cell.nbgrader, cell.line)


def _place(outcome: Outcome) -> str:
    return f"line {outcome.cell.line + outcome.line - 1}" if outcome.line and outcome.cell.line else "at once"


def show(report: Report, with_mutants: bool) -> None:
    """The report as a table with the findings under it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table(title=report.module.slug, show_header=False, title_justify="left")
    for name, value in _rows(report, with_mutants):
        table.add_row(name, value)
    console.print(table)
    for kind, messages in (("error", report.errors), ("warning", report.warnings)):
        for message in messages:
            console.print(f"{kind}: {message}", markup=False, style="red" if kind == "error" else "yellow")
    console.print(f"{report.module.slug}: {len(report.errors)} errors, {len(report.warnings)} warnings\n", markup=False)


def _rows(report: Report, with_mutants: bool) -> Iterator[tuple[str, str]]:
    n = report.counts
    if n is None:
        return
    yield "cells", str(n.cells)
    yield "words", f"{n.words}, {n.words / max(n.code_lines, 1):.1f} per code line ({n.code_lines} lines)"
    yield "TODO lines", " ".join(map(str, n.todo_lines)) + f", together {n.student_lines}"
    yield "exported lines", f"{n.exported_lines}, {n.exported_by_student} of them by the student"
    yield "points", f"{n.test_points:g} by tests, {n.manual_points:g} by hand; the reference gets {report.points:g}"
    yield "run all", f"{report.seconds:.1f} s, slowest cell {report.slowest}"
    if with_mutants:
        died = sum(not fate.problem for fate in report.wrong)
        yield "wrong solutions", f"{died} of {len(report.wrong)} die with the right message"


@click.command()
@click.argument("names", nargs=-1, metavar="[NN ...]")
@click.option("--mutants", "with_mutants", is_flag=True, help="Also run the wrong solutions.")
def main(names: tuple[str, ...], with_mutants: bool) -> None:
    """Check modules against the teaching standard: all that are ready, or those named.

    Example: python -m course.build.check 03 --mutants
    """
    try:
        wanted = [find_module(name) for name in names] or framework.available()
    except UnknownName as error:
        raise click.UsageError(str(error)) from None
    missing = [module for module in wanted if not module.source.is_file()]
    for module in missing:
        click.echo(f"{module.slug}: there is no {module.source} yet", err=True)
    failed = bool(missing)
    for module in wanted:
        if module not in missing:
            report = check_module(module, with_mutants)
            show(report, with_mutants)
            failed = failed or bool(report.errors)
    sys.exit(failed)


if __name__ == "__main__":
    main()
