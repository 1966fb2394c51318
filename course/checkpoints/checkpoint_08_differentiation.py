"""Can I compute gradients automatically? Every rule against nudges, the walk against known answers, memory, refusals, a net that learns."""

import tracemalloc
import weakref
from contextlib import contextmanager

import numpy as np

from course.checkpoints.support import agree, fast, refused
from tinytorch import randomness
from tinytorch.core import activations, losses, tensor
from tinytorch.core.activations import relu, softmax, tanh
from tinytorch.core.autograd import backward, count_uses, no_grad, outputs_first, unbroadcast
from tinytorch.core.layers import Linear, Sequential, normalize
from tinytorch.core.tensor import Tensor, concat, div, matmul, mul, op
from tinytorch.data import digits


def draw(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def leaves(*arrays):
    return [Tensor(array, requires_grad=True) for array in arrays]


def doublings(n):
    x = y = Tensor(1e-9, requires_grad=True)
    for _ in range(n):
        y = y + y
    return x, y


def nudged(function, arrays, place, arrives, h=1e-3):
    """By how much the weighed result changes per unit of each number of one input: differences of the forward, in float64."""
    arrays = [np.array(array, dtype=np.float64) for array in arrays]
    slopes = np.zeros_like(arrays[place])
    for index in np.ndindex(slopes.shape):
        at, ends = arrays[place][index], []
        for step in (2 * h, h, -h, -2 * h):
            arrays[place][index] = at + step
            out = function.forward(*arrays)
            ends.append(float(((out[0] if isinstance(out, tuple) else out) * arrives).sum()))
        arrays[place][index] = at
        slopes[index] = (8 * (ends[1] - ends[2]) - (ends[0] - ends[3])) / (12 * h)
    return slopes


def answers_to_nudges(function, *arrays):
    """A walk through one op gives each input the gradient that nudges give it."""
    inputs = leaves(*arrays)
    result = function(*inputs)
    arrives = draw(result.shape, 99).astype(np.float32)
    backward(result, arrives)
    shapes = ", ".join(str(np.shape(array)) for array in arrays)
    for place, x in enumerate(inputs):
        want = nudged(function, [x.data for x in inputs], place, arrives)
        agree(x.grad, want, f"the gradient of input {place} of {function.__name__} with shapes {shapes}", atol=2e-3, rtol=1e-3)
        assert x.grad.dtype == np.float32, f"the gradient of {function.__name__} should be float32, it is {x.grad.dtype}"


def can_multiply_and_divide_backwards():
    for n, (a, b) in enumerate([((), ()), ((3,), (3,)), ((2, 3), (3,)), ((2, 1), (1, 4)), ((), (2, 3)), ((1, 3), (2, 2, 3))]):
        answers_to_nudges(mul, draw(a, n), draw(b, n + 50))
        answers_to_nudges(div, draw(a, n), 1 + np.abs(draw(b, n + 50)))
        answers_to_nudges(div, draw(a, n), -1 - np.abs(draw(b, n + 50)))


def can_bend_backwards():
    x = draw((4, 5), 0)
    answers_to_nudges(tanh, x)
    answers_to_nudges(relu, np.where(np.abs(x) < 0.05, 0.5, x))
    (zero,) = leaves([0.0, -0.0])
    backward(relu(zero).sum())
    agree(zero.grad, [0, 0], "the gradient of relu at 0")


def can_multiply_matrices_backwards():
    shapes = [((2, 3), (3, 4)), ((1, 1), (1, 1)), ((5, 2, 3), (5, 3, 4)), ((5, 2, 3), (3, 4)), ((2, 3), (5, 3, 4)),
              ((4, 1, 2, 3), (5, 3, 2)), ((3,), (3,)), ((3,), (3, 4)), ((2, 3), (3,)), ((5, 2, 3), (3,)), ((3,), (5, 3, 4))]
    for n, (a, b) in enumerate(shapes):
        answers_to_nudges(matmul, draw(a, n), draw(b, n + 50))


def can_use_every_other_rule():
    x, positive = draw((3, 4), 1), 0.5 + np.abs(draw((3, 4), 2))
    for function in (tensor.neg, tensor.exp, activations.sigmoid, activations.gelu, softmax, losses.log_softmax, normalize,
                     tensor.reduce_sum, tensor.reduce_mean, tensor.reduce_max, tensor.transpose):
        answers_to_nudges(function, x)
    for function in (tensor.log, tensor.sqrt, losses.absolute, activations.leaky_relu):
        answers_to_nudges(function, positive)
    for function in (tensor.add, tensor.sub, tensor.power):
        answers_to_nudges(function, positive, positive[:1] + 0.5)
    a, b = leaves(x, x[:, :2])
    backward(concat(a, b, axis=1)[1:, 3:].reshape(6).sum())
    agree(a.grad, [[0] * 4, [0, 0, 0, 1], [0, 0, 0, 1]], "the gradient of what was joined, sliced and reshaped")
    agree(b.grad, [[0, 0], [1, 1], [1, 1]], "the gradient of the second part of what was joined")


def can_undo_broadcasting():
    rng = np.random.default_rng(3)
    for shape, whole in (((3,), (2, 3)), ((2, 1), (2, 3)), ((), (4,)), ((1, 1), (5, 6)), ((3, 1, 4), (2, 3, 5, 4)), ((3,), (0, 3)),
                         ((2, 3), (2, 3))):
        grad = rng.normal(size=whole).astype(np.float32)
        want = np.zeros(shape)
        for index in np.ndindex(whole):
            want[tuple(0 if n == 1 else i for i, n in zip(index[len(whole) - len(shape):], shape, strict=True))] += grad[index]
        got = unbroadcast(grad, shape)
        agree(got, want, f"unbroadcast from {whole} to {shape}")
        assert isinstance(got, np.ndarray), f"unbroadcast to {shape} should give an array, it gives a {type(got).__name__}"
        assert whole != shape or got is grad, "where shapes agree, unbroadcast should give back what it got"
    for given, wanted in (((3, 2), (2, 3)), ((), (3,)), ((1, 3), (2, 3)), ((4,), (3,)), ((6,), (2, 3))):
        refused(ValueError, unbroadcast, np.ones(given, np.float32), wanted)


def can_put_outputs_before_inputs():
    a, b = leaves(2, 5)
    c = a * b
    d = c + a
    for last in (c * d, d * c):
        named = {last: "last", c: "c", d: "d", a: "a", b: "b"}
        uses = {named.get(t, "?"): n for t, n in count_uses(last).items()}
        assert uses == {"c": 2, "d": 1, "a": 2, "b": 1}, f"uses should be c 2, d 1, a 2, b 1; they are {uses}"
        order = [named.get(t, "?") for t in outputs_first(last)]
        assert order == ["last", "d", "c"], f"the order should be last, d, c; it is {', '.join(order)}"
    assert list(outputs_first(a)) == [], "a leaf was made by no op, so outputs_first should hand over nothing"
    assert count_uses(c * 3) == {c: 1, a: 1, b: 1}, "a constant needs no gradient and should not be counted"


def can_add_up_where_ways_meet():
    a, b = leaves(2, 5)
    c = a * b
    backward((c + a) * c)
    agree([a.grad, b.grad], [120, 44], "the gradients of a and b in (ab + a) ab at 2 and 5")
    assert c.grad is None, "only leaves keep a gradient"
    x, y = doublings(60)
    backward(y)
    agree(x.grad, 2.0 ** 60, "the gradient after 60 doublings", rtol=1e-6)
    calls = []
    counted = op(lambda x: x * 1, "counted")
    counted.backward(lambda grad, out, x: calls.append(1) or grad)
    (x,) = leaves([1.0, 2.0])
    y = counted(x)
    backward((y * y + y).sum())
    agree(x.grad, [3, 5], "the gradient of y² + y")
    assert len(calls) == 1, f"the rule of a tensor used three times should run once, it ran {len(calls)} times"


def can_add_up_over_walks():
    (x,) = leaves([1.0, 2.0])
    backward((x * x).sum())
    backward(x * x, [1, 10])
    agree(x.grad, [4, 44], "the gradient after two walks")
    x.grad = None
    (x * 3).sum().backward()
    agree(x.grad, [3, 3], "the gradient after x.grad = None and a third walk")
    (y,) = leaves(3)
    backward(y)
    agree(y.grad, 1, "the gradient of a leaf that is its own loss")
    assert isinstance(y.grad, np.ndarray), f"a gradient should be an array, it is a {type(y.grad).__name__}"


def can_walk_deep_graphs():
    (x,) = leaves([1.0, 2.0])
    y = x
    for _ in range(5000):
        y = y + 0
    backward(y.sum())
    agree(x.grad, [1, 1], "the gradient through 5,000 additions")


def can_give_each_leaf_its_own_memory():
    a, b = leaves(draw((2, 3), 4), draw((2, 3), 5))
    total = a + b
    backward(total, np.ones((2, 3)))
    assert a.grad is not None, "a leaf should get a gradient"
    assert not np.shares_memory(a.grad, b.grad), "the gradients of two leaves should not share memory"
    a.grad *= 2
    agree(b.grad, np.ones((2, 3)), "the gradient of b after that of a was written into")


def can_say_what_is_wrong():
    (x,) = leaves([1.0, 2.0])
    cube = op(lambda x: x ** 3, "cube")
    for text, loss in (("cube() has no derivative yet", cube(x).sum()), ("scalar", x * 2), ("requires_grad", Tensor([1.0]) * 2)):
        said = refused((NotImplementedError, ValueError), backward, loss)
        assert text in said, f"the refusal should contain {text!r}, it says {said!r}"
    loss, moved = (x * x).sum(), (x * x).sum()
    backward(loss)
    assert "again" in refused(RuntimeError, backward, loss), "a second walk through a graph should be refused"
    x.data -= 0.1
    assert "changed" in refused(RuntimeError, backward, moved), "numbers changed after the forward pass should be noticed"
    (w,) = leaves([3.0, 4.0])
    broken = op(lambda x: x * 1, "broken")
    broken.backward(lambda grad, out, x: np.ones(7))
    assert "broken" in refused(ValueError, backward, (broken(w * 2) + w).sum()), "a wrong rule should be named"
    assert w.grad is None, f"a rule failed, so no leaf should have got a gradient; w.grad is {w.grad}"


def can_switch_recording_off():
    (x,) = leaves([1.0])

    def recorded(): return (x + 1).requires_grad

    with no_grad():
        assert not recorded(), "inside no_grad() nothing should be recorded"
        with no_grad():
            pass
        assert not recorded(), "after an inner no_grad() the outer one should still hold"
    assert recorded(), "after no_grad() ops should be recorded again"
    refused(KeyError, no_grad()(lambda: {}["missing"]))
    assert recorded(), "after an error inside no_grad() ops should be recorded again"


def can_give_memory_back():
    (x,) = leaves(np.ones(1000))
    seen, gone = [], []
    step = op(lambda x: x + 1, "step")

    @step.backward
    def _(grad, out, x):
        gone.append(sum(ref() is None for ref in seen))
        return grad

    y = x
    for _ in range(10):
        y = step(y)
        seen.append(weakref.ref(y))
    loss = y.sum()
    del y
    tracemalloc.start()
    backward(loss)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    left = sum(ref() is not None for ref in seen)
    assert left == 0, f"after a walk the graph should be gone, {left} of 10 results are still in memory"
    assert peak < 10 * 4000, f"a gradient should go when its turn is over: the walk held {peak / 4000:.0f} arrays at once for 10 results"


def can_teach_a_net_to_read_digits():
    images, labels = digits()
    pixels = images.reshape(-1, 64)
    randomness.manual_seed(0)
    net, order = Sequential(Linear(64, 32), relu, Linear(32, 10)), np.random.default_rng(0)
    for _ in range(8):
        for batch in order.permutation(1000).reshape(20, 50):
            losses.cross_entropy(net(pixels[batch]), targets=labels[batch]).backward()
            for p in net.parameters():
                p.data -= 0.3 * p.grad
                p.grad = None
    with no_grad():
        right = (net(pixels[1000:]).data.argmax(axis=1) == labels[1000:]).mean()
    assert right > 0.87, f"after 160 steps 88 % or more of 797 unseen digits should be read correctly, it is {right:.0%}"


def forced(made):
    """All gradients of a rule, also those that are functions."""
    return [gx() if callable(gx) else gx for gx in (made if isinstance(made, tuple) else (made,))]


def can_apply_rules_at_the_speed_of_numpy():
    g, a, b = (draw(10 ** 6, seed).astype(np.float32) for seed in range(3))
    m, big = draw((256, 256), 4).astype(np.float32), draw((64, 16, 128), 5).astype(np.float32)
    weight, arrives = draw((128, 100), 6).astype(np.float32), draw((64, 16, 100), 7).astype(np.float32)
    plain = {mul: lambda: (g * b, g * a), div: lambda: (g / b, -g * a / b)}
    for function, numpy_way in plain.items():
        fast(lambda function=function: forced(function.derivative(g, a, a, b)), numpy_way,
             f"the rule of {function.__name__} on a million numbers", times=4)
    fast(lambda: forced(relu.derivative(g, a, b)), lambda: g * (a > 0), "the rule of relu on a million numbers", times=4)
    fast(lambda: forced(tanh.derivative(g, a, b)), lambda: g * (1 - a * a), "the rule of tanh on a million numbers", times=4)
    fast(lambda: forced(matmul.derivative(m, m, m, m)), lambda: (m @ m.T, m.T @ m), "the rule of a product of 256 x 256 matrices", times=4)
    fast(lambda: forced(matmul.derivative(arrives, arrives, big, weight)),
         lambda: (arrives @ weight.T, big.reshape(1024, 128).T @ arrives.reshape(1024, 100)),
         "the rule of a batch of products with one matrix", times=4)
    fast(lambda: unbroadcast(g.reshape(1000, 1000), (1000,)), lambda: g.reshape(1000, 1000).sum(axis=0),
         "unbroadcast of a million numbers", times=4)


def can_walk_at_a_few_steps_per_op():
    _, y = doublings(2000)
    found = []

    def chain():
        t = y
        found.clear()
        while t.origin is not None:
            found.append([x for x in t.origin[1] if x.requires_grad])
            t = t.origin[1][0]

    fast(lambda: count_uses(y), chain, "counting 2,000 tensors, set against following one chain of them,", times=12)
    fast(lambda: list(outputs_first(y)), lambda: count_uses(y), "handing 2,000 tensors over, set against counting them,", times=8)

    @contextmanager
    def nothing(): yield

    def enter(block):
        for _ in range(500):
            with block():
                pass
    fast(lambda: enter(no_grad), lambda: enter(nothing), "500 blocks of no_grad(), set against 500 empty ones,", times=4)
    fast(lambda: backward(doublings(2000)[1]), lambda: [doublings(2000) for _ in range(4)],
         "a walk through 2,000 ops, set against four forward passes,", times=4)
