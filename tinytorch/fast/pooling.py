"""The largest pixel of windows side by side: each pixel is in one window only, so the way back writes it once.

Pictures are channels last in here, as in `tinytorch.given.windows`.
"""

import functools

import numpy as np

from tinytorch.core.tensor import op
from tinytorch.given.windows import blocks, channels_first, channels_last, shifts


def fits(kernel, stride, padding):
    """Whether these windows neither overlap nor have a rim."""
    return stride == kernel and not any(padding)


@functools.cache
def largest(pool):
    """An op that gives what `pool`, the op max_pool2d, gives, for windows that fit."""
    def rule(grad, out, x, *, kernel, stride, padding):
        x, out, grad = channels_last(x), channels_last(out), channels_last(grad)
        gx, (height, width) = np.empty_like(x), (kernel[0] * out.shape[1], kernel[1] * out.shape[2])
        gx[:, height:], gx[:, :, width:] = 0, 0                 # what no whole window covers
        *cells, last = [under for _, under in shifts(kernel, stride, out.shape[1:3])]
        for part in blocks(len(x), 2, *x.shape[1:]):            # two, for x and gx; all else is as long as one cell of them
            left = grad[part].copy()
            share = np.empty_like(left)
            for under in cells:                                 # the first of equal pixels gets all
                np.equal(x[part][under], out[part], out=share)  # 0 and 1 as floats, since products of two types are slow
                share *= left
                left -= share
                gx[part][under] = share
            gx[part][last] = left                               # it has an owner, and nobody else is left
        return channels_first(gx)

    made = op(pool.forward, pool.__name__)
    made.backward(rule)
    return made
