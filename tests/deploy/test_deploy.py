"""`make deploy` on a bare machine over SSH: the site over HTTPS, watched by Prometheus, nothing changed the second time, an upgrade,
a backup put back after everything was wiped, a killed engine, a power cut.

TINYTORCH_TEST_SUITE names the release on the machine (bookworm); TINYTORCH_TEST_DATABASE=postgresql puts accounts and jobs on a
database server on another machine. `make test-deploy SUITE=trixie DATABASE=postgresql` sets them.
"""

import json
import os
import socket
import subprocess
import time

import pytest
import yaml

from hub import paths
from tests.deploy import bare_host
from tests.deploy.debian import bare_debian
from tests.docker_site import docker, images, need_docker
from tests.need import need
from tests.running import solve

pytestmark = [pytest.mark.docker, pytest.mark.deployment, pytest.mark.timeout(1800)]
NAMES = ("hub", "proxy", "exchange", "autograder", "grader", "student", "caddy", "monitoring")
SUITE = os.environ.get("TINYTORCH_TEST_SUITE") or "bookworm"
DATABASE = os.environ.get("TINYTORCH_TEST_DATABASE") or "sqlite"
CLASS, ASSIGNMENT = "ml101", "02_tensor"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A bare machine that was deployed to once; what that said is in `host.first` and `host.trial`."""
    need_docker()
    need("an SSH client", bare_host.can_make_hosts(), "apt-get install openssh-client")
    folder = tmp_path_factory.mktemp("admin")
    prefix, version = images()
    bundle = tmp_path_factory.mktemp("bundle") / "images.tar"
    docker("save", "-o", str(bundle), *(f"{prefix}{name}:{version}" for name in NAMES), timeout=600)
    base = bare_debian(tmp_path_factory, SUITE)
    database = bare_host.DatabaseHost(base) if DATABASE == "postgresql" else None
    made = bare_host.Host(folder, base, bundle, version, database)
    patch = pytest.MonkeyPatch()
    patch.setattr(socket, "getaddrinfo", bare_host.by_name(made))
    for name in ("REQUESTS_CA_BUNDLE", "WEBSOCKET_CLIENT_CA_BUNDLE"):
        patch.setenv(name, "")
    try:
        made.trial, _ = made.succeeds("deploy", "CHECK=1")
        if database:
            stopped = made.make("deploy")
            assert stopped.returncode != 0
            assert "there is no password for" in stopped.stdout, stopped.stdout[-3000:]
            made.run(f"install -D -m 600 /dev/stdin {made.state}/secrets/database_password <<'END'\n{database.password}\nEND")
        made.first, _ = made.succeeds("deploy")
        made.trust()
        yield made
    finally:
        patch.undo()
        made.remove()
        if database:
            database.remove()


@pytest.fixture(scope="module")
def marked(host):
    """alice has solved an assignment and it is graded; her server runs."""
    grace, alice = host.person("grace"), host.person("alice")
    for step in ("assign", "release"):
        assert grace.formgrader(CLASS, "POST", f"assignment/{ASSIGNMENT}/{step}").json()["success"]
    alice.start(CLASS)
    assert alice.act(CLASS, "fetch", ASSIGNMENT)["success"]
    place = f"{alice.home(CLASS)}api/contents/modules/source/{ASSIGNMENT}"
    [name] = [entry["name"] for entry in alice.get(place).json()["content"] if entry["name"].endswith(".ipynb")]
    local = host.folder / name
    local.write_text(json.dumps(alice.get(f"{place}/{name}").json()["content"]))
    solve(local, paths.BUILD / "source" / ASSIGNMENT / name, lambda grade_id: "matmul" in grade_id)
    saved = alice.send("PUT", f"{place}/{name}", json={"type": "notebook", "format": "json", "content": json.loads(local.read_text())})
    assert saved.ok, saved.text
    assert alice.act(CLASS, "submit", ASSIGNMENT)["success"]
    assert grace.formgrader(CLASS, "POST", f"assignment/{ASSIGNMENT}/collect").json()["success"]
    graded = grace.formgrader(CLASS, "POST", f"submission/{ASSIGNMENT}/alice/autograde").json()
    assert graded["success"], graded
    return alice


def marks(host):
    [row] = [row for row in host.person("grace").formgrader(CLASS, "GET", f"submissions/{ASSIGNMENT}").json() if row["student"] == "alice"]
    return row["code_score"], row["max_code_score"]


def modules_of_alice(host):
    """Digests of her files."""
    home = f"/var/lib/docker/volumes/tinytorch-home-alice--{CLASS}/_data"
    return host.run(f"cd {home} && find modules -type f | sort | xargs -d '\\n' sha256sum")


def container_of(host, name="alice"):
    return host.run(f"docker inspect --format '{{{{.Id}}}} {{{{.State.Pid}}}}' tinytorch-{CLASS}--{name}").strip()


def test_a_trial_run_on_a_bare_machine_changes_nothing_and_says_what_would_be(host):
    assert "Docker would be installed" in host.trial


@pytest.mark.parametrize(("changed", "seen", "fix"), [
    ({"ansible_ssh_private_key_file": "another"}, "Permission denied", "ssh-copy-id root@"),
    ({"ansible_ssh_common_args": "-o UserKnownHostsFile=%s -o StrictHostKeyChecking=yes"}, "Host key verification", "ssh-keygen -lf"),
    ({"ansible_user": "newcomer"}, "Permission denied", "ssh-copy-id newcomer@")], ids=["key", "host key", "user"])
def test_a_host_that_does_not_let_us_in_is_told_with_what_to_look_at(host, changed, seen, fix):
    another = host.folder / "another"
    if not another.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(another)], check=True)
    known = host.folder / "known_hosts"                      # under this address another key is known: somebody else answers
    known.write_text(f"{host.address} {another.with_suffix('.pub').read_text()}")
    inventory = host.folder / "inventory.yml"
    said = json.loads(inventory.read_text())
    entry = said["tinytorch"]["hosts"]["host"]
    for name, value in changed.items():
        entry[name] = str(another) if value == "another" else value.replace("%s", str(known))
    entry["ansible_ssh_common_args"] += " -o ControlPath=none"          # else a connection that is still open would do
    inventory.write_text(json.dumps(said))
    try:
        refused = host.make("deploy")
    finally:
        host.write()
    assert refused.returncode != 0
    told = " ".join(refused.stdout.replace("''", "'").split())
    assert "host cannot be reached, so nothing was done there" in told
    assert seen in told
    assert fix in told


def test_the_site_is_served_over_https_only(host):
    import requests
    assert f"{host.url} is ready" in host.first
    for done in ("the autograder can isolate student code", "ran a notebook in it"):
        assert done in host.first
    plain = requests.get(f"http://{bare_host.NAME}/hub/login", allow_redirects=False, timeout=10)
    assert plain.status_code == 308
    assert plain.headers["Location"] == f"{host.url}/hub/login"
    page = requests.get(f"{host.url}/hub/login", timeout=10)
    assert "max-age=15552000" in page.headers["Strict-Transport-Security"]
    assert all(cookie.secure for cookie in page.cookies)
    large = requests.post(f"{host.url}/hub/login", data=b"x" * (51 * 2**20), timeout=60)
    assert large.status_code == 413
    assert "50M" in large.text


def test_nothing_of_the_health_check_is_left(host):
    assert "health-check" not in host.run("docker ps -a --format '{{.Names}}'; docker volume ls -q")
    signed_in = bare_host.running.Person(host, "health-check", "anything-at-all")
    assert signed_in.signed_in.status_code != 302


def test_a_second_run_changes_nothing_and_a_running_server_goes_on(host, marked):
    before = container_of(host)
    for words in (["deploy"], ["deploy", "CHECK=1"]):
        _, changed = host.succeeds(*words)
        assert changed == 0
    assert container_of(host) == before


def test_accounts_and_jobs_are_where_classes_yml_says(host, marked):
    files = host.run(f"ls {host.state}/hub/jupyterhub.sqlite {host.state}/autograder/jobs.sqlite 2>/dev/null || true").split()
    if not host.database:
        assert len(files) == 2
        return
    assert not files
    assert int(host.database.sql("SELECT count(*) FROM users WHERE name = 'alice'", "hub")) == 1
    assert int(host.database.sql("SELECT count(*) FROM autograder.jobs WHERE state = 'done'", "hub")) > 0
    assert host.database.sql("SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'tinytorch'") == "t"
    assert host.database.password not in host.run("docker inspect $(docker ps -aq); cat /opt/tinytorch/*.yml /opt/tinytorch/*.json")


SECRETS = """
import csv, json, pathlib
folder = pathlib.Path("/var/lib/tinytorch/secrets")
found = [*json.loads((folder / "tokens.json").read_text()).values(), (folder / "cookie_secret").read_text().strip(),
         *filter(None, (row["password"] for row in csv.DictReader((folder / "signins.csv").open())))]
