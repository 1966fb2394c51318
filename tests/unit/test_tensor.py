"""The tensor of module 02 against NumPy, and against PyTorch where there is one, over shapes drawn by hypothesis."""

import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, mutually_broadcastable_shapes
from numpy.lib.stride_tricks import sliding_window_view

from tests.need import need
from tinytorch.core import tensor
from tinytorch.core.tensor import (
    Tensor,
    as_float32,
    concat,
    held_bytes,
    matmul_shape,
    op,
    reshape_shape,
    squared_distances,
)
from tinytorch.data import digits

SIZES = {"min_side": 0, "max_side": 4}
PAIRS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "power": np.power, "matmul": np.matmul}
SINGLES = {"neg": np.negative, "exp": np.exp, "log": np.log, "sqrt": np.sqrt}
REDUCTIONS = ["sum", "mean", "max"]
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])      # the machine may be busy


def numbers(shape, low=0.5, high=2.0):
    """Float32 arrays of a shape, with values at which every op is defined and tame."""
    return arrays(np.float32, shape, elements=st.floats(low, high, width=32))


@st.composite
def two_arrays(draw, signature=None):
    shapes = mutually_broadcastable_shapes(signature=signature, max_dims=3, **SIZES) if signature else \
        mutually_broadcastable_shapes(num_shapes=2, max_dims=4, **SIZES)
    return [draw(numbers(shape)) for shape in draw(shapes).input_shapes]


@st.composite
def array_and_axis(draw):
    """An array without empty axes, and what sum, mean and max may be given as axis."""
    x = draw(numbers(draw(array_shapes(min_dims=1, max_dims=4, max_side=4))))
    one = st.integers(-x.ndim, x.ndim - 1)
    several = st.lists(one, max_size=x.ndim, unique_by=lambda axis: axis % x.ndim).map(tuple)
    return x, draw(st.none() | one | several)


def same(got, want):
    """One tensor, float32, with the shape and the numbers of a NumPy result."""
    assert isinstance(got, Tensor)
    assert got.dtype == np.float32
    assert got.shape == np.shape(want)
    np.testing.assert_allclose(got.data, want, rtol=1e-5, atol=1e-6)


# what a tensor is made of

@patient
@given(arrays(np.float32, array_shapes(min_dims=0, **SIZES)))
def test_float32_is_shared_and_everything_else_is_copied(x):
    assert as_float32(x) is x
    assert Tensor(x).data is x
    assert Tensor(Tensor(x)).data is x
    for dtype in (np.float64, np.int32, np.uint8, bool, np.float16):
        other = np.ones(x.shape, dtype)
        assert not np.shares_memory(as_float32(other), other)
        same(Tensor(other), np.ones(x.shape))


@pytest.mark.parametrize(("data", "text"), [
    (["7"], "<U1"), ("seven", "<U5"), ([1, None], "object"), ([1j], "complex128"), ({"a": 1}, "object"), (b"x", "|S1"),
    (np.array("2026-11-21", dtype="datetime64[D]"), "datetime64"),
])
def test_what_is_not_a_number_is_refused(data, text):
    with pytest.raises(TypeError, match="a tensor holds numbers, not ") as refused:
        Tensor(data)
    assert text in str(refused.value)


@pytest.mark.parametrize("ragged", [[[1, 2], [3]], [[1], 2], [[[1], [2, 3]], [[4], [5]]]])
def test_ragged_lists_are_refused(ragged):
    with pytest.raises(ValueError, match="rows of equal length"):
        Tensor(ragged)


def test_a_list_of_tensors_keeps_numbers_but_never_loses_gradients():
    same(Tensor([Tensor([1, 2]), Tensor([3, 4])]), [[1, 2], [3, 4]])
    with pytest.raises(TypeError, match=r"use concat\(a, b\)"):
        Tensor([Tensor([1]), Tensor([2], requires_grad=True)])


# arithmetic

@pytest.mark.parametrize("name", sorted(PAIRS.keys() - {"matmul"}))
@patient
@given(data=st.data())
def test_elementwise_ops_agree_with_numpy(name, data):
    a, b = data.draw(two_arrays())
    same(getattr(tensor, name)(a, b), PAIRS[name](a, b))


@patient
@given(two_arrays(signature=np.matmul.signature))
def test_matmul_and_its_shape_rule_agree_with_numpy(pair):
    a, b = pair
    want = np.matmul(a, b)
    same(Tensor(a) @ b, want)
    assert matmul_shape(a.shape, b.shape) == want.shape


