"""Where each test cell runs, decided by trying: outside of the sandbox if the instructor's own solutions pass there.

A test that passes outside for two different seeds runs outside with random inputs of each student's own. One that passes there
only with the seeds it names keeps those ("fixed"). Either may need that the arrays it gives away come back changed ("changing"); for
all others a changed input is a failure. What remains (a test that measures memory, or defines a subclass of the student's class)
runs inside, beside the student's code, and is marked so.
"""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autograder.jobs import Result, Verdict, sha256
from autograder.marks import notebook as submissions
from autograder.sandbox.base import SandboxUnavailable

FOLDER, KEY = ".autograder", "key"
PLACES: dict[str, list[int | None]] = {                 # in the order in which they are tried, with the seeds
    "outside": [1, 2], "outside, changing": [1, 2], "fixed": [None], "fixed, changing": [None]}
Cells = list[dict[str, Any]]


def cells(rebuilt: list[Any], instructors: Mapping[str, Any], places: Mapping[str, str]) -> Cells:
    """The code cells of a rebuilt notebook as grading.py takes them: what each is, whose names it defines, where it runs."""
    originals = {submissions.grade_id(cell): submissions.source(cell) for cell in instructors["cells"] if submissions.grade_id(cell)}
    listed: Cells = []
    for cell in rebuilt:
        if cell["cell_type"] != "code":
            continue
        name, source = submissions.grade_id(cell), submissions.source(cell)
        kind = "test" if submissions.is_test(cell) else \
            "student" if submissions.is_solution(cell) or source.lstrip().startswith("#| export") else "given"
        listed.append({"id": str(len(listed)), "name": name, "source": source, "kind": kind, "instructors": originals.get(name, source),
                       **as_fields(places.get(name, "inside") if kind == "test" else "inside")})
    return listed


def as_fields(place: str) -> dict[str, Any]:
    where, _, changing = place.partition(", ")
    return {"where": where, "keeps": not changing}


def of_tests(instructors: Mapping[str, Any], submit: Callable[[Cells, int | None], Result], course: Path, edition: str | None,
             ) -> dict[str, str]:
    """grade_id -> one of PLACES or "inside", for the tests of an assignment. Found out once and kept in the course's folder."""
    known = json.dumps([[submissions.grade_id(c), c["cell_type"], submissions.source(c)] for c in instructors["cells"]])
    file = course / FOLDER / f"tests-{sha256(f'{known} {edition} {_own_version()}'.encode())[:32]}.json"
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        pass
    places: dict[str, str] = {}
    tests = {submissions.grade_id(cell) for cell in instructors["cells"] if cell["cell_type"] == "code" and submissions.is_test(cell)}
    for place, seeds in PLACES.items():
        if places.keys() == tests:
            break
        listed = cells(instructors["cells"], instructors, dict.fromkeys(tests, place))
        passed = [passing(listed, submit(listed, seed)) for seed in seeds]
        places = {**dict.fromkeys(set.intersection(*passed), place), **places}
    places = {**dict.fromkeys(tests, "inside"), **places}
    write(file, json.dumps(places, indent=1).encode())
    return places


def passing(listed: Cells, result: Result) -> set[str]:
    """Names of the tests that passed. Raises SandboxUnavailable when they could not be run: that says nothing of where they can."""
    if result.verdict is Verdict.infra:
        raise SandboxUnavailable(f"the instructor's own solutions could not be run: {result.sentence}", "Grade again")
    outputs = json.loads(result.outputs.get("cells.json", b"{}"))
    return {cell["name"] for cell in listed if cell["kind"] == "test" and cell["id"] in outputs
            and not any(output["output_type"] == "error" for output in outputs[cell["id"]])}


def _own_version() -> str:
    """Changes with the code that decides what can cross."""
    here = Path(__file__).parent.parent / "exam"
    return sha256(b"".join((here / name).read_bytes() for name in ("crossing.py", "examiner.py", "run_notebook.py")))


def seed(course: Path, assignment: str, student: str) -> int:
    """What the random inputs of one student's tests start from: made from a key of the class that no student sees."""
    file = course / FOLDER / KEY
    try:
        key = file.read_bytes()
    except FileNotFoundError:
        write(file, secrets.token_hex(32).encode(), replace=False)
        key = file.read_bytes()
    return int.from_bytes(hmac.digest(key, f"{assignment}\0{student}".encode(), hashlib.sha256)[:4], "big")


def write(file: Path, content: bytes, replace: bool = True) -> None:
    """For the owner's eyes only, all at once; with `replace=False` what is there already stays."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    try:
        os.replace(fresh, file) if replace else os.link(fresh, file)
    except FileExistsError:
        pass
    finally:
        fresh.unlink(missing_ok=True)
