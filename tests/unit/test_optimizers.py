"""The reference optimizers and schedules against PyTorch step by step, and against what they promise: resuming, groups, errors."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from tests.need import need
from tinytorch import performance
from tinytorch.core.optimizers import SGD, Adam, AdamW, CosineLR, OneCycleLR, Optimizer, StepLR, WarmupLR, clip_grad_norm
from tinytorch.core.tensor import Tensor
from tinytorch.fast import inplace, parallel
from tinytorch.fast.inplace import in_place
from tinytorch.given import stepping
from tinytorch.given.stepping import Schedule, Stepper, in_blocks
from tinytorch.testing.memory import peak_bytes

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])      # the machine may be busy
SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
STEPS = 24
KINDS = [SGD, Adam, AdamW]

rates = st.floats(1e-4, 0.5)
decays = st.just(0.0) | st.floats(0, 0.5)
OPTIONS = {
    SGD: st.fixed_dictionaries({"lr": rates, "momentum": st.just(0.0) | st.floats(0.1, 0.99), "weight_decay": decays}).flatmap(
        lambda options: st.fixed_dictionaries({**{name: st.just(value) for name, value in options.items()},
                                               "nesterov": st.booleans() if options["momentum"] else st.just(False)})),
    Adam: st.fixed_dictionaries({"lr": rates, "weight_decay": decays, "eps": st.sampled_from([1e-8, 1e-6, 1e-2]),
                                 "betas": st.tuples(st.floats(0, 0.99), st.floats(0.5, 0.9999))}),
}
OPTIONS[AdamW] = OPTIONS[Adam]


@pytest.fixture(scope="module")
def torch():
    try:
        import torch
    except ImportError:
        torch = None
    need("PyTorch", torch, "make oracle")
    return torch


def parameter(shape=(2, 3), seed=0) -> Tensor:
    """A parameter with a gradient."""
    rng = np.random.default_rng(seed)
    p = Tensor(rng.normal(size=shape), requires_grad=True)
    p.grad = np.asarray(rng.normal(size=shape), np.float32)
    return p


# ---------------------------------------------------------------- the rules

@pytest.mark.oracle
@pytest.mark.parametrize("kind", KINDS)
@settings(patient, max_examples=40)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_every_step_agrees_with_pytorch(torch, kind, data, seed):
    options = data.draw(OPTIONS[kind])
    shapes = data.draw(st.lists(SHAPES, min_size=1, max_size=3))
    rng = np.random.default_rng(seed)
    start = [np.asarray(rng.normal(size=shape), np.float32) for shape in shapes]
    ours = [Tensor(x.copy(), requires_grad=True) for x in start]
    theirs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in start]
    here, there = kind(ours, **options), getattr(torch.optim, kind.__name__)(theirs, **options)
    for step in range(STEPS):
        scale = 10.0 ** rng.integers(-3, 2)
        for p, q in zip(ours, theirs, strict=True):
            grad = np.asarray(scale * rng.normal(size=p.shape), np.float32)
            p.grad, q.grad = grad.copy(), torch.tensor(grad, dtype=torch.float64)
        if step % 5 == 4 and len(shapes) > 1:
            ours[-1].grad = theirs[-1].grad = None              # a parameter without a gradient stays, and its count stays
        here.step()
        there.step()
        for p, q in zip(ours, theirs, strict=True):
            # PyTorch calculates in float64 here: what is left is the rounding of float32, about 1e-7 of everything moved so far
            np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-4, atol=1e-4 * max(1.0, options["lr"] * 10))
            assert p.data.dtype == np.float32


@pytest.mark.parametrize("kind", [Optimizer, *KINDS])
def test_everything_kept_is_float32_although_numbers_come_from_numpy(kind):
    p = parameter()
    optimizer = kind([p], lr=np.float64(0.1), weight_decay=np.float64(0.1))
    p.grad = p.grad.astype(np.float64)
    optimizer.step()
    assert {array.dtype for array in optimizer.state[0].values() if isinstance(array, np.ndarray)} <= {np.dtype(np.float32)}
    assert p.data.dtype == np.float32


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}])
def test_sgd_keeps_a_velocity_only_where_it_has_one(options):
    p = parameter()
    optimizer = SGD([p], **options)
    optimizer.step()
    assert set(optimizer.state[0]) == ({"step", "velocity"} if options else {"step"})


@pytest.mark.parametrize("kind", KINDS)
@patient
@given(size=st.integers(1, 40), block=st.integers(1, 12), seed=st.integers(0, 999))
def test_blocks_change_nothing(kind, size, block, seed):
    rng = np.random.default_rng(seed)
    rule, arrays_ = kind(lr=0.1), [np.float32(rng.normal(size=(size, 3))) for _ in range(2)]
    options = dict(rule.defaults)
    kept = [np.float32(rng.uniform(size=(size, 3))) for _ in rule.keeps(**options)]
    whole, cut = ([array.copy() for array in (*arrays_, *kept)] for _ in range(2))
    rule.update(*whole, step=3, **options)
    in_blocks(lambda *parts: rule.update(*parts, step=3, **options), *cut, size=block)
    for one, other in zip(whole, cut, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_threads_change_nothing(kind, monkeypatch):
    monkeypatch.setattr(performance, "memory_kept", True)
    ends = []
    for threads in (1, 2, 3):
        before = parallel.team().threads
        parallel.use_threads(threads)
        try:
            p = parameter((stepping.SHARED + 12_345,))
            optimizer = kind([p], weight_decay=0.1)
            for _ in range(2):
                optimizer.step()
        finally:
            parallel.use_threads(before)
        ends.append(p.data)
    assert np.array_equal(ends[0], ends[1])
    assert np.array_equal(ends[0], ends[2])


@pytest.mark.parametrize("layout", ["C", "F", "read-only", "broadcast"])
def test_a_parameter_moves_in_place_whatever_its_layout(layout):
    x = np.float32(np.random.default_rng(0).normal(size=(300, 400)))
    want, got = Tensor(x.copy(), requires_grad=True), Tensor(np.array(x, order="F" if layout == "F" else "C"), requires_grad=True)
    if layout == "read-only":
        got.data.flags.writeable = False
    if layout == "broadcast":
        want.data, got.data = np.repeat(x[:1], 300, axis=0), np.broadcast_to(x[:1], x.shape)
    held = got.data
    for p in (want, got):
        optimizer = Adam([p])
        for _ in range(2):
            p.grad = np.ones_like(x) if p is want else np.ones((400, 300), np.float32).T
            optimizer.step()
    np.testing.assert_allclose(got.data, want.data, rtol=1e-6, atol=1e-8)      # order F is walked through in another way
    assert (got.data is held) == (layout in "CF")


def test_a_step_counts_as_a_change_of_the_parameter():
    p, still = parameter(), parameter()
    still.grad = None
    before = p.version, still.version
    SGD([p, still]).step()
    assert (p.version, still.version) == (before[0] + 1, before[1])


def test_a_step_after_the_forward_pass_voids_the_graph():
    p = parameter(())
    loss = p * p
    SGD([p]).step()
    with pytest.raises(RuntimeError, match="changed after the forward pass"):
        loss.backward()


def test_adam_in_blocks_needs_little_more_than_what_it_keeps():
    p = parameter((1000, 1000))
    optimizer = Adam([p])
    optimizer.step()
    assert sum(array.nbytes for name, array in optimizer.state[0].items() if name != "step") == 2 * p.data.nbytes
    assert peak_bytes(optimizer.step) < 0.25 * p.data.nbytes


# ---------------------------------------------------------------- clipping

@pytest.mark.oracle
@patient
@given(grads=st.lists(SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(-100, 100, width=32))),
                      min_size=1, max_size=4), limit=st.floats(0.01, 1000), without=st.booleans())
def test_clipping_agrees_with_pytorch(torch, grads, limit, without):
    ours = [Tensor(np.zeros_like(grad), requires_grad=True) for grad in grads]
    theirs = [torch.zeros(grad.shape, requires_grad=True) for grad in grads]
    for p, q, grad in zip(ours, theirs, grads, strict=True):
        p.grad, q.grad = grad.copy(), torch.tensor(grad)
    if without:
        ours[0].grad = theirs[0].grad = None
    got, want = clip_grad_norm((p for p in ours), limit), torch.nn.utils.clip_grad_norm_(theirs, limit)
    assert isinstance(got, float)
    assert got == pytest.approx(want.item(), rel=1e-5)
    for p, q in zip(ours, theirs, strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-4, atol=1e-6)
            assert p.grad.dtype == np.float32


def test_clipping_leaves_nan_for_the_step_to_name():
    fine, broken = parameter(), parameter()
    broken.grad[0, 0] = np.nan
    before = fine.grad.copy()
    assert math.isnan(clip_grad_norm([fine, broken], 0.1))
    assert np.array_equal(fine.grad, before)


# ---------------------------------------------------------------- schedules

def walked(schedule, count=STEPS) -> list[list[float]]:
    found = []
    for _ in range(count):
        found.append(schedule.get_last_lr())
        schedule.step()
    return found


def both(torch, lrs):
    """Our optimizer and PyTorch's with groups of these rates; its parameters have gradients, so that stepping warns of nothing."""
    here = SGD([{"params": parameter(), "lr": lr} for lr in lrs])
    there = torch.optim.SGD([{"params": torch.ones(2, requires_grad=True), "lr": lr} for lr in lrs], lr=0.1, momentum=0.0)
    return here, there


