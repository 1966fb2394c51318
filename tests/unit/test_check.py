"""The checker finds each breach of the teaching standard, says where it is, and is silent where there is none."""

import re

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from course.build import budgets, check, mutants, standard
from course.build.cells import Cell, read_cells
from course.build.check import check_module
from course.curriculum import find_module
from tests.unit.sample_course import COUNTING, DATA, edit, sample  # noqa: F401  (the fixture)

# The sample is too short for a real module; this is all that is wrong with it.
SHORT = re.compile(r"\d+ cells; 40 to 60|words in markdown|words per code line|2 TODOs; 5 to 8|the student writes 4 lines"
                   r"|\d wrong solutions, at least 8")


def findings(with_mutants: bool = False) -> list[str]:
    report = check_module(find_module("01"), with_mutants=with_mutants)
    return [error for error in report.errors if not SHORT.search(error)]


def test_the_sample_module_keeps_the_standard(sample):  # noqa: F811
    report = check_module(find_module("01"))
    assert [error for error in report.errors if not SHORT.search(error)] == []
    assert (report.points, report.counts.test_points, report.counts.manual_points) == (11, 11, 4)
    assert [(fate.wrong.cell, fate.killed_by, fate.problem) for fate in report.wrong] == [
        ("mean", "test-mean", ""), ("mean", "test-mean", ""), ("window", "test-window-push", "")]


# What an author may get wrong: (text of the source, what it becomes, what the checker says).
BREACHES = [
    ('"grade_id": "test-guess"', '"grade_id": "cell-3f9a"', "use lower-case words"),
    ('"grade_id": "measure"', '"grade_id": "guess"', "is used 2 times"),
    ('"grade_id": "mean", "locked": false', '"grade_id": "mean", "locked": true', '"locked": false'),
    ('"points": 6, "schema_version": 3', '"schema_version": 3', '"points" above 0'),
    ('"points": 6, "schema_version": 3', '"points": 6, "schema_version": 2', '"schema_version" must be 3'),
    (' nbgrader={"grade": false, "grade_id": "mean", "locked": false, "schema_version": 3, "solution": true, "task": false}', "",
     "lacks nbgrader"),
    ('"grade_id": "window", "locked": false, "schema_version": 3, "solution": true',
     '"grade_id": "window", "locked": true, "schema_version": 3, "solution": false', '"solution": true'),
    ("    ### BEGIN SOLUTION\n    total", "    total", "END SOLUTION without BEGIN SOLUTION"),
    ("    return total_of_all_values / len(values)\n    ### END SOLUTION", "    return total_of_all_values / len(values)",
     "BEGIN SOLUTION without END SOLUTION"),
    ("### BEGIN SOLUTION\nguess = 10.0", "### BEGIN SOLUTION\nguess = max(9, 10.0)", "outside of a function"),
    ("# ### TODO 1.1:", "# ### Task 1.1:", "must be its contract"),
    ("# How many values are there?", "# It is simply a sum.", "'simply' is a word"),
    ("# The mean of 1, 2 and 6 is 3.", "# The mean of 1, 2 and 6 is 3 \N{ROCKET}", "no emoji"),
    ("# The mean of 1, 2 and 6 is 3.", "# " + "word " * 91, "a paragraph of 91 words"),
    ('print(f"{mean([1, 2, 6])}; you said {guess}")', 'print("=" * 60, "==========", guess)', "contains the banner"),
    ('print(f"{mean([1, 2, 6])}; you said {guess}")', "import warnings; warnings.warn('slow')", "the reference warns: UserWarning: slow"),
    ('print(f"{mean([1, 2, 6])}; you said {guess}")', "1 / 0", "the reference fails, line 117: ZeroDivisionError"),
    ('print(f"{mean([1, 2, 6])}; you said {guess}")', "x = 1" + " + 1" * 40, "at most 140"),
    ("test_mean([1, 2, 6], 3.0)\n", "test_mean([1, 2, 6], 3.0)\nprint('passed')\n", "a test prints"),
    ("test_mean([1, 2, 6], 3.0)\n", "test_mean([1, 2, 6], 3.0)\nassert mean([1]) == 1\n", "an assert without a message"),
    ("test_full()\n", "", "test_full is never called"),
    ("test_mean([1, 2, 6], 3.0)\n", "test_mean([1, 2, 6], 4.0)\n", "the reference fails, line 45: the mean of [1, 2, 6] should be 4.0"),
    ("test_mean([1, 2, 6], 3.0)\n", "test_mean([1, 2, 6], 3.0) if len(str(mean)) < 0 else None\n", "passes in an untouched notebook"),
    ("test_mean([1, 2, 6], 3.0)\n", "undefined_name\n", "in an untouched notebook it should fail with NotImplementedError"),
    ("    def __init__(self, size):", "    size = mean([3])\n\n    def __init__(self, size):", "must run in an untouched notebook"),
    ("guess = 10.0", "answer = 10.0", "no prediction"),
    ('"grade_id": "answer", "locked": false, "points": 4,', '"grade_id": "answer", "locked": false, "points": 40,', "tests carry 11 of 51"),
    ("# **Question (4 points).** Explain your figure.", "# Outline. Ten times: each value is looked at once, and nothing else grows.",
     "students would see a solution"),
]


