"""Carries out one job on this machine: prepares what the sandbox may see, runs it there, writes down what came of it."""

import ast
import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from autograder import kinds
from autograder.exam import grading
from autograder.exam.examination import Examination
from autograder.jobs import PACKAGES, Job, Limits, Result, Usage, Verdict, sha256
from autograder.sandbox import choice
from autograder.sandbox.base import WORK, Outcome, Sandbox, SandboxUnavailable, Talk, Watch
from autograder.sandbox.processes import bubblewrap

NOTEBOOK, MAIN, EXTRA = "notebook.json", "main.py", "files/"
INNER_FOLDER, INNER_FILES, INNER_EDITION = "/opt/autograder", ("run_notebook.py", "crossing.py"), "/opt/edition"
INNER_RUNNER = f"{INNER_FOLDER}/{INNER_FILES[0]}"
INNER_DATA = "/opt/data"
COLLECTED = ("result.json", "measured.json", "picture.png", "log.jsonl")      # what a job other than `grade` may leave behind
MOST_DATA_FILES = 200_000


class BadJob(ValueError):
    """The job cannot be carried out as asked. The message says why."""


def run(job: Job, files: Mapping[str, bytes], sandbox: Sandbox | None = None, watch: Watch | None = None,
        before: Mapping[str, bytes] | None = None) -> Result:
    """Carry out a job. Raises BadJob when files or edition are not those of the job, SandboxUnavailable without isolation.

    `watch` follows the program; the notebook of a grade job is not followed, only stopped. `before`: what an interrupted run of
    this job has left (kinds.GOES_ON_FROM), from which it goes on.
    """
    sandbox = sandbox or choice.sandbox()
    if {path: sha256(content) for path, content in files.items()} != job.inputs:
        raise BadJob("the files are not those of the job: their names and hashes differ")
    edition = edition_folder(job)
    sandbox.check()
    if job.image not in ("", (here := image(sandbox))):
        raise BadJob(f"the job is to run in the image {job.image}, jobs here run in {here}: leave `image` out, or ask where that one is")
    if job.kind == "grade":
        verdict, sentence, usage, outputs = _grade(job, files, sandbox, edition, watch)
    else:
        outcome = _start(job, {**files, **(before or {})}, sandbox, edition, _program(job, edition), job.limits, watch=watch)
        verdict, sentence, usage = outcome.verdict, outcome.sentence, outcome.usage
        outputs = {"stdout": outcome.stdout, "stderr": outcome.stderr, **outcome.files}
    return Result(job=job.id, verdict=verdict, sentence=sentence, usage=usage, inputs=job.inputs, outputs=outputs,
                  output_hashes={name: sha256(content) for name, content in outputs.items()}, sandbox=sandbox.name,
                  image=image(sandbox), threads=1, blas_core=blas_core(), seed=job.seed, limits=job.limits,
                  edition_hash=job.edition_hash or (hash_folder(edition) if edition else ""), cpu=cpu(),
                  packages=(sandbox.image() or ("", packages()))[1])


def _grade(job: Job, files: Mapping[str, bytes], sandbox: Sandbox, edition: Path | None, watch: Watch | None,
           ) -> tuple[Verdict, str, Usage, dict[str, bytes]]:
    try:
        notebook = grading.Notebook.model_validate_json(files[NOTEBOOK])
    except (KeyError, ValueError) as error:
        raise BadJob(f"a job of kind grade needs {NOTEBOOK}: its cells and a seed") from error
    extra = {path.removeprefix(EXTRA): content for path, content in files.items() if path.startswith(EXTRA)}

    imports = imported(notebook, ".tito" not in {path.partition("/")[0] for path in extra})

    def start(talk: Talk, limits: Limits) -> Outcome:
        return _start(job, extra, sandbox, edition, [INNER_RUNNER], limits, talk, watch, imports)

    def examine(asked: grading.Notebook) -> Examination:
        cells = [{"id": cell.id, "name": cell.name, "kind": cell.kind, "where": cell.where, "keeps": cell.keeps,
                  "source": cell.source if cell.instructors is None else cell.instructors} for cell in asked.cells]
        return Examination(cells, asked.seed, [str(edition)] if edition else [], python(), environment_of(job, False))

    verdict, sentence, usage, outputs = grading.run(notebook, job.limits, start, examine)
    return verdict, sentence, usage, {"cells.json": json.dumps(outputs).encode()} if outputs else {}


