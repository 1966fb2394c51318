"""From a module's source to framework files, notebooks and editions: same input, same bytes; bad input, one clear error."""

import ast
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from course import curriculum
from course.build import editions, framework, leaks, nbgrader_settings, notebooks, pipeline, regions
from course.build.__main__ import main
from course.build.cells import Cell, SourceError, read_cells
from course.build.check import untouched
from course.build.export import export_notebook, write_atomically
from course.build.run import REPO
from tests.unit.sample_course import COUNTING, DATA, edit, refusal, sample  # noqa: F401  (the fixture)

SOURCE = DATA / COUNTING


def notebook_of(path: Path, folder: Path) -> Path:
    """The module's nbgrader source notebook as a file."""
    written = folder / "counting.ipynb"
    written.write_text(notebooks.text(notebooks.source_notebook(path)))
    return written


# ---- cells


def test_cells_know_their_line_in_the_source():
    lines = SOURCE.read_text().split("\n")
    for cell in read_cells(SOURCE):
        assert lines[cell.line - 2].startswith("# %%")
        first = lines[cell.line - 1] if cell.is_code else lines[cell.line - 1].removeprefix("# ")
        assert first == cell.source.split("\n")[0]


def test_a_notebook_and_its_source_have_the_same_cells(tmp_path):
    from_notebook = read_cells(notebook_of(SOURCE, tmp_path))
    assert [(c.kind, c.source, c.nbgrader) for c in from_notebook] == [(c.kind, c.source, c.nbgrader) for c in read_cells(SOURCE)]


@pytest.mark.parametrize(("content", "says"), [
    (b"{ not json", "line 1 is not JSON"),
    (b"", "is not JSON"),
    (b"[1, 2]", "not a notebook of format 4"),
    (b'{"worksheets": []}', "not a notebook of format 4"),
    (b'{"cells": [{"cell_type": "code"}]}', "not a notebook of format 4"),
    (b'{"cells": [7]}', "not a notebook of format 4"),
    (b"\xff\xfe\x00", "cannot be read"),
])
def test_what_is_not_a_notebook_gets_one_clear_error(tmp_path, content, says):
    path = tmp_path / "tensor.ipynb"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=re.escape(str(path)) + f".*{says}"):
        read_cells(path)


@settings(deadline=None)
@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(
    st.sampled_from(["cells", "cell_type", "source", "metadata", "nbgrader", "x"]), inner)))
