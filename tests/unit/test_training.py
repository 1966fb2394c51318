"""Training against PyTorch, against counting by hand, and against interruptions of every kind."""

import io
import itertools
import math
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.need import need
from tinytorch import modelfiles, progress, randomness
from tinytorch.core import training
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import BatchNorm1d, Dropout, Linear, Module, Sequential
from tinytorch.core.losses import BCEWithLogitsLoss
from tinytorch.core.optimizers import SGD, Adam, AdamW, CosineLR, OneCycleLR
from tinytorch.core.tensor import Tensor, op
from tinytorch.core.training import (
    F1,
    Accuracy,
    Batches,
    CrossEntropyLoss,
    EarlyStopping,
    MSELoss,
    Precision,
    Recall,
    Tally,
    Trainer,
    compute_confusion_matrix,
    confusion_matrix,
    evaluate_model,
    load_model,
    loss_and_gradients,
    plot_confusion_matrix,
    plot_training_history,
    precision_recall,
    take_step,
)
from tinytorch.data import digits
from tinytorch.fast import blas
from tinytorch.given import batches, runs

REPO = Path(__file__).parents[2]
patient = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
IMAGES, LABELS = digits()
X, Y = IMAGES.reshape(-1, 64), LABELS


def network(seed=0, dropped=0.0, normed=False):
    randomness.manual_seed(seed)
    norm = [BatchNorm1d(16)] if normed else []
    return Sequential(Linear(64, 16), *norm, ReLU(), Dropout(dropped), Linear(16, 10))


def trainer(model=None, lr=0.01, **options):
    return Trainer(model or network(), CrossEntropyLoss(), Adam(lr=lr), [Accuracy()], **options)


def some(n=200, size=32, shuffle=True):
    return Batches(X[:n], Y[:n], size, shuffle=shuffle)


UNSEEN = Batches(X[1000:1300], Y[1000:1300], 128)


