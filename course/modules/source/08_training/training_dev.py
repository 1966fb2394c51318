# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown] nbgrader={"grade": false, "grade_id": "question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# # Module 08: Training
#
# **The question: how do steps become training, and when should it stop?**
#
# A loss, its gradients and an optimizer make one step. Here thousands of steps become a trained network: they are counted
# in **epochs** (one pass over the data), each epoch is measured on data that nobody learned from, the best one is kept, and a
# run that was interrupted goes on to the same numbers.
#
# At the end your `Trainer` reads real digits, and two figures show what early stopping saves and how much luck a seed is.
# About 180 minutes. Needed: layers (04), losses (05), `backward` and `no_grad` (06), optimizers (07).

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import numpy as np
from tinytorch import randomness
from tinytorch.testing.checking import needs, same
from tinytorch.core import layers, losses, optimizers
from tinytorch.core.activations import ReLU
from tinytorch.core.layers import Dropout, Linear, Sequential
from tinytorch.core.optimizers import SGD, Adam, StepLR
from tinytorch.data import digits

def line(weight=2, bias=1, lr=0.1):
    """The model weight * x + bias, and an SGD for it."""
    model = Linear(1, 1)
    model.load_state_dict({"weight": np.float32([[weight]]), "bias": np.float32([bias])})
    return model, SGD(model.parameters(), lr=lr)

def made_of(got): return list(got) if isinstance(got, dict) else [type(part).__name__ for part in got] if isinstance(got, tuple) else [got]

def moved():
    model, sgd = line()
    losses.CrossEntropyLoss()(model([[1.0]]) * [[-1, 1]], [0]).backward()
    sgd.step()
    return 1.80 < model.weight.item() < 1.81

needs("04", layers, "Dropout does nothing after eval()", lambda: Dropout(0.5).eval()([[1.0]]).item() == 1)
needs("07", optimizers, "cross-entropy (05), backward() (06) and SGD move the weight of 2x + 1 from 2 to 1.8", moved)

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
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

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary>A parameter has the gradient 3. What has it after a <code>backward()</code> whose own share is 2?</summary>
# 5: gradients add up until <code>zero_grad()</code>.</details>
# <details><summary>What do <code>model.train()</code> and <code>model.eval()</code> switch?</summary>
# How Dropout and BatchNorm behave. They do not train or evaluate anything.</details>
# <details><summary>What does <code>no_grad()</code> leave out?</summary>
# The graph that <code>backward()</code> would walk: memory and time.</details>

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
images, labels = digits()
pixels = images.reshape(len(images), 64)
seen = Batches(pixels[:300], labels[:300], batch_size=32, shuffle=True)     # a new order in every pass
unseen = Batches(pixels[1000:], labels[1000:], batch_size=400)

def network(seed, dropped=0.0):
    """64 pixels, two hidden layers, 10 classes; the seed decides everything that is drawn from now on."""
    randomness.manual_seed(seed)
    return Sequential(Linear(64, 128), ReLU(), Linear(128, 128), ReLU(), Dropout(dropped), Linear(128, 10))

model, loss, others = network(seed=0), CrossEntropyLoss(), []
optimizer = Adam(model.parameters(), lr=0.01)
for epoch in range(1, 41):
    for x, y in seen:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    known, other = (loss(model(part.x), part.y).item() for part in (seen, unseen)); others.append(other)
    if epoch in (1, 40): print(f"epoch {epoch:2}: loss {known:.4f} on the 300 digits learned from, {other:.3f} on 797 others")
print(f"lowest of all epochs: {min(others):.3f} on the others")

# %% [markdown] nbgrader={"grade": false, "grade_id": "loss-and-gradients-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## One step (40 minutes)
#
# Learning went well: the loss on the 300 digits fell and fell. On all other digits a network on the way was better than the last
# one, and the loop neither noticed nor kept it. You build what notices, beginning with the step. By hand, for the model
# `2x + 1`, two examples, and the mean of squared differences as loss:
#
# | x | prediction | target | difference d | d² | 2d times x | 2d |
# |---|---|---|---|---|---|---|
# | 1 | 3 | 4 | -1 | 1 | -2 | -2 |
# | 3 | 7 | 5 | 2 | 4 | 12 | 4 |
# | | | | **mean** | **2.5** (loss) | **5** (gradient of the weight) | **1** (of the bias) |
#
# ### TODO 8.1: `loss_and_gradients(model, loss, x, y)`, about 4 lines
#
# What takes the time in a step stands alone, so that something faster can replace it: `Trainer(..., threads=2)` shares each batch
# among two processors, and calls your function in both.
#
# | | |
# |---|---|
# | `model`, `loss` | `model` makes scores of x; `loss` makes a Tensor of one number of scores and y |
# | returns | the loss, a Python float, and the scores, an array (no Tensors: they would keep the graph alive) |
# | changes | adds to the gradients of the parameters, and moves nothing |
# | example | for the table: 2.5 and `[[3], [7]]`; the gradients are 5 and 1, after a second call 10 and 2 |

