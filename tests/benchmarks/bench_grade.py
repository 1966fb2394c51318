"""Grading a class: 24 cells (12 functions, 12 tests with hidden ones), ours beside plain nbgrader on the same submissions.

    python -m tests.benchmarks grade [--students 20 200] [--otter PYTHON] [--docker IMAGE --docker-python PATH]

Every student's score is known beforehand and must come out of each. CPU time is that of the command with all its descendants, by a
control group of its own where we may make one (sandboxes are no children of whoever started them); under Docker the engine's and the
containers' time is outside of it, so only the wall time is given. nbgrader grades at most 20 submissions: its time per
submission does not depend on their number. PYTHON: of an environment that has otter-grader; it runs the same functions and tests
as one notebook each and is never installed into ours.
"""

import argparse
import contextlib
import copy
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from tests.attacks.course import ASSIGNMENT, NAME, Course

WALL, CPU, DOCKER = 0.15, 0.10, 0.45
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


class Counted:
    """CPU seconds of a command with all its descendants: `enter` is called in the child, `seconds` afterwards."""

    def __enter__(self):
        own = Path("/proc/self/cgroup").read_text().rpartition("::/")[2].strip()
        self.group = None
        for base in (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup", own)):
            group = base / f"bench-{os.getpid()}"
            with contextlib.suppress(OSError):
                group.mkdir()
                self.group = group
                if (group / "cpuacct.usage").exists() or (group / "cpu.stat").exists():
                    return self
                group.rmdir()
            self.group = None
        return self                                          # an ordinary user: what was waited for, without the sandboxes

    def __exit__(self, *_):
        if self.group:
            time.sleep(0.5)
            for one in (*self.group.glob("*/"), self.group):
                with contextlib.suppress(OSError):
                    one.rmdir()

    def enter(self):
        if self.group:
            (self.group / "cgroup.procs").write_text("0")

    def seconds(self):
        if self.group and (self.group / "cpuacct.usage").exists():
            return int((self.group / "cpuacct.usage").read_text()) / 1e9
        if self.group:
            return int((self.group / "cpu.stat").read_text().split()[1]) / 1e6
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime


def grade(sandboxed, students, **env):
    """(wall, CPU seconds) per submission of one `nbgrader autograde` of the class."""
    folder = Path(tempfile.mkdtemp(prefix="bench-grade-"))
    try:
        course = Course(folder / "course", sandboxed, notebook())
        expected = fill(course, students)
        with Counted() as counted:
            before, begun = counted.seconds(), time.perf_counter()
            done = course.run("autograde", ASSIGNMENT, "--create", preexec_fn=counted.enter, **env)
            wall, spent = time.perf_counter() - begun, counted.seconds() - before
        assert done.returncode == 0, done.stderr[-2000:]
        got = {student: sum(course.scores(student).values()) for student in expected}
        assert got == expected, f"wrong marks: {got}"
        return wall / students, spent / students
    finally:
        shutil.rmtree(folder, ignore_errors=True)


OTTER = """
import json, pathlib, sys
import nbformat
from otter.api import grade_submission
folder, scores = pathlib.Path(sys.argv[1]), {}
for path in sorted(folder.glob("*.ipynb")):
    results = grade_submission(str(path), str(folder / "autograder.zip"), quiet=True)
    scores[path.stem] = sum(one.score for one in results.results.values())
print(json.dumps(scores))
"""
OTTER_TEST = """OK_FORMAT = False
from otter.test_files import test_case
import numpy as np
name, points = {name!r}, 1

@test_case(points=1, hidden=True)
def test_{name}({name}):
{body}
"""


def otter(python, students):
    """(wall, CPU seconds) per submission of otter-grader on the same functions and tests."""
    folder = Path(tempfile.mkdtemp(prefix="bench-otter-"))
    try:
        course = Course(folder / "course", False, notebook())
        expected = fill(course, students)
        (folder / "in").mkdir()
        for student in expected:
            work = json.loads((course.folder(student) / f"{NAME}.ipynb").read_text())
            kept = [cell for cell in work["cells"] if not cell["metadata"].get("nbgrader", {}).get("grade")]
            start = new_code_cell("import otter\ngrader = otter.Notebook()", metadata={})
            checks = [new_code_cell(f"grader.check({name!r})", metadata={}) for name in FUNCTIONS]
            nbformat.write(new_notebook(cells=[start, *map(nbformat.from_dict, kept), *checks], metadata=work["metadata"]),
                           folder / "in" / f"{student}.ipynb")
        with zipfile.ZipFile(folder / "in" / "autograder.zip", "w") as archive:
            for cell in notebook().cells:
                name = cell.metadata["nbgrader"]["grade_id"].removeprefix("test-")
                if cell.metadata["nbgrader"]["grade"]:
                    body = "\n".join(f"    {line}" for line in cell.source.split("\n") if "###" not in line)
                    archive.writestr(f"tests/{name}.py", OTTER_TEST.format(name=name, body=body))
            archive.writestr("otter_config.json", "{}")
        with Counted() as counted:
            before, begun = counted.seconds(), time.perf_counter()
            done = subprocess.run([python, "-c", OTTER, str(folder / "in")], capture_output=True, text=True, cwd=folder,
                                  preexec_fn=counted.enter,
                                  env={**os.environ, "PATH": f"{Path(python).parent}:{os.environ['PATH']}"}, timeout=900)
            wall, spent = time.perf_counter() - begun, counted.seconds() - before
        assert done.returncode == 0, done.stderr[-2000:]
        got = json.loads(done.stdout.splitlines()[-1])
        assert got == expected, f"wrong marks: {got}"
        return wall / students, spent / students
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main(arguments=()) -> dict:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks grade")
    parser.add_argument("--students", type=int, nargs="+", default=[20])
    parser.add_argument("--otter", metavar="PYTHON")
    parser.add_argument("--docker", metavar="IMAGE")
    parser.add_argument("--docker-python", default="python3")
    options = parser.parse_args(arguments)
    plain = grade(False, min(20, options.students[0]))
    figures = {"nbgrader, wall s per submission": round(plain[0], 3), "nbgrader, CPU s per submission": round(plain[1], 3)}
    met = True
    for students in options.students:
        wall, cpu = grade(True, students)
        figures |= {f"ours, {students} submissions, wall s each": round(wall, 3),
                    f"ours, {students} submissions, CPU s each": round(cpu, 3),
                    f"ours, {students} submissions, s in all": round(wall * students, 1),
                    f"CPU beside nbgrader's, {students}": round(cpu / plain[1], 3)}
        met &= wall <= WALL and cpu <= CPU
        if options.docker:
            wall, _ = grade(True, students, AUTOGRADER_SANDBOX="docker", AUTOGRADER_SANDBOX_IMAGE=options.docker,
                            AUTOGRADER_SANDBOX_PYTHON=options.docker_python)
            figures |= {f"docker, {students} submissions, wall s each": round(wall, 3)}
            met &= wall <= DOCKER
    if options.otter:
        wall, cpu = otter(options.otter, min(6, options.students[0]))
        figures |= {"otter-grader, wall s per submission": round(wall, 3), "otter-grader, CPU s per submission": round(cpu, 3)}
    return {**figures, "targets, s (wall, CPU, docker)": [WALL, CPU, DOCKER], "met": met}


if __name__ == "__main__":
    print(main(sys.argv[1:]))
