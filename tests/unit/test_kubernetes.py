"""The kubernetes sandbox's manifests, against Kubernetes' own schemas, the published rules of pods and Jobs, and a real Python.

No cluster runs here. Rules that are no schema (the Pod Security Standards, what a Job's failure policy does, what a command's
$(NAME) becomes) are written down below as Kubernetes publishes them, and each is shown to refuse something.
"""

import base64
import contextlib
import copy
import functools
import itertools
import json
import math
import os
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from autograder import manifests
from autograder.jobs import Limits
from autograder.quotas import Quota
from autograder.sandbox import seccomp
from autograder.sandbox.base import SandboxUnavailable
from autograder.sandbox.containers import container, docker
from autograder.sandbox.kubernetes import namespaces, pods
from autograder.sandbox.processes import bubblewrap
from hub import paths
from hub.config import __main__ as config_command
from hub.config import site as hub_site
from tests.need import need

DIGEST = "sha256:" + "0123456789abcdef" * 4
IMAGE = f"registry.example.org:5000/tinytorch/autograder:0.1.0@{DIGEST}"
ACCOUNT = ("tinytorch", "autograder")
VERSIONS = ["1.33", kubernetes_validate.latest_version()]
IDS = [f"{number:064x}" for number in range(12)]
DNS = st.sampled_from(["a", "7", "grade-ml101", "train--2", "x" * 57])
LIMITS = st.builds(
    Limits, cpu_seconds=st.floats(0.01, 86400), wall_seconds=st.floats(0.01, 86400), cell_seconds=st.floats(0.01, 86400),
    memory_mb=st.integers(32, 2**20), pids=st.integers(2, 4096), output_kb=st.integers(1, 2**20), disk_mb=st.integers(1, 2**20))
QUOTAS = st.builds(Quota, parallel=st.integers(1, 1000), memory_mb=st.integers(32, 2**20), cpu_seconds=st.floats(1, 43200))


def plan(**values):
    return pods.Plan(**{"class_id": "ml101", "kind": "grade", "name": "grade-ml101", "namespace": "sandboxes-ml101", "image": IMAGE,
                        "limits": Limits(), "folders": ("/opt/autograder", "/opt/edition"), **values})


PLANS = st.builds(
    plan, class_id=st.sampled_from(["a", "ml101", "ml_101-b", "m" * 32]), name=DNS, namespace=DNS, limits=LIMITS,
    kind=st.sampled_from(["grade", "checkpoint", "profile"]), user_namespace=st.booleans(), runtime_class=st.none() | DNS,
    seccomp=st.sampled_from([None, "sandbox.json", "profiles/sandbox.json"]), folders=st.sampled_from([(), ("/opt/autograder",)]))
TRAIN = plan(kind="train", data_claim="datasets", name="train-ml101")


kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)   # megabytes, else read each time


def valid(document, version=VERSIONS[0]):
    kubernetes_validate.validate(document, version, strict=True)
    return True


def every_document(one, ids=IDS, quota=None, parallelism=3):
    return [*namespaces.documents(one, quota or Quota(), parallelism, ACCOUNT), pods.pod(one), pods.shards(one, ids, uid="0f0e"),
            pods.job(one, ids, parallelism, 3)]


# Kubernetes' schemas

@settings(max_examples=20, deadline=None)
@given(PLANS, st.integers(1, 40), st.integers(1, 50), QUOTAS, st.sampled_from(VERSIONS))
def test_every_document_is_what_kubernetes_takes(one, jobs, parallelism, quota, version):
    ids = [f"{number:064x}" for number in range(jobs)]
    for document in every_document(one, ids, quota, parallelism):
        assert valid(document, version)


def test_yaml_says_what_the_documents_say():
    documents = every_document(TRAIN)
    assert list(yaml.safe_load_all(manifests.render(documents))) == json.loads(json.dumps(documents))


def test_a_training_with_its_data_is_valid():
    assert all(valid(document, version) for document in every_document(TRAIN) for version in VERSIONS)
    container = pods.pod(TRAIN)["spec"]["containers"][0]
    assert {"name": "data", "mountPath": "/opt/data", "readOnly": True} in container["volumeMounts"]


@pytest.mark.parametrize("kind", ["Namespace", "NetworkPolicy", "ResourceQuota", "Role", "RoleBinding", "Pod", "ConfigMap", "Job"])
def test_the_schemas_refuse_what_they_do_not_know(kind):
    document = next(one for one in every_document(plan()) if one["kind"] == kind)
    inner = document.get("spec", document)
    for wrong in ({**document, "spek": 1}, {**document, "metadata": {"name": 1}}, {**document, "spec": {**inner, "unheardOf": True}}):
        with pytest.raises(kubernetes_validate.ValidationError):
            valid(wrong)


# The Pod Security Standard "restricted", control by control (kubernetes.io/docs/concepts/security/pod-security-standards)

