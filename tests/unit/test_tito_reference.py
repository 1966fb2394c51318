"""`tito module start NN --reference`: offered when the class has opened it, and a student's own work is never lost."""

import pytest

from tests.unit.tito_support import REPO


@pytest.fixture
def opened(tmp_path):
    """What a hub shows of a class that has opened module 02."""
    folder = tmp_path / "reference"
    folder.mkdir()
    (folder / "tensor.py").write_bytes((REPO / "tinytorch" / "core" / "tensor.py").read_bytes())
    return {"TINYTORCH_REFERENCE": str(folder)}


def test_it_is_offered_only_where_it_is_open(student, opened):
    assert "--reference" in student.tito("module", "start", "02", **opened).stdout
    assert "--reference" not in student.tito("module", "start", "01", **opened).stdout
    refused = student.tito("module", "start", "01", "--reference", **opened)
    assert refused.returncode == 1
    assert "the reference of 01_setup is not open" in refused.stderr
    assert not (student.home / "tinytorch" / "core" / "utils.py").exists()


def test_what_the_student_wrote_is_kept_and_can_come_back(student, opened):
    student.tito("module", "start", "02", **opened)
    mine = student.home / "tinytorch" / "core" / "tensor.py"
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text("MINE = 1\n")
    done = student.tito("module", "start", "02", "--reference", **opened)
    assert done.returncode == 0, done.stderr
    assert mine.read_bytes() == (REPO / "tinytorch" / "core" / "tensor.py").read_bytes()
    [kept] = (student.home / ".tito" / "replaced").glob("tensor-*.py")
    assert kept.read_text() == "MINE = 1\n"
    assert str(kept.relative_to(student.home)) in done.stdout
    student.tito("module", "start", "02", "--reference", **opened)
    assert len(list((student.home / ".tito" / "replaced").iterdir())) == 1


def test_status_and_doctor_know_it(student, opened):
    student.tito("module", "start", "02", "--reference", **opened)
    student.tito("module", "start", "02", **opened)
    assert "exported (the reference)" in student.tito("module", "status", **opened).stdout
    assert student.tito("system", "doctor", **opened).returncode == 0