def weights(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


# ---------------------------------------------------------------- steps, against PyTorch

@pytest.fixture(scope="module")
def torch():
    try:
        import torch
    except ImportError:
        torch = None
    need("PyTorch", torch, "make oracle")
    return torch


@pytest.mark.oracle
@pytest.mark.parametrize(("name", "ours", "theirs"), [
    ("sgd", lambda: SGD(lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
     lambda t, p: t.optim.SGD(p, 0.05, 0.9, nesterov=True, weight_decay=1e-3)),
    ("adam", lambda: Adam(lr=0.005), lambda t, p: t.optim.Adam(p, 0.005)),
    ("adamw", lambda: AdamW(lr=0.005, weight_decay=0.05), lambda t, p: t.optim.AdamW(p, 0.005, weight_decay=0.05)),
])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_fifty_steps_lose_what_pytorch_loses(torch, name, ours, theirs, clip):
    model, loss = network(), CrossEntropyLoss(label_smoothing=0.1)
    twin = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
    with torch.no_grad():
        for there, here in zip((twin[0], twin[2]), (model[0], model[3]), strict=True):
            there.weight.copy_(torch.from_numpy(here.weight.data.T.copy()))
            there.bias.copy_(torch.from_numpy(here.bias.data.copy()))
    optimizer, other = ours(), theirs(torch, twin.parameters())
    optimizer.bind(model.parameters())
    got, want = [], []
    for x, y in itertools.islice(itertools.cycle(some(n=500, shuffle=False)), 50):
        got.append(take_step(model, loss, optimizer, x, y, clip=clip)[0])
        other.zero_grad()
        value = torch.nn.functional.cross_entropy(twin(torch.from_numpy(x)), torch.from_numpy(y), label_smoothing=0.1)
        value.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
        other.step()
        want.append(value.item())
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert want[-1] < 0.9 * want[0]


def test_a_trainer_does_the_same_steps_as_a_loop_by_hand():
    model, twin = network(), network()
    optimizer = Adam(twin.parameters(), lr=0.01)
    losses = []
    for _ in range(3):
        total = 0.0
        for x, y in some(shuffle=False):
            optimizer.zero_grad()
            loss = CrossEntropyLoss()(twin(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        losses.append(total / 200)
    assert trainer(model).fit(some(shuffle=False), epochs=3, quiet=True)["loss"] == losses
    assert weights(model) == weights(twin)


def test_two_threads_learn_what_one_learns(monkeypatch):
    monkeypatch.setattr("tinytorch.fast.parallel.ALONE", 0)          # share small batches, too
    histories = [trainer(threads=threads).fit(some(), UNSEEN, epochs=3, quiet=True) for threads in (1, 2)]
    np.testing.assert_allclose(histories[0]["val_loss"], histories[1]["val_loss"], rtol=1e-3)
    with pytest.raises(ValueError, match="threads=0"):
        trainer(threads=0)


def test_one_thread_is_one_thread_in_matrix_products_as_well():
    before = blas.get_blas_threads()
    if before is None:
        pytest.skip("NumPy's BLAS does not say how many threads it uses")
    with blas.blas_threads(2):
        seen = []
        trainer(threads=1).fit(some(), quiet=True, on_epoch=lambda *_: seen.append(blas.get_blas_threads()))
        assert seen == [1]
        assert blas.get_blas_threads() == 2
        with pytest.raises(RuntimeError, match="stop"):
            trainer(threads=1, gradients=lambda *_: (_ for _ in ()).throw(RuntimeError("stop"))).fit(some(), quiet=True)
        assert blas.get_blas_threads() == 2
    assert blas.get_blas_threads() == before


def test_a_step_function_of_ones_own():
    def halves(model, loss, x, y):
        middle = len(y) // 2
        parts = [loss_and_gradients(model, lambda s, t: loss(s, t) * (len(t) / len(y)), x[part], y[part])
                 for part in (slice(middle), slice(middle, None))]
        return sum(value for value, _ in parts), np.concatenate([scores for _, scores in parts])

    histories = [trainer(gradients=step).fit(some(), epochs=2, quiet=True) for step in (loss_and_gradients, halves)]
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-4)
    assert histories[0]["accuracy"] == pytest.approx(histories[1]["accuracy"], abs=0.02)


def test_the_promised_example_of_calls(tmp_path):
    randomness.manual_seed(0)
    model = Sequential([Linear(64, 32), ReLU(), Linear(32, 10)])
    train, test = Batches(X[:1000], Y[:1000], 32, shuffle=True), Batches(X[1000:], Y[1000:], 32)
    history = Trainer(model, CrossEntropyLoss(), Adam(lr=0.001), [Accuracy()]).fit(
        train, val_dataloader=test, epochs=5, save_best=True, checkpoint_path=tmp_path / "best_model.pkl", quiet=True)
    results = evaluate_model(model, test)
    assert results["accuracy"] == max(history["val_accuracy"])
    assert 0.7 < results["accuracy"] <= 1
    keys = ["loss", "accuracy", "val_loss", "val_accuracy", "lr"]
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(keys, 5)
    other = Sequential([Linear(64, 32), ReLU(), Linear(32, 10)])
    about = load_model(tmp_path / "best_model.pkl", other)
    assert about["val_accuracy"] == results["accuracy"]
    assert weights(other) == weights(model)


# ---------------------------------------------------------------- metrics, counted by hand

ANSWERS = st.integers(2, 5).flatmap(lambda classes: st.tuples(st.just(classes), st.lists(
    st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1, max_size=40)))


def by_hand(classes, pairs):
    """Accuracy and the means of precision, recall and f1 over the classes that occur, by counting."""
    rows = []
    for c in range(classes):
        right = sum(a == b == c for a, b in pairs)
        named, there = sum(b == c for _, b in pairs), sum(a == c for a, _ in pairs)
        p, r = right / named if named else 0.0, right / there if there else 0.0
        rows.append((named + there > 0, p, r, 2 * p * r / (p + r) if p + r else 0.0))
    used = [row for row in rows if row[0]]
    return [sum(a == b for a, b in pairs) / len(pairs)] + [sum(row[k] for row in used) / len(used) for k in (1, 2, 3)], rows


@patient
@given(answers=ANSWERS, size=st.integers(1, 7))
def test_metrics_against_counting(answers, size):
    classes, pairs = answers
    labels, predicted = np.array(pairs).T
    want, rows = by_hand(classes, pairs)
    tally = Tally([Accuracy(), Precision(), Recall(), F1(), Recall(of=1)])
    for start in range(0, len(pairs), size):
        part = slice(start, start + size)
        tally.add(0.0, np.eye(classes)[predicted[part]], labels[part])
    got = tally.results()
    assert list(got) == ["loss", "accuracy", "precision", "recall", "f1", "recall_1"]
    assert list(got.values())[1:] == pytest.approx([*want, rows[1][2]])
    matrix = confusion_matrix(labels, predicted, classes)
    assert matrix.tolist() == [[pairs.count((a, b)) for b in range(classes)] for a in range(classes)]
    np.testing.assert_allclose(np.array(precision_recall(matrix)).T, [row[1:3] for row in rows])


@patient
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_evaluation_does_not_depend_on_how_data_is_cut(sizes, seed):
    model, n = network(seed), sum(sizes)
    edges = np.cumsum([0, *sizes])
    cut = [(X[a:b], Y[a:b]) for a, b in itertools.pairwise(edges)]
    got, want = evaluate_model(model, cut), evaluate_model(model, [(X[:n], Y[:n])])
    assert got["accuracy"] == want["accuracy"]
    assert got["loss"] == pytest.approx(want["loss"], rel=1e-5)


def test_one_score_per_example_is_a_yes_or_no():
    scores = np.float32([[2], [-1], [3], [-2]])
    for shaped in (scores, scores.ravel()):
        metric = Accuracy()
        metric.update(shaped, Tensor(np.float32([[1], [0], [0], [0]])))
        assert metric.compute() == 0.75
    randomness.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 2)).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    model = Sequential(Linear(2, 1))
    one = Trainer(model, BCEWithLogitsLoss(), Adam(lr=0.1), [Accuracy(), Precision(of=1)])
    history = one.fit([(x, y)], [(x, y)], epochs=40, quiet=True)
    assert history["val_accuracy"][-1] > 0.95
    assert history["val_precision_1"][-1] > 0.9


def test_targets_that_do_not_belong_to_the_scores():
    for metric in (Accuracy(), Recall()):
        with pytest.raises(ValueError, match=r"scores \(3, 2\) need 3 class numbers, got targets of shape \(2,\)"):
            metric.update(np.zeros((3, 2)), np.array([0, 1]))
        with pytest.raises(ValueError, match="argmax"):
            metric.update(np.zeros((3, 2)), np.eye(3, 2))
    for label in (2, -1):
        with pytest.raises(ValueError, match=f"label {label} is outside 0 to 1"):
            Recall().update(np.zeros((3, 2)), np.array([0, 1, label]))


def test_the_confusion_matrix_of_a_model():
    model = network()
    matrix = compute_confusion_matrix(model, UNSEEN)
    assert matrix.shape == (10, 10)
    assert matrix.sum() == 300
    assert np.trace(matrix) / 300 == evaluate_model(model, UNSEEN)["accuracy"]
    assert matrix.sum(axis=1).tolist() == np.bincount(UNSEEN.y, minlength=10).tolist()


# ---------------------------------------------------------------- evaluation leaves no trace

@pytest.mark.parametrize("mode", [True, False])
def test_evaluation_leaves_no_trace(mode):
    model = network(dropped=0.5, normed=True).train(mode)
    before, chance = weights(model), runs.chance({"model": model})
    assert evaluate_model(model, UNSEEN) == evaluate_model(model, UNSEEN)
    assert weights(model) == before
    assert runs.chance({"model": model}) == chance
    assert all(module.training is mode for _, module in model.named_modules())
    assert all(p.grad is None for p in model.parameters())
    assert model(X[:2]).requires_grad, "recording was left off"


# ---------------------------------------------------------------- stopping

def test_stopping_early_with_the_best_weights(tmp_path):
    path = tmp_path / "best"
    seen = some(n=60, size=16)
    whole = trainer(lr=0.05).fit(seen, UNSEEN, epochs=40, quiet=True)
    best = int(np.argmin(whole["val_loss"]))
    assert best < 30, "this test needs a run that overfits"
    short = trainer(lr=0.05)
    history = short.fit(seen, UNSEEN, epochs=40, patience=4, save_best=True, checkpoint_path=path, quiet=True)
    assert history["val_loss"] == whole["val_loss"][:len(history["val_loss"])]
    assert len(history["val_loss"]) < 40
    assert evaluate_model(short.model, UNSEEN)["loss"] == min(history["val_loss"])
    assert modelfiles.load(path)["about"]["val_loss"] == min(history["val_loss"])
    assert modelfiles.load(tmp_path / "best.last")["epoch"] == len(history["val_loss"])


def test_without_save_best_the_last_weights_stay():
    short = trainer(lr=0.05)
    history = short.fit(some(n=60, size=16), UNSEEN, epochs=15, patience=4, quiet=True)
    assert evaluate_model(short.model, UNSEEN)["loss"] == history["val_loss"][-1] > min(history["val_loss"])


def test_what_decides_can_be_chosen():
    one = trainer(lr=0.05)
    history = one.fit(some(n=60, size=16), UNSEEN, epochs=12, save_best=True, monitor="val_accuracy", quiet=True)
    assert evaluate_model(one.model, UNSEEN)["accuracy"] == max(history["val_accuracy"])
    with pytest.raises(ValueError, match=r"monitor='val_f1'.*this run measures loss, accuracy, val_loss, val_accuracy"):
        trainer().fit(some(), UNSEEN, monitor="val_f1", quiet=True)


def test_nan_is_never_the_best():
    stopper = EarlyStopping(patience=2)
    assert [stopper.update(score, network()) for score in (math.nan, math.nan)] == [False, False]
    assert stopper.worn_out
    assert stopper.weights is None


# ---------------------------------------------------------------- same seed, same numbers

def test_same_seed_same_loss_and_another_seed_another():
    one, two, other = (trainer(network(seed, dropped=0.3)).fit(some(), UNSEEN, epochs=3, quiet=True) for seed in (0, 0, 1))
    assert one == two
    assert one["loss"] != other["loss"]


def test_chance_of_others_does_not_shift_dropout():
    def run(draws):
        model = network(dropped=0.5)
        randomness.generator().random(draws)
        return trainer(model).fit(some(shuffle=False), epochs=2, quiet=True)["loss"]

    assert run(0) == run(17)


# ---------------------------------------------------------------- interruptions

class PowerCut(Batches):
    """Fails in the middle of a chosen pass."""

    passes = 0

    def __init__(self, *arguments, fails, **options):
        super().__init__(*arguments, **options)
        self.fails = fails

    def __iter__(self):
        self.passes += 1
        for number, batch in enumerate(super().__iter__()):
            if (self.passes, number) == self.fails:
                raise KeyboardInterrupt
            yield batch


def long_trainer(threads=1):
    model = network(3, dropped=0.4, normed=True)
    optimizer = AdamW(lr=0.01)
    schedule = OneCycleLR(optimizer, 0.02, total_steps=7 * 6)
    return Trainer(model, CrossEntropyLoss(), optimizer, [Accuracy(), F1()], schedule, clip=1.0, threads=threads)


@pytest.mark.parametrize("save_best", [True, False])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_run_goes_on_to_the_same_numbers(tmp_path, save_best, threads, monkeypatch):
    monkeypatch.setattr("tinytorch.fast.parallel.ALONE", 0)
    options = {"epochs": 6, "save_best": save_best, "patience": 5, "quiet": True}
    whole = long_trainer(threads)
    want = whole.fit(some(), UNSEEN, checkpoint_path=tmp_path / "whole.pkl", **options)
    path = tmp_path / "cut.pkl"
    for fails in ((1, 3), (2, 0), (3, 6)):                            # in the first epoch, at the start of one, in its last batch
        cut = long_trainer(threads)
        with pytest.raises(KeyboardInterrupt) as caught:
            cut.fit(PowerCut(X[:200], Y[:200], 32, shuffle=True, fails=fails), UNSEEN, checkpoint_path=path, resume=True, **options)
        assert any("This happened in epoch" in note for note in caught.value.__notes__)
    resumed = long_trainer(threads)
    resumed.model.load_state_dict({name: array + 1 for name, array in resumed.model.state_dict().items()})     # none of it may count
    randomness.manual_seed(99)
    got = resumed.fit(some(), UNSEEN, checkpoint_path=path, resume=True, **options)
    assert got == want
    assert weights(resumed.model) == weights(whole.model)
    last = "cut.last.pkl" if save_best else "cut.pkl"
    assert (tmp_path / last).read_bytes() == (tmp_path / last.replace("cut", "whole")).read_bytes()
    if save_best:
        assert path.read_bytes() == (tmp_path / "whole.pkl").read_bytes()


def test_the_note_says_how_to_go_on(tmp_path):
    with pytest.raises(KeyboardInterrupt) as caught:
        trainer().fit(PowerCut(X[:200], Y[:200], 32, fails=(3, 2)), epochs=5, checkpoint_path=tmp_path / "x", quiet=True)
    assert "epoch 3, training step 2" in caught.value.__notes__[0]
    assert "holds the run up to epoch 2: fit(..., resume=True) goes on from there" in caught.value.__notes__[1]
    assert modelfiles.load(tmp_path / "x")["epoch"] == 2


PROGRAM = """
import os, sys, time
import numpy as np
from tinytorch import randomness
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import BatchNorm1d, Dropout, Linear, Sequential
from tinytorch.core.optimizers import Adam, CosineLR
from tinytorch.core.training import Accuracy, Batches, CrossEntropyLoss, Trainer
from tinytorch.data import digits

path, pause = sys.argv[1], float(sys.argv[2])

class Slow(Batches):
    def __iter__(self):
        for batch in super().__iter__():
            if pause: print("step", flush=True)
            time.sleep(pause)
            yield batch

images, labels = digits()
x = images.reshape(-1, 64)
randomness.manual_seed(5)
model = Sequential(Linear(64, 16), BatchNorm1d(16), ReLU(), Dropout(0.3), Linear(16, 10))
optimizer = Adam(lr=0.01)
trainer = Trainer(model, CrossEntropyLoss(), optimizer, [Accuracy()], CosineLR(optimizer, 40))
history = trainer.fit(Slow(x[:200], labels[:200], 32, shuffle=True), Batches(x[1000:1300], labels[1000:1300], 128), epochs=6,
                      save_best=True, checkpoint_path=path, resume=True, quiet=True)
digest = sum(float(np.abs(a).sum(dtype=np.float64)) for a in model.state_dict().values())
print("result", history["loss"], history["val_loss"], history["lr"], repr(digest))
"""


def program(path, pause):
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(pause)], stdout=subprocess.PIPE, text=True, env=environment)