SYSCTLS = {"kernel.shm_rmid_forced", *(f"net.ipv4.{name}" for name in (
    "ip_local_port_range", "ip_unprivileged_port_start", "tcp_syncookies", "ping_group_range", "ip_local_reserved_ports",
    "tcp_keepalive_time", "tcp_fin_timeout", "tcp_keepalive_intvl", "tcp_keepalive_probes", "tcp_rmem", "tcp_wmem"))}
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def containers(spec):
    return [one for kind in ("initContainers", "containers", "ephemeralContainers") for one in spec.get(kind, ())]


def at(tree, *path):
    for name in path:
        tree = (tree or {}).get(name)
    return tree


def contexts(spec, *path):
    """A field of the security contexts of the pod and of each container."""
    return [at(one, "securityContext", *path) for one in (spec, *containers(spec))]


def for_each(spec, field, good, inherits=True):
    """Each container's value is good, or it says nothing and the pod's value is; a pod's own value is never bad."""
    own = at(spec, "securityContext", *field)
    said = [at(one, "securityContext", *field) for one in containers(spec)]
    return (own is None or good(own)) and all(
        good(value) if value is not None else inherits and own is not None and good(own) for value in said)


def hosts(spec):
    for one in containers(spec):
        for handler in (*(one.get(f"{kind}Probe") for kind in ("liveness", "readiness", "startup")),
                        at(one, "lifecycle", "postStart"), at(one, "lifecycle", "preStop")):
            yield from (at(handler, kind, "host") for kind in ("httpGet", "tcpSocket"))


STANDARD = {
    "HostProcess": lambda meta, spec: not any(contexts(spec, "windowsOptions", "hostProcess")),
    "Host Namespaces": lambda meta, spec: not any(spec.get(f"host{name}") for name in ("Network", "PID", "IPC")),
    "Privileged Containers": lambda meta, spec: not any(contexts(spec, "privileged")),
    "HostPath Volumes": lambda meta, spec: not any("hostPath" in volume for volume in spec.get("volumes", ())),
    "Host Ports": lambda meta, spec: not any(port.get("hostPort") for one in containers(spec) for port in one.get("ports", ())),
    "Host Probes": lambda meta, spec: not any(hosts(spec)),
    "AppArmor": lambda meta, spec: all(kind in (None, "RuntimeDefault", "Localhost") for kind in contexts(spec, "appArmorProfile", "type"))
    and all(value.startswith(("runtime/default", "localhost/")) for name, value in meta.get("annotations", {}).items()
            if name.startswith("container.apparmor.security.beta.kubernetes.io/")),
    "SELinux": lambda meta, spec: all((kind or "") in SELINUX for kind in contexts(spec, "seLinuxOptions", "type"))
    and not any((*contexts(spec, "seLinuxOptions", "user"), *contexts(spec, "seLinuxOptions", "role"))),
    "/proc Mount Type": lambda meta, spec: all(kind in (None, "Default") for kind in contexts(spec, "procMount")),
    "Sysctls": lambda meta, spec: all(one["name"] in SYSCTLS for one in at(spec, "securityContext", "sysctls") or ()),
    "Volume Types": lambda meta, spec: all(VOLUMES & volume.keys() for volume in spec.get("volumes", ())),
    "Privilege Escalation": lambda meta, spec: for_each(spec, ["allowPrivilegeEscalation"], lambda value: value is False, inherits=False),
    "Running as Non-root": lambda meta, spec: for_each(spec, ["runAsNonRoot"], lambda value: value is True),
    "Running as Non-root user": lambda meta, spec: 0 not in contexts(spec, "runAsUser"),
    "Seccomp": lambda meta, spec: for_each(spec, ["seccompProfile", "type"], lambda kind: kind in ("RuntimeDefault", "Localhost")),
    "Capabilities": lambda meta, spec: all("ALL" in (at(one, "securityContext", "capabilities", "drop") or ())
                                           and set(at(one, "securityContext", "capabilities", "add") or ()) <= {"NET_BIND_SERVICE"}
                                           for one in containers(spec))}

RESOURCES = {"cpu", "memory", "ephemeral-storage"}


def empty(spec):
    return {volume["name"]: volume["emptyDir"] for volume in spec["volumes"] if "emptyDir" in volume}


