"""The rules of module 06 against PyTorch and against nudges in float64, and the walk: depth, ways, memory, threads, complaints."""

import gc
import importlib.util
import time
import tracemalloc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, basic_indices, mutually_broadcastable_shapes

from tests.need import need
from tinytorch import randomness
from tinytorch.core import activations, autograd, layers, losses, tensor
from tinytorch.core.autograd import backward, no_grad, outputs_first, unbroadcast
from tinytorch.core.layers import Linear, Parameter, Sequential
from tinytorch.core.tensor import Tensor, op
from tinytorch.data import digits
from tinytorch.given import graphs
from tinytorch.testing.gradcheck import check_gradient, check_rule, gradients_of

SIZES = {"min_side": 0, "max_side": 4}
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=40)
RTOL, ATOL = 2e-4, 2e-5         # float32: seven digits, of which chains of a few ops and sums of a few dozen lose two


def numbers(shape, low=-2.0, high=2.0):
    """Float32 arrays; values of a coarse grid, so that equal ones are common and none is tiny but not 0."""
    return arrays(np.float32, shape, elements=st.integers(int(low * 8), int(high * 8)).map(lambda n: n / 8))


def positive(shape): return numbers(shape, 0.5, 2.0)
def spread(shape): return arrays(np.float32, shape, elements=st.floats(-20, 20, width=32).filter(lambda x: abs(x) > 1e-3))


# What is drawn for an op: its inputs and options.

@st.composite
def pairs(draw, values=numbers, signature=None):
    kind = {"signature": signature, "max_dims": 3} if signature else {"num_shapes": 2, "max_dims": 4}
    shapes = draw(mutually_broadcastable_shapes(**kind, **SIZES)).input_shapes
    return [draw(values(shape)) for shape in shapes], {}


@st.composite
def singles(draw, values=numbers, **sizes):
    return [draw(values(draw(array_shapes(**{"min_dims": 0, **SIZES, **sizes}))))], {}


@st.composite
def along_an_axis(draw, values=numbers, several=False, **more):
    """Without empty axes: a maximum or a mean over nothing is an error or nan."""
    x = draw(values(draw(array_shapes(min_dims=1, max_dims=4, max_side=4))))
    one = st.integers(-x.ndim, x.ndim - 1)
    many = st.lists(one, min_size=1, max_size=x.ndim, unique_by=lambda axis: axis % x.ndim).map(tuple)
    return [x], {"axis": draw(st.none() | one | many if several else one), **{name: draw(how) for name, how in more.items()}}


@st.composite
def sums(draw):
    """With empty axes, too."""
    x = draw(numbers(draw(array_shapes(min_dims=1, max_dims=4, **SIZES))))
    return [x], {"axis": draw(st.none() | st.integers(-x.ndim, x.ndim - 1)), "keepdims": draw(st.booleans())}


@st.composite
def reshapes(draw):
    x = draw(numbers(draw(array_shapes(min_dims=1, max_dims=4, **SIZES))))
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    rows = x.shape[0], int(np.prod(x.shape[1:]))
    return [x], {"shape": draw(st.sampled_from([(x.size,), x.shape[::-1], (1, *x.shape), rows]))}


@st.composite
def transposes(draw):
    x = draw(numbers(draw(array_shapes(min_dims=0, max_dims=4, **SIZES))))
    axes = [axis - x.ndim if draw(st.booleans()) else axis for axis in draw(st.permutations(range(x.ndim)))]
    return [x], {"axes": tuple(axes)}


@st.composite
def indexed(draw):
    x = draw(numbers(draw(array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))))
    places = st.lists(st.integers(-len(x), len(x) - 1), max_size=6).map(lambda places: np.array(places, dtype=int))
    masks = st.lists(st.booleans(), min_size=len(x), max_size=len(x)).map(np.array)
    positive_steps = basic_indices(x.shape, allow_newaxis=True).filter(
        lambda index: all((part.step or 1) > 0 for part in np.atleast_1d(np.array(index, dtype=object)) if isinstance(part, slice)))
    return [x], {"index": draw(st.one_of(positive_steps, places, masks))}           # PyTorch has no negative steps


@st.composite
def joined(draw):
    shape = draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    place = axis % len(shape)
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    return [draw(numbers((*shape[:place], n, *shape[place + 1:]))) for n in lengths], {"axis": axis}


@st.composite
def classified(draw):
    n, classes = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    targets = draw(arrays(np.int64, n, elements=st.integers(0, classes - 1)))
    return [draw(spread((n, classes)))], {"targets": targets, "label_smoothing": draw(st.sampled_from([0.0, 0.1, 0.5]))}


@st.composite
def with_targets(draw):
    x = draw(spread(draw(array_shapes(min_dims=1, max_side=4))))
    return [x], {"targets": draw(arrays(np.float32, x.shape, elements=st.sampled_from([0.0, 0.25, 1.0])))}