def test_killed_in_the_middle_of_an_epoch_it_goes_on_to_the_same_numbers(tmp_path):
    with program(tmp_path / "whole.pkl", 0) as whole:
        want = whole.communicate()[0]
    chance = random.Random(0)
    for _ in range(3):
        with program(tmp_path / "killed.pkl", 0.004) as running:
            for _ in range(chance.randint(9, 16)):                   # each gets at least one epoch further, of 7 steps
                running.stdout.readline()
            time.sleep(chance.random() * 0.004)                      # also while a file is written
            running.send_signal(signal.SIGKILL)
    assert (tmp_path / "killed.last.pkl").exists()
    with program(tmp_path / "killed.pkl", 0) as last:
        got = last.communicate()[0]
    assert "result" in want
    assert got == want
    assert (tmp_path / "killed.last.pkl").read_bytes() == (tmp_path / "whole.last.pkl").read_bytes()


def test_a_loader_of_module_10_resumes_too(tmp_path):
    loading = pytest.importorskip("tinytorch.core.dataloader")

    def run(path, epochs, **options):
        one = long_trainer()
        loader = loading.DataLoader(X[:200], Y[:200], batch_size=32, shuffle=True, num_workers=1)
        return one.fit(loader, UNSEEN, epochs=epochs, checkpoint_path=path, quiet=True, **options)

    want = run(tmp_path / "a", 4)
    run(tmp_path / "b", 2)
    assert run(tmp_path / "b", 4, resume=True) == want


