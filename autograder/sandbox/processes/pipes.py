"""The three streams of a program that was started on this machine, read and written without ever waiting for it."""

import contextlib
import os
import selectors
from typing import IO

from autograder.sandbox.run import CHUNK, Piece

MOST_LEFT = 64                          # reads from one stream after the end: more than the largest pipe of a user holds


class Pipes:
    """`ended`: a pidfd that becomes readable at the program's end, or None where somebody else looks after that."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes], stderr: IO[bytes], ended: int | None = None) -> None:
        self.stdin, self.streams = stdin, {"stdout": stdout, "stderr": stderr}
        self.ready = selectors.DefaultSelector()
        for stream in (stdin, stdout, stderr):
            os.set_blocking(stream.fileno(), False)
        for name, stream in self.streams.items():
            self.ready.register(stream, selectors.EVENT_READ, name)
        if ended is not None:
            self.ready.register(ended, selectors.EVENT_READ, "ended")

    def exchange(self, waiting: bytearray, seconds: float) -> tuple[list[Piece], bool]:
        """See run.Place.exchange."""
        self._send(waiting)
        pieces, ended = [], False  # type: list[Piece], bool
        for key, _ in self.ready.select(seconds):
            if key.data == "ended":
                ended = True
            elif key.data in self.streams and (chunk := _read(key.fd)) is not None:
                if chunk:
                    pieces.append((key.data, chunk))
                else:
                    self.ready.unregister(key.fileobj)
        return pieces, ended

    def _send(self, waiting: bytearray) -> None:
        if self.stdin.closed:
            return
        try:
            del waiting[:os.write(self.stdin.fileno(), waiting) if waiting else 0]
        except BlockingIOError:
            pass
        except OSError:                                 # it closed its end: its exit follows or its silence is timed
            waiting.clear()
        watched = self.stdin.fileno() in self.ready.get_map()
        if waiting and not watched:
            self.ready.register(self.stdin, selectors.EVENT_WRITE, "stdin")
        elif watched and not waiting:
            self.ready.unregister(self.stdin)

    def hang_up(self) -> None:
        if self.stdin.closed:
            return
        if self.stdin.fileno() in self.ready.get_map():
            self.ready.unregister(self.stdin)
        with contextlib.suppress(OSError):
            self.stdin.close()

    def close(self) -> list[Piece]:
        """After the program's end: what it had written before."""
        self.hang_up()
        self.ready.close()
        left = [(name, chunk) for name, stream in self.streams.items() for chunk in _left(stream)]
        for stream in self.streams.values():
            stream.close()
        return left


def _read(descriptor: int) -> bytes | None:
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return None


def _left(stream: IO[bytes]) -> list[bytes]:
    chunks: list[bytes] = []
    while len(chunks) < MOST_LEFT and (chunk := _read(stream.fileno())):
        chunks.append(chunk)
    return chunks
