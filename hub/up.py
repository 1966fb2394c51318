"""Bring a site up on this machine, down again, or show what it does: what `make up`, `down`, `logs` and `reset` run.

Up twice is up once: processes that are current stay, a changed classes.yml restarts only what reads it, and a student's
running server is never touched.
"""

import argparse
import contextlib
import csv
import fcntl
import hashlib
import json
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.table import Table

from autograder.sandbox.processes import bubblewrap
from autograder.service.database import Postgres, Unavailable
from hub import database, paths, secrets
from hub.config import documents
from hub.config.site import Site, SiteError
from hub.network import ports
from hub.spawning import processes, servers

console = Console(highlight=False, soft_wrap=True)
SOCKET_NAME = 107 if sys.platform == "linux" else 103      # characters that the name of a Unix socket may have
READY_SECONDS = 240                      # a small machine that does other work needs its time; what has given up is seen sooner


class Problem(Exception):
    """Why the site cannot do that, and how to mend it, in one line or a few."""


# --------------------------------------------------------------------------------------------- up
def up() -> None:
    """Build what changed, start what is not running, wait until all of it answers."""
    start = time.monotonic()
    site = load_site()
    for folder in (paths.STATE, paths.SECRETS):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    for folder in (paths.HUB, paths.EXCHANGE, paths.AUTOGRADER, paths.CLASSES, paths.HOMES, paths.LOGS, paths.RUN):
        folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(paths.STATE).free < 300 * 2**20:
        raise Problem(f"less than 300 MB are free where {paths.STATE} lies: make room first, a full disk loses work")
    if site.settings.sign_in == "oidc":
        secrets.load().must_be_given(secrets.OIDC_CLIENT_SECRET)         # else the hub would not start
    refuse_unusable_database(site)
    with only_one():
        numbers = ports.load(site)
        if running() is None:
            end_leftovers()
            refuse_taken(numbers)
        say("course", run_user("course.build"))
        write_if_changed(paths.AUTOGRADER / "quotas.json", json.dumps(documents.quotas(site), indent=1))
        write_if_changed(paths.EXCHANGE / "site.json", json.dumps(documents.exchange(site), indent=1))
        for line in run_user("hub.courses", stdin=json.dumps(documents.courses(site))).splitlines():
            say("note", line)
        secrets.load().service_token("ngshare")
        programs = write_supervisor(site)
        changed = start_or_update(programs)
        say("processes", f"{len(programs)} running" + (f", restarted: {', '.join(changed)}" if changed else ""))
        wait_until_healthy(site, numbers)
    tell(site, time.monotonic() - start)


def refuse_unusable_state() -> None:
    """A state of somebody else would be left half readable for either; a long path is more than a socket's name can have."""
    if paths.STATE.exists() and paths.STATE.stat().st_uid != os.geteuid():
        owner = name_of(paths.STATE.stat().st_uid)
        raise Problem(f"{paths.STATE} belongs to {owner}, and you are {name_of(os.geteuid())}: run it as {owner}, "
                      "or keep a site of your own elsewhere: TINYTORCH_STATE=/a/folder/of/yours make up")
    # the supervisor first makes its socket under a name with its process id at the end
    longest = SOCKET_NAME - len("/run/supervisor.sock.4194304")
    if len(os.fsencode(paths.STATE)) > longest:
        raise Problem(f"{paths.STATE} is too long a path, since sockets are made in it ({len(os.fsencode(paths.STATE))} characters, "
                      f"at most {longest}): give a shorter one, TINYTORCH_STATE=/a/folder make up")


def refuse_unusable_database(site: Site) -> None:
    """Hub and autograder would be started again and again, and say why in their logs only."""
    if database.sqlite(site):
        return
    server = Postgres(database.of_jobs(site))
    try:
        with server.change() as change:
            server.version(change)
    except Unavailable as why:
        raise Problem(str(why)) from None
    finally:
        server.close()


