"""A student's server as a container without a whole site: the real spawner and doors, and a small hub API on loopback."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

from jupyterhub.objects import Server
from tornado.netutil import Resolver

from hub import paths
from hub.config.site import Site
from hub.network import door, sockets
from hub.spawning import docker_spawner, engine
from tests import docker_site, student_server

NUMBERS = itertools.count(1)


@asynccontextmanager
async def place() -> AsyncIterator["Place"]:
    """A folder of sockets whose doors lead to a stand-in for the hub; every container and volume of it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="tt") as name, student_server.hub_api() as api:
        folder = Path(name)
        folder.chmod(0o755)
        kept = {where: getattr(where, what) for where, what in ((sockets, "ROOT"), (paths, "HOMES"))}
        sockets.ROOT, paths.HOMES = folder, folder / "homes"
        (folder / "servers").mkdir()
        Resolver.configure(sockets.SocketResolver)
        parts = urlsplit(api)
        doors = asyncio.ensure_future(door.Doors("door.sock", door.to(str(parts.hostname), int(parts.port or 0))).keep())
        here = Place(f"ttt-{os.getpid()}-{next(NUMBERS)}", api)
        try:
            yield here
        finally:
            doors.cancel()
            here.clean()
            sockets.ROOT, paths.HOMES = kept[sockets], kept[paths]


class Place:
    """Makes servers there."""

    def __init__(self, project: str, api: str) -> None:
        self.project, self.api = project, api
        self.registry, self.version = docker_site.images()

    def server(self, user: str = "alice", class_id: str = "ml101", site: Site | None = None) -> docker_spawner.ClassServer:
        """The spawner of one person and class of the example site, as the hub would make it."""
        kind = docker_spawner.for_site(site or Site.load(Site.example_path), self.project, f"{self.registry}student:{self.version}",
                                       str(sockets.ROOT), "http://127.0.0.1:8000")
        base_url = f"/user/{user}/{class_id}/"
        kind = type("ClassServer", (kind,), {"server": SimpleNamespace(base_url=base_url)})
        server = kind(
            user=SimpleNamespace(name=user, escaped_name=user, url=f"/user/{user}/"),
            hub=SimpleNamespace(api_url=self.api, base_url="/hub/", public_host="", server=Server(base_url="/hub/")),
            orm_spawner=SimpleNamespace(name=class_id, server=None), oauth_client_id=f"jupyterhub-user-{user}-{class_id}",
            public_url="", public_hub_url="", hub_connect_url="http://127.0.0.1:8000")
        server.api_token = student_server.TOKEN
        server.oauth_client_allowed_scopes = []
        server.ip, server.default_url, server.start_timeout = "127.0.0.1", "/lab", 240
        return server

    def clean(self) -> None:
        label = {"label": [f"org.tinytorch.project={self.project}"]}
        for container in engine.ask("GET", "/containers/json", all=1, filters=label):
            engine.ask("DELETE", engine.container(container["Id"]), force=1)
        for volume in engine.ask("GET", "/volumes", filters=label).get("Volumes") or []:
            engine.ask("DELETE", f"/volumes/{volume['Name']}", force=1)