def test_generators_anywhere_in_loader_and_model_are_kept():
    class Augment:
        def __init__(self):
            self.random = randomness.spawn()

    class Loader(Batches):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.steps, self.table = [Augment(), {"again": Augment()}], np.zeros(3)

    randomness.manual_seed(0)
    parts = {"model": network(dropped=0.5), "train": Loader(X[:9], Y[:9], 3)}
    kept = runs.chance(parts)
    assert set(kept["inside"]) == {"model.layers.2.random", "train.steps.0.random", "train.steps.1.again.random"}

    def draw():
        inside = [generator.random() for _, generator in runs._generators(parts)]
        return [*inside, randomness.generator().random(), randomness.spawn().random()]

    first = draw()
    runs.restore_chance(kept, parts, "x")
    assert draw() == first
    with pytest.raises(ValueError, match=r"other sources of chance \(train.steps.0.random"):
        runs.restore_chance(kept, {"model": parts["model"], "train": some()}, "x")


def test_resuming_what_cannot_be_resumed(tmp_path, capsys):
    path = tmp_path / "x"
    with pytest.raises(ValueError, match="resume=True needs checkpoint_path="):
        trainer().fit(some(), resume=True, quiet=True)
    with pytest.raises(FileNotFoundError, match="there is no"):
        trainer().fit(some(), resume=tmp_path / "nothing", quiet=True)
    trainer().fit(some(), epochs=1, checkpoint_path=path, resume=True)
    assert "starting at epoch 1" in capsys.readouterr().out
    other = Trainer(Sequential(Linear(64, 10)), CrossEntropyLoss(), Adam())
    with pytest.raises(modelfiles.ModelFileError, match=r"another architecture: layers.0.weight has the shape \(64, 16\) in the file"):
        other.fit(some(), checkpoint_path=path, resume=True, quiet=True)
    with pytest.raises(ValueError, match="not the state of SGD"):
        Trainer(network(), CrossEntropyLoss(), SGD()).fit(some(), checkpoint_path=path, resume=True, quiet=True)
    adam = Adam()
    with pytest.raises(ValueError, match="written without a scheduler, this Trainer has one"):
        Trainer(network(), CrossEntropyLoss(), adam, scheduler=CosineLR(adam, 9)).fit(some(), checkpoint_path=path, resume=True, quiet=True)
    modelfiles.save_model(path, network())
    with pytest.raises(modelfiles.ModelFileError, match="no checkpoint of a run"):
        trainer().fit(some(), checkpoint_path=path, resume=True, quiet=True)


