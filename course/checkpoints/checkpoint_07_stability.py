"""Can I stabilize training with normalization? Layer and batch normalisation against their formulas, then where training fails without."""

import numpy as np

from course.checkpoints.support import agree, fast, refused, values
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import BatchNorm1d, Flatten, LayerNorm, Linear, Sequential, normalize
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD
from tinytorch.core.spatial import BatchNorm2d, Conv2d, GlobalMaxPool2d, batch_norm2d
from tinytorch.core.tensor import Tensor
from tinytorch.core.training import Accuracy, Trainer, evaluate_model
from tinytorch.data import digits
from tinytorch.given.batches import Batches
from tinytorch.randomness import manual_seed

EPS = 1e-5


def draw(shape, seed=0, mean=0.0, spread=1.0):
    return np.random.default_rng(seed).normal(mean, spread, size=shape).astype(np.float32)


def _normal(x, axes, eps=EPS):
    """Mean 0 and variance 1 along these axes, in float64."""
    x = x.astype(np.float64)
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + eps)


def _column(numbers, ndim):
    return np.reshape(numbers, (-1,) + (1,) * (ndim - 2))


def _slopes(f, x, h=1e-5):
    """How the number f(x) answers each number of x, in float64."""
    slopes = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        up, down = x.astype(np.float64), x.astype(np.float64)
        up[index] += h
        down[index] -= h
        slopes[index] = (f(up) - f(down)) / (2 * h)
    return slopes


# Layers with features on axis 1, and inputs for them.
BATCH_NORMS = [(BatchNorm1d, (6, 3)), (BatchNorm1d, (4, 3, 5)), (BatchNorm2d, (4, 3, 5, 2)), (BatchNorm2d, (2, 3, 1, 2))]


def can_bring_numbers_to_mean_0_and_variance_1():
    agree(normalize([[1, 3, 5, 7]]), [[-1.341640, -0.447213, 0.447213, 1.341640]], "normalize of [1, 3, 5, 7]")
    x = draw((3, 4, 5), 1, mean=20, spread=7)
    for axis in (-1, 0, 1, (0, 2), (0, 1, 2)):
        agree(normalize(x, axis=axis), _normal(x, axis), f"normalize along {axis}", atol=1e-4)
    agree(normalize(x), _normal(x, -1), "normalize, which means the last axis,", atol=1e-4)
    agree(normalize(draw((2, 6), 2), eps=3.0), _normal(draw((2, 6), 2), -1, 3.0), "normalize with eps=3")
    agree(normalize(np.full((2, 3), 5.0)), np.zeros((2, 3)), "normalize of equal numbers")


def can_normalize_each_example_by_itself():
    for shape in ((2, 6), (3, 4, 6)):
        layer, x = LayerNorm(6), draw(shape, 3, mean=-3, spread=5)
        agree(layer(x), _normal(x, -1), f"LayerNorm(6) of {shape}", atol=1e-4)
        layer.weight.data, layer.bias.data = draw((6,), 4), draw((6,), 5)
        want = _normal(x, -1) * values(layer.weight) + values(layer.bias)
        agree(layer(x), want, f"LayerNorm(6) of {shape} with other weights", atol=1e-4)
        layer.eval()
        agree(layer(x[:1]), want[:1], f"LayerNorm(6) after eval(), of the first example of {shape} alone", atol=1e-4)
    agree(LayerNorm(4, eps=2.0)(draw((2, 4), 6)), _normal(draw((2, 4), 6), -1, 2.0), "LayerNorm(4, eps=2)")
    assert len(LayerNorm(5).parameters()) == 2, "LayerNorm has two parameters, weight and bias"
    refused(ValueError, LayerNorm(4), np.ones((2, 5)))


def can_normalize_each_feature_over_the_batch():
    for kind, shape in BATCH_NORMS:
        layer, x, axes = kind(3), draw(shape, 7, mean=4, spread=3), (0, *range(2, len(shape)))
        agree(layer(x), _normal(x, axes), f"{kind.__name__}(3) of {shape}", atol=1e-4)
        layer.weight.data, layer.bias.data = draw((3,), 8), draw((3,), 9)
        want = _normal(x, axes) * _column(values(layer.weight), x.ndim) + _column(values(layer.bias), x.ndim)
        agree(layer(x), want, f"{kind.__name__}(3) of {shape} with other weights", atol=1e-4)
        agree(kind(3, eps=2.0)(x), _normal(x, axes, 2.0), f"{kind.__name__}(3, eps=2) of {shape}", atol=1e-4)
    x = draw((5, 2, 260, 270), 10, mean=3, spread=2)
    agree(BatchNorm2d(2)(x), _normal(x, (0, 2, 3)), "BatchNorm2d(2) of five large pictures", atol=1e-3)