def all_axes(x, axis): return tuple(range(x.ndim)) if axis is None else axis


def torch_normalize(x, axis, eps):
    mean, var = x.mean(axis, keepdim=True), x.var(axis, correction=0, keepdim=True)
    return (x - mean) / (var + eps).sqrt()


def torch_index(x, index): return x[torch().from_numpy(index) if isinstance(index, np.ndarray) else index]


def torch():
    need("PyTorch", importlib.util.find_spec("torch"), "make oracle")
    import torch

    return torch


def functional(): return torch().nn.functional


# op: (what is drawn, PyTorch's way)
RULES = {
    tensor.add: (pairs(), lambda a, b: a + b),
    tensor.sub: (pairs(), lambda a, b: a - b),
    tensor.mul: (pairs(), lambda a, b: a * b),
    tensor.div: (pairs(positive), lambda a, b: a / b),
    tensor.power: (pairs(positive), lambda a, b: a ** b),
    tensor.matmul: (pairs(signature=np.matmul.signature), lambda a, b: a @ b),
    tensor.neg: (singles(), lambda x: -x),
    tensor.exp: (singles(), lambda x: x.exp()),
    tensor.log: (singles(positive), lambda x: x.log()),
    tensor.sqrt: (singles(positive), lambda x: x.sqrt()),
    tensor.reduce_sum: (sums(), lambda x, axis, keepdims: x.sum(all_axes(x, axis), keepdim=keepdims)),
    tensor.reduce_mean: (along_an_axis(several=True, keepdims=st.booleans()),
                         lambda x, axis, keepdims: x.mean(all_axes(x, axis), keepdim=keepdims)),
    tensor.reduce_max: (along_an_axis(several=True, keepdims=st.booleans()),
                        lambda x, axis, keepdims: x.amax(all_axes(x, axis), keepdim=keepdims)),
    tensor.reshape: (reshapes(), lambda x, shape: x.reshape(shape)),
    tensor.transpose: (transposes(), lambda x, axes: x.permute(axes)),
    tensor.getitem: (indexed(), torch_index),
    tensor.concat: (joined(), lambda *parts, axis: torch().cat(parts, axis)),
    activations.relu: (singles(), lambda x: x.relu()),
    activations.leaky_relu: (singles(), lambda x: functional().leaky_relu(x)),
    activations.tanh: (singles(spread), lambda x: x.tanh()),
    activations.sigmoid: (singles(spread), lambda x: x.sigmoid()),
    activations.gelu: (singles(spread), lambda x: functional().gelu(x, approximate="tanh")),
    activations.softmax: (along_an_axis(spread), lambda x, axis: x.softmax(axis)),
    layers.normalize: (along_an_axis(several=True, eps=st.just(1e-2)), lambda x, axis, eps: torch_normalize(x, all_axes(x, axis), eps)),
    losses.absolute: (singles(), lambda x: x.abs()),
    losses.log_softmax: (along_an_axis(spread), lambda x, axis: x.log_softmax(axis)),
    losses.cross_entropy: (classified(), lambda x, targets, label_smoothing: functional().cross_entropy(
        x, torch().from_numpy(targets), label_smoothing=label_smoothing)),
    losses.bce_with_logits: (with_targets(), lambda x, targets: functional().binary_cross_entropy_with_logits(
        x, torch().from_numpy(targets))),
}
by_name = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


def leaves_of(inputs): return [Tensor(x, requires_grad=True) for x in inputs]


def sound(leaf):
    """What every gradient of a leaf must be."""
    assert type(leaf.grad) is np.ndarray
    assert (leaf.grad.dtype, leaf.grad.shape) == (np.float32, leaf.shape)
    assert leaf.grad.flags.writeable
    assert not np.shares_memory(leaf.grad, leaf.data)


def close(got, want, **tolerance):
    np.testing.assert_allclose(got, want, **{"rtol": RTOL, "atol": ATOL, **tolerance})


# the table

def test_every_op_has_a_rule_and_every_rule_is_tested_here():
    ops = {value for module in (tensor, activations, layers, losses) for value in vars(module).values() if isinstance(value, op)}
    assert {o.__name__ for o in ops if o.derivative is None} == set()
    assert {o.__name__ for o in ops - RULES.keys()} == set()


