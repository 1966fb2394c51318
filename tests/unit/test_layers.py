"""The layers of module 04 against NumPy and PyTorch, values and gradients; what a state holds, and what is refused in which words."""

import importlib.util
import io
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.need import need
from tinytorch import randomness
from tinytorch.core import dense, layers, networks
from tinytorch.core.activations import ReLU, Softmax
from tinytorch.core.layers import (
    BatchNorm,
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
    he_normal,
    linear_shape,
    normalize,
    walk,
)
from tinytorch.core.tensor import Tensor
from tinytorch.given import modules
from tinytorch.testing import checking

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)      # the machine may be busy


@pytest.fixture(autouse=True)
def seeded():
    randomness.manual_seed(0)


@pytest.fixture(scope="module")
def torch():
    need("PyTorch", importlib.util.find_spec("torch"), "make oracle")
    import torch

    return torch


def numbers(shape, limit=3.0):
    return arrays(np.float32, shape, elements=st.floats(-limit, limit, width=32))


def spread_out(seed, shape):
    """Numbers whose variance is far from 0, so that a normalisation does not magnify float32's last digit."""
    return np.random.default_rng(seed).normal(1, 2, size=shape).astype(np.float32)


# chance and first weights

def test_a_seed_repeats_a_whole_network_and_its_dropout():
    def outcome():
        randomness.manual_seed(3)
        net = Sequential(Linear(6, 8), Dropout(0.3), Linear(8, 2))
        return [net(np.ones((4, 6))).data for _ in range(2)]

    for first, second in zip(outcome(), outcome(), strict=True):
        np.testing.assert_array_equal(first, second)
    a, b = outcome()
    assert not np.array_equal(a, b)


def test_dropout_does_not_depend_on_what_else_is_drawn():
    def dropped(draws):
        randomness.manual_seed(4)
        layer = Dropout(0.5)
        randomness.generator().random(draws)
        return layer(np.ones((5, 7))).data

    np.testing.assert_array_equal(dropped(0), dropped(9))
    assert not np.array_equal(Dropout(0.5)(np.ones((5, 7))).data, Dropout(0.5)(np.ones((5, 7))).data)


def test_the_source_of_chance_goes_on_where_it_was_saved():
    randomness.manual_seed(5)
    randomness.spawn()
    randomness.generator().normal(size=3)
    state = json.loads(json.dumps(randomness.get_state()))
    want = [randomness.spawn().normal(), randomness.generator().normal(), randomness.spawn().normal()]
    randomness.manual_seed(99)
    randomness.set_state(state)
    assert [randomness.spawn().normal(), randomness.generator().normal(), randomness.spawn().normal()] == want


@pytest.mark.parametrize(("draw", "want"), [
    (lambda: he_normal(50, (50, 400)), (2 / 50) ** 0.5),
    (lambda: modules.xavier_uniform(50, 400, (50, 400)), (2 / 450) ** 0.5),
    (lambda: modules.uniform_fan_in(50, (50, 400)), (1 / 150) ** 0.5),
], ids=["he", "xavier", "fan-in"])
def test_first_weights_have_the_spread_of_their_rule(draw, want):
    weights = draw()
    assert (weights.dtype, weights.shape) == (np.float32, (50, 400))
    assert weights.std() == pytest.approx(want, rel=0.02)
    assert abs(weights.mean()) < 0.02 * want


def test_a_signal_lasts_through_thirty_layers_of_the_default_start():
    net = Sequential([part for _ in range(30) for part in (Linear(128, 128), ReLU())])
    out = net(np.random.default_rng(0).normal(size=(100, 128))).data
    assert 0.2 < (out * out).mean() < 5


# walking and states

class Block(Module):
    def __init__(self, size):
        self.first, self.steps = Linear(size, size), 0
        self.table = {"gain": Parameter(np.ones(size)), "mask": Tensor(np.ones(size))}
        self.total = np.zeros(size, np.float64)

    def forward(self, x):
        return self.first(x) * self.table["gain"]


class Tied(Module):
    def __init__(self):
        self.blocks = [Block(2), (Block(3), ReLU())]
        self.again = self.blocks[0]
        self.weight = self.blocks[0].first.weight
        self.parent = self