# What we want beyond it
OURS = {
    "no token": lambda meta, spec: spec["automountServiceAccountToken"] is False,
    "no addresses of services": lambda meta, spec: spec["enableServiceLinks"] is False,
    "no name server": lambda meta, spec: spec["dnsPolicy"] == "None" and spec["dnsConfig"] == {"nameservers": ["127.0.0.1"]},
    "read-only root": lambda meta, spec: all(at(one, "securityContext", "readOnlyRootFilesystem") for one in containers(spec)),
    "a user of its own": lambda meta, spec: set(contexts(spec, "runAsUser")) == {None, bubblewrap.INNER_UID},
    "a group of its own": lambda meta, spec: set(contexts(spec, "runAsGroup")) == {None, bubblewrap.INNER_UID},
    "what can be written is small and in memory": lambda meta, spec: all(
        each.get("medium") == "Memory" and "sizeLimit" in each for each in empty(spec).values())
    and all(mount.get("readOnly") or mount["name"] in empty(spec) for one in containers(spec) for mount in one["volumeMounts"]),
    "requests are limits": lambda meta, spec: all(
        one["resources"]["requests"] == one["resources"]["limits"] and one["resources"]["limits"].keys() == RESOURCES
        for one in containers(spec)),
    "image by digest": lambda meta, spec: all(re.search(r"@sha256:[0-9a-f]{64}$", one["image"]) for one in containers(spec)),
    "no environment": lambda meta, spec: not any("env" in one or "envFrom" in one for one in containers(spec)),
    "ends": lambda meta, spec: spec["activeDeadlineSeconds"] > 0 and spec["restartPolicy"] == "Never",
    "one line in": lambda meta, spec: [(one.get("stdin"), one.get("stdinOnce")) for one in spec["containers"]] == [(True, True)],
    "checked before": lambda meta, spec: [one["name"] for one in spec["initContainers"]] == ["preflight"],
    "says why in its status": lambda meta, spec: spec["initContainers"][0].get("terminationMessagePolicy") == "FallbackToLogsOnError",
    "a user namespace": lambda meta, spec: spec.get("hostUsers") is False}


def violated(rules, document):
    """Names of the rules that a pod, or a Job's template, does not keep."""
    whole = document["spec"]["template"] if document["kind"] == "Job" else document
    return [name for name, kept in rules.items() if not kept(whole["metadata"], whole["spec"])]


@settings(max_examples=25, deadline=None)
@given(PLANS, st.booleans())
def test_every_pod_keeps_the_restricted_standard_and_ours(one, in_job):
    document = pods.job(one, IDS, 2, 3) if in_job else pods.pod(one)
    assert violated(STANDARD, document) == []
    assert violated(OURS, document) == ([] if one.user_namespace else ["a user namespace"])


def test_a_training_with_data_keeps_them_too():
    assert violated({**STANDARD, **OURS}, pods.pod(TRAIN)) == violated({**STANDARD, **OURS}, pods.job(TRAIN, IDS, 2, 3)) == []


def put(*path):
    """A change of a pod: the last word is the value, those before lead to it."""
    def change(document):
        *way, name, value = path
        tree = document
        for step in way:
            tree = tree[step] if isinstance(step, int) else tree.setdefault(step, {})
        if isinstance(tree, list):
            tree.append(value)
        else:
            tree[name] = value
    return change


def drop(*path):
    def change(document):
        *way, name = path
        del functools.reduce(lambda tree, step: tree[step], way, document)[name]
    return change


