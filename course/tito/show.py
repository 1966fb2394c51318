"""How results look: tables, states in colour, progress while waiting. Plain text where the output is not a terminal."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

COLOURS = {
    "ok": "green", "passed": "green", "complete": "green", "released": "green", "graded": "green",
    "exported": "cyan", "next": "cyan", "started": "yellow", "warning": "yellow", "by hand": "yellow", "changed": "yellow",
    "timed out": "yellow", "out of memory": "yellow", "crashed": "yellow", "tampered": "red",
    "failed": "red", "not started": "dim", "not written": "yellow", "not in this course yet": "dim", "open": "dim", "-": "dim",
}


def console(err: bool = False):
    """A rich console; wide where no person reads it, so that no line is folded."""
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError                      # rich would exit with 1; main() says what a reader that left means

    stream = sys.stderr if err else sys.stdout
    return Ours(file=stream, highlight=False, markup=False, soft_wrap=False,
                width=None if stream.isatty() else 10_000)


def styled(text: str):
    """A word of state in its colour; other text as it is."""
    from rich.text import Text
    first = text.split(",")[0].split(" (")[0]
    return Text(text, style=COLOURS.get(first, ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = (), header: bool = True) -> None:
    """Rows under column names, without boxes; columns named in `right` are aligned to the right."""
    from rich.table import Table
    drawn = Table(box=None, pad_edge=False, header_style="bold", show_header=header, padding=(0, 2, 0, 0))
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(styled("" if cell is None else str(cell)) for cell in row))
    screen = console()
    if screen.is_terminal:
        screen.print(drawn)
        return
    with screen.capture() as text:
        screen.print(drawn)
    click.echo("\n".join(line.rstrip() for line in text.get().splitlines()))


def as_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def number(value: float | None) -> str:
    """4.0 as 4, 4.25 as 4.25, None as -."""
    return "-" if value is None else f"{value:g}"


@contextmanager
def working(text: str, quiet: bool = False) -> Iterator[None]:
    """Say on stderr what takes a moment: a spinner on a terminal, one line elsewhere, nothing when `quiet`."""
    if quiet:
        yield
    elif sys.stderr.isatty():
        with console(err=True).status(text):
            yield
    else:
        click.echo(f"{text} ...", err=True)
        yield


def unicode_output() -> bool:
    """Whether the terminal's encoding has line-drawing characters."""
    return (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "") == "utf8"


def counted(things: Sequence[str], what: str, quiet: bool = False) -> Iterator[str]:
    """Each thing in turn, with a bar on a terminal and a line per thing elsewhere (both on stderr)."""
    if quiet:
        yield from things
    elif sys.stderr.isatty():
        from rich.progress import Progress
        with Progress(console=console(err=True)) as bar:
            task = bar.add_task(what, total=len(things))
            for thing in things:
                bar.update(task, description=f"{what}: {thing}")
                yield thing
                bar.advance(task)
    else:
        for position, thing in enumerate(things, 1):
            click.echo(f"{what}: {thing} ({position} of {len(things)})", err=True)
            yield thing