def test_names_tell_the_way_and_nothing_comes_twice():
    net = Tied()
    want = ["blocks.0.first.weight", "blocks.0.first.bias", "blocks.0.table.gain",
            "blocks.1.0.first.weight", "blocks.1.0.first.bias", "blocks.1.0.table.gain"]
    assert [name for name, _ in net.named_parameters()] == want
    assert len(net.parameters()) == 6
    assert [name for name, _ in net.named_modules()] == ["", "blocks.0", "blocks.0.first", "blocks.1.0", "blocks.1.0.first"]
    assert set(net.state_dict()) == {*want, "blocks.0.total", "blocks.1.0.total"}


@patient
@given(st.recursive(st.floats(allow_nan=False).map(lambda x: [x]),
                    lambda inner: st.dictionaries(st.sampled_from("abc"), inner) | st.lists(inner)))
def test_walk_finds_what_a_plain_recursion_finds(thing):
    def all_names(thing, name=""):
        pairs = thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ()
        return [name] + [found for key, part in pairs for found in all_names(part, f"{name}.{key}" if name else str(key))]

    def copied(thing):                                    # every part an object of its own
        if isinstance(thing, dict):
            return {key: copied(part) for key, part in thing.items()}
        return [copied(part) for part in thing] if isinstance(thing, list) else Parameter(thing % 7)

    assert [name for name, _ in walk(copied(thing))] == all_names(thing)


def test_train_and_eval_reach_every_module():
    net = Sequential(Dropout(), [Linear(2, 2)][0], Sequential(Dropout(), BatchNorm1d(2)))
    assert net.eval() is net
    assert not any(module.training for _, module in net.named_modules())
    assert net.train() is net
    assert all(module.training for _, module in net.named_modules())


@patient
@given(st.data())
def test_a_state_goes_through_a_file_of_arrays_and_comes_back(data):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    build = lambda: Sequential([part for a, b in itertools.pairwise(sizes) for part in (Linear(a, b), BatchNorm1d(b))])
    net, other, file = build(), build(), io.BytesIO()
    net(data.draw(numbers((4, sizes[0]))))
    np.savez(file, **net.state_dict())
    file.seek(0)
    before = other.parameters()
    other.load_state_dict(np.load(file, allow_pickle=False))
    assert all(a is b for a, b in zip(other.parameters(), before, strict=True))
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name], array)
    x = data.draw(numbers((3, sizes[0])))
    np.testing.assert_array_equal(net.eval()(x).data, other.eval()(x).data)


def test_loading_keeps_memory_and_dtype_and_counts_as_a_change():
    net = Block(2)
    weight, version, total = net.first.weight.data, net.first.weight.version, net.total
    state = net.state_dict()
    state["first.weight"] = [[1, 2], [3, 4]]
    state["total"] = np.float32([0.5, 7])
    net.load_state_dict(state)
    assert net.first.weight.data is weight
    assert net.first.weight.version > version
    assert weight.tolist() == [[1, 2], [3, 4]]
    assert net.total is total
    assert total.dtype == np.float64
    state["total"][0] = 9
    assert total[0] == 0.5


def test_a_snapshot_does_not_follow():
    net = Linear(2, 2)
    state = net.state_dict()
    before = {name: array.copy() for name, array in state.items()}
    for parameter in net.parameters():
        parameter.data += 1
    for name in state:
        np.testing.assert_array_equal(state[name], before[name])


def test_a_state_that_does_not_fit_is_refused_as_a_whole():
    net = Sequential(Linear(2, 3), BatchNorm1d(3))
    before, state = net.state_dict(), net.state_dict()
    del state["layers.1.running_var"]
    state["layers.0.weight"] = np.zeros((3, 2))
    state["layers.7.bias"] = np.zeros(1)
    state["layers.0.bias"] = np.full(3, 8)
    with pytest.raises(ValueError, match=r"^the state does not fit this Sequential: ") as refused:
        net.load_state_dict(state)
    for text in ("layers.1.running_var is missing", "layers.7.bias is unexpected", "layers.0.weight has shape (3, 2), this one has (2, 3)"):
        assert text in str(refused.value)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_parameter_has_memory_of_its_own():
    x = np.ones(3, np.float32)
    parameter = Parameter(x)
    parameter.data += 1
    assert (x == 1).all()
    assert parameter.requires_grad


