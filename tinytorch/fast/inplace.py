"""Adam's step once more, without a new array on the way: the same numbers as the rule of module 07, for the machine instead of the reader.

`direction` of module 07 makes eight arrays, as long as a block each. Here one place does for all, it begins at a multiple of 64 bytes (so
that no vector crosses two lines of the cache, which halves the speed of writing), the rate joins a number instead of an array, and
where NumPy came with OpenBLAS that adds a multiple of one array to a multiple of another in one walk over memory: 7 walks, not 12.
Whoever still has module 07 before them gets this file without `adam`: their Adam steps by their own `direction`.
"""

import math
import threading
from typing import Any

import numpy as np

from tinytorch.fast.blas import address, axpby

WHOLE = 1 << 17         # numbers that are not cut into blocks: four times as many as `stepping` has, with one array on the way, not eight
LARGEST = 1 << 18       # numbers in the place that a thread keeps; a rule that is given more makes one for this call
FEW = 1 << 13           # numbers below which asking for addresses takes longer than walking over memory three times
_own = threading.local()


def place(shape: tuple[int, ...]) -> np.ndarray:
    """Memory for intermediate results, float32, of this thread alone; what it holds is lost with the next call."""
    n = math.prod(shape)
    if n > LARGEST:
        return np.empty(shape, np.float32)
    if not hasattr(_own, "memory"):
        memory = np.empty(LARGEST + 16, np.float32)
        start = -memory.ctypes.data % 64 // memory.itemsize
        _own.memory = memory[start:start + LARGEST]
    return _own.memory[:n].reshape(shape)


def mix(y: np.ndarray, b: float, x: np.ndarray, a: float, room: np.ndarray) -> None:
    """y = b y + a x, in place; what `room`, an array like y, holds may be lost."""
    walk = axpby() if y.size >= FEW and y.dtype == x.dtype == np.float32 and y.flags.c_contiguous and x.flags.c_contiguous else None
    if walk:
        walk(y.size, a, address(x), 1, b, address(y), 1)
        return
    np.multiply(x, a, out=room)
    if b != 1:
        y *= b
    y += room


def adam(p: np.ndarray, grad: np.ndarray, m: np.ndarray, v: np.ndarray, *, lr: float, betas: tuple[float, float], eps: float,
         step: int) -> None:
    """One step of Adam, without weight decay: p, m and v change."""
    ### BEGIN SOLUTION
    (beta1, beta2), room = betas, place(p.shape)
    part1, part2 = 1 - beta1 ** step, math.sqrt(1 - beta2 ** step)
    mix(m, beta1, grad, 1 - beta1, room)
    mix(v, beta2, np.multiply(grad, grad, out=room), 1 - beta2, room)
    np.sqrt(v, out=room)
    room += eps * part2
    np.divide(m, room, out=room)
    mix(p, 1, room, -lr * part2 / part1, room)
    ### END SOLUTION


def in_place(kind: Any) -> None:
    """Let an Adam step by `adam` above, if on a trial that moves everything as its own `direction` does.

    Another rule under the same name keeps its own, and so does a subclass with a `direction` of its own.
    """
    plain, direction = kind.update, kind.direction

    def update(self: Any, p: np.ndarray, grad: np.ndarray, *kept: np.ndarray, lr: float, weight_decay: float = 0.0, **options: Any) -> None:
        if type(self).direction is not direction:
            plain(self, p, grad, *kept, lr=lr, weight_decay=weight_decay, **options)
            return
        adam(p, grad + weight_decay * p if weight_decay else grad, *kept, lr=lr, **options)

    if _agree(kind, plain, update):
        kind.update, kind.whole = update, WHOLE


def _agree(kind: Any, plain: Any, update: Any) -> bool:
    """Whether both move parameters, m and v alike: three steps, gradients of all sizes."""
    random, ends = np.random.default_rng(0), []
    grads = (random.normal(size=(3, 64)) * 10.0 ** random.uniform(-6, 3, 64)).astype(np.float32)
    try:
        for way in (plain, update):
            arrays = [np.zeros(64, np.float32) for _ in range(3)]
            for step, grad in enumerate(grads, 1):
                way(kind(), arrays[0], grad.copy(), *arrays[1:], lr=0.01, weight_decay=0.1, betas=(0.8, 0.95), eps=1e-5, step=step)
            ends.append(arrays)
    except Exception:       # a rule that is not written yet, or wrong, says so where it is used
        return False
    return all(np.allclose(one, other, rtol=1e-4, atol=1e-9) for one, other in zip(*ends, strict=True))
