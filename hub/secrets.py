"""The site's secrets: generated once, kept on every upgrade, readable by their owner only, never in argv or a log."""

import errno
import fcntl
import json
import os
import secrets as random_source
from dataclasses import dataclass
from pathlib import Path

from hub import paths

OIDC_CLIENT_SECRET = "oidc_client_secret"      # what somebody else made and puts here: files of the secrets folder
DATABASE_PASSWORD = "database_password"


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
                    write(self.folder / "tokens.json", json.dumps(self.tokens, indent=1).encode())
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
            write(file, random_source.token_hex(32).encode())
        return file

    def given(self, name: str) -> str:
        """A secret that somebody else made: the file of that name here, else TINYTORCH_<NAME> in the environment, else nothing."""
        file = self.folder / name
        if not file.exists():
            return os.environ.get(f"TINYTORCH_{name.upper()}", "").strip()
        if file.stat().st_mode & 0o077:
            raise PermissionError(errno.EPERM, "others can read this secret: chmod 600 it", str(file))
        return file.read_text().strip()

    def must_be_given(self, name: str) -> str:
        """The same; FileNotFoundError where there is none."""
        if not (value := self.given(name)):
            raise FileNotFoundError(errno.ENOENT, "this secret is needed: put it there, with mode 600", str(self.folder / name))
        return value

    def write(self, name: str, content: str) -> Path:
        """Keep something for another program in a file of mode 0600."""
        write(self.folder / name, content.encode())
        return self.folder / name

    @property
    def signins_file(self) -> Path:
        """First passwords in clear, for the one who hands them out: username,password,role,classes."""
        return self.folder / "signins.csv"


def load() -> Secrets:
    """The secrets of this site; the folder is made with mode 0700."""
    paths.SECRETS.mkdir(parents=True, exist_ok=True)
    if paths.SECRETS.stat().st_mode & 0o777 != 0o700:      # in most containers it is mounted read-only, as it should be
        paths.SECRETS.chmod(0o700)
    return Secrets(paths.SECRETS, _read(paths.SECRETS))


def _read(folder: Path) -> dict[str, str]:
    store = folder / "tokens.json"
    return json.loads(store.read_text()) if store.exists() else {}


def write(file: Path, content: bytes) -> None:
    """Write through a new file of mode 0600, so that a crash leaves the old secrets, never half of the new ones."""
    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
