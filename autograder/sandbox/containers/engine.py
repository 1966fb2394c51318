"""The few words of the Docker Engine's API that the docker sandbox and the hub need, over its socket: no client program, no SDK."""

import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

API = "/v1.41"                          # of Docker 20.10 (Debian 12); newer engines still speak it
SECONDS = 100.0                         # for one answer: a busy engine keeps some requests waiting for a minute


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


def ask(method: str, path: str, body: Any = None, seconds: float = SECONDS, **query: Any) -> Any:
    """The answer: JSON, bytes where it is none, None when it is empty. EngineError for every refusal; `seconds` is for its silence."""
    connection = _Connection(address(), timeout=seconds)
    asked = {name: json.dumps(value) if isinstance(value, dict) else value for name, value in query.items()}
    try:
        connection.request(method, f"{API}{path}{'?' + urlencode(asked) if asked else ''}", body=None if body is None else json.dumps(body),
                           headers={"Content-Type": "application/json", "Host": "docker"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"the Docker engine at {address()} does not answer: {error}") from error
    finally:
        connection.close()
    said = _decoded(content)
    if answer.status >= 400:
        raise EngineError(str(said.get("message", "") if isinstance(said, dict) else said).strip(), answer.status)
    return said


def _decoded(content: bytes) -> Any:
    try:
        return json.loads(content) if content.strip() else None
    except ValueError:
        return content


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
