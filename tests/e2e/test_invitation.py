"""The link of an invitation in a real browser: what stands behind # becomes the form, and somebody is in."""

import csv
import io
import subprocess

import pytest
from playwright.sync_api import expect

from hub import paths
from tests.e2e.pages import Window
from tests.small_hub import small_hub

pytestmark = [pytest.mark.browser, pytest.mark.site]


@pytest.fixture(scope="module")
def invited(tmp_path_factory):
    """A served site, and the link of each person; TLS would stand in front of it."""
    with small_hub(tmp_path_factory.mktemp("invited"), lambda text: text.replace("http://127", "https://127")) as hub:
        done = subprocess.run([str(paths.env_bin("hub", "python")), "-m", "hub.accounts.invitations"], cwd=paths.REPO, env=hub.env,
                              capture_output=True, text=True, timeout=60)
        hub.links = {row["username"]: row["link"].replace("https", "http", 1) for row in csv.DictReader(io.StringIO(done.stdout))}
        yield hub


def test_a_link_leads_to_a_password_and_in(invited, browser):
    window = Window(invited, browser, width=360, color_scheme="dark")
    try:
        page = window.page
        page.goto(invited.links["alice"])
        assert "#" not in page.url                            # nothing of the link stays in the history
        expect(page.get_by_label("Your user name")).to_have_value("alice")
        page.get_by_label("New password", exact=True).fill("correct horse battery")
        page.get_by_label("New password, again").fill("correct horse batterx")
        page.get_by_role("button", name="Set password and sign in").click()
        expect(page.get_by_role("alert")).to_have_text("The two passwords differ. Nothing was set, and your link still holds.")
        page.get_by_label("New password", exact=True).fill("correct horse battery")
        page.get_by_label("New password, again").fill("correct horse battery")
        page.get_by_role("button", name="Set password and sign in").click()
        expect(page.get_by_role("heading", name="Your classes")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert window.complaints == []
    finally:
        window.close()


def test_a_link_that_lost_its_end_says_so(invited, browser):
    window = Window(invited, browser)
    try:
        window.page.goto(invited.links["bob"].partition("#")[0])
        expect(window.page.get_by_role("alert")).to_contain_text("This link is not whole")
        expect(window.page.get_by_role("button", name="Set password and sign in")).to_be_hidden()
    finally:
        window.close()