def test_a_module_without_forward_says_so():
    class Empty(Module):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty has no forward\(self, x\) yet"):
        Empty()([1])


# Linear

@patient
@given(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4), st.integers(1, 12), st.integers(1, 3))
def test_linear_takes_last_axes_and_whole_examples_and_nothing_else(shape, inputs, outputs):
    x, layer = np.ones(shape, np.float32), Linear(inputs, outputs)
    if shape and shape[-1] == inputs:
        want = (*shape[:-1], outputs)
    elif len(shape) > 1 and math.prod(shape[1:]) == inputs:
        want = (shape[0], outputs)
    else:
        with pytest.raises(ValueError, match=rf"^Linear\({inputs}, {outputs}\) takes {inputs} numbers per example, an input of shape "):
            layer(x)
        return
    assert linear_shape(shape, inputs, outputs) == want
    np.testing.assert_allclose(layer(x).data, np.reshape(np.reshape(x, (-1, inputs)) @ layer.weight.data, want), rtol=1e-5, atol=1e-5)


def test_the_flagship_dense_flattens_what_a_convolution_leaves():
    layer = Dense(64 * 28 * 28, 8)
    assert layer(np.ones((2, 64, 28, 28))).shape == (2, 8)
    with pytest.raises(ValueError, match=r"shape \(2, 64, 30, 30\) has 57600: write Linear\(57600, 8\)"):
        layer(np.ones((2, 64, 30, 30)))


@pytest.mark.oracle
@patient
@given(data=st.data(), bias=st.booleans())
def test_linear_and_its_gradients_agree_with_pytorch(torch, data, bias):
    inputs, outputs = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    shape = (*data.draw(array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)), inputs)
    x, layer, there = data.draw(numbers(shape)), Linear(inputs, outputs, bias=bias), torch.nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        there.weight.copy_(torch.from_numpy(layer.weight.data.T.copy()))
        if bias:
            there.bias.copy_(torch.from_numpy(np.arange(outputs, dtype=np.float32)))
            layer.bias.data = np.arange(outputs)
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got, want = layer(ours), there(theirs)
    np.testing.assert_allclose(got.data, want.detach().numpy(), rtol=1e-4, atol=1e-5)
    (got * got).sum().backward()
    (want * want).sum().backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(layer.weight.grad, there.weight.grad.numpy().T, rtol=1e-3, atol=1e-3)
    if bias:
        np.testing.assert_allclose(layer.bias.grad, there.bias.grad.numpy(), rtol=1e-3, atol=1e-3)


# Sequential and the small ones

def test_sequential_takes_layers_or_one_list_and_is_like_a_list():
    parts = [Linear(3, 4), ReLU(), Linear(4, 2)]
    for net in (Sequential(*parts), Sequential(parts), Sequential(tuple(parts))):
        assert len(net) == 3
        assert list(net) == parts
        assert net[-1] is parts[-1]
        assert len(net[:2]) == 2
        x = np.ones((5, 3), np.float32)
        np.testing.assert_array_equal(net(x).data, parts[2](parts[1](parts[0](x))).data)
    assert Sequential()(7) == 7
    assert len(Sequential(Sequential())) == 1


@pytest.mark.parametrize("wrong", [ReLU, 3, None])
def test_sequential_refuses_what_is_no_layer(wrong):
    with pytest.raises(TypeError, match=r"layer 1 of Sequential is .*: pass an object such as ReLU\(\)"):
        Sequential(Linear(2, 2), wrong)


def test_flatten_and_identity():
    assert Flatten()(np.ones((2, 3, 4))).shape == (2, 12)
    assert Flatten()(np.ones((0, 3, 4))).shape == (0, 12)
    assert Flatten()(np.ones(3)).shape == (3, 1)
    assert Identity()([1, 2]).data.tolist() == [1, 2]


def test_a_network_shows_its_layers():
    class Net(Module):
        def __init__(self):
            self.body, self.heads = Sequential(Linear(3, 4, bias=False), Softmax(axis=1)), [LayerNorm(4), BatchNorm1d(5)]

    assert repr(Net()) == ("Net(\n  Sequential(\n    Linear(3, 4, bias=False)\n    Softmax(axis=1)\n  )\n"
                           "  LayerNorm(4)\n  BatchNorm1d(5)\n)")
    assert repr(Dropout(0.2)) == "Dropout(p=0.2)"
    assert repr(Identity()) == "Identity()"


