"""The site's secrets: generated once, kept on every upgrade, readable by their owner only, never in argv or a log."""

import fcntl
import json
import os
import secrets as random_source
from dataclasses import dataclass
from pathlib import Path

from hub import paths


@dataclass
class Secrets:
    folder: Path
    tokens: dict[str, str]

    def token(self, name: str) -> str:
        """The token of that name, made at first use: once, though all processes of a site start at the same moment."""
        if name not in self.tokens:
            with open(os.open(self.folder / "tokens.lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self.tokens = _read(self.folder)
                if name not in self.tokens:
                    self.tokens[name] = random_source.token_hex(32)
                    _write(self.folder / "tokens.json", json.dumps(self.tokens, indent=1).encode())
        return self.tokens[name]

    def service_token(self, service: str) -> str:
        """What a service of the hub (ngshare, or a class's formgrader) shows to the hub."""
        return self.token(f"service:{service}")

    @property
    def proxy_token(self) -> str:
        return self.token("proxy")

    @property
    def autograder_token(self) -> str:
        return self.token("autograder")

    @property
    def cookie_secret_file(self) -> Path:
        """JupyterHub's cookie secret: 32 bytes in hexadecimal."""
        file = self.folder / "cookie_secret"
        if not file.exists():
            _write(file, random_source.token_hex(32).encode())
        return file

    @property
    def signins_file(self) -> Path:
        """First passwords in clear, for the one who hands them out: username,password,role,classes."""
        return self.folder / "signins.csv"


def load() -> Secrets:
    """The secrets of this site; the folder is made with mode 0700."""
    paths.SECRETS.mkdir(parents=True, exist_ok=True)
    paths.SECRETS.chmod(0o700)
    return Secrets(paths.SECRETS, _read(paths.SECRETS))


def _read(folder: Path) -> dict[str, str]:
    store = folder / "tokens.json"
    return json.loads(store.read_text()) if store.exists() else {}


def _write(file: Path, content: bytes) -> None:
    """Write through a new file of mode 0600, so that a crash leaves the old secrets, never half of the new ones."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