SECOND = ("spec", "containers", 0)
FIRST = ("spec", "initContainers", 0)
CONTEXT = (*SECOND, "securityContext")
BREAKS = [
    ("HostProcess", put("spec", "securityContext", "windowsOptions", "hostProcess", True)),
    ("HostProcess", put(*CONTEXT, "windowsOptions", "hostProcess", True)),
    ("Host Namespaces", put("spec", "hostNetwork", True)), ("Host Namespaces", put("spec", "hostPID", True)),
    ("Host Namespaces", put("spec", "hostIPC", True)),
    ("Privileged Containers", put(*CONTEXT, "privileged", True)),
    ("Privileged Containers", put(*FIRST, "securityContext", "privileged", True)),
    ("HostPath Volumes", put("spec", "volumes", "+", {"name": "host", "hostPath": {"path": "/"}})),
    ("Host Ports", put(*SECOND, "ports", [{"containerPort": 80, "hostPort": 80}])),
    ("Host Probes", put(*SECOND, "livenessProbe", "httpGet", "host", "192.0.2.1")),
    ("Host Probes", put(*SECOND, "lifecycle", "postStart", "tcpSocket", "host", "192.0.2.1")),
    ("AppArmor", put("metadata", "annotations", "container.apparmor.security.beta.kubernetes.io/sandbox", "unconfined")),
    ("AppArmor", put(*CONTEXT, "appArmorProfile", "type", "Unconfined")),
    ("SELinux", put("spec", "securityContext", "seLinuxOptions", "type", "spc_t")),
    ("SELinux", put(*CONTEXT, "seLinuxOptions", "user", "root")), ("SELinux", put(*CONTEXT, "seLinuxOptions", "role", "r")),
    ("/proc Mount Type", put(*CONTEXT, "procMount", "Unmasked")),
    ("Sysctls", put("spec", "securityContext", "sysctls", [{"name": "kernel.msgmax", "value": "1"}])),
    ("Volume Types", put("spec", "volumes", "+", {"name": "share", "nfs": {"server": "192.0.2.1", "path": "/"}})),
    ("Privilege Escalation", put(*CONTEXT, "allowPrivilegeEscalation", True)),
    ("Privilege Escalation", drop(*CONTEXT, "allowPrivilegeEscalation")),
    ("Privilege Escalation", drop(*FIRST, "securityContext", "allowPrivilegeEscalation")),
    ("Running as Non-root", drop("spec", "securityContext", "runAsNonRoot")), ("Running as Non-root", put(*CONTEXT, "runAsNonRoot", False)),
    ("Running as Non-root user", put("spec", "securityContext", "runAsUser", 0)),
    ("Running as Non-root user", put(*CONTEXT, "runAsUser", 0)),
    ("Seccomp", drop("spec", "securityContext", "seccompProfile")), ("Seccomp", put(*CONTEXT, "seccompProfile", "type", "Unconfined")),
    ("Capabilities", drop(*CONTEXT, "capabilities")), ("Capabilities", put(*CONTEXT, "capabilities", "drop", ["NET_RAW"])),
    ("Capabilities", put(*CONTEXT, "capabilities", "add", ["SYS_ADMIN"])),
    ("no token", put("spec", "automountServiceAccountToken", True)), ("no addresses of services", put("spec", "enableServiceLinks", True)),
    ("no name server", put("spec", "dnsPolicy", "ClusterFirst")), ("read-only root", put(*CONTEXT, "readOnlyRootFilesystem", False)),
    ("a user of its own", put("spec", "securityContext", "runAsUser", 1000)), ("a group of its own", put(*CONTEXT, "runAsGroup", 1)),
    ("what can be written is small and in memory", drop("spec", "volumes", 0, "emptyDir", "medium")),
    ("what can be written is small and in memory", drop("spec", "volumes", 0, "emptyDir", "sizeLimit")),
    ("what can be written is small and in memory", put(*SECOND, "volumeMounts", "+", {"name": "data", "mountPath": "/mnt"})),
    ("requests are limits", put(*SECOND, "resources", "requests", "cpu", "100m")),
    ("requests are limits", drop(*SECOND, "resources", "limits", "memory")),
    ("image by digest", put(*SECOND, "image", "autograder:latest")), ("no environment", put(*SECOND, "env", [{"name": "A", "value": "b"}])),
    ("ends", put("spec", "restartPolicy", "Always")), ("one line in", put(*SECOND, "stdinOnce", False)),
    ("says why in its status", drop(*FIRST, "terminationMessagePolicy")),
    ("checked before", put("spec", "initContainers", 0, "name", "other")), ("a user namespace", drop("spec", "hostUsers"))]


@pytest.mark.parametrize(("rule", "change"), BREAKS, ids=[f"{number}-{rule}" for number, (rule, _) in enumerate(BREAKS)])
def test_each_rule_refuses_a_pod_that_breaks_it(rule, change):
    document = copy.deepcopy(pods.pod(plan()))
    change(document)
    assert rule in violated({**STANDARD, **OURS}, document)


def test_no_rule_is_without_a_pod_that_breaks_it():
    assert {rule for rule, _ in BREAKS} == STANDARD.keys() | OURS.keys()


# Limits

def quantity(text):
    """A Kubernetes quantity in bytes, or as a number."""
    number, unit = re.fullmatch(r"([0-9]+)(Mi|)", text).groups()
    return int(number) * (2**20 if unit else 1)


@settings(max_examples=25, deadline=None)
@given(PLANS)
def test_limits_are_those_of_the_job_and_of_the_docker_sandbox(one):
    spec, limits = pods.pod(one)["spec"], one.limits
    dockers = docker.Docker(image="any", ready=0)
    dockers.image_id = lambda: "any"                       # asks the engine; not what is compared
    wanted = dockers._settings(list(one.folders), limits, {})["HostConfig"]
    most = spec["containers"][0]["resources"]["limits"]
    assert quantity(most["memory"]) == wanted["Memory"] == wanted["MemorySwap"]
    assert quantity(most["cpu"]) * 10**9 == wanted["NanoCpus"]
    assert quantity(most["ephemeral-storage"]) >= limits.output_kb * 2**10 + container.LARGEST
    sizes = {mount["mountPath"]: quantity(volume["emptyDir"]["sizeLimit"]) for mount in spec["containers"][0]["volumeMounts"]
             for volume in spec["volumes"] if volume["name"] == mount["name"]}
    theirs = {path: int(re.search(r"size=(\d+)", options)[1]) for path, options in wanted["Tmpfs"].items()}
    assert sizes == {**theirs, "/dev/shm": wanted["ShmSize"]}
    assert spec["activeDeadlineSeconds"] >= limits.wall_seconds + container.START_SECONDS
    profile = spec["securityContext"]["seccompProfile"]
    assert profile == ({"type": "Localhost", "localhostProfile": one.seccomp} if one.seccomp else {"type": "RuntimeDefault"})


