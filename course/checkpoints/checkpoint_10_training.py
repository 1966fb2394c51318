"""Can I build complete training loops? Steps, epochs and measures against softmax regression in plain NumPy, then real digits."""

import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np

from course.checkpoints.support import agree, fast, refused
from tinytorch import randomness
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Dropout, Linear, Module, Sequential
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.optimizers import SGD, Adam, StepLR
from tinytorch.core.training import (
    F1,
    Accuracy,
    EarlyStopping,
    Precision,
    Recall,
    Tally,
    Trainer,
    compute_confusion_matrix,
    confusion_matrix,
    evaluate_model,
    loss_and_gradients,
    precision_recall,
    take_step,
    train_epoch,
)
from tinytorch.data import digits
from tinytorch.given.batches import Batches

IMAGES, Y = digits()
X = IMAGES.reshape(-1, 64)
RATE = 0.5


class Plain:
    """Softmax regression in float64: the same steps by another road."""

    def __init__(self, model):
        self.w, self.b = (np.array(p.data, np.float64) for p in model.parameters())

    def gradients(self, x, y):
        """Scores, mean loss, and the gradients of weight and bias."""
        scores = x.astype(np.float64) @ self.w + self.b
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        loss = -np.log(shares[np.arange(len(y)), y]).mean()
        shares[np.arange(len(y)), y] -= 1
        return scores, loss, x.T @ shares / len(y), shares.sum(axis=0) / len(y)

    def step(self, x, y, clip=None, rate=RATE):
        scores, loss, dw, db = self.gradients(x, y)
        length = np.sqrt((dw * dw).sum() + (db * db).sum())
        shorter = 1 if clip is None else min(1, clip / length)
        self.w -= rate * shorter * dw
        self.b -= rate * shorter * db
        return scores, loss

    def accuracy(self, x, y):
        return ((x @ self.w + self.b).argmax(axis=1) == y).mean()


def _linear(seed=0):
    randomness.manual_seed(seed)
    return Linear(64, 10)


def _cut(*sizes):
    """Batches of the first digits, of these sizes."""
    edges = np.cumsum([0, *sizes])
    return [(X[a:b], Y[a:b]) for a, b in pairwise(edges)]


def _is_loss_and_scores(got, what):
    kinds = [type(part).__name__ for part in got] if isinstance(got, tuple) else [type(got).__name__]
    assert kinds == ["float", "ndarray"], f"{what} should return the loss, a float, and the scores, an array; got {' and '.join(kinds)}"


def can_find_loss_and_gradients_of_a_batch():
    model = _linear()
    plain, weight, bias = Plain(model), 0, 0
    for times, (x, y) in enumerate(_cut(32, 7), 1):
        got = loss_and_gradients(model, CrossEntropyLoss(), x, y)
        scores, loss, dw, db = plain.gradients(x, y)
        _is_loss_and_scores(got, "loss_and_gradients")
        agree(got[0], loss, "the loss", rtol=1e-4)
        agree(got[1], scores, "the scores", atol=1e-4)
        agree(model.weight.data, plain.w, "the weight, which only an optimizer moves,")
        weight, bias = weight + dw, bias + db
        agree(model.weight.grad, weight, f"the gradient of the weight after {times} calls", atol=1e-5)
        agree(model.bias.grad, bias, f"the gradient of the bias after {times} calls", atol=1e-5)


def can_step_against_the_gradients():
    for clip in (None, 0.3):
        model = _linear()
        plain, sgd = Plain(model), SGD(model.parameters(), lr=RATE)
        for number, (x, y) in enumerate(_cut(32, 32, 9, 1, 32), 1):
            got = take_step(model, CrossEntropyLoss(), sgd, x, y, clip=clip)
            _is_loss_and_scores(got, "take_step")
            scores, loss = plain.step(x, y, clip)
            agree(got[0], loss, f"the loss before step {number}", rtol=1e-4, atol=1e-4)
            agree(got[1], scores, f"the scores before step {number}", atol=1e-4)
            agree(model.weight.data, plain.w, f"the weight after step {number} with clip={clip}", atol=1e-4)
            agree(model.bias.data, plain.b, f"the bias after step {number} with clip={clip}", atol=1e-4)