def test_a_finished_run_is_not_run_again_but_may_be_made_longer(tmp_path):
    def run(epochs):
        return trainer().fit(some(), UNSEEN, epochs=epochs, checkpoint_path=tmp_path / "x", resume=True, quiet=True)

    short = run(3)
    assert run(3) == short
    assert run(5) == trainer().fit(some(), UNSEEN, epochs=5, quiet=True)
    worn = trainer(lr=0.05).fit(some(n=60), UNSEEN, epochs=30, patience=2, checkpoint_path=tmp_path / "y", quiet=True)
    assert trainer(lr=0.05).fit(some(n=60), UNSEEN, epochs=30, patience=2, checkpoint_path=tmp_path / "y", resume=True, quiet=True) == worn


FULL = """
import resource, sys
from pathlib import Path
from tests.unit.test_training import UNSEEN, some, trainer
path = Path(sys.argv[1])
one = trainer()
one.fit(some(), UNSEEN, epochs=1, checkpoint_path=path, quiet=True)
before = path.read_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
try:
    one.fit(some(), UNSEEN, epochs=3, checkpoint_path=path, quiet=True)
except OSError as error:
    print(error, error.__notes__, path.read_bytes() == before, len(list(path.parent.iterdir())))
"""


def test_no_room_for_a_checkpoint_keeps_the_old_one(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "x")], capture_output=True, text=True, cwd=REPO,
                          env={**os.environ, "PYTHONPATH": str(REPO)})
    assert "the old x is kept" in done.stdout, done.stdout + done.stderr
    assert "This happened in epoch 1" in done.stdout
    assert done.stdout.strip().endswith("True 1")


