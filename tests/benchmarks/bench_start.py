"""What one student's server costs: CPU-seconds until its Lab answers, and idle memory, beside a plain one in the same run.

Ours is what the hub starts, sandbox included. Plain is `jupyterhub-singleuser` as `pip install jupyterhub jupyterlab nbgrader`
leaves it: the same packages of the same lock, plus rfc3987-syntax and lark, which that brings along and our lock leaves out;
every extension on, Node on the PATH, no sandbox. Both have compiled bytecode and the same stub of a hub. They take turns, one
at a time; the first pair warms the file cache and does not count.
"""

import argparse
import http.client
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from jupyterhub.utils import random_port

from hub import paths
from tests import student_server

CPU_TARGET, MEMORY_TARGET = 0.5, 0.85
PATIENCE = 180           # seconds until the first answer, on however busy a machine
SETTLED = 3.0            # seconds after the first answer, when memory is read
LEFT_OUT = ("rfc3987_syntax", "lark")
PAGE = "/user/alice/ml101/lab"


def cost(root: int, port: int, log: Path) -> dict[str, float]:
    """CPU-seconds and wall seconds until the Lab page answers, then the memory of the idle server (MB, proportional)."""
    started = time.monotonic()
    while not answers(port):
        if time.monotonic() > started + PATIENCE:
            raise SystemExit(f"no answer within {PATIENCE} s; the end of its log:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)
    wall = time.monotonic() - started
    processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    cpu = sum(sum(process.cpu_times()[:4]) for process in processes)           # own, and those of ended children
    time.sleep(SETTLED)
    processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    return {"cpu": cpu, "wall": wall, "memory": sum(process.memory_full_info().pss for process in processes) / 2**20}


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", PAGE, headers={"Authorization": f"token {student_server.TOKEN}"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ours(api: str, folder: Path) -> dict[str, float]:
    """The command and environment of the hub's own spawner, in its sandbox."""
    server = student_server.make(api)
    server.port = random_port()
    env = server.get_env()
    home = paths.home("alice", "ml101")
    with started(server.command(env), env, home, folder / "ours.log") as pid:
        return cost(pid, server.port, folder / "ours.log")


def plain(api: str, folder: Path) -> dict[str, float]:
    """jupyterhub-singleuser with all that a plain installation has switched on."""
    server = student_server.make(api, isolated=False)
    server.port = random_port()
    home = folder / "plain"
    home.mkdir(exist_ok=True)
    said = {name: value for name, value in server.get_env().items() if name.startswith(("JUPYTERHUB_", "JPY_"))}
    said.pop("JUPYTERHUB_DISABLE_USER_CONFIG")
    env = {**said, "HOME": str(home), "USER": "alice", "LANG": "C.UTF-8", "PYTHONPATH": str(folder / "overlay"),
           "PATH": f"{paths.ENVS}/user/bin:{Path(node()).parent}:/usr/bin:/bin", "NGSHARE_URL": "http://127.0.0.1:9/",
           "COURSE_ID": "ml101"}
    argv = [str(paths.env_bin("user", "jupyterhub-singleuser")), *(["--allow-root"] if os.geteuid() == 0 else [])]
    with started(argv, env, home, folder / "plain.log") as pid:
        return cost(pid, server.port, folder / "plain.log")


@contextmanager
def started(argv: list[str], env: dict[str, str], cwd: Path, log: Path) -> Iterator[int]:
    with log.open("ab") as out:
        process = subprocess.Popen(argv, env=env, cwd=cwd, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield process.pid
    finally:
        everything = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in reversed(everything):
            each.kill()
        process.wait()
        psutil.wait_procs(everything, timeout=5)


def node() -> str:
    found = shutil.which("node") or next((str(p) for p in (paths.ENVS / "proxy" / "node",) if p.exists()), None)
    if not found:
        raise SystemExit("plain has Node on its PATH, and there is none here: run `make up` once, which brings one")
    return found


def overlay(folder: Path) -> None:
    """What our lock of `user` leaves out, from the hub's environment, whose lock has it."""
    [source] = (paths.ENVS / "hub" / "lib").glob("python3*/site-packages")
    for name in LEFT_OUT:
        shutil.copytree(source / name, folder / name)
        for record in source.glob(f"{name}-*.dist-info"):
            shutil.copytree(record, folder / record.name)
    subprocess.run([str(paths.env_bin("user", "python")), "-m", "compileall", "-q", str(folder)], check=True)


def refuse_without_bytecode() -> None:
    """Without it every start compiles: 8 CPU-s instead of 3."""
    [packages] = (paths.ENVS / "user" / "lib").glob("python3*/site-packages")
    if not any(packages.glob("jupyter_server/__pycache__/*.pyc")):
        raise SystemExit(f"{packages} holds no bytecode: run `make up`, which compiles it")


def main(runs: int = 5) -> dict:
    """Medians of both, their ratios, and whether the targets are met."""
    refuse_without_bytecode()
    with tempfile.TemporaryDirectory() as name, student_server.hub_api() as api:
        folder = Path(name)
        paths.HOMES, paths.RUN, paths.LOGS = folder / "homes", folder / "run", folder / "logs"
        paths.home("alice", "ml101").mkdir(parents=True)
        overlay(folder / "overlay")
        measured: dict[str, list[dict[str, float]]] = {"plain": [], "ours": []}
        for _ in range(runs + 1):
            for side, measure in (("plain", plain), ("ours", ours)):
                measured[side].append(measure(api, folder))
    median = {side: {key: statistics.median(run[key] for run in each[1:]) for key in ("cpu", "wall", "memory")}
              for side, each in measured.items()}
    cpu, memory = (median["ours"][key] / median["plain"][key] for key in ("cpu", "memory"))
    return {
        "CPU until Lab answers, plain, s": round(median["plain"]["cpu"], 2),
        "CPU until Lab answers, ours, s": round(median["ours"]["cpu"], 2),
        "CPU ratio": round(cpu, 3), "CPU ratio, target": CPU_TARGET,
        "wall time until Lab answers, plain, s": round(median["plain"]["wall"], 2),
        "wall time until Lab answers, ours, s": round(median["ours"]["wall"], 2),
        "idle memory, plain, MB": round(median["plain"]["memory"], 1),
        "idle memory, ours, MB": round(median["ours"]["memory"], 1),
        "memory ratio": round(memory, 3), "memory ratio, target": MEMORY_TARGET,
        "runs": runs, "met": cpu <= CPU_TARGET and memory <= MEMORY_TARGET,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    result = main(parser.parse_args().runs)
    for key, value in result.items():
        print(f"{key:<44} {value}")
    print(json.dumps(result))
    raise SystemExit(0 if result["met"] else 1)