"""
SEARCH = SECRETS + """
import os, subprocess
def said(*words):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
places = {"docker logs " + name: said("docker", "logs", name) for name in said("docker", "ps", "-aq").decode().split()}
places |= {"docker inspect": said("sh", "-c", "docker inspect $(docker ps -aq) $(docker image ls -q)")}
for root in ("/opt/tinytorch", "/etc/tinytorch", "/etc/systemd", "/etc/cron.d", "/var/log", "/tmp", "/var/tmp", "/root"):
    places |= {str(file): file.read_bytes() for file in pathlib.Path(root).rglob("*") if file.is_file() and not file.is_symlink()}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        places["command of " + pid] = pathlib.Path("/proc", pid, "cmdline").read_bytes()
    except OSError:
        pass
print(json.dumps([len(found), len(places), [name for name, data in places.items() if any(each.encode() in data for each in found)]]))
"""


def test_no_secret_is_in_a_log_a_command_line_or_a_setting(host, marked):
    """After sign-ins, a submission and a grading; and in nothing that a deployment says."""
    secrets, places, leaks = json.loads(host.run(f"python3 - <<'END'\n{SEARCH}\nEND"))
    assert secrets > 10
    assert places > 100
    assert leaks == []
    known = json.loads(host.run(f"python3 - <<'END'\n{SECRETS}\nprint(json.dumps(found))\nEND"))
    assert not [each for each in known if each in host.trial + host.first]


def test_each_image_of_a_class_is_tried(host, marked):
    """One class gets an image of its own, as images/README.md says; alice's server in the other goes on."""
    before = container_of(host)
    recipe = f"FROM tinytorch/student:{host.version}\nUSER root\nRUN touch /opt/ours\nUSER 10001:10001\n"
    host.run(f"printf '{recipe}' | DOCKER_BUILDKIT=0 docker build -q -t course/student:1 -")
    host.write(lambda text: text.replace("    plan: 8\n", "    plan: 8\n    image: course/student:1\n"))
    try:
        said, _ = host.succeeds("deploy")
        assert all(f"started a server in {name}" in said for name in ("ml101", "ml201"))
        marked.start("ml201")
        assert marked.run("ml201", "import os; print(os.path.exists('/opt/ours'))").strip() == "True"
        marked.stop("ml201")
    finally:
        host.write()
    host.succeeds("deploy")
    assert container_of(host) == before


