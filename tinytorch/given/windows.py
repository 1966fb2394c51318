"""What lies under a kernel that moves over pictures: the index arithmetic of convolution and pooling.

Pictures are (N, C, H, W) for the user, as everywhere, and (N, H, W, C) in here and in memory: the channels of one pixel lie side
by side, so a window is a few long runs of memory, and a matrix of windows is ready for a matrix product. Kernel, stride and padding
are pairs (vertical, horizontal).
"""

import contextlib
import contextvars
import itertools
import math
from collections.abc import Iterator

import numpy as np

Pair = tuple[int, int]
BLOCK = 2 ** 18     # numbers that one block of windows may hold: 1 MB of float32, which stays in a core's own cache
_times = contextvars.ContextVar("times", default=1)        # how many times as long a block is, of each thread: see longer_blocks


def pair(size: int | Pair, least: int = 1) -> Pair:
    """3 -> (3, 3); a pair stays as it is. ValueError unless these are whole numbers, `least` or more."""
    both = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(both) != 2 or not all(isinstance(n, int | np.integer) and n >= least for n in both):
        raise ValueError(f"expected one whole number or a pair (vertical, horizontal), {least} or more, got {size!r}")
    return both


def places(size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """At how many places (OH, OW) a kernel stands on pictures of (H, W); ValueError if it is larger than the padded picture."""
    if any(k > n + 2 * p for n, k, p in zip(size, kernel, padding, strict=True)):
        raise ValueError(f"a kernel of {tuple(kernel)} does not fit into pictures of {tuple(size)} with padding {tuple(padding)}")
    rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    return rows, columns


def channels_last(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C), in memory of that order; copies only if the memory is of another order."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: np.ndarray) -> np.ndarray:
    """(N, H, W, C) seen as (N, C, H, W); never copies."""
    return x.transpose(0, 3, 1, 2)


def pad(x: np.ndarray, padding: Pair, value: float = 0) -> np.ndarray:
    """(N, H, W, C) with a rim of `value` around each picture; x itself if the rim has no width."""
    (n, h, w, c), (top, left) = x.shape, padding
    if not (top or left):
        return x
    out = np.full((n, h + 2 * top, w + 2 * left, c), value, x.dtype)
    out[:, top:top + h, left:left + w] = x
    return out


def crop(x: np.ndarray, padding: Pair) -> np.ndarray:
    """`pad` undone: a view without the rim."""
    (_, h, w, _), (top, left) = x.shape, padding
    return x[:, top:h - top, left:w - left]


def windows(x: np.ndarray, kernel: Pair, stride: Pair) -> np.ndarray:
    """(N, H, W, C) -> (N, OH, OW, kh, kw, C): what lies under the kernel at each place. A view of what lies in this order."""
    x = np.ascontiguousarray(x)
    (n, h, w, c), (image, row, column, channel) = x.shape, x.strides
    shape = n, *places((h, w), kernel, stride, (0, 0)), *kernel, c
    strides = image, row * stride[0], column * stride[1], row, column, channel
    view = np.ndarray(shape, x.dtype, x, 0, strides)            # as_strided takes longer than all else in here, with Python's lock held
    view.flags.writeable = False                                # windows overlap
    return view


def shifts(kernel: Pair, stride: Pair, out: Pair) -> Iterator[tuple[Pair, tuple[slice, slice, slice]]]:
    """For each cell (i, j) of a kernel with `out` places: the index into (N, H, W, C) of the pixels under that cell, one per place."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield (i, j), (slice(None), slice(i, i + stride[0] * out[0], stride[0]), slice(j, j + stride[1] * out[1], stride[1]))


def blocks(images: int, *sizes: int) -> list[slice]:
    """A batch cut into slices of as many images as fit into BLOCK with an array of these sizes each, one at least; about equally long."""
    count = math.ceil(images / max(1, _times.get() * BLOCK // max(1, math.prod(sizes))))
    edges = [images * i // count for i in range(count + 1)] if count else []
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


@contextlib.contextmanager
def longer_blocks() -> Iterator[None]:
    """In here blocks of this thread are four times as long. Where threads share a batch, fewer calls meet at Python's lock, for which
    a thread waits some 50 microseconds: worth more than a near cache."""
    before = _times.set(4)
    try:
        yield
    finally:
        _times.reset(before)


def channel_sums(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """Column sums of rows (n, C), or of the product of two: (C,). A product with ones, since BLAS sums columns four times as fast."""
    total = np.zeros(a.shape[1], np.float64)
    for part in blocks(*a.shape):
        rows = a[part] if b is None else a[part] * b[part]
        total += np.ones(len(rows), a.dtype) @ rows
    return total.astype(a.dtype)


def channel_moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (over n) of each column of rows (n, C); the variance from differences to the mean, which cannot cancel."""
    mean, total = channel_sums(rows) / len(rows), np.zeros(rows.shape[1], np.float64)
    for part in blocks(len(rows), 4, rows.shape[1]):        # four: read and squared where they are still near
        centred = rows[part] - mean
        total += np.ones(len(centred), rows.dtype) @ np.multiply(centred, centred, out=centred)
    return mean.astype(rows.dtype), (total / len(rows)).astype(rows.dtype)