def test_any_json_is_read_or_refused_without_a_traceback(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("any") / "any.ipynb"
    path.write_text(json.dumps(document))
    assert str(path) in refusal(SourceError, lambda: export_notebook(path))     # no random document has an exported cell


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere\.ipynb: there is no such file"):
        read_cells(tmp_path / "nowhere.ipynb")


def test_broken_metadata_and_stray_headers_are_refused_with_their_place(sample):  # noqa: F811
    path = edit(sample, '"grade_id": "guess-text"', '"grade_id": "guess-text')
    with pytest.raises(SourceError, match=r"line 102: the metadata .* not valid JSON"):
        read_cells(path)
    path = edit(sample, '    """The mean of a list of numbers."""', '    """The mean.\n\n# %% of a list\n    """',
                name="modules/source/01_counting/counting_dev.py")
    with pytest.raises(SourceError, match="keep '# %%' out of strings"):
        read_cells(path)


# ---- regions

code_lines = st.lists(st.sampled_from(
    ["def f(x):", "    return 1", "", "x = 1", "    # why", "### BEGIN SOLUTION", "    ### BEGIN SOLUTION", "### END SOLUTION",
     "    ### END SOLUTION", "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"]), max_size=12)


@settings(deadline=None)
@given(code_lines)
def test_clearing_a_cell_does_what_nbgrader_does(lines):
    from nbgrader.preprocessors import ClearHiddenTests, ClearSolutions
    from traitlets.config import Config

    source = "\n".join(lines)
    config = Config()
    nbgrader_settings.apply(config)
    theirs = nbformat.v4.new_code_cell(source)
    try:
        ClearSolutions(config=config)._replace_solution_region(theirs, "python")
        ClearHiddenTests(config=config)._remove_hidden_test_region(theirs)
    except RuntimeError:
        with pytest.raises(regions.RegionError):
            untouched(Cell(0, "code", source))
        return
    said = refusal(regions.RegionError, lambda: untouched(Cell(0, "code", source)))
    if said:
        assert re.fullmatch(r"END .* without BEGIN .*", said)      # passes nbgrader in silence; here it is an error
    else:
        assert untouched(Cell(0, "code", source)).source == theirs.source


@settings(deadline=None)
@given(code_lines)
def test_unmarking_removes_the_marker_lines_and_nothing_else(lines):
    source = "\n".join(lines)
    try:
        found = regions.regions(source)
    except regions.RegionError:
        return
    markers = {line for region in found for line in (region.first, region.last)}
    assert regions.unmark(source).split("\n") == ([line for n, line in enumerate(source.split("\n")) if n not in markers] or [""])


def test_a_region_knows_whose_it_is():
    window = next(cell for cell in read_cells(SOURCE) if cell.id == "window")
    assert [regions.owner(window.source, region) for region in regions.regions(window.source)] == ["Window.push", "Window.full"]


# ---- export


def test_the_export_runs_and_is_the_code_as_written():
    text = export_notebook(SOURCE)
    assert text.startswith('# Generated from ')
    assert "    total_of_all_values = math.fsum(values)\n" in text
    assert "SOLUTION" not in text
    assert "| export" not in text
    assert "test_" not in text
    namespace: dict = {}
    exec(text, namespace)
    assert namespace["mean"]([1, 2, 6]) == 3


def test_a_student_s_notebook_exports_the_same_code_under_its_own_header(tmp_path):
    folder = tmp_path / "modules" / "source" / "01_counting"
    folder.mkdir(parents=True)
    text = export_notebook(notebook_of(SOURCE, folder))
    header, _, code = text.partition("\n")
    assert header == '# Generated from modules/source/01_counting/counting.ipynb by "tito module export": edit it there.'
    assert code == export_notebook(SOURCE).partition("\n")[2]
    assert str(tmp_path) not in text


def exporting(folder: Path, *sources: str) -> Path:
    cells = [{"cell_type": "code", "metadata": {"nbgrader": {"grade_id": f"cell-{name}"}}, "source": source}
             for name, source in zip("abcdef", sources, strict=False)]
    path = folder / "mine.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    return path


def test_rules_of_ops_may_all_be_named_by_an_underscore(tmp_path):
    rule = "#| export\n@{0}.backward\ndef _(grad, out, x):\n    ### BEGIN SOLUTION\n    return grad\n    ### END SOLUTION"
    text = export_notebook(exporting(tmp_path, rule.format("mul"), rule.format("tanh") + "\n" + rule.format("exp").partition("\n")[2]))
    assert text.count("def _(grad, out, x):") == 3
    source = rule.format("tensor.mul")
    assert [regions.owner(source, region) for region in regions.regions(source)] == ["tensor.mul.backward"]


@pytest.mark.parametrize(("sources", "says"), [
    (["x = 1"], "no cell starts with '#| export'"),
    (["#| export\nx = 1", "#| export\ndef f(:\n    pass"], 'cell "cell-b", line 2: .*def f'),
    (["#| export\nif True:\nx = 1"], 'cell "cell-a", line 3: expected an indented block'),
    (["#| export\ndef f(): pass", "#| export\nclass f: pass"], 'cell "cell-b".*f is exported a second time; it is in cell "cell-a"'),
    (["#| export\ndef f():\n    ### BEGIN SOLUTION\n    pass"], "BEGIN SOLUTION without END SOLUTION"),
    (["#| export\nx = '\0'"], 'cell "cell-a"'),
])
def test_what_cannot_be_exported_is_named_by_cell_and_line(tmp_path, sources, says):
    with pytest.raises(SourceError, match=says):
        export_notebook(exporting(tmp_path, *sources))


def test_cells_of_only_a_directive_add_nothing(tmp_path):
    assert export_notebook(exporting(tmp_path, "#| export", "# | export\nx = 1\n", "\n#|export\ny = 2")).endswith("\n\nx = 1\n\n\ny = 2\n")


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "core" / "x.py"
    assert write_atomically(path, "one\n")
    assert not write_atomically(path, "one\n")

    def full(*_arguments):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "two\n")
    assert path.read_text() == "one\n"
    assert [p.name for p in path.parent.iterdir()] == ["x.py"]


# ---- notebooks


def test_the_source_notebook_is_valid_and_carries_nbgrader_s_metadata_only():
    notebook = notebooks.source_notebook(SOURCE)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(set(cell.metadata) <= {"nbgrader"} and not cell.get("outputs") for cell in notebook.cells)
    assert notebook.cells[3].id == "mean"


