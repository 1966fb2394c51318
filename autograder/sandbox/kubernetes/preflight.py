"""The first program in a pod, in a container of its own before any student's code: is this the isolation that was asked for?

Given to Python as text, like holder.py; standard library only. Its argument is JSON: `folders` (path to MB), `imports`, `process` (lines of
/proc/self/status and what they must say), `shard` (a file, empty for a single sandbox), `patience` (seconds). Says everything that
is wrong on stderr and ends with 78: a Job is over then, since no other pod of it would fare better. No student's program runs in this
container, so none can end a Job that way.

A NetworkPolicy does nothing where the cluster's network does not know them, and some networks need seconds to obey. So it tries to
reach the API server, the one address that every pod is told: it waits until that fails, and gives up when it does not.
"""

import importlib
import json
import os
import socket
import sys
import time

CONFIGURATION = 78                                  # EX_CONFIG
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"
CONNECT_SECONDS = 2


def reaches_api():
    """Whether a connection to the API server can be made. What is dropped, refused or has no route cannot."""
    address = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not all(address):
        return False
    try:
        socket.create_connection(address, CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def problems(wanted):
    if os.getuid() == 0:
        yield "it runs as root"
    if os.path.exists(TOKEN):
        yield "a service account's token is mounted"
    if not os.statvfs("/").f_flag & os.ST_RDONLY:
        yield "the root file system can be written"
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":", 1) for line in file)
    for name, value in wanted["process"].items():
        if status.get(name, "").strip() != value:
            yield f"{name} is {status.get(name, 'not told').strip()} instead of {value}"
    for folder, size in wanted["folders"].items():
        if not os.access(folder, os.W_OK):
            yield f"{folder} cannot be written"
        else:
            space = os.statvfs(folder)
            if space.f_blocks * space.f_frsize > size * 2**20:
                yield f"{folder} is not limited to {size} MB"
    for name in wanted["imports"]:
        try:
            importlib.import_module(name)
        except Exception as error:
            yield f"the image's Python does not import {name}: {error}"
    if wanted["shard"]:
        try:
            with open(wanted["shard"]) as file:
                json.load(file)["job"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            yield f"this index has no shard: {error}"
    given_up = time.monotonic() + wanted["patience"]
    while reaches_api():
        if time.monotonic() > given_up:
            yield "the API server can be reached: no network policy is in force here"
            break
        time.sleep(0.5)


def main():
    found = list(problems(json.loads(sys.argv[1])))
    if found:
        print("not isolated as asked for: " + "; ".join(found), file=sys.stderr)
    sys.exit(CONFIGURATION if found else 0)


main()
