"""The steps of an assignment's life in a class: each checks that what it did really is there."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from course.curriculum import Module
from course.tito import graded
from course.tito.classroom import Classroom, must, why_failed
from course.tito.failure import Failed
from course.tito.workspace import built


def put_source(room: Classroom, module: Module, refresh: bool) -> str:
    """Bring the built notebook with solutions into the course's `source/`. Returns what was done."""
    source, target = built("source", module), room.root / "source" / module.slug
    if not (source / module.notebook).is_file():
        if target.is_dir():
            return "the course's own (the built one is not here to compare)"
        raise Failed(f"the instructor's notebook of {module.slug} has not been built ({source / module.notebook} is missing): "
                     f"in the checkout, run `python -m course.build`")
    if target.is_dir() and _same(source, target):
        return "is there"
    if target.is_dir() and not refresh:
        return "differs from the built one and stays (--refresh replaces it)"
    added = "replaced by the built one" if target.is_dir() else "added"
    _exchange(source, target)
    return added


def _same(one: Path, other: Path) -> bool:
    files = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    return all((other / name).is_file() and (other / name).read_bytes() == (one / name).read_bytes() for name in files)


def _exchange(source: Path, target: Path) -> None:
    """Put a copy of a folder in place of another, which goes away last."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fresh-") as name:
        fresh = Path(name) / "new"
        shutil.copytree(source, fresh, copy_function=shutil.copyfile)
        if target.exists():
            os.rename(target, Path(name) / "old")
        os.rename(fresh, target)


def generate(room: Classroom, module: Module) -> str:
    """Make the students' version and its entry in the gradebook. Returns what it is worth."""
    must(room.api.generate_assignment(module.slug, force=True, create=True), f"generate {module.slug}")
    notebook = room.root / "release" / module.slug / module.notebook
    if not notebook.is_file():
        raise Failed(f"generate {module.slug} failed: nbgrader said yes, but {notebook} is not there")
    assignment = room.api.get_assignment(module.slug)
    return f"release/{module.slug}, {assignment['max_score']:g} points"


def release(room: Classroom, module: Module, replace: bool) -> str:
    """Give the students' version to the exchange, and look whether it has arrived."""
    room.need_exchange()
    if not (room.root / "release" / module.slug).is_dir():
        raise Failed(f"release/{module.slug} is not there: tito nbgrader generate {module.number}")
    released = room.api.get_released_assignments()
    if module.slug in released and not replace:
        raise Failed(f"{module.slug} is released already. `--replace` puts the new files in their place")
    if module.slug in released:
        _release_over(room, module)
    else:
        must(room.api.release_assignment(module.slug), f"release {module.slug}")
    if module.slug not in room.api.get_released_assignments():
        raise Failed(f"release {module.slug} failed: the exchange took it, but does not list it")
    return f"students of {room.course} can fetch it"


def _release_over(room: Classroom, module: Module) -> None:
    """A second release, only where the exchange keeps what was submitted."""
    from nbgrader.utils import capture_log, temp_attrs
    api = room.api
    with temp_attrs(api.coursedir, assignment_id=module.slug):
        app = api.exchange.ReleaseAssignment(coursedir=api.coursedir, authenticator=api.authenticator, parent=api)
        if not hasattr(app, "replace") and not type(app).__module__.startswith("nbgrader.exchange.default"):
            raise Failed("this exchange deletes all submissions when an assignment is released again: not done")
        app.force = True
        must(capture_log(app), f"release {module.slug}")


def collect(room: Classroom, module: Module) -> list[dict]:
    """Fetch the newest submission of each student. Returns student, time and whether it is new."""
    room.need_exchange()
    if module.slug not in room.api.get_released_assignments():
        raise Failed(f"{module.slug} is not released, so nobody can have submitted it: tito nbgrader release {module.number}")
    before = _collected(room, module)
    must(room.api.collect(module.slug, update=True), f"collect {module.slug}")
    after = _collected(room, module)
    return [{"student": student, "submitted": str(when) if when else None,
             "state": "new" if student not in before else "no change" if before[student] == when else "newer"}
            for student, when in sorted(after.items())]


def _collected(room: Classroom, module: Module) -> dict:
    return {student: room.api.get_submitted_timestamp(module.slug, student) for student in room.api.get_submitted_students(module.slug)}


