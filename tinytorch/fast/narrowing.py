"""A convolution the other way round: multiply first, move afterwards.

The conv2d of module 09 moves first: it writes every window as a row, kh * kw * C numbers per place, and multiplies. Where there are
more channels than filters it is cheaper to multiply each pixel by all cells of all filters, and to add the kh * kw * O products up
where they belong. A gradient of pictures is such a case for every layer that has more filters than channels: it is a convolution of
what arrives by the filters turned by half a circle.

Pictures are channels last in here, as in `tinytorch.given.windows`; the kernel moves by one pixel.
"""

import functools

import numpy as np

from tinytorch.core.tensor import op
from tinytorch.fast.blas import add_product
from tinytorch.given.windows import blocks, channel_sums, channels_first, channels_last, pad, places, windows


def laid_down(pixels, cells, rim):
    """pixels (N, H, W, C), cells (kh, C, kw, O): what pixel (r, s) gives through cell (i, j) added at (r + i, s + j), less a rim.

    Gives (N, H + kh - 1 - 2 * rim, W + kw - 1 - 2 * rim, O), with `rim` a pair (vertical, horizontal).
    """
    (n, h, w, c), (kh, _, kw, filters), (top, left) = pixels.shape, cells.shape, rim
    cells = np.ascontiguousarray(cells).reshape(kh, c, kw * filters)
    out = np.empty((n, h + kh - 1 - 2 * top, w + kw - 1 - 2 * left, filters), pixels.dtype)
    height, width = out.shape[1:3]
    for part in blocks(n, h, w, kw, filters):
        target = out[part]
        rows = np.ascontiguousarray(pixels[part].swapaxes(0, 1))            # one run of memory for a line of all pictures:
        lines = np.zeros((height, len(target), w, kw * filters), out.dtype)     # moved down, lines still are one matrix
        for i in range(kh):
            there, here = overlap(h, i - top, height)
            add_product(rows[here].reshape(-1, c), cells[i], lines[there].reshape(-1, kw * filters))
        lines = lines.reshape(height, -1, w, kw, filters).swapaxes(0, 1)
        for j in range(kw):                                 # across: runs of `filters` numbers
            there, here = overlap(w, j - left, width)
            if j:
                target[:, :, there] += lines[:, :, here, j]
            else:
                target[:, :, there], target[:, :, there.stop:] = lines[:, :, here, j], 0
    return out


def overlap(length, move, size):
    """`length` numbers, moved, on `size` places: the slice of places that they meet, and the slice of the numbers that do."""
    start = max(0, move)
    end = max(start, min(size, length + move))
    return slice(start, end), slice(start - move, end - move)


@functools.cache
def either_way(conv):
    """An op that gives what `conv`, the op conv2d, gives for stride (1, 1): by conv itself where its way is cheaper, else in here."""

    def forward(x, weight, bias=None, *, stride=(1, 1), padding):
        filters, channels, *kernel = weight.shape
        if channels <= filters:
            return conv.forward(x, weight, bias, stride=stride, padding=padding)
        places(x.shape[2:], kernel, (1, 1), padding)            # ValueError for a kernel larger than the picture
        out = laid_down(channels_last(x), weight[:, :, ::-1, ::-1].transpose(2, 1, 3, 0), full(kernel, padding))
        return channels_first(out if bias is None else np.add(out, bias, out=out))

    def rule(grad, out, x, weight, bias=None, *, stride=(1, 1), padding):
        """As conv's, with the pictures' gradient as a convolution."""
        filters, channels, *kernel = weight.shape
        rim = full(kernel, padding)

        def for_x():
            return forward(grad, weight[:, :, ::-1, ::-1].swapaxes(0, 1), padding=rim)

        def for_weight():
            pixels, arrived = channels_last(x), channels_last(grad)
            total = np.zeros((kernel[0] * kernel[1] * filters, channels), x.dtype)
            for part in blocks(len(x), *x.shape[2:], len(total)):       # windows of what arrives: shorter rows than those of x
                rows = windows(pad(arrived[part], rim), kernel, (1, 1)).reshape(-1, len(total))
                add_product(rows.T, pixels[part].reshape(-1, channels), total)
            return np.ascontiguousarray(total.reshape(*kernel, filters, channels)[::-1, ::-1].transpose(2, 3, 0, 1))

        if channels <= filters:
            _, *others = conv.derivative(grad, out, x, weight, bias, stride=stride, padding=padding)
            return for_x, *others
        gradients = for_x, for_weight, lambda: channel_sums(channels_last(grad).reshape(-1, filters))
        return gradients if bias is not None else gradients[:2]

    made = op(forward, conv.__name__)
    made.backward(rule)
    return made


def full(kernel, padding):
    """The padding with which a convolution of a convolution's result has the size of its input again."""
    return kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1]


def fits(kernel, stride, padding):
    """Whether `either_way` can do it: one pixel at a time, more than one cell, and every place touches the picture."""
    return stride == (1, 1) and max(kernel) > 1 and min(full(kernel, padding)) >= 0
