"""`tito job` on a student's server: a real service, whose owner the hub's API names; trainings that survive their worker."""

import json
import os
import re
import signal
from importlib.util import find_spec

import pytest

from tests.attacks.test_jobs import REPO, edition, hub, running, service, slow, until, worker_pids  # noqa: F401 (fixtures)
from tests.need import need
from tests.unit.tito_support import Student

MODULES = ("utils", "tensor", "activations", "losses", "layers", "autograd", "optimizers", "training")
RECIPE = """
name: {name}
data: {{set: digits, batch_size: 16, validation: 0.1}}
model:
  - Linear: [64, {width}]
  - ReLU
  - Linear: [{width}, 10]
optimizer: {{Adam: {{lr: 0.001}}}}
metrics: [Accuracy]
training: {{epochs: {epochs}}}
goal: {{accuracy: {goal}}}
"""


@pytest.fixture
def student(edition, service, tmp_path):  # noqa: F811
    someone = Student(edition, tmp_path / "home")
    core = someone.home / "tinytorch" / "core"
    core.mkdir(parents=True)
    for name in MODULES:
        if (source := REPO / "tinytorch" / "core" / f"{name}.py").exists():
            (core / source.name).write_text(source.read_text())
    return someone


def tito(student, service, *words, code=0, who="bob"):  # noqa: F811
    done = student.tito("job", *words, AUTOGRADER_URL=f"{service.url}/services/autograder", JUPYTERHUB_API_TOKEN=who)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_same_commands_run_on_the_autograder(student, service):  # noqa: F811
    said = tito(student, service, "submit", "checkpoint", "01")
    assert "on the autograder" in said.stderr
    assert "1 of 4 jobs at a time" in said.stderr
    assert said.stdout.endswith("Yes\n")
    [mine] = json.loads(tito(student, service, "status", "--json").stdout)["jobs"]
    assert (mine["kind"], mine["verdict"]) == ("checkpoint", "ok")
    assert "quota: 0 of 4 jobs at a time, 1 of 100 jobs and" in tito(student, service, "status").stderr
    tito(student, service, "fetch", "--out", "taken")
    assert json.loads((student.home / "taken" / "result.json").read_text())["passed"]
    assert "The result is the same" in tito(student, service, "verify").stdout
    assert json.loads(tito(student, service, "status", "--json", who="alice-201").stdout)["jobs"] == []
    profiled = json.loads(tito(student, service, "submit", "profile", "tensor.exp", "--input", "100x10", "--json").stdout)
    assert profiled["said"]["flops"] == 8000


def test_refusals_are_the_services_own_words(student, service):  # noqa: F811
    refused = tito(student, service, "submit", "checkpoint", "01", code=1, who="gone")
    assert refused.stderr == "tito: gone is not in class ml101 any more: ask your instructor\n"
    assert "at most" in tito(student, service, "submit", "train", str(recipe(student)), "--minutes", "99", code=1).stderr


def test_place_in_the_queue_and_cancel(student, service):  # noqa: F811
    ids = [slow(service, "grace", f"tito {number}") for number in range(2)]
    running(service, "grace", ids[0])
    waiting = json.loads(tito(student, service, "submit", "checkpoint", "00", "--detach", "--json").stdout)["id"]
    assert tito(student, service, "status", waiting).stdout.splitlines()[-1] in ("yours is next", "1 job before yours")
    assert tito(student, service, "cancel", waiting).stdout == f"job {waiting[:8]}: cancelled\n"
    for id in ids:
        service.ask("DELETE", f"/api/jobs/{id}", token="grace")


# --------------------------------------------------------------------------------------------- trainings
def recipe(student, name="mine", epochs=4, width=32, goal=0.5):
    path = student.home / f"{name}.yml"
    path.write_text(RECIPE.format(name=name, epochs=epochs, width=width, goal=goal))
    return path


@pytest.fixture
def trainable():
    need("tinytorch.experiments and modules 02 to 08", all((REPO / "tinytorch" / "core" / f"{name}.py").exists() for name in MODULES)
         and find_spec("tinytorch.experiments"), "they are not in this course yet")


def test_a_recipe_is_trained_and_its_goal_told(student, service, trainable):  # noqa: F811
    said = tito(student, service, "submit", "train", str(recipe(student)))
    assert "goal  accuracy 0.5: reached" in said.stdout
    tito(student, service, "fetch", "--out", "taken")
    result = json.loads((student.home / "taken" / "result.json").read_text())
    assert [row["epoch"] for row in result["epochs"]] == [1, 2, 3, 4]
    assert result["epochs"][-1]["loss"] < result["epochs"][0]["loss"]
    matrix = result["confusion"]["matrix"]
    assert sum(matrix[label][label] for label in range(10)) / sum(map(sum, matrix)) == pytest.approx(result["results"]["accuracy"])
    assert re.search(r"^most often mistaken: \d for \d \(\d+ of \d+\)", said.stdout, re.MULTILINE)
    assert said.stdout.count("test  ") == 1
    assert json.loads((student.home / "taken" / "measured.json").read_text())["seconds"] > 0
    assert (student.home / "taken" / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "The result is the same" in tito(student, service, "verify").stdout
    assert "missed" in tito(student, service, "submit", "train", str(recipe(student, "high", 1, goal=1.0)), code=1).stdout


def test_a_recipe_with_a_mistake_names_its_line(student, service, trainable):  # noqa: F811
    path = recipe(student, "wrong")
    path.write_text(path.read_text().replace("ReLU", "ReLV"))
    said = tito(student, service, "submit", "train", str(path), code=1)
    assert "ReLV" in said.stdout + said.stderr
    assert "line 6" in said.stdout + said.stderr


def test_a_training_goes_on_where_its_killed_worker_left_it(student, service, trainable):  # noqa: F811
    """The figures are those of a training that nobody interrupted."""
    path = recipe(student, "long", epochs=150, width=512)
    id = json.loads(tito(student, service, "submit", "train", str(path), "--detach", "--json").stdout)["id"]
    until(lambda: service_keeps(service, id), 60)
    for pid in worker_pids(service):
        os.kill(pid, signal.SIGKILL)
    done = json.loads(tito(student, service, "status", id, "--json").stdout)
    while done["state"] != "done":
        done = service.ask("GET", f"/api/jobs/{id}?wait=20", token="bob")[1]
    assert (done["verdict"], done["attempts"]) == ("ok", 2), done
    assert "going on from the last epoch" in service.ask("GET", f"/api/jobs/{id}/log", token="bob")[1]["text"]
    assert "The result is the same" in tito(student, service, "verify", id).stdout


def test_a_training_on_this_machine_goes_on_after_kill_9(student, trainable):
    def local(*words, code=0):
        done = student.tito("job", *words)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    (student.home / ".tito").mkdir()
    path = recipe(student, "long", epochs=150, width=512)
    id = json.loads(local("submit", "train", str(path), "--detach", "--json").stdout)["id"]
    folder = student.home / ".tito" / "jobs" / id
    until(lambda: (folder / "kept" / "run" / "best.last.tt").exists(), 60)
    os.kill(int((folder / "pid").read_text()), signal.SIGKILL)
    assert "going on from the last epoch" in local("submit", "train", str(path)).stdout
    assert "The result is the same" in local("verify", id).stdout
    assert not (folder / "kept").exists()


def service_keeps(service, id):  # noqa: F811
    import sqlite3
    with sqlite3.connect(f"file:{service.state / 'jobs.sqlite'}?mode=ro", uri=True) as db:
        return db.execute("SELECT count(*) FROM kept WHERE job = ?", (id,)).fetchone()[0] >= 3
