"""The door of each person's container: a listener on its door.sock that leads to the site's public proxy and nowhere else.

    python -m hub.network.door                   in the container of the service `door`

Whatever a student reaches through it is what every browser reaches. It is a process of its own, so that neither a restart of the
hub nor one of the proxy closes it, and so that who floods it fills their own share of connections and nobody else's.
"""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from hub.network import sockets, wiring
from hub.network.inotify import Folder
from hub.single_user import relay

CONNECTIONS = 100                        # of one container at a time: Lab, its kernels and jobs need a tenth
CONNECT_SECONDS = 10
log = logging.getLogger("door")

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Lead = Callable[[str, Connection], Awaitable[None]]


class Doors:
    """A listener called `name` in the folder of every server for which `wanted` is true; `lead` takes each connection on."""

    def __init__(self, name: str, lead: Lead, wanted: Callable[[str], bool] = lambda server: True) -> None:
        self.name, self.lead, self.wanted = name, lead, wanted
        self.listeners: dict[str, asyncio.Server] = {}
        self.open: Counter[str] = Counter()
        self.root = sockets.ROOT / "servers"
        self.changed = asyncio.Event()

    async def keep(self) -> None:
        """Follow the folders that the hub makes and removes, for ever."""
        folder = Folder(self.root, self.changed.set)
        try:
            while True:
                self.changed.clear()
                await self.look()
                await self.changed.wait()
        finally:
            folder.close()

    async def look(self) -> None:
        there = {place.name: place for place in self.root.iterdir() if place.is_dir() and self.wanted(place.name)}
        for gone in self.listeners.keys() - there.keys():
            self.listeners.pop(gone).close()
        for server, place in there.items():
            if server not in self.listeners or not (place / self.name).exists():       # removed and made again meanwhile
                with contextlib.suppress(FileNotFoundError):                           # removed just now
                    await self.listen(server, place)

    async def listen(self, server: str, place: Path) -> None:
        if server in self.listeners:
            self.listeners.pop(server).close()

        async def guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self.guest(server, (reader, writer))
        self.listeners[server] = await asyncio.start_unix_server(guest, sock=sockets.bound(place / self.name, 0o666))

    async def guest(self, server: str, connection: Connection) -> None:
        if self.open[server] >= CONNECTIONS:
            connection[1].close()
            return
        self.open[server] += 1
        try:
            await self.lead(server, connection)
        except (OSError, TimeoutError) as error:
            log.info("%s: %s", server, error)
        finally:
            self.open[server] -= 1
            connection[1].close()


def to(host: str, port: int) -> Lead:
    """Leads every connection to that one address."""
    async def lead(server: str, connection: Connection) -> None:
        async with asyncio.timeout(CONNECT_SECONDS):
            other = await asyncio.open_connection(host, port)
        await relay.join(connection, other)
    return lead


def main() -> None:
    logging.basicConfig(level=os.environ.get("LOG_LEVEL", "INFO"), format="%(asctime)s %(name)s %(message)s")
    (sockets.ROOT / "servers").mkdir(mode=0o700, exist_ok=True)

    async def keep() -> None:
        await Doors("door.sock", to(*wiring.CONTAINED["public"])).keep()
    asyncio.run(keep())


if __name__ == "__main__":
    main()
