"""Students at the autograder's door: each gets the own jobs of one class done, and nothing else; every denial stands here."""

import base64
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from autograder.jobs import sha256
from tests.attacks.hub_api import HubApi, server_token
from tests.attacks.test_service import TOKEN, Service, script
from tests.attacks.test_service import body as staff_body
from tests.unit.tito_support import releases

REPO = Path(__file__).parents[2]
TOKENS = {
    "alice": server_token("alice", "ml101"), "bob": server_token("bob", "ml101"), "alice-201": server_token("alice", "ml201"),
    "grace": server_token("grace", "ml101", "formgrade-ml101"),
    "gone": server_token("gone", "ml101", "nbgrader-other"), "narrow": server_token("narrow", "ml101", scopes=()),
    "two": {**server_token("two", "ml101"), "scopes": ["access:servers!server=two/ml101", "access:servers!server=two/ml201",
                                                       "access:services!service=autograder"]},
    "browser": {**server_token("browser", "ml101"), "scopes": ["access:servers!user=browser", "access:services!service=autograder"]},
    "service": {"kind": "service", "name": "ml101", "scopes": ["access:servers!server=ml101/ml101", "access:services!service=autograder"]},
    "mallory": {**server_token("mallory", "ml101"), "scopes": ["access:servers!server=alice/ml101", "access:services!service=autograder"]},
    "prometheus": {"kind": "service", "name": "prometheus", "scopes": ["read:metrics"]}}
QUOTAS = {"ml101": {"jobs_per_day": 100, "queued": 4, "parallel": 1, "cpu_seconds": 60, "memory_mb": 512}, "ml201": {}}
SLOW = "import time\nfor n in range(100):\n    print(n)\n    time.sleep(0.2)\n"


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    from course.build import editions
    folder = tmp_path_factory.mktemp("edition") / "student"
    editions.write(editions.student({slug: json.dumps(notebook) for slug, notebook in releases().items()}), folder)
    return folder


@pytest.fixture(scope="module")
def hub():
    api = HubApi(TOKENS)
    yield api
    api.close()


@pytest.fixture(scope="module")
def service(sandbox, edition, hub, tmp_path_factory):
    state = tmp_path_factory.mktemp("autograder")
    (state / "quotas.json").write_text(json.dumps(QUOTAS))
    service = Service(state, "--quotas", str(state / "quotas.json"), "--prefix", "/services/autograder",
                      JUPYTERHUB_API_URL=hub.url, TINYTORCH_STUDENT_EDITION=str(edition))
    yield service
    service.process.terminate()
    assert service.process.wait(20) == 0


def exports(**more):
    """The reference modules as a student would have exported them, and other files by path."""
    files = {f"tinytorch/core/{name}.py": (REPO / "tinytorch" / "core" / f"{name}.py").read_bytes() for name in ("utils", "tensor")}
    return {**files, **{path: text.encode() for path, text in more.items()}}


def request(files=None, more=None, **job):
    files = exports() if files is None else files
    job = {"kind": "checkpoint", "target": "01", "inputs": {path: sha256(content) for path, content in files.items()}, **job}
    return json.dumps({"job": job, "files": {path: base64.b64encode(content).decode() for path, content in files.items()},
                       **(more or {})}).encode()


