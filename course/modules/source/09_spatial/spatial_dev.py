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
# # Module 09: Convolutions
#
# **The question: what does a convolution know that a linear layer does not?**
#
# To a linear layer, a picture is a list of numbers. Shuffle the pixels of all pictures in the same way, and it learns as
# well as before: it does not know that pixels have neighbours, nor that a stroke is the same stroke two pixels further
# right. A convolution is built on both. You write it as its definition, then fast enough for real training, with its
# derivative beside it; pooling and batch normalisation follow.
#
# At the end, four networks that learned from centred digits read digits that stand elsewhere. About 240 minutes. Needed:
# `op` (module 02), `Linear`, `Sequential`, `BatchNorm` (04), rules and `backward` (06), `Adam` (07).

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import numpy as np
from tinytorch.testing.checking import needs, same
from tinytorch.core import activations, layers, losses, optimizers
from tinytorch.core.tensor import Tensor
from tinytorch.testing.gradcheck import check_rule

def drawn(seed, *shapes):
    """An array of float32 numbers for each shape, the same ones for the same seed."""
    return [np.random.default_rng(seed + place).normal(size=shape).astype(np.float32) for place, shape in enumerate(shapes)]

def learned():
    layer, points = layers.Linear(2, 2), Tensor([[0, 9], [9, 0]])
    optimizer = optimizers.Adam(layer.parameters(), lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        losses.CrossEntropyLoss()(layer(points), np.array([0, 1])).backward()
        optimizer.step()
    return layer(points).data.argmax(axis=1).tolist() == [0, 1]

needs("04", layers, "Linear(2, 3) turns shape (5, 2) into (5, 3)", lambda: layers.Linear(2, 3)(np.ones((5, 2))).shape == (5, 3))
needs("07", optimizers, "300 steps of Adam teach a Linear layer to tell two points apart", learned)

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
"""Layers for pictures: a small set of weights looks at every place. Shapes are (N, C, H, W); memory is channels last."""
import numpy as np
from tinytorch.core.layers import BatchNorm, Module, Parameter, as_tensor, he_normal
from tinytorch.core.tensor import op
from tinytorch.given.modules import check_features
from tinytorch.given.vision import (  # noqa: F401
    GlobalAvgPool2d, GlobalMaxPool2d, Pool2d, avg_pool2d, batch_norm2d_rule, check_groups, depthwise_conv2d, describe_conv,
    in_groups, pictures)
from tinytorch.given.windows import (
    blocks, channel_moments, channel_sums, channels_first, channels_last, crop, pad, pair, places, shifts, windows)

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary>How many weights has a linear layer from 32 x 32 pixels in 3 colours to as many outputs of 32 channels?</summary>
# 3,072 x 32,768, about 100 million. The convolution of this module does the same job with 896.</details>
# <details><summary>What does a rule return, and when may it return a function instead?</summary>
# The gradient of each input of its op. A function without arguments is called only if that input needs a gradient.</details>
# <details><summary>What is the gradient of W in <code>Y = X @ W</code>, for a gradient G that arrives at Y?</summary>
# <code>X.T @ G</code>: each weight collects over all rows what it was multiplied by, times what arrives there.</details>

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.data import digits

images, labels = digits()
digit, upright = images[7], np.array([[-1, 0, 1]] * 3)                  # ink on the right of a pixel minus ink on its left
def slid(weights): return np.array([[(digit[r:r + 3, s:s + 3] * weights).sum() for s in range(6)] for r in range(6)])
shown = {"a digit": 1 - digit, "left edges light up": slid(upright), "upper edges light up": slid(upright.T)}
fig, axes = plt.subplots(1, 3, figsize=(8, 2.8))
for ax, (title, picture) in zip(axes, shown.items(), strict=True):
    ax.imshow(picture, cmap="gray")
    ax.set_title(title)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "naive-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## One filter, every place (25 minutes)
#
# Nine numbers, put on every place of the digit, have found its edges. Such a set of weights is a **filter**; it answers
# with a large number where the picture under it looks like the filter. By hand:
#
# | picture | filter | at the four places |
# |---|---|---|
# | `1 2 0` | `1 2` | 1·1 + 2·2 + 0·0 - 1·1 = **4**, 2·1 + 0·2 + 1·0 - 3·1 = **-1** |
# | `0 1 3` | `0 -1` | 0·1 + 1·2 + 2·0 - 0·1 = **2**, 1·1 + 3·2 + 0·0 - 1·1 = **6** |
# | `2 0 1` | | |
#
# A filter covers all channels of its input and adds up what they give; several filters give several output channels.
#
# ### TODO 9.1: `naive_conv2d(x, weight)`, about 6 lines
#
# | | |
# |---|---|
# | `x` | array (n, channels, height, width) |
# | `weight` | array (filters, channels, kh, kw) |
# | returns | new float32 array (n, filters, height - kh + 1, width - kw + 1), each entry one sum of products |
# | example | the table above, as arrays of shape (1, 1, 3, 3) and (1, 1, 2, 2), gives `[[4, -1], [2, 6]]` |
#
# One multiplication at a time, in loops: this is the definition, and the slow end of a measurement. `np.ndindex(2, 3)` goes
# through (0, 0), (0, 1), ... (1, 2): one loop instead of two.
#
# <details><summary>Hint, after five minutes of trying</summary>
# Four numbers say which output, three more say which product of its sum. At which row of the picture does row i of the filter lie,
# if the filter's corner stands on row r?</details>

# %% nbgrader={"grade": false, "grade_id": "naive", "locked": false, "schema_version": 3, "solution": true, "task": false}
def naive_conv2d(x, weight):
    """The definition: every output is a sum over channels and cells of the filter."""
    ### BEGIN SOLUTION
    n, channels, height, width = x.shape
    filters, _, kh, kw = weight.shape
    out = np.zeros((n, filters, height - kh + 1, width - kw + 1), np.float32)
    for m, o, r, s in np.ndindex(*out.shape):
        for c, i, j in np.ndindex(channels, kh, kw):
            out[m, o, r, s] += x[m, c, r + i, s + j] * weight[o, c, i, j]
    return out
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-naive-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
hand_x, hand_w = np.float32([[[[1, 2, 0], [0, 1, 3], [2, 0, 1]]]]), np.float32([[[[1, 2], [0, -1]]]])
same(naive_conv2d(hand_x, hand_w), [[[[4, -1], [2, 6]]]], "the example of the TODO")
### BEGIN HIDDEN TESTS
same(naive_conv2d(hand_x, hand_w[..., ::-1]), [[[[4, 3], [-1, 5]]]], "the example with its filter's columns exchanged")
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-naive-sizes", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def by_definition(x, weight, stride=(1, 1), padding=(0, 0)):
    """Place by place, in float64: an independent answer."""
    (top, left), (kh, kw) = padding, weight.shape[2:]
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, top), (left, left)))
    rows, columns = range(0, x.shape[2] - kh + 1, stride[0]), range(0, x.shape[3] - kw + 1, stride[1])
    at = lambda r, s: np.tensordot(x[:, :, r:r + kh, s:s + kw], weight.astype(np.float64), ([1, 2, 3], [1, 2, 3]))
    return np.stack([np.stack([at(r, s) for s in columns], axis=-1) for r in rows], axis=-2)
