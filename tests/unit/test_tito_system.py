"""`tito system`: each check can fail and then says how to mend it; limits are read from cgroups of both versions."""

import json
import os
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import pytest

from course.tito import blas, doctor, limits
from course.tito.workspace import Workspace


def found(student, **environment) -> tuple[int, dict[str, dict]]:
    shown = student.tito("system", "doctor", "--json", **environment)
    return shown.returncode, {check["name"]: check for check in json.loads(shown.stdout)}


def test_a_healthy_workspace_is_all_in_order(student):
    (student.home / ".tito").mkdir()
    code, checks = found(student)
    assert code == 0
    assert all(check["ok"] for check in checks.values())
    assert list(checks) == ["Python", "NumPy", "BLAS", "notebook tools", "workspace", "exports", "disk"]
    assert checks["NumPy"]["found"] == version("numpy")
    assert "GFLOP/s" in checks["BLAS"]["found"]


def test_a_folder_that_cannot_be_written_fails(student):
    code, checks = found(student, TINYTORCH_WORKSPACE="/proc")
    assert code == 1
    assert not checks["workspace"]["ok"]
    assert "TINYTORCH_WORKSPACE" in checks["workspace"]["cure"]


def test_an_old_python_and_missing_tools_fail(monkeypatch):
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 1))
    assert not doctor.python().ok
    monkeypatch.setitem(doctor.TOOLS, "no-such-tool", "no_such_tool")
    check = doctor.tools()
    assert not check.ok
    assert "no-such-tool" in check.found
    assert check.cure


def test_a_full_disk_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "free_bytes", lambda _: 5 << 20)
    check = doctor.disk(Workspace(tmp_path, "test"))
    assert not check.ok
    assert "5 MiB left" in check.found


def test_a_check_that_breaks_is_a_failed_check(monkeypatch, tmp_path):
    def broken():
        raise ZeroDivisionError("nobody foresaw this")
    monkeypatch.setattr(doctor, "numpy", broken)
    monkeypatch.delenv("JUPYTERHUB_API_URL", raising=False)
    checks = {check.name: check for check in doctor.examine(Workspace(tmp_path, "test"))}
    assert not checks["NumPy"].ok
    assert "nobody foresaw this" in checks["NumPy"].found


# ---------------------------------------------------------------- on a hub

@contextmanager
def service(status: int = 200):
    """A hub and exchange that answer with a status; remembers what was asked with which token."""
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def on_a_hub(url: str) -> dict[str, str]:
    return {"JUPYTERHUB_API_URL": f"{url}/hub/api", "NGSHARE_URL": f"{url}/services/ngshare", "JUPYTERHUB_API_TOKEN": "mine"}


def test_hub_and_exchange_that_answer(student):
    with service() as (url, asked):
        code, checks = found(student, **on_a_hub(url))
    assert code == 0
    assert checks["hub"]["ok"]
    assert checks["exchange"]["ok"]
    assert asked == [("/hub/api/", "token mine"), ("/services/ngshare/courses", "token mine")]


def test_the_autograder_is_asked_with_the_own_token_where_there_is_one(student):
    with service() as (url, asked):
        code, checks = found(student, **on_a_hub(url), AUTOGRADER_URL=f"{url}/services/autograder")
    assert (code, checks["autograder"]["ok"]) == (0, True)
    assert asked[-1] == ("/services/autograder/api/jobs", "token mine")
    with service(403) as (url, _):
        code, checks = found(student, AUTOGRADER_URL=f"{url}/services/autograder")
    assert (code, checks["autograder"]["ok"]) == (1, False)
    assert "restart your server" in checks["autograder"]["cure"]


def test_hub_and_exchange_that_refuse(student):
    with service(403) as (url, _):
        code, checks = found(student, **on_a_hub(url))
    assert code == 1
    assert "403" in checks["hub"]["found"]
    assert "your work is safe" in checks["exchange"]["cure"]


def test_hub_and_exchange_that_are_gone(student):
    code, checks = found(student, **on_a_hub("http://127.0.0.1:9"))
    assert code == 1
    assert "does not answer" in checks["hub"]["found"]
    assert "mine" not in json.dumps(checks), "the token is nobody's business"


def test_a_missing_exchange_address_is_named(student):
    with service() as (url, _):
        code, checks = found(student, JUPYTERHUB_API_URL=f"{url}/hub/api", JUPYTERHUB_API_TOKEN="mine")
    assert code == 1
    assert "NGSHARE_URL is not set" in checks["exchange"]["found"]


# ---------------------------------------------------------------- limits

def tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(("cgroup", "files", "expected"), [
    ("0::/", {"memory.max": "536870912\n", "pids.max": "100\n", "cpu.max": "150000 100000\n"}, {"memory": 2**29, "pids": 100, "cpus": 1.5}),
    ("0::/user/ada",
     {"user/memory.max": "1000", "user/ada/memory.max": "max", "user/ada/pids.max": "max", "user/ada/cpu.max": "max 100000"},
     {"memory": 1000}),
    ("0::/not/visible/in/here", {"memory.max": "2048"}, {"memory": 2048}),
    ("4:memory:/docker/x\n8:pids:/docker/x\n1:cpu,cpuacct:/docker/x\n0::/",
     {"memory/memory.limit_in_bytes": "1073741824", "pids/docker/x/pids.max": "64", "cpu/docker/x/cpu.cfs_quota_us": "50000",
      "cpu/docker/x/cpu.cfs_period_us": "100000"}, {"memory": 2**30, "pids": 64, "cpus": 0.5}),
    ("4:memory:/\n1:cpu:/",
     {"memory/memory.limit_in_bytes": "9223372036854771712", "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, {}),
    ("", {}, {}),
])
def test_cgroup_limits(cgroup, files, expected, tmp_path):
    (tmp_path / "cgroup").write_text(cgroup)
    mounted = tree(tmp_path / "fs", files) if files else tmp_path / "fs"
    assert limits.cgroup(tmp_path / "cgroup", mounted) == expected


def test_without_cgroups_there_are_no_limits(tmp_path):
    assert limits.cgroup(tmp_path / "none", tmp_path) == {}


def test_info_shows_this_servers_limits(student):
    shown = student.tito("system", "info", "--json", MEM_LIMIT=str(512 << 20), CPU_LIMIT="1.5", OPENBLAS_NUM_THREADS="1")
    said = json.loads(shown.stdout)
    assert said["limits"]["memory, as the hub set it"] == "512 MiB"
    assert said["limits"]["cpus, as the hub set it"] == "1.5"
    assert said["versions"]["numpy"] == version("numpy")
    assert said["threads"]["OPENBLAS_NUM_THREADS"] == "1"
    assert said["threads"]["BLAS threads"] in ("1", "not told by the library")
    assert student.tito("info").stdout.startswith("versions:")


def test_blas_facts_are_those_of_this_process():
    assert blas.name()
    assert 1 <= blas.usable_cpus() <= os.cpu_count()
    assert blas.gflops(128) > 0.1
