"""How far a long loop is, how fast, and how long it will still take: a bar on a terminal, a few plain lines elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

EVERY = 30.0            # seconds between two plain lines within an epoch
BETWEEN = 0.5           # seconds between the lines of two epochs: a hundred short epochs need no hundred lines
OFTEN = 0.1             # seconds between two moves of the bar


class Progress:
    """Shows the epochs of a training run. `quiet=True` shows nothing; None chooses bar or lines by asking the output."""

    def __init__(self, epochs: int, quiet: bool | None = None, stream: TextIO | None = None):
        self.epochs, self.stream = epochs, stream or sys.stdout
        self.quiet = bool(quiet)
        self.first, self.speed = 0, 0.0                     # the first epoch shown; examples per second of the last training pass
        self.began = self.last_line = self.last_move = time.monotonic()
        self.bar = None if self.quiet or not self.stream.isatty() else _bar(self.stream)
        self.task: Any = None

    def watch(self, loader: Iterable, what: str) -> Iterator:
        """The batches of a loader, counted while they pass."""
        steps = _length(loader)
        self._begin(what, steps)
        began, seen = time.monotonic(), 0
        for step, batch in enumerate(loader, 1):
            yield batch
            seen += len(batch[0]) if isinstance(batch, tuple | list) and hasattr(batch[0], "__len__") else 1
            if not self.quiet:
                self._advance(what, step, steps, seen, max(time.monotonic() - began, 1e-9))
        if what.endswith("training"):
            self.speed = seen / max(time.monotonic() - began, 1e-9)

    def end_of_epoch(self, epoch: int, row: dict[str, float], seconds: float, last: bool) -> None:
        """The line of an epoch: its results, how long it took, how long the rest will take."""
        self.first = self.first or epoch
        now = time.monotonic()
        if self.quiet or (not last and now - self.last_line < BETWEEN and epoch > self.first):
            return
        self.last_line = now
        left = (now - self.began) / (epoch - self.first + 1) * (self.epochs - epoch)
        text = f"epoch {epoch}/{self.epochs}  {described(row)}  {duration(seconds)}, {self.speed:,.0f} examples/s"
        self._print(text if last else f"{text}, {duration(left)} left")

    def say(self, text: str) -> None:
        """One line, unless quiet."""
        if not self.quiet:
            self._print(text)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def _print(self, text: str) -> None:
        if self.bar is not None:
            self.bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self.stream, flush=True)

    def _begin(self, what: str, steps: int | None) -> None:
        if self.bar is None:
            return
        self.bar.start()
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(what, total=steps, speed=0.0)

    def _advance(self, what: str, step: int, steps: int | None, seen: int, elapsed: float) -> None:
        if self.bar is not None:
            if step == steps or time.monotonic() - self.last_move > OFTEN:
                self.last_move = time.monotonic()
                self.bar.update(self.task, completed=step, speed=seen / elapsed)
        elif time.monotonic() - self.last_line > EVERY:
            self.last_line = time.monotonic()
            left = f", {duration((steps - step) * elapsed / step)} left in it" if steps else ""
            self._print(f"{what}, step {step}{f'/{steps}' if steps else ''}: {seen / elapsed:,.0f} examples/s{left}")


def described(row: dict[str, float]) -> str:
    """`loss 0.231  accuracy 93.1%`: shares as percentages, everything else to four digits."""
    share = ("accuracy", "precision", "recall", "f1")
    return "  ".join(f"{name} {value:.1%}" if name.removeprefix("val_") in share else f"{name} {value:.4g}"
                     for name, value in row.items() if isinstance(value, int | float))


def duration(seconds: float) -> str:
    """`0.31 s`, `42 s`, `3:05 min`, `2:07 h`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 3600 else int(seconds // 60)
    return f"{minutes // 60}:{minutes % 60:02} h" if seconds >= 3600 else f"{minutes}:{int(seconds) % 60:02} min"


def _length(loader: Iterable) -> int | None:
    try:
        return len(loader)                  # type: ignore[arg-type]
    except TypeError:
        return None


def _bar(stream: TextIO) -> Any:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        return None
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]:,.0f} examples/s"),
                    TimeRemainingColumn(), console=Console(file=stream), transient=True)