# ---------------------------------------------------------------- bad input

def exploding(name):
    @op
    def broken(x):
        return np.where(np.arange(x.size).reshape(x.shape) == 3, np.nan, x)

    @broken.backward
    def _(grad, out, x):
        return grad

    class Broken(Module):
        def forward(self, x):
            return broken(x)

    Broken.__name__ = name
    return Broken()


def test_nan_names_the_layer_the_epoch_and_the_step():
    randomness.manual_seed(0)
    model = Sequential(Linear(64, 8), ReLU(), Sequential(Linear(8, 8), exploding("Attention")), Linear(8, 10))
    before = weights(model)
    text = r"epoch 1, training step 1: the loss is nan: layers.2.layers.1 \(Attention\) is the first layer"
    with pytest.raises(FloatingPointError, match=text):
        trainer(model).fit(some(), epochs=2, quiet=True)
    assert weights(model) == before
    assert [type(layer).__name__ for layer in model.layers] == ["Linear", "ReLU", "Sequential", "Linear"], "the layers were put back"


def test_nan_in_the_data_in_a_weight_and_in_the_loss():
    x = X[:100].copy()
    x[70, 3] = np.nan
    text = "epoch 1, training step 3: the loss is nan: the batch itself is not finite, first in its example 6"
    with pytest.raises(FloatingPointError, match=text):
        trainer().fit(Batches(x, Y[:100], 32), quiet=True)
    model = network()
    model[3].bias.data = np.full(10, np.inf)
    with pytest.raises(FloatingPointError, match=r"the parameter layers.3.bias is not finite"), np.errstate(all="ignore"):
        trainer(model).fit(some(), quiet=True)
    odd = Trainer(network(), lambda scores, y: CrossEntropyLoss()(scores, y) * np.inf, Adam())
    with pytest.raises(FloatingPointError, match="every layer's output is finite: look at the loss function"), np.errstate(all="ignore"):
        odd.fit(some(), quiet=True)