def to_grade(room: Classroom, module: Module, student: str | None, again: bool) -> list[str]:
    """Whose submissions autograding will run: all that are not graded yet, or a named student's."""
    submitted = room.api.get_submitted_students(module.slug)
    if student and student not in submitted:
        raise Failed(f"there is no collected submission of {module.slug} by {student}: tito nbgrader collect {module.number}")
    if not submitted:
        raise Failed(f"no submission of {module.slug} has been collected: tito nbgrader collect {module.number}")
    done = set() if again else room.api.get_autograded_students(module.slug)
    return [student] if student else sorted(submitted - done)


def in_sandbox(room: Classroom) -> bool:
    """Whether this course grades with our autograder, which takes a whole class at once; plain nbgrader takes one after the other."""
    return str(room.api.config.get("Autograde", {}).get("exporter_class", "")).startswith("autograder.")


def autograde(room: Classroom, module: Module, student: str, again: bool = True, reason: str = "") -> dict[str, str]:
    """Grade one submission, or with `*` all of the class. Returns why one could not be graded, by student; empty when all were."""
    os.environ[graded.REASON] = reason
    try:
        done = room.api.autograde(module.slug, student, force=again, create=True)
    finally:
        del os.environ[graded.REASON]
    if student != "*":
        return {student: why} if (why := why_failed(done)) else {}
    said = done.get("log", "")
    found = dict(re.findall(rf"(?m)\] (\S+), {re.escape(module.slug)} was not graded[:,] (.*)$", said))
    others = re.findall(r"There was an error processing assignment '[^']*' for student '([^']*)'", said)
    if not done.get("success") and not found and not others:
        raise Failed(f"nothing was graded: {why_failed(done)}")
    return {**{name: why_failed(done) for name in others}, **found}


def grades(room: Classroom, module: Module, failed: dict[str, str]) -> list[dict]:
    """A row per collected submission. `run`: how its run in the sandbox ended; `look`: the graded copy, for who wants to see."""
    rows, runs = [], {entry["student"]: entry for entry in graded.entries(room.root, module.slug)}
    for entry in room.api.get_submissions(module.slug):
        name = entry["student"]
        state = "failed" if name in failed else "not graded" if not entry["autograded"] else \
            "by hand" if entry["needs_manual_grade"] else "graded"
        known = entry["autograded"] and name not in failed
        run = runs.get(name) if known else None
        rows.append({"student": name, "points": entry["score"] if known else None, "of": entry["max_score"] if known else None,
                     "state": state, "submitted": entry["timestamp"], "run": graded.outcome(run) if run else "",
                     "reason": failed.get(name, "") or (graded.explanation(run) if run else ""),
                     "look": f"autograded/{name}/{module.slug}" if known else f"submitted/{name}/{module.slug}",
                     "regraded": run["reason"] if run else ""})
    return rows


def feedback(room: Classroom, module: Module) -> list[str]:
    """Make the feedback of every graded submission and give it to the students. Returns who gets some."""
    room.need_exchange()
    students = sorted(room.api.get_autograded_students(module.slug))
    if not students:
        raise Failed(f"no submission of {module.slug} is graded: tito nbgrader autograde {module.number}")
    must(room.api.generate_feedback(module.slug), f"feedback of {module.slug}")
    must(room.api.release_feedback(module.slug), f"feedback of {module.slug}")
    return students


def overview(room: Classroom) -> list[dict]:
    """A row per assignment of the course."""
    released = room.api.get_released_assignments() if not room.trouble else None
    rows = []
    for entry in room.api.get_assignments():
        name = entry["name"]
        submissions = room.api.get_submissions(name)
        done = [s for s in submissions if s["autograded"]]
        state = "unknown" if released is None else "released" if name in released else \
            "generated" if entry["release_path"] else "source only"
        rows.append({"assignment": name, "state": state, "due": entry["display_duedate"], "points": entry["max_score"],
                     "collected": len(submissions), "graded": len(done),
                     "by_hand": sum(bool(s["needs_manual_grade"]) for s in done),
                     "mean": round(sum(s["score"] for s in done) / len(done), 2) if done else None})
    return rows
