"""Threads that share a batch give the gradients of one thread; memory and BLAS switches do what they say."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Dropout, Linear, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD
from tinytorch.core.spatial import BatchNorm2d, Conv2d, MaxPool2d
from tinytorch.core.tensor import Tensor, matmul
from tinytorch.core.training import loss_and_gradients
from tinytorch.fast import parallel


@pytest.fixture(autouse=True)
def small_batches_are_shared(monkeypatch):
    monkeypatch.setattr(parallel, "ALONE", 0)


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def small_network(norm=True):
    return Sequential(Conv2d(3, 4, 3), *([BatchNorm2d(4)] if norm else []), ReLU(), MaxPool2d(2), Linear(36, 5))


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_give_the_gradients_of_one(threads, batch):
    model, loss, x, y = small_network(norm=False), CrossEntropyLoss(), numbers(0, batch, 3, 8, 8), np.arange(batch) % 5
    value, scores = loss_and_gradients(model, loss, Tensor(x), y)
    wanted = [p.grad for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    step = parallel.DataParallel(loss_and_gradients, parallel.Team(threads))
    for times in (1, 2):                                        # gradients add up until they are cleared
        got_value, got_scores = step(model, loss, Tensor(x), y)
        assert abs(got_value - value) < 1e-5
        np.testing.assert_allclose(got_scores, scores, rtol=1e-4, atol=1e-5)
        for p, want in zip(model.parameters(), wanted, strict=True):
            np.testing.assert_allclose(p.grad, times * want, rtol=1e-4, atol=1e-5)


def test_threads_follow_new_weights_modes_and_frozen_layers():
    model, loss, x, y = small_network(), CrossEntropyLoss(), numbers(0, 8, 3, 8, 8), np.arange(8) % 5
    step = parallel.DataParallel(loss_and_gradients, parallel.Team(2))
    first, _ = step(model, loss, x, y)
    model.parameters()[0].requires_grad = False
    model.eval()
    for p in model.parameters():
        p.data, p.grad = p.data * np.float32(1.5), None
    buffers = [array.copy() for array in (model[1].running_mean, model[1].running_var)]
    value, _ = step(model, loss, x, y)
    assert value != first
    assert model.parameters()[0].grad is None
    wanted, _ = loss_and_gradients(model, loss, Tensor(x), y)
    assert abs(value - wanted) < 1e-5
    assert (model[1].running_mean == buffers[0]).all()
    model.layers[0] = Conv2d(3, 4, 3)                           # another layer: the copies are made anew
    value, _ = step(model, loss, x, y)
    assert abs(value - loss_and_gradients(model, loss, Tensor(x), y)[0]) < 1e-5


def test_running_averages_of_threads_are_the_mean_of_the_parts():
    x, loss, y = numbers(0, 8, 3, 8, 8), CrossEntropyLoss(), np.arange(8) % 5
    model = small_network()
    parallel.DataParallel(loss_and_gradients, parallel.Team(2))(model, loss, x, y)
    features = model[0](x).data
    halves = [features[:4], features[4:]]
    means, variances = (np.mean([each(half) for half in halves], axis=0)
                        for each in (lambda half: half.mean((0, 2, 3)), lambda half: half.var((0, 2, 3), ddof=1)))
    np.testing.assert_allclose(model[1].running_mean, 0.1 * means, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(model[1].running_var, 0.9 + 0.1 * variances, rtol=1e-3)


def test_an_error_in_a_thread_reaches_the_caller():
    def broken(part):
        if part.start:
            raise KeyError("second half")
    team = parallel.Team(2)
    with pytest.raises(KeyError, match="second half"):
        team.map(broken, parallel.cut(10, 2))
    with pytest.raises(ValueError, match="3 pieces of work for 2 threads"):
        team.map(print, [1, 2, 3])
    team.close()


@given(st.integers(0, 50), st.integers(1, 8))
def test_cut_leaves_nothing_out(n, parts):
    pieces = parallel.cut(n, parts)
    assert [i for piece in pieces for i in range(n)[piece]] == list(range(n))
    lengths = [piece.stop - piece.start for piece in pieces]
    assert max(lengths) - min(lengths) <= 1


def test_blas_threads_are_set_and_restored():
    before = parallel.get_blas_threads()
    with parallel.blas_threads(1):
        assert parallel.get_blas_threads() in (1, None)
    assert parallel.get_blas_threads() == before


def test_dropout_in_threads_depends_on_the_models_generator_alone():
    x, y, loss = numbers(0, 8, 6), np.arange(8) % 3, CrossEntropyLoss()
    model = Sequential(Linear(6, 20), Dropout(0.5), Linear(20, 3))
    model[1].random = np.random.default_rng(5)
    values = [parallel.DataParallel(loss_and_gradients, parallel.Team(2))(model, loss, x, y)[0]]
    model[1].random = np.random.default_rng(5)
    step = parallel.DataParallel(loss_and_gradients, parallel.Team(2))
    values += [step(model, loss, x, y)[0] for _ in range(2)]
    assert values[0] == values[1]
    assert values[1] != values[2]


def test_layers_that_replace_their_buffers_are_followed():
    class Counting(Linear):
        def __init__(self):
            super().__init__(2, 2)
            self.seen = np.zeros(1, np.float32)

        def forward(self, x):
            self.seen = self.seen + len(x)
            return super().forward(x)

    model = Counting()
    step = parallel.DataParallel(loss_and_gradients, parallel.Team(2))
    for _ in range(3):
        step(model, CrossEntropyLoss(), numbers(0, 8, 2), np.zeros(8, int))
    assert model.seen == 12                     # the mean over the threads, which saw 4 each time


def test_an_optimizer_gives_the_same_numbers_on_any_number_of_threads():
    script = """
