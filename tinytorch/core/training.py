# Generated from course/modules/source/08_training/training_dev.py by "python -m course.build": edit it there.

"""Training: steps make an epoch, epochs make a run, and data that was not learned from says when to stop."""
import math
import numpy as np
from tinytorch.given.batches import Batches
from tinytorch.core.autograd import no_grad
from tinytorch.core.losses import BCEWithLogitsLoss, CrossEntropyLoss, L1Loss, MAELoss, MSELoss  # noqa: F401
from tinytorch.core.optimizers import clip_grad_norm
from tinytorch.core.tensor import Tensor
from tinytorch.given.metrics import Accuracy, matrix_metrics
from tinytorch.modelfiles import load_model, save_model  # noqa: F401
from tinytorch.plots import plot_confusion_matrix, plot_training_history
from tinytorch.given.runs import Run, checked, step_function


def loss_and_gradients(model, loss, x, y):
    """Forward and backward for one batch: its loss, a float, and its scores, an array; gradients are added to the parameters."""
    scores = model(x)
    value = loss(scores, y)
    value.backward()
    return value.item(), scores.data


def take_step(model, loss, optimizer, x, y, *, clip=None, gradients=loss_and_gradients):
    """Move the parameters by what one batch says; returns its loss and scores from before."""
    optimizer.zero_grad()
    value, scores = gradients(model, loss, x, y)
    if clip is not None:
        clip_grad_norm(model.parameters(), clip)
    optimizer.step()
    return value, scores


class Tally:
    """Mean loss and metrics over all examples of an epoch, whatever the sizes of its batches."""

    def __init__(self, metrics=()):
        self.metrics, self.total, self.seen = list(metrics), 0.0, 0
        for each in self.metrics: each.reset()

    def add(self, loss, scores, y):
        self.total += loss * len(y)
        self.seen += len(y)
        for metric in self.metrics:
            metric.update(scores, y)

    def results(self):
        return {"loss": self.total / self.seen} | {metric.name: metric.compute() for metric in self.metrics}


def train_epoch(model, loss, optimizer, loader, metrics=(), *, scheduler=None, clip=None, gradients=loss_and_gradients):
    """One step per batch; mean loss and metrics of all examples, each measured before its step."""
    model.train()
    tally = Tally(metrics)
    for x, y in loader:
        value, scores = take_step(model, loss, optimizer, x, y, clip=clip, gradients=gradients)
        if scheduler is not None: scheduler.step()
        tally.add(value, scores, y)
    return tally.results()


def evaluate_model(model, loader, loss=None, metrics=None):
    """Mean loss and metrics of a model on a loader, without learning from it: {"loss": ..., "accuracy": ...}."""
    loss, tally, loader = loss or CrossEntropyLoss(), Tally([Accuracy()] if metrics is None else metrics), checked(loader)
    was_training = model.training
    model.eval()
    with no_grad():
        for x, y in loader:
            scores = model(x)
            tally.add(loss(scores, y).item(), scores.data, y)
    model.train(was_training)
    return tally.results()


def confusion_matrix(labels, predicted, classes):
    """How often a label (row) was taken for a class (column): ints (classes, classes)."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix

def precision_recall(matrix):
    """Per class: the share of what was taken for it that is it, and the share of what is it that was found. 0 / 0 is 0."""
    right, named, there = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return right / np.maximum(named, 1), right / np.maximum(there, 1)


Precision, Recall, F1 = matrix_metrics(confusion_matrix, precision_recall)      # metrics like Accuracy; F1 is 2pr / (p + r)

def compute_confusion_matrix(model, loader):
    """The confusion matrix of a model on a loader: ints (classes, classes), rows are labels."""
    counted = Recall()
    evaluate_model(model, loader, lambda scores, y: Tensor(0), [counted])
    return counted.matrix


class EarlyStopping:
    """Keeps the best weights, and says when `patience` epochs have passed without better ones. Less is better."""

    def __init__(self, patience=None):
        self.patience, self.best, self.waited, self.weights = patience, math.inf, 0, None

    def update(self, score, model):
        """Take an epoch's score into account; True if it is the best so far."""
        better = score < self.best
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best, self.weights = score, model.state_dict()
        return better

    @property
    def worn_out(self): return self.patience is not None and self.waited >= self.patience


class Trainer:
    """A model, what it minimises, and how. `fit` trains it; `history` has one number per epoch and quantity."""

    def __init__(self, model, loss, optimizer, metrics=(), scheduler=None, clip=None, threads=1, gradients=loss_and_gradients):
        self.model, self.loss, self.optimizer, self.metrics = model, loss, optimizer, list(metrics)
        self.scheduler, self.clip, self.history = scheduler, clip, {}
        self.gradients = step_function(gradients, threads)
        if not optimizer.parameters: optimizer.bind(model.named_parameters())

    def fit(self, train, val_dataloader=None, epochs=1, *, save_best=False, patience=None, **options):
        """Train; returns the history, {"loss": [...], ...}. Options: checkpoint_path, resume, monitor, quiet, on_epoch (see `Run`)."""
        stopper = EarlyStopping(patience)
        with Run(self, stopper, train, val_dataloader, epochs=epochs, save_best=save_best, **options) as run:
            for _ in run.epochs():
                row = train_epoch(self.model, self.loss, self.optimizer, run.watch(train), self.metrics,
                                  scheduler=self.scheduler, clip=self.clip, gradients=self.gradients)
                if val_dataloader is not None:
                    unseen = evaluate_model(self.model, run.watch(val_dataloader), self.loss, self.metrics)
                    row |= {f"val_{name}": value for name, value in unseen.items()}
                better = stopper.update(run.score(row), self.model)
                run.keep(row, better)
                if stopper.worn_out: break
        return self.history
