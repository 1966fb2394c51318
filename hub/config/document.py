"""A YAML file as plain data that still knows its lines, so that a problem found later can name them.

ruamel.yaml (YAML 1.2: `no` is text) composes the file, and it is converted here: dates stay text, so that a missing
time zone can be told from a given one; keys stay as typed (`02` is not 2); a key that stands twice is a problem.
"""

import contextlib
import re
import warnings
from pathlib import Path
from typing import Any

from hub.config.problems import MISSING, Problem, show, shown_path

Place = tuple[str | int, ...]      # where a value is: ("classes", 0, "limits", "cpu")

MOST_VALUES = 100_000              # anchors can make a small file unfold without end
YAML_TYPES = ("str", "int", "float", "bool", "null", "timestamp", "merge", "seq", "map")


class Document:
    """The data of a YAML file, the line of each value, what is wrong with it as YAML. OSError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.shown = shown_path(path)
        self.data: Any = None
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        raw = path.read_bytes()
        try:
            node = _compose(raw)
            reader = _Reader(self.lines)
            self.data = None if node is None else reader.value(node, (), ())
        except _Syntax as error:
            text = show(_line(raw, error.line))
            self.problems.append(Problem(self.shown, error.line, "YAML", text, error.what, error.fix))
            return
        for line, place, value, what, fix in reader.found:
            self.problems.append(Problem(self.shown, line, self.key(place), show(value), what, fix))

    def problem(self, place: Place, value: Any, what: str, fix: str) -> Problem:
        return Problem(self.shown, self.line(place), self.key(place), show(value), what, fix)

    def line(self, place: Place) -> int:
        """The line of that value; of the nearest one around it where it is not in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def value(self, place: Place) -> Any:
        here = self.data
        for part in place:
            try:
                here = here[part]
            except (KeyError, IndexError, TypeError):
                return MISSING
        return here

    def key(self, place: Place) -> str:
        """A place as people say it: `classes.ml101.limits.cpu`, `site.admins[0]`."""
        text = ""
        for depth, part in enumerate(place, 1):
            entry = self.value(place[:depth])
            name = entry.get("id") if isinstance(part, int) and isinstance(entry, dict) else None
            if isinstance(part, int) and not isinstance(name, str):
                text += f"[{part}]"
                continue
            word = str(name if isinstance(part, int) else part)
            text += f".{word}" if word.isprintable() and word else f".{word!r}"
        return text.removeprefix(".") or "file"


class _Syntax(Exception):
    def __init__(self, line: int, what: str, fix: str) -> None:
        self.line, self.what, self.fix = line, what, fix


class _Reader:
    """Turns composed nodes into dict, list, str, int, float, bool and None, and writes down where each one stands."""

    def __init__(self, lines: dict[Place, int]) -> None:
        self.lines = lines
        self.found: list[tuple[int, Place, Any, str, str]] = []
        self.values = 0

    def value(self, node: Any, place: Place, around: tuple[int, ...]) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(place, line)
        self.values += 1
        if id(node) in around or self.values > MOST_VALUES:
            raise _Syntax(line, "an anchor (&name, *name) unfolds without end", "write the values out instead")
        around = (*around, id(node))
        tag = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if tag not in YAML_TYPES:
            what, fix = "a tag, and tags mean nothing here", "remove the word that begins with !"
            self.found.append((line, place, str(node.tag), what, fix))
        if isinstance(node.value, str):
            return _scalar(tag, node.value)
        if node.value and isinstance(node.value[0], tuple):
            return self.section(node, place, around)
        if tag == "map":
            return {}
        return [self.value(item, (*place, i), around) for i, item in enumerate(node.value)]

    def section(self, node: Any, place: Place, around: tuple[int, ...]) -> dict[str, Any]:
        section: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line, key = key_node.start_mark.line + 1, key_node.value
            if not isinstance(key, str):
                raise _Syntax(line, "a list or a section stands where a key should", "put the key in quotes")
            if key in section:
                what = f"the same key stands in line {self.lines[*place, key]} already"
                self.found.append((line, (*place, key), _brief(value_node), what, "keep one of the two"))
                continue
            self.lines[(*place, key)] = line
            section[key] = self.value(value_node, (*place, key), around)
        return section


def _scalar(tag: str, text: str) -> Any:
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    with contextlib.suppress(ValueError):      # such as a number of thousands of digits: stays text, refused later
        if tag == "int":
            return int(text) if text.lstrip("+-").replace("_", "").isdigit() else int(text, 0)
        if tag == "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    return text


def _brief(node: Any) -> Any:
    return node.value if isinstance(node.value, str) else "..."


def _line(raw: bytes, number: int) -> str:
    lines = raw.decode("utf-8", "replace").splitlines()
    return lines[number - 1].strip() if 0 < number <= len(lines) else ""


def _compose(raw: bytes) -> Any:
    """The node tree of a YAML text; None for an empty one."""
    from ruamel.yaml import YAML  # 0.1 s: only paid by who reads a file
    from ruamel.yaml.error import ReusedAnchorWarning, YAMLError

    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _Syntax(line, "is not UTF-8 text", "save the file with the encoding UTF-8") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ReusedAnchorWarning)
            return YAML(typ="safe", pure=True).compose(text)
    except ReusedAnchorWarning as warning:
        line = int(re.findall(r"\(line: ([0-9]+)\)", str(warning))[-1])
        raise _Syntax(line, "an anchor (&name) of this name stands above already", "give each anchor its own name") from None
    except RecursionError:
        raise _Syntax(1, "brackets are nested too deeply", "close them") from None
    except YAMLError as error:
        raise _explain(error, text) from None


def _explain(error: Any, text: str) -> _Syntax:
    """The parser's words, put into those of somebody who edits the file."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:                           # a character that may not stand in YAML at all
        at = getattr(error, "position", 0)
        character = text[at:at + 1]
        return _Syntax(text.count("\n", 0, at) + 1, f"the character {character!r} may not stand in YAML", "remove it")
    line, context = mark.line + 1, getattr(error, "context_mark", None)
    since = f" (it began in line {context.line + 1})" if context is not None and context.line + 1 < line else ""
    problem = str(error.problem)
    if re.match(r"[ -]*\t", (text.splitlines()[mark.line:] or [""])[0]):
        return _Syntax(line, "a tab stands where only spaces may", "indent with spaces")
    if "mapping values are not allowed" in problem:
        return _Syntax(line, "a colon too many, or more indented than its neighbours",
                       "put text with a colon in quotes; indent the keys of one section equally")
    if "another document" in problem:
        return _Syntax(line, "a second document begins (---)", "keep everything in one document")
    if "undefined alias" in problem:
        return _Syntax(line, f"{problem}, a word that begins with *", "put it in quotes")
    if "cannot start any token" in problem:
        return _Syntax(line, f"{problem}", "put the text in quotes")
    if "end of stream" in problem:
        return _Syntax(line, f"a quote or bracket is never closed{since}", "close it")
    return _Syntax(line, f"is not YAML: {problem}{since}", "check brackets, quotes and the indentation here and above")
