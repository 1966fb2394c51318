"""The pod of one sandbox, and the Indexed Job of a batch: the docker sandbox's container in the words of Kubernetes.

A pod has no ulimits and no limit on processes. The first are set by the first program on itself, before it takes anything from outside;
the second too where the pod has a user namespace of its own, in which nobody else is counted, and by the kubelet (podPidsLimit) for all.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from autograder.jobs import FilePath, Frozen, Kind, Limits, Sha256
from autograder.sandbox.containers.container import LARGEST, START_SECONDS
from autograder.sandbox.containers.docker import HOLDER, LABEL
from autograder.sandbox.processes.bubblewrap import INNER_UID
from autograder.sandbox.run import DISKS

Document = dict[str, Any]

PREFLIGHT = Path(__file__).with_name("preflight.py")
SHARD = "/opt/shard"                    # where an index finds its own shard, and no other
LABEL_LENGTH = 63                       # of a DNS label
RETRIED, CONFIGURATION = 75, 78         # exit codes (sysexits.h) of holder.py and preflight.py
POLICY_SECONDS = 30                     # in which a cluster's network must have learned of a new pod's policy
FINISHED_SECONDS = 3600                 # that a finished Job is kept, for a supervisor that comes back and for who looks
CONFIG_MAP_BYTES = 2**20                # the API's limit
DIGEST = re.compile(r"[a-z0-9][a-z0-9._/:-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?@sha256:[0-9a-f]{64}")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def _image(image: str) -> str:
    if not DIGEST.fullmatch(image):
        raise ValueError(f"{image!r} is no image by digest: a name can be moved to another image while a class is graded; "
                         "write NAME@sha256:DIGEST (docker image inspect -f '{{index .RepoDigests 0}}' NAME)")
    return image


def _dns_label(name: str) -> str:
    if not DNS_LABEL.fullmatch(name):
        raise ValueError(f"{name!r} is no DNS label, which Kubernetes wants here: a-z, 0-9 and -, beginning and ending with a letter or "
                         f"digit, at most {LABEL_LENGTH} characters")
    return name


def _label_value(text: str) -> str:
    if not LABEL_VALUE.fullmatch(text):
        raise ValueError(f"{text!r} cannot be a label: letters, digits, - _ and ., at most {LABEL_LENGTH} characters")
    return text


Image = Annotated[str, AfterValidator(_image)]
DnsLabel = Annotated[str, AfterValidator(_dns_label)]
LabelValue = Annotated[str, AfterValidator(_label_value)]


class Plan(Frozen):
    """What a sandbox of a class is to be. Raises ValueError (pydantic's) for what no cluster would take, or no sandbox should be.

    `folders`: where the supervisor puts files, beside the work folder. `seccomp`: a filter below the kubelet's folder of profiles
    on every node, such as ours (`python -m autograder seccomp`); empty: the container runtime's. `data_claim`: a volume claim
    with the data sets, for trainings. `user_namespace`: off only where nodes cannot (before Linux 6.3 or containerd 2.0).
    """

    class_id: LabelValue
    kind: Kind
    name: DnsLabel
    namespace: DnsLabel
    image: Image
    limits: Limits
    python: str = Field(default="python3", min_length=1)
    folders: tuple[str, ...] = ()
    imports: tuple[str, ...] = ("numpy",)
    seccomp: FilePath | None = None
    user_namespace: bool = True
    runtime_class: DnsLabel | None = None
    data_claim: DnsLabel | None = None
    data_folder: str = "/opt/data"

    @model_validator(mode="after")
    def _data_is_for_trainings(self) -> "Plan":
        if self.data_claim and self.kind != "train":
            raise ValueError(f"a job of kind {self.kind} reads no data sets: only train takes a data claim")
        return self

    @property
    def labels(self) -> dict[str, str]:
        return {"app.kubernetes.io/name": "sandbox", "app.kubernetes.io/part-of": "tinytorch-hub", LABEL: "true",
                "org.tinytorch.class": self.class_id, "org.tinytorch.kind": self.kind}

    @property
    def seconds(self) -> int:
        """After which a pod is ended in any case. Its supervisor counts from the program's start and ends it earlier."""
        return START_SECONDS + POLICY_SECONDS + math.ceil(self.limits.wall_seconds)

    @property
    def sizes(self) -> dict[str, int]:
        """MB of each folder that can be written. They lie in memory and count there, as in the other sandboxes."""
        return {**dict.fromkeys(DISKS, self.limits.disk_mb), **dict.fromkeys(self.folders, LARGEST // 2**20)}


def amounts(limits: Limits) -> dict[str, int]:
    """What a pod takes of its node: cores, MB, MB. Storage: all that the node's log keeps of what the program wrote and gave back."""
    return {"cpu": 1, "memory": limits.memory_mb, "ephemeral-storage": math.ceil(limits.output_kb / 2**10) + LARGEST // 2**20}


def quantities(amounts: Mapping[str, int]) -> dict[str, str]:
    """The same in words of Kubernetes."""
    return {name: str(amount) if name == "cpu" else f"{amount}Mi" for name, amount in amounts.items()}


def pod(plan: Plan) -> Document:
    """One sandbox. Who created it deletes it; if nobody does, it ends by itself (`Plan.seconds`) and runs nothing any more."""
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": plan.name, "namespace": plan.namespace, "labels": plan.labels}, "spec": spec(plan)}


def spec(plan: Plan, shards: str = "") -> Document:
    """The pod's specification. `shards`: the ConfigMap of the Job that it is part of."""
    seccomp = {"type": "Localhost", "localhostProfile": plan.seccomp} if plan.seccomp else {"type": "RuntimeDefault"}
    names = {path: f"tmp{number}" for number, path in enumerate(plan.sizes)}
    mounts: list[Document] = [{"name": name, "mountPath": path} for path, name in names.items()]
    volumes: list[Document] = [
        {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": f"{plan.sizes[path]}Mi"}} for path, name in names.items()]
    first, data = list(mounts), []
    if shards:                          # mounted where no student's program runs, and of it only what is this index's
        volumes.append({"name": "shards", "configMap": {"name": shards, "defaultMode": 0o444}})
        first.append({"name": "shards", "mountPath": SHARD, "subPathExpr": "$(JOB_COMPLETION_INDEX)", "readOnly": True})
    if plan.data_claim:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": plan.data_claim, "readOnly": True}})
        data = [{"name": "data", "mountPath": plan.data_folder, "readOnly": True}]
    return {
        "restartPolicy": "Never", "activeDeadlineSeconds": plan.seconds, "terminationGracePeriodSeconds": 1,   # nothing to save
        "automountServiceAccountToken": False, "enableServiceLinks": False, "hostname": "sandbox",
        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["127.0.0.1"]},       # one is obligatory; nobody listens there
        **({"hostUsers": False} if plan.user_namespace else {}),
        **({"runtimeClassName": plan.runtime_class} if plan.runtime_class else {}),
        "securityContext": {"runAsNonRoot": True, "runAsUser": INNER_UID, "runAsGroup": INNER_UID, "seccompProfile": seccomp},
        "initContainers": [_container(plan, "preflight", [PREFLIGHT.read_text(), json.dumps(_expected(plan, bool(shards)))], first) | {
            "terminationMessagePolicy": "FallbackToLogsOnError"}],              # the reason stands in the pod's status
        "containers": [_container(plan, "sandbox", [_limited(plan)], mounts + data) | {"stdin": True, "stdinOnce": True}],
        "volumes": volumes}


def _container(plan: Plan, name: str, program: list[str], mounts: list[Document]) -> Document:
    """Requests are limits: such a pod (class Guaranteed) is evicted last, whatever others do on its node, and where the kubelet's CPU
    manager is static its core is its own, which trainings and profiles are worth."""
    resources = quantities(amounts(plan.limits))
    command = [word.replace("$", "$$") for word in (plan.python, "-s", "-c", *program)]     # $(NAME) would be filled in
    return {
        "name": name, "image": plan.image, "imagePullPolicy": "IfNotPresent", "command": command,
        "workingDir": "/", "volumeMounts": mounts, "resources": {"requests": resources, "limits": dict(resources)},
        "securityContext": {"allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}}}


def _expected(plan: Plan, in_job: bool) -> Document:
    """What preflight.py looks for. Another runtime's kernel (gVisor) need not tell of seccomp: there it is a filter by itself."""
    process = {"NoNewPrivs": "1", "CapEff": f"{0:016x}", **({} if plan.runtime_class else {"Seccomp": "2"})}
    return {"folders": plan.sizes, "imports": plan.imports, "process": process, "shard": SHARD if in_job else "",
            "patience": POLICY_SECONDS}


def _limited(plan: Plan) -> str:
    """holder.py, under the docker sandbox's ulimits, which nobody without rights can raise again. The one on files also bounds
    /dev/termination-log, a file of the node that every container may write."""
    limits = {"CORE": 0, "FSIZE": plan.limits.disk_mb * 2**20, "NOFILE": 1024, "CPU": int(plan.limits.cpu_seconds) + 2}
    if plan.user_namespace:             # without one, all sandboxes of the node would be counted together
        limits["NPROC"] = plan.limits.pids + 1                                  # the holder is one of them
    lines = "".join(f"resource.setrlimit(resource.RLIMIT_{name}, ({value}, {value}))\n" for name, value in limits.items())
    return f"import resource\n{lines}{HOLDER.read_text()}"


def job(plan: Plan, jobs: Sequence[Sha256], parallelism: int, attempts: int) -> Document:
    """The Indexed Job of a batch of our jobs, one for each index. Raises ValueError where names or numbers do not fit.

    One job and not a shard of many: a pod is used once, so nothing of one submission is there when the next one runs. The Job only
    brings pods up: marks and results come from the supervisor that talks to them, and the autograder's queue knows what is done.
    `attempts`: how often an index may be tried when the cluster failed, not the student.
    """
    if not jobs or parallelism < 1 or attempts < 1:
        raise ValueError("a batch needs at least one job, one pod at a time and one attempt")
    longest = LABEL_LENGTH - len(f"-{len(jobs) - 1}")
    if len(plan.name) > longest:
        raise ValueError(f"{plan.name!r} is too long for a batch of {len(jobs)}: pods are named NAME-INDEX, at most {longest} characters")
    parallelism = min(parallelism, len(jobs))
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": plan.name, "namespace": plan.namespace, "labels": plan.labels},
        "spec": {
            "completionMode": "Indexed", "completions": len(jobs), "parallelism": parallelism, "backoffLimitPerIndex": attempts - 1,
            "maxFailedIndexes": len(jobs),          # so never reached: no number of failing students stops the others
            "podReplacementPolicy": "Failed",       # a submission never runs twice at the same time
            "activeDeadlineSeconds": math.ceil(len(jobs) / parallelism) * attempts * plan.seconds,
            "ttlSecondsAfterFinished": FINISHED_SECONDS,
            "podFailurePolicy": {"rules": [         # the first one that fits counts
                # The node was drained, was lost or ran out of memory. What a student's program overdoes (memory, storage) ends its
                # pod without this condition.
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                # Set by whatever watches a site's pods for images that cannot be pulled and the like; Kubernetes itself does not.
                {"action": "FailJob", "onPodConditions": [{"type": "ConfigIssue", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": "preflight", "operator": "In", "values": [CONFIGURATION]}},
                # However else the student's container ends (137: out of memory, out of time), it is not tried again. Only a holder whose
                # supervisor went away before it had sent everything asks for that. No code of this container fails the Job: else one
                # student could end everybody's.
                {"action": "FailIndex", "onExitCodes": {"containerName": "sandbox", "operator": "NotIn", "values": [RETRIED]}},
            ]},
            "template": {"metadata": {"labels": plan.labels}, "spec": spec(plan, shards_name(plan))}}}


def shards_name(plan: Plan) -> str:
    return f"{plan.name}.shards"


def shards(plan: Plan, jobs: Sequence[Sha256], uid: str = "") -> Document:
    """Which job each index is: a ConfigMap that never changes. Raises ValueError for more than one can hold.

    Not a volume claim: that would need storage that all nodes share, a way for the supervisor to write it, and would hold submissions.
    Here are ids alone, a few dozen bytes each; the work itself comes over stdin. After a restart the supervisor reads here what each pod
    is for. It creates the Job first, whose pods wait for this, and gives the Job's `uid`, so that both disappear together.
    """
    data = {str(index): json.dumps({"job": id}) for index, id in enumerate(jobs)}
    if (size := sum(len(key) + len(value) for key, value in data.items())) > CONFIG_MAP_BYTES:
        raise ValueError(f"{len(jobs)} jobs are too many for one batch: {size} bytes of ids, at most {CONFIG_MAP_BYTES}; make several")
    if len(set(jobs)) < len(jobs):
        raise ValueError("a job stands twice in the batch: each runs once, so leave the second out")
    owner = [{"apiVersion": "batch/v1", "kind": "Job", "name": plan.name, "uid": uid, "controller": False, "blockOwnerDeletion": False}]
    return {"apiVersion": "v1", "kind": "ConfigMap", "immutable": True, "data": data, "metadata": {
        "name": shards_name(plan), "namespace": plan.namespace, "labels": plan.labels, **({"ownerReferences": owner} if uid else {})}}
