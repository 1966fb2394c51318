"""What a newcomer's clone holds: the files of this checkout that git knows or would add, and nothing that was made from them."""

import subprocess
import tarfile
from pathlib import Path

from hub import paths


def archive(file: Path) -> Path:
    """Write them to a tar file, below the folder tinytorch-hub."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=paths.REPO,
                            capture_output=True, text=True, check=True).stdout.split("\0")
    with tarfile.open(file, "w") as tar:
        for name in filter(None, listed):
            if (paths.REPO / name).exists():
                tar.add(paths.REPO / name, f"tinytorch-hub/{name}")
    return file
