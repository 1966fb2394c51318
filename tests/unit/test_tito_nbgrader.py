"""`tito nbgrader` on a real nbgrader course with nbgrader's folder exchange: the whole life of an assignment, and its failures."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from course.tito.main import cli
from tests.unit.tito_support import REPO, cell_with, solved, without_ours

CONFIG = """
import os
c = get_config()
c.CourseDirectory.course_id = os.environ["COURSE_ID"]
c.CourseDirectory.root = os.environ["COURSE_ROOT"]
c.Exchange.root = {exchange!r}
c.ExecutePreprocessor.timeout = 60
"""
STUDENT = subprocess.run([sys.executable, "-c", "import getpass; print(getpass.getuser())"], capture_output=True, text=True).stdout.strip()


class Class:
    """A class's terminal: course folder, exchange, nbgrader's configuration, and one person who is also its student."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        self.monkeypatch = monkeypatch
        self.folder, self.root, self.exchange = folder, folder / "course", folder / "exchange"
        for name in ("course", "exchange", "config", "home", "build"):
            (folder / name).mkdir(parents=True)
        self.exchange.chmod(0o777)
        (folder / "config" / "nbgrader_config.py").write_text(CONFIG.format(exchange=str(self.exchange)))

    def environment(self, **more: str) -> dict[str, str]:
        kept = without_ours()
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**kept, "HOME": str(self.folder / "home"), "JUPYTER_CONFIG_PATH": str(self.folder / "config"),
                "COURSE_ID": "c101", "COURSE_ROOT": str(self.root), "TINYTORCH_BUILD": str(self.folder / "build"),
                "PYTHONPATH": str(REPO), "PATH": path, **more}

    def tito(self, *words: str, **environment: str) -> Result:
        """The command in this process: importing nbgrader anew for each takes longer than the work."""
        with self.monkeypatch.context() as patch:
            patch.chdir(self.folder / "home")
            for name in os.environ.keys() - self.environment().keys():
                patch.delenv(name)
            for name, value in self.environment(**environment).items():
                patch.setenv(name, value)
            return CliRunner().invoke(cli, ["nbgrader", *words])

    def tito_process(self, *words: str, **environment: str) -> subprocess.CompletedProcess:
        """The command as it is typed."""
        return subprocess.run([sys.executable, str(REPO / "bin/tito"), "nbgrader", *words], cwd=self.folder / "home", text=True,
                              timeout=200, capture_output=True, env=self.environment(**environment), stdin=subprocess.DEVNULL)

    def build(self, slug: str) -> None:
        """What `python -m course.build` puts into build/source."""
        from course.build import notebooks
        from course.curriculum import find_module
        module = find_module(slug)
        target = self.folder / "build" / "source" / slug / module.notebook
        target.parent.mkdir(parents=True)
        target.write_text(notebooks.text(notebooks.source_notebook(module.source)))

    def submit(self, slug: str, notebook: str) -> None:
        """As a student does it, with nbgrader's own commands."""
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for command in ("fetch_assignment", None, "submit"):
            if command is None:
                (work / slug / f"{slug[3:]}.ipynb").write_text(notebook)
            else:
                subprocess.run([sys.executable, "-m", "nbgrader", command, slug], cwd=work, env=self.environment(), check=True, timeout=100,
                               capture_output=True)

    def put(self, student: str, slug: str, notebook: str) -> None:
        """Another student's submission, as collecting leaves it."""
        folder = self.root / "submitted" / student / slug
        folder.mkdir(parents=True)
        (folder / f"{slug[3:]}.ipynb").write_text(notebook)
        (folder / "timestamp.txt").write_text("2026-01-01 00:00:00.000000 UTC")
        (folder / "submission_secret.txt").write_text(f"secret of {student}")


@pytest.fixture
def room(tmp_path, monkeypatch) -> Class:
    return Class(tmp_path / "class", monkeypatch)


