"""Products with a large weight inside a shared batch: the threads divide the weight among them, not the rows.

Few rows times a large weight cost what reading the weight costs. Were each thread to take its own rows of the batch, each would read all
of the weight, forward and backward, and make a gradient as large, which then had to be added up. So the threads of
`parallel.DataParallel` meet at such a product: each takes a run of the weight's rows, and all rows of the batch.

    x @ w      = sum of x[:, k] @ w[k] over the runs k          each thread makes one summand, and adds up its own rows of all
    grad @ w.T = columns k: grad @ w[k].T                       each thread writes its columns of one array, and takes its own rows of it
    x.T @ grad = rows k: x[:, k].T @ grad                       each thread writes its rows of the one gradient; the first one takes it
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinytorch.core.tensor import matmul
from tinytorch.fast import products
from tinytorch.given.graphs import NOTHING

LARGE = 1 << 20         # numbers in a weight from which meeting, some 0.2 ms for a step, costs less than it saves
_own = threading.local()


class Parted(RuntimeError):
    """One thread waits for others that will not come."""

    def __init__(self) -> None:
        super().__init__("the parts of a batch went different ways through the model, and one of them multiplies by a large weight "
                         "that another does not use: such a model needs threads=1")


class Meeting:
    """`threads` threads and the weights at which they meet, for one step. Each thread works inside `seat(number)`."""

    def __init__(self, threads: int, weights: list[np.ndarray]):
        self.threads, self.weights = threads, {id(weight): weight for weight in weights}
        self.error: BaseException | None = None         # why somebody left early
        self._changed, self._round, self._here, self._left = threading.Condition(), 0, 0, False
        self._brought: list[list[Any]] = [[None] * threads, [None] * threads]

    @contextlib.contextmanager
    def seat(self, number: int) -> Iterator[None]:
        """In here products of this thread are those of thread `number`. Who leaves, with or without an error, is waited for no more."""
        _own.seat = self, number
        try:
            yield
        except BaseException as error:
            if self.error is None and not isinstance(error, Parted):
                self.error = error
            raise
        finally:
            del _own.seat
            with self._changed:
                self._left = True
                self._changed.notify_all()

    def exchange(self, number: int, thing: Any = None) -> list[Any]:
        """Wait for all; what each of them brought. Everything that they did before is done."""
        with self._changed:
            turn = self._round
            brought = self._brought[turn % 2]           # nobody can bring to the turn after next before all have read this one
            brought[number] = thing
            self._here += 1
            if self._here == self.threads:
                self._here, self._round = 0, turn + 1
                self._changed.notify_all()
            else:
                self._changed.wait_for(lambda: self._round != turn or self._left)
                if self._round == turn:
                    raise Parted()
        return list(brought)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """For as long as this lasts, matmul asks whether its thread has a seat and its second array is one of the weights."""
        forward = matmul.forward
        matmul.forward = _forward(forward)
        try:
            yield
        finally:
            matmul.forward = forward


class Product:
    """One product that the threads make together, as one of them sees it."""

    def __init__(self, meeting: Meeting, number: int, rows: np.ndarray, weight: np.ndarray):
        n, parts = len(weight), meeting.threads
        self.meeting, self.number, self.weight = meeting, number, weight
        self.run = slice(n * number // parts, n * (number + 1) // parts)
        everyones = meeting.exchange(number, rows)
        ends = np.cumsum([0, *map(len, everyones)])
        self.mine = slice(ends[number], ends[number + 1])
        self.columns = np.concatenate([each[:, self.run] for each in everyones])
        summands = meeting.exchange(number, products.forward(self.columns, weight[self.run]))
        self.out = sum([each[self.mine] for each in summands[1:]], start=summands[0][self.mine])

    def gradients(self, grad: np.ndarray) -> tuple[Callable, Callable]:
        """What the rule of matmul returns for this product."""
        everyones = self.meeting.exchange(self.number, grad)
        grad = np.concatenate(everyones)

        def for_rows() -> np.ndarray:
            return self._together((len(grad), len(self.weight)), lambda all_rows: products.for_rows(
                grad, self.weight[self.run], out=all_rows[:, self.run]))[self.mine]

        def for_weight() -> np.ndarray | object:
            whole = self._together(self.weight.shape, lambda whole: products.for_weight(
                self.columns, grad, out=whole[self.run]))
            return whole if self.number == 0 else NOTHING

        return for_rows, for_weight

    def _together(self, shape: tuple[int, ...], write: Callable[[np.ndarray], object]) -> np.ndarray:
        """An array that the first thread makes and of which each writes its part."""
        array = self.meeting.exchange(self.number, np.empty(shape, np.float32) if self.number == 0 else None)[0]
        write(array)
        self.meeting.exchange(self.number)
        return array


def _forward(plain: Callable) -> Callable:
    def forward(a: np.ndarray, b: np.ndarray) -> Any:
        seat = getattr(_own, "seat", None)
        if seat is None or a.ndim != 2 or id(b) not in seat[0].weights or a.shape[1] != len(b):
            return plain(a, b)
        meeting, number = seat
        product = Product(meeting, number, a, b)
        return product.out, product
    return forward
