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


@contextmanager
def running() -> Iterator[tuple[str, str]]:
    """Yields the address, as classes.yml takes it, and the password. Its folder is not the test's, which only root can enter."""
    with tempfile.TemporaryDirectory(prefix="tinytorch-postgres-") as folder:
        yield from _running(Path(folder))


def _running(folder: Path) -> Iterator[tuple[str, str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    password = f"a:b\\c {secrets.token_hex(8)}"              # what is special in libpq's password file
    file, data = folder / "password", folder / "data"
    file.write_text(password)
    data.mkdir(mode=0o700)
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:                                    # it refuses to run as root
        for path in (folder, file, data):
            shutil.chown(path, user, user)

    def run(program: str, *words: str) -> None:
        become = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
        done = subprocess.run([*become, str((programs() or Path()) / program), *words], capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    run("initdb", "-D", str(data), "-U", "tinytorch", "--auth=scram-sha-256", f"--pwfile={file}", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
    run("pg_ctl", "-D", str(data), "-w", "-o", options, "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql://tinytorch@127.0.0.1:{port}/postgres", password
    finally:
        run("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