@pytest.mark.parametrize("name", sorted(SINGLES))
@patient
@given(data=st.data())
def test_functions_of_one_tensor_agree_with_numpy(name, data):
    x = data.draw(numbers(data.draw(array_shapes(min_dims=0, **SIZES))))
    same(getattr(tensor, name)(x), SINGLES[name](x))


@pytest.mark.parametrize("other", [2, 2.5, np.float64(2.5), np.int64(3), True, [1, 2, 3], (1, 2, 3),
                                   np.float64([1, 2, 3]), np.arange(1, 4), Tensor([1, 2, 3])], ids=repr)
def test_operators_take_anything_on_either_side_and_stay_float32(other):
    x, y = np.float32([[1, 2, 3], [4, 5, 6]]), np.asarray(other, np.float32)
    t = Tensor(x)
    for got, want in [(t + other, x + y), (other + t, y + x), (t - other, x - y), (other - t, y - x), (t * other, x * y),
                      (other * t, y * x), (t / other, x / y), (other / t, y / x), (t ** other, x ** y),
                      (other ** t, y ** x), (-t, -x)]:
        same(got, want)
    if y.ndim:
        same(t @ other, x @ y)
        same(other @ t.T, y @ x.T)


def test_values_beyond_the_tame_ones():
    with np.errstate(all="ignore"):
        same(Tensor([1, -1, 0]) / 0, [np.inf, -np.inf, np.nan])
        same(tensor.log([0, -1]), [-np.inf, np.nan])
        same(Tensor([-2, 0.25]) ** 2, [4, 0.0625])
        same(Tensor([-8, 4]) ** 0.5, [np.nan, 2])


@patient
@given(array_and_axis(), st.booleans())
def test_reductions_agree_with_numpy(case, keepdims):
    x, axis = case
    for name in REDUCTIONS:
        same(getattr(Tensor(x), name)(axis=axis, keepdims=keepdims), getattr(x, name)(axis=axis, keepdims=keepdims))
    same(Tensor(x).sum(), x.sum())


# shapes

@patient
@given(two_arrays(), array_shapes(min_dims=0, **SIZES))
def test_shapes_that_do_not_fit_are_named(pair, other):
    for a, b in [pair, (pair[0], np.ones(other, np.float32))]:
        try:
            want = np.broadcast_shapes(a.shape, b.shape)
        except ValueError:
            with pytest.raises(ValueError, match=r"do not fit: [0-9]+ against [0-9]+"):
                Tensor(a) + b
        else:
            assert (Tensor(a) + b).shape == want


@patient
@given(array_shapes(min_dims=0, **SIZES), array_shapes(min_dims=0, **SIZES))
def test_matmul_shape_refuses_exactly_what_numpy_refuses(a, b):
    try:
        want = np.matmul(np.ones(a), np.ones(b)).shape
    except ValueError:
        with pytest.raises(ValueError, match=r"cannot multiply .* by .*: |do not fit: "):
            Tensor(np.ones(a)) @ np.ones(b)
    else:
        assert matmul_shape(a, b) == want


def test_the_promised_messages():
    with pytest.raises(ValueError, match=r"^cannot multiply \(2, 3\) by \(4, 5\): the inner sizes 3 and 4 must agree$"):
        Tensor(np.ones((2, 3))) @ np.ones((4, 5))
    with pytest.raises(ValueError, match=r"both sides need an axis; use \* "):
        Tensor(2) @ [1]
    with pytest.raises(ValueError, match=r"^cannot reshape \(2, 3\) into \(4, -1\): it holds 6 numbers$"):
        Tensor(np.ones((2, 3))).reshape(4, -1)
    with pytest.raises(ValueError, match=r"cannot join \(2, 2\) and \(3, 2\) along axis 1"):
        concat(np.ones((2, 2)), np.ones((3, 2)), axis=1)
    with pytest.raises(ValueError, match=r"item\(\) needs one element, this tensor has shape \(2,\)"):
        Tensor([1, 2]).item()
    with pytest.raises(TypeError, match="does not support ufuncs"):
        np.exp(Tensor([1]))


@patient
@given(array_shapes(min_dims=0, **SIZES), st.lists(st.integers(-1, 12), max_size=4).map(tuple))
def test_reshape_shape_refuses_exactly_what_numpy_refuses(old, shape):
    x = np.arange(np.prod(old, dtype=int), dtype=np.float32).reshape(old)
    try:
        want = x.reshape(shape)
    except ValueError:
        with pytest.raises(ValueError, match="cannot reshape "):
            Tensor(x).reshape(shape)
    else:
        assert reshape_shape(old, shape) == want.shape
        same(Tensor(x).reshape(shape), want)
        same(Tensor(x).reshape(*shape), want)