def agree(make, torch_make, torch, lrs, count=STEPS):
    here, there = both(torch, lrs)
    got, schedule, want = walked(make(here), count), None, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")             # PyTorch wants its optimizer to step, too
        schedule = torch_make(there)
        for _ in range(count):
            want.append([group["lr"] for group in there.param_groups])
            schedule.step()
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)


lr_lists = st.lists(st.floats(1e-4, 2), min_size=1, max_size=3)


@pytest.mark.oracle
@patient
@given(lrs=lr_lists, size=st.integers(1, 10), gamma=st.floats(0.05, 1))
def test_steplr_agrees_with_pytorch(torch, lrs, size, gamma):
    agree(lambda o: StepLR(o, size, gamma), lambda o: torch.optim.lr_scheduler.StepLR(o, size, gamma), torch, lrs)


@pytest.mark.oracle
@patient
@given(lrs=lr_lists, length=st.integers(1, 30), lowest=st.floats(0, 0.1))
def test_cosinelr_agrees_with_pytorch_and_stays_at_its_end(torch, lrs, length, lowest):
    there = torch.optim.lr_scheduler
    agree(lambda o: CosineLR(o, length, lowest), lambda o: there.CosineAnnealingLR(o, length, lowest), torch, lrs, length + 1)
    schedule = CosineLR(SGD([parameter()], lr=lrs[0]), length, lowest)
    assert walked(schedule, length + 9)[-1][0] == pytest.approx(lowest, abs=1e-12)


