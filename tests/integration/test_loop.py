"""The whole loop in two classes at once, over HTTP as the pages do it: release, fetch, submit, collect, grade, feedback."""

import base64
import json
import sqlite3
import threading

import pytest
import requests

from tests.integration.conftest import ASSIGNMENT, NOTEBOOK, SOURCE, succeeded

pytestmark = pytest.mark.site


@pytest.fixture(autouse=True)
def servers(loop):
    """Other files' tests stop servers: those of this loop's students run in each of its tests."""
    for class_, students in loop.students.items():
        for student in students.values():
            student.start(class_)


def scores(loop, class_):
    """Name -> automatic score, and the most that can be had, as the formgrader shows them."""
    rows = loop.teachers[class_].formgrader(class_, "GET", f"submissions/{ASSIGNMENT}").json()
    return {row["student"]: (row["code_score"], row["max_code_score"]) for row in rows if row["autograded"]}


def test_marks_are_each_students_own_in_each_class(loop):
    first, second = scores(loop, "ml101"), scores(loop, "ml201")
    assert set(first) == {"alice", "bob"}
    assert set(second) == {"alice", "carol"}
    best = first["alice"][1]
    assert best > 0
    assert first["alice"] == (best, best)
    assert second["alice"] == (0, best)
    assert 0 < first["bob"][0] < best
    assert second["carol"] == first["bob"]


def test_feedback_arrives_opens_and_hides_the_tests(loop):
    hidden = [line.strip() for cell in json.loads(SOURCE.read_text())["cells"] if "### BEGIN HIDDEN TESTS" in "".join(cell["source"])
              for line in "".join(cell["source"]).split("### BEGIN HIDDEN TESTS")[1].split("### END HIDDEN TESTS")[0].splitlines()
              if len(line.strip()) > 25]
    assert hidden
    for class_, name in (("ml101", "alice"), ("ml101", "bob"), ("ml201", "carol")):
        student = loop.students[class_][name]
        [html] = student.files(class_).glob(f"modules/source/{ASSIGNMENT}/feedback/*/{NOTEBOOK}.html")
        text = html.read_text()
        assert "hidden tests: the same promises" in text
        assert not [line for line in hidden if line in text]
        relative = html.relative_to(student.files(class_))
        assert student.get(f"{student.home(class_)}files/{relative}").ok


def test_written_answers_are_graded_by_hand(loop):
    teacher = loop.teachers["ml101"]
    rows = teacher.formgrader("ml101", "GET", f"submissions/{ASSIGNMENT}").json()
    assert next(r for r in rows if r["student"] == "alice")["needs_manual_grade"]
    database = sqlite3.connect(teacher.site.state / "classes" / "ml101" / "gradebook.db")
    [(submission,)] = database.execute(
        "select sn.id from submitted_notebook sn join submitted_assignment sa on sn.assignment_id = sa.id "
        "join assignment a on sa.assignment_id = a.id where sa.student_id = 'alice' and a.name = ?", (ASSIGNMENT,)).fetchall()
    grades = teacher.formgrader("ml101", "GET", "grades", params={"submission_id": submission}).json()
    manual = [g for g in grades if g["needs_manual_grade"]]
    assert manual
    for grade in manual:
        answer = teacher.formgrader("ml101", "PUT", f"grade/{grade['id']}", json={"manual_score": 1, "extra_credit": None})
        assert answer.ok, answer.text
    rows = teacher.formgrader("ml101", "GET", f"submissions/{ASSIGNMENT}").json()
    alice = next(r for r in rows if r["student"] == "alice")
    assert not alice["needs_manual_grade"]
    assert alice["written_score"] == len(manual)


def test_a_release_can_be_withdrawn_and_given_again_and_keeps_submissions(loop):
    """As the formgrader's buttons do it; with plain ngshare the first of them deletes all submissions."""
    teacher, bob = loop.teachers["ml101"], loop.students["ml101"]["bob"]

    def listed():
        return [a["assignment_id"] for a in bob.assignments("ml101")["value"] if a["status"] != "submitted"]

    succeeded(teacher.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/unrelease"))
    assert ASSIGNMENT not in listed()
    refused = bob.act("ml101", "submit", ASSIGNMENT)
    assert not refused["success"]
    assert "withdrawn" in refused["value"]
    succeeded(teacher.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/assign"))
    succeeded(teacher.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/release"))
    assert ASSIGNMENT in listed()
    again = succeeded(teacher.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/collect"))
    assert "2 submissions" in again["log"]


def test_a_failed_step_is_said_in_words(loop):
    teacher = loop.teachers["ml101"]
    outcome = teacher.formgrader("ml101", "POST", "assignment/09_spatial/release").json()
    assert not outcome["success"]
    assert "Traceback" not in json.dumps(outcome)


def test_two_submissions_at_once_are_both_kept(loop):
    bob = loop.students["ml101"]["bob"]
    token = bob.run("ml101", "import os; print(os.environ['JUPYTERHUB_API_TOKEN'])").strip()
    work = base64.b64encode(bob.notebook("ml101", ASSIGNMENT).read_bytes()).decode()
    url = f"{bob.site.url}/services/ngshare/submission/ml101/{ASSIGNMENT}"
    answers = []

    def submit():
        answers.append(requests.post(url, headers={"Authorization": f"token {token}"}, timeout=60,
                                     data={"files": json.dumps([{"path": f"{NOTEBOOK}.ipynb", "content": work}])}).json())

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(a["success"] for a in answers)
    assert len({a["timestamp"] for a in answers}) == 4
