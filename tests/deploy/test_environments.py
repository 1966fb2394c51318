"""Making the environments on machines where something is wrong: one clear line with the fix, and the next run mends it.

A small package on an index on loopback stands for the real ones; uv, pip and npm are the real programs.
"""

import ast
import hashlib
import http.server
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from functools import partial
from pathlib import Path

import pytest

from hub import paths
from tests.need import need

FILES = 1200                                     # of the small package: enough to be killed in the middle
PAYLOAD = 60 * 2**20                             # of zeros: quick to send, and too much for the small disk


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A package index on loopback with one package; yields its address and the package's hash."""
    folder = tmp_path_factory.mktemp("index")
    wheel = folder / "simple" / "small" / "small-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr("small/__init__.py", "")
        for number in range(FILES):
            files.writestr(f"small/part{number}.py", f"number = {number}\n")
        files.writestr("small/payload", bytes(PAYLOAD))
        names = [*files.namelist(), "small-1.0.dist-info/METADATA", "small-1.0.dist-info/WHEEL", "small-1.0.dist-info/RECORD"]
        files.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        files.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr("small-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in names))
    (wheel.parent / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple", hashlib.sha256(wheel.read_bytes()).hexdigest()
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class Checkout:
    """A checkout with the program under test, and one lock."""

    def __init__(self, folder: Path, index: str, digest: str):
        self.folder, self.lock = folder, folder / "requirements" / "small.txt"
        shutil.copytree(paths.REPO / "requirements", folder / "requirements")
        self.lock.write_text(f"small==1.0 --hash=sha256:{digest}\n")
        (folder / "hub").mkdir()
        for name in ("__init__.py", "environments.py"):
            shutil.copy(paths.REPO / "hub" / name, folder / "hub")
        (folder / ".envs").mkdir()
        (folder / ".envs" / "uv").symlink_to(paths.ENVS / "uv")
        self.made = folder / ".envs" / "small"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "TINYTORCH_", "MAKE"))}
        self.env |= {"UV_INDEX_URL": index, "UV_CACHE_DIR": str(folder / "cache"), "PIP_CONFIG_FILE": os.devnull}

    def command(self, *words, python=sys.executable):
        return [str(python), "-m", "hub.environments", *words]

    def run(self, *words, python=sys.executable, **env):
        return subprocess.run(self.command(*words, python=python), cwd=self.folder, env={**self.env, **env},
                              capture_output=True, text=True, timeout=200)

    def complete(self):
        code = f"import importlib; [importlib.import_module('small.part' + str(n)) for n in range({FILES})]; print('complete')"
        return subprocess.run([str(self.made / "bin/python"), "-c", code], capture_output=True, text=True).stdout == "complete\n"


@pytest.fixture
def checkout(tmp_path, index):
    need("the environment uv", (paths.ENVS / "uv" / "bin" / "uv").exists(), "make up")
    return Checkout(tmp_path, *index)


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}/simple"


