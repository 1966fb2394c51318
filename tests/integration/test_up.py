"""`make up` and what goes with it: errors name the fix, nothing is lost, running servers are left alone."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from hub import paths
from hub.spawning.processes import Process
from tests.conftest import isolation
from tests.need import need
from tests.running import PORTS, Site

pytestmark = pytest.mark.site
PROGRAMS = ("hub", "proxy", "exchange", "autograder", "formgrader-ml101")


def first_class(text: str) -> str:
    """The example's classes.yml without its second class: one process less to start."""
    return text.partition("  - id: ml201")[0]


@pytest.fixture
def own_site(tmp_path):
    """A site of this test's own, not started. Its state lies in a folder with a space in its name."""
    need("bubblewrap", not isolation(), isolation())
    folder = tmp_path / "my class"
    folder.mkdir()
    running = Site(folder, change=first_class)
    yield running
    running.down()


def refused(done: subprocess.CompletedProcess) -> str:
    """What a command that failed said, in one line; never a traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return " ".join((done.stdout + done.stderr).split())


def test_the_first_up_prints_address_and_generated_sign_ins(site):
    assert f"is ready at {site.url}" in site.first_up
    for name in ("ada", "grace", "gus", "alice", "bob", "carol"):
        assert site.password(name) in site.first_up
    assert len({site.password(name) for name in ("ada", "grace", "gus", "alice", "bob", "carol")}) == 6


def test_secrets_are_in_no_log_no_argv_and_readable_by_their_owner_only(site):
    secrets = [site.password("grace"), site.secret("proxy"), site.secret("service:ngshare"), site.secret("autograder")]
    logged = "".join(file.read_text(errors="replace") for file in (site.state / "logs").rglob("*.log"))
    listed = subprocess.run(["ps", "axww", "-o", "command="], capture_output=True, text=True).stdout
    for secret in secrets:
        assert secret not in logged
        assert secret not in listed
    for file in (site.state / "secrets").iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_everything_listens_on_loopback_only(site):
    ours = {f"{site.port + n:04X}" for n in range(PORTS)}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].split(":")[1] in ours]
    assert listening
    assert {address.split(":")[0] for address in listening} == {"0100007F"}


def pids(site):
    return {name: site.pid(name) for name in PROGRAMS}


def test_a_second_up_is_quick_restarts_nothing_and_keeps_everything(site):
    before, passwords, seconds = pids(site), (site.state / "secrets" / "signins.csv").read_text(), []
    for _ in range(2):                                 # the better of two: other work on this machine is not the site's fault
        start = time.monotonic()
        site.up()
        seconds.append(time.monotonic() - start)
    assert min(seconds) < 15
    assert pids(site) == before
    assert (site.state / "secrets" / "signins.csv").read_text() == passwords


def test_two_at_once_do_not_meet(site):
    """The second comes while the first holds the lock; what is left of a killed first is no lock."""
    before = pids(site)
    with (site.state / "run" / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another `make up` is at work on this site: wait for it" in refused(site.command("up"))
    site.up()
    assert pids(site) == before


def test_a_new_student_gets_in_one_who_left_does_not_and_running_servers_stay(site):
    bob = site.person("bob")
    bob.start("ml101")
    kernel = bob.send("POST", f"{bob.home('ml101')}api/kernels", json={"name": "python3"}).json()["id"]
    roster = site.folder / "rosters" / "ml101.csv"
    text, before = roster.read_text(), pids(site)
    roster.write_text(text.rstrip("\n") + "\ndora,Dora,Dahl,dora@example.org\n")
    try:
        assert "restarted: hub" in site.up().splitlines()[1]
        assert {name: pid for name, pid in pids(site).items() if name != "hub"} == {n: p for n, p in before.items() if n != "hub"}
        dora = site.person("dora")
        assert dora.signed_in.status_code == 302
        home = dora.start("ml101")
        token, [server] = dora.token("ml101"), servers(site, "dora")
        assert dora.assignments("ml101")["success"]
        assert bob.get(f"{bob.home('ml101')}api/kernels/{kernel}").json()["id"] == kernel
    finally:
        roster.write_text(text)
        site.up()
    with pytest.raises(StopIteration):
        site.password("dora")
    assert dora.get("/hub/api/user", headers={"X-XSRFToken": dora.xsrf("/hub/")}).status_code in (401, 403)
    assert "/hub/login" in dora.get(f"{home}api/status").url
    assert not server.alive(), "the server of somebody who left should have ended"
    assert answer(site, "/services/ngshare/assignments/ml101", token) in (401, 403)
    assert answer(site, "/hub/api/user", token) in (401, 403)
    assert (site.state / "homes" / "dora" / "ml101").is_dir(), "the work of somebody who left stays"
    assert bob.get(f"{bob.home('ml101')}api/kernels/{kernel}").json()["id"] == kernel


def answer(site, path, token):
    return requests.get(site.url + path, headers={"Authorization": f"token {token}"}, timeout=30).status_code


def test_a_new_class_opens_and_the_others_go_on(site):
    grace, text = site.person("grace"), site.classes_yml.read_text()
    before = pids(site)
    (site.folder / "rosters" / "ml301.csv").write_text((site.folder / "rosters" / "ml201.csv").read_text())
    site.classes_yml.write_text(text.rstrip() + "\n\n  - id: ml301\n    title: Evening class\n    instructors: [grace]\n"
                                "    roster: rosters/ml301.csv\n")
    try:
        site.up()
        assert pids(site)["formgrader-ml101"] == before["formgrader-ml101"]
        assert grace.formgrader("ml301", "GET", "assignments").ok
        carol = site.person("carol")
        assert carol.get(f"{carol.start('ml301')}courses").json() == {"success": True, "value": ["ml301"]}      # it has released nothing
    finally:
        site.classes_yml.write_text(text)
        site.up()
    assert "formgrader-ml301" not in site.supervisor("status")
    assert grace.get("/services/ml301/formgrader").status_code in (403, 404, 503)
    assert (site.state / "classes" / "ml301" / "gradebook.db").exists(), "the marks of a class that is over stay"


def test_kill_9_of_every_process_is_mended_without_a_second_up(site):
    bob = site.person("bob")
    home = bob.start("ml101")
    for name in PROGRAMS:
        os.kill(site.pid(name), signal.SIGKILL)
    time.sleep(1)
    site.wait()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not bob.get(f"{home}api/status").ok:
        time.sleep(0.5)
    assert bob.get(f"{home}api/status").ok, "a running server should have survived"
    site.up()


def left_of(site):
    listed = subprocess.run(["ps", "axwwe", "-o", "command="], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if f"{site.state}/" in line]


def test_a_killed_supervisor_is_taken_over_and_kill_9_of_everything_loses_nothing(own_site):
    own_site.up()
    alice = own_site.person("alice")
    home = alice.start("ml101")
    os.kill(int((own_site.state / "run" / "supervisor.pid").read_text()), signal.SIGKILL)
    own_site.up()
    assert alice.get(f"{home}api/status").ok, "a running server should have survived"

    (alice.files("ml101") / "notes.txt").write_text("kept")
    passwords = (own_site.state / "secrets" / "signins.csv").read_text()
    listed = subprocess.run(["ps", "axwwe", "-o", "pid=,command="], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        if f"{own_site.state}/" in line:
            os.kill(int(line.split()[0]), signal.SIGKILL)
    own_site.up()
    assert (own_site.state / "secrets" / "signins.csv").read_text() == passwords
    again = own_site.person("alice")
    again.start("ml101")
    assert again.get(f"{home}api/contents/notes.txt").json()["content"] == "kept"

    [server] = servers(own_site)
    assert server.alive()
    own_site.down()
    assert left_of(own_site) == []
    assert not server.alive()


def servers(site, name="*"):
    """The processes of running servers, of one person or of all."""
    records = [json.loads(file.read_text()) for file in (site.state / "run" / "servers").glob(f"{name}/*.json")]
    return [Process(record["pid"], record["started"]) for record in records]


def test_a_taken_port_is_named_with_the_fix(own_site):
    with socket.create_server(("127.0.0.1", own_site.port + 3)):
        said = refused(own_site.command("up"))
    assert f"port {own_site.port + 3} (exchange) is taken" in said
    assert "give site.url in classes.yml another port" in said


def test_a_broken_classes_yml_is_named_with_line_and_fix(own_site):
    text = own_site.classes_yml.read_text().replace("instructors:", "instructers:", 1)
    own_site.classes_yml.write_text(text)
    line = next(n for n, row in enumerate(text.splitlines(), 1) if "instructers" in row)
    said = refused(own_site.command("up"))
    assert f"classes.yml:{line}" in said
    assert "instructors" in said
    assert not own_site.state.exists()


def test_a_broken_classes_yml_leaves_a_running_site_alone(site):
    before, text = pids(site), site.classes_yml.read_text()
    site.classes_yml.write_text(text.replace("plan: 8", "plan: 9"))
    try:
        assert "plan" in refused(site.command("up"))
    finally:
        site.classes_yml.write_text(text)
    assert pids(site) == before


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path):
    site = Site(tmp_path, change=first_class)
    site.env["TINYTORCH_STATE"] = str(tmp_path / ("long" * 20))
    said = refused(site.command("up"))
    assert "is too long a path, since sockets are made in it" in said
    assert "TINYTORCH_STATE=" in said
    assert not (tmp_path / ("long" * 20)).exists()


def test_a_state_folder_that_cannot_be_made_is_said(tmp_path):
    site = Site(tmp_path, change=first_class)
    (tmp_path / "file").write_text("")
    site.env["TINYTORCH_STATE"] = str(tmp_path / "file" / "state")
    assert f"{tmp_path}/file/state: Not a directory" in refused(site.command("up"))


SOMEBODY = 54321


def test_a_state_of_somebody_else_is_left_alone(tmp_path):
    """As root on an ordinary user's site."""
    need("root", os.geteuid() == 0, "only root can give a folder to somebody else")
    site = Site(tmp_path, change=first_class)
    site.state.mkdir(mode=0o700)
    os.chown(site.state, SOMEBODY, SOMEBODY)
    for command in ("up", "down", "reset", "status", "logs"):
        said = refused(site.command(command))
        assert f"state belongs to user {SOMEBODY}, and you are root: run it as user {SOMEBODY}" in said
    assert list(site.state.iterdir()) == []


