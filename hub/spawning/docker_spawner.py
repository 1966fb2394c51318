"""Starts a person's server in one class as a container of its own: no network, no rights, a read-only root, the class's limits.

It reaches the site, and is reached, through the sockets in one folder (hub/network/sockets.py). Containers and the volumes of homes are
known by their names and labels alone, so a restarted hub finds the servers that went on without it.
"""

import asyncio
import contextlib
import json
import shutil
import time
from typing import TYPE_CHECKING, Any

from hub import paths
from hub.network import sockets, wiring
from hub.spawning import class_server, engine, homes, limits
from hub.spawning.class_server import FIRST_STEP, LAST_STEP, Refused
from hub.spawning.engine import EngineError, aask

if TYPE_CHECKING:
    from hub.config.site import Class, Site

STUDENT = "10001:10001"                           # uid and gid in every student image
INSIDE = ("/home/student", "/opt/tinytorch", "/opt/settings")
FOLDER = "/run/tinytorch"                         # the folder of sockets, as the server sees it
ENVIRONMENT = "/opt/envs/user/bin"
GRACE = 10                                        # seconds for a server to save and end by itself
TMP_MB = 256
LABEL = "org.tinytorch."
QUOTA = "quota"                                   # what the engine says where its disk cannot limit a volume


class ClassServer(class_server.ClassServer):
    """The server as a container."""

    project: str                                  # these come from `for_site`, too: prefix of all names, for sites side by side
    image: str                                    # where a class names none
    host_sockets: str                             # sockets.ROOT, as the engine sees it

    # ------------------------------------------------------------------------------------------ who and where
    @property
    def container(self) -> str:
        return f"{self.project}-{self.name}--{self.user.name}"

    @property
    def volume(self) -> str:
        """The home. No upgrade may ever change this name; `--` is in no user name and no class id, so no two are the same."""
        return f"{self.project}-home-{self.user.name}--{self.name}"

    @property
    def labels(self) -> dict[str, str]:
        return {f"{LABEL}project": self.project, f"{LABEL}user": self.user.name, f"{LABEL}class": self.name}

    @property
    def inside(self) -> tuple[str, str, str]:
        return INSIDE

    @property
    def references_folder(self) -> str:
        return f"{FOLDER}/reference"

    @property
    def environment_bin(self) -> str:
        return ENVIRONMENT

    @property
    def rlimits(self) -> dict[str, int]:
        return limits.of_each_process(self.class_.limits, in_cgroup=True, in_user_namespace=False)

    # ------------------------------------------------------------------------------------------ what is run
    def get_env(self) -> dict[str, str]:
        doors = {wiring.DOOR_PORT: "door.sock"}
        out = {}
        if self.class_.limits.reaches_out:
            doors[wiring.EGRESS_PORT] = "egress.sock"
            proxy = f"http://{wiring.LOOPBACK}:{wiring.EGRESS_PORT}"
            out = {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        return {**super().get_env(), **out, "TINYTORCH_SOCKETS": FOLDER, "TINYTORCH_DOORS": json.dumps(doors)}

    def description(self) -> dict[str, Any]:
        """The container as the engine's API takes it."""
        class_ = self.class_
        memory = class_.limits.memory_mb * 2**20
        return {
            "Image": self.image if class_.image == "default" else class_.image,
            "Entrypoint": self.server_argv(), "Cmd": [], "User": STUDENT, "WorkingDir": INSIDE[0], "Hostname": self.name,
            "Env": [f"{name}={value}" for name, value in self.get_env().items()], "Labels": self.labels,
            "HostConfig": {
                "NetworkMode": "none",                            # loopback only, and no interface that could lead anywhere
                "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"],
                "Memory": memory, "MemorySwap": memory,           # the same: no swap
                "NanoCpus": int(class_.limits.cpu * 1e9), "PidsLimit": class_.limits.pids,
                "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
                "Tmpfs": {"/tmp": f"rw,nosuid,nodev,size={TMP_MB}m,mode=1777"}, "ShmSize": 64 * 2**20,
                "IpcMode": "private", "Init": True,               # what a notebook leaves behind is reaped
                "Mounts": [
                    {"Type": "volume", "Source": self.volume, "Target": INSIDE[0]},
                    {"Type": "bind", "Source": f"{self.host_sockets}/servers/{self.place.name}", "Target": FOLDER, "ReadOnly": True}],
                # what a student prints must not fill the host's disk
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "2"}},
            },
        }

    @property
    def place(self) -> Any:
        return sockets.folder(self.name, self.user.name)

    # ------------------------------------------------------------------------------------------ start
    async def start(self) -> str:
        """Start the server and wait until it says that it is ready. Refused with the end of its log when it does not."""
        self.step, self.port = FIRST_STEP, 8888                   # a port that nobody listens on: see sockets.py
        class_ = self.class_
        await self.end(GRACE)                                     # what a hub that was killed in the middle of a start left behind
        try:
            handover = sockets.Handover(self.place)
            try:
                self.give_along(class_)
                await self.make_home(class_)
                await aask("POST", "/containers/create", self.description(), name=self.container)
                await self.doors_open()
                await aask("POST", engine.container(self.container, "/start"))
                self.step = (20, "Starting JupyterLab")
                await self.answers(handover)
            finally:
                handover.close()
        except (OSError, EngineError) as error:
            self.log.exception("server %s could not be started", self._log_name)
            raise class_server.not_started(self.reason(error)) from None
        self.step = LAST_STEP
        return sockets.url(self.name, self.user.name)

    def reason(self, error: Exception) -> str:
        if isinstance(error, EngineError) and error.status == 404 and "image" in str(error).lower():
            return f"the image of class {self.name} is not on this machine ({error})"
        if isinstance(error, EngineError) and error.status == 0:
            return "the container engine of this machine does not answer"
        return (error.strerror if isinstance(error, OSError) else None) or str(error)

    def give_along(self, class_: "Class") -> None:
        """Files that the server finds beside its sockets."""
        text = (homes.STAFF_WELCOME if self.staff else homes.WELCOME).format(title=class_.title)
        (self.place / "Welcome.md").write_text(text, encoding="utf-8")
        if references := self.references():
            (self.place / "reference").mkdir()
            for file in references:
                shutil.copyfile(file, self.place / "reference" / file.name)

    async def make_home(self, class_: "Class") -> None:
        """The volume, limited in size where the engine's disk can do that. An empty folder in its place says that there is one."""
        try:
            await aask("GET", f"/volumes/{self.volume}")
        except EngineError as missing:
            if missing.status != 404:
                raise
            body = {"Name": self.volume, "Driver": "local", "Labels": self.labels}
            try:
                await aask("POST", "/volumes/create", {**body, "DriverOpts": {"size": f"{class_.limits.disk_mb}M"}})
            except EngineError as error:
                if QUOTA not in str(error).lower():
                    raise
                self.log.warning("the disk of the Docker engine cannot limit the size of a home: %s", error)
                await aask("POST", "/volumes/create", body)
        paths.home(self.user.name, self.name).mkdir(parents=True, exist_ok=True)

    async def doors_open(self) -> None:
        """The door opens while the container is made; that it is not there after seconds means that its service is down."""
        deadline = time.monotonic() + 10
        while not (self.place / "door.sock").exists():
            if time.monotonic() > deadline:
                raise EngineError("the service `door`, which leads a server to the site, does not run", 503)
            await asyncio.sleep(0.02)

    async def answers(self, handover: sockets.Handover) -> None:
        """Until the server says that it is ready; beside that, look now and then whether it still runs."""
        begun = time.monotonic()
        saying = asyncio.ensure_future(handover.ready())
        try:
            while not saying.done():
                await asyncio.wait([saying], timeout=1)
                waited = time.monotonic() - begun
                if not saying.done() and not (await self.state()).get("Running"):
                    break
                if waited > self.start_timeout - 10:              # before the hub gives up with a message of its own
                    raise class_server.did_not_answer(self.start_timeout, await self.log_end())
                if waited > 4:
                    self.step = (70, "Loading JupyterLab. The machine is busy, this takes a little longer")
                elif waited > 1:
                    self.step = (50, "Loading JupyterLab")
            if saying.done() and saying.result():
                return
        finally:
            saying.cancel()
        if (await self.state()).get("OOMKilled"):
            raise Refused(500, f"The server of your class needed more than its memory ({self.class_.limits.memory}) to start: "
                          "your instructor can raise it.", await self.log_end())
        raise class_server.ended_early(await self.log_end())

    async def log_end(self) -> list[str]:
        """The end of its log, for its owner; the hub's own log gets it too, since the container is removed."""
        lines: list[str] = []
        with contextlib.suppress(EngineError):
            stream = await aask("GET", engine.container(self.container, "/logs"), stdout=1, stderr=1, tail=class_server.LOG_LINES)
            lines = class_server.without_secrets(engine.log_text(stream).splitlines())
        self.log.error("the end of the log of %s:\n  %s", self._log_name, "\n  ".join(lines) or "(empty)")
        return lines

    # ------------------------------------------------------------------------------------------ running
    async def state(self) -> dict[str, Any]:
        """What the engine says of the container; nothing where there is none. EngineError where the engine does not answer."""
        try:
            return (await aask("GET", engine.container(self.container, "/json")))["State"]
        except EngineError as error:
            if error.status == 404:
                return {}
            raise

    async def poll(self) -> int | None:
        """None while it runs, its exit code (0 where there is none) when it does not. An engine that restarts says nothing about it."""
        try:
            state = await self.state()
        except EngineError as error:
            self.log.warning("%s: %s", self._log_name, error)
            return None
        if state.get("Running"):
            return None
        await self.end(0)
        return int(state.get("ExitCode", 0))

    async def stop(self, now: bool = False) -> None:
        """End the server and everything that runs in it; with `now`, without time to save."""
        await self.end(0 if now else GRACE)

    async def end(self, grace: int) -> None:
        await end(self.container, grace)
        sockets.remove(self.place)


