"""A PostgreSQL server of a test's own on loopback, with a password; ended with the test."""

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def programs() -> Path | None:
    """The folder of initdb and pg_ctl; distributions keep it off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[4]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def asked(address: str, password: str, statement: str) -> list[tuple]:
    import psycopg
    with psycopg.connect(address, password=password, autocommit=True) as connection:
        done = connection.execute(statement)
        return done.fetchall() if done.description else []


class Server:
    """One server with its data in a folder; stopped and started as a test likes."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.password = f"a:b\\c {secrets.token_hex(8)}"         # what is special in libpq's password file
        self.address = f"postgresql://tinytorch@127.0.0.1:{port}/postgres"      # as classes.yml takes it
        self.folder, self.data = folder, folder / "data"
        self.options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
        file = folder / "password"
        file.write_text(self.password)
        self.data.mkdir(mode=0o700)
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        if os.geteuid() == 0:                                    # it refuses to run as root
            for path in (folder, file, self.data):
                shutil.chown(path, self.user, self.user)
        self.run("initdb", "-D", str(self.data), "-U", "tinytorch", "--auth=scram-sha-256", f"--pwfile={file}", "--no-sync",
                 "--encoding=UTF8", "--locale=C")
        self.passfile = folder / "pgpass"
        self.passfile.write_text("*:*:*:*:" + self.password.replace("\\", "\\\\").replace(":", "\\:") + "\n")
        self.passfile.chmod(0o600)

    @property
    def complete(self) -> str:
        """The address with the file of its password, as hub/database.py makes it for the autograder."""
        return f"{self.address}?passfile={self.passfile}"

    def sql(self, statement: str) -> list[tuple]:
        return asked(self.address, self.password, statement)

    def run(self, program: str, *words: str) -> None:
        become = ["runuser", "-u", self.user, "--"] if os.geteuid() == 0 else []
        done = subprocess.run([*become, str((programs() or Path()) / program), *words], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-o", self.options, "-l", str(self.folder / "log"), "start")

    def stop(self, how: str = "immediate") -> None:
        self.run("pg_ctl", "-D", str(self.data), "-m", how, "stop")


@contextmanager
def server() -> Iterator[Server]:
    """A running one. Its folder is not the test's, which only root can enter."""
    with tempfile.TemporaryDirectory(prefix="tinytorch-postgres-") as folder:
        made = Server(Path(folder))
        made.start()
        try:
            yield made
        finally:
            if (made.data / "postmaster.pid").exists():
                made.stop()


@contextmanager
def running() -> Iterator[tuple[str, str]]:
    """Yields the address, as classes.yml takes it, and the password."""
    with server() as made:
        yield made.address, made.password