@patient
@given(st.data())
def test_transpose_agrees_with_numpy_and_is_a_view(data):
    x = data.draw(numbers(data.draw(array_shapes(min_dims=0, max_dims=4, max_side=4))))
    axes = data.draw(st.permutations(range(x.ndim)))
    mixed = tuple(axis - x.ndim if data.draw(st.booleans()) else axis for axis in axes)
    same(Tensor(x).T, x.T)
    same(Tensor(x).transpose(), x.T)
    for got in (Tensor(x).transpose(*mixed), Tensor(x).transpose(mixed)):
        same(got, x.transpose(mixed))
        assert np.shares_memory(got.data, x)


@pytest.mark.parametrize("index", [0, -1, slice(1, 3), (slice(None), 1), (0, 1), ..., None, [0, 2], np.array([1, 1]),
                                   (slice(None), [0, 1]), np.array([True, False, True])], ids=str)
def test_indexing_agrees_with_numpy(index):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    same(Tensor(x)[index], x[index])
    assert np.shares_memory(Tensor(x)[index].data, x) == np.shares_memory(x[index], x)


def test_indexing_out_of_range_and_iteration():
    t = Tensor([[1, 2], [3, 4]])
    with pytest.raises(IndexError, match="out of bounds"):
        t[2]
    first, second = t
    same(first, [1, 2])
    same(second, [3, 4])
    assert len(t) == 2
    with pytest.raises(TypeError):
        list(Tensor(1))


@patient
@given(st.data())
def test_concat_agrees_with_numpy_and_copies(data):
    shape = data.draw(array_shapes(min_dims=1, max_dims=4, max_side=4))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    parts = [data.draw(numbers((*shape[:axis], n, *shape[axis:][1:]))) for n in lengths]
    got = concat(*parts, axis=axis)
    same(got, np.concatenate(parts, axis=axis))
    assert got.data.flags.c_contiguous
    assert not any(np.shares_memory(got.data, part) for part in parts)


# the rest of a tensor's manners

@patient
@given(st.data())
def test_no_operation_changes_its_input(data):
    x = data.draw(numbers((2, 3)))
    before, t = x.copy(), Tensor(x)
    for result in (t + 1, 1 / t, t ** 2, t @ t.T, t.sum(axis=0), t.max(), t.reshape(3, 2) * 2, t.T + 1, tensor.exp(t), concat(t, t)):
        assert not np.shares_memory(result.data, x)
    t += 1
    assert (x == before).all()


def test_equality_is_identity_so_that_a_tensor_can_be_a_key():
    a, b = Tensor([1, 2]), Tensor([1, 2])
    assert a == a
    assert a != b
    assert {a: "a", b: "b"}[a] == "a"


def test_conversions():
    t = Tensor([[1.5]])
    assert t.item() == float(t) == 1.5
    assert isinstance(t.item(), float)
    assert bool(t)
    assert not Tensor(0)
    assert t.numpy() is t.data
    assert np.shares_memory(np.asarray(t), t.data)
    assert np.asarray(t, np.float64).dtype == np.float64
    assert np.allclose(t, 1.5)
    assert (t.ndim, t.size, t.dtype) == (2, 1, np.float32)


def test_repr_is_short_for_every_size():
    assert repr(Tensor([1, 2])) == "Tensor([1., 2.])"
    assert repr(Tensor([1], requires_grad=True)) == "Tensor([1.], requires_grad=True)"
    assert repr(Tensor(np.zeros((0, 3)))) == "Tensor([])"
    assert repr(Tensor(np.arange(4800).reshape(10, 1, 480))) == "Tensor(shape=(10, 1, 480), from 0 to 4799)"


# what module 06 builds on

def test_the_version_counts_assignments_to_data():
    x = Tensor([1, 2])
    first = x.version
    x.data -= 1
    x.data = [5, 6]
    assert x.version == first + 2
    same(x, [5, 6])
    with pytest.raises(TypeError, match="a tensor holds numbers"):
        x.data = ["7"]
    assert x.version == first + 2


