"""Which version of the product this is: `python3 -m hub.version` prints it. Images carry it as their tag.

    0.1.0-412.g78c4f4316b            the 412th commit, everything committed
    0.1.0-412.g78c4f4316b.d1e57a02c  the same with changes that nobody committed: the last word is a digest of them
    0.1.0-tree.5c0f6b9a1d            no git here: a digest of the files

The same files always print the same version, and other files another one: an upgrade that changes nothing restarts nothing,
one that changes something cannot be missed. Standard library only, like `hub.environments`.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
# What goes into images; changes elsewhere (texts, tests) make no new version of a tree without git.
ROOMS = ("autograder", "bin", "course", "hub", "images", "requirements", "tinytorch")


def version() -> str:
    """The version: of an image from its environment, of a checkout from git, of an exported tree from its files."""
    if baked := os.environ.get("TINYTORCH_VERSION"):
        return baked
    number = release()
    try:
        count, commit = git("rev-list", "--count", "HEAD"), git("rev-parse", "--short=10", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return f"{number}-tree.{of_files(files())}"
    changes = git("status", "--porcelain", "--untracked-files=all", "--", *ROOMS)
    changed = f".d{of_files(files())[:8]}" if changes else ""
    return f"{number}-{count}.g{commit}{changed}"


def release() -> str:
    """The number that people know, from pyproject.toml."""
    found = re.search(r'^version = "([^"]+)"', (REPO / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if not found:
        raise SystemExit(f"version: {REPO / 'pyproject.toml'} has no line version = \"…\"")
    return found[1]


def git(*words: str) -> str:
    """What git says about this checkout; CalledProcessError where this is none (a folder inside of another's is none)."""
    if not (REPO / ".git").exists():
        raise subprocess.CalledProcessError(1, "git")
    return subprocess.run(["git", "-C", str(REPO), *words], capture_output=True, text=True, check=True).stdout.strip()


def files() -> list[str]:
    """The files of the rooms: those that git knows or would add; without git, all but what is made from others."""
    try:
        listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *ROOMS).split("\0")
        return sorted({name for name in listed if name and (REPO / name).is_file()})
    except (OSError, subprocess.CalledProcessError):
        return sorted(path.relative_to(REPO).as_posix() for room in ROOMS for path in (REPO / room).rglob("*")
                      if path.is_file() and not {"__pycache__", "node_modules", ".ipynb_checkpoints"} & set(path.parts))


def of_files(names: list[str]) -> str:
    """A digest of names, contents and whether they can be executed, in ten characters."""
    digest = hashlib.sha256()
    for name in names:
        data = (REPO / name).read_bytes()
        digest.update(f"{name}\0{len(data)}\0{bool((REPO / name).stat().st_mode & 0o100)}\0".encode() + data)
    return digest.hexdigest()[:10]


if __name__ == "__main__":
    sys.stdout.write(version() + "\n")