@pytest.mark.oracle
@patient
@given(lrs=lr_lists, warmup=st.integers(1, 8), length=st.integers(STEPS, 40))
def test_warmuplr_agrees_with_pytorch(torch, lrs, warmup, length):
    there = torch.optim.lr_scheduler

    def in_sequence(optimizer):
        parts = [there.LinearLR(optimizer, 1 / warmup, total_iters=max(warmup - 1, 1)), there.CosineAnnealingLR(optimizer, length)]
        return there.SequentialLR(optimizer, parts, milestones=[warmup])

    agree(lambda o: WarmupLR(o, warmup, CosineLR(o, length)), in_sequence, torch, lrs)


@pytest.mark.oracle
@patient
@given(highest=st.floats(0.01, 2), length=st.integers(3, 40), up=st.floats(0.1, 0.9), div=st.floats(1, 50), end=st.floats(1, 1e5),
       how=st.sampled_from(["cos", "linear"]))
def test_onecyclelr_agrees_with_pytorch(torch, highest, length, up, div, end, how):
    if abs(up * length - 1) < 1e-9:
        return                          # the top lies at step 0: PyTorch divides by zero there
    options = {"pct_start": up, "div_factor": div, "final_div_factor": end, "anneal_strategy": how}
    agree(lambda o: OneCycleLR(o, highest, length, **options),
          lambda o: torch.optim.lr_scheduler.OneCycleLR(o, highest, total_steps=length, cycle_momentum=False, **options),
          torch, [0.1], length)


def test_onecyclelr_without_max_lr_keeps_the_ratio_between_groups():
    optimizer = SGD([{"params": parameter(), "lr": 0.1}, {"params": parameter(), "lr": 6.4}])
    rates_ = np.array(walked(OneCycleLR(optimizer, None, 20), 30))
    np.testing.assert_allclose(rates_[:, 1] / rates_[:, 0], 64)
    assert rates_[:, 0].max() == pytest.approx(0.1, rel=0.02)
    assert rates_[-1, 0] == pytest.approx(0.1 / 25 / 1e4)


