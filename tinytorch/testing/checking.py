"""What the notebooks' tests share: is an earlier module there, are two results the same, is a wrong call refused with a reason."""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np


def needs(number: str, module: ModuleType, behaviour: str, holds: Callable[[], object]) -> None:
    """The cell of prerequisites: AssertionError with the cure unless `holds()` is True; `behaviour` says in words what it asks."""
    try:
        found = holds()
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    assert found is True, (f"{behaviour}: not in {module.__file__} ({found}). Mend it in module {number} (20 minutes), export it, restart "
                           f"this kernel. Past its due date, tito module start {number} offers the reference.")


def same(got: Any, want: Any, what: str, atol: float = 1e-3) -> None:
    """AssertionError that shows both unless a tensor, array, list or number has the wanted shape and numbers; nan may be wanted."""
    got, want = np.asarray(got), np.asarray(want)
    equal = got.shape == want.shape and np.allclose(got, want, atol=atol, equal_nan=True)
    assert equal, f"{what}: expected {_shown(want)}, got {_shown(got)}"


def refuses(function: Callable[..., object], *inputs: Any, says: Sequence[str], kind: type[Exception] = ValueError, **options: Any) -> None:
    """AssertionError, with the call in it, unless the call ends in an error of this kind whose message contains all these texts."""
    try:
        got = f"nothing but {function(*inputs, **options)!r}"
        fits = False
    except Exception as error:
        if isinstance(error, NotImplementedError) and kind is not NotImplementedError:
            raise                                            # not written yet: a test that waits, not one that fails
        got = repr(error)
        fits = isinstance(error, kind) and all(text in str(error) for text in says)
    call = ", ".join([*map(_typed, inputs), *(f"{name}={_typed(value)}" for name, value in options.items())])
    name = getattr(function, "__name__", "") or repr(function)
    assert fits, f"{name}({call}): expected a {kind.__name__} that says {' and '.join(map(repr, says))}, got {got}"


def _typed(value: Any) -> str:
    """An input as a student would type it; a large array by its shape."""
    shape = getattr(value, "shape", ())
    return f"array of shape {shape}" if len(shape) > 1 or math.prod(shape) > 12 else repr(value)


def _shown(array: np.ndarray) -> str:
    return str(array.item()) if array.ndim == 0 and array.dtype != object else f"shape {array.shape}\n{array}\n"
