"""A Docker engine of the test's own, which may be killed: own socket, folders and containerd, and nothing of the machine's network."""

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from autograder.sandbox.containers import engine
from tests.deploy.debian import DOCKER, bare_debian, docker
from tests.need import need

LEFT_OUT = ("usr/share/", "usr/sbin/", "usr/lib/git-core/", "usr/lib/apt/", "var/", "boot/", "home/")       # of what Python can do without
IMAGE = "python"


class Engine:
    """`kill` ends it as a crash would, its containerd with it; the containers live on until `start`, which ends them."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="engine-", dir="/tmp"))           # short: sockets are below it
        self.socket, self.process = self.root / "socket", None

    @property
    def env(self):
        return {"DOCKER_HOST": f"unix://{self.socket}"}

    def start(self):
        with open(self.root / "log", "ab") as log:
            self.process = subprocess.Popen(
                # in a network of its own: an engine without a bridge removes docker0, which is the machine's engine's
                ["unshare", "--net", "dockerd", "--data-root", self.root / "data", "--exec-root", self.root / "run", "--host", f"unix://{self.socket}",
                 "--pidfile", self.root / "pid", "--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"],
                stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while subprocess.run([DOCKER, "version"], env={**os.environ, **self.env}, capture_output=True).returncode:
            need("a machine where a second Docker engine starts", self.process.poll() is None and time.monotonic() < deadline,
                 (self.root / "log").read_text(errors="replace")[-500:])
            time.sleep(0.1)

    def kill(self):
        containerd = Path("/proc", (self.root / "run" / "containerd" / "containerd.pid").read_text().strip())
        self.process.kill()
        self.process.wait()
        deadline = time.monotonic() + 30                                           # dockerd takes a dead one for one that runs
        while containerd.exists() and time.monotonic() < deadline:
            time.sleep(0.05)

    def load(self, image):
        """Take over what Python needs of an image that the machine's engine has."""
        container = docker("create", image, "true", check=True).stdout.strip()
        try:
            with subprocess.Popen([DOCKER, "export", container], stdout=subprocess.PIPE) as source, \
                    subprocess.Popen([DOCKER, "import", "-", IMAGE], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                                     env={**os.environ, **self.env}) as target, \
                    tarfile.open(fileobj=source.stdout, mode="r|") as whole, tarfile.open(fileobj=target.stdin, mode="w|") as part:
                for member in whole:
                    if not member.name.startswith(LEFT_OUT):
                        part.addfile(member, whole.extractfile(member) if member.isreg() else None)
            assert target.returncode == 0
        finally:
            docker("rm", container)

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        for path in Path("/proc").glob("[0-9]*/cmdline"):                          # what watches containers outlives a killed engine
            with contextlib.suppress(OSError):
                if str(self.root).encode() in path.read_bytes() and b"containerd-shim" in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith(str(self.root)):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(self.root, ignore_errors=True)


def own_engine(tmp_path_factory):
    """Started, with an image of Python; to be ended."""
    image = bare_debian(tmp_path_factory)
    need("dockerd and root's rights, for an engine of the test's own", shutil.which("dockerd") and os.geteuid() == 0,
         "install Docker's engine and run the tests as root")
    made = Engine()
    try:
        made.start()
        made.load(image)
    except BaseException:
        made.end()
        raise
    return made


def containers(label):
    """Numbers of processes of the running containers with that label, of the engine that DOCKER_HOST names."""
    found = {}
    for one in engine.ask("GET", "/containers/json", filters={"label": [label]}) or ():
        with contextlib.suppress(engine.EngineError, TypeError):
            found[one["Id"]] = len(engine.ask("GET", f"/containers/{one['Id']}/top")["Processes"])
    return found
