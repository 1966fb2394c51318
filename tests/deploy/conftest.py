"""One site in containers for the tests of the session that need one."""

import pytest

from tests import docker_site

SMALL = "      disk: 2G"


def small_disk(text: str) -> str:
    """The example's classes.yml, with little disk in the first class: a test fills it."""
    assert SMALL in text
    return text.replace(SMALL, "      disk: 100M")


@pytest.fixture(scope="session")
def contained(tmp_path_factory):
    """The example site in containers; all of it is removed at the end."""
    docker_site.need_docker()
    folder = tmp_path_factory.mktemp("docker")
    for above in (folder, *folder.parents[:3]):
        if above.stat().st_uid == 0 and str(above) not in ("/", "/tmp"):
            above.chmod(0o755)                   # services are another user
    site = docker_site.DockerSite(folder, change=small_disk)
    try:
        site.up()
        yield site
    finally:
        site.down()
