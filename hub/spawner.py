"""Starts a person's server in one class, on this machine: in a sandbox where bubblewrap works, plainly (a demo) if not.

In its sandbox a server sees the system's programs, the user environment, the student edition and its settings, all
read-only, its own home, and an empty /tmp. It shares the network of the machine, since it must reach the hub on
loopback: what listens there has to ask for a token, and kernels talk over sockets in the sandbox's own /tmp instead.
"""

import asyncio
import contextlib
import html
import itertools
import json
import math
import os
import re
import subprocess
import time
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from jupyterhub.spawner import Spawner
from jupyterhub.utils import random_port
from tornado import web
from tornado.httpclient import AsyncHTTPClient, HTTPError
from traitlets import default

from autograder.sandbox import bubblewrap
from hub import homes, limits, paths, processes, servers, snapshot
from hub.servers import Record

if TYPE_CHECKING:
    from hub.people import Person
    from hub.site import Class, Site

HOME = bubblewrap.INNER_HOME                      # where the home is inside a sandbox, the same for everybody
SETTINGS = paths.REPO / "hub" / "single_user"
REFERENCES = "/opt/reference"
LOG_BYTES = 2_000_000                             # a log larger than this is put aside at the next start
FIRST_STEP = (5, "Preparing your workspace")
SECRET = re.compile(r"[0-9a-fA-F]{32,}|(?<=token=)\S+|(?<=code=)\S+")


class Refused(web.HTTPError):
    """Why there is no server, in words for its owner: JupyterHub shows them on whatever page the person is on."""

    def __init__(self, status: int, message: str, log: list[str] | None = None) -> None:
        super().__init__(status, message)
        self.jupyterhub_message = message
        lines = html.escape("\n".join(log or []))
        self.jupyterhub_html_message = html.escape(message) + (f"<pre class='log'>{lines}</pre>" if lines else "")