# %% nbgrader={"grade": false, "grade_id": "loss-and-gradients", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def loss_and_gradients(model, loss, x, y):
    """Forward and backward for one batch: its loss, a float, and its scores, an array; gradients are added to the parameters."""
    ### BEGIN SOLUTION
    scores = model(x)
    value = loss(scores, y)
    value.backward()
    return value.item(), scores.data
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-loss-and-gradients", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
TWO = np.float32([[1], [3]]), np.float32([[4], [5]])
def test_loss_and_gradients(x, y, weight, bias, loss, want, calls):
    model, _ = line(weight, bias)
    for _ in range(calls): got = loss_and_gradients(model, loss, x, y)
    assert made_of(got) == ["float", "ndarray"], f"expected a float and an array, got {got}"
    same(got[0], want[0], "loss")
    same(got[1], want[1], "scores")
    same([p.grad is not None and p.grad.item() for p in model.parameters()], want[2], f"gradients after {calls} calls")
    same(model.weight.item(), weight, "the weight, which only the optimizer moves")
test_loss_and_gradients(*TWO, 2, 1, MSELoss(), (2.5, [[3], [7]], [5, 1]), calls=1)
test_loss_and_gradients(*TWO, 2, 1, MSELoss(), (2.5, [[3], [7]], [10, 2]), calls=2)
### BEGIN HIDDEN TESTS
test_loss_and_gradients(np.float32([[2]]), np.float32([[1]]), 3, -1, lambda s, y: (s * y).sum(), (5, [[5]], [6, 3]), calls=3)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "take-step-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 8.2: `take_step(model, loss, optimizer, x, y, *, clip=None, gradients=loss_and_gradients)`, about 6 lines
#
# One unlucky batch can have gradients a hundred times as long as usual, and its step throws away what was learned. **Clipping**
# shortens all gradients by one common factor, so that the direction of the step stays: 5 and 1 together are √26 = 5.1 long; with a
# limit of 1 they become 5 / 5.1 = 0.98 and 1 / 5.1 = 0.196. Shorter gradients stay as they are.
#
# | | |
# |---|---|
# | `clip` | None: as they are; else the length to which `clip_grad_norm(parameters, length)` shortens them together |
# | `gradients` | the function that is called in place of `loss_and_gradients`, with the same arguments |
# | returns | loss and scores of the batch, from before the step |
# | example | `2x + 1` on the two examples, SGD with lr 0.1: 2.5, then weight 1.5, bias 0.9; a second step: 1.54 and 1.02 |
# | limits | gradients left over from before do not count; with `clip=1` the first step ends at 2 - 0.1 · 0.98 = 1.902 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Five things happen: move, clip, empty, compute, return. Which must be first? What would clipping do before the computation?</details>

# %% nbgrader={"grade": false, "grade_id": "take-step", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def take_step(model, loss, optimizer, x, y, *, clip=None, gradients=loss_and_gradients):
    """Move the parameters by what one batch says; returns its loss and scores from before."""
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    value, scores = gradients(model, loss, x, y)
    if clip is not None:
        clip_grad_norm(model.parameters(), clip)
    optimizer.step()
    return value, scores
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-take-step", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_take_step(steps, clip, want):
    model, sgd = line()
    got = [take_step(model, MSELoss(), sgd, *TWO, clip=clip) for _ in range(steps)]
    assert made_of(got[0]) == ["float", "ndarray"], f"expected loss and scores, got {got[0]}"
    same([got[0][0], *got[0][1].ravel()], [2.5, 3, 7], "loss and scores from before the first step")
    same([model.weight.item(), model.bias.item()], want, f"clip={clip}: weight and bias after step {steps} (gradients left over? clipped?)")
test_take_step(1, None, [1.5, 0.9])
test_take_step(2, None, [1.54, 1.02])
test_take_step(1, 1, [1.902, 0.980])
### BEGIN HIDDEN TESTS
test_take_step(3, None, [1.492, 1.1])
test_take_step(1, 100, [1.5, 0.9])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-take-step-gradients", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_take_step_gradients(slope, left_over):
    def other(model, loss, x, y):
        model.weight.grad = np.float32([[slope]]) + (0 if model.weight.grad is None else model.weight.grad)
        return 7.0, y
    model, sgd = line()
    model.weight.grad = np.float32([[left_over]])
    got = take_step(model, MSELoss(), sgd, *TWO, gradients=other)
    same(got and got[0], 7, "the loss that gradients= returned")
    same(model.weight.item(), 2 - 0.1 * slope, f"the weight after a gradient of {slope} and one of {left_over} left over")
test_take_step_gradients(slope=5, left_over=3)
### BEGIN HIDDEN TESTS
test_take_step_gradients(slope=-2, left_over=1)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "tally-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## One epoch (30 minutes)
#
# 300 digits in batches of 32 leave 12 for the last batch. If every batch counted the same, each of those 12 would weigh 2.7
# times as much as another digit. By hand:
#
# | batch | examples | mean loss | sum of losses |
# |---|---|---|---|
# | first | 3 | 1.0 | 3.0 |
# | second | 1 | 5.0 | 5.0 |
# | mean of the batches: 3.0 | | | mean over the examples: 8 / 4 = **2.0** |
#
# ### TODO 8.3: `Tally`, two methods, together about 5 lines
#
# A **metric** is an object with `name`, `reset()`, `update(scores, y)` and `compute()`. `Accuracy` is one, and given.
#
# | | |
# |---|---|
# | `add(loss, scores, y)` | counts a batch: its mean loss; scores and targets are arrays, one row per example; every metric gets both |
# | `results()` | a dict: `"loss"`, the mean over all examples so far, and what each metric computes, by its name |
# | example | 3 examples with 1.0, then 1 with 5.0: `{"loss": 2.0}` |