@pytest.mark.parametrize(("pct", "length"), [(0.0, 5), (0.2, 5), (0.99, 5), (0.5, 1), (0.5, 2)])
def test_onecyclelr_at_its_limits(pct, length):
    rates_ = [rate for rate, in walked(OneCycleLR(SGD([parameter()], lr=1.0), None, length, pct_start=pct), 8)]
    assert all(0 < rate <= 1 for rate in rates_)
    assert rates_[length - 1] == pytest.approx(1 / 25 / 1e4)


def test_the_schedule_made_last_is_followed():
    optimizer = SGD([parameter()], lr=1.0)
    inner = CosineLR(optimizer, 2)
    outer = WarmupLR(optimizer, 2, inner)
    with pytest.raises(RuntimeError, match="follows the WarmupLR that was made after this"):
        inner.step()
    assert [rate for rate, in walked(outer, 5)] == pytest.approx([0.5, 1, 1, 0.5, 0])


def test_a_schedule_for_an_optimizer_that_has_no_parameters_yet():
    optimizer = Adam(lr=0.4)
    schedule = WarmupLR(optimizer, 4)
    optimizer.bind([{"params": parameter()}, {"params": parameter(), "lr": 4}])
    assert schedule.get_last_lr() == [0.1, 1.0]


# ---------------------------------------------------------------- going on another day

def run(kind, steps, stop=None, **options):
    """Parameters after some steps with a schedule; at `stop` all is saved as arrays and JSON, and loaded into new objects."""
    rng = np.random.default_rng(1)
    start, optimizer, schedule = [np.float32(rng.normal(size=shape)) for shape in [(7, 3), (3,), ()]], None, None
    for step in range(steps):
        if step in (0, stop):
            parameters = [Tensor(array.copy(), requires_grad=True) for array in start]
            saved = step and (optimizer.state_dict(), schedule.state_dict())
            groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.5, "weight_decay": 0}]
            optimizer = kind(groups, lr=0.1, **options) if step == 0 else kind()
            optimizer.bind(groups)
            schedule = WarmupLR(optimizer, 3, OneCycleLR(optimizer, None, steps))
            if step:
                optimizer.load_state_dict(through_json(saved[0]))
                schedule.load_state_dict(through_json(saved[1]))
        for p in parameters:
            p.grad = np.asarray(rng.normal(size=p.shape), np.float32)
        optimizer.step()
        schedule.step()
        start = [p.data for p in parameters]
    return start


def through_json(tree):
    """Only arrays and what JSON holds survive this."""
    found = []

    def put(x):
        assert isinstance(x, np.ndarray)
        found.append(x)
        return {"array": len(found) - 1}

    text = json.dumps(tree, default=put)
    return json.loads(text, object_hook=lambda x: found[x["array"]] if set(x) == {"array"} else x)


@pytest.mark.parametrize(("kind", "options"), [(SGD, {}), (SGD, {"momentum": 0.9, "nesterov": True}), (Adam, {"weight_decay": 0.1}),
                                               (Adam, {"betas": (0.8, 0.9)}), (AdamW, {})])
@pytest.mark.parametrize("stop", [1, 4, 19])
def test_an_interrupted_run_goes_on_to_the_last_bit(kind, options, stop):
    whole, cut = run(kind, 20, **options), run(kind, 20, stop=stop, **options)
    assert all(np.array_equal(one, other) for one, other in zip(whole, cut, strict=True))


def test_a_saved_state_is_a_copy():
    p = parameter()
    optimizer = Adam([p])
    optimizer.step()
    saved = optimizer.state_dict()
    before = saved["state"][0]["m"].copy()
    optimizer.step()
    assert np.array_equal(saved["state"][0]["m"], before)
    optimizer.load_state_dict(saved)
    optimizer.step()
    assert np.array_equal(saved["state"][0]["m"], before)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: SGD([parameter(), parameter()]), r"the saved groups have \[1\] parameters, this optimizer's have \[2\]"),
    (lambda: Adam(), r"have \[0\]: bind the same model first"),
    (lambda: Adam([parameter((3, 2))]), r"saved m of parameter 0 has the shape \(2, 3\), the parameter has \(3, 2\)"),
    (lambda: SGD([parameter()]), "this is not the state of SGD: it has the options betas"),
])
def test_a_state_that_does_not_fit_is_refused_whole(make, message):
    trained = Adam([parameter()])
    trained.step()
    other = make()
    before = json.dumps(other.state_dict(), default=str)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(trained.state_dict())
    assert json.dumps(other.state_dict(), default=str) == before


