"""The few words of the Docker Engine's API that the docker sandbox needs, over the engine's socket: no client program, no SDK."""

import contextlib
import http.client
import json
import os
import socket
import struct
import urllib.parse
from collections.abc import Iterator
from typing import Any

API = "/v1.41"                          # Docker 20.10 and newer
SECONDS = 60                            # for one answer


class EngineError(RuntimeError):
    """The engine refused or does not answer. The message is the engine's."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def address() -> str:
    """The engine's socket: DOCKER_HOST as unix://PATH, or the usual place."""
    host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not host.startswith("unix://"):
        raise EngineError(f"DOCKER_HOST is {host}: only a socket of this machine is used (unix:///path)")
    return host.removeprefix("unix://")


def ask(method: str, path: str, body: Any = None, **query: str) -> Any:
    """The answer as JSON, None when it is empty. Raises EngineError."""
    connection = _Connection(address(), timeout=SECONDS)
    where = f"{API}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
    try:
        headers = {"Content-Type": "application/json", "Host": "docker"}
        connection.request(method, where, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"the Docker engine at {address()} does not answer: {error}") from error
    finally:
        connection.close()
    if answer.status >= 400:
        message = said.decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            message = json.loads(said)["message"]
        raise EngineError(message.strip(), answer.status)
    return json.loads(said) if said.strip() else None


def attach(container: str) -> socket.socket:
    """A socket whose input is the container's stdin and whose output are `Frames`."""
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(60)
    line.connect(address())
    line.sendall(f"POST {API}/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: docker\r\n"
                 "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        if not (byte := line.recv(1)):
            raise EngineError("the engine hung up while attaching")
        head += byte
    if head.split(b" ", 2)[1] not in (b"101", b"200"):
        raise EngineError(head.decode(errors="replace").splitlines()[0])
    return line


class Frames:
    """Takes apart what an attached container writes: pieces of ("stdout" or "stderr", bytes)."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        self.buffer += chunk
        while len(self.buffer) >= 8:
            kind, size = struct.unpack(">BxxxI", self.buffer[:8])
            if len(self.buffer) < 8 + size:
                return
            piece = bytes(self.buffer[8:8 + size])
            del self.buffer[:8 + size]
            yield ("stderr" if kind == 2 else "stdout"), piece