def can_weigh_every_example_alike():
    tally = Tally([Accuracy()])
    for loss, examples in ((1.0, 3), (5.0, 1)):
        tally.add(loss, np.eye(2)[[0] * examples], np.arange(examples) % 2)
    got = tally.results()
    assert list(got) == ["loss", "accuracy"], f"results() should have loss and accuracy, it has {list(got)}"
    agree(got["loss"], 2.0, "the mean loss of 3 examples with 1.0 and 1 with 5.0")
    agree(got["accuracy"], 0.75, "the accuracy of 3 right answers among 4")


def can_run_an_epoch():
    model = _linear().eval()
    plain, sgd = Plain(model), SGD(model.parameters(), lr=RATE)
    rates = StepLR(sgd, step_size=2, gamma=0.1)
    got = train_epoch(model, CrossEntropyLoss(), sgd, _cut(32, 32, 16), [Accuracy()], scheduler=rates, clip=2.0)
    losses, right = 0.0, 0
    for number, (x, y) in enumerate(_cut(32, 32, 16)):
        scores, loss = plain.step(x, y, clip=2.0, rate=RATE * (0.1 if number == 2 else 1))
        losses, right = losses + loss * len(y), right + (scores.argmax(axis=1) == y).sum()
    agree(got["loss"], losses / 80, "the mean loss of an epoch", rtol=1e-4)
    agree(got["accuracy"], right / 80, "the accuracy of an epoch")
    agree(model.weight.data, plain.w, "the weight after an epoch with a scheduler", atol=1e-4)
    assert model.training, "an epoch of training should leave the model in training mode"
    calls = []
    train_epoch(model, CrossEntropyLoss(), sgd, _cut(4, 4), gradients=lambda *batch: calls.append(1) or loss_and_gradients(*batch))
    assert len(calls) == 2, f"a function given as gradients= should be called for each of 2 batches, it was called {len(calls)} times"


def can_measure_without_learning():
    model = _linear()
    plain = Plain(model)
    net = Sequential(model, Dropout(0.5))
    for mode in (True, False):
        net.train(mode)
        got = evaluate_model(net, _cut(100, 100, 30))
        _, loss, *_ = plain.gradients(X[:230], Y[:230])
        assert set(got) == {"loss", "accuracy"}, f"evaluate_model should return loss and accuracy, it returns {list(got)}"
        agree(got["loss"], loss, "the loss of 230 digits (Dropout switched off, every digit counted once)", rtol=1e-4)
        agree(got["accuracy"], plain.accuracy(X[:230], Y[:230]), "the accuracy of 230 digits")
        assert net.training is net[1].training is mode, f"the model came with training = {mode} and left with {net[1].training}"
    assert all(p.grad is None for p in net.parameters()), "evaluate_model left gradients behind"
    recorded = []

    class Watched(Module):
        def __init__(self):
            self.inner = model

        def forward(self, x):
            out = self.inner(x)
            recorded.append(out.requires_grad)
            return out

    evaluate_model(Watched(), _cut(4))
    assert recorded == [False], "evaluate_model recorded a graph: nobody will walk it"
    mine = evaluate_model(model, _cut(5), lambda scores, y: scores.sum() * 0 + 7, [F1()])
    assert list(mine) == ["loss", "f1"], f"with its own loss and metric it should return loss and f1, it returns {list(mine)}"
    agree(mine["loss"], 7.0, "a loss that is always 7")


def _taken_for(labels, predicted, classes):
    pairs = list(zip(labels.tolist(), predicted.tolist(), strict=True))
    return np.array([[pairs.count((a, b)) for b in range(classes)] for a in range(classes)])


