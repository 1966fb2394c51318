"""All images in one file, for machines that reach no registry: what `make bundle` runs, and its counterpart on the other side.

    python3 -m images.bundle save [FILE] [--also IMAGE …]       default: build/images/tinytorch-<version>.tar.gz
    python3 -m images.bundle load FILE [--sha256 DIGEST]
    python3 -m images.bundle verify FILE                        every part of it, without an engine

The file is what `docker save` writes, with the images' manifests, their lists of contents and SHA256SUMS beside: plain
`docker load` takes it as well. Loading here verifies every part before the engine sees a byte, and afterwards that the engine
holds the layers and settings that were saved.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
import zlib
from pathlib import Path
from typing import IO, Any

from images import engine, listing
from images.build import OUT, manifests

SUMS, CHUNK = "SHA256SUMS", 1 << 20
FOLDER = "contents/"                     # our own documents, apart from the engine's


class Damaged(Exception):
    """The file is not what was saved; the message says what differs and what to do."""


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="images.bundle", description="Carry all images to a machine without a registry.")
    commands = parser.add_subparsers(dest="command", required=True)
    saving = commands.add_parser("save", help="write them to one file")
    saving.add_argument("file", nargs="?", type=Path)
    saving.add_argument("--also", action="append", default=[], metavar="IMAGE", help="one more image, such as a class's own")
    loading = commands.add_parser("load", help="verify such a file and hand its images to the engine")
    loading.add_argument("file", type=Path)
    loading.add_argument("--sha256", default="", help="the digest that `save` printed, told by another way than the file came")
    commands.add_parser("verify", help="look whether such a file is whole").add_argument("file", type=Path)
    options = parser.parse_args(arguments)
    try:
        if options.command == "save":
            save(options.file, options.also)
        elif options.command == "load":
            load(options.file, options.sha256)
        else:
            print(f"  {len(checked(options.file))} images in {options.file}, as they were saved")
    except (engine.EngineError, Damaged) as error:
        sys.exit(f"bundle: {error}")
    except OSError as error:
        sys.exit(f"bundle: {error.filename or options.file}: {error.strerror}")


def save(file: Path | None, also: list[str]) -> Path:
    """Write the images of the last build to `file`; returns it."""
    held = manifests()
    tags = [manifest["image"] for manifest in held.values()]
    missing = [tag for tag in (*tags, *also) if not engine.exists(tag)]
    if missing or not tags:
        raise engine.EngineError(f"{', '.join(missing) or 'no image'} is not there: make images builds them")
    versions = sorted({tag.rpartition(":")[2] for tag in tags})
    if len(versions) > 1:
        raise engine.EngineError(f"the images are of {len(versions)} versions ({', '.join(versions)}): make images builds them of one")
    file = file or OUT / f"tinytorch-{versions[0]}.tar.gz"
    began, partial = time.monotonic(), file.with_name(f".{file.name}.part")
    documents = {f"{name}{end}": (OUT / f"{name}{end}").read_bytes() for name in held for end in (".json", ".cdx.json")}
    documents |= {f"also-{number}.json": listing.text(carried(image)).encode() for number, image in enumerate(also)}
    try:
        with partial.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed, \
                tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT, bufsize=CHUNK) as tar:
            sums = copy_images([*tags, *also], tar)
            for name, data in sorted(documents.items()):
                add(tar, FOLDER + name, data)
                sums[FOLDER + name] = hashlib.sha256(data).hexdigest()
            add(tar, SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    megabytes, seconds = file.stat().st_size / 1e6, time.monotonic() - began
    print(f"  {len(tags) + len(also)} images in {os.path.relpath(file)}: {megabytes:.0f} MB, {seconds:.0f} s")
    print(f"  sha256 {digest_of(file)}")
    return file


def carried(image: str) -> dict[str, Any]:
    """Of an image that is none of ours: what loading compares."""
    said = listing.inspect(image)
    return {"image": image, "layers": said["RootFS"]["Layers"], "user": said["Config"]["User"],
            "entrypoint": said["Config"]["Entrypoint"], "command": said["Config"]["Cmd"] or []}


def copy_images(images: list[str], target: tarfile.TarFile) -> dict[str, str]:
    """Copy what `docker save` writes into `target`; returns the digests of its files, and where its links lead, by their names."""
    sums = {}
    with subprocess.Popen([engine.client(), "save", *images], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        with tarfile.open(fileobj=running.stdout, mode="r|", bufsize=CHUNK) as source:
            for member in source:
                data = _Summed(source.extractfile(member)) if member.isfile() else None
                target.addfile(member, data)                                                        # type: ignore[arg-type]
                if not member.isdir():
                    sums[member.name] = data.digest.hexdigest() if data else link_digest(member)
        running.stdout.read()
    if running.returncode:
        raise engine.EngineError("docker save failed")
    return sums


def link_digest(member: tarfile.TarInfo) -> str:
    return hashlib.sha256(f"link to {member.linkname}".encode()).hexdigest()


class _Summed:
    """A file that is hashed while it is read."""

    def __init__(self, file: IO[bytes] | None) -> None:
        assert file is not None
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    tar.addfile(member, io.BytesIO(data))


def load(file: Path, expected: str = "") -> list[str]:
    """Verify `file`, give its images to the engine, and compare. Damaged, before the engine sees anything, where a digest differs."""
    if expected and (found := digest_of(file)) != expected.lower():
        raise Damaged(f"{file} has the digest {found}, not {expected}: it is another file, or was altered. Nothing was loaded.")
    documents = checked(file)
    engine.docker("load", "--quiet", "--input", file)
    for manifest in documents:
        compare(manifest)
    loaded = sorted(manifest["image"] for manifest in documents)
    print(f"  {len(loaded)} images loaded and compared: {', '.join(loaded)}")
    return loaded


def checked(file: Path) -> list[dict[str, Any]]:
    """The manifests of a whole bundle; Damaged for any other file."""
    try:
        return verify(file)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile, UnicodeDecodeError, ValueError) as error:
        raise Damaged(f"{file} is no whole bundle ({error}): copy it again. Nothing was loaded.") from None


def verify(file: Path) -> list[dict[str, Any]]:
    """Every part against SHA256SUMS; returns the manifests."""
    found: dict[str, str] = {}
    documents: dict[str, bytes] = {}
    with gzip.open(file) as packed:
        with tarfile.open(fileobj=packed, mode="r|", bufsize=CHUNK) as tar:
            for member in tar:
                if member.isfile():
                    data = tar.extractfile(member)
                    assert data is not None
                    if member.name == SUMS or member.name.startswith(FOLDER):
                        documents[member.name] = data.read()
                        found[member.name] = hashlib.sha256(documents[member.name]).hexdigest()
                    else:
                        found[member.name] = digest_of_stream(data)
                elif not member.isdir():
                    found[member.name] = link_digest(member)
        while packed.read(CHUNK):                                  # its own checksum is at the very end
            pass
    if SUMS not in documents:
        raise ValueError(f"it has no {SUMS}")
    found.pop(SUMS)
    listed = [line.split("  ", 1) for line in documents[SUMS].decode().splitlines()]
    wanted = {name: digest for digest, name in listed}
    if differ := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
        raise Damaged(f"{', '.join(differ[:3])} in {file} is not what was saved: the file was damaged or altered. "
                      "Copy it again. Nothing was loaded.")
    return [json.loads(data) for name, data in sorted(documents.items()) if name.endswith(".json") and not name.endswith(".cdx.json")]


def compare(manifest: dict[str, Any]) -> None:
    """The engine holds these layers and settings under this name. (Its own id of an image depends on how it keeps images.)"""
    said = listing.inspect(manifest["image"])
    now = {"layers": said["RootFS"]["Layers"], "user": said["Config"]["User"], "entrypoint": said["Config"]["Entrypoint"],
           "command": said["Config"]["Cmd"] or []}
    if differ := [name for name, value in now.items() if value != manifest[name]]:
        name = manifest["image"]
        raise Damaged(f"{name} was loaded with other {', '.join(differ)} than were saved: do not use it (docker rmi {name})")


def digest_of(file: Path) -> str:
    with file.open("rb") as data:
        return digest_of_stream(data)


def digest_of_stream(data: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := data.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


if __name__ == "__main__":
    main(sys.argv[1:])
