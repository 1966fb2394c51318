"""Grades a class: the sandbox jobs of all submissions run in parallel, and nbgrader writes down each as soon as it is done.

nbgrader converts one submission after the other. Here its loop gets one submission at a time, in the order in which their jobs end,
with the gradebook open once for all of them (gradebook.py). A submission's marks and its graded copy appear together: it is written
into a hidden folder, committed, and moved to its place. Whoever kills this process loses what was just running, nothing else; the
next run takes what has no graded copy, or a newer submission.
"""

import contextlib
import gc
import getpass
import glob
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from nbgrader.converters.base import NbGraderException

from autograder.jobs import Job, Result, Verdict
from autograder.marks import client, gradebook, placement
from autograder.sandbox.base import TAMPERING
from course.tito import graded


def grade(converter: Any, exporter: Any, execute: Any, one_by_one: Callable[[Any], None]) -> None:
    """All of what this nbgrader `Autograde` converter was asked to grade. `one_by_one`: its own loop over `converter.assignments`."""
    folders, failed, wanted = dict(converter.assignments), False, set(pending(converter))
    waiting = {folder: [path for path in sorted(paths) if path in wanted] for folder, paths in sorted(folders.items())}
    todo = [path for paths in waiting.values() for path in paths]
    at_once = (os.cpu_count() or 1) + 1                             # while one of them waits for a message, another goes on
    with frozen(), gradebook.shared(converter.coursedir.db_url, converter.coursedir.course_id) as book, \
            Progress(len(todo)) as progress, ThreadPoolExecutor(at_once) as pool:
        prepare_once(converter)
        ran: dict[str, Result] = {}

        def run(path: str) -> None:
            with contextlib.suppress(Exception):                    # nbgrader's own pass meets the same and reports it
                job, files = prepared(converter, exporter, execute, path)
                ran[path] = client.submit(job, files, regrade=graded_before(converter, path))
                client.keep(ran[path])

        def write(folder: str) -> bool:
            converter.assignments = {folder: folders[folder]}
            try:
                with staged(converter):
                    one_by_one(converter)
            except NbGraderException:
                return False
            finally:
                book.submission_done()
            return True

        for path in {os.path.basename(path): path for path in todo}.values():
            exporter.stored(converter.init_single_notebook_resources(path)["nbgrader"])     # the session is this thread's
        if todo:
            run(todo[0])                                            # finds out where the tests run; the others use that
        futures: dict[Future[None], str] = {pool.submit(run, path): path for path in todo[1:]}
        left = {folder: set(paths) for folder, paths in waiting.items()}
        try:
            for path in [*todo[:1], *map(futures.__getitem__, as_completed(futures))]:
                folder = os.path.dirname(path)
                left[folder].discard(path)
                if left[folder]:
                    continue
                written = write(folder)
                failed |= not written
                verdicts = [str(ran[one].verdict) if one in ran else "not run" for one in waiting[folder]]
                for each in verdicts:
                    progress.done(each if written else "not graded")
                if written:
                    record(converter, folder, {one: ran[one] for one in waiting[folder] if one in ran})
            for folder in sorted(folders.keys() - {os.path.dirname(path) for path in todo}):
                failed |= not write(folder)
        finally:
            for future in futures:
                future.cancel()
            converter.assignments = folders
    if failed:
        raise NbGraderException("Not all submissions were graded: the lines above say which and why")


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Meanwhile the garbage collector leaves alone what is there already: nbgrader's half a million objects, none of them garbage."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def prepare_once(converter: Any) -> None:
    """nbgrader makes all preprocessors anew for every notebook; they keep nothing, so one set serves a class."""
    made: dict[bool, list[Any]] = {}
    make = converter._init_preprocessors

    def init_preprocessors() -> None:
        if converter._sanitizing not in made:
            make()
            made[converter._sanitizing] = converter.exporter._preprocessors
        converter.exporter._preprocessors = made[converter._sanitizing]
    converter._init_preprocessors = init_preprocessors


@contextlib.contextmanager
def staged(converter: Any) -> Iterator[None]:
    """nbgrader writes a submission's graded copy into a hidden folder, which takes its place when all is well."""
    place, init, resources = converter._format_dest, converter.init_destination, converter.init_single_notebook_resources
    fresh, final = "", ""

    def init_destination(assignment: str, student: str) -> bool:
        nonlocal fresh, final
        converter._format_dest = place
        wanted = init(assignment, student)
        if wanted:
            final = os.path.normpath(place(assignment, student))
            hidden = os.path.join(os.path.dirname(final), f".{os.path.basename(final)}.fresh")
            shutil.rmtree(hidden, ignore_errors=True)               # of a run that was killed
            if os.path.isdir(final):                                # one of several notebooks is graded anew
                shutil.copytree(final, hidden)
            fresh = hidden
            converter._format_dest = lambda *names, escape=False: fresh
        return bool(wanted)

    def init_single_notebook_resources(path: str) -> Any:           # whose it is, from its path
        return resources(os.path.join(final, os.path.basename(path)) if fresh and os.path.dirname(path) == fresh else path)

    converter.init_destination, converter.init_single_notebook_resources = init_destination, init_single_notebook_resources
    try:
        yield
        if fresh and os.path.isdir(fresh):
            gradebook_first(converter)
            shutil.rmtree(final, ignore_errors=True)
            os.rename(fresh, final)
    finally:
        converter._format_dest, converter.init_destination, converter.init_single_notebook_resources = place, init, resources


