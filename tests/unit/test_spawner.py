"""A person's server: who may have one, what it sees and may use, how it starts, fails, survives the hub and ends."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from tornado.web import HTTPError

from autograder.sandbox.processes import bubblewrap
from hub import paths, visits
from hub.config.site import Site
from hub.spawning import homes, limits, processes, servers, spawner
from hub.spawning.processes import Process
from tests import student_server
from tests.conftest import isolation
from tests.need import need

SINGLE_USER = paths.REPO / "hub" / "single_user"
USER_PYTHON = paths.env_bin("user", "python")

# What a trial server does before it answers like a Jupyter server; `seen` is where its home can be read afterwards.
SERVE = """
import http.server, json, os, pathlib, signal, subprocess, sys, time
from urllib.parse import urlsplit
home = pathlib.Path.home()
{before}
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
    def log_message(self, *arguments): pass
http.server.HTTPServer(("127.0.0.1", urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"]).port), Answer).serve_forever()
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """A site's data of its own."""
    for name in ("RUN", "LOGS", "HOMES", "HUB", "SECRETS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    return tmp_path


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """Make the spawner start a small program instead of JupyterLab: trial(python source that runs before it answers)."""
    def settings(before: str = "") -> None:
        folder = tmp_path / "settings"
        folder.mkdir(exist_ok=True)
        (folder / "start.py").write_text(SERVE.format(before=textwrap.dedent(before)))
        monkeypatch.setattr(spawner, "SETTINGS", folder)
    need("the environment user", USER_PYTHON.exists(), "run make up")
    return settings


@pytest.fixture
def sandbox():
    said = isolation()
    need("bubblewrap", not said, said)


@pytest.fixture
def site():
    return Site.load(Site.example_path)


@pytest.fixture
def started():
    """Start servers, and end those that the test has left."""
    left = []

    def start(server):
        left.append(server)
        asyncio.run(server.start())
        return server

    yield start
    for server in left:
        asyncio.run(server.stop(now=True))


# --------------------------------------------------------------------------------------------- who
@pytest.mark.parametrize(("user", "class_id", "words"), [
    ("alice", "", "Choose a class on the home page"),
    ("bob", "ml201", "not in a class named ml201. Your classes: ml101"),
    ("mallory", "ml101", "in no class yet"),
    ("ada", "ml101", "in no class yet"),
])
def test_nobody_gets_a_server_of_another_class(user, class_id, words):
    server = student_server.make(user=user, class_id=class_id)
    with pytest.raises(spawner.Refused) as refused:
        asyncio.run(server.start())
    assert refused.value.status_code == 403
    assert words in refused.value.jupyterhub_message
    assert not paths.HOMES.exists()
    assert not server.file.exists()


def test_staff_and_students_get_their_own_settings():
    student, staff = student_server.make(user="alice"), student_server.make(user="grace")
    assert student.get_env()["JUPYTER_CONFIG_PATH"] == "/opt/settings/student:/opt/settings"
    assert staff.get_env()["JUPYTER_CONFIG_PATH"] == "/opt/settings/staff:/opt/settings"


# --------------------------------------------------------------------------------------------- what it is told
def test_no_token_on_the_command_line_and_nothing_of_the_hubs_environment(monkeypatch, sandbox):
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "of-the-proxy")
    monkeypatch.setenv("PYTHONPATH", "/of/the/hub")
    server = student_server.make()
    env = server.get_env()
    assert env["JUPYTERHUB_API_TOKEN"] == student_server.TOKEN
    assert student_server.TOKEN not in " ".join(server.command(env))
    assert "CONFIGPROXY_AUTH_TOKEN" not in env
    assert env["PYTHONPATH"] == "/opt/tinytorch"
    assert env["COURSE_ID"] == "ml101"
    assert env["TINYTORCH_WORKSPACE"] == env["HOME"] == "/home/student"


def test_an_unsandboxed_server_uses_the_real_folders():
    server = student_server.make(isolated=False)
    env = server.get_env()
    assert env["HOME"] == str(paths.home("alice", "ml101"))
    assert server.command(env)[:2] == [str(USER_PYTHON), str(SINGLE_USER / "start.py")]
    assert "JUPYTER_RUNTIME_DIR" not in env


# --------------------------------------------------------------------------------------------- home
def test_a_home_is_made_once_and_never_overwritten():
    home = homes.prepare("alice", "ml101", "Machine learning", staff=False)
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / ".tito").is_dir()
    assert (home / "modules" / "source").is_dir()
    (home / "Welcome.md").write_text("mine")
    homes.prepare("alice", "ml101", "Machine learning", staff=False)
    assert (home / "Welcome.md").read_text() == "mine"


def test_a_half_made_home_is_completed():
    paths.home("alice", "ml101").with_name(".ml101.new").mkdir(parents=True)
    home = homes.prepare("alice", "ml101", "Machine learning", staff=True)
    assert "formgrader" in (home / "Welcome.md").read_text()
    assert [entry.name for entry in home.parent.iterdir()] == ["ml101"]


# --------------------------------------------------------------------------------------------- what it sees
def test_a_sandboxed_server_sees_its_home_and_nothing_of_the_site(trial, started, sandbox, state):
    bobs = homes.prepare("bob", "ml101", "Machine learning", staff=False)
    (bobs / "work.txt").write_text("secret")
    paths.SECRETS.mkdir()
    (paths.SECRETS / "tokens.json").write_text("{}")
    hidden = [bobs, bobs.parent, paths.HOMES, paths.SECRETS, paths.RUN, paths.LOGS, state, paths.REPO / "hub", paths.REPO / "course",
              paths.REPO / "build" / "source", paths.REPO / ".git", Path("/etc/shadow")]
    trial(f"""
    def tried(path):
        try:
            pathlib.Path(path, "probe").write_text("x")
            return True
        except OSError:
            return False
    seen = {{
        "found": [path for path in {[str(path) for path in hidden]!r} if os.path.exists(path)],
        "written": [path for path in ["/", "/opt/tinytorch", "/opt/settings", "/usr", "/etc", sys.prefix] if tried(path)],
        "home": tried(home), "tmp": os.listdir("/tmp"), "edition": os.path.exists("/opt/tinytorch/tinytorch/__init__.py"),
        "processes": [name for name in os.listdir("/proc") if name.isdigit()], "uid": os.getuid(),
        "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")],
    }}
    (home / "seen.json").write_text(json.dumps(seen))
    """)
    need("the student edition", (paths.STUDENT_EDITION / "tinytorch").is_dir(), "run make build")
    server = started(student_server.make())
    seen = json.loads((paths.home("alice", "ml101") / "seen.json").read_text())
    assert seen["found"] == []
    assert seen["written"] == []
    assert seen["home"]
    assert seen["edition"]
    lies_there = str(paths.REPO)                              # a checkout below /tmp is mounted there
    assert [name for name in seen["tmp"] if not lies_there.startswith(f"/tmp/{name}/")] == []
    assert len(seen["processes"]) <= 3                        # the sandbox's first process, this one, no others
    assert seen["uid"] == bubblewrap.INNER_UID
    assert seen["capabilities"] == ["0000000000000000"]
    assert server.log_file.stat().st_mode & 0o777 == 0o600


def test_a_running_server_keeps_its_edition_when_the_next_is_built(trial, started, sandbox, tmp_path, monkeypatch):
    edition = tmp_path / "edition"
    (edition / "tinytorch").mkdir(parents=True)
    (edition / "tinytorch" / "version.py").write_text("first")
    monkeypatch.setattr(paths, "STUDENT_EDITION", edition)
    trial("""
    def tell(*arguments):
        (home / "told").write_text(open("/opt/tinytorch/tinytorch/version.py").read())
    signal.signal(signal.SIGUSR1, tell)
    """)

    def version(server):
        told = paths.home("alice", server.name) / "told"
        told.unlink(missing_ok=True)
        processes.served(servers.read(server.file).root).signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return told.read_text()

    old = started(student_server.make())
    shutil.rmtree(edition)
    (edition / "tinytorch").mkdir(parents=True)
    (edition / "tinytorch" / "version.py").write_text("second")
    new = started(student_server.make(class_id="ml201"))
    assert (version(old), version(new)) == ("first", "second")
    asyncio.run(old.stop(now=True))
    asyncio.run(new.stop(now=True))
    started(student_server.make())
    assert len(list((paths.RUN / "editions").iterdir())) == 1


# --------------------------------------------------------------------------------------------- start and failure
def test_the_real_server_starts_with_the_students_extensions_only(started, sandbox):
    need("the environment user", USER_PYTHON.exists(), "run make up")
    need("the student edition", paths.STUDENT_EDITION.is_dir(), "run make build")
    with student_server.hub_api() as api:
        server = started(student_server.make(api))
        url = f"http://127.0.0.1:{server.port}/user/alice/ml101/"
        asks = requests.Session()
        asks.headers["Authorization"] = f"token {student_server.TOKEN}"
        status = {path: asks.get(url + path, timeout=30).status_code for path in (
            "lab", "api/terminals", "formgrader", "formgraders", "nbgrader_version?version=0.9.6", "lsp/status", "tree")}
        assert status == {"lab": 200, "api/terminals": 200, "formgrader": 404, "formgraders": 404,
                          "nbgrader_version?version=0.9.6": 200, "lsp/status": 404, "tree": 404}
        listed = asks.get(url + "assignments", params={"course_id": "ml101"}, timeout=30).json()
        assert "The exchange" in listed["value"]                                                      # there is none here
        empty = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        file = asks.put(url + "api/contents/x.ipynb", json={"type": "notebook", "content": empty}, timeout=30)
        assert file.status_code == 201
        checked = asks.post(url + "assignments/validate", json={"path": "x.ipynb"}, timeout=60).json()
        assert checked["success"], checked
        assert requests.get(url + "lab", timeout=30, allow_redirects=False).status_code == 302       # to the hub's sign-in
        assert student_server.TOKEN not in server.log_file.read_text()


@pytest.mark.parametrize("isolated", [True, False])
def test_a_failed_start_shows_the_end_of_its_own_log_without_tokens(trial, isolated):
    if isolated:
        said = isolation()
        need("bubblewrap", not said, said)
    trial(f"print('token={student_server.TOKEN} {student_server.TOKEN} <b>'); sys.exit('ImportError: no module named x')")
    server = student_server.make(isolated=isolated)
    server.log_file.parent.mkdir(parents=True)
    server.log_file.write_text("of an earlier start\n")
    with pytest.raises(spawner.Refused) as refused:
        asyncio.run(server.start())
    shown = refused.value.jupyterhub_html_message
    assert "ended while it was starting" in shown
    assert "ImportError: no module named x" in shown
    assert "&lt;b&gt;" in shown
    assert student_server.TOKEN not in shown
    assert "earlier" not in shown
    asyncio.run(server.stop())
    assert asyncio.run(server.poll()) == 0


def test_a_start_that_cannot_happen_says_why():
    paths.HOMES.parent.mkdir(exist_ok=True)
    paths.HOMES.write_text("a file where the folder of the homes should be")
    with pytest.raises(spawner.Refused, match="could not be started: Not a directory"):
        asyncio.run(student_server.make().start())


def test_progress_is_told_as_it_changes(trial):
    trial("time.sleep(0.6)")
    server = student_server.make(isolated=False)

    async def watch():
        server._spawn_pending = True
        starting = asyncio.ensure_future(server.start())
        events = []
        async for event in server.progress():
            events.append(event)
            server._spawn_pending = not starting.done()
        await server.stop(now=True)
        return events

    events = asyncio.run(watch())
    assert [event["message"] for event in events[:2]] == ["Preparing your workspace", "Starting JupyterLab"]
    assert [event["progress"] for event in events] == sorted(event["progress"] for event in events)


# --------------------------------------------------------------------------------------------- running and ending
BROOD = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
for sleeper in range(2):
    subprocess.Popen(["sleep", "300"], start_new_session=True)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.execvp("sleep", ["sleep", "301"])
    os._exit(0)
os.wait()
"""


def test_a_new_hub_finds_the_server_and_ends_all_of_it(trial, started, sandbox, monkeypatch):
    monkeypatch.setattr(servers, "GRACE", 0.5)
    trial(BROOD)
    first = started(student_server.make())
    everything = processes.tree(servers.read(first.file).root)
    assert len(everything) >= 6                               # two of bwrap, the server, two children, one that ran away
    second = student_server.make()                            # as after a restart of the hub: no handle, only the record
    assert asyncio.run(second.poll()) is None
    asyncio.run(second.stop())
    assert not [process for process in everything if process.alive()]
    assert asyncio.run(second.poll()) == 0
    assert not second.file.exists()


def test_what_runs_on_after_a_crash_is_ended(trial, started, sandbox):
    trial(BROOD)
    server = started(student_server.make())
    everything = processes.tree(servers.read(server.file).root)
    os.kill(processes.served(servers.read(server.file).root).pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while asyncio.run(server.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes.wait(everything, 5)


def test_a_server_without_sandbox_ends_with_its_children(trial, started, monkeypatch):
    monkeypatch.setattr(servers, "GRACE", 0.5)
    trial("""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    """)
    server = started(student_server.make(isolated=False))
    everything = processes.tree(servers.read(server.file).root)
    assert len(everything) == 2
    asyncio.run(server.stop())
    assert not [process for process in everything if process.alive()]


def test_all_servers_are_ended_without_a_hub(trial, started, monkeypatch):
    trial("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    roots = [servers.read(started(student_server.make(isolated=False, class_id=class_id)).file).root for class_id in ("ml101", "ml201")]
    assert servers.end_all(grace=0.5) == []
    assert not [root for root in roots if root.alive()]
    assert not list(servers.files())


def test_a_well_behaved_server_may_save_before_it_ends(trial, started):
    trial("""
    def save(*arguments):
        (home / "saved").write_text("yes")
        os._exit(0)
    signal.signal(signal.SIGTERM, save)
    """)
    server = started(student_server.make(isolated=False))
    asyncio.run(server.stop())
    assert (paths.home("alice", "ml101") / "saved").exists()


def test_a_start_ends_what_a_killed_hub_left(trial, started, sandbox):
    trial()
    left = started(student_server.make())                     # its hub was killed before it noted the server anywhere else
    root = servers.read(left.file).root
    again = started(student_server.make())
    assert not root.alive()
    assert asyncio.run(again.poll()) is None


def test_a_pid_that_belongs_to_somebody_else_now_is_left_alone():
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        server = student_server.make()
        server.file.parent.mkdir(parents=True)
        server.file.write_text(json.dumps({"pid": stranger.pid, "started": "long ago"}))
        assert asyncio.run(server.poll()) == 0
        asyncio.run(server.stop())
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_the_log_is_put_aside_when_it_is_large(trial, started):
    trial()
    server = student_server.make(isolated=False)
    server.log_file.parent.mkdir(parents=True)
    server.log_file.write_bytes(b"x" * (spawner.LOG_BYTES + 1))
    started(server)
    assert server.log_file.stat().st_size < 1000
    assert server.log_file.with_suffix(".1.log").stat().st_size > spawner.LOG_BYTES


# --------------------------------------------------------------------------------------------- limits
SMALL = SimpleNamespace(cpu=1, memory_mb=256, pids=64, disk_mb=1)


def limited(code: str, rlimits: dict[str, int], enter=None) -> subprocess.CompletedProcess[str]:
    """Run code as start.py does: resource limits first."""
    need("the environment user", USER_PYTHON.exists(), "run make up")
    program = f"import sys; sys.path.insert(0, {str(SINGLE_USER)!r}); import start; start.set_limits()\n" + textwrap.dedent(code)
    return subprocess.run([str(USER_PYTHON), "-c", program], env={"TINYTORCH_RLIMITS": json.dumps(rlimits), "PATH": "/usr/bin:/bin"},
                          capture_output=True, text=True, timeout=60, preexec_fn=enter)


def test_resource_limits_bound_memory_and_files_and_leave_numpy_alone(tmp_path):
    done = limited(f"""
    import numpy as np
    print(int((np.ones((200, 200)) @ np.ones((200, 200))).sum()))
    try:
        np.ones(100_000_000)
    except MemoryError:
        print("memory")
    try:
        open({str(tmp_path / 'large')!r}, "wb").write(bytes(2 * 2**20))
    except OSError:
        print("file")
    """, limits.of_each_process(SMALL, in_cgroup=False, in_user_namespace=False))
    assert done.stdout.split() == ["8000000", "memory", "file"], done.stderr
    assert (tmp_path / "large").stat().st_size <= 2**20


def test_processes_are_bounded_where_their_number_is_the_servers_own():
    inside = limits.of_each_process(SMALL, in_cgroup=False, in_user_namespace=True)
    outside = limits.of_each_process(SMALL, in_cgroup=False, in_user_namespace=False)
    assert "NPROC" not in outside                             # there it would count all processes of the machine's user
    assert inside.get("NPROC", 64) == 64
    assert "DATA" not in limits.of_each_process(SMALL, in_cgroup=True, in_user_namespace=True)


def test_a_cgroup_bounds_a_server_and_all_it_starts():
    group = limits.Group(f"test--{os.getpid()}")
    need("a cgroup that can be written", group.make(SMALL), "run as root on a machine whose /sys/fs/cgroup is writable")
    try:
        done = limited("""
        import subprocess, sys
        hog = subprocess.run([sys.executable, "-c", "x = bytearray(400 * 2**20); print('too much')"], capture_output=True, text=True)
        print(hog.returncode, hog.stdout)
        many = []
        try:
            for _ in range(100):
                many.append(subprocess.Popen(["sleep", "30"]))
        except OSError:
            print("pids")
        for one in many:
            one.kill()
        """, limits.of_each_process(SMALL, in_cgroup=True, in_user_namespace=False), group.entry())
        assert done.stdout.split() == ["-9", "pids"], done.stderr
    finally:
        group.remove()
    assert not any(folder.exists() for folder in group.folders)


def test_a_server_has_limits_of_its_own_where_its_cgroup_is_somebody_elses(trial, started, tmp_path, monkeypatch):
    """Left by another user's site, say, which had the same port."""
    monkeypatch.setattr(limits, "CGROUP", tmp_path / "cgroup")
    server = student_server.make()
    for folder in server.group.folders:
        folder.mkdir(parents=True)
        (folder / "cgroup.procs").touch()
        for file in ("memory.limit_in_bytes", "pids.max", "cpu.cfs_period_us"):
            (folder / file).mkdir()                           # nobody can write to it, root neither
    trial('(home / "limits.json").write_text(os.environ["TINYTORCH_RLIMITS"])')
    started(server)
    told = json.loads((paths.home("alice", "ml101") / "limits.json").read_text())
    assert told["DATA"] == server.class_.limits.memory_mb * 2**20
    assert servers.read(server.file).group == ""
    assert all((folder / "cgroup.procs").exists() for folder in server.group.folders)


# --------------------------------------------------------------------------------------------- processes
def test_a_process_is_known_by_its_start():
    child = subprocess.Popen(["sleep", "60"])
    process = processes.identify(child.pid)
    assert process.alive()
    assert process in processes.tree(processes.identify(os.getpid()))
    assert not Process(child.pid, "another").signal(signal.SIGKILL)
    processes.kill([process])
    assert processes.wait([process], 5)                       # a zombie counts as ended
    child.wait()
    with pytest.raises(ProcessLookupError):
        processes.identify(child.pid)


def test_systems_without_proc_are_asked_through_ps(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "PROC", tmp_path)
    child = subprocess.Popen(["sleep", "60"])
    try:
        process = processes.identify(child.pid)
        assert process.alive()
        assert process in processes.tree(processes.identify(os.getpid()))
    finally:
        child.kill()
        child.wait()
    assert not process.alive()


# --------------------------------------------------------------------------------------------- where people land
def person(name: str, **ready: bool) -> SimpleNamespace:
    servers = {class_id: SimpleNamespace(ready=up, pending=None) for class_id, up in ready.items()}
    return SimpleNamespace(name=name, escaped_name=name, url=f"/user/{name}/", spawners=servers)


def handler(user: object, *arguments: str) -> SimpleNamespace:
    return SimpleNamespace(current_user=user, hub=SimpleNamespace(base_url="/hub/"), path_args=list(arguments), path_kwargs={})


@pytest.mark.parametrize(("name", "url"), [
    ("bob", "/hub/user-redirect/ml101"),     # a student's only class
    ("alice", "/hub/home"),                  # two classes
    ("gus", "/hub/home"),                    # staff of one class choose between notebooks and formgrader
    ("ada", "/hub/home"),
])
def test_only_a_student_of_one_class_skips_the_home_page(site, name, url):
    assert visits.Visits(site, True).landing(handler(person(name))) == url


def test_nobody_lands_at_the_sign_in(site):
    assert visits.Visits(site, True).landing(handler(None)) == ""


def test_deep_links_start_the_right_server_and_keep_the_file(site):
    visit = visits.Visits(site, True)
    request = SimpleNamespace(query="")
    stopped = visit.deep_link("ml201/lab/tree/modules/a b.ipynb", request, person("alice"), "/")
    assert stopped == "/hub/spawn/alice/ml201?next=%2Fuser%2Falice%2Fml201%2Flab%2Ftree%2Fmodules%2Fa%2520b.ipynb"
    running = visit.deep_link("ml201/lab", request, person("alice", ml201=True), "/")
    assert running == "/user/alice/ml201/lab"
    with pytest.raises(spawner.Refused):
        visit.deep_link("ml201/lab", request, person("bob"), "/")


def test_a_first_visit_opens_the_welcome(site):
    visit, request = visits.Visits(site, True), SimpleNamespace(query="")
    assert visit.deep_link("ml101", request, person("bob", ml101=True), "/") == "/user/bob/ml101/lab/tree/Welcome.md"
    homes.prepare("bob", "ml101", "Machine learning", staff=False)
    assert visit.deep_link("ml101", request, person("bob", ml101=True), "/") == "/user/bob/ml101/lab"


def test_servers_named_after_no_class_are_refused_before_they_exist(site):
    visit = visits.Visits(site, True)
    assert visit.refuse_other_servers(handler(person("alice"), "alice", "ml201")) == 2
    assert visit.refuse_other_servers(handler(person("alice"))) == 2
    for owner, server in (("alice", "mine"), ("bob", "ml201")):
        with pytest.raises(spawner.Refused):
            visit.refuse_other_servers(handler(person("alice"), owner, server))


def test_the_home_page_shows_ones_own_classes_and_their_state(site):
    visit = visits.Visits(site, True)
    assert [(card["id"], card["formgrader"], card["state"]) for card in visit.cards(person("alice", ml101=True))] == [
        ("ml101", "", "running"), ("ml201", "", "stopped")]
    assert [card["formgrader"] for card in visit.cards(person("grace"))] == [f"/services/{name}/formgrader" for name in ("ml101", "ml201")]
    assert visit.cards(None) == visit.cards(SimpleNamespace(kind="service", name="ngshare")) == []


# --------------------------------------------------------------------------------------------- inside the server
def in_a_server(code, folder, **env):
    """Run code in the students' environment after the imports that every server begins with; the words it prints."""
    need("the environment user", USER_PYTHON.exists(), "run make up")
    before = f"import sys; sys.path.insert(0, {str(SINGLE_USER)!r}); import start; start.postpone_setuptools(); start.import_server()\n"
    done = subprocess.run([str(USER_PYTHON), "-c", before + textwrap.dedent(code)], cwd=folder, capture_output=True, text=True, timeout=60,
                          env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "USER": "alice", **env})
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_start_imports_no_setuptools_and_asks_no_node(tmp_path):
    node = tmp_path / "node"
    node.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    node.chmod(0o755)
    assert in_a_server("""
        import tarfile, nbgrader.utils
        print("setuptools" in sys.modules)
        with tarfile.open("x.tar", "w") as archive: archive.add("node")
        nbgrader.utils.unpack_archive("x.tar", "unpacked")
        print("setuptools" in sys.modules)
        """, tmp_path, PATH=f"{tmp_path}:/usr/bin:/bin") == ["False", "True"]
    assert (tmp_path / "unpacked" / "node").exists()
    assert not (tmp_path / "asked").exists()


