"""What the capability tests share: whose code it is, where it failed, and how long it took. Runs in the child process."""

import importlib
import math
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from course.curriculum import Checkpoint, Module, find_checkpoint, find_module
from tinytorch.testing import clock

_tests: ModuleType


def enter(workspace: str, number: str) -> None:
    """Take `tinytorch.core` from a workspace and refuse to test anybody else's code."""
    global _tests
    os.environ["TINYTORCH_WORKSPACE"] = workspace
    checkpoint = find_checkpoint(number)
    for module in map(find_module, checkpoint.after):
        _refuse_foreign(module, Path(workspace).resolve() / "tinytorch" / "core")
    _tests = _load(checkpoint)


def _refuse_foreign(module: Module, core: Path) -> None:
    name = f"tinytorch.core.{module.export}"
    cure = f"export yours with `tito module export {module.number}`"
    try:
        imported = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise AssertionError(f"{name} cannot be imported: {place(error)}{error}") from None
        raise AssertionError(f"there is no {name} yet: {cure}") from None
    except Exception as error:
        raise AssertionError(f"{name} cannot be imported: {place(error)}{type(error).__name__}: {error}") from None
    file = Path(imported.__file__ or "").resolve()
    assert file.parent == core, f"{name} comes from {file}, which is not yours and does not count: {cure}"


def _load(checkpoint: Checkpoint) -> ModuleType:
    try:
        return importlib.import_module(f"course.checkpoints.{checkpoint.test.stem}")
    except ImportError as error:
        raise AssertionError(f"a name that this checkpoint needs is missing: {error}") from None
    except Exception as error:
        raise AssertionError(f"{place(error)}{type(error).__name__}: {error}") from None


def attempt(name: str) -> None:
    """Run one test; whatever goes wrong in the student's code becomes a failure that names file and line."""
    try:
        with np.errstate(all="ignore"):
            getattr(_tests, name)()
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"{place(error)}{type(error).__name__}: {error}") from None


def place(error: BaseException) -> str:
    """`tensor.py, line 12: ` for the innermost line of the framework in a traceback, else nothing."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent.name == "core"]
    return f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}: " if frames else ""


def answer(function: Callable, *inputs: object, **options: object) -> Any:
    """What a call returns; an exception becomes a failure that shows the call."""
    try:
        return function(*inputs, **options)
    except NotImplementedError:
        raise                                            # not written yet: which call found that out does not matter
    except Exception as error:
        raise AssertionError(f"{place(error)}{call(function, *inputs, **options)} ends in {type(error).__name__}: {error}") from None


def refused(kind: type[Exception] | tuple[type[Exception], ...], function: Callable, *inputs: object, what: str = "",
            **options: object) -> str:
    """The message of the exception that a wrong call must raise."""
    names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
    should = f"{what or call(function, *inputs, **options)} should end in a {names}, it"
    try:
        got = function(*inputs, **options)
    except kind as error:
        return str(error)
    except NotImplementedError:
        raise
    except Exception as error:
        raise AssertionError(f"{place(error)}{should} ends in {type(error).__name__}: {error}") from None
    raise AssertionError(f"{should} gives {_shown(got)}")


def call(function: Callable, *inputs: object, **options: object) -> str:
    """`reshape_shape((24,), (0, -1))`: a call as a student would type it."""
    given = [*map(_shown, inputs), *(f"{name}={_shown(value)}" for name, value in options.items())]
    name = getattr(function, "__name__", "") or f"{type(function).__name__}(...)"
    return f"{name}({', '.join(given)})"


def _shown(x: object) -> str:
    shape = getattr(x, "shape", ())
    text = f"array of shape {shape}" if math.prod(shape) > 12 else repr(x)
    return text if len(text) <= 120 else f"a {type(x).__name__}"


def agree(got: object, want: object, what: str, atol: float = 1e-5, rtol: float = 1e-5) -> None:
    """Same shape and same values, with a message that shows the first difference."""
    got, want = values(got), np.asarray(want)
    assert got.shape == want.shape, f"{what} should have the shape {want.shape}, it has {got.shape}"
    wrong = ~np.isclose(got, want, atol=atol, rtol=rtol, equal_nan=False)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = f" at {list(first)}" if first else ""
        raise AssertionError(f"{what} should be {want[first]:.6g}{at}, it is {got[first]:.6g}; "
                             f"{wrong.sum()} of {wrong.size} numbers differ")


def values(x: object) -> np.ndarray:
    """The numbers of a tensor, array, list or number."""
    return np.asarray(x if isinstance(x, np.ndarray) else getattr(x, "data", x))


def fast(ours: Callable[[], object], plain: Callable[[], object], what: str, times: float, spare: float = 0.0005) -> None:
    """At most `times` the CPU time of the same work in plain NumPy (best of several), plus `spare` seconds for the wrapping."""
    best, limit = [np.inf, np.inf], np.inf
    for attempts in range(1, 6):
        for index, function in enumerate((plain, ours)):
            best[index] = min(best[index], *(_cpu_seconds(function) for _ in range(3)))
        limit = times * best[0] + spare
        if attempts > 1 and best[1] <= limit:          # not after the first: other programs may have disturbed either side
            return
        if attempts > 1 and best[1] > 3 * limit:
            break                                      # no disturbance explains that
    raise AssertionError(f"{what} took {best[1] * 1000:.1f} ms, plain NumPy takes {best[0] * 1000:.1f} ms: "
                         f"more than {times:g} times as long. Usual reasons: a Python loop over numbers, a needless copy, "
                         f"a NumPy function that is slow for such numbers: time its lines one by one")


def _cpu_seconds(function: Callable[[], object]) -> float:
    """CPU time, not wall time: a busy machine must not fail a checkpoint."""
    before = clock.cpu_seconds()
    function()
    return clock.cpu_seconds() - before
