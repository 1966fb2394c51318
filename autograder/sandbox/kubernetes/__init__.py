"""The kubernetes sandbox, as manifests: they are rendered and checked here. Nothing in this folder talks to a cluster, and
AUTOGRADER_SANDBOX does not know the word: the supervisor's client is not written, since none could be tried without a cluster.

`pods.py` has the pod of one sandbox and the Indexed Job of a batch, `namespaces.py` the namespace of a class around them, `preflight.py`
what looks first whether a pod is isolated. `python -m autograder kubernetes` shows them (autograder/manifests.py). The Helm chart is
given the same documents as a list among its values and writes each with `toYaml`, so no template repeats what stands here.

Kubernetes 1.33 or newer: `backoffLimitPerIndex` is stable and user namespaces are on since then.

How a supervisor talks to a pod without network: it attaches through the API server (a websocket, v5.channel.k8s.io, whose close
signal ends stdin), which reaches the container through the node and not through the pod's network. The container's first program is
the one of the docker sandbox (holder.py) and what is said is the same: one line what to import, one what to run, the files, the
program's own input; outputs come back the same way. So the pod needs no network, no account, no volume with anybody's work, and has
nothing in it that could reach the autograder's API. `exec` is not used: it would start a second program beside the student's.
"""