@pytest.mark.parametrize(("old", "new", "says"), BREACHES)
def test_each_breach_is_found(sample, old, new, says):  # noqa: F811
    edit(sample, old, new)
    found = findings()
    assert any(says in finding for finding in found), found
    assert all(re.match(r'counting_dev\.py|students|/|cell |.*: ', finding) for finding in found)


def test_a_finding_names_file_line_and_cell(sample):  # noqa: F811
    edit(sample, "# How many values are there?", "# It is simply a sum.")
    assert findings() == ['counting_dev.py:23 cell "mean-todo": \'simply\' is a word the standard forbids: say what is the case instead']


@pytest.mark.parametrize("line", ["%timeit mean([1])", "# %timeit mean([1])", "!ls"])
def test_magics_are_refused(sample, line):  # noqa: F811
    edit(sample, 'print(f"{mean([1, 2, 6])}; you said {guess}")', line)
    assert any("is not Python" in finding for finding in findings())


def cell_of(kind: str, source: str) -> Cell:
    return Cell(0, kind, source)


@pytest.mark.parametrize(("text", "shared"), [
    ("Use `np.maximum(0, x.data)`.", ["np.maximum(0, x.data)"]),
    ("Use <code>np.maximum( 0,x.data )</code>.", ["np.maximum(0, x.data)"]),
    ("Look up `np.maximum`; `x.data` is an array, `not Python (`.", []),
])
def test_an_answer_in_the_text_is_found_however_it_is_spaced(text, shared):
    solution = "def relu(x):\n    ### BEGIN SOLUTION\n    return np.maximum(0, x.data)\n    ### END SOLUTION"
    assert standard.shared_expressions(cell_of("markdown", text), cell_of("code", solution)) == shared


def test_a_module_without_its_other_files_is_told_so(sample):  # noqa: F811
    for name in ("README.md", "module.yaml", "wrong_solutions.yml"):
        (sample / COUNTING).with_name(name).unlink()
    found = findings()
    assert [finding.split(":")[0] for finding in found] == ["README.md", "module.yaml", "wrong_solutions.yml"]


@pytest.mark.parametrize(("old", "new", "says"), [
    ("minutes: 120", "minutes: 20", "20 minutes; 120 to 180"),
    ("minutes: 120", "minutes: long", "'minutes' must be given as int"),
    ("exports: [mean, Window]", "exports: [mean, Door]", "exports 'Door', but no exported cell defines it"),
    ("prerequisites: []", 'prerequisites: ["07"]', "prerequisite '07' is not the number of an earlier module"),
    ("minutes: 120", "minutes: [", "not YAML"),
])
def test_module_yaml_is_checked(sample, old, new, says):  # noqa: F811
    edit(sample, old, new, name="modules/source/01_counting/module.yaml")
    assert any(says in finding for finding in findings())


