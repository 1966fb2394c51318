"""Can I build neural network components? First weights, names, states, linear layers, stacks, dropout and normalisation."""

from itertools import product

import numpy as np

from course.checkpoints.support import agree, fast, values
from tinytorch import randomness
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import (
    BatchNorm1d,
    Dense,
    Dropout,
    Flatten,
    Identity,
    LayerNorm,
    Linear,
    Module,
    Parameter,
    Sequential,
    as_tensor,
    he_normal,
    linear_shape,
    normalize,
    walk,
)
from tinytorch.core.tensor import Tensor
from tinytorch.testing.checking import refuses


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(1, 2, size=shape).astype(np.float32)


class Block(Module):
    """A module with everything in it that may be found, and some that may not."""

    def __init__(self, size=3):
        self.first, self.rate, self.mask = Linear(size, 2), 0.5, Tensor(np.ones(size))
        self.parts = [Parameter(np.ones((1, size))), {"inner": Linear(2, 1, bias=False)}]
        self.count = np.zeros(2, np.float32)
        self.again = self.first.weight

    def forward(self, x):
        return self.first(x)


NAMES = ["first.weight", "first.bias", "parts.0", "parts.1.inner.weight"]


def can_start_with_weights_that_keep_a_signal():
    for fan_in, shape in ((50, (50, 400)), (8, (60, 2, 2, 90))):
        weights, want = he_normal(fan_in, shape), (2 / fan_in) ** 0.5
        assert weights.dtype == np.float32, f"first weights should be float32, they are {weights.dtype}"
        assert weights.shape == shape, f"he_normal({fan_in}, {shape}) should have that shape, it has {weights.shape}"
        assert abs(weights.std() / want - 1) < 0.05, f"{fan_in} inputs need weights of spread {want:.3f}, not {weights.std():.3f}"
        assert abs(weights.mean()) < 0.05 * want, f"the mean of first weights should be near 0, it is {weights.mean():.4f}"
    x = draw((200, 128))
    before = (x * x).mean()
    for _ in range(20):
        x = np.maximum(x @ values(Linear(128, 128).weight), 0)
    assert 0.1 < (x * x).mean() / before < 10, f"behind 20 layers the mean square should be about {before:.1f}, it is {(x * x).mean():.2e}"


def can_repeat_a_network_by_its_seed():
    def outcome():
        randomness.manual_seed(7)
        net = Sequential(Linear(4, 6), Dropout(0.4))
        return values(net(np.ones((3, 4)))).copy()

    agree(outcome(), outcome(), "a network of the same seed")
    randomness.manual_seed(7)
    one, other = Linear(4, 6), Linear(4, 6)
    assert not np.array_equal(values(one.weight), values(other.weight)), "two layers should start with different weights"


def can_find_everything_by_name():
    got = [name for name, _ in walk({"w": 1.5, "parts": (2.5, [3.5])})]
    assert got == ["", "w", "parts", "parts.0", "parts.1", "parts.1.0"], f"a dict with a tuple with a list has other names than {got}"
    block = Block()
    found = block.named_parameters()
    assert [name for name, _ in found] == NAMES, f"the parameters should be {NAMES}, yours are {[name for name, _ in found]}"
    assert [p.shape for p in block.parameters()] == [(3, 2), (2,), (1, 3), (2, 1)], f"parameters() gives {block.parameters()}"
    names = [name for name, _ in block.named_modules()]
    assert names == ["", "first", "parts.1.inner"], f"the modules should be '', first, parts.1.inner, yours are {names}"
    assert list(block.named_arrays()) == [*NAMES, "count"], f"the arrays should be those and count, yours are {list(block.named_arrays())}"


def can_keep_parameters_apart_from_what_they_were_made_of():
    x = np.ones(3, np.float32)
    parameter = Parameter(x)
    parameter.data += 1
    agree(x, np.ones(3), "the array that a Parameter was made of")
    assert parameter.requires_grad, "a Parameter is what training changes: requires_grad should be True"
    assert as_tensor(parameter) is parameter, "as_tensor should give a Tensor back as it is"
    agree(as_tensor([1, 2]), [1, 2], "as_tensor([1, 2])")


