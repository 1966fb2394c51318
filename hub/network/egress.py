"""The way out for classes that have one: an HTTP CONNECT proxy on each student's egress.sock. Default deny.

    python -m hub.network.egress                 in the container of the service `egress`, which is on no network of the site

`limits.network: internet` lets a class reach whatever is public, `limits.hosts` those hosts and nothing else; HTTPS only. The address
is looked up here, and only a public one is connected to: no name leads to the site's own parts, to the host's network or to a
cloud's metadata address, whatever its owner writes into the DNS.
"""

import asyncio
import ipaddress
import logging
import os
import socket

from hub import paths
from hub.config.site import Site
from hub.network import sockets
from hub.network.door import CONNECT_SECONDS, Connection, Doors
from hub.single_user import relay

PORT = 443
NAME = "egress.sock"
log = logging.getLogger("egress")


class Denied(Exception):
    """Why not, with the HTTP status that says the same to programs."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Egress:
    """What the classes of a site may reach."""

    def __init__(self, site: Site) -> None:
        self.limits = {class_.id: class_.limits for class_ in site.classes if class_.limits.reaches_out}

    def wanted(self, server: str) -> bool:
        return self.class_of(server) in self.limits

    @staticmethod
    def class_of(server: str) -> str:
        return server.partition("--")[0]

    async def lead(self, server: str, connection: Connection) -> None:
        reader, writer = connection
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                host = asked_for(await reader.readuntil(b"\r\n\r\n"))
                self.check(server, host)
                other = await asyncio.open_connection(await public_address(host), PORT)
        except (Denied, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            status = error.status if isinstance(error, Denied) else 400
            log.info("%s: %s %s", server, status, error)
            writer.write(f"HTTP/1.1 {status} Refused\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{error}\n".encode())
            await writer.drain()
            return
        log.info("%s: %s", server, host)
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await relay.join(connection, other)

    def check(self, server: str, host: str) -> None:
        """Denied unless that class may reach that host."""
        limits = self.limits.get(self.class_of(server))
        if limits is None or not (limits.network == "internet" or host in limits.hosts):
            raise Denied(403, f"{host} is not among the hosts that class {self.class_of(server)} may reach: its instructor can ask for it")


def asked_for(head: bytes) -> str:
    """The host that a CONNECT names. Denied for every other request."""
    words = head.split(b"\r\n")[0].decode("latin-1").split(" ")
    if len(words) != 3 or words[0] != "CONNECT":
        raise Denied(405, "only https:// can be reached from here")
    host, _, port = words[1].lower().rpartition(":")
    if port != str(PORT):
        raise Denied(403, f"only port {PORT} can be reached from here, {words[1]} asks for another")
    return host.rstrip(".")


async def public_address(host: str) -> str:
    """An address of that host which is public. Denied where it has none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, PORT, type=socket.SOCK_STREAM)
    except OSError:
        raise Denied(502, f"there is no host {host}") from None
    for *_, address in found:
        if is_public(str(address[0])):
            return str(address[0])
    raise Denied(403, f"{host} has no public address")


def is_public(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return found.is_global and not found.is_multicast


def main() -> None:
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(name)s %(message)s")
    egress = Egress(Site.load(paths.CLASSES_YML))
    (sockets.ROOT / "servers").mkdir(mode=0o700, exist_ok=True)

    async def keep() -> None:
        await Doors(NAME, egress.lead, egress.wanted).keep()
    asyncio.run(keep())


if __name__ == "__main__":
    main()