def test_cells_without_a_grade_id_keep_their_id_when_others_come(sample):  # noqa: F811
    path = sample / COUNTING
    path.write_text(path.read_text() + "\n# %%\n2 + 2\n\n# %%\n2 + 2\n")
    before = [cell.id for cell in notebooks.source_notebook(path).cells][-2:]
    path.write_text(path.read_text().replace("# %% nbgrader", "# %%\n3 + 3\n\n# %% nbgrader", 1))
    after = notebooks.source_notebook(path)
    assert [cell.id for cell in after.cells][-2:] == before
    assert len({cell.id for cell in after.cells}) == len(after.cells)


def test_both_notebooks_are_the_same_bytes_in_another_process():
    script = ("import sys, hashlib; from pathlib import Path; from course.build import notebooks as n; p = Path(sys.argv[1]);"
              "print(hashlib.sha256((n.text(n.source_notebook(p)) + n.text(n.release_notebook(p))).encode()).hexdigest())")
    hashes = {subprocess.run([sys.executable, "-c", script, str(SOURCE)], env={**os.environ, "PYTHONHASHSEED": seed}, cwd=REPO,
                             check=True, capture_output=True, text=True).stdout for seed in ("1", "2")}
    assert len(hashes) == 1


def test_the_release_is_what_nbgrader_generate_assignment_makes(tmp_path):
    source = tmp_path / "source" / "01_counting"
    source.mkdir(parents=True)
    notebook_of(SOURCE, source)
    (tmp_path / "nbgrader_config.py").write_text(
        "from course.build import nbgrader_settings\nc = get_config()\n"
        "c.CourseDirectory.course_id = 'sample'\nnbgrader_settings.apply(c)\n")
    environment = {**os.environ, "PYTHONPATH": str(REPO), "HOME": str(tmp_path), "JUPYTER_NO_CONFIG": "1",
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}       # nbgrader calls alembic by name
    made = subprocess.run([sys.executable, "-m", "nbgrader", "generate_assignment", "01_counting"], cwd=tmp_path, env=environment,
                          capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    theirs = (tmp_path / "release" / "01_counting" / "counting.ipynb").read_text()
    assert notebooks.text(notebooks.release_notebook(SOURCE)) == theirs.rstrip("\n") + "\n"


def test_an_untouched_notebook_raises_where_code_belongs():
    release = notebooks.release_notebook(SOURCE)
    mean = next(cell for cell in release.cells if cell.id == "mean")
    assert mean.source.endswith("    " + nbgrader_settings.CODE_STUB.split("\n")[1])
    assert nbgrader_settings.TEXT_STUB in release.cells[-1].source
    ours = [untouched(cell).source for cell in read_cells(SOURCE) if cell.is_code]
    assert ours == [cell.source for cell in release.cells if cell.cell_type == "code"]


def test_what_nbgrader_refuses_is_told_in_one_line(sample):  # noqa: F811
    path = edit(sample, '"grade_id": "test-guess"', '"grade_id": "test-mean"')
    with pytest.raises(SourceError, match="nbgrader's CheckCellMetadata refuses it"):
        notebooks.release_notebook(path)


# ---- editions


@pytest.fixture
def student(sample, tmp_path):  # noqa: F811
    """The student edition of the sample course, as a folder."""
    pipeline.build(lambda _line: None, folder=tmp_path / "build")
    return tmp_path / "build" / "editions" / "student"


def test_a_student_gets_what_is_needed_and_nothing_of_the_sources(student):
    names = set(editions.stored(student))
    assert {"bin/tito", "tinytorch/__init__.py", "tinytorch/core/__init__.py", "tinytorch/core/counting.py", "tinytorch/data/digits.npz",
            "course/curriculum.yml", "course/build/export.py", "course/modules/release/01_counting/counting.ipynb",
            "course/modules/release/01_counting/README.md", "course/modules/release/02_scaling/module.yaml"} <= names
    hidden = r"modules/source|wrong_solutions|_dev\.py|build/check\.py|framework\.py|tests/"
    assert [name for name in names if re.search(hidden, name)] == []
    assert os.access(student / "bin" / "tito", os.X_OK)


def test_other_users_can_read_an_edition_whatever_the_builder_s_umask(tmp_path):
    before = os.umask(0o077)
    try:
        editions.write({"a/b/c.py": b"x = 1"}, tmp_path / "student")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode)[-3:] for path in [tmp_path / "student", *(tmp_path / "student").rglob("*")]}
    assert modes.pop("c.py") == "644"
    assert modes.pop(next(name for name in modes if name.endswith(".pyc"))) == "644"
    assert set(modes.values()) == {"755"}