def can_take_a_snapshot_and_load_it():
    block = Block()
    state = block.state_dict()
    assert list(state) == [*NAMES, "count"], f"a state should have the names {[*NAMES, 'count']}, yours has {list(state)}"
    kept = {name: array.copy() for name, array in state.items()}
    for parameter in block.parameters():
        parameter.data += 1
    block.count += 1
    for name, array in state.items():
        agree(array, kept[name], f"{name} of a snapshot, after the module moved on")
    other = Block()
    other.load_state_dict(state)
    for name, array in other.state_dict().items():
        agree(array, kept[name], f"{name} after loading")
    agree(other(draw((4, 3))), draw((4, 3)) @ kept["first.weight"] + kept["first.bias"], "a module with loaded weights")


def can_refuse_a_state_that_does_not_fit():
    block = Block()
    before, state = block.state_dict(), block.state_dict()
    state["first.bias"], state["extra"] = np.zeros(5), np.zeros(1)
    state["parts.0"] = state["parts.0"] + 1
    del state["count"]
    refuses(block.load_state_dict, state, says=["count is missing", "extra is unexpected", "first.bias has shape (5,), this one has (2,)"])
    for name, array in block.state_dict().items():
        agree(array, before[name], f"{name} after a state was refused")


def can_apply_a_linear_layer_to_rows_texts_and_pictures():
    for shape, inputs in (((5, 6), 6), ((2, 4, 6), 6), ((3, 2, 3), 6), ((6,), 6), ((2, 1, 3, 6), 6), ((2, 2, 5, 2), 20), ((0, 6), 6)):
        layer, x = Linear(inputs, 4), draw(shape)
        layer.bias.data = np.arange(4)
        want_shape = (*shape[:-1], 4) if shape[-1] == inputs else (shape[0], 4)
        got = linear_shape(shape, inputs, 4)
        assert got == want_shape, f"Linear({inputs}, 4) makes {want_shape} of {shape}, yours {got}"
        want = np.einsum("ri,io->ro", x.reshape(-1, inputs).astype(np.float64), values(layer.weight)) + np.arange(4)
        agree(layer(x), want.reshape(want_shape), f"Linear({inputs}, 4) on {shape}", atol=1e-4)
    plain = Dense(3, 2, bias=False)
    assert plain.bias is None, f"with bias=False there is none, yours is {plain.bias}"
    agree(plain([[1, 0, 2]]), [values(plain.weight)[0] + 2 * values(plain.weight)[2]], "a layer without bias", atol=1e-5)


def can_say_which_input_does_not_fit():
    for shape in ((4, 5), (), (5,), (6, 5), (2, 2, 2)):
        refuses(Linear(6, 4), np.ones(shape), says=["Linear(6, 4) takes 6 numbers", str(shape)])
    refuses(linear_shape, (2, 3), 6, 4, says=["(2, 3)"])
    refuses(LayerNorm(3), np.ones((2, 4)), says=["(2, 4)"])
    for shape in ((4, 5), (3,), (1, 3)):
        refuses(BatchNorm1d(3), np.ones(shape), says=[str(shape)])
    refuses(Sequential, ReLU, says=["layer 0"], kind=TypeError)
    refuses(Sequential, 3, says=["layer 0"], kind=TypeError)
    refuses(Module(), [1], says=["Module has no forward"], kind=NotImplementedError)
    for share in (-0.1, 1, 1.5):
        refuses(Dropout, share, says=["Dropout"])