async def end(container: str, grace: int = GRACE) -> None:
    """Stop and remove a container, if it is there."""
    with contextlib.suppress(EngineError):
        if grace:
            await aask("POST", engine.container(container, "/stop"), seconds=grace + 30, t=grace)
    try:
        await aask("DELETE", engine.container(container), force=1)
    except EngineError as error:
        if error.status not in (404, 409):                        # gone, or being removed by another request
            raise


def for_site(site: "Site", project: str, image: str, host_sockets: str, site_url: str) -> type[ClassServer]:
    """The spawner of one site."""
    values = {"site": site, "people": site.accounts(), "site_url": site_url, "project": project, "image": image,
              "host_sockets": host_sockets}
    return type("ClassServer", (ClassServer,), values)


async def end_strangers(site: "Site", project: str) -> None:
    """End the servers of people in classes that they are not in any more; their homes stay."""
    people = site.people()
    for each in await aask("GET", "/containers/json", all=1, filters={"label": [f"{LABEL}project={project}"]}):
        user, class_id = each["Labels"].get(f"{LABEL}user", ""), each["Labels"].get(f"{LABEL}class", "")
        person = people.get(user)
        if user and (person is None or class_id not in (*person.staff_of, *person.student_of)):
            await end(each["Id"])
            sockets.remove(sockets.folder(class_id, user))
