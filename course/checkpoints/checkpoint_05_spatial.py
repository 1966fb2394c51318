"""Can I process spatial data with convolutions? Filters, their gradients and pooling against sums written out, then real digits."""

from itertools import product

import numpy as np

from course.checkpoints.support import agree, fast, refused, values
from tinytorch.core.activations import ReLU
from tinytorch.core.autograd import no_grad
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import Adam
from tinytorch.core.spatial import (
    AvgPool2d,
    Conv2D,
    Conv2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2D,
    MaxPool2d,
    conv2d,
    max_pool2d,
)
from tinytorch.core.tensor import Tensor
from tinytorch.data import digits
from tinytorch.randomness import manual_seed

HAND_X, HAND_W = np.float32([[[[1, 2, 0], [0, 1, 3], [2, 0, 1]]]]), np.float32([[[[1, 2], [0, -1]]]])
OPTIONS = [{}, {"stride": (2, 1)}, {"padding": (1, 2)}, {"stride": (2, 3), "padding": (2, 0)}]


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _windows(x, kernel, stride, padding, rim=0.0):
    """Place by place in float64: (n, channels, OH, OW, kh, kw)."""
    (kh, kw), (top, left) = kernel, padding
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, top), (left, left)), constant_values=rim)
    rows, columns = range(0, x.shape[2] - kh + 1, stride[0]), range(0, x.shape[3] - kw + 1, stride[1])
    return np.stack([np.stack([x[:, :, r:r + kh, c:c + kw] for c in columns], axis=2) for r in rows], axis=2)


def _filtered(x, weight, bias=None, stride=(1, 1), padding=(0, 0)):
    """The definition: every output is a sum over channels and cells."""
    out = np.einsum("nchwij,ocij->nohw", _windows(x, weight.shape[2:], stride, padding), weight.astype(np.float64))
    return out if bias is None else out + bias[:, None, None]


def _nudged(op, arrays, options, grad):
    """What the inputs' gradients must be: each number nudged in float64."""
    for place in range(len(arrays)):
        slopes, h = np.zeros(arrays[place].shape), 1e-5
        for index in np.ndindex(slopes.shape):
            ends = []
            for step in (h, -h):
                moved = [array.astype(np.float64) for array in arrays]
                moved[place][index] += step
                ends.append((np.asarray(op.forward(*moved, **options)) * grad).sum())
            slopes[index] = (ends[0] - ends[1]) / (2 * h)
        yield slopes


def can_put_a_filter_on_every_place():
    agree(conv2d(HAND_X, HAND_W), [[[[4, -1], [2, 6]]]], "the 3 x 3 picture under the 2 x 2 filter")
    agree(conv2d(HAND_X, HAND_W, [10]), [[[[14, 9], [12, 16]]]], "the same with a bias of 10")
    agree(conv2d(HAND_X, HAND_W, stride=(2, 1)), [[[[4, -1]]]], "the same, every second row")
    agree(conv2d(HAND_X, HAND_W, padding=(1, 0))[0, 0, 0], [-2, 0], "the first row with a rim above the picture")


def can_use_any_filters_strides_and_rims():
    shapes = [((2, 3, 6, 7), (4, 3, 2, 3)), ((1, 1, 5, 5), (1, 1, 3, 1)), ((3, 2, 4, 6), (2, 2, 3, 4))]
    for (x_shape, w_shape), options in product(shapes, OPTIONS):
        x, weight, bias = draw(x_shape, 1), draw(w_shape, 2), draw(w_shape[:1], 3)
        what = f"conv2d of {x_shape} with filters {w_shape} and {options}"
        agree(conv2d(x, weight, **options), _filtered(x, weight, **options), what, atol=1e-4)
        agree(conv2d(x, weight, bias, **options), _filtered(x, weight, bias, **options), f"{what} and a bias", atol=1e-4)
    assert conv2d(draw((2, 3, 5, 5)), draw((4, 3, 3, 3))).dtype == np.float32, "pictures of float32 should stay float32"


def can_take_large_batches():
    x, weight = draw((7, 16, 30, 40), 4), draw((5, 16, 3, 3), 5)
    agree(conv2d(x, weight), _filtered(x, weight), "seven pictures of 30 x 40 with 16 channels", atol=1e-3)
    assert conv2d(x[:0], weight).shape == (0, 5, 28, 38), "no pictures should give no outputs"