def name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def load_site() -> Site:
    """The site's document; a first `make up` puts the example in its place."""
    if not paths.CLASSES_YML.exists():
        example = paths.REPO / "hub" / "example"
        shutil.copy(example / "classes.yml", paths.CLASSES_YML)
        shutil.copytree(example / "rosters", paths.CLASSES_YML.parent / "rosters", dirs_exist_ok=True)
        say("classes", f"{paths.CLASSES_YML.name} is new, with two demonstration classes: edit it and run `make up` again")
    try:
        return Site.load(paths.CLASSES_YML)
    except SiteError as error:
        raise Problem(str(error)) from None


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Two `make up` at once would write the same files."""
    with (paths.RUN / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem("another `make up` is at work on this site: wait for it") from None
        yield


def run_user(module: str, *arguments: str, stdin: str = "") -> str:
    """Run one of our modules in the environment `user`; returns its last output."""
    path = f"{paths.ENVS / 'user' / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"          # nbgrader runs alembic by its name
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(paths.REPO), "NO_COLOR": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([str(paths.env_bin("user", "python")), "-m", module, *arguments], input=stdin, env=env,
                          capture_output=True, text=True, cwd=paths.REPO)
    if done.returncode:
        raise Problem(f"{module} failed:\n" + "\n".join((done.stderr or done.stdout).strip().splitlines()[-15:]))
    return done.stdout.strip()


def refuse_taken(numbers: ports.Ports) -> None:
    taken = [(name, port) for name, port in numbers.named().items() if ports.taken(port)]
    if taken:
        listed = ", ".join(f"{port} ({name})" for name, port in taken)
        raise Problem(f"port {listed} is taken by another program. Stop it, or give site.url in {paths.CLASSES_YML.name} "
                      f"another port, such as http://127.0.0.1:{numbers.public + 100}")


def write_if_changed(file: Path, text: str) -> bool:
    if file.exists() and file.read_text() == text:
        return False
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)
    return True


# --------------------------------------------------------------------------------------------- processes
def programs_of(site: Site) -> dict[str, list[str]]:
    """Supervisor's program names and what hub.launch is told to start."""
    formgraders = {f"formgrader-{class_.id}": ["formgrader", class_.id] for class_ in site.classes}
    return {"proxy": ["proxy"], "exchange": ["exchange"], "autograder": ["autograder"], "hub": ["hub"], **formgraders}


def fingerprints(site: Site) -> dict[str, str]:
    """What each program reads at its start, hashed: one that changed is restarted, the others are left alone."""
    code = hashlib.sha256()
    for room in ("hub", "autograder", "course"):
        for file in sorted((paths.REPO / room).rglob("*")):
            if file.suffix in (".py", ".html", ".css", ".json", ".yml") and "modules" not in file.parts and "__pycache__" not in file.parts:
                code.update(file.read_bytes())
    made = {name: (paths.ENVS / name / ".made-from").read_text() for name in ("hub", "exchange", "user", "proxy")
            if (paths.ENVS / name / ".made-from").exists()}
    base = {"port": site.port, "code": code.hexdigest()}
    reads = {
        "proxy": {"port": site.port, "env": made.get("proxy")},
        "exchange": {**base, "env": made.get("exchange")},
        "autograder": {**base, "env": made.get("user"), "database": site.database},
        "hub": {**base, "env": made.get("hub"), "site": json.loads(site.model_dump_json()),
                "people": sorted((name, str(person)) for name, person in site.people().items())},
        **{f"formgrader-{c.id}": {**base, "env": made.get("user"), "limits": json.loads(c.limits.model_dump_json())} for c in site.classes},
    }
    return {name: hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest() for name, value in reads.items()}


def write_supervisor(site: Site) -> dict[str, list[str]]:
    """The supervisor's configuration: one section a program; no secret in it."""
    programs = programs_of(site)
    python = paths.env_bin("hub", "python")
    text = f"""[supervisord]
logfile={paths.LOGS}/supervisor.log
logfile_maxbytes=5MB
logfile_backups=2
pidfile={paths.RUN}/supervisor.pid
childlogdir={paths.LOGS}
directory={paths.REPO}
{'user=root' if os.geteuid() == 0 else ''}
[unix_http_server]
file={paths.RUN}/supervisor.sock
chmod=0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{paths.RUN}/supervisor.sock
"""
    for name, words in programs.items():
        text += f"""[program:{name}]
command={shlex.join([str(python), '-m', 'hub.launch', *words])}
stdout_logfile={paths.LOGS}/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=3
redirect_stderr=true
autorestart=true
startsecs=2
startretries=5
stopwaitsecs=15
priority={ {'proxy': 1, 'exchange': 2, 'autograder': 2, 'hub': 3}.get(name, 4)}
"""
    (paths.RUN / "supervisord.conf").write_text(text.replace("%", "%%"))
    return programs


