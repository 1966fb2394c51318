"""Students' jobs in containers: our programs run there as in processes, data sets are all that is shown, what breaks off goes on."""

import json
import os
import socket
import threading

import pytest

from autograder import kinds, runner
from autograder.jobs import Job, Limits, Verdict, sha256
from autograder.sandbox import run
from autograder.sandbox.base import SandboxUnavailable, Watch
from autograder.sandbox.containers import docker, engine

pytestmark = pytest.mark.docker
STATE = kinds.GOES_ON_FROM["train"][1]
PROGRAM = """import json, os, pathlib, random, sys, time
data, state = pathlib.Path(os.environ["TINYTORCH_DATA"]), pathlib.Path({state!r})
state.parent.mkdir(exist_ok=True)
begun = int(state.read_text()) if state.exists() else 0
print("begun", begun, flush=True)
for n in range(begun, 20):
    state.with_suffix(".new").write_text(str(n))
    state.with_suffix(".new").rename(state)
    time.sleep(0.2 if {slow} else 0)
def refused(act):
    try: act()
    except OSError as error: return error.errno
    return "done"
large = data / "large"
with large.open("rb") as file:
    file.seek(-4, 2)
    end = file.read()
pathlib.Path("result.json").write_text(json.dumps({{
    "name": __name__, "argv": sys.argv, "beside": os.path.dirname(__file__) in sys.path,
    "random": os.path.dirname(random.__file__) == os.path.dirname(os.__file__),
    "data": sorted(os.listdir(data)), "size": large.stat().st_size, "end": end.decode(),
    "refused": [refused(lambda: (data / "new").write_text("")), refused(lambda: open(large, "r+b")), refused(lambda: large.unlink()),
                refused(lambda: os.chmod(large, 0o777)), refused(lambda: os.listdir(data / "link"))],
    "around": sorted(os.listdir(data.parent))}}))
"""


@pytest.fixture
def train(containers, tmp_path, monkeypatch):
    """train(slow=False, watch=..., before=...) -> Result of a job of that kind whose program needs no NumPy."""
    data, secret = tmp_path / "site" / "data", tmp_path / "site" / "secret"
    data.mkdir(parents=True)
    secret.mkdir()
    with (data / "large").open("wb") as file:                   # more than is ever sent into a container; no disk is used
        file.seek(100 * 2**20)
        file.write(b"last")
    (data / "link").symlink_to(secret)
    data.chmod(0o777)                                           # so that nothing but the mount protects it
    (data / "large").chmod(0o666)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "random.py").write_text("raise SystemExit('a file beside the program stands in for a library')")
    (tmp_path / "edition").mkdir()
    monkeypatch.setattr(kinds, "PROGRAMS", programs)
    monkeypatch.setattr(run, "KEEP_SECONDS", 0.3)
    monkeypatch.setenv("TINYTORCH_DATA", str(data))
    monkeypatch.setenv("TINYTORCH_STUDENT_EDITION", str(tmp_path / "edition"))

    def started(slow=False, watch=None, before=None):
        (programs / "train.py").write_text(PROGRAM.format(state=STATE, slow=slow))
        files = {"recipe.yml": b"name: any"}
        job = Job(kind="train", target="any", edition="student", inputs={path: sha256(content) for path, content in files.items()},
                  limits=Limits(wall_seconds=60))
        return runner.run(job, files, containers, watch, before)
    started.data = data
    return started


def test_our_programs_run_in_a_container_and_see_the_data_sets_and_nothing_else(train, containers):
    done = train()
    assert done.verdict is Verdict.ok, done.outputs["stderr"].decode()
    told = json.loads(done.outputs["result.json"])
    assert (told["name"], told["argv"]) == ("__main__", [f"{runner.INNER_FOLDER}/programs/train.py", "any"])
    assert (told["beside"], told["random"]) == (False, True)
    assert (told["data"], told["size"], told["end"]) == (["large", "link"], 100 * 2**20 + 4, "last")
    assert told["refused"] == [30, 30, 30, 30, 2]               # read-only file system; the link leads nowhere
    assert told["around"] == ["autograder", "data"]             # no edition: it is empty
    assert (train.data / "large").read_bytes()[-4:] == b"last"
    assert not (train.data / "new").exists()


