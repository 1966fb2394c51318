"""What of classes.yml and the rosters the services of one class may read: that class, and of the rest only where the site is.

Instructors have a terminal beside their formgrader; who attends other classes is none of their business.
"""

from pathlib import Path

import yaml

SETTINGS = ("title", "url", "timezone")
ROSTER = "roster.csv"


def excerpt(path: Path, class_id: str) -> dict[str, str]:
    """File names and texts of a site with this class alone, from a classes.yml that is in order. KeyError without such a class."""
    document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    found = [class_ for class_ in document["classes"] if class_["id"] == class_id]
    if not found:
        raise KeyError(f"there is no class {class_id!r} in {path}")
    files = {}
    if found[0].get("roster"):
        files[ROSTER] = (path.parent / found[0]["roster"]).read_text(encoding="utf-8-sig")
        found[0]["roster"] = ROSTER
    settings = {name: value for name, value in (document.get("site") or {}).items() if name in SETTINGS}
    return {"classes.yml": yaml.safe_dump({"site": settings, "classes": found}, sort_keys=False), **files}