def gradebook_first(converter: Any) -> None:
    """The marks, then the copy: without the copy the submission is graded again, with the same marks."""
    from nbgrader.converters import autograde
    autograde.Gradebook(converter.coursedir.db_url).really_commit()


def record(converter: Any, folder: str, results: dict[str, Result]) -> None:
    """Keep for the summary how the jobs of a submission ended, and why it was graded again if somebody said so."""
    names = converter.init_single_notebook_resources(os.path.join(folder, "any.ipynb"))["nbgrader"]
    tampering = [line for path in results for line in converter.exporter.tampering.get(path, [])]
    entry = {"student": names["student"], "when": time.time(), "by": getpass.getuser(), "reason": os.environ.get(graded.REASON, ""),
             "jobs": [{"job": one.job, "verdict": str(one.verdict), "sentence": one.sentence} for one in results.values()],
             "tampering": [*tampering, *(one.sentence for one in results.values() if TAMPERING in one.sentence)]}
    file = graded.file(Path(converter.coursedir.root), names["assignment"])
    file.parent.mkdir(mode=0o700, exist_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a") as out:
        out.write(json.dumps(entry) + "\n")


def pending(converter: Any) -> Iterator[str]:
    """Notebooks that are not graded yet, or are newer than their graded copy, or all of them with --force."""
    courses = converter.coursedir
    for folder in sorted(glob.glob(converter._format_source(courses.assignment_id, courses.student_id))):
        for path in sorted(glob.glob(os.path.join(folder, courses.notebook_id + ".ipynb"))):
            names = converter.init_single_notebook_resources(path)["nbgrader"]
            copy = converter._format_dest(names["assignment"], names["student"])
            new, old = courses.get_existing_timestamp(folder), courses.get_existing_timestamp(copy)
            newer = new is not None and old is not None and new > old
            if converter.force or newer or not Path(copy, Path(path).name).exists():
                yield path


def graded_before(converter: Any, path: str) -> bool:
    names = converter.init_single_notebook_resources(path)["nbgrader"]
    return Path(converter._format_dest(names["assignment"], names["student"]), Path(path).name).exists()


def prepared(converter: Any, exporter: Any, execute: Any, path: str) -> tuple[Job, dict[str, bytes]]:
    """The job that nbgrader's pass will ask for; when it differs after all, that pass runs it itself."""
    names = converter.init_single_notebook_resources(path)["nbgrader"]
    instructors, _ = exporter.instructors(names)
    rebuilt = exporter.rebuilt[path] = exporter.rebuild(path, names)
    cells = placement.cells(rebuilt.notebook["cells"], instructors, execute.places(instructors, names))
    extra = dict(execute.extra_files(Path(path).parent))
    return execute.job(cells, execute.seed_of(names), names["assignment"], extra)


class Progress:
    """How many are done and how long the rest will take: a line that renews itself on a terminal, else one each second."""

    def __init__(self, total: int, out: Any = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.out, self.clock = total, out or sys.stderr, clock
        self.verdicts: Counter[str] = Counter()
        self.begun, self.said = clock(), 0.0

    def __enter__(self) -> "Progress":
        self.say()
        return self

    def __exit__(self, *_: object) -> None:
        if self.total:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.verdicts.items(), key=lambda one: one[0] != Verdict.ok))
            runs = f"{self.total} submission{'s' if self.total != 1 else ''} run"
            print(f"\r{runs} in {self.clock() - self.begun:.0f} s: {kinds}", file=self.out, flush=True)

    def done(self, verdict: str) -> None:
        self.verdicts[verdict] += 1
        if self.clock() - self.said > (0.2 if self.out.isatty() else 1):
            self.say()

    def say(self) -> None:
        if not self.total:
            return
        count, spent = self.verdicts.total(), self.clock() - self.begun
        left = f", about {spent / count * (self.total - count):.0f} s left" if count else ""
        end = "" if self.out.isatty() else "\n"
        print(f"\rgrading: {count} of {self.total}{left}   ", end=end, file=self.out, flush=True)
        self.said = self.clock()
