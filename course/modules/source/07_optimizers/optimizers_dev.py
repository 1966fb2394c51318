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
# # Module 07: Optimizers
#
# **The question: how far should a weight move, and which way?**
#
# The gradient says which way is down, here and now. It does not say how far to go, it is steep in one direction and flat
# in another, and it is as large as the units of the input happen to be. An **optimizer** makes steps out of gradients.
# You write the four that most networks are trained with, clipping, and the **schedules** that change the rate on the way.
#
# At the end a network of your layers learns 1,797 handwritten digits with each of them, at seven rates, and a figure shows
# what an optimizer is worth. About 175 minutes. Needed: `Tensor` (02), `Linear`, `Sequential` (04), `CrossEntropyLoss` (05),
# `backward` (06).

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import tinytorch.core.autograd as module_06
import tinytorch.core.layers as module_04
from tinytorch.testing.checking import needs
from tinytorch.core.activations import ReLU
from tinytorch.core.losses import CrossEntropyLoss
from tinytorch.core.tensor import Tensor

def trained(layer):
    """The shapes of the gradients that a layer gets."""
    CrossEntropyLoss()(layer(Tensor([[1.0, 2.0]])), [0]).backward()
    return [p.grad.shape for p in layer.parameters()]

needs("04", module_04, "Linear(2, 3) has two parameters", lambda: len(module_04.Linear(2, 3).parameters()) == 2)
needs("06", module_06, "backward() reaches weight and bias", lambda: trained(module_04.Linear(2, 3)) == [(2, 3), (3,)])
print("backward comes from", module_06.__file__)

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
"""Optimizers: which way a parameter moves; schedules: how far, and when."""
import math
import numpy as np
from tinytorch.fast.inplace import in_place
from tinytorch.given.stepping import Schedule, Stepper, between

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary><code>backward()</code> is called twice for the same weight. What does <code>w.grad</code> hold?</summary>
# The sum of both gradients. Whoever wants the second one alone sets it to None in between.</details>
# <details><summary><code>a = b = np.ones(3)</code>. What is b after <code>a = a - 1</code>, and after <code>a -= 1</code>?</summary>
# Ones after the first, which makes a new array; zeros after the second, which changes the array that both names stand for.</details>
# <details><summary>A gradient is 0.02 and the weight is 5. Which loss change do you expect from a weight of 4.9?</summary>
# About -0.1 times 0.02: 0.002 less.</details>

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.data import digits

images, labels = digits()                                  # 8 x 8 pixels, 0 is paper and 1 is ink
three_or_eight = np.isin(labels, [3, 8])
centre = images[three_or_eight][:, 3:5, 3:5].mean(axis=(1, 2))
is_eight = np.float32(labels[three_or_eight] == 8)
inputs = np.column_stack([centre, np.ones_like(centre)])

def error(w, inputs=inputs):
    """Mean squared error of w[0] * ink in the centre + w[1], which should be 1 for an 8 and 0 for a 3."""
    return ((Tensor(inputs) @ w - is_eight) ** 2).mean()

for rate in [0.02, 0.6, 0.7]:
    w = Tensor([0.0, 0.0], requires_grad=True)
    for _ in range(60):
        w.grad = None
        error(w).backward()
        w.data = w.data - rate * w.grad
    print(f"60 steps at rate {rate:<4}: weight {w.data[0]:8.2f}, constant {w.data[1]:8.2f}, error {error(w).item():8.3f}")
print("curvature in the flattest and the steepest direction:", np.linalg.eigvalsh(2 * inputs.T @ inputs / len(inputs)).round(3))

# %% [markdown] nbgrader={"grade": false, "grade_id": "descend-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## A step, and how long it may be (15 minutes)
#
# One weight, one constant, 357 real threes and eights, and three rates. One is too slow. The last is a sixth larger than the
# good one, and explodes. Why there? Take a loss of $\frac{c}{2} w^2$, a bowl with **curvature** c: its gradient is $c\,w$,
# so a step at rate 0.5 multiplies w by $1 - 0.5\,c$.
#
# | curvature c | factor | w after 0, 1, 2, 3 steps |
# |---|---|---|
# | 1 | 0.5 | 8, 4, 2, 1 |
# | 3 | -0.5 | 8, -4, 2, -1 |
# | 5 | -1.5 | 8, -12, 18, -27 |
#
# Each step crosses the valley and lands higher once the rate exceeds 2 / c. **The steepest direction limits the rate; the
# flattest one has to live with it.** The steepest curvature above is 3.101, so the limit is 2 / 3.101 = 0.645.
#
# `Stepper`, which is given, knows the parameters, keeps arrays for each if an optimizer asks for them, and calls your
# `update` with plain float32 arrays. It refuses gradients that are missing, of another shape or `nan`, and says whose they
# are. **Weight decay** pulls every weight towards 0: it adds `weight_decay` times the weight to its gradient.
#
# ### TODO 7.1: `Optimizer.update`, about 3 lines
#
# | | |
# |---|---|
# | `p`, `grad` | float32 arrays of one shape; `p` is changed **in place**, `grad` stays as it was |
# | `*kept`, `**options` | what `self.direction` wants to see besides the gradient: pass both on |
# | does | weight decay joins the gradient; then `p` moves `lr` times against the direction made from that |
# | example | `p` = `[1, -2]`, `grad` = `[0.5, 4]`, `lr` = 0.1: `[0.95, -2.4]`; with `weight_decay` = 0.5: `[0.9, -2.3]` |
#
# The class calls `self.direction`; here that is the gradient itself, below you write others. `p = p - 1` gives a new array
# to the name `p`, and the weight stays where it was.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Which of the two arrays may you overwrite? The sum of gradient and pull needs a place of its own.</details>

