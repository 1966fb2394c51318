"""Which framework a notebook is graded with: the assignment's own edition, read-only, and no other."""

import json

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from autograder import runner
from autograder.jobs import Job, sha256
from autograder.marks import nbgrader_plugin, placement


@pytest.fixture
def editions(tmp_path, monkeypatch):
    for name in ("02_tensor", "03_activations"):
        (tmp_path / name / "framework").mkdir(parents=True)
        (tmp_path / name / "framework" / "__init__.py").write_text(f"edition = {name!r}\n")
    monkeypatch.setenv("TINYTORCH_GRADING_EDITIONS", str(tmp_path))
    return tmp_path


def look(sandbox, code, **job):
    files = {runner.NOTEBOOK: json.dumps({"cells": [{"id": "a", "source": code}]}).encode()}
    result = runner.run(Job(kind="grade", inputs={path: sha256(content) for path, content in files.items()}, **job), files, sandbox)
    return json.loads(result.outputs["cells.json"])["a"]


CODE = ("import os\ntry:\n    import framework; print(framework.edition)\n    open(framework.__file__, 'w')\n"
        "except (ImportError, OSError) as error: print(type(error).__name__)\n"
        "print(sorted(name for _, names, files in os.walk('/opt') for name in [*names, *files]))")


def test_only_the_assignments_edition_is_there_and_read_only(sandbox, editions):
    (output,) = look(sandbox, CODE, edition="02_tensor", edition_hash=runner.hash_folder(editions / "02_tensor"))
    assert output["text"].splitlines()[:2] == ["02_tensor", "OSError"]
    assert "03_activations" not in output["text"]


def test_without_an_edition_there_is_none(sandbox, editions):
    (output,) = look(sandbox, CODE)
    assert output["text"] == "ModuleNotFoundError\n['autograder', 'crossing.py', 'run_notebook.py', 'template.py']\n"


@pytest.mark.parametrize(("job", "says"), [
    ({"edition": "02_tensor", "edition_hash": "0" * 64}, "is not the one that the job names"),
    ({"edition": "09_none"}, "no edition 09_none")])
def test_another_edition_than_the_jobs_is_refused(sandbox, editions, job, says):
    with pytest.raises(runner.BadJob, match=says):
        look(sandbox, CODE, **job)


def test_an_assignment_finds_its_edition_and_no_way_out_of_the_folder(editions):
    (editions.parent / "outside").mkdir(exist_ok=True)
    assert runner.find_edition("02_tensor") == editions / "02_tensor"
    assert [runner.find_edition(name) for name in ("09_none", "../outside", "..", ".", "02_tensor/framework")] == [None] * 5


def test_the_hash_is_that_of_the_content(editions):
    before = runner.hash_folder(editions / "02_tensor")
    (editions / "02_tensor" / "__pycache__").mkdir()
    (editions / "02_tensor" / "__pycache__" / "x.pyc").touch()
    assert runner.hash_folder(editions / "02_tensor") == before
    (editions / "02_tensor" / "framework" / "new.py").touch()
    assert runner.hash_folder(editions / "02_tensor") != before


def test_a_notebook_that_needs_the_framework_is_not_graded_without_it(editions):
    """All its tests would fail for want of an import, and every student would get 0."""
    cells = placement.cells([new_code_cell("from tinytorch.core.tensor import Tensor")], new_notebook(), {})
    with pytest.raises(nbgrader_plugin.Explained, match="there is no edition of it"):
        nbgrader_plugin.SandboxExecute().job(cells, None, "09_none", {})
    assert nbgrader_plugin.SandboxExecute().job(cells, None, "02_tensor", {})[0].edition == "02_tensor"
