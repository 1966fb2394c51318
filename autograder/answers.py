"""Written answers in the instructor's browser: a student's Markdown is shown, its HTML and scripts are not carried out.

nbgrader's pages put the HTML of every Markdown cell into the page as it is, so an answer could act with the rights of the
instructor who reads it; and an answer that names a picture it does not have makes the whole page fail.
"""

import html
import re
from typing import Any

import bleach
from jinja2 import pass_context
from nbconvert.filters.markdown_mistune import InvalidNotebook, IPythonRenderer, MarkdownWithMath

TAGS = {*bleach.ALLOWED_TAGS, "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "pre", "span", "div", "del", "sub", "sup", "img",
        "table", "thead", "tbody", "tr", "th", "td"}
MATH_COMMANDS = r"\\(href|require|cssId|class|style|unicode)\b"         # MathJax makes links and markup of these
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]+")


@pass_context
def render(context: Any, source: str) -> str:
    """Jinja filter `markdown2html`: an instructor's cell as nbconvert renders it, a student's one made harmless."""
    cell = context.get("cell", {})
    attachments = cell.get("attachments", {})
    theirs = cell.get("metadata", {}).get("nbgrader", {}).get("solution", False)
    if theirs:
        source = re.sub(MATH_COMMANDS, "", source)
    try:
        page = _html(source, attachments)
    except InvalidNotebook:                                             # a picture that is not there
        page = _html(re.sub(r"\battachment:", "", source), attachments)
    except Exception:                                                   # an answer must not keep the page from being shown
        page = f"<pre>{html.escape(source)}</pre>"
    return bleach.clean(page, tags=TAGS, attributes=_allowed, protocols={"http", "https", "mailto", "data"}) if theirs else page


def _html(source: str, attachments: Any) -> str:
    return MarkdownWithMath(renderer=IPythonRenderer(escape=False, attachments=attachments)).render(source)


def _allowed(tag: str, name: str, value: str) -> bool:
    if tag == "img":
        return name == "alt" or (name == "src" and PICTURE.fullmatch(value) is not None)     # none from elsewhere: it tells who reads
    if tag == "a":
        return name == "title" or (name == "href" and value.lower().startswith(("http://", "https://", "mailto:")))
    return tag in ("th", "td") and name == "align"