# %% nbgrader={"grade": false, "grade_id": "tally", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Tally:
    """Mean loss and metrics over all examples of an epoch, whatever the sizes of its batches."""

    def __init__(self, metrics=()):
        self.metrics, self.total, self.seen = list(metrics), 0.0, 0
        for each in self.metrics: each.reset()

    def add(self, loss, scores, y):
        ### BEGIN SOLUTION
        self.total += loss * len(y)
        self.seen += len(y)
        for metric in self.metrics:
            metric.update(scores, y)
        ### END SOLUTION

    def results(self):
        ### BEGIN SOLUTION
        return {"loss": self.total / self.seen} | {metric.name: metric.compute() for metric in self.metrics}
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-tally", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_tally(batches, want):
    used = Accuracy()
    used.update(np.eye(2), np.array([0, 1]))                # from an epoch before: both right
    tally = Tally([used])
    for loss, scores, y in batches: tally.add(loss, np.array(scores), np.array(y))
    got = tally.results()
    assert made_of(got) == ["loss", "accuracy"], f"expected loss and accuracy, in this order, got {got}"
    same(list(got.values()), want, f"loss and accuracy of {batches}")
test_tally([(1.0, [[1, 2], [5, 0], [3, 0]], [1, 1, 0]), (5.0, [[0, 1]], [0])], [2, 0.5])
### BEGIN HIDDEN TESTS
test_tally([(4.0, [[1, 2]] * 2, [1, 0]), (2.0, [[0, 1]] * 2, [1, 1]), (0.0, [[2, 1]], [0])], [2.4, 0.8])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "train-epoch-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 8.4: `train_epoch(...)`, about 6 lines
#
# `train_epoch(model, loss, optimizer, loader, metrics=(), *, scheduler=None, clip=None, gradients=loss_and_gradients)` lets the model see
# every example once. What it reports is measured on the way, for nothing: each batch with the weights that the batches before it had made.
# So the loss of an epoch is that of a model on average half an epoch younger, and with Dropout of a handicapped one. In the first epochs
# unseen digits may be read better than these.
#
# | | |
# |---|---|
# | `model`, `loss`, `optimizer` | as for `take_step`, which does the work |
# | `loader` | whatever gives batches (x, y) in a loop: a list of pairs, `Batches`, later a `DataLoader` |
# | `metrics` | list of metrics |
# | `scheduler` | None, or its `step()` is called after each step of the optimizer |
# | `clip`, `gradients` | for `take_step` |
# | returns | loss and metrics of the epoch, as `Tally` says them; each batch is measured before its step |
# | limits | the model learns in training mode, even if it comes in evaluation mode |
# | example | `2x + 1`, SGD, lr 0.1, each of the two examples as a batch: losses 1 and 7.84, mean 4.42; the weight ends at 0.52 |

# %% nbgrader={"grade": false, "grade_id": "train-epoch", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def train_epoch(model, loss, optimizer, loader, metrics=(), *, scheduler=None, clip=None, gradients=loss_and_gradients):
    """One step per batch; mean loss and metrics of all examples, each measured before its step."""
    ### BEGIN SOLUTION
    model.train()
    tally = Tally(metrics)
    for x, y in loader:
        value, scores = take_step(model, loss, optimizer, x, y, clip=clip, gradients=gradients)
        if scheduler is not None: scheduler.step()
        tally.add(value, scores, y)
    return tally.results()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-train-epoch", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_train_epoch(lr, clip, want):
    (model, sgd), calls = line(lr=lr), []
    counted = lambda *batch: calls.append(batch) or loss_and_gradients(*batch)
    loader = [(x[None], y[None]) for x, y in zip(*TWO, strict=True)]
    got = train_epoch(model.eval(), MSELoss(), sgd, loader, [Accuracy()], clip=clip, gradients=counted)
    assert made_of(got) == ["loss", "accuracy"], f"expected loss and the metric, accuracy, got {got}"
    same([got["loss"], model.weight.item()], want, f"lr={lr}, clip={clip}: mean loss, and weight after a step per batch")
    same(len(calls), 2, "calls of the function that was given as gradients=")
    assert model.training, "the model came in evaluation mode and learned in it: expected training mode, so that Dropout drops"
test_train_epoch(0.1, None, [4.42, 0.52])
### BEGIN HIDDEN TESTS
test_train_epoch(0.05, None, [3.38, 1.38])
test_train_epoch(0.1, 0.1, [2.557, 1.9976])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-train-epoch-scheduler", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
class Notes:
    """A scheduler that notes the weight at each of its steps."""
    def __init__(self, model): self.model, self.seen = model, []
    def step(self): self.seen.append(round(self.model.weight.item(), 2))
def test_train_epoch_scheduler(pairs, want):
    model, sgd = line()
    notes, loader = Notes(model), [(np.float32([[x]]), np.float32([[y]])) for x, y in pairs]
    train_epoch(model, MSELoss(), sgd, loader, scheduler=notes)
    assert notes.seen == want, f"at its steps the scheduler should see the weights {want}, it saw {notes.seen}"
