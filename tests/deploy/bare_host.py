"""A bare "machine" of some release of Debian or Ubuntu: a container with sshd and, once somebody has installed it, an engine of its own.

Nothing of Docker is on it at first. Its first process does what an init does: it starts the engine when there is one, and again
when it was killed. Switching the power off is `docker kill`.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path
from urllib.parse import urlencode

from hub import paths
from tests import running
from tests.docker_site import DOCKER, docker

IMAGE = "tinytorch-test/bare-host"
NAME = "hub.example.test"
INIT = """
for place in /sys/fs/cgroup/*; do mount -o remount,rw,bind "$place" 2>/dev/null; done
mkdir -p /run/sshd && ssh-keygen -A >/dev/null && /usr/sbin/sshd
rm -f /var/run/docker.pid /run/containerd/containerd.pid
while :; do if command -v dockerd >/dev/null && getent group docker >/dev/null; then dockerd >>/var/log/dockerd.log 2>&1; fi; sleep 1; done
"""
# All capabilities that this machine itself has: a virtual machine in a sandbox may lack one, and `--privileged` insists on it.
RIGHTS = ["--cap-add", "ALL", "--cgroupns", "private", "--device-cgroup-rule", "a *:* rwm",
          *(word for what in ("seccomp", "apparmor", "systempaths") for word in ("--security-opt", f"{what}=unconfined"))]
SYS_RESOURCE = 24


def lacking() -> list[str]:
    """Capabilities that the engine could not hand on, as options of docker."""
    bound = int(re.search(r"CapBnd:\s*(\w+)", Path("/proc/self/status").read_text())[1], 16)
    return ["--cap-drop", "SYS_RESOURCE"] if not bound >> SYS_RESOURCE & 1 else []


def build(base: str) -> str:
    """The image of the machine, from a bare Debian."""
    return install(base, f"{IMAGE}:{base.rpartition(':')[2]}", "openssh-server procps cron", "rm -f /etc/ssh/ssh_host_*")


def install(base: str, image: str, packages: str, then: str = "true") -> str:
    """An image with more packages, made once."""
    if not docker("image", "ls", "-q", image).strip():
        text = (f"FROM {base}\nRUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "
                f"{packages} && rm -rf /var/lib/apt/lists/* && {then}\n")
        subprocess.run([DOCKER, "build", "-q", "--network", "host", "-t", image, "-"], input=text, text=True, check=True,
                       capture_output=True, env={**os.environ, "DOCKER_BUILDKIT": "1"})
    return image


class Host:
    """The machine, an admin's folder with classes.yml and inventory.yml, and `make` as the admin runs it."""

    def __init__(self, folder: Path, base: str, bundle: Path | None, version: str, database: "DatabaseHost | None" = None) -> None:
        self.folder, self.version, self.bundle, self.database = folder, version, bundle, database
        self.name = f"tinytorch-host-{uuid.uuid4().hex[:8]}"
        self.url, self.state = f"https://{NAME}", Path("/var/lib/tinytorch")
        self.key, self.ca = folder / "key", folder / "ca.crt"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        shared = ["-v", f"{bundle.parent}:/mnt/bundle:ro"] if bundle else []
        docker("run", "-d", "--name", self.name, "--hostname", "hub", *RIGHTS, *lacking(), "--init", "-v", "/var/lib/docker", *shared,
               build(base), "sh", "-c", INIT)
        docker("exec", "-i", self.name, "sh", "-c", "mkdir -p -m 700 /root/.ssh; cat >/root/.ssh/authorized_keys",
               input=self.key.with_suffix(".pub").read_text())
        self.wait_for_ssh()
        self.write()

    def wait_for_ssh(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection((self.address, 22), timeout=2).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "sshd did not start"
                time.sleep(0.2)

    @property
    def address(self) -> str:
        return docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name).strip()

    def write(self, change=lambda text: text) -> None:
        """The admin's two files: the example's classes, served over HTTPS by an authority of the site's own."""
        example = paths.REPO / "hub" / "example"
        shutil.copytree(example / "rosters", self.folder / "rosters", dirs_exist_ok=True)
        text = (example / "classes.yml").read_text().replace("url: http://127.0.0.1:8000 ", f"url: {self.url} ")
        text = text.replace("first_password: auto ", "first_password: generated ")
        text = text.replace("site:\n", "site:\n  tls: {certificates: internal}\n", 1)
        if self.database:
            text = text.replace("  database: sqlite ", f"  database: {self.database.address} ")
            (self.folder / "database.pem").write_text(self.database.authority())
        (self.folder / "classes.yml").write_text(change(text))
        options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        host = {"ansible_host": self.address, "ansible_user": "root", "ansible_ssh_private_key_file": str(self.key),
                "ansible_ssh_common_args": options}
        given = {"tinytorch_bundle_there": f"/mnt/bundle/{self.bundle.name}"} if self.bundle else {}
        (self.folder / "inventory.yml").write_text(json.dumps({"tinytorch": {"hosts": {"host": host}, "vars": given}}))

    def make(self, *words: str, version: str = "", timeout: float = 900) -> subprocess.CompletedProcess:
        env = {**os.environ, "TINYTORCH_CLASSES": str(self.folder / "classes.yml"), "NO_COLOR": "1"}
        start = time.monotonic()
        files = [f"INVENTORY={self.folder / 'inventory.yml'}", f"VERSION={version or self.version}"]
        done = subprocess.run(["make", "--no-print-directory", *words, *files], cwd=paths.REPO, env=env, capture_output=True, text=True,
                              timeout=timeout)
        print(f"make {' '.join(words)}: {time.monotonic() - start:.0f} s, exit {done.returncode}")
        return done

    def succeeds(self, *words: str, **options) -> tuple[str, int]:
        """Run it; what it said, and how many steps changed something."""
        done = self.make(*words, **options)
        assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
        return done.stdout, int(re.search(r"changed=(\d+)", done.stdout)[1])

    def run(self, command: str, check: bool = True) -> str:
        return docker("exec", self.name, "sh", "-c", command, check=check)

    def prometheus(self, what: str, **asked: str) -> dict:
        """What its Prometheus answers on the host's own loopback address."""
        url = f"http://127.0.0.1:9090/api/v1/{what}?{urlencode(asked)}"
        read = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=20).read().decode())"
        said = json.loads(self.run(f"python3 -c '{read}' '{url}'"))
        assert said["status"] == "success", said
        return said["data"]

    def trust(self) -> None:
        """Have this process reach the host by its name, and trust its authority, as a browser with the root installed does."""
        self.ca.write_text(self.run(f"cat {self.state}/caddy/pki/authorities/local/root.crt"))
        os.environ["REQUESTS_CA_BUNDLE"] = os.environ["WEBSOCKET_CLIENT_CA_BUNDLE"] = str(self.ca)

    def password(self, name: str) -> str:
        rows = self.run(f"cat {self.state}/secrets/signins.csv").splitlines()
        return next(row.split(",")[1] for row in rows if row.startswith(f"{name},"))

    def person(self, name: str) -> "running.Person":
        return running.Person(self, name)

    def log(self, name: str) -> str:
        return self.run(f"docker logs --tail 60 tinytorch_{name}_1 2>&1 || docker logs --tail 60 tinytorch-{name}-1 2>&1", check=False)

    def answers(self, path: str = "/hub/health") -> bool:
        import requests
        try:
            return requests.get(self.url + path, timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def wait(self, path: str = "/hub/health", seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not self.answers(path):
            assert time.monotonic() < deadline, f"{path} did not answer within {seconds} s:\n{self.log('hub')}"
            time.sleep(0.5)

    def power_cut(self) -> None:
        """Off and on again: everything that ran on it ends at once, nothing is told."""
        docker("kill", self.name)
        docker("start", self.name)
        self.wait_for_ssh()
        self.write()

    def remove(self) -> None:
        docker("rm", "-f", "-v", self.name, check=False, timeout=600)


class DatabaseHost:
    """Another machine, with PostgreSQL as its release has it: reached over TLS with a password only, trusted by its own authority."""

    START = """
    set -e
    data=/var/lib/postgresql/site bin=$(echo /usr/lib/postgresql/*/bin) at=$(hostname -i)
    if [ ! -d $data ]; then
      cd /var/lib/postgresql
      openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
      openssl req -newkey rsa:2048 -nodes -subj /CN=database -keyout server.key -out server.csr
      echo subjectAltName=IP:$at >names
      openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem
      $bin/initdb -D $data -U postgres --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 --locale=C
      echo "hostssl all tinytorch all scram-sha-256" >>$data/pg_hba.conf
    fi
    exec $bin/postgres -D $data -c listen_addresses='*' -c unix_socket_directories=/tmp -c ssl=on \
      -c ssl_cert_file=/var/lib/postgresql/server.pem -c ssl_key_file=/var/lib/postgresql/server.key
    """

    def __init__(self, base: str) -> None:
        self.name = f"tinytorch-database-{uuid.uuid4().hex[:8]}"
        self.password = f"a:b\\c {uuid.uuid4().hex[:8]}"                # what is special in libpq's password file
        image = install(base, f"{IMAGE}-postgres:{base.rpartition(':')[2]}", "postgresql openssl")
        docker("run", "-d", "--name", self.name, "--user", "postgres", image, "bash", "-c", self.START)
        for _ in range(60):
            if docker("exec", self.name, "psql", "-h", "/tmp", "-U", "postgres", "-c", "SELECT 1", check=False).startswith(" ?column?"):
                break
            time.sleep(0.5)
        self.sql(f"CREATE ROLE tinytorch LOGIN PASSWORD '{self.password}'")
        self.make()

    def make(self) -> None:
        self.sql("CREATE DATABASE hub OWNER tinytorch ENCODING 'UTF8' TEMPLATE template0")

    def wipe(self) -> None:
        """All that the site kept here is gone."""
        self.sql("DROP DATABASE hub WITH (FORCE)")
        self.make()

    @property
    def address(self) -> str:
        at = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name).strip()
        return f"postgresql://tinytorch@{at}/hub?sslmode=verify-full&sslrootcert=/etc/tinytorch/database.pem"

    def authority(self) -> str:
        return docker("exec", self.name, "cat", "/var/lib/postgresql/ca.pem")

    def sql(self, statement: str, database: str = "postgres") -> str:
        words = ("psql", "-h", "/tmp", "-U", "postgres", "-d", database, "-At", "-v", "ON_ERROR_STOP=1", "-c", statement)
        return docker("exec", self.name, *words).strip()

    def remove(self) -> None:
        docker("rm", "-f", "-v", self.name, check=False)


def by_name(host: Host, look_up=socket.getaddrinfo):
    """A resolver that knows the host."""
    def getaddrinfo(name, *rest, **more):
        return look_up(host.address if name == NAME else name, *rest, **more)
    return getaddrinfo


def can_make_hosts() -> bool:
    """Whether a container with these rights starts here at all."""
    return bool(shutil.which("ssh-keygen")) and bool(shutil.which("ssh"))
