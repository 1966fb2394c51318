"""What a student's container costs beside that of a plain stack, and how many start within a minute: CPU, memory, spawn time.

Ours is what the hub's spawner on Docker starts. Plain is `jupyterhub-singleuser` in a container of the same image, as DockerSpawner
makes it: no limits, root file system writable, every extension of the packages on, rfc3987-syntax and lark added, which our lock
leaves out, and readiness looked for in the hub's own way. It shares the host's network, which spares it a bridge and a firewall rule.
The two take turns. Then the students of a lecture hall come at once, 20 starts at a time, as the hub lets them.

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

from hub.spawning import engine
from hub.spawning.engine import aask
from tests import docker_server, docker_site
from tests.benchmarks import bench_start

CPU_TARGET, MEMORY_TARGET = 0.4, 0.8
SETTLED = 3.0                            # seconds after the first answer, when memory is read
AT_ONCE = 20                             # c.JupyterHub.concurrent_spawn_limit
MACHINE_MB = 24 * 1024
SERVICES_MB = 1024                       # what the site's own services and the system take of it, about
ALL_EXTENSIONS = "/opt/envs/user/bin/jupyterhub-singleuser"


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


async def ours(place: docker_server.Place, user: str = "alice") -> tuple[str, dict[str, float]]:
    server = place.server(user)
    begun = time.monotonic()
    await server.start()
    return server.container, {"wall": time.monotonic() - begun, "cpu": cpu_seconds(server.container)}


async def plain(place: docker_server.Place, overlay: Path) -> tuple[str, dict[str, float]]:
    server, port = place.server(), random_port()
    said = {name: value for name, value in server.get_env().items() if name.startswith(("JUPYTERHUB_", "JPY_"))}
    said.pop("JUPYTERHUB_DISABLE_USER_CONFIG")
    env = {**said, "JUPYTERHUB_API_URL": place.api, "JUPYTERHUB_ACTIVITY_URL": f"{place.api}/users/alice/activity",
           "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}/user/alice/ml101/", "HOME": "/home/student", "USER": "alice",
           "LANG": "C.UTF-8", "PATH": "/opt/envs/user/bin:/usr/bin:/bin", "PYTHONPATH": "/overlay", "COURSE_ID": "ml101",
           "NGSHARE_URL": "http://127.0.0.1:9/"}
    name = f"{place.project}-plain"
    body: dict[str, Any] = {
        "Image": f"{place.registry}student:{place.version}", "Entrypoint": [ALL_EXTENSIONS], "Cmd": [], "User": "10001:10001",
        "WorkingDir": "/home/student", "Env": [f"{key}={value}" for key, value in env.items()],
        "Labels": {"org.tinytorch.project": place.project},
        "HostConfig": {"NetworkMode": "host", "Binds": [f"{overlay}:/overlay:ro", f"{place.project}-plain:/home/student"]}}
    begun = time.monotonic()
    await aask("POST", "/volumes/create", {"Name": f"{place.project}-plain", "Labels": body["Labels"]})
    await aask("POST", "/containers/create", body, name=name)
    await aask("POST", engine.container(name, "/start"))
    await wait_for_http_server(f"http://127.0.0.1:{port}/user/alice/ml101/api", timeout=180)
    return name, {"wall": time.monotonic() - begun, "cpu": cpu_seconds(name)}


async def settled(started: tuple[str, dict[str, float]]) -> dict[str, float]:
    container, figures = started
    await asyncio.sleep(SETTLED)
    figures["memory"] = memory_mb(container)
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
    median = {side: {key: statistics.median(run[key] for run in each[1:]) for key in ("cpu", "wall", "memory")}
              for side, each in measured.items()}
    cpu, memory = (median["ours"][key] / median["plain"][key] for key in ("cpu", "memory"))
    return {
        **{f"{what}, {side}, {unit}": round(median[side][key], 2) for key, what, unit in (
            ("cpu", "CPU until ready", "s"), ("wall", "spawn time, alone", "s"), ("memory", "idle memory", "MB")) for side in median},
        "CPU ratio": round(cpu, 3), "CPU ratio, target": CPU_TARGET,
        "memory ratio": round(memory, 3), "memory ratio, target": MEMORY_TARGET,
        "students in 24 GB, ours": int((MACHINE_MB - SERVICES_MB) / median["ours"]["memory"]),
        "students in 24 GB, plain": int((MACHINE_MB - SERVICES_MB) / median["plain"]["memory"]),
        **hall, "runs": runs, "met": cpu <= CPU_TARGET and memory <= MEMORY_TARGET}


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