# %% nbgrader={"grade": false, "grade_id": "descend", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Optimizer(Stepper):
    """Moves parameters against a direction made from their gradients; a subclass says which: `direction`."""

    def update(self, p, grad, *kept, lr, weight_decay=0.0, **options):
        """One step, in place: the pull of weight decay joins the gradient, p moves lr times against the direction."""
        ### BEGIN SOLUTION
        if weight_decay:
            grad = grad + weight_decay * p
        p -= lr * self.direction(grad, *kept, **options)
        ### END SOLUTION

    def direction(self, grad, *kept, **options):
        """The plain gradient. A subclass may change what is kept, in place, but never grad."""
        return grad

# %% nbgrader={"grade": true, "grade_id": "test-descend", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def after(kind, start, grads, **options):
    """Where a parameter stands after one step per gradient."""
    w = Tensor(start, requires_grad=True)
    optimizer = kind([w], **options)
    for grad in grads:
        w.grad = np.float32(grad)
        optimizer.step()
        assert np.allclose(w.grad, grad), f"{kind.__name__}: the step changed the gradient from {grad} to {w.grad}"
    return np.array(w.data)

def check_steps(kind, start, grads, want, why, **options):
    got = after(kind, start, grads, **options)
    said = f"{kind.__name__} with {options}, from {start}, gradients {grads}: expected {want}, got {got} ({why})"
    assert np.allclose(got, want, rtol=2e-4, atol=2e-5), said

check_steps(Optimizer, [1, -2], [[0.5, 4]], [0.95, -2.4], "unmoved: was p replaced? doubled: wrong sign?", lr=0.1)
check_steps(Optimizer, [8], [[8], [4]], [2], "one step per gradient", lr=0.5)
### BEGIN HIDDEN TESTS
check_steps(Optimizer, [[3, 0], [-1, 2]], [[[1, 2], [3, 4]]], [[2.75, -0.5], [-1.75, 1]], "unmoved: was p replaced?", lr=0.25)
check_steps(Optimizer, 5, [2, 2, 2], -1, "also for a single number", lr=1)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-descend-decay", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check_steps(Optimizer, [1, -2], [[0.5, 4]], [0.9, -2.3], "does the pull go towards 0, times lr?", lr=0.1, weight_decay=0.5)
### BEGIN HIDDEN TESTS
check_steps(Optimizer, [4, -4], [[0, 0], [0, 0]], [2.25, -2.25], "without a gradient only the pull is left", lr=0.5, weight_decay=0.5)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "momentum-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Momentum (25 minutes)
#
# Along the floor of a valley gradients are small and agree; across it they are large and change sign from step to step.
# A sum over the last steps tells the two apart. Keep a **velocity**: each step, shrink it and add the gradient.
#
# | gradients | velocity at momentum 0.5 |
# |---|---|
# | 1, 1, 1, 1 (along) | 1, 1.5, 1.75, 1.875: on the way to 1 / (1 - 0.5) = 2 |
# | 1, -1, 1, -1 (across) | 1, -0.5, 0.75, -0.625: on the way to 2/3 of a gradient |
#
# The price: a ball does not stop at the floor, it rolls beyond and comes back. The nearer momentum is to 1, the more often.
#
# Nesterov's variant looks one step ahead: its direction is the gradient plus momentum times the new velocity.
#
# ### TODO 7.2: `SGD.direction`, about 5 lines
#
# SGD is short for **stochastic gradient descent**: the gradient comes from a few examples drawn at random.
#
# | | |
# |---|---|
# | `velocity` | changed **in place**; zeros before the first step; None if `momentum` is 0 |
# | returns | the gradient if `momentum` is 0, else the new velocity, or Nesterov's direction |
# | example | gradients 1, 1, 1 at momentum 0.5: directions 1, 1.5, 1.75; Nesterov's: 1.5, 1.75, 1.875 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Two statements bring the velocity up to date, and neither makes a new array. What does Nesterov's formula give for the
# first step, when the new velocity is 1?</details>

# %% nbgrader={"grade": false, "grade_id": "momentum", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class SGD(Optimizer):
    """Gradient descent; with momentum, like a ball that rolls."""

    def __init__(self, parameters=None, lr=0.01, momentum=0.0, nesterov=False, weight_decay=0.0):
        super().__init__(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)

    def keeps(self, *, momentum, **options):
        return ("velocity",) if momentum else ()

    def direction(self, grad, velocity=None, *, momentum, nesterov, **options):
        ### BEGIN SOLUTION
        if not momentum:
            return grad
        velocity *= momentum
        velocity += grad
        return grad + momentum * velocity if nesterov else velocity
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-momentum", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
along, why = [[1], [1], [1]], "velocity 1, 1.5, 1.75 in place?"
check_steps(SGD, [10], along, [7], "without momentum, three plain steps", lr=1)
check_steps(SGD, [10], along, [5.75], why, lr=1, momentum=0.5)
check_steps(SGD, [10], [[1], [-1], [1], [-1]], [9.375], why, lr=1, momentum=0.5)
### BEGIN HIDDEN TESTS
check_steps(SGD, [[1, 2]], [[[4, -2]], [[0, 1]]], [[0.24, 2.28]], why, lr=0.1, momentum=0.9)
check_steps(SGD, [2], [[0], [0]], [0.875], "the pull gathers speed, too", lr=0.5, momentum=0.5, weight_decay=0.5)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-nesterov", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check_steps(SGD, [10], along, [4.875], "directions 1.5, 1.75, 1.875?", lr=1, momentum=0.5, nesterov=True)
### BEGIN HIDDEN TESTS
check_steps(SGD, [0, 0], [[1, 2], [-1, 3]], [-0.064, -1.028], "grad + momentum * velocity?", lr=0.1, momentum=0.8, nesterov=True)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "valley-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# The error of the first cell is a valley, 81 times as curved across as along. From (0, 0), how many steps until the error is
# within 0.1 % of the lowest? Each way gets its best rate out of ten. **How many times as many steps as the best momentum does
# plain descent need?** The control: the same digits with the centre's ink standardized (mean 0, spread 1), which makes the
# valley a round bowl. Commit to a number before you run the cell after it.

