"""Names of modules and checkpoints as people type them, and the curriculum's own consistency."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course import curriculum
from course.curriculum import UnknownName, find_checkpoint, find_module
from tests.unit.sample_course import refusal


@pytest.mark.parametrize("text", ["02_tensor", "02", "2", "tensor", "Tensor", " tensor ", "tensor_dev", "02_tensor_dev"])
def test_every_spelling_of_a_module_finds_it(text):
    assert find_module(text).slug == "02_tensor"


def test_an_older_number_does_not_matter_when_the_name_is_known():
    assert find_module("00_setup").slug == "01_setup"


@pytest.mark.parametrize("text", ["03", "3", "components", "03_components", "checkpoint_03_components"])
def test_every_spelling_of_a_checkpoint_finds_it(text):
    assert find_checkpoint(text).number == "03"


@pytest.mark.parametrize(("text", "near"), [("tenser", "tensor"), ("2_tenser", "02_tensor"), ("activation", "activations")])
def test_an_unknown_module_gets_the_nearest_names(text, near):
    with pytest.raises(UnknownName, match=rf"{text}.*did you mean .*{near}"):
        find_module(text)


def test_an_unknown_checkpoint_gets_the_nearest_names_or_the_range():
    with pytest.raises(UnknownName, match=r"did you mean .*components"):
        find_checkpoint("component")
    with pytest.raises(UnknownName, match="they are 00 to 15"):
        find_checkpoint("xyzzy")


@pytest.mark.parametrize("find", [find_module, find_checkpoint])
@pytest.mark.parametrize("text", ["", "  "])
def test_no_name_is_not_the_first_one(find, text):
    with pytest.raises(UnknownName, match="which"):
        find(text)


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_finds_something_it_names_or_raises_one_clear_error(text):
    for find in (find_module, find_checkpoint):
        said = refusal(UnknownName, lambda find=find: find(text))
        if said:
            assert re.search(r"did you mean|Give its number or name|they are 00 to 15", said)
        else:
            found = find(text)
            named = (found.name, found.number, found.number.lstrip("0"))
            assert any(part in text.lower() for part in named if part) or int(text) == int(found.number)


def test_modules_and_checkpoints_are_numbered_without_gaps():
    assert [m.number for m in curriculum.modules()] == [f"{n:02}" for n in range(21)]
    assert [c.number for c in curriculum.checkpoints()] == [f"{n:02}" for n in range(16)]


def test_every_checkpoint_comes_after_modules_that_exist():
    numbers = {m.number for m in curriculum.modules()}
    assert all(c.after and set(c.after) <= numbers for c in curriculum.checkpoints())


@pytest.mark.parametrize("plan", [4, 8, 16])
def test_a_plan_gives_every_graded_module_a_week_in_teaching_order(plan):
    weeks = [curriculum.due_week(plan, m) for m in curriculum.modules() if m.graded]
    assert None not in weeks
    assert weeks == sorted(weeks)
    assert (weeks[0], weeks[-1]) == (1, plan)


def test_an_ungraded_module_has_no_due_week():
    assert [curriculum.due_week(16, m) for m in curriculum.modules() if not m.graded] == [None]


def test_ready_modules_and_checkpoints_are_here():
    assert [m.slug for m in curriculum.modules() if m.ready and not m.source.is_file()] == []
    assert [c.name for c in curriculum.checkpoints() if c.ready and not c.test.is_file()] == []