def can_build_layers_of_filters():
    manual_seed(0)
    x = draw((2, 4, 6, 5), 6)
    for options in ({}, {"stride": 2}, {"padding": 1}, {"stride": (1, 2), "padding": (2, 0)}, {"bias": False}):
        layer = Conv2d(4, 6, kernel_size=(3, 2), **options)
        plain = {key: (n, n) if isinstance(n, int) else n for key, n in options.items() if key != "bias"}
        weight, bias = values(layer.weight), None if layer.bias is None else values(layer.bias) + 1
        if layer.bias is not None:
            layer.bias.data = bias
        agree(layer(x), _filtered(x, weight, bias, **plain), f"Conv2d(4, 6, (3, 2)) with {options}", atol=1e-4)
        assert layer.weight.shape == (6, 4, 3, 2), f"Conv2d(4, 6, (3, 2)) needs weights (6, 4, 3, 2), it has {layer.weight.shape}"
        assert len(layer.parameters()) == 2 - (layer.bias is None), "a layer of filters has weights and, unless bias=False, a bias"
    assert Conv2D is Conv2d, "Conv2D should be another name of Conv2d"
    assert MaxPool2D is MaxPool2d, "MaxPool2D should be another name of MaxPool2d"


def can_start_with_signals_of_the_right_size():
    manual_seed(1)
    for channels, size in ((3, 5), (64, 3)):
        out = values(ReLU()(Conv2d(channels, 200, size)(draw((4, channels, 12, 12), 7))))
        share = (out * out).mean()
        assert 0.7 < share < 1.4, f"behind Conv2d({channels}, 200, {size}) and relu the mean square should stay near 1, it is {share:.2f}"


def can_keep_groups_of_channels_apart():
    manual_seed(2)
    x = draw((2, 6, 5, 5), 8)
    for groups, filters in ((2, 4), (3, 6), (6, 6)):
        layer, size, per = Conv2d(6, filters, 3, padding=1, groups=groups), 6 // groups, filters // groups
        layer.bias.data = draw((filters,), 9)
        want = [_filtered(x[:, g * size:(g + 1) * size], values(layer.weight)[g * per:(g + 1) * per],
                          values(layer.bias)[g * per:(g + 1) * per], padding=(1, 1)) for g in range(groups)]
        agree(layer(x), np.concatenate(want, axis=1), f"Conv2d(6, {filters}, 3) in {groups} groups", atol=1e-4)


def can_move_its_answers_along_with_the_picture():
    x, weight = np.zeros((1, 2, 12, 12), np.float32), draw((3, 2, 3, 3), 10)
    x[:, :, 3:7, 3:7] = draw((1, 2, 4, 4), 11)
    before, after = values(conv2d(x, weight)), values(conv2d(np.roll(x, (2, 1), axis=(2, 3)), weight))
    agree(after, np.roll(before, (2, 1), axis=(2, 3)), "the answers to a picture moved 2 down and 1 to the right")


def can_find_the_gradient_of_every_number():
    for options in OPTIONS:
        arrays = [draw((2, 2, 4, 5), 12), draw((3, 2, 2, 3), 13), draw((3,), 14)]
        tensors = [Tensor(array, requires_grad=True) for array in arrays]
        out = conv2d(*tensors, **options)
        grad = draw(out.shape, 15)
        out.backward(grad)
        for name, tensor, want in zip(("pictures", "weights", "bias"), tensors, _nudged(conv2d, arrays, options, grad), strict=True):
            agree(tensor.grad, want, f"the gradient of the {name}, with {options}", atol=1e-3, rtol=1e-3)


def can_find_gradients_of_large_batches():
    x, weight, grad = draw((7, 16, 30, 40), 16), draw((5, 16, 3, 3), 17), draw((7, 5, 28, 38), 18)
    tensors = Tensor(x, requires_grad=True), Tensor(weight, requires_grad=True)
    conv2d(*tensors).backward(grad)
    by_weight = np.einsum("nchwij,nohw->ocij", _windows(x, (3, 3), (1, 1), (0, 0)), grad.astype(np.float64))
    agree(tensors[1].grad, by_weight, "the gradient of the weights over seven large pictures", atol=1e-2)
    turned = np.flip(weight, axis=(2, 3)).swapaxes(0, 1)
    agree(tensors[0].grad, _filtered(grad, turned, padding=(2, 2)), "the gradient of seven large pictures", atol=1e-3)


def can_leave_out_gradients_that_nobody_wants():
    x, weight = Tensor(draw((2, 3, 5, 5))), Tensor(draw((4, 3, 3, 3)), requires_grad=True)
    conv2d(x, weight).sum().backward()
    assert x.grad is None, "pictures that need no gradient should get none"
    assert weight.grad.shape == weight.shape, f"the weights' gradient should have the shape {weight.shape}, it has {weight.grad.shape}"
    with no_grad():
        assert not conv2d(x, weight).requires_grad, "inside no_grad() nothing should be recorded"


POOLS = [(2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (1, 0)), (2, 1, 0), (4, None, 0)]