@settings(max_examples=25, deadline=None)
@given(LIMITS, QUOTAS, st.integers(1, 500))
def test_the_quota_holds_the_classs_pods_and_not_one_more(limits, quota, parallelism):
    batch = plan(limits=limits)
    hard = namespaces.resource_quota(batch, quota, parallelism)["spec"]["hard"]
    students = pods.pod(plan(kind="train", limits=quota.largest))["spec"]["containers"][0]["resources"]
    graded = pods.pod(batch)["spec"]["containers"][0]["resources"]

    def fit(students_pods, batch_pods):
        return students_pods + batch_pods <= int(hard["pods"]) and all(
            students_pods * quantity(students[side][name]) + batch_pods * quantity(graded[side][name]) <= quantity(hard[f"{side}.{name}"])
            for side in ("requests", "limits") for name in ("cpu", "memory", "ephemeral-storage"))
    assert fit(quota.parallel, parallelism)
    assert not fit(quota.parallel + 1, parallelism)
    assert not fit(quota.parallel, parallelism + 1)
    assert hard["services"] == hard["persistentvolumeclaims"] == "0"


# The Job, as the API's reference and its failure policy's page describe it

def refused(job):
    """Why the API server would not take a Job: its rules beyond the schema."""
    spec, template = job["spec"], job["spec"]["template"]["spec"]
    rules = spec["podFailurePolicy"]["rules"]
    names = {one["name"] for one in containers(template)}
    if template["restartPolicy"] != "Never":
        yield "a failure policy needs restartPolicy Never"
    if spec["completionMode"] != "Indexed" or spec["maxFailedIndexes"] > spec["completions"]:
        yield "backoffLimitPerIndex and maxFailedIndexes"
    if spec["podReplacementPolicy"] != "Failed" or len(rules) > 20:
        yield "a failure policy replaces failed pods only and has at most 20 rules"
    for rule in rules:
        codes = rule.get("onExitCodes")
        if ("onExitCodes" in rule) == ("onPodConditions" in rule) or rule["action"] not in ("FailJob", "FailIndex", "Ignore", "Count"):
            yield "a rule has one of two requirements and a known action"
        if codes and (codes["containerName"] not in names or codes["values"] != sorted(set(codes["values"])) or not codes["values"]
                      or (codes["operator"] == "In" and 0 in codes["values"])):
            yield "exit codes of a container of the pod, ordered, each once, no 0"
    if not pods.DNS_LABEL.fullmatch(f"{job['metadata']['name']}-{spec['completions'] - 1}"):
        yield "pods' host names are DNS labels"


def action(job, codes, conditions=()):
    """What a Job does about a failed pod. `codes`: exit codes by container; those that ended with 0 do not count."""
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        if "onPodConditions" in rule:
            if any(pattern["type"] in conditions and pattern["status"] == "True" for pattern in rule["onPodConditions"]):
                return rule["action"]
            continue
        wanted = rule["onExitCodes"]
        found = [code for name, code in codes.items() if code and name == wanted["containerName"]]
        if any((code in wanted["values"]) == (wanted["operator"] == "In") for code in found):
            return rule["action"]
    return "Count"


@settings(max_examples=30, deadline=None)
@given(PLANS, st.integers(1, 2000), st.integers(1, 300), st.integers(1, 5))
def test_a_job_is_what_the_api_server_takes(one, count, parallelism, attempts):
    job = pods.job(one, ["f" * 64] * count, parallelism, attempts)
    spec = job["spec"]
    assert list(refused(job)) == []
    assert spec["completions"] == count
    assert spec["parallelism"] == min(count, parallelism)
    assert spec["backoffLimitPerIndex"] == attempts - 1
    assert spec["maxFailedIndexes"] == count                       # students who fail never stop the others
    rounds = math.ceil(count / parallelism)
    assert spec["activeDeadlineSeconds"] >= rounds * attempts * spec["template"]["spec"]["activeDeadlineSeconds"]


@pytest.mark.parametrize("change", [
    put("spec", "template", "spec", "restartPolicy", "OnFailure"), put("spec", "maxFailedIndexes", 13),
    put("spec", "completionMode", "NonIndexed"), put("spec", "podReplacementPolicy", "TerminatingOrFailed"),
    put("spec", "podFailurePolicy", "rules", 2, "onExitCodes", "values", [78, 3]),
    put("spec", "podFailurePolicy", "rules", 2, "onExitCodes", "containerName", "other"),
    put("spec", "podFailurePolicy", "rules", 2, "onPodConditions", []), put("metadata", "name", "g" * 62)])
def test_the_rules_of_jobs_refuse_one_that_breaks_them(change):
    job = copy.deepcopy(pods.job(plan(), IDS, 2, 3))
    change(job)
    assert list(refused(job))


