"""Work on several cores: each thread takes a part of the batch, and matrix products inside a part stay on one core.

NumPy lets go of Python's lock while it calculates, so threads do run at once. Left alone, only matrix products use all cores (the
BLAS library has threads of its own) and everything between them uses one. Here both halves of a batch go through the whole network
side by side, and their gradients are added up: the same gradients, up to rounding.

    Trainer(model, loss, optimizer, threads=2)              # all that most programs need

    step = data_parallel(loss_and_gradients, threads=2)     # what the Trainer does with it
    value, scores = step(model, loss, x, y)                 # adds the gradients of the whole batch to the model's parameters
    optimizer.step()

What differs from one thread: each part has batch normalisation statistics of its own (as in PyTorch's DataParallel; the running
averages are the mean of the parts'), and dropout draws anew for each part.
"""

import contextlib
import copy
import ctypes
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tinytorch.core.tensor import Tensor

SMALL = 1 << 17         # numbers below which sharing work among threads costs more than it saves


def usable_cpus() -> int:
    """CPUs that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _openblas() -> tuple[Callable[[int], None], Callable[[], int]] | None:
    """The functions that set and tell how many threads NumPy's own OpenBLAS uses; None where NumPy came without it."""
    numpy = Path(np.__file__).parent
    for folder in (numpy.with_name("numpy.libs"), numpy / ".dylibs"):
        for library in folder.glob("*openblas*"):
            loaded = ctypes.CDLL(str(library))
            for prefix, suffix in (("scipy_openblas", "64_"), ("scipy_openblas", ""), ("openblas", "64_"), ("openblas", "")):
                with contextlib.suppress(AttributeError):
                    return getattr(loaded, f"{prefix}_set_num_threads{suffix}"), getattr(loaded, f"{prefix}_get_num_threads{suffix}")
    return None


def get_blas_threads() -> int | None:
    """How many threads a matrix product uses; None where the BLAS library does not say."""
    found = _openblas()
    return int(found[1]()) if found else None


def set_blas_threads(threads: int) -> bool:
    """Let matrix products use that many threads, in the whole process. False where the BLAS library cannot be told."""
    found = _openblas()
    if found:
        found[0](threads)
    return bool(found)


@contextlib.contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """That many threads per matrix product inside this block, in the whole process."""
    before = get_blas_threads()
    if before is None or before == threads:
        yield
        return
    set_blas_threads(threads)
    try:
        yield
    finally:
        set_blas_threads(before)


def cut(n: int, parts: int) -> list[slice]:
    """n things in `parts` runs whose lengths differ by one at most; fewer runs if there are fewer things."""
    parts = max(1, min(parts, n))
    edges = [n * i // parts for i in range(parts + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


class Team:
    """The calling thread and `threads` - 1 others. They wait without work until the process ends or `close()`."""

    def __init__(self, threads: int):
        if threads < 1:
            raise ValueError(f"threads={threads}: at least one, the calling one")
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1, "tinytorch") if threads > 1 else None

    def map(self, function: Callable[..., Any], *columns: Sequence) -> list:
        """[function(a, b, ...) for a, b, ... in zip(*columns)], at most `threads` rows, all at once. The first error is raised here."""
        first, *others = zip(*columns, strict=True)
        if len(others) >= self.threads:
            raise ValueError(f"{len(others) + 1} pieces of work for {self.threads} threads")
        waiting = [self._others.submit(function, *row) for row in others] if self._others else []
        try:
            results = [function(*first)]
        finally:
            errors = [future.exception() for future in waiting]        # nobody works on when the caller goes on
        for error in errors:
            if error:
                raise error
        return results + [future.result() for future in waiting]

    def close(self) -> None:
        if self._others:
            self._others.shutdown()


_team = Team(1)


def team() -> Team:
    """Who shares large pieces of work at the moment: one thread, until use_threads()."""
    return _team


def use_threads(threads: int | None = None) -> int:
    """Let whoever asks for the team, optimizers among them, share work among so many threads (None: one per usable CPU)."""
    global _team
    threads = usable_cpus() if threads is None else threads
    if threads != _team.threads:
        old, _team = _team, Team(threads)
        old.close()
    return threads


