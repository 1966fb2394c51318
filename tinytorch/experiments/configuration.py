"""A configuration: from the text of a YAML file to an object that is checked; every mistake is told with its line.

What a file may hold is described in course/recipes/README.md.
"""

import importlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.experiments.components import Component, ConfigError, component, nearest, what

LARGEST = 1_000_000                        # bytes of a configuration
LIBRARIES = ("tinytorch.", "course.")      # what `uses` may import


def read(path: str | os.PathLike) -> Any:
    """The configuration in a file: an object with the fields of `schema()`. ConfigError names every mistake with its line."""
    return parse(source(Path(path)), str(path))


def source(path: Path) -> str:
    """The text of a configuration."""
    if path.stat().st_size > LARGEST:
        raise ConfigError(f"{path} has {path.stat().st_size:,} bytes: a configuration has at most {LARGEST:,}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text in UTF-8 (byte {error.start})") from None


def parse(text: str, name: str = "configuration") -> Any:
    """The configuration in a text."""
    from pydantic import ValidationError

    node, tree = nodes(text, name)
    problems: list[tuple[tuple, str]] = []
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}, line 1: should be a table with name, data, model, ...; it is {what(tree)}")
    config = None
    try:
        config = schema()(**{str(key): value for key, value in tree.items()})
    except ValidationError as error:
        problems += [(tuple(found["loc"]), _told(found)) for found in error.errors()]
    for library in tree.get("uses") or []:
        problems += _import(library) if isinstance(library, str) else []
    components, more = _components(tree)
    problems += more
    if problems:
        lines = sorted((_line(node, place), _place(place), message) for place, message in problems)
        raise ConfigError("\n".join(f"{name}, line {line}: {f'{where}: ' if where else ''}{message}" for line, where, message in lines))
    assert config is not None
    for place, value in components.items():
        setattr(config.data if "." in place else config, place.removeprefix("data."), value)
    return config


def schema() -> Any:
    """The pydantic model of a configuration; made on first use, because pydantic takes a while to load."""
    if _schema:
        return _schema[0]
    from typing import Annotated

    from pydantic import BaseModel, ConfigDict, Field

    Share = Annotated[float, Field(ge=0, lt=1)]
    Whole = Annotated[int, Field(ge=1)]

    class Section(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)

    class Data(Section):
        set: Any = Field(default="digits", description="component: digits, mnist, cifar10 or a registered one")
        batch_size: Whole = 32
        validation: Share = Field(default=0.1, description="share of the training data kept back to choose by; 0: none")
        augment: Any = Field(default_factory=list, description="components applied to training batches (module 10)")
        workers: Annotated[int, Field(ge=0)] = 0
        normalize: bool = Field(default=False, description="by mean and deviation of the training data, per channel")

    class Training(Section):
        epochs: Whole = 10
        clip: Annotated[float, Field(gt=0)] | None = None
        patience: Whole | None = None
        monitor: str | None = Field(default=None, description="what decides which epoch was best: val_loss, val_accuracy, ...")
        save_best: bool = True
        threads: Whole = 1

    class Config(Section):
        name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$")]
        description: str = ""
        seed: Annotated[int, Field(ge=0)] = 0
        uses: list[str] = Field(default_factory=list, description="libraries of TinyTorch that register further components")
        data: Data = Field(default_factory=Data)
        model: Any = Field(description="a list of layers, or one registered model")
        loss: Any = "CrossEntropyLoss"
        optimizer: Any = "Adam"
        scheduler: Any = None
        metrics: Any = Field(default_factory=lambda: ["Accuracy"])
        training: Training = Field(default_factory=Training)
        runner: Any = None
        goal: dict[str, float] = Field(default_factory=dict, description="what the result must reach, such as accuracy: 0.95")

    _schema.append(Config)
    return Config


_schema: list[Any] = []