def test_a_student_loses_an_index_the_cluster_costs_nothing_and_a_wrong_configuration_ends_the_job():
    job = pods.job(plan(), IDS, 2, 3)
    for code in set(range(1, 256)) - {75}:                          # 137: out of memory; 78: forged by the student's program
        assert action(job, {"preflight": 0, "sandbox": code}) == "FailIndex", code
    assert action(job, {"preflight": 0, "sandbox": 75}) == "Count"
    assert action(job, {"preflight": 0, "sandbox": 137}, ["DisruptionTarget"]) == "Ignore"
    assert action(job, {"preflight": 78}) == "FailJob"
    assert action(job, {"preflight": 137}) == "Count"
    assert action(job, {}, ["ConfigIssue"]) == "FailJob"


def test_an_index_sees_its_own_shard_and_no_students_program_sees_any():
    one = plan()
    shards, job = pods.shards(one, IDS, uid="0f0e"), pods.job(one, IDS, 2, 3)
    assert [json.loads(shards["data"][str(index)]) for index in range(len(IDS))] == [{"job": id} for id in IDS]
    assert shards["immutable"] is True
    assert [owner["uid"] for owner in shards["metadata"]["ownerReferences"]] == ["0f0e"]
    template = job["spec"]["template"]["spec"]
    volume = next(volume for volume in template["volumes"] if "configMap" in volume)
    assert volume["configMap"]["name"] == shards["metadata"]["name"]
    mounts = {one["name"]: [mount for mount in one["volumeMounts"] if mount["name"] == volume["name"]] for one in containers(template)}
    assert mounts["sandbox"] == []
    assert [mount["subPathExpr"] for mount in mounts["preflight"]] == ["$(JOB_COMPLETION_INDEX)"]


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="at most 1048576; make several"):
        pods.shards(plan(), ["f" * 64] * 20000)
    with pytest.raises(ValueError, match="a job stands twice"):
        pods.shards(plan(), [*IDS, IDS[3]])
    with pytest.raises(ValueError, match="at most 60 characters"):
        pods.job(plan(name="g" * 61), IDS, 2, 3)
    for jobs, parallelism, attempts in (([], 1, 1), (IDS, 0, 1), (IDS, 1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            pods.job(plan(), jobs, parallelism, attempts)


# The namespace

def test_nothing_goes_in_or_out_of_any_pod_of_the_namespace():
    policy = namespaces.deny_all(plan())["spec"]
    assert policy["podSelector"] == {}                              # all pods
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}      # both directions are governed ...
    assert not policy.get("ingress")                                # ... and no rule allows anything
    assert not policy.get("egress")


def test_the_namespace_enforces_the_standard():
    labels = namespaces.namespace(plan())["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert labels["pod-security.kubernetes.io/enforce-version"] == "v1.33"


def test_the_supervisor_may_do_what_it_does_and_nothing_else():
    rules = namespaces.role(plan())["rules"]
    granted = {right for rule in rules for right in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])}
    does = {                                    # to bring sandboxes up, look after them, talk to them and remove them
        *(("batch", "jobs", verb) for verb in ("create", "get", "list", "watch", "delete")),
        *(("", "pods", verb) for verb in ("create", "get", "list", "watch", "delete")),
        ("", "pods/attach", "get"), ("", "pods/attach", "create"),              # before and since Kubernetes 1.35
        ("", "configmaps", "create"), ("", "configmaps", "get")}
    assert granted == does
    binding = namespaces.role_binding(plan(), ACCOUNT)
    assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "tinytorch", "name": "autograder"}]
    assert binding["roleRef"]["name"] == namespaces.role(plan())["metadata"]["name"]
    assert binding["metadata"]["namespace"] == plan().namespace


# The programs in the pod, run by a real Python

def expanded(word, environment=()):
    """What the kubelet makes of a word of a command: $$ is a dollar, $(NAME) a variable's value or, unknown, itself."""
    return re.sub(r"\$\$|\$\(([^()$]*)\)", lambda found: "$" if found[0] == "$$" else dict(environment).get(found[1], found[0]), word)


def command(one, name="sandbox"):
    container = next(each for each in containers(pods.pod(one)["spec"]) if each["name"] == name)
    return [expanded(word) for word in container["command"]]


def started(one):
    pipe = subprocess.PIPE
    return subprocess.Popen(command(one), stdin=pipe, stdout=pipe, stderr=pipe, env={"PATH": os.defpath})


LIMITED = plan(python=sys.executable, user_namespace=False, limits=Limits(cpu_seconds=7, disk_mb=3))
PROGRAM = b"""import resource, sys
print([resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] for name in ("CORE", "FSIZE", "NOFILE", "CPU")], sys.stdin.read())
open("kept", "w").write("$(HOME) $$")
try:
    open("large", "w").write("x" * (4 << 20))
except OSError as error:
    print(error.errno)
sys.exit(3)
"""


