"""Markdown of a student in the instructor's browser: shown, never carried out."""

import re
from html.parser import HTMLParser

import nbformat
import pytest
from nbconvert.exporters import HTMLExporter
from nbgrader.server_extensions import formgrader
from traitlets.config import Config

from autograder.marks import formulas, nbgrader_plugin

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "split script": "<scr<script>ipt>alert(1)</script>",
    "event": "<img src=x onerror=alert(1)>",
    "event in svg": "<svg/onload=alert(1)>",
    "frame": "<iframe src='/hub/token'></iframe><object data=x></object><embed src=x>",
    "form": "<form action=http://127.0.0.1/><input name=x><button>Go</button></form>",
    "style": "<style>body{display:none}</style><p style='position:fixed'>x</p><link rel=stylesheet href=x>",
    "link": "[a](javascript:alert(1)) [c](java&#115;cript:alert(1))",
    "link in HTML": "<a href='JaVaScRiPt:alert(1)'>b</a> <a href=' javascript:alert(1)'>d</a> <a href='java\tscript:alert(1)'>e</a>",
    "data link": "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "remote picture": "![p](http://127.0.0.1/pixel.png) <img src='//127.0.0.1/x'>",
    "svg picture": "![p](data:image/svg+xml;base64,PHN2Zz4=)",
    "comment": "<!-- --><script>alert(1)</script> <!--><img src=x onerror=alert(1)>-->",
    "math link": r"$\href{javascript:alert(1)}{x}$ $\require{x}$ $\cssId{a}{b}$",
    "markup in a formula": r"$\text{<img src=x onerror=alert(1)>}$ $$\text{&lt;script&gt;alert(1)&lt;/script&gt;}$$",
    "attributes in a formula": r"$\style{position:fixed}{x}$ $\class{y}{x}$ $\unicode{60}$",
    "formula as an attribute": '<a title="$x$" href="$javascript:alert(1)$">z</a>',
    "formula in a tag": "<$x$ onclick=alert(1)>",
    "formula that describes a picture": '![$\\text{" onerror="alert(1)}$](data:image/png;base64,aGk=)',
    "formula as a title": '[a](http://example.org "$$x$$ $y$")',
    "formula in a heading": "## $\\text{\" onclick=\"alert(1)}$",
    "base": "<base href=http://127.0.0.1/><meta http-equiv=refresh content='0;url=http://127.0.0.1'>",
}
HARMLESS = {("a", "href"): ("http://", "https://", "mailto:"), ("img", "src"): ("data:image/png;", "data:image/jpeg;"),
            ("img", "alt"): ("",), ("a", "title"): ("",)}
HARMLESS |= {(tag, name): ("",) for tag in formulas.ELEMENTS for name in formulas.ATTRIBUTES}
TAGS = {"p", "h2", "strong", "em", "code", "pre", "span", "div", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "a", "img", "br",
        *formulas.ELEMENTS}


class Page(HTMLParser):
    """Collects what a browser would carry out."""

    def __init__(self, text):
        super().__init__()
        self.active = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        if tag not in TAGS:
            self.active.append(tag)
        self.active += [f"{tag} {name}={value}" for name, value in attributes
                        if not (value or "").startswith(HARMLESS.get((tag, name), ("\0",)))]

    def handle_comment(self, data):
        self.active.append(f"comment {data}")


def shown(text, solution, attachments=None):
    cell = nbformat.v4.new_markdown_cell(f"begin\n\n{text}\n\nend", metadata={"nbgrader": {"solution": solution, "grade_id": "a"}})
    if attachments:
        cell["attachments"] = attachments
    config = Config()
    nbgrader_plugin.configure(config)
    page, _ = HTMLExporter(config=config, template_name="classic").from_notebook_node(nbformat.v4.new_notebook(cells=[cell]))
    return page[page.index("<p>begin</p>"):page.rindex("<p>end</p>")]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_an_answer_is_carried_out(name):
    assert Page(HOSTILE[name]).active or re.search(r"\]\(|\$", HOSTILE[name])     # the parser would see it, but for Markdown
    assert Page(shown(HOSTILE[name], solution=True)).active == []


def test_an_answer_keeps_its_form():
    page = shown("## Why\n\n**bold** `a < b` and 1 < 2, $x < y^2$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n- [site](https://example.org)\n\n"
                 "```python\nprint('<b>')\n```", solution=True)
    for piece in ("<h2>Why", "<strong>bold</strong>", "<code>a &lt; b</code>", "1 &lt; 2", "<mo>&lt;</mo>",
                  "<msup><mi>y</mi><mn>2</mn></msup>", "<td>1</td>", "<li>",
                  'href="https://example.org"', "&lt;b&gt;"):
        assert piece in page, piece


def test_pictures_come_from_the_answer_itself():
    assert '<img alt="p" src="data:image/png;base64,aGk="/>' in shown("![p](attachment:x.png)", True, {"x.png": {"image/png": "aGk="}})


def test_a_picture_that_is_not_there_does_not_break_the_page():
    """nbconvert raises here, and the formgrader would answer 500 for this student."""
    assert "words" in shown("![p](attachment:x.png) words", solution=True)


def test_an_instructors_cell_is_left_as_it_is():
    assert "<details><summary>Hint</summary>" in shown("<details><summary>Hint</summary>x</details>", solution=False)


@pytest.mark.parametrize("solution", [True, False])
def test_formulas_need_no_script(solution):
    page = shown(r"$$\frac{a}{b}$$ and \begin{equation}c\end{equation}", solution)
    assert '<math display="block">' in page
    assert "<mfrac>" in page
    assert "<mi>c</mi>" in page


@pytest.mark.parametrize("broken", [r"$\frac{$", r"$$\begin{x}\end{y}$$", "$" + "{" * 3000 + "$", "$" + "x" * 9000 + "$"])
def test_a_formula_that_cannot_be_read_is_shown_as_typed(broken):
    assert broken.strip("$")[:20] in shown(f"{broken} words", solution=True)


def test_the_pages_load_no_script_from_elsewhere():
    for template in ("formgrade", "feedback"):
        paths = [str(formgrader.__file__).replace("__init__.py", "templates")]
        config = Config()
        nbgrader_plugin.configure(config)
        loader = HTMLExporter(config=config, template_name=template, extra_template_basedirs=paths)
        source = loader.environment.get_template("mathjax.html.j2").render()
        assert "<script" not in source


def test_a_formula_in_an_instructors_heading_keeps_the_heading():
    page = shown("## The size of $x$", solution=False)
    assert re.search(r'<h2 id="[^"<>]*">The size of <math display="inline">', page)
