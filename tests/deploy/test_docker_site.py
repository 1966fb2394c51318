"""A site in containers, from `prepare` and `render` on: the class loop, an upgrade under a running server, and every service killed.

About four minutes on two free cores. `TINYTORCH_TEST_IMAGES=prefix:version` names other images than this checkout's.
"""

import json
import os
import signal
import subprocess
import time

import pytest
import requests
import yaml
from requests.cookies import get_cookie_header

from hub import paths
from hub.spawning import engine
from tests.docker_site import DOCKER, docker
from tests.running import solve

pytestmark = [pytest.mark.docker, pytest.mark.site, pytest.mark.timeout(1200)]
ASSIGNMENT, NOTEBOOK = "02_tensor", "tensor"
SOURCE = paths.BUILD / "source" / ASSIGNMENT / f"{NOTEBOOK}.ipynb"
PATIENCE = 240                           # seconds for what takes two on a quiet machine


def alive(site, person, class_) -> bool:
    """Whether the person's server answers through the proxy, with their session."""
    answer = person.get(f"/user/{person.name}/{class_}/api/status")
    return answer.status_code == 200 and "started" in answer.json()


def eventually(happened, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if happened():
                return
        except (OSError, ValueError):    # the proxy restarts, or answers with a page
            pass
        time.sleep(0.5)
    raise AssertionError(f"did not happen within {seconds} s")


@pytest.fixture(scope="module")
def people(contained):
    return {name: contained.person(name) for name in ("grace", "alice", "carol", "ada")}


@pytest.fixture(scope="module")
def alices(contained, people):
    """alice's server in ml101, running."""
    people["alice"].start("ml101", PATIENCE)
    return contained.student("ml101", "alice")


def test_the_same_site_renders_the_same_file_and_no_secret_is_in_it(contained):
    text = contained.render()
    assert text == contained.render() == (contained.folder / "compose.yml").read_text()
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"proxy", "door", "hub", "exchange", "autograder", "formgrader-ml101", "formgrader-ml201"}
    secrets = [*json.loads((contained.state / "secrets" / "tokens.json").read_text()).values(),
               (contained.state / "secrets" / "cookie_secret").read_text()]
    for service in services:
        described = json.dumps(contained.inspect(contained.service(service)))
        assert not [secret for secret in secrets if secret in text or secret in described]


def test_services_are_nobody_special(contained):
    """One unprivileged user, a read-only root, and the engine's socket in the hub alone."""
    services = yaml.safe_load(contained.render())["services"]
    for name in services:
        described = contained.inspect(contained.service(name))
        host = described["HostConfig"]
        assert described["Config"]["User"] == "10000:10000", name
        assert host["ReadonlyRootfs"], name
        assert any("no-new-privileges" in option for option in host["SecurityOpt"]), name
        assert host["Privileged"] == (name == "autograder"), name
        assert any(mount["Destination"] == "/var/run/docker.sock" for mount in described["Mounts"]) == (name == "hub"), name
        published = {port for port, where in (described["NetworkSettings"]["Ports"] or {}).items() if where}
        assert published == ({"8000/tcp"} if name == "proxy" else set()), name


def test_a_service_reads_its_own_secrets_and_nobody_elses(contained):
    tokens = json.loads((contained.state / "secrets" / "tokens.json").read_text())
    for service, names in {"proxy": {"proxy"}, "exchange": {"service:ngshare"}, "autograder": {"service:autograder", "autograder"},
                           "formgrader-ml101": {"service:ml101", "autograder"}}.items():
        found = json.loads(docker("exec", contained.service(service), "cat", "/srv/tinytorch/secrets/tokens.json"))
        assert found == {name: tokens[name] for name in names}, service


