"""The nbgrader course of every class: its folder, the modules' sources and its students. Run in the environment `user`.

    … | python -m hub.courses          the classes as JSON on standard input, see hub/config/documents.py

What an instructor changed is kept: a source is replaced by a newer build only while it is as the last build left it.
"""

import hashlib
import json
import shutil
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from course import curriculum
from hub import paths


def put_sources(root: Path) -> list[str]:
    """Copy the built source of every ready module into the course; returns a line for each that was left as edited."""
    record = root / ".sources.json"
    put: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    kept = []
    for module in curriculum.modules():
        built = paths.BUILD / "source" / module.slug
        if not built.is_dir():
            continue
        for file in sorted(p for p in built.rglob("*") if p.is_file()):
            name = str(Path(module.slug) / file.relative_to(built))
            there = root / "source" / name
            fresh = _digest(file)
            if there.exists() and _digest(there) not in (put.get(name), fresh):
                kept.append(f"{root.name}: source/{name} was edited here and stays as it is")
                continue
            if not there.exists() or _digest(there) != fresh:
                there.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, there)
            put[name] = fresh
    record.write_text(json.dumps(put, indent=1))
    return kept


def _digest(file: Path) -> str:
    """Of a notebook only what its author writes counts: Lab also saves outputs and its own remarks when one was merely looked at."""
    data = file.read_bytes()
    if file.suffix == ".ipynb":
        try:
            cells = [[cell["cell_type"], "".join(cell["source"]), cell["metadata"].get("nbgrader")] for cell in json.loads(data)["cells"]]
            data = json.dumps(cells, sort_keys=True).encode()
        except (ValueError, KeyError, TypeError, AttributeError):          # whatever else it is, its bytes are compared
            pass
    return hashlib.sha256(data).hexdigest()


def make(class_: dict[str, Any]) -> list[str]:
    """Folder, sources, gradebook with its students and due dates. Nobody is ever taken out of a gradebook: marks stay."""
    from nbgrader.api import Gradebook

    root = paths.course_root(class_["id"])
    for folder in ("source", "release", "submitted", "autograded", "feedback"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    kept = put_sources(root)
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}", class_["id"]) as gradebook:
        for student in class_["students"]:
            gradebook.update_or_create_student(student.pop("id"), **student)
        for slug, due in class_["due"].items():
            if (root / "source" / slug).is_dir():
                # nbgrader keeps naive times in UTC
                gradebook.update_or_create_assignment(slug, duedate=datetime.fromisoformat(due).replace(tzinfo=None))
    return kept


def main() -> None:
    for class_ in json.load(sys.stdin):
        for line in make(class_):
            print(line)


if __name__ == "__main__":
    main()