def done(service, token, id, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status, answer = service.ask("GET", f"/api/jobs/{id}?wait=5", token=token)
        assert status == 200, answer
        if answer["state"] == "done":
            return answer
    raise AssertionError(answer)


def until(happened, seconds=20):
    deadline = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


# --------------------------------------------------------------------------------------------- what works
def test_a_student_submits_and_sees_a_checkpoint(service):
    status, accepted = service.ask("POST", "/services/autograder/api/jobs", request(), "alice")
    assert status == 202, accepted
    answer = done(service, "alice", accepted["id"])
    said = json.loads(base64.urlsafe_b64decode(answer["result"]["outputs"]["result.json"]))
    assert (answer["verdict"], said["passed"], said["failed"]) == ("ok", True, [])
    assert service.ask("GET", f"/api/jobs/{accepted['id']}/log", token="alice")[1]["text"].endswith("Yes\n")
    mine = service.ask("GET", "/api/jobs", token="alice")[1]
    assert [job["id"] for job in mine["jobs"]] == [accepted["id"]]
    assert (mine["used"]["jobs"], mine["quota"]["queued"]) == (1, 4)
    record = answer["result"]
    assert record["edition_hash"]
    assert record["cpu"]
    assert record["packages"]["numpy"]
    assert record["limits"]["memory_mb"] == 512                            # the class's, where the default is more
    assert record["output_hashes"]["result.json"] == sha256(base64.urlsafe_b64decode(record["outputs"]["result.json"]))


def test_a_wrong_solution_is_told_by_the_capability_that_it_lacks(service):
    files = exports()
    files["tinytorch/core/tensor.py"] += b"\nTensor.__sub__ = Tensor.__add__\n"
    answer = done(service, "alice", service.ask("POST", "/api/jobs", request(files), "alice")[1]["id"])
    said = json.loads(base64.urlsafe_b64decode(answer["result"]["outputs"]["result.json"]))
    assert (answer["verdict"], said["passed"]) == ("ok", False)
    assert "can add subtract multiply and divide" in said["failed"]
    assert "can multiply matrices" not in said["failed"]


def test_staff_have_servers_too(service):
    status, accepted = service.ask("POST", "/api/jobs", request(target="00", files=exports()), "grace")
    assert status == 202, accepted
    done(service, "grace", accepted["id"])


def test_the_same_files_of_two_students_are_two_jobs(service):
    ids = {who: service.ask("POST", "/api/jobs", request(), who)[1]["id"] for who in ("alice", "bob", "alice-201")}
    assert len(set(ids.values())) == 3
    for who, id in ids.items():
        done(service, who, id)
        for other in ids.keys() - {who}:
            for method, path in (("GET", ""), ("GET", "/log"), ("DELETE", ""), ("POST", "/verify")):
                assert service.ask(method, f"/api/jobs/{id}{path}", token=other)[0] == 404, (who, other, method, path)
        assert id not in json.dumps([service.ask("GET", "/api/jobs", token=other)[1] for other in ids.keys() - {who}])


# --------------------------------------------------------------------------------------------- denials
DENIED = {
    "a grade job": (dict(kind="grade", target=""), {}, 403, "formgrader only"),
    "another student's name": ({}, {"owner": "bob"}, 403, "this token is alice's"),
    "another class": ({}, {"class": "ml201"}, 403, "this is the server of class ml101"),
    "a grading edition, with the reference in it": (dict(edition="02_tensor"), {}, 403, "student edition"),
    "another state of the edition": (dict(edition="student", edition_hash="0" * 64), {}, 403, "student edition"),
    "an image": (dict(image="evil@sha256:0"), {}, 403, "image is the site's"),
    "more memory": (dict(limits={"memory_mb": 513}), {}, 403, "memory_mb 513 (at most 512)"),
    "more cpu": (dict(limits={"cpu_seconds": 61}), {}, 403, "cpu_seconds 61 (at most 60)"),
    "more time": (dict(limits={"wall_seconds": 121}), {}, 403, "wall_seconds 121 (at most 120)"),
    "more processes": (dict(limits={"pids": 65}), {}, 403, "pids 65 (at most 64)"),
    "more disk": (dict(limits={"disk_mb": 257}), {}, 403, "disk_mb"),
    "more output": (dict(limits={"output_kb": 8193}), {}, 403, "output_kb"),
    "a program of one's own": (dict(target="", files={"main.py": b"print(1)"}), {}, 422, "a checkpoint's number"),
    "a program beside the exports": (dict(files=exports(**{"main.py": "1"})), {}, 422, "nothing like main.py"),
    "a test of one's own": (dict(files=exports(**{"course/checkpoints/checkpoint_01_foundation.py": "1"})), {}, 422, "nothing like course"),
    "a stand-in for a library": (dict(files=exports(**{"tinytorch/core/../../numpy.py": "1"})), {}, 422, "relative path"),
    "a target that is a path": (dict(target="../01"), {}, 422, "target"), "an option as target": (dict(target="-c"), {}, 422, "number"),
    "a target of another kind": (dict(kind="profile", target="01"), {}, 422, "a name of the framework"),
    "too much": (dict(files=exports(**{"tinytorch/core/large.py": "#" * 2**21})), {}, 422, "at most 60 files of 2 MB"),
    "a place in the queue": ({}, {"tier": 0}, 422, "tier"), "somebody's result": ({}, {"verifies": "0" * 64}, 422, "verifies"),
}


@pytest.mark.parametrize("what", DENIED)
def test_a_student_may_not_ask_for(service, what):
    job, more, code, says = DENIED[what]
    before = service.ask("GET", "/api/jobs", token="alice")[1]["used"]
    status, answer = service.ask("POST", "/api/jobs", request(more=more, **job), "alice")
    assert (status, says in answer["error"]) == (code, True), answer
    assert service.ask("GET", "/api/jobs", token="alice")[1]["used"] == before


@pytest.mark.parametrize(("token", "code", "says"), [
    ("", 401, "no token"), ("nobody", 401, "wrong or no token"), ("gone", 403, "not in class ml101 any more"),
    ("narrow", 403, "lacks the scope"), ("two", 403, "of none, or of several"), ("browser", 403, "of none, or of several"),
    ("service", 403, "may not use"), ("mallory", 403, "of none, or of several"), ("prometheus", 403, "/metrics and nothing else")])
def test_tokens_that_open_nothing(service, token, code, says):
    for method, path, content in (("POST", "/api/jobs", request()), ("GET", "/api/jobs", None), ("GET", f"/api/jobs/{'0' * 64}", None)):
        status, answer = service.ask(method, path, content, token)
        assert (status, says in answer["error"]) == (code, True), answer


def test_a_grade_job_is_nobodys_to_read_cancel_or_run_again(service):
    notebook = json.dumps({"cells": [{"id": "a", "source": "x = 1", "kind": "student"}]}).encode()
    from autograder.jobs import Job
    job = Job(kind="grade", inputs={"notebook.json": sha256(notebook)})
    id = service.ask("POST", "/api/jobs", staff_body(job, {"notebook.json": notebook}))[1]["id"]
    done(service, TOKEN, id)
    for method, path in (("GET", ""), ("GET", "?wait=1"), ("GET", "/log"), ("DELETE", ""), ("POST", "/verify")):
        for who in ("alice", "grace"):
            assert service.ask(method, f"/api/jobs/{id}{path}", token=who)[0] == 404
    status, answer = service.ask("POST", f"/api/jobs/{id}/verify")
    assert (status, "graded submissions never are" in answer["error"]) == (409, True)


def test_without_a_hub_that_answers_nobody_is_somebody(service, hub):
    hub.tokens["late"], hub.ill = server_token("late", "ml101"), True
    try:
        status, answer = service.ask("GET", "/api/jobs", token="late")
    finally:
        hub.ill = False
    assert (status, "try again in a minute" in answer["error"]) == (503, True)
    assert service.ask("GET", "/api/jobs", token="late")[0] == 200


def test_a_token_that_is_taken_back_stops_working(service, hub, monkeypatch):
    from autograder.service import access
    assert access.IDENTITY_SECONDS <= 20
    hub.tokens["short"] = server_token("short", "ml101")
    assert service.ask("GET", "/api/jobs", token="short")[0] == 200
    del hub.tokens["short"]
    until(lambda: service.ask("GET", "/api/jobs", token="short")[0] == 401, access.IDENTITY_SECONDS + 5)


def test_the_program_sees_no_token_no_store_and_no_other_students_files(service):
    """What a module prints while it is imported comes back in the live log."""
    spy = ("import os, glob, sys\nprint('ENV', sorted(os.environ))\nprint('FILES', sorted(glob.glob('/job/**', recursive=True)))\n"
           f"print('STATE', os.path.exists({str(service.state)!r}))\nprint('CORE', glob.glob('/opt/*'))\n"
           "os.write(1, b'SPY ' + repr([k for k in os.environ if 'TOKEN' in k]).encode() + b'\\n')\n"
           "import pathlib; pathlib.Path('/job/result.json').exists()\nraise RuntimeError(repr([os.path.exists("
           f"{str(service.state)!r}), [k for k in os.environ if 'TOKEN' in k or 'HUB' in k]]))\n")
    id = service.ask("POST", "/api/jobs", request({"tinytorch/core/tensor.py": spy.encode()}), "bob")[1]["id"]
    answer = done(service, "bob", id)
    assert "RuntimeError: [False, []]" in service.ask("GET", f"/api/jobs/{id}/log", token="bob")[1]["text"], answer


# --------------------------------------------------------------------------------------------- live, cancelled, killed
def slow(service, who, mark):
    """A job that runs for 20 s: a module that prints while it is imported, past what the checkpoint catches."""
    code = f"# {mark}\nimport time\nfor n in range(100):\n    time.sleep(0.2)\n"
    status, answer = service.ask("POST", "/api/jobs", request({"tinytorch/core/tensor.py": code.encode()}), who)
    assert status == 202, answer
    return answer["id"]


def running(service, who, id):
    return until(lambda: service.ask("GET", f"/api/jobs/{id}", token=who)[1]["state"] == "running")


def test_the_log_comes_while_the_job_runs_and_cancelling_ends_it(service):
    job, files = script(SLOW)
    id = service.ask("POST", "/api/jobs", staff_body(job, files))[1]["id"]
    first = until(lambda: (part := service.ask("GET", f"/api/jobs/{id}/log?wait=5")[1])["text"] and part)
    assert first["text"].startswith("0\n")
    assert not first["done"]
    second = until(lambda: (part := service.ask("GET", f"/api/jobs/{id}/log?offset={first['offset']}&wait=5")[1])["text"] and part)
    assert int(second["text"].split()[0]) == int(first["text"].split()[-1]) + 1
    begun = time.monotonic()
    assert service.ask("DELETE", f"/api/jobs/{id}")[0] == 200
    assert done(service, TOKEN, id)["verdict"] == "cancelled"
    assert time.monotonic() - begun < 5


def test_the_queue_is_shown_and_the_quota_holds(service):
    ids = [slow(service, "bob", f"queue {number}") for number in range(4)]
    try:
        status, answer = service.ask("POST", "/api/jobs", request(target="00"), "bob")
        assert (status, "4 jobs waiting or running, at most 4" in answer["error"]) == (429, True)
        running(service, "bob", ids[0])
        assert [service.ask("GET", f"/api/jobs/{id}", token="bob")[1]["ahead"] for id in ids[1:]] == [0, 1, 2]
        states = [service.ask("GET", f"/api/jobs/{id}", token="bob")[1]["state"] for id in ids]
        assert states == ["running", "queued", "queued", "queued"]         # parallel: 1, although there are two workers
        job, files = script("print('grading is not held up')")
        begun = time.monotonic()
        assert done(service, TOKEN, service.ask("POST", "/api/jobs", staff_body(job, files))[1]["id"])["verdict"] == "ok"
        assert time.monotonic() - begun < 10
    finally:
        for id in reversed(ids):
            service.ask("DELETE", f"/api/jobs/{id}", token="bob")
    assert [done(service, "bob", id)["verdict"] for id in ids] == ["cancelled"] * 4


def worker_pids(service):
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(service.process.pid)], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "autograder.service.worker" in line]


