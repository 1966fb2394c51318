"""A backup is put in the place of a site's data: all is checked first, and what was there stays until all is written."""

import os
import shutil
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from .archive import CHUNK, DUMP
from .folder import only_one, write_private
from .homes import containers, docker, homes
from .postgresql import check, put_back, tables_on_server
from .settings import PASSWORD, Problem, Settings
from .verify import opened, verify


def restore(settings: Settings, file: Path, replace: bool) -> dict[str, Any]:
    """Put a backup in the place of this site's data; the services must be stopped. Nothing is touched before all of it is checked."""
    with only_one(settings.folder), tempfile.TemporaryDirectory(dir=settings.folder, prefix=".restore-") as scratch:
        manifest = verify(file, keep=Path(scratch))
        volumes = homes(settings)
        dump = Path(scratch) / DUMP
        refuse_another_kind(settings, dump.exists())
        password = ""
        if dump.exists():
            # the server's of today if this host knows it: it may have been changed since
            known = next((each for each in (settings.state / PASSWORD, Path(scratch) / Path(PASSWORD).name) if each.exists()), None)
            password = known.read_text().strip() if known else ""
            check(settings, password)
        tables = tables_on_server(settings, password) if dump.exists() else 0
        if (has_data(settings.state) or volumes or tables) and not replace:
            there = f"{settings.state}, {len(volumes)} homes{f', {tables} tables of {settings.postgresql}' if tables else ''}"
            raise Problem(f"this host has data ({there}), which a restore would replace. "
                          "Nothing was changed. To go on all the same: make restore FROM=... REPLACE=1, which first makes a backup of it")
        refuse_too_little_room(settings, manifest)
        if dump.exists():
            put_back(settings, dump, password)
        if users := containers(settings):
            docker(settings, "rm", "--force", *users)
        old = settings.state.with_name(f"{settings.state.name}.replaced-{time.time_ns()}")
        if settings.state.exists():
            settings.state.rename(old)
        try:
            fill(settings, file, manifest, list(volumes))
            if password:
                write_private(settings.state / PASSWORD, f"{password}\n")
        except (OSError, Problem) as error:
            why = f"{error.strerror} ({error.filename or settings.state})" if isinstance(error, OSError) else str(error)
            raise Problem(f"the restore broke off, the site is incomplete: {why}. Mend that, then restore {file.name} again with "
                          f"REPLACE=1. What was there before is in {old}, its homes in the backup made just before") from None
        shutil.rmtree(old, ignore_errors=True)
    return manifest


def fill(settings: Settings, file: Path, manifest: dict[str, Any], volumes: list[str]) -> None:
    """Write all of a backup: the state into a new folder, the homes into new volumes in the place of `volumes`."""
    if volumes:
        docker(settings, "volume", "rm", *volumes)
    roots = {"state": settings.state}
    settings.state.mkdir(parents=True)
    for name, labels in manifest["volumes"].items():
        docker(settings, "volume", "create", *(word for item in labels.items() for word in ("--label", "=".join(item))), name)
    for name, volume in homes(settings).items():
        roots[f"homes/{name}"] = Path(volume["folder"])
    with opened(file) as tar:
        unpack(tar, roots)


def unpack(tar: tarfile.TarFile, roots: dict[str, Path]) -> None:
    """Write the members below their roots, with owner and mode; folders get theirs at the end, since they may be read-only."""
    folders: list[tuple[Path, tarfile.TarInfo]] = []
    for member in tar:
        root = next((root for root in roots if member.name == root or member.name.startswith(f"{root}/")), None)
        if root is None:
            continue
        target = roots[root] / member.name[len(root) + 1:]
        target.parent.mkdir(parents=True, exist_ok=True)         # databases come before the folders that they are in
        if member.isdir():
            target.mkdir(exist_ok=True)
            folders.append((target, member))
            continue
        if member.issym():
            target.symlink_to(member.linkname)
            os.lchown(target, member.uid, member.gid)
            continue
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as stream:
            shutil.copyfileobj(tar.extractfile(member), stream, CHUNK)              # type: ignore[arg-type]
            os.fchown(stream.fileno(), member.uid, member.gid)
            os.fchmod(stream.fileno(), member.mode)
            os.utime(stream.fileno(), (member.mtime, member.mtime))
    for target, member in reversed(folders):
        os.chown(target, member.uid, member.gid)
        target.chmod(member.mode)


def refuse_too_little_room(settings: Settings, manifest: dict[str, Any]) -> None:
    """What is replaced stays until all is written, so there must be room for all of the backup beside it."""
    engine = docker(settings, "info", "--format", "{{.DockerRootDir}}").strip()
    needed: dict[int, tuple[Path, int]] = {}
    for name, part in manifest["parts"].items():
        place = Path(engine) if name.startswith("homes/") and engine else settings.state.parent
        disk = os.stat(place).st_dev
        needed[disk] = (place, needed.get(disk, (place, 0))[1] + part["bytes"] + 4096 * part["members"])
    for place, size in needed.values():
        if (free := shutil.disk_usage(place).free) < size:
            raise Problem(f"this backup takes {size / 2**20:.0f} MB on the disk of {place}, where {free / 2**20:.0f} MB are free. Nothing "
                          "was changed. Make room; where only the site itself is in the way: make destroy (backups stay), then restore")


def refuse_another_kind(settings: Settings, dumped: bool) -> None:
    """Accounts and jobs go back to where they were: a backup that holds them in another kind of database would leave them behind."""
    if dumped and not settings.postgresql:
        raise Problem("accounts and jobs of this backup were on a PostgreSQL server, and site.database in classes.yml is sqlite. Nothing "
                      "was changed. Name a server there and let `make restore` read it again")
    if settings.postgresql and not dumped:
        raise Problem(f"accounts and jobs of this backup were in SQLite files, and site.database in classes.yml is {settings.postgresql}. "
                      "Nothing was changed. Write `database: sqlite` there and let `make restore` read it again; then switch")


def has_data(state: Path) -> bool:
    """Whether there is a site: the folders that a deployment makes before it starts anything are none."""
    return any(state.glob("hub/*.sqlite")) or any(state.glob("exchange/*.db")) or any(state.glob("classes/*/gradebook.db"))
