"""Can I optimize with sophisticated algorithms? Every rule against its closed formula, schedules, resuming, and real digits learned."""

import math

import numpy as np

from course.checkpoints.support import agree, fast, refused, values
from tinytorch.core.layers import Linear
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD, Adam, AdamW, CosineLR, OneCycleLR, Optimizer, StepLR, WarmupLR, clip_grad_norm
from tinytorch.core.tensor import Tensor
from tinytorch.data import digits
from tinytorch.randomness import manual_seed

STEPS = 12


def _parameter(x):
    return Tensor(np.array(x, dtype=np.float32), requires_grad=True)


def _draw(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _run(kind, options, shape=(3, 4), steps=STEPS):
    """Places of a parameter before each step and after the last one, and its gradients, all in float64."""
    p = _parameter(_draw(shape, 1))
    optimizer = kind([p], **options)
    places, grads = [p.data.astype(np.float64)], []
    for step in range(steps):
        grad = _draw(shape, 100 + step) * 10.0 ** (step % 3 - 1)
        p.grad = np.array(grad, dtype=np.float32)
        optimizer.step()
        agree(p.grad, grad, f"the gradient after a step of {kind.__name__}, which a step should leave alone")
        places.append(p.data.astype(np.float64))
        grads.append(np.float64(p.grad))
    return places, grads


def _follows(kind, options, direction, decay=0.0, shrink=1.0):
    """Each step is shrink * place - lr * direction(gradients so far), weight decay being part of these gradients."""
    places, grads = _run(kind, options)
    for step in range(STEPS):
        so_far = [grad + decay * place for grad, place in zip(grads[:step + 1], places, strict=False)]
        want = shrink * places[step] - options["lr"] * direction(so_far)
        agree(places[step + 1], want, f"{kind.__name__} with {options} after step {step + 1}", atol=1e-4, rtol=1e-4)


def _sum(grads, share):
    """The last gradient, plus share times the one before, plus share squared times the one before that, ..."""
    return sum(share ** age * grad for age, grad in enumerate(reversed(grads)))


def _adam(beta1, beta2, eps):
    """Weighted means instead of running ones: the weights beta ** age, divided by their sum."""
    def direction(grads):
        weights = [sum(beta ** age for age in range(len(grads))) for beta in (beta1, beta2)]
        return _sum(grads, beta1) / weights[0] / (np.sqrt(_sum([g * g for g in grads], beta2) / weights[1]) + eps)
    return direction


def can_step_against_the_gradient():
    for kind in (Optimizer, SGD):
        _follows(kind, {"lr": 0.3}, lambda grads: grads[-1])
    _follows(SGD, {"lr": 0.01}, lambda grads: grads[-1])


def can_pull_weights_towards_zero():
    _follows(SGD, {"lr": 0.3, "weight_decay": 0.2}, lambda grads: grads[-1], decay=0.2)
    _follows(Optimizer, {"lr": 0.1, "weight_decay": 3.0}, lambda grads: grads[-1], decay=3.0)


def can_roll_with_momentum():
    for momentum, decay in ((0.9, 0.0), (0.5, 0.0), (0.7, 0.3)):
        _follows(SGD, {"lr": 0.1, "momentum": momentum, "weight_decay": decay}, lambda grads, m=momentum: _sum(grads, m), decay)


def can_look_one_step_ahead():
    for momentum, decay in ((0.9, 0.0), (0.4, 0.1)):
        _follows(SGD, {"lr": 0.1, "momentum": momentum, "nesterov": True, "weight_decay": decay},
                 lambda grads, m=momentum: grads[-1] + m * _sum(grads, m), decay)


def can_measure_each_number_by_its_own_gradients():
    _follows(Adam, {"lr": 0.1}, _adam(0.9, 0.999, 1e-8))
    _follows(Adam, {"lr": 0.3, "betas": (0.5, 0.8), "eps": 0.1}, _adam(0.5, 0.8, 0.1))
    _follows(Adam, {"lr": 0.1, "weight_decay": 0.5}, _adam(0.9, 0.999, 1e-8), decay=0.5)
    p = _parameter([1.0, -1.0])
    p.grad = np.float32([0, 0])
    Adam([p], lr=1.0).step()
    agree(p, [1, -1], "a parameter whose gradients are 0, after a step of Adam")


def can_decay_weights_beside_adam():
    _follows(AdamW, {"lr": 0.1, "weight_decay": 0.5}, _adam(0.9, 0.999, 1e-8), shrink=1 - 0.1 * 0.5)
    _follows(AdamW, {"lr": 0.2}, _adam(0.9, 0.999, 1e-8), shrink=1 - 0.2 * 0.01)
    _follows(AdamW, {"lr": 0.1, "weight_decay": 0.0, "betas": (0.8, 0.9), "eps": 0.01}, _adam(0.8, 0.9, 0.01))


def can_use_the_usual_rates_unless_told_otherwise():
    for kind, lr in ((SGD, 0.01), (Adam, 0.001), (AdamW, 0.001)):
        got = kind([_parameter([1.0])]).lr
        assert got == lr, f"without lr=, the rate of {kind.__name__} should be {lr}, it is {got}"


def can_shorten_gradients_without_turning_them():
    shapes = [(3, 4), (5,), (), (2, 1, 2)]
    for scale, limit in ((10, 1.0), (1, 1e-3), (0.01, 5.0)):
        parameters = [_parameter(np.zeros(shape)) for shape in shapes] + [_parameter([1.0])]
        grads = [np.asarray(scale * _draw(shape, seed), np.float32) for seed, shape in enumerate(shapes)]
        for p, grad in zip(parameters, grads, strict=False):
            p.grad = grad.copy()
        length = math.sqrt(sum(float((grad.astype(np.float64) ** 2).sum()) for grad in grads))
        agree(clip_grad_norm(parameters, limit), length, f"the length before clipping {len(grads)} gradients", rtol=1e-4)
        for p, grad in zip(parameters, grads, strict=False):
            agree(p.grad, grad * min(1, limit / length), f"a gradient, together {length:.4g} long, clipped to {limit}")
        assert parameters[-1].grad is None, "a parameter without a gradient should still have none after clipping"


def _rates(make, lr, count):
    """The rate of each of so many steps."""
    optimizer = SGD([_parameter([1.0])], lr=lr)
    schedule, found = make(optimizer), []
    for _ in range(count):
        found.append(optimizer.lr)
        schedule.step()
    return found


def can_lower_the_rate_in_steps_and_along_a_cosine():
    agree(_rates(lambda o: StepLR(o, 3, gamma=0.5), 0.8, 8), [0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2], "StepLR(3, gamma=0.5) from 0.8")
    agree(_rates(lambda o: StepLR(o, 1), 2.0, 3), [2, 0.2, 0.02], "StepLR(1) from 2")
    for length, lowest in ((10, 0.0), (7, 0.25)):
        want = [lowest + (2 - lowest) * math.cos(math.pi * min(step, length) / length / 2) ** 2 for step in range(length + 4)]
        agree(_rates(lambda o, n=length, low=lowest: CosineLR(o, n, low), 2.0, length + 4), want, f"CosineLR({length}, {lowest}) from 2")
    agree(_rates(lambda o: CosineLR(o, 2), 1.0, 3), [1, 0.5, 0], "CosineLR(2) from 1")


def can_warm_up_before_another_schedule():
    agree(_rates(lambda o: WarmupLR(o, 4), 2.0, 7), [0.5, 1, 1.5, 2, 2, 2, 2], "WarmupLR(4) to 2")
    agree(_rates(lambda o: WarmupLR(o, 2, StepLR(o, 2, gamma=0.5)), 4.0, 7), [2, 4, 4, 4, 2, 2, 1], "WarmupLR(2) before StepLR(2)")


def can_go_up_and_down_in_one_cycle():
    def straight(pct, div, end):
        return lambda o: OneCycleLR(o, 6.0, 10, pct_start=pct, div_factor=div, final_div_factor=end, anneal_strategy="linear")

    agree(_rates(straight(0.4, 2, 3), 0.1, 12), [3, 4, 5, *np.interp(range(9), [0, 6], [6, 1])], "a straight OneCycleLR to 6")
    between_steps = np.interp(range(10), [0, 3.5, 9], [1, 6, 1e-4])
    agree(_rates(straight(0.45, 6, 1e4), 0.1, 10), between_steps, "a straight OneCycleLR with its top at 3.5")
    curve = [(1 - math.cos(math.pi * done / 2)) / 2 for done in range(3)]
    want = [0.08 + 1.92 * curve[0], 0.08 + 1.92 * curve[1], 2, *(2 - (2 - 8e-6) * (1 - math.cos(math.pi * k / 7)) / 2 for k in range(1, 8))]
    agree(_rates(lambda o: OneCycleLR(o, 2.0, 10), 0.1, 10), want, "a curved OneCycleLR to 2", atol=1e-7)
    agree(_rates(lambda o: OneCycleLR(o, None, 10), 2.0, 10), want, "a curved OneCycleLR to the optimizer's own rate", atol=1e-7)


def can_treat_groups_of_parameters_differently():
    weight, bias = _parameter([1.0, 2.0]), _parameter([3.0])
    optimizer = SGD([{"params": [weight]}, {"params": [bias], "lr": 0.5, "weight_decay": 0.0}], lr=0.1, weight_decay=1.0)
    schedule = StepLR(optimizer, 1, gamma=0.5)
    for want in (([0.8, 1.7], [2.5]), ([0.71, 1.565], [2.25])):
        weight.grad, bias.grad = np.float32([1, 1]), np.float32([1])
        optimizer.step()
        schedule.step()
        agree(weight, want[0], "weights in a group with rate 0.1, halved after each step, and decay 1")
        agree(bias, want[1], "a bias in a group with rate 0.5, halved after each step, and no decay")


def can_wait_for_parameters():
    p = _parameter([1.0])
    optimizer = Adam(lr=0.25)
    optimizer.bind([p])
    p.grad = np.float32([3])
    optimizer.step()
    agree(p, [0.75], "a parameter bound to Adam(lr=0.25), after one step,")
    optimizer.zero_grad()
    assert p.grad is None, f"after zero_grad() the gradient should be None, it is {p.grad}"


def can_keep_only_what_the_rule_needs():
    p = _parameter(_draw((10, 20), 0))
    for kind, options, copies in ((SGD, {}, 0), (SGD, {"momentum": 0.9}, 1), (Adam, {}, 2), (AdamW, {}, 2)):
        optimizer = kind([p], **options)
        p.grad = _draw((10, 20), 1)
        optimizer.step()
        kept = sum(array.nbytes for array in optimizer.state[0].values() if isinstance(array, np.ndarray))
        assert kept == copies * p.data.nbytes, \
            f"{kind.__name__} with {options} should keep {copies} times the parameter's {p.data.nbytes} bytes, it keeps {kept} bytes"


def can_go_on_to_the_last_bit_after_an_interruption():
    for kind, options in ((SGD, {"momentum": 0.9, "nesterov": True}), (Adam, {}), (AdamW, {})):
        ends = []
        for stops in ((), (3, 7)):
            x, saved = _draw((4, 3), 0), None
            for step in range(STEPS):
                if step == 0 or step in stops:
                    p = _parameter(x)
                    optimizer = kind([p], lr=0.1, **options)
                    schedule = OneCycleLR(optimizer, None, STEPS)
                    if saved:
                        optimizer.load_state_dict(saved[0])
                        schedule.load_state_dict(saved[1])
                p.grad = _draw((4, 3), step + 1)
                optimizer.step()
                schedule.step()
                x, saved = p.data.copy(), (optimizer.state_dict(), schedule.state_dict())
            ends.append(x)
        assert np.array_equal(*ends), \
            f"{kind.__name__}, interrupted twice, should end where it ends without that: {ends[0][0]}, not {ends[1][0]}"


def can_say_what_is_wrong():
    p = _parameter([1.0])
    said = refused(RuntimeError, Adam([p]).step)
    assert "backward" in said, f"a step without gradients should ask for backward(), it says: {said}"
    said = refused(ValueError, SGD, [p], lr=-1)
    assert "lr" in said, f"the error for a negative rate should name lr, it says: {said}"
    p.grad = np.float32([np.nan])
    said = refused(FloatingPointError, Adam([("layers.0.weight", p)]).step)
    assert "layers.0.weight" in said, f"the error for a gradient of nan should name the parameter, it says: {said}"
    agree(p, [1], "a parameter whose gradient is nan, after the refused step,")


def can_learn_real_digits_with_every_optimizer():
    images, labels = digits()
    pixels, loss = images.reshape(-1, 64), CrossEntropyLoss()
    ways = {"SGD": lambda: SGD(lr=0.5), "SGD with momentum": lambda: SGD(lr=0.1, momentum=0.9, nesterov=True),
            "Adam": lambda: Adam(lr=0.02), "AdamW": lambda: AdamW(lr=0.02)}
    for name, make in ways.items():
        manual_seed(0)
        model, optimizer = Linear(64, 10), make()
        optimizer.bind(model.parameters())
        schedule = WarmupLR(optimizer, 10, CosineLR(optimizer, 110))
        for picks in np.random.default_rng(0).integers(0, 1000, size=(120, 50)):
            optimizer.zero_grad()
            loss(model(Tensor(pixels[picks])), labels[picks]).backward()
            clip_grad_norm(model.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        right = (values(model(Tensor(pixels[1000:]))).argmax(axis=1) == labels[1000:]).mean()
        assert right > 0.87, f"after 120 steps with {name} a linear layer should read 87 % of unseen digits, it reads {right:.1%}"


def can_step_at_the_speed_of_numpy():
    p = _parameter(_draw((1000, 1000), 0))
    grad, m, v, x = (_draw((1000, 1000), seed) for seed in range(4))
    v *= v
    p.grad = grad

    def plain_adam():
        nonlocal m, v, x
        m = m + 0.1 * (grad - m)
        v = v + 0.001 * (grad * grad - v)
        x = x - 0.001 * (m / 0.9) / (np.sqrt(v / 0.9) + 1e-8)

    def plain_momentum():
        nonlocal m, x
        m = 0.9 * m + grad
        x = x - 0.001 * m

    for kind in (Adam, AdamW):
        fast(kind([p]).step, plain_adam, f"a step of {kind.__name__} with a million weights", times=2.5)
    fast(SGD([p], momentum=0.9).step, plain_momentum, "a step with momentum of a million weights", times=2.5)
    fast(lambda: clip_grad_norm([p], 1e6), lambda: (grad * grad).sum(), "measuring a million gradients", times=3)