def refused(done, *words):
    """It failed with one line that says all of this, and no traceback."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[0]
    assert line.startswith("make: ")
    for word in words:
        assert word in line
    assert len(done.stderr.splitlines()) <= 6, done.stderr


def other_pythons():
    """Pythons of this machine by version, the one of this test left out."""
    folders = [*os.environ["PATH"].split(os.pathsep), *map(str, Path.home().glob(".pyenv/versions/*/bin"))]
    found = {}
    for file in (file for folder in folders for file in sorted(Path(folder).glob("python3*")) if file.name.replace(".", "")[6:].isdigit()):
        asked = subprocess.run([str(file), "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
        if asked.returncode == 0 and (version := tuple(map(int, asked.stdout.split()))) != sys.version_info[:2]:
            found.setdefault(version, file)
    return found


def test_it_is_made_once(checkout):
    first, again = checkout.run("small"), checkout.run("small")
    assert first.returncode == again.returncode == 0, first.stderr
    assert "made environment small (1 packages)" in first.stdout
    assert checkout.complete()
    assert again.stdout == ""


def test_no_network_for_uv(checkout):
    refused(checkout.run("small", UV_INDEX_URL=closed_port()), "cannot be reached", "Connect this machine", "HTTPS_PROXY")
    assert checkout.run("small").returncode == 0
    assert checkout.complete()


def test_no_network_for_the_installer_itself(checkout):
    (checkout.folder / ".envs" / "uv").unlink()
    refused(checkout.run("small", PIP_INDEX_URL=closed_port()), "cannot be reached", "PIP_INDEX_URL")
    assert not (checkout.folder / ".envs" / "uv" / ".made-from").exists()


def test_no_network_for_npm(checkout):
    need("npm", shutil.which("npm"), "install Node")
    done = checkout.run("proxy", npm_config_registry=closed_port(), npm_config_cache=str(checkout.folder / "npm"))
    refused(done, "cannot be reached", "npm_config_registry")


def test_what_was_downloaded_is_not_what_the_lock_names(checkout):
    right = checkout.lock.read_text()
    checkout.lock.write_text(right[:-9] + ("00000000\n" if right[-9:-1] != "00000000" else "11111111\n"))
    refused(checkout.run("small"), "is not what requirements/small.txt names", "git checkout requirements/small.txt")
    checkout.lock.write_text(right)
    assert checkout.run("small").returncode == 0
    assert checkout.complete()


def test_a_full_disk(checkout):
    need("root, to mount a small disk", os.geteuid() == 0, "run this test as root")
    disk = checkout.folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", str(disk)], check=True)
    try:
        (disk / "uv").symlink_to(paths.ENVS / "uv")
        refused(checkout.run("small", TINYTORCH_ENVS=str(disk)), "The disk is full", str(disk), "TINYTORCH_ENVS=")
        subprocess.run(["mount", "-o", "remount,size=300m", str(disk)], check=True)
        assert checkout.run("small", TINYTORCH_ENVS=str(disk)).returncode == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_nothing_may_be_written_there(checkout):
    refused(checkout.run("small", TINYTORCH_ENVS="/proc/environments"), "/proc/environments")


def test_killed_in_the_middle_it_goes_on(checkout):
    running = subprocess.Popen(checkout.command("small"), cwd=checkout.folder, env=checkout.env, start_new_session=True,
                               stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(checkout.made.glob("lib/python*/site-packages/small/part1*.py")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert not checkout.complete(), "killed too late to show anything"
    again = checkout.run("small")
    assert again.returncode == 0, again.stderr
    assert checkout.complete()


def test_interrupted_by_hand_it_says_how_to_go_on(checkout):
    running = subprocess.Popen(checkout.command("small"), cwd=checkout.folder, env=checkout.env, start_new_session=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),     # a job in the background ignores it
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "making" in running.stdout.readline()
    os.killpg(running.pid, signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert checkout.run("small").returncode == 0


def test_two_at_once_do_not_meet(checkout):
    both = [subprocess.Popen(checkout.command("small"), cwd=checkout.folder, env=checkout.env, stdout=subprocess.PIPE, text=True)
            for _ in range(2)]
    said = [one.communicate(timeout=200)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert sorted("made environment" in words for words in said) == [False, True]
    assert checkout.complete()


def test_another_python_changes_nothing_unless_it_was_asked_for(checkout):
    newer = [file for version, file in other_pythons().items() if version >= (3, 11)]
    if not newer:
        pytest.skip("needs a second Python of 3.11 or newer: there is one only")
    assert checkout.run("small").returncode == 0
    assert checkout.run("small", python=newer[0]).stdout == ""
    assert "made environment small" in checkout.run("--this-python", "small", python=newer[0]).stdout
    assert checkout.complete()


def test_a_python_that_is_gone_is_replaced(checkout):
    assert checkout.run("small").returncode == 0
    python = checkout.made / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert "made environment small" in checkout.run("small").stdout
    assert checkout.complete()


def test_older_pythons_can_read_it(checkout):
    """They must get as far as the sentence that they are too old; 3.7 has no union types, := or positional-only arguments."""
    tree = ast.parse((paths.REPO / "hub" / "environments.py").read_text(), feature_version=(3, 7))
    evaluated = [node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef)
                 for part in (function.returns, *(argument.annotation for argument in function.args.args)) if part
                 for node in ast.walk(part)]
    assert not [node for node in evaluated if isinstance(node, ast.Subscript)]


def test_a_python_that_is_too_old(checkout):
    older = {version: file for version, file in other_pythons().items() if version < (3, 11)}
    if not older:
        pytest.skip("needs a Python older than 3.11: there is none here")
    for (major, minor), file in older.items():
        refused(checkout.run("small", python=file), f"Python {major}.{minor}", "is too old: 3.11 or newer", "PYTHON=python3.12")


def test_no_python_of_that_name(checkout):
    need("make", shutil.which("make"), "apt-get install make")
    shutil.copy(paths.REPO / "Makefile", checkout.folder)
    done = subprocess.run(["make", "up", "PYTHON=python3.99"], cwd=checkout.folder, env=checkout.env, capture_output=True, text=True)
    assert done.returncode != 0
    said = (done.stdout + done.stderr).splitlines()
    assert said[0].startswith("make: there is no python3.99 here. Install Python 3.11 or newer")
    assert not [line for line in said[1:] if not line.startswith("make: ***")]
