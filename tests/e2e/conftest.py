"""A site of its own and a real browser, one window for each person. With TINYTORCH_SHOTS=FOLDER every step leaves a picture there."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.conftest import isolation
from tests.e2e.pages import Window
from tests.need import need
from tests.running import Site

# names resolve to nothing, so that no page can fetch anything from elsewhere
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync",
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost"]


@pytest.fixture(scope="package")
def isolated():
    """These tests are about a site whose servers are kept apart."""
    said = isolation()
    need("bubblewrap", not said, said)


@pytest.fixture(scope="package")
def site(isolated, tmp_path_factory):
    """The example site, for the browser's tests alone: other tests release and submit as well."""
    running = Site(tmp_path_factory.mktemp("e2e"))
    running.up()
    yield running
    running.down()


@pytest.fixture(scope="package")
def browser():
    """Ends with this folder's tests: Playwright runs an event loop, beside which no other test can run its own."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    need("Chromium", found, "apt-get install chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def window(site, browser, request, tmp_path):
    """Opens a window that shares nothing with the others. When the test fails, a picture of every page is in its temporary folder."""
    opened = []
    folder = os.environ.get("TINYTORCH_SHOTS")

    def open_window(**options) -> Window:
        opened.append(Window(site, browser, Path(folder) if folder else None, **options))
        return opened[-1]

    yield open_window
    for number, each in enumerate(opened):
        if request.session.testsfailed:
            each.pictures(tmp_path / f"window{number}")
        each.close()
