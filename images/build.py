"""Build the images and say what is in them: what `make images` runs. Needs Python 3.11, git is asked where there is one.

    python3 -m images.build [NAME …] [--base-image IMAGE] [--extra-ca FOLDER] [--version V] [--tag T] [--fresh]

A build sees the files that git knows and nothing else of the folder: no state, no roster, no password can get into a layer.
Proxies, package indexes and the certificates that this machine trusts travel as secrets of the build and stay out of the images.
"""

import argparse
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from hub import environments
from hub import version as versions
from images import engine, listing
from images.catalogue import KINDS, OWN_BASE, Kind

REPO = versions.REPO
OUT = Path(os.environ.get("TINYTORCH_BUILD", REPO / "build")).resolve() / "images"
DOCKERFILE = "images/Dockerfile"
# Where packages come from, if not from the public indexes; an address may hold a password.
SETTINGS = ("UV_INDEX_URL", "UV_DEFAULT_INDEX", "PIP_INDEX_URL", "npm_config_registry",
            "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
STEP = re.compile(r"^#\d+ \[(?P<stage>\S+) +(?P<number>\d+/\d+)\] (?P<what>\S+ ?.{0,40})")


def main(arguments: list[str]) -> None:
    try:
        options = parse(arguments)
        kinds = [kind for kind in KINDS if not options.names or kind.name in options.names]
        build(kinds, options)
    except engine.EngineError as error:
        sys.exit(f"images: {error}")
    except KeyboardInterrupt:
        sys.exit("\nimages: stopped; run the same command again to go on, what is built is kept")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="images.build", description="Build the images of this checkout.")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(kind.name for kind in KINDS)],
                        help=f"which: {', '.join(kind.name for kind in KINDS)}; all without a name")
    parser.add_argument("--base-image", default=os.environ.get("BASE_IMAGE", ""),
                        help=f"what they stand on: a Debian 12. Without it {OWN_BASE} if there is one (make base-image), "
                             "else the pinned official one")
    parser.add_argument("--extra-ca", type=Path, default=os.environ.get("EXTRA_CA") or None, metavar="FOLDER",
                        help="authorities (*.crt, PEM) that all images shall trust")
    parser.add_argument("--version", default=versions.version(), help="their tag; without it what `python3 -m hub.version` prints")
    parser.add_argument("--fresh", action="store_true", default=bool(os.environ.get("FRESH")),
                        help="with what the distribution has mended until today")
    parser.add_argument("--tag", action="append", default=[], help="one more tag, such as dev")
    return parser.parse_args(arguments)


def build(kinds: list[Kind], options: argparse.Namespace) -> None:
    """Build them one after the other: they share their stages, and a machine of two cores has enough to do with one."""
    start = time.monotonic()
    base = base_image(options.base_image)
    created = commit_time()
    OUT.mkdir(parents=True, exist_ok=True)
    print(f"  version {options.version}, on {base}", flush=True)
    files = context(options.extra_ca)
    with secrets() as passed:
        for kind in kinds:
            one(kind, base, options, created, files, passed)
    under = listing.inspect(base)
    for kind in kinds:
        listing.write(kind, kind.tag(options.version), under, created, OUT)
    print(f"  {len(kinds)} images in {time.monotonic() - start:.0f} s; contents and digests: {os.path.relpath(OUT)}", flush=True)


def base_image(asked: str) -> str:
    """The image to stand on, present in the engine afterwards."""
    if asked or engine.exists(OWN_BASE):
        name = asked or OWN_BASE
    else:
        name = re.findall(r"^ARG BASE_IMAGE=(\S+)", (REPO / DOCKERFILE).read_text(encoding="utf-8"), re.MULTILINE)[0]
    if not engine.exists(name):
        try:
            engine.docker("pull", "--quiet", name)
        except engine.EngineError as error:
            raise engine.EngineError(f"{error}\nIs no registry reached from here? `make base-image` makes a base from Debian's "
                                     "packages; or name one that this engine holds: make images BASE_IMAGE=…") from None
    return name


