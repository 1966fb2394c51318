"""What is in an archive, and how it is written: members, and a digest over each part of them for the manifest.

Whoever owns the files may change them meanwhile: folders are walked through open descriptors, and no link is followed.
"""

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

FORMAT = 1
MANIFEST = "manifest.json"
DUMP = "postgresql.dump"                   # its name in an archive
HOLES = 2**30                              # a sparse file may claim any size: with more than this in holes it is left out
CHUNK = 2**20


@dataclass
class Part:
    """A digest over names, kinds and contents of one part of the archive: a database, a home, the rest of the state."""

    digest: Any = field(default_factory=hashlib.sha256)
    members: int = 0
    size: int = 0

    def add(self, member: tarfile.TarInfo, content_digest: bytes = b"") -> None:
        said = [member.name, member.type.decode(), member.mode, member.uid, member.gid, member.size, member.mtime, member.linkname]
        self.digest.update(json.dumps(said).encode() + content_digest)
        self.members += 1
        self.size += member.size

    def summary(self) -> dict[str, Any]:
        return {"sha256": self.digest.hexdigest(), "members": self.members, "bytes": self.size}


def part_of(name: str, databases: "set[str] | dict[str, Any]") -> str:
    """The part to which a member belongs."""
    words = name.split("/")
    return name if name in databases else "/".join(words[:2]) if words[0] == "homes" else words[0]


class Hashing(io.RawIOBase):
    """A readable stream of exactly `size` bytes: a file that shrinks meanwhile is filled with zeros, growth is left for next time."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self.stream, self.left, self.digest = stream, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        data = self.stream.read(wanted) if wanted else b""
        data += b"\0" * (wanted - len(data))
        self.left -= len(data)
        self.digest.update(data)
        return data


class Writer:
    """An archive that is being written, and what its manifest will say."""

    def __init__(self, tar: tarfile.TarFile, databases: list[str]) -> None:
        self.tar, self.databases = tar, set(databases)
        self.parts: dict[str, Part] = {}
        self.left_out: list[str] = []

    def put(self, member: tarfile.TarInfo, stream: IO[bytes] | None = None) -> None:
        content = Hashing(stream, member.size) if stream else None
        self.tar.addfile(member, content)
        part = self.parts.setdefault(part_of(member.name, self.databases), Part())
        part.add(member, content.digest.digest() if content else b"")

    def file(self, name: str, content: Path, like: os.stat_result) -> None:
        with content.open("rb") as stream:
            self.put(info(name, like, os.fstat(stream.fileno()).st_size), stream)

    def tree(self, root: Path, prefix: str, skip: Callable[[str], bool] = lambda name: False) -> None:
        """Everything below a folder that somebody else may change meanwhile. `skip` sees names relative to the root."""
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            self.put(info(prefix, os.fstat(top)))
            self._folder(top, prefix, "", skip)
        finally:
            os.close(top)

    def _folder(self, folder: int, prefix: str, inner: str, skip: Callable[[str], bool]) -> None:
        for entry in sorted(os.listdir(folder)):
            relative = f"{inner}{entry}"
            if skip(relative):
                continue
            name = f"{prefix}/{relative}"
            try:
                self._entry(folder, entry, name, prefix, relative, skip)
            except FileNotFoundError:
                continue                                 # removed since the folder was read
            except OSError as error:
                self.left_out.append(f"{name}: {error.strerror}")

    def _entry(self, folder: int, entry: str, name: str, prefix: str, relative: str, skip: Callable[[str], bool]) -> None:
        status = os.stat(entry, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            self.put(info(name, status, link=os.readlink(entry, dir_fd=folder)))
        elif stat.S_ISDIR(status.st_mode):
            below = os.open(entry, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                self.put(info(name, os.fstat(below)))
                self._folder(below, prefix, f"{relative}/", skip)
            finally:
                os.close(below)
        elif stat.S_ISREG(status.st_mode):
            opened = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with os.fdopen(opened, "rb") as stream:
                status = os.fstat(stream.fileno())
                if not stat.S_ISREG(status.st_mode):
                    return
                if status.st_size - 512 * status.st_blocks > HOLES:
                    self.left_out.append(f"{name}: {status.st_size} bytes, nearly all of them holes")
                    return
                self.put(info(name, status), stream)


def info(name: str, status: os.stat_result, size: int | None = None, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    mode = status.st_mode
    member.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE if stat.S_ISDIR(mode) else tarfile.REGTYPE
    member.mode, member.uid, member.gid, member.mtime = stat.S_IMODE(mode), status.st_uid, status.st_gid, int(status.st_mtime)
    member.linkname = link
    if member.type == tarfile.REGTYPE:
        member.size = status.st_size if size is None else size
    return member
