"""What an admin gets wrong before a host hears of it: told in a line with its fix, and never taken for a success. Twenty seconds.

test_deploy.py has the mistakes that only a host can tell.
"""

import json
import os
import shutil
import socket
import subprocess

import pytest

from hub import paths
from tests.need import need

NOBODY = "a host on which nothing listens"


@pytest.fixture
def admin(tmp_path):
    """A folder with classes.yml and inventory.yml; returns what writes them and runs `make`: exit code, what it said on one line."""
    need("the environment deploy", paths.env_bin("deploy", "ansible-playbook").exists(), "make test and make deploy make it")
    need("an SSH client", shutil.which("ssh"), "apt-get install openssh-client")
    shutil.copytree(paths.REPO / "hub" / "example", tmp_path, dirs_exist_ok=True)
    classes, inventory = tmp_path / "classes.yml", tmp_path / "inventory.yml"
    classes.write_text(classes.read_text().replace("url: http://127.0.0.1:8000 ", "url: https://hub.example.org "))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    known = {NOBODY: {"ansible_host": "127.0.0.1", "ansible_port": port}}

    def run(*words, hosts="tinytorch: {hosts: {NOBODY}}", change=lambda text: text):
        inventory.write_text(hosts.replace("{NOBODY}", json.dumps(known)))
        classes.write_text(change(classes.read_text()))
        env = {**os.environ, "TINYTORCH_CLASSES": str(classes), "NO_COLOR": "1"}
        command = ["make", "--no-print-directory", *(words or ["deploy"]), "VERSION=none", f"INVENTORY={inventory}"]
        done = subprocess.run(command, cwd=paths.REPO, env=env, capture_output=True, text=True, timeout=120)
        return done.returncode, " ".join((done.stdout + done.stderr).replace("''", "'").split())

    return run


@pytest.mark.parametrize("command", ["deploy", "backup", "restore", "rollback", "destroy"])
def test_an_inventory_without_a_host_is_no_success(admin, command):
    code, said = admin(command, hosts="hub: {hosts: {NOBODY}}")
    assert code != 0
    assert "names no host in the group tinytorch, so nothing was done" in said


def test_an_inventory_that_cannot_be_read_is_no_success(admin):
    code, said = admin(hosts="tinytorch: {hosts: {NOBODY}")
    assert code != 0
    assert "No inventory was parsed" in said


@pytest.mark.parametrize(("change", "where", "fix"), [
    (lambda text: text.replace("site:\n", "site\n", 1), "classes.yml:3: YAML:", "put text with a colon in quotes"),
    (lambda text: text.replace("plan: 8", "plan: 9"), "classes.ml201.plan: 9: must be 4, 8 or 16", "write plan: 16"),
    (lambda text: text.replace("    roster: rosters/ml201.csv\n", ""), "classes.ml201.roster: (missing)", "roster"),
    (lambda text: text.replace("rosters/ml201.csv", "rosters/none.csv"), "there is no such file", "correct the path"),
    (lambda text: "site: {url: 'https://hub.example.org'}\nclasses: {ml101: 1}\n", "classes", "list"),
    (lambda text: "", "there is nothing in it", "start from the example"),
    (lambda text: text.replace("site:\n", "site:\n  tls: {certificates: files, certificate: hub.pem, key: hub.key}\n", 1),
     "site.tls.certificate: 'hub.pem': cannot be read", "correct the path"),
    (lambda text: text.replace("https://hub.example.org", "http://127.0.0.1:8000"), "needs site.url with https://",
     "url: https://hub.example.org"),
])
def test_a_mistake_in_classes_yml_is_told_before_the_host_hears_of_it(admin, change, where, fix):
    code, said = admin(change=change)
    assert code != 0
    assert where in said
    assert fix in said
    assert "cannot be reached" not in said


def test_a_host_that_does_not_answer_is_told_with_what_to_look_at(admin):
    code, said = admin("deploy", "CHECK=1")
    assert code != 0
    assert f"{NOBODY} cannot be reached, so nothing was done there" in said
    assert "Connection refused" in said
    assert "does sshd run there" in said