def imported(notebook: grading.Notebook, framework: bool) -> list[str]:
    """What the instructor's cells import of the libraries whose import takes long, to be had ready (warm.py).

    `framework`: of ours too. Not beside a workspace, whose own modules come first (tinytorch/core/__init__.py).
    """
    return _imported(tuple(cell.instructors if cell.instructors is not None else "" if cell.kind == "student" else cell.source
                           for cell in notebook.cells), framework)


@functools.lru_cache(16)
def _imported(sources: tuple[str, ...], framework: bool) -> list[str]:
    roots, found = {"numpy", "matplotlib", *(["tinytorch"] if framework else [])}, {"numpy.random", "crossing"}
    for source in sources:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            for node in ast.parse(source).body:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else \
                    [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                found.update(name for name in names if name.partition(".")[0] in roots)
    return sorted(found)


def _program(job: Job, edition: Path | None) -> list[str]:
    """What Python runs for a job that is no notebook."""
    if not job.target:
        return ["main.py"]
    if edition is None:
        raise BadJob(f"a job of kind {job.kind} needs an edition")
    return ["-P", f"{INNER_FOLDER}/programs/{job.kind}.py", job.target]      # -P: our programs do not shadow a library


def _start(job: Job, files: Mapping[str, bytes], sandbox: Sandbox, edition: Path | None, arguments: list[str],
           limits: Limits, talk: Talk | None = None, watch: Watch | None = None, imports: Sequence[str] | None = None) -> Outcome:
    readonly: list[tuple[str | Path, str | Path]] = [
        *bubblewrap.python_paths(python()), *((Path(__file__).with_name("exam") / name, f"{INNER_FOLDER}/{name}") for name in INNER_FILES)]
    if job.target:
        readonly.append((kinds.PROGRAMS, f"{INNER_FOLDER}/programs"))
    if edition:
        readonly.append((edition, INNER_EDITION))
    env = environment_of(job, bool(edition))
    data = (folder, INNER_DATA) if job.kind == "train" and (folder := data_folder()) else None
    if data:
        env["TINYTORCH_DATA"] = INNER_DATA
    return sandbox.run([python(), "-s", *arguments], files, readonly, limits, env, COLLECTED, talk, watch, imports, data)


def environment_of(job: Job, edition: bool) -> dict[str, str]:
    """All that a program in the sandbox has in its environment; what can change a result is fixed."""
    return {
        "PATH": f"{Path(python()).parent}:/usr/bin:/bin", "HOME": WORK, "LANG": "C.UTF-8", "TZ": "UTC", "USER": "student",
        "PYTHONHASHSEED": str(job.seed), "JOB_SEED": str(job.seed), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1",
        "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_CORETYPE": blas_core(),
        "MPLBACKEND": "Agg", "MPLCONFIGDIR": "/tmp/matplotlib", "NBGRADER_EXECUTION": "autograde",
        **({"PYTHONPATH": INNER_EDITION} if edition else {}), **({"TINYTORCH_WORKSPACE": WORK} if job.target else {}),
    }


def python() -> str:
    """The interpreter for jobs: AUTOGRADER_PYTHON, or the one that runs this."""
    return os.environ.get("AUTOGRADER_PYTHON", sys.executable)


def edition_folder(job: Job) -> Path | None:
    """Where the edition of the framework lies that the job asks for. Raises BadJob when it is not that edition."""
    if job.edition is None:
        return None
    folder = student_edition() if job.edition == kinds.EDITION else find_edition(job.edition)
    if folder is None:
        raise BadJob(f"there is no edition {job.edition} here: build the course (python -m course.build) "
                     "and set TINYTORCH_GRADING_EDITIONS")
    if job.edition_hash is None:
        return folder
    for state in (folder, *sorted((folder.parent / ".old").glob(f"{folder.name}.*"), reverse=True)):    # see course.build.editions
        if hash_folder(state) == job.edition_hash:
            return state
    raise BadJob(f"the edition {job.edition} here is not the one that the job names: was the course built anew?")


def student_edition() -> Path | None:
    """The edition that students have (TINYTORCH_STUDENT_EDITION), None where there is none."""
    folder = Path(os.environ.get("TINYTORCH_STUDENT_EDITION", ""))
    return folder.resolve() if folder.name and folder.is_dir() else None


def data_folder() -> Path | None:
    """The data sets that trainings may read (TINYTORCH_DATA), None where there are none. Raises SandboxUnavailable for a folder that
    holds anything but files and folders: students' programs are shown all of it, and a socket can be spoken to though nobody may write."""
    folder = Path(os.environ.get("TINYTORCH_DATA", ""))
    if not (folder.name and folder.is_dir()):
        return None
    folder = folder.resolve()
    for number, entry in enumerate(_below(str(folder))):
        if number == MOST_DATA_FILES or not (entry.is_file() or entry.is_dir()):
            raise SandboxUnavailable(f"TINYTORCH_DATA is {folder}, which is no folder of data sets: " + (
                f"{entry.path} is neither a file nor a folder" if number < MOST_DATA_FILES else f"it holds more than {number} files"),
                "Name one that holds nothing else")
    return folder


def _below(folder: str) -> Iterator["os.DirEntry[str]"]:
    """All there is in a folder and the folders in it, breadth first; a link leads nowhere."""
    folders = [folder]
    while folders:
        with os.scandir(folders.pop(0)) as entries:
            for entry in entries:
                if not entry.is_symlink():
                    yield entry
                    if entry.is_dir():
                        folders.append(entry.path)


def find_edition(assignment: str) -> Path | None:
    """The folder of an assignment's edition below TINYTORCH_GRADING_EDITIONS, None when it has none."""
    editions = os.environ.get("TINYTORCH_GRADING_EDITIONS", "")
    folder = Path(editions, assignment).resolve()
    return folder if editions and folder.parent == Path(editions).resolve() and folder.is_dir() else None


def hash_folder(folder: Path) -> str:
    """One hash of all files below a folder, their names included; compiled Python does not count."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            whole.update(f"{path.relative_to(folder)}\0{sha256(path.read_bytes())}\n".encode())
    return whole.hexdigest()


def image(sandbox: Sandbox | None = None) -> str:
    """What programs run in: a container image by its content, or this machine's Python."""
    found = (sandbox or choice.sandbox()).image()
    return found[0] if found else environment()


@functools.cache
def environment() -> str:
    """Names Python and the installed packages with their versions by one hash: the image of who has no image."""
    packages: set[str] = set()
    for prefix in {path for path in _library_folders() if os.path.isdir(path)}:
        packages.update(name for name in os.listdir(prefix) if name.endswith(".dist-info"))
    return f"python-{platform.python_version()}-{sha256(chr(10).join(sorted(packages)).encode())[:16]}"


@functools.cache
def packages() -> dict[str, str]:
    """Versions of Python and of the packages that decide about numbers and pictures."""
    found = {path.name.removesuffix(".dist-info") for folder in _library_folders() for path in Path(folder).glob("*.dist-info")}
    versions = {name.lower(): version for name, _, version in (one.rpartition("-") for one in sorted(found))}
    return {"python": platform.python_version(), **{name: versions[name.lower()] for name in PACKAGES if name.lower() in versions}}


@functools.cache
def cpu() -> str:
    """The processor's model, as the kernel names it."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1].strip()
    return platform.processor() or platform.machine()


def _library_folders() -> list[str]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [sysconfig.get_path("purelib"), str(Path(python()).parent.parent / "lib" / version / "site-packages")]


@functools.cache
def blas_core() -> str:
    """The kernel set that OpenBLAS is to use: one for almost all machines, because sums differ between sets."""
    if platform.machine() in ("aarch64", "arm64"):
        return "ARMV8"
    with contextlib.suppress(OSError):
        if re.search(r"\bavx2\b", Path("/proc/cpuinfo").read_text()):
            return "Haswell"
    return "Nehalem"
