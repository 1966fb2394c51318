"""An image of a bare Debian 12 with Python, make and git, made from the distribution's mirror: no registry is needed."""

import shutil
import subprocess
from pathlib import Path

from tests.need import need

DOCKER = next((path for path in ("/usr/bin/docker", shutil.which("docker")) if path and Path(path).exists()), None)
IMAGE = "tinytorch-test/bare-debian"
PACKAGES = "ca-certificates,python3,python3-venv,make,git"
MACHINE_CAS = Path("/usr/local/share/ca-certificates")        # of a site behind an inspecting proxy; often empty


def docker(*words, **options):
    return subprocess.run([DOCKER, *words], capture_output=True, text=True, **options)


def bare_debian(tmp_path_factory):
    """An image of Debian 12 with Python, make and git, from the distribution's mirror."""
    need("a Docker engine", DOCKER and docker("info").returncode == 0, "install and start Docker")
    if docker("image", "inspect", IMAGE).returncode:
        need("debootstrap", shutil.which("debootstrap"), "apt-get install debootstrap")
        root = tmp_path_factory.mktemp("debian")
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root)], check=True,
                       capture_output=True)
        for file in MACHINE_CAS.glob("*.crt"):
            shutil.copy(file, root / "usr/local/share/ca-certificates")
        subprocess.run(["chroot", str(root), "update-ca-certificates"], check=True, capture_output=True)
        subprocess.run(["chroot", str(root), "useradd", "-m", "newcomer"], check=True, capture_output=True)
        tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        subprocess.run([DOCKER, "import", "-", IMAGE], stdin=tar.stdout, check=True, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)
    return IMAGE