def test_prometheus_reaches_all_parts_and_every_panel_draws_something(host, marked):
    """Grafana is a program of others; what it would ask for is asked of the Prometheus that runs."""
    host.run("/opt/tinytorch/tinytorch-backup create --reason nightly")
    boards = [json.loads(file.read_text()) for file in sorted((paths.REPO / "monitoring" / "dashboards").glob("*.json"))]
    asked = {(board["title"], panel["title"]): [target["expr"] for target in panel["targets"]]
             for board in boards for panel in board["panels"]}
    written = {group["name"]: sorted(rule["alert"] for rule in group["rules"])
               for group in yaml.safe_load((paths.REPO / "monitoring" / "alerts.yml").read_text())["groups"]}
    deadline = time.monotonic() + 180                        # a rate needs two scrapes, the probe comes once a minute
    while True:
        up = {target["labels"]["job"]: target["health"] for target in host.prometheus("targets")["activeTargets"]}
        empty = [panel for panel, queries in asked.items() if not any(host.prometheus("query", query=query)["result"] for query in queries)]
        rules = {group["name"]: group["rules"] for group in host.prometheus("rules")["groups"]}
        # how full the disk of a developer's machine is does not matter here
        wrong = [(rule["name"], rule["health"], rule["state"]) for group in rules.keys() - {"host"} for rule in rules[group]
                 if (rule["health"], rule["state"]) != ("ok", "inactive")]
        if (set(up.values()) == {"up"} and not empty and not wrong) or time.monotonic() > deadline:
            break
        time.sleep(5)
    assert up == dict.fromkeys(("hub", "exchange", "autograder", "node", "prometheus", "probe"), "up")
    assert not empty
    assert not wrong
    assert {name: sorted(rule["name"] for rule in group) for name, group in rules.items()} == written
    assert [each["value"][1] for each in host.prometheus("query", query="probe_success")["result"]] == ["1"]