def test_the_pods_first_program_takes_a_job_from_its_stdin_and_answers(tmp_path):
    holder = started(LIMITED)
    wanted = {"mark": "mark ", "argv": ["python3", "-s", "main.py"], "env": {"A": "b"}, "work": str(tmp_path), "collect": ["kept"],
              "disks": [], "sizes": [[str(tmp_path / "main.py"), 0o644, len(PROGRAM)]]}
    holder.stdin.write(b'{"imports": ["numpy"]}\n')
    holder.stdin.flush()
    assert holder.stdout.readline() == b"\n"
    out, err = holder.communicate(json.dumps(wanted).encode() + b"\n" + PROGRAM + b"input", timeout=60)
    assert out.decode().splitlines() == [f"[0, {3 * 2**20}, 1024, 9] input", "27", "mark "]     # EFBIG; where stdout ends
    told = json.loads(err.partition(b"mark ")[2])
    assert told["code"] == 3
    assert base64.b64decode(told["files"]["kept"]) == b"$(HOME) $$"
    assert holder.returncode == 0


def test_a_pod_whose_supervisor_goes_away_first_asks_for_another_try():
    for said in (b"", b'{"imports": []}\n'):
        holder = started(LIMITED)
        holder.communicate(said, timeout=60)
        assert holder.returncode == pods.RETRIED


def test_processes_are_limited_where_nobody_else_is_counted():
    def limits(one):
        text = command(one)[3].partition(docker.HOLDER.read_text())[0]
        text += "print(resource.getrlimit(resource.RLIMIT_NPROC))"
        return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.strip()
    ours = str(resource.getrlimit(resource.RLIMIT_NPROC))
    assert limits(plan(limits=Limits(pids=17))) == "(18, 18)"
    assert limits(plan(limits=Limits(pids=17), user_namespace=False)) == ours


@given(st.text(alphabet="$()aA ", max_size=20))
def test_no_text_of_a_command_is_taken_for_a_variable(text):
    assert expanded(pods._container(plan(), "any", [text], [])["command"][3], {"a": "filled in", "A": "", "": "x"}) == text


def preflight(wanted, environment=()):
    program, _ = command(plan(), "preflight")[3:]
    return subprocess.run([sys.executable, "-s", "-c", program, json.dumps(wanted)], capture_output=True, text=True, timeout=60,
                          env={"PATH": os.defpath, **dict(environment)})


NOTHING = {"folders": {}, "imports": [], "process": {}, "shard": "", "patience": 0}


def test_preflight_passes_in_the_isolation_that_the_pod_asks_for():
    """The process sandbox has the same: namespaces, no rights, a filter, a read-only root and folders of limited size."""
    try:
        bwrap = bubblewrap.find()
    except SandboxUnavailable as lacking:
        need("bubblewrap", False, lacking.fix)
    one = plan(python=sys.executable, folders=("/opt/edition",))
    with contextlib.ExitStack() as stack:
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(seccomp.program())
        options = bubblewrap.options(readonly=bubblewrap.python_paths(), tmpfs=one.sizes)
        api = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}       # of its own network, where nobody listens
        done = subprocess.run([bwrap, "--seccomp", str(reading), *options, "--", *command(one, "preflight")], pass_fds=[reading],
                              capture_output=True, text=True, timeout=60, env={"PATH": os.defpath, **api})
        assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(("wanted", "said"), [
    ({"folders": {"/nowhere": 1}}, "/nowhere cannot be written"), ({"imports": ["no_such_module"]}, "does not import no_such_module"),
    ({"process": {"CapEff": "ffff"}}, "instead of ffff"), ({"process": {"Unheard": "1"}}, "Unheard is not told"),
    ({"shard": "/nowhere/shard"}, "this index has no shard"), ({"shard": "/proc/self/status"}, "this index has no shard"),
    ({"shard": "/proc"}, "this index has no shard")])
def test_preflight_says_what_is_wrong(wanted, said):
    done = preflight({**NOTHING, **wanted})
    assert done.returncode == pods.CONFIGURATION
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_preflight_wants_folders_of_limited_size(tmp_path):
    assert f"{tmp_path} is not limited to 1 MB" in preflight({**NOTHING, "folders": {str(tmp_path): 1}}).stderr


def test_preflight_refuses_a_pod_that_reaches_the_api_server_and_waits_for_a_policy_that_comes_late():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = (("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", str(server.getsockname()[1])))
        said = "the API server can be reached: no network policy is in force here"
        assert said in preflight(NOTHING, address).stderr
        threading.Timer(1.5, server.close).start()
        begun = time.monotonic()
        assert said not in preflight({**NOTHING, "patience": 30}, address).stderr
        assert time.monotonic() - begun < 25


# The command

