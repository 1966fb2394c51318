"""Fixtures of the unit tests: a student edition, built once, and students who work in it."""

import json

import pytest

from tests.unit.tito_support import Student, releases


@pytest.fixture(scope="session")
def edition(tmp_path_factory):
    """A fresh student edition, as a student's server has it; nothing in the checkout is written."""
    from course.build import editions
    folder = tmp_path_factory.mktemp("edition") / "student"
    editions.write(editions.student({slug: json.dumps(notebook) for slug, notebook in releases().items()}), folder)
    return folder


@pytest.fixture
def student(edition, tmp_path) -> Student:
    """Somebody with an empty workspace."""
    return Student(edition, tmp_path / "home")
