"""Products of few rows with a large weight, piece by piece.

They cost what reading the weight costs, so BLAS should read it once. It would copy it first, into the order in which its kernels like to
read. Where processors have vectors of 512 bits, OpenBLAS multiplies small matrices as they lie, and a product of weight and gradient
needs no copy where one of gradient and weight does. With 4 rows and a weight of 50176 x 128 the three products of a step then take half
the time that they take whole, with 32 rows five sixths. Elsewhere that gains nothing, but for a single row.

    x @ w      = sum of x[:, k] @ w[k] over runs k of the weight's rows
    grad @ w.T = columns k: (w[k] @ grad.T).T
    x.T @ grad = rows k: x[:, k].T @ grad
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinytorch.fast.blas import get_blas_threads, kernels

LARGE = 1 << 18         # numbers in a weight from which its reading is what costs
FEW = 32 if kernels() in ("skylakex", "cooperlake", "sapphirerapids") else 1        # rows up to which pieces are faster
UNCOPIED = 10 ** 6      # multiplications up to which OpenBLAS takes matrices as they lie
LONG = 2048             # rows of a weight in a piece of grad @ w.T: what they give is still near when it is turned around


def runs(rows: int, weight: np.ndarray) -> Iterator[slice]:
    """The weight's rows in pieces, as many at a time as make a small product with so many rows; all at once for more rows than few."""
    length = max(16, UNCOPIED // (rows * weight.shape[1])) if 0 < rows <= FEW and weight.size else len(weight)
    return (slice(start, start + length) for start in range(0, len(weight), length))


def forward(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """rows @ weight."""
    first, *others = runs(len(rows), weight)
    out = rows[:, first] @ weight[first]
    for k in others:
        out += rows[:, k] @ weight[k]
    return out


def for_rows(grad: np.ndarray, weight: np.ndarray, out: np.ndarray) -> np.ndarray:
    """grad @ weight.T, written to out."""
    if len(grad) > FEW:
        return np.matmul(grad, weight.T, out=out)
    for start in range(0, len(weight), LONG):
        k = slice(start, start + LONG)
        out[:, k] = (weight[k] @ grad.T).T
    return out


def for_weight(rows: np.ndarray, grad: np.ndarray, out: np.ndarray) -> np.ndarray:
    """rows.T @ grad, written to out, which is as large as the weight."""
    if len(rows) == 1:                          # NumPy does not ask BLAS for this one, and is slow
        return np.multiply(rows.T, grad, out=out)
    for k in runs(len(rows), out):
        np.matmul(rows[:, k].T, grad, out=out[k])
    return out


class Product:
    """What such a product keeps for its gradients: the walk back asks it instead of the rule of matmul."""

    def __init__(self, rows: np.ndarray, weight: np.ndarray):
        self.rows, self.weight = rows, weight

    def gradients(self, grad: np.ndarray) -> tuple[Callable, Callable]:
        return (lambda: for_rows(grad, self.weight, np.empty(self.rows.shape, np.float32)),
                lambda: for_weight(self.rows, grad, np.empty(self.weight.shape, np.float32)))


def in_pieces(matmul: Any) -> None:
    """Let an op multiply few rows and a large weight as above, and its rule be asked for all else."""
    plain = matmul.forward

    def multiply(a: np.ndarray, b: np.ndarray) -> Any:
        if b.size < LARGE or not fits(a, b) or not (matmul.derivative is None or agrees(matmul.derivative)):
            return plain(a, b)
        return forward(a, b), Product(a, b)

    matmul.forward = multiply


def fits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a @ b has few rows, and one core has to do it: pieces are too small to be shared."""
    return (a.ndim == b.ndim == 2 and len(a) <= FEW and a.shape[1] == len(b) and a.dtype == b.dtype == np.float32
            and b.flags.c_contiguous and get_blas_threads() == 1)


@functools.cache
def agrees(derivative: Callable) -> bool:
    """Whether on a trial a rule of matmul gives the gradients that a product has. One that does not is asked for large weights, too."""
    random = np.random.default_rng(0)
    a, b, grad = (random.normal(size=shape).astype(np.float32) for shape in [(2, 3), (3, 4), (2, 4)])
    try:
        got = [part() if callable(part) else part for part in derivative(grad, grad, a, b)]
        return all(np.allclose(one, other, rtol=1e-4) for one, other in zip(got, (grad @ b.T, a.T @ grad), strict=True))
    except Exception:       # it says so where it is used
        return False
