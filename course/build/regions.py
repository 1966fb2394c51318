"""Solution and hidden-test regions: finding, replacing and removing what stands between BEGIN and END."""

import re
from collections.abc import Callable
from dataclasses import dataclass

SOLUTION = "SOLUTION"
HIDDEN = "HIDDEN TESTS"


class RegionError(ValueError):
    """BEGIN and END do not match."""


@dataclass(frozen=True)
class Region:
    """Lines first..last (0-based, markers included) of a cell, and the indentation of the BEGIN marker."""

    first: int
    last: int
    indent: str
    body: tuple[str, ...]


def regions(source: str, what: str = SOLUTION) -> list[Region]:
    """All regions of one kind in a cell, in order."""
    found: list[Region] = []
    lines = source.split("\n")
    start = None
    for number, line in enumerate(lines):
        if f"BEGIN {what}" in line:
            if start is not None:
                raise RegionError(f"BEGIN {what} again before END {what}")
            start = number
        elif f"END {what}" in line:
            if start is None:
                raise RegionError(f"END {what} without BEGIN {what}")
            indent = re.match(r"\s*", lines[start]).group()      # type: ignore[union-attr]
            found.append(Region(start, number, indent, tuple(lines[start + 1:number])))
            start = None
    if start is not None:
        raise RegionError(f"BEGIN {what} without END {what}")
    return found


def replace(source: str, text: Callable[[int, Region], list[str]], what: str = SOLUTION) -> str:
    """The cell with each region (number from 0, region) replaced by the lines that `text` gives for it."""
    lines = source.split("\n")
    found = regions(source, what)
    for number, region in reversed(list(enumerate(found))):
        lines[region.first:region.last + 1] = text(number, region)
    return "\n".join(lines)


def remove(source: str, what: str = HIDDEN) -> str:
    """The cell without its regions."""
    return replace(source, lambda _number, _region: [], what)


def unmark(source: str) -> str:
    """The cell as a reader of the framework should see it: regions stay, their marker lines go."""
    return replace(source, lambda _number, region: list(region.body))


def indented(text: str, indent: str) -> list[str]:
    """Lines of an unindented block, moved under `indent`; blank lines stay blank."""
    return [indent + line if line.strip() else "" for line in text.rstrip("\n").split("\n")]


def owner(source: str, region: Region) -> str:
    """Who a region belongs to: `softmax`, `Tensor.reshape`, `mul.backward` for a rule, or "" at the top of a cell."""
    names: list[tuple[int, str]] = []
    depth = len(region.indent)
    lines = source.split("\n")
    for number in reversed(range(region.first)):
        match = re.match(r"(\s*)(?:async\s+)?(?:def|class)\s+(\w+)", lines[number])
        if match and len(match.group(1)) < depth:
            depth = len(match.group(1))
            rule = match.group(2) == "_" and re.match(r"\s*@([\w.]+)$", lines[max(number - 1, 0)])
            names.append((depth, rule.group(1) if rule else match.group(2)))
    return ".".join(name for _, name in reversed(names))
