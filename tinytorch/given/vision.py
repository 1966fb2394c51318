"""Given parts of module 09: the kernels that repeat its ideas (one filter per channel, the mean of a window), the rules of batch
normalisation and of pooling side by side, groups, and the words in which a wrong input is refused.

Pictures are (N, C, H, W) outside and channels last inside, as in `tinytorch.given.windows`.
"""


import numpy as np

from tinytorch.core.layers import Module, as_tensor
from tinytorch.core.tensor import Tensor, concat, op
from tinytorch.fast import shallow, ways
from tinytorch.given.windows import blocks, channel_sums, channels_first, channels_last, crop, pad, pair, places, shifts


def pictures(x, channels=None):
    """x as a tensor of pictures (N, C, H, W); ValueError if it has other axes, or another number of channels than wanted."""
    x = as_tensor(x)
    if x.ndim != 4:
        raise ValueError(f"expected pictures (N, C, H, W), got {x.shape}: a batch of one picture has N = 1, a grey one C = 1")
    if channels not in (None, x.shape[1]):
        raise ValueError(f"expected {channels} channels, got {x.shape[1]}: pictures are (N, C, H, W), these are {x.shape}")
    return x


def turned(x):
    """x with its channels last in memory, where nothing stands behind it: once, here, and not in an op and in its rule again."""
    return x if x.requires_grad else Tensor(channels_first(channels_last(x.data)))


def check_groups(channels, filters, groups):
    """ValueError unless both numbers can be divided into groups."""
    if groups < 1 or channels % groups or filters % groups:
        raise ValueError(f"groups={groups} must divide in_channels={channels} and out_channels={filters}")


def in_groups(conv, groups, x, weight, bias=None, **options):
    """`conv` for each group of channels with the filters of that group, side by side.

    Where another way is cheaper that is taken: one filter per channel has its own kernel, for all else see `ways`.
    """
    inputs = [weight] if bias is None else [weight, bias]
    filters, channels, *_ = weight.shape
    way = ways.cheapest_convolution(conv, weight.shape, **options) if groups == 1 else conv
    if way is not shallow.kept(conv):                   # which takes pictures as they come
        x = turned(x)
    if groups == 1:
        return way(x, *inputs, **options)
    if channels == 1 and filters == groups:
        return depthwise_conv2d(x, *inputs, **options)
    size = filters // groups
    return concat(*[conv(x[:, g * channels:(g + 1) * channels], *[p[g * size:(g + 1) * size] for p in inputs], **options)
                    for g in range(groups)], axis=1)


def describe_conv(layer):
    """`3, 32, kernel_size=(3, 3), stride=(2, 2)`: what differs from the usual is named."""
    filters, channels, *kernel = layer.weight.shape
    options = {"stride": (layer.stride, (1, 1)), "padding": (layer.padding, (0, 0)), "groups": (layer.groups, 1)}
    said = [f"{name}={value}" for name, (value, usual) in options.items() if value != usual]
    return ", ".join([f"{channels * layer.groups}, {filters}, kernel_size={tuple(kernel)}", *said])


class Pool2d(Module):
    """Windows of kernel_size, `stride` apart (default: side by side), made one number each by `function`, the op of a subclass.

    Where another way is cheaper that is taken: see `ways`.
    """

    function: op

    def __init__(self, kernel_size, stride=None, padding=0):
        self.kernel, self.padding = pair(kernel_size), pair(padding, least=0)
        self.stride = self.kernel if stride is None else pair(stride)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"padding {self.padding} is more than half of the kernel {self.kernel}: some windows would be all rim")

    def forward(self, x):
        options = {"kernel": self.kernel, "stride": self.stride, "padding": self.padding}
        return ways.cheapest_pooling(type(self).function, **options)(pictures(x), **options)

    def extra_repr(self):
        return f"{self.kernel}, stride={self.stride}, padding={self.padding}"


class GlobalAvgPool2d(Module):
    """The mean of each channel: (N, C, H, W) -> (N, C)."""

    def forward(self, x):
        return pictures(x).mean(axis=(2, 3))