def test_naive_sizes(seed, *shapes):
    x, weight = drawn(seed, *shapes)
    same(naive_conv2d(x, weight), by_definition(x, weight), f"pictures {shapes[0]}, filters {shapes[1]}")
test_naive_sizes(0, (2, 3, 4, 5), (4, 3, 2, 3))
### BEGIN HIDDEN TESTS
for shapes in [((1, 2, 3, 6), (3, 2, 3, 1)), ((3, 1, 2, 2), (1, 1, 2, 2))]: test_naive_sizes(1, *shapes)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "matrix-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## The linear layer inside (25 minutes)
#
# Every output is a sum of pixels times weights, so a convolution *is* a linear layer, with weights of a special kind. Which
# kind shows when its matrix is written down. Column k of a linear layer's W says what output k makes of each input. Feed in
# a picture that is 1 at one pixel and 0 elsewhere: what comes out is that pixel's **row** of W.
#
# ### TODO 9.2: `as_linear(weight, size)`, about 3 lines
#
# | | |
# |---|---|
# | `weight` | filters (filters, channels, kh, kw) |
# | `size` | `(height, width)` of the pictures |
# | returns | W with `x.reshape(n, -1) @ W` equal to `naive_conv2d(x, weight).reshape(n, -1)`, for all pictures x of that size |
# | example | the filter of 9.1 on pictures of 3 x 3: W has shape (9, 4), its first column is `[1, 2, 0, 0, -1, 0, 0, 0, 0]` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# You need one picture per pixel and channel, each with a single 1. As rows they are a matrix that NumPy has a name for.</details>

# %% nbgrader={"grade": false, "grade_id": "matrix", "locked": false, "schema_version": 3, "solution": true, "task": false}
def as_linear(weight, size):
    """The weights of the linear layer that does what these filters do on pictures of this size."""
    ### BEGIN SOLUTION
    channels = weight.shape[1]
    single = np.eye(channels * size[0] * size[1]).reshape(-1, channels, *size)
    return naive_conv2d(single, weight).reshape(len(single), -1)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-matrix", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_matrix(seed, shape, n):
    weight, x = drawn(seed, shape, (n, shape[1], 4, 5))
    W, want = as_linear(weight, (4, 5)), by_definition(x, weight).reshape(n, -1)
    wanted = x[0].size, want.shape[1]
    assert W.shape == wanted, f"filters {shape}, pictures 4 x 5: expected W of shape {wanted}, got {W.shape}"
    same(x.reshape(n, -1) @ W, want, f"filters {shape}: pictures of 4 x 5, as rows, times W")
same(as_linear(hand_w, (3, 3))[:, 0], [1, 2, 0, 0, -1, 0, 0, 0, 0], "first column of the TODO's example")
test_matrix(0, (2, 3, 2, 3), n=3)
### BEGIN HIDDEN TESTS
test_matrix(1, (1, 2, 4, 2), n=2)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "matrix-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
W = as_linear(drawn(0, (1, 1, 3, 3))[0], (8, 8))
plt.figure(figsize=(4.5, 5))
plt.imshow(np.where(W == 0, np.nan, W), cmap="coolwarm")
plt.gca().set(title="A convolution as a linear layer: few weights, repeated", xlabel="output", ylabel="pixel")
plt.show()
print(f"{W.size:,} weights, {(W != 0).sum()} of them not 0, {len(np.unique(W[W != 0]))} different ones")

