"""A real hub behind the real proxy, without the other services of a site: for tests of pages and sign-in."""

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from hub import paths
from tests.need import need
from tests.running import Site


@contextmanager
def small_hub(folder: Path, change=lambda text: text, **secrets: str) -> Iterator[Site]:
    """Start it for a classes.yml that is the example, changed; `secrets` are files of its secrets folder."""
    need("the environments hub and proxy", paths.env_bin("hub", "jupyterhub").exists() and (paths.ENVS / "proxy").exists(), "run make up")
    site = Site(folder, change=change)
    for name in ("hub", "run", "logs", "homes", "secrets"):
        (site.state / name).mkdir(parents=True)
    for name, value in secrets.items():
        file = site.state / "secrets" / name
        file.write_text(value)
        file.chmod(0o600)
    site.processes = {}
    try:
        for name in ("proxy", "hub"):
            launch(site, name)
        wait(site)
        yield site
    finally:
        for process in reversed(site.processes.values()):
            process.terminate()
            process.wait(60)
        shutil.rmtree(site.state)


def launch(site: Site, name: str) -> None:
    with (site.state / "logs" / f"{name}.log").open("ab") as log:
        site.processes[name] = subprocess.Popen([str(paths.env_bin("hub", "python")), "-m", "hub.launch", name], cwd=paths.REPO,
                                                env=site.env, stdout=log, stderr=log)


def restart(site: Site) -> None:
    """The hub again, as after a change of classes.yml."""
    site.processes["hub"].terminate()
    site.processes["hub"].wait(60)
    launch(site, "hub")
    wait(site)


def wait(site: Site) -> None:
    deadline = time.monotonic() + 180
    while not healthy(site):
        assert site.processes["hub"].poll() is None, site.log("hub")
        assert time.monotonic() < deadline, site.log("hub")
        time.sleep(0.2)


def healthy(site: Site) -> bool:
    """Whether the hub answers; the proxy alone says 404."""
    try:
        return requests.get(f"http://127.0.0.1:{site.port}/hub/health", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def page(answer: requests.Response) -> str:
    """The text of a page, without tags and spaces."""
    return " ".join(re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(style|script).*?</\1>", "", answer.text)).split())


def refused(answer: requests.Response, words: str, status: int = 403) -> bool:
    """The page that says why somebody is not signed in, in these words; for `assert refused(...)`."""
    assert answer.status_code == status, answer.text[:500]
    assert "You are not signed in" in page(answer)
    assert words in page(answer)
    assert "Traceback" not in answer.text
    return True