def nodes(text: str, name: str) -> tuple[Any, Any]:
    """The text as YAML nodes, which know their lines, and as plain values. No aliases, no tags, no key twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.events.AliasEvent):
                line = self.peek_event().start_mark.line + 1
                raise ConfigError(f"{name}, line {line}: aliases (*name) are not allowed: write it out")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict:
            table = super().construct_mapping(node, deep=deep)
            seen: dict[Any, int] = {}
            for key, _ in node.value:
                if key.value in seen:
                    raise ConfigError(f"{name}, line {key.start_mark.line + 1}: {key.value} is given a second time, "
                                      f"first in line {seen[key.value]}")
                seen[key.value] = key.start_mark.line + 1
            return table

    # YAML 1.1 takes 1e-3 for a text
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789"))
    try:
        loader = Loader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{name}, line {line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{name}: not YAML: {type(error).__name__}: {str(error)[:100]}") from None


def _components(tree: dict) -> tuple[dict[str, Any], list[tuple[tuple, str]]]:
    """Every component of a configuration that can be read, by field, and what is wrong with the others."""
    found: dict[str, Any] = {}
    problems: list[tuple[tuple, str]] = []

    def one(kind: str, value: Any, place: tuple, given: int = 0, filled: Sequence[str] = ()) -> Component | None:
        try:
            return component(kind, value, given, filled)
        except ConfigError as error:
            problems.append(((*place, *error.place), str(error)))
            return None

    def several(kind: str, value: Any, place: tuple) -> list[Component | None]:
        if not isinstance(value, list):
            problems.append((place, f"should be a list of {kind}s, it is {what(value)}"))
            return []
        return [one(kind, part, (*place, i)) for i, part in enumerate(value)]

    model = tree.get("model")
    if isinstance(model, list):
        found["model"] = several("layer", model, ("model",))
        if not model:
            problems.append((("model",), "the list of layers is empty"))
    elif model is not None:
        found["model"] = one("model", model, ("model",))
    data: Any = tree.get("data")
    data = data if isinstance(data, dict) else {}
    found["data.set"] = one("data", data.get("set", "digits"), ("data", "set"))
    found["data.augment"] = several("augment", data.get("augment", []), ("data", "augment"))
    found["loss"] = one("loss", tree.get("loss", "CrossEntropyLoss"), ("loss",))
    found["optimizer"] = one("optimizer", tree.get("optimizer", "Adam"), ("optimizer",), filled=("parameters",))
    found["scheduler"] = None if tree.get("scheduler") is None else \
        one("scheduler", tree["scheduler"], ("scheduler",), given=1, filled=("total_steps", "T_max"))
    if found["scheduler"] is not None and "after" in found["scheduler"].named:           # WarmupLR takes another one
        outer = found["scheduler"]
        outer.named["after"] = one("scheduler", outer.named["after"], ("scheduler", outer.name, "after"), 1, ("total_steps", "T_max"))
    found["metrics"] = several("metric", tree.get("metrics", ["Accuracy"]), ("metrics",))
    found["runner"] = None if tree.get("runner") is None else one("runner", tree["runner"], ("runner",), given=1)
    return found, problems


def _import(library: str) -> list[tuple[tuple, str]]:
    if not library.startswith(LIBRARIES) or not re.fullmatch(r"[A-Za-z_][\w.]*", library):
        return [(("uses",), f"{library!r}: only libraries of TinyTorch ({', '.join(LIBRARIES)}) can be named")]
    try:
        importlib.import_module(library)
    except ImportError as error:
        return [(("uses",), f"{library} cannot be imported: {error}")]
    return []


def _told(found: Any) -> str:
    """One of pydantic's findings as a sentence."""
    key = str(found["loc"][-1]) if found["loc"] else ""
    if found["type"] == "extra_forbidden":
        owner = schema()
        for part in found["loc"][:-1]:
            owner = owner.model_fields[part].annotation
        return f"there is no such key{nearest(key, owner.model_fields)}"
    if found["type"] == "missing":
        return "is missing"
    if found["type"] == "string_pattern_mismatch":
        return f"{found['input']!r} should be made of letters, digits, dots, dashes and underscores: it names a folder"
    message = found["msg"][0].lower() + found["msg"][1:]
    return f"{message.removeprefix('input ')}, it is {what(found['input'])}"


def _place(place: tuple) -> str:
    return ".".join(str(part) for part in place)


def _line(node: Any, place: tuple) -> int:
    """The line of the innermost part of a place that the file has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in place:
        entries = node.value if node is not None and isinstance(node.value, list) else []
        if entries and isinstance(entries[0], tuple):
            match = next(((key, value) for key, value in entries if key.value == str(part)), None)
            if match is None:
                break
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(part, int) and part < len(entries):
            node = entries[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def changed(text: str, changes: dict[str, Any], name: str = "configuration") -> str:
    """A configuration with other values: {"training.epochs": 5, "model.1.Linear.0": 128}; whether they are allowed is found by parse()."""
    import yaml

    _, tree = nodes(text, name)
    for key, value in changes.items():
        *path, last = (int(part) if part.isdigit() else part for part in key.split("."))
        place = tree
        for part in path:
            if isinstance(place, dict) and place.get(part) is None:
                place[part] = {}
            place = _inside(place, part, key)
        _inside(place, last, key, may_be_new=True)
        place[last] = value
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _inside(place: Any, part: Any, key: str, may_be_new: bool = False) -> Any:
    if isinstance(place, dict) and (may_be_new or part in place):
        return place.get(part)
    if isinstance(place, list) and isinstance(part, int) and part < len(place):
        return place[part]
    raise ConfigError(f"cannot set {key}: there is no {part} in {what(place)}. Write that out as a table first")


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON can hold it, with every default written out."""
    return json.loads(json.dumps({name: getattr(config, name) for name in type(config).model_fields}, default=as_json))


def as_json(value: Any) -> Any:
    if isinstance(value, Component):
        return {value.name: value.named or list(value.positional)} if value.named or value.positional else value.name
    if hasattr(type(value), "model_fields"):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, np.generic):
        return value.item()
    return str(value)