@pytest.mark.oracle
@by_name
@patient
@given(data=st.data())
def test_values_and_gradients_agree_with_pytorch(rule, data):
    what_is_drawn, theirs = RULES[rule]
    inputs, options = data.draw(what_is_drawn)
    ours, oracles = leaves_of(inputs), [torch().tensor(x, requires_grad=True) for x in inputs]
    result, want = rule(*ours, **options), theirs(*oracles, **options)
    close(result.data, want.detach().numpy())
    arrives = np.random.default_rng(0).normal(size=result.shape).astype(np.float32)
    before, kept = arrives.copy(), [x.copy() for x in inputs]
    backward(result, arrives)
    want.backward(torch().from_numpy(arrives.reshape(want.shape)))
    for leaf, oracle, x in zip(ours, oracles, kept, strict=True):
        sound(leaf)
        close(leaf.grad, oracle.grad.numpy())
        assert np.array_equal(leaf.data, x)
    assert np.array_equal(arrives, before)
    for leaf in ours:
        assert not any(np.shares_memory(leaf.grad, other.grad) for other in ours if other is not leaf)


KINKS = {activations.relu, activations.leaky_relu, losses.absolute, tensor.reduce_max}


@by_name
@settings(patient, max_examples=12)
@given(data=st.data())
def test_rules_agree_with_nudges_in_float64(rule, data):
    if rule is tensor.concat:
        return                                      # its forward makes float32; a test of its own is below
    inputs, options = data.draw(RULES[rule][0])
    if rule in KINKS:                               # away from the kink, and no two numbers equal
        inputs = [x + np.float64(0.3) + np.linspace(0, 1e-2, x.size).reshape(x.shape) for x in inputs]
    check_rule(rule, *inputs, **options)


@patient
@given(data=st.data())
def test_concat_gives_each_part_its_own(data):
    parts, options = data.draw(joined())
    arrives = np.random.default_rng(0).normal(size=tensor.concat.forward(*parts, **options).shape)
    got = gradients_of(tensor.concat, arrives, *parts, **options)
    np.testing.assert_array_equal(np.concatenate(got, **options), arrives)
    assert [gx.shape for gx in got] == [part.shape for part in parts]


@pytest.mark.parametrize("rule", [activations.softmax, losses.log_softmax, layers.normalize], ids=lambda rule: rule.__name__)
def test_rules_know_the_defaults_of_their_ops(rule):
    check_rule(rule, np.random.default_rng(0).normal(size=(2, 3, 4)))


def test_leaky_relu_knows_its_slope():
    check_rule(activations.leaky_relu, [-2.0, -0.5, 0.5], slope=0.3)


# places where a rule is not smooth, or overflows

def gradient(f, x, arrives=None):
    leaf = Tensor(x, requires_grad=True)
    backward(f(leaf), arrives if arrives is not None else np.ones(f(leaf).shape))
    sound(leaf)
    return leaf.grad


@pytest.mark.filterwarnings("error")
def test_powers_at_zero_and_of_negative_numbers():
    for exponent, x, want in [(2, [-3, 0, 2], [-6, 0, 4]), (3, [-2, 0], [12, 0]), (1, [-5, 0], [1, 1]), (0, [-5, 0, 5], [0, 0, 0]),
                              (-1, [-2, 4], [-0.25, -1 / 16]), (0.5, [4], [0.25])]:
        close(gradient(lambda x, n=exponent: x ** n, x), want)
    a, b = leaves_of([[0.0, 0.0, 2.0, 3.0], [0.0, 2.0, 0.0, 1.0]])
    backward(a ** b, np.ones(4))
    close(a.grad, [0, 0, 0, 1])
    close(b.grad, [0, 0, np.log(2), 3 * np.log(3)])
    close(gradient(lambda x: 2 ** x, [0, 3]), np.log(2) * np.float32([1, 8]))


@pytest.mark.filterwarnings("error")
def test_gradients_far_out_are_finite_and_right():
    far = [-1e30, -1000, -30, 30, 1000, 1e30]
    with np.errstate(under="ignore"):
        close(gradient(activations.gelu, far), [0, 0, 0, 1, 1, 1])
        close(gradient(activations.relu, far), [0, 0, 0, 1, 1, 1])
        for f in (activations.sigmoid, activations.tanh):
            close(gradient(f, far), np.zeros(6), atol=1e-6)
        close(gradient(lambda x: activations.softmax(x)[1], [0.0, 1000.0]), [0, 0])
        close(gradient(lambda x: losses.cross_entropy(x, targets=[0]), [[0.0, 1000.0]]), [[-1, 1]])
        close(gradient(lambda x: losses.bce_with_logits(x, targets=np.float32([1, 0])), [-1000.0, 1000.0]), [-0.5, 0.5])


def test_equal_maxima_share():
    close(gradient(lambda x: x.max(), [[3, 1], [3, 3]]), [[1 / 3, 0], [1 / 3, 1 / 3]])
    close(gradient(lambda x: x.max(axis=1), [[3, 1], [2, 2]], [10, 4]), [[10, 0], [2, 2]])


