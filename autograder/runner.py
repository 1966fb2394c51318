"""Carries out one job on this machine: prepares what the sandbox may see, runs it there, writes down what came of it."""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from autograder import grading
from autograder.examination import Examination
from autograder.jobs import Job, Limits, Result, Usage, Verdict, sha256
from autograder.sandbox import bubblewrap
from autograder.sandbox.base import WORK, Outcome, Sandbox, Talk
from autograder.sandbox.process import Process

NOTEBOOK, MAIN, EXTRA = "notebook.json", "main.py", "files/"
INNER_FOLDER, INNER_FILES, INNER_EDITION = "/opt/autograder", ("run_notebook.py", "crossing.py"), "/opt/edition"
INNER_RUNNER = f"{INNER_FOLDER}/{INNER_FILES[0]}"
COLLECTED = ("result.json", "picture.png")        # what a job other than `grade` may leave behind


class BadJob(ValueError):
    """The job cannot be carried out as asked. The message says why."""


def run(job: Job, files: Mapping[str, bytes], sandbox: Sandbox | None = None) -> Result:
    """Carry out a job. Raises BadJob when files or edition are not those of the job, SandboxUnavailable without isolation."""
    sandbox = sandbox or Process()
    if {path: sha256(content) for path, content in files.items()} != job.inputs:
        raise BadJob("the files are not those of the job: their names and hashes differ")
    edition = edition_folder(job)
    sandbox.check()
    if job.kind == "grade":
        verdict, sentence, usage, outputs = _grade(job, files, sandbox, edition)
    else:
        outcome = _start(job, files, sandbox, edition, ["main.py"], job.limits)
        verdict, sentence, usage = outcome.verdict, outcome.sentence, outcome.usage
        outputs = {"stdout": outcome.stdout, "stderr": outcome.stderr, **outcome.files}
    return Result(job=job.id, verdict=verdict, sentence=sentence, usage=usage, inputs=job.inputs, outputs=outputs,
                  output_hashes={name: sha256(content) for name, content in outputs.items()}, sandbox=sandbox.name,
                  image=job.image or environment(), threads=1, blas_core=blas_core(), seed=job.seed)


def _grade(job: Job, files: Mapping[str, bytes], sandbox: Sandbox, edition: Path | None,
           ) -> tuple[Verdict, str, Usage, dict[str, bytes]]:
    try:
        notebook = grading.Notebook.model_validate_json(files[NOTEBOOK])
    except (KeyError, ValueError) as error:
        raise BadJob(f"a job of kind grade needs {NOTEBOOK}: its cells and a seed") from error
    extra = {path.removeprefix(EXTRA): content for path, content in files.items() if path.startswith(EXTRA)}

    def start(talk: Talk, limits: Limits) -> Outcome:
        return _start(job, extra, sandbox, edition, [INNER_RUNNER], limits, talk)

    def examine(asked: grading.Notebook) -> Examination:
        cells = [{"id": cell.id, "name": cell.name, "kind": cell.kind, "where": cell.where, "keeps": cell.keeps,
                  "source": cell.source if cell.instructors is None else cell.instructors} for cell in asked.cells]
        return Examination(cells, asked.seed, [str(edition)] if edition else [], python(), environment_of(job, False))

    verdict, sentence, usage, outputs = grading.run(notebook, job.limits, start, examine)
    return verdict, sentence, usage, {"cells.json": json.dumps(outputs).encode()} if verdict is not Verdict.infra else {}


def _start(job: Job, files: Mapping[str, bytes], sandbox: Sandbox, edition: Path | None, arguments: list[str],
           limits: Limits, talk: Talk | None = None) -> Outcome:
    readonly: list[tuple[str | Path, str | Path]] = [
        *bubblewrap.python_paths(python()), *((Path(__file__).with_name(name), f"{INNER_FOLDER}/{name}") for name in INNER_FILES)]
    if edition:
        readonly.append((edition, INNER_EDITION))
    return sandbox.run([python(), "-s", *arguments], files, readonly, limits, environment_of(job, bool(edition)),
                       COLLECTED, talk)


def environment_of(job: Job, edition: bool) -> dict[str, str]:
    """All that a program in the sandbox has in its environment; what can change a result is fixed."""
    return {
        "PATH": f"{Path(python()).parent}:/usr/bin:/bin", "HOME": WORK, "LANG": "C.UTF-8", "TZ": "UTC", "USER": "student",
        "PYTHONHASHSEED": str(job.seed), "JOB_SEED": str(job.seed), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1",
        "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_CORETYPE": blas_core(),
        "MPLBACKEND": "Agg", "MPLCONFIGDIR": "/tmp/matplotlib", "NBGRADER_EXECUTION": "autograde",
        **({"PYTHONPATH": INNER_EDITION} if edition else {}),
    }


def python() -> str:
    """The interpreter for jobs: AUTOGRADER_PYTHON, or the one that runs this."""
    return os.environ.get("AUTOGRADER_PYTHON", sys.executable)


def edition_folder(job: Job) -> Path | None:
    """Where the edition of the framework lies that the job asks for. Raises BadJob when it is not that edition."""
    if job.edition is None:
        return None
    folder = find_edition(job.edition)
    if folder is None:
        raise BadJob(f"there is no edition {job.edition} here: build the course (python -m course.build) "
                     "and set TINYTORCH_GRADING_EDITIONS")
    if job.edition_hash and hash_folder(folder) != job.edition_hash:
        raise BadJob(f"the edition {job.edition} here is not the one that the job names: was the course built anew?")
    return folder


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


@functools.cache
def environment() -> str:
    """Names Python and the installed packages with their versions by one hash: the image of who has no image."""
    packages: set[str] = set()
    for prefix in {path for path in _library_folders() if os.path.isdir(path)}:
        packages.update(name for name in os.listdir(prefix) if name.endswith(".dist-info"))
    return f"python-{platform.python_version()}-{sha256(chr(10).join(sorted(packages)).encode())[:16]}"


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