def test_a_rate_that_is_too_high_is_told_with_its_cure():
    text = r"epoch \d, training step \d+: .*(smaller learning rate|lower the rate)"
    with pytest.raises(FloatingPointError, match=text), np.errstate(all="ignore"):
        trainer(lr=1e30).fit(some(), epochs=3, quiet=True)


@pytest.mark.parametrize(("loader", "error", "text"), [
    (iter([(X[:4], Y[:4])]), TypeError, "train is a list_iterator, which is used up after one epoch of 2"),
    ((pair for pair in [(X[:4], Y[:4])]), TypeError, "train is a generator"),
    ([], ValueError, "no batch at all"),
    (7, TypeError, "train should give batches"),
    ([(X[:4], Y[:3])], ValueError, "4 inputs and 3 targets"),
    ([(X[:0], Y[:0])], ValueError, "a batch is empty"),
    ([X[:4]], TypeError, r"should be a pair \(x, y\), this one is a ndarray"),
    ([(X[:4], Y[:4], 1)], TypeError, "a tuple of 3 parts"),
    ([(X[:4], Y[:4] + 7)], ValueError, "label 1[0-9] is outside 0 to 9"),
    ([(X[:4], Y[:4] - 9)], ValueError, "label -[0-9] is outside 0 to 9"),
    ([(X[:4], np.eye(10)[Y[:4]])], ValueError, "argmax"),
    ([(X[:4, :60], Y[:4])], ValueError, "64"),
])
def test_loaders_that_are_none(loader, error, text):
    with pytest.raises(error, match=text):
        trainer().fit(loader, epochs=2, quiet=True)


def test_errors_in_the_loop_say_where(tmp_path):
    good = (X[:4], Y[:4])
    with pytest.raises(ValueError, match="outside") as caught:
        trainer().fit([good, good, (X[:4], Y[:4] + 9)], epochs=2, quiet=True)
    assert caught.value.__notes__[0] == "This happened in epoch 1, training step 3."
    with pytest.raises(ValueError, match="outside") as caught:
        trainer().fit([good], [good, (X[:4], Y[:4] + 9)], epochs=2, quiet=True)
    assert caught.value.__notes__[0] == "This happened in epoch 1, evaluation step 2."


def test_one_epoch_of_an_iterator_is_fine_and_evaluating_nothing_is_not():
    assert len(trainer().fit(iter(some()), epochs=1, quiet=True)["loss"]) == 1
    with pytest.raises(ValueError, match="no batch at all"):
        evaluate_model(network(), [])
    used_up = iter(UNSEEN)
    evaluate_model(network(), used_up)
    with pytest.raises(ValueError, match="used up before"):
        evaluate_model(network(), used_up)


def test_an_optimizer_of_another_model_and_wrong_epochs():
    with pytest.raises(ValueError, match="no parameter of this model"):
        Trainer(network(), CrossEntropyLoss(), Adam(network().parameters())).fit(some(), quiet=True)
    for epochs in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match="give a whole number from 1"):
            trainer().fit(some(), epochs=epochs, quiet=True)


def test_an_optimizer_without_parameters_is_bound():
    adam = Adam(lr=0.01)
    one = Trainer(network(), CrossEntropyLoss(), adam)
    assert [id(p) for p in adam.parameters] == [id(p) for p in one.model.parameters()]
    some_of_them = SGD(one.model[0].parameters(), lr=0.1)
    frozen = one.model[3].weight.data.copy()
    Trainer(one.model, CrossEntropyLoss(), some_of_them).fit(some(), quiet=True)
    assert np.array_equal(one.model[3].weight.data, frozen)


# ---------------------------------------------------------------- what is shown

