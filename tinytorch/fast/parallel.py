"""Work on several cores: each thread takes a part of the batch, and matrix products inside a part stay on one core.

NumPy lets go of Python's lock while it calculates, so threads do run at once. Left alone, only matrix products use all cores (the
BLAS library has threads of its own) and everything between them uses one. Here both halves of a batch go through the whole network
side by side, and their gradients are added up: the same gradients, up to rounding.

    Trainer(model, loss, optimizer, threads=2)              # all that most programs need

    step = data_parallel(loss_and_gradients, threads=2)     # what the Trainer does with it
    value, scores = step(model, loss, x, y)                 # adds the gradients of the whole batch to the model's parameters
    optimizer.step()

What differs from one thread: each part has batch normalisation statistics of its own (as in PyTorch's DataParallel; the running
averages are the mean of the parts'), and dropout draws anew for each part. Small batches of plain rows are not shared at all.
"""

import contextlib
import copy
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tinytorch.core.tensor import Tensor
from tinytorch.fast.blas import blas_threads, get_blas_threads, set_blas_threads, usable_cpus
from tinytorch.fast.meeting import LARGE, Meeting, Parted
from tinytorch.given.windows import longer_blocks

__all__ = ["DataParallel", "Team", "blas_threads", "cut", "data_parallel", "get_blas_threads", "set_blas_threads", "team",
           "usable_cpus", "use_threads"]

ALONE = 1 << 25         # rows times weights below which sharing a batch of plain rows costs more than it saves: some 2 ms of work
SMALL = 1 << 19         # numbers below which sharing work among threads costs more than it saves


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
        self.copies: list[Copy] = []
        self.layers: list = []          # of the model when it was copied
        self.measured: Any = None       # the model that was asked for its size last

    def __call__(self, model: Any, loss: Callable, x: Any, y: Any) -> tuple[float, np.ndarray]:
        """Mean loss of the batch and the scores of all its rows, in order."""
        x, y = (array.data if isinstance(array, Tensor) else np.asarray(array) for array in (x, y))
        if x.ndim == 2 and len(x) * self._size(model) < ALONE:
            with blas_threads(1):
                return self.gradients(model, loss, Tensor(x), y)
        layers, parameters = [layer for _, layer in model.named_modules()], model.parameters()
        if len(layers) != len(self.layers) or any(one is not other for one, other in zip(layers, self.layers, strict=True)):
            self.copies, self.layers = [Copy(model) for _ in range(self.team.threads - 1)], layers
        parts = cut(len(x), min(self.team.threads, max(1, len(x) // 2)))         # batch normalisation needs two rows
        copies = self.copies[:len(parts) - 1]
        buffers = _buffers(model, parameters) if any(other.buffered for other in copies) else []
        for other in copies:
            other.follow(layers, parameters, buffers)
        meeting = Meeting(len(parts), [p.data for p in parameters if p.ndim == 2 and p.size >= LARGE])

        def work(number: int, model: Any, part: slice) -> tuple[float, np.ndarray]:
            share = len(x[part]) / len(x)
            weighed = loss if share == 1 else lambda scores, targets: loss(scores, targets) * share
            with meeting.seat(number), longer_blocks() if copies else contextlib.nullcontext():
                return self.gradients(model, weighed, Tensor(x[part]), y[part])

        with blas_threads(1):
            try:
                with meeting.held() if meeting.weights and copies else contextlib.nullcontext():
                    results = self.team.map(work, range(len(parts)), [model, *(other.model for other in copies)], parts)
            except Parted as parted:
                raise meeting.error or parted from None
            self._add_up(parameters, copies)
            if buffers:
                _average(_buffers(model, parameters), [_buffers(other.model, other.parameters) for other in copies])
        return sum(value for value, _ in results), np.concatenate([scores for _, scores in results])

    def _size(self, model: Any) -> int:
        """The numbers in a model, counted once: asking all its parts takes a tenth of a small step, and who adds layers loses time only."""
        if self.measured is not model:
            self.measured, self.size = model, sum(p.size for p in model.parameters())
        return self.size

    def _add_up(self, parameters: list, copies: list["Copy"]) -> None:
        """The copies' gradients into the model's."""
        for own, *others in zip(parameters, *(other.parameters for other in copies), strict=True):
            for other in others:
                if own.grad is None or other.grad is None:
                    own.grad = own.grad if other.grad is None else other.grad
                else:
                    self._add(own.grad, other.grad)
                other.grad = None

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


class Copy:
    """A model that looks at the same parameters, but has gradients, buffers and generators of its own."""

    def __init__(self, model: Any):
        shared: dict[int, Any] = {id(parameter.data): parameter.data for parameter in model.parameters()}
        self.model = copy.deepcopy(model, shared)         # deepcopy takes what it finds in this dictionary for copied already
        self.layers = [layer for _, layer in self.model.named_modules()]
        self.parameters = self.model.parameters()
        self.buffered = bool(_buffers(self.model, self.parameters))

    def follow(self, layers: list, parameters: list, buffers: list[np.ndarray]) -> None:
        """Before a step: take over the model's parameters, buffers and modes; the generators depend on the model's."""
        for mine, its in zip(self.parameters, parameters, strict=True):
            if mine.data is not its.data:
                mine.data = its.data
            mine.grad, mine.requires_grad = None, its.requires_grad
        for array, given in zip(_buffers(self.model, self.parameters) if self.buffered else [], buffers, strict=True):
            array[...] = given
        for layer, its_layer in zip(self.layers, layers, strict=True):
            layer.training = its_layer.training
            for name, value in vars(its_layer).items():
                if isinstance(value, np.random.Generator):
                    setattr(layer, name, np.random.default_rng(value.integers(2**63)))


def _buffers(model: Any, parameters: list) -> list[np.ndarray]:
    learned = {id(parameter.data) for parameter in parameters}
    return [array for array in model.named_arrays().values() if id(array) not in learned]


def _average(buffers: list[np.ndarray], copies: list[list[np.ndarray]]) -> None:
    """Running averages of the model become the mean of its own and those of the copies."""
    for own, *others in zip(buffers, *copies, strict=True):
        if own.dtype.kind == "f":
            own += sum(other - own for other in others) / (len(others) + 1)