def test_kill_9_of_workers_and_service_at_any_moment_loses_and_repeats_nothing(service):
    """Each job notes in its output when it began; what was finished before a kill keeps that note."""
    jobs = [script(f"import time; print({number}, time.time()); time.sleep(0.7)") for number in range(10)]
    for job, files in jobs:
        assert service.ask("POST", "/api/jobs", staff_body(job, files))[0] == 202
    early = {}

    def note():
        for job, _ in jobs:
            answer = service.ask("GET", f"/api/jobs/{job.id}")[1]
            if answer["state"] == "done":
                early.setdefault(job.id, answer["result"]["outputs"]["stdout"])

    for victim in ("workers", "service", "workers"):
        time.sleep(1.7)
        note()
        if victim == "service":
            service.kill()
            service.start()
            continue
        for pid in worker_pids(service):
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(worker_pids(service)) == 2)
    for number, (job, _) in enumerate(jobs):
        answer = done(service, TOKEN, job.id)
        assert answer["verdict"] == "ok", answer
        output = answer["result"]["outputs"]["stdout"]
        assert base64.urlsafe_b64decode(output).startswith(f"{number} ".encode())
        assert early.get(job.id, output) == output
    assert early


def test_no_worker_outlives_a_killed_service(service):
    before = worker_pids(service)
    service.kill()
    try:
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))
    finally:
        service.start()