# ---------------------------------------------------------------- which parameters

def test_groups_have_options_of_their_own():
    weight, bias = parameter(seed=1), parameter(seed=2)
    alone = [Tensor(p.data.copy(), requires_grad=True) for p in (weight, bias)]
    together = AdamW([{"params": [("weight", weight)]}, {"params": bias, "lr": 0.5, "weight_decay": 0.0}], lr=0.1)
    each = [AdamW([alone[0]], lr=0.1), AdamW([alone[1]], lr=0.5, weight_decay=0.0)]
    for p, q in zip((weight, bias), alone, strict=True):
        q.grad = p.grad
    for optimizer in (together, *each):
        optimizer.step()
    assert np.array_equal(weight.data, alone[0].data)
    assert np.array_equal(bias.data, alone[1].data)
    assert together.parameters == [weight, bias]
    assert [group["names"] for group in together.param_groups] == [["weight"], ["parameter 1"]]


def test_an_optimizer_waits_for_its_parameters():
    p = parameter()
    optimizer = Adam(lr=0.25)
    assert optimizer.parameters == []
    assert optimizer.lr == 0.25
    optimizer.lr = 0.5
    optimizer.bind(p for p in [p])
    before = p.data.copy()
    optimizer.step()
    np.testing.assert_allclose(before - p.data, 0.5 * np.sign(p.grad), rtol=1e-4)
    optimizer.zero_grad()
    assert p.grad is None


def test_binding_anew_forgets():
    optimizer = Adam([parameter()])
    optimizer.step()
    other = parameter()
    optimizer.bind([other])
    assert optimizer.state == [{}]
    assert optimizer.parameters == [other]


def test_frozen_parameters_may_stand_among_the_others():
    frozen, p = Tensor([1.0]), parameter()
    SGD([frozen, p]).step()
    assert frozen.data == 1


used_up = (p for p in [parameter()])
list(used_up)
twice, made = parameter(), parameter() * 2


@pytest.mark.parametrize(("wrong", "kind", "message"), [
    (lambda: SGD(0.1), TypeError, r"the first argument is the parameters: write SGD\(lr=0.1\)"),
    (lambda: SGD([]), ValueError, "there are no parameters to move"),
    (lambda: SGD(used_up), ValueError, "a generator that was used before"),
    (lambda: Adam([twice, parameter(), twice]), ValueError, "parameter 2 and parameter 0 are the same tensor"),
    (lambda: Adam([{"params": [twice]}, {"params": [("bias", twice)]}]), ValueError, "bias and parameter 0 are the same tensor"),
    (lambda: Adam([np.ones(3)]), TypeError, "parameter 0 is no Tensor but a ndarray"),
    (lambda: Adam([Tensor([1.0])]), ValueError, "none of the parameters has requires_grad=True"),
    (lambda: Adam([made]), ValueError, "parameter 0 was calculated from other tensors"),
    (lambda: Adam([{"params": [parameter()], "rate": 1}]), ValueError, "Adam has no option 'rate'; it has lr, betas, eps, weight_decay"),
    (lambda: Adam([{"lr": 1}]), TypeError, "a group of parameters is a dict such as"),
    (lambda: Adam([{"params": [parameter()]}, parameter()]), TypeError, "a group of parameters is a dict such as"),
    (lambda: SGD([parameter()], lr=-0.1), ValueError, "lr should be a number that is not negative, not -0.1"),
    (lambda: SGD([parameter()], lr=math.nan), ValueError, "lr should be a number that is not negative, not nan"),
    (lambda: SGD([{"params": [parameter()], "lr": -1}]), ValueError, "lr should be a number that is not negative, not -1"),
    (lambda: SGD([parameter()], momentum=1), ValueError, "momentum should be at least 0 and below 1, not 1"),
    (lambda: Adam([parameter()], betas=(0.9, 1.0)), ValueError, r"betas should be at least 0 and below 1, not \(0.9, 1.0\)"),
    (lambda: Adam([parameter()], eps=-1), ValueError, "eps should be a number that is not negative"),
    (lambda: AdamW([parameter()], weight_decay=-1), ValueError, "weight_decay should be a number that is not negative"),
    (lambda: StepLR(SGD([parameter()]), 0), ValueError, "step_size should be a whole number of steps, at least 1, not 0"),
    (lambda: CosineLR(SGD([parameter()]), 2.5), ValueError, "T_max should be a whole number of steps, at least 1, not 2.5"),
    (lambda: OneCycleLR(SGD([parameter()]), 1, 10, pct_start=1.0), ValueError, "pct_start should be at least 0 and below 1"),
    (lambda: StepLR([parameter()], 1), TypeError, "a schedule belongs to an optimizer, not to list"),
    (lambda: Adam().step(), RuntimeError, r"step\(\) has no parameters: .* bind\(\)"),
    (lambda: Schedule(SGD([parameter()])), NotImplementedError, r"Schedule needs a rate\(lr, step\)"),
    (lambda: Stepper([parameter()], lr=1).step(), NotImplementedError, r"Stepper needs an update\(p, grad"),
])
def test_mistakes_are_named(wrong, kind, message):
    with pytest.raises(kind, match=message):
        wrong()


