"""Experiments: a YAML file says what is trained, a run leaves a log, and the same file and seed give the same numbers.

    python -m tinytorch.experiments run digits.yml      train, and write runs/NAME-TIME/{config.yml,log.jsonl,best.tt}
    python -m tinytorch.experiments run digits.yml --set optimizer.AdamW.lr=3e-3 --seed 1
    python -m tinytorch.experiments check digits.yml    only read it
    python -m tinytorch.experiments show runs/*         a table of what came out

A component (layer, loss, optimizer, ...) is written as its name with its arguments: `ReLU`, `Linear: [64, 10]`, `Dropout: 0.2`,
`Adam: {lr: 0.001}`. Known are the classes of tinytorch.core, and what a library registered with `@register("model", "name")`;
`uses: [tinytorch.something]` imports such a library. What a file may hold is described in course/recipes/README.md.
"""

import argparse
import difflib
import importlib
import inspect
import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import tinytorch
from tinytorch import randomness

LARGEST = 1_000_000                        # bytes of a configuration
LIBRARIES = ("tinytorch.", "course.")      # what `uses` may import
WHERE = {                                  # kind of component: the modules in which its classes stand, and what they must have
    "layer": (("layers", "activations", "spatial", "embeddings", "attention", "transformers"), "parameters"),
    "loss": (("losses",), "__call__"),
    "optimizer": (("optimizers",), "zero_grad"),
    "scheduler": (("optimizers",), "rate"),
    "metric": (("training",), "name"),
    "augment": (("dataloader",), "__call__"),
}
BASES = {"Module", "Activation", "Pool2d", "Optimizer", "Stepper", "Schedule", "Tensor", "op"}     # nothing to run by themselves
registered: dict[str, dict[str, Callable]] = {"model": {}, "data": {}, "runner": {}}


class ConfigError(ValueError):
    """A configuration that cannot be run. Each line of the message says file, line, what is wrong and what was probably meant."""

    def __init__(self, message: str, *place: str):
        super().__init__(message)
        self.place = place                 # within the component that the message is about


def register(kind: str, name: str) -> Callable[[Callable], Callable]:
    """Decorator that makes a function known to configurations.

    "model": `build(**options)` returns a model. "data": `read(**options)` returns (x, y, test_x, test_y).
    "runner": `run(experiment, **options)` trains in its own way and returns the results, {"accuracy": ...}; it has
    `experiment.config, .folder, .log(event, **values), .model(), .data()`.
    """
    def keep(function: Callable) -> Callable:
        registered[kind][name] = function
        return function
    return keep


@register("data", "digits")
def _digits() -> tuple[np.ndarray, ...]:
    """The digits that travel with TinyTorch: 1,437 to learn from, the last 360 as test; (n, 1, 8, 8)."""
    from tinytorch.data import digits

    images, labels = digits()
    return images[:-360, None], labels[:-360], images[-360:, None], labels[-360:]


def _pictures(name: str) -> Callable[..., tuple[np.ndarray, ...]]:
    def read(*, flatten: bool = False, download: bool = True) -> tuple[np.ndarray, ...]:
        loading = importlib.import_module("tinytorch.core.dataloader")
        data = getattr(loading, name)(download=download, flatten=flatten)
        return data.train_data, data.train_labels, data.test_data, data.test_labels
    return read


register("data", "mnist")(_pictures("MNISTDataset"))
register("data", "cifar10")(_pictures("CIFAR10Dataset"))


# ---------------------------------------------------------------- reading a configuration

@dataclass(frozen=True)
class Component:
    """A name with its arguments, and what they make."""

    kind: str
    name: str
    positional: tuple = ()
    named: dict[str, Any] = field(default_factory=dict)

    def find(self) -> Callable:
        return known(self.kind)[self.name]

    def make(self, *first: Any, **more: Any) -> Any:
        """Call it, with arguments of ours before and after those of the file."""
        return self.find()(*first, *self.positional, **{**more, **self.named})