class ClassServer(Spawner):
    """One server of one person in one class; the server's name is the class's id."""

    site: "Site"                                  # these four come from `for_site`: configuration would be copied
    people: "dict[str, Person]"                   # for every server
    public_port: int
    isolated: bool

    port: Any                                     # a trait of Spawner
    edition = paths.STUDENT_EDITION               # while it starts and runs: a copy that no build replaces
    process: subprocess.Popen | None = None       # only while this hub started it
    step = FIRST_STEP                             # progress in percent, and what is being done
    log_start = 0                                 # where this start's part of the log begins

    @default("env_keep")
    def _env_keep(self) -> list[str]:
        return ["LANG", "LC_ALL", "TZ"]

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

    @property
    def class_(self) -> "Class":
        """The class of this server. Refused, for a name that is none of this person's classes."""
        check_membership(self.people, self.user.name, self.name)
        return self.site.class_(self.name)

    @property
    def staff(self) -> bool:
        return self.name in self.people[self.user.name].staff_of

    # ------------------------------------------------------------------------------------------ what is run
    def get_env(self) -> dict[str, str]:
        """The server's environment. Tokens travel in it, never on a command line."""
        home, code, settings = self.inside
        rlimits = limits.of_each_process(self.class_.limits, self.group.exists, self.isolated)
        user_bin = paths.ENVS / "user" / "bin"
        return {
            "LANG": "C.UTF-8", **super().get_env(),
            "HOME": home, "USER": self.user.name, "LOGNAME": self.user.name, "SHELL": "/bin/bash",
            "PATH": f"{code}/bin:{user_bin}:/usr/bin:/bin",
            "PYTHONPATH": code, "TINYTORCH_WORKSPACE": home, "TINYTORCH_RLIMITS": json.dumps(rlimits),
            "TINYTORCH_REFERENCE": REFERENCES,
            "OPENBLAS_NUM_THREADS": str(max(1, math.ceil(self.class_.limits.cpu))),
            "COURSE_ID": self.name, "NGSHARE_URL": f"http://127.0.0.1:{self.public_port}/services/ngshare",
            "AUTOGRADER_URL": f"http://127.0.0.1:{self.public_port}/services/autograder",
            "JUPYTER_CONFIG_PATH": f"{settings}/{'staff' if self.staff else 'student'}:{settings}",
            "JUPYTER_PREFER_ENV_PATH": "0",           # else what the packages enable would win against our settings
            "JUPYTERHUB_DISABLE_USER_CONFIG": "1",    # a broken file in ~/.jupyter must not lock anybody out
            **({"JUPYTER_RUNTIME_DIR": "/tmp/jupyter"} if self.isolated else {}),
        }

    @property
    def inside(self) -> tuple[str, str, str]:
        """Home, student edition and settings, as the server sees them."""
        if self.isolated:
            return HOME, "/opt/tinytorch", "/opt/settings"
        return str(paths.home(self.user.name, self.name)), str(self.edition), str(SETTINGS)

    def command(self, env: dict[str, str]) -> list[str]:
        """The whole command line: the sandbox around the server's own."""
        home, code, settings = self.inside
        python = paths.env_bin("user", "python")
        idle = self.site.idle_minutes * 60
        argv = [str(python), f"{settings}/start.py", f"--ServerApp.root_dir={home}",
                f"--MappingKernelManager.cull_idle_timeout={idle}", "--MappingKernelManager.cull_connected=True",
                f"--ServerApp.shutdown_no_activity_timeout={idle}",
                *(["--allow-root"] if os.geteuid() == 0 else []), *self.get_args()]
        if not self.isolated:
            return argv
        # a name of a socket has at most 107 characters, which the folders of an unsandboxed home may exceed
        argv.append("--KernelManager.transport=ipc")
        return bubblewrap.command(
            argv, env=env, network=True, hostname=self.name, chdir=home, die_with_parent=False,
            readonly=[*bubblewrap.python_paths(python), (self.edition, code), (SETTINGS, settings), *self.references()],
            writable=[(paths.home(self.user.name, self.name), home)], tmpfs={"/tmp": 256})

    def references(self) -> list[tuple[Path, str]]:
        """Reference solutions that the class has opened by now, one file per module. Only a sandbox can show some and not others."""
        names = [f"{module.export}.py" for module in self.class_.opened(datetime.now(UTC))]
        return [(paths.REPO / "tinytorch" / "core" / name, f"{REFERENCES}/{name}") for name in names]

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
            raise Refused(500, f"The server of your class could not be started: {error.strerror}. Tell your instructor "
                          "or the site's admin; the hub's log says more.") from None
        await self.answers()
        self.step = (95, "Opening JupyterLab")
        return self.ip, self.port

    def run(self, class_: "Class") -> None:
        """Start its processes."""
        self.edition = snapshot.take(servers.read(file).edition for file in servers.files())
        home = homes.prepare(self.user.name, self.name, class_.title, self.staff)
        self.port = self.port or random_port()
        limited = self.group.make(class_.limits)
        env = self.get_env()
        argv = self.command(env)
        self.step = (20, "Starting JupyterLab")
        with self.opened_log() as log:
            self.process = subprocess.Popen(
                argv, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=self.group.entry() if limited else None)
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
                raise Refused(504, f"The server of your class did not answer within {self.start_timeout} seconds. "
                              "The machine may be busy: try again in a few minutes.", self.log_end())
            if self.process is not None and self.process.poll() is not None:
                raise Refused(500, "The server of your class ended while it was starting. Try again; if it happens "
                              "again, show these last lines of its log to your instructor.", self.log_end())
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

    def log_end(self, lines: int = 12) -> list[str]:
        """The last lines of this server's log, without anything that looks like a token."""
        with self.log_file.open("rb") as log:
            log.seek(max(self.log_start, self.log_file.stat().st_size - 8000))
            text = log.read().decode(errors="replace")
        return [SECRET.sub("[removed]", line) for line in text.splitlines()[-lines:]]

    async def progress(self) -> AsyncGenerator[dict[str, Any], None]:
        """What is being done, whenever that changes, until the hub has the server."""
        told = None
        while self._spawn_pending:
            if self.step != told:
                told = self.step
                yield {"progress": told[0], "message": told[1]}
            await asyncio.sleep(0.2)

    # ------------------------------------------------------------------------------------------ running
    def remember(self) -> None:
        """Note which processes the server is, so that a hub which is killed at any moment finds them again."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):           # ended already: answers() sees that
            root = processes.identify(self.process.pid)
            below = processes.tree(root)[1:2] if self.isolated else []
            inner = (below[0].pid, below[0].started) if below else (0, "")
            servers.write(self.file, Record(root.pid, root.started, *inner, self.edition.name, self.group.name))

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

    def move_certs(self, certs: dict[str, str]) -> dict[str, str]:
        return certs


def for_site(site: "Site", public_port: int, isolated: bool) -> type[ClassServer]:
    """The spawner of one site. `public_port`: the proxy's; `isolated`: whether a sandbox works on this machine."""
    values = {"site": site, "people": site.people(), "public_port": public_port, "isolated": isolated}
    return type("ClassServer", (ClassServer,), values)


def check_membership(people: "dict[str, Person]", user: str, class_id: str) -> None:
    """Refused with 403 unless that person is in that class."""
    mine = sorted([*people[user].staff_of, *people[user].student_of]) if user in people else []
    if class_id in mine:
        return
    if not class_id:
        raise Refused(403, "A server belongs to a class. Choose a class on the home page.")
    listed = f"Your classes: {', '.join(mine)}." if mine else "You are in no class yet."
    raise Refused(403, f"You are not in a class named {class_id}. {listed}")
