"""What the words of a configuration mean: names of layers, losses, data sets and the like, with their arguments.

A component is written as its name with its arguments: `ReLU`, `Linear: [64, 10]`, `Dropout: 0.2`, `Adam: {lr: 0.001}`. Known are the
classes of tinytorch.core, and what a library registered with `@register("model", "name")`.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinytorch.datasets import CIFAR10_CLASSES

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
class_names: dict[str, Sequence[str]] = {}                 # of a data set: what its labels 0, 1, ... mean


class ConfigError(ValueError):
    """A configuration that cannot be run. Each line of the message says file, line, what is wrong and what was probably meant."""

    def __init__(self, message: str, *place: str):
        super().__init__(message)
        self.place = place                 # within the component that the message is about


def register(kind: str, name: str, classes: Sequence[str] = ()) -> Callable[[Callable], Callable]:
    """Decorator that makes a function known to configurations.

    "model": `build(**options)` returns a model. "data": `read(**options)` returns (x, y, test_x, test_y); `classes` are the names of
    its labels. "runner": `run(experiment, **options)` trains in its own way and returns the results, {"accuracy": ...}; it has
    `experiment.config, .folder, .log(event, **values), .confusion(labels, taken_for, classes), .model(), .data()`.
    """
    def keep(function: Callable) -> Callable:
        registered[kind][name] = function
        if classes:
            class_names[name] = classes
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
register("data", "cifar10", CIFAR10_CLASSES)(_pictures("CIFAR10Dataset"))


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
                          f"it is {what(value)}")
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


def what(value: Any) -> str:
    if value is None:
        return "empty"
    if isinstance(value, dict | list):
        return f"a {'table' if isinstance(value, dict) else 'list'} of {len(value)}"
    return repr(value)[:60]