def can_pool_by_the_largest_and_by_the_mean():
    x = draw((2, 3, 7, 8), 19) - 2
    for size, stride, padding in POOLS:
        kernel, rim = (np.broadcast_to(n, 2).tolist() for n in (size, padding))
        step = np.broadcast_to(kernel if stride is None else stride, 2).tolist()
        largest, mean = _windows(x, kernel, step, rim, -np.inf).max(axis=(4, 5)), _windows(x, kernel, step, rim).mean(axis=(4, 5))
        agree(MaxPool2d(size, stride, padding)(x), largest, f"MaxPool2d({size}, {stride}, {padding})")
        agree(AvgPool2d(size, stride, padding)(x), mean, f"AvgPool2d({size}, {stride}, {padding})")
    agree(GlobalMaxPool2d()(x), x.max(axis=(2, 3)), "GlobalMaxPool2d()")
    agree(GlobalAvgPool2d()(x), x.astype(np.float64).mean(axis=(2, 3)), "GlobalAvgPool2d()")
    big = draw((9, 8, 70, 80), 20)
    agree(max_pool2d(big), big.reshape(9, 8, 35, 2, 40, 2).max(axis=(3, 5)), "the largest of each 2 x 2, in nine large pictures")


def can_send_gradients_to_the_winners_of_a_window():
    for size, stride, padding in POOLS:
        for layer in (MaxPool2d(size, stride, padding), AvgPool2d(size, stride, padding)):
            x = draw((1, 2, 7, 8), 21)
            tensor = Tensor(x, requires_grad=True)
            out = layer(tensor)
            grad = draw(out.shape, 22)
            out.backward(grad)
            options = {"kernel": layer.kernel, "stride": layer.stride, "padding": layer.padding}
            want = next(_nudged(type(layer).function, [x], options, grad))
            agree(tensor.grad, want, f"the gradient behind {type(layer).__name__}({size}, {stride}, {padding})", atol=1e-3)
    big = Tensor(draw((9, 8, 70, 80), 20), requires_grad=True)
    max_pool2d(big).sum().backward()
    agree(big.grad.sum(), 9 * 8 * 35 * 40, "the gradients of all winners, in nine large pictures, together")


def can_pay_one_winner_when_several_tie():
    for picture, want in (([[4, 4], [4, 4]], [[3, 0], [0, 0]]), ([[1, 5], [5, 2]], [[0, 3], [0, 0]])):
        x = Tensor([[picture]], requires_grad=True)
        max_pool2d(x).backward(np.float32([[[[3]]]]))
        agree(x.grad[0, 0], want, f"the gradient of 3 in the window {picture}")


def can_refuse_what_does_not_fit():
    layer = Conv2d(3, 4, 3)
    for wrong, words in ((np.ones((2, 4, 8, 8)), "channels"), (np.ones((8, 8)), "(8, 8)"), (np.ones((2, 3, 2, 8)), "kernel")):
        said = refused(ValueError, layer, wrong)
        assert words in said, f"Conv2d(3, 4, 3) of {wrong.shape}: the error should name {words!r}, it says: {said}"
    refused(ValueError, Conv2d, 4, 6, 3, groups=3)
    refused(ValueError, MaxPool2d, 2, padding=2)


def can_learn_to_read_digits():
    manual_seed(0)
    images, labels = digits()
    x, rng = images[:, None], np.random.default_rng(0)
    model = Sequential(Conv2d(1, 8, 3, padding=1), ReLU(), MaxPool2d(2), Conv2d(8, 16, 3, padding=1), ReLU(),
                       GlobalMaxPool2d(), Linear(16, 10))
    optimizer, loss = Adam(model.parameters(), lr=0.01), CrossEntropyLoss()
    for _ in range(4):
        for part in rng.permutation(1000)[:992].reshape(-1, 32):
            optimizer.zero_grad()
            loss(model(Tensor(x[part])), labels[part]).backward()
            optimizer.step()
    right = (values(model(Tensor(x[1000:]))).argmax(axis=1) == labels[1000:]).mean()
    assert right > 0.8, f"after four epochs two convolutions should read 80 % of unseen digits, they read {right:.0%}"


def can_convolve_at_the_speed_of_a_matrix_product():
    x, weight, grad = draw((16, 16, 24, 24), 23), draw((32, 16, 3, 3), 24), draw((16, 32, 22, 22), 25)
    x, grad = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, grad))      # as convolutions hand them on
    rows, columns = draw((16 * 22 * 22, 144), 26), draw((144, 32), 27)
    flat = draw((16 * 22 * 22, 32), 28)
    fast(lambda: conv2d(x, weight), lambda: rows.copy() @ columns, "a convolution", times=4)
    make_x, make_weight = conv2d.derivative(grad, None, x, weight)
    fast(make_weight, lambda: rows.copy().T @ flat, "the gradient of its weights", times=4)
    fast(make_x, lambda: np.add(flat @ columns.T, rows), "the gradient of its pictures", times=4)
    fast(lambda: [make() for make in conv2d.derivative(grad, None, x, weight)],
         lambda: (rows.copy().T @ flat, np.add(flat @ columns.T, rows)), "both gradients", times=4)
    fast(lambda: max_pool2d(x), lambda: [np.maximum(x, 0.5) for _ in range(4)], "pooling", times=4)
    out = max_pool2d.forward(x)
    fast(lambda: max_pool2d.derivative(out, out, x), lambda: [np.maximum(x, 0.5) for _ in range(12)], "the gradient of pooling", times=4)
