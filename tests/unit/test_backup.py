"""Backups: a copy of a live site is consistent, damage is found, a restore gives the same files, and no link leads out of a home."""

import gzip
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from autograder.jobs import Result, Verdict
from autograder.service.store import Store
from hub import paths
from hub.deployment.backup.archive import Writer
from hub.deployment.backup.create import create
from hub.deployment.backup.folder import backups
from hub.deployment.backup.forms import same, schemas
from hub.deployment.backup.postgresql import check
from hub.deployment.backup.restore import restore, unpack
from hub.deployment.backup.settings import LEFT_OUT, Problem, Settings
from hub.deployment.backup.verify import verify
from tests.need import need
from tests.unit.test_autograder_store import put, served

DOCKER_WITHOUT_VOLUMES = "true"          # a client that says nothing: no homes; tests/deploy has a real one


@pytest.fixture
def site(tmp_path):
    """The state of a small site, with a database, a secret, an odd file and what no backup needs."""
    state, config = tmp_path / "state", tmp_path / "etc"
    for folder in ("hub", "secrets", "exchange/files", "run", "logs", "classes/ml101"):
        (state / folder).mkdir(parents=True)
    config.mkdir()
    (config / "classes.yml").write_text("classes: []\n")
    with closing(sqlite3.connect(state / "hub" / "jupyterhub.sqlite")) as hub:
        hub.execute("PRAGMA journal_mode=wal")
        hub.execute("CREATE TABLE alembic_version (version_num TEXT)")
        hub.execute("INSERT INTO alembic_version VALUES ('4621fec11365')")
        hub.execute("CREATE TABLE pairs (a INTEGER, b INTEGER)")
        hub.commit()
    (state / "secrets" / "tokens.json").write_text('{"proxy": "0123"}')
    (state / "secrets" / "tokens.json").chmod(0o600)
    (state / "exchange" / "files" / "with space é.ipynb").write_bytes(os.urandom(100_000))
    (state / "exchange" / "files" / "link").symlink_to("with space é.ipynb")
    (state / "exchange" / "files" / "locked").mkdir(mode=0o500)
    (state / "run" / "hub.pid").write_text("1")
    return Settings(state=state, folder=tmp_path / "backups", site=config, version="1", keep=3, docker=DOCKER_WITHOUT_VOLUMES)


