# Generated from course/modules/source/09_spatial/spatial_dev.py by "python -m course.build": edit it there.

"""Layers for pictures: a small set of weights looks at every place. Shapes are (N, C, H, W); memory is channels last."""
import numpy as np
from tinytorch.core.layers import BatchNorm, Module, Parameter, as_tensor, he_normal
from tinytorch.core.tensor import op
from tinytorch.given.modules import check_features
from tinytorch.given.vision import (  # noqa: F401
    GlobalAvgPool2d, GlobalMaxPool2d, Pool2d, avg_pool2d, batch_norm2d_rule, check_groups, depthwise_conv2d, describe_conv,
    in_groups, pictures)
from tinytorch.given.windows import (
    blocks, channel_moments, channel_sums, channels_first, channels_last, crop, pad, pair, places, shifts, windows)


@op
def conv2d(x, weight, bias=None, *, stride=(1, 1), padding=(0, 0)):
    """How well each window matches each filter: x (N, C, H, W), weight (O, C, kh, kw), bias (O,) -> (N, O, OH, OW)."""
    x, (filters, _, *kernel) = channels_last(x), weight.shape
    out = np.empty((len(x), *places(x.shape[1:3], kernel, stride, padding), filters), x.dtype)
    columns = weight.transpose(2, 3, 1, 0).reshape(-1, filters)
    for part in blocks(*out.shape[:3], len(columns)):
        rows = windows(pad(x[part], padding), kernel, stride).reshape(-1, len(columns))
        np.matmul(rows, columns, out=out[part].reshape(-1, filters))
        if bias is not None:
            out[part] += bias
    return channels_first(out)


@conv2d.backward
def _(grad, out, x, weight, bias=None, *, stride=(1, 1), padding=(0, 0)):
    x, grad, (filters, channels, *kernel) = channels_last(x), channels_last(grad), weight.shape
    parts = blocks(*grad.shape[:3], weight[0].size)

    def for_weight():
        total = np.zeros((weight[0].size, filters), x.dtype)
        for part in parts:                      # the rows are made again: keeping them would take kh * kw times x
            rows = windows(pad(x[part], padding), kernel, stride).reshape(-1, len(total))
            total += rows.T @ grad[part].reshape(-1, filters)
        return np.ascontiguousarray(total.reshape(*kernel, channels, filters).transpose(3, 2, 0, 1))

    def for_x():
        gx, cells = np.zeros_like(x), np.ascontiguousarray(weight.transpose(2, 3, 0, 1))
        for part in parts:
            wide = pad(gx[part], padding)       # gx itself where there is no rim
            arrived = grad[part].reshape(-1, filters)
            for cell, under in shifts(kernel, stride, grad.shape[1:3]):
                wide[under] += (arrived @ cells[cell]).reshape(wide[under].shape)
            if any(padding): gx[part] = crop(wide, padding)
        return channels_first(gx)

    gradients = for_x, for_weight, lambda: channel_sums(grad.reshape(-1, filters))
    return gradients if bias is not None else gradients[:2]


@op
def max_pool2d(x, *, kernel=(2, 2), stride=(2, 2), padding=(0, 0)):
    """The largest number of each window, channel by channel: (N, C, H, W) -> (N, C, OH, OW)."""
    x = channels_last(x)
    out = np.full((len(x), *places(x.shape[1:3], kernel, stride, padding), x.shape[3]), -np.inf, x.dtype)
    for part in blocks(*x.shape):
        wide = pad(x[part], padding, -np.inf)
        for _, under in shifts(kernel, stride, out.shape[1:3]):
            np.maximum(out[part], wide[under], out=out[part])
    return channels_first(out)


@max_pool2d.backward
def _(grad, out, x, *, kernel=(2, 2), stride=(2, 2), padding=(0, 0)):
    x, out, grad = channels_last(x), channels_last(out), channels_last(grad)
    gx = np.zeros_like(x)
    for part in blocks(len(x), 4, *x.shape[1:]):
        wide, gwide, left = pad(x[part], padding, np.nan), pad(gx[part], padding), grad[part].copy()
        for _, under in shifts(kernel, stride, out.shape[1:3]):
            share = left * (wide[under] == out[part])
            gwide[under] += share
            left -= share
        if any(padding): gx[part] = crop(gwide, padding)
    return channels_first(gx)


@op
def batch_norm2d(x, gain, bias, *, running=None, momentum=0.1, training=True, eps=1e-5):
    """Each channel of (N, C, H, W) to mean 0 and variance 1 over the batch, or by `running`, then times gain plus bias."""
    (n, c, h, w), rows = x.shape, channels_last(x).reshape(-1, x.shape[1])
    out = np.empty_like(rows)
    mean, variance = channel_moments(rows) if training else running
    if training and running is not None:
        estimate = variance * len(rows) / max(1, len(rows) - 1)
        for old, new in zip(running, (mean, estimate), strict=True):
            old += momentum * (new - old)
    inverse = 1 / np.sqrt(variance + eps)
    for part in blocks(len(rows), c):
        out[part] = rows[part] * (gain * inverse) + (bias - mean * gain * inverse)
    return channels_first(out.reshape(n, h, w, c)), (mean.copy(), inverse)

batch_norm2d.backward(batch_norm2d_rule)


class Conv2d(Module):
    """Filters (out_channels, in_channels / groups, kh, kw) that look at every window of (N, in_channels, H, W)."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, groups=1, bias=True):
        check_groups(in_channels, out_channels, groups)
        shape = out_channels, in_channels // groups, *pair(kernel_size)
        self.stride, self.padding, self.groups = pair(stride), pair(padding, least=0), groups
        self.weight = Parameter(he_normal(int(np.prod(shape[1:])), shape))
        self.bias = Parameter(np.zeros(out_channels)) if bias else None

    def forward(self, x):
        x = pictures(x, self.weight.shape[1] * self.groups)
        return in_groups(conv2d, self.groups, x, self.weight, self.bias, stride=self.stride, padding=self.padding)

    def extra_repr(self): return describe_conv(self)

class MaxPool2d(Pool2d): function = max_pool2d
class AvgPool2d(Pool2d): function = avg_pool2d

class BatchNorm2d(BatchNorm):
    """For pictures (N, C, H, W): what the general BatchNorm does, by one op whose rule needs x only, in a third of the time."""

    dimensions = (4,)

    def forward(self, x):
        x, running = as_tensor(x), (self.running_mean, self.running_var)
        check_features(self, x.shape, self.weight.size, self.dimensions)
        return batch_norm2d(x, self.weight, self.bias, running=running, momentum=self.momentum, training=self.training, eps=self.eps)

Conv2D, MaxPool2D = Conv2d, MaxPool2d