@pytest.mark.timeout(900)                      # a dozen steps with real kernels: seconds on a free machine, minutes on a busy one
def test_the_whole_life_of_an_assignment(room):
    room.build("01_setup")
    assert "0 students, 0 assignments" in room.tito("setup-instructor").stdout
    assert "no assignments yet" in room.tito("status").stdout

    generated = room.tito("generate", "01")
    assert generated.exit_code == 0, generated.stderr
    assert "01_setup added" in generated.stdout
    released = (room.root / "release/01_setup/setup.ipynb").read_text()
    assert "BEGIN SOLUTION" not in released
    assert "HIDDEN" not in released

    assert "can fetch it" in room.tito("release", "01").stdout
    again = room.tito("release", "01")
    assert again.exit_code == 1
    assert "released already" in again.stderr
    assert room.tito("release", "01", "--replace").exit_code == 0
    assert "nobody has submitted" in room.tito("collect", "01").stdout

    notebook = json.loads(solved("01_setup"))
    cell_with(notebook["cells"], grade_id="hello-tinytorch")["source"] = "#| export\ndef hello_tinytorch(name='world'):\n    return name\n"
    room.submit("01_setup", json.dumps(notebook))
    collected = json.loads(room.tito("collect", "01", "--json").stdout)
    assert [(row["student"], row["state"]) for row in collected] == [(STUDENT, "new")]
    assert json.loads(room.tito("collect", "01", "--json").stdout)[0]["state"] == "no change"
    room.put("zoe", "01_setup", "this is not JSON")

    graded = room.tito("autograde", "01", "--json")
    rows = {row["student"]: row for row in json.loads(graded.stdout)}
    lost = sum(cell["metadata"]["nbgrader"]["points"] for cell in notebook["cells"]
               if cell["metadata"].get("nbgrader", {}).get("grade_id", "").startswith("test-hello"))
    tests = sum(cell["metadata"]["nbgrader"]["points"] for cell in notebook["cells"]
                if cell["metadata"].get("nbgrader", {}).get("grade") and not cell["metadata"]["nbgrader"]["solution"])
    assert graded.exit_code == 1, "one of the two could not be graded"
    assert rows[STUDENT]["points"] == tests - lost > 0
    assert rows[STUDENT]["state"] == "by hand"
    assert rows["zoe"]["state"] == "failed"
    assert "JSON" in rows["zoe"]["reason"]

    table = room.tito_process("autograde", "01", "--student", STUDENT)
    assert table.returncode == 0
    assert f"{tests - lost:g}/" in table.stdout
    assert f"{STUDENT} (1 of 1)" in table.stderr
    assert f"1 of 2 submissions wait for grading by hand: {room_address()}" in room.tito(
        "formgrade", "01", JUPYTERHUB_SERVICE_PREFIX="/services/c101/").stdout

    feedback = room.tito("feedback", "01")
    assert feedback.exit_code == 0, feedback.stderr
    assert f"1 students can fetch theirs ({STUDENT})" in feedback.stdout
    assert (room.root / "feedback" / STUDENT / "01_setup" / "setup.html").is_file()
    overview = json.loads(room.tito("status", "--json").stdout)
    assert [(row["assignment"], row["state"], row["collected"], row["graded"], row["by_hand"]) for row in overview] == [
        ("01_setup", "released", 2, 1, 1)]


def room_address() -> str:
    return "/services/c101/formgrader/gradebook/01_setup"


def test_steps_out_of_order_say_which_comes_first(room):
    room.build("01_setup")
    for words, first in ((("release", "01"), "tito nbgrader generate 01"), (("collect", "01"), "tito nbgrader release 01"),
                         (("autograde", "01"), "tito nbgrader collect 01"), (("feedback", "01"), "tito nbgrader autograde 01")):
        shown = room.tito(*words)
        assert shown.exit_code == 1
        assert first in shown.stderr
        assert "Traceback" not in shown.stderr


def test_a_source_that_the_instructor_changed_stays(room):
    room.build("01_setup")
    assert room.tito("generate", "01").exit_code == 0
    own = room.root / "source/01_setup/setup.ipynb"
    changed = json.loads(own.read_text())
    changed["cells"].insert(0, {"cell_type": "markdown", "id": "welcome", "metadata": {}, "source": "# Welcome to my class"})
    own.write_text(json.dumps(changed))
    assert "differs from the built one and stays" in room.tito("generate", "01").stdout
    assert "Welcome to my class" in (room.root / "release/01_setup/setup.ipynb").read_text()
    assert "replaced by the built one" in room.tito("generate", "01", "--refresh").stdout
    assert "Welcome to my class" not in own.read_text()