def test_recording_notes_the_op_and_its_inputs_only_where_a_gradient_is_wanted():
    x, y = Tensor([1, 2], requires_grad=True), Tensor([3, 4])
    assert (y * 2).origin is None
    result = (x * y).sum(axis=0)
    made_by, (product,), kept, options, versions = result.origin
    assert (made_by, options) == (tensor.reduce_sum, {"axis": 0, "keepdims": False})
    assert kept is result.data
    assert versions == [result.version, product.version] == [1, 1]
    assert product.origin[0] is tensor.mul
    assert product.origin[1] == [x, y]
    assert result.requires_grad
    assert x.origin is None


def test_recording_can_be_switched_off():
    x = Tensor([1], requires_grad=True)
    before = op.recording.set(False)
    try:
        assert not (x + 1).requires_grad
        with ThreadPoolExecutor() as others:        # in this thread only
            assert others.submit(lambda: x + 1).result().requires_grad
    finally:
        op.recording.reset(before)
    assert (x + 1).requires_grad


def test_a_forward_may_return_what_its_derivative_wants_to_see():
    @op
    def halves(x, *, by=2):
        """Divide."""
        return x / by, "kept"

    @halves.backward
    def _(grad, kept, x, *, by=2):
        return grad / by

    result = halves(Tensor([4], requires_grad=True), by=4)
    same(result, [1])
    assert result.origin[2:4] == ("kept", {"by": 4})
    assert (halves.__name__, halves.__doc__) == ("halves", "Divide.")
    assert halves.derivative(8.0, "kept", None, by=4) == 2


def test_ops_are_named_as_they_are_called():
    assert [name for name, value in vars(tensor).items() if isinstance(value, op) and value.__name__ != name] == []


def test_float64_inside_an_op_comes_out_as_float32():
    same(op(lambda x: x * np.float64(0.5))([1, 2]), [0.5, 1])


def test_an_error_inside_an_op_is_not_hidden_by_a_shape_rule():
    def broken(a, b):
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        op(broken, "broken", tensor.broadcast_shape)([1], [1])


def test_backward_says_where_it_is_written(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinytorch.core.autograd", None)
    with pytest.raises(NotImplementedError, match="Module 06"):
        Tensor([1], requires_grad=True).sum().backward()


# memory and distances

@patient
@given(numbers((4, 6)))
def test_held_bytes_follows_views_to_their_owner(x):
    owner = x if x.base is None else x.base
    for view in (x, x[1], x.T, x[::2, 1:], x.reshape(2, 12)[1], sliding_window_view(x, (2, 2))):
        assert held_bytes(view) == owner.nbytes
    assert held_bytes(x[1].copy()) == 24


@patient
@given(st.data())
def test_squared_distances_agree_with_differences(data):
    n, m, k = (data.draw(st.integers(1, 5)) for _ in range(3))
    a, b = data.draw(numbers((n, k), -2, 2)), data.draw(numbers((m, k), -2, 2))
    got = squared_distances(Tensor(a), Tensor(b))
    np.testing.assert_allclose(got.data, ((a[:, None] - b) ** 2).sum(axis=2), atol=1e-4)


def test_the_nearest_known_digit_has_the_right_name():
    images, labels = digits()
    rows = Tensor(images).reshape(len(images), -1)
    nearest = squared_distances(rows[1000:], rows[:1000]).data.argmin(axis=1)
    assert (labels[nearest] == labels[1000:]).mean() > 0.95


# PyTorch as oracle

@pytest.mark.oracle
@patient
@given(data=st.data())
def test_forward_agrees_with_pytorch(data):
    need("PyTorch", importlib.util.find_spec("torch"), "make oracle")
    import torch

    a, b = data.draw(two_arrays())
    x, y = torch.tensor(a), torch.tensor(b)
    for got, want in [(Tensor(a) + b, x + y), (Tensor(a) - b, x - y), (Tensor(a) * b, x * y), (Tensor(a) / b, x / y),
                      (Tensor(a) ** b, x ** y), (Tensor(a) ** 3, x ** 3), (tensor.exp(a), x.exp()), (tensor.log(a), x.log())]:
        same(got, want.numpy())
    a, b = data.draw(two_arrays(signature=np.matmul.signature))
    same(Tensor(a) @ b, (torch.tensor(a) @ torch.tensor(b)).numpy())
    a, b = data.draw(numbers((3, 4))), data.draw(numbers((5, 4)))
    want = torch.cdist(torch.tensor(a), torch.tensor(b)) ** 2
    np.testing.assert_allclose(squared_distances(Tensor(a), Tensor(b)).data, want.numpy(), atol=1e-3)