def supervisorctl(*words: str) -> str:
    done = subprocess.run([str(paths.env_bin("hub", "supervisorctl")), "-c", str(paths.RUN / "supervisord.conf"), *words],
                          capture_output=True, text=True)
    return done.stdout + done.stderr


def running() -> int | None:
    """The supervisor's process id while it runs."""
    try:
        pid = int((paths.RUN / "supervisor.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid if str(paths.RUN) in processes.command_line(pid) else None


def start_or_update(programs: dict[str, list[str]]) -> list[str]:
    """Start the supervisor, or let it take over what is new and restart what changed; returns what was restarted."""
    record = paths.RUN / "started.json"
    now = fingerprints(load_site())
    before: dict[str, str] = {}
    if running() is None:
        env = {name: value for name, value in os.environ.items() if name in (
            "PATH", "HOME", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE") or name.startswith("TINYTORCH_")}
        done = subprocess.run([str(paths.env_bin("hub", "supervisord")), "-c", str(paths.RUN / "supervisord.conf")],
                              env=env, capture_output=True, text=True, cwd=paths.REPO)
        if done.returncode:
            raise Problem(f"the supervisor did not start: {(done.stderr or done.stdout).strip()[-500:]}")
        record.write_text(json.dumps(now))
        return []
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(record.read_text())
    supervisorctl("update")
    changed = [name for name in programs if name in before and before[name] != now[name]]
    if changed:
        supervisorctl("restart", *changed)
    supervisorctl("start", "all")          # what had stopped for good gets another chance
    record.write_text(json.dumps(now))
    return changed


def processes_of_this_site() -> Iterator[tuple[int, str]]:
    """Our programs that work on this site's state, as pid and command with environment: servers of students, and what a killed
    supervisor left. An editor or a backup that has one of its files open is none of them."""
    yield from ((pid, text) for pid, text in processes.commands() if f"{paths.STATE}/" in text and f"{paths.ENVS}/" in text
                and pid != os.getpid() and "hub.up" not in text)


def end_leftovers() -> None:
    """End what a supervisor that was killed left behind; students' servers stay, the new hub takes them over."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        left = [pid for pid, text in processes_of_this_site() if f"{paths.HOMES}/" not in text]
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, sign)
        deadline = time.monotonic() + 10
        while any(processes.command_line(pid) for pid in left) and time.monotonic() < deadline:
            time.sleep(0.1)


# --------------------------------------------------------------------------------------------- health
def wait_until_healthy(site: Site, numbers: ports.Ports) -> None:
    """Every process answers on its port, and through the proxy; otherwise say which does not, and the end of its log."""
    public = f"http://127.0.0.1:{numbers.public}"
    checks = {
        "autograder": f"http://127.0.0.1:{numbers.autograder}/health",
        "hub": f"{public}/hub/health",
        # through the proxy, which knows a service only once the hub has told it
        "exchange": f"{public}/services/ngshare/healthz",
        **{f"formgrader-{name}": f"{public}/services/{name}/api" for name in numbers.formgrader},
    }
    waiting, deadline = dict(checks), time.monotonic() + READY_SECONDS
    patient = time.monotonic() + 15                   # then look whether the supervisor has given up on one of them
    with console.status("starting") as status:
        while waiting and time.monotonic() < deadline:
            status.update(f"waiting for {', '.join(waiting)}")
            waiting = {name: url for name, url in waiting.items() if not answers(url, unable=name == "autograder")}
            if waiting:
                if time.monotonic() > patient:
                    given_up = [line.split()[0] for line in supervisorctl("status").splitlines() if " FATAL " in line]
                    if given_up or running() is None:
                        waiting = dict.fromkeys(given_up, "") or waiting
                        break
                time.sleep(0.3)
    if waiting:
        name = next(iter(waiting))
        log = paths.LOGS / f"{name}.log"
        end = "\n  ".join(log.read_text(errors="replace").splitlines()[-15:]) if log.exists() else "(no log)"
        raise Problem(f"{', '.join(waiting)} did not start or does not answer. The end of {log}:\n  {end}")
    say("health", f"{len(checks)} of {len(checks)} answer")


def answers(url: str, unable: bool = False) -> bool:
    """Whether something answers there; `unable` counts the answer that this machine cannot isolate, which is said elsewhere."""
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            return response.status == 200
    except urllib.error.HTTPError as error:
        return unable and error.code == 503
    except OSError:
        return False


# --------------------------------------------------------------------------------------------- what people see
def say(what: str, text: str) -> None:
    for line in text.splitlines():
        console.print(f"  {what:<10} {line}", markup=False)


def tell(site: Site, seconds: float) -> None:
    """The address, who can sign in, and what this machine cannot do."""
    try:
        bubblewrap.find()
    except bubblewrap.SandboxUnavailable as lacking:
        console.print("\n[yellow]Demonstration only:[/] students are not isolated from each other and autograding is refused.")
        console.print(f"  {lacking}", markup=False)
    console.print(f"\n[bold]{site.title}[/] is ready at [bold]{site.url}[/]  ({seconds:.0f} s)\n")
    file = secrets.load().signins_file
    if site.invites:
        console.print("People choose their passwords behind links: [bold]make invites[/] makes one for everybody who has none yet.")
    elif site.provider:
        console.print(f"People sign in with {site.provider.name}.", markup=False)
    elif file.exists():
        table = Table(box=None, pad_edge=False, title="First passwords (change them on the page Change password)", title_justify="left")
        for column in ("user", "password", "role", "classes"):
            table.add_column(column)
        with file.open() as stream:
            rows = list(csv.reader(stream))[1:]
        for row in rows[:20]:
            table.add_row(row[0], row[1] or "(changed)", *row[2:4])
        console.print(table)
        if len(rows) > 20:
            console.print(f"... and {len(rows) - 20} more in {file}", markup=False)
    console.print("\nmake logs shows what happens, make down stops it; nothing is lost by either.")


def down() -> None:
    """Stop every process of this site, students' servers included; data stays."""
    if running() is None and not list(processes_of_this_site()):
        say("down", "nothing of this site is running")
        return
    with console.status("stopping"):
        if (pid := running()) is not None:
            supervisorctl("shutdown")
            deadline = time.monotonic() + 30
            while running() is not None and time.monotonic() < deadline:
                time.sleep(0.2)
            if running() is not None:
                os.kill(pid, signal.SIGKILL)
        servers.end_all()
        end_leftovers()
        for left, _ in processes_of_this_site():
            with contextlib.suppress(OSError):
                os.kill(left, signal.SIGKILL)
    say("down", "stopped; `make up` starts it again with all its data")


def logs(names: list[str]) -> None:
    """Follow the logs of all processes, or of those named."""
    files = [paths.LOGS / f"{name}.log" for name in names] or sorted(paths.LOGS.glob("*.log"))
    missing = [file.stem for file in files if not file.exists()]
    if missing or not files:
        known = ", ".join(sorted(file.stem for file in paths.LOGS.glob("*.log"))) or "none yet: run make up first"
        raise Problem(f"there is no log of {', '.join(missing) or 'this site'}; there are: {known}")
    os.execvp("tail", ["tail", "-n", "20", "-F", *map(str, files)])


def reset(sure: bool) -> None:
    """Remove the site's data for good, after asking."""
    if not paths.STATE.exists():
        say("reset", "there is no data to remove")
        return
    homes = sum(1 for _ in paths.HOMES.glob("*/*")) if paths.HOMES.exists() else 0
    console.print(f"This removes {paths.STATE}: every account, {homes} home folders, all submissions and all marks.", markup=False)
    if not sure:
        if not sys.stdin.isatty():
            raise Problem("nobody to ask: run it in a terminal, or `make reset YES=1`; nothing was removed")
        if input("Type the word reset to go on: ").strip() != "reset":
            raise Problem("nothing was removed")
    down()
    shutil.rmtree(paths.STATE)
    say("reset", "all data of this site is gone; the environments and classes.yml are kept")


def fail(command: str, reason: str) -> NoReturn:
    console.print(f"[red]make {command}:[/] ", end="")
    console.print(reason, markup=False)
    sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "status"):
        commands.add_parser(name)
    commands.add_parser("logs").add_argument("names", nargs="*")
    commands.add_parser("reset").add_argument("--yes", action="store_true")
    args = parser.parse_args()
    try:
        refuse_unusable_state()
        match args.command:
            case "up":
                up()
            case "down":
                down()
            case "logs":
                logs(args.names)
            case "reset":
                reset(args.yes)
            case "status":
                console.print(supervisorctl("status") if running() else "not running", markup=False)
    except Problem as problem:
        fail(args.command, str(problem))
    except OSError as error:
        fail(args.command, f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command again to go on")


if __name__ == "__main__":
    main()
