"""A pod of the kubernetes sandbox, started by Docker as a kubelet would: is it isolated, and does its preflight see what is missing?

Docker stands in for the node's runtime, `--network none` for the deny-all policy; the rest is what the pod asks for, word by word.
"""

import json
import subprocess

import pytest

from autograder.jobs import Limits
from autograder.sandbox.kubernetes import pods
from autograder.sandbox.processes.bubblewrap import INNER_UID
from tests.deploy.debian import DOCKER

pytestmark = pytest.mark.docker
PLAN = pods.Plan(class_id="ml101", kind="grade", name="grade", namespace="sandboxes", image="any@sha256:" + "0" * 64, imports=("json",),
                 limits=Limits(memory_mb=128, disk_mb=2, cpu_seconds=5), folders=("/opt/edition",))


def words(spec, container, image):
    """`docker run` for a container of the pod."""
    context = {**spec["securityContext"], **container["securityContext"]}
    limits = {name: amount.replace("Mi", "m") for name, amount in container["resources"]["limits"].items()}
    empty = {volume["name"]: volume["emptyDir"]["sizeLimit"].replace("Mi", "m") for volume in spec["volumes"]}
    return [
        DOCKER, "run", "--rm", "-i", "--network", "none", "--user", f"{context['runAsUser']}:{context['runAsGroup']}",
        "--memory", limits["memory"], "--memory-swap", limits["memory"], "--cpus", limits["cpu"],
        *(["--read-only"] if context["readOnlyRootFilesystem"] else []),
        *(f"--cap-drop={name}" for name in context["capabilities"]["drop"]),
        *([] if context["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]),
        *({"RuntimeDefault": []}[context["seccompProfile"]["type"]]),
        *(f"--tmpfs={mount['mountPath']}:rw,mode=777,size={empty[mount['name']]}" for mount in container["volumeMounts"]),
        "--entrypoint", container["command"][0], image, *(word.replace("$$", "$") for word in container["command"][1:])]


def preflight(image, change=lambda command: command):
    spec = pods.pod(PLAN)["spec"]
    command = change(words(spec, spec["initContainers"][0], image))
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_preflight_passes_in_the_pod(containers):
    done = preflight(containers.named)
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(("without", "instead", "said"), [
    ("--read-only", [], "the root file system can be written"),
    ("--security-opt=no-new-privileges", [], "NoNewPrivs is 0 instead of 1"),
    ("--read-only", ["--read-only", "--security-opt=seccomp=unconfined"], "Seccomp is 0 instead of 2"),
    (f"{INNER_UID}:{INNER_UID}", ["0:0"], "it runs as root"),
    ("--tmpfs=/job:rw,mode=777,size=2m", ["--tmpfs=/job:rw,mode=777,size=3m"], "/job is not limited to 2 MB"),
    ("--tmpfs=/job:rw,mode=777,size=2m", [], "/job cannot be written"),
    ("--tmpfs=/opt/edition:rw,mode=777,size=64m", ["--tmpfs=/opt/edition:rw,mode=755,size=64m"], "/opt/edition cannot be written"),
    ("--read-only", ["--read-only", "--tmpfs=/var/run/secrets/kubernetes.io/serviceaccount"], "a service account's token is mounted")])
def test_preflight_sees_what_a_node_did_not_do(containers, without, instead, said):
    def change(command):
        place = command.index(without)
        return [*command[:place], *instead, *command[place + 1:]]
    done = preflight(containers.named, change)
    assert said in done.stderr
    assert done.returncode == pods.CONFIGURATION


HOSTILE = b"""import os, resource, signal, socket
def tried(what, how):
    try:
        print(what, how())
    except (OSError, ValueError) as error:
        print(what, type(error).__name__)
tried("holder", lambda: open("/proc/1/environ").read())
tried("own", lambda: len(os.listdir("/proc/self/fd")) > 2)
tried("root", lambda: open("/usr/x", "w"))
tried("rights", lambda: os.setuid(0))
tried("limit", lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)))
tried("interfaces", lambda: [name for _, name in socket.if_nameindex()])
tried("end", lambda: os.kill(1, signal.SIGKILL))
tried("large", lambda: open("large", "wb").write(bytes(3 << 20)))
"""


def test_a_hostile_program_in_the_pod_gets_nowhere_and_the_pod_tells_how_it_ended(containers):
    spec = pods.pod(PLAN.model_copy(update={"user_namespace": False}))["spec"]
    holder = subprocess.Popen(words(spec, spec["containers"][0], containers.named), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
    holder.stdin.write(b'{"imports": []}\n')
    holder.stdin.flush()
    assert holder.stdout.readline() == b"\n"
    wanted = {"mark": "mark ", "argv": ["python3", "-s", "main.py"], "env": {}, "work": "/job", "collect": [], "disks": ["/job"],
              "sizes": [["/job/main.py", 0o644, len(HOSTILE)]]}
    out, err = holder.communicate(json.dumps(wanted).encode() + b"\n" + HOSTILE, timeout=60)
    assert out.decode().splitlines() == [
        "holder PermissionError", "own True", "root OSError", "rights PermissionError", "limit ValueError", "interfaces ['lo']", "end None",
        "large OSError", "mark "]
    told = json.loads(err.partition(b"mark ")[2])
    assert told["code"] == 0
    assert told["full"]
    assert holder.returncode == 0