def can_stack_layers():
    parts = [Linear(3, 5), ReLU(), Linear(5, 2)]
    x = draw((4, 3))
    want = np.maximum(x @ values(parts[0].weight), 0) @ values(parts[2].weight)
    for net in (Sequential(*parts), Sequential(parts)):
        agree(net(x), want, "two linear layers with a ReLU between them", atol=1e-4)
        assert len(net) == 3, f"a network of three layers should have the length 3, it has {len(net)}"
        assert net[2] is parts[2], "net[2] should be the third layer"
        agree(net[:2](x), np.maximum(x @ values(parts[0].weight), 0), "net[:2](x)", atol=1e-4)
        names = [name for name, _ in net.named_parameters()]
        assert names == ["layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"], f"the names of its parameters are {names}"
    agree(Sequential()(7), 7, "no layers at all")
    agree(Flatten()(draw((2, 3, 4))), draw((2, 3, 4)).reshape(2, 12), "Flatten()")
    agree(Identity()(x), x, "Identity()")


def can_drop_numbers_in_training_only():
    for share in (0.2, 0.7):
        layer, x = Dropout(share), np.full((200, 100), 3, np.float32)
        out = values(layer(x))
        agree(np.unique(out), [0, 3 / (1 - share)], f"what Dropout({share}) makes of 3s", atol=1e-4)
        assert abs((out == 0).mean() - share) < 0.02, f"Dropout({share}) should drop that share, it drops {(out == 0).mean():.1%}"
        assert not np.array_equal(out, values(layer(x))), "Dropout should drop other numbers each time"
        agree(layer.eval()(x), x, f"Dropout({share}) after eval()")
        assert not np.array_equal(values(layer.train()(x)), x), "Dropout should drop again after train()"
    agree(Dropout(0)(x), x, "Dropout(0)")


def can_switch_a_whole_network_between_training_and_use():
    net = Sequential(Linear(3, 4), Sequential(Dropout(0.5), BatchNorm1d(4)))
    for mode, back in ((False, net.eval()), (True, net.train()), (False, net.train(False))):
        assert back is net, "train() and eval() should give the network back"
        assert net.train(mode)[1][0].training is mode, f"train({mode}) should reach the layers within layers"
    net.eval()
    agree(net(draw((5, 3)))[:2], values(net(draw((5, 3))[:2])), "two answers alone and in company, after eval()", atol=1e-4)


def can_normalize_along_any_axis():
    for axis in (-1, 0, 1, (0, 2)):
        x = draw((4, 5, 6))
        exact = x.astype(np.float64)
        want = (exact - exact.mean(axis=axis, keepdims=True)) / np.sqrt(exact.var(axis=axis, keepdims=True) + 1e-5)
        agree(normalize(x, axis=axis), want, f"normalize with axis={axis}", atol=1e-4)
    rows = (exact - exact.mean(axis=-1, keepdims=True)) / exact.std(axis=-1, keepdims=True)
    agree(normalize(x), rows, "normalize(x), the last axis", atol=1e-4)
    agree(normalize([[5, 5, 5]]), [[0, 0, 0]], "equal numbers")
    layer = LayerNorm(6)
    layer.weight.data, layer.bias.data = np.arange(6), np.arange(6) * 2
    agree(layer(x), rows * np.arange(6) + np.arange(6) * 2, "LayerNorm", atol=1e-3)


