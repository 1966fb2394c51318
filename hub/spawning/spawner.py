"""Starts a person's server in one class, on this machine: in a sandbox where bubblewrap works, plainly (a demo) if not.

In its sandbox a server sees the system's programs, the user environment, the student edition and its settings, all
read-only, its own home, and an empty /tmp. It shares the network of the machine, since it must reach the hub on
loopback: what listens there has to ask for a token, and kernels talk over sockets in the sandbox's own /tmp instead.
"""

import asyncio
import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from jupyterhub.utils import random_port
from tornado.httpclient import AsyncHTTPClient, HTTPError

from autograder.sandbox.processes import bubblewrap
from hub import paths
from hub.spawning import class_server, homes, limits, processes, servers, snapshot
from hub.spawning.class_server import FIRST_STEP, LAST_STEP, Refused, without_secrets
from hub.spawning.servers import Record

if TYPE_CHECKING:
    from hub.config.site import Class, Site

__all__ = ["ClassServer", "Refused", "for_site"]

HOME = bubblewrap.INNER_HOME                      # where the home is inside a sandbox, the same for everybody
SETTINGS = paths.REPO / "hub" / "single_user"
REFERENCES = "/opt/reference"
LOG_BYTES = 2_000_000                             # a log larger than this is put aside at the next start