def test_a_rate_for_all_is_refused_where_groups_differ():
    optimizer = SGD([{"params": parameter(), "lr": 1}, {"params": parameter(), "lr": 2}])
    with pytest.raises(ValueError, match=r"the groups have the rates \[1.0, 2.0\]"):
        optimizer.lr = 3
    same = SGD([{"params": parameter()}, {"params": parameter()}])
    CosineLR(same, 4)
    same.lr = 3
    assert [group["lr"] for group in same.param_groups] == [3, 3]


@pytest.mark.parametrize(("grad", "kind", "message"), [
    (None, RuntimeError, r"step\(\) found no gradient: call loss.backward\(\) before it"),
    (np.ones((3, 2)), ValueError, r"the gradient of layers.0.weight should have its shape \(2, 3\), it has \(3, 2\)"),
    (np.float32([[1, 2, np.nan], [0, 0, 0]]), FloatingPointError, r"of layers.0.weight \(2, 3\) holds nan, so nothing was moved"),
    (np.float32([[1, 2, -np.inf], [0, 0, 0]]), FloatingPointError, "holds inf, so nothing was moved: lower the rate"),
])
def test_an_unfit_gradient_moves_nothing(grad, kind, message):
    first, second = parameter(), parameter()
    optimizer = Adam([("first", first), ("layers.0.weight", second)])
    if grad is None:
        first.grad = None
    second.grad = grad
    before = first.data.copy(), second.data.copy()
    with pytest.raises(kind, match=message):
        optimizer.step()
    assert np.array_equal(first.data, before[0])
    assert np.array_equal(second.data, before[1])
    assert optimizer.state == [{}, {}]
    assert optimizer.steps == 0


def test_huge_gradients_are_numbers_too():
    p = parameter((2,))
    p.grad = np.float32([1e30, -3e38])
    before = p.data.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SGD([p], lr=1e-30).step()
    np.testing.assert_allclose(p.data, before - [1, -3e8], rtol=1e-6)


def test_a_small_net_learns_real_digits_with_every_optimizer():
    from tinytorch.core.layers import Linear
    from tinytorch.core.losses import CrossEntropyLoss
    from tinytorch.data import digits
    from tinytorch.randomness import manual_seed

    images, labels = digits()
    pixels = images.reshape(-1, 64)
    for make in (lambda: SGD(lr=0.5), lambda: SGD(lr=0.1, momentum=0.9, nesterov=True), lambda: Adam(lr=0.02), lambda: AdamW(lr=0.02)):
        manual_seed(0)
        model, optimizer = Linear(64, 10), make()
        optimizer.bind(model.named_parameters())
        for picks in np.random.default_rng(0).integers(0, 1000, size=(120, 50)):
            optimizer.zero_grad()
            CrossEntropyLoss()(model(Tensor(pixels[picks])), labels[picks]).backward()
            optimizer.step()
        right = (model(Tensor(pixels[1000:])).data.argmax(axis=1) == labels[1000:]).mean()
        assert right > 0.87, f"{optimizer}: {right:.1%}"


