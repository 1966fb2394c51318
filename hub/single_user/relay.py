"""Pass bytes both ways between two connections until both have ended."""

import asyncio
import contextlib

CHUNK = 1 << 16
LINGER = 60.0                            # seconds for an answer after whoever asked has said that nothing more will come


async def join(one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
    """Both connections are closed at the end, whichever side ended first and however."""
    ways = [asyncio.ensure_future(_one_way(one[0], other[1])), asyncio.ensure_future(_one_way(other[0], one[1]))]
    try:
        _, open_still = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if open_still:
            await asyncio.wait(open_still, timeout=LINGER)
    finally:
        for way in ways:
            way.cancel()
        for _, writer in (one, other):
            writer.close()


async def _one_way(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()             # no faster than the other side takes it: a slow reader costs no memory
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