test_train_epoch_scheduler([(1, 4), (3, 5)], [2.2, 0.52])
### BEGIN HIDDEN TESTS
test_train_epoch_scheduler([(0, 2), (2, 0), (0, 0)], [2.0, -0.08, -0.08])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "evaluate-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What was not learned from (20 minutes)
#
# A network that knows 300 digits by heart may know nothing about the 301st. What counts is measured on a **validation set**: data
# that no step has used.
#
# Whatever you choose by it, the best epoch, the rate, the width, is chosen to look good on it. Whoever reports a final figure
# therefore keeps a third part, the **test set**, and looks at it once, at the end. And compare: a loss of 0.48 alone says nothing,
# but guessing among ten classes would cost log 10 = 2.30.
#
# ### TODO 8.5: `evaluate_model(model, loader, loss=None, metrics=None)`, about 8 lines
#
# | | |
# |---|---|
# | `loss`, `metrics` | the first line, given, turns None into cross-entropy and accuracy, and refuses bad batches |
# | returns | `{"loss": ..., "accuracy": ...}` over all examples; accuracy from 0 to 1 |
# | limits | Dropout is off meanwhile, no graph is recorded, nothing is learned; afterwards the model is in the mode in which it came |
# | example | scores `[[0, 0], [0, 0]]`, labels `[0, 1]`: `{"loss": 0.693, "accuracy": 0.5}` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Where does a model keep its mode? When must you have looked? And which argument does <code>train</code> take?</details>

# %% nbgrader={"grade": false, "grade_id": "evaluate", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def evaluate_model(model, loader, loss=None, metrics=None):
    """Mean loss and metrics of a model on a loader, without learning from it: {"loss": ..., "accuracy": ...}."""
    loss, tally, loader = loss or CrossEntropyLoss(), Tally([Accuracy()] if metrics is None else metrics), checked(loader)
    ### BEGIN SOLUTION
    was_training = model.training
    model.eval()
    with no_grad():
        for x, y in loader:
            scores = model(x)
            tally.add(loss(scores, y).item(), scores.data, y)
    model.train(was_training)
    return tally.results()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-evaluate", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_evaluate(batches, loss, want):
    got = evaluate_model(Sequential(), [(Tensor(x), np.array(y)) for x, y in batches], loss)
    assert made_of(got) == ["loss", "accuracy"], f"expected loss and accuracy, got {got}"
    same(list(got.values()), want, f"loss and accuracy of {batches}")
test_evaluate([([[0, 0], [0, 0]], [0, 1])], None, [0.6931, 0.5])
### BEGIN HIDDEN TESTS
test_evaluate([([[0, 0], [0, 9], [9, 0]], [0, 1, 0]), ([[0, 9]], [0])], None, [2.4234, 0.75])
test_evaluate([([[0, 1]], [1])], lambda scores, y: scores.sum() * 3, [3, 1])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-evaluate-mode", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
class Witness(Linear):
    """Notes in which mode it is called, and whether a graph is recorded."""
    def forward(self, x):
        out = Linear.forward(self, x)
        self.notes = getattr(self, "notes", []) + [(self.training, out.requires_grad)]
        return out
def test_evaluate_mode(before):
    model = Sequential(Witness(2, 2)).train(before)
    evaluate_model(model, [(Tensor([[1, 2]]), np.array([1]))])
    assert model[0].notes == [(False, False)], f"(training mode, graph recorded) should be (False, False), got {model[0].notes}"
    assert model[0].training is before, f"training mode before: {before}, afterwards: {model[0].training}"
