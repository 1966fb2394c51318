"""Can I build complete multi-layer networks? A network, its scores, and the loss that judges them: right, finite and on its guard."""

import math

import numpy as np

from course.checkpoints.support import agree, fast, values
from tinytorch.core.activations import ReLU, softmax
from tinytorch.core.layers import Linear, Sequential
from tinytorch.core.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    L1Loss,
    Loss,
    MAELoss,
    MSELoss,
    absolute,
    bce_with_logits,
    class_labels,
    cross_entropy,
    log_softmax,
    same_shape,
)
from tinytorch.core.tensor import Tensor
from tinytorch.data import digits
from tinytorch.testing.checking import refuses


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(0, 3, size=shape).astype(np.float32)


def _logs(row):
    """Logarithms of a row's shares, number by number in float64."""
    top = max(row)
    total = math.log(sum(math.exp(score - top) for score in row)) + top
    return [score - total for score in row]


def can_measure_how_far_amounts_are_off():
    for shape in ((4,), (3, 2), (2, 3, 4), (1,), ()):
        a, b = draw(shape, 1), draw(shape, 2)
        pairs = list(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
        squares, amounts = sum((p - t) ** 2 for p, t in pairs) / len(pairs), sum(abs(p - t) for p, t in pairs) / len(pairs)
        for kind in (np.asarray, Tensor):
            agree(MSELoss()(kind(a), b), squares, f"MSELoss, {shape}", rtol=1e-4)
            agree(MAELoss()(kind(a), b), amounts, f"MAELoss, {shape}", rtol=1e-4)
    agree(absolute([-2, 0, 3]), [2, 0, 3], "absolute([-2, 0, 3])")
    assert L1Loss is MAELoss, "L1Loss should be another name of MAELoss"
    for loss in (MSELoss(), MAELoss(), CrossEntropyLoss(), BCEWithLogitsLoss()):
        assert isinstance(loss, Loss), f"{type(loss).__name__} should be a Loss"


def can_refuse_shapes_that_would_broadcast():
    for loss in (MSELoss(), MAELoss(), BCEWithLogitsLoss()):
        for a, b in (((4, 1), (4,)), ((4,), (4, 1)), ((2, 3), (3, 2)), ((3,), ())):
            refuses(loss, np.ones(a), np.ones(b), says=[type(loss).__name__, f"predictions {a} and targets {b}"])
        refuses(loss, np.ones((0, 3)), np.ones((0, 3)), says=["nothing to compare, shape (0, 3)"])
    assert same_shape("a loss", np.ones((2, 1)), np.ones((2, 1))) is None, "same_shape should be content with equal shapes"


def can_take_logarithms_of_shares_along_any_axis():
    for seed, axis in enumerate((-1, 0, 1, 2)):
        x = draw((2, 3, 4), seed)
        before, want = x.copy(), np.apply_along_axis(_logs, axis, x.astype(np.float64))
        agree(log_softmax(x, axis=axis), want, f"log_softmax with axis={axis}", atol=1e-4)
        logs, shares = log_softmax.forward(x, axis=axis)
        agree(shares, np.exp(want), f"the shares that log_softmax keeps, axis={axis},", atol=1e-5)
        assert logs.dtype == shares.dtype == np.float32, f"log_softmax should stay in float32, it gives {logs.dtype} and {shares.dtype}"
        assert np.array_equal(x, before), "log_softmax changed its input"
    agree(log_softmax(x), np.apply_along_axis(_logs, -1, x.astype(np.float64)), "log_softmax(x), the last axis", atol=1e-4)


def can_judge_a_choice_among_classes():
    for seed, smoothing in enumerate((0.0, 0.1, 0.6)):
        scores, labels = draw((6, 4), seed), np.random.default_rng(seed).integers(0, 4, size=6)
        rows = [_logs(row) for row in scores.astype(np.float64).tolist()]
        want = -np.mean([(1 - smoothing) * row[label] + smoothing * np.mean(row) for row, label in zip(rows, labels, strict=True)])
        for kind in (np.asarray, Tensor, list):
            agree(CrossEntropyLoss(label_smoothing=smoothing)(scores, kind(labels)), want, f"CrossEntropyLoss({smoothing})", rtol=1e-4)
        wanted = np.full((6, 4), smoothing / 4) + (1 - smoothing) * np.eye(4)[labels]
        kept = cross_entropy.forward(scores, targets=labels, label_smoothing=smoothing)[1]
        agree(kept, np.exp(rows) - wanted, "what cross_entropy keeps: shares minus wanted shares", atol=1e-5)
    for smoothing in (-0.1, 1, 1.5):
        refuses(CrossEntropyLoss, smoothing, says=["label_smoothing"])


def can_answer_yes_or_no():
    for seed, shape in enumerate(((5,), (3, 2), (1,))):
        x, t = draw(shape, seed), np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
        pairs = list(zip(x.ravel().tolist(), t.ravel().tolist(), strict=True))
        shares = [1 / (1 + math.exp(-score)) for score, _ in pairs]
        surprises = [-yes * math.log(s) - (1 - yes) * math.log(1 - s) for s, (_, yes) in zip(shares, pairs, strict=True)]
        agree(BCEWithLogitsLoss()(x, t), np.mean(surprises), f"BCEWithLogitsLoss, {shape}", rtol=1e-4)
        kept = bce_with_logits.forward(x, targets=t)[1]
        agree(kept, np.reshape(shares, shape) - t, "what bce_with_logits keeps: shares minus targets", atol=1e-5)
    for targets in ([1.5, 0], [0, -0.5]):
        refuses(BCEWithLogitsLoss(), [1, 2], targets, says=["targets go from 0"])


def can_stay_finite_for_scores_of_any_size():
    for scores, label, want in (([1000, 0], 1, 1000), ([1000, 0], 0, 0), ([-1000, -2000], 1, 1000), ([0, 104, 90], 0, 104)):
        agree(CrossEntropyLoss()([scores], [label]), want, f"CrossEntropyLoss of {scores}, label {label}", rtol=1e-4)
    for score, target, want in ((17, 0, 17), (1000, 0, 1000), (-1000, 1, 1000), (1000, 1, 0)):
        agree(BCEWithLogitsLoss()([score], [target]), want, f"BCEWithLogitsLoss of {score}, target {target}", rtol=1e-4)
    small = BCEWithLogitsLoss()([-20], [0]).item()
    assert abs(small / 2.0611536e-9 - 1) < 1e-3, f"a score of -20 and a no should cost 2.06e-9, it costs {small:.3e}"
    for loss, targets in ((CrossEntropyLoss(), [0]), (BCEWithLogitsLoss(), [[0, 1]])):
        got = loss([[1, np.nan]], targets).item()
        assert math.isnan(got), f"{type(loss).__name__} should not hide a nan among the scores, it says {got}"


def can_refuse_labels_that_are_none():
    for targets, text in (([0, 3], "3"), ([-1, 0], "-1"), ([0.5, 1], "0.5"), ([np.nan, 1], "nan"), (np.uint8([7, 1]), "7")):
        refuses(class_labels, targets, 3, says=[f"label {text} "])
        refuses(CrossEntropyLoss(), np.zeros((len(targets), 3)), targets, says=[f"label {text} "])
    for targets in ([0, 1, 2], [[0], [1]], np.eye(3)[:2]):
        refuses(CrossEntropyLoss(), np.zeros((2, 3)), targets, says=["labels"])
    for kind in (list, np.uint8, np.float64, Tensor):
        got = class_labels(kind([0, 2, 1]), 3)
        assert got.dtype.kind == "i", f"labels should become integers, they are {got.dtype}"
        agree(got, [0, 2, 1], f"labels as {kind.__name__}")


def can_build_the_network_of_101770_numbers():
    net = Sequential([Linear(784, 128), ReLU(), Linear(128, 10)])
    count = sum(parameter.size for parameter in net.parameters())
    assert count == 101_770, f"784-128-10 should have 101,770 numbers, yours has {count:,}"
    scores = net(np.random.default_rng(0).uniform(size=(64, 1, 28, 28)))
    assert scores.shape == (64, 10), f"64 pictures should get scores of shape (64, 10), they get {scores.shape}"
    start = CrossEntropyLoss()(scores, np.arange(64) % 10)
    assert 1.5 < start.item() < 5, f"an untrained network should be about as surprised as a blind guess, 2.303, yours {start.item():.3f}"
    assert start.requires_grad, "the loss of a network with parameters should leave a trail for gradients"


def can_solve_what_one_layer_cannot():
    corners, answers = np.float32([[0, 0], [0, 1], [1, 0], [1, 1]]), np.float32([[0], [1], [1], [0]])
    net = Sequential(Linear(2, 2), ReLU(), Linear(2, 1))
    first, last = {"layers.0.weight": [[1, 1], [1, 1]], "layers.0.bias": [0, -1]}, {"layers.2.weight": [[1], [-2]], "layers.2.bias": [0]}
    net.load_state_dict(first | last)
    agree(MSELoss()(net(corners), answers), 0, "the loss of two layers on XOR")
    best = np.linalg.lstsq(np.c_[corners, np.ones(4)], answers, rcond=None)[0]
    one = Linear(2, 1)
    one.weight.data, one.bias.data = best[:2], best[2]
    agree(MSELoss()(one(corners), answers), 0.25, "the smallest loss of a single layer on XOR", atol=1e-4)


def can_read_digits_and_say_how_surely():
    images, labels = digits()
    body = Sequential(Linear(64, 400), ReLU())
    hidden = values(body(images)).astype(np.float64)
    last = Linear(400, 10, bias=False)
    last.weight.data = 12 * np.linalg.solve(hidden[:1000].T @ hidden[:1000] + np.eye(400), hidden[:1000].T @ np.eye(10)[labels[:1000]])
    net = Sequential(body, last)
    scores = net(images[1000:])
    right = (values(scores).argmax(axis=1) == labels[1000:]).mean()
    assert right > 0.9, f"a layer of random units and a fitted one should read 9 of 10 unseen digits, yours reads {right:.1%}"
    surprise = CrossEntropyLoss()(scores, labels[1000:]).item()
    shares = values(softmax(scores))
    agree(surprise, -np.log(shares[np.arange(len(shares)), labels[1000:]]).mean(), "its mean surprise", rtol=1e-3)
    assert surprise < 0.6, f"its mean surprise should be below 0.6, it is {surprise:.3f}"


def can_judge_at_the_speed_of_numpy():
    x, t = draw((1000, 500)), np.random.default_rng(1).uniform(size=(1000, 500)).astype(np.float32)
    labels, rows = np.random.default_rng(2).integers(0, 500, size=1000), np.arange(1000)

    def shares():
        powers = np.exp(x - x.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    fast(lambda: log_softmax(x), lambda: np.log(shares()), "log_softmax of half a million scores", times=3)
    fast(lambda: CrossEntropyLoss()(x, labels), lambda: -np.log(shares()[rows, labels]).mean(),
         "cross entropy of half a million scores", times=4)
    fast(lambda: bce_with_logits(x, targets=t), lambda: (t * np.log1p(np.exp(-x)) + 1 / (1 + np.exp(-x))).mean(),
         "half a million yes or no", times=5)
    fast(lambda: MSELoss()(x, t), lambda: ((x - t) ** 2).mean(), "MSELoss of half a million numbers", times=4)
    fast(lambda: MAELoss()(x, t), lambda: np.abs(x - t).mean(), "MAELoss of half a million numbers", times=4)
    fast(lambda: absolute(x), lambda: np.abs(x), "half a million absolute numbers", times=4)
    many = np.random.default_rng(3).integers(0, 500, size=200_000)
    fast(lambda: class_labels(many, 500), lambda: ((many < 0) | (many >= 500)).any(), "checking 200,000 labels", times=5)