def test_the_start_imports_nothing_of_the_hubs_and_whoever_needs_it_gets_the_real_thing(tmp_path):
    assert in_a_server("""
        unused = {"sqlalchemy", "alembic", "jupyterhub.orm", "jupyterhub.handlers.pages", "httpx", "requests", "nbgrader", "nbconvert"}
        print(len(unused & set(sys.modules)))
        from jupyterhub import scopes
        from jupyterlab import extensions, labapp
        mine, others = {"access:servers!server=alice/ml101"}, {"access:servers!user=alice"}
        print(*scopes._intersect_expanded_scopes(mine, others))
        print(scopes.orm.User.__module__, scopes.sa.inspect.__module__.split(".")[0], scopes.roles.get_default_roles.__module__)
        print(type(extensions.get_pypi_manager()).__name__, "httpx" in sys.modules)
        import requests, jupyterhub.orm, sqlalchemy.exc
        print(*(module.__file__.endswith(".py") for module in (requests, jupyterhub.orm, sqlalchemy.exc)))
        """, tmp_path) == ["0", "access:servers!server=alice/ml101", "jupyterhub.orm", "sqlalchemy", "jupyterhub.roles",
                          "PyPIExtensionManager", "True", "True", "True", "True"]


def test_the_assignment_list_is_imported_when_it_is_asked_for_and_without_the_gradebook(tmp_path):
    assert in_a_server("""
        import nbgrader_pages
        from tornado import web
        from tornado.httputil import HTTPConnection, HTTPServerRequest, RequestStartLine
        from traitlets.config import LoggingConfigurable

        class App(LoggingConfigurable):
            web_app, base_url, root_dir = web.Application(base_url="/"), "/", "."

        nbgrader_pages._load_jupyter_server_extension(App())

        for path in ("/assignment", "/assignments", "/assignments/submit", "/assignments/validate", "/nbgrader_version", "/assignments/x"):
            line = RequestStartLine("GET", path, "HTTP/1.0")
            answers = App.web_app.find_handler(HTTPServerRequest(start_line=line, connection=HTTPConnection()))
            print("nbgrader" in sys.modules, answers.handler_class.__name__)
        print(type(App.web_app.settings["assignment_list_manager"]).__name__, "sqlalchemy" in sys.modules)
        from nbgrader.apps import dbapp
        print(dbapp.Student(id="bob").id, "sqlalchemy" in sys.modules)
        """, tmp_path) == ["False", "ErrorHandler", "True", "AssignmentListHandler", "True", "AssignmentActionHandler",
                          "True", "ValidateAssignmentHandler", "True", "NbGraderVersionHandler", "True", "ErrorHandler",
                          "ClearAssignmentList", "False", "bob", "True"]