# --------------------------------------------------------------------------------------------- for admins
def test_a_result_is_verified_by_running_it_again(service):
    first = service.ask("POST", "/api/jobs", request(), "alice")[1]["id"]
    done(service, "alice", first)
    status, second = service.ask("POST", f"/api/jobs/{first}/verify", token="alice")
    assert status == 202, second
    answer = done(service, "alice", second["id"])
    assert (answer["verifies"], answer["same"], answer["differs"]) == (first, True, [])


def test_a_result_that_is_not_reproduced_is_told(service):
    code = exports()["tinytorch/core/tensor.py"] + b"\nimport os\nif os.urandom(1)[0] % 2: raise RuntimeError(os.urandom(8).hex())\n"
    code += b"raise RuntimeError(os.urandom(8).hex())\n"
    first = service.ask("POST", "/api/jobs", request({**exports(), "tinytorch/core/tensor.py": code}), "alice")[1]["id"]
    done(service, "alice", first)
    second = service.ask("POST", f"/api/jobs/{first}/verify", token="alice")[1]["id"]
    answer = done(service, "alice", second)
    assert (answer["same"], answer["differs"]) == (False, ["result.json"])


def text_of(service, path, token):
    asked = urllib.request.Request(service.url + path, headers={"Authorization": f"token {token}"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_metrics_are_read_by_prometheus_and_by_no_student(service):
    kind, text = text_of(service, "/services/autograder/metrics", "prometheus")
    assert kind.startswith("text/plain")
    from prometheus_client.parser import text_string_to_metric_families as parse
    found = {sample.name: sample for family in parse(text) for sample in family.samples}
    assert found.keys() >= {"autograder_jobs_total", "autograder_run_seconds_bucket", "autograder_run_seconds_sum",
                            "autograder_busy_workers"}
    assert found["autograder_workers"].value == 2
    counts = [s for family in parse(text) for s in family.samples if s.name == "autograder_run_seconds_count"]
    infinite = [s for family in parse(text) for s in family.samples if s.name.endswith("_bucket") and s.labels["le"] == "+Inf"]
    assert {(s.labels["kind"], s.value) for s in counts} == {(s.labels["kind"], s.value) for s in infinite}
    assert "alice" not in text
    for who in ("alice", "grace"):
        assert service.ask("GET", "/metrics", token=who)[0] == 403


def test_the_openapi_document_describes_what_is_answered(service):
    document = service.ask("GET", "/services/autograder/openapi.json", token="")[1]
    assert document["openapi"].startswith("3.1")
    assert document["paths"].keys() >= {"/health", "/api/jobs", "/api/jobs/{id}", "/api/jobs/{id}/log", "/api/jobs/{id}/verify"}
    schemas = document["components"]["schemas"]
    mine = service.ask("GET", "/api/jobs", token="alice")[1]
    assert mine.keys() == schemas["Mine"]["properties"].keys()
    assert mine["jobs"][0].keys() == schemas["Status"]["properties"].keys()
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named <= schemas.keys()
