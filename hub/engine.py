"""The few requests of Docker's API that a site needs, over the engine's own socket. Standard library only.

Whoever may talk to that socket is root on the host: only the hub's container has it.
"""

import asyncio
import functools
import http.client
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlencode

SOCKET = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://")
VERSION = "v1.41"                        # of Docker 20.10 (Debian 12); newer engines still speak it
SECONDS = 100.0                          # a busy engine keeps some requests waiting for a minute; the hub gives up after two
THREADS = ThreadPoolExecutor(32, "engine")   # of our own: a server that takes its time to stop must hold up nobody's start


class EngineError(Exception):
    """What the engine answered, in its own words; status 0 when it could not be asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def ask(method: str, path: str, body: Any = None, seconds: float = SECONDS, **query: Any) -> Any:
    """What the engine says, as JSON or, where it is none, as bytes. EngineError for every refusal."""
    connection = _Connection("docker", timeout=seconds)
    asked = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in query.items()}
    try:
        connection.request(method, f"/{VERSION}{path}{'?' + urlencode(asked) if asked else ''}",
                           body=None if body is None else json.dumps(body), headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(0, f"the Docker engine does not answer ({error})") from error
    finally:
        connection.close()
    said = _decoded(content)
    if answer.status >= 400:
        raise EngineError(answer.status, said.get("message", "") if isinstance(said, dict) else str(said))
    return said


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content


async def aask(method: str, path: str, body: Any = None, seconds: float = SECONDS, **query: Any) -> Any:
    """The same without holding up whatever else the process does."""
    work = functools.partial(ask, method, path, body, seconds, **query)
    return await asyncio.get_running_loop().run_in_executor(THREADS, work)


def container(name: str, rest: str = "") -> str:
    return f"/containers/{quote(name, safe='')}{rest}"


def log_text(stream: bytes) -> str:
    """The text of a container's log: each piece has a head of eight bytes, of which the last four are its length."""
    text, at = b"", 0
    while at + 8 <= len(stream):
        length = int.from_bytes(stream[at + 4:at + 8], "big")
        text += stream[at + 8:at + 8 + length]
        at += 8 + length
    return text.decode(errors="replace")
