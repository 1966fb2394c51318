"""The oracle is nbgrader itself: the same honest class, graded by it and by us, has the same marks and the same files.

And a kill at any moment loses nothing: what the next run finds is graded whole or not at all.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.attacks.course import ASSIGNMENT, NAME, Course

pytestmark = pytest.mark.timeout(900)
ANSWERS = {
    "right": {}, "half": {"mul": "def mul(a, b):\n    return a + b"}, "neither": {"add": "pass", "mul": "pass"},
    "hidden": {"add": "def add(a, b):\n    return 3"}, "raises": {"add": "def add(a, b):\n    raise ValueError('no')"},
    "syntax": {"mul": "def mul(a, b:\n    return"}, "prints": {"add": "print('hello')\ndef add(a, b):\n    print(a)\n    return a + b"},
}


def late(course, folder):
    """A submission half an hour after the due date, which every gradebook has to notice: it costs all points."""
    (folder / "timestamp.txt").write_text("2026-01-02 00:30:00 UTC")
    with gradebook(course) as book:
        book.update_or_create_assignment(ASSIGNMENT, duedate="2026-01-02 00:00:00 UTC")
    with open(course.root / "nbgrader_config.py", "a") as file:
        file.write("c.LateSubmissionPlugin.penalty_method = 'zero'\n")


def gradebook(course):
    from nbgrader.api import Gradebook
    return Gradebook(f"sqlite:///{course.root / 'gradebook.db'}", "demo")


@pytest.fixture(scope="module")
def courses(sandbox, tmp_path_factory):
    """(graded by nbgrader, graded by us): one class, two copies."""
    both = []
    for name, sandboxed in (("plain", False), ("ours", True)):
        course = Course(tmp_path_factory.mktemp(name), sandboxed)
        for student, solutions in ANSWERS.items():
            course.submit(student, course.solved(**solutions))
        written = course.solved()
        course.cell(written, "why")["source"] = "Because of the carry."
        course.submit("writer", written)
        (course.folder("writer") / "data.csv").write_text("1,2")
        late(course, course.folder("half"))
        done = course.run("autograde", ASSIGNMENT, "--create")
        assert done.returncode == 0, done.stderr[-3000:]
        both.append(course)
    return both


def rows(course):
    """What the gradebook says of every submission, without its random ids."""
    found = {}
    with gradebook(course) as book_of_class:
        for submission in book_of_class.find_assignment(ASSIGNMENT).submissions:
            (book,) = submission.notebooks
            found[submission.student.id] = {
                "score": submission.score, "needs manual grade": submission.needs_manual_grade, "timestamp": str(submission.timestamp),
                "late": book.late_submission_penalty, "grades": {grade.name: (
                    grade.auto_score, grade.manual_score, grade.needs_manual_grade, grade.max_score) for grade in book.grades},
                "comments": {comment.name: (comment.auto_comment, comment.manual_comment) for comment in book.comments}}
    return found


def test_the_gradebook_says_the_same(courses):
    plain, ours = map(rows, courses)
    assert plain.keys() == {*ANSWERS, "writer"}
    assert plain["half"]["late"] == plain["half"]["score"] > 0
    assert ours == plain


def told(notebook):
    """Its cells, without a word that only a released copy has: the type a cell once had, which nbgrader restores from it."""
    return [(cell["cell_type"], cell["source"], {name: value for name, value in cell["metadata"].get("nbgrader", {}).items()
                                                 if name != "cell_type"}) for cell in notebook["cells"]]


def test_the_graded_copies_are_where_nbgrader_puts_them_and_as_it_writes_them(courses):
    plain, ours = (sorted(path.relative_to(course.root / "autograded") for path in (course.root / "autograded").rglob("*"))
                   for course in courses)
    assert ours == plain
    for student in (*ANSWERS, "writer"):
        one, other = (course.folder(student, "autograded") / f"{NAME}.ipynb" for course in courses)
        assert oct(one.stat().st_mode) == oct(other.stat().st_mode)
        read, mine = json.loads(one.read_text()), json.loads(other.read_text())
        assert other.read_text() == json.dumps(mine, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        assert told(mine) == told(read)


def test_a_second_run_grades_nothing_anew(courses):
    _, ours = courses
    before = {path: path.stat().st_mtime_ns for path in (ours.root / "autograded").rglob("*")}
    assert ours.run("autograde", ASSIGNMENT).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (ours.root / "autograded").rglob("*")} == before


def test_a_second_submission_keeps_what_people_wrote_and_says_the_same(courses):
    for course in courses:
        with gradebook(course) as book:
            book.find_grade("why", NAME, ASSIGNMENT, "writer").manual_score = 3
            book.find_grade("test-add", NAME, ASSIGNMENT, "writer").manual_score = 1.5
            book.find_comment("why", NAME, ASSIGNMENT, "writer").manual_comment = "Well said."
            book.db.commit()
        worse = course.solved(mul="def mul(a, b):\n    return 0")
        course.cell(worse, "why")["source"] = course.cell(course.released, "why")["source"]
        course.submit("writer", worse)
        done = course.run("autograde", ASSIGNMENT, "--student", "writer", "--force")
        assert done.returncode == 0, done.stderr[-3000:]
    plain, ours = (rows(course)["writer"] for course in courses)
    assert plain["grades"]["why"][1] == 3
    assert plain["grades"]["test-mul"][0] == 0
    assert plain["comments"]["why"] == ("No response.", "Well said.")
    assert ours == plain


KILLS = int(os.environ.get("KILLS", "4"))                    # KILLS=100 takes some six minutes


def test_a_kill_at_any_moment_loses_no_submission_and_grades_none_twice(courses, tmp_path):
    """`kill -9` of the whole grading, at random moments, until it has got through; then the class is as if nothing had happened."""
    _, graded = courses
    draw, killed, students = random.Random(int(os.environ.get("KILL_SEED", "1"))), 0, [f"s{n:02}" for n in range(12)]
    course = Course(tmp_path / "course")
    for at, student in enumerate(students):
        course.submit(student, course.solved(**list(ANSWERS.values())[at % len(ANSWERS)]))
    times_written: dict = {}
    while killed < KILLS:
        run = subprocess.Popen([sys.executable, "-m", "nbgrader", "autograde", ASSIGNMENT], cwd=course.root, start_new_session=True,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + draw.uniform(1.0, 6.0)
        while run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        killed += 1
        for student in students:
            copy_ = course.folder(student, "autograded") / f"{NAME}.ipynb"
            if copy_.exists():
                assert json.loads(copy_.read_text())["metadata"]["autograder"]["verdict"] == "ok"      # whole, or not there
                times_written.setdefault(student, copy_.stat().st_mtime_ns)
                assert copy_.stat().st_mtime_ns == times_written[student]                              # and never again
        if len(times_written) == len(students):
            for path in (course.root / "autograded").iterdir():
                subprocess.run(["rm", "-rf", path], check=True)
            times_written.clear()
    assert course.run("autograde", ASSIGNMENT).returncode == 0
    expected, got = rows(graded), rows(course)
    for at, student in enumerate(students):
        assert got[student]["grades"] == expected[list(ANSWERS)[at % len(ANSWERS)]]["grades"]
    assert not list(course.root.glob("autograded/*/.*.fresh"))
    assert got.keys() == set(students)
