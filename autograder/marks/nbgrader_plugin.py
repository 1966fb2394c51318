"""nbgrader autogrades through the sandbox: `configure(c)` in an nbgrader_config.py is all that a course needs.

It holds for `nbgrader autograde` and for the formgrader's button, which run the same converter. Three places are taken:
the exporter, which reads a submission (nbgrader would parse it before any preprocessor could look at it) and rebuilds it
from the instructor's copy; the Execute preprocessor, whose place a sandbox job takes; and the hook before a submission's
other files are copied, because nbgrader follows links. nbgrader stays the gradebook: points come from the cells' outputs
as always, except that text on stderr in a test cell costs nothing (it is turned into stdout).
"""

import functools
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
import nbgrader.preprocessors
from nbconvert.exporters import NotebookExporter
from nbgrader.api import Gradebook
from nbgrader.converters.autograde import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade, is_solution
from traitlets import Dict, Integer

from autograder import runner
from autograder.jobs import Job, Limits, Result, Verdict, relative_path, sha256
from autograder.marks import batch, client, placement
from autograder.marks import notebook as submissions
from autograder.sandbox.base import SandboxUnavailable

LEFT_OUT = ".left-out"
MAX_FILES, MAX_FILES_BYTES = 200, 20 * 2**20            # besides the notebook
NOT_INPUT = ("timestamp.txt",)                          # says when, not what: it would make every submission a new job


def configure(c: Any) -> None:
    """Make the nbgrader configuration `c` autograde in the sandbox and show students' answers without their scripts.

    Limits of a submission: `c.SandboxExecute.limits = {"memory_mb": 512}`, see autograder.jobs.Limits.
    """
    plugin, nbgrader = "autograder.marks.nbgrader_plugin", "nbgrader.preprocessors"
    c.Autograde.exporter_class = f"{plugin}.SubmissionExporter"
    c.Autograde.pre_convert_hook = f"{plugin}.set_links_aside"
    c.Autograde.sanitize_preprocessors = [
        f"{nbgrader}.ClearOutput", f"{nbgrader}.DeduplicateIds", f"{nbgrader}.OverwriteKernelspec", f"{nbgrader}.OverwriteCells",
        f"{plugin}.CheckCellMetadata"]
    c.Autograde.autograde_preprocessors = [
        f"{plugin}.SandboxExecute", f"{nbgrader}.IgnorePattern", "nbconvert.preprocessors.ClearMetadataPreprocessor",
        f"{nbgrader}.LimitOutput", f"{nbgrader}.SaveAutoGrades", f"{nbgrader}.AssignLatePenalties", f"{plugin}.CheckCellMetadata"]
    c.HTMLExporter.filters = {"markdown2html": "autograder.marks.answers.render"}
    c.HTMLExporter.extra_template_paths = [str(Path(__file__).parent / "templates")]       # ours has no MathJax
    grade_in_parallel()
    c.CourseDirectory.ignore.append(f"*{LEFT_OUT}")     # to the site's list, or to nbgrader's own


@functools.cache
def grade_in_parallel() -> None:
    """Let nbgrader's Autograde run the jobs of all its submissions at once; once per process, however often nbgrader configures."""
    one_by_one = Autograde.convert_notebooks

    def convert_notebooks(self: Any) -> None:
        if isinstance(self.exporter, SubmissionExporter):
            batch.grade(self, self.exporter, SandboxExecute(parent=self.exporter), one_by_one)
        else:
            one_by_one(self)

    Autograde.convert_notebooks = convert_notebooks


class Explained(NbGraderException):
    """Ends the grading of one submission; what was wrong has been logged in one line."""


def explained(log: logging.Logger, message: str) -> Explained:
    """Log the line now and keep nbgrader from burying it under a traceback."""
    log.addFilter(_no_traceback)
    log.error("%s", message)
    return Explained(message)


def _no_traceback(record: logging.LogRecord) -> bool:
    text = str(record.msg)
    return not (text.startswith("Traceback") and f"{__name__}.{Explained.__name__}: " in text)