class ClassServer(class_server.ClassServer):
    """The server as processes of this machine."""

    public_port: int                              # these two come from `for_site`, too
    isolated: bool

    port: Any                                     # a trait of Spawner
    edition = paths.STUDENT_EDITION               # while it starts and runs: a copy that no build replaces
    process: subprocess.Popen | None = None       # only while this hub started it
    grouped = False                               # whether its cgroup is its own: one of that name may be somebody else's
    log_start = 0                                 # where this start's part of the log begins

    # ------------------------------------------------------------------------------------------ who and where
    @property
    def key(self) -> str:
        return f"{self.user.name}-{self.name}"

    @property
    def file(self) -> Path:
        return servers.file(self.user.name, self.name)

    @property
    def log_file(self) -> Path:
        return paths.LOGS / "servers" / f"{self.key}.log"

    @property
    def group(self) -> limits.Group:
        return limits.Group(f"{self.public_port}--{self.user.name}--{self.name}")

    # ------------------------------------------------------------------------------------------ what is run
    @property
    def rlimits(self) -> dict[str, int]:
        return limits.of_each_process(self.class_.limits, self.grouped, self.isolated)

    @property
    def references_folder(self) -> str:
        return REFERENCES

    @property
    def inside(self) -> tuple[str, str, str]:
        """Home, student edition and settings, as the server sees them."""
        if self.isolated:
            return HOME, "/opt/tinytorch", "/opt/settings"
        return str(paths.home(self.user.name, self.name)), str(self.edition), str(SETTINGS)

    def command(self, env: dict[str, str]) -> list[str]:
        """The whole command line: the sandbox around the server's own."""
        home, code, settings = self.inside
        argv = [*self.server_argv(), *(["--allow-root"] if os.geteuid() == 0 else [])]
        if not self.isolated:
            return argv
        # only a sandbox can show some references and not others
        references = [(file, f"{REFERENCES}/{file.name}") for file in self.references()]
        return bubblewrap.command(
            argv, env=env, network=True, hostname=self.name, chdir=home, die_with_parent=False,
            readonly=[*bubblewrap.python_paths(argv[0]), (self.edition, code), (SETTINGS, settings), *references],
            writable=[(paths.home(self.user.name, self.name), home)], tmpfs={"/tmp": 256})

    # ------------------------------------------------------------------------------------------ start
    async def start(self) -> tuple[str, int]:
        """Start the server and wait until it answers. Refused with the end of its log when it does not."""
        self.step = FIRST_STEP
        class_ = self.class_
        await self.end(servers.GRACE)                 # what a hub that was killed in the middle of a start left behind
        try:
            self.run(class_)
        except OSError as error:
            self.log.exception("server %s could not be started", self._log_name)
            raise class_server.not_started(str(error.strerror)) from None
        await self.answers()
        self.step = LAST_STEP
        return self.ip, self.port

    def run(self, class_: "Class") -> None:
        """Start its processes."""
        self.edition = snapshot.take(servers.read(file).edition for file in servers.files())
        home = homes.prepare(self.user.name, self.name, class_.title, self.staff)
        self.port = self.port or random_port()
        self.grouped = self.group.make(class_.limits)
        env = self.get_env()
        argv = self.command(env)
        self.step = (20, "Starting JupyterLab")
        with self.opened_log() as log:
            self.process = subprocess.Popen(
                argv, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=self.group.entry() if self.grouped else None)
        self.remember()

    @contextlib.contextmanager
    def opened_log(self) -> Iterator[IO[bytes]]:
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            if self.log_file.stat().st_size > LOG_BYTES:
                self.log_file.replace(self.log_file.with_suffix(".1.log"))
        with open(os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
            self.log_start = log.seek(0, os.SEEK_END)
            yield log

    async def answers(self) -> None:
        """Wait for the server, in small steps: the hub's own way of looking backs off to seconds."""
        url, client = f"http://{self.ip}:{self.port}{self.server.base_url}api", AsyncHTTPClient()
        deadline = time.monotonic() + self.start_timeout - 5       # before the hub gives up with a message of its own
        for look in itertools.count():
            if time.monotonic() > deadline:
                raise class_server.did_not_answer(self.start_timeout, self.log_end())
            if self.process is not None and self.process.poll() is not None:
                raise class_server.ended_early(self.log_end())
            if self.isolated and not servers.read(self.file).inner_pid:
                self.remember()
            if look == 15:
                self.step = (50, "Loading JupyterLab")
            elif look == 40:
                self.step = (70, "Loading JupyterLab. The machine is busy, this takes a little longer")
            with contextlib.suppress(OSError, HTTPError):
                if (await client.fetch(url, raise_error=False, connect_timeout=2, request_timeout=5)).code == 200:
                    return
            await asyncio.sleep(0.1)

    def log_end(self) -> list[str]:
        """The end of this server's log, for its owner."""
        with self.log_file.open("rb") as log:
            log.seek(max(self.log_start, self.log_file.stat().st_size - 8000))
            text = log.read().decode(errors="replace")
        return without_secrets(text.splitlines())

    # ------------------------------------------------------------------------------------------ running
    def remember(self) -> None:
        """Note which processes the server is, so that a hub which is killed at any moment finds them again."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):           # ended already: answers() sees that
            root = processes.identify(self.process.pid)
            below = processes.tree(root)[1:2] if self.isolated else []
            inner = (below[0].pid, below[0].started) if below else (0, "")
            servers.write(self.file, Record(root.pid, root.started, *inner, self.edition.name, self.group.name if self.grouped else ""))

    async def poll(self) -> int | None:
        """None while it runs, its exit code (0 where that is not known) when it does not."""
        code = self.process.poll() if self.process is not None else None
        if code is None and servers.read(self.file).alive:
            return None
        await self.end(0)
        return code or 0

    async def stop(self, now: bool = False) -> None:
        """End the server and everything that runs in it; with `now`, without time to save."""
        await self.end(0 if now else servers.GRACE)

    async def end(self, grace: float) -> None:
        left = await asyncio.to_thread(servers.end, self.file, grace)
        if left:
            self.log.warning("processes of %s did not end: %s", self._log_name, left)
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)                             # only to take note of its end
            self.process = None


def for_site(site: "Site", public_port: int, isolated: bool) -> type[ClassServer]:
    """The spawner of one site. `public_port`: the proxy's; `isolated`: whether a sandbox works on this machine."""
    values = {"site": site, "people": site.accounts(), "site_url": f"http://127.0.0.1:{public_port}",
              "public_port": public_port, "isolated": isolated}
    return type("ClassServer", (ClassServer,), values)
