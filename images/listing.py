"""Two files for every image: `<name>.cdx.json`, what it is made of (CycloneDX 1.5), and `<name>.json`, what was built.

Both say the same on every build of the same image: no time of this run, no name of this machine, everything sorted.
"""

import hashlib
import json
import re
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

from images import engine
from images.catalogue import PREFIX, Kind

INVENTORY = Path(__file__).with_name("inventory.py")
EXPRESSION = re.compile(r"[A-Za-z0-9.+\-() ]+")                # what an SPDX expression consists of


def write(kind: Kind, tag: str, base: dict[str, Any], created: str, folder: Path) -> dict[str, Any]:
    """Write both files of the image `tag` into `folder`; returns the manifest."""
    held = inventory(tag)
    version = tag.rpartition(":")[2]
    bill = text(bill_of_materials(kind, version, held, created))
    (folder / f"{kind.name}.cdx.json").write_text(bill, encoding="utf-8")
    manifest = manifest_of(kind, tag, base, held, hashlib.sha256(bill.encode()).hexdigest())
    (folder / f"{kind.name}.json").write_text(text(manifest), encoding="utf-8")
    return manifest


def text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def inspect(image: str) -> dict[str, Any]:
    """What the engine knows of an image."""
    return json.loads(engine.docker("image", "inspect", image))[0]


def inventory(image: str) -> dict[str, Any]:
    """What lies in it, asked inside: without a network, with nothing of this machine in it."""
    return json.loads(engine.docker("run", "--rm", "-i", "--network", "none", "--read-only", "--cap-drop", "ALL",
                                    "--entrypoint", "/usr/bin/python3", image, "-I", "-", input=INVENTORY.read_text(encoding="utf-8")))


def bill_of_materials(kind: Kind, version: str, held: dict[str, Any], created: str) -> dict[str, Any]:
    """The image's contents as CycloneDX 1.5, which scanners of vulnerabilities and licences read."""
    components = [component for _, component in sorted(
        {component["bom-ref"]: component for component in map(_component, held["packages"])}.items())]
    system = held["system"]
    whole = {"type": "container", "bom-ref": f"{PREFIX}/{kind.name}", "name": f"{PREFIX}/{kind.name}", "version": version,
             "description": kind.description, "licenses": [{"license": {"id": "MIT"}}]}
    components.insert(0, {"type": "operating-system", "bom-ref": "system", "name": system["name"], "version": system["version"],
                          "description": system["title"]})
    body = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
            "metadata": {"timestamp": created, "component": whole}, "components": components,
            "dependencies": [{"ref": whole["bom-ref"], "dependsOn": [component["bom-ref"] for component in components]}]}
    return {**body, "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text(body))}"}


def _component(package: dict[str, str]) -> dict[str, Any]:
    name, version = package["name"], package["version"]
    purl = {
        "deb": lambda: f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={package['architecture']}",
        "pypi": lambda: f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version)}",
        "npm": lambda: f"pkg:npm/{quote(name)}@{quote(version)}",
    }[package["kind"]]()
    component: dict[str, Any] = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if licence := package["licence"]:
        component["licenses"] = [{"expression": licence}] if EXPRESSION.fullmatch(licence) else [{"license": {"name": licence}}]
    return component


def manifest_of(kind: Kind, tag: str, base: dict[str, Any], held: dict[str, Any], bill: str) -> dict[str, Any]:
    """What was built: digests, sizes, how it starts, and how much of what is in it."""
    said = inspect(tag)
    layers = said["RootFS"]["Layers"]
    below = base["RootFS"]["Layers"]
    return {
        "name": kind.name, "image": tag, "id": said["Id"], "created": said["Config"]["Labels"]["org.opencontainers.image.created"],
        "architecture": said["Architecture"], "labels": said["Config"]["Labels"], "description": kind.description,
        "bytes": said["Size"], "bytes_beyond_base": said["Size"] - base["Size"], "layers": layers,
        "layers_of_base": len(below) if layers[:len(below)] == below else 0,
        "user": said["Config"]["User"], "entrypoint": said["Config"]["Entrypoint"], "command": said["Config"]["Cmd"] or [],
        "python": held["python"], "system": held["system"]["title"],
        "packages": {what: sum(package["kind"] == what for package in held["packages"]) for what in ("deb", "pypi", "npm")},
        "sbom": f"{kind.name}.cdx.json", "sbom_sha256": bill, "holds_solutions": kind.sources,
    }