# %% nbgrader={"grade": false, "grade_id": "valley-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_steps = your number
### BEGIN SOLUTION
guess_steps = 2.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-valley-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_steps > 0, f"expected any positive number, got {guess_steps}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "valley-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.core.utils import standardize

def walk(make, steps, *, start=(0, 0), inputs=inputs):
    """The places visited, and the error at each."""
    w = Tensor(np.float32(start), requires_grad=True)
    optimizer, places, errors = make([w]), [], []
    for _ in range(steps):
        optimizer.zero_grad()
        here = error(w, inputs)
        places.append(w.data.copy())
        errors.append(here.item())
        if errors[-1] > 1000: break                        # exploded
        here.backward()
        optimizer.step()
    return np.array(places), np.array(errors)

def fewest(momentum, inputs):
    """(steps, rate) of the rate that needs the fewest steps."""
    lowest = error(Tensor(np.linalg.lstsq(inputs, is_eight, rcond=None)[0]), inputs).item()
    def steps(rate):
        near = walk(lambda p: SGD(p, lr=rate, momentum=momentum), 300, inputs=inputs)[1] < 1.001 * lowest
        return int(near.argmax()) if near.any() else 300
    return min((steps(rate), rate) for rate in [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.64, 0.8, 1])

round_inputs = np.column_stack([standardize(centre, axis=0), np.ones_like(centre)])
table = {name: [fewest(momentum, x) for momentum in [0, 0.5, 0.8, 0.9]] for name, x in [("valley", inputs), ("bowl", round_inputs)]}
for name, row in table.items():
    print(name, ", ".join(f"momentum {m}: {steps} steps at {rate}" for m, (steps, rate) in zip([0, 0.5, 0.8, 0.9], row, strict=True)))
