"""`make deploy` on a machine as an intranet has it: systemd, an ordinary user who may use sudo with a password, and no network at all.

Carried in, as ADMIN.md says: this checkout with the environment of `make deploy`, made on a machine of the same release, and what
`make bundle` wrote. What needs an init is tried here: units and timer, a boot, a power cut, an engine that is restarted; and what an
admin fears: an upgrade that fails, and removing it all. About eight minutes.
"""

import json
import re
import subprocess
import uuid

import pytest

from hub import paths
from tests.deploy import bare_host, checkout
from tests.deploy.debian import bare_debian
from tests.deploy.test_deploy import SUITE
from tests.docker_site import docker, images, need_docker

pytestmark = [pytest.mark.docker, pytest.mark.deployment, pytest.mark.timeout(1800)]
PACKAGES = {"bookworm": "docker.io docker-compose", "trixie": "docker.io docker-cli docker-compose", "noble": "docker.io docker-compose-v2"}
# what a container lacks of a machine: writable control groups
INIT = 'for place in /sys/fs/cgroup/*; do mount -o remount,rw,bind "$place" 2>/dev/null; done; exec /sbin/init'
ADMIN, PASSWORD, FOLDER = "newcomer", "a password of sudo", "/home/newcomer/tinytorch-hub"
BROKEN = """FROM tinytorch/hub:%s
USER root
RUN rm -r /opt/tinytorch-hub/hub/__pycache__ && echo 'raise SystemExit("this version is broken")' >/opt/tinytorch-hub/hub/launch.py
USER 10000:10000
"""
ASK = "import urllib.request as r; print(r.urlopen('http://proxy:8000/hub/health', timeout=5).status)"