class DataParallel:
    """`gradients(model, loss, x, y) -> (loss, scores)`, which adds to the gradients of a model's parameters, done by several threads
    with a part of the batch each. Called like `gradients`, with the same result up to rounding.

    The first thread works with the model itself, the others with copies that look at the same parameters.
    """

    def __init__(self, gradients: Callable, team: Team):
        self.gradients, self.team = gradients, team
        self.models: list = []
        self.layers: list = []          # of the model when it was copied

    def __call__(self, model: Any, loss: Callable, x: Any, y: Any) -> tuple[float, np.ndarray]:
        """Mean loss of the batch and the scores of all its rows, in order."""
        layers = [layer for _, layer in model.named_modules()]
        if len(layers) != len(self.layers) or any(one is not other for one, other in zip(layers, self.layers, strict=True)):
            self.models, self.layers = [model, *(_copy(model) for _ in range(self.team.threads - 1))], layers
        x, y = (array.data if isinstance(array, Tensor) else np.asarray(array) for array in (x, y))
        parts = cut(len(x), min(self.team.threads, max(1, len(x) // 2)))         # batch normalisation needs two rows
        models = self.models[:len(parts)]
        for other in models[1:]:
            _follow(other, model)

        def work(model: Any, part: slice) -> tuple[float, np.ndarray]:
            share = len(x[part]) / len(x)
            weighed = loss if share == 1 else lambda scores, targets: loss(scores, targets) * share
            return self.gradients(model, weighed, Tensor(x[part]), y[part])

        with blas_threads(1):
            results = self.team.map(work, models, parts)
            self._add_up(models)
        return sum(value for value, _ in results), np.concatenate([scores for _, scores in results])

    def _add_up(self, models: list) -> None:
        """The copies' gradients and buffers into the model's."""
        for own, *others in zip(*(model.parameters() for model in models), strict=True):
            for other in others:
                if own.grad is None or other.grad is None:
                    own.grad = own.grad if other.grad is None else other.grad
                else:
                    self._add(own.grad, other.grad)
                other.grad = None
        for own, *others in zip(*(_buffers(model) for model in models), strict=True):
            if others and own.dtype.kind == "f":
                own += sum(other - own for other in others) / len(models)

    def _add(self, total: np.ndarray, more: np.ndarray) -> None:
        if total.size < SMALL or not (total.flags.c_contiguous and more.flags.c_contiguous):
            total += more
            return
        parts = cut(total.size, self.team.threads)
        flat, other = total.reshape(-1), more.reshape(-1)
        self.team.map(lambda part: np.add(flat[part], other[part], out=flat[part]), parts)


def data_parallel(gradients: Callable, threads: int | None = None) -> DataParallel:
    """`gradients(model, loss, x, y)` shared among threads (None: one per usable CPU). From now on optimizers use as many."""
    use_threads(threads)
    return DataParallel(gradients, team())


def _copy(model: Any) -> Any:
    """A model that looks at the same parameters, but has gradients, buffers and generators of its own."""
    shared: dict[int, Any] = {id(parameter.data): parameter.data for parameter in model.parameters()}
    return copy.deepcopy(model, shared)         # deepcopy takes what it finds in this dictionary for copied already


def _follow(other: Any, model: Any) -> None:
    """Before a step: the copy has the model's parameters, buffers and modes; its generators depend on the model's."""
    for mine, its in zip(other.parameters(), model.parameters(), strict=True):
        if mine.data is not its.data:
            mine.data = its.data
        mine.grad, mine.requires_grad = None, its.requires_grad
    for mine, its in zip(_buffers(other), _buffers(model), strict=True):
        mine[...] = its
    for (_, mine), (_, its) in zip(other.named_modules(), model.named_modules(), strict=True):
        mine.training = its.training
        for name, value in vars(its).items():
            if isinstance(value, np.random.Generator):
                setattr(mine, name, np.random.default_rng(value.integers(2**63)))


def _buffers(model: Any) -> list[np.ndarray]:
    learned = {name for name, _ in model.named_parameters()}
    return [array for name, array in model.named_arrays().items() if name not in learned]
