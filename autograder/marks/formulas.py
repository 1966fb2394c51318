"""Formulas as MathML: they show without a script, so grading pages and feedback need no other host and no MathJax.

A formula of a student is hostile text, so what the converter makes is built anew: known elements and attributes only, and
text escaped (latex2mathml itself unescapes what it prints). A formula it cannot read is shown as it was typed.
"""

import html
from xml.etree import ElementTree

from latex2mathml import converter

ELEMENTS = {"math", "mrow", "mi", "mo", "mn", "mtext", "mspace", "msup", "msub", "msubsup", "munder", "mover", "munderover", "mfrac",
            "msqrt", "mroot", "mtable", "mtr", "mtd", "mpadded", "mphantom", "mstyle", "menclose"}
ATTRIBUTES = {"display", "stretchy", "fence", "form", "accent", "mathvariant", "columnalign", "linethickness", "width", "lspace", "rspace"}
LONGEST = 5_000          # characters; the converter recurses, and nobody reads a longer formula


def mathml(latex: str, display: str) -> str:
    """The formula as an element `<math>`; `display` is "inline" or "block"."""
    try:
        if len(latex) > LONGEST:
            raise ValueError("too long")
        tree = clean(converter.convert_to_element(latex, display=display))
        return ElementTree.tostring(tree, encoding="unicode", short_empty_elements=False)
    except Exception:                                    # whatever is wrong with a formula, its page is shown
        tag = "pre" if display == "block" else "code"
        return f"<{tag}>{html.escape(latex.strip())}</{tag}>"


def clean(element: ElementTree.Element) -> ElementTree.Element:
    """A copy with nothing but known elements and attributes; anything else becomes a plain group."""
    copy = ElementTree.Element(element.tag if element.tag in ELEMENTS else "mrow")
    copy.attrib = {name: html.unescape(value) for name, value in element.attrib.items() if name in ATTRIBUTES}
    copy.text = html.unescape(element.text or "")
    copy.extend(clean(child) for child in element)
    return copy
