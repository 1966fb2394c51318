"""What people see and press: the hub's pages, JupyterLab with nbgrader's lists in it, and the formgrader."""

import re
from pathlib import Path

from playwright.sync_api import Browser, FrameLocator, Locator, Page, expect

TIMEOUT = 90_000         # milliseconds for anything that appears; a busy machine starts a server in half a minute
expect.set_options(timeout=TIMEOUT)


class Window:
    """A browser window of one person, with its cookies and pages."""

    pictures_taken = 0

    def __init__(self, site, browser: Browser, shots: Path | None = None, width: int = 1280, **options):
        self.site, self.shots, self.complaints = site, shots, []
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        self.context.set_default_timeout(TIMEOUT)
        self.context.on("page", self.watch)
        self.page = self.context.new_page()

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("console", lambda said: said.type == "error" and "Failed to load resource" not in said.text
                and self.complaints.append(f"{page.url}: {said.text}"))

    def look(self, page: Page, name: str) -> None:
        """Leave a picture of this step."""
        if self.shots:
            Window.pictures_taken += 1
            self.shots.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=self.shots / f"{Window.pictures_taken:02d}-{name}.png")

    def pictures(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for number, page in enumerate(self.context.pages):
            page.screenshot(path=folder / f"{number}.png", timeout=20_000)

    def close(self) -> None:
        self.context.close()

    def sign_in(self, name: str, password: str | None = None) -> Page:
        self.page.goto(self.site.url)
        self.page.get_by_label("User name").fill(name)
        self.page.get_by_label("Password", exact=True).fill(password or self.site.password(name))
        self.page.get_by_role("button", name="Sign in").click()
        return self.page

    def new_tab(self, link: Locator, **options) -> Page:
        """Press a link that opens a tab of its own."""
        with self.context.expect_page() as opened:
            link.click(**options)
        opened.value.wait_for_load_state()
        return opened.value


class Lab:
    """JupyterLab in one page."""

    def __init__(self, page: Page):
        self.page = page
        self.panel = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        self.dialog = page.get_by_role("dialog")
        expect(page.get_by_role("menuitem", name="Nbgrader")).to_be_visible()

    def welcome(self, title: str) -> "Lab":
        """Wait for the page that a first visit opens, as a person would."""
        expect(self.page.get_by_role("heading", name=f"Welcome to {title}")).to_be_visible()
        return self

    def menu(self, item: str) -> None:
        self.page.get_by_role("menuitem", name="Nbgrader").click()
        self.page.get_by_role("menuitem", name=item).click()

    # ------------------------------------------------------------------ the list of assignments
    def assignments(self) -> None:
        """Show the list and wait until it is loaded."""
        self.menu("Assignment List")
        expect(self.page.locator("#course_list_default")).not_to_have_text("Loading, please wait...")
        expect(self.page.locator("#assignments .list_loading >> visible=true")).to_have_count(0)

    def refresh(self) -> None:
        self.page.get_by_title("Refresh assignments list").click()
        expect(self.page.locator("#assignments .list_loading >> visible=true")).to_have_count(0)

    def listed(self, kind: str, name: str = "") -> Locator:
        """The rows of a list: released, fetched or submitted."""
        return self.page.locator(f"#{kind}_assignments_list > .list_item", has_text=name)

    def fetch(self, name: str) -> None:
        self.listed("released", name).get_by_role("button", name="Fetch").click()
        expect(self.listed("fetched", name)).to_be_visible()

    def submit(self, name: str) -> None:
        self.listed("fetched", name).get_by_role("button", name="Submit").click()

    def said(self) -> str:
        """The text of the dialog that appears; presses Ok."""
        expect(self.dialog).to_be_visible()
        text = self.dialog.inner_text()
        self.dialog.get_by_role("button", name="Ok").click()
        expect(self.dialog).to_have_count(0)
        return re.sub(r"\s+", " ", text)

    # ------------------------------------------------------------------ notebooks
    def open_notebook(self, assignment: str, notebook: str) -> None:
        """From the list of assignments."""
        self.page.get_by_role("tab", name="Assignments").click()
        link = self.listed("fetched").get_by_role("link", name=notebook, exact=True)
        if not link.is_visible():
            self.listed("fetched").get_by_role("button", name=assignment).click()
        link.click()
        expect(self.page.get_by_role("tab", name=f"{notebook}.ipynb")).to_be_visible()
        self.kernel_ready()

    def kernel_ready(self) -> None:
        expect(self.panel.locator(".jp-Notebook-ExecutionIndicator")).to_have_attribute("data-status", "idle")

    def cell(self, text: str) -> Locator:
        return self.panel.locator(".jp-Cell", has_text=text).first

    def write(self, cell: Locator, text: str) -> None:
        """Replace what a cell holds by typing."""
        cell.scroll_into_view_if_needed()
        if "jp-mod-rendered" in (cell.get_attribute("class") or ""):
            cell.dblclick()
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.insert_text(text)

    def validate(self) -> str:
        """The notebook's own button, which saves as well."""
        self.panel.get_by_role("button", name="Validate").click()
        return self.said()

    def file(self, name: str) -> Locator:
        """An entry of the file browser."""
        return self.page.locator(".jp-DirListing-item", has_text=name)

    def html(self) -> FrameLocator:
        """The document that Lab shows in a frame."""
        return self.page.locator(".jp-HTMLViewer iframe >> visible=true").content_frame


class Formgrader:
    """nbgrader's pages of one class, in a tab of their own."""

    def __init__(self, page: Page):
        self.page = page

    def go(self, section: str) -> None:
        self.page.get_by_role("link", name=section, exact=True).click()

    def row(self, text: str) -> Locator:
        return self.page.get_by_role("row").filter(has_text=text)

    def press(self, row: str, step: str) -> str:
        """Press the icon of a step; returns the heading of the dialog that tells the outcome."""
        self.row(row).locator(f"td.{step} a").click()
        dialog = self.page.get_by_role("dialog")
        heading = dialog.get_by_role("heading").first
        expect(heading).to_be_visible()
        said = heading.inner_text()
        dialog.get_by_role("button", name="OK").click()
        expect(dialog).to_be_hidden()
        return said
