"""Running a notebook's cells: which tests pass, and what is said when a cell fails, hangs, prints without end or kills Python."""

import json
import time
from pathlib import Path

import pytest

from course.build.cells import SourceError
from course.build.run import CellResult, run_notebook
from tests.unit.sample_course import COUNTING, DATA


def notebook(folder: Path, *sources: str) -> Path:
    """A notebook of code cells; those that start with `# test` are graded with 2 points. Cell ids are a, b, c, ..."""
    cells = []
    for name, source in zip("abcdefgh", sources, strict=False):
        nbgrader = {"grade_id": name, "grade": True, "solution": False, "points": 2} if source.startswith("# test") else {"grade_id": name}
        cells.append({"cell_type": "code", "metadata": {"nbgrader": nbgrader}, "source": source.splitlines(True)})
    path = folder / "mine.ipynb"
    path.write_text(json.dumps({"cells": [*cells, {"cell_type": "markdown", "metadata": {}, "source": "not code"}]}))
    return path


def test_the_reference_passes_all_of_its_tests():
    results = run_notebook(DATA / COUNTING)
    assert [(r.grade_id, r.points, r.passed) for r in results] == [
        ("test-mean", 6, True), ("test-window-push", 2, True), ("test-window-full", 2, True), ("test-guess", 1, True)]


def test_each_test_cell_has_its_result_and_the_next_ones_still_run(tmp_path):
    results = run_notebook(notebook(
        tmp_path, "def f(x):\n    return [][x]", "# test\nassert 1 + 1 == 3, 'expected 3,\\ngot 2'", "# test\n\nf(0)", "# test\npass"))
    assert results == [
        CellResult("b", 2, False, "expected 3,\ngot 2", 2),
        CellResult("c", 2, False, "IndexError: list index out of range (in cell a, line 2)", 3),
        CellResult("d", 2, True, "", 0)]


def test_a_cell_that_did_not_run_is_named_where_its_names_are_missed(tmp_path):
    (result,) = run_notebook(notebook(tmp_path, "x = 1", "y = 2\ndef f(:", "# test\nassert f(1)"))
    assert result.message == "NameError: name 'f' is not defined; cell \"b\" above did not run: SyntaxError: invalid syntax (line 2)"


def test_a_name_that_was_to_be_typed_in_is_said_to_be_missing(tmp_path):
    (result,) = run_notebook(notebook(tmp_path, "raise NotImplementedError", "# test\nassert guess > 0, 'any number will do'"))
    assert result.message == "NameError: name 'guess' is not defined; cell \"a\" above is not written yet"


def test_an_assert_without_a_text_and_an_error_that_cannot_be_shown_have_a_message(tmp_path):
    unshown = "class E(Exception):\n    def __str__(self): return 1 / 0"
    results = run_notebook(notebook(tmp_path, unshown, "# test\nassert False", "# test\nraise E"))
    assert [r.message for r in results] == ["AssertionError", "E: (its message cannot be shown)"]


def test_an_endless_loop_ends_with_the_time_and_says_which_cell(tmp_path):
    began = time.monotonic()
    results = run_notebook(notebook(tmp_path, "# test\npass", "while True:\n    pass", "# test\npass"), timeout=2)
    assert time.monotonic() - began < 6
    assert [r.passed for r in results] == [True, False]
    began_at = 'not reached: cell "b" did not come to its end: the time of 2 seconds was over, in cell "b", line '
    assert results[1].message in (f"{began_at}1", f"{began_at}2")


def test_an_endless_function_is_named(tmp_path):
    (result,) = run_notebook(notebook(tmp_path, "import time\ndef slow():\n    while True: time.sleep(1)", "# test\nslow()"), timeout=2)
    assert result.message == 'the time of 2 seconds was over, in slow (cell "a", line 3)'


@pytest.mark.parametrize(("cell", "says"), [
    ("import os\nos._exit(3)", "the Python process ended with exit code 3"),
    ("import os\nos.kill(os.getpid(), 9)", "the Python process ended with signal SIGKILL"),
    ("import ctypes\nctypes.string_at(0)", "the Python process ended with signal SIGSEGV"),
])
def test_a_cell_that_ends_python_is_a_failure_with_its_reason(tmp_path, cell, says):
    (result,) = run_notebook(notebook(tmp_path, "# test\n" + cell))
    assert not result.passed
    assert says in result.message


def test_a_polite_exit_ends_only_its_cell(tmp_path):
    results = run_notebook(notebook(tmp_path, "# test\nimport sys\nsys.exit(0)", "# test\npass"))
    assert [(r.passed, r.message) for r in results] == [(False, "SystemExit: 0"), (True, "")]


def test_the_cells_run_in_the_notebook_s_folder_as_main_with_what_notebooks_have(tmp_path):
    (tmp_path / "helper.py").write_text("answer = 42\n")
    results = run_notebook(notebook(
        tmp_path, "%matplotlib inline\nimport dataclasses, pickle, inspect\n!ls\nimport helper", "%%time\nx = 1",
        "@dataclasses.dataclass\nclass P:\n    x: int\ndef f(x):\n    return x",
        "display(P(1))\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()",
        "# test\nassert x == 1 and helper.answer == 42 and __name__ == '__main__'",
        "# test\nassert pickle.loads(pickle.dumps(P(2))) == P(2)",
        "# test\nassert 'return x' in inspect.getsource(f)", "# test\nassert input() == ''"))
    assert [(r.passed, r.message) for r in results] == [
        (True, ""), (True, ""), (True, ""), (False, "EOFError: EOF when reading a line")]


def test_printing_without_end_neither_fills_the_memory_nor_reaches_the_terminal(tmp_path, capfd):
    loop = "for n in range(50_000): print('x' * 500); sys.stderr.write('y')"
    measured = f"import sys, tracemalloc\ntracemalloc.start()\n{loop}\npeak = tracemalloc.get_traced_memory()[1]"
    check = "# test\nassert peak < 1_000_000, f'{peak} bytes at once'"
    results = run_notebook(notebook(tmp_path, measured, check))
    assert results[0].passed, results[0].message
    assert capfd.readouterr() == ("", "")


def test_nothing_is_left_running(tmp_path):
    marker = tmp_path / "alive"
    (tmp_path / "later.py").write_text(f"import time\ntime.sleep(2)\nopen({str(marker)!r}, 'w')\n")
    orphan = "import subprocess, sys\nsubprocess.Popen([sys.executable, 'later.py'])"
    run_notebook(notebook(tmp_path, orphan, "# test\npass"))
    time.sleep(3)
    assert not marker.exists()


def test_a_notebook_without_tests_has_no_results_and_an_unreadable_one_an_error(tmp_path):
    assert run_notebook(notebook(tmp_path, "x = 1")) == []
    path = tmp_path / "mine.ipynb"
    path.write_text("{")
    with pytest.raises(SourceError, match="not a notebook"):
        run_notebook(path)
