"""What people see when something is wrong: it is said where they look, nothing is lost, and it goes on afterwards."""

import subprocess

import pytest
from playwright.sync_api import expect

from hub import paths
from tests.e2e.pages import Lab

pytestmark = [pytest.mark.browser, pytest.mark.site, pytest.mark.timeout(600)]
CLASS, TITLE, MODULE, NOTEBOOK = "ml201", "Machine learning systems, intensive", "01_setup", "setup"
DOWN = "The exchange is not running, so nothing was changed."


@pytest.fixture(scope="module")
def released(site):
    """One assignment for carol to fetch."""
    grace = site.person("grace")
    for step in ("assign", "release"):
        answer = grace.formgrader(CLASS, "POST", f"assignment/{MODULE}/{step}")
        assert answer.ok, answer.text
        assert answer.json()["success"], answer.text


@pytest.fixture
def exchange(site):
    """Stops and starts the exchange; it runs again afterwards."""
    def control(action):
        subprocess.run([str(paths.env_bin("hub", "supervisorctl")), "-c", str(site.state / "run" / "supervisord.conf"), action, "exchange"],
                       check=True, capture_output=True)
        if action == "start":
            site.wait("/services/ngshare/healthz")

    yield control
    control("start")


def test_a_wrong_password_and_a_page_that_does_not_exist(window):
    bob = window()
    page = bob.sign_in("bob", "not-the-password")
    expect(page.get_by_role("alert")).to_have_text("User name and password do not match.")
    expect(page.get_by_label("User name")).to_have_value("bob")
    bob.look(page, "wrong-password")
    page.get_by_label("Password", exact=True).fill(bob.site.password("bob"))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Sign in")).to_have_count(0)
    page.goto(f"{bob.site.url}/hub/nothing-here")
    expect(page.get_by_role("heading", name="There is no such page")).to_be_visible()
    bob.look(page, "no-such-page")
    page.get_by_role("main").get_by_role("link", name="Home").click()
    expect(page.get_by_role("heading", name="Your class")).to_be_visible()
    assert bob.complaints == []


@pytest.mark.parametrize("options", [{"width": 400}, {"color_scheme": "dark"}], ids=["narrow", "dark"])
def test_the_hubs_pages_fit_a_phone_and_the_dark(window, options):
    grace = window(**options)
    page = grace.sign_in("grace")
    background = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    for path in ("home", "change-password", "nothing-here", "user-redirect/ml999", "logout", "login"):
        page.goto(f"{grace.site.url}/hub/{path}")
        expect(page.get_by_role("main")).to_be_visible()
        grace.look(page, f"{'-'.join(map(str, options.values()))}-{path.replace('/', '-')}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        assert (max(page.evaluate(background)) < 100) == ("color_scheme" in options), path
    assert grace.complaints == []


def test_a_server_that_cannot_start_says_so_and_starts_later(window, site):
    in_the_way = site.state / "homes" / "carol" / CLASS
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file where the folder should be")
    carol = window()
    page = carol.sign_in("carol")
    expect(page.get_by_role("alert")).to_contain_text("could not be started: Not a directory")
    carol.look(page, "cannot-start")
    in_the_way.unlink()
    page.get_by_role("main").get_by_role("link", name="Home").click()
    page.get_by_role("link", name=f"Open {TITLE}").click()
    Lab(page).welcome(TITLE)


def test_without_the_exchange_and_with_a_damaged_notebook(window, site, released, exchange):
    carol = window()
    page = carol.sign_in("carol")
    lab = Lab(page)
    lab.assignments()

    exchange("stop")
    lab.listed("released", MODULE).get_by_role("button", name="Fetch").click()
    expect(page.locator("#released_assignments_list_error")).to_contain_text(DOWN)
    expect(page.locator("#released_assignments_list_error")).to_contain_text("brings the list back")
    carol.look(page, "fetch-without-exchange")
    exchange("start")
    lab.refresh()
    lab.fetch(MODULE)

    lab.open_notebook(MODULE, NOTEBOOK)
    lab.panel.get_by_role("button", name="Save and create checkpoint").click()
    notebook = site.state / "homes" / "carol" / CLASS / "modules" / "source" / MODULE / f"{NOTEBOOK}.ipynb"
    page.get_by_role("tab", name="Assignments").click()
    exchange("stop")
    lab.submit(MODULE)
    assert DOWN in lab.said()
    assert lab.listed("submitted").count() == 0
    exchange("start")

    whole = notebook.read_bytes()
    notebook.write_bytes(whole[:3000])
    lab.submit(MODULE)
    carol.look(page, "damaged")
    said = lab.said()
    assert f"{NOTEBOOK}.ipynb is damaged: it is not a notebook" in said
    assert "copy your work over" in said
    # as it says: another name for the folder brings the assignment back to fetch, and the damaged file is kept
    notebook.parent.rename(notebook.parent.with_name("damaged"))
    lab.refresh()
    lab.fetch(MODULE)
    assert (notebook.parent.with_name("damaged") / notebook.name).read_bytes() == whole[:3000]
    notebook.write_bytes(whole)
    lab.submit(MODULE)
    expect(lab.listed("submitted", MODULE)).to_be_visible()
