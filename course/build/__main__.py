"""`python -m course.build`: framework files, notebooks and editions from the modules' sources."""

import sys
import time

import click

from course.build import pipeline
from course.build.cells import SourceError
from course.build.regions import RegionError


@click.command()
@click.option("--check", is_flag=True, help="Only say which files of tinytorch/core are out of step; exit 1 if any is.")
@click.option("--force", is_flag=True, help="Build even if nothing has changed.")
def main(check: bool, force: bool) -> None:
    """Build the course: tinytorch/core, the notebooks, the student edition and the grading editions.

    Example: python -m course.build
    """
    try:
        sys.exit(_check() if check else _build(force))
    except (SourceError, RegionError, OSError) as error:
        click.echo(f"build: {error}", err=True)
        sys.exit(1)


def _check() -> int:
    files = pipeline.out_of_step()
    for name in files:
        click.echo(f'tinytorch/core/{name} is not what its source makes: run "python -m course.build"')
    return 1 if files else 0


def _build(force: bool) -> int:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    began = time.perf_counter()
    with console.status("building the course") if console.is_terminal else _nothing():
        changed = pipeline.build(lambda line: console.print(line, markup=False), force=force)
    seconds = time.perf_counter() - began
    console.print(f"built in {seconds:.1f} s" if changed else f"nothing has changed ({seconds:.1f} s)", markup=False)
    return 0


def _nothing():
    from contextlib import nullcontext

    return nullcontext()


if __name__ == "__main__":
    main()