@pytest.mark.parametrize("make", [lambda ps: SGD(ps, momentum=0.9), Adam, AdamW])
def test_what_is_kept_of_a_dead_unit_becomes_zero(make):
    """And not a number below 1e-38, with which every later step is slow; what is kept of a living one stays as it is."""
    p = parameter((3,))
    optimizer = make([p])
    for step in range(8 * stepping.SWEEP):
        p.grad = np.float32([0.5, 1e-3 if step < 5 else 0, 1e-3])
        optimizer.step()
    first = optimizer.state[0]["velocity" if "velocity" in optimizer.state[0] else "m"]
    assert first[1] == 0
    assert first[0] > 0.1
    assert first[2] > 1e-4
    assert optimizer.state[0].get("v", first)[2] > 0


def test_blocks_stay_in_a_cache():
    """Adam's rule uses the parameter, its gradient, m, v and at most five arrays on the way."""
    assert 9 * 4 * stepping.BLOCK <= 1.25 * 2**20


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("shape", [(), (7,), (3, 5), (400, 300)])
def test_adam_in_place_moves_everything_as_its_direction_does(kind, shape):
    class Readable(kind):
        def direction(self, *arrays, **options):                # a direction of its own is asked
            return super().direction(*arrays, **options)

    random = np.random.default_rng(0)
    start, grads = random.normal(size=shape), [(random.normal(size=shape) * 10.0 ** n).astype(np.float32) for n in (-4, 0, 2)]
    ends = []
    for each in (kind, Readable):
        p = Tensor(start, requires_grad=True)
        optimizer = each([p], lr=0.01, weight_decay=0.1)
        for grad in grads:
            p.grad = grad.copy()
            optimizer.step()
        np.testing.assert_array_equal(p.grad, grads[-1])
        ends.append([p.data, optimizer.state[0]["m"], optimizer.state[0]["v"]])
    for got, want in zip(*ends, strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-9 * max(1, np.abs(want).max()))


@pytest.mark.parametrize("n", [1, 100, inplace.FEW, inplace.FEW + 17, inplace.WHOLE])
@pytest.mark.parametrize("without", ["nothing", "BLAS", "gaps", "float32"])
def test_adam_in_place_is_the_formula_with_and_without_blas(n, without, monkeypatch):
    """Also for arrays that BLAS cannot take as they are: every second number of a longer one, or float64."""
    if without == "BLAS":
        monkeypatch.setattr(inplace, "axpby", lambda: None)
    random = np.random.default_rng(n)
    rows = [random.normal(size=n), random.normal(size=n), random.normal(size=n), random.uniform(size=n)]
    step, moved = 2 if without == "gaps" else 1, []
    for row in rows:
        memory = np.full(n * step, 7, np.float64 if without == "float32" else np.float32)
        memory[::step] = row
        moved.append(memory)
    inplace.adam(*[memory[::step] for memory in moved], lr=0.01, betas=(0.9, 0.99), eps=1e-3, step=3)
    p, grad, m, v = rows
    m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * grad * grad
    p = p - 0.01 * (m / (1 - 0.9 ** 3)) / (np.sqrt(v / (1 - 0.99 ** 3)) + 1e-3)
    for memory, want in zip(moved, (p, grad, m, v), strict=True):
        np.testing.assert_allclose(memory[::step], want, rtol=1e-5, atol=1e-6)
        assert step == 1 or (memory[1::2] == 7).all()


def test_in_place_leaves_another_rule_alone():
    class Uncorrected(Optimizer):
        def __init__(self, parameters=None, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
            super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

        def direction(self, grad, m, v, *, betas, eps, step):
            m += (1 - betas[0]) * (grad - m)
            v += (1 - betas[1]) * (grad * grad - v)
            return m / (np.sqrt(v) + eps)

    class Unwritten(Uncorrected):
        def direction(self, *arrays, **options):
            raise NotImplementedError("write it")

    class Right(Uncorrected):
        direction = Adam.direction

    for kind, replaced in ((Uncorrected, False), (Unwritten, False), (Right, True)):
        in_place(kind)
        assert ("update" in vars(kind)) is replaced