def test_an_upgrade_leaves_running_servers_alone_and_can_be_taken_back(host, marked):
    before, ids = container_of(host), host.run("docker ps -q --no-trunc")
    for name in NAMES:
        host.run(f"docker tag tinytorch/{name}:{host.version} tinytorch/{name}:next")
    _, would = host.succeeds("deploy", "CHECK=1", version="next")
    assert would > 0
    assert host.run("docker ps -q --no-trunc") == ids
    host.succeeds("deploy", version="next")
    assert "before next" in host.run("/opt/tinytorch/tinytorch-backup list")
    assert host.run("docker ps -q --no-trunc") != ids
    assert container_of(host) == before
    assert marked.run(CLASS, "print(6 * 7)").strip() == "42"
    if host.database:                                        # as if `next` had changed the form of the hub's tables
        host.database.sql("UPDATE alembic_version SET version_num = 'x' || version_num", "hub")
        refused = host.make("rollback")
        assert refused.returncode != 0
        assert "cannot read PostgreSQL (hub)" in refused.stdout
        host.database.sql("UPDATE alembic_version SET version_num = substr(version_num, 2)", "hub")
    host.succeeds("rollback")
    assert json.loads(host.run("cat /opt/tinytorch/release.json")) == {"version": host.version, "worked": [host.version, "next"]}
    assert container_of(host) == before


def test_a_killed_engine_ends_nobodys_server(host, marked):
    before = container_of(host)
    host.run("kill -9 $(cat /var/run/docker.pid)")
    host.wait()
    for _ in range(60):
        if host.run("docker info >/dev/null 2>&1 && echo yes", check=False).strip():
            break
        try:                                                 # the engine answers for names, too: what has to look one up may fail meanwhile
            marked.run(CLASS, "print(6 * 7)")
        except (AssertionError, OSError, ValueError) as refused:
            print(f"while the engine was away: {refused}")
        time.sleep(0.5)
    assert marked.run(CLASS, "print(6 * 7)").strip() == "42"
    assert container_of(host) == before


def test_a_power_cut_is_survived(host, marked):
    score = marks(host)
    host.power_cut()
    for path in ("/hub/health", f"/services/{CLASS}/api", "/services/ngshare/healthz"):
        host.wait(path)
    assert marks(host) == score
    alice = host.person("alice")
    alice.start(CLASS)
    assert alice.run(CLASS, "print(6 * 7)").strip() == "42"


def test_a_restored_site_has_the_same_marks_files_and_sign_ins(host, marked):
    score, password = marks(host), host.password("alice")
    assert score[0] > 0
    files = modules_of_alice(host)
    said, _ = host.succeeds("backup")
    assert "read again and whole" in said
    [file] = list((paths.REPO / "backups" / "host").glob("*.tar.gz"))
    try:
        refused = host.make("restore", f"FROM={file}")
        assert refused.returncode != 0
        assert "REPLACE=1" in refused.stdout
        assert marks(host) == score
        host.succeeds("destroy", "YES=1", "BACKUPS=1")
        said, _ = host.succeeds("deploy", "CHECK=1")         # Docker is there, and nothing of the site
        assert "is ready" not in said
        left = host.run("docker volume ls -q; docker ps -aq; ls -d /var/lib/tinytorch /var/backups/tinytorch 2>/dev/null || true")
        assert not left
        if host.database:
            refused = host.make("restore", f"FROM={file}")
            assert refused.returncode != 0
            assert "tables of postgresql://" in " ".join(refused.stdout.split()), refused.stdout[-3000:]
            host.database.wipe()
        host.succeeds("restore", f"FROM={file}")
    finally:
        file.unlink()
    assert host.password("alice") == password
    assert marks(host) == score
    assert modules_of_alice(host) == files
    alice = host.person("alice")
    alice.start(CLASS)
    assert alice.run(CLASS, "print(6 * 7)").strip() == "42"
