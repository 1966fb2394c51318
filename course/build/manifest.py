"""The module.yaml beside a module's source: its question, its minutes, what it needs and what it exports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

from course import curriculum
from course.build.cells import Cell, parse
from course.curriculum import Module

LONG_MODULES = {"06", "09", "14", "20"}
KINDS = {"question": str, "minutes": int, "prerequisites": list, "exports": list}


def errors(module: Module, cells: list[Cell]) -> Iterator[str]:
    """What is wrong with module.yaml and README.md."""
    if not module.source.with_name("README.md").is_file():
        yield "README.md: there is no such file; it says in a few sentences what the module is about and how to start"
    path = module.source.with_name("module.yaml")
    try:
        document = _read(path)
    except ValueError as error:
        yield f"module.yaml: {error}"
        return
    for key, kind in KINDS.items():
        if not isinstance(document.get(key), kind):
            yield f"module.yaml: {key!r} must be given as {kind.__name__}"
            return
    longest = 240 if module.number in LONG_MODULES else 180
    if not 120 <= document["minutes"] <= longest:
        yield f"module.yaml: {document['minutes']} minutes; 120 to {longest} are allowed"
    earlier = {other.number for other in curriculum.modules() if other.number < module.number}
    for number in document["prerequisites"]:
        if str(number) not in earlier:
            yield f"module.yaml: prerequisite {number!r} is not the number of an earlier module, such as \"01\""
    for name in sorted(set(map(str, document["exports"])) - exported_names(cells)):
        yield f"module.yaml: exports {name!r}, but no exported cell defines it"


def _read(path: Path) -> dict:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError("there is no such file; it gives question, minutes, prerequisites, exports") from None
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ValueError("must give question, minutes, prerequisites, exports")
    return document


def exported_names(cells: list[Cell]) -> set[str]:
    """Functions, classes and variables that the exported cells define."""
    names: set[str] = set()
    for cell in cells:
        tree = parse(cell) if cell.is_export else None
        for node in tree.body if tree else ():
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Assign):
                names |= {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return names