def test_a_students_container_has_no_network_no_rights_and_its_classs_limits(contained, alices):
    described = contained.inspect(alices)
    host = described["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] in (None, [])
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["Privileged"]
    assert (host["Memory"], host["PidsLimit"], host["NanoCpus"]) == (2**30, 256, 10**9)
    assert host["MemorySwap"] == host["Memory"]
    assert {mount["Destination"]: mount["RW"] for mount in described["Mounts"]} == {"/home/student": True, "/run/tinytorch": False}
    secrets = [value for name, value in json.loads((contained.state / "secrets" / "tokens.json").read_text()).items()]
    assert not [secret for secret in secrets if secret in json.dumps(described)]
    own = [entry for entry in described["Config"]["Env"] if "TOKEN" in entry.partition("=")[0]]
    assert {entry.partition("=")[0] for entry in own} <= {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"}


def test_a_student_works_submits_and_is_graded(contained, people, alices):
    """Release, fetch, solve, run, submit, collect, autograde, feedback, as the pages do it."""
    grace, alice = people["grace"], people["alice"]
    for step in ("assign", "release"):
        outcome = grace.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/{step}").json()
        assert outcome["success"], outcome
    fetched = alice.act("ml101", "fetch", ASSIGNMENT)
    assert fetched["success"], fetched
    printed = alice.run("ml101", "import numpy, os; print(numpy.ones(3).sum(), os.getuid(), os.path.expanduser('~'))", PATIENCE)
    assert printed.split() == ["3.0", "10001", "/home/student"]
    assert "Machine learning systems" in (alice.files("ml101") / "Welcome.md").read_text()
    solve(alice.notebook("ml101", ASSIGNMENT), SOURCE)
    submitted = alice.act("ml101", "submit", ASSIGNMENT)
    assert submitted["success"], submitted
    collected = grace.formgrader("ml101", "POST", f"assignment/{ASSIGNMENT}/collect").json()
    assert collected["success"], collected
    graded = grace.formgrader("ml101", "POST", f"submission/{ASSIGNMENT}/alice/autograde").json()
    assert graded["success"], graded
    [row] = [row for row in grace.formgrader("ml101", "GET", f"submissions/{ASSIGNMENT}").json() if row["student"] == "alice"]
    assert row["code_score"] == row["max_code_score"] > 0


def test_classes_of_one_person_have_a_home_each(contained, people, alices):
    alice = people["alice"]
    (alice.files("ml101") / "mine.txt").write_text("of the first class")
    alice.start("ml201", PATIENCE)
    try:
        assert not (alice.files("ml201") / "mine.txt").exists()
        assert alice.files("ml101") != alice.files("ml201")
        refused = alice.act("ml201", "submit", ASSIGNMENT, course="ml101")
        assert not refused["success"]
    finally:
        alice.stop("ml201")
    eventually(lambda: not docker("ps", "-aq", "--filter", f"name={contained.student('ml201', 'alice')}").strip())
    assert not (contained.sockets / "servers" / "ml201--alice").exists()


def test_the_course_list_knows_the_formgraders_without_looking_up_a_name(contained, people):
    """A site has a name outside, and a person's container can look up none."""
    grace = people["grace"]
    grace.start("ml201", PATIENCE)
    try:
        grace.assignments("ml201")               # signs in to that server
        path = f"{grace.home('ml201')}formgraders"
        cookies = get_cookie_header(grace.session.cookies, requests.Request("GET", grace.url(path)).prepare())
        listed = grace.get(path, headers={"Host": "hub.example.org", "Cookie": cookies}).json()
        assert listed["success"], listed["value"]
        assert [(course["course_id"], course["url"]) for course in listed["value"]] == [
            (name, f"http://hub.example.org/services/{name}/lab?formgrader=true") for name in ("ml101", "ml201")]
    finally:
        grace.stop("ml201")


def test_nobody_gets_a_container_of_another_class(contained, people):
    answer = people["carol"].send("POST", "/hub/api/users/carol/servers/ml101")
    assert answer.status_code == 403
    assert not docker("ps", "-aq", "--filter", f"name={contained.student('ml101', 'carol')}").strip()


def test_a_start_that_fails_says_why(contained, people):
    """The image of the class is not there: in words, on the page, and nothing is left behind."""
    image, carol = contained.image("student"), people["carol"]
    id = engine.ask("GET", f"/images/{image}/json")["Id"]
    spare = f"{contained.registry}kept:{contained.version}"
    docker("tag", image, spare)
    docker("rmi", image)
    try:
        carol.get("/hub/home")
        answer = carol.send("POST", "/hub/api/users/carol/servers/ml201")
        assert answer.status_code == 500, answer.text
        assert "image of class ml201 is not on this machine" in answer.json()["message"]
    finally:
        docker("tag", spare, image)
        docker("rmi", spare)
    assert engine.ask("GET", f"/images/{image}/json")["Id"] == id
    assert not docker("ps", "-aq", "--filter", f"name={contained.student('ml201', 'carol')}").strip()


def test_an_upgrade_leaves_running_servers_alone(contained, people, alices):
    """New tags and a new Compose file replace every service; the student's container stays as it was, and is found again."""
    alice, before = people["alice"], contained.inspect(alices)
    kept, old = contained.render(), contained.version
    hub = contained.service("hub")
    names = ("proxy", "hub", "exchange", "autograder", "grader", "student")
    for name in names:
        docker("tag", contained.image(name), f"{contained.registry}{name}:next")
    contained.version = "next"
    try:
        (contained.folder / "compose.yml").write_text(contained.render())
        contained.compose("up", "-d")
        contained.wait_all()
        assert contained.service("hub") != hub
        eventually(lambda: alive(contained, alice, "ml101"))
        after = contained.inspect(alices)
        assert (after["Id"], after["State"]["StartedAt"]) == (before["Id"], before["State"]["StartedAt"])
        model = alice.get("/hub/api/users/alice", headers={"X-XSRFToken": alice.xsrf("/hub/")}).json()
        assert model["servers"]["ml101"]["ready"]
        assert alice.run("ml101", "print('still here')", PATIENCE).strip() == "still here"
        assert alice.assignments("ml101")["success"]            # through the door, the new proxy and the new exchange
    finally:
        contained.version = old
        (contained.folder / "compose.yml").write_text(kept)
        contained.compose("up", "-d")
        contained.wait_all()
        for name in names:
            docker("rmi", f"{contained.registry}{name}:next", check=False)


def test_a_class_that_changes_replaces_only_what_reads_it(contained, alices):
    """Another due date concerns the hub and the class's formgrader; the proxy and the other class's formgrader go on."""
    before = {name: contained.service(name) for name in ("hub", "proxy", "door", "formgrader-ml101", "formgrader-ml201")}
    text = contained.classes_yml.read_text()
    contained.classes_yml.write_text(text.replace("    # due:", "    due: {02_tensor: 2099-01-31}\n    # due:", 1))
    try:
        (contained.folder / "compose.yml").write_text(contained.render())
        contained.compose("up", "-d")
        changed = {name for name, id in before.items() if contained.service(name) != id}
        assert changed == {"hub", "formgrader-ml101"}
        contained.wait_all()
    finally:
        contained.classes_yml.write_text(text)
        (contained.folder / "compose.yml").write_text(contained.render())
        contained.compose("up", "-d")
        contained.wait_all()


@pytest.mark.parametrize("service", ["proxy", "door", "exchange", "autograder", "formgrader-ml101", "hub"])
def test_a_service_that_is_killed_comes_back_by_itself(contained, people, alices, service):
    alice = people["alice"]
    container = contained.service(service)
    pid = contained.inspect(container)["State"]["Pid"]
    os.kill(pid, signal.SIGKILL)                                 # not `docker kill`, which the engine takes for an order
    eventually(lambda: contained.inspect(container)["State"]["Pid"] not in (0, pid))
    contained.wait_all()
    eventually(lambda: alive(contained, alice, "ml101"))
    eventually(lambda: alice.assignments("ml101")["success"])   # server, door, proxy, exchange and hub, one after the other


def test_a_server_that_is_killed_is_noticed_and_starts_again(contained, people, alices):
    alice = people["alice"]
    (alice.files("ml101") / "kept.txt").write_text("work")
    os.kill(contained.inspect(alices)["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: not docker("ps", "-aq", "--filter", f"name={alices}").strip())
    alice.start("ml101", PATIENCE)
    assert (alice.files("ml101") / "kept.txt").read_text() == "work"


def test_whoever_left_a_class_has_no_server_in_it_after_the_next_start(contained, people, alices):
    roster = contained.etc / "rosters" / "ml101.csv"
    text = roster.read_text()
    roster.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("alice,")))
    try:
        contained.compose("restart", "-t", "5", "hub")
        eventually(lambda: subprocess.run([DOCKER, "inspect", alices], capture_output=True).returncode != 0)
        assert (people["alice"].files("ml101") / "kept.txt").exists()
    finally:
        roster.write_text(text)
        contained.compose("restart", "-t", "5", "hub")
        contained.wait_all()
