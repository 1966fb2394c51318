"""A student's way through a module in the student edition: start, test, export, validate, complete, and what can go wrong."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from course import curriculum
from tests.unit.tito_support import REPO, cell_with, releases, solved, tiny

SOLUTION = {"solution": True, "grade": False}


# ---------------------------------------------------------------- start

def test_start_puts_the_released_notebook_there(student):
    shown = student.tito("module", "start", "02")
    assert shown.returncode == 0
    assert "added" in shown.stdout
    assert str(student.notebook("02_tensor")) in shown.stdout
    assert json.loads(student.notebook("02_tensor").read_text()) == releases()["02_tensor"]
    assert student.progress["modules"]["02"]["started"]
    assert [p.name for p in student.notebook("02_tensor").parent.iterdir()] == ["tensor.ipynb"]


def test_start_never_overwrites(student):
    student.hand_in("01_setup", "a student's work of a week")
    shown = student.tito("module", "start", "01")
    assert shown.returncode == 0
    assert "kept" in shown.stdout
    assert student.notebook("01_setup").read_text() == "a student's work of a week"


def test_start_makes_a_workspace_of_the_current_folder(student, tmp_path):
    here = tmp_path / "mine"
    here.mkdir()
    environment = student.environment()
    del environment["TINYTORCH_WORKSPACE"]
    subprocess.run([sys.executable, str(student.edition / "bin/tito"), "module", "start", "01"], cwd=here, env=environment, check=True,
                   timeout=60)
    assert (here / "modules/source/01_setup/setup.ipynb").is_file()
    assert (here / ".tito").is_dir()
    below = here / "modules" / "source"
    found = subprocess.run([sys.executable, str(student.edition / "bin/tito"), "system", "info", "--json"], cwd=below, env=environment,
                           capture_output=True, text=True, timeout=60)
    assert json.loads(found.stdout)["paths"]["workspace"].startswith(str(here))


@pytest.mark.parametrize(("environment", "address"), [
    ({"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/c101/"}, "Open /user/ada/c101/lab/tree/modules/source/01_setup/setup.ipynb"),
    ({"JUPYTERHUB_SERVICE_PREFIX": "/user/ada/c101/", "JUPYTERHUB_PUBLIC_URL": "https://hub.example/user/ada/c101/"},
     "Open https://hub.example/user/ada/c101/lab/tree/modules/source/01_setup/setup.ipynb")])
def test_on_a_hub_start_prints_where_the_notebook_opens(student, environment, address):
    assert address in student.tito("module", "start", "01", **environment).stdout


def test_kill_9_while_starting_leaves_no_half_notebook(student):
    whole = json.dumps(releases()["01_setup"])
    chance = random.Random(1)
    for _ in range(6):
        running = subprocess.Popen([sys.executable, str(student.edition / "bin/tito"), "module", "start", "01"], cwd=student.home,
                                   env=student.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.02, 0.2))
        running.send_signal(signal.SIGKILL)
        running.wait(10)
        if student.notebook("01_setup").exists():
            assert student.notebook("01_setup").read_text() == whole
            student.notebook("01_setup").unlink()
    assert student.tito("module", "start", "01").returncode == 0
    assert student.notebook("01_setup").read_text() == whole


# ---------------------------------------------------------------- test

def test_untouched_notebooks_score_nothing(student):
    student.tito("module", "start", "01")
    shown = student.tito("module", "test", "01")
    assert shown.returncode == 1
    assert "not written" in shown.stdout
    assert "\n0 of " in shown.stdout
    assert student.progress["modules"]["01"]["tested"]["points"] == 0


@pytest.mark.parametrize("slug", ["01_setup", "02_tensor", "03_activations"])
def test_what_is_not_written_is_not_called_failed(student, slug):
    """Also where a test catches the exception and quotes it."""
    for earlier in ("01_setup", "02_tensor"):
        if earlier < slug:
            student.hand_in(earlier)
            assert student.tito("module", "export", earlier).returncode == 0
    student.tito("module", "start", slug)
    shown = student.tito("module", "test", slug)
    assert shown.returncode == 1
    assert "failed" not in shown.stdout
    tests = shown.stdout.count("not written  ") + shown.stdout.count("not written\n")
    assert f"{tests} tests wait for code that is not written yet" in shown.stdout
    assert {row["module"]: row["state"] for row in json.loads(student.tito("test", "--json").stdout)}[slug] == "not written"


def test_a_module_that_is_missing_is_named(student):
    for words in (("module", "start", "02"), ("module", "test", "02")):
        assert "02_tensor needs 01_setup, which is not in your framework yet: `tito module start 01`" in student.tito(*words).stdout
    student.hand_in("01_setup")
    assert "not in your framework yet: `tito module export 01`" in student.tito("module", "start", "02").stdout
    student.tito("module", "export", "01")
    assert "needs" not in student.tito("module", "start", "02").stdout


@pytest.mark.parametrize("slug", ["01_setup", "02_tensor", "03_activations"])
def test_solved_notebooks_score_everything(student, slug):
    for earlier in ("01_setup", "02_tensor"):
        if earlier < slug:
            student.hand_in(earlier)
            assert student.tito("module", "export", earlier).returncode == 0
    student.hand_in(slug)
    shown = student.tito("module", "test", slug, "--json")
    results = json.loads(shown.stdout)
    assert shown.returncode == 0
    assert results
    assert all(r["passed"] for r in results)
    tested = student.progress["modules"][slug[:2]]["tested"]
    assert tested["points"] == tested["of"] == sum(r["points"] for r in results) > 0


def test_a_failing_test_shows_its_message(student):
    student.hand_in("01_setup", tiny("assert 1 == 2, 'one is not two'"))
    shown = student.tito("module", "test", "01")
    assert shown.returncode == 1
    assert "test-tiny, line 1\n  one is not two" in shown.stdout
    assert "0 of 2 points" in shown.stdout


def test_testing_without_a_name_tests_all_that_is_started(student):
    assert student.tito("test").returncode == 2
    student.hand_in("01_setup", tiny("assert 1 + 1 == 2"))
    student.hand_in("02_tensor", "damaged")
    shown = student.tito("test", "--json")
    rows = {row["module"]: row for row in json.loads(shown.stdout)}
    assert shown.returncode == 1
    assert rows["01_setup"]["failed"] == []
    assert "not a notebook" in rows["02_tensor"]["failed"][0]
    for words in (("test", "01"), ("test", "--module", "setup"), ("test", "--module", "00_setup")):
        assert student.tito(*words).returncode == 0


# ---------------------------------------------------------------- export

def test_export_makes_the_students_code_the_framework(student):
    student.hand_in("01_setup")
    shown = student.tito("module", "export", "01")
    own = student.home / "tinytorch" / "core" / "utils.py"
    assert shown.returncode == 0
    assert f"imported from {own}" in shown.stdout
    program = "from tinytorch.core.utils import hello_tinytorch as hello; print(hello.__code__.co_filename); print(hello())"
    said = subprocess.run([sys.executable, "-c", program], env=student.environment(), cwd="/", capture_output=True, text=True,
                          timeout=60).stdout
    assert said.startswith(f"{own}\nHello, world")
    assert "no change in" in student.tito("export", "01").stdout


def test_export_names_what_is_not_written_yet(student):
    student.hand_in("01_setup")
    assert "not written" not in student.tito("module", "export", "01").stdout
    student.hand_in("02_tensor")
    assert "not written" not in student.tito("module", "export", "02").stdout, "Tensor.backward waits for module 06, not for the student"
    student.hand_in("03_activations", json.dumps(releases()["03_activations"]))
    said = student.tito("module", "export", "03").stdout
    assert "7 functions are not written yet: relu, sigmoid, softmax, gelu, Activation.__init__, Activation.__call__, " in said


def test_code_that_does_not_compile_is_refused_with_cell_and_line(student):
    student.hand_in("01_setup")
    student.tito("module", "export", "01")
    before = (student.home / "tinytorch/core/utils.py").read_text()
    student.edit("01_setup", lambda cells: cell_with(cells, **SOLUTION).update(source="#| export\ndef broken():\n    return ((1\n"))
    name = cell_with(releases()["01_setup"]["cells"], **SOLUTION)["metadata"]["nbgrader"]["grade_id"]
    shown = student.tito("module", "export", "01")
    assert shown.returncode == 1
    assert f'"{name}"' in shown.stderr
    assert "line 3" in shown.stderr
    assert (student.home / "tinytorch/core/utils.py").read_text() == before


@pytest.mark.parametrize(("code", "said"), [("raise RuntimeError('boom')", "RuntimeError: boom"),
                                            ("import nothing_like_this", "nothing_like_this"),
                                            ("raise SystemExit(3)", "SystemExit: 3"), ("import os; os._exit(7)", "code 7")])
def test_code_that_cannot_be_imported_is_taken_back(student, code, said):
    student.hand_in("01_setup")
    student.tito("module", "export", "01")
    before = (student.home / "tinytorch/core/utils.py").read_text()
    student.edit("01_setup", lambda cells: cells.append({"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None,
                                                         "id": "extra", "source": f"#| export\n{code}"}))
    shown = student.tito("module", "export", "01")
    assert shown.returncode == 1
    assert said in shown.stderr
    assert "taken back" in shown.stderr
    assert (student.home / "tinytorch/core/utils.py").read_text() == before


def test_status_and_doctor_see_that_a_notebook_went_on(student):
    student.hand_in("01_setup")
    student.tito("module", "export", "01")
    assert student.tito("system", "doctor").returncode == 0
    student.edit("01_setup", lambda cells: cell_with(cells, **SOLUTION).update(source="#| export\ndef later():\n    return 1\n"))
    assert "exported, changed since its export" in student.tito("module", "status").stdout
    shown = student.tito("system", "doctor")
    assert shown.returncode == 1
    assert "tito module export 01" in shown.stdout


# ---------------------------------------------------------------- validate

def validated(student, slug="01_setup"):
    shown = student.tito("module", "validate", slug, "--json")
    return shown.returncode, {(f["level"], f["cell"]): f["message"] for f in json.loads(shown.stdout)}


def test_a_finished_notebook_is_fit(student):
    student.hand_in("01_setup")
    code, findings = validated(student)
    assert code == 0
    assert not [key for key in findings if key[0] == "failed"]
    assert "fit to be handed in" in student.tito("module", "validate", "01").stdout


def test_an_untouched_notebook_is_not(student):
    student.tito("module", "start", "01")
    code, findings = validated(student)
    unwritten = [cell for (level, cell), message in findings.items() if level == "failed" and "not written yet" in message]
    solutions = [c for c in releases()["01_setup"]["cells"]
                 if c["cell_type"] == "code" and c["metadata"].get("nbgrader", {}).get("solution")]
    assert code == 1
    assert len(unwritten) == len(solutions)
    assert any(level == "warning" and "not answered" in message for (level, _), message in findings.items())


@pytest.mark.parametrize(("change", "level", "said"), [
    (lambda cells: cells.remove(cell_with(cells, **SOLUTION)), "failed", "is missing"),
    (lambda cells: cells.append(dict(cell_with(cells, **SOLUTION), id="copy")), "failed", "is there 2 times"),
    (lambda cells: cells.remove(cell_with(cells, grade=True, solution=False)), "failed", "is missing"),
    (lambda cells: cell_with(cells, grade=True, solution=False).update(source="pass"), "warning", "is locked but was changed"),
    (lambda cells: cell_with(cells, **SOLUTION).update(source="#| export\ndef f():\n    return ((1\n"), "failed", "line 3"),
    (lambda cells: cell_with(cells, **SOLUTION).update(source="def f(): return 1"), "failed", "does not begin with #| export"),
    (lambda cells: cell_with(cells, **SOLUTION).update(source="import math\n#| export\ndef f(): return 1"), "failed", "as the first one"),
    (lambda cells: cell_with(cells, **SOLUTION).update(source="#| export\n%timeit 1\ndef f(): return 1"), "failed", "%timeit 1")])
def test_lost_doubled_and_changed_cells(student, change, level, said):
    student.hand_in("01_setup")
    student.edit("01_setup", change)
    code, findings = validated(student)
    assert any(found == level and said in message for (found, _), message in findings.items()), findings
    assert code == (1 if level == "failed" else 0)


@pytest.mark.parametrize(("text", "said"), [("not JSON", "not a notebook"), ("[1, 2]", "not a notebook"), ("{}", "not a notebook"),
                                            ('{"cells": ["x"]}', "not a notebook"), ("x" * 25_000_000, "25 MB, at most 20 MB")])
def test_damaged_and_huge_notebooks(student, text, said):
    student.hand_in("01_setup", text)
    shown = student.tito("module", "validate", "01")
    assert shown.returncode == 1
    assert said in shown.stdout
    assert "Traceback" not in shown.stderr
    assert student.tito("module", "complete", "01").returncode == 1
    assert student.progress == {"modules": {}, "checkpoints": {}}


# ---------------------------------------------------------------- complete

def test_the_whole_way(student):
    for slug, number in (("01_setup", "00"), ("02_tensor", "01"), ("03_activations", "02")):
        student.hand_in(slug)
        shown = student.tito("module", "complete", slug)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        assert f"checkpoint {number} passed" in shown.stdout
        assert f"{int(number) + 1} of 20 modules" in shown.stdout
        assert student.progress["modules"][slug[:2]]["completed"]
        assert student.progress["checkpoints"][number]["passed"]
    status = json.loads(student.tito("module", "status", "--json").stdout)
    assert [row["state"] for row in status[:4]] == ["complete", "complete", "complete", "not started"]
    drawn = json.loads(student.tito("checkpoint", "timeline", "--json").stdout)
    assert [stop["state"] for stop in drawn[:3]] == ["passed", "passed", "passed"]
    line = student.tito("checkpoint", "timeline", "--horizontal").stdout.splitlines()[1]
    assert line.startswith("●─")
    assert line.count("●") == 3


def refused(student, slug: str, said: str) -> None:
    """Completing fails with this text, records nothing and leaves the earlier export."""
    core = student.home / "tinytorch" / "core"
    before = {path.name: path.read_text() for path in core.glob("*.py")}
    recorded = student.progress
    shown = student.tito("module", "complete", slug)
    assert shown.returncode == 1
    assert said in shown.stderr
    assert "nothing was recorded" in shown.stderr
    assert student.progress == recorded
    assert {path.name: path.read_text() for path in core.glob("*.py")} == before
    exported = "export " in shown.stdout
    assert ("The export was taken back" in shown.stderr) == exported


def test_an_unwritten_cell_stops_it(student):
    student.tito("module", "start", "01")
    refused(student, "01_setup", "is not written yet")


def test_a_wrong_answer_stops_it(student):
    student.hand_in("01_setup")
    student.edit("01_setup", lambda cells: cell_with(cells, grade_id="hello-tinytorch").update(
        source="#| export\ndef hello_tinytorch(name='world'):\n    return name\n"))
    refused(student, "01_setup", "tests fail, first test-hello")


def test_what_only_the_checkpoint_sees_stops_it(student):
    for slug in ("01_setup", "02_tensor"):
        student.hand_in(slug)
        student.tito("module", "export", slug)
    student.hand_in("03_activations")
    student.tito("module", "export", "03")
    slow = "#| export\n@op\ndef relu(x):\n    return np.array([max(v, 0) for v in x.ravel()], dtype=x.dtype).reshape(x.shape)\n"
    student.edit("03_activations", lambda cells: cell_with(cells, grade_id="relu").update(source=slow))
    refused(student, "03_activations", "checkpoint 02 fails at \"can bend at the speed of numpy\"")


# ---------------------------------------------------------------- checkpoints

def test_the_courses_stubs_do_not_count(student):
    shown = student.tito("checkpoint", "test", "01")
    assert shown.returncode == 1
    assert "is not yours and does not count" in shown.stdout
    assert "tito module export 02" in shown.stdout
    assert student.progress["checkpoints"]["01"]["passed"] is False
    assert "failed" in student.tito("checkpoint", "status").stdout


def test_a_checkpoint_says_what_is_not_written(student):
    student.hand_in("01_setup", json.dumps(releases()["01_setup"]))
    student.tito("module", "export", "01")
    shown = student.tito("checkpoint", "test", "00")
    assert shown.returncode == 1
    assert re.search(r"can standardize along any axis +not written", shown.stdout)
    assert re.search(r"Not yet: \d of 14 not written$", shown.stdout.strip()), shown.stdout
    assert "utils.py, line" in shown.stdout


def test_a_checkpoint_shows_the_call_that_failed(student):
    student.hand_in("01_setup")
    student.edit("01_setup", lambda cells: cell_with(cells, grade_id="broadcast-shape").update(
        source="#| export\ndef broadcast_shape(a, b):\n    return np.broadcast_shapes(a, b)\n"))
    student.tito("module", "export", "01")
    said = student.tito("checkpoint", "test", "00").stdout
    assert "the ValueError of broadcast_shape((0,), (2,)) should say 'shapes (0,) and (2,) do not fit: 0 against 2'" in said


def test_another_persons_code_on_the_path_does_not_count(student, tmp_path):
    shutil.copytree(REPO / "tinytorch", tmp_path / "other" / "tinytorch")
    shown = student.tito("checkpoint", "test", "01", PYTHONPATH=f"{tmp_path / 'other'}{os.pathsep}{student.edition}")
    assert shown.returncode == 1
    assert "does not count" in shown.stdout


def test_own_exports_count_and_are_remembered(student):
    student.hand_in("01_setup")
    student.tito("module", "export", "01")
    shown = student.tito("checkpoint", "test", "00", "--verbose")
    assert shown.returncode == 0
    assert "the code is your own" in shown.stdout
    assert " ms" in shown.stdout.splitlines()[0]
    assert "Can I configure my development environment? Yes" in shown.stdout
    detailed = student.tito("checkpoint", "status", "--detailed").stdout
    assert "passed  can run a current python" in detailed
    assert f"1 of {sum(checkpoint.ready for checkpoint in curriculum.checkpoints())} passed" in detailed


@pytest.mark.parametrize(("code", "said"), [
    ("import os; os._exit(0)", "ended with exit code 0"), ("1 / 0", "utils.py, line"),
    ("while True: pass", "seconds was over, in hello_tinytorch (utils.py, line"),
    ("import sys; sys.exit()", "SystemExit")])
def test_exports_that_end_the_process_fail_the_checkpoint(student, code, said, monkeypatch):
    from course.checkpoints.run import run
    from course.curriculum import find_checkpoint
    student.hand_in("01_setup")
    student.tito("module", "export", "01")
    own = student.home / "tinytorch" / "core" / "utils.py"
    own.write_text(own.read_text() + f"\ndef hello_tinytorch(name='world'):\n    {code}\n")
    results = list(run(find_checkpoint("00"), student.home, timeout=6))
    broken = next(r for r in results if r.capability == "can export and import a function")
    assert not broken.passed
    assert said in broken.message
    assert len(results) == len({r.capability for r in results}) > 10


# ---------------------------------------------------------------- cleaning up

def test_clean_removes_only_what_can_be_made_again(student):
    student.hand_in("01_setup")
    student.hand_in("02_tensor")
    student.tito("module", "export", "01")
    student.tito("module", "export", "02")
    changed = student.home / "tinytorch" / "core" / "tensor.py"
    changed.write_text(changed.read_text() + "# written by hand\n")
    shown = student.tito("clean", "all")
    assert shown.returncode == 0
    assert "removed tinytorch/core/utils.py" in shown.stdout
    assert changed.exists()
    assert student.notebook("01_setup").exists()
    assert not (student.home / "tinytorch" / "core" / "utils.py").exists()


def test_reset_forgets_progress_and_nothing_else(student):
    student.hand_in("01_setup")
    assert student.tito("module", "export", "01").returncode == 0
    assert student.tito("reset").returncode == 2
    assert "01" in student.progress["modules"]
    assert student.tito("reset", "--confirm").returncode == 0
    assert student.progress["modules"] == {}
    assert student.notebook("01_setup").exists()
    assert (student.home / "tinytorch/core/utils.py").exists()
    assert "exported" in student.tito("module", "status").stdout


# ---------------------------------------------------------------- in a checkout

def test_in_a_checkout_the_sources_are_the_modules():
    from course.curriculum import find_module
    from course.tito.workspace import CODE, Workspace
    here = Workspace(CODE, "a checkout of the course")
    assert here.is_checkout
    assert here.notebook(find_module("02")) == find_module("02").source
    shown = subprocess.run([sys.executable, str(REPO / "bin/tito"), "module", "start", "02"], cwd=REPO, capture_output=True, text=True,
                           timeout=60)
    assert shown.returncode == 2
    assert "course/modules/source/02_tensor/tensor_dev.py" in shown.stderr


def test_the_edition_is_no_checkout(student):
    where = json.loads(student.tito("system", "info", "--json").stdout)["paths"]
    assert where["course"] == str(student.edition)
    assert where["tinytorch"].startswith(str(student.edition))
    assert where["your exports"] == "none yet"
    student.hand_in("01_setup")
    student.tito("module", "export", "01")
    where = json.loads(student.tito("system", "info", "--json").stdout)["paths"]
    assert where["your exports"] == f"{student.home / 'tinytorch' / 'core'} (utils), imported first"


def test_solved_differs_from_released():
    assert "NotImplementedError" not in solved("03_activations")
    assert "NotImplementedError" in json.dumps(releases()["03_activations"])
