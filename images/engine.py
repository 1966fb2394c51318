"""The Docker engine of this machine: which client can build with BuildKit, and what it says."""

import functools
import os
import shutil
import subprocess
from pathlib import Path


class EngineError(Exception):
    """Docker cannot do that; the message says why and what to do."""


@functools.cache
def client() -> str:
    """A docker client that can build with BuildKit. EngineError with the fix where there is none, or no engine answers.

    $DOCKER names one; else the first on the PATH that has BuildKit: one of version 23 or newer without its plugin has not.
    """
    named = os.environ.get("DOCKER")
    on_path = [shutil.which("docker", path=folder) for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)]
    candidates = [named] if named else [*dict.fromkeys(path for path in on_path if path)]
    if not candidates:
        raise EngineError("there is no docker here. Debian and Ubuntu: apt-get install docker.io")
    for candidate in candidates:
        if can_build(candidate):
            break
    else:
        raise EngineError(f"{', '.join(candidates)} cannot build with BuildKit. Install its plugin (apt-get install docker-buildx), "
                          "or name another client: make images DOCKER=/usr/bin/docker")
    said = subprocess.run([candidate, "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True)
    if said.returncode:
        raise EngineError(f"no Docker engine answers: {(said.stderr or said.stdout).strip().splitlines()[-1]}\n"
                          "Start it (systemctl start docker), or become a member of the group docker.")
    return candidate


def can_build(docker: str) -> bool:
    """Clients up to version 20.10 have BuildKit in them, newer ones as a plugin."""
    try:
        said = subprocess.run([docker, "--version"], capture_output=True, text=True, check=True).stdout
        major = int(said.split("version ")[1].split(".")[0])
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return False
    return major < 23 or subprocess.run([docker, "buildx", "version"], capture_output=True).returncode == 0


def docker(*words: str | Path, **options) -> str:
    """Run it and return what it said. EngineError when it fails."""
    done = subprocess.run([client(), *map(str, words)], capture_output=True, text=True, **options)
    if done.returncode:
        raise EngineError(f"docker {' '.join(map(str, words[:2]))} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def exists(image: str) -> bool:
    """Whether the engine holds that image."""
    return subprocess.run([client(), "image", "inspect", image], capture_output=True).returncode == 0
