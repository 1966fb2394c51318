"""Written answers in the instructor's browser: a student's Markdown is shown, its HTML and scripts are not carried out.

nbgrader's pages put the HTML of every Markdown cell into the page as it is, so an answer could act with the rights of the
instructor who reads it; and an answer that names a picture it does not have makes the whole page fail.
"""

import html
import re
import secrets
from typing import Any

import bleach
from jinja2 import pass_context
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath

from autograder.marks.formulas import mathml

TAGS = {*bleach.ALLOWED_TAGS, "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "span", "div", "del", "sub", "sup", "img",
        "table", "thead", "tbody", "tr", "th", "td"}
TAG = re.compile(r"""<[^<>"']*(?:"[^"]*"[^<>"']*|'[^']*'[^<>"']*)*>""")
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]+")


@pass_context
def render(context: Any, source: str) -> str:
    """Jinja filter `markdown2html`: an instructor's cell as nbconvert renders it, a student's one made harmless."""
    cell = context.get("cell", {})
    attachments = cell.get("attachments", {})
    theirs = cell.get("metadata", {}).get("nbgrader", {}).get("solution", False)
    renderer = Renderer(escape=False, attachments=attachments)
    try:
        page = MarkdownWithMath(renderer=renderer).render(source)
    except InvalidNotebook:                                             # a picture that is not there
        page = MarkdownWithMath(renderer=renderer).render(re.sub(r"\battachment:", "", source))
    except Exception:                                                   # an answer must not keep the page from being shown
        page = f"<pre>{html.escape(source)}</pre>"
    if theirs:
        page = bleach.clean(page, tags=TAGS, attributes=_allowed, protocols={"http", "https", "mailto", "data"})
    return renderer.with_formulas(page)


class Renderer(IPythonRenderer):
    """nbconvert's, with each formula as a placeholder until the page around it is clean."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.formulas: list[str] = []
        self.mark = secrets.token_hex(8)                                # no answer can name a placeholder

    def inline_math(self, body: str) -> str:
        return self._placeholder(body, "inline")

    def block_math(self, body: str) -> str:
        return self._placeholder(body, "block")

    def latex_environment(self, name: str, body: str) -> str:
        return self._placeholder(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    def _placeholder(self, latex: str, display: str) -> str:
        self.formulas.append(mathml(latex, display))
        return f"{self.mark}-{len(self.formulas) - 1}-"

    def with_formulas(self, page: str) -> str:
        """The page with its formulas; inside a tag (the description of a picture, the name of a heading) there is none."""
        placeholder = f"{self.mark}-([0-9]+)-"
        page = re.sub(TAG, lambda tag: re.sub(placeholder, "", tag[0]), page)
        return re.sub(placeholder, lambda found: self.formulas[int(found[1])], page)


def _allowed(tag: str, name: str, value: str) -> bool:
    if tag == "img":
        return name == "alt" or (name == "src" and PICTURE.fullmatch(value) is not None)     # none from elsewhere: it tells who reads
    if tag == "a":
        return name == "title" or (name == "href" and value.lower().startswith(("http://", "https://", "mailto:")))
    return tag in ("th", "td") and name == "align"
