"""The version of a tree: the same files say the same, other files another, and each can be an image's tag."""

import os
import re
import shutil
import subprocess

import pytest

from hub import version

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A small checkout with one commit."""
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "one.py").write_text("1\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / ".gitignore").write_text("/hub/made\n")
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    monkeypatch.setattr(version, "REPO", tmp_path)
    monkeypatch.delenv("TINYTORCH_VERSION", raising=False)
    return tmp_path


def test_a_commit_has_one_version(tree):
    said = version.version()
    commit = subprocess.run(["git", "-C", tree, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert said == f"1.2.3-1.g{commit[:10]}"
    assert TAG.fullmatch(said)
    (tree / "hub" / "made").write_text("ignored")
    (tree / "notes.txt").write_text("goes into no image")
    assert version.version() == said


def test_what_nobody_committed_makes_another_version_by_its_content(tree):
    committed = version.version()
    (tree / "hub" / "two.py").write_text("2\n")
    two = version.version()
    assert two.startswith(committed + ".d")
    assert TAG.fullmatch(two)
    (tree / "hub" / "two.py").write_text("3\n")
    assert version.version() not in (committed, two)
    (tree / "hub" / "two.py").write_text("2\n")
    assert version.version() == two
    (tree / "hub" / "two.py").chmod(0o755)
    assert version.version() != two
    (tree / "hub" / "two.py").unlink()
    assert version.version() == committed


def test_a_tree_without_git_has_the_version_of_its_files(tree):
    shutil.rmtree(tree / ".git")
    said = version.version()
    assert re.fullmatch(r"1\.2\.3-tree\.[0-9a-f]{10}", said)
    (tree / "hub" / "__pycache__").mkdir()
    (tree / "hub" / "__pycache__" / "one.pyc").write_text("made")
    assert version.version() == said
    (tree / "hub" / "one.py").write_text("other\n")
    assert version.version() != said


def test_inside_an_image_it_is_the_image_s(tree, monkeypatch):
    monkeypatch.setenv("TINYTORCH_VERSION", "9.9")
    assert version.version() == "9.9"


def test_make_and_the_package_print_it():
    done = subprocess.run(["python3", "-m", "hub.version"], cwd=version.REPO, capture_output=True, text=True, check=True,
                          env={name: value for name, value in os.environ.items() if name != "TINYTORCH_VERSION"})
    assert TAG.fullmatch(done.stdout.strip())
