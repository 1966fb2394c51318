"""A server in a container without network: all that it reaches, and all who reach it, come through the sockets in one folder.

The folder is the site's and read-only here (hub/network/sockets.py says what is in it). The relays run in this process, in a thread of
their own, since nbgrader's pages hold up the server's loop while they wait for the exchange, which is behind a relay.
"""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import relay

HOME_FOLDERS = (".tito", "modules/source", "tinytorch/core")
SETTLED_SECONDS = 2
MARK = ".tito/.home-made"


def prepare(sockets):
    """Make the home at its first use, open the relays, and take the listening socket in place of a port."""
    first_use(sockets, Path.home())
    threading.Thread(target=asyncio.run, args=(doors(sockets),), name="doors", daemon=True).start()
    listen(*take(sockets))


def first_use(sockets, home):
    """What a new home holds, whatever the image has put there; once, since its owner may delete any of it."""
    if (home / MARK).exists():
        return
    for folder in HOME_FOLDERS:
        (home / folder).mkdir(parents=True, exist_ok=True)
    if (sockets / "Welcome.md").exists():
        shutil.copyfile(sockets / "Welcome.md", home / "Welcome.md")
    (home / MARK).touch()


async def doors(sockets):
    """Ports on loopback that lead to sockets, as the site says: {"8000": "door.sock"}."""
    for port, name in json.loads(os.environ.get("TINYTORCH_DOORS", "{}")).items():
        async def through(reader, writer, path=str(sockets / name)):
            try:
                other = await asyncio.open_unix_connection(path)
            except OSError:                      # the site restarts; whoever asked sees a closed connection and tries again
                writer.close()
                return
            await relay.join((reader, writer), other)
        await asyncio.start_server(through, "127.0.0.1", int(port))
    await asyncio.Event().wait()


def take(sockets):
    """The listening socket, and the connection on which the site waits to hear that it is served."""
    site = socket.socket(socket.AF_UNIX)
    site.settimeout(30)
    site.connect(str(sockets / "start.sock"))
    _, descriptors, _, _ = socket.recv_fds(site, 1, 1)
    [descriptor] = descriptors
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor), site


def listen(listener, site):
    """Serve on it, and say so once the server's loop runs: that is when Jupyter binds its ports."""
    from jupyter_server.serverapp import ServerApp

    def bind(app):
        listener.setblocking(False)
        app.http_server.add_socket(listener)
        site.send(b".")
        site.close()
        app.io_loop.call_later(SETTLED_SECONDS, give_back)

    ServerApp._bind_http_server = bind  # type: ignore[method-assign]


def give_back():
    """Return to the system what only the start needed: a few megabytes of each server of a whole class."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):           # a C library without it
        ctypes.CDLL(None).malloc_trim(0)
