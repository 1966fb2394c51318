"""Who is in a class: rosters (CSV) are read here, with a problem for each row that cannot be used."""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

from hub.config import rules
from hub.config.problems import Problem, Wrong, near, show, shown_path

COLUMNS = ("username", "first_name", "last_name", "email")
HEADER = ",".join(COLUMNS)


@dataclass(frozen=True)
class Student:
    username: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""


@dataclass(frozen=True)
class Person:
    """One account of the site, with the ids of the classes that it belongs to."""

    username: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    student_of: list[str] = field(default_factory=list)
    staff_of: list[str] = field(default_factory=list)
    admin: bool = False


class Roster:
    """The students of a CSV file, the line of each, and what is wrong with it. OSError if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self.shown = shown_path(path)
        self.students: list[Student] = []
        self.lines: dict[str, int] = {}        # user name -> line
        self.problems: list[Problem] = []
        raw = path.read_bytes()
        try:
            text = _text(raw)
        except _NotText as error:
            self._wrong(error.line, "file", error.value, error)
            return
        self._read(text)

    def _read(self, text: str) -> None:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        columns: list[str] | None = None
        line = 1
        try:
            for row in reader:
                values = [value.strip() for value in row]
                if any(values) and columns is None:
                    columns = self._header(line, values)
                    if columns is None:
                        return
                elif any(values) and columns is not None:
                    self._row(line, columns, values)
                line = reader.line_num + 1
        except csv.Error as error:
            found = (text.splitlines()[line - 1:] or [""])[0]
            fix = 'close the quotes; a " inside quotes is written ""'
            self._wrong(line, "row", found, Wrong(f"not CSV ({error})", fix))
        if columns is None and not self.problems:
            self._wrong(1, "file", "", Wrong("the roster is empty", f"write {HEADER} as its first line"))

    def _header(self, line: int, names: list[str]) -> list[str] | None:
        """The columns, in the file's order; None, with a problem for each wrong one, if they cannot be used."""
        text = ",".join(names)
        if len(names) == 1 and any(mark in text for mark in ";\t|"):
            mark = next(mark for mark in ";\t|" if mark in text)
            fix = "save the file with commas between the columns"
            self._wrong(line, "header", text, Wrong(f"the columns are separated by {mark!r}", fix))
            return None
        names = [name.lower() for name in names]
        if "username" not in names and not any(near(name, COLUMNS) for name in names):
            fix = f"write {HEADER} above the students"
            self._wrong(line, "header", text, Wrong("the first line must name the columns", fix))
            return None
        before = len(self.problems)
        for i, name in enumerate(names):
            if name not in COLUMNS:
                meant = near(name, [column for column in COLUMNS if column not in names])
                fix = f"write {meant}" if meant else f"the columns are {HEADER}"
                self._wrong(line, "header", name, Wrong("there is no such column", fix))
            elif name in names[:i]:
                self._wrong(line, "header", name, Wrong("the column stands there twice", "remove one of the two"))
        if "username" not in names and len(self.problems) == before:
            self._wrong(line, "header", text, Wrong("the column username is missing", f"write {HEADER}"))
        return names if len(self.problems) == before else None

    def _row(self, line: int, columns: list[str], values: list[str]) -> None:
        if len(values) != len(columns):
            fix = "put a value with a comma in quotes" if len(values) > len(columns) else "add the missing commas"
            what = f"{len(values)} values where the first line names {len(columns)} columns"
            self._wrong(line, "row", ",".join(values), Wrong(what, fix))
            return
        row = dict(zip(columns, values, strict=True))
        before = len(self.problems)
        for column, value in row.items():
            try:
                _check(column, value)
            except Wrong as wrong:
                self._wrong(line, column, value, wrong)
        name = row["username"]
        if name and name in self.lines:
            self._wrong(line, "username", name, Wrong(f"the same student as in line {self.lines[name]}",
                                                      "remove one of the rows, or give this person another user name"))
        elif len(self.problems) == before:
            self.lines[name] = line
            self.students.append(Student(**row))

    def _wrong(self, line: int, key: str, value: str, wrong: Wrong) -> None:
        self.problems.append(Problem(self.shown, line, key, show(value), wrong.what, wrong.fix))


class _NotText(Wrong):
    def __init__(self, line: int, value: str, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.line, self.value = line, value


def _text(raw: bytes) -> str:
    """The text of a file that should be UTF-8; a spreadsheet's own format and other encodings are named as such."""
    fix = "in the spreadsheet, choose Save as and then CSV UTF-8"
    if raw[:2] == b"PK" or raw[:4] == b"\xd0\xcf\x11\xe0":
        raise _NotText(1, raw[:2].decode("latin-1"), "a spreadsheet or archive, not CSV", fix)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _NotText(line, raw.splitlines()[line - 1].decode("utf-8", "replace"), "not UTF-8 text", fix) from None
    if "\0" in text:
        raise _NotText(text.count("\n", 0, text.index("\0")) + 1, "\0", "not text", fix)
    return text


def _check(column: str, value: str) -> None:
    if column == "username":
        if not value:
            raise Wrong("no user name", "write the name under which this student signs in")
        rules.user_name(value)
    elif column == "email":
        rules.email(value)
    elif value:
        rules.label(value)