def can_count_what_is_taken_for_what():
    for seed, (classes, n) in enumerate([(3, 50), (10, 200), (2, 1)]):
        rng = np.random.default_rng(seed)
        labels, predicted = rng.integers(classes, size=n), rng.integers(classes, size=n)
        agree(confusion_matrix(labels, predicted, classes), _taken_for(labels, predicted, classes), f"the matrix of {n} answers")
    model = _linear()
    predicted = (X[:90] @ model.weight.data + model.bias.data).argmax(axis=1)
    agree(compute_confusion_matrix(model, _cut(40, 50)), _taken_for(Y[:90], predicted, 10), "the confusion matrix of a model")


def can_tell_precision_from_recall():
    matrix = np.array([[8, 2, 0], [1, 4, 0], [3, 0, 0]])
    precision, recall = precision_recall(matrix)
    agree(precision, [8 / 12, 4 / 6, 0], "the precision of each class")
    agree(recall, [0.8, 0.8, 0], "the recall of each class")
    labels, predicted = (np.repeat(places, matrix.ravel()) for places in np.indices((3, 3)).reshape(2, -1))
    harmonic = [2 * p * r / (p + r) if p + r else 0 for p, r in zip(precision, recall, strict=True)]
    for metric, want in ((Precision(), precision), (Recall(), recall), (F1(), harmonic)):
        for part in np.array_split(np.arange(len(labels)), 4):
            metric.update(np.eye(3)[predicted[part]], labels[part])
        agree(metric.compute(), np.mean(want), f"the mean {metric.name}")


def can_keep_the_best_and_stop_in_time():
    model, stopper = _linear(), EarlyStopping(patience=2)
    events = [(3.0, True, False), (np.nan, False, False), (2.0, True, False), (2.0, False, False), (2.5, False, True), (1.0, True, False)]
    for epoch, (score, better, worn) in enumerate(events, 1):
        model.bias.data = np.full(10, epoch)
        got = stopper.update(score, model), stopper.worn_out
        assert got == (better, worn), f"after {score} in epoch {epoch}: expected better, worn_out = {better, worn}, got {got}"
        if epoch == 5:
            model.bias.data[:] = -1                     # what goes on with the living weights is not the stopper's business
            agree(stopper.weights["bias"], np.full(10, 3), "the weights of the best epoch, which was the third,")
            model.bias.data[:] = 5
    forever = EarlyStopping()
    for _ in range(9):
        forever.update(float("inf"), model)
    assert not forever.worn_out, "without patience a run is never worn out"


def _network(seed=0, dropped=0.0):
    randomness.manual_seed(seed)
    return Sequential(Linear(64, 64), ReLU(), Dropout(dropped), Linear(64, 10))


def _trainer(seed=0, dropped=0.2, **options):
    return Trainer(_network(seed, dropped), CrossEntropyLoss(), Adam(lr=0.01), [Accuracy()], **options)


SEEN, UNSEEN = (lambda: Batches(X[:1000], Y[:1000], 50, shuffle=True)), Batches(X[1000:], Y[1000:], 200)


def can_train_a_network_that_reads_digits():
    one = _trainer()
    history = one.fit(SEEN(), UNSEEN, epochs=6, quiet=True)
    assert {name: len(values) for name, values in history.items()} == dict.fromkeys(
        ["loss", "accuracy", "val_loss", "val_accuracy", "lr"], 6), f"expected 6 numbers for each quantity, got {history}"
    read = history["val_accuracy"][-1]
    assert read > 0.9, f"after 6 epochs more than 90 % of unseen digits should be read, {read:.1%} are"
    agree(history["val_loss"][-1], evaluate_model(one.model, UNSEEN)["loss"], "the last val_loss in the history")
    assert one.fit(SEEN(), quiet=True).keys() == {"loss", "accuracy", "lr"}, "without a validation loader nothing should be validated"


def can_follow_clip_and_schedule_in_a_trainer():
    model = _linear()
    plain, sgd = Plain(model), SGD(lr=RATE)
    rates = StepLR(sgd, step_size=3, gamma=0.1)
    history = Trainer(model, CrossEntropyLoss(), sgd, scheduler=rates, clip=0.3).fit(_cut(32, 32), epochs=2, quiet=True)
    for number, (x, y) in enumerate(_cut(32, 32) * 2):
        plain.step(x, y, clip=0.3, rate=RATE * (0.1 if number == 3 else 1))
    agree(model.weight.data, plain.w, "the weight after 2 epochs with clip and scheduler", atol=1e-4)
    agree(history["lr"], [RATE, 0.1 * RATE], "the rates in the history")


