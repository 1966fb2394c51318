"""Jobs on a real site: submitted in a notebook of a student's server, with the token that the hub gave it."""

import base64
import hashlib
import json
import shutil
import sqlite3

import pytest
import requests

from hub import paths

pytestmark = pytest.mark.site
TITO = """
import subprocess
done = subprocess.run(["tito", "job", *WORDS], capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr, sep="\\n")
"""


def tito(person, class_, *words):
    code, _, said = person.run(class_, TITO.replace("WORDS", repr(list(words))), seconds=120).partition("\n")
    return int(code), said


@pytest.fixture(scope="module")
def people(site):
    """alice in both of her classes and bob in one, each with exported modules."""
    alice, bob = site.person("alice"), site.person("bob")
    for person, class_ in ((alice, "ml101"), (alice, "ml201"), (bob, "ml101")):
        person.start(class_)
        core = person.files(class_) / "tinytorch" / "core"
        core.mkdir(parents=True, exist_ok=True)
        for name in ("utils", "tensor"):
            shutil.copy(paths.REPO / "tinytorch" / "core" / f"{name}.py", core)
    yield alice, bob
    for person, class_ in ((alice, "ml101"), (alice, "ml201"), (bob, "ml101")):
        person.stop(class_)


@pytest.fixture(scope="module")
def ask(site, people):
    alice, bob = people
    tokens = {"alice": alice.token("ml101"), "alice-201": alice.token("ml201"), "bob": bob.token("ml101")}

    def ask(who, method, path, **json_body):
        headers = {"Authorization": f"token {tokens.get(who, who)}"}
        return requests.request(method, f"{site.url}/services/autograder{path}", headers=headers, json=json_body or None, timeout=60)
    return ask


def test_a_checkpoint_from_a_notebook_to_its_result(people, site):
    alice, _ = people
    code, said = tito(alice, "ml101", "submit", "checkpoint", "01")
    assert code == 0, said
    assert "Yes" in said
    assert "1 of 5 jobs at a time" in said
    code, said = tito(alice, "ml101", "submit", "profile", "tensor.exp", "--input", "64x64")
    assert code == 0, said
    assert "32,768 (estimate)" in said
    assert tito(alice, "ml101", "fetch")[0] == 0
    [picture] = alice.files("ml101").glob("jobs/profile-*/picture.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    with sqlite3.connect(f"file:{site.state / 'autograder' / 'jobs.sqlite'}?mode=ro", uri=True) as db:
        assert set(db.execute("SELECT class, owner, tier FROM jobs WHERE kind != 'grade'")) == {("ml101", "alice", 2)}


def test_each_server_sees_its_owners_jobs_of_its_class(people, ask):
    alice, _ = people
    assert tito(alice, "ml101", "submit", "checkpoint", "00")[0] == 0
    mine = ask("alice", "GET", "/api/jobs").json()["jobs"]
    assert mine
    for other in ("alice-201", "bob"):
        assert not {job["id"] for job in mine} & {job["id"] for job in ask(other, "GET", "/api/jobs").json()["jobs"]}
        for method, path in (("GET", ""), ("GET", "/log"), ("DELETE", ""), ("POST", "/verify")):
            assert ask(other, method, f"/api/jobs/{mine[0]['id']}{path}").status_code == 404
    assert ask("alice", "GET", f"/api/jobs/{mine[0]['id']}").json()["verdict"] == "ok"


@pytest.mark.parametrize(("job", "more"), [
    ({"kind": "grade"}, {}), ({"edition": "02_tensor"}, {}), ({}, {"class": "ml201"}), ({}, {"owner": "bob"}),
    ({"limits": {"memory_mb": 4096}}, {})])
def test_a_real_token_opens_no_more_than_it_should(ask, job, more):
    files = {"tinytorch/core/utils.py": b"x = 1"}
    inputs = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    body = {"job": {"kind": "checkpoint", "target": "00", "inputs": inputs, **job},
            "files": {path: base64.b64encode(c).decode() for path, c in files.items()}, **more}
    refused = ask("alice", "POST", "/api/jobs", **body)
    assert refused.status_code == 403, refused.text


def test_tokens_of_the_sites_services_and_strangers_open_nothing(site, ask):
    for token in (site.secret("service:ml101"), site.secret("service:ngshare"), "0" * 32):
        assert ask(token, "GET", "/api/jobs").status_code in (401, 403)
    assert ask("alice", "GET", "/metrics").status_code == 403
    assert ask(site.secret("autograder"), "GET", "/metrics").status_code == 200


def test_the_status_page_is_for_those_who_teach(site, people):
    alice, _ = people
    grace = site.person("grace")
    page = grace.get("/services/autograder/status")
    assert page.ok, page.text
    assert "workers are busy" in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    assert "alice" not in page.text
    assert alice.get("/services/autograder/status").status_code == 403
    stranger = requests.get(f"{site.url}/services/autograder/status", timeout=30)
    assert "/hub/login" in stranger.url


def test_openapi_is_published_below_the_sites_address(site):
    document = requests.get(f"{site.url}/services/autograder/openapi.json", timeout=30).json()
    assert document["servers"] == [{"url": "/services/autograder"}]
    json.dumps(document)