import sys, numpy as np
from tinytorch import performance
from tinytorch.core.layers import Parameter
from tinytorch.core.optimizers import Adam
performance.keep_memory()
performance.use_threads(int(sys.argv[1]))
random = np.random.default_rng(0)
p = Parameter(random.normal(size=(700, 900)))
optimizer = Adam([p], lr=0.01)
for _ in range(3):
    p.grad = random.normal(size=p.shape).astype(np.float32)
    optimizer.step()
print(p.data.tobytes().hex()[:2000], float(p.data.sum(dtype=np.float64)))
"""
    one, two = (subprocess.run([sys.executable, "-c", script, threads], capture_output=True, text=True, check=True).stdout
                for threads in "12")
    assert one == two


def test_keep_memory_says_whether_it_did_and_does_no_harm():
    script = """
import numpy as np, resource, sys
from tinytorch import performance
assert not performance.memory_kept
kept = performance.keep_memory()
assert performance.memory_kept is kept
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, min(faults() for _ in range(5)))
"""
    kept, faults = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert kept == "False" or int(faults) < 50


def test_a_shared_step_trains():
    model = Sequential(Conv2d(3, 4, 3), BatchNorm2d(4), ReLU(), MaxPool2d(2), Linear(36, 5))
    x, y, optimizer = numbers(0, 16, 3, 8, 8), np.arange(16) % 5, SGD(model.parameters(), lr=0.1)
    step, values = parallel.data_parallel(loss_and_gradients, 2), []
    for _ in range(20):
        optimizer.zero_grad()
        values.append(step(model, CrossEntropyLoss(), Tensor(x), y)[0])
        optimizer.step()
    parallel.use_threads(1)
    assert values[-1] < values[0] / 2


@pytest.mark.parametrize("batch", [2, 7])
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_that_meet_at_large_weights_give_the_gradients_of_one(threads, batch, monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 50)
    first = Linear(13, 9)
    model, loss = Sequential(first, ReLU(), Linear(9, 13), first, ReLU(), Linear(9, 7)), CrossEntropyLoss()     # one weight serves twice
    x, y = numbers(0, batch, 13), np.arange(batch) % 7
    value, scores = loss_and_gradients(model, loss, Tensor(x), y)
    wanted = [p.grad for p in model.parameters()]
    for p in model.parameters():
        p.grad = None
    step = parallel.DataParallel(loss_and_gradients, parallel.Team(threads))
    for times in (1, 2):
        got_value, got_scores = step(model, loss, x, y)
        assert abs(got_value - value) < 1e-5
        np.testing.assert_allclose(got_scores, scores, rtol=1e-4, atol=1e-5)
        for p, want in zip(model.parameters(), wanted, strict=True):
            np.testing.assert_allclose(p.grad, times * want, rtol=1e-4, atol=1e-5)


def test_threads_that_meet_need_no_gradient_of_a_frozen_weight(monkeypatch):
    monkeypatch.setattr(parallel, "LARGE", 50)
    model, loss, x, y = Sequential(Linear(13, 9), ReLU(), Linear(9, 7)), CrossEntropyLoss(), numbers(0, 6, 13), np.arange(6) % 7
    model[0].weight.requires_grad = False
    loss_and_gradients(model, loss, Tensor(x), y)
    wanted, plain = [p.grad for p in model.parameters()], (matmul.forward, matmul.derivative)
    for p in model.parameters():
        p.grad = None
    parallel.DataParallel(loss_and_gradients, parallel.Team(2))(model, loss, x, y)
    assert model[0].weight.grad is None
    assert (matmul.forward, matmul.derivative) == plain
    for p, want in zip(model.parameters()[1:], wanted[1:], strict=True):
        np.testing.assert_allclose(p.grad, want, rtol=1e-4, atol=1e-5)


def test_nobody_waits_at_a_large_weight_for_who_took_another_way(monkeypatch):
    class Choosy(Linear):
        def forward(self, x):
            if x.data[0, 0] < 0:
                return super().forward(x)
            if x.data[0, 1] < 0:
                raise KeyError("no way")
            return x[:, :9] + self.bias

    monkeypatch.setattr(parallel, "LARGE", 50)
    step = parallel.DataParallel(loss_and_gradients, parallel.Team(2))
    met, passed_by, failed = (-1, 1), (1, 1), (1, -1)           # the signs of what the first row of a part begins with
    for ways, error, says in [((met, passed_by), RuntimeError, "different ways"), ((met, failed), KeyError, "no way"),
                              ((failed, met), KeyError, "no way")]:
        x = np.abs(numbers(0, 4, 13))
        x[::2, :2] *= ways
        with pytest.raises(error, match=says):
            step(Choosy(13, 9), CrossEntropyLoss(), x, np.zeros(4, int))


def test_a_small_batch_of_plain_rows_is_not_shared(monkeypatch):
    monkeypatch.undo()
    seen, model = [], Linear(6, 3)

    def gradients(model, loss, x, y):
        seen.append((len(x), parallel.get_blas_threads()))
        return loss_and_gradients(model, loss, x, y)

    parallel.DataParallel(gradients, parallel.Team(2))(model, CrossEntropyLoss(), numbers(0, 8, 6), np.arange(8) % 3)
    assert seen in ([(8, 1)], [(8, None)])