class Machine:
    """The machine, and its admin at its keyboard."""

    def __init__(self, image: str, bundle, archive) -> None:
        self.name = f"tinytorch-intranet-{uuid.uuid4().hex[:8]}"
        self.version = bundle.name.removeprefix("tinytorch-").removesuffix(".tar.gz")
        docker("run", "-d", "--name", self.name, "--hostname", "hub", *bare_host.RIGHTS, *bare_host.lacking(), "-e", "container=docker",
               "--stop-signal", "SIGRTMIN+3", "--tmpfs", "/run:exec", "-v", "/var/lib/docker",
               "-v", f"{bundle.parent}:{FOLDER}/build/images:ro", image, "sh", "-c", INIT)
        self.run(f"mkdir -p {FOLDER} && chown {ADMIN}: {FOLDER} {FOLDER}/build")
        docker("cp", str(archive), f"{self.name}:/home/{ADMIN}/checkout.tar")
        self.admins("cd .. && tar xf checkout.tar --no-same-owner && rm checkout.tar")
        self.admins("python3 -m hub.environments deploy")
        docker("network", "disconnect", "bridge", self.name)                 # from here on it has itself and nobody else
        self.run(f"echo '{ADMIN}:{PASSWORD}' | chpasswd && adduser --quiet {ADMIN} sudo")
        self.admins(f"printf '%s' '{PASSWORD}' >../password && cp -r hub/example/. . && "
                    "sed -i -e 's#url: http://127.0.0.1:8000 #url: https://hub.intranet.test #' "
                    "-e 's#^site:#&\\n  tls: {certificates: internal}#' classes.yml")

    def run(self, command: str, check: bool = True) -> str:
        return docker("exec", self.name, "sh", "-c", command, check=check, timeout=600)

    def admins(self, command: str) -> str:
        return docker("exec", "-u", ADMIN, "-w", FOLDER, "-e", "LANG=C.UTF-8", self.name, "sh", "-c", command, timeout=900)

    def make(self, *words: str, version: str = "", sudo: str = "--become-password-file=../password", more: str = "") -> tuple[int, str]:
        """Exit code, and what it said, without the breaks of its lines."""
        command = f"make --no-print-directory {' '.join(words)} VERSION={version or self.version} ARGS='{sudo} {more}'; echo exit=$?"
        said = " ".join(self.admins(command).split())
        code = int(re.findall(r"exit=(\d+)", said)[-1])
        print(f"make {' '.join(words)}: exit {code}")
        return code, said

    def succeeds(self, *words: str, **more: str) -> tuple[str, int]:
        code, said = self.make(*words, **more)
        assert code == 0, said[-5000:]
        return said, int(re.search(r"host\S* : ok=\d+ changed=(\d+)", said)[1])

    def hub(self) -> str:
        """Which container the hub is, and since when it runs; empty while it does not answer."""
        name = "$(docker ps -q --filter label=com.docker.compose.service=hub)"
        if "200" not in self.run(f'docker exec {name} /opt/envs/hub/bin/python -c "{ASK}"', check=False):
            return ""
        return self.run(f"docker inspect --format '{{{{.Id}}}} {{{{.State.StartedAt}}}}' {name}").strip()

    def comes_back(self, seconds: int = 180) -> str:
        for _ in range(seconds):
            if found := self.hub():
                return found
            subprocess.run(["sleep", "1"], check=True)
        raise AssertionError(self.run("systemctl --failed; docker ps -a; journalctl -n 40 --no-pager", check=False))


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    need_docker()
    _, version = images()
    folder = tmp_path_factory.mktemp("carried")
    bundle = folder / f"tinytorch-{version}.tar.gz"
    made = subprocess.run(["make", "--no-print-directory", "bundle", f"FILE={bundle}"], cwd=paths.REPO, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    print(made.stdout)
    base = bare_debian(tmp_path_factory, SUITE)
    # an intranet has a mirror of its distribution, from which these come; the engine is as that installs it
    packages = f"systemd-sysv dbus sudo iptables {PACKAGES[SUITE]}"
    image = bare_host.install(bare_host.build(base), f"{bare_host.IMAGE}-systemd:{SUITE}", packages)
    folder.chmod(0o755)
    bundle.chmod(0o644)
    made = Machine(image, bundle, checkout.archive(tmp_path_factory.mktemp("tar") / "checkout.tar"))
    try:
        yield made
    finally:
        docker("rm", "-f", "-v", made.name, check=False, timeout=600)


@pytest.fixture(scope="module")
def deployed(machine):
    machine.first, _ = machine.succeeds("deploy")
    return machine


def test_who_may_not_become_root_is_told_and_nothing_is_done(machine):
    code, said = machine.make("deploy", sudo="")
    assert code != 0
    assert "cannot become root by sudo, so nothing was done there" in said
    assert "make deploy ARGS=--ask-become-pass" in said
    machine.admins("echo wrong >../wrong")
    code, said = machine.make("deploy", sudo="--become-password-file=../wrong")
    assert code != 0
    assert "Sorry, try again" in said


def test_a_full_disk_stops_it_and_the_next_run_goes_on(machine):
    """The engine's disk has 700 MB; the images need 1.8 GB."""
    machine.run("systemctl stop docker.socket docker.service containerd; mount -t tmpfs -o size=700m none /var/lib/docker")
    try:
        code, said = machine.make("deploy")
        assert not machine.run("docker ps -aq").strip()
    finally:
        machine.run("systemctl stop docker.socket docker.service && umount /var/lib/docker && systemctl start docker")
    assert code != 0
    assert "no space left on device" in said
    assert "the next make deploy goes on from here" in said


def test_a_class_whose_image_is_nowhere_is_told_before_anything_starts(machine):
    machine.admins("sed -i.kept 's#    image: default #    image: course/student:1 #' classes.yml")
    code, said = machine.make("deploy")
    machine.admins("mv classes.yml.kept classes.yml")
    assert code != 0
    assert "the image course/student:1 of a class is not on localhost. Nothing was started or stopped" in said
    assert "make bundle ALSO=course/student:1" in said
    assert not machine.run("docker ps -aq").strip()


def test_it_is_deployed_from_what_was_carried_in(deployed):
    for done in ("the autograder can isolate student code", "ran a notebook in it", "https://hub.intranet.test is ready"):
        assert done in deployed.first
    assert "eth0" not in deployed.run("ls /sys/class/net").split()
    assert deployed.succeeds("deploy")[1] == 0


def test_the_nightly_backup_is_one_of_systemds_timers(deployed):
    assert deployed.run("systemctl is-enabled tinytorch docker tinytorch-backup.timer").split() == ["enabled"] * 3
    assert "03:30:00" in deployed.run("systemctl list-timers --no-pager tinytorch-backup.timer")
    deployed.run("systemctl start tinytorch-backup.service")
    assert re.search(rf"version {re.escape(deployed.version)}\s+nightly", deployed.run("/opt/tinytorch/tinytorch-backup list"))


def test_an_upgrade_that_fails_is_taken_back(deployed):
    before = deployed.run("/opt/tinytorch/tinytorch-backup list")
    for name in ("hub", "proxy", "exchange", "autograder", "grader", "student", "caddy", "monitoring"):
        deployed.run(f"docker tag tinytorch/{name}:{deployed.version} tinytorch/{name}:broken")
    docker("exec", "-i", "-e", "DOCKER_BUILDKIT=0", deployed.name, "docker", "build", "-q", "-t", "tinytorch/hub:broken", "-",
           input=BROKEN % deployed.version)
    code, said = deployed.make("deploy", version="broken", more="-e hub_patience=20")
    assert code != 0
    assert "this version is broken" in said
    assert "The version before: make rollback" in said
    assert not deployed.hub()
    said, _ = deployed.succeeds("rollback")
    assert f"is ready, version {deployed.version}" in said
    assert json.loads(deployed.run("cat /opt/tinytorch/release.json")) == {"version": deployed.version, "worked": [deployed.version]}
    made = deployed.run("/opt/tinytorch/tinytorch-backup list").replace(before, "")
    assert re.search(rf"version {re.escape(deployed.version)}\s+before broken", made)
    assert "tinytorch/hub:broken" not in deployed.run("docker image ls --format '{{.Repository}}:{{.Tag}}'")
    code, said = deployed.make("rollback")
    assert code != 0
    assert "there is nothing to roll back to" in said


@pytest.mark.parametrize("how", ["restart", "kill"])
def test_a_boot_and_a_power_cut_bring_it_back_by_itself(deployed, how):
    before = deployed.comes_back()
    docker(how, deployed.name, timeout=300)
    if how == "kill":
        docker("start", deployed.name)
    assert deployed.comes_back().split()[1] != before.split()[1]
    deployed.run("for _ in $(seq 60); do systemctl is-active tinytorch && exit 0; sleep 1; done; exit 1")
    assert deployed.run("systemctl --failed --no-legend --no-pager | grep -i 'docker\\|tinytorch' || true").strip() == ""


def test_an_engine_that_is_restarted_or_killed_ends_nothing(deployed):
    before = deployed.comes_back()
    deployed.run("systemctl restart docker")
    assert deployed.comes_back() == before
    deployed.run("kill -9 $(cat /var/run/docker.pid)")
    assert deployed.comes_back() == before


def test_it_is_removed_as_often_as_one_likes(deployed):
    deployed.run("systemctl stop docker.socket docker.service")
    code, said = deployed.make("destroy", "YES=1")
    assert code != 0
    assert "Docker does not answer there, so containers and homes cannot be removed, and nothing was" in said
    assert deployed.run("ls /var/lib/tinytorch/hub").strip()
    deployed.run("systemctl reset-failed docker.service; systemctl start docker")        # it was started often just before
    for _ in range(2):
        said, _ = deployed.succeeds("destroy", "YES=1")
        assert "The site is gone" in said
    left = "docker ps -aq; docker volume ls -q; ls -d /var/lib/tinytorch /opt/tinytorch /etc/tinytorch 2>/dev/null || true"
    assert deployed.run(left).strip() == ""
    assert "tinytorch" not in deployed.run("systemctl list-unit-files --no-pager --no-legend")
    assert deployed.run("ls /var/backups/tinytorch/").strip()
