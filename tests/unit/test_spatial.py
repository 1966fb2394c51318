"""Module 09 against PyTorch, over shapes, kernels, strides and paddings drawn by hypothesis.

Tolerances: float32 sums of up to a few hundred products of numbers around 1 agree to 1e-4; raw rules get float64 and central
differences, which agree to 1e-6.
"""

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.need import need
from tinytorch.core import cnn, spatial
from tinytorch.core.activations import ReLU
from tinytorch.core.autograd import no_grad
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD
from tinytorch.core.spatial import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    GlobalAvgPool2d,
    GlobalMaxPool2d,
    MaxPool2d,
    avg_pool2d,
    batch_norm2d,
    conv2d,
    depthwise_conv2d,
    max_pool2d,
)
from tinytorch.core.tensor import Tensor, op
from tinytorch.fast import narrowing, pooling, shallow, ways
from tinytorch.given import windows

patient = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
side = st.integers(1, 3)


def numbers(seed, *shape, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@st.composite
def geometry(draw, pooling=False):
    """(N, C, H, W), kernel, stride, padding such that the kernel fits; a pool's padding is at most half of its kernel."""
    kernel, stride = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(st.tuples(side, side))
    padding = tuple(draw(st.integers(0, k // 2 if pooling else 3)) for k in kernel)
    size = tuple(draw(st.integers(max(1, k - 2 * p), 8)) for k, p in zip(kernel, padding, strict=True))
    return (draw(side), draw(st.integers(1, 4)), *size), kernel, stride, padding


def memory(x, order):
    """The same numbers in another order of memory: as they come, channels last, or as part of something larger."""
    if order == "last":
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return np.repeat(x, 2, axis=3)[..., ::2] if order == "strided" else x


orders = st.sampled_from(["first", "last", "strided"])


@pytest.fixture(scope="module")
def torch():
    need("PyTorch", importlib.util.find_spec("torch"), "make oracle")
    import torch

    torch.set_num_threads(1)                    # these arrays are small
    return torch


def agree(torch, ours, theirs, *arrays, order="first", tolerance=1e-4):
    """Value and gradients of `ours(tensors)` and `theirs(torch tensors)`, for one random weighting of the result."""
    inputs = [Tensor(array, requires_grad=True) for array in arrays]
    inputs[0].data = memory(inputs[0].data, order)
    peers = [torch.tensor(array, requires_grad=True) for array in arrays]
    got, want = ours(*inputs), theirs(*peers)
    assert got.shape == tuple(want.shape)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.data, want.detach().numpy(), rtol=tolerance, atol=tolerance)
    weighting = numbers(99, *got.shape)
    got.backward(weighting)
    want.backward(torch.tensor(weighting))
    for own, peer in zip(inputs, peers, strict=True):
        assert own.grad.shape == own.shape
        np.testing.assert_allclose(own.grad, peer.grad.numpy(), rtol=tolerance, atol=2 * tolerance)


# against PyTorch

@pytest.mark.oracle
@patient
@given(geometry(), st.integers(1, 4), orders, st.booleans(), st.integers(0, 9))
def test_conv2d_agrees_with_pytorch(torch, case, filters, order, with_bias, seed):
    peer = torch.nn.functional.conv2d
    shape, kernel, stride, padding = case
    arrays = [numbers(seed, *shape), numbers(seed + 1, filters, shape[1], *kernel), numbers(seed + 2, filters)][:2 + with_bias]
    options = {"stride": stride, "padding": padding}
    agree(torch, lambda *t: conv2d(*t, **options), lambda *t: peer(*t, **options), *arrays, order=order)


@pytest.mark.oracle
@patient
@given(st.data(), st.integers(1, 5), st.integers(1, 5), orders, st.booleans(), st.integers(0, 9))
def test_a_layers_convolution_agrees_with_pytorch_narrowing_or_not(torch, data, channels, filters, order, with_bias, seed):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(data.draw(st.integers(0, k)) for k in kernel)          # k is one more than narrowing can do
    size = [data.draw(st.integers(max(1, k - 2 * p), 7)) for k, p in zip(kernel, padding, strict=True)]
    layer = Conv2d(channels, filters, kernel, padding=padding, bias=with_bias)
    arrays = [numbers(seed, data.draw(side), channels, *size), layer.weight.data, numbers(seed + 1, filters)][:2 + with_bias]

    def ours(x, weight, bias=None):
        layer.weight, layer.bias = weight, bias
        return layer(x)

    agree(torch, ours, lambda *t: torch.nn.functional.conv2d(*t, padding=padding), *arrays, order=order)


@pytest.mark.oracle
@patient
@given(st.data(), st.integers(1, shallow.FEW), orders, st.booleans(), st.integers(0, 9))
def test_a_first_layers_convolution_agrees_with_pytorch(torch, data, channels, order, with_bias, seed):
    kernel = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda kernel: max(kernel) > 1))
    options = {"stride": data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
               "padding": data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))}
    size = [data.draw(st.integers(max(1, k - 2 * p), 7)) for k, p in zip(kernel, options["padding"], strict=True)]
    filters = channels * kernel[0] * kernel[1] + data.draw(st.integers(0, 2))
    assert ways.cheapest_convolution(conv2d, (filters, channels, *kernel), **options) is shallow.kept(conv2d)
    arrays = [numbers(seed, data.draw(side), channels, *size), numbers(seed + 1, filters, channels, *kernel), numbers(seed + 2, filters)]
    agree(torch, lambda *t: shallow.kept(conv2d)(*t, **options), lambda *t: torch.nn.functional.conv2d(*t, **options),
          *arrays[:2 + with_bias], order=order)


