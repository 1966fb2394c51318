"""A job as it is handed in: the kind, its target and the student's exported files, by content."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from course.tito.failure import Failed
from course.tito.workspace import CODE, Workspace

Request = dict[str, Any]        # {"job": {...}, "files": {path: base64}}


def exports(workspace: Workspace) -> dict[str, bytes]:
    """The modules that the student has exported; Failed when there are none."""
    files = {f"tinytorch/core/{path.name}": path.read_bytes() for path in sorted(workspace.core.glob("*.py")) if path.name != "__init__.py"}
    if not files:
        raise Failed(f"there is nothing to run yet in {workspace.core}: export a module first, `tito module export 01`", exit_code=2)
    return files


def make(kind: str, target: str, files: Mapping[str, bytes], seed: int = 0, limits: Mapping[str, float] | None = None) -> Request:
    inputs = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    return {"job": {"kind": kind, "target": target, "inputs": inputs, "seed": seed, "limits": dict(limits or {})},
            "files": {path: base64.b64encode(content).decode() for path, content in files.items()}}


def options(make_with: tuple[str, ...], inputs: tuple[str, ...], backward: bool) -> dict[str, bytes]:
    """options.json of a profile job. Arguments are JSON where they can be: 64, [2, 3], true; else texts."""
    said: dict[str, Any] = {}
    if make_with:
        said["make"] = [_value(word) for word in make_with]
    if inputs:
        said["inputs"] = [_shape(text) for text in inputs]
    if backward:
        said["backward"] = True
    return {"options.json": json.dumps(said, sort_keys=True).encode()} if said else {}


def _value(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError:
        return word


def _shape(text: str) -> list[int]:
    try:
        shape = [int(size) for size in text.lower().replace("×", "x").split("x")]
    except ValueError:
        shape = []
    if not shape or min(shape) < 1:
        raise Failed(f"--input {text}: write a shape such as 32x784", exit_code=2)
    return shape


def recipe(name: str) -> tuple[str, dict[str, bytes]]:
    """(target, files) of a recipe: the name of one of the course's, or the path of a YAML file of the student's own."""
    from pathlib import Path
    known = {path.stem: path for path in sorted((CODE / "course" / "recipes").glob("*.yml"))}
    if name in known:
        return name, {}
    path = Path(name)
    if path.suffix in (".yml", ".yaml") and path.is_file():
        target = "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in path.stem).strip("-_") or "recipe"
        return target, {"recipe.yml": path.read_bytes()}
    listed = ", ".join(known) or "none yet in this course"
    raise Failed(f"there is no recipe {name}; there are: {listed}. A file of your own is named by its path, ending in .yml", exit_code=2)
