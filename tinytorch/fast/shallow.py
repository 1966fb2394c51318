"""A convolution of few channels, as the first layer of a network is: windows stand in columns, and are kept.

Where a window holds no more numbers than there are filters, all windows take no more memory than the result. So they are kept for the
gradient of the weight instead of made again. Standing in columns, they are pictures moved by a few pixels, copied in runs as long as
a line. And one more row, of ones, adds the bias in the same product, and the gradient of the bias comes with that of the weight.

Pictures are (N, C, H, W) in here, in memory, too; the result has its channels last, as in `tinytorch.given.windows`.
"""

import functools

import numpy as np

from tinytorch.core.tensor import op
from tinytorch.fast.blas import add_product
from tinytorch.given.windows import blocks, channels_first, channels_last, pad, places

FEW = 4         # channels; with more, a window is a few long runs of memory where the channels lie side by side


def fits(weight):
    """Whether keeping the windows for a weight of this shape takes no more memory than the result, and channels are few."""
    filters, channels, *kernel = weight
    return channels <= FEW and max(kernel) > 1 and channels * kernel[0] * kernel[1] <= filters


def columns(x, kernel, stride, out, ones):
    """x (N, C, H, W) -> (C * kh * kw, N * OH * OW): what each cell of a kernel meets; and a row of ones, if wanted."""
    (n, c, *_), (image, channel, row, column) = x.shape, x.strides
    view = np.ndarray((c, *kernel, n, *out), x.dtype, x, 0, (channel, row, column, image, row * stride[0], column * stride[1]))
    cells = c * kernel[0] * kernel[1]
    made = np.empty((cells + ones, n, *out), x.dtype)
    made[:cells].reshape(view.shape)[...] = view
    made[cells:] = 1
    return made.reshape(len(made), -1)


def wide(x, padding):
    """x, row by row in memory, with a rim of zeros around each picture."""
    (n, c, h, w), (top, left) = x.shape, padding
    return pad(np.ascontiguousarray(x).reshape(n * c, h, w, 1), padding).reshape(n, c, h + 2 * top, w + 2 * left)


@functools.cache
def kept(conv):
    """An op that gives what `conv`, the op conv2d, gives, for weights that fit."""

    def forward(x, weight, bias=None, *, stride, padding):
        filters, _, *kernel = weight.shape
        n, size, ones = len(x), places(x.shape[2:], kernel, stride, padding), int(bias is not None)
        matrix = np.concatenate([weight.reshape(filters, -1).T, *([] if bias is None else [bias[None, :]])])
        out, pictures, windows = np.empty((n, *size, filters), x.dtype), wide(x, padding), []
        for part in blocks(n, *size, len(matrix)):
            windows.append(columns(pictures[part], kernel, stride, size, ones))
            np.matmul(windows[-1].T, matrix, out=out[part].reshape(-1, filters))
        return channels_first(out), windows

    def rule(grad, windows, x, weight, bias=None, *, stride, padding):
        """As conv's, from the windows that were kept."""
        @functools.cache
        def total():
            rows, start = channels_last(grad).reshape(-1, len(weight)), 0
            made = np.zeros((weight[0].size + (bias is not None), len(weight)), x.dtype)
            for part in windows:
                add_product(part, rows[start:start + part.shape[1]], made)
                start += part.shape[1]
            return made

        def for_x():
            arrived = conv.derivative(grad, None, x, weight, bias, stride=stride, padding=padding)[0]
            return arrived() if callable(arrived) else arrived

        gradients = for_x, lambda: total()[:weight[0].size].T.reshape(weight.shape), lambda: total()[-1]
        return gradients if bias is not None else gradients[:2]

    made = op(forward, conv.__name__)
    made.backward(rule)
    return made
