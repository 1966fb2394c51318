"""Grading a class: 24 cells (12 functions, 12 tests with hidden ones), ours beside plain nbgrader on the same submissions.

GRADE_STUDENTS sets how many submissions (20). Every student's score is known beforehand and must come out of both.
"""

import copy
import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

from nbformat.v4 import new_code_cell, new_notebook

from tests.attacks.course import ASSIGNMENT, Course

WALL, CPU = 0.15, 0.10
FUNCTIONS = {
    "relu": ("x", "np.maximum(x, 0)"), "scale": ("x", "x / np.abs(x).max()"), "centre": ("x", "x - x.mean(axis=0)"),
    "norm": ("x", "np.sqrt((x * x).sum())"), "shares": ("x", "np.exp(x) / np.exp(x).sum()"), "last": ("x", "x[-1]"),
    "outer": ("x", "x[:, :1] * x[:1]"), "rows": ("x", "x.sum(axis=1)"), "flip": ("x", "x[::-1]"), "clip": ("x", "np.clip(x, -1, 1)"),
    "square": ("x", "x * x"), "spread": ("x", "x.max() - x.min()")}


def notebook():
    def marked(source, **marks):
        return new_code_cell(source, metadata={"nbgrader": {
            "schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False, **marks}})
    cells = [marked("import numpy as np", grade_id="imports", locked=True)]
    for name, (argument, value) in FUNCTIONS.items():
        cells.append(marked(f"def {name}({argument}):\n    ### BEGIN SOLUTION\n    return {value}\n    ### END SOLUTION",
                            grade_id=name, solution=True))
        test = f"""x = np.random.default_rng(3).normal(size=(4, 5))
assert np.allclose({name}(x), {value}), 'the example'
### BEGIN HIDDEN TESTS
for seed in range(3):
    x = np.random.default_rng(seed).normal(size=(seed + 2, 3))
    assert np.allclose({name}(x), {value}), 'another one'
### END HIDDEN TESTS"""
        cells.append(marked(test, grade_id=f"test-{name}", grade=True, locked=True, points=1))
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})


def fill(course, students):
    """Hand in one notebook per student, with 0 to 6 wrong functions; returns the score that each should get."""
    expected = {}
    for number in range(students):
        work, wrong = copy.deepcopy(course.released), number % 7
        for at, (name, (argument, value)) in enumerate(FUNCTIONS.items()):
            course.cell(work, name)["source"] = f"def {name}({argument}):\n    return {value}{' + 1' if at < wrong else ''}"
        course.submit(f"student{number:03}", work)
        expected[f"student{number:03}"] = len(FUNCTIONS) - wrong
    return expected


def grade(sandboxed, students):
    folder = Path(tempfile.mkdtemp(prefix="bench-grade-"))
    try:
        course = Course(folder / "course", sandboxed, notebook())
        expected = fill(course, students)
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = course.run("autograde", ASSIGNMENT, "--create")
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr[-2000:]
        got = {student: sum(course.scores(student).values()) for student in expected}
        assert got == expected, f"wrong marks: {got}"
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return wall / students, cpu / students
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> dict:
    students = int(os.environ.get("GRADE_STUDENTS", "20"))
    plain, ours = grade(False, students), grade(True, students)
    figures = {"submissions": students}
    for what, at in (("wall", 0), ("CPU", 1)):
        figures |= {f"{what} per submission, nbgrader, s": round(plain[at], 3), f"{what} per submission, ours, s": round(ours[at], 3),
                    f"{what} ratio": round(ours[at] / plain[at], 3)}
    return {**figures, "targets, s": [WALL, CPU], "met": ours[0] <= WALL and ours[1] <= CPU}


if __name__ == "__main__":
    print(main())