def test_no_slope_at_a_kink():
    for f, want in [(activations.relu, 0), (losses.absolute, 0), (activations.leaky_relu, 0.01)]:
        close(gradient(f, [0.0]), [want])


def test_a_place_that_is_taken_twice_gets_both():
    close(gradient(lambda x: x[[0, 2, 0]], [1, 2, 3], [1, 10, 100]), [101, 0, 10])
    close(gradient(lambda x: x[[0, 0], [1, 1]], np.ones((2, 2)), [1, 10]), [[0, 11], [0, 0]])
    close(gradient(lambda x: x[[]], [1, 2]), [0, 0])
    close(gradient(lambda x: x[::-1][..., None], [1, 2, 3], [[1], [2], [3]]), [3, 2, 1])
    close(gradient(lambda x: sum(row * 2 for row in x), [[1, 2], [3, 4]], [1, 10]), [[2, 20], [2, 20]])


def test_slices_are_put_back_without_the_slow_way(monkeypatch):
    def refuse(*_): raise AssertionError("np.add.at is for places that may repeat")

    monkeypatch.setattr(tensor.np, "add", type("Add", (), {"at": refuse, "__call__": np.add.__call__})())
    for index in (3, slice(1, None), (slice(None), 2), (..., None), np.array([True, False, True, True]), (0, slice(None, None, 2))):
        gradients_of(tensor.getitem, tensor.getitem.forward(np.ones((4, 5)), index=index), np.ones((4, 5)), index=index)


def test_a_reshape_keeps_the_order_in_memory():
    x = np.ones((2, 4, 4, 3), np.float32).transpose(0, 3, 1, 2)         # as a convolution leaves it: channels last in memory
    got = tensor.reshape.derivative(np.ones((2, 48), np.float32), None, x, shape=(2, 48))
    assert got.strides == x.strides


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4)), ((5, 2, 3), (3, 4)),
                                    ((2, 3), (5, 3, 4)), ((2, 1, 2, 3), (4, 3, 1)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((5, 2, 0), (0, 4)),
                                    ((0, 2, 3), (3,)), ((0,), (0,)), ((0, 2, 3), (3, 4)), ((1, 3), (0, 3, 2))], ids=str)
def test_matrix_products_of_vectors_batches_and_nothing(shapes):
    check_rule(tensor.matmul, *[np.random.default_rng(n).normal(size=shape) for n, shape in enumerate(shapes)])


@patient
@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=4, **SIZES))
def test_unbroadcast_is_the_transpose_of_broadcasting(shapes):
    shape, whole = shapes.input_shapes[0], shapes.result_shape
    rng = np.random.default_rng(0)
    x, grad = rng.normal(size=shape), rng.normal(size=whole)
    got = unbroadcast(grad, shape)
    assert isinstance(got, np.ndarray)
    assert got.shape == shape
    np.testing.assert_allclose((got * x).sum(), (grad * np.broadcast_to(x, whole)).sum(), atol=1e-9)
    if whole not in (shape, ()):
        assert not np.shares_memory(got, grad)
        with pytest.raises(ValueError):
            unbroadcast(x, whole)


# the walk

def test_an_example_by_hand():
    a, b = leaves_of([2, 5])
    c = a * b
    ((c + a) * c).backward()
    assert (a.grad, b.grad, c.grad) == (120, 44, None)
    sound(a)


def doublings(n, x=0.0):
    x = y = Tensor(x, requires_grad=True)
    for _ in range(n):
        y = y + y
    return x, y


def test_shared_subgraphs_are_walked_once():
    """By paths 100 doublings would take 10 ** 30 steps."""
    x, y = doublings(100)
    calls = []
    counted = op(lambda x: x + 0, "counted")
    counted.backward(lambda grad, out, x: calls.append(1) or grad)
    z = counted(y)
    backward(z + z * z)
    assert x.grad == 2.0 ** 100
    assert len(calls) == 1


def test_chains_of_20000_ops_are_walked_and_forgotten():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + 1
    backward(y.sum())
    close(x.grad, [1, 1])
    for _ in range(50_000):
        y = y * 1                                       # never walked: its end must not overflow the stack either
    del y
    gc.collect()