def one(kind: Kind, base: str, options: argparse.Namespace, created: str, files: bytes, passed: list[str]) -> None:
    """Build one image; its log goes to build/images/<name>.log."""
    tags = [kind.tag(word) for word in (options.version, *options.tag)]
    labels = {
        "title": kind.title, "description": kind.description, "version": options.version, "revision": revision(),
        "created": created, "licenses": "MIT", "base.name": base,
    }
    command = [engine.client(), "build", "--progress", "plain", "--file", DOCKERFILE, "--target", kind.name, *passed,
               "--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"VERSION={options.version}",
               *(word for name, value in labels.items() for word in ("--label", f"org.opencontainers.image.{name}={value}")),
               *(word for tag in tags for word in ("--tag", tag)), *fresh(options.fresh), "-"]
    log, began = OUT / f"{kind.name}.log", time.monotonic()
    with tempfile.TemporaryFile() as sent, log.open("w", encoding="utf-8", buffering=1) as kept:
        sent.write(files)
        sent.seek(0)
        with subprocess.Popen(command, stdin=sent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                              env={**os.environ, "DOCKER_BUILDKIT": "1"}) as running:
            assert running.stdout is not None
            for line in running.stdout:
                kept.write(line)
                if (step := STEP.match(line)) and sys.stdout.isatty():
                    print(f"\r\x1b[K  {kind.name:<11} {step['stage']} {step['number']}: {step['what'].strip()}", end="", flush=True)
    if running.returncode:
        raise engine.EngineError(f"{kind.name} could not be built:\n{explained(log)}")
    size = listing.inspect(tags[0])["Size"]
    clear = "\r\x1b[K" if sys.stdout.isatty() else ""
    print(f"{clear}  {kind.name:<11} {size / 1e6:>5.0f} MB  {time.monotonic() - began:>4.0f} s", flush=True)


def fresh(now: bool) -> list[str]:
    """Which day's packages of the distribution are wanted: an engine keeps what it once installed until this changes."""
    noted = OUT / "fresh"
    if now:
        noted.write_text(datetime.now(UTC).date().isoformat(), encoding="utf-8")
    return ["--build-arg", f"FRESH={noted.read_text(encoding='utf-8')}"] if noted.exists() else []


def explained(log: Path) -> str:
    """The end of a build's log that says something, and what it means where that is known."""
    lines = [re.sub(r"^#\d+ ([\d.]+ )?", "", line) for line in log.read_text(encoding="utf-8").splitlines()]
    noise = ("executor failed", "------", "sha256:", " > ", "ERROR: executor")
    said = [line for line in lines if line.strip() and not line.startswith(noise)]
    meaning = environments.explain("\n".join(said[-40:]), "requirements/")
    return "\n".join([*(f"    {line}" for line in said[-12:]), *([meaning] if meaning else []), f"The whole log: {os.path.relpath(log)}"])


def context(extra_ca: Path | None) -> bytes:
    """What a build sees, as a tar: the rooms' files, and the authorities below images/extra-ca."""
    names = {name: REPO / name for name in versions.files()}
    if extra_ca:
        found = sorted(Path(extra_ca).glob("*.crt"))
        if not found:
            raise engine.EngineError(f"{extra_ca} holds no file that ends with .crt: name a folder with certificates (PEM) of authorities")
        names |= {f"images/extra-ca/{file.name}": file for file in found}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, file in sorted(names.items()):
            member = tarfile.TarInfo(name)
            member.size, member.mode = file.stat().st_size, 0o755 if file.stat().st_mode & 0o100 else 0o644
            with file.open("rb") as data:
                tar.addfile(member, data)
    return buffer.getvalue()


@contextmanager
def secrets() -> Iterator[list[str]]:
    """Options of `docker build` that hand over certificates and settings for its duration; only their owner can read the files."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "packages")
        lines = [f"{name}={shlex.quote(os.environ[name])}\n" for name in SETTINGS if os.environ.get(name)]
        settings.write_text("".join(lines), encoding="utf-8")
        settings.chmod(0o600)
        passed = ["--secret", f"id=packages,src={settings}"]
        bundle = os.environ.get("SSL_CERT_FILE") or next((file for file in environments.CERTIFICATES if Path(file).exists()), "")
        yield [*passed, *(["--secret", f"id=ca,src={bundle}"] if bundle else [])]


def revision() -> str:
    """The commit, where there is git."""
    try:
        return versions.git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def commit_time() -> str:
    """When this version was made: the time of its commit, so that building it again says the same."""
    try:
        seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or versions.git("log", "-1", "--format=%ct"))
    except (OSError, ValueError, subprocess.CalledProcessError):
        seconds = 1577836800                                   # 2020-01-01, as the files in the images
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def manifests() -> dict[str, dict]:
    """What the last builds said of their images, by name; empty before the first."""
    return {kind.name: json.loads(file.read_text(encoding="utf-8")) for kind in KINDS if (file := OUT / f"{kind.name}.json").exists()}


if __name__ == "__main__":
    main(sys.argv[1:])