def test_no_file_of_the_student_edition_holds_a_solution_or_a_hidden_test(student, sample):  # noqa: F811
    hidden = leaks.secrets(cell for module in framework.available() for cell in read_cells(module.source))
    assert {"total_of_all_values = math.fsum(values)", "test_mean([1e16, 1.0, -1e16], 1 / 3)",
            "Outline. Ten times: each value is looked at once, and nothing else grows."} <= hidden
    everything = {str(path.relative_to(student)): path.read_bytes() for path in student.rglob("*") if path.is_file()}
    assert len(everything) > 20
    assert leaks.leaks(everything, hidden) == []


def test_a_leak_would_be_found_in_text_and_in_a_notebook():
    line = 'return "a line that is long enough"'
    tree = {"a.py": f"    {line}\n".encode(), "b.ipynb": json.dumps({"source": line}).encode(), "c.py": b"return 1"}
    assert [leak.split(":")[0] for leak in leaks.leaks(tree, {line})] == ["a.py", "b.ipynb"]


def in_edition(edition: Path, code: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TINYTORCH"))}
    return subprocess.run([sys.executable, "-P", "-c", code], cwd=edition.parent, env={**environment, "PYTHONPATH": str(edition)},
                          capture_output=True, text=True, timeout=60)


def test_stubs_keep_everything_that_is_given_and_say_where_the_rest_is_written(student):
    done = in_edition(student, """
import inspect
from tinytorch.core.counting import Window, mean
from tinytorch.core import scaling
assert mean.__doc__ == "The mean of a list of numbers."
assert str(inspect.signature(mean)) == "(values)"
window = Window(3)                       # given, works
for work in (lambda: mean([1]), window.full, lambda: scaling.centre([1])):
    try:
        work()
    except NotImplementedError as error:
        print(error)
""")
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        'mean() is yours to write: module 01_counting, then "tito module export 01"',
        'Window.full() is yours to write: module 01_counting, then "tito module export 01"',
        'centre() is yours to write: module 02_scaling, then "tito module export 02"']


def test_what_the_student_edition_imports_is_in_it(student):
    """Whatever a file of the edition imports of ours, lazily or not, is there."""
    authors_only = {"course.build.check"}       # `tito module validate` in a checkout, where the sources are
    missing = []
    for name, data in editions.stored(student).items():
        ours_alone = name.endswith(".py") and name.startswith("course/")
        for node in ast.walk(ast.parse(data)) if ours_alone else ():
            modules = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in modules:
                path = student / module.replace(".", "/")
                ours = module.split(".")[0] in ("course", "tinytorch", "hub", "autograder")
                if ours and module not in authors_only and not (path.is_dir() or path.with_suffix(".py").is_file()):
                    missing.append(f"{name}: {module}")
    assert missing == []


