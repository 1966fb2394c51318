"""What is wrong with a site's files, said so that one reading is enough: file, line, key, value, reason, fix."""

import difflib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MISSING = object()                 # shown as the value of a key that is not there


class Wrong(ValueError):
    """A value that cannot be used: what is wrong with it, and the fix. Whoever knows the place adds the place."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}; {fix}")
        self.what, self.fix = what, fix


@dataclass(frozen=True)
class Problem:
    """One line of an error message. Line 0 means the file as a whole."""

    file: str
    line: int
    key: str
    value: str
    what: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.value}: {self.what}; {self.fix}"


class SiteError(Exception):
    """A site that cannot be used. Its text is one line per problem, all of them at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(dict.fromkeys(problems))
        super().__init__("\n".join(map(str, self.problems)))


def show(value: Any) -> str:
    """A value as it may stand in a message: on one line, short, and with text in quotes."""
    if value is MISSING:
        return "(missing)"
    if value is None:
        return "(empty)"
    text = flow(value) if isinstance(value, (bool, dict, list)) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def flow(value: Any) -> str:
    """A value as it may be typed into the YAML file, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))


def near(word: Any, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    found = difflib.get_close_matches(str(word).lower(), list(known), n=1, cutoff=0.7)
    return found[0] if found else None


def shown_path(path: Path) -> str:
    """A path as people would type it: relative to the current folder where it lies below it."""
    short = os.path.relpath(path)
    return str(path) if short.startswith("..") else short
