"""The seam to nbgrader: outputs that it reads as points, files that it would follow, settings that it must take over."""

import os

import nbformat
import nbgrader.preprocessors
import pytest
from traitlets.config import Config

from autograder.marks import nbgrader_plugin as plugin


def result(text):
    return {"output_type": "execute_result", "data": {"text/plain": text}, "metadata": {}, "execution_count": None}


@pytest.mark.parametrize("text", ["0", "1.5", "2"])
def test_a_number_within_the_points_is_partial_credit(text):
    assert plugin.graded_output(result(text), 2) == result(text)


@pytest.mark.parametrize("text", ["-1", "2.1", "1e9", "inf", "nan"])
def test_a_number_outside_fails_the_cell_and_not_the_submission(text):
    output = plugin.graded_output(result(text), 2)
    assert (output["output_type"], output["ename"]) == ("error", "PartialCredit")


def test_other_values_are_shown_and_count_nothing():
    assert plugin.graded_output(result("[1, 2]"), 2)["output_type"] == "display_data"


def test_stderr_of_a_test_becomes_stdout():
    assert plugin.graded_output({"output_type": "stream", "name": "stderr", "text": "x"}, 2) == {
        "output_type": "stream", "name": "stdout", "text": "x"}


def test_notes_are_one_cell_that_fits_the_format():
    old, new = nbformat.v4.new_notebook(), nbformat.v4.new_notebook()
    old.nbformat_minor = 4
    for notebook in (old, new):
        plugin.add_notes(notebook, [])
        assert notebook.cells == []
        plugin.add_notes(notebook, ["one"])
        plugin.add_notes(notebook, ["two"])
        assert [cell.source for cell in notebook.cells] == ["**Notes of the autograder**\n\n- one\n- two\n"]
        nbformat.validate(notebook)


def test_links_and_devices_are_set_aside(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "kept.csv").touch()
    (tmp_path / "work.ipynb").touch()
    (tmp_path / "sub" / "link.csv").symlink_to("/etc/passwd")
    (tmp_path / "dangling").symlink_to("/nonexistent")
    (tmp_path / "folder").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    for _ in range(2):                                                     # grading again finds them aside already
        plugin.set_links_aside("ps1", "ada", [str(tmp_path / "work.ipynb")])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "dangling.left-out", "folder.left-out", "pipe.left-out", "sub", "sub/kept.csv", "sub/link.csv.left-out", "work.ipynb"]
    assert (tmp_path / "sub" / "link.csv.left-out").is_symlink()


def test_configure_takes_the_three_places_and_keeps_the_sites_ignore_list():
    c = Config()
    c.CourseDirectory.ignore = [".*"]
    plugin.configure(c)
    assert c.CourseDirectory.ignore == [".*", "*.left-out"]
    assert c.Autograde.autograde_preprocessors[0] == "autograder.marks.nbgrader_plugin.SandboxExecute"
    assert not any("Execute" in name for name in c.Autograde.autograde_preprocessors[1:])
    assert c.Autograde.exporter_class == "autograder.marks.nbgrader_plugin.SubmissionExporter"


def test_extra_files_within_the_caps(tmp_path):
    (tmp_path / "work.ipynb").touch()
    (tmp_path / "timestamp.txt").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.csv").write_text("1")
    (tmp_path / "big").write_bytes(bytes(plugin.MAX_FILES_BYTES + 1))
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert dict(plugin.SandboxExecute().extra_files(tmp_path)) == {"files/sub/a.csv": b"1"}
    for number in range(plugin.MAX_FILES + 10):
        (tmp_path / f"n{number}").touch()
    assert len(dict(plugin.SandboxExecute().extra_files(tmp_path))) == plugin.MAX_FILES


META = {"schema_version": 3, "grade": True, "solution": False, "locked": True, "task": False, "grade_id": "a", "points": 1,
        "cell_type": "code"}


@pytest.mark.parametrize("wrong", [{}, {"points": "many"}, {"points": -1}, {"grade": "yes"}, {"grade_id": "a b"}, {"grade_id": None},
                                   {"schema_version": 1}, {"schema_version": 4}, {"checksum": 3}, {"unknown": 1}])
def test_metadata_are_refused_as_by_nbgrader(wrong):
    """Its own preprocessor is the oracle."""
    def says(preprocessor):
        cell = nbformat.v4.new_code_cell("1", metadata={"nbgrader": {**META, **wrong}})
        try:
            preprocessor().preprocess(nbformat.v4.new_notebook(cells=[cell]), {})
        except Exception as error:
            return type(error).__name__, str(error)
        return "right"
    theirs = says(nbgrader.preprocessors.CheckCellMetadata)
    assert says(plugin.CheckCellMetadata) == theirs
    assert (theirs == "right") == (not wrong)