@pytest.fixture
def quotas(tmp_path, capsys):
    """What `python -m hub.config quotas` prints for the example site, with one class that asks for more."""
    example = hub_site.Site.example_path
    text = example.read_text().replace("memory: 2G                      # of one job", "memory: 3G").replace("parallel: 2 ", "parallel: 7 ")
    (tmp_path / "classes.yml").write_text(text)
    (tmp_path / "rosters").symlink_to(example.parent / "rosters")
    assert config_command.main(["quotas", str(tmp_path / "classes.yml")]) == 0
    (tmp_path / "quotas.json").write_text(capsys.readouterr().out)
    return tmp_path / "quotas.json"


def run(quotas, *words, **options):
    words = {"--class": "ml101", "--image": IMAGE, "--quotas": str(quotas), **options, **dict(zip(words[::2], words[1::2], strict=True))}
    return CliRunner().invoke(manifests.kubernetes, [word for pair in words.items() for word in pair])


def test_a_classs_documents_have_the_values_of_classes_yml(quotas, tmp_path):
    (tmp_path / "jobs").write_text("\n".join(IDS))
    done = run(quotas, "--kind", "train", "--jobs", str(tmp_path / "jobs"), "--data-claim", "datasets")
    assert done.exit_code == 0, done.output
    documents = {one["kind"]: one for one in yaml.safe_load_all(done.stdout)}
    assert list(documents) == ["Namespace", "NetworkPolicy", "ResourceQuota", "Role", "RoleBinding", "ConfigMap", "Job"]
    assert all(valid(one) for one in documents.values())
    job = documents["Job"]["spec"]
    assert job["parallelism"] == 7
    assert job["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] == "3072Mi"
    assert job["template"]["spec"]["activeDeadlineSeconds"] > 2 * 15 * 60                        # job_minutes: 15
    assert documents["ResourceQuota"]["spec"]["hard"]["limits.memory"] == f"{14 * 3072}Mi"
    graded = next(one for one in yaml.safe_load_all(run(quotas).stdout) if one["kind"] == "Pod")
    assert graded["spec"]["containers"][0]["resources"]["limits"]["memory"] == f"{Limits().memory_mb}Mi"


@pytest.mark.parametrize(("words", "said"), [
    (("--image", "autograder:latest"), "--image: 'autograder:latest' is no image by digest"),
    (("--image", "autograder@sha256:abc"), "is no image by digest"),
    (("--name", "Grade_1"), "--name: 'Grade_1' is no DNS label"), (("--namespace", "a" * 64), "--namespace: "),
    (("--memory-mb", "16"), "--memory-mb: Input should be greater than or equal to 32, not 16"),
    (("--kind", "train", "--memory-mb", "4096"), "--memory-mb: 4096 is more than a job of the class may have (3072)"),
    (("--class", "ml999"), "--class: there is no class ml999"), (("--quotas", "/nowhere"), "--quotas: /nowhere cannot be read"),
    (("--supervisor", "autograder"), "--supervisor: 'autograder' is not NAMESPACE/NAME"), (("--seccomp", "../x"), "--seccomp: "),
    (("--data-claim", "datasets"), "only train takes a data claim"), (("--jobs", __file__), "line 1: ")])
def test_bad_input_gets_one_line_and_exit_code_2(quotas, words, said):
    done = run(quotas, *words)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_quota_that_is_none_is_told_in_one_line(quotas):
    quotas.write_text('{"ml101": {"parallel": 0, "memory_mb": 1}}')
    done = run(quotas)
    assert done.exit_code == 2
    assert f"--quotas: ml101 in {quotas}: parallel: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_is_one_of_the_autograders(quotas):
    words = ["kubernetes", "--class", "ml201", "--image", IMAGE, "--quotas", str(quotas), "--no-namespace"]
    done = subprocess.run([sys.executable, "-m", "autograder", *words], capture_output=True, text=True, cwd=paths.REPO, timeout=120)
    assert done.returncode == 0, done.stderr
    assert [one["kind"] for one in yaml.safe_load_all(done.stdout)] == ["Pod"]


def test_a_plan_is_refused_before_anything_is_rendered():
    for wrong in ({"image": "a"}, {"name": "-a"}, {"namespace": ""}, {"class_id": "a b"}, {"seccomp": "/etc/x"}, {"unknown": 1},
                  {"data_claim": "data"}):
        with pytest.raises(ValidationError):
            plan(**wrong)


def test_our_filter_is_printed_for_kubelets():
    done = CliRunner().invoke(manifests.profile)
    assert done.exit_code == 0
    profile = json.loads(done.stdout)
    assert "ptrace" in profile["syscalls"][0]["names"]
    assert profile == json.loads(seccomp.profile())


def test_nothing_of_this_says_that_it_runs_in_a_cluster():
    folder = Path(pods.__file__).parent
    assert "talks to a cluster" in (folder / "__init__.py").read_text()
    from autograder.sandbox import choice
    assert "kubernetes" not in choice.KINDS
