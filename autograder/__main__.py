"""For admins and authors: can this machine isolate student code, and which tests of a module run outside of the sandbox?

    python -m autograder check
    python -m autograder tests 06 [07 ...]       tries the module's built notebook with its own solutions
    python -m autograder kubernetes --class ml101 --image NAME@sha256:...       see manifests.py
"""

import functools
import json
import os
import sys
import tempfile
from pathlib import Path

import click

from autograder import manifests, runner
from autograder.jobs import Job, Limits, Result, sha256
from autograder.marks import placement
from autograder.sandbox import choice
from autograder.sandbox.base import SandboxUnavailable
from course import curriculum
from course.build.pipeline import BUILD

LIMITS = Limits(cpu_seconds=240, wall_seconds=300)
MEANING = {
    "outside": "outside of the sandbox, with random inputs of each student's own", "fixed": "outside, with the seeds that it names",
    "inside": "inside, beside the student's code: it cannot cross", "changing": "; the arrays that it gives away may come back changed"}


@click.group()
def main() -> None:
    """The autograder on this machine."""


main.add_command(manifests.kubernetes)
main.add_command(manifests.profile)


@main.command()
def check() -> None:
    """Say whether this machine can isolate student code, how, and what falls short."""
    try:
        sandbox = choice.sandbox()
        sandbox.check()
    except SandboxUnavailable as lacking:
        click.echo(f"no isolation: {lacking.reason}\nfix: {lacking.fix}")
        sys.exit(1)
    click.echo(f"sandbox {sandbox.name}: works")
    for what, how, full in sandbox.describe():
        click.echo(f"{what}: {how}{'' if full else ' (falls short)'}")


@main.command()
@click.argument("modules", nargs=-1, required=True)
def tests(modules: tuple[str, ...]) -> None:
    """Say where each test of a module runs. Exit code 1 when one fails on the module's own solutions wherever it runs."""
    os.environ.setdefault("TINYTORCH_GRADING_EDITIONS", str(BUILD / "editions" / "grading"))
    broken = 0
    for name in modules:
        module = next((m for m in curriculum.modules() if name in (m.number, m.name, m.slug)), None)
        notebook = BUILD / "source" / module.slug / module.notebook if module else None
        if module is None or notebook is None or not notebook.exists():
            raise click.UsageError(f"there is no built module {name}: give its number, and build first (python -m course.build)")
        document = json.loads(notebook.read_text())
        with tempfile.TemporaryDirectory() as folder:
            places = placement.of_tests(document, functools.partial(_run, module.slug), Path(folder), None)
        inside = placement.cells(document["cells"], document, places)
        passing = placement.passing(inside, _run(module.slug, inside, 1))
        for test, place in sorted(places.items(), key=lambda one: one[1]):
            where, _, changing = place.partition(", ")
            fails = "" if test in passing else "  FAILS ON ITS OWN SOLUTION"
            broken += bool(fails)
            click.echo(f"{module.slug}  {test:<32} {MEANING[where]}{MEANING[changing] if changing else ''}{fails}")
    sys.exit(1 if broken else 0)


def _run(slug: str, cells: placement.Cells, seed: int | None) -> Result:
    click.echo(f"running {slug} ...", err=True)
    files = {runner.NOTEBOOK: json.dumps({"cells": cells, "seed": seed}).encode()}
    job = Job(kind="grade", inputs={path: sha256(content) for path, content in files.items()}, edition=slug, limits=LIMITS)
    return runner.run(job, files)


if __name__ == "__main__":
    main(prog_name="python -m autograder")