@pytest.mark.oracle
@patient
@given(geometry(), orders, st.booleans(), st.integers(0, 9))
def test_depthwise_convolution_agrees_with_pytorch(torch, case, order, with_bias, seed):
    peer = torch.nn.functional.conv2d
    shape, kernel, stride, padding = case
    arrays = [numbers(seed, *shape), numbers(seed + 1, shape[1], 1, *kernel), numbers(seed + 2, shape[1])][:2 + with_bias]
    options = {"stride": stride, "padding": padding}
    agree(torch, lambda *t: depthwise_conv2d(*t, **options), lambda *t: peer(*t, groups=shape[1], **options), *arrays, order=order)


@pytest.mark.oracle
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(1, 4, 6), (2, 4, 6), (4, 4, 4), (4, 4, 8), (3, 6, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_conv2d_layer_with_groups_agrees_with_pytorch(torch, groups, inputs, outputs, bias):
    peer = torch.nn.functional.conv2d
    layer = Conv2d(inputs, outputs, (3, 2), stride=(1, 2), padding=1, groups=groups, bias=bias)
    arrays = [numbers(0, 3, inputs, 7, 8), layer.weight.data, numbers(1, outputs)][:2 + bias]

    def ours(x, weight, bias=None):
        layer.weight, layer.bias = weight, bias
        return layer(x)

    agree(torch, ours, lambda *t: peer(*t, stride=(1, 2), padding=1, groups=groups), *arrays)


@pytest.mark.oracle
@patient
@given(geometry(pooling=True), orders, st.booleans(), st.integers(0, 9))
def test_max_pooling_agrees_with_pytorch_also_where_numbers_are_equal(torch, case, order, ties, seed):
    peer = torch.nn.functional.max_pool2d
    shape, kernel, stride, padding = case
    x = np.round(numbers(seed, *shape)) + np.float32(0) if ties else numbers(seed, *shape)
    agree(torch, lambda t: max_pool2d(t, kernel=kernel, stride=stride, padding=padding), lambda t: peer(t, kernel, stride, padding), x,
          order=order)


@pytest.mark.oracle
@patient
@given(st.tuples(side, side, st.integers(3, 8), st.integers(3, 8)), st.tuples(side, side), st.sampled_from([None, None, (2, 1)]),
       st.booleans(), orders, st.booleans(), st.integers(0, 9))
def test_a_pooling_layer_agrees_with_pytorch_side_by_side_or_not(torch, shape, kernel, stride, rim, order, ties, seed):
    x = np.round(numbers(seed, *shape)) + np.float32(0) if ties else numbers(seed, *shape)
    padding = tuple(k // 2 for k in kernel) if rim else (0, 0)
    agree(torch, MaxPool2d(kernel, stride, padding), lambda t: torch.nn.functional.max_pool2d(t, kernel, stride, padding), x, order=order)


@pytest.mark.oracle
@patient
@given(geometry(pooling=True), orders, st.integers(0, 9))
def test_average_pooling_agrees_with_pytorch(torch, case, order, seed):
    peer = torch.nn.functional.avg_pool2d
    shape, kernel, stride, padding = case
    agree(torch, lambda t: avg_pool2d(t, kernel=kernel, stride=stride, padding=padding), lambda t: peer(t, kernel, stride, padding),
          numbers(seed, *shape), order=order)


@pytest.mark.oracle
@pytest.mark.parametrize("scale", [1, 100])
@patient
@given(st.tuples(st.integers(2, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5)), st.booleans(), orders, st.integers(0, 9))
def test_batch_normalisation_agrees_with_pytorch(torch, scale, shape, training, order, seed):
    channels = shape[1]
    x = numbers(seed, *shape) + np.float32(scale)               # a mean far from 0 costs digits: only those of x itself
    running = [numbers(seed + 1, channels), np.abs(numbers(seed + 2, channels)) + np.float32(0.5)]
    peers = [torch.tensor(array) for array in running]
    agree(torch, lambda x, gain, bias: batch_norm2d(x, gain, bias, running=running, training=training, eps=1e-2),
          lambda x, gain, bias: torch.nn.functional.batch_norm(x, *peers, gain, bias, training=training, eps=1e-2),
          x, numbers(seed + 3, channels), numbers(seed + 4, channels), order=order, tolerance=1e-4 * scale)
    for ours, theirs in zip(running, peers, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.parametrize("last", [False, True])
def test_global_pooling_agrees_with_pytorch(torch, last):
    x = numbers(0, 3, 4, 5, 6)
    agree(torch, GlobalAvgPool2d(), lambda t: t.mean((2, 3)), x, order="last" if last else "first")
    agree(torch, GlobalMaxPool2d(), lambda t: t.amax((2, 3)), x, order="last" if last else "first")


@pytest.mark.oracle
def test_a_network_learns_as_in_pytorch(torch):
    nn = torch.nn
    ours = Sequential(Conv2d(3, 4, 3, padding=1), BatchNorm2d(4), ReLU(), MaxPool2d(2), Conv2d(4, 6, 3), ReLU(), Linear(6 * 4, 5))
    theirs = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(),
                           nn.Flatten(), nn.Linear(6 * 4, 5))
    with torch.no_grad():
        for own, peer in zip(ours.parameters(), theirs.parameters(), strict=True):
            peer.copy_(torch.tensor(own.data.T.copy() if own.ndim == 2 else own.data))
    x, y = numbers(0, 8, 3, 8, 8), np.arange(8) % 5
    optimizer, peer_optimizer = SGD(ours.parameters(), lr=0.1), torch.optim.SGD(theirs.parameters(), lr=0.1)
    losses, wanted = [], []
    for _ in range(5):
        optimizer.zero_grad()
        loss = CrossEntropyLoss()(ours(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        peer_optimizer.zero_grad()
        peer_loss = nn.functional.cross_entropy(theirs(torch.tensor(x)), torch.tensor(y))
        peer_loss.backward()
        peer_optimizer.step()
        wanted.append(peer_loss.item())
    np.testing.assert_allclose(losses, wanted, rtol=1e-3)
    with torch.no_grad(), no_grad():
        np.testing.assert_allclose(ours.eval()(x).data, theirs.eval()(torch.tensor(x)).numpy(), rtol=1e-3, atol=1e-3)


# raw rules in float64 against central differences

def slopes(function, arrays, weighting, eps=1e-5):
    """Central differences of sum(weighting * function(*arrays)) for every number of every array."""
    found = []
    for array in arrays:
        slope = np.zeros_like(array)
        for index in np.ndindex(*array.shape):
            before = array[index]
            array[index] = before + eps
            up = (weighting * function(*arrays)).sum()
            array[index] = before - eps
            slope[index] = (up - (weighting * function(*arrays)).sum()) / (2 * eps)
            array[index] = before
        found.append(slope)
    return found


RULES = {
    "conv2d": (conv2d, {"stride": (2, 1), "padding": (1, 0)}, [(2, 3, 5, 4), (4, 3, 3, 2), (4,)]),
    "fewer filters than channels": (narrowing.either_way(conv2d), {"padding": (1, 0)}, [(2, 3, 5, 4), (2, 3, 3, 2), (2,)]),
    "more filters than channels": (narrowing.either_way(conv2d), {"padding": (0, 2)}, [(2, 2, 4, 5), (3, 2, 2, 3), (3,)]),
    "filters three times as large as the pictures": (narrowing.either_way(conv2d), {"padding": (3, 2)}, [(2, 2, 2, 2), (1, 2, 6, 6)]),
    "few channels": (shallow.kept(conv2d), {"stride": (2, 1), "padding": (1, 0)}, [(2, 2, 5, 4), (12, 2, 3, 2), (12,)]),
    "depthwise": (depthwise_conv2d, {"stride": (1, 2), "padding": (0, 1)}, [(2, 3, 5, 4), (3, 1, 2, 3), (3,)]),
    "max pool": (max_pool2d, {"kernel": (3, 2), "stride": (1, 2), "padding": (1, 1)}, [(2, 3, 5, 4)]),
    "max pool, side by side": (pooling.largest(max_pool2d), {"kernel": (2, 3), "stride": (2, 3), "padding": (0, 0)}, [(2, 3, 5, 7)]),
    "average pool": (avg_pool2d, {"kernel": (3, 2), "stride": (1, 2), "padding": (1, 1)}, [(2, 3, 5, 4)]),
    "batch norm": (batch_norm2d, {}, [(3, 2, 2, 3), (2,), (2,)]),
    "batch norm, running": (batch_norm2d, {"training": False, "running": (np.array([0.3, -1]), np.array([0.5, 2]))},
                            [(3, 2, 2, 3), (2,), (2,)]),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_are_the_slopes_of_their_ops(name):
    op, options, shapes = RULES[name]
    arrays = [numbers(seed, *shape, dtype=np.float64) for seed, shape in enumerate(shapes)]

    def forward(*arrays):
        out = op.forward(*arrays, **options)
        return out[0] if isinstance(out, tuple) else out

    out = op.forward(*arrays, **options)
    out, kept = out if isinstance(out, tuple) else (out, out)
    assert out.dtype == np.float64
    weighting = numbers(9, *out.shape, dtype=np.float64)
    made = op.derivative(weighting, kept, *arrays, **options)
    made = made if isinstance(made, tuple) else (made,)
    assert len(made) == len(arrays)
    for got, want in zip(made, slopes(forward, arrays, weighting), strict=True):
        np.testing.assert_allclose(got() if callable(got) else got, want, rtol=1e-6, atol=1e-6)


def test_small_blocks_give_the_same_numbers(monkeypatch):
    arrays = [numbers(0, 7, 3, 9, 8), numbers(1, 5, 3, 3, 3), numbers(2, 5)]
    depthwise = [arrays[0], numbers(1, 3, 1, 3, 3)]
    narrow = [arrays[0], numbers(1, 2, 3, 3, 3), numbers(2, 2)]
    first = [arrays[0], numbers(1, 27, 3, 3, 3), numbers(2, 27)]
    calls = {conv2d: (arrays, {"padding": (1, 1)}), narrowing.either_way(conv2d): (narrow, {"padding": (1, 1)}),
             shallow.kept(conv2d): (first, {"stride": (1, 1), "padding": (1, 1)}),
             depthwise_conv2d: (depthwise, {"padding": (1, 1)}), max_pool2d: (arrays[:1], {}),
             pooling.largest(max_pool2d): (arrays[:1], {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
             avg_pool2d: (arrays[:1], {}), batch_norm2d: ([arrays[0], numbers(3, 3), numbers(4, 3)], {})}

    def results():
        for each, (inputs, options) in calls.items():
            tensors = [Tensor(array, requires_grad=True) for array in inputs]
            out = each(*tensors, **options)
            out.backward(numbers(5, *out.shape))
            yield from [out.data, *(t.grad for t in tensors)]

    whole = list(results())
    monkeypatch.setattr(windows, "BLOCK", 100)
    for got, want in zip(results(), whole, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


# manners

@given(images=st.integers(0, 40), size=st.integers(0, 12), room=st.integers(1, 60))
def test_blocks_leave_no_picture_out_and_none_is_much_shorter(images, size, room):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "BLOCK", room)
        parts = windows.blocks(images, size)
    assert [i for part in parts for i in range(images)[part]] == list(range(images))
    lengths = [len(range(images)[part]) for part in parts]
    assert all(1 <= length <= max(1, room // max(1, size)) for length in lengths)
    assert max(lengths, default=0) - min(lengths, default=0) <= 1


def test_blocks_are_longer_for_a_thread_that_shares_its_batch_and_for_no_other():
    with windows.longer_blocks(), ThreadPoolExecutor(1) as other:
        assert len(windows.blocks(64, windows.BLOCK)) == 16
        assert len(other.submit(windows.blocks, 64, windows.BLOCK).result()) == 64
    assert len(windows.blocks(64, windows.BLOCK)) == 64


def test_no_op_changes_its_inputs_or_the_gradient_it_gets():
    x, gain = numbers(0, 2, 3, 6, 6), numbers(1, 3)
    for each, arrays, options in [(conv2d, [x, numbers(2, 4, 3, 3, 3), numbers(3, 4)], {"padding": (1, 1)}),
                                (narrowing.either_way(conv2d), [x, numbers(2, 2, 3, 3, 3), numbers(3, 2)], {"padding": (1, 1)}),
                                (shallow.kept(conv2d), [x, numbers(2, 27, 3, 3, 3), numbers(3, 27)], {"stride": (1, 1), "padding": (1, 1)}),
                                (depthwise_conv2d, [x, numbers(2, 3, 1, 3, 3)], {}), (max_pool2d, [x], {}), (avg_pool2d, [x], {}),
                                (pooling.largest(max_pool2d), [x], {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
                                (batch_norm2d, [x, gain, gain], {})]:
        before = [array.copy() for array in arrays]
        out = each(*[Tensor(array, requires_grad=True) for array in arrays], **options)
        grad = numbers(4, *out.shape)
        weighting = grad.copy()
        out.backward(grad)
        assert all((old == new).all() for old, new in zip(before, arrays, strict=True)), each.__name__
        assert (grad == weighting).all(), each.__name__
        last = memory(grad, "last")                             # as it arrives from another layer, when nothing need be copied
        out = each.forward(*arrays, **options)
        made = each.derivative(last, out[1] if isinstance(out, tuple) else out, *arrays, **options)
        for part in made if isinstance(made, tuple) else ():
            if callable(part):
                part()
        assert (last == weighting).all(), each.__name__


def test_numbers_moved_out_of_sight_meet_nothing():
    for move in range(-9, 10):
        there, here = narrowing.overlap(4, move, 6)
        want = [place for place in range(6) if 0 <= place - move < 4]
        assert list(range(6))[there] == want
        assert [n + move for n in list(range(4))[here]] == want


def test_results_lie_channels_last_and_the_next_layer_copies_nothing():
    x = Conv2d(3, 4, 3)(numbers(0, 2, 3, 6, 6))
    assert np.shares_memory(windows.channels_last(x.data), x.data)
    for layer in (MaxPool2d(2), AvgPool2d(2), BatchNorm2d(4), ReLU(), Conv2d(4, 4, 1), Conv2d(4, 2, 3), Conv2d(4, 4, 1, groups=4)):
        out = layer(x).data
        assert np.shares_memory(windows.channels_last(out), out), layer


def test_a_batch_is_turned_round_once():
    _, (x, *_), *_ = Conv2d(3, 4, 3)(numbers(0, 2, 3, 6, 6)).origin
    assert np.shares_memory(windows.channels_last(x.data), x.data)      # what the rule gets needs no copy


@pytest.mark.parametrize("wrong", ["forward", "rule of the weight", "rule of the pictures", "no rule"])
def test_whoever_writes_conv2d_gets_theirs_and_no_cheaper_one(wrong):
    """The cheaper ways would hide what is wrong with it."""
    def forward(x, weight, bias=None, *, stride=(1, 1), padding=(0, 0)):
        return conv2d.forward(x, weight, bias, stride=stride, padding=padding) * (2 if wrong == "forward" else 1)

    def rule(grad, *rest, **options):
        x, weight, *bias = conv2d.derivative(grad, *rest, **options)
        of_x = (lambda: 2 * x()) if wrong == "rule of the pictures" else x
        of_weight = (lambda: 2 * weight()) if wrong == "rule of the weight" else weight
        return of_x, of_weight, *bias

    theirs = op(forward, "conv2d")
    if wrong != "no rule":
        theirs.backward(rule)
    for shape in ((27, 3, 3, 3), (3, 27, 3, 3), (30, 20, 3, 3)):
        if wrong != "rule of the pictures" or shape[1] > shallow.FEW:       # with few channels their rule of the pictures is the one asked
            assert ways.cheapest_convolution(theirs, shape, stride=(1, 1), padding=(1, 1)) is theirs
        assert ways.cheapest_convolution(conv2d, shape, stride=(1, 1), padding=(1, 1)) is not conv2d


@pytest.mark.parametrize("wrong", ["forward", "ties", "no rule"])
def test_whoever_writes_max_pool2d_gets_theirs(wrong):
    def rule(grad, out, x, **options):                          # of equal pixels the last gets all
        return np.flip(max_pool2d.derivative(*map(np.flip, (grad, out, x)), **options))

    theirs = op(lambda x, **options: max_pool2d.forward(x, **options) + (wrong == "forward"), "max_pool2d")
    if wrong != "no rule":
        theirs.backward(rule if wrong == "ties" else max_pool2d.derivative)
    sizes = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}
    assert ways.cheapest_pooling(theirs, **sizes) is theirs
    assert ways.cheapest_pooling(avg_pool2d, **sizes) is avg_pool2d
    assert ways.cheapest_pooling(max_pool2d, **sizes) is pooling.largest(max_pool2d)
    assert ways.cheapest_pooling(max_pool2d, **{**sizes, "padding": (1, 0)}) is max_pool2d

    class Theirs(MaxPool2d):
        function = theirs

    made = Theirs(2)(Tensor(numbers(0, 2, 3, 6, 6), requires_grad=True))
    assert made.origin[0] is theirs


def test_the_gradient_of_pictures_is_not_made_unless_wanted():
    made = conv2d.derivative(np.ones((1, 4, 4, 4), np.float32), None, numbers(0, 1, 3, 6, 6), numbers(1, 4, 3, 3, 3))
    assert callable(made[0])


def test_an_empty_batch_goes_through():
    x = np.zeros((0, 3, 6, 6), np.float32)
    assert Conv2d(3, 4, 3)(x).shape == (0, 4, 4, 4)
    assert Conv2d(3, 2, 3)(x).shape == (0, 2, 4, 4)
    assert MaxPool2d(2)(x).shape == (0, 3, 3, 3)
    assert BatchNorm2d(3).eval()(x).shape == (0, 3, 6, 6)


@pytest.mark.parametrize(("call", "says"), [
    (lambda: Conv2d(3, 4, 3)(np.ones((2, 5, 8, 8))), r"expected 3 channels, got 5: .*\(2, 5, 8, 8\)"),
    (lambda: Conv2d(3, 4, 3)(np.ones((3, 8, 8))), r"\(N, C, H, W\), got \(3, 8, 8\)"),
    (lambda: Conv2d(3, 4, 9)(np.ones((2, 3, 8, 7))), r"a kernel of \(9, 9\) does not fit into pictures of \(8, 7\)"),
    (lambda: Conv2d(3, 2, 9)(np.ones((2, 3, 8, 7))), r"a kernel of \(9, 9\) does not fit into pictures of \(8, 7\)"),
    (lambda: Conv2d(3, 4, 3, groups=2), r"groups=2 must divide in_channels=3"),
    (lambda: Conv2d(3, 4, (3, 3, 3)), r"one whole number or a pair"),
    (lambda: Conv2d(3, 4, 2.5), r"one whole number or a pair"),
    (lambda: Conv2d(3, 4, 3, stride=0), r"1 or more, got 0"),
    (lambda: MaxPool2d(2, padding=-1), r"0 or more, got -1"),
    (lambda: MaxPool2d(2)(np.ones((8, 8))), r"\(N, C, H, W\), got \(8, 8\)"),
    (lambda: MaxPool2d(2, padding=2), r"more than half of the kernel"),
    (lambda: AvgPool2d(9)(np.ones((1, 1, 8, 8))), r"does not fit"),
    (lambda: BatchNorm2d(3)(np.ones((1, 3, 1, 1))), r"more than one example"),
    (lambda: BatchNorm2d(3)(np.ones((2, 4, 2, 2))), r"3 features"),
])
def test_mistakes_are_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_older_names():
    assert cnn.Conv2D is spatial.Conv2d
    assert cnn.MaxPool2D is spatial.MaxPool2d


def test_batch_normalisation_forgets_its_batch_in_eval():
    layer = BatchNorm2d(3)
    for seed in range(100):
        layer(3 * numbers(seed, 4, 3, 5, 5) + np.float32(2))
    np.testing.assert_allclose(layer.running_mean, [2, 2, 2], atol=0.5)
    np.testing.assert_allclose(layer.running_var, [9, 9, 9], rtol=0.2)
    layer.eval()
    x = numbers(5, 4, 3, 5, 5)
    np.testing.assert_allclose(layer(x).data[:1], layer(x[:1]).data, rtol=1e-5, atol=1e-6)
    assert sorted(layer.state_dict()) == ["bias", "running_mean", "running_var", "weight"]