def set_links_aside(assignment: str, student: str, notebooks: list[str]) -> None:
    """Rename links, devices and pipes in a submission to *.left-out, so that nbgrader does not copy what they lead to."""
    for folder, folders, names in os.walk(os.path.dirname(notebooks[0])) if notebooks else ():
        for name in [*folders, *names]:
            path = Path(folder, name)
            if path.suffix in (".ipynb", LEFT_OUT) or (not path.is_symlink() and (path.is_dir() or path.is_file())):
                continue                                # the exporter refuses a notebook that is a link
            path.rename(path.with_name(name + LEFT_OUT))


class SubmissionExporter(NotebookExporter):
    """Reads a submission as what it is: a file from outside. Refuses to exist where nothing can be isolated."""

    parent: Any                                         # nbgrader's Autograde

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.read: dict[tuple, Any] = {}                # what stays the same while a class is graded
        self.sanitized: Any = None                      # the submission after nbgrader's first pass
        self.tampering: dict[str, list[str]] = {}       # by path of the submitted notebook
        self.rebuilt: dict[str, submissions.Rebuilt] = {}       # likewise, of which the job is run already
        try:
            client.check()
        except SandboxUnavailable as lacking:
            raise explained(self.log, f"Nothing was graded: {lacking.reason}. Fix: {lacking.fix}") from None

    def from_filename(self, filename: str, resources: Any = None, **kw: Any) -> Any:
        """Rebuild a submitted notebook from the instructor's copy; in nbgrader's second pass go on with what the first has made."""
        if not self.parent._sanitizing:
            path = Path(filename)
            resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
            return self.from_notebook_node(self.sanitized, resources, **kw)
        who = f"{resources['nbgrader']['student']}, {resources['nbgrader']['assignment']}"
        try:
            rebuilt = self.rebuilt.pop(filename, None) or self.rebuild(filename, resources["nbgrader"])
        except submissions.BadSubmission as bad:
            raise explained(self.log, f"{who} was not graded: {bad} The other submissions are not affected.") from None
        self.tampering[filename] = rebuilt.tampering
        for note in rebuilt.notes:
            self.log.warning("%s: %s", who, note)
        notebook = nbformat.from_dict(rebuilt.notebook)
        add_notes(notebook, rebuilt.notes)
        path = Path(filename)
        resources["metadata"] = {"name": path.stem, "path": str(path.parent)}
        return self.from_notebook_node(notebook, resources, **kw)

    def from_notebook_node(self, nb: Any, resources: Any = None, **kw: Any) -> tuple[Any, Any]:
        """nbconvert's, without a validation after each of a dozen preprocessors: every part of the notebook is of our making."""
        resources = self._init_resources(resources)
        for preprocessor in self._preprocessors:
            nb, resources = preprocessor(nb, resources)
        resources["output_suffix"] = ".nbconvert"
        self.sanitized = nb
        return ("" if self.parent._sanitizing else nbformat.v4.writes_json(nb) + "\n"), resources

    def stored(self, names: Mapping[str, str]) -> dict[str, str]:
        """The sources that the gradebook keeps of the released cells, by their ids."""
        key = "stored", names["assignment"], names["notebook"]
        if key not in self.read:
            with Gradebook(names["db_url"], self.parent.coursedir.course_id) as gradebook:
                cells = gradebook.find_notebook(names["notebook"], names["assignment"]).source_cells
                self.read[key] = {cell.name: cell.source for cell in cells}
        return dict(self.read[key])

    def rebuild(self, filename: str, names: dict[str, str]) -> submissions.Rebuilt:
        """The instructor's notebook with this student's solutions, its cells those that were released."""
        stored = self.stored(names)
        instructors, release = self.instructors(names)
        released = {submissions.grade_id(cell): submissions.source(cell) for cell in (release or {"cells": []})["cells"]}
        released.update((submissions.grade_id(cell), stored.get(submissions.grade_id(cell), "")) for cell in instructors["cells"]
                        if submissions.is_solution(cell))
        cells = submissions.parse(submissions.read_regular(filename), Path(filename).name)
        rebuilt = submissions.rebuild(cells, instructors, released)
        for cell in rebuilt.notebook["cells"]:
            name = submissions.grade_id(cell)
            if name and name not in stored:             # nbgrader would fail the whole submission
                cell["metadata"].pop("nbgrader")
                self.log.warning("Cell %s of source/%s was added after the release and is not graded", name, names["assignment"])
        return rebuilt

    def instructors(self, names: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The instructor's notebook and the released one. Without a source the release is the instructor's."""
        release = self._notebook(names, self.parent.coursedir.release_directory)
        instructors = self._notebook(names, self.parent.coursedir.source_directory) or release
        if instructors is None:
            raise explained(self.log, f"{names['notebook']}.ipynb is neither in source/ nor in release/ of {names['assignment']}: "
                                      "put it back, the submissions are rebuilt from it")
        return instructors, release

    def _notebook(self, names: dict[str, str], directory: str) -> dict[str, Any] | None:
        folder = self.parent.coursedir.format_path(directory, ".", names["assignment"])
        path = Path(folder, f"{names['notebook']}.ipynb")
        if not path.exists():
            return None
        key = "notebook", str(path), path.stat().st_mtime_ns
        if key not in self.read:
            self.read[key] = dict(nbformat.read(path, as_version=4))
        return dict(self.read[key])


class CheckCellMetadata(nbgrader.preprocessors.CheckCellMetadata):
    """nbgrader's, which reads its schema anew for each cell: not again for metadata that it has found right before."""

    right: set[str] = set()

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        metadata = json.dumps([[cell.cell_type, cell.metadata.get("nbgrader")] for cell in nb.cells], sort_keys=True)
        if metadata not in self.right:
            nb, resources = super().preprocess(nb, resources)
            self.right.add(metadata)
        return nb, resources


class SandboxExecute(NbGraderPreprocessor):
    """Runs the notebook as a job in a sandbox and takes nothing from it but outputs, cell by cell."""

    limits = Dict(help="What one submission may use: fields of autograder.jobs.Limits, e.g. {'memory_mb': 512}").tag(config=True)
    seed = Integer(0, help="Seed of random, NumPy's global generator and Python's hashes in the sandbox").tag(config=True)

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        """Fill in the outputs. Raises NbGraderException when the job could not be run: nobody's points are touched then."""
        names = resources["nbgrader"]
        who = f"{names['student']}, {names['assignment']}"
        exporter: Any = self.parent
        instructors, _ = exporter.instructors(names)
        try:
            places = self.places(instructors, names)
            extra = dict(self.extra_files(Path(resources["metadata"]["path"])))
            cells = placement.cells(nb.cells, instructors, places)
            result = client.submit(*self.job(cells, self.seed_of(names), names["assignment"], extra))
        except (SandboxUnavailable, client.ServiceError, runner.BadJob) as error:
            raise explained(self.log, f"{who} was not graded: {error}") from None
        if result.verdict is Verdict.infra:
            raise explained(self.log, f"{who} was not graded, try again: {result.sentence}")
        self.take(nb, result)
        nb.metadata["autograder"]["inside"] = sorted(name for name, where in places.items() if where == "inside")
        if result.verdict is not Verdict.ok:
            self.log.warning("%s: %s: %s", who, result.verdict, result.sentence)
            add_notes(nb, [f"Stopped ({result.verdict}): {result.sentence}. Cells that could be run were run."])
        return nb, resources

    @property
    def course(self) -> Path:
        exporter: Any = self.parent
        return Path(exporter.parent.coursedir.root)

    def places(self, instructors: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
        """Where each test of the assignment runs. Tried out once with the instructor's solutions."""
        def submit(cells: placement.Cells, seed: int | None) -> Result:
            return client.submit(*self.job(cells, seed, names["assignment"], {}))
        exporter: Any = self.parent
        edition = self.edition_hash(names["assignment"])
        key = "places", names["assignment"], names["notebook"], id(instructors["cells"]), edition
        if key not in exporter.read:
            exporter.read[key] = placement.of_tests(instructors, submit, self.course, edition)
        return dict(exporter.read[key])

    def seed_of(self, names: Mapping[str, str]) -> int:
        return placement.seed(self.course, names["assignment"], names["student"])

    def job(self, cells: placement.Cells, seed: int | None, assignment: str, extra: Mapping[str, bytes]) -> tuple[Job, dict[str, bytes]]:
        """The grade job of one rebuilt notebook with the other files of the submission."""
        files = {runner.NOTEBOOK: json.dumps({"cells": cells, "seed": seed}).encode(), **extra}
        edition = runner.find_edition(assignment)
        if edition is None and any("tinytorch" in cell["source"] for cell in cells if cell["kind"] != "student"):
            raise explained(self.log, f"{assignment} uses tinytorch, but there is no edition of it for this assignment: build the course "
                                      "(python -m course.build) and set TINYTORCH_GRADING_EDITIONS to its build/editions/grading")
        return Job(kind="grade", inputs={path: sha256(content) for path, content in files.items()}, seed=self.seed,
                   edition=assignment if edition else None, edition_hash=self.edition_hash(assignment),
                   limits=Limits.model_validate(self.limits)), files

    def edition_hash(self, assignment: str) -> str | None:
        edition = runner.find_edition(assignment)
        return _hash_of(edition, edition.stat().st_ino, edition.stat().st_mtime_ns) if edition else None

    def extra_files(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        """(inside path, content) of the regular files next to the notebook, within the caps."""
        count, room = 0, MAX_FILES_BYTES
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).as_posix()
            if path.is_dir() or path.suffix == ".ipynb" or inside in NOT_INPUT:
                continue
            try:
                content = submissions.read_regular(path, room)
                count, room = count + 1, room - len(content)
                if count > MAX_FILES:
                    raise submissions.BadSubmission(f"more than {MAX_FILES} files")
                yield relative_path(runner.EXTRA + inside), content
            except (submissions.BadSubmission, ValueError) as error:
                self.log.warning("%s is left out: %s", path, error)

    def take(self, nb: Any, result: Result) -> None:
        """Put the outputs into their cells; a cell without any answer keeps none and fails if it is a test."""
        outputs = json.loads(result.outputs["cells.json"])
        count = 0
        for cell in nb.cells:
            if cell.cell_type == "code":
                of_cell = outputs[str(count)]
                count += 1
                cell.execution_count = count
                if is_grade(cell) and not is_solution(cell):
                    of_cell = [graded_output(output, float(cell.metadata.nbgrader["points"])) for output in of_cell]
                cell.outputs = [nbformat.from_dict(output) for output in of_cell]
        nb.metadata["autograder"] = {"job": result.job, "verdict": str(result.verdict), "image": result.image,
                                     "sandbox": result.sandbox, "seed": result.seed, "blas_core": result.blas_core}


@functools.lru_cache(8)
def _hash_of(folder: Path, *_state: int) -> str:
    return runner.hash_folder(folder)


def graded_output(output: dict[str, Any], points: float) -> dict[str, Any]:
    """An output of a test cell such that nbgrader reads it right: stderr is no failure, and only a number is partial credit."""
    if output["output_type"] == "stream":
        return {**output, "name": "stdout"}
    if output["output_type"] != "execute_result":
        return output
    try:
        credit = float(output["data"]["text/plain"])
    except ValueError:
        return {"output_type": "display_data", "data": output["data"], "metadata": {}}
    if math.isfinite(credit) and 0 <= credit <= points:
        return output
    wrong = f"partial credit must be between 0 and {points:g}, the cell's last line gave {credit:g}"
    return {"output_type": "error", "ename": "PartialCredit", "evalue": wrong, "traceback": [wrong]}


def add_notes(nb: Any, notes: list[str]) -> None:
    """Tell instructor and student in the first cell what was repaired or stopped."""
    if not notes:
        return
    lines = "".join(f"- {note}\n" for note in notes)
    if nb.cells and nb.cells[0].metadata.get("autograder") == "notes":
        nb.cells[0].source += lines
        return
    cell = nbformat.v4.new_markdown_cell(f"**Notes of the autograder**\n\n{lines}", metadata={"autograder": "notes"})
    if (nb.nbformat, nb.nbformat_minor) < (4, 5):
        del cell["id"]
    nb.cells.insert(0, cell)
