"""The reference activations against independent float64 formulas, and against PyTorch where it is installed."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.need import need
from tinytorch.core import activations
from tinytorch.core.tensor import Tensor

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])      # the machine may be busy
LARGEST = float(np.finfo(np.float32).max)


def floats(limit: float) -> st.SearchStrategy[float]:
    limit = float(np.float32(limit))
    return st.floats(-limit, limit, width=32)


SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
# ordinary numbers, large ones, and everything that a float32 can hold
ANY = st.sampled_from([4.0, 100.0, 1e20, LARGEST]).flatmap(lambda limit: arrays(np.float32, SHAPES, elements=floats(limit)))
ROWS = array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5)
SCORES = st.sampled_from([4.0, 100.0, 1e4, LARGEST]).flatmap(lambda limit: arrays(np.float32, ROWS, elements=floats(limit)))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


# name: the formula as it stands, which float64 has room for, and the absolute error that float32 may make
FORMULAS = {
    "relu": (lambda x: (x + abs(x)) / 2, 0),
    "leaky_relu": (lambda x: (x > 0) * x + (x <= 0) * x * 0.01, 1e-45),
    "sigmoid": (lambda x: 1 / (1 + np.exp(-x)), 1e-45),
    "tanh": (lambda x: 1 - 2 / (np.exp(2 * x) + 1), 1e-6),
    "gelu": (gelu, 1e-6),
}


def quietly(function, x, **options) -> np.ndarray:
    """The result of an op, with every warning an error and the input compared before and after."""
    before = x.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = function(Tensor(x), **options)
    assert isinstance(result, Tensor)
    assert np.array_equal(x, before), f"{function.__name__} changed its input"
    assert function.forward(x, **options).dtype == np.float32, "a float64 slipped in: twice the memory"
    return result.data


@pytest.mark.parametrize("name", FORMULAS)
@patient
@given(x=ANY)
def test_elementwise_ops_agree_with_float64(name, x):
    formula, error = FORMULAS[name]
    with np.errstate(over="ignore"):
        want = formula(x.astype(np.float64))
    got = quietly(getattr(activations, name), x)
    assert got.shape == x.shape
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=error)


@patient
@given(x=SCORES, data=st.data())
def test_softmax_agrees_with_float64_along_any_axis(x, data):
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    got = quietly(activations.softmax, x, axis=axis)
    # differences of large scores are rounded to float32 before the power, hence the tolerance
    np.testing.assert_allclose(got, softmax(x.astype(np.float64), axis), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(got.sum(axis=axis), 1, rtol=1e-5)


@patient
@given(x=arrays(np.float32, ROWS, elements=floats(50)), shift=st.integers(-1000, 1000))
def test_softmax_only_sees_differences(x, shift):
    np.testing.assert_allclose(activations.softmax(x + np.float32(shift)).data, activations.softmax(x).data, atol=2e-3)


@patient
@given(x=ANY, slope=st.floats(0, 1, width=32))
def test_leaky_relu_passes_on_the_left_what_slope_says(x, slope):
    got = quietly(activations.leaky_relu, x, slope=slope)
    np.testing.assert_array_equal(got, activations.relu(x).data - np.float32(slope) * activations.relu(-x).data)


@patient
@given(x=arrays(np.float32, SHAPES, elements=floats(80)))
def test_symmetries(x):
    sigmoid, tanh, gelu = activations.sigmoid, activations.tanh, activations.gelu
    np.testing.assert_allclose(sigmoid(x).data + sigmoid(-x).data, 1, rtol=1e-6)
    np.testing.assert_allclose(tanh(x).data, 2 * sigmoid(2 * x).data - 1, atol=1e-6)
    np.testing.assert_allclose(gelu(x).data - gelu(-x).data, x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh"])
@patient
@given(x=arrays(np.float32, (7,), elements=floats(LARGEST)))
def test_bends_never_turn_order_around(name, x):
    got = getattr(activations, name)(np.sort(x)).data
    assert (got[1:] >= got[:-1] - np.abs(got[:-1]) * 2e-7).all()       # but for the last digit of a power


def test_small_shares_survive():
    assert activations.sigmoid([-80.0]).data[0] == pytest.approx(math.exp(-80), rel=1e-5)


def test_gelu_is_the_published_approximation_and_not_the_exact_share():
    x = np.linspace(-6, 6, 2401, dtype=np.float32)
    exact = np.array([v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(np.float64)])
    largest = np.abs(activations.gelu(x).data - exact).max()
    assert 4.5e-4 < largest < 5e-4, f"the tanh approximation is off by 4.73e-4 at most; this one by {largest:.2e}"
    assert activations.gelu([1.0]).data.round(4) == np.float32(0.8412)


LAYERS: dict[str, dict] = {"ReLU": {}, "LeakyReLU": {"slope": 0.2}, "Sigmoid": {}, "Tanh": {}, "Softmax": {"axis": 0}, "GELU": {}}
OPS = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "Sigmoid": "sigmoid", "Tanh": "tanh", "Softmax": "softmax", "GELU": "gelu"}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("kind", [list, np.array, Tensor])
def test_layers_apply_their_op_with_their_options(name, kind):
    layer, numbers = getattr(activations, name)(**LAYERS[name]), [[-1.0, 0.0, 2.0], [3.0, -0.5, 1.0]]
    got = layer(kind(numbers))
    assert isinstance(got, Tensor)
    assert np.array_equal(got.data, getattr(activations, OPS[name])(numbers, **LAYERS[name]).data)
    options = ", ".join(f"{key}={value}" for key, value in LAYERS[name].items())
    assert repr(layer) == f"{name}({options})"
    assert layer.parameters() == []


def test_the_promised_call_on_a_list():
    assert activations.ReLU()([-1, 0, 1]).data.tolist() == [0, 0, 1]


def test_options_are_remembered_for_the_derivative():
    scores = Tensor(np.zeros((2, 3)), requires_grad=True)
    result = activations.softmax(scores, axis=0)
    op, inputs, kept, options, _ = result.origin
    assert op is activations.softmax
    assert inputs[0] is scores
    assert kept is result.data
    assert options == {"axis": 0}


@pytest.fixture(scope="module")
def torch():
    try:
        import torch
    except ImportError:
        torch = None
    need("PyTorch", torch, "make oracle")
    return torch


@pytest.mark.oracle
@patient
@given(x=st.sampled_from([4.0, 100.0]).flatmap(lambda limit: arrays(np.float32, ROWS, elements=floats(limit))))
def test_agrees_with_pytorch(torch, x):
    there, functional = torch.from_numpy(x), torch.nn.functional
    for name, want in {
        "relu": torch.relu(there), "leaky_relu": functional.leaky_relu(there), "sigmoid": torch.sigmoid(there),
        "tanh": torch.tanh(there), "softmax": torch.softmax(there, -1), "gelu": functional.gelu(there, approximate="tanh"),
    }.items():
        np.testing.assert_allclose(getattr(activations, name)(x).data, want.numpy(), rtol=1e-5, atol=2e-6, err_msg=name)