# %% [markdown] nbgrader={"grade": false, "grade_id": "rows-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Fast enough (70 minutes)
#
# So a convolution knows two things before it has seen any picture: an output depends on **near** pixels only (the zeros),
# and **the same** numbers serve at every place (the repeated diagonals). A linear layer would have to learn both.
#
# As a matrix most of it is zeros; as loops it is Python. The way out: write every window as a row. The example again:
#
# | window as a row | | filter as a column | |
# |---|---|---|---|
# | `1 2 0 1` | times | `1` | 4 |
# | `2 0 1 3` | | `2` | -1 |
# | `0 1 2 0` | | `0` | 2 |
# | `1 3 0 1` | | `-1` | 6 |
#
# One matrix product, for all places, filters and pictures. Two options join in: **padding** puts a rim of zeros around the
# picture, so that it does not shrink; **stride** 2 uses every second place only.
#
# The index arithmetic is given, in `tinytorch/windows.py`. Inside, pictures are (n, height, width, channels): the channels
# of a pixel lie side by side, so a window is a few long runs of memory.
#
# | call | gives |
# |---|---|
# | `pad(x, padding)` | x with its rim |
# | `windows(x, kernel, stride)` | (n, OH, OW, kh, kw, channels): what lies under the kernel at each place; a view |
# | `blocks(n, ...)` | slices of 0..n: so many pictures at a time that their rows fit into a core's own memory, the **cache** |
#
# ### TODO 9.3: two places in `conv2d`, 1 and about 4 lines
#
# | | |
# |---|---|
# | `x` | already (n, height, width, channels) |
# | `columns` | yours: one filter per column, (kh x kw x channels, filters), in the order of `windows` |
# | `out` | (n, OH, OW, filters), waits to be filled: `out[part]` gets the sums of the pictures `x[part]`, plus the bias if there is one |
# | example | 9.1's; with `padding=(1, 1)` also sums that hang over the edge; `stride=(2, 1)` leaves out every second row |
#
# <details><summary>Hint, after five minutes of trying</summary>
# The weights are (filters, channels, kh, kw): which order of axes do columns need? Which reshape makes every window of a block
# one row? <code>columns</code> says how long a row is. And into which shape must the product go back?</details>

# %% nbgrader={"grade": false, "grade_id": "conv2d", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def conv2d(x, weight, bias=None, *, stride=(1, 1), padding=(0, 0)):
    """How well each window matches each filter: x (N, C, H, W), weight (O, C, kh, kw), bias (O,) -> (N, O, OH, OW)."""
    x, (filters, _, *kernel) = channels_last(x), weight.shape
    out = np.empty((len(x), *places(x.shape[1:3], kernel, stride, padding), filters), x.dtype)
    ### BEGIN SOLUTION
    columns = weight.transpose(2, 3, 1, 0).reshape(-1, filters)
    ### END SOLUTION
    for part in blocks(*out.shape[:3], len(columns)):
        ### BEGIN SOLUTION
        rows = windows(pad(x[part], padding), kernel, stride).reshape(-1, len(columns))
        np.matmul(rows, columns, out=out[part].reshape(-1, filters))
        if bias is not None:
            out[part] += bias
        ### END SOLUTION
    return channels_first(out)

# %% nbgrader={"grade": true, "grade_id": "test-conv-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
same(conv2d(hand_x, hand_w).data, [[[[4, -1], [2, 6]]]], "the example of 9.1")
same(conv2d(hand_x, hand_w, [10]).data, [[[[14, 9], [12, 16]]]], "the same with a bias of 10")
### BEGIN HIDDEN TESTS
same(conv2d(hand_x, hand_w, stride=(2, 1)).data, [[[[4, -1]]]], "the same with stride (2, 1)")
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-conv-sizes", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_conv_sizes(seed, *shapes, **options):
    x, weight, bias = drawn(seed, *shapes, shapes[1][:1])
    want = by_definition(x, weight, **options) + bias[:, None, None]
    same(conv2d(x, weight, bias, **options).data, want, f"pictures {shapes[0]}, filters {shapes[1]}, {options}")
