"""The record of progress: whole after a kill, right with two writers, forgiving to damage."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from course.tito import progress
from course.tito.failure import Failed
from tests.unit.tito_support import REPO

WRITER = """
import sys
from pathlib import Path
from course.tito import progress
folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(count):
    with progress.change(folder) as state:
        entry = state["modules"].setdefault(name, {"count": 0})
        entry["count"] += 1
        state["modules"].setdefault("both", {"count": 0})["count"] += 1
    print(number + 1, flush=True)
"""


def writer(folder, name: str, count: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), name, str(count)], stdout=subprocess.PIPE, text=True,
                            env={**os.environ, "PYTHONPATH": str(REPO)})


def test_two_terminals_write_at_once(tmp_path):
    writers = [writer(tmp_path, name, 60) for name in ("01", "02")]
    for process in writers:
        process.communicate(timeout=60)
        assert process.returncode == 0
    modules = progress.read(tmp_path)["modules"]
    assert (modules["01"]["count"], modules["02"]["count"], modules["both"]["count"]) == (60, 60, 120)


def test_kill_9_in_the_middle_loses_nothing(tmp_path):
    confirmed = 0
    chance = random.Random(0)
    for _ in range(8):
        process = writer(tmp_path, "01", 100_000)
        process.stdout.readline()
        time.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        written = process.communicate(timeout=30)[0].split()
        confirmed += 1 + len(written)                                       # the first line was read above
        state = json.loads((tmp_path / "progress.json").read_text())        # never half a file
        count = state["modules"]["01"]["count"]
        assert confirmed <= count <= confirmed + 1, "a change that was reported as done is there; one more may be"
        confirmed = count
    with progress.change(tmp_path) as state:                                # and the lock of the dead is free
        state["modules"]["01"]["count"] = 0


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"version": 99}', '{"version": 1, "modules": [], "checkpoints": {}}',
                                    '{"version": 1, "modules": {"01": 3}, "checkpoints": {}}', "\x00\xff"])
def test_damage_is_said_kept_and_survived(damage, tmp_path, capsys):
    (tmp_path / "progress.json").write_text(damage, encoding="latin-1")
    state = progress.read(tmp_path)
    assert state == {"version": 1, "modules": {}, "checkpoints": {}}
    said = capsys.readouterr().err
    copies = list(tmp_path.glob("progress-damaged-*.json"))
    assert "was damaged" in said
    assert copies[0].name in said
    assert copies[0].read_text(encoding="latin-1") == damage
    progress.read(tmp_path)
    assert (capsys.readouterr().err, len(list(tmp_path.glob("progress-damaged-*.json")))) == ("", 1), "told once"


def test_copies_do_not_overwrite_each_other(tmp_path, capsys):
    for text in ("one", "two", "three"):
        (tmp_path / "progress.json").write_text(text)
        progress.read(tmp_path)
    assert sorted(path.read_text() for path in tmp_path.glob("progress-damaged-*")) == ["one", "three", "two"]


def test_an_exception_in_the_middle_changes_nothing(tmp_path):
    with progress.change(tmp_path) as state:
        state["modules"]["01"] = {"completed": "yes"}
    def interrupted():
        with progress.change(tmp_path) as state:
            state["modules"].clear()
            raise RuntimeError
    with pytest.raises(RuntimeError):
        interrupted()
    assert "01" in progress.read(tmp_path)["modules"]
    assert not list(tmp_path.glob(".progress-*"))


def test_a_long_held_lock_is_a_clear_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.2)
    with progress.change(tmp_path), pytest.raises(Failed, match="another tito"), progress.change(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_a_clear_failure(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Failed, match="cannot record"), progress.change(tmp_path / "file"):
        pass
    (tmp_path / "state" / "progress.json").mkdir(parents=True)
    with pytest.raises(Failed, match="cannot be read"):
        progress.read(tmp_path / "state")


def test_reset_keeps_a_copy(tmp_path):
    assert progress.set_aside(tmp_path) is None
    with progress.change(tmp_path) as state:
        state["modules"]["01"] = {"completed": "yes"}
    copy = progress.set_aside(tmp_path)
    assert "01" in json.loads(copy.read_text())["modules"]
    assert progress.read(tmp_path)["modules"] == {}