def can_normalize_a_batch_and_remember_it():
    for shape, momentum in product([(5, 3), (4, 3, 6)], (0.1, 0.5)):
        layer, mean, var = BatchNorm1d(3, momentum=momentum), np.zeros(3), np.ones(3)
        layer.weight.data, layer.bias.data = [1, 2, 3], [4, 5, 6]
        for seed in range(3):
            x = draw(shape, seed)
            rows = np.moveaxis(x, 1, -1).reshape(-1, 3).astype(np.float64)
            want = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + 1e-5) * [1, 2, 3] + [4, 5, 6]
            agree(np.moveaxis(values(layer(x)), 1, -1).reshape(-1, 3), want, f"BatchNorm1d in training, {shape}", atol=1e-3)
            mean, var = mean + momentum * (rows.mean(axis=0) - mean), var + momentum * (rows.var(axis=0, ddof=1) - var)
        agree(layer.running_mean, mean, f"running means with momentum {momentum}", atol=1e-4)
        agree(layer.running_var, var, f"running variances with momentum {momentum}", atol=1e-3)
        alone = draw((1, *shape[1:]), 9)
        column = (-1,) + (1,) * (alone.ndim - 2)
        want = (alone - mean.reshape(column)) / np.sqrt(var.reshape(column) + 1e-5)
        want = want * np.reshape([1, 2, 3], column) + np.reshape([4, 5, 6], column)
        agree(layer.eval()(alone), want, "BatchNorm1d after eval()", atol=1e-3)
        agree(layer.running_mean, mean, "running means, which a call after eval() should not move,", atol=1e-4)
    agree(BatchNorm1d(2, eps=3).eval()([[4, -6]]), [[2, -3]], "BatchNorm1d(2, eps=3) of a variance of 1, after eval()", atol=1e-4)


def can_keep_everything_in_float32():
    net = Sequential(Linear(4, 6), BatchNorm1d(6), LayerNorm(6), Dropout(0.5), Linear(6, 2))
    for mode in (True, False):
        out = net.train(mode)(draw((8, 4)))
        assert isinstance(out, Tensor), f"a network should answer with a Tensor, not a {type(out).__name__}"
        assert out.requires_grad, "what comes out of a network with parameters should leave a trail for gradients"
        x = draw((8, 4))
        for layer in net:
            raw = layer(x)
            assert values(raw).dtype == np.float32, f"{layer!r} should answer in float32, it answers in {values(raw).dtype}"
            x = values(raw)
    for name, array in net.state_dict().items():
        assert array.dtype == np.float32, f"{name} should be float32, it is {array.dtype}"


def can_do_that_at_the_speed_of_numpy():
    x, wide = draw((512, 256)), draw((512, 1024))
    linear, weight, bias = Linear(256, 512), draw((256, 512)), draw(512)
    fast(lambda: linear(x), lambda: x @ weight + bias, "a linear layer of 256 inputs and 512 units", times=3)
    net = Sequential(linear, ReLU())
    fast(lambda: net(x), lambda: np.maximum(x @ weight + bias, 0), "a linear layer and a ReLU", times=3)
    images = draw((64, 16, 16))
    fast(lambda: linear(images), lambda: images.reshape(64, 256) @ weight + bias, "a linear layer on pictures", times=4)
    rng = np.random.default_rng(0)
    fast(lambda: Dropout(0.5)(wide), lambda: wide * ((rng.random(wide.shape, np.float32) >= 0.5) / np.float32(0.5)),
         "dropout of half a million numbers", times=4)
    norm, batch = LayerNorm(1024), BatchNorm1d(1024)

    def plain(axis):
        centred = wide - wide.mean(axis=axis, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(axis=axis, keepdims=True) + 1e-5) * np.float32(2) + np.float32(1)

    fast(lambda: normalize(wide), lambda: plain(1), "normalizing half a million numbers", times=4)
    fast(lambda: norm(wide), lambda: plain(1), "LayerNorm of half a million numbers", times=4)
    fast(lambda: batch(wide), lambda: (plain(0), wide.var(axis=0)), "BatchNorm1d of half a million numbers", times=4)
    fast(lambda: he_normal(256, (1024, 512)), lambda: rng.standard_normal((1024, 512), dtype=np.float32) * np.float32(0.1),
         "drawing half a million weights", times=4)
    deep = Sequential([Linear(256, 256) for _ in range(20)])
    state = deep.state_dict()
    fast(deep.state_dict, lambda: {name: array.copy() for name, array in state.items()}, "a snapshot of 20 layers", times=4)
    fast(lambda: deep.load_state_dict(state), lambda: {name: array.copy() for name, array in state.items()}, "loading 20 layers", times=4)
