"""Grades a class in parallel: all sandbox jobs of an `nbgrader autograde` run first, then nbgrader takes their results one by one.

nbgrader converts one submission after the other. What takes time there is the notebook's run; so before its loop the jobs of all
submissions that it is about to grade are submitted at once, as many at a time as there are processors, with progress on the
terminal. Whoever kills it loses nothing: finished jobs are in the service's store, and nbgrader skips what it has written.
"""

import contextlib
import glob
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from autograder import client, placement
from autograder.jobs import Job, Verdict

FEW = 2                 # fewer submissions gain nothing


def ahead(converter: Any, exporter: Any, execute: Any) -> None:
    """Run the jobs of everything that this nbgrader `Autograde` converter will grade; client.submit then finds them done."""
    todo = list(pending(converter))
    if len(todo) < FEW:
        return
    with Progress(len(todo)) as progress, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        def grade(path: str) -> None:
            with contextlib.suppress(Exception):                    # nbgrader's own pass meets the same and reports it
                job, files = prepared(converter, exporter, execute, path)
                result = client.submit(job, files, regrade=graded_before(converter, path))
                client.keep(result)
                progress.done(str(result.verdict))
                return
            progress.done("not run")

        grade(todo[0])                                              # finds out where the tests run; the others use that
        list(pool.map(grade, todo[1:]))


def pending(converter: Any) -> Iterator[str]:
    """Notebooks that are not graded yet, or are newer than their graded copy, or all of them with --force."""
    courses = converter.coursedir
    for folder in sorted(glob.glob(converter._format_source(courses.assignment_id, courses.student_id))):
        for path in sorted(glob.glob(os.path.join(folder, courses.notebook_id + ".ipynb"))):
            names = converter.init_single_notebook_resources(path)["nbgrader"]
            graded = converter._format_dest(names["assignment"], names["student"])
            new, old = courses.get_existing_timestamp(folder), courses.get_existing_timestamp(graded)
            newer = new is not None and old is not None and new > old
            if converter.force or newer or not Path(graded, Path(path).name).exists():
                yield path


def graded_before(converter: Any, path: str) -> bool:
    names = converter.init_single_notebook_resources(path)["nbgrader"]
    return Path(converter._format_dest(names["assignment"], names["student"]), Path(path).name).exists()


def prepared(converter: Any, exporter: Any, execute: Any, path: str) -> tuple[Job, dict[str, bytes]]:
    """The job that nbgrader's pass will ask for; when it differs after all, that pass runs it itself."""
    names = converter.init_single_notebook_resources(path)["nbgrader"]
    instructors, _ = exporter.instructors(names)
    rebuilt = exporter.rebuild(path, names)
    cells = placement.cells(rebuilt.notebook["cells"], instructors, execute.places(instructors, names))
    extra = dict(execute.extra_files(Path(path).parent))
    return execute.job(cells, execute.seed_of(names), names["assignment"], extra)


class Progress:
    """How many are done and how long the rest will take: a line that renews itself on a terminal, else one each second."""

    def __init__(self, total: int, out: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.out, self.clock = total, out or sys.stderr, clock
        self.verdicts: Counter[str] = Counter()
        self.lock, self.begun, self.said = threading.Lock(), clock(), 0.0

    def __enter__(self) -> "Progress":
        self.say()
        return self

    def __exit__(self, *_: object) -> None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.verdicts.items(), key=lambda one: one[0] != Verdict.ok))
        print(f"\r{self.total} submissions run in {self.clock() - self.begun:.0f} s: {kinds}", file=self.out, flush=True)

    def done(self, verdict: str) -> None:
        with self.lock:
            self.verdicts[verdict] += 1
            if self.clock() - self.said > (0.2 if self.out.isatty() else 1):
                self.say()

    def say(self) -> None:
        count, spent = self.verdicts.total(), self.clock() - self.begun
        left = f", about {spent / count * (self.total - count):.0f} s left" if count else ""
        end = "" if self.out.isatty() else "\n"
        print(f"\rgrading: {count} of {self.total}{left}   ", end=end, file=self.out, flush=True)
        self.said = self.clock()