test_conv_sizes(0, (2, 3, 5, 6), (4, 3, 2, 3))
test_conv_sizes(1, (2, 3, 5, 6), (4, 3, 2, 3), stride=(2, 1), padding=(0, 2))
### BEGIN HIDDEN TESTS
test_conv_sizes(2, (1, 2, 7, 4), (1, 2, 3, 1), stride=(3, 2), padding=(1, 0))
test_conv_sizes(3, (5, 16, 24, 40), (3, 16, 3, 3), padding=(1, 1))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "rule-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Its rule, beside it
#
# G is the gradient that arrives: one number per output. **Weights:** the forward pass is a product of rows and columns, so
# the third recall question has the answer, and the blocks add up.
#
# **Pixels:** an output at place p was made from the
# window at p, so G at p goes back to every pixel of that window, times the weight that lay on it. Windows overlap, and the
# contributions meet: in the example with G = 1 everywhere, the centre was in all four windows and collects 1 + 2 + 0 - 1 = 2.
#
# A matrix product cannot add where windows overlap, but this can: go through the **cells** of the kernel. The pixels under
# cell (0, 1), one per place, are a regular grid, no pixel twice. `shifts(kernel, stride, (OH, OW))` yields pairs `cell, under`:
# a cell (i, j), and that grid as an index; `wide[under]` has shape (n, OH, OW, channels).
#
# ### TODO 9.4: two loops of `conv2d`'s rule, 2 and 2 lines
#
# | name | is |
# |---|---|
# | `x`, `grad` | (n, height, width, channels) and (n, OH, OW, filters) |
# | `total` | (kh x kw x channels, filters), zeros: add to it what the pictures of a block give |
# | `arrived` | `grad` of a block as rows, (n x OH x OW, filters) |
# | `wide` | zeros, a block of pictures with their rim: add at each cell what goes back to the pixels under it |
# | `cells[cell]` | (filters, channels): all weights that lie on this cell |
#
# <details><summary>Hint, after five minutes of trying</summary>
# You know the shapes: rows of filters must become rows of channels, by a matrix that you have. Into which shape do they go then?</details>

# %% nbgrader={"grade": false, "grade_id": "conv-rule", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@conv2d.backward
def _(grad, out, x, weight, bias=None, *, stride=(1, 1), padding=(0, 0)):
    x, grad, (filters, channels, *kernel) = channels_last(x), channels_last(grad), weight.shape
    parts = blocks(*grad.shape[:3], weight[0].size)

    def for_weight():
        total = np.zeros((weight[0].size, filters), x.dtype)
        for part in parts:                      # the rows are made again: keeping them would take kh * kw times x
            ### BEGIN SOLUTION
            rows = windows(pad(x[part], padding), kernel, stride).reshape(-1, len(total))
            total += rows.T @ grad[part].reshape(-1, filters)
            ### END SOLUTION
        return np.ascontiguousarray(total.reshape(*kernel, channels, filters).transpose(3, 2, 0, 1))

    def for_x():
        gx, cells = np.zeros_like(x), np.ascontiguousarray(weight.transpose(2, 3, 0, 1))
        for part in parts:
            wide = pad(gx[part], padding)       # gx itself where there is no rim
            arrived = grad[part].reshape(-1, filters)
            ### BEGIN SOLUTION
            for cell, under in shifts(kernel, stride, grad.shape[1:3]):
                wide[under] += (arrived @ cells[cell]).reshape(wide[under].shape)
            ### END SOLUTION
            if any(padding): gx[part] = crop(wide, padding)
        return channels_first(gx)

    gradients = for_x, for_weight, lambda: channel_sums(grad.reshape(-1, filters))
    return gradients if bias is not None else gradients[:2]

# %% nbgrader={"grade": true, "grade_id": "test-rule-by-hand", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_rule_by_hand(grad, want_x, want_w):
    x, weight = Tensor(hand_x, requires_grad=True), Tensor(hand_w, requires_grad=True)
    conv2d(x, weight).backward(np.float32([[grad]]))
    same(weight.grad[0, 0], want_w, f"gradient of the filter, for G = {grad}")
    same(x.grad[0, 0], want_x, f"gradient of the picture, for G = {grad}")
test_rule_by_hand([[1, 1], [1, 1]], [[1, 3, 2], [1, 2, 1], [0, -1, -1]], [[4, 6], [3, 5]])
### BEGIN HIDDEN TESTS
test_rule_by_hand([[2, 0], [0, -1]], [[2, 4, 0], [0, -3, -2], [0, 0, 1]], [[1, 1], [0, 1]])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-rule-nudged", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def test_rule_nudged(seed, *shapes, **options): check_rule(conv2d, *drawn(seed, *shapes, shapes[1][:1]), **options)
test_rule_nudged(0, (2, 3, 4, 5), (2, 3, 2, 3))
test_rule_nudged(1, (1, 2, 5, 4), (3, 2, 3, 2), stride=(2, 1), padding=(1, 1))
### BEGIN HIDDEN TESTS
test_rule_nudged(2, (2, 1, 6, 5), (2, 1, 2, 2), stride=(3, 2), padding=(0, 2))
x, weight, grad = drawn(3, (5, 16, 24, 40), (3, 16, 3, 3), (5, 3, 22, 38))
for_x, for_weight = conv2d.derivative(grad, None, x, weight)
want = by_definition(x.swapaxes(0, 1), grad.swapaxes(0, 1)).swapaxes(0, 1)
same(for_weight() / 100, want / 100, "gradient of the weights, 5 pictures of 24 x 40 in several blocks, divided by 100")
turned = weight[:, :, ::-1, ::-1].swapaxes(0, 1)
same(for_x(), by_definition(grad, turned, padding=(2, 2)), "gradient of the pictures, 5 pictures of 24 x 40 in several blocks")
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "speed-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain: loops against rows
#
# The network of this course's CIFAR-10 example has two convolutions, 3 to 32 and 32 to 64 channels. One training step on 32
# pictures takes 1.4 thousand million multiplications in them. How many times as long do your loops of 9.1 take per
# multiplication as your `conv2d` with its rule? Commit to a number.