print(f"valley: {table['valley'][0][0] / min(table['valley'])[0]:.1f} times as many without momentum; you said {guess_steps}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "valley-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A colleague says that momentum is nothing but a larger rate. What do your lines
# say? Then decide for a colleague whose inputs are in metres, millimetres and years: standardize them, or train with
# momentum 0.9? A division by a spread costs one pass over the data.
#
# | points | for |
# |---|---|
# | 2 | your own steps and rates for at least three cases, and how far your guess was off |
# | 2 | a cause that fits valley and bowl, and the figure that excludes "a larger rate" |
# | 2 | a decision with calculated numbers of steps, and what it costs |

# %% [markdown] nbgrader={"grade": true, "grade_id": "valley-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Valley: 127 steps at rate 0.6 without, 20 at 0.6 with momentum 0.8: 6.3 times, I had said 2. The rate is the same in
# both, and 0.645 is the limit without momentum, so a larger rate is excluded: it would explode. The gain comes from the
# direction: along the floor gradients agree, and the velocity grows up to 1 / (1 - 0.8) = 5 gradients; across they cancel. In
# the bowl there is no floor and no wall: 1 step at 0.5, with and without. So standardize first: one pass, and 1 step instead
# of 28. Momentum is for valleys that nobody can standardize away, such as those between the layers of a network. (The number
# of steps does not depend on the machine, or hardly.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "adam-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Adam: a step of the same length for every weight (25 minutes)
#
# One rate for all weights has to suit the steepest. Adam gives each number its own measure: it divides by the typical size
# of **its** gradients. It keeps two running means, of the gradients (m) and of their squares (v), with $\beta_1 = 0.9$ and
# $\beta_2 = 0.999$:
#
# $$m \leftarrow m + (1 - \beta_1)\,(g - m) \qquad v \leftarrow v + (1 - \beta_2)\,(g^2 - v)$$
#
# Both begin at 0, so early means are too small. After t steps the weights of a mean add up to $1 - \beta^t$; divided by that,
# it is right from the first step on. Then the direction is $\hat m / (\sqrt{\hat v} + \epsilon)$. By hand:
#
# | gradients | m, v after the last one | divided by $1 - \beta^t$ | direction |
# |---|---|---|---|
# | 4 | 0.4, 0.016 | 4, 16 | 4 / 4 = 1 |
# | 0.004 | 0.0004, 0.000000016 | 0.004, 0.000016 | 1 again |
# | 4, -4 | -0.04, 0.031984 | -0.2105, 16 | -0.0526: they disagree, so hardly a step |
#
# Undivided, the first direction would be 0.4 / 0.1265 = 3.16: three times too long, just when least is known.
#
# ### TODO 7.3: `Adam.direction`, about 5 lines
#
# | | |
# |---|---|
# | `m`, `v` | changed **in place**, zeros before the first step |
# | `betas`, `step` | the pair $\beta_1, \beta_2$; the number t of this step, from 1 |
# | returns | a new array; `grad` stays as it was |
# | limits | gradients of 0 give 0, not `nan`: that is what `eps` is for, outside of the root |

# %% nbgrader={"grade": false, "grade_id": "adam", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class Adam(Optimizer):
    """Steps of about lr for every number, however large its gradients are."""

    def __init__(self, parameters=None, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def keeps(self, **options):
        return ("m", "v")

    def direction(self, grad, m, v, *, betas, eps, step):
        ### BEGIN SOLUTION
        beta1, beta2 = betas
        m += (1 - beta1) * (grad - m)
        v += (1 - beta2) * (grad * grad - v)
        part1, part2 = 1 - beta1 ** step, 1 - beta2 ** step     # the text's formula, with numbers divided instead of arrays
        return m / (np.sqrt(v) * (part1 / math.sqrt(part2)) + part1 * eps)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-adam-by-hand", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check_steps(Adam, [0, 0], [[4, 0.004]], [-1, -1], "3.16: means not divided? 0: v or m replaced?", lr=1)
check_steps(Adam, [0], [[4], [-4]], [-0.9474], "the second direction is -0.0526", lr=1)
check_steps(Adam, [2, 3], [[0, 0]], [2, 3], "a gradient of 0 is no reason to move", lr=1)
### BEGIN HIDDEN TESTS
check_steps(Adam, [1], [[1], [2], [3], [-1]], [-2.5311], "by the formulas of the text", lr=1)
check_steps(Adam, [[5], [-5]], [[[1], [1]], [[3], [0]]], [[4.8082], [-5.167]], "by the formulas of the text", lr=0.1)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-adam-options", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check_steps(Adam, [0], [[3], [1]], [-1.792], "betas 0.5 and 0.75?", lr=1, betas=(0.5, 0.75))
check_steps(Adam, [0], [[1]], [-0.5], "eps stands outside of the root", lr=1, eps=1.0)
check_steps(Adam, [10], [[0]], [9.9], "weight decay joins the gradient, in update", lr=0.1, weight_decay=0.5)
### BEGIN HIDDEN TESTS
check_steps(Adam, [1, 2], [[1, -2], [1, 1], [0, 3]], [0.7522, 2.0705], "betas 0.8 and 0.9?", lr=0.1, betas=(0.8, 0.9), eps=0.1)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "paths-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
ways = {"plain, rate 0.6": lambda p: SGD(p, lr=0.6), "momentum 0.8, rate 0.4": lambda p: SGD(p, lr=0.4, momentum=0.8),
        "Adam, rate 0.3": lambda p: Adam(p, lr=0.3)}
centred = np.column_stack([centre - centre.mean(), np.ones_like(centre)])
fig, panels = plt.subplots(2, 3, figsize=(12, 6.4), sharex=True, sharey=True, layout="constrained")
grid = np.stack(np.meshgrid(np.linspace(-3.4, 2, 80), np.linspace(-2, 3.4, 80)), axis=-1)
for row, x, title in zip(panels, [inputs, centred], ["diagonal", "level"], strict=True):
    floor = np.linalg.lstsq(x, is_eight, rcond=None)[0]
    heights = (((grid + floor) @ x.T - is_eight) ** 2).mean(axis=-1)
    for panel, (name, make) in zip(row, ways.items(), strict=True):
        places, errors = walk(make, 31, start=floor + [-2.6, 2.8], inputs=x)
        panel.contour(*grid.T.swapaxes(1, 2), np.log(heights), levels=14, cmap="Greys_r", linewidths=0.7)
        panel.plot(*(places - floor).T, marker=".", color="C3", linewidth=0.8)
        panel.plot(0, 0, "+", color="C0", markersize=14)
        panel.set(xlabel="weight - best", ylabel="constant - best")
        panel.set_title(f"{title} valley, {name}:\n{errors[-1] - heights.min():.4f} above the floor after 30 steps", fontsize=10)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "decay-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# 30 steps of each on real surfaces, the cross is the lowest point. Above, both numbers are tied together: more weight can be
# made up for by less constant, so the valley lies diagonally. Below, the mean was taken off the ink; now each number has a
# direction of its own, one steep, one flat. There Adam, which measures each number by itself, walks straight to the floor, a
# little beyond and back. In the diagonal valley its measure is of no use, and momentum is ahead.
#
# ## Weight decay that Adam cannot swallow (15 minutes)
#
# Weight decay is part of the gradient, so Adam divides it by the gradient's typical size, too. Two weights of 1 below get
# gradients around 0, one of size 0.01, one of size 10. Nothing but the decay has a direction, but hardly reaches one of them:

# %% nbgrader={"grade": false, "grade_id": "decay-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
def pulled(kind, steps=200):
    """Two weights of 1 after gradients of random sign, of size 0.01 and 10."""
    signs = np.random.default_rng(0).choice([-1, 1], size=(steps, 2))
    return after(kind, [1, 1], signs * [0.01, 10], lr=0.003, weight_decay=0.5).round(2)

print("Adam, gradients of 0.01 and 10:", pulled(Adam), " without any decay:", after(Adam, [1, 1], [[0, 0]], lr=0.003))

# %% [markdown] nbgrader={"grade": false, "grade_id": "adamw-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 7.4: `AdamW.update`, about 2 lines
#
# AdamW (Loshchilov and Hutter, 2017) lets the weights shrink beside the step: first each weight loses the share
# `lr * weight_decay` of itself, then Adam steps as if there were no weight decay.
#
# | | |
# |---|---|
# | `p`, `m`, `v` | changed in place |
# | `options` | `betas`, `eps`, `step`: for the `update` that you inherit |
# | example | `p` = 10, gradient 0, `lr` = 0.1, `weight_decay` = 0.5: 9.5; gradient 4 instead: 9.4 |

# %% nbgrader={"grade": false, "grade_id": "adamw", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class AdamW(Adam):
    """Adam whose weight decay pulls at the weights themselves, not at their gradients."""

    def __init__(self, parameters=None, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def update(self, p, grad, m, v, *, lr, weight_decay, **options):
        ### BEGIN SOLUTION
        p *= 1 - lr * weight_decay
        super().update(p, grad, m, v, lr=lr, **options)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-adamw", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check_steps(AdamW, [10], [[0]], [9.5], "9.9: did the decay reach Adam? 10: was p replaced?", lr=0.1, weight_decay=0.5)
check_steps(AdamW, [10], [[4]], [9.4], "shrink by lr * weight_decay, then a step of lr", lr=0.1, weight_decay=0.5)
both = after(Adam, [3, 1], [[1, 2], [3, 1]], lr=0.1)
check_steps(AdamW, [3, 1], [[1, 2], [3, 1]], both, "without decay AdamW is Adam", lr=0.1, weight_decay=0)
### BEGIN HIDDEN TESTS
check_steps(AdamW, [4, -2], [[1, -1], [1, 1]], [3.1214, -1.5705], "shrink, then step", lr=0.1, weight_decay=0.9)
check_steps(AdamW, [10], [[0], [0]], [8.1], "the pull does not gather speed", lr=0.2, weight_decay=0.5, betas=(0.5, 0.5))
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "decay-cured", "locked": true, "schema_version": 3, "solution": false, "task": false}
print(f"AdamW, gradients of 0.01 and 10: {pulled(AdamW)}; 200 times the share 0.003 * 0.5 leaves {(1 - 0.003 * 0.5) ** 200:.2f}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "bytes-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain
#
# What your rule makes on the way (`grad * grad`, a root, a quotient) is an array each, as large as the weights. `Stepper` calls
# `update` **in blocks** of 32,768 numbers, one after the other: same rule, small arrays. Below, Adam steps a million weights,
# once through one call for all of them, once in blocks.
#
# **Weights, gradients, what Adam keeps, and what the rule makes on the way, at the worst moment of a step in one call: how many
# times the bytes of the weights?** Commit to a number before you run the cell after it.

# %% nbgrader={"grade": false, "grade_id": "bytes-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_bytes = your number
### BEGIN SOLUTION
guess_bytes = 4.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-bytes-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_bytes > 0, f"expected any positive number, got {guess_bytes}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "bytes-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
from timeit import repeat
from tinytorch.core.tensor import held_bytes
from tinytorch.testing.memory import peak_bytes
from tinytorch.given.stepping import in_blocks

weights = Tensor(np.random.default_rng(0).normal(size=(1000, 1000)), requires_grad=True)
for name, make in [("SGD", SGD), ("momentum", lambda p: SGD(p, momentum=0.9)), ("Adam", Adam)]:
    weights.grad = weights.data * 0.01
    optimizer = make([weights])
    optimizer.step()
    kept = [array for array in optimizer.state[0].values() if isinstance(array, np.ndarray)]
    arrays, options = [weights.data, weights.grad, *kept], {key: optimizer.param_groups[0][key] for key in optimizer.defaults}
    rule = lambda *parts: optimizer.update(*parts, step=5, **options)
    for how, work in [("one call", lambda: rule(*arrays)), ("in blocks", lambda: in_blocks(rule, *arrays))]:
        extra, ms = peak_bytes(work), 1000 * min(repeat(work, number=1, repeat=9))
        held = sum(held_bytes(array) for array in arrays)
        print(f"{name:8}, {how:9}: keeps {sum(map(held_bytes, kept)) / 1e6:3.0f} MB, on the way {extra / 1e6:5.2f} MB, "
              f"together {(held + extra) / weights.data.nbytes:4.1f} times the weights, {ms:5.2f} ms")
print(f"you said {guess_bytes} times for Adam in one call")

# %% [markdown] nbgrader={"grade": false, "grade_id": "bytes-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A model has 300 million float32 weights, your server has 8 GB. From your lines:
# which of the six ways of stepping fit, activations aside? Blocks need the same arithmetic; why are they not slower, and what
# in your lines excludes that they save work? (Runs differ by half? Repeat.) Then decide what you
# would train with, and what you would give up first.
#
# | points | for |
# |---|---|
# | 2 | your own figures for Adam in one call and in blocks, with units, and how far your guess was off |
# | 2 | a cause for the times that fits all lines, and what excludes less work as the cause |
# | 2 | a decision with calculated gigabytes for 300 million weights |

# %% [markdown] nbgrader={"grade": true, "grade_id": "bytes-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline, for a rule that divides numbers instead of arrays. Adam in one call: 8 MB on the way, 6.0 times the weights, 4.0 ms; in
# blocks 0.26 MB, 4.1 times, 2.1 ms. I had said 4 and forgotten the arrays that live for microseconds. (The rule as the text writes
# it makes more of them: 16 MB, 8.0 times, 4.5 ms, and 0.5 MB, 4.1 times, 2.6 ms.) It is the same rule on the same numbers, in 31 calls
# instead of one, so less work is excluded; what differs is where intermediate results live: 0.26 MB stays in a core's cache, 8 MB is
# written to memory and read back. The same holds for SGD (0.55 and 0.41 ms), less, since it makes one array. 300 million weights are
# 1.2 GB. Adam: 7.2 GB in one call (9.6 as the text writes it) leaves hardly room for an activation; 4.9 GB in blocks does; momentum
# takes 4.8 and 3.6, SGD 3.6 and 2.4. Train with Adam in blocks; if activations need more than the 3.1 GB left, give up v, with momentum.
# (Two cores of a server, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "in-place-text", "locked": true, "schema_version": 3, "solution": false, "task": false}
# The reference does the same with one array instead of eight: a matter of module 16. With yours, `in_place` changes
# nothing.

# %% nbgrader={"grade": false, "grade_id": "in-place", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
in_place(Adam)

# %% [markdown] nbgrader={"grade": false, "grade_id": "clip-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Clipping (15 minutes)
#
# One odd batch can make a gradient a hundred times as long as usual, and one step with it throws the weights away. Clipping
# keeps the direction and shortens the rest. The length counts **all** parameters together: $\sqrt{\sum g^2}$.
#
# | | gradients | length together |
# |---|---|---|
# | before | `[3, 4]` and `[[12]]` | $\sqrt{9 + 16 + 144} = 13$ |
# | at most 6.5 | `[1.5, 2]` and `[[6]]` | 6.5 |
#
# ### TODO 7.5: `clip_grad_norm(parameters, max_norm)`, about 6 lines
#
# | | |
# |---|---|
# | `parameters` | list of tensors; those whose `grad` is None are passed over |
# | does | if all gradients together are longer than `max_norm`, multiplies each by the same factor; else nothing |
# | returns | the length before, as a float |
# | example | the table above returns 13.0; with `max_norm` 20 nothing changes, and it returns 13.0 as well |

# %% nbgrader={"grade": false, "grade_id": "clip", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def clip_grad_norm(parameters, max_norm):
    """Shorten all gradients by one factor so that together they are at most max_norm long; returns their length before."""
    ### BEGIN SOLUTION
    parameters = [p for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(p.grad, p.grad)) for p in parameters))
    if norm > max_norm:
        for p in parameters:
            p.grad = p.grad * (max_norm / norm)
    return norm
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-clip", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def test_clip(grads, max_norm, norm, want):
    parameters = [Tensor(np.zeros_like(np.float32(grad or 0)), requires_grad=True) for grad in grads]
    for p, grad in zip(parameters, grads, strict=True): p.grad = None if grad is None else np.float32(grad)
    got = clip_grad_norm(parameters, max_norm)
    said = f"gradients {grads}, at most {max_norm}"
    assert np.isclose(np.nan if got is None else got, norm, rtol=1e-4), f"{said}: expected the length {norm} before clipping, got {got}"
    for p, part in zip(parameters, want, strict=True):
        kept = p.grad is None if part is None else np.allclose(p.grad, part, atol=1e-4)
        assert kept, f"{said}: expected {part}, got {p.grad}"
test_clip([[3, 4], [[12]]], 6.5, 13, [[1.5, 2], [[6]]])
test_clip([[3, 4], [[12]]], 20, 13, [[3, 4], [[12]]])
test_clip([None, [-5]], 2, 5, [None, [-2]])
### BEGIN HIDDEN TESTS
test_clip([[-8], [[0, 6], [0, 0]], 0, None], 1, 10, [[-0.8], [[0, 0.6], [0, 0]], 0, None])
test_clip([[0, 0]], 1, 0, [[0, 0]])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "schedule-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Schedules (35 minutes)
#
# Far from the floor long steps are best; near it they bounce around. A **schedule** lowers the rate in time. It is a function
# of the number of the step alone, so a run can be resumed anywhere. `Schedule`, which is given, counts the steps, asks your
# `rate` and tells the optimizer.
#
# ### TODO 7.6: `StepLR.rate` and `CosineLR.rate`, 1 and 2 lines
#
# | | |
# |---|---|
# | `lr`, `step` | the full rate; the number of the step, from 0 |
# | `StepLR` | times `self.gamma` after every `self.step_size` steps |
# | `CosineLR` | half a cosine from `lr` at step 0 to `self.eta_min` at step `self.T_max`; from there on `self.eta_min` |
# | example, `lr` 0.8 | `step_size` 2, `gamma` 0.5: 0.8, 0.8, 0.4, 0.4, 0.2. `T_max` 4, `eta_min` 0: 0.8, 0.683, 0.4, 0.117, 0, 0 |
#
# <details><summary>Hint, after five minutes of trying</summary>
# How often has the rate been lowered before step 5? And which expression with cos is 1 at the beginning, 1/2 half way and
# 0 at the end?</details>

# %% nbgrader={"grade": false, "grade_id": "schedules", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class StepLR(Schedule):
    """The rate times gamma after every step_size steps."""

    def __init__(self, optimizer, step_size, gamma=0.1):
        super().__init__(optimizer, step_size=step_size, gamma=gamma)

    def rate(self, lr, step):
        ### BEGIN SOLUTION
        return lr * self.gamma ** (step // self.step_size)
        ### END SOLUTION

class CosineLR(Schedule):
    """Down from lr to eta_min along half a cosine, in T_max steps; then it stays there."""

    def __init__(self, optimizer, T_max, eta_min=0.0):
        super().__init__(optimizer, T_max=T_max, eta_min=eta_min)

    def rate(self, lr, step):
        ### BEGIN SOLUTION
        done = min(step / self.T_max, 1)
        return self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * done)) / 2
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-schedules", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def check_rates(make, lr, want, why):
    optimizer = SGD([Tensor([1.0], requires_grad=True)], lr=lr)
    schedule, got = make(optimizer), []
    for _ in want:
        got.append(optimizer.lr)
        schedule.step()
    message = f"{type(schedule).__name__} from {lr}: expected {want}, got {np.round(got, 4).tolist()} ({why})"
    assert np.allclose(got, want, atol=6e-4), message

