"""The folder of sockets through which a person's container and the site reach each other: it has no network.

For each server the hub makes a folder `<class>--<user>`, which the container sees read-only as /run/tinytorch:

- server.sock   its JupyterLab. The hub makes and binds it and hands the listening socket over (see Handover), so that
                nothing inside can put a link or another socket in its place: the folder is not the student's to write.
- start.sock    only while it starts: where it takes the listening socket, and says that it is ready.
- door.sock     leads to the site's public proxy and nowhere else (hub/network/door.py).
- egress.sock   leads out, where the class allows it (hub/network/egress.py).
- reference/, Welcome.md    files that the hub gives along.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jupyterhub.proxy import ConfigurableHTTPProxy
from tornado.netutil import DefaultLoopResolver

ROOT = Path(os.environ.get("TINYTORCH_SOCKETS", "/run/tinytorch"))
DOMAIN = ".socket"                       # http://<class>--<user>.socket is how the hub speaks of such a server
BACKLOG = 128


def folder(class_id: str, user: str) -> Path:
    """Its path has at most 101 characters, socket included: the kernel takes 107."""
    return ROOT / "servers" / f"{class_id}--{user}"


def url(class_id: str, user: str) -> str:
    return f"http://{class_id}--{user}{DOMAIN}"


def server_socket(host: str) -> Path:
    return ROOT / "servers" / host.removesuffix(DOMAIN) / "server.sock"


def remove(place: Path) -> None:
    """Take the folder away; listeners in it end with it. Only the hub writes in it, so there is nothing in it to be afraid of."""
    shutil.rmtree(place, ignore_errors=True)


def bound(path: Path, mode: int) -> socket.socket:
    """A listening socket at that path, non-blocking. The folder is the site's own, so the path is what it seems."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(mode)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class Handover:
    """Gives the listening socket to the server that starts, and hears from it when it is ready to be asked."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(mode=0o755, parents=True)
        self.listener = bound(place / "server.sock", 0o600)        # for the proxy and the hub, which run as our own user
        self.start = bound(place / "start.sock", 0o666)            # the server runs as another user; nobody else sees this folder

    async def ready(self) -> bool:
        """True once the server says so; False when it ended before."""
        loop = asyncio.get_running_loop()
        connection, _ = await loop.sock_accept(self.start)
        with connection:
            connection.setblocking(False)
            socket.send_fds(connection, [b"."], [self.listener.fileno()])
            self.listener.close()                                  # from here on the server alone answers
            with contextlib.suppress(ConnectionError):
                return bool(await loop.sock_recv(connection, 1))
        return False

    def close(self) -> None:
        self.listener.close()
        self.start.close()
        (self.place / "start.sock").unlink(missing_ok=True)


class SocketResolver(DefaultLoopResolver):
    """For the hub's own requests: a host in DOMAIN is the socket of that server, everything else is looked up as usual."""

    async def resolve(self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[tuple[int, Any]]:
        if host.endswith(DOMAIN):
            return [(socket.AF_UNIX, str(server_socket(host)))]
        return await super().resolve(host, port, family)


class SocketProxy(ConfigurableHTTPProxy):
    """Tells configurable-http-proxy the path of the socket where JupyterHub says a host in DOMAIN, and back."""

    async def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        parts = urlsplit(target)
        if (parts.hostname or "").endswith(DOMAIN):
            target = f"unix+http://{quote(str(server_socket(parts.hostname or '')), safe='')}"
        await super().add_route(routespec, target, data)

    def _reformat_routespec(self, routespec: str, chp_data: dict[str, Any]) -> dict[str, Any]:
        route = super()._reformat_routespec(routespec, chp_data)
        if route["target"].startswith("unix+http://"):
            name = Path(unquote(urlsplit(route["target"]).netloc)).parent.name
            route["target"] = f"http://{name}{DOMAIN}:80"
        return route