def known(kind: str) -> dict[str, Callable]:
    """All components of a kind by name."""
    if kind in registered:
        return registered[kind]
    names, needed = WHERE[kind]
    found: dict[str, Callable] = {}
    for name in names:
        try:
            module = importlib.import_module(f"tinytorch.core.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"tinytorch.core.{name}":
                raise
            continue                                     # a module that is not written yet
        found |= {key: value for key, value in vars(module).items()
                  if isinstance(value, type) and key not in BASES and any(needed in vars(base) for base in value.__mro__)}
    return found


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

    node, tree = _yaml(text, name)
    problems: list[tuple[tuple, str]] = []
    if not isinstance(tree, dict):
        raise ConfigError(f"{name}, line 1: should be a table with name, data, model, ...; it is {_what(tree)}")
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


def _yaml(text: str, name: str) -> tuple[Any, Any]:
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
            problems.append((place, f"should be a list of {kind}s, it is {_what(value)}"))
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


def component(kind: str, value: Any, given: int = 0, filled: Sequence[str] = ()) -> Component:
    """`ReLU`, `{Linear: [64, 10]}`, `{Dropout: 0.2}` or `{Adam: {lr: 0.001}}`; ConfigError if there is no such name or argument.

    `given` arguments come first and are not in the file; those in `filled` may be missing there.
    """
    if isinstance(value, dict) and len(value) == 1:
        (name, arguments), = value.items()
    else:
        name, arguments = value, None
    if not isinstance(name, str):
        raise ConfigError(f"should be the name of a {kind}, alone or with its arguments (Name: [1, 2] or Name: {{key: 1}}), "
                          f"it is {_what(value)}")
    choices = known(kind)
    if name not in choices:
        raise ConfigError(f"there is no {kind} {name!r}{nearest(name, choices)}")
    named = arguments if isinstance(arguments, dict) else {}
    positional = tuple(arguments) if isinstance(arguments, list) else () if arguments is None or named or arguments == {} else (arguments,)
    try:
        signature = inspect.signature(choices[name])
    except (TypeError, ValueError):
        return Component(kind, name, positional, named)
    options = {key: part for key, part in list(signature.parameters.items())[given:] if key != "parameters"}
    takes_all = any(part.kind is part.VAR_KEYWORD for part in options.values())
    for key in named:
        if key not in options and not takes_all:
            raise ConfigError(f"no such argument{nearest(str(key), options)}; it has {', '.join(options) or 'none'}", name, str(key))
    extra = {key: None for key in filled if key in signature.parameters and key not in named and not positional}
    try:
        signature.bind(*[None] * given, *positional, **{**extra, **named})
    except TypeError as error:
        raise ConfigError(f"{name}: {error}; its arguments are {', '.join(options) or 'none'}") from None
    return Component(kind, name, positional, named)


def nearest(name: str, choices: Any) -> str:
    """`: did you mean "Adam"?`, or the beginning of the list."""
    names = [str(choice) for choice in choices]
    close = difflib.get_close_matches(name, names, 1, 0.6) or [n for n in names if n.lower() == name.lower()]
    if close:
        return f': did you mean "{close[0]}"?'
    return f"; known are {', '.join(sorted(names)[:12])}" if names else ""


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
    return f"{message.removeprefix('input ')}, it is {_what(found['input'])}"


def _what(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    return repr(value)[:60]


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


# ---------------------------------------------------------------- running one

class Experiment:
    """One run of a configuration in a folder of its own."""

    def __init__(self, config: Any, folder: str | os.PathLike, quiet: bool | None = None):
        self.config, self.folder, self.quiet = config, Path(folder), quiet
        self.folder.mkdir(parents=True, exist_ok=True)

    def log(self, event: str, **values: Any) -> None:
        """Add a line of JSON to log.jsonl: what happened, when, and its values."""
        line = json.dumps({"event": event, "time": _now(), **values}, default=_as_json)
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")

    def data(self) -> tuple[Any, Any, Any]:
        """Loaders for training, validation (None without) and test. Which examples are kept back depends on the seed."""
        plan = self.config.data
        x, y, test_x, test_y = plan.set.make()
        order = np.random.default_rng(self.config.seed).permutation(len(x))
        held_back = round(plan.validation * len(x))
        kept, rest = order[:held_back], np.sort(order[held_back:])
        if plan.normalize:
            axes = (0, *range(2, x.ndim)) if x.ndim > 2 else None
            mean, deviation = x[rest].mean(axis=axes, keepdims=True), x[rest].std(axis=axes, keepdims=True) + 1e-6
            x, test_x = (x - mean) / deviation, (test_x - mean) / deviation
        train = self._loader(x[rest], y[rest])
        return train, self._plain(x[kept], y[kept]) if held_back else None, self._plain(test_x, test_y)

    def _plain(self, x: np.ndarray, y: np.ndarray) -> Any:
        from tinytorch.core.training import Batches
        return Batches(x, y, max(self.config.data.batch_size, 256))

    def _loader(self, x: np.ndarray, y: np.ndarray) -> Any:
        """Module 10's loader where the plan needs it; else a smaller one, so that what runs does not depend on what is installed."""
        from tinytorch.core.training import Batches
        plan = self.config.data
        if not plan.augment and not plan.workers:
            return Batches(x, y, plan.batch_size, shuffle=True)
        loading = importlib.import_module("tinytorch.core.dataloader")
        steps = [part.make() for part in plan.augment]
        return loading.DataLoader(x, y, plan.batch_size, shuffle=True, transform=loading.Compose(steps) if steps else None,
                                  num_workers=plan.workers, seed=self.config.seed)

    def model(self) -> Any:
        """The model, with initial weights from the seed."""
        from tinytorch.core.layers import Sequential
        if isinstance(self.config.model, list):
            return Sequential(*[part.make() for part in self.config.model])
        return self.config.model.make()

    def run(self, resume: bool = False) -> dict[str, float]:
        """Train, evaluate on the test data, and return the results. The log holds a line per epoch."""
        config, began = self.config, time.monotonic()
        self.log("resume" if resume else "start", **surroundings(), seed=config.seed, config=as_plain(config))
        randomness.manual_seed(config.seed)
        try:
            results = config.runner.make(self, **({"resume": True} if resume else {})) if config.runner else self._train(resume)
        except BaseException as error:
            self.log("stopped", error=f"{type(error).__name__}: {error}", seconds=round(time.monotonic() - began, 3))
            raise
        reached = {name: results.get(name, float("nan")) >= least for name, least in config.goal.items()}
        self.log("result", **results, seconds=round(time.monotonic() - began, 3), **({"goal": reached} if reached else {}))
        return results

    def _train(self, resume: bool) -> dict[str, float]:
        from tinytorch.core.training import Trainer, evaluate_model
        config, plan = self.config, self.config.training
        train, validation, test = self.data()
        model = self.model()
        optimizer = config.optimizer.make()
        optimizer.bind(model.named_parameters())
        steps = plan.epochs * len(train)
        scheduler = config.scheduler and self._scheduler(config.scheduler, optimizer, steps)
        loss, metrics = config.loss.make(), [part.make() for part in config.metrics]
        trainer = Trainer(model, loss, optimizer, metrics, scheduler=scheduler, clip=plan.clip, threads=plan.threads)
        trainer.fit(train, validation, epochs=plan.epochs, save_best=plan.save_best, checkpoint_path=self.folder / "best.tt",
                    patience=plan.patience, monitor=plan.monitor, resume=resume, quiet=self.quiet,
                    on_epoch=lambda epoch, row: self.log("epoch", epoch=epoch, **row))
        return evaluate_model(model, test, loss, metrics)

    def _scheduler(self, part: Component, optimizer: Any, steps: int) -> Any:
        """A schedule of so many steps, unless the file says how many; one that stands in another's `after` gets what is left."""
        wanted = inspect.signature(part.find()).parameters
        lengths = {} if part.positional else {name: steps for name in ("total_steps", "T_max") if name in wanted}
        if isinstance(inner := part.named.get("after"), Component):
            rest = max(steps - int(part.named.get("warmup", 0)), 1)
            part = Component(part.kind, part.name, part.positional, {**part.named, "after": self._scheduler(inner, optimizer, rest)})
        return part.make(optimizer, **lengths)


def run(path: str | os.PathLike, *, out: str | os.PathLike | None = None, seed: int | None = None, epochs: int | None = None,
        changes: dict[str, Any] | None = None, resume: bool = False, quiet: bool | None = None) -> dict[str, float]:
    """Run a configuration. `out`: the folder, by default runs/NAME-TIME. `changes`: what differs from the file, {"optimizer.Adam.lr": 0.1}.

    With resume, `path` is the folder of a run that was interrupted.
    """
    more = {"seed": seed, "training.epochs": epochs}
    text = source(Path(path) / "config.yml" if resume else Path(path))
    changes = {**(changes or {}), **{key: value for key, value in more.items() if value is not None}}
    text = changed(text, changes, str(path)) if changes else text
    config = parse(text, f"{path}, as changed" if changes else str(path))
    if resume and config.runner and "resume" not in inspect.signature(config.runner.find()).parameters:
        raise ConfigError(f"{path}: the runner {config.runner.name} cannot go on with an interrupted run: start it anew")
    folder = Path(path) if resume else Path(out) if out is not None else \
        _fresh(Path("runs"), f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}")
    if not resume and (folder / "log.jsonl").exists():
        raise FileExistsError(f"{folder} holds a run already: name another folder, or resume that one")
    experiment = Experiment(config, folder, quiet)
    (folder / "config.yml").write_text(text, encoding="utf-8")
    return experiment.run(resume)


def changed(text: str, changes: dict[str, Any], name: str = "configuration") -> str:
    """A configuration with other values: {"training.epochs": 5, "model.1.Linear.0": 128}; whether they are allowed is found by parse()."""
    import yaml

    _, tree = _yaml(text, name)
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
    raise ConfigError(f"cannot set {key}: there is no {part} in {_what(place)}. Write that out as a table first")


def entries(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a run's log; the last one may be half, if the machine stopped while it was written."""
    for line in (Path(folder) / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            yield entry


def surroundings() -> dict[str, Any]:
    """What a result may depend on beside configuration and seed."""
    return {"command": shlex.join(["python", *sys.orig_argv[1:]]), "python": platform.python_version(), "numpy": np.__version__,
            "tinytorch": tinytorch.__version__, "system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(),
            "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS") or "default"}


def as_plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON can hold it, with every default written out."""
    return json.loads(json.dumps({name: getattr(config, name) for name in type(config).model_fields}, default=_as_json))


def _as_json(value: Any) -> Any:
    if isinstance(value, Component):
        return {value.name: value.named or list(value.positional)} if value.named or value.positional else value.name
    if hasattr(type(value), "model_fields"):
        return {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def _fresh(parent: Path, name: str) -> Path:
    """A folder that does not exist yet."""
    names = (name if n == 1 else f"{name}-{n}" for n in range(1, 10_000))
    return next(parent / one for one in names if not (parent / one).exists())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


# ---------------------------------------------------------------- the command line

def main(arguments: Sequence[str] | None = None) -> int:
    """0: done; 1: it could not be done, or a goal was missed; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tinytorch.experiments", description="Run experiments that YAML files describe.")
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train what a file describes")
    running.add_argument("file", help="a YAML file; with --resume, the folder of an interrupted run")
    running.add_argument("--out", help="folder of the run (default: runs/NAME-TIME)")
    running.add_argument("--seed", type=int, help="instead of the file's")
    running.add_argument("--epochs", type=int, help="instead of the file's")
    running.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                         help="another value for one key, such as optimizer.Adam.lr=3e-3; may be given several times")
    running.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    running.add_argument("--quiet", action="store_true", help="print the result only")
    checking = commands.add_parser("check", help="read files and say what is wrong with them")
    checking.add_argument("files", nargs="+")
    showing = commands.add_parser("show", help="a table of runs")
    showing.add_argument("folders", nargs="+")
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            return _run_command(options)
        if options.command == "check":
            for file in options.files:
                read(file)
                print(f"{file}: in order")
        else:
            for folder in options.folders:
                print(summary(Path(folder)))
    except (ConfigError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run_command(options: argparse.Namespace) -> int:
    try:
        changes = dict(map(_change, options.set))
        results = run(options.file, out=options.out, seed=options.seed, epochs=options.epochs, changes=changes,
                      resume=options.resume, quiet=options.quiet or None)
    except KeyboardInterrupt as stopped:
        print("\n".join(["interrupted", *getattr(stopped, "__notes__", [])]), file=sys.stderr)
        return 1
    except (FloatingPointError, ImportError, ValueError) as error:
        print("\n".join([str(error), *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    print("test  " + "  ".join(f"{name} {value:.4f}" for name, value in results.items()))
    config = read(Path(options.file) / "config.yml" if options.resume else options.file)
    missed = {name: least for name, least in config.goal.items() if not results.get(name, float("nan")) >= least}
    for name, least in missed.items():
        print(f"the goal of {name} {least} was missed", file=sys.stderr)
    return 1 if missed else 0


def _change(text: str) -> tuple[str, Any]:
    """`training.epochs=5` as key and value."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {text}: write it as KEY=VALUE, such as training.epochs=5")
    return key, _yaml(value, f"--set {text}")[1]


def summary(folder: Path) -> str:
    """A run in one line: what came out, how long it took, or where it stopped."""
    log = list(entries(folder))
    start = next((entry for entry in log if entry["event"] == "start"), {})
    epochs = [entry for entry in log if entry["event"] == "epoch"]
    last = log[-1] if log else {"event": "nothing"}
    head = f"{folder.name}  seed {start.get('seed', '?')}  {len({entry['epoch'] for entry in epochs})} epochs"
    if last["event"] == "result":
        values = "  ".join(f"{name} {value:.4f}" for name, value in last.items() if isinstance(value, float) and name != "seconds")
        return f"{head}  {values}  {last.get('seconds', 0):.1f} s"
    return f"{head}  {last.get('error') or last['event']}"


if __name__ == "__main__":
    # not the main of __main__: what a library registers belongs to the module that it imports
    sys.exit(importlib.import_module("tinytorch.experiments").main())