# %% nbgrader={"grade": false, "grade_id": "speed-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_times = your number
### BEGIN SOLUTION
guess_times = 100.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-speed-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_times > 0, f"expected any positive number, got {guess_times}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "speed-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
from timeit import repeat

def seconds(work): return min(repeat(work, number=1, repeat=5))
small_x, small_w, square = drawn(0, (1, 4, 10, 10), (4, 4, 3, 3), (1024, 1024))
x1, w1, x2, w2 = drawn(1, (32, 3, 32, 32), (32, 3, 3, 3), (32, 32, 30, 30), (64, 32, 3, 3))
def step():
    for x, weight, needed in [(x1, w1, [1]), (x2, w2, [0, 1])]:        # the picture itself needs no gradient
        out = conv2d.forward(x, weight)
        for place in needed: conv2d.derivative(out, out, x, weight)[place]()

counts = {"loops": 8 * 8 * 4 * 4 * 9, "step": 32 * (2 * 30 * 30 * 32 * 27 + 3 * 28 * 28 * 64 * 288), "matrix product": 1024 ** 3}
took = {"loops": seconds(lambda: naive_conv2d(small_x, small_w)), "step": seconds(step), "matrix product": seconds(lambda: square @ square)}
each = {name: took[name] / counts[name] * 1e9 for name in counts}
for name in counts: print(f"{name:15} {counts[name]:13,} multiplications, measured {took[name]:.4f} s: {each[name]:8.3f} ns each")
print(f"the step in loops: {each['loops'] * counts['step'] / 1e9:.0f} s (calculated, not measured); in rows: {took['step']:.3f} s")
print(f"per multiplication the loops take {each['loops'] / each['step']:,.0f} times as long; you said {guess_times}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "speed-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** An epoch of CIFAR-10 is 1,563 such steps. A colleague says: rows must be faster
# because they skip work. Answer with your figures, and say which line shows how far your `conv2d` is from the best that
# this machine can do. Rows hold every pixel up to nine times: how large would they be for the second convolution and all 32
# pictures at once, and what do blocks change? Then decide: is it worth making the fast one twice as fast?
#
# | points | for |
# |---|---|
# | 2 | your own three figures per multiplication, their ratios, and how far your guess was off |
# | 2 | that the work is the same, where the time of the loops goes, and the bytes of all rows |
# | 2 | a decision with the hours of 30 epochs by loops, by rows, and by rows at double speed |

# %% [markdown] nbgrader={"grade": true, "grade_id": "speed-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Loops 527 ns, step 0.031 ns, plain matrix product 0.013 ns per multiplication: 17,000 times, I had said 100. No
# work is skipped: the count is the same by calculation. The loops' time goes into Python: each product is looked up, made
# into an object, multiplied, added and stored, step by step; the multiplication itself is far below 1 ns. The product line
# is the best this machine does: conv2d takes 2.4 times as long per multiplication, since it writes rows first and its
# matrices are slim. All rows of the second layer: 32 * 28 * 28 * 288 * 4 bytes = 29 MB, far beyond the cache; a block has
# 1 MB. 30 epochs are 46,890 steps: by loops 46,890 * 757 s = 9,900 hours, over a year; by rows 0.6 hours; at double speed
# 0.3. The first factor makes the course possible, the second saves 17 minutes a run: worth it only if one runs often.
# (A server, one thread, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "pool-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## The largest of a window (40 minutes)
#
# **Max pooling** keeps the largest number of each window, channel by channel, by default in windows of 2 x 2 side by side:
# a quarter of the numbers, and whether something was found matters more than where exactly. By hand, windows of 2 x 2:
#
# | row | in | out | G = 1, 2 goes to |
# |---|---|---|---|
# | 0 | `1 7 3 0` | `7 3` | `0 1 2 0` |
# | 1 | `4 2 3 1` | | `0 0 0 0` |
#
# A nudge of 1, 4 or 2 changes nothing: only the winner gets the gradient. The two 3s tie; the first one gets it all, as
# if it were a little larger.
#
# ### TODO 9.5: `max_pool2d`, the loop, about 3 lines
#
# | | |
# |---|---|
# | `out` | (n, OH, OW, channels), filled with the lowest number there is: -inf |
# | rim | of -inf, so that it never wins; it is the third argument of `pad` |
# | tools | `shifts`, as in 9.4; `np.maximum(a, b, out=a)` keeps the larger numbers in `a` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Cell by cell again: what must become of <code>out[part]</code> when it meets the pixels under one more cell?</details>

# %% nbgrader={"grade": false, "grade_id": "pool", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def max_pool2d(x, *, kernel=(2, 2), stride=(2, 2), padding=(0, 0)):
    """The largest number of each window, channel by channel: (N, C, H, W) -> (N, C, OH, OW)."""
    x = channels_last(x)
    out = np.full((len(x), *places(x.shape[1:3], kernel, stride, padding), x.shape[3]), -np.inf, x.dtype)
    for part in blocks(*x.shape):
        ### BEGIN SOLUTION
        wide = pad(x[part], padding, -np.inf)
        for _, under in shifts(kernel, stride, out.shape[1:3]):
            np.maximum(out[part], wide[under], out=out[part])
        ### END SOLUTION
    return channels_first(out)

# %% nbgrader={"grade": true, "grade_id": "test-pool", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def largest(x, kernel, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding[0],) * 2, (padding[1],) * 2), constant_values=-np.inf)
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(2, 3))[:, :, ::stride[0], ::stride[1]]
    return views.max(axis=(4, 5))
