"""What a backup must know of this host, and the error that says why something cannot be done."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

SETTINGS = Path(os.environ.get("TINYTORCH_BACKUP_SETTINGS", "/etc/tinytorch/backup.json"))
LEFT_OUT = ("run", "logs", "metrics")      # of the state: sockets and process ids, what journals keep, what is true of this host only
PASSWORD = "secrets/database_password"     # in the state


class Problem(Exception):
    """Why that cannot be done, and how to mend it."""


@dataclass
class Settings:
    """What `make deploy` wrote; docker is the command of the client, postgresql the address of a database server if there is one."""

    state: Path
    folder: Path                           # where backups are kept
    site: Path                             # classes.yml and rosters as deployed
    version: str
    keep: int = 14                         # newest backups that stay
    age: list[str] = field(default_factory=list)
    gpg: list[str] = field(default_factory=list)
    volumes: str = "tinytorch-home-"       # the names of homes begin with this
    docker: str = "docker"
    postgresql: str = ""

    @classmethod
    def load(cls, file: Path = SETTINGS) -> "Settings":
        try:
            given = json.loads(file.read_text())
        except FileNotFoundError:
            raise Problem(f"there is no {file}: this host has not been set up by `make deploy`") from None
        return cls(**{**given, **{key: Path(given[key]) for key in ("state", "folder", "site")}})
