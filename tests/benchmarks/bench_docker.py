"""What a student's container costs beside that of a plain stack, and how many start within a minute: CPU, memory, spawn time.

Ours is what the hub's spawner on Docker starts. Plain is `jupyterhub-singleuser` in a container of the same image, as DockerSpawner
makes it: no limits, root file system writable, every extension of the packages on, rfc3987-syntax and lark added, which our lock
leaves out, and readiness looked for in the hub's own way. It shares the host's network, which spares it a bridge and a firewall rule.
The two take turns. A start can be made cheap by putting work off, so both are then asked what JupyterLab asks while it opens in
a browser, and for nbgrader's assignment list; the kernel of a notebook, the same program for both, is not started. At the end the
students of a lecture hall come at once, 20 starts at a time, as the hub lets them.

    python -m tests.benchmarks.bench_docker --runs 5 --students 50
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from jupyterhub.utils import random_port, wait_for_http_server
from tornado.httpclient import AsyncHTTPClient

from hub.spawning import engine
from hub.spawning.engine import aask
from tests import docker_server, docker_site, student_server
from tests.benchmarks import bench_start

CPU_TARGET, MEMORY_TARGET = 0.4, 0.8
SETTLED = 3.0                            # seconds after the first answer, when memory is read
AT_ONCE = 20                             # c.JupyterHub.concurrent_spawn_limit
MACHINE_MB = 24 * 1024
SERVICES_MB = 1024                       # what the site's own services and the system take of it, about
# What a browser's JupyterLab 4.6 asks of its server while it opens on an empty home, without files that never change.
LAB = ("lab", "api/me", "lab/api/settings", "api/kernels", "api/terminals", "api/sessions", "api/kernelspecs", "lab/api/workspaces",
       "lab/api/translations/default", "lab/api/build", "lab/api/translations", "api/contents?content=1&hash=0",
       "lab/api/settings/@jupyterlab/docmanager-extension:plugin", "lab/api/settings/@jupyterlab/codemirror-extension:plugin",
       "lab/api/settings/@jupyterlab/notebook-extension:panel", "lab/api/themes/@jupyterlab/theme-light-extension/index.css",
       "lab/api/workspaces/default", "lab/api/settings?ids_only=true")
ASSIGNMENTS = ("nbgrader_version?version=0.9.6", "assignments?course_id=ml101")
STATES = {"": "until ready", "opened ": "until Lab is open", "listed ": "until the assignment list is open"}
SETTINGS = ("JUPYTER_CONFIG_PATH", "JUPYTER_PREFER_ENV_PATH", "JUPYTERHUB_DISABLE_USER_CONFIG")      # ours, which the image sets
ALL_EXTENSIONS = ["/usr/bin/env", *(f"--unset={name}" for name in SETTINGS), "/opt/envs/user/bin/jupyterhub-singleuser"]


def group(container: str, controller: str) -> Path:
    """The container's control group, version 1 or 2."""
    pid = engine.ask("GET", engine.container(container, "/json"))["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup", controller) / path.lstrip("/")
        if not controllers and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/")
    raise SystemExit(f"the control group of {container} was not found")


def cpu_seconds(container: str) -> float:
    """CPU time of all that ever ran in it."""
    folder = group(container, "cpuacct")
    if (folder / "cpuacct.usage").exists():
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    used = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
    return int(used["usage_usec"]) / 1e6


def memory_mb(container: str) -> float:
    """Proportional memory of its processes."""
    pids = (group(container, "memory") / "cgroup.procs").read_text().split()
    return sum(psutil.Process(int(pid)).memory_full_info().pss for pid in pids) / 2**20


Started = tuple[str, str, dict[str, float]]               # its container, its address, its figures


async def ours(place: docker_server.Place, user: str = "alice") -> Started:
    server = place.server(user)
    begun = time.monotonic()
    url = await server.start()
    return server.container, url, {"wall": time.monotonic() - begun, "cpu": cpu_seconds(server.container)}


async def plain(place: docker_server.Place, overlay: Path) -> Started:
    server, port = place.server(), random_port()
    said = {name: value for name, value in server.get_env().items() if name.startswith(("JUPYTERHUB_", "JPY_"))}
    said.pop("JUPYTERHUB_DISABLE_USER_CONFIG")
    env = {**said, "JUPYTERHUB_API_URL": place.api, "JUPYTERHUB_ACTIVITY_URL": f"{place.api}/users/alice/activity",
           "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/alice/ml101/", "HOME": "/home/student", "USER": "alice",
           "LANG": "C.UTF-8", "PATH": "/opt/envs/user/bin:/usr/bin:/bin", "PYTHONPATH": "/overlay", "COURSE_ID": "ml101",
           "NGSHARE_URL": "http://127.0.0.1:9/"}
    name = f"{place.project}-plain"
    body: dict[str, Any] = {
        "Image": f"{place.registry}student:{place.version}", "Entrypoint": ALL_EXTENSIONS, "Cmd": [], "User": "10001:10001",
        "WorkingDir": "/home/student", "Env": [f"{key}={value}" for key, value in env.items()],
        "Labels": {"org.tinytorch.project": place.project},
        "HostConfig": {"NetworkMode": "host", "Binds": [f"{overlay}:/overlay:ro", f"{place.project}-plain:/home/student"]}}
    begun = time.monotonic()
    await aask("POST", "/volumes/create", {"Name": f"{place.project}-plain", "Labels": body["Labels"]})
    await aask("POST", "/containers/create", body, name=name)
    await aask("POST", engine.container(name, "/start"))
    await wait_for_http_server(f"http://127.0.0.1:{port}/user/alice/ml101/api", timeout=180)
    return name, f"http://127.0.0.1:{port}", {"wall": time.monotonic() - begun, "cpu": cpu_seconds(name)}


