"""The whole course loop as people click it: release, fetch, work, validate, submit, grade, comment, read the feedback."""

import json
import re

import pytest
from playwright.sync_api import expect

from hub import paths
from tests.e2e.pages import Formgrader, Lab

pytestmark = [pytest.mark.browser, pytest.mark.site, pytest.mark.timeout(900)]

TITLES = {"ml101": "Machine learning systems", "ml201": "Machine learning systems, intensive"}
MODULE, NOTEBOOK = "02_tensor", "tensor"
OWN, OWN_NOTEBOOK = "ps1", "doubling"                      # an assignment that the instructor makes herself
OWN_CELLS = [
    ("solution", "double", None,
     'def double(x):\n    """Twice x."""\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION'),
    ("tests", "test-double", 3,
     'assert double(4) == 8, "double(4) is 8"\n### BEGIN HIDDEN TESTS\nassert double(-3) == -6, "double(-3) is -6"\n### END HIDDEN TESTS'),
    ("manual", "why", 2, "Because it adds the number to itself.")]
# what a hostile answer would try in the instructor's session
ANSWER = 'It adds the number to itself. <img src="x" onerror="document.title = \'taken\'"><script>document.title = "taken"</script>'
COMMENT = "Say what happens to a negative number."


@pytest.fixture(scope="module")
def source():
    """The cells of the module's source notebook, by grade id."""
    cells = json.loads((paths.BUILD / "source" / MODULE / f"{NOTEBOOK}.ipynb").read_text())["cells"]
    return {c["metadata"]["nbgrader"]["grade_id"]: {**c["metadata"]["nbgrader"], "source": "".join(c["source"])}
            for c in cells if c["metadata"].get("nbgrader", {}).get("grade_id")}


def test_the_loop(window, source):
    grace, bob, alice = window(), window(), window()
    formgrader = release_in_both_classes(grace)
    make_an_assignment(grace, formgrader)
    open_the_formgrader_from_the_course_list(grace)
    lab = work_and_submit(bob, source)
    each_class_lists_its_own(alice)
    grade_and_return(grace, formgrader)
    read_the_feedback(bob, lab, source)
    hub_pages = [c for w in (grace, bob, alice) for c in w.complaints if f"{w.site.url}/hub/" in c.split(": ")[0]]
    assert hub_pages == []


def release_in_both_classes(grace):
    """Home shows both classes; Generate, Preview and Release in each formgrader. Returns that of ml101."""
    home = grace.sign_in("grace")
    expect(home.get_by_role("heading", name="Your classes")).to_be_visible()
    grace.look(home, "instructor-home")
    opened = {}
    for class_, title in TITLES.items():
        formgrader = opened[class_] = Formgrader(grace.new_tab(home.get_by_role("link", name=f"Open formgrader of {title} in a new tab")))
        assert f"/services/{class_}/formgrader" in formgrader.page.url
        assert formgrader.press(MODULE, "assign") == "Success"
        if class_ == "ml101":
            preview_the_release(grace, formgrader)
        assert formgrader.press(MODULE, "release") == "Success"
        expect(formgrader.row(MODULE)).to_contain_text("released")
        grace.look(formgrader.page, f"released-{class_}")
    return opened["ml101"]


def preview_the_release(grace, formgrader):
    """The icon leads into the class's own Lab, which shows the students' notebook."""
    page = grace.new_tab(formgrader.row(MODULE).locator("td.preview a"))
    lab = Lab(page)
    lab.file(f"{NOTEBOOK}.ipynb").dblclick()
    expect(lab.panel.get_by_role("heading", name="The tensor")).to_be_visible()
    assert f"/services/ml101/lab/tree/release/{MODULE}" in page.url
    grace.look(page, "preview")
    page.close()


