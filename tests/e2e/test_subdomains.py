"""A site with `subdomains: true`: each person's servers and each formgrader have a name of their own, and browsers keep them apart."""

import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from playwright.sync_api import Page, expect

from hub.deployment import health
from tests.e2e.pages import Formgrader, Lab, Window
from tests.running import Site

pytestmark = [pytest.mark.browser, pytest.mark.site, pytest.mark.timeout(600)]
TITLE, MODULE, NOTEBOOK = "Machine learning systems", "01_setup", "setup"


@pytest.fixture(scope="module")
def named(isolated, tmp_path_factory):
    """The example site under a name below localhost, where browsers know every other name to be this machine."""
    def change(text):
        return text.replace("http://127.0.0.1", "http://hub.localhost").replace("subdomains: false", "subdomains: true")

    running = Site(tmp_path_factory.mktemp("subdomains"), change=change)
    running.up()
    running.url = running.url.replace("127.0.0.1", "hub.localhost")
    yield running
    running.down()


READ = """url => fetch(url, {credentials: "include", headers: {"X-XSRFToken": (document.cookie.match(/_xsrf=([^;]+)/) || ["", ""])[1]}})
  .then(answer => String(answer.status), String)"""


def read(page: Page, url: str) -> str:
    """The status that a script of that page gets when it asks there with the reader's cookies and the token of its own page."""
    return page.evaluate(READ, url)


def test_the_loop_goes_on_and_one_page_reads_no_other(named, browser):
    port, grace, alice = named.port, Window(named, browser), Window(named, browser)
    home = grace.sign_in("grace")
    formgrader = Formgrader(grace.new_tab(home.get_by_role("link", name=f"Open formgrader of {TITLE} in a new tab")))
    assert formgrader.page.url == f"http://ml101--service.hub.localhost:{port}/services/ml101/formgrader/manage_assignments"
    assert [formgrader.press(MODULE, step) for step in ("assign", "release")] == ["Success", "Success"]

    home.get_by_role("link", name=f"Open my notebooks in {TITLE}", exact=True).click()
    lab = Lab(home).welcome(TITLE)
    assert home.url.startswith(f"http://grace.hub.localhost:{port}/user/grace/ml101/lab")
    lab.menu("Course List")
    other = Formgrader(grace.new_tab(home.locator("#formgrader_list").get_by_role("link").last))
    expect(other.row(MODULE)).to_contain_text("draft")
    assert other.page.url.startswith(f"http://ml201--service.hub.localhost:{port}/")

    api = f"http://ml101--service.hub.localhost:{port}/services/ml101/formgrader/api/assignments"
    assert read(formgrader.page, api) == "200"                                 # her own page there may
    assert read(home, api) == "TypeError: Failed to fetch"                      # a page of a notebook that she opened may not
    assert read(home, f"http://hub.localhost:{port}/hub/api/user") == "TypeError: Failed to fetch"

    page = alice.sign_in("alice")
    page.get_by_role("link", name=f"Open {TITLE}", exact=True).click()
    lab = Lab(page).welcome(TITLE)
    assert page.url.startswith(f"http://alice.hub.localhost:{port}/user/alice/ml101/lab")
    lab.assignments()
    lab.fetch(MODULE)
    lab.open_notebook(MODULE, NOTEBOOK)
    for window in (grace, alice):
        window.close()


def test_the_check_after_a_deployment_runs_a_notebook_under_that_name(named, monkeypatch, capsys):
    asked, lookup = [], socket.getaddrinfo

    def as_browsers_do(host, *rest, **options):                     # the C library knows `localhost` alone
        asked.append(host)
        return lookup("127.0.0.1" if str(host).endswith(".localhost") else host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", as_browsers_do)
    account = {"name": "carol", "password": named.password("carol"), "classes": ["ml201"]}
    with ThreadPoolExecutor(1) as elsewhere:                        # the browser's event loop has this thread
        elsewhere.submit(health.run, named.url, None, account).result()
    assert "carol.hub.localhost" in asked
    assert [line.partition(" (")[0] for line in capsys.readouterr().out.splitlines()] == [
        "signed in", "started a server in ml201", "ran a notebook in it", "stopped it"]
