"""A whole site in containers for tests and benchmarks: rendered, prepared and started the way `make deploy` does it.

Images are those of the version that TINYTORCH_TEST_IMAGES names (prefix:version, such as `tinytorch/:0.1.0`), by default of this
checkout, built when they are first needed: four minutes where nothing is built yet, twenty seconds where everything is.
"""

import contextlib
import fcntl
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

from hub import paths, version
from hub.network import ports
from hub.spawning import engine
from images import catalogue
from images import engine as images_engine
from tests import running
from tests.need import need

DOCKER = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
LOCKS = []                               # open as long as this process lives: two test runs choose different ports


def docker(*words: str, timeout: float = 120, check: bool = True, **options) -> str:
    done = subprocess.run([DOCKER, *words], capture_output=True, text=True, timeout=timeout, **options)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@functools.cache
def compose() -> list[str]:
    """The Compose of this machine, v2 or v1; empty without one."""
    if subprocess.run([DOCKER, "compose", "version"], capture_output=True).returncode == 0:
        return [DOCKER, "compose"]
    found = shutil.which("docker-compose")
    return [found] if found else []


@functools.cache
def images() -> tuple[str, str]:
    """Prefix and version of the images under test, which are there afterwards."""
    if said := os.environ.get("TINYTORCH_TEST_IMAGES"):
        prefix, _, named = said.rpartition(":")
        return prefix, named
    if not os.environ.get("BASE_IMAGE") and not images_engine.exists(catalogue.OWN_BASE):
        need("a base image", os.geteuid() == 0 and shutil.which("debootstrap"), "sudo make base-image (apt-get install debootstrap)")
        subprocess.run([paths.REPO / "images" / "base-image.sh"], check=True, env={**os.environ, "DOCKER": DOCKER})
    built = version.version()
    done = subprocess.run([sys.executable, "-m", "images.build"], cwd=paths.REPO, env={**os.environ, "TINYTORCH_VERSION": built},
                          capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return "tinytorch/", built


def need_docker() -> None:
    """An engine that builds, Compose, and the images under test."""
    try:
        engine.ask("GET", "/_ping")
    except engine.EngineError as error:
        need("a Docker engine", False, str(error))
    need("Compose", compose(), "apt-get install docker-compose")
    images()


def free_port() -> int:
    for port in random.sample(range(23000, 24000), 200):
        file = Path(tempfile.gettempdir()) / f"tinytorch-test-docker-{port}"
        lock = file.open("w")
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not ports.taken(port):
                LOCKS.append(lock)
                return port
        lock.close()
    raise RuntimeError("no free port on loopback")


class DockerSite(running.Site):
    """One site with its own state, classes, containers, networks and volumes; nothing of it is left behind."""

    def __init__(self, folder: Path, example: Path = paths.REPO / "hub" / "example", change=lambda text: text):
        self.folder, self.port = folder, free_port()
        self.project = f"ttt{self.port}"
        self.url = f"http://127.0.0.1:{self.port}"
        self.registry, self.version = images()
        self.state, self.etc = folder / "state", folder / "etc"
        self.sockets = self.state / "sockets"
        for made in (folder, self.etc, self.state):
            made.mkdir(parents=True, exist_ok=True)
            made.chmod(0o755)                        # services are another user
        self.classes_yml = self.etc / "classes.yml"
        shutil.copytree(example / "rosters", self.etc / "rosters")
        self.classes_yml.write_text(change((example / "classes.yml").read_text().replace("http://127.0.0.1:8000", self.url)))

    def image(self, name: str) -> str:
        return f"{self.registry}{name}:{self.version}"

    def prepare(self) -> None:
        docker("run", "--rm", "-u", "0:0", "--network", "none", "-v", f"{self.state}:/srv/tinytorch", "-v", f"{self.etc}:/etc/tinytorch:ro",
               "-e", "TINYTORCH_STATE=/srv/tinytorch", "-e", "TINYTORCH_CLASSES=/etc/tinytorch/classes.yml",
               "-e", "PYTHONPATH=/opt/tinytorch-hub", "--entrypoint", "/opt/envs/hub/bin/python", self.image("hub"),
               "-m", "hub.deployment.compose", "prepare")

    def render(self) -> str:
        words = ["--version", self.version, "--registry", self.registry, "--state", str(self.state), "--site", str(self.etc),
                 "--project", self.project, "--publish", f"127.0.0.1:{self.port}",
                 "--docker-group", str(os.stat(engine.address()).st_gid)]
        done = subprocess.run([str(paths.env_bin("hub", "python")), "-m", "hub.deployment.compose", "render", *words], cwd=paths.REPO,
                              text=True, capture_output=True, env={**os.environ, "TINYTORCH_CLASSES": str(self.classes_yml)})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def compose(self, *words: str, timeout: float = 300) -> str:
        done = subprocess.run([*compose(), "-p", self.project, "-f", str(self.folder / "compose.yml"), *words],
                              capture_output=True, text=True, timeout=timeout)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def up(self) -> str:
        self.prepare()
        (self.folder / "compose.yml").write_text(self.render())
        said = self.compose("up", "-d")
        self.wait_all()
        return said

    def wait_all(self, seconds: float = 240) -> None:
        """Every service answers through the proxy, which knows of it once the hub has told it."""
        services = {class_: f"/services/{class_}/api" for class_ in ("ml101", "ml201")}
        waiting = ["/hub/health", "/services/ngshare/healthz", "/services/autograder/health", *services.values()]
        deadline = time.monotonic() + seconds
        while waiting and time.monotonic() < deadline:
            waiting = [path for path in waiting if not self.healthy(path)]
            time.sleep(0.3 if waiting else 0)
        assert not waiting, f"{waiting} did not answer within {seconds} s: {self.compose('ps')}"

    def healthy(self, path: str) -> bool:
        try:
            return requests.get(self.url + path, timeout=10).status_code == 200
        except requests.RequestException:
            return False

    def down(self) -> None:
        """Remove all of it: services, students' containers, networks, volumes."""
        with contextlib.suppress(AssertionError, FileNotFoundError):
            self.compose("down", "-t", "2", "--remove-orphans")
        for kind, remove in (("container", ["rm", "-f"]), ("volume", ["volume", "rm"])):
            listed = docker(kind, "ls", "-q", *(["-a"] if kind == "container" else []),
                            "--filter", f"label=org.tinytorch.project={self.project}").split()
            if listed:
                docker(*remove, *listed, check=False)
        subprocess.run(["rm", "-rf", str(self.state)], check=False)

    # ------------------------------------------------------------------ what tests look at
    def service(self, name: str) -> str:
        """The container of a service."""
        return self.compose("ps", "-q", name).strip()

    def inspect(self, container: str) -> dict:
        return json.loads(docker("inspect", container))[0]

    def student(self, class_: str, name: str) -> str:
        return f"{self.project}-{class_}--{name}"

    def home(self, name: str, class_: str) -> Path:
        volume = engine.ask("GET", f"/volumes/{self.project}-home-{name}--{class_}")
        return Path(volume["Mountpoint"])

    def log(self, name: str) -> str:
        return docker("logs", "--tail", "60", self.service(name), check=False)