def can_end_with_the_best_epoch():
    few = Batches(X[:60], Y[:60], 15, shuffle=True)
    whole = _trainer(dropped=0.0).fit(few, UNSEEN, epochs=25, quiet=True)["val_loss"]
    best = int(np.argmin(whole))
    one = _trainer(dropped=0.0)
    stopped = one.fit(few, UNSEEN, epochs=25, patience=3, save_best=True, quiet=True)["val_loss"]
    first = next(i for i in range(25) if i >= 3 and min(whole[:i - 2]) <= min(whole[i - 2:i + 1]))
    assert best < 20, "this checkpoint expects a run that overfits"
    agree(stopped, whole[:first + 1], "the val_loss of a run with patience=3")
    agree(evaluate_model(one.model, UNSEEN)["loss"], min(stopped), "the val_loss of the model that is kept")


def can_repeat_a_run_to_the_last_digit():
    one, two, other = (_trainer(seed).fit(SEEN(), UNSEEN, epochs=2, quiet=True) for seed in (0, 0, 1))
    assert one == two, f"the same seed should give the same numbers, it gave {one['val_loss']} and {two['val_loss']}"
    assert one["loss"] != other["loss"], "another seed should give other numbers"


def can_go_on_after_an_interruption():
    class PowerCut(Batches):
        passes = 0

        def __iter__(self):
            self.passes += 1
            for number, batch in enumerate(super().__iter__()):
                if (self.passes, number) == (3, 7):
                    raise KeyboardInterrupt
                yield batch

    whole = _trainer().fit(SEEN(), UNSEEN, epochs=4, quiet=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.pkl")
        try:
            _trainer().fit(PowerCut(X[:1000], Y[:1000], 50, shuffle=True), UNSEEN, epochs=4, checkpoint_path=path, quiet=True)
            raise AssertionError("an interruption should end fit(), it went on")
        except KeyboardInterrupt:
            pass
        resumed = _trainer().fit(SEEN(), UNSEEN, epochs=4, checkpoint_path=path, resume=True, quiet=True)
    assert resumed == whole, f"resumed: {resumed['val_loss']}, in one go: {whole['val_loss']}"


def can_say_where_training_broke():
    with np.errstate(all="ignore"):
        said = refused(FloatingPointError, _trainer().fit, [*_cut(8, 8), (X[:4] * np.float32(np.nan), Y[:4])], quiet=True)
    assert "epoch 1, training step 3" in said, f"the error should name epoch 1 and step 3: {said}"
    said = refused(TypeError, _trainer().fit, iter(_cut(8, 8)), epochs=2, quiet=True)
    assert "used up" in said, f"a loader that can be walked once should be refused as used up: {said}"


def can_do_it_at_the_speed_of_what_lies_below():
    model, loss = _network(), CrossEntropyLoss()
    x, y = X[:512], Y[:512]
    labels, predicted = np.arange(200_000) % 10, np.arange(200_000) % 7
    large, batches = np.arange(1_000_000).reshape(1000, 1000), [(x, y)] * 4
    fast(lambda: loss_and_gradients(model, loss, x, y), lambda: loss(model(x), y).backward(), "loss and gradients of 512 digits", times=4)
    fast(lambda: evaluate_model(model, batches), lambda: [loss(model(a), b) for a, b in batches], "evaluating 2,048 digits", times=4)
    fast(lambda: compute_confusion_matrix(model, batches), lambda: [model(a) for a, _ in batches], "their confusion matrix", times=5)
    fast(lambda: confusion_matrix(labels, predicted, 10), lambda: np.add.at(np.zeros((10, 10), int), (labels, predicted), 1),
         "the matrix of 200,000 answers", times=4)
    fast(lambda: precision_recall(large), lambda: (large.sum(axis=0), large.sum(axis=1)), "precision and recall of 1,000 classes", times=4)
