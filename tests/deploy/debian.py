"""Images of a bare Debian or Ubuntu with Python, make and git, made from the distribution's mirror: no registry is needed."""

import re
import shutil
import subprocess
from pathlib import Path

from tests.need import need

DOCKER = next((path for path in ("/usr/bin/docker", shutil.which("docker")) if path and Path(path).exists()), None)
IMAGE = "tinytorch-test/bare-debian"
PACKAGES = "ca-certificates,python3,python3-venv,make,git"
MACHINE_CAS = Path("/usr/local/share/ca-certificates")        # of a site behind an inspecting proxy; often empty
SCRIPTS = Path("/usr/share/debootstrap/scripts")
UBUNTU = {"noble"}                                             # other names are Debian's


def docker(*words, **options):
    return subprocess.run([DOCKER, *words], capture_output=True, text=True, **options)


def debootstrap(suite: str, root: Path) -> None:
    """A release's files from its mirror; one that this debootstrap does not know yet is made like those that it knows."""
    where = []
    if suite in UBUNTU or not (SCRIPTS / suite).exists():
        like = SCRIPTS / ("gutsy" if suite in UBUNTU else "sid")
        named = re.findall(r"default_mirror (\S+)", like.read_text())[1:2]       # of releases that are kept up; none: debootstrap's own
        where = [*named, str(like)] if named else ["", str(like)]
    packages = ["--components=main,universe"] if suite in UBUNTU else []
    done = subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", *packages, suite, str(root), *where],
                          capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]


def bare_debian(tmp_path_factory, suite: str = "bookworm") -> str:
    """An image of that release with Python, make and git, from the distribution's mirror."""
    need("a Docker engine", DOCKER and docker("info").returncode == 0, "install and start Docker")
    image = f"{IMAGE}:{suite}"
    if docker("image", "inspect", image).returncode:
        need("debootstrap", shutil.which("debootstrap"), "apt-get install debootstrap")
        root = tmp_path_factory.mktemp("debian")
        debootstrap(suite, root)
        for file in MACHINE_CAS.glob("*.crt"):
            shutil.copy(file, root / "usr/local/share/ca-certificates")
        subprocess.run(["chroot", str(root), "update-ca-certificates"], check=True, capture_output=True)
        subprocess.run(["chroot", str(root), "useradd", "-m", "newcomer"], check=True, capture_output=True)
        tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run([DOCKER, "import", "-", image], stdin=tar.stdout, check=True, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)
    return image