def can_keep_running_averages():
    for kind, shape in BATCH_NORMS:
        for momentum in (0.1, 0.6):
            layer, axes, mean, var = kind(3, momentum=momentum), (0, *range(2, len(shape))), np.zeros(3), np.ones(3)
            for seed in range(3):
                x = draw(shape, 20 + seed, mean=seed, spread=1 + seed)
                layer(x)
                mean += momentum * (x.mean(axis=axes, dtype=np.float64) - mean)
                var += momentum * (x.astype(np.float64).var(axis=axes, ddof=1) - var)
            what = f"{kind.__name__}(3, momentum={momentum}) after three batches of {shape}"
            agree(layer.running_mean, mean, f"the running mean of {what}", atol=1e-4)
            agree(layer.running_var, var, f"the running variance of {what}", atol=1e-3, rtol=1e-4)


def can_answer_without_looking_at_the_neighbours():
    for kind, shape in BATCH_NORMS:
        layer, x = kind(3), draw(shape, 30, mean=2)
        for seed in range(4):
            layer(draw(shape, 31 + seed, mean=2, spread=3))
        layer.weight.data, layer.bias.data = draw((3,), 35), draw((3,), 36)
        layer.eval()
        mean, var = layer.running_mean.copy(), layer.running_var.copy()
        scale = _column(values(layer.weight) / np.sqrt(var + EPS), x.ndim)
        want = (x - _column(mean, x.ndim)) * scale + _column(values(layer.bias), x.ndim)
        agree(layer(x), want, f"{kind.__name__}(3) after eval(), of {shape}", atol=1e-4)
        agree(layer(x[:1]), want[:1], f"{kind.__name__}(3) after eval(), of one example alone", atol=1e-4)
        agree(kind(3, eps=3.0).eval()(x), x / 2, f"a fresh {kind.__name__}(3, eps=3) after eval(): x / sqrt(1 + 3),")
        agree(layer.running_mean, mean, f"the running mean of {kind.__name__}(3) after use")
        agree(layer.running_var, var, f"the running variance of {kind.__name__}(3) after use")


def can_save_what_the_averages_have_learned():
    for kind, shape in BATCH_NORMS[1:3]:
        layer, other, x = kind(3), kind(3), draw(shape, 40)
        layer(draw(shape, 41, mean=5))
        state = layer.state_dict()
        assert set(state) == {"weight", "bias", "running_mean", "running_var"}, f"the state of {kind.__name__} holds {sorted(state)}"
        other.load_state_dict(state)
        agree(other.eval()(x), values(layer.eval()(x)), f"{kind.__name__}(3) with the state of another", atol=1e-5)


def _layer_gradients(layer, formula, x, grad, what):
    """Gradients of input, weight and bias against nudges of a formula in float64."""
    tensor = Tensor(x, requires_grad=True)
    layer(tensor).backward(grad)
    weight, bias = values(layer.weight).astype(np.float64), values(layer.bias).astype(np.float64)
    for name, got, f, at in (("input", tensor.grad, lambda a: formula(a, weight, bias), x),
                             ("weight", layer.weight.grad, lambda a: formula(x, a, bias), weight),
                             ("bias", layer.bias.grad, lambda a: formula(x, weight, a), bias)):
        agree(got, _slopes(lambda a, f=f: (f(a) * grad).sum(), at), f"the gradient of the {name} of {what}", atol=2e-3, rtol=2e-3)


def can_find_gradients_through_normalization():
    layer, x = LayerNorm(5), draw((3, 5), 50, spread=2)
    layer.weight.data, layer.bias.data = draw((5,), 51), draw((5,), 52)
    _layer_gradients(layer, lambda x, weight, bias: _normal(x, -1) * weight + bias, x, draw((3, 5), 53), "LayerNorm(5)")
    for kind, shape in BATCH_NORMS[:3]:
        for training in (True, False):
            layer, x, axes = kind(3), draw(shape, 54, mean=1, spread=2), (0, *range(2, len(shape)))
            layer(draw(shape, 55, mean=2))
            layer.weight.data, layer.bias.data = draw((3,), 56), draw((3,), 57)
            layer.train(training)
            mean, var = layer.running_mean.copy(), layer.running_var.copy()

            def formula(x, weight, bias, axes=axes, mean=mean, var=var, training=training):
                centre = _normal(x, axes) if training else (x - _column(mean, x.ndim)) / np.sqrt(_column(var, x.ndim) + EPS)
                return centre * _column(weight, x.ndim) + _column(bias, x.ndim)

            _layer_gradients(layer, formula, x, draw(shape, 58), f"{kind.__name__}(3) of {shape}, training={training}")


def can_refuse_what_has_no_variance():
    for layer, x in ((BatchNorm1d(3), np.ones((1, 3))), (BatchNorm2d(3), np.ones((1, 3, 1, 1))), (BatchNorm2d(3), np.ones((2, 4, 5, 5))),
                     (BatchNorm2d(3), np.ones((2, 3)))):
        refused(ValueError, layer, x)
    agree(BatchNorm1d(3).eval()(np.ones((1, 3))), np.ones((1, 3)) / np.sqrt(1 + EPS), "one example after eval()")