def tree(root: Path) -> dict:
    """Every path below a folder with kind, mode, owner and content; databases by what they hold."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.name.endswith(("-wal", "-shm")):
            continue
        status = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(path)) as opened:
                content = list(opened.iterdump())
        found[str(path.relative_to(root))] = (stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode), status.st_uid, content)
    return found


def test_a_restore_gives_the_same_files_owners_and_rows(site):
    file = create(site, "test")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kept = {name: what for name, what in tree(site.state).items() if name.split("/")[0] not in LEFT_OUT}
    subprocess.run(["rm", "-rf", str(site.state)], check=True)
    manifest = restore(site, file, replace=False)
    assert manifest["databases"]["state/hub/jupyterhub.sqlite"]["schema"] == "4621fec11365"
    assert tree(site.state) == kept


def test_a_database_that_is_written_to_meanwhile_is_copied_whole(site):
    """The writer keeps a = b in every transaction; a copy of the files would show a difference sooner or later."""
    stop, written = threading.Event(), []

    def write():
        with closing(sqlite3.connect(site.state / "hub" / "jupyterhub.sqlite", timeout=60)) as live:
            while not stop.is_set():
                live.execute("INSERT INTO pairs SELECT abs(random()) % 1000, 0")
                live.execute("UPDATE pairs SET b = a")
                live.commit()
                written.append(1)
                time.sleep(0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        while not written:
            time.sleep(0.01)
        files = [create(site, f"number {n}") for n in range(2) if time.sleep(1) is None]
    finally:
        stop.set()
        writer.join()
    for file in files:
        with tarfile.open(file) as tar:
            data = tar.extractfile("state/hub/jupyterhub.sqlite").read()
        with closing(sqlite3.connect(":memory:")) as copy:
            copy.deserialize(data)
            rows, wrong = copy.execute("SELECT count(*), sum(a <> b) FROM pairs").fetchone()
        assert rows > 0
        assert wrong == 0


def content(packed):
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error):
        return None


def test_damage_anywhere_is_found(site):
    file = create(site, "test")
    good = file.read_bytes()
    for place in range(0, len(good), max(1, len(good) // 40)):
        damaged = good[:place] + bytes([good[place] ^ 0x10]) + good[place + 1:]
        file.write_bytes(damaged)
        if content(damaged) == content(good):            # gzip's own date, or bits that fill a byte behind a block: nothing is damaged
            continue
        with pytest.raises(Problem):
            verify(file)
    file.write_bytes(good[:len(good) // 2])
    with pytest.raises(Problem):
        verify(file)
    file.write_bytes(good)
    verify(file)


def test_data_is_never_replaced_silently(site):
    file = create(site, "test")
    before = tree(site.state)
    with pytest.raises(Problem, match="REPLACE=1"):
        restore(site, file, replace=False)
    assert tree(site.state) == before
    (site.state / "exchange" / "files" / "new").write_text("since then")
    restore(site, file, replace=True)
    assert not (site.state / "exchange" / "files" / "new").exists()


def test_a_damaged_backup_changes_nothing(site):
    file = create(site, "test")
    file.write_bytes(file.read_bytes()[:-200])
    before = tree(site.state)
    with pytest.raises(Problem):
        restore(site, file, replace=True)
    assert tree(site.state) == before


def test_no_link_leads_out_of_a_home_however_quickly_it_is_made(tmp_path):
    """A student exchanges a folder for a link to the host's secrets, again and again, while root walks through."""
    secret, home = tmp_path / "host", tmp_path / "home"
    (home / "a").mkdir(parents=True)
    secret.mkdir()
    (secret / "shadow").write_text("the host's own")
    (home / "a" / "shadow").write_text("mine")
    (home / "direct").symlink_to(secret / "shadow")
    os.mkfifo(home / "waits for ever")
    stop = threading.Event()

    def exchange():
        while not stop.is_set():
            for make in (lambda: (home / "b").symlink_to(secret), lambda: os.rename(home / "a", home / "b")):
                make()
                os.rename(home / "b", home / "a" if (home / "b").is_dir() and not (home / "b").is_symlink() else home / "c")
                (home / "c").unlink(missing_ok=True)

    attacker = threading.Thread(target=exchange, daemon=True)
    attacker.start()
    try:
        for number in range(150):
            file = tmp_path / f"{number}.tar"
            with tarfile.open(file, "w") as tar:
                Writer(tar, []).tree(home, "homes/x")
            assert b"the host's own" not in file.read_bytes()
            file.unlink()
    finally:
        stop.set()
        attacker.join(5)


def test_a_file_of_holes_is_named_and_left_out(site):
    with (site.state / "exchange" / "files" / "holes").open("wb") as sparse:
        sparse.truncate(2**40)
    start = time.monotonic()
    file = create(site, "test")
    assert time.monotonic() - start < 30
    [said] = json.loads(file.with_name(f"{file.name}.json").read_text())["left_out"]
    assert "holes" in said


