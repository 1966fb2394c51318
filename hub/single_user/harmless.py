"""A student's work shown to an instructor is text and pictures: nothing in it can run in the instructor's session.

nbgrader's grading page puts Markdown and HTML of a submission into itself as they are, so a script in an answer could give its
author full marks. This cleans both with an allow-list; a picture counts only when its data lie in the notebook.
"""

import re

import bleach
from bleach.css_sanitizer import CSSSanitizer
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter

TAGS = {*bleach.ALLOWED_TAGS, "br", "caption", "dd", "del", "details", "div", "dl", "dt", "figcaption", "figure", "h1", "h2", "h3", "h4",
        "h5", "h6", "hr", "img", "ins", "kbd", "mark", "p", "pre", "q", "s", "samp", "small", "span", "sub", "summary", "sup", "table",
        "tbody", "td", "tfoot", "th", "thead", "tr", "u", "var"}
# classes of highlighted code and of tables; the grading page listens to others, such as full-credit
CLASSES = re.compile(r"(highlight|hl-\w+|[a-z]{1,3}\d?|ansi-[\w-]+|dataframe|anchor-link)?")
PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp|svg\+xml)[;,]")
LINK = re.compile(r"https?://|mailto:|#")


def attribute(tag, name, value):
    """Whether an attribute may stay."""
    if name == "class":
        return all(CLASSES.fullmatch(word) for word in value.split())
    if name == "src":
        return tag == "img" and PICTURE.match(value)
    if name == "href":
        return tag == "a" and LINK.match(value)
    return name in ("align", "alt", "colspan", "height", "open", "rowspan", "style", "title", "width")


def clean(html):
    html = html.decode() if isinstance(html, bytes) else str(html)
    return bleach.clean(html, tags=TAGS, attributes=attribute, protocols={*bleach.ALLOWED_PROTOCOLS, "data"},
                        css_sanitizer=CSSSanitizer(), strip_comments=True)


def clean_markdown(plain):
    """The exporter's way from Markdown to HTML, cleaned: nbgrader's templates use it without any cleaning of their own."""
    @pass_context
    def markdown2html(self, context, source):
        return clean(plain(self, context, source))
    return markdown2html


HTMLExporter.markdown2html = clean_markdown(HTMLExporter.markdown2html)


def configure(c):
    c.HTMLExporter.sanitize_html = True
    c.HTMLExporter.filters = {"clean_html": clean}