# ---- wrong solutions

WRONG = "modules/source/01_counting/wrong_solutions.yml"


@pytest.mark.parametrize(("entry", "says"), [
    ("{cell: mean, why: right in another way, body: 'return math.fsum(v / len(values) for v in [3 * x for x in values]) / 3', says: x}",
     "it survives every test"),
    ("{cell: mean, why: says something else, body: return 0, says: seven}", "which does not contain 'seven'"),
    ("{cell: mean, why: is not Python, body: 'return (', says: x}", "its own cell fails (SyntaxError"),
    ("{cell: mean, why: never ends, body: 'while True: pass', says: x}", "no test caught it, ran longer than 10 seconds"),
    ("{cell: mean, why: kills Python, body: 'import os; os._exit(1)', says: x}", "no test caught it, the interpreter crashed"),
    ("{cell: median, why: unknown, body: return 0, says: x}", "there is no solution cell 'median'"),
    ("{cell: test-mean, why: a test, body: return 0, says: x}", "there is no solution cell 'test-mean'"),
    ("{cell: mean, region: 2, why: no such region, body: return 0, says: x}", "has 1 regions, not 2"),
    ("{cell: mean, why: no message, body: return 0}", "needs a text for says"),
    ("{cell: mean, why: a number, body: return 0, says: 3}", "says: put quotes around it"),
    ("{cell: mean, why: odd, body: return 0, says: x, line: 3}", "unknown key line"),
    ("{cell: mean, why: twice, body: return math.fsum(values), says: yours is 9.0}", "the same wrong solution 2 times"),
    ("just text", "must have cell, why, body, says"),
    ("{cell: [", "not YAML"),
])
def test_a_wrong_solution_that_does_not_die_as_it_should_is_named(sample, entry, says):  # noqa: F811
    (sample / WRONG).write_text((sample / WRONG).read_text() + f"- {entry}\n")
    found = findings(with_mutants=True)
    assert len(found) == 1, found
    assert says in found[0]
    assert "wrong_solutions.yml" in found[0] or 'cell "mean"' in found[0]


def test_an_empty_file_of_wrong_solutions_is_no_list(sample):  # noqa: F811
    (sample / WRONG).write_text("")
    assert findings() == ["wrong_solutions.yml: must be a list of entries with cell, why, body, says"]


def test_tests_may_not_use_what_only_a_demonstration_defines(sample):  # noqa: F811
    edit(sample, 'print(f"{mean([1, 2, 6])}; you said {guess}")', "helper = mean")
    path = sample / COUNTING
    header = next(line for line in path.read_text().split("\n") if '"test-guess"' in line).replace("test-guess", "test-late")
    path.write_text(path.read_text() + f"\n{header}\nassert helper([4]) == 4, 'helper gives something else'\n")
    (finding,) = findings(with_mutants=True)
    assert finding == ('cell "test-late" fails when only import, exported, solution and test cells run: '
                       "NameError: name 'helper' is not defined. Tests may only use names from those")


# ---- counting


def test_the_counts_of_the_sample():
    counts = budgets.count(read_cells(DATA / COUNTING))
    assert counts.cells == 15
    assert counts.todo_lines == (2, 2)
    assert (counts.student_lines, counts.exported_by_student, counts.exported_lines) == (4, 4, 12)


def test_code_lines_are_lines_with_code():
    source = '"""About\nthis."""\n# why\nx = [1,\n     2]\n\ndef f():\n    """Short."""\n    return """a\nb"""  # so\n'
    assert budgets.code_lines(source) == {4, 5, 7, 9, 10}


