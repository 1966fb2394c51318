"""Read images as they are carried: every file of every layer, also those that a later layer hides.

One `docker save` of several images holds each layer once, however many of them share it.
"""

import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from images import engine

WHITEOUT = ".wh."                        # a file with this before its name says that the layer removes what is below


@dataclass
class Image:
    """One image: its configuration, and its layers from the lowest up, as keys of `Saved.layers`."""

    config: dict[str, Any]
    layers: list[str]


@dataclass
class Layer:
    """One layer within the saved file; `files` are its members by their path in the image."""

    tar: tarfile.TarFile
    files: dict[str, tarfile.TarInfo]

    def read(self, path: str) -> bytes:
        data = self.tar.extractfile(self.files[path])
        return data.read() if data else b""

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Path and content of every plain file."""
        for path, member in self.files.items():
            if member.isfile():
                yield path, self.read(path)


class Saved:
    """Images that were written to a file by `docker save`."""

    def __init__(self, file: Path) -> None:
        self.layers: dict[str, Layer] = {}
        self.images: dict[str, Image] = {}
        with tarfile.open(file, "r:") as outer:
            members = {member.name: member for member in outer}
            links = {name: _resolved(PurePosixPath(name).parent / member.linkname) for name, member in members.items() if member.issym()}
            for entry in json.loads(outer.extractfile("manifest.json").read()):                     # type: ignore[union-attr]
                config = json.loads(outer.extractfile(entry["Config"]).read())                      # type: ignore[union-attr]
                image = Image(config, [links.get(name, name) for name in entry["Layers"]])          # a link: an earlier image has it, too
                self.images |= dict.fromkeys(entry["RepoTags"] or [], image)
        for name in sorted({name for image in self.images.values() for name in image.layers}):
            self.layers[name] = self._layer(file, members[name])

    @staticmethod
    def _layer(file: Path, member: tarfile.TarInfo) -> Layer:
        raw = file.open("rb")                                    # stays open: the layer is read for as long as this lives
        raw.seek(member.offset_data)
        tar = tarfile.open(fileobj=raw, mode="r:")               # noqa: SIM115
        return Layer(tar, {"/" + inner.name.removeprefix("./").strip("/"): inner for inner in tar})

    def of(self, image: str) -> list[Layer]:
        """Its layers from the lowest up."""
        return [self.layers[name] for name in self.images[image].layers]

    def shown(self, image: str) -> dict[str, tarfile.TarInfo]:
        """What a container of it sees: later layers replace and remove what earlier ones hold."""
        shown: dict[str, tarfile.TarInfo] = {}
        for layer in self.of(image):
            for path in layer.files:
                parent, name = path.rsplit("/", 1)
                if name.startswith(WHITEOUT):
                    gone = f"{parent}/{name.removeprefix(WHITEOUT)}"
                    for other in [other for other in shown if other == gone or other.startswith(f"{gone}/")]:
                        del shown[other]
            shown |= {path: member for path, member in layer.files.items() if not path.rsplit("/", 1)[1].startswith(WHITEOUT)}
        return shown


def save(images: Sequence[str], file: Path) -> Saved:
    """Write the images to `file` and open it."""
    engine.docker("save", "--output", file, *images)
    return Saved(file)


def _resolved(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