def test_a_folder_is_listed_while_a_file_in_it_gets_its_name(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(SINGLE_USER))
    from jupyter_server.services.contents import filemanager
    from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
    from listing import Contents

    plain_lstat = os.lstat

    def lstat_then_rename(path, **options):
        found = plain_lstat(path, **options)
        if str(path).endswith("Untitled.ipynb"):
            os.rename(path, tmp_path / "doubling.ipynb")
        return found

    def listed(manager):
        (tmp_path / "doubling.ipynb").unlink(missing_ok=True)
        (tmp_path / "Untitled.ipynb").write_text("{}")
        with monkeypatch.context() as patched:
            patched.setattr(filemanager, "os", SimpleNamespace(**{**vars(os), "lstat": lstat_then_rename}))
            return [each["name"] for each in asyncio.run(manager(root_dir=str(tmp_path)).get(""))["content"]]

    with pytest.raises(HTTPError, match="404"):                # what Jupyter's own says, for as long as it does
        listed(AsyncLargeFileManager)
    assert listed(Contents) == ["doubling.ipynb"]
    with pytest.raises(HTTPError, match="404"):
        asyncio.run(Contents(root_dir=str(tmp_path)).get("nowhere"))


def watch_of(monkeypatch, *states: str, terminals: dict[str, int] | None = None):
    monkeypatch.syspath_prepend(str(SINGLE_USER))
    from busy_is_active import Watch

    kernels = {str(i): SimpleNamespace(execution_state=state) for i, state in enumerate(states)}
    manager = SimpleNamespace(list_kernel_ids=lambda: list(kernels), get_kernel=kernels.get)
    shells = {name: SimpleNamespace(ptyproc=SimpleNamespace(pid=pid)) for name, pid in (terminals or {}).items()}
    settings = {"terminal_manager": SimpleNamespace(terminals=shells)}
    return Watch(SimpleNamespace(kernel_manager=manager, web_app=SimpleNamespace(settings=settings))), settings


@pytest.mark.parametrize(("states", "active"), [((), False), (("idle",), False), (("idle", "busy"), True)])
def test_a_busy_kernel_keeps_its_server(monkeypatch, states, active):
    watch, settings = watch_of(monkeypatch, *states)
    watch.look()
    assert ("work_last_activity" in settings) == active
    if active:
        assert abs((datetime.now(UTC) - settings["work_last_activity"]).total_seconds()) < 5


def test_a_computing_terminal_keeps_its_server_and_a_waiting_one_does_not(monkeypatch):
    sleeping = subprocess.Popen(["sh", "-c", "sleep 60; true"])
    working = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        watch, settings = watch_of(monkeypatch, terminals={"1": sleeping.pid})
        watch.look()
        assert "work_last_activity" not in settings
        watch, settings = watch_of(monkeypatch, terminals={"1": working.pid})
        deadline = time.monotonic() + 20
        while "work_last_activity" not in settings and time.monotonic() < deadline:
            watch.used = {}
            watch.look()
            time.sleep(0.2)
        assert "work_last_activity" in settings
    finally:
        for each in (sleeping, working):
            each.kill()
            each.wait()