def test_tito_starts_from_the_student_edition_alone(student):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TINYTORCH"))}
    done = subprocess.run([sys.executable, "-P", str(student / "bin" / "tito"), "--help"], cwd=student.parent, env=environment,
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "module" in done.stdout


def test_while_a_module_is_graded_the_earlier_ones_are_the_reference(student):
    folder = student.parent / "grading"
    assert sorted(path.name for path in folder.iterdir() if path.name[0].isdigit()) == ["01_counting", "02_scaling"]
    first, second = editions.stored(folder / "01_counting"), editions.stored(folder / "02_scaling")
    assert b"is yours to write" in first["tinytorch/core/counting.py"]
    assert b"math.fsum" in second["tinytorch/core/counting.py"]
    assert b"is yours to write" in second["tinytorch/core/scaling.py"]
    assert not any(name.startswith("course") for name in second)


def test_a_running_server_never_sees_half_an_edition(tmp_path):
    folder = tmp_path / "editions" / "student"
    trees = [{f"f{n:03}.txt": text.encode() for n in range(100)} for text in ("old", "new")]
    editions.write(trees[0], folder)
    faults, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            handle = os.open(folder, os.O_RDONLY)
            names = os.listdir(handle)
            os.close(handle)
            if len(names) != 100:
                faults.append(len(names))

    watcher = threading.Thread(target=look)
    watcher.start()
    for turn in range(20):
        assert editions.write(trees[(turn + 1) % 2], folder)
    stop.set()
    watcher.join()
    assert faults == []
    assert len(list((folder.parent / ".old").iterdir())) == editions.PREDECESSORS
    assert sorted(p.name for p in folder.parent.iterdir()) == [".old", "student"]


def test_a_server_that_mounted_an_edition_keeps_it_whole(tmp_path):
    folder = tmp_path / "student"
    editions.write({"a": b"old"}, folder)
    mounted = os.open(folder, os.O_RDONLY)
    editions.write({"a": b"new"}, folder)
    with open(os.open("a", os.O_RDONLY, dir_fd=mounted), "rb") as file:
        assert file.read() == b"old"
    os.close(mounted)
    assert (folder / "a").read_bytes() == b"new"


def test_an_edition_that_cannot_be_completed_changes_nothing(tmp_path):
    folder = tmp_path / "student"
    editions.write({"a.py": b"x = 1"}, folder)
    with pytest.raises(Exception, match="invalid syntax"):
        editions.write({"a.py": b"x = ="}, folder)
    assert editions.stored(folder) == {"a.py": b"x = 1"}
    assert [p.name for p in tmp_path.iterdir()] == ["student"]


# ---- the whole build


def test_building_writes_everything_once_and_then_nothing(sample, tmp_path):  # noqa: F811
    said: list[str] = []
    build = tmp_path / "build"
    assert pipeline.build(said.append, folder=build)
    assert [line.split()[0] for line in said] == ["01_counting", "02_scaling", "student"]
    assert (build / "source/01_counting/counting.ipynb").is_file()
    assert (build / "release/02_scaling/scaling.ipynb").is_file()
    assert sorted(p.name for p in pipeline.CORE.iterdir()) == ["counting.py", "scaling.py"]
    first = editions.stored(build)
    began = time.perf_counter()
    assert not pipeline.build(said.append, folder=build)
    assert time.perf_counter() - began < 1
    assert pipeline.build(said.append, folder=build, force=True)
    assert editions.stored(build) == first


def test_a_damaged_output_is_made_again(sample, tmp_path):  # noqa: F811
    build = tmp_path / "build"
    pipeline.build(lambda _line: None, folder=build)
    for name in ("release/01_counting/counting.ipynb", "editions/student/tinytorch/core/counting.py"):
        (build / name).write_text("damaged")
        assert pipeline.build(lambda _line: None, folder=build)
        assert (build / name).read_text() != "damaged"
    (pipeline.CORE / "counting.py").write_text("damaged")
    assert pipeline.build(lambda _line: None, folder=build)
    assert "damaged" not in (pipeline.CORE / "counting.py").read_text()


def test_a_module_that_is_no_longer_ready_disappears(sample, tmp_path):  # noqa: F811
    build = tmp_path / "build"
    pipeline.build(lambda _line: None, folder=build)
    edit(sample, "export: scaling, ready: true", "export: scaling, ready: false", name="curriculum.yml")
    curriculum._document.cache_clear(), curriculum.modules.cache_clear()
    pipeline.build(lambda _line: None, folder=build)
    assert not [name for name in editions.stored(build) if "scaling" in name and "/.old/" not in name]
    assert [p.name for p in pipeline.CORE.iterdir()] == ["counting.py"]


def test_out_of_step_files_are_named(sample, tmp_path):  # noqa: F811
    assert pipeline.out_of_step() == ["counting.py", "scaling.py"]
    pipeline.build(lambda _line: None, folder=tmp_path / "build")
    assert pipeline.out_of_step() == []
    edit(sample, "return total_of_all_values", "return 1.0 * total_of_all_values")
    (pipeline.CORE / "gone.py").write_text(pipeline.MARK + "nothing")
    (pipeline.CORE / "dense.py").write_text('"""Written by hand."""\n')
    assert pipeline.out_of_step() == ["counting.py", "gone.py"]
    run = CliRunner().invoke(main, ["--check"])
    assert run.exit_code == 1
    assert run.output.splitlines() == [
        f'tinytorch/core/{name} is not what its source makes: run "python -m course.build"' for name in ("counting.py", "gone.py")]


def test_a_broken_source_stops_the_build_with_one_line(sample, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pipeline, "BUILD", tmp_path / "build")
    edit(sample, "return total_of_all_values", "return total_of_all_values / (")
    run = CliRunner().invoke(main, [])
    assert run.exit_code == 1
    assert re.fullmatch(r'build: .*counting_dev.py, cell "mean", line 39: .*\n', run.output)
    assert not (tmp_path / "build" / "stamp.json").exists()


def test_the_repository_s_framework_is_in_step_with_its_sources():
    assert pipeline.out_of_step() == []