def test_pool(seed, shape, kernel, stride, padding):
    x = drawn(seed, shape)[0] - 3
    got = max_pool2d(x, kernel=kernel, stride=stride, padding=padding).data
    same(got, largest(x, kernel, stride, padding), f"{shape}, kernel {kernel}, stride {stride}, padding {padding}")
same(max_pool2d([[[[1, 7, 3, 0], [4, 2, 3, 1]]]]).data, [[[[7, 3]]]], "the example of the TODO")
test_pool(0, (2, 3, 5, 7), (2, 2), (2, 2), (0, 0))
### BEGIN HIDDEN TESTS
for kernel, stride, padding in [((3, 2), (1, 2), (1, 1)), ((2, 3), (2, 1), (0, 1))]: test_pool(1, (3, 2, 6, 5), kernel, stride, padding)
test_pool(2, (5, 8, 100, 100), (2, 2), (2, 2), (0, 0))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "pool-rule-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### TODO 9.6: the loop of its rule, about 4 lines
#
# | name | is |
# |---|---|
# | `wide`, `gwide` | a block of pictures with a rim of nan, which equals nothing, and zeros of the same shape: add the gradients here |
# | `out[part]` | the winners' numbers, (n, OH, OW, channels) |
# | `left` | a copy of what arrives: the gradient that still has no owner |
# | promise | each window's gradient goes, whole, to the first of its largest pixels; what overlapping windows send is added |
#
# <details><summary>Hint, after five minutes of trying</summary>
# True times a number is the number, False times it is 0. What remains in <code>left</code> once a winner has been paid?</details>

# %% nbgrader={"grade": false, "grade_id": "pool-rule", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@max_pool2d.backward
def _(grad, out, x, *, kernel=(2, 2), stride=(2, 2), padding=(0, 0)):
    x, out, grad = channels_last(x), channels_last(out), channels_last(grad)
    gx = np.zeros_like(x)
    for part in blocks(len(x), 4, *x.shape[1:]):
        wide, gwide, left = pad(x[part], padding, np.nan), pad(gx[part], padding), grad[part].copy()
        ### BEGIN SOLUTION
        for _, under in shifts(kernel, stride, out.shape[1:3]):
            share = left * (wide[under] == out[part])
            gwide[under] += share
            left -= share
        ### END SOLUTION
        if any(padding): gx[part] = crop(gwide, padding)
    return channels_first(gx)

# %% nbgrader={"grade": true, "grade_id": "test-pool-rule", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_pool_rule(x, grad, want, **options):
    x = Tensor([[x]], requires_grad=True)
    max_pool2d(x, **options).backward(np.float32([[grad]]))
    same(x.grad[0, 0], want, f"picture\n{x.data[0, 0]}\n{options}, gradient {grad} arrives")
test_pool_rule([[1, 7, 3, 0], [4, 2, 3, 1]], [[1, 2]], [[0, 1, 2, 0], [0, 0, 0, 0]])
test_pool_rule([[1, 9, 2]], [[5, 7]], [[0, 12, 0]], kernel=(1, 2), stride=(1, 1))
### BEGIN HIDDEN TESTS
test_pool_rule([[4, 4], [4, 4]], [[3]], [[3, 0], [0, 0]])
test_pool_rule([[-5, -1], [-2, -3]], [[1, 2], [3, 4]], [[1, 2], [3, 4]], padding=(1, 1))
check_rule(max_pool2d, drawn(4, (2, 3, 5, 6))[0], kernel=(3, 2), stride=(2, 1), padding=(1, 1))
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "norm-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Numbers of one size (30 minutes)
#
# Filters of all sizes feed each other, so the numbers of a deep network grow or vanish from layer to layer. **Batch
# normalisation** (Ioffe and Szegedy, 2015) brings each channel to mean 0 and variance 1, over all pictures *and places*
# of the batch, then lets the network choose: times a learned gain, plus a learned bias. When the network is used, an answer
# must not depend on the other pictures of the batch; then **running** averages stand in for the batch's own.
#
# By hand, one channel, four pixels `1 3 5 7`, momentum 0.1, running mean 0 and variance 1: mean 4, variance 5, so the first
# pixel becomes (1 - 4) / 2.236 = -1.342; the running mean becomes 0.4, and the running variance 0.9 + 0.1 · 6.667 = 1.567,
# since it takes the estimate with n - 1, 20 / 3.
#
# ### TODO 9.7: `batch_norm2d`, about 8 lines
#
# | name | is |
# |---|---|
# | `rows` | (n x height x width, channels): a row per pixel. `channel_moments(rows)` gives mean and variance (over n) |
# | `running` | `(mean, variance)`, two arrays that training changes **in place**, or None |
# | `training` | False: use `running`, change nothing |
# | `mean`, `inverse` | your names: the mean in use, and 1 / sqrt(variance + eps); the rule wants to see them |
# | `out` | like `rows`; fill it, as many rows at a time as `blocks` finds right for rows of c numbers: a product and a sum each are enough |
#
# <details><summary>Hint, after five minutes of trying</summary>
# <code>old += 0.1 * (new - old)</code> changes an array in place; <code>old = ...</code> gives a name to a new one. Multiply out
# (x - mean) · inverse · gain + bias: what stands before x?</details>