def test_words_and_paragraphs_of_markdown():
    text = ("## A title here\n\nOne *two* `three`.\nFour [five](http://a.b/c) <b>six</b>\n\n| a | b |\n|---|---|\n\n"
            "- seven\n- eight nine\n\n$$x + y$$\n\n```\ncode x\n```")
    assert budgets.words(text) == ["A", "title", "here", "One", "*two*", "`three`.", "Four", "five", "six", "a", "b",
                                   "seven", "eight", "nine"]
    assert [len(budgets.words(paragraph)) for paragraph in budgets.paragraphs(text)] == [6, 1, 2, 0]       # the last is the formula


def counts(**changed) -> budgets.Counts:
    good = {"cells": 50, "words": 1800, "code_lines": 150, "todo_lines": (3, 4, 5, 6, 7, 11), "student_lines": 36,
            "exported_by_student": 30, "exported_lines": 90, "test_points": 30, "manual_points": 10}
    return budgets.Counts(**{**good, **changed})


def test_a_module_within_its_budgets_has_no_finding():
    assert budgets.over_budget(counts(), "03") == []


@pytest.mark.parametrize(("changed", "says"), [
    ({"cells": 39}, "39 cells"), ({"cells": 61}, "61 cells"), ({"words": 1199}, "1199 words"), ({"words": 2501}, "2501 words"),
    ({"code_lines": 80}, "22.50 words per code line"), ({"code_lines": 250}, "7.20 words per code line"),
    ({"todo_lines": (3,) * 4}, "4 TODOs"), ({"todo_lines": (3,) * 9}, "9 TODOs"), ({"todo_lines": (7,) * 6}, "the median"),
    ({"todo_lines": (1, 1, 1, 1, 13, 13)}, "nine of ten"), ({"todo_lines": (1, 1, 1, 1, 1, 16)}, "a TODO of 16 lines"),
    ({"student_lines": 29}, "29 lines; 30"), ({"student_lines": 81}, "81 lines; 30"),
    ({"exported_by_student": 22}, "22 of 90 exported lines (24%)"), ({"test_points": 23}, "70%"), ({"test_points": 41}, "80%"),
    ({"test_points": 0, "manual_points": 0}, "0 of 0 points"),
])
def test_each_budget_is_kept(changed, says):
    found = budgets.over_budget(counts(**changed), "03")
    assert any(says in finding for finding in found), found


def test_the_walk_through_the_graph_may_be_longer():
    assert any("a TODO of 20 lines" in finding for finding in budgets.over_budget(counts(todo_lines=(1,) * 7 + (20,)), "03"))
    assert not any("a TODO of" in finding for finding in budgets.over_budget(counts(todo_lines=(1,) * 7 + (20,)), "06"))


@settings(deadline=None)
@given(st.text())
def test_any_text_can_be_counted(text):
    cell = Cell(0, "code", text)
    assert len(budgets.code_lines(text)) <= len(text.splitlines()) + 1
    assert budgets.words(text) == [word for paragraph in [text] for word in budgets.words(paragraph)]
    assert mutants.answers(cell) == set()


# ---- the command


def test_the_command_prints_a_table_and_fails_when_there_are_errors(sample):  # noqa: F811
    run = CliRunner().invoke(check.main, ["1", "--mutants"])
    assert run.exit_code == 1
    assert "3 of 3 die with the right message" in run.output
    assert "error: counting_dev.py: 15 cells; 40 to 60 are allowed" in run.output
    assert "01_counting: 7 errors, 0 warnings" in run.output


def test_the_command_says_what_it_does_not_know(sample):  # noqa: F811
    run = CliRunner().invoke(check.main, ["tensr"])
    assert run.exit_code == 2
    run = CliRunner().invoke(check.main, ["03"])
    assert run.exit_code == 1
    assert "there is no" in run.output