async def ask(url: str, paths: tuple[str, ...]) -> None:
    for path in paths:
        await AsyncHTTPClient().fetch(f"{url}/user/alice/ml101/{path}", request_timeout=120,
                                      headers={"Authorization": f"token {student_server.TOKEN}"})


async def settled(started: Started) -> dict[str, float]:
    """The figures with its memory when it idles, and with both once Lab is open and once the assignment list is."""
    container, url, figures = started
    await asyncio.sleep(SETTLED)
    figures["memory"] = memory_mb(container)
    for state, paths in (("opened", LAB), ("listed", ASSIGNMENTS)):
        await ask(url, paths)
        figures[f"{state} cpu"], figures[f"{state} memory"] = cpu_seconds(container), memory_mb(container)
    await aask("DELETE", engine.container(container), force=1)
    return figures


def overlay(folder: Path) -> None:
    """The two packages for the image's Python, which must be the one of this machine's environments; compiled in the container."""
    bench_start.overlay(folder)
    for cache in folder.rglob("__pycache__"):
        subprocess.run(["rm", "-rf", str(cache)], check=True)
    registry, version = docker_site.images()
    docker_site.docker("run", "--rm", "-u", "0:0", "--network", "none", "-v", f"{folder}:/overlay",
                       "--entrypoint", "/opt/envs/user/bin/python", f"{registry}student:{version}", "-m", "compileall", "-q", "/overlay")


async def measure(runs: int, students: int) -> dict[str, Any]:
    measured: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        overlay(folder)
        async with docker_server.place() as place:
            for _ in range(runs + 1):
                measured["plain"].append(await settled(await plain(place, folder)))
                measured["ours"].append(await settled(await ours(place)))
    hall = await lecture_hall(students) if students else {}
    median = {side: {key: statistics.median(run[key] for run in each[1:]) for key in each[0]} for side, each in measured.items()}
    ratio = {key: median["ours"][key] / median["plain"][key] for key in median["plain"]}
    said = {f"spawn time, alone, {side}, s": round(median[side]["wall"], 2) for side in median}
    for state, words in STATES.items():
        cpu, memory = f"{state}cpu", f"{state}memory"
        said |= {f"CPU {words}, {side}, s": round(median[side][cpu], 2) for side in median}
        said |= {f"memory, {words.removeprefix('until ')}, {side}, MB": round(median[side][memory], 1) for side in median}
        said |= {f"CPU ratio, {words}": round(ratio[cpu], 3), f"memory ratio, {words.removeprefix('until ')}": round(ratio[memory], 3)}
    return {
        **said, "CPU ratio, target": CPU_TARGET, "memory ratio, target": MEMORY_TARGET,
        **{f"students in 24 GB, lists open and no kernel, {side}": int((MACHINE_MB - SERVICES_MB) / median[side]["listed memory"])
           for side in ("ours", "plain")},
        **hall, "runs": runs,
        "met": all(ratio[f"{state}cpu"] <= CPU_TARGET and ratio[f"{state}memory"] <= MEMORY_TARGET for state in STATES)}


async def lecture_hall(students: int) -> dict[str, Any]:
    """All at once; each waits for its turn, as in the hub, and the wait counts."""
    from hub.config.people import Person
    turn = asyncio.Semaphore(AT_ONCE)
    async with docker_server.place() as place:
        people = {f"s{number}": Person(f"s{number}", student_of=["ml101"]) for number in range(students)}
        begun = time.monotonic()

        async def one(user: str) -> float:
            async with turn:
                server = place.server(user)
                server.people = people
                await server.start()
            return time.monotonic() - begun

        done = await asyncio.gather(*(one(user) for user in people), return_exceptions=True)
        waited = sorted(each for each in done if isinstance(each, float))
        memory = sum(memory_mb(place.server(user).container) for user, each in zip(people, done, strict=True) if isinstance(each, float))
    if not waited:
        return {"students": students, "failed starts": len(done)}
    return {"students at once": students, "failed starts": len(done) - len(waited), "all ready, s": round(waited[-1], 1),
            "spawn time p50, s": round(statistics.median(waited), 1), "spawn time p95, s": round(waited[int(0.95 * (len(waited) - 1))], 1),
            "ready within a minute": sum(each <= 60 for each in waited),
            "memory of all of them, per student, MB": round(memory / len(waited), 1),
            "load of the machine before": LOAD}


LOAD = round(os.getloadavg()[0], 1)


def main(runs: int = 5, students: int = 0) -> dict[str, Any]:
    """Medians of both, their ratios, whether the targets are met; with `students`, what a lecture hall of them waits for."""
    registry, version = docker_site.images()
    try:
        engine.ask("GET", f"/images/{registry}student:{version}/json")
    except engine.EngineError as error:
        return {"not measured": f"it needs a Docker engine and the images (make images): {error}"}
    return asyncio.run(measure(runs, students))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--students", type=int, default=50)
    options = parser.parse_args()
    result = main(options.runs, options.students)
    for key, value in result.items():
        print(f"{key:<44} {value}")
    print(json.dumps(result))
    raise SystemExit(0 if result.get("met") else 1)