# %% nbgrader={"grade": false, "grade_id": "norm", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
@op
def batch_norm2d(x, gain, bias, *, running=None, momentum=0.1, training=True, eps=1e-5):
    """Each channel of (N, C, H, W) to mean 0 and variance 1 over the batch, or by `running`, then times gain plus bias."""
    (n, c, h, w), rows = x.shape, channels_last(x).reshape(-1, x.shape[1])
    out = np.empty_like(rows)
    ### BEGIN SOLUTION
    mean, variance = channel_moments(rows) if training else running
    if training and running is not None:
        estimate = variance * len(rows) / max(1, len(rows) - 1)
        for old, new in zip(running, (mean, estimate), strict=True):
            old += momentum * (new - old)
    inverse = 1 / np.sqrt(variance + eps)
    for part in blocks(len(rows), c):
        out[part] = rows[part] * (gain * inverse) + (bias - mean * gain * inverse)
    ### END SOLUTION
    return channels_first(out.reshape(n, h, w, c)), (mean.copy(), inverse)

batch_norm2d.backward(batch_norm2d_rule)

# %% nbgrader={"grade": true, "grade_id": "test-norm-training", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_norm_training(seed, shape, gain, bias):
    x, gain, bias = drawn(seed, shape)[0] * 5 + 20, np.float32(gain), np.float32(bias)
    got = batch_norm2d(x, gain, bias).data
    same(got.mean(axis=(0, 2, 3)), bias, f"{shape}, bias {bias}: mean of each channel", atol=1e-2)
    same(got.std(axis=(0, 2, 3)), gain, f"{shape}, gain {gain}: standard deviation of each channel", atol=1e-2)
same(batch_norm2d([[[[1, 3], [5, 7]]]], [1], [0]).data[0, 0, 0, 0], -1.3416, "first pixel of the example")
test_norm_training(0, (4, 3, 5, 2), gain=[1, 2, 3], bias=[0, -1, 1])
### BEGIN HIDDEN TESTS
test_norm_training(1, (6, 2, 150, 160), gain=[0.5, 4], bias=[3, 0])
check_rule(batch_norm2d, *drawn(2, (3, 2, 2, 3), (2,), (2,)))
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "layers", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
class Conv2d(Module):
    """Filters (out_channels, in_channels / groups, kh, kw) that look at every window of (N, in_channels, H, W)."""

    def __init__(self, in_channels, out_channels, kernel_size, stride=1, padding=0, groups=1, bias=True):
        check_groups(in_channels, out_channels, groups)
        shape = out_channels, in_channels // groups, *pair(kernel_size)
        self.stride, self.padding, self.groups = pair(stride), pair(padding, least=0), groups
        self.weight = Parameter(he_normal(int(np.prod(shape[1:])), shape))
        self.bias = Parameter(np.zeros(out_channels)) if bias else None

    def forward(self, x):
        x = pictures(x, self.weight.shape[1] * self.groups)
        return in_groups(conv2d, self.groups, x, self.weight, self.bias, stride=self.stride, padding=self.padding)

    def extra_repr(self): return describe_conv(self)

class MaxPool2d(Pool2d): function = max_pool2d
class AvgPool2d(Pool2d): function = avg_pool2d

class BatchNorm2d(BatchNorm):
    """For pictures (N, C, H, W): what the general BatchNorm does, by one op whose rule needs x only, in a third of the time."""

    dimensions = (4,)

    def forward(self, x):
        x, running = as_tensor(x), (self.running_mean, self.running_var)
        check_features(self, x.shape, self.weight.size, self.dimensions)
        return batch_norm2d(x, self.weight, self.bias, running=running, momentum=self.momentum, training=self.training, eps=self.eps)

Conv2D, MaxPool2D = Conv2d, MaxPool2d

# %% nbgrader={"grade": true, "grade_id": "test-norm-running", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_norm_running(momentum, *batches, want):
    layer = BatchNorm2d(1, momentum=momentum)
    for pixels in batches: layer(np.reshape(pixels, (-1, 1, 1, 1)))
    what = f"running mean and variance, momentum {momentum}, after {batches}"
    same([layer.running_mean[0], layer.running_var[0]], want, what)
    got = layer.eval()([[[[want[0] + 1]]]]).data.item()
    same(got, 1 / want[1] ** 0.5, f"in use, {what}, which are {want}: a pixel 1 above the running mean")
    same([layer.running_mean[0], layer.running_var[0]], want, f"{what} and one picture in use, when nothing may change")
test_norm_running(0.1, [1, 3, 5, 7], want=[0.4, 1.56667])
### BEGIN HIDDEN TESTS
test_norm_running(0.5, [2, 4], [0, 6], want=[2.25, 9.75])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "moved-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain: digits that stand elsewhere
#
# Four networks learn from 1,000 digits in the middle of a paper of 12 x 12 pixels, by the same number of steps. Then 797
# others are read, once in the middle and once moved by up to 2 pixels. The second network is two convolutions, each followed
# by pooling, `Flatten` and a linear layer: the classic order.
#
# Which percentage of the **moved** digits will it read? Commit to a number; the linear one reads about 20 %.