check_rates(lambda o: StepLR(o, 2, gamma=0.5), 0.8, [0.8, 0.8, 0.4, 0.4, 0.2], "lowered after every 2 steps")
check_rates(lambda o: CosineLR(o, 4), 0.8, [0.8, 0.683, 0.4, 0.117, 0, 0, 0], "half a cosine, then flat")
### BEGIN HIDDEN TESTS
check_rates(lambda o: StepLR(o, 3), 1, [1, 1, 1, 0.1, 0.1, 0.1, 0.01], "lowered after every 3 steps")
check_rates(lambda o: CosineLR(o, 2, eta_min=0.2), 1, [1, 0.6, 0.2, 0.2, 0.2], "from lr to eta_min, then flat")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "warmup-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 7.7: `WarmupLR.rate` and `OneCycleLR.rate`, about 3 and 6 lines
#
# Adam's first steps rest on a handful of gradients. A **warm-up** makes them short. It may wrap another schedule, whose steps
# are counted from where the warm-up ends. `OneCycleLR` (Smith and Topin, 2017) is both in one: up to the top, then down to
# almost nothing. `between(start, end, done, self.anneal_strategy)` is given: start for `done` 0, end for 1, on a curve or straight.
#
# | | |
# |---|---|
# | `WarmupLR` | step 0 to `self.warmup` - 1: equal parts up to `lr`. From then on `self.after.rate`, or `lr` if `self.after` is None |
# | example, `lr` 0.8 | `warmup` 4, no `after`: 0.2, 0.4, 0.6, 0.8, 0.8, 0.8 |
# | `OneCycleLR` | high: `self.max_lr`, or `lr` if that is None. low: high / `self.div_factor`. end: low / `self.final_div_factor` |
# | | from low at step 0 to high at the top, step `pct_start * total_steps - 1`, to end at step `total_steps - 1`; then end |
# | nasty case | a top at step 0: the run begins with high |
# | example, straight | `max_lr` 1, `total_steps` 9, `pct_start` 1/3, `div_factor` 2: 0.5, 0.75, 1, 0.83, 0.67, 0.5, 0.33, 0.17, 0, 0 |

