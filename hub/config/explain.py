"""pydantic's errors in the words of somebody who edits classes.yml: each with its line and what to write instead."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from hub.config.document import Document, Place
from hub.config.problems import MISSING, Problem, Wrong, flow, near

Model = type[BaseModel]

SECTION = "a section of `key: value` lines"
KINDS = {
    "string_type": "text", "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "list_type": "a list", "dict_type": SECTION, "model_type": SECTION,
}


def explain(error: ValidationError, document: Document, model: Model) -> Iterator[Problem]:
    """One problem for each thing that pydantic found."""
    for found in error.errors(include_url=False):
        place: Place = tuple(part for part in found["loc"] if part != "[key]")
        value = MISSING if found["type"] == "missing" else document.value(place)
        yield document.problem(place, value, *_words(found, place, value, model))


def _words(found: Any, place: Place, value: Any, model: Model) -> tuple[str, str]:
    """What is wrong, and the fix."""
    kind, context = found["type"], found.get("ctx", {})
    write = _example(place, model)
    if kind == "missing":
        return "is needed", f"add {write}"
    if kind == "extra_forbidden":
        return _unknown(place, model)
    if value is None and place:
        field = _field(place, model)
        return "has no value", f"write {write}" + ("" if field and field.is_required() else ", or remove the line")
    if isinstance(context.get("error"), Wrong):
        return context["error"].what, context["error"].fix
    if kind == "literal_error":
        return _choice(place, value, model)
    if kind in KINDS:
        fix = f'put it in quotes: "{flow(value)}"' if kind == "string_type" and _is_scalar(value) else f"write {write}"
        return f"must be {KINDS[kind]}, not {_kind(value)}", fix
    bounds = {"greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most")}
    if kind in bounds:
        key, words = bounds[kind]
        return f"must be {words} {context[key]:g}", f"write {write}"
    if kind == "too_short":
        return "must name at least one", f"write {write}"
    return found["msg"][:1].lower() + found["msg"][1:], f"write {write}"


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (int, float))


def _kind(value: Any) -> str:
    words = {bool: "true or false", int: "a number", float: "a decimal number", str: "text", list: "a list"}
    return words.get(type(value), "a section")


def _choice(place: Place, value: Any, model: Model) -> tuple[str, str]:
    field = _field(place, model)
    options = [str(option) for option in get_args(field.annotation)] if field else []
    meant = near(str(value).strip(), options)
    choices = ", ".join(options[:-1]) + (" or " if options[1:] else "") + options[-1]
    return f"must be {choices}", f"write {place[-1]}: {meant}" if meant else f"write {_example(place, model)}"


def _unknown(place: Place, model: Model) -> tuple[str, str]:
    """For a key that does not exist: the one that was probably meant, or where this one belongs."""
    key = str(place[-1])
    section = _section(place[:-1], model)
    known = list(_keys(section)) if section else []
    meant = near(key, known)
    if meant:
        return "there is no such key", f"did you mean {meant}?"
    if key.endswith(("secret", "password")):
        return "a secret has no place in this file, which others read", "remove this line; it goes into a file of the secrets folder"
    home = next((name for name, keys in _sections(model) if key in keys), None)
    if home:
        return "there is no such key here", f"move it to {home}"
    return "there is no such key", f"the keys here are {', '.join(known)}"


def _sections(model: Model, name: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each section of the file with its keys: where a misplaced key may belong."""
    for key, field in _keys(model).items():
        inner = _inner(field)
        if inner:
            path = f"{name}.{key}".removeprefix(".")
            yield path, set(_keys(inner))
            yield from _sections(inner, path)


def _keys(model: Model) -> dict[str, FieldInfo]:
    """The fields under the names that the file uses."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _inner(field: FieldInfo) -> Model | None:
    """The section, or the section of which it is a list."""
    for found in (field.annotation, *get_args(field.annotation)):
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return None


def _section(place: Place, model: Model) -> Model | None:
    found: Model | None = model
    for part in place:
        if isinstance(part, str):
            field = _keys(found).get(part) if found else None
            found = _inner(field) if field else None
    return found


def _field(place: Place, model: Model) -> FieldInfo | None:
    names = [part for part in place if isinstance(part, str)]
    section = _section(tuple(names[:-1]), model)
    return _keys(section).get(names[-1]) if section and names else None


def _example(place: Place, model: Model) -> str:
    """What a right line looks like."""
    field, around = _field(place, model), _field(place[:-1], model)
    if field is None and around is not None and around.examples and isinstance(around.examples[0], dict):
        return flow({place[-1]: next(iter(around.examples[0].values()))})[1:-1]      # a section whose keys are free
    if field is None or not field.examples:
        section = _section(place, model) or model
        return ", ".join(f"{key}: ..." for key in _keys(section))
    if place and isinstance(place[-1], int):
        item = field.examples[0][0]
        return flow(item) if not isinstance(item, dict) else "a section such as " + flow(item)
    return f"{place[-1]}: {flow(field.examples[0])}"


