"""What the layers of module 04 and the losses of module 05 stand on and what teaches nothing there: looking inside, the text of a
module, other first weights, and the words in which a wrong input is refused."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinytorch import randomness


def inside(thing: Any) -> list[tuple[Any, Any]]:
    """(name, part) of what a module, dict, list or tuple holds directly; nothing for all else."""
    if hasattr(thing, "named_modules"):
        return list(vars(thing).items())
    if isinstance(thing, dict):
        return list(thing.items())
    if isinstance(thing, (list, tuple)):
        return list(enumerate(thing))
    return []


def layers_inside(thing: Any) -> Iterator[Any]:
    """The layers directly inside a module, those of a list or dict among its attributes, too."""
    for _, part in inside(thing):
        if hasattr(part, "parameters"):
            yield part
        else:
            yield from layers_inside(part)


def describe(module: Any) -> str:
    """`Linear(784, 128)`, or for a module of modules one line each."""
    lines = [repr(part).replace("\n", "\n  ") for part in layers_inside(module)]
    inner = "".join(f"\n  {line}" for line in lines)
    return f"{type(module).__name__}({_options(module)}{inner}{chr(10) if inner else ''})"


def _options(module: Any) -> str:
    """What the module's own extra_repr() says, else the shape of its weight."""
    if hasattr(module, "extra_repr"):
        return module.extra_repr()
    sizes = ", ".join(map(str, module.weight.shape)) if hasattr(module, "weight") else ""
    return sizes + (", bias=False" if getattr(module, "bias", "") is None else "")


def uniform(limit: float, shape: tuple[int, ...]) -> np.ndarray:
    """Float32 numbers between -limit and limit."""
    return (2 * randomness.generator().random(shape, dtype=np.float32) - 1) * np.float32(limit)


def xavier_uniform(fan_in: int, fan_out: int, shape: tuple[int, ...]) -> np.ndarray:
    """First weights for layers without a bend or with tanh: the spread is a compromise between both sizes."""
    return uniform((6 / (fan_in + fan_out)) ** 0.5, shape)


def uniform_fan_in(fan_in: int, shape: tuple[int, ...]) -> np.ndarray:
    """PyTorch's first weights of a linear layer or convolution: uniform within 1 / sqrt(fan_in)."""
    return uniform(fan_in ** -0.5, shape)


def linear_misfit(shape: tuple[int, ...], inputs: int, outputs: int) -> str:
    """Why Linear(inputs, outputs) cannot take an input of this shape, and the cure."""
    got = math.prod(shape[1:]) if len(shape) > 2 else math.prod(shape[-1:])
    return (f"Linear({inputs}, {outputs}) takes {inputs} numbers per example, an input of shape {shape} has {got}: "
            f"write Linear({got}, {outputs}), or mend the layer before it")


def check_features(layer: Any, shape: tuple[int, ...], features: int, dimensions: tuple[int, ...]) -> None:
    """ValueError unless an input has as many axes as one of `dimensions`, `features` on axis 1 and, in training, two examples."""
    if len(shape) not in dimensions or shape[1] != features:
        axes = " or ".join(map(str, dimensions))
        raise ValueError(f"{layer} takes inputs of {axes} axes with {features} features on axis 1, got shape {shape}: "
                         f"reshape the input, or write {type(layer).__name__}({shape[1] if len(shape) > 1 else features})")
    if layer.training and math.prod(shape) <= features:
        raise ValueError(f"{layer} in training needs more than one example to have a variance, got shape {shape}: "
                         f"call eval() before the model is used, or make the batch larger")


def check_labels(scores: tuple[int, ...], labels: tuple[int, ...]) -> int:
    """The number of classes; ValueError unless scores are (n, classes) and labels (n,)."""
    if len(scores) != 2 or 0 in scores:
        raise ValueError(f"cross entropy takes scores (n, classes) of at least one example, got {scores}"
                         + (": reshape(-1, classes) makes rows of them, labels need reshape(-1), too" if len(scores) > 2 else ""))
    if labels != scores[:1]:
        cure = ": these look like one-hot rows, take their argmax(axis=1)" if labels == scores else ""
        raise ValueError(f"cross entropy of scores {scores} needs labels of shape {scores[:1]}, got {labels}{cure}")
    return scores[1]