def test_the_older_names_are_the_same_objects():
    assert networks.Sequential is Sequential
    assert dense.Dense is layers.Dense is Linear
    assert [name for name in networks.__all__ if getattr(networks, name) is not getattr(layers, name)] == []


# Dropout

@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_average_and_drops_a_share(p):
    layer, x = Dropout(p), np.full((200, 100), 2, np.float32)
    out = layer(x).data
    assert out.dtype == np.float32
    np.testing.assert_allclose(np.unique(out), [0, 2 / (1 - p)], rtol=1e-6)
    assert (out == 0).mean() == pytest.approx(p, abs=0.01)
    assert out.mean() == pytest.approx(2, rel=0.05)
    np.testing.assert_array_equal(layer.eval()(x).data, x)


def test_dropout_passes_gradients_only_through_what_it_kept():
    x = Tensor(np.ones((6, 5)), requires_grad=True)
    out = Dropout(0.4)(x)
    out.sum().backward()
    np.testing.assert_array_equal(x.grad, out.data)


@pytest.mark.parametrize("p", [-0.1, 1, 1.5])
def test_dropout_refuses_shares_that_leave_nothing(p):
    with pytest.raises(ValueError, match=r"p is the share that is dropped"):
        Dropout(p)


# normalisation

@patient
@given(st.integers(0, 1000), array_shapes(min_dims=1, max_dims=4, min_side=2, max_side=5), st.data())
def test_normalize_agrees_with_float64(seed, shape, data):
    axis = data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True).map(tuple) | st.just(-1))
    x = spread_out(seed, shape)
    exact = x.astype(np.float64)
    want = (exact - exact.mean(axis=axis, keepdims=True)) / np.sqrt(exact.var(axis=axis, keepdims=True) + 1e-5)
    out, (kept, inverse) = normalize.forward(x, axis=axis)
    assert out is kept
    assert out.dtype == inverse.dtype == np.float32
    np.testing.assert_allclose(out, want, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(normalize.forward(exact, axis=axis)[0], want, rtol=1e-9, atol=1e-9)


def test_equal_numbers_become_zeros():
    np.testing.assert_array_equal(LayerNorm(3)([[5, 5, 5]]).data, [[0, 0, 0]])


@pytest.mark.oracle
@patient
@given(seed=st.integers(0, 1000), shape=array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=6))
def test_layernorm_agrees_with_pytorch(torch, seed, shape):
    x, layer, there = spread_out(seed, shape), LayerNorm(shape[-1]), torch.nn.LayerNorm(shape[-1])
    layer.weight.data, layer.bias.data = np.arange(shape[-1]) - 1.0, np.arange(shape[-1]) * 2.0
    with torch.no_grad():
        there.weight.copy_(torch.from_numpy(layer.weight.data))
        there.bias.copy_(torch.from_numpy(layer.bias.data))
    _agree(torch, layer, there, x)


@pytest.mark.oracle
@patient
@given(seed=st.integers(0, 1000), shape=array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=5), momentum=st.sampled_from([0.1, 0.5]))
def test_batchnorm_agrees_with_pytorch_in_training_and_in_use(torch, seed, shape, momentum):
    layer, there = BatchNorm1d(shape[1], momentum=momentum), torch.nn.BatchNorm1d(shape[1], momentum=momentum)
    layer.weight.data, layer.bias.data = np.arange(shape[1]) - 1.0, np.arange(shape[1]) * 2.0
    with torch.no_grad():
        there.weight.copy_(torch.from_numpy(layer.weight.data))
        there.bias.copy_(torch.from_numpy(layer.bias.data))
    for batch in range(3):
        _agree(torch, layer, there, spread_out(seed + batch, shape))
    for name in ("running_mean", "running_var"):
        np.testing.assert_allclose(getattr(layer, name), getattr(there, name).numpy(), rtol=1e-4, atol=1e-5)
        assert getattr(layer, name).dtype == np.float32
    _agree(torch, layer.eval(), there.eval(), spread_out(seed + 9, (1, *shape[1:])))