# %% nbgrader={"grade": false, "grade_id": "warmup", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class WarmupLR(Schedule):
    """Up to lr in equal parts within the first `warmup` steps; then what the schedule `after` says, from its step 0 on, or lr."""

    def __init__(self, optimizer, warmup, after=None):
        super().__init__(optimizer, warmup=warmup, after=after)

    def rate(self, lr, step):
        ### BEGIN SOLUTION
        if step < self.warmup:
            return lr * (step + 1) / self.warmup
        return self.after.rate(lr, step - self.warmup) if self.after else lr
        ### END SOLUTION

class OneCycleLR(Schedule):
    """Up to max_lr (None: the group's own lr) in the first part, pct_start, of total_steps; then down to almost nothing."""

    def __init__(self, optimizer, max_lr, total_steps, pct_start=0.3, div_factor=25.0, final_div_factor=1e4, anneal_strategy="cos"):
        super().__init__(optimizer, max_lr=max_lr, total_steps=total_steps, pct_start=pct_start, div_factor=div_factor,
                         final_div_factor=final_div_factor, anneal_strategy=anneal_strategy)

    def rate(self, lr, step):
        ### BEGIN SOLUTION
        high = lr if self.max_lr is None else self.max_lr
        low = high / self.div_factor
        top, last = self.pct_start * self.total_steps - 1, self.total_steps - 1
        if step < top:
            return between(low, high, step / top, self.anneal_strategy)
        return between(high, low / self.final_div_factor, min((step - top) / (last - top), 1), self.anneal_strategy)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-warmup", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check_rates(lambda o: WarmupLR(o, 4), 0.8, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8], "equal parts, the first one not 0")
