"""`make up` for somebody who is not root on a machine that others use too: another port, no control groups, their own Python."""

import json
import os
import shutil
import subprocess
import uuid

import pytest

from tests.deploy import checkout, one_loop
from tests.need import need
from tests.running import free_port

PYTHON = "/usr/bin/python3"                      # root's own Python may lie where nobody else can read it

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture
def somebody(tmp_path):
    """A new user with this checkout in their home: call it with a command of theirs."""
    need("root, to make a user", os.geteuid() == 0, "run this test as root")
    need("useradd", shutil.which("useradd"), "apt-get install passwd")
    new_enough = subprocess.run([PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).returncode == 0
    need(f"Python 3.11 or newer at {PYTHON}", new_enough, "apt-get install python3")
    name = f"tt{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)

    def run(command, stdin=None):
        return subprocess.run(["su", "-", name, "-c", f"cd tinytorch-hub && {command}"], capture_output=True, text=True, stdin=stdin)

    try:
        with checkout.archive(tmp_path / "checkout.tar").open("rb") as tar:
            subprocess.run(["su", "-", name, "-c", "tar xf - --no-same-owner"], stdin=tar, check=True)
        yield run
    finally:
        run("make down")
        subprocess.run(["userdel", "--remove", name], capture_output=True, check=True)


def succeeds(somebody, command):
    done = somebody(command)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_a_site_of_an_ordinary_user(somebody):
    port = free_port()
    succeeds(somebody, f"cp -r hub/example/classes.yml hub/example/rosters . && sed -i s/8000/{port}/ classes.yml")
    first = succeeds(somebody, f"make up PYTHON={PYTHON}")
    assert f"is ready at http://127.0.0.1:{port}" in first
    assert "Demonstration only" not in first
    one_loop.assert_isolated(json.loads(succeeds(somebody, ".envs/user/bin/python -m tests.deploy.one_loop").splitlines()[-1]))
    succeeds(somebody, "make down")
    left = somebody("ps -u $(id -u) -o stat=,args=").stdout.splitlines()
    assert not [line for line in left if "tinytorch-hub/.envs" in line]