def _agree(torch, layer, there, x):
    """Value, gradient of the input and of both parameters, through a loss whose gradient is not constant."""
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got, want = layer(ours), there(theirs)
    np.testing.assert_allclose(got.data, want.detach().numpy(), rtol=2e-3, atol=2e-3)
    for parameter in (*layer.parameters(), *there.parameters()):
        parameter.grad = None
    (got * got * got).sum().backward()
    (want * want * want).sum().backward()
    for mine, other in ((ours, theirs), (layer.weight, there.weight), (layer.bias, there.bias)):
        scale = max(1, float(other.grad.abs().max()))
        np.testing.assert_allclose(mine.grad / scale, other.grad.numpy() / scale, atol=2e-3)


def test_batchnorm_answers_a_single_example_after_eval_only():
    layer = BatchNorm1d(3)
    with pytest.raises(ValueError, match=r"BatchNorm1d\(3\) in training needs more than one example .* call eval\(\)"):
        layer(np.ones((1, 3)))
    assert layer.eval()(np.ones((1, 3))).shape == (1, 3)
    assert BatchNorm1d(3)(np.ones((1, 3, 2))).shape == (1, 3, 2)


@pytest.mark.parametrize(("layer", "shape", "text"), [
    (BatchNorm1d(3), (4, 5), "BatchNorm1d(3) takes inputs of 2 or 3 axes with 3 features on axis 1, got shape (4, 5)"),
    (BatchNorm1d(3), (3,), "got shape (3,)"),
    (BatchNorm1d(3), (4, 3, 2, 2), "got shape (4, 3, 2, 2)"),
    (LayerNorm(3), (4, 5), "LayerNorm(3) got an input of shape (4, 5): its last axis must be 3"),
    (LayerNorm(3), (), "its last axis must be 3"),
], ids=str)
def test_normalisation_names_the_shape_that_does_not_fit(layer, shape, text):
    with pytest.raises(ValueError) as refused:
        layer(np.ones(shape))
    assert text in str(refused.value)


def test_batchnorm_normalises_features_of_pictures():
    x = spread_out(0, (4, 3, 5, 6))
    out = BatchNorm(3)(x).data
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), 1, atol=1e-3)


# what the tests in the notebooks stand on

def test_same_and_refuses_say_what_they_saw():
    checking.same(Tensor([1, 2]), [1, 2.0001], "two numbers")
    with pytest.raises(AssertionError, match=r"^a thing: expected shape \(2,\)\n\[1 2\]\n, got shape \(2, 1\)"):
        checking.same([[1], [2]], [1, 2], "a thing")
    with pytest.raises(AssertionError, match=r"^a number: expected 1, got 2"):
        checking.same(2, 1, "a number")
    checking.refuses(int, "x", says=["invalid literal"])
    for function, seen in ((lambda x: x, "nothing but 3"), (lambda x: ValueError("no"), r"nothing but ValueError\('no'\)"),
                           (lambda x: 1 / 0, "ZeroDivisionError"), (lambda x: int("a"), "ValueError")):
        with pytest.raises(AssertionError, match=rf"\(3\): expected a ValueError that says 'digit', got {seen}"):
            checking.refuses(function, 3, says=["digit"])
    with pytest.raises(AssertionError, match=r"^Linear\(2, 3\)\(array of shape \(1, 2\)\): expected a ValueError"):
        checking.refuses(Linear(2, 3), np.ones((1, 2)), says=["no"])
    with pytest.raises(NotImplementedError, match="yours to write"):
        checking.refuses(_unwritten, says=["no"])
    checking.refuses(_unwritten, says=["yours"], kind=NotImplementedError)


def _unwritten():
    raise NotImplementedError("yours to write")


def test_a_missing_prerequisite_names_module_and_cure():
    checking.needs("04", layers, "it holds", lambda: True)
    for holds, seen in ((lambda: False, "False"), (lambda: 1 / 0, "ZeroDivisionError: division by zero")):
        with pytest.raises(AssertionError, match=rf"^it holds: not in .*layers.py \({seen}\)\. Mend it in module 04 .* start 04"):
            checking.needs("04", layers, "it holds", holds)