check_rates(lambda o: WarmupLR(o, 2, CosineLR(o, 2)), 1, [0.5, 1, 1, 0.5, 0, 0], "then the other one, from its step 0")
### BEGIN HIDDEN TESTS
check_rates(lambda o: WarmupLR(o, 1, StepLR(o, 2, gamma=0.5)), 4, [4, 4, 4, 2, 2, 1], "then the other one, from its step 0")
check_rates(lambda o: WarmupLR(o, 3, WarmupLR(o, 2)), 6, [2, 4, 6, 3, 6, 6], "then the other one, from its step 0")
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-one-cycle", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def straight(o): return OneCycleLR(o, 1, 9, pct_start=1/3, div_factor=2, anneal_strategy="linear")
check_rates(straight, 0.1, [0.5, 0.75, 1, 0.833, 0.667, 0.5, 0.333, 0.167, 0, 0], "low, high at step 2, end at step 8")
check_rates(lambda o: OneCycleLR(o, None, 5, pct_start=0.6, final_div_factor=1), 0.5, [0.02, 0.26, 0.5, 0.26, 0.02], "None: lr is the top")
check_rates(lambda o: OneCycleLR(o, 2, 4, pct_start=0.25, div_factor=4), 9, [2, 1.5, 0.5, 0, 0, 0], "the top is step 0")
### BEGIN HIDDEN TESTS
check_rates(lambda o: OneCycleLR(o, 2, 4, pct_start=0.75, div_factor=4, final_div_factor=2), 9, [0.5, 1.25, 2, 0.25, 0.25], "to end")
def uneven(o): return OneCycleLR(o, 1, 5, pct_start=0.5, div_factor=5, anneal_strategy="linear")
check_rates(uneven, 9, [0.2, 0.733, 0.8, 0.4, 0], "the top may lie between two steps")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "train-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## All of it in one loop (20 minutes)
#
# ### TODO 7.8: `train(model, loss, optimizer, batches, *, schedule=None, max_norm=None)`, about 10 lines
#
# | | |
# |---|---|
# | `model`, `loss` | the loss of the model's output and y is a tensor of one number |
# | `batches` | pairs (x, y); one step for each |
# | `schedule`, `max_norm` | steps after each step of the optimizer; limit for the gradients. None: without |
# | returns | list of floats: the loss of each batch, before its step |
# | example | `model` = `lambda x: x * w`, w = 1, squared error, batches (1, 3) twice, rate 0.25: losses 4, 1, and w = 2.5 |
#
# Recall the first recall question before you decide on the order.

# %% nbgrader={"grade": false, "grade_id": "train", "locked": false, "schema_version": 3, "solution": true, "task": false}
def train(model, loss, optimizer, batches, *, schedule=None, max_norm=None):
    """One step per batch; returns the losses."""
    ### BEGIN SOLUTION
    losses = []
    for x, y in batches:
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        if max_norm is not None: clip_grad_norm(optimizer.parameters, max_norm)
        optimizer.step()
        if schedule is not None: schedule.step()
        losses.append(value.item())
    return losses
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-train", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def check_training(batches, losses, end, why, scheduled=False, **options):
    optimizer = SGD([w := Tensor([1.0], requires_grad=True)], lr=0.25)
    schedule = StepLR(optimizer, 1, gamma=0.5) if scheduled else None
    got = train(lambda x: x * w, lambda out, y: ((out - y) ** 2).sum(), optimizer, batches, schedule=schedule, **options)
    assert np.allclose(got, losses), f"batches {batches}, {options}: expected the losses {losses}, got {got} ({why})"
    assert np.allclose(w.data, end), f"batches {batches}, {options}: expected w = {end}, got {w.data} ({why})"
