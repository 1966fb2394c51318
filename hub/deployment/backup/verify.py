"""A backup is read again, decrypted where it must be: it is whole, and leads nowhere out of its folders."""

import gzip
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .archive import CHUNK, DUMP, FORMAT, MANIFEST, Hashing, Part, part_of
from .settings import PASSWORD, Problem
from .sqlite import look_into


@contextmanager
def opened(file: Path) -> Iterator[tarfile.TarFile]:
    """The archive as a stream of members, decrypted on the way where the key is at hand."""
    reader: subprocess.Popen | None = None
    source: IO[bytes]
    if file.suffix == ".age":
        identity = os.environ.get("AGE_IDENTITY", "")
        if not identity:
            raise Problem("this backup is encrypted: name the file with age's private key, IDENTITY=/path/to/key")
        reader = subprocess.Popen(["age", "--decrypt", "--identity", identity, str(file)], stdout=subprocess.PIPE)
        source = reader.stdout                                                      # type: ignore[assignment]
    elif file.suffix == ".gpg":
        reader = subprocess.Popen(["gpg", "--batch", "--quiet", "--decrypt", str(file)], stdout=subprocess.PIPE)
        source = reader.stdout                                                      # type: ignore[assignment]
    else:
        source = file.open("rb")
    try:
        with source, gzip.GzipFile(fileobj=source) as packed:
            with tarfile.open(fileobj=packed, mode="r|", bufsize=CHUNK) as tar:
                yield tar
            while packed.read(CHUNK):
                pass                                     # to the end, where gzip's own sum stands
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Problem(f"{file.name} is damaged or not a backup: {error}") from None
    finally:
        if reader is not None and reader.wait() not in (0, -13):
            raise Problem(f"{file.name} could not be decrypted: is that the right key?")


def verify(file: Path, keep: Path | None = None) -> dict[str, Any]:
    """Read a whole backup: every part has the digest that its manifest says, every database opens. Returns the manifest.

    `keep`: a folder into which what a database server needs is copied on the way, under its last name.
    """
    parts: dict[str, Part] = {}
    manifest: dict[str, Any] | None = None
    links: set[str] = set()
    digests: list[tuple[tarfile.TarInfo, bytes]] = []
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".verify-") as scratch:
        found: dict[str, Path] = {}
        with opened(file) as tar:
            for member in tar:
                if manifest is not None:
                    raise Problem(f"{file.name} goes on after its manifest: it was altered")
                if member.name == MANIFEST:
                    manifest = read_manifest(tar, member, file)
                    continue
                refuse_escapes(member, links, file)
                content = b""
                if member.isreg():
                    stream = Hashing(tar.extractfile(member), member.size)          # type: ignore[arg-type]
                    first = stream.read(16)
                    kept = keep / Path(member.name).name if keep and member.name in (DUMP, f"state/{PASSWORD}") else None
                    if first == b"SQLite format 3\0" and member.name.startswith("state/"):
                        found[member.name] = Path(scratch) / str(len(found))
                        with found[member.name].open("wb") as copy:
                            copy.write(first)
                            shutil.copyfileobj(stream, copy, CHUNK)
                    elif kept:
                        with kept.open("wb") as copy:
                            copy.write(first)
                            shutil.copyfileobj(stream, copy, CHUNK)
                    else:
                        while stream.read(CHUNK):
                            pass
                    content = stream.digest.digest()
                digests.append((member, content))
        if manifest is None:
            raise Problem(f"{file.name} has no manifest: it was cut off, or is no backup of a site")
        if manifest["format"] > FORMAT:
            raise Problem(f"{file.name} was made by a newer version ({manifest['version']}): deploy that one first")
        for member, content in digests:
            parts.setdefault(part_of(member.name, manifest["databases"]), Part()).add(member, content)
        if wrong := differences({name: part.summary() for name, part in parts.items()}, manifest["parts"]):
            raise Problem(f"{file.name} is damaged: {', '.join(wrong[:5])} not as it was written")
        for name, said in manifest["databases"].items():
            if name not in found or look_into(found[name]) != said:
                raise Problem(f"{file.name} is damaged: the database {name} does not hold what it did")
    return manifest


def read_manifest(tar: tarfile.TarFile, member: tarfile.TarInfo, file: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(tar.extractfile(member).read())                       # type: ignore[union-attr]
        if not manifest.keys() >= {"format", "version", "made", "databases", "volumes", "parts"}:
            raise ValueError("it lacks something")
    except (ValueError, AttributeError) as error:
        raise Problem(f"{file.name} is damaged: its manifest cannot be read ({error})") from None
    return manifest


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def refuse_escapes(member: tarfile.TarInfo, links: set[str], file: Path) -> None:
    """A backup that this program wrote never leads out of its folder; one that somebody altered might."""
    words = member.name.split("/")
    above = {"/".join(words[:n]) for n in range(1, len(words))}
    if "" in words or "." in words or ".." in words or above & links or not (member.isreg() or member.isdir() or member.issym()):
        raise Problem(f"{file.name} was not written by this program: {member.name!r} leads elsewhere")
    if member.issym():
        links.add(member.name)
