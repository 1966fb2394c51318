"""The nbgrader course of every class: its folder, the modules' sources and its students. Run in the environment `user`.

    … | python -m hub.courses          the classes as JSON on standard input, see `describe`

What an instructor changed is kept: a source is replaced by a newer build only while it is as the last build left it.
"""

import hashlib
import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course import curriculum
from hub import paths

if TYPE_CHECKING:
    from hub.config.site import Site


def describe(site: "Site") -> list[dict[str, Any]]:
    """What `main` needs of a site, as JSON can hold it: the environment `user` cannot read classes.yml itself."""
    return [{
        "id": class_.id,
        "students": [{"id": s.username, "first_name": s.first_name, "last_name": s.last_name, "email": s.email} for s in class_.students],
        "due": {m.slug: due.astimezone(UTC).isoformat() for m in curriculum.modules() if (due := class_.due(m))},
    } for class_ in site.classes]


def exchange_document(site: "Site") -> dict[str, Any]:
    """What the exchange follows: per class its staff, its students, and when an assignment stops taking submissions."""
    people = site.people()

    def person(name: str) -> dict[str, str]:
        known = people.get(name)
        return {"username": name, **{f: (getattr(known, f, None) or "") for f in ("first_name", "last_name", "email")}}

    return {class_.id: {
        # the formgrader's token is that of a service named like the class, so the class teaches itself
        "instructors": [person(name) for name in (*class_.staff, class_.id)],
        "students": [person(student.username) for student in class_.students],
        "closes": {m.slug: due.astimezone(UTC).isoformat() for m in curriculum.modules()
                   if class_.late == "refuse" and (due := class_.due(m))},
    } for class_ in site.classes}


def quotas_document(site: "Site") -> dict[str, Any]:
    """What the autograder follows: per class what its students may ask for, as autograder.quotas.Quota has it."""
    return {class_.id: {
        "jobs_per_day": asked.jobs_per_day, "cpu_seconds_per_day": 60 * asked.cpu_minutes_per_day, "queued": asked.queued,
        "parallel": asked.parallel, "cpu_seconds": 60 * asked.job_minutes, "memory_mb": asked.memory_mb, "keep_days": asked.keep_days,
    } for class_ in site.classes for asked in [class_.autograder]}


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