class GlobalMaxPool2d(Module):
    """The largest number of each channel: (N, C, H, W) -> (N, C)."""

    def forward(self, x):
        return pictures(x).max(axis=(2, 3))


@op
def depthwise_conv2d(x, weight, bias=None, *, stride=(1, 1), padding=(0, 0)):
    """Each channel with a filter of its own: x (N, C, H, W), weight (C, 1, kh, kw), bias (C,) -> (N, C, OH, OW)."""
    x, kernel = channels_last(x), weight.shape[2:]
    out = np.zeros((len(x), *places(x.shape[1:3], kernel, stride, padding), x.shape[3]), x.dtype)
    for part in blocks(*x.shape):
        wide = pad(x[part], padding)
        for (i, j), grid in shifts(kernel, stride, out.shape[1:3]):
            out[part] += wide[grid] * weight[:, 0, i, j]
    return channels_first(out if bias is None else out + bias)


@depthwise_conv2d.backward
def _(grad, out, x, weight, bias=None, *, stride=(1, 1), padding=(0, 0)):
    x, grad, kernel = channels_last(x), channels_last(grad), weight.shape[2:]
    gx, gw = np.zeros_like(x), np.zeros_like(weight)
    for part in blocks(*x.shape):
        wide, gwide = pad(x[part], padding), pad(gx[part], padding)
        for (i, j), grid in shifts(kernel, stride, grad.shape[1:3]):
            gwide[grid] += grad[part] * weight[:, 0, i, j]
            gw[:, 0, i, j] += np.einsum("nhwc,nhwc->c", grad[part], wide[grid])
        if any(padding):
            gx[part] = crop(gwide, padding)
    gradients = channels_first(gx), gw, lambda: channel_sums(grad.reshape(-1, len(weight)))
    return gradients if bias is not None else gradients[:2]


@op
def avg_pool2d(x, *, kernel=(2, 2), stride=(2, 2), padding=(0, 0)):
    """The mean of each window, the rim counted as zeros: (N, C, H, W) -> (N, C, OH, OW)."""
    x = channels_last(x)
    out = np.zeros((len(x), *places(x.shape[1:3], kernel, stride, padding), x.shape[3]), x.dtype)
    for part in blocks(*x.shape):
        wide = pad(x[part], padding)
        for _, grid in shifts(kernel, stride, out.shape[1:3]):
            out[part] += wide[grid]
    return channels_first(out / np.prod(kernel, dtype=x.dtype))


@avg_pool2d.backward
def _(grad, out, x, *, kernel=(2, 2), stride=(2, 2), padding=(0, 0)):
    grad, gx = channels_last(grad) / np.prod(kernel, dtype=x.dtype), np.zeros_like(channels_last(x))
    for part in blocks(*gx.shape):
        wide = pad(gx[part], padding)
        for _, grid in shifts(kernel, stride, grad.shape[1:3]):
            wide[grid] += grad[part]
        if any(padding):
            gx[part] = crop(wide, padding)
    return channels_first(gx)


def batch_norm2d_rule(grad, kept, x, gain, bias, *, running=None, momentum=0.1, training=True, eps=1e-5):
    """The gradients of a batch_norm2d that keeps (mean, 1 / spread) of each channel; where training is False, both were constants."""
    (mean, inverse), (n, c, h, w) = kept, x.shape
    rows, grad = channels_last(x).reshape(-1, c), channels_last(grad).reshape(-1, c)
    gbias = channel_sums(grad)
    ggain = inverse * (channel_sums(grad, rows) - mean * gbias)

    def for_x():
        scale, gx = gain * inverse, np.empty_like(grad)
        slope = -scale * inverse * ggain / len(rows) * training     # the batch's own mean and variance
        shift = -scale * gbias / len(rows) * training - slope * mean    # answer to every number in it
        for part in blocks(len(grad), 4, c):                # four: three arrays as long as a block, and what the cache needs itself
            answer = rows[part] * slope
            answer += shift
            answer += np.multiply(grad[part], scale, out=gx[part])
            gx[part] = answer
        return channels_first(gx.reshape(n, h, w, c))

    return for_x, ggain, gbias
