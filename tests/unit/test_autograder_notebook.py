"""Rebuilding a submission: the student's solutions in the instructor's notebook, whatever happened to the rest."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.marks.notebook import BadSubmission, parse, read_regular, rebuild, source


def cell(name, text, kind="code", **marks):
    found = {"cell_type": kind, "source": text, "metadata": {"nbgrader": {"grade_id": name, **marks}} if name else {}}
    return {**found, "outputs": [{"x": 1}], "execution_count": 3} if kind == "code" else found


STUB = "raise NotImplementedError"
INSTRUCTORS = {"nbformat": 4, "nbformat_minor": 4, "metadata": {"a": 1}, "cells": [
    cell("", "# Title", "markdown"), cell("imports", "import math", locked=True), cell("f", "reference", solution=True),
    cell("test-f", "assert f()\nhidden", grade=True, locked=True), cell("", "plain"),
    cell("why", "outline", "markdown", grade=True, solution=True)]}
RELEASED = {"imports": "import math", "f": STUB, "test-f": "assert f()", "why": "YOUR ANSWER"}
HONEST = [cell("imports", "import math"), cell("f", "mine"), cell("test-f", "assert f()"), cell("", "plain"), cell("why", "so", "markdown")]


def sources(rebuilt):
    return [one["source"] for one in rebuilt.notebook["cells"]]


def expected(f="mine", why="so"):
    return ["# Title", "import math", f, "assert f()\nhidden", "plain", why]


def test_an_honest_submission_has_its_solutions_and_no_notes():
    rebuilt = rebuild(HONEST, INSTRUCTORS, RELEASED)
    assert sources(rebuilt) == expected()
    assert rebuilt.notes == []
    assert all(not one.get("outputs") for one in rebuilt.notebook["cells"])
    assert INSTRUCTORS["cells"][2]["source"] == "reference"                # the instructor's notebook is left alone


def test_nothing_of_the_reference_solution_is_left_without_a_submission():
    assert sources(rebuild([], INSTRUCTORS, RELEASED)) == expected(STUB, "YOUR ANSWER")
    assert sources(rebuild([], INSTRUCTORS, {})) == expected("", "")


@pytest.mark.parametrize(("copies", "taken"), [
    (["first", "second"], "second"), (["mine", STUB], "mine"), (["mine", ""], "mine"), (["mine", "  \n", f" {STUB}\n"], "mine"),
    ([STUB, STUB], STUB), (["", ""], STUB), (["x" * 200_001, "mine"], "mine"), (["mine", "x" * 200_001], "mine")])
def test_of_several_copies_the_last_that_was_worked_on_counts(copies, taken):
    rebuilt = rebuild([cell("f", text) for text in copies], INSTRUCTORS, RELEASED)
    assert sources(rebuilt)[2] == taken
    assert f"Solution cell `f` occurred {len(copies)} times; the last copy that was worked on was graded." in rebuilt.notes


@given(st.permutations(HONEST), st.data())
def test_order_type_and_metadata_change_nothing(cells, data):
    strange = [{**one, "cell_type": data.draw(st.sampled_from(["code", "markdown", "raw", "x", 7])), "outputs": data.draw(st.integers()),
                "metadata": {"nbgrader": {**one["metadata"].get("nbgrader", {}), "locked": data.draw(st.booleans()), "points": 99}}}
               for one in cells]
    assert sources(rebuild(strange, INSTRUCTORS, RELEASED)) == expected()


KEYS = st.sampled_from(["cells", "metadata", "nbgrader", "grade_id", "source", "cell_type", "attachments", "f", "why"])
JUNK = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))


@given(st.lists(JUNK, max_size=4), st.sampled_from(["f", "why", "test-f"]), JUNK, JUNK)
def test_junk_in_any_place_leaves_the_other_cells_alone(junk, name, text, attachments):
    document = {"cells": [*junk, {"source": text, "attachments": attachments, "metadata": {"nbgrader": {"grade_id": name}}}, *HONEST]}
    rebuilt = sources(rebuild(parse(json.dumps(document).encode()), INSTRUCTORS, RELEASED))
    assert rebuilt == expected()


def test_what_was_done_is_noted():
    cells = [cell("f", "mine", "markdown"), cell("test-f", "pass"), cell("", "extra"), cell("other", "extra"), cell("", "plain")]
    assert rebuild(cells, INSTRUCTORS, RELEASED).notes == [
        "Cell `imports` was missing; the instructor's copy was used.",
        "Solution cell `f` had been turned into another cell type; it was graded as code.",
        "Cell `test-f` is locked and was changed; the instructor's copy was used.",
        "Solution cell `why` was missing; it counts as not attempted.",
        "2 code cells that the assignment does not have were not run: only solution cells are graded."]


def test_pictures_in_a_written_answer_come_along_and_nothing_else():
    answer = {**cell("why", "see ![x](attachment:x.png)", "markdown"), "attachments": {
        "x.png": {"image/png": "aGk=", "text/html": "<script>"}, "y": {"image/svg+xml": "<svg>"}, "z": 7}}
    assert rebuild([answer], INSTRUCTORS, RELEASED).notebook["cells"][-1]["attachments"] == {"x.png": {"image/png": "aGk="}}


@pytest.mark.parametrize(("text", "read"), [
    ("a", "a"), (["a\n", "b"], "a\nb"), (["a", 1, None], "a"), (7, ""), (None, ""), ("\ud800", "?")])
def test_a_source_is_text_or_nothing(text, read):
    assert source({"source": text}) == read


@pytest.mark.parametrize(("content", "says"), [
    (b"", "not a notebook"), (b"{", "not a notebook"), (b"\xff\xfe{}", "not a notebook"), (b"[]", "no list of cells"),
    (b"7", "no list of cells"),
    (b'{"cells": {}}', "no list of cells"), (b'{"worksheets": []}', "no list of cells"), (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"), (b'{"cells": [' + b"{}," * 2_000 + b"{}]}", "at most 2000"),
    (b"[" + b"[]," * 2_100_000 + b"[]]", "more than 4,000,000 values"), (b"PK\x03\x04", "not a notebook")])
def test_what_is_no_notebook_says_so_and_how_to_mend_it(content, says):
    with pytest.raises(BadSubmission, match=says) as caught:
        parse(content, "tensor.ipynb")
    assert str(caught.value).startswith("tensor.ipynb ")
    assert "submit again" in str(caught.value)


def test_only_regular_files_of_a_limited_size_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 1000)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert len(read_regular(tmp_path / "file", 1000)) == 1000
    for name, limit in [("file", 999), ("link", 1000), ("folder", 1000), ("pipe", 1000), ("absent", 1000), ("file/x", 1000)]:
        with pytest.raises(BadSubmission):
            read_regular(tmp_path / name, limit)
    with pytest.raises(BadSubmission):
        read_regular("/dev/zero")
