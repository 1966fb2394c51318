"""The sources of a class: a newer build takes the place of an older one, but never of what an instructor wrote."""

import json

import pytest

from autograder.quotas import Quotas
from course import curriculum
from hub import courses, paths
from hub.config import documents
from hub.config.site import Site

SLUG = next(m for m in curriculum.modules() if m.ready).slug


def notebook(*sources, **extra):
    cells = [{"cell_type": "code", "source": text, "metadata": {"nbgrader": {"grade_id": f"c{n}", "points": 1}}, "outputs": [],
              "execution_count": None} for n, text in enumerate(sources)]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **extra}


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Builds a notebook, brings the class up to date, and returns what was said and what the class's source is then."""
    monkeypatch.setattr(paths, "BUILD", tmp_path / "build")
    root = tmp_path / "ml101"
    (root / "source").mkdir(parents=True)
    there = root / "source" / SLUG / "x.ipynb"

    def build(made):
        file = paths.BUILD / "source" / SLUG / "x.ipynb"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(made if isinstance(made, str) else json.dumps(made))
        return courses.put_sources(root), there

    return build


def test_a_newer_build_takes_the_place_of_an_older_one(built):
    assert built(notebook("a"))[0] == []
    said, there = built(notebook("b"))
    assert said == []
    assert json.loads(there.read_text()) == notebook("b")


def look_at(there):
    """What Lab saves when a notebook was opened and run: outputs, numbers, its own metadata, lines as a list."""
    seen = json.loads(there.read_text())
    seen["metadata"] = {"kernelspec": {"name": "python3"}}
    for number, cell in enumerate(seen["cells"]):
        cell |= {"execution_count": number, "source": [cell["source"]], "id": f"x{number}"}
        cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "1"}]
        cell["metadata"]["trusted"] = True
    there.write_text(json.dumps(seen, indent=1))


def test_a_source_that_was_only_looked_at_still_follows_the_build(built):
    _, there = built(notebook("a"))
    look_at(there)
    said, _ = built(notebook("b"))
    assert said == []
    assert json.loads(there.read_text()) == notebook("b")


@pytest.mark.parametrize("edit", [
    lambda cells: cells[0].update(source="mine"), lambda cells: cells.pop(), lambda cells: cells.reverse(),
    lambda cells: cells[0].update(cell_type="raw"), lambda cells: cells[0]["metadata"]["nbgrader"].update(points=5)])
def test_what_an_instructor_wrote_stays(built, edit):
    _, there = built(notebook("a", "b"))
    mine = notebook("a", "b")
    edit(mine["cells"])
    there.write_text(json.dumps(mine))
    said, _ = built(notebook("c"))
    assert said == [f"ml101: source/{SLUG}/x.ipynb was edited here and stays as it is"]
    assert json.loads(there.read_text()) == mine


@pytest.mark.parametrize("text", ["not a notebook", "[]", '{"cells": [1]}', '{"cells": [{"cell_type": "code"}]}'])
def test_what_is_no_notebook_is_compared_byte_by_byte(built, text):
    _, there = built(notebook("a"))
    there.write_text(text)
    assert len(built(notebook("b"))[0]) == 1
    assert there.read_text() == text


def test_the_autograder_reads_the_quotas_that_classes_yml_says(tmp_path):
    """In its own units: seconds and MB."""
    site = Site.load(Site.example_path)
    (tmp_path / "quotas.json").write_text(json.dumps(documents.quotas(site)))
    quotas = Quotas(tmp_path / "quotas.json")
    assert quotas.all().keys() == {"ml101", "ml201"}
    quota, asked = quotas.of("ml101"), site.class_("ml101").autograder
    assert (quota.cpu_seconds_per_day, quota.cpu_seconds, quota.memory_mb) == (3600, 900, 2048)
    assert (quota.jobs_per_day, quota.parallel, quota.queued, quota.keep_days) == (
        asked.jobs_per_day, asked.parallel, asked.queued, asked.keep_days)
    assert quota.largest.memory_mb == 2048
