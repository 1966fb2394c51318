"""The losses of module 05 against PyTorch and float64, values and gradients; where they stay finite, and what they refuse."""

import importlib.util
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.need import need
from tinytorch.core import losses
from tinytorch.core.losses import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    L1Loss,
    MAELoss,
    MSELoss,
    absolute,
    bce_with_logits,
    class_labels,
    cross_entropy,
    log_softmax,
)
from tinytorch.core.tensor import Tensor

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60)      # the machine may be busy
LARGEST = float(np.finfo(np.float32).max)
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)


@pytest.fixture(scope="module")
def torch():
    need("PyTorch", importlib.util.find_spec("torch"), "make oracle")
    import torch

    return torch


def numbers(shape, limit=5.0):
    limit = float(np.float32(limit))
    return arrays(np.float32, shape, elements=st.floats(-limit, limit, width=32))


@st.composite
def classified(draw, limits=(5.0, 100.0, 1e4)):
    """Scores (n, classes) and n labels."""
    n, classes = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    scores = draw(numbers((n, classes), draw(st.sampled_from(limits))))
    return scores, np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))


@st.composite
def pair(draw, low=-5.0, high=5.0):
    shape = draw(SHAPES)
    return draw(numbers(shape)), draw(arrays(np.float32, shape, elements=st.floats(low, high, width=32)))


