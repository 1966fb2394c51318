"""What the tests of tito share: a student edition built for them, workspaces in it, and notebooks as a student leaves them."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


@cache
def releases() -> dict[str, dict]:
    """The release notebooks by slug."""
    from course.build import framework, notebooks
    return {m.slug: json.loads(notebooks.text(notebooks.release_notebook(m.source))) for m in framework.available()}


@cache
def solved(slug: str) -> str:
    """The release notebook with every solution written in: what a good student hands in."""
    from course.build import notebooks, regions
    from course.curriculum import find_module
    source = json.loads(notebooks.text(notebooks.source_notebook(find_module(slug).source)))
    solutions = {cell["metadata"]["nbgrader"]["grade_id"]: cell["source"] for cell in source["cells"]
                 if cell["metadata"].get("nbgrader", {}).get("solution")}
    notebook = json.loads(json.dumps(releases()[slug]))
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if grade_id in solutions:
            text = solutions[grade_id]
            cell["source"] = regions.unmark(text if isinstance(text, str) else "".join(text))
    return json.dumps(notebook)


def tiny(assertion: str) -> str:
    """A notebook of one test cell, for what does not depend on a module's content."""
    nbgrader = {"grade": True, "grade_id": "test-tiny", "locked": True, "points": 2, "schema_version": 3, "solution": False, "task": False}
    cell = {"cell_type": "code", "id": "test-tiny", "metadata": {"nbgrader": nbgrader}, "source": assertion, "outputs": [],
            "execution_count": None}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def without_ours() -> dict[str, str]:
    """The environment of these tests without what a server of the course would set."""
    ours = ("TINYTORCH_", "TITO_", "JUPYTER", "NGSHARE", "COURSE_", "AUTOGRADER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


class Student:
    """A workspace and the edition's own `bin/tito`, run as a student runs it."""

    def __init__(self, edition: Path, home: Path):
        self.edition, self.home = edition, home
        home.mkdir(parents=True, exist_ok=True)

    def environment(self, **more: str) -> dict[str, str]:
        return {**without_ours(), "HOME": str(self.home), "TINYTORCH_WORKSPACE": str(self.home), "PYTHONPATH": str(self.edition), **more}

    def tito(self, *words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, str(self.edition / "bin" / "tito"), *words], cwd=cwd or self.home, text=True,
                              capture_output=True, env=self.environment(**environment), timeout=120, stdin=subprocess.DEVNULL)

    def notebook(self, slug: str) -> Path:
        return self.home / "modules" / "source" / slug / f"{slug[3:]}.ipynb"

    def hand_in(self, slug: str, text: str | None = None) -> Path:
        """Put a finished notebook where `module start` puts the empty one."""
        path = self.notebook(slug)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(solved(slug) if text is None else text)
        return path

    def edit(self, slug: str, change) -> None:
        """Change the notebook's JSON in place: `change(cells)`."""
        path = self.notebook(slug)
        document = json.loads(path.read_text())
        change(document["cells"])
        path.write_text(json.dumps(document))

    @property
    def progress(self) -> dict:
        path = self.home / ".tito" / "progress.json"
        return json.loads(path.read_text()) if path.exists() else {"modules": {}, "checkpoints": {}}


def cell_with(cells: list[dict], **wanted) -> dict:
    """The first cell whose nbgrader metadata has these values."""
    return next(cell for cell in cells if all(cell["metadata"].get("nbgrader", {}).get(k) == v for k, v in wanted.items()))
