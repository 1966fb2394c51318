"""Fetching a file once: resumed when interrupted, checked before anybody sees it, put in its place in one step."""

import contextlib
import hashlib
import http.client
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:                         # not on Windows: there, two downloads at once are not kept apart
    fcntl = None  # type: ignore[assignment]

CHUNK = 1 << 16
TIMEOUT = 30                                # seconds without a byte
ATTEMPTS = 3                                # per address, each going on where the one before stopped

Progress = Callable[[int, int], None]       # bytes so far, bytes in all


class DownloadError(OSError):
    """A file could not be fetched; the message says what to do by hand."""


@dataclass(frozen=True)
class Remote:
    """A published file: its name, its exact size in bytes, its SHA-256, and the addresses that offer it, best first."""

    name: str
    size: int
    sha256: str
    urls: Sequence[str]


def fetch(remote: Remote, folder: str | Path, *, progress: Progress | None = None, attempts: int = ATTEMPTS,
          timeout: float = TIMEOUT, pause: float = 0.5) -> Path:
    """The path of the file in `folder`, fetched unless it is there.

    It appears under its name only when it is whole and its checksum is right. Until then it is `<name>.part`, and the
    next call goes on from there. Two processes that want the same file take turns. `progress(done, size)` is called
    as bytes arrive; by default a line is printed now and then. Raises DownloadError.
    """
    folder = Path(folder)
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    if target.is_file():
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(part):
            if not target.is_file():        # another process may have brought it while this one waited
                _fetch(remote, part, progress or Line(remote.name), attempts, timeout, pause)
                os.replace(part, target)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"cannot write {target}: {error.strerror or error}. Set TINYTORCH_DATA to a folder of your own "
                            f"with {_readable(remote.size)} to spare") from error
    return target


def _fetch(remote: Remote, part: Path, progress: Progress, attempts: int, timeout: float, pause: float) -> None:
    """Fill `part` from the first address that gives the right bytes."""
    said = []
    for url in remote.urls:
        for attempt in range(attempts):
            try:
                _transfer(url, remote, part, progress, timeout)
                _verify(remote, part)
                return
            except _WrongFile as error:     # what has arrived is worthless: from the start, at the next address
                os.truncate(part, 0)
                said.append(f"{url}: {error}")
                if not error.retry:
                    break
            except urllib.error.HTTPError as error:
                error.close()
                said.append(f"{url}: the server says {error.code} {error.reason}")
                if error.code < 500:
                    break
            except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError) as error:
                said.append(f"{url}: {getattr(error, 'reason', '') or error or type(error).__name__}")
            if attempt + 1 < attempts:
                time.sleep(pause * 2 ** attempt)
    raise DownloadError(_by_hand(remote, part, said))


class _WrongFile(Exception):
    def __init__(self, message: str, retry: bool = False):
        super().__init__(message)
        self.retry = retry


def _transfer(url: str, remote: Remote, part: Path, progress: Progress, timeout: float) -> None:
    """Append what is missing to `part`."""
    have = part.stat().st_size
    if have > remote.size:
        os.truncate(part, have := 0)
    if have == remote.size:
        return
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "tinytorch"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with _opener().open(request, timeout=timeout) as response:
        if have and response.status != 206:
            have = 0                        # this server starts anew
        elif have and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            raise _WrongFile(f"asked to go on at byte {have}, it went on elsewhere", retry=True)
        announced = response.headers.get("Content-Length")
        if announced is not None and have + int(announced) != remote.size:
            raise _WrongFile(f"offers {have + int(announced):,} bytes, the data set's file has {remote.size:,}")
        with part.open("r+b") as file:
            file.seek(have)
            file.truncate()
            progress(have, remote.size)
            while chunk := response.read(CHUNK):
                if have + len(chunk) > remote.size:
                    raise _WrongFile(f"sends more than the {remote.size:,} bytes of the data set's file")
                file.write(chunk)
                have += len(chunk)
                progress(have, remote.size)
    if have < remote.size:
        raise ConnectionError(f"the connection ended after {have:,} of {remote.size:,} bytes")


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS with redirects and the user's proxy, nothing else: no address leads to a file or to FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects,
                    urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, urllib.request.UnknownHandler):
        opener.add_handler(handler())
    return opener


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5


def _verify(remote: Remote, part: Path) -> None:
    digest = hashlib.sha256()
    with part.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != remote.sha256:
        raise _WrongFile(f"the checksum of {remote.name} is {digest.hexdigest()[:16]}..., it should be {remote.sha256[:16]}... "
                         f"(damaged on the way, or not this file)", retry=True)


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[None]:
    """Hold the partial file for this process; whoever comes second waits. An empty one does not stay behind."""
    with contextlib.ExitStack() as stack:
        while True:
            file = stack.enter_context(part.open("ab"))
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is_at(file, part):              # else the holder before has moved or removed it, and another one may be held
                break
            file.close()
        try:
            yield
        finally:
            if _is_at(file, part) and not part.stat().st_size:
                part.unlink()


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _by_hand(remote: Remote, part: Path, said: list[str]) -> str:
    target = part.with_suffix("")
    have = part.stat().st_size if part.is_file() else 0
    lines = [f"{remote.name} could not be fetched:", *(f"  {line}" for line in dict.fromkeys(said)),
             "What you can do:",
             f"  1. run this again where there is a network{f'; it goes on after {have:,} bytes' if have else ''}, or",
             f"  2. bring {remote.name} ({_readable(remote.size)}) from {' or '.join(remote.urls)}",
             f"     and put it at {target}, or",
             "  3. set TINYTORCH_DATA to a folder that holds the data set already."]
    return "\n".join(lines)


def _readable(size: int) -> str:
    return f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


class Line:
    """Progress on standard output: one line that grows in a terminal, else a line for every tenth. Short transfers stay silent."""

    def __init__(self, name: str, out=None, patience: float = 1.0):
        self.name, self.out, self.patience = name, out or sys.stdout, patience
        self.began, self.shown, self.tenth = time.monotonic(), 0.0, 0

    def __call__(self, done: int, size: int) -> None:
        now, terminal = time.monotonic(), self.out.isatty()
        if now - self.began < self.patience:
            return
        text = f"{self.name}: {_readable(done)} of {_readable(size)}, {done / size:.0%}"
        if terminal and (now - self.shown > 0.1 or done == size):
            print(f"\r{text}", end="\n" if done == size else "", file=self.out, flush=True)
            self.shown = now
        elif not terminal and 10 * done // size > self.tenth:
            print(text, file=self.out, flush=True)
            self.tenth = 10 * done // size