# %% nbgrader={"grade": false, "grade_id": "moved-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_moved = your number of percent
### BEGIN SOLUTION
guess_moved = 90
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-moved-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert 0 <= guess_moved <= 100, f"expected any number of percent, 0 to 100, got {guess_moved}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "moved-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.randomness import manual_seed

paper = np.pad(images[:, None], ((0, 0), (0, 0), (2, 2), (2, 2)))
rng = np.random.default_rng(0)
moved = np.stack([np.roll(picture, rng.integers(-2, 3, size=2), axis=(1, 2)) for picture in paper[1000:]])
ReLU, Linear, Flatten = activations.ReLU, layers.Linear, layers.Flatten
def conv(before, after, k): return [Conv2d(before, after, k, padding=k // 2), BatchNorm2d(after), ReLU()]
networks = {
    "linear, linear": lambda: [Flatten(), Linear(144, 64), ReLU(), Linear(64, 10)],
    "conv, pool, conv, pool, flatten": lambda: [*conv(1, 12, 3), MaxPool2d(2), *conv(12, 24, 3), MaxPool2d(2), Flatten(), Linear(216, 10)],
    "conv, pool, conv, global max": lambda: [*conv(1, 12, 3), MaxPool2d(2), *conv(12, 24, 3), GlobalMaxPool2d(), Linear(24, 10)],
    "conv, conv, global max": lambda: [*conv(1, 12, 3), *conv(12, 24, 5), GlobalMaxPool2d(), Linear(24, 10)],
}
read = {}
for name, parts in networks.items():
    manual_seed(0)
    model, rng = layers.Sequential(*parts()), np.random.default_rng(0)
    optimizer, loss = optimizers.Adam(model.parameters(), lr=0.01), losses.CrossEntropyLoss()
    for part in np.concatenate([rng.permutation(1000)[:992].reshape(31, 32) for _ in range(10)]):
        optimizer.zero_grad()
        loss(model(Tensor(paper[part])), labels[part]).backward()
        optimizer.step()
    model.eval()
    read[name] = [100 * (model(Tensor(x)).data.argmax(axis=1) == labels[1000:]).mean() for x in (paper[1000:], moved)]
    weights = sum(parameter.size for parameter in model.parameters())
    print(f"{name:32} {weights:6,} weights: {read[name][0]:.0f} % of centred digits read, {read[name][1]:.0f} % of moved ones")
print(f"you said {guess_moved} % of moved ones for the second")

# %% nbgrader={"grade": false, "grade_id": "moved-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
spots = np.arange(len(read))
for shift, column, name in [(-0.2, 0, "unseen digits, centred"), (0.2, 1, "the same, moved")]:
    plt.barh(spots + shift, [numbers[column] for numbers in read.values()], height=0.38, label=name)
plt.gca().set(yticks=spots, yticklabels=list(read), xlabel="read, %", title="What comes after a convolution decides what stays known")
plt.legend()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "moved-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** When its picture moves, a convolution gives the same answers, moved
# along. Yet your second network hardly knows moved digits. Say for each of the three networks with convolutions what its later
# layers make of that knowledge: which one keeps it whole, which for some moves only, which loses it, and why. Which figure
# excludes that the number of weights decides? Then decide: which network for digits anywhere on a page, which for a form
# where the place itself means something?
#
# | points | for |
# |---|---|
# | 2 | your own eight numbers or their differences, and how far your guess was off |
# | 2 | what flatten, pooling with stride 2 and the global maximum do to a moved picture, and the excluded rival |
# | 2 | a decision for both uses, with what it costs on centred digits |

# %% [markdown] nbgrader={"grade": true, "grade_id": "moved-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Linear 94 and 20 %, flatten 95 and 38 %, pooling and global maximum 94 and 70 %, global maximum alone 95 and 93 %;
# I had said 90 for the second. A convolution's answers move along with the picture. Flatten then gives every place its own
# weights, learned where centred digits have their strokes: what convolution knew is lost behind it. Pooling with stride 2
# moves along only with even moves; an odd one cuts other windows, and the second convolution sees other pictures. The global
# maximum does not ask where: a move changes nothing, except at the rim, where zeros stand for paper. The number of weights is
# not it: 3,058 read 70 %, 4,978 read 38 %, 9,930 read 20 %. A page: the fourth, at no cost on centred digits (95 against 94
# and 95; 1 % is 8 digits). A form: the place carries meaning, so flatten or a linear layer behind the filters; it costs 55
# points on what stands elsewhere. (One seed, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# You can say what a convolution knows before its first step: near pixels belong together, and a pattern is the same pattern
# anywhere. It has that knowledge from zeros and repeats in the matrix of a linear layer, and the layers behind it decide
# whether it survives.
#
# `tito module complete 09` makes it part of your framework. It returns in module 10 (where moved digits are learned from
# moved digits), 15 and 16 (where its time goes, and kernels of your own) and 18 (filters that may be left out).
#
# Two harder tasks, without points:
#
# - The gradient of the pictures is itself a convolution, of G with a rim, by filters turned by half a circle. Show it with
#   `naive_conv2d`, then time it against your loop over cells: which wins for 3 input channels, which for 32?
# - `ConvTranspose2d`: swap forward and `for_x`. What is it good for?
