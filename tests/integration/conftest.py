"""The whole loop, done once per session in two classes at the same time: several files look at what it left."""

import threading
import time
from dataclasses import dataclass

import pytest

from hub import paths
from tests.running import Person, Site, solve

ASSIGNMENT, NOTEBOOK = "02_tensor", "tensor"
SOURCE = paths.BUILD / "source" / ASSIGNMENT / f"{NOTEBOOK}.ipynb"
CLASSES = ("ml101", "ml201")


@dataclass
class Loop:
    """Who did it: somebody signed in per class, and per class and name."""

    site: Site
    teachers: dict[str, Person]
    students: dict[str, dict[str, Person]]


def both(work):
    """Run work(class) for the two classes at the same time; an error in either is an error of the test."""
    errors, results = [], {}

    def run(class_):
        try:
            results[class_] = work(class_)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(c,)) for c in CLASSES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def succeeded(answer):
    """The outcome of a step in the formgrader, which must have been a success."""
    assert answer.ok, answer.text[:2000]
    outcome = answer.json()
    assert outcome.get("success", True), outcome
    return outcome


@pytest.fixture(scope="session")
def loop(site):
    """Release, fetch, submit, collect, grade, feedback, as the pages do it."""
    teachers = {c: site.person("grace") for c in CLASSES}
    students = {"ml101": {n: site.person(n) for n in ("alice", "bob")}, "ml201": {n: site.person(n) for n in ("alice", "carol")}}

    def release(class_):
        succeeded(teachers[class_].formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/assign"))
        succeeded(teachers[class_].formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/release"))

    def work(class_):
        for name, student in students[class_].items():
            student.start(class_)
            listed = student.assignments(class_)
            assert listed["success"], listed
            assert ASSIGNMENT in [a["assignment_id"] for a in listed["value"] if a["status"] != "submitted"]
            assert student.act(class_, "fetch", ASSIGNMENT)["success"]
            # alice solves everything in ml101 and nothing in ml201; the others only what is called matmul
            if name != "alice":
                solve(student.notebook(class_, ASSIGNMENT), SOURCE, lambda grade_id: "matmul" in grade_id)
            elif class_ == "ml101":
                solve(student.notebook(class_, ASSIGNMENT), SOURCE)
            submitted = student.act(class_, "submit", ASSIGNMENT)
            assert submitted["success"], submitted

    def grade(class_):
        teacher = teachers[class_]
        succeeded(teacher.formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/collect"))
        if class_ == "ml101":                                # one class student by student, the other all at once
            for name in students[class_]:
                succeeded(teacher.formgrader(class_, "POST", f"submission/{ASSIGNMENT}/{name}/autograde"))
        else:
            state = succeeded(teacher.formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/autograde_all"))
            deadline = time.monotonic() + 200
            while state["running"] and time.monotonic() < deadline:
                time.sleep(0.3)
                state = succeeded(teacher.formgrader(class_, "GET", f"assignment/{ASSIGNMENT}/autograde_all"))
            assert state["line"].startswith("2 submissions run in "), state
            assert state["problems"] == []
        succeeded(teacher.formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/generate_feedback"))
        succeeded(teacher.formgrader(class_, "POST", f"assignment/{ASSIGNMENT}/release_feedback"))

    def read(class_):
        for student in students[class_].values():
            assert student.act(class_, "fetch_feedback", ASSIGNMENT)["success"]

    for step in (release, work, grade, read):
        both(step)
    return Loop(site, teachers, students)
