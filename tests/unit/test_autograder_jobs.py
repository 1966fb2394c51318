"""A job is its content: the same content has the same id, anything else another; nonsense is refused."""

import pytest
from pydantic import ValidationError

from autograder import runner
from autograder.jobs import Job, Limits, Result, Usage, Verdict, differences, sha256, stopped

EMPTY = sha256(b"")
JOB = {"kind": "grade", "inputs": {"a": EMPTY, "b/c": sha256(b"x")}}


def test_the_id_is_the_content():
    assert Job(**JOB).id == Job(**JOB, seed=0, limits=Limits()).id == Job(kind="grade", inputs=dict(reversed(JOB["inputs"].items()))).id


@pytest.mark.parametrize("change", [
    {"kind": "train"}, {"inputs": {"a": EMPTY}}, {"inputs": {**JOB["inputs"], "a": sha256(b"y")}}, {"edition": "02_tensor"},
    {"edition_hash": EMPTY}, {"image": "sha256:1"}, {"target": "01"}, {"seed": 1}, {"limits": Limits(memory_mb=100)}])
def test_whatever_can_change_the_result_changes_the_id(change):
    assert Job(**{**JOB, **change}).id != Job(**JOB).id


def test_the_id_of_a_job_without_a_target_is_what_it_was_before_there_were_targets():
    """Results that are stored under it are found again."""
    assert Job(kind="grade", inputs={"a": EMPTY}).id == "e05d5ba19fe044d6a8eab91b47aae6f80178e6914d5c863d042f25a7bd09a6c2"


def test_a_job_that_waited_while_the_course_was_built_anew_runs_with_its_own_edition(tmp_path, monkeypatch):
    new, old = tmp_path / "student", tmp_path / ".old" / "student.1"
    for folder, text in ((new, "new"), (old, "old")):
        folder.mkdir(parents=True)
        (folder / "a.py").write_text(text)
    monkeypatch.setenv("TINYTORCH_STUDENT_EDITION", str(new))
    for folder in (new, old):
        assert runner.edition_folder(Job(**JOB, edition="student", edition_hash=runner.hash_folder(folder))) == folder
    with pytest.raises(runner.BadJob, match="built anew"):
        runner.edition_folder(Job(**JOB, edition="student", edition_hash=EMPTY))


def test_results_differ_by_what_does_not_measure():
    one = Result(job=EMPTY, verdict=Verdict.ok, output_hashes={"result.json": EMPTY, "measured.json": EMPTY})
    assert differences(one, one.model_copy(update={"output_hashes": {"result.json": EMPTY, "picture.png": sha256(b"x")}})) == []
    assert differences(one, one.model_copy(update={"output_hashes": {}, "verdict": Verdict.error})) == ["verdict", "result.json"]


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../x", "a/../b", "a//b", "./a", "a\0b", "a\nb", "x" * 500, "a/"])
def test_only_plain_relative_paths(path):
    with pytest.raises(ValidationError, match="relative path"):
        Job(kind="grade", inputs={path: EMPTY})


@pytest.mark.parametrize("change", [
    {"kind": "shell"}, {"inputs": {}}, {"inputs": {"a": "x"}}, {"edition": "../x"}, {"edition": "a/b"}, {"seed": -1}, {"argv": ["sh"]},
    {"limits": {"memory_mb": 0}}, {"limits": {"memory": 1}}, {"limits": {"cpu_seconds": float("inf")}},
    {"limits": {"wall_seconds": float("nan")}}])
def test_nonsense_is_refused(change):
    with pytest.raises(ValidationError):
        Job.model_validate({**JOB, **change})


def test_a_result_survives_its_trip_as_json():
    result = Result(job=EMPTY, verdict=Verdict.memory, sentence="x", outputs={"a": bytes(range(256))}, usage=Usage(pids=3))
    assert Result.model_validate_json(result.model_dump_json()) == result


def test_budgets_run_out():
    limits = Limits(cpu_seconds=10, wall_seconds=20)
    assert limits.minus(Usage(cpu_seconds=4, wall_seconds=5)) == limits.model_copy(update={"cpu_seconds": 6, "wall_seconds": 15})
    assert limits.minus(Usage(cpu_seconds=9.8)) is None
    assert limits.minus(Usage(wall_seconds=21)) is None


@pytest.mark.parametrize(("verdict", "sentence"), [
    ("cpu", "used 12 s of CPU, limit 10 s"), ("timeout", "ran for 20.3 s, limit 20 s"), ("memory", "used 130 MB of memory, limit 128 MB"),
    ("pids", "wanted more than 64 processes and threads at once, limit 64"), ("output", "wrote more than 8192 kB of output, limit 8192 kB"),
    ("disk", "filled 64 MB of disk, limit 64 MB"), ("ok", "")])
def test_the_sentence_names_limit_and_excess(verdict, sentence):
    limits, usage = Limits(cpu_seconds=10, wall_seconds=20, memory_mb=128), Usage(cpu_seconds=12, wall_seconds=20.3, memory_mb=129.5)
    assert stopped(Verdict(verdict), limits, usage) == sentence