def make_an_assignment(grace, formgrader):
    """nbgrader's own buttons: a new assignment, its folder in Lab, the sidebar that gives cells their types."""
    page = formgrader.page
    expect(formgrader.row(MODULE)).to_be_visible()
    page.get_by_role("link", name="Add new assignment").click()
    page.get_by_role("dialog").locator("input.name").fill(OWN)
    page.get_by_role("button", name="Save").click()
    link = formgrader.row(OWN).get_by_role("link", name=OWN)
    expect(link).to_have_attribute("href", re.compile(f"/source/{OWN}$"))      # known once the server has made the folder
    folder = grace.new_tab(link)
    lab = Lab(folder)
    expect(folder.locator(".jp-BreadCrumbs")).to_contain_text(OWN)
    folder.locator(".jp-FileBrowser").get_by_role("button", name="New Launcher").click()
    folder.locator(".jp-LauncherCard >> visible=true").filter(has_text="Python 3").first.click()
    lab.kernel_ready()
    folder.get_by_role("tab", name="Create Assignment").click()
    for number, (kind, _, _, text) in enumerate(OWN_CELLS):
        if number:
            folder.keyboard.press("Escape")
            folder.keyboard.press("b")
        lab.write(lab.panel.locator(".jp-Cell").nth(number), text)
        if kind == "manual":
            folder.keyboard.press("Escape")
            folder.keyboard.press("m")
    for number, (kind, grade_id, points, _) in enumerate(OWN_CELLS):
        settings = folder.locator(".nbgrader-CellWidget").nth(number)
        settings.locator("select").select_option(kind)
        settings.get_by_label("ID:").fill(grade_id)
        settings.get_by_label("ID:").press("Tab")
        if points:
            settings.get_by_label("Points:").fill(str(points))
            settings.get_by_label("Points:").press("Tab")
    expect(folder.get_by_label("Total points:")).to_have_value("5")
    grace.look(folder, "create-assignment")
    lab.panel.get_by_role("button", name="Save and create checkpoint").click()
    lab.dialog.get_by_role("textbox").fill(f"{OWN_NOTEBOOK}.ipynb")
    lab.dialog.get_by_role("button", name="Rename").click()
    expect(lab.file(f"{OWN_NOTEBOOK}.ipynb")).to_be_visible()
    folder.close()
    assert formgrader.press(OWN, "assign") == "Success"
    assert formgrader.press(OWN, "release") == "Success"


def open_the_formgrader_from_the_course_list(grace):
    home = grace.page
    home.get_by_role("link", name=f"Open my notebooks in {TITLES['ml101']}", exact=True).click()
    lab = Lab(home).welcome(TITLES["ml101"])
    lab.menu("Course List")
    listed = home.locator("#formgrader_list").get_by_role("link")
    expect(listed).to_have_text(["ml101", "ml201"])
    grace.look(home, "course-list")
    formgrader = Formgrader(grace.new_tab(listed.last))
    expect(formgrader.row(MODULE)).to_contain_text("released")
    assert "/services/ml201/formgrader" in formgrader.page.url
    formgrader.page.close()


def work_and_submit(bob, source):
    """A student of one class lands in Lab; fetches, types, validates and submits. Returns the Lab."""
    page = bob.sign_in("bob")
    lab = Lab(page).welcome(TITLES["ml101"])
    assert "/user/bob/ml101/lab" in page.url
    lab.assignments()
    for name in (MODULE, OWN):
        lab.fetch(name)
    bob.look(page, "fetched")

    lab.open_notebook(MODULE, NOTEBOOK)
    bob.look(page, "opened")
    for grade_id in matmul(source, "solution"):
        lines = [line for line in source[grade_id]["source"].splitlines() if "### " not in line]
        lab.write(lab.cell(lines[1]), "\n".join(lines))
    bob.look(page, "working")
    assert "Validation Results" in lab.validate()

    lab.open_notebook(OWN, OWN_NOTEBOOK)
    lab.write(lab.cell("def double"), 'def double(x):\n    """Twice x."""\n    return x + x')
    lab.write(lab.cell("YOUR ANSWER HERE"), ANSWER)
    assert "Success! Your notebook passes all the tests." in lab.validate()

    page.get_by_role("tab", name="Assignments").click()
    for name in (MODULE, OWN):
        lab.submit(name)
        expect(lab.listed("submitted", name)).to_be_visible()
    bob.look(page, "submitted")
    return lab


def matmul(source, kind):
    """The grade ids of the cells about the matrix product that are solutions, or tests that give points."""
    return [grade_id for grade_id, cell in source.items() if "matmul" in grade_id and cell["solution" if kind == "solution" else "grade"]]


