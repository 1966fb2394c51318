"""A person's server in one class, wherever it runs: who may have it, what it is told, and what its owner hears about it.

hub/spawning/spawner.py runs it as processes of this machine, hub/spawning/docker_spawner.py as a container.
"""

import asyncio
import html
import json
import math
import re
from collections.abc import AsyncGenerator, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jupyterhub.spawner import Spawner
from tornado import web
from traitlets import default

from hub import paths

if TYPE_CHECKING:
    from pathlib import Path

    from hub.config.people import Person
    from hub.config.site import Class, Site

FIRST_STEP = (5, "Preparing your workspace")
LAST_STEP = (95, "Opening JupyterLab")
LOG_LINES = 12                                    # of a server that failed, for its owner
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

    site: "Site"                                  # set on a subclass by `for_site`: configuration would be copied
    people: "dict[str, Person]"                   # for every server
    site_url: str                                 # the site as the server sees it
    step = FIRST_STEP                             # progress in percent, and what is being done

    @default("env_keep")
    def _env_keep(self) -> list[str]:
        return ["LANG", "LC_ALL", "TZ"]

    @property
    def class_(self) -> "Class":
        """The class of this server. Refused, for a name that is none of this person's classes."""
        check_membership(self.people, self.user.name, self.name)
        return self.site.class_(self.name)

    @property
    def staff(self) -> bool:
        return self.name in self.people[self.user.name].staff_of

    # ------------------------------------------------------------------------------------------ what differs
    async def start(self) -> Any:
        raise NotImplementedError

    async def poll(self) -> int | None:
        raise NotImplementedError

    async def stop(self, now: bool = False) -> None:
        raise NotImplementedError

    @property
    def inside(self) -> tuple[str, str, str]:
        """Home, student edition and settings, as the server sees them."""
        raise NotImplementedError

    @property
    def references_folder(self) -> str:
        """Where the server sees the reference solutions that its class has opened."""
        raise NotImplementedError

    @property
    def rlimits(self) -> dict[str, int]:
        """Resource limits that the server sets on itself, without RLIMIT_ in their names."""
        raise NotImplementedError

    @property
    def isolated(self) -> bool:
        """Whether it runs apart from everything else on its machine."""
        return True

    @property
    def environment_bin(self) -> str:
        """The programs of the environment `user`, as the server sees them."""
        return str(paths.ENVS / "user" / "bin")

    # ------------------------------------------------------------------------------------------ what is run
    def get_env(self) -> dict[str, str]:
        """The server's environment. Tokens travel in it, never on a command line."""
        home, code, settings = self.inside
        return {
            "LANG": "C.UTF-8", **super().get_env(),
            "HOME": home, "USER": self.user.name, "LOGNAME": self.user.name, "SHELL": "/bin/bash",
            "PATH": f"{code}/bin:{self.environment_bin}:/usr/bin:/bin",
            "PYTHONPATH": code, "TINYTORCH_WORKSPACE": home, "TINYTORCH_RLIMITS": json.dumps(self.rlimits),
            "TINYTORCH_REFERENCE": self.references_folder,
            "OPENBLAS_NUM_THREADS": str(max(1, math.ceil(self.class_.limits.cpu))),
            "COURSE_ID": self.name, "NGSHARE_URL": f"{self.site_url}/services/ngshare",
            "AUTOGRADER_URL": f"{self.site_url}/services/autograder",
            "JUPYTER_CONFIG_PATH": f"{settings}/{'staff' if self.staff else 'student'}:{settings}",
            "JUPYTER_PREFER_ENV_PATH": "0",           # else what the packages enable would win against our settings
            "JUPYTERHUB_DISABLE_USER_CONFIG": "1",    # a broken file in ~/.jupyter must not lock anybody out
            **({"JUPYTER_RUNTIME_DIR": "/tmp/jupyter"} if self.isolated else {}),
        }

    def server_argv(self) -> list[str]:
        """The server's own command line, without whatever isolates it."""
        home, _, settings = self.inside
        idle = self.site.idle_minutes * 60
        return [
            f"{self.environment_bin}/python", f"{settings}/start.py", f"--ServerApp.root_dir={home}",
            f"--MappingKernelManager.cull_idle_timeout={idle}", "--MappingKernelManager.cull_connected=True",
            f"--ServerApp.shutdown_no_activity_timeout={idle}",
            # a name of a socket has at most 107 characters, which the folders of an unsandboxed home may exceed
            *(["--KernelManager.transport=ipc"] if self.isolated else []), *self.get_args()]

    def references(self) -> "list[Path]":
        """Reference solutions that the class has opened by now, one file per module."""
        return [paths.REPO / "tinytorch" / "core" / f"{module.export}.py" for module in self.class_.opened(datetime.now(UTC))]

    # ------------------------------------------------------------------------------------------ what its owner hears
    async def progress(self) -> AsyncGenerator[dict[str, Any], None]:
        """What is being done, whenever that changes, until the hub has the server."""
        told = None
        while self._spawn_pending:
            if self.step != told:
                told = self.step
                yield {"progress": told[0], "message": told[1]}
            await asyncio.sleep(0.2)

    def move_certs(self, certs: dict[str, str]) -> dict[str, str]:
        return certs


def not_started(because: str) -> Refused:
    return Refused(500, f"The server of your class could not be started: {because}. Tell your instructor or the site's admin; the "
                   "hub's log says more.")


def did_not_answer(seconds: float, log: list[str]) -> Refused:
    return Refused(504, f"The server of your class did not answer within {seconds:.0f} seconds. "
                   "The machine may be busy: try again in a few minutes.", log)


def ended_early(log: list[str]) -> Refused:
    return Refused(500, "The server of your class ended while it was starting. Try again; if it happens "
                   "again, show these last lines of its log to your instructor.", log)


def without_secrets(lines: Iterable[str]) -> list[str]:
    """The last lines of a log, without anything that looks like a token."""
    return [SECRET.sub("[removed]", line) for line in list(lines)[-LOG_LINES:]]


def check_membership(people: "dict[str, Person]", user: str, class_id: str) -> None:
    """Refused with 403 unless that person is in that class."""
    mine = sorted([*people[user].staff_of, *people[user].student_of]) if user in people else []
    if class_id in mine:
        return
    if not class_id:
        raise Refused(403, "A server belongs to a class. Choose a class on the home page.")
    listed = f"Your classes: {', '.join(mine)}." if mine else "You are in no class yet."
    raise Refused(403, f"You are not in a class named {class_id}. {listed}")