@pytest.mark.parametrize("name", ["../outside", "state/../../outside", "/etc/passwd", "state//x", "state/link/x"])
def test_an_altered_backup_leads_nowhere_else(site, name):
    file = site.folder / "tinytorch-20260101T000000Z.tar.gz"
    site.folder.mkdir()
    with tarfile.open(file, "w:gz") as tar:
        link = tarfile.TarInfo("state/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(Problem, match=r"leads elsewhere|not written"):
        verify(file)


def test_the_oldest_go_and_nothing_else_does(site):
    site.folder.mkdir()
    (site.folder / "notes.txt").write_text("of the admin")
    made = []
    for day in range(1, 6):
        old = site.folder / f"tinytorch-2020010{day}T000000Z.tar.gz"
        old.write_bytes(b"")
        made.append(old)
    newest = create(site, "test")
    assert [file.name for file in backups(site)] == [newest.name, made[4].name, made[3].name]
    assert (site.folder / "notes.txt").exists()


def test_the_form_of_every_database_is_known(site):
    assert schemas(site) == {"hub/jupyterhub.sqlite": "4621fec11365"}


def test_monitoring_hears_of_a_backup_that_succeeded_and_of_no_other(site, monkeypatch):
    told = site.state / "metrics" / "backup.prom"
    create(site, "test")
    assert not told.parent.exists()                  # nothing is monitored here
    told.parent.mkdir()
    site.age, site.docker = ["age1unknown"], shutil.which(site.docker)
    with monkeypatch.context() as nothing_installed:
        nothing_installed.setenv("PATH", "")
        with pytest.raises(Problem, match="age is missing"):
            create(site, "test")
    assert not told.exists()
    site.age, before = [], time.time()
    time.sleep(1)                                    # names of backups are whole seconds
    create(site, "test")
    metric, when = told.read_text().split()
    assert metric == "tinytorch_backup_last_success_timestamp_seconds"
    assert before - 1 <= float(when) <= time.time() + 1
    assert stat.S_IMODE(told.stat().st_mode) == 0o644


# --------------------------------------------------------------------------------------------- on a PostgreSQL server
@pytest.fixture
def served_site(site, postgres_server, jobs_address):
    """The site with its accounts and jobs on a server, where nothing is at first."""
    need("PostgreSQL's clients", shutil.which("pg_dump") and shutil.which("pg_restore"), "apt-get install postgresql-client")
    site.postgresql = postgres_server.address
    (site.state / "secrets" / "database_password").write_text(postgres_server.password + "\n")
    yield site
    postgres_server.sql("DROP TABLE IF EXISTS users, alembic_version CASCADE")


def test_hub_and_jobs_on_a_server_come_back_as_they_were(served_site, postgres_server, jobs_address, tmp_path):
    """One dump holds both: accounts in the hub's schema, jobs with their files and results in theirs."""
    site = served_site
    postgres_server.sql("CREATE TABLE users (name TEXT PRIMARY KEY); INSERT INTO users VALUES ('ann')")
    store = Store(tmp_path / "jobs.sqlite", jobs_address)
    waiting, done = put(store, 1, "ann"), put(store, 2, "bob", "dl")
    store.finish(claim := store.claim("w"), Result(job=claim.job.id, verdict=Verdict.ok, outputs={"x": bytes(range(256))}))
    tables = ("jobs", "files", "turns", "spent", "tally", "durations")
    everything = {table: store.ask(f"SELECT * FROM {table} ORDER BY 1") for table in tables}
    file = create(site, "test")
    put(store, 3, "eve")
    served(store)
    store.db.close()
    # what a newer version has made stands on what the backup holds, and goes
    postgres_server.sql("""DELETE FROM users; CREATE TYPE colour AS ENUM ('red'); CREATE VIEW people AS SELECT * FROM users;
                           CREATE TABLE badges (name TEXT REFERENCES users, colour colour)""")
    restore(site, file, replace=True)
    store = Store(tmp_path / "jobs.sqlite", jobs_address)
    assert {table: store.ask(f"SELECT * FROM {table} ORDER BY 1") for table in everything} == everything
    assert {store.state(waiting), store.state(done)} == {"queued", "done"}
    assert served(store) == [next(id for id in (waiting, done) if id != claim.id)]
    store.db.close()
    assert postgres_server.sql("SELECT name FROM users") == [("ann",)]
    assert postgres_server.sql("SELECT to_regclass('badges'), to_regclass('people'), to_regtype('colour')") == [(None, None, None)]


def test_a_server_with_tables_is_data_and_a_password_that_was_changed_stays(served_site, postgres_server, monkeypatch):
    """The state is gone with its machine, the database is not; the server's password is of today, the backup's is old."""
    site, secret = served_site, served_site.state / "secrets" / "database_password"
    postgres_server.sql("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('ann')")
    file = create(site, "test")
    old = postgres_server.password
    shutil.rmtree(site.state)
    secret.parent.mkdir(parents=True)
    postgres_server.sql("ALTER ROLE tinytorch PASSWORD 'of today'")
    monkeypatch.setattr(postgres_server, "password", "of today")
    try:
        with pytest.raises(Problem, match=r"psql failed: .*password authentication failed"):
            restore(site, file, replace=True)
        secret.write_text("of today")
        with pytest.raises(Problem, match="1 tables of postgresql://"):
            restore(site, file, replace=False)
        assert not (site.state / "hub").exists()
        restore(site, file, replace=True)
        assert secret.read_text().strip() == "of today"
        assert (site.state / "hub" / "jupyterhub.sqlite").exists()
        assert postgres_server.sql("SELECT name FROM users") == [("ann",)]
    finally:
        asked = postgres_server.sql
        asked(f"ALTER ROLE tinytorch PASSWORD '{old}'")


def test_accounts_in_another_kind_of_database_are_not_left_behind(served_site, postgres_server):
    site = served_site
    postgres_server.sql("CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('ann')")
    on_server = create(site, "test")
    address, site.postgresql = site.postgresql, ""
    before = tree(site.state)
    with pytest.raises(Problem, match=r"site\.database in classes.yml is sqlite"):
        restore(site, on_server, replace=True)
    time.sleep(1)                                    # names of backups are whole seconds
    in_files = create(site, "test")
    site.postgresql = address
    with pytest.raises(Problem, match="were in SQLite files"):
        restore(site, in_files, replace=True)
    assert tree(site.state) == before
    assert postgres_server.sql("SELECT name FROM users") == [("ann",)]


def test_the_form_of_a_servers_tables_is_known(served_site, postgres_server, jobs_address, tmp_path):
    site, noted = served_site, tmp_path / "schemas.json"
    assert schemas(site) == {"hub/jupyterhub.sqlite": "4621fec11365"}
    Store(tmp_path / "jobs.sqlite", jobs_address).db.close()
    postgres_server.sql("CREATE TABLE alembic_version (version_num TEXT); INSERT INTO alembic_version VALUES ('4621fec11365')")
    noted.write_text(json.dumps(schemas(site)))
    assert json.loads(noted.read_text())["PostgreSQL (hub)"] == "4621fec11365"
    assert int(json.loads(noted.read_text())["PostgreSQL (jobs)"]) >= 1
    same(site, noted)
    postgres_server.sql("UPDATE autograder.version SET version = version + 1")
    with pytest.raises(Problem, match=r"cannot read PostgreSQL \(jobs\), which a newer one has changed"):
        same(site, noted)


def test_a_server_newer_than_this_hosts_clients_is_named_before_it_matters(served_site, tmp_path, monkeypatch):
    """pg_dump would refuse it every night, and nobody looks."""
    assert "answers: PostgreSQL" in check(served_site)
    old = tmp_path / "bin" / "pg_dump"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.3 (Debian 12.3-1)'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    with pytest.raises(Problem, match=r"pg_dump 12 of this host cannot back up: install postgresql-client-\d+ here"):
        check(served_site)
    served_site.postgresql = served_site.postgresql.replace("tinytorch@", "nobody@")
    with pytest.raises(Problem, match="psql failed"):
        check(served_site)
    (served_site.state / "secrets" / "database_password").unlink()
    with pytest.raises(Problem, match=r"there is no password for .* mode 600"):
        check(served_site)


# --------------------------------------------------------------------------------------------- when the disk is full
@pytest.fixture
def small_disk(tmp_path):
    """A disk of 3 MB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(place)], capture_output=True, text=True)
    need("the right to mount", done.returncode == 0, f"run it as root ({done.stderr.strip()})")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_makes_no_backup_and_leaves_the_ones_that_are_there(site, small_disk):
    site.folder = small_disk / "backups"
    first = create(site, "while there is room")
    (site.state / "exchange" / "files" / "large").write_bytes(os.urandom(4 * 2**20))
    with pytest.raises(Problem, match=r"no backup was made: No space left on device"):
        create(site, "when there is none")
    with closing(sqlite3.connect(site.state / "hub" / "jupyterhub.sqlite")) as hub:
        hub.execute("CREATE TABLE much AS SELECT randomblob(4000000) AS x")
        hub.commit()
    with pytest.raises(Problem, match=r"no backup was made: a database could not be copied \(database or disk is full\)"):
        create(site, "of a database that does not fit")
    assert {file.name for file in site.folder.iterdir()} == {".lock", first.name, f"{first.name}.json"}
    verify(first)


def test_a_backup_that_does_not_fit_replaces_nothing(site, small_disk):
    (site.state / "exchange" / "files" / "large").write_bytes(bytes(4 * 2**20))
    file = create(site, "of a larger machine")
    site.state = small_disk / "state"
    shutil.copytree(site.site, site.state / "hub")
    before = tree(site.state)
    with pytest.raises(Problem, match=r"takes 4 MB on the disk of .*/small, where \d MB are free. Nothing was changed"):
        restore(site, file, replace=True)
    assert tree(site.state) == before


def test_a_restore_that_breaks_off_says_where_the_data_is_and_goes_on(site, small_disk, monkeypatch):
    """Somebody else fills the disk meanwhile."""
    site.state = Path(shutil.copytree(site.state, small_disk / "state", symlinks=True))
    (site.state / "exchange" / "files" / "large").write_bytes(os.urandom(2**20))
    file = create(site, "before")
    before = tree(site.state)
    filler = small_disk / "filler"

    def crowded(tar, roots):
        with suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(2**16))
        unpack(tar, roots)
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("hub.deployment.backup.restore.unpack", crowded)
        with pytest.raises(Problem, match=r"the restore broke off, the site is incomplete: No space left on device") as broken:
            restore(site, file, replace=True)
    [old] = small_disk.glob("state.replaced-*")
    assert str(old) in str(broken.value)
    filler.unlink()
    assert tree(old) == before
    shutil.rmtree(site.state)                                # there is no room for all three, and nothing of worth in it
    restore(site, file, replace=True)
    assert {name for name in before if name.split("/")[0] not in LEFT_OUT} == set(tree(site.state))


def test_a_backup_says_of_which_version_its_data_is(site):
    create(site, "before 2", version="1.5")
    [record] = site.folder.glob("*.json")
    assert json.loads(record.read_text())["version"] == "1.5"
    assert site.version == "1"


def test_a_host_needs_its_command_this_folder_and_python_alone(site, tmp_path):
    """The command as the role writes it, with a Python that finds no packages, from a folder where somebody has put a trap."""
    home, trap, place = tmp_path / "opt", tmp_path / "trap", tmp_path / "bin"
    source, compiled = paths.REPO / "hub" / "deployment" / "backup", shutil.ignore_patterns("__pycache__")
    program = Path(shutil.copytree(source, home / "backup", ignore=compiled))
    files = sorted(program.iterdir())
    trap.mkdir()
    for name in ("json.py", "backup.py"):
        (trap / name).write_text("raise SystemExit('imported from where root happened to be')")
    place.mkdir()
    (place / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    tasks = yaml.safe_load((paths.REPO / "ansible" / "roles" / "backup" / "tasks" / "main.yml").read_text())
    [written] = [task["ansible.builtin.copy"] for task in tasks if task["name"] == "Give it a name"]
    command = home / "tinytorch-backup"
    command.write_text(written["content"].replace("{{ tinytorch_home }}", str(home)))
    for each in (place / "python3", command):
        each.chmod(0o755)
    (home / "backup.json").write_text(json.dumps(asdict(site), default=str))

    def run(*words):
        env = {"PATH": f"{place}:{os.environ['PATH']}"}
        return subprocess.run([command, *words], cwd=trap, env=env, capture_output=True, text=True)

    assert run("--help").stdout.startswith("usage: tinytorch-backup ")
    made = run("create", "--reason", "test")
    assert "read again and whole" in made.stdout, made.stderr
    assert run("list").stdout.endswith("version 1  test\n")
    assert run("verify", "latest").stdout.startswith("whole: version 1, made ")
    refused = run("restore", "latest")
    assert (refused.returncode, refused.stderr.split(": ")[0]) == (1, "tinytorch-backup")
    assert "REPLACE=1" in refused.stderr
    assert run("restore", "latest", "--replace").stdout.startswith("restored: version 1, made ")
    assert sorted(program.iterdir()) == files
