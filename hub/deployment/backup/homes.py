"""Students' homes: the volumes of the engine that hold them, and the containers that use them."""

import json
import subprocess
from typing import Any

from .settings import Problem, Settings


def docker(settings: Settings, *words: str) -> str:
    done = subprocess.run([settings.docker, *words], capture_output=True, text=True)
    if done.returncode:
        raise Problem(f"docker {' '.join(words[:2])} failed: {done.stderr.strip()}")
    return done.stdout


def homes(settings: Settings) -> dict[str, dict[str, Any]]:
    """The volumes with students' homes: name -> folder on the host and labels."""
    names = [name for name in docker(settings, "volume", "ls", "--quiet").split() if name.startswith(settings.volumes)]
    if not names:
        return {}
    found = json.loads(docker(settings, "volume", "inspect", *names))
    return {volume["Name"]: {"folder": volume["Mountpoint"], "labels": volume["Labels"] or {}} for volume in found}


def containers(settings: Settings) -> list[str]:
    """Containers that use a home, running or not."""
    words = [word for name in homes(settings) for word in ("--filter", f"volume={name}")]
    return docker(settings, "ps", "--all", "--quiet", *words).split() if words else []
