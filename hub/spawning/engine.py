"""Docker's API for the hub: the autograder's words to the engine, without holding up whatever else the process does.

Whoever may talk to the engine's socket is root on the host: only the hub's container has it.
"""

import asyncio
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from autograder.sandbox.containers.engine import SECONDS, EngineError, Frames, address, ask

__all__ = ["EngineError", "aask", "address", "ask", "container", "log_text"]

THREADS = ThreadPoolExecutor(32, "engine")   # of our own: a server that takes its time to stop must hold up nobody's start


async def aask(method: str, path: str, body: Any = None, seconds: float = SECONDS, **query: Any) -> Any:
    """`ask` in a thread."""
    work = functools.partial(ask, method, path, body, seconds, **query)
    return await asyncio.get_running_loop().run_in_executor(THREADS, work)


def container(name: str, rest: str = "") -> str:
    return f"/containers/{quote(name, safe='')}{rest}"


def log_text(stream: bytes | None) -> str:
    """The text of a container's log, of both its streams in their order."""
    return b"".join(piece for _, piece in Frames().feed(stream or b"")).decode(errors="replace")