def each_class_lists_its_own(alice):
    """A student of two classes chooses on the home page; both are open at once, each with its own assignments."""
    home = alice.sign_in("alice")
    expect(home.get_by_role("heading", name="Your classes")).to_be_visible()
    alice.look(home, "two-classes")
    for class_, names in (("ml101", [MODULE, OWN]), ("ml201", [MODULE])):
        page = alice.new_tab(home.get_by_role("link", name=f"Open {TITLES[class_]}", exact=True), modifiers=["ControlOrMeta"])
        lab = Lab(page).welcome(TITLES[class_])
        lab.assignments()
        expect(lab.listed("released").locator(".item_name")).to_have_text(names)
        expect(lab.listed("released").locator(".item_course")).to_have_text([class_] * len(names))
        alice.look(page, f"list-{class_}")
    home.reload()
    expect(home.get_by_text("Your server is running")).to_have_count(2)


def grade_and_return(grace, formgrader):
    """Collect, autograde, grade the written answer by hand with a comment, generate and release the feedback."""
    page = formgrader.page
    page.bring_to_front()
    for name in (MODULE, OWN):
        assert formgrader.press(name, "collect") == "Success"
        formgrader.row(name).locator("td.num-submissions a").click()
        if name == OWN:
            autograde_all(grace, page)
        else:
            assert formgrader.press("bob", "autograde") == "Success"
        expect(formgrader.row("bob")).to_contain_text("/")
        formgrader.go("Manage Assignments")
    formgrader.go("Manual Grading")
    for link in (OWN, OWN_NOTEBOOK, "Submission #1"):
        page.get_by_role("link", name=link).click()
    answer = page.locator(".nbgrader_cell").last
    expect(answer).to_contain_text("It adds the number to itself.")
    # what is typed before the page has its grades and comments, it overwrites: it sets these two texts when it has them
    expect(answer.locator("input.extra-credit")).to_have_attribute("placeholder", "0")
    expect(answer.locator("textarea.comment")).to_have_attribute("placeholder", re.compile("comments"))
    assert page.title() != "taken"
    answer.locator("input.score").fill("1.5")
    answer.locator("input.score").press("Tab")
    with page.expect_response(lambda response: "/api/comment/" in response.url and response.ok):
        answer.locator("textarea.comment").fill(COMMENT)
        answer.locator("textarea.comment").press("Tab")
    grace.look(page, "graded-by-hand")
    page.get_by_role("link", name="Manual Grading").click()
    formgrader.go("Manage Assignments")
    for name in (MODULE, OWN):
        assert formgrader.press(name, "generate-feedback") == "Success"
        assert formgrader.press(name, "release-feedback") == "Success"


def autograde_all(grace, page):
    """The button that nbgrader's page lacks: it says how far it is, and what came of it."""
    page.get_by_role("button", name="Autograde all").click()
    expect(page.locator("#autograde-all-said")).to_have_text(re.compile(r"^1 submission run in \d+ s: 1 ok$"))
    expect(page.get_by_role("button", name="Autograde all")).to_be_enabled()
    expect(page.locator("#autograde-all-problems li")).to_have_count(0)
    grace.look(page, "autograded-all")


def read_the_feedback(bob, lab, source):
    page = lab.page
    lab.refresh()
    expected = {MODULE: (NOTEBOOK, sum(source[grade_id]["points"] for grade_id in matmul(source, "test"))), OWN: (OWN_NOTEBOOK, 4.5)}
    for name, (notebook, score) in expected.items():
        page.get_by_role("tab", name="Assignments").click()
        row = lab.listed("submitted", name)
        expect(row).to_contain_text("feedback available to fetch")
        row.get_by_role("button", name="Fetch Feedback").click()
        row.get_by_text("(view feedback)").click()
        lab.file(f"{notebook}.html").dblclick()
        feedback = lab.html().locator("body")
        expect(feedback).to_contain_text(f"{notebook} (Score: {score:.1f} /")
        expect(feedback).to_contain_text("hidden tests: the same promises")
        bob.look(page, f"feedback-{name}")
    expect(feedback).to_contain_text(COMMENT)
    expect(feedback).not_to_contain_text("double(-3)")
