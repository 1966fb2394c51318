"""A course of two small modules in a temporary folder, in the place of the real one, for the tests of the build."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from course import curriculum
from course.build import pipeline

DATA = Path(__file__).parent / "data" / "sample_course"
COUNTING = "modules/source/01_counting/counting_dev.py"


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The sample course's folder; `curriculum` and everything that is built from it mean this course."""
    room = tmp_path / "course"
    shutil.copytree(DATA, room)
    monkeypatch.setattr(curriculum, "ROOM", room)
    monkeypatch.setattr(pipeline, "CORE", tmp_path / "core")
    (tmp_path / "core").mkdir()
    _forget()
    yield room
    _forget()


def _forget() -> None:
    for cached in (curriculum._document, curriculum.modules, curriculum.checkpoints):
        cached.cache_clear()


def refusal(kind: type[Exception], work: Callable[[], object]) -> str:
    """What `work` is refused with, "" if it is not; other exceptions pass through."""
    try:
        work()
    except kind as error:
        return str(error) or kind.__name__
    return ""


def edit(room: Path, old: str, new: str, name: str = COUNTING) -> Path:
    """Replace a text that occurs once in a file of the course."""
    path = room / name
    text = path.read_text()
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times in {name}"
    path.write_text(text.replace(old, new))
    return path
