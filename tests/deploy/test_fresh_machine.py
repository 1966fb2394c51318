"""`make up` on a machine with nothing prepared: a bare Debian in a container, an ordinary user, no Docker, no Node, no root."""

import json
import time
import uuid

import pytest

from tests.deploy import checkout, one_loop
from tests.deploy.debian import bare_debian, docker

# A container is more closed than a real machine: it may not make user namespaces. These give back what a machine has.
AS_A_MACHINE = [word for what in ("seccomp", "apparmor", "systempaths") for word in ("--security-opt", f"{what}=unconfined")]

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    return bare_debian(tmp_path_factory)


@pytest.fixture
def machine(debian, tmp_path, request):
    """A running bare machine with this checkout in the newcomer's home: call it with a command of theirs."""
    name = f"tinytorch-fresh-{uuid.uuid4().hex[:8]}"
    docker("run", "-d", "--rm", "--name", name, "--init", *request.param, debian, "sleep", "3600", check=True)
    try:
        docker("cp", str(checkout.archive(tmp_path / "checkout.tar")), f"{name}:/home/newcomer/checkout.tar", check=True)
        docker("exec", "-u", "newcomer", "-w", "/home/newcomer", name, "tar", "xf", "checkout.tar", "--no-same-owner", check=True)

        def run(command, user="newcomer", timeout=1500):
            return docker("exec", "-u", user, "-w", "/home/newcomer/tinytorch-hub", name, "sh", "-c", command, timeout=timeout)

        yield run
    finally:
        docker("rm", "-f", name)


def cpu_seconds(machine):
    """What the machine has computed since its start; unlike the clock, it does not depend on who else uses this host."""
    said = machine("cat /sys/fs/cgroup/cpuacct/cpuacct.usage || cat /sys/fs/cgroup/cpu.stat").stdout.split()
    return int(said[0]) / 1e9 if said[0].isdigit() else int(said[1]) / 1e6


def succeeds(machine, command):
    """Run it; returns what it printed and the CPU seconds that were spent meanwhile."""
    start, before = time.monotonic(), cpu_seconds(machine)
    done = machine(command)
    spent = cpu_seconds(machine) - before
    print(f"{command}: {time.monotonic() - start:.0f} s, {spent:.0f} CPU-s\n{done.stdout}{done.stderr}")
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout, spent


def loop(machine):
    return json.loads(succeeds(machine, ".envs/user/bin/python -m tests.deploy.one_loop")[0].splitlines()[-1])


def of_the_site(machine):
    """What runs there, but for the container's own init and this look."""
    return [line for line in machine("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").stdout.splitlines() if ".state/" in line]


@pytest.mark.parametrize("machine", [AS_A_MACHINE], indirect=True, ids=["a machine"])
def test_make_up_on_a_bare_machine(machine):
    first, cold = succeeds(machine, "make up")
    assert "is ready at http://127.0.0.1:8000" in first
    assert "Demonstration only" not in first
    assert "alice" in first
    second, warm = succeeds(machine, "make up")
    assert "restarted" not in second
    assert cold < 300, "a cold start should take less than five minutes, even on one core"
    assert warm < 15, "a second make up should take less than 15 s, even on one core"

    one_loop.assert_isolated(loop(machine))

    passwords = machine("cat .state/secrets/signins.csv").stdout
    succeeds(machine, "make down")
    assert not of_the_site(machine)
    succeeds(machine, "make up")
    assert machine("cat .state/secrets/signins.csv").stdout == passwords
    succeeds(machine, "make reset YES=1")
    assert not of_the_site(machine)
    assert machine("test -e .state").returncode == 1


@pytest.mark.parametrize("machine", [[]], indirect=True, ids=["no user namespaces"])
def test_a_machine_that_cannot_isolate_is_a_demonstration_and_says_so(machine):
    """Its Python comes without ensurepip at first, as that of Debian and Ubuntu does until somebody installs python3-venv."""
    assert machine("mv /usr/lib/python3.11/ensurepip /root/ensurepip", user="root").returncode == 0
    refused = machine("make up")
    assert refused.returncode != 0
    assert "apt-get install python3.11-venv" in refused.stderr
    assert machine("mv /root/ensurepip /usr/lib/python3.11/ensurepip", user="root").returncode == 0
    first, _ = succeeds(machine, "make up")
    assert "Demonstration only" in first
    assert "autograding is refused" in first
    assert "user namespaces" in first
    seen = loop(machine)
    assert seen["around"]["work"]
    assert not seen["graded"]
    assert seen["score"] == 0
    assert "user namespaces" in seen["said"]