def exact_log_softmax(x, axis=-1):
    x = x.astype(np.float64)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def quietly(function, *inputs, **options):
    """A loss with every warning an error: a Tensor of one float32 number."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = function(*inputs, **options)
    assert isinstance(result, Tensor)
    assert (result.shape, result.dtype) == ((), np.float32)
    return result


# values against float64

@patient
@given(data=st.data(), x=st.sampled_from([4.0, 100.0, 1e4, LARGEST]).flatmap(
    lambda limit: numbers(array_shapes(min_dims=1, max_dims=4, max_side=4), limit)))
def test_log_softmax_agrees_with_float64_along_any_axis(x, data):
    axis, before = data.draw(st.integers(-x.ndim, x.ndim - 1)), x.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        logs, shares = log_softmax.forward(x, axis=axis)
    want = exact_log_softmax(x, axis)
    assert logs.dtype == shares.dtype == np.float32
    np.testing.assert_array_equal(x, before)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(logs, want.astype(np.float32), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(shares, np.exp(want), rtol=2e-5, atol=1e-6)


@patient
@given(case=classified(), smoothing=st.sampled_from([0.0, 0.1, 0.5]))
def test_cross_entropy_agrees_with_float64_and_keeps_what_was_too_much(case, smoothing):
    scores, labels = case
    n, classes = scores.shape
    logs = exact_log_softmax(scores)
    wanted = np.full(scores.shape, smoothing / classes)
    wanted[np.arange(n), labels] += 1 - smoothing
    got = quietly(CrossEntropyLoss(smoothing), scores, labels)
    np.testing.assert_allclose(got.item(), -(wanted * logs).sum() / n, rtol=1e-5, atol=1e-5)
    loss, kept = cross_entropy.forward(scores, targets=labels, label_smoothing=smoothing)
    assert np.ndim(loss) == 0
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept, np.exp(logs) - wanted, atol=1e-5)


@patient
@given(x=st.sampled_from([4.0, 100.0, LARGEST]).flatmap(lambda limit: numbers(SHAPES, limit)), data=st.data())
def test_bce_agrees_with_float64(x, data):
    t = data.draw(arrays(np.float32, x.shape, elements=st.floats(0, 1, width=32)))
    exact = x.astype(np.float64)
    one = np.maximum(exact, 0) - exact * t + np.log1p(np.exp(-abs(exact)))
    with np.errstate(over="ignore"):
        got = bce_with_logits.forward(x, targets=t)
        assert got[0] == pytest.approx(float(np.float32(one.mean())), rel=1e-5, abs=1e-6) or np.isinf(np.float32(one.sum()))
        want = 1 / (1 + np.exp(-exact)) - t
    np.testing.assert_allclose(got[1], want, atol=1e-6)


@patient
@given(pair())
def test_mse_and_mae_agree_with_numpy(case):
    a, b = (array.astype(np.float64) for array in case)
    assert quietly(MSELoss(), *case).item() == pytest.approx(((a - b) ** 2).mean(), rel=1e-5, abs=1e-6)
    assert quietly(MAELoss(), *case).item() == pytest.approx(abs(a - b).mean(), rel=1e-5, abs=1e-6)
    assert L1Loss is MAELoss


def test_raw_losses_take_float64_so_that_derivatives_can_be_checked():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(3, 4)), [0, 3, 1]
    for out in (log_softmax.forward(scores)[0], cross_entropy.forward(scores, targets=labels, label_smoothing=0.1)[1],
                bce_with_logits.forward(scores, targets=np.ones((3, 4)))[0], absolute.forward(scores)):
        assert out.dtype == np.float64
    logs = exact_log_softmax(scores)
    assert cross_entropy.forward(scores, targets=labels)[0] == pytest.approx(-logs[[0, 1, 2], labels].mean(), rel=1e-12)


# the ends of the float's range

@pytest.mark.parametrize(("scores", "label", "want"), [
    ([1000, 0], 1, 1000), ([1000, 0], 0, 0), ([-1000, -2000], 1, 1000), ([0, -104], 1, 104), ([88, 89], 0, 1 + math.log1p(math.exp(-1))),
])
def test_certain_and_wrong_is_dear_but_a_number(scores, label, want):
    assert quietly(CrossEntropyLoss(), [scores], [label]).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(("score", "target", "want"), [
    (17, 0, 17), (1000, 0, 1000), (-1000, 1, 1000), (-20, 0, 2.0611536e-9), (-60, 0, 8.7565e-27),
])
def test_the_binary_loss_outlives_its_formula(score, target, want):
    assert quietly(BCEWithLogitsLoss(), [score], [target]).item() == pytest.approx(want, rel=1e-4)


@pytest.mark.parametrize("loss", [CrossEntropyLoss(), CrossEntropyLoss(0.1)], ids=repr)
def test_nan_scores_are_passed_through(loss):
    assert math.isnan(loss([[1, np.nan], [0, 0]], [0, 1]).item())
    assert math.isnan(BCEWithLogitsLoss()([[1, np.nan]], [[0, 1]]).item())
    assert math.isnan(MSELoss()([1, np.nan], [0, 1]).item())


# what is refused

@pytest.mark.parametrize("loss", [MSELoss(), MAELoss(), BCEWithLogitsLoss()], ids=repr)
@pytest.mark.parametrize(("a", "b"), [((4, 1), (4,)), ((4,), (4, 1)), ((2, 3), (3, 2)), ((3,), ()), ((1, 3), (2, 3))])
def test_shapes_that_would_broadcast_are_refused(loss, a, b):
    name = type(loss).__name__
    with pytest.raises(ValueError, match=re.escape(f"{name}: predictions {a} and targets {b} must have the same shape")):
        loss(np.ones(a), np.ones(b))


@pytest.mark.parametrize("loss", [MSELoss(), MAELoss(), BCEWithLogitsLoss()], ids=repr)
def test_an_empty_batch_has_no_loss(loss):
    with pytest.raises(ValueError, match=r"there is nothing to compare, shape \(0, 3\)"):
        loss(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"scores \(n, classes\) of at least one example, got \(0, 3\)"):
        CrossEntropyLoss()(np.ones((0, 3)), [])


@pytest.mark.parametrize(("targets", "text"), [
    ([0, 3], "label 3 is outside 0 to 2"), ([-1, 0], "label -1 is outside 0 to 2"), ([0.5, 1], "label 0.5 is not a whole number"),
    ([np.nan, 1], "label nan is not a whole number"), ([np.inf, 1], "label inf is outside 0 to 2"), (np.uint8([9]), "(2,), got (1,)"),
    ([0, 1, 2], "needs labels of shape (2,), got (3,)"), ([[0], [1]], "needs labels of shape (2,), got (2, 1)"), (1, "got ()"),
    (np.eye(3)[:2], "these look like one-hot rows, take their argmax(axis=1)"),
], ids=str)
def test_labels_that_are_none_are_named(targets, text):
    with pytest.raises(ValueError) as refused:
        CrossEntropyLoss()(np.zeros((2, 3)), targets)
    assert text in str(refused.value)


def test_labels_of_text_and_scores_of_other_shapes():
    with pytest.raises(TypeError, match="a tensor holds numbers"):
        CrossEntropyLoss()(np.zeros((2, 3)), ["cat", "dog"])
    with pytest.raises(ValueError, match=r"got \(2, 5, 3\): reshape\(-1, classes\) makes rows of them"):
        CrossEntropyLoss()(np.zeros((2, 5, 3)), np.zeros((2, 5)))
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        CrossEntropyLoss()(np.zeros(3), [0])


@pytest.mark.parametrize("kind", [list, tuple, np.uint8, np.int64, np.float64, Tensor])
def test_labels_come_as_anything_whole(kind):
    got = class_labels(kind([0, 2, 1]), 3)
    assert got.dtype == np.intp
    assert got.tolist() == [0, 2, 1]
    assert CrossEntropyLoss()(np.zeros((3, 3)), kind([0, 2, 1])).item() == pytest.approx(math.log(3))


def test_options_and_binary_targets_out_of_range_are_refused():
    for smoothing in (-0.1, 1, 2):
        with pytest.raises(ValueError, match="a share from 0 to below 1"):
            CrossEntropyLoss(smoothing)
    for targets in ([2, 0], [-0.5, 1]):
        with pytest.raises(ValueError, match=r"targets go from 0 \(no\) to 1 \(yes\)"):
            BCEWithLogitsLoss()([1, 2], targets)


def test_a_loss_shows_its_options():
    assert repr(CrossEntropyLoss(label_smoothing=0.1)) == "CrossEntropyLoss(label_smoothing=0.1)"
    assert repr(MSELoss()) == "MSELoss()"


# PyTorch as oracle, with gradients

@pytest.mark.oracle
@patient
@given(case=classified(limits=(5.0, 100.0)), smoothing=st.sampled_from([0.0, 0.2]), kind=st.sampled_from([list, np.array, Tensor]))
def test_cross_entropy_and_its_gradient_agree_with_pytorch(torch, case, smoothing, kind):
    scores, labels = case
    ours, theirs = Tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
    got = CrossEntropyLoss(label_smoothing=smoothing)(ours, kind(labels))
    want = torch.nn.functional.cross_entropy(theirs, torch.tensor(labels), label_smoothing=smoothing)
    assert got.item() == pytest.approx(want.item(), rel=1e-4, abs=1e-5)
    got.backward()
    want.backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), atol=1e-5)


@pytest.mark.oracle
@patient
@given(case=pair(0, 1))
def test_binary_loss_and_its_gradient_agree_with_pytorch(torch, case):
    _agree(torch, BCEWithLogitsLoss(), torch.nn.BCEWithLogitsLoss(), *case)


@pytest.mark.oracle
@patient
@given(case=pair())
def test_mse_and_mae_and_their_gradients_agree_with_pytorch(torch, case):
    _agree(torch, MSELoss(), torch.nn.MSELoss(), *case)
    _agree(torch, MAELoss(), torch.nn.L1Loss(), *case)


@pytest.mark.oracle
@patient
@given(data=st.data())
def test_log_softmax_and_its_gradient_agree_with_pytorch(torch, data):
    x = data.draw(numbers(array_shapes(min_dims=1, max_dims=3, max_side=4)))
    axis, weights = data.draw(st.integers(0, x.ndim - 1)), data.draw(numbers(x.shape))
    ours, theirs = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    got, want = log_softmax(ours, axis=axis), torch.log_softmax(theirs, axis)
    np.testing.assert_allclose(got.data, want.detach().numpy(), rtol=1e-5, atol=1e-5)
    (got * weights).sum().backward()
    (want * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), atol=1e-4)


def _agree(torch, loss, there, predictions, targets):
    ours, theirs = Tensor(predictions, requires_grad=True), torch.tensor(predictions, requires_grad=True)
    got, want = loss(ours, targets), there(theirs, torch.tensor(targets))
    assert got.item() == pytest.approx(want.item(), rel=1e-4, abs=1e-5)
    got.backward()
    want.backward()
    np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_targets_may_learn_too():
    for loss in (MSELoss(), MAELoss()):
        student, teacher = Tensor([1, 2], requires_grad=True), Tensor([3, 5], requires_grad=True)
        loss(student, teacher).backward()
        np.testing.assert_allclose(student.grad, -teacher.grad)


def test_every_op_here_has_its_rule_once_module_06_is_there():
    import tinytorch.core.autograd  # noqa: F401

    ops = (losses.absolute, losses.log_softmax, losses.cross_entropy, losses.bce_with_logits)
    assert [op.__name__ for op in ops if op.derivative is None] == []
