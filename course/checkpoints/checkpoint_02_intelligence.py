"""Can I add nonlinearity for intelligence? Each activation against an independent formula, at its limits, and at work on XOR."""

import math
from itertools import product

import numpy as np

from course.checkpoints.support import agree, answer, fast, values
from tinytorch.core.activations import (
    GELU,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Tanh,
    gelu,
    leaky_relu,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from tinytorch.core.tensor import Tensor

SHAPES = [(), (1,), (5,), (2, 3), (4, 3, 2), (0, 3), (2, 1, 3, 1)]


def _share_below(x):
    """How much of the bell curve lies below x, by the tanh approximation, in float64."""
    return 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


# One number in, one number out, in float64 and by another road than NumPy's.
FORMULAS = {relu: (ReLU, lambda x: x if x > 0 else 0.0),
            leaky_relu: (LeakyReLU, lambda x: x if x > 0 else 0.01 * x),
            sigmoid: (Sigmoid, lambda x: 0.5 * (1 + math.tanh(x / 2))),
            tanh: (Tanh, lambda x: 1 - 2 / (math.exp(2 * x) + 1)),
            gelu: (GELU, lambda x: x * _share_below(x))}


def _each(formula, x):
    return np.array([formula(float(number)) for number in x.ravel()]).reshape(x.shape)


def _shares(row):
    powers = [math.exp(score - max(row)) for score in row]
    return [p / sum(powers) for p in powers]


def _follows_its_formula(function):
    layer, formula = FORMULAS[function]
    for seed, (shape, scale) in enumerate(product(SHAPES, (0.5, 3))):
        x = np.asarray(np.random.default_rng(seed).normal(0, scale, size=shape), np.float32)
        before = x.copy()
        for what, got in ((f"{function.__name__}(x)", answer(function, Tensor(x))), (f"{layer.__name__}()(x)", answer(layer(), Tensor(x)))):
            agree(got, _each(formula, before), f"{what} with x of shape {shape}", atol=6e-5)
            assert isinstance(got, Tensor), f"{what} should be a Tensor, it is a {type(got).__name__}"
            assert got.data.dtype == np.float32, f"{what} should hold float32, it holds {got.data.dtype}"
        assert np.array_equal(x, before), f"{function.__name__} changed its input"


def can_keep_the_positive_part():
    _follows_its_formula(relu)


def can_let_a_little_of_the_negative_part_through():
    _follows_its_formula(leaky_relu)
    agree(LeakyReLU(slope=0.2)([-5, 5]), [-1, 5], "LeakyReLU(slope=0.2)([-5, 5])")


def can_answer_between_0_and_1():
    _follows_its_formula(sigmoid)


def can_answer_between_minus_1_and_1():
    _follows_its_formula(tanh)


def can_bend_smoothly():
    _follows_its_formula(gelu)


def can_turn_scores_into_shares():
    for seed, axis in enumerate((-1, 0, 1, 2)):
        x = np.random.default_rng(seed).normal(0, 3, size=(2, 3, 4)).astype(np.float32)
        before = x.copy()
        want = np.apply_along_axis(_shares, axis, x.astype(np.float64))
        agree(answer(softmax, Tensor(x), axis=axis), want, f"softmax(x, axis={axis})", atol=1e-6)
        agree(Softmax(axis=axis)(Tensor(x)), want, f"Softmax(axis={axis})(x)", atol=1e-6)
        assert np.array_equal(x, before), "softmax changed its input"
    agree(Softmax()([[0, math.log(2), math.log(5)]]), [[0.125, 0.25, 0.625]], "Softmax() along the last axis")
    agree(softmax(x), np.apply_along_axis(_shares, -1, x.astype(np.float64)), "softmax(x), which means the last axis,", atol=1e-6)


def can_stay_finite_for_numbers_of_any_size():
    huge = np.float32([-1e30, -1000, -100, 0, 100, 1000, 1e30])
    wanted = {relu: np.maximum(huge, 0), leaky_relu: np.where(huge > 0, huge, np.float32(0.01) * huge), tanh: np.sign(huge),
              sigmoid: [0, 0, 0, 0.5, 1, 1, 1], gelu: np.maximum(huge, 0)}
    for function, want in wanted.items():
        agree(answer(function, huge), want, f"{function.__name__}({huge.tolist()})")
    assert sigmoid([-20]).item() > 1e-9, "far below 0 sigmoid should be small but not 0: e**-20 is 2e-9"
    for scores, want in (([[1000, 1001]], [[0.2689414, 0.7310586]]), ([[-1000, -1001]], [[0.7310586, 0.2689414]]),
                         ([[0, 1000]], [[0, 1]]), ([[-500, 500, 0]], [[0, 1, 0]]), ([[1000, 1001], [0, 1]], [[0.2689414, 0.7310586]] * 2)):
        agree(answer(softmax, scores), want, f"softmax({scores})")


def can_see_only_differences_between_scores():
    x = np.random.default_rng(5).normal(size=(4, 6)).astype(np.float32)
    agree(softmax(x + 3), values(softmax(x)), "softmax after adding 3 to all scores", atol=1e-6)
    agree(softmax(x).sum(axis=-1), np.ones(4), "the sum of the shares")


def can_work_on_lists_arrays_and_numbers():
    agree(ReLU()([-1, 0, 1]), [0, 0, 1], "ReLU()([-1, 0, 1])")
    for function, (layer, formula) in FORMULAS.items():
        for x in ([-1.5, 0.5], [[1], [-2]], np.array([3, -3]), -0.25):
            agree(answer(layer(), x), _each(formula, np.asarray(x, float)), f"{layer.__name__}()({x!r})", atol=6e-5)
        assert layer().parameters() == [], f"{layer.__name__} has nothing to learn, so parameters() should be []"
        assert function(Tensor([1.0], requires_grad=True)).requires_grad, f"{function.__name__} should leave a trail for gradients"


XOR_INPUTS, XOR = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]]), np.float32([[0], [1], [1], [0]])