@pytest.mark.oracle
@patient
@given(st.data())
def test_random_graphs_agree_with_pytorch(data):
    """Fifteen ops between tensors that exist, whatever their order and however often each is used."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2 ** 32 - 1)))
    starts = [rng.normal(size=shape).astype(np.float32) for shape in [(3,), (2, 1), (2, 3), ()]]
    ours, theirs = leaves_of(starts), [torch().tensor(x, requires_grad=True) for x in starts]
    made, wanted = list(ours), list(theirs)
    for _ in range(15):
        i, j, kind = rng.integers(len(made)), rng.integers(len(made)), rng.integers(4)
        for tensors, tanh in ((made, activations.tanh), (wanted, torch().tanh)):
            a, b = tensors[i], tensors[j]
            tensors.append([lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, lambda a, b, f=tanh: f(a) * b][kind](a, b))
            if kind == 1:
                tensors[-1] = tanh(tensors[-1])         # keeps numbers small
    loss, want = (made[-1] * made[-2] + made[-3]).mean(), (wanted[-1] * wanted[-2] + wanted[-3]).mean()
    loss.backward()
    want.backward()
    for leaf, oracle in zip(ours, theirs, strict=True):
        assert (leaf.grad is None) == (oracle.grad is None)
        if leaf.grad is not None:
            sound(leaf)
            close(leaf.grad, oracle.grad.numpy(), rtol=1e-3, atol=1e-3)


def test_outputs_come_first_and_leaves_not_at_all():
    a, b = leaves_of([1, 2])
    c = a * b
    d = c + a
    for last in (c * d, d * c):
        assert list(outputs_first(last)) == [last, d, c]
    assert list(outputs_first(a)) == []
    assert list(outputs_first(Tensor(1) + 1)) == []


def test_walks_add_up_and_a_leaf_may_be_its_own_loss():
    x = Tensor([1, 2], requires_grad=True)
    for _ in range(2):
        backward((x * x).sum())
    close(x.grad, [4, 8])
    backward(x, [1, 1])
    close(x.grad, [5, 9])
    y = Tensor(3, requires_grad=True)
    y.backward()
    sound(y)
    assert y.grad == 1


def test_the_gradient_that_is_given_is_weighed_and_not_kept():
    x, weights = Tensor([1, 2], requires_grad=True), np.float32([1, 10])
    backward(x + 0, weights)
    backward(x, weights)
    close(x.grad, [2, 20])
    assert not np.shares_memory(x.grad, weights)
    loss = Tensor([[1]], requires_grad=True) * 3
    loss.backward()                                     # one number, whatever its axes


def test_only_what_needs_a_gradient_gets_one_and_no_other_is_made():
    made = []
    pair = op(lambda a, b: a * b, "pair")
    pair.backward(lambda grad, out, a, b: (lambda: made.append("a") or grad * b, lambda: made.append("b") or grad * a))
    image, weight = Tensor([2.0]), Tensor([3.0], requires_grad=True)
    pair(image, weight).backward()
    assert (image.grad, made) == (None, ["b"])
    close(weight.grad, [2])


def test_gradients_of_leaves_have_memory_of_their_own():
    greedy = op(lambda a, b: a + b, "greedy")
    for rule in (lambda grad, out, a, b: (grad, grad), lambda grad, out, a, b: (b, a), lambda grad, out, a, b: (out, out),
                 lambda grad, out, a, b: (lambda: b, lambda: b), lambda grad, out, a, b: (twice := 2 * grad, twice),
                 lambda grad, out, a, b: (np.broadcast_to(np.float32(1), (3,)), grad[::1])):
        greedy.backward(rule)
        a, b = leaves_of([np.ones(3), np.ones(3)])
        result = greedy(a, b)
        backward(result, np.ones(3))
        mine = [a.grad, b.grad, a.data, b.data, result.data]
        assert all(not np.shares_memory(x, y) for i, x in enumerate(mine) for y in mine[:i])
        sound(a)
        sound(b)


def test_float64_in_a_rule_arrives_as_float32():
    x = Tensor([1, 2], requires_grad=True)
    wide = op(lambda x: x * 1, "wide")
    wide.backward(lambda grad, out, x: grad * np.float64([0.5, 0.25]))
    backward(wide(wide(x)).sum())
    sound(x)
    close(x.grad, [0.25, 0.0625])


@by_name
@settings(patient, max_examples=8)
@given(data=st.data())
def test_float32_all_the_way(rule, data):
    """No rule lets float64 in, where it would double memory and time."""
    inputs, options = data.draw(RULES[rule][0])
    out = rule.forward(*inputs, **options)
    out, kept = out if isinstance(out, tuple) else (out, out)
    made = rule.derivative(np.ones(np.shape(out), np.float32), kept, *inputs, **options)
    for gx in made if isinstance(made, tuple) else (made,):
        assert np.asarray(gx() if callable(gx) else gx).dtype == np.float32


# complaints

def fails(kind, says):
    return pytest.raises(kind, match=says)


def test_what_cannot_be_walked_is_refused_with_the_cure():
    x = Tensor([1, 2, 3], requires_grad=True)
    with fails(ValueError, r"^backward\(\) needs a scalar loss or a grad; this tensor is \(3,\): sum\(\) or mean\(\) it first$"):
        backward(x * 2)
    with fails(ValueError, r"grad of shape \(2,\) for a tensor of shape \(3,\)"):
        backward(x * 2, [1, 2])
    for nothing in (Tensor([1]) * 2, Tensor(1)):
        with fails(ValueError, "found nothing to learn: .* requires_grad=True"):
            backward(nothing)
    with no_grad():
        loss = x.sum()
    with fails(ValueError, r"inside no_grad\(\)"):
        backward(loss)
    assert x.grad is None


def test_a_missing_rule_is_named_and_can_still_be_written():
    cube, x = op(lambda x: x ** 3, "cube"), Tensor([1, 2], requires_grad=True)
    loss = (cube(x * 2) + x).sum()
    with fails(NotImplementedError, r"^cube\(\) has no derivative yet: write one with @cube\.backward$"):
        backward(loss)
    assert x.grad is None

    @cube.backward
    def _(grad, out, x): return 3 * grad * x * x
    backward(loss)
    close(x.grad, [25, 97])


def test_a_graph_is_walked_once():
    x = Tensor([1, 2], requires_grad=True)
    shared = x * x
    first, second = shared.sum(), (shared * 3).sum()
    backward(first)
    for again in (first, second):
        with fails(RuntimeError, "walked already .* run the forward pass again"):
            backward(again)
    close(x.grad, [2, 4])


@pytest.mark.parametrize("change", [
    lambda x, h: setattr(x, "data", x.data + 1), lambda x, h: setattr(h, "data", h.data * 2),
    lambda x, h: np.subtract(x.data, 1, out=x.data) is setattr(x, "data", x.data)], ids=["new weights", "new result", "in place"])
def test_numbers_that_changed_since_the_forward_pass_are_noticed(change):
    x = Tensor([1, 2], requires_grad=True)
    h = tensor.exp(x)
    loss = (h * 2).sum()
    change(x, h)
    with fails(RuntimeError, r"of (exp|mul)\(\) was changed after the forward pass"):
        backward(loss)
    assert x.grad is None


def test_a_step_after_the_walk_is_welcome():
    x = Tensor([1, 2], requires_grad=True)
    for _ in range(3):
        x.grad = None
        backward((x * x).sum())
        x.data -= 0.5 * x.grad
    close(x.data, [0, 0])


@pytest.mark.parametrize(("rule", "says"), [
    (lambda grad, out, a, b: (grad, np.ones((3, 2))),
     r"the rule of bad\(\) returned a gradient of shape \(3, 2\) for input 1 of shape \(2, 3\)"),
    (lambda grad, out, a, b: (np.ones(()), grad), r"shape \(\) for input 0 of shape \(2, 3\)"),
    (lambda grad, out, a, b: (grad, np.ones((1, 3))), r"shape \(1, 3\) for input 1"),
    (lambda grad, out, a, b: grad, r"the rule of bad\(\) returned 1 gradients for 2 inputs"),
    (lambda grad, out, a, b: (grad, grad, grad), "returned 3 gradients for 2 inputs"),
    (lambda grad, out, a, b: (grad, None), "returned None for input 1: is a return missing"),
])
def test_a_wrong_rule_is_named_and_no_leaf_is_touched(rule, says):
    bad = op(lambda a, b: a + b, "bad")
    bad.backward(rule)
    a, b = leaves_of([np.ones((2, 3)), np.ones((2, 3))])
    with fails(ValueError, says):
        backward((bad(a * 2, b * 2) + a).sum())
    assert a.grad is b.grad is None


# no_grad

def test_no_grad_is_for_its_block_and_restores_what_was():
    x = Tensor([1], requires_grad=True)

    def recorded(): return (x + 1).requires_grad

    with no_grad():
        assert not recorded()
        with pytest.raises(KeyError), no_grad():
            raise KeyError("inside")
        assert not recorded()
    assert recorded()
    assert not no_grad()(recorded)()
    assert recorded()
    with no_grad():
        assert Parameter([1]).requires_grad             # weights are made as ever


def test_no_grad_is_for_its_own_thread():
    x, both = Tensor([1], requires_grad=True), Barrier(2)

    def reads():
        with no_grad():
            both.wait()
            both.wait()
            return (x + 1).requires_grad

    def learns():
        both.wait()
        recorded = (x + 1).requires_grad
        both.wait()
        return recorded

    with ThreadPoolExecutor(2) as threads:
        reading, learning = threads.submit(reads), threads.submit(learns)
        assert (reading.result(), learning.result()) == (False, True)
    assert (x + 1).requires_grad


# memory

def test_a_walk_forgets_the_graph_and_each_tensor_at_its_turn():
    x = Tensor(np.ones(1000), requires_grad=True)
    gone_at, alive = [], []
    step = op(lambda x: x + 1, "step")

    @step.backward
    def _(grad, out, x):
        gone_at.append(sum(ref() is None for ref in alive))
        return grad

    y = x
    for _ in range(10):
        y = step(y)
        alive.append(weakref.ref(y))
    loss = y.sum()
    del y
    backward(loss)
    assert [ref() for ref in alive] == [None] * 10
    assert gone_at[-1] >= 7                             # most were gone before the walk's last step
    assert loss.origin is graphs.FREED


def test_a_recorded_graph_has_no_cycles():
    gc.collect()
    gc.disable()
    try:
        y = activations.tanh(Tensor(np.ones(10), requires_grad=True) @ np.ones((10, 3)))
        ref = weakref.ref(y)
        del y
        assert ref() is None
    finally:
        gc.enable()


def peak_mb(function):
    tracemalloc.start()
    function()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after / 1e6, peak / 1e6


def test_a_walk_needs_little_more_memory_than_the_forward_pass():
    rows, weight = np.ones((250, 250), np.float32), Tensor(np.eye(250), requires_grad=True)

    def layers():
        x = Tensor(rows)
        for _ in range(20):
            x = activations.tanh(x @ weight)
        return x.sum()

    _, forward = peak_mb(layers)                        # 40 results of 0.25 MB
    _, quiet = peak_mb(no_grad()(layers))
    after, walk = peak_mb(lambda: backward(layers()))
    assert 10 < forward < 11
    assert quiet < 1
    assert walk < forward + 1.5
    assert after < 0.5                                  # weight.grad


def test_large_gradients_are_not_copied():
    weight = Parameter(np.ones((1000, 1000)))
    x = Tensor(np.ones((2, 1000)))
    _, peak = peak_mb(lambda: backward((x @ weight).sum()))
    assert peak < 4.5                                   # 4 MB of gradient, once


# threads

def test_threads_walk_at_once_on_shared_numbers():
    """Each has tensors of its own that look at the same weights: gradients are those of one after the other."""
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in [(20, 30), (30,), (30, 5)]]
    parts = [(rng.normal(size=(8, 20)).astype(np.float32), rng.integers(0, 5, 8)) for _ in range(8)]

    def gradients(part):
        x, targets = part
        W, b, V = leaves_of(weights)
        assert np.shares_memory(W.data, weights[0])
        for _ in range(20):
            for leaf in (W, b, V):
                leaf.grad = None
            losses.cross_entropy(activations.relu(x @ W + b) @ V, targets=targets).backward()
        return [W.grad, b.grad, V.grad]

    want = [gradients(part) for part in parts]
    with ThreadPoolExecutor(2) as threads:
        got = list(threads.map(gradients, parts))
    for mine, right in zip(got, want, strict=True):
        for a, b in zip(mine, right, strict=True):
            assert np.array_equal(a, b)


# speed

def test_recording_and_walking_cost_microseconds_per_op():
    """About 3 and 6 us on a quiet machine; the bounds are for a busy one and would notice 20 % of a millisecond."""
    x = Tensor(np.ones(3), requires_grad=True)

    def chain(n):
        y = x
        for _ in range(n):
            y = y * x
        return y.sum()

    times = []
    for _ in range(5):
        began = time.thread_time()
        loss = chain(1000)
        recorded = time.thread_time()
        backward(loss)
        times.append((recorded - began, time.thread_time() - recorded))
    assert min(forward for forward, _ in times) / 1000 < 40e-6
    assert min(walk for _, walk in times) / 1000 < 80e-6


# a net learns

def mlp(seed=0):
    randomness.manual_seed(seed)
    return Sequential(Linear(784, 128), activations.ReLU(), Linear(128, 10))


@pytest.mark.oracle
def test_fifty_steps_have_pytorchs_losses():
    """784-128-10, gradient descent with momentum by hand, the same weights and batches: the loss curves agree to 4 digits."""
    nn, rng = torch().nn, np.random.default_rng(0)
    net = mlp()
    oracle = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    with torch().no_grad():
        for p, q in zip(net.parameters(), oracle.parameters(), strict=True):
            q.copy_(torch().from_numpy(p.data.T.copy()))
    prototypes = rng.normal(size=(10, 784))
    velocities = [np.zeros_like(p.data) for p in net.parameters()]
    rolling = [torch().zeros_like(q) for q in oracle.parameters()]
    ours, theirs = [], []
    for _ in range(50):
        targets = rng.integers(0, 10, 64)
        x = (prototypes[targets] + rng.normal(size=(64, 784))).astype(np.float32)
        loss = losses.cross_entropy(net(x), targets=targets)
        loss.backward()
        for p, velocity in zip(net.parameters(), velocities, strict=True):
            velocity *= 0.9
            velocity += p.grad
            p.data -= np.float32(0.05) * velocity
            p.grad = None
        want = nn.functional.cross_entropy(oracle(torch().from_numpy(x)), torch().from_numpy(targets))
        want.backward()
        with torch().no_grad():
            for q, velocity in zip(oracle.parameters(), rolling, strict=True):
                velocity.mul_(0.9).add_(q.grad)
                q.sub_(velocity, alpha=0.05)
                q.grad = None
        ours.append(loss.item())
        theirs.append(want.item())
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert ours[-1] < ours[0] / 10


def test_a_net_learns_real_digits():
    images, labels = digits()
    pixels = images.reshape(-1, 64)
    randomness.manual_seed(0)
    net, order = Sequential(Linear(64, 32), activations.ReLU(), Linear(32, 10)), np.random.default_rng(0)
    for _ in range(10):
        for batch in order.permutation(1000).reshape(20, 50):
            losses.cross_entropy(net(pixels[batch]), targets=labels[batch]).backward()
            for p in net.parameters():
                p.data -= 0.3 * p.grad
                p.grad = None
    with no_grad():
        right = (net(pixels[1000:]).data.argmax(axis=1) == labels[1000:]).mean()
    assert right > 0.88


def test_layers_that_normalize_and_drop_learn_too():
    randomness.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    for layer in (layers.LayerNorm(4), layers.BatchNorm1d(4), layers.Dropout(0.5)):
        net = Sequential(Linear(4, 4), layer, Linear(4, 2))
        (net(x) ** 2).mean().backward()
        for p in net.parameters():
            sound(p)


# the tools

def test_check_rule_finds_every_kind_of_mistake():
    good = {"derivative": lambda grad, out, a, b: (grad * b, grad * a)}
    times = op(lambda a, b: a * b, "times")
    a, b = np.random.default_rng(0).normal(size=(2, 2, 3))
    times.backward(good["derivative"])
    check_rule(times, a, b)
    mistakes = {
        r"times, input 1, index \(0, 0\): a nudge says": lambda grad, out, a, b: (grad * b, grad * a * (np.arange(6).reshape(2, 3) > 0)),
        r"times, input 0, index \(1, 2\): a nudge says": lambda grad, out, a, b: (grad * b * (np.arange(6).reshape(2, 3) < 5), grad * a),
        "the rule changed the gradient that arrives": lambda grad, out, a, b: (grad * b, np.multiply(grad, a, out=grad)),
        "the rule changed input 0": lambda grad, out, a, b: (grad * b, np.multiply(a, grad, out=a)),
        "its rule returned 1 gradients": lambda grad, out, a, b: grad,
        "returned None": lambda grad, out, a, b: (grad, None),
        r"a gradient of shape \(3,\) for an input of shape \(2, 3\)": lambda grad, out, a, b: (grad * b, grad[0]),
    }
    for says, rule in mistakes.items():
        times.backward(rule)
        with pytest.raises(AssertionError, match=says):
            check_rule(times, a, b)


def test_check_gradient_nudges_in_place_and_restores():
    x = np.array([1.0, -2.0])
    check_gradient(lambda: (x ** 3).sum(), x, 3 * x ** 2)
    assert x.tolist() == [1.0, -2.0]
    check_gradient(lambda: (1e5 * x ** 3).sum(), x, 3e5 * x ** 2 * (1 + 2e-6))         # relative, where slopes are steep
    with pytest.raises(AssertionError, match=r"^x, index \(1,\): a nudge says 12, the gradient is -12$"):
        check_gradient(lambda: (x ** 3).sum(), x, np.array([3.0, -12.0]))
    with pytest.raises(AssertionError, match=r"the gradient should have shape \(2,\), it has \(\)"):
        check_gradient(lambda: (x ** 3).sum(), x, 3.0)


def test_a_graph_can_be_drawn(tmp_path):
    need("matplotlib", importlib.util.find_spec("matplotlib"), "make tools")
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    a = Tensor(2, requires_grad=True)
    b = a * 3
    figure = graphs.draw(b + a, names={a: "a"}, grads={a: 4}, title="ways add up")
    texts = [text.get_text() for text in figure.axes[0].texts if text.get_text()]
    assert "a = 2\ngradient 4" in texts
    assert "mul\n6" in texts
    (left, right), (low, high) = figure.axes[0].get_xlim(), sorted(figure.axes[0].get_ylim())
    places = {text.get_position() for text in figure.axes[0].texts if text.get_text()}
    assert len(places) == 4
    assert all(left < x < right and low < y < high for x, y in places)
    figure.savefig(tmp_path / "graph.png")
    backward(b + a)
    graphs.draw(b)                                      # walked: only what is left
    plt.close("all")


def test_the_walk_is_small():
    """The heart of the course fits on a page."""
    lines = [line.strip() for line in Path(autograd.__file__).read_text().split("\n")]
    lines = [line for line in lines if line and not line.startswith(("#", '"'))]
    assert len(lines) < 80