def test_all_of_it_and_what_is_not_built(room):
    room.build("02_tensor")
    shown = room.tito("generate", "--all")
    assert shown.exit_code == 1
    assert "01_setup has not been built" in shown.stderr
    assert "02_tensor added" in shown.stdout
    assert (room.root / "release/02_tensor/tensor.ipynb").is_file()


def test_a_source_that_nbgrader_refuses_gives_its_reason(room):
    room.build("01_setup")
    path = room.folder / "build/source/01_setup/setup.ipynb"
    notebook = json.loads(path.read_text())
    cell = cell_with(notebook["cells"], grade=True, solution=False)
    notebook["cells"].append({**cell, "id": "twin"})
    path.write_text(json.dumps(notebook))
    shown = room.tito("generate", "01")
    assert shown.exit_code == 1
    assert "generate 01_setup failed" in shown.stderr
    assert cell["metadata"]["nbgrader"]["grade_id"] in shown.stderr
    assert "Traceback" not in shown.stderr


def test_an_exchange_that_is_gone(room):
    room.build("01_setup")
    room.tito("generate", "01")
    shutil.rmtree(room.exchange)
    for words in (("release", "01"), ("collect", "01"), ("feedback", "01"), ("status",)):
        shown = room.tito(*words)
        assert shown.exit_code == 1, words
        assert "the exchange cannot be used" in shown.stderr
    assert "unknown" in room.tito("status").stdout
    assert room.tito("generate", "01").exit_code == 0, "what needs no exchange works without it"


def test_an_exchange_over_http_that_is_down(room):
    over_http = "from ngshare_exchange import configureExchange\nconfigureExchange(c, os.environ['NGSHARE_URL'])\n"
    config = CONFIG.format(exchange="") + over_http
    (room.folder / "config" / "nbgrader_config.py").write_text(config)
    room.build("01_setup")
    down = {"NGSHARE_URL": "http://127.0.0.1:9/services/ngshare", "USER": STUDENT}
    assert room.tito("generate", "01", **down).exit_code == 0
    shown = room.tito("release", "01", **down)
    assert shown.exit_code == 1
    assert "127.0.0.1:9/services/ngshare" in shown.stderr
    assert "nothing was changed" in shown.stderr


@pytest.mark.parametrize(("environment", "config", "said"), [
    ({"COURSE_ID": "", "COURSE_ROOT": ""}, "c = get_config()", "no folder of a course is set"),
    ({"COURSE_ID": ""}, "c = get_config()", "no course id is set"),
    ({"COURSE_ROOT": "/nowhere"}, "c = get_config()", "/nowhere, the folder of the course c101, is not there"),
    ({}, "c = get_config(", "cannot be read"),
    ({}, "import os; os.environ['NO_SUCH_VARIABLE']", "NO_SUCH_VARIABLE")])
def test_outside_a_class_the_way_into_one_is_told(room, environment, config, said):
    (room.folder / "config" / "nbgrader_config.py").write_text(config)
    shown = room.tito_process("status", **environment)
    assert shown.returncode == 2
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr


TRACE = 'Traceback (most recent call last):\n  File "x", line 1\n'


@pytest.mark.parametrize(("result", "reason"), [
    ({"success": True, "log": "[INFO] fine"}, ""),
    ({"success": True, "log": "[INFO] so\n[ERROR] the endpoint refused"}, "the endpoint refused"),
    ({"success": False, "error": f"{TRACE}nbgrader.exchange.ExchangeError: no room"}, "no room"),
    ({"success": False, "error": f"{TRACE}KeyError: 'x'"}, "KeyError: 'x'"),
    ({"success": False, "error": ""}, "nbgrader gives no reason")])
def test_reasons_are_taken_from_what_nbgrader_logs(result, reason):
    from course.tito.classroom import why_failed
    assert why_failed(result) == reason