def can_keep_signals_from_growing_and_vanishing():
    for norm, scale in ((BatchNorm1d, 5.0), (BatchNorm1d, 0.05), (LayerNorm, 5.0), (LayerNorm, 0.05)):
        manual_seed(0)
        x, plain = draw((64, 50), 60), draw((64, 50), 60)
        for _ in range(20):
            layer = Linear(50, 50)
            layer.weight.data = values(layer.weight) * scale
            x, plain = ReLU()(norm(50)(layer(x))), ReLU()(layer(plain))
        spread, without = values(x).std(), values(plain).std()
        what = f"20 layers with weights {scale} times their size"
        assert 0.2 < spread < 2, f"{what}, behind {norm.__name__}: the spread should stay near 0.6, it is {spread:.3g}"
        assert not 1e-6 < without < 1e6, f"without {norm.__name__} the same signals should run away, their spread is {without:.3g}"


def _deep(norm):
    """Four hidden layers whose first weights are five times too large, with and without normalisation."""
    manual_seed(0)
    parts = [Flatten()]
    for inputs in (64, 40, 40, 40):
        layer = Linear(inputs, 40)
        layer.weight.data = values(layer.weight) * 5
        parts += [layer, *([norm(40)] if norm else []), ReLU()]
    return Sequential(*parts, Linear(40, 10))


def can_train_where_training_fails_without():
    images, labels = digits()
    read = {}
    for norm in (None, BatchNorm1d, LayerNorm):
        model, seen = _deep(norm), Batches(images[:1000], labels[:1000], 50, shuffle=True)
        try:
            Trainer(model, CrossEntropyLoss(), SGD(lr=0.1, momentum=0.9), [Accuracy()]).fit(seen, epochs=6, quiet=True)
            read[norm] = evaluate_model(model, Batches(images[1000:], labels[1000:], 100))["accuracy"]
        except FloatingPointError:
            read[norm] = 0.0
    assert read[None] < 0.4, f"with weights five times too large a network should not train by itself, it reads {read[None]:.0%} of digits"
    for norm in (BatchNorm1d, LayerNorm):
        assert read[norm] > 0.7, f"with {norm.__name__} the same network should read 70 % of unseen digits, it reads {read[norm]:.0%}"


def can_train_filters_with_normalization():
    images, labels = digits()
    manual_seed(1)
    model = Sequential(Conv2d(1, 8, 3, padding=1), BatchNorm2d(8), ReLU(), Conv2d(8, 16, 3, stride=2), BatchNorm2d(16), ReLU(),
                       GlobalMaxPool2d(), Linear(16, 10))
    loader = Batches(images[:1000, None], labels[:1000], 32, shuffle=True)
    Trainer(model, CrossEntropyLoss(), SGD(lr=0.1, momentum=0.9), [Accuracy()]).fit(loader, epochs=8, quiet=True)
    accuracy = evaluate_model(model, Batches(images[1000:, None], labels[1000:], 797))["accuracy"]
    alone = evaluate_model(model, Batches(images[1000:1200, None], labels[1000:1200], 1))["accuracy"]
    together = evaluate_model(model, Batches(images[1000:1200, None], labels[1000:1200], 200))["accuracy"]
    assert accuracy > 0.8, f"two convolutions with BatchNorm2d should read 80 % of digits after eight epochs, they read {accuracy:.0%}"
    assert abs(alone - together) < 1e-9, f"digits read one by one and together should be read alike: {alone:.1%} and {together:.1%}"


def can_normalize_at_the_speed_of_numpy():
    rows, x = draw((2000, 300), 70), draw((16, 32, 40, 40), 71)
    x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)                # as convolutions hand them on
    gain, bias = draw((32,), 72), draw((32,), 73)

    def plain_rows():
        centred = rows - rows.mean(axis=1, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + EPS)

    def plain_pictures():
        flat = x.transpose(0, 2, 3, 1).reshape(-1, 32)
        centred = flat - flat.mean(axis=0)
        return centred * (gain / np.sqrt((centred * centred).mean(axis=0) + EPS)) + bias

    fast(lambda: normalize(rows), plain_rows, "normalising 2,000 rows of 300", times=4)
    fast(lambda: LayerNorm(300)(rows), plain_rows, "LayerNorm of 2,000 rows of 300", times=5)
    fast(lambda: BatchNorm1d(300)(rows), plain_rows, "BatchNorm1d of 2,000 rows of 300", times=6)
    fast(lambda: batch_norm2d(x, gain, bias), plain_pictures, "normalising 16 pictures of 40 x 40", times=4)
    fast(lambda: BatchNorm2d(32)(x), plain_pictures, "BatchNorm2d of 16 pictures of 40 x 40", times=4)
