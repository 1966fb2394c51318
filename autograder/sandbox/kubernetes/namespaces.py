"""The namespace of a class's sandboxes and what bounds it: nothing goes in or out, and a supervisor that may do little.

A namespace for each class, apart from the site's own: quotas and rights hold for a namespace, no secret and no account of the site
lies in it, so not even who may create pods there can mount one, and removing a class's sandboxes is removing a namespace.
"""

from autograder.quotas import Quota
from autograder.sandbox.kubernetes.pods import Document, Plan, amounts, quantities

LEVEL, VERSION = "restricted", "v1.33"  # of the Pod Security Standards; pinned, so that no upgrade in the middle of a term refuses pods
SUPERVISOR = "sandbox-supervisor"
RIGHTS = {                              # exactly what a supervisor has to do: no exec, no logs, no secrets, no changing of what exists
    ("batch", "jobs"): ("create", "delete", "get", "list", "watch"),
    ("", "pods"): ("create", "delete", "get", "list", "watch"),
    ("", "pods/attach"): ("create", "get"),     # a websocket is asked for with GET; since 1.35 `create` is wanted for it, too
    ("", "configmaps"): ("create", "get")}      # removed with their Job


def documents(plan: Plan, quota: Quota, parallelism: int, account: tuple[str, str]) -> list[Document]:
    """All documents of a class's namespace. `parallelism`: pods of a batch at the same time, beside the students' own jobs;
    `account`: namespace and name of the supervisor's service account."""
    return [namespace(plan), deny_all(plan), resource_quota(plan, quota, parallelism), role(plan), role_binding(plan, account)]


def namespace(plan: Plan) -> Document:
    """Pods that are not as restricted as ours are refused, whoever creates them; newer rules than that are told of, not enforced."""
    labels = {f"pod-security.kubernetes.io/{mode}{key}": value for mode, version in (
        ("enforce", VERSION), ("audit", "latest"), ("warn", "latest")) for key, value in (("", LEVEL), ("-version", version))}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plan.namespace, "labels": {
        "app.kubernetes.io/part-of": "tinytorch-hub", "org.tinytorch.class": plan.class_id, **labels}}}


def deny_all(plan: Plan) -> Document:
    """For every pod of the namespace, labelled or not. Attaching goes through the node, which no policy touches."""
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": _named(plan, "deny-all"),
            "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}


def resource_quota(plan: Plan, quota: Quota, parallelism: int) -> Document:
    """The class's share of the cluster, even if a supervisor goes wrong. With it a pod without requests and limits is refused, so a
    LimitRange would say nothing more."""
    pods = quota.parallel + parallelism
    batch, students = amounts(plan.limits), amounts(quota.largest)
    whole = quantities({name: pods * max(batch[name], students[name]) for name in batch})
    hard = {"pods": str(pods), **{f"{side}.{name}": amount for side in ("requests", "limits") for name, amount in whole.items()},
            "services": "0", "persistentvolumeclaims": "1" if plan.data_claim else "0"}        # nothing leads to a sandbox
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": _named(plan, "share"), "spec": {"hard": hard}}


def role(plan: Plan) -> Document:
    rules = [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for (group, resource), verbs in RIGHTS.items()]
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": _named(plan, SUPERVISOR), "rules": rules}


def role_binding(plan: Plan, account: tuple[str, str]) -> Document:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": _named(plan, SUPERVISOR),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": SUPERVISOR},
            "subjects": [{"kind": "ServiceAccount", "namespace": account[0], "name": account[1]}]}


def _named(plan: Plan, name: str) -> Document:
    return {"name": name, "namespace": plan.namespace, "labels": {
        "app.kubernetes.io/part-of": "tinytorch-hub", "org.tinytorch.class": plan.class_id}}