def test_an_ordinary_user_on_a_site_of_root_is_told_so(site):
    """With the hub's own packages, and a Python that such a user can read."""
    need("root", os.geteuid() == 0, "only root can become somebody else")
    need("setpriv", shutil.which("setpriv"), "apt-get install util-linux")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    env = {"PYTHONPATH": f"{paths.REPO}:{next((paths.ENVS / 'hub' / 'lib').glob('python*'))}/site-packages", "PATH": "/usr/bin:/bin",
           "TINYTORCH_STATE": "/var/tmp/tinytorch-of-root", "TINYTORCH_CLASSES": str(site.classes_yml)}
    prefix = ["setpriv", "--reuid", str(SOMEBODY), "--regid", str(SOMEBODY), "--clear-groups"]
    python = next((each for each in (str(paths.env_bin("hub", "python")), f"/usr/bin/python{version}") if subprocess.run(
        [*prefix, each, "-c", "import hub.up"], cwd=paths.REPO, env=env, capture_output=True).returncode == 0), None)
    need(f"a Python {version} and a checkout that every user can read", python, f"apt-get install python{version}")
    folder = Path(env["TINYTORCH_STATE"])
    folder.mkdir(mode=0o700)
    try:
        for command in ("up", "down", "status"):
            done = subprocess.run([*prefix, python, "-m", "hub.up", command], cwd=paths.REPO, env=env, capture_output=True, text=True)
            said = refused(done)
            assert f"{folder} belongs to root, and you are user {SOMEBODY}: run it as root" in said
    finally:
        folder.rmdir()


def test_reset_asks_and_removes_nothing_when_nobody_can_answer(own_site):
    own_site.state.mkdir()
    (own_site.state / "something").write_text("kept")
    assert "nothing was removed" in refused(own_site.command("reset"))
    assert (own_site.state / "something").exists()
    assert own_site.command("reset", "--yes").returncode == 0
    assert not own_site.state.exists()


def test_logs_of_an_unknown_process_lists_the_known_ones(site):
    assert "there is no log of nothing; there are: autograder" in refused(site.command("logs", "nothing"))