def _two_layers(bend, sharpness, w2, b2):
    """(input @ W1 + b1) -> bend -> @ W2 + b2; the hidden units look at the sum of both inputs."""
    w1, b1 = sharpness * np.ones((2, 2), np.float32), sharpness * np.float32([-0.5, -1.5] if bend in (Sigmoid, Tanh) else [0, -1])
    return bend()(Tensor(XOR_INPUTS) @ w1 + b1) @ np.float32(w2) + b2


def can_represent_xor_with_a_bend_between_two_layers():
    nets = {ReLU: (1, [[1], [-2]], 0), Sigmoid: (40, [[1], [-1]], 0), Tanh: (40, [[0.5], [-0.5]], 0), GELU: (40, [[1 / 40], [-2 / 40]], 0)}
    for bend, (sharpness, w2, b2) in nets.items():
        agree(_two_layers(bend, sharpness, w2, b2), XOR, f"XOR by two layers with {bend.__name__} between them", atol=1e-3)


def can_see_that_without_a_bend_two_layers_are_one():
    rng = np.random.default_rng(6)
    w1, w2 = rng.normal(size=(2, 8)).astype(np.float32), rng.normal(size=(8, 1)).astype(np.float32)
    agree(Tensor(XOR_INPUTS) @ w1 @ w2, XOR_INPUTS @ (w1 @ w2), "two layers without a bend", atol=1e-4)
    best = np.linalg.lstsq(np.c_[XOR_INPUTS, np.ones(4)], XOR, rcond=None)[0]
    agree(Tensor(np.c_[XOR_INPUTS, np.ones(4)]) @ best, [[0.5]] * 4, "the best that one layer can do on XOR", atol=1e-4)
    bent = values(ReLU()(Tensor(XOR_INPUTS) @ w1) @ w2)
    assert not np.allclose(bent, XOR_INPUTS @ (w1 @ w2), atol=1e-3), "with ReLU between them two layers should differ from one"


def can_bend_at_the_speed_of_numpy():
    x = np.linspace(-4, 4, 1_000_000, dtype=np.float32)
    rows = np.random.default_rng(7).normal(size=(1000, 1000)).astype(np.float32)
    plain = {relu: (lambda: np.maximum(x, 0), 4), leaky_relu: (lambda: np.where(x > 0, x, 0.01 * x), 4), tanh: (lambda: np.tanh(x), 4),
             sigmoid: (lambda: 1 / (1 + np.exp(-x)), 6), gelu: (lambda: 0.5 * x * (1 + np.tanh(0.8 * (x + 0.045 * x * x * x))), 5)}
    for function, (numpy_way, times) in plain.items():
        layer = FORMULAS[function][0]()
        fast(lambda function=function: function(x), numpy_way, f"{function.__name__} of a million numbers", times=times)
        fast(lambda layer=layer: layer(x), numpy_way, f"{type(layer).__name__}() of a million numbers", times=times)
    fast(lambda: softmax(rows), lambda: (lambda p: p / p.sum(axis=1, keepdims=True))(np.exp(rows - rows.max(axis=1, keepdims=True))),
         "softmax of 1,000 rows of 1,000", times=4)