test_evaluate_mode(True)
### BEGIN HIDDEN TESTS
test_evaluate_mode(False)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "evaluate-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
drops = Sequential(Dropout(0.5), model)                          # the network from above, with half of its pixels dropped
print("in evaluation mode:", evaluate_model(drops, unseen))
print("with Dropout on   :", f"accuracy {(drops(unseen.x).data.argmax(axis=1) == unseen.y).mean():.3f}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "confusion-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What is taken for what (25 minutes)
#
# You saw what a forgotten `eval()` costs: the same network, the same digits, and more than a third of the answers gone.
#
# "91 % correct" does not say which digits fail. A **confusion matrix** counts pairs: row = what it is, column = what it was
# taken for. Six digits by hand, labels `[0, 0, 1, 1, 1, 2]`, taken for `[0, 1, 1, 1, 1, 0]`:
#
# | is | as 0 | as 1 | as 2 | recall |
# |---|---|---|---|---|
# | 0 | 1 | 1 | 0 | 1 of 2 |
# | 1 | 0 | 3 | 0 | 3 of 3 |
# | 2 | 1 | 0 | 0 | 0 of 1 |
# | precision | 1 of 2 | 3 of 4 | 0 of 0: 0 | |
#
# **Recall**: of what is a 1, how much was found? **Precision**: of what was called a 1, how much is one? A class that is
# never named has no precision; it counts as 0.
#
# ### TODO 8.6: `confusion_matrix(labels, predicted, classes)` and `precision_recall(matrix)`, each about 3 lines
#
# | | |
# |---|---|
# | `labels`, `predicted` | arrays of n ints from 0 to `classes - 1` |
# | `confusion_matrix` | an int array (classes, classes): the table above for the digits above |
# | `precision_recall` | two arrays with one number per class: `[0.5, 0.75, 0]` and `[0.5, 1, 0]`, never nan |
#
# `RuntimeWarning: invalid value encountered in divide`: a 0 / 0 was computed; replacing it afterwards comes too late.
#
# <details><summary>Hint, after five minutes of trying</summary>
# The pair (1, 1) occurs three times. <code>matrix[[1, 1, 1], [1, 1, 1]] += 1</code> gives 1: each place is written once. Module 06's
# rule for indexing had the same problem. And which smallest divisor changes no quotient that matters?</details>

# %% nbgrader={"grade": false, "grade_id": "confusion", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def confusion_matrix(labels, predicted, classes):
    """How often a label (row) was taken for a class (column): ints (classes, classes)."""
    ### BEGIN SOLUTION
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix
    ### END SOLUTION

def precision_recall(matrix):
    """Per class: the share of what was taken for it that is it, and the share of what is it that was found. 0 / 0 is 0."""
    ### BEGIN SOLUTION
    right, named, there = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return right / np.maximum(named, 1), right / np.maximum(there, 1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-confusion-matrix", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_confusion_matrix(labels, predicted, classes, want):
    got = confusion_matrix(np.array(labels), np.array(predicted), classes)
    assert getattr(got, "dtype", None) in (np.int64, np.int32), f"expected an array of counts, ints, got {got!r}"
    same(got, want, f"labels {labels}, taken for {predicted}")
test_confusion_matrix([0, 0, 1, 1, 1, 2], [0, 1, 1, 1, 1, 0], 3, [[1, 1, 0], [0, 3, 0], [1, 0, 0]])
### BEGIN HIDDEN TESTS
test_confusion_matrix([1, 1, 1, 0], [0, 0, 0, 0], 3, [[1, 0, 0], [3, 0, 0], [0, 0, 0]])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-precision-recall", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_precision_recall(matrix, want):
    with np.errstate(divide="raise", invalid="raise"): got = precision_recall(np.array(matrix))
    same(got, want, f"precision and recall of {matrix}")
test_precision_recall([[1, 1, 0], [0, 3, 0], [1, 0, 0]], [[0.5, 0.75, 0], [0.5, 1, 0]])
### BEGIN HIDDEN TESTS
test_precision_recall([[5, 3], [0, 2]], [[1, 0.4], [0.625, 1]])
test_precision_recall([[0, 0, 0], [4, 2, 2], [0, 0, 1]], [[0, 1, 1 / 3], [0, 0.25, 1]])
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "confusion-given", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
Precision, Recall, F1 = matrix_metrics(confusion_matrix, precision_recall)      # metrics like Accuracy; F1 is 2pr / (p + r)

def compute_confusion_matrix(model, loader):
    """The confusion matrix of a model on a loader: ints (classes, classes), rows are labels."""
    counted = Recall()
    evaluate_model(model, loader, lambda scores, y: Tensor(0), [counted])
    return counted.matrix

# %% nbgrader={"grade": false, "grade_id": "confusion-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
matrix = compute_confusion_matrix(model, unseen)
most = np.unravel_index(np.argmax(matrix - np.diag(np.diag(matrix))), matrix.shape)
plot_confusion_matrix(matrix, title=f"Most often, {most[0]} is taken for {most[1]}: {matrix[most]} of {matrix[most[0]].sum()}")
for name, values in zip(("precision", "recall"), precision_recall(matrix), strict=True):
    print(f"{name:9} lowest for {values.argmin()}: {values.min():.0%}, highest for {values.argmax()}: {values.max():.0%}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "stopping-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## When to stop (20 minutes)
#
# In the first cell the unseen loss fell, and then rose while the other went on falling: **overfitting**. What is learned now is
# true of these 300 digits only: the slip of one pen, the blot on one form. The cure is to remember the best epoch, and to stop after
# `patience` epochs in a row without a better one. One worse epoch proves nothing: losses tremble. By hand, with `patience=3`:
#
# | epoch | 1 | 2 | 3 | 4 | 5 |
# |---|---|---|---|---|---|
# | score, less is better | 0.9 | 0.5 | 0.7 | 0.5 | 0.6 |
# | best so far? | yes | yes | no | no, equal | no |
# | waited | 0 | 0 | 1 | 2 | 3: worn out |
#
# ### TODO 8.7: `EarlyStopping.update(score, model)`, about 5 lines
#
# | | |
# |---|---|
# | `self.best` | lowest score so far, infinite before the first |
# | `self.waited` | epochs since the best one |
# | `self.weights` | `model.state_dict()` of the best epoch: module 04 promised that it is a copy, not the living arrays |
# | returns | True if this score is the best so far, else False; nan is never the best |

# %% nbgrader={"grade": false, "grade_id": "stopping", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class EarlyStopping:
    """Keeps the best weights, and says when `patience` epochs have passed without better ones. Less is better."""

    def __init__(self, patience=None):
        self.patience, self.best, self.waited, self.weights = patience, math.inf, 0, None

    def update(self, score, model):
        """Take an epoch's score into account; True if it is the best so far."""
        ### BEGIN SOLUTION
        better = score < self.best
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best, self.weights = score, model.state_dict()
        return better
        ### END SOLUTION

    @property
    def worn_out(self): return self.patience is not None and self.waited >= self.patience

# %% nbgrader={"grade": true, "grade_id": "test-stopping", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_stopping(scores, better, waited, best):
    stopper, (model, _) = EarlyStopping(patience=3), line(weight=0)
    for score, *want in zip(scores, better, waited, strict=True):
        model.weight.data = model.weight.data + 1                       # the weight is the number of the epoch
        got = [stopper.update(score, model), stopper.waited]
        assert got == want, f"after {score} of {scores}: expected better, waited = {want}, got {got}"
    kept = stopper.weights and np.asarray(stopper.weights["weight"]).item()
    assert kept == best, f"scores {scores}: expected the weights of epoch {best}, got those of epoch {kept}"
    same([stopper.best, stopper.worn_out], [scores[best - 1], waited[-1] >= 3], f"scores {scores}: best, worn_out")
test_stopping([0.9, 0.5, 0.7, 0.5, 0.6], [True, True, False, False, False], [0, 0, 1, 2, 3], best=2)
### BEGIN HIDDEN TESTS
test_stopping([-0.5, -0.9, -0.7, -0.95], [True, True, False, True], [0, 0, 1, 0], best=4)
test_stopping([3.0, float("nan"), 2.0], [True, False, True], [0, 1, 0], best=3)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "fit-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## The trainer (30 minutes)
#
# A `Trainer` binds model, loss and optimizer together; `fit` runs the epochs and returns the history: for every quantity a list with one
# number per epoch, `{"loss": [0.9, 0.4], "val_loss": [1.0, 0.8]}`. What is not about training is given: `Run` shows progress, checks
# batches, writes files, and says in which epoch and step something broke.
#
# ### TODO 8.8: the loop of `fit`, about 8 lines
#
# It runs once per epoch. Fill `row`, a dict: what `train_epoch` returns and, with a validation loader, what `evaluate_model`
# returns, each key with `val_` before it. Both get all of the trainer's settings that they have arguments for.
#
# | given | what it does |
# |---|---|
# | `run.watch(loader)` | the same batches, shown and checked: loop over this instead of over the loader |
# | `run.score(row)` | what decides, less is better: `val_loss` (without validation `loss`), or what `monitor` names |
# | `stopper` | your `EarlyStopping` |
# | `run.keep(row, best)` | adds the row to `history`, writes the files; `best`: did the stopper find it the best? |
# | `self.gradients` | `loss_and_gradients` with a check that the loss is finite |
#
# The loop ends early, by a `break`, when the stopper is worn out; that epoch is kept, too. With `save_best`, `run` puts the best
# weights back at the end, so that what you evaluate afterwards is what you wanted to keep.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Write the order of four events on paper: an epoch is kept, judged, trained, evaluated. What does each need from the others?</details>

# %% nbgrader={"grade": false, "grade_id": "fit", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
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
                ### BEGIN SOLUTION
                row = train_epoch(self.model, self.loss, self.optimizer, run.watch(train), self.metrics,
                                  scheduler=self.scheduler, clip=self.clip, gradients=self.gradients)
                if val_dataloader is not None:
                    unseen = evaluate_model(self.model, run.watch(val_dataloader), self.loss, self.metrics)
                    row |= {f"val_{name}": value for name, value in unseen.items()}
                better = stopper.update(run.score(row), self.model)
                run.keep(row, better)
                if stopper.worn_out: break
                ### END SOLUTION
        return self.history

# %% nbgrader={"grade": true, "grade_id": "test-fit", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_fit(epochs, validation, clip):
    (model, sgd), (twin, other), calls = line(lr=0.02), line(lr=0.02), []
    counted, rates = lambda *batch: calls.append(batch) or loss_and_gradients(*batch), StepLR(sgd, step_size=100)
    got = Trainer(model, MSELoss(), sgd, [Accuracy()], rates, clip, gradients=counted).fit([TWO], validation, epochs, quiet=True)
    want = {"loss", "accuracy", "lr"} | ({"val_loss", "val_accuracy"} if validation else set())
    assert set(got) == want, f"expected the keys {want} in the history, got {list(got)}"
    for epoch in range(epochs):
        same(got["loss"][epoch], train_epoch(twin, MSELoss(), other, [TWO], clip=clip)["loss"], f"clip={clip}: loss, epoch {epoch + 1}")
        if validation: same(got["val_loss"][epoch], evaluate_model(twin, validation, MSELoss(), [])["loss"], f"val_loss, epoch {epoch + 1}")
    same([rates.steps, len(calls)], [epochs] * 2, f"{epochs} epochs of one batch: steps of the scheduler, calls of gradients=")
test_fit(3, [TWO], clip=None)
### BEGIN HIDDEN TESTS
test_fit(2, None, clip=None)
test_fit(4, [(np.float32([[1], [1], [2]]), np.float32([[1], [3], [2]]))], clip=0.1)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-fit-stops", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_fit_stops(patience, lr, epochs, best):
    model, sgd = line(lr=lr)                                 # learns (1, 0), is judged by (1, 2.2), which it passes on the way
    learned, judged = [(np.float32([[1]]), np.float32([[y]])) for y in (0, 2.2)]
    got = Trainer(model, MSELoss(), sgd).fit([learned], [judged], 20, patience=patience, save_best=True, quiet=True)
    assert len(got["loss"]) == epochs, f"patience={patience}: expected {epochs} epochs, got {len(got['loss'])}: {got.get('val_loss')}"
    same(evaluate_model(model, [judged], MSELoss(), [])["loss"], best, "save_best: val_loss of the model that is kept")
test_fit_stops(patience=3, lr=0.1, epochs=4, best=0.16)
### BEGIN HIDDEN TESTS
test_fit_stops(patience=1, lr=0.02, epochs=5, best=0.0026)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "errors", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### When it breaks
#
# Training fails late: after hours, in one layer of fifty, in one batch of a thousand. So the first thing that an error must say is
# where. The next cell provokes two of these:
#
# | error | usual cause | cure |
# |---|---|---|
# | `FloatingPointError: epoch ..., the loss is nan: layers.2 ...` | the rate is too high, or a log of 0 | a tenth of the rate, or `clip=1.0`; look at the layer named |
# | `TypeError: train is a generator, which is used up ...` | a loader that can be walked once | pass the thing that makes batches, not `iter(...)` of it |
# | `ValueError: label 10 is outside 0 to 9` | labels that count from 1, or a class too many | `labels - 1`, or a wider last layer |
# | loss stays at 2.30 | 2.30 is log 10: the network guesses among 10 classes | a higher rate; are x and y shuffled together? |

# %% nbgrader={"grade": false, "grade_id": "errors-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
for what, lr, loader in [("a learning rate of 1e30", 1e30, seen), ("a loader that is used up after one epoch", 0.01, iter(seen))]:
    try:
        with np.errstate(all="ignore"): Trainer(network(seed=0), CrossEntropyLoss(), Adam(lr=lr)).fit(loader, epochs=3, quiet=True)
    except (FloatingPointError, TypeError) as error: print(f"{what}: {type(error).__name__}: {error}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "resume", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Interrupted
#
# With `checkpoint_path`, `Run` writes a file after each epoch. What must be in it, so that the rest of the run is the same to the last
# digit? The weights; what Adam remembers of earlier gradients; the position of the scheduler; the history; and where the random numbers
# stand, those of the order of batches and those of Dropout.
#
# Below, power fails in the third epoch, in a network with Dropout. The same call with `resume=True` takes the file and does the third
# epoch anew.
#
# The file is called `run.pkl` here, but holds arrays and text, whatever its suffix. A real pickle file may hold a program, which runs when
# it is loaded; `load_model` refuses it. Never load one that you did not make.

# %% nbgrader={"grade": false, "grade_id": "resume-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
import tempfile

class PowerCut(Batches):
    """Fails in the fifth batch of its third pass."""
    passes = 0
    def __iter__(self):
        self.passes += 1
        for number, batch in enumerate(super().__iter__()):
            if (self.passes, number) == (3, 4): raise KeyboardInterrupt
            yield batch

def fit(seed, loader=seen, dropped=0.0, epochs=20, **options):
    trainer = Trainer(network(seed, dropped), CrossEntropyLoss(), Adam(lr=0.01), [Accuracy()])
    return trainer.fit(loader, unseen, epochs=epochs, quiet=True, **options)

with tempfile.TemporaryDirectory() as folder:
    path = f"{folder}/run.pkl"
    try: fit(1, PowerCut(seen.x, seen.y, 32, shuffle=True), dropped=0.5, epochs=4, checkpoint_path=path)
    except KeyboardInterrupt as error: print("power cut.", error.__notes__[0])
    for name, options in [("in one go", {}), ("resumed", {"checkpoint_path": path, "resume": True})]:
        print(f"val_loss {name:9}", fit(1, dropped=0.5, epochs=4, **options)["val_loss"])

# %% [markdown] nbgrader={"grade": false, "grade_id": "overfit-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# 300 digits, 40 epochs, as in the first cell, now with every epoch on record. In which one is the loss on the unseen digits lowest, and
# is the accuracy best in the same? Commit to a number for the first question before you run the cell after it.

# %% nbgrader={"grade": false, "grade_id": "overfit-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_epoch = your number
### BEGIN SOLUTION
guess_epoch = 30
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-overfit-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert 1 <= guess_epoch <= 40, f"expected a number from 1 to 40, got {guess_epoch}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "overfit-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
history, stopped = fit(seed=0, epochs=40), fit(seed=0, epochs=40, patience=5, save_best=True)
best = int(np.argmin(history["val_loss"]))
plot_training_history(history, title=f"The unseen loss turns after epoch {best + 1}; the unseen accuracy does not")
print(f"lowest unseen loss in epoch {best + 1} of 40, you said {guess_epoch}; with patience=5, fit stops after {len(stopped['loss'])}")
for epoch in (best, 39):
    print(f"epoch {epoch + 1:2}: " + ", ".join(f"{name} {values[epoch]:.4f}" for name, values in history.items()))

# %% [markdown] nbgrader={"grade": false, "grade_id": "overfit-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** The unseen loss gets worse and the unseen accuracy does not. How can both be true? A
# colleague suspects a mistake in your accuracy: which line or figure speaks against it? Then decide: by which of the two do you stop,
# if a digit that is read wrongly costs 1 cent, and an epoch 0.1 cents?
#
# | points | for |
# |---|---|
# | 2 | your own numbers: both losses, both accuracies, the epoch and how far your guess was off |
# | 2 | a mechanism by which right answers stay and the loss grows, and what excludes the colleague's |
# | 2 | a decision with a calculation from your epochs and errors, and when it would be the other one |

# %% [markdown] nbgrader={"grade": true, "grade_id": "overfit-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Lowest unseen loss 0.367 in epoch 5 (guessed 30), 1.30 times that after 40; accuracy 90.2 % and 90.7 %. Accuracy asks which
# score is highest, the loss also how sure the network is. After epoch 5 it pushes the scores of known digits apart (their loss ends at
# 0.0001); of the unseen digits that it misreads it grows surer, too, and each costs more, while the order of most scores stays. A mistake
# in the accuracy would show in the confusion matrix, whose diagonal counts the same 797 digits, or in epoch 1, when the figures rise
# together. 0.5 points of 797 digits are 4 errors, 4 cents; 35 more epochs cost 3.5 cents: about equal, so early stopping by the loss loses
# nothing. If shares are used (a person looks at what is below 90 %), the loss decides; if only answers count and epochs are cheap, accuracy
# does. (Two cores of a server, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "seed-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# The same seed gives the same loss, to the last digit. Another seed draws other weights and another order. Of ten seeds, how many
# **percentage points** of unseen accuracy lie between the luckiest and the unluckiest after 20 epochs? Commit to a number.

# %% nbgrader={"grade": false, "grade_id": "seed-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_points = your number
### BEGIN SOLUTION
guess_points = 0.5
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-seed-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_points > 0, f"expected any positive number, got {guess_points}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "seed-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
plain, dropout = (100 * np.array([fit(seed, dropped=p)["val_accuracy"] for seed in range(10)]) for p in (0.0, 0.5))
again, spread = 100 * np.array(fit(seed=0)["val_accuracy"]), np.ptp(plain[:, -1])
plt.plot(range(1, 21), plain[1:].T, color="lightgray")
plt.plot(range(1, 21), plain[0], label="seed 0")
plt.plot(range(1, 21), again, "k:", label="seed 0 again")
plt.gca().set(title=f"One seed repeats itself, ten are {spread:.1f} points apart", xlabel="epoch", xticks=[1, 5, 10, 15, 20], ylim=(80, 93))
plt.ylabel("unseen digits read, %")
plt.legend(); plt.show()
print(f"seed 0 and seed 0 again: at most {np.abs(plain[0] - again).max()} apart; ten seeds: {spread:.1f}, you said {guess_points}")
for name, final in [("without Dropout", plain[:, -1]), ("with Dropout 0.5", dropout[:, -1])]:
    print(f"{name:16}  seed 0: {final[0]:.2f} %   ten seeds: mean {final.mean():.2f} %, standard deviation {final.std(ddof=1):.2f}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "seed-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A colleague ran seed 0 with and without Dropout and reports the difference. What do your
# ten seeds say about it? What excludes that chance comes from inexact arithmetic? Then decide how many seeds you would run before you
# believe in a difference of half a point: the mean of n runs scatters by the standard deviation divided by √n.
#
# | points | for |
# |---|---|
# | 2 | your own spread, means and deviations, and how far your guess was off |
# | 2 | what differs between seeds, and the line that excludes the rival cause |
# | 2 | a number of runs with its calculation, and what you tell the colleague |

# %% [markdown] nbgrader={"grade": true, "grade_id": "seed-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Ten seeds lie 2.1 points apart (guessed 0.5): mean 89.99 %, standard deviation 0.66; with Dropout 89.32 % and 1.28. For seed 0
# alone Dropout loses 1.6 points, the means differ by 0.67; another colleague with a luckier seed would report a gain. Seeds differ in first
# weights, order of batches, and what is dropped. Inexact arithmetic is excluded by seed 0 run twice: 0.0 apart in every epoch. The
# difference of two means of n runs scatters by sqrt((0.66² + 1.28²) / n) = 1.44 / sqrt(n); half a point is twice that when n = (2 · 1.44 /
# 0.5)² = 33 runs of each, at 0.1 s a few seconds. The colleague is told: one run each says nothing below about 3 points. (Two cores of a
# server, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# You can train any model of this framework, keep its best state, stop in time, read a confusion matrix, and say whether a difference
# is more than luck. `tito module complete 08` makes it part of your framework. In 09 it trains convolutions, in 10 `Batches` becomes
# a `DataLoader`, in 14 it trains a transformer.
#
# A run can also be written down. `python -m tinytorch.experiments run digits.yml` trains with your `Trainer` what this file says, and leaves
# a log with command, seed, versions and every epoch; the same file gives the same numbers:
#
# ```yaml
# name: digits
# seed: 0
# data: {set: digits, batch_size: 32, validation: 0.2}
# model:
#   - Linear: [64, 128]
#   - ReLU
#   - Dropout: 0.2
#   - Linear: [128, 10]
# optimizer: {Adam: {lr: 0.01}}
# training: {epochs: 20, patience: 5}
# ```
#
# Keep such a file beside every result that you report, and you can repeat it a year later.
#
# Two harder tasks, without points:
#
# - Average the weights of the last ten epochs into a second model. Does it beat the best epoch? On ten seeds?
# - Write `gradients` for `Trainer(gradients=...)` that splits a batch in two, adds up both halves and gives the same numbers.
