"""Which way a convolution or a pooling goes: the one of module 09, or a cheaper one that gives the same.

Whoever still writes conv2d or max_pool2d gets theirs: a cheaper way is taken only where, on a trial, theirs gives what it gives.
"""

import functools

import numpy as np

from tinytorch.fast import narrowing, pooling, shallow

CONVOLUTIONS = ((2, 2, 4, 5), (5, 2, 2, 3), (5,)), ((2, 5, 4, 5), (2, 5, 2, 3), (2,))      # more filters than channels, and fewer
POOLINGS = ((2, 3, 5, 7),),


def cheapest_convolution(conv, weight, *, stride, padding):
    """The op to call for a weight of this shape: `conv`, the op conv2d, or one that is cheaper."""
    if shallow.fits(weight) and same_convolution(conv, shallow.kept(conv)):
        return shallow.kept(conv)
    if narrowing.fits(weight[2:], stride, padding) and same_convolution(conv, narrowing.either_way(conv)):
        return narrowing.either_way(conv)
    return conv


def cheapest_pooling(pool, *, kernel, stride, padding):
    """The op to call for these windows: `pool`, an op like max_pool2d, or one that is cheaper."""
    if pooling.fits(kernel, stride, padding) and same_pooling(pool, pooling.largest(pool)):
        return pooling.largest(pool)
    return pool


def same_convolution(conv, other):
    return agree(conv, other, CONVOLUTIONS, stride=(1, 1), padding=(1, 0))


def same_pooling(pool, other):
    """For windows side by side."""
    return agree(pool, other, POOLINGS, kernel=(2, 3), stride=(2, 3), padding=(0, 0))


@functools.cache
def agree(one, other, trials, **options):
    """Whether two ops give the same results and gradients for arrays of these shapes, with equal numbers among them. One that does not, or
    raises, is what its author wants to see."""
    random = np.random.default_rng(0)
    try:
        for shapes in trials:
            arrays, ends = [random.integers(-4, 5, shape).astype(np.float32) for shape in shapes], []
            for each in (one, other):
                made = each.forward(*arrays, **options)
                out, kept = made if isinstance(made, tuple) else (made, made)
                parts = each.derivative(np.arange(out.size, dtype=np.float32).reshape(out.shape), kept, *arrays, **options)
                ends.append([out, *[part() if callable(part) else part for part in (parts if isinstance(parts, tuple) else (parts,))]])
            if not all(np.allclose(mine, theirs, rtol=1e-3, atol=1e-4) for mine, theirs in zip(*ends, strict=True)):
                return False
        return True
    except Exception:       # it says so where it is used
        return False