check_training([(1, 3), (1, 3)], [4, 1], 2.5, "are gradients of the last batch still there?")
check_training([(1, 3), (1, 3)], [4, 3.0625], 1.5, "clipped before the step?", max_norm=1)
check_training([(1, 3), (1, 3)], [4, 1], 2.25, "schedule after the step?", scheduled=True)
### BEGIN HIDDEN TESTS
check_training([(2, 4), (1, 5), (1, 5)], [4, 4, 1], 4.5, "one step per batch, losses before it")
check_training([], [], 1, "no batches, no steps")
check_training([(1, 3), (1, 3), (1, 3)], [4, 3.0625, 2.640625], 1.4375, "clip, step, schedule", scheduled=True, max_norm=1)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "digits-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.randomness import manual_seed

seen, units = 1000, 10 ** np.random.default_rng(1).uniform(-1, 1, size=64)
tables = {"pixels from 0 to 1": Tensor(images.reshape(-1, 64)), "each pixel in its own unit": Tensor(images.reshape(-1, 64) * units)}

def learn(make, rate, pixels, schedule=None, seed=0):
    """Losses of 200 steps of 50 digits, and the share of unseen digits that are then read correctly."""
    manual_seed(seed)
    model = module_04.Sequential(module_04.Linear(64, 32), ReLU(), module_04.Linear(32, 10))
    optimizer = make(lr=rate)
    optimizer.bind(model.parameters())
    batches = [(pixels[picks], labels[picks]) for picks in np.random.default_rng(seed).integers(0, seen, size=(200, 50))]
    losses = train(model, CrossEntropyLoss(), optimizer, batches, schedule=schedule(optimizer) if schedule else None)
    return losses, (model(pixels[seen:]).data.argmax(axis=1) == labels[seen:]).mean()

makers = {"SGD": SGD, "momentum 0.9": lambda lr: SGD(lr=lr, momentum=0.9), "Adam": Adam, "AdamW": AdamW}
rates = [0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3]
fig, (curves, *by_rate) = plt.subplots(1, 3, figsize=(14, 3.8))
for panel, (title, pixels) in zip(by_rate, tables.items(), strict=True):
    for name, make in makers.items():
        runs = [learn(make, rate, pixels) for rate in rates]
        ends = [np.mean(losses[-20:]) for losses, _ in runs]
        best = int(np.argmin(ends))
        panel.plot(rates, ends, marker="o")
        if panel is by_rate[0]: curves.plot(np.convolve(runs[best][0], np.ones(10) / 10, "valid"), label=f"{name}, rate {rates[best]}")
        print(f"{title:26} {name:12} at its best rate, {rates[best]:<5}: loss {ends[best]:.3f}, {runs[best][1]:.1%} of unseen digits")
    panel.set(title=f"Last 20 losses, {title}", xlabel="rate", xscale="log", yscale="log", ylim=(0.03, 4))
curves.set(title="Loss at the best rate, mean of 10 steps", xlabel="step", yscale="log")
curves.legend()
plt.show()

# %% nbgrader={"grade": false, "grade_id": "schedules-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
ways = {"constant": None, "cosine": lambda o: CosineLR(o, 200), "warm-up 20, cosine": lambda o: WarmupLR(o, 20, CosineLR(o, 180)),
        "one cycle": lambda o: OneCycleLR(o, None, 200)}
for rate in [0.03, 0.1]:
    for name, schedule in ways.items():
        runs = [learn(Adam, rate, tables["pixels from 0 to 1"], schedule, seed) for seed in range(4)]
        ends, shares = [np.mean(losses[-20:]) for losses, _ in runs], [share for _, share in runs]
        print(f"Adam, rate {rate:<4}, {name:18}: loss {np.mean(ends):.3f}, {np.mean(shares):.1%} of unseen digits, mean of 4 seeds")

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# Every optimizer has a best rate of its own: in the figure 0.3, 0.1 and 0.03, ten times apart. Who compares two optimizers at
# one rate measures the rate. At their best, all but plain SGD end close together. That changes in the right panel, where
# each pixel is multiplied by a number from 0.1 to 10: SGD and momentum lose about eight of a hundred digits, Adam about four:
# what its two arrays per weight buy.
#
# The last table: at a rate that suits Adam, a falling schedule lowers no loss within 200 steps. At three times that rate the
# first steps do harm that a falling rate alone mends in part; with a warm-up Adam ends lower than at any constant rate.
#
# Parameters may come in groups with options of their own: `AdamW([{"params": weights}, {"params": biases, "weight_decay": 0}])`.
# An optimizer made without parameters waits for `bind`. `state_dict()` of optimizer and schedule holds all that a later step
# depends on, so that an interrupted run goes on to the last bit as if nothing had happened.
#
# Errors that you will meet: `step() found no gradient` (no `backward()` before it), `there are no parameters` (a generator
# can be used once), `the gradient of ... holds nan` (mostly the rate), `was changed after the forward pass` (a step between
# forward and `backward()`).
#
# `tito module complete 07` makes your optimizers part of the framework. They return in module 08, whose `Trainer` binds them to
# a model, and wherever something learns. Two harder tasks, without points:
#
# - An optimizer whose direction is the **sign** of a running mean keeps one array, not two. Does it read the digits as well?
# - A schedule without a plan: lower the rate when the loss has not fallen for 20 steps. What must its state hold?