def test_lines_where_there_is_no_terminal_and_none_when_quiet(capsys):
    trainer().fit(some(), UNSEEN, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    results = r"loss [\d.]+  accuracy [\d.]+%  val_loss [\d.]+  val_accuracy [\d.]+%"
    assert re.fullmatch(rf"epoch 1/2  {results}  [\d.]+ s, [\d,]+ examples/s, [\d.]+ s left", lines[0])
    assert lines[-1].startswith("epoch 2/2")
    trainer().fit(some(), epochs=2, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_long_epochs_show_steps_and_speed(monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    shown = io.StringIO()
    watched = progress.Progress(3, stream=shown)
    list(watched.watch(some(n=100), "epoch 1/3, training"))
    first, *_, last = shown.getvalue().splitlines()
    assert re.fullmatch(r"epoch 1/3, training, step 1/4: [\d,]+ examples/s, [\d.]+ s left in it", first)
    assert "step 4/4" in last


def test_a_bar_on_a_terminal():
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    watched = progress.Progress(2, stream=shown)
    assert len(list(watched.watch(some(n=100), "epoch 1/2, training"))) == 4
    watched.end_of_epoch(1, {"loss": 0.5}, 1.0, last=False)
    watched.close()
    assert re.search(r"epoch 1/2  loss 0.5  1.00 s, [\d,]+ examples/s", shown.getvalue())


@pytest.mark.parametrize(("seconds", "text"), [(0.314, "0.31 s"), (42.3, "42 s"), (185, "3:05 min"), (7620, "2:07 h"), (3600, "1:00 h")])
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_pictures_are_written_without_a_screen(tmp_path, suffix):
    history = {"loss": [1.0, 0.5], "val_loss": [1.1, 0.7], "accuracy": [0.5, 0.8], "val_accuracy": [0.4, 0.7], "lr": [0.1, 0.1]}
    figure = plot_training_history(history, path=tmp_path / f"curve{suffix}", title="title")
    assert [axis.get_title() for axis in figure.axes] == ["loss", "accuracy"]
    names = [f"digit {i}" for i in range(10)]
    plot_confusion_matrix(confusion_matrix(Y[:50], Y[50:100], 10), path=tmp_path / f"matrix{suffix}", names=names)
    assert all((tmp_path / f"{name}{suffix}").stat().st_size > 1000 for name in ("curve", "matrix"))
    with pytest.raises(ValueError, match="empty"):
        plot_training_history({})
    with pytest.raises(ValueError, match="square"):
        plot_confusion_matrix(np.zeros((2, 3)))


def test_importing_draws_nothing_in():
    heavy = ("matplotlib", "rich", "yaml", "pydantic", "torch")
    code = f"import sys, tinytorch.core.training; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPO)
    assert done.stdout.strip() == "[]", textwrap.indent(done.stderr, "  ")


# ---------------------------------------------------------------- batches

@patient
@given(n=st.integers(1, 50), size=st.integers(1, 60), shuffle=st.booleans())
def test_batches_hold_every_pair_once(n, size, shuffle):
    x = np.arange(n) * 10
    loader = Batches(x, np.arange(n), size, shuffle=shuffle)
    parts = list(loader)
    assert len(loader) == len(parts)
    assert all(np.array_equal(a, b * 10) for a, b in parts)
    assert sorted(np.concatenate([b for _, b in parts])) == list(range(n))
    assert all(len(b) == size for _, b in parts[:-1])


def test_batches_refuse_what_does_not_fit_and_shuffle_anew():
    with pytest.raises(ValueError, match="3 inputs and 2 targets"):
        Batches(np.ones(3), np.ones(2))
    for arguments in ((np.ones(0), np.ones(0)), (np.ones(3), np.ones(3), 0)):
        with pytest.raises(ValueError, match="there would be no batch"):
            batches.Batches(*arguments)
    randomness.manual_seed(0)
    loader = Batches(np.arange(100), np.arange(100), 100, shuffle=True)
    (first, _), = loader
    (second, _), = loader
    assert not np.array_equal(first, second)


def test_the_names_that_were_promised():
    for name in ("Trainer", "CrossEntropyLoss", "Accuracy", "evaluate_model", "plot_training_history", "compute_confusion_matrix",
                 "Precision", "Recall", "F1", "MSELoss", "EarlyStopping"):
        assert hasattr(training, name)
    assert training.MSELoss is MSELoss
