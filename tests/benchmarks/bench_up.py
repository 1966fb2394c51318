"""`make up` from nothing and again: wall seconds. Cold means: no environments, no package cache, no data."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hub import paths
from tests.running import Site

COLD_SECONDS, WARM_SECONDS = 300, 15


def main() -> dict:
    folder = Path(tempfile.mkdtemp(prefix="bench-up-"))
    site = Site(folder)
    env = {**site.env, "TINYTORCH_ENVS": str(folder / "envs"), "TINYTORCH_BUILD": str(folder / "build"), "UV_NO_CACHE": "1",
           "PIP_NO_CACHE_DIR": "1", "npm_config_cache": str(folder / "npm")}

    def up() -> float:
        start = time.perf_counter()
        for command in ([sys.executable, "-m", "hub.environments", "hub", "exchange", "user", "proxy"],
                        [str(folder / "envs" / "hub" / "bin" / "python"), "-m", "hub.up", "up"]):
            subprocess.run(command, cwd=paths.REPO, env=env, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    try:
        cold, warm = up(), up()
        subprocess.run([str(folder / "envs" / "hub" / "bin" / "python"), "-m", "hub.up", "down"], cwd=paths.REPO, env=env,
                       check=True, stdout=subprocess.DEVNULL)
        restarted = up()
        size = sum(f.stat().st_size for f in (folder / "envs").rglob("*") if f.is_file() and not f.is_symlink()) / 2**20
    finally:
        subprocess.run([str(folder / "envs" / "hub" / "bin" / "python"), "-m", "hub.up", "down"], cwd=paths.REPO, env=env,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)
    return {"cold, s": round(cold, 1), "again, up to date, s": round(warm, 1), "after make down, s": round(restarted, 1),
            "environments, MB": round(size), "targets, s": [COLD_SECONDS, WARM_SECONDS],
            "met": cold <= COLD_SECONDS and max(warm, restarted) <= WARM_SECONDS}


if __name__ == "__main__":
    os.environ.setdefault("NO_COLOR", "1")
    print(main())