def test_the_record_names_the_containers_image_and_what_is_in_it(train, containers):
    done = train()
    assert done.image == engine.ask("GET", f"/images/{containers.named}/json")["Id"] != runner.environment()
    assert done.packages["python"].startswith("3.11.")
    assert "numpy" not in done.packages                         # a bare Debian's
    assert done.edition_hash == runner.hash_folder(runner.student_edition())


def test_an_image_without_the_python_that_was_named_is_refused_before_any_job(containers):
    containers.check()
    with pytest.raises(SandboxUnavailable, match=r"runs /opt/none/python: .*no such file") as refused:
        docker.Docker(containers.named, "/opt/none/python").check()
    assert "AUTOGRADER_SANDBOX_PYTHON" in refused.value.fix
    with pytest.raises(SandboxUnavailable, match="runs /bin/true: the image's first program ended"):
        docker.Docker(containers.named, "/bin/true").check()


def test_a_job_that_names_another_image_is_not_run_in_this_one(containers):
    job = Job(kind="train", inputs={"main.py": sha256(b"")}, image="other@sha256:" + "0" * 64)
    with pytest.raises(runner.BadJob, match="jobs here run in sha256:"):
        runner.run(job, {"main.py": b""}, containers)


def test_a_training_that_loses_its_container_goes_on_where_it_was(train):
    kept = []

    def struck(files):
        kept.append(files)
        if int(files[STATE]) >= 5:
            for one in engine.ask("GET", "/containers/json", filters={"label": [f"{docker.LABEL}={os.getpid()}"]}):
                engine.ask("POST", f"/containers/{one['Id']}/kill")
    lost = train(slow=True, watch=Watch(keep=(STATE, "run/absent"), kept=struck))
    assert lost.verdict is Verdict.infra
    assert kept[-1].keys() == {STATE}
    went_on = train(before=kept[-1])
    assert went_on.verdict is Verdict.ok
    assert int(went_on.outputs["stdout"].split()[1]) == int(kept[-1][STATE]) >= 5


@pytest.mark.parametrize("what", ["a socket", "a pipe", "a device"])
def test_a_folder_that_holds_more_than_files_is_shown_to_nobody(train, what, monkeypatch):
    if what == "a socket":
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(train.data / "it"))
    elif what == "a pipe":
        os.mkfifo(train.data / "it")
    else:
        monkeypatch.setenv("TINYTORCH_DATA", "/dev")
    with pytest.raises(SandboxUnavailable, match="is neither a file nor a folder"):
        train()


def test_data_that_a_container_could_not_read_is_named_with_the_remedy(train):
    train.data.chmod(0o700)
    with pytest.raises(SandboxUnavailable, match=r"chmod -R a\+rX"):
        train()


def test_a_program_that_speaks_like_the_first_one_fills_no_memory(containers):
    """It reads the mark out of what was imported for it, which is a copy of the first program's memory."""
    code = ("import gc, os\nmark = next(o['mark'] for o in gc.get_objects() if isinstance(o, dict) and 'mark' in o).encode()\n"
            "os.write(2, mark + b'fx\\n')\nwhile True: os.write(2, mark + b'd' + b'A' * 4000 + b'\\n')\n")
    kept, before = [], threading.active_count()
    outcome = containers.run(["python3", "-s", "main.py"], {"main.py": code.encode()}, [], Limits(wall_seconds=60, cpu_seconds=60),
                             {"PATH": "/usr/bin:/bin"}, watch=Watch(keep=("x",), kept=kept.append))
    assert outcome.verdict is Verdict.output, outcome
    assert kept == []
    assert threading.active_count() <= before + 4
