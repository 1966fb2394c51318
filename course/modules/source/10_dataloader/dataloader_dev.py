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
# # Module 10: Data loading
#
# **The question: what does it take to feed a network?**
#
# Until now the data was one small array that lay ready. Real data lies in files, shows every object in one position only,
# and takes time to prepare. You write what stands between: bytes become pictures, pictures become shuffled batches,
# batches are varied on the way, and the next one is made while the network works on the last.
#
# At the end, a network that reads 9 of 10 centred digits meets digits that stand two pixels off, and a figure shows which
# part of an epoch was spent waiting for data. About 170 minutes. Needed: `Tensor` (module 02), `Linear` (04),
# `CrossEntropyLoss` (05), `backward` (06), `SGD` and `Adam` (07).

# %% nbgrader={"grade": false, "grade_id": "prerequisites", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import numpy as np
from tinytorch.core import activations, autograd, layers, losses, optimizers
from tinytorch.core.tensor import Tensor
from tinytorch.randomness import manual_seed

def learn(model, batches):
    """The model, after one step of Adam per batch (x, y)."""
    optimizer, loss = optimizers.Adam(model.parameters(), lr=0.003), losses.CrossEntropyLoss()
    for x, y in batches:
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model

points = Tensor([[0, 9], [9, 0]])
found = learn(layers.Linear(2, 2), [(points, np.array([0, 1]))] * 1500)(points).data.argmax(axis=1).tolist()
assert found == [0, 1], (
    f"1500 steps should teach a layer to tell two points apart, expected [0, 1], got {found}. One of {layers.__file__}, "
    f"{autograd.__file__}, {optimizers.__file__} is not as its tests want it: mend it (20 minutes), export it, restart this "
    "kernel. Past its due date, tito module start NN has the reference.")

# %% nbgrader={"grade": false, "grade_id": "imports", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
"""From files to shuffled, varied batches that are ready when the network wants them."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from tinytorch.core.tensor import Tensor
from tinytorch.datasets import CIFAR10_CLASSES, Pictures, cifar10_bytes, download_cifar10, download_mnist, mnist_arrays  # noqa: F401
from tinytorch.given.loading import BatchPlan
from tinytorch.given.transforms import Compose, Cutout, Normalize, ToFloat, chance

# %% [markdown] nbgrader={"grade": false, "grade_id": "recall", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Three questions before you start. Answer first, then unfold.
#
# <details><summary>x has shape (1000, 3, 32, 32). What is the shape of <code>x[[7, 2, 2]]</code>, and does it share memory with x?</summary>
# (3, 3, 32, 32): an array of numbers picks samples, also twice. It is a copy; only a slice such as <code>x[2:7]</code> is a view.</details>
# <details><summary>Two generators are made by <code>np.random.default_rng(5)</code>. What do they draw?</summary>
# The same numbers. <code>default_rng([5, 1])</code> and <code>default_rng([5, 2])</code> draw other ones, each time the same.</details>
# <details><summary>What does <code>yield</code> do in a function?</summary>
# It hands out a value and waits there until the next one is asked for: <code>for</code> asks.</details>

# %% nbgrader={"grade": false, "grade_id": "first-contact", "locked": true, "schema_version": 3, "solution": false, "task": false}
from tinytorch.data import digits

images, labels = digits()                               # 1,797 digits, the first 1,000 to learn from
images = images[:, None]                                # (1797, 1, 8, 8): one channel

def network(pixels):
    manual_seed(0)
    return layers.Sequential(layers.Flatten(), layers.Linear(pixels, 64), activations.ReLU(), layers.Linear(64, 10))

def reads(model, x):
    """Which percentage of the 797 digits that were not learned from a model names correctly."""
    return 100 * (model(Tensor(x)).data.argmax(axis=1) == labels[1000:]).mean()

by_class, mixed = np.argsort(labels[:1000], kind="stable"), np.random.default_rng(0).permutation(1000)
for name, order in [("first all zeros, then all ones, ...", by_class), ("shuffled", mixed)]:
    fed = [(Tensor(images[part]), labels[part]) for part in np.array_split(order, 32)] * 3
    print(f"{name:36} {reads(learn(network(64), fed), images[1000:]):.0f} % of unseen digits read")

# %% [markdown] nbgrader={"grade": false, "grade_id": "bytes-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## From bytes to pictures (15 minutes)
#
# Same network, same thousand digits, same 96 steps: only the order differs. Feeding is part of learning.
#
# CIFAR-10 holds 60,000 colour pictures of 32 x 32. Its binary version is a plain row of
# **records**: 1 byte for the class, then 1,024 bytes of red, row by row, then as many of green and of blue. With pictures
# of 2 x 2, two records would be 26 bytes:
#
# | | class | red | green | blue |
# |---|---|---|---|---|
# | record 0 | 7 | 10 11 12 13 | 20 21 22 23 | 30 31 32 33 |
# | record 1 | 2 | 14 15 16 17 | 24 25 26 27 | 34 35 36 37 |
#
# Picture 0 has channels `[[10, 11], [12, 13]]`, `[[20, 21], [22, 23]]`, `[[30, 31], [32, 33]]`: shape (3, 2, 2).
#
# Another version of CIFAR-10 is a **pickle**, Python's own format for objects. Reading a pickle runs whatever code it
# contains, so TinyTorch reads bytes only.
#
# ### TODO 10.1: `parse_cifar10(raw)`, 2 to 4 lines
#
# | | |
# |---|---|
# | `raw` | `bytes`, any number of records of 1 + 3 x 32 x 32 bytes |
# | returns | `images, labels`: uint8 arrays of shapes (n, 3, 32, 32) and (n,) |
# | example | `bytes([7]) + bytes([1] * 1024 + [2] * 1024 + [3] * 1024)`: label 7, red is 1 everywhere, green 2, blue 3 |
# | error | `ValueError` naming the number of bytes, if that is no whole number of records |
#
# <details><summary>Hint, after five minutes of trying</summary>
# <code>np.frombuffer</code> sees bytes as an array. Which shape puts every record into a row of its own? The labels are then
# a column.</details>

# %% nbgrader={"grade": false, "grade_id": "parse-cifar10", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def parse_cifar10(raw):
    """Images (n, 3, 32, 32) and labels (n,), bytes, from records of 1 label and 3 x 32 x 32 pixels."""
    ### BEGIN SOLUTION
    records = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-parse-example", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_parse_example(label, colours):
    pictures, classes = parse_cifar10(bytes([label]) + b"".join(bytes([colour] * 1024) for colour in colours))
    assert np.shape(pictures) == (1, 3, 32, 32), f"one record: expected images of shape (1, 3, 32, 32), got {np.shape(pictures)}"
    assert list(classes) == [label], f"expected the label [{label}], got {list(classes)[:5]}"
    found = [np.unique(channel).tolist() for channel in pictures[0]]
    assert found == [[colour] for colour in colours], f"red, green, blue should be {colours}, your channels hold {found}"
test_parse_example(7, [1, 2, 3])
### BEGIN HIDDEN TESTS
test_parse_example(0, [255, 128, 200])
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-parse-order", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_parse_order(seed, n):
    records = np.random.default_rng(seed).integers(256, size=(n, 3073), dtype=np.uint8)
    pictures, classes = parse_cifar10(records.tobytes())
    assert pictures.dtype == classes.dtype == np.uint8, f"expected uint8, got {pictures.dtype} and {classes.dtype}"
    assert np.array_equal(classes, records[:, 0]), f"labels: expected {records[:, 0]}, got {np.asarray(classes)[:9]}"
    same = np.array_equal(pictures, records[:, 1:].reshape(n, 3, 32, 32))
    assert same, f"{n} records: picture 0, red, row 0 begins with {records[0, 1:5]}, in yours {np.ravel(pictures)[:4]}"
test_parse_order(seed=0, n=2)
### BEGIN HIDDEN TESTS
test_parse_order(seed=1, n=5)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-parse-broken", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
def test_parse_broken(size):
    try: found = len(parse_cifar10(bytes(size))[1])
    except ValueError as error: found = error
    assert str(size) in str(found), f"{size} bytes are no whole number of records: expected a ValueError naming {size}, got {found}"
test_parse_broken(3072)
### BEGIN HIDDEN TESTS
test_parse_broken(2 * 3073 + 1)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "parse-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
digit = np.kron(images[5, 0], 255 * np.ones((4, 4))).astype(np.uint8)        # 32 x 32
raw = bytes([labels[5]]) + digit.tobytes() + (digit // 2).tobytes() + bytes(1024)
picture, misread = parse_cifar10(raw)[0][0].transpose(1, 2, 0), np.frombuffer(raw[1:], np.uint8).reshape(32, 32, 3)
_, axes = plt.subplots(1, 2, figsize=(6, 3))
for ax, shown, title in zip(axes, [picture, misread], ["channel after channel", "misread: pixel after pixel"], strict=True):
    ax.imshow(shown); ax.set_title(title)
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "samples-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Samples, batches, epochs (45 minutes)
#
# A loader must not care where samples come from. It needs two answers: how many are there, and what is number i? Whatever
# gives them is a **dataset**. With `x` of shape (4, 2) and one label each in `y`:
#
# | asked | answer |
# |---|---|
# | `len(dataset)` | 4 |
# | `dataset[2]` | `(x[2], y[2])`: a row and its label |
# | `dataset.batch([3, 1])` | two rows and two labels, in this order |
#
# Two classes are given. The base class makes a batch from single samples: that works for everything, for
# pictures in 50,000 files as well as for numbers from a formula, and is slow, as you will measure. Where the data is in
# arrays, `array[[3, 1]]` picks all rows of a batch at once, and `TensorDataset` does no more than that. It refuses arrays of
# different lengths: a picture without a label would otherwise be noticed in the middle of an epoch, or never.

# %% nbgrader={"grade": false, "grade_id": "tensor-dataset", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
class Dataset:
    """Samples by number: a subclass has `len(dataset)` and `dataset[i]`, a tuple of arrays or numbers."""

    def batch(self, numbers):
        """The samples of these numbers, one array per field, made one by one. A subclass may be faster."""
        samples = [self[int(i)] for i in numbers]
        return tuple(np.stack(field) for field in zip(*samples, strict=True))

class TensorDataset(Dataset):
    """Arrays or tensors of equal length; sample i is entry i of each."""

    def __init__(self, *arrays):
        self.arrays = tuple(np.asarray(array) for array in arrays)
        if len({len(array) for array in self.arrays}) != 1:
            raise ValueError(f"arrays of one length are needed, these have {[len(array) for array in self.arrays]}")

    def __len__(self): return len(self.arrays[0])
    def __getitem__(self, i): return tuple(array[i] for array in self.arrays)
    def batch(self, numbers): return self[numbers]

# %% [markdown] nbgrader={"grade": false, "grade_id": "batches-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# An **epoch** shows every sample once. Its order is cut into batches; what is left over is one smaller batch, or is
# dropped, for code that needs equal sizes. Order `[4, 0, 6, 2, 5, 1, 3]`, three per batch:
#
# | `drop_last` | batches |
# |---|---|
# | `False` | `[4, 0, 6]`, `[2, 5, 1]`, `[3]` |
# | `True` | `[4, 0, 6]`, `[2, 5, 1]` |
#
# ### TODO 10.2: `batches(order, batch_size, *, drop_last=False)`, 2 to 4 lines
#
# | | |
# |---|---|
# | `order` | array of sample numbers, any length, also 0 |
# | `batch_size` | int, at least 1 |
# | returns | list of arrays, together `order` (less the dropped rest); none of them empty |
# | example | the table above; 6 numbers by 3 give two batches in both cases |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Where does each batch start? <code>range</code> has a third argument. What does a slice give that reaches beyond the end?</details>

# %% nbgrader={"grade": false, "grade_id": "batches", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def batches(order, batch_size, *, drop_last=False):
    """The numbers in `order`, cut into arrays of batch_size; the rest is a smaller last one, or dropped."""
    ### BEGIN SOLUTION
    end = len(order) - len(order) % batch_size if drop_last else len(order)
    return [order[start:start + batch_size] for start in range(0, end, batch_size)]
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-batches", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_batches(order, batch_size, drop_last, want):
    got = [np.asarray(part).tolist() for part in batches(np.array(order, dtype=int), batch_size, drop_last=drop_last)]
    assert got == want, f"{order} by {batch_size}, drop_last={drop_last}: expected {want}, got {got}"
test_batches([4, 0, 6, 2, 5, 1, 3], 3, False, [[4, 0, 6], [2, 5, 1], [3]])
test_batches([4, 0, 6, 2, 5, 1, 3], 3, True, [[4, 0, 6], [2, 5, 1]])
for drop_last in (False, True): test_batches([5, 1, 0, 2], 2, drop_last, [[5, 1], [0, 2]])
### BEGIN HIDDEN TESTS
test_batches([1, 0], 5, False, [[1, 0]])
for order in ([], [1, 0]): test_batches(order, 5, True, [])
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "loader-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### The loader
#
# A run that stops after epoch 7 must be able to go on with the very batches that epoch 8 would have had. So nothing may
# depend on what was drawn before. `loader.generator(epoch, number)` is given: it makes a fresh generator from the
# loader's seed and these two numbers. So a loader's whole state is its seed and its count of epochs. Number 0 is for the
# epoch's order; 1, 2, 3, ... are for what is done to its batches.
#
# ### TODO 10.3: two methods of `DataLoader`, about 7 lines
#
# | method | promise |
# |---|---|
# | `order(epoch)` | all sample numbers: 0, 1, 2, ... or, with `shuffle=True`, a permutation by `generator(epoch, 0)` |
# | `load(epoch, number, samples)` | batch `number` (from 0) of an epoch: a tuple of the dataset's fields for these sample numbers |
# | | if there is a `transform`, the first field goes through `transform(field, generator(epoch, number + 1))` |
# | | fields of floats (`dtype.kind == "f"`) become Tensors; others, such as labels, stay arrays |
# | example | `DataLoader([[0.5], [1.5], [2.5]], [7, 8, 9]).load(0, 0, [2, 0])` is `(Tensor([[2.5], [0.5]]), [9, 7])` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# A generator has a method <code>permutation</code>. For the fields: <code>first, *others = ...</code> parts a tuple into its
# first entry and a list of the rest, which may be empty.</details>

# %% nbgrader={"grade": false, "grade_id": "dataloader", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class DataLoader(BatchPlan):
    """Batches of a dataset, or of arrays: floats as Tensors, whole numbers as arrays. One pass is an epoch."""

    def __init__(self, data, labels=None, batch_size=32, shuffle=False, **options):
        if isinstance(data, Dataset) and labels is not None:
            raise TypeError("a Dataset brings its own labels: write DataLoader(dataset, batch_size=...)")
        dataset = data if isinstance(data, Dataset) else TensorDataset(data) if labels is None else TensorDataset(data, labels)
        super().__init__(dataset, batch_size, shuffle, **options)

    def order(self, epoch):
        ### BEGIN SOLUTION
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return self.generator(epoch, 0).permutation(len(self.dataset))
        ### END SOLUTION

    def load(self, epoch, number, samples):
        ### BEGIN SOLUTION
        first, *others = self.dataset.batch(samples)
        if self.transform is not None:
            first = self.transform(first, self.generator(epoch, number + 1))
        return tuple(Tensor(field) if field.dtype.kind == "f" else field for field in (first, *others))
        ### END SOLUTION

    def __iter__(self):
        epoch, self.epoch = self.epoch, self.epoch + 1
        make = lambda job: self.load(epoch, *job)
        jobs = enumerate(batches(self.order(epoch), self.batch_size, drop_last=self.drop_last))
        return in_order(make, jobs, self.num_workers) if self.num_workers else map(make, jobs)

# %% nbgrader={"grade": true, "grade_id": "test-order", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_order(n, seed):
    order = lambda seed, epoch, shuffle=True: np.asarray(DataLoader(np.arange(n), shuffle=shuffle, seed=seed).order(epoch)).tolist()
    straight, first = order(seed, 4, False), order(seed, 0)
    assert straight == list(range(n)), f"shuffle=False: expected 0 to {n - 1} in order, got {straight}"
    assert sorted(first) == straight, f"epoch 0 should have each of {n} numbers once, it has {first}"
    assert first == order(seed, 0), f"seed {seed}, epoch 0, a second time: expected {first}, got {order(seed, 0)}"
    assert first not in (order(seed, 1), order(seed + 1, 0)), f"seed {seed}, epoch 0 gives {first}; the next epoch or seed gives it, too"
test_order(n=12, seed=0)
### BEGIN HIDDEN TESTS
test_order(n=30, seed=7)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-load", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_load(x, y, samples, kinds):
    got, want = DataLoader(x, y).load(0, 0, np.array(samples)), [np.asarray(field)[samples] for field in (x, y)]
    found = [type(field).__name__ for field in got]
    assert (type(got), found) == (tuple, kinds), f"expected a tuple of {kinds}, got a {type(got).__name__} of {found}"
    same = all(np.array_equal(field, numbers) for field, numbers in zip(got, want, strict=True))
    assert same, f"samples {samples}: expected\n{want}\ngot\n{got}"
test_load([[0.5], [1.5], [2.5]], [7, 8, 9], [2, 0], ["Tensor", "ndarray"])
### BEGIN HIDDEN TESTS
test_load([[5, 1], [2, 3]], [0.5, 1.5], [1, 1, 0], ["ndarray", "Tensor"])
assert len(DataLoader([5, 6]).load(0, 0, np.array([1]))) == 1, "a dataset of one field: expected a tuple of 1, got more"
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-transform", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_transform(seed, epoch, number):
    x, samples = np.ones((6, 1, 9, 9), np.float32), np.array([4, 1, 3])
    loader = DataLoader(x, np.arange(6), transform=Cutout(1), seed=seed)
    pictures, classes = loader.load(epoch, number, samples)
    cut, want = (pictures.data == 0).sum(axis=(1, 2, 3)).tolist(), Cutout(1)(x[samples], loader.generator(epoch, number + 1))
    assert cut == [1, 1, 1], f"Cutout(1) takes one pixel of each of 3 pictures, in yours {cut} are missing"
    assert np.array_equal(pictures.data, want), f"epoch {epoch}, batch {number}: other pixels than generator({epoch}, {number + 1}) draws"
    assert list(classes) == [4, 1, 3], f"a transform changes the first field only: expected labels [4, 1, 3], got {classes}"
test_transform(seed=0, epoch=0, number=0)
### BEGIN HIDDEN TESTS
for seed, epoch, number in [(3, 2, 1), (1, 1, 4)]: test_transform(seed, epoch, number)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "loader-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
loader, model = DataLoader(images[:1000], labels[:1000], shuffle=True, seed=0), network(64)
for _ in range(3):
    print(f"{reads(learn(model, loader), images[1000:]):.0f} % of unseen digits read; the loader's state is {loader.state_dict()}")

# %% [markdown] nbgrader={"grade": false, "grade_id": "flip-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## One picture, many views (35 minutes)
#
# A dataset shows each object in one position. **Augmentation** shows it slightly changed in every epoch: mirrored, moved,
# partly covered. Each change is a claim: *this is still the same thing*.
#
# Mirrored left to right, `[[1, 2, 3], [4, 5, 6]]` is `[[3, 2, 1], [6, 5, 4]]`. A network reads thousands of
# pictures per second, so whole batches are changed at once, never one picture at a time. Given in
# `tinytorch/transforms.py` are `ToFloat`, `Normalize`, `Cutout` and `Compose`, which applies several in a row; all are
# called with the images and a source of chance, as yours will be.
#
# ### TODO 10.4: `RandomHorizontalFlip.__call__`, 3 to 5 lines
#
# | | |
# |---|---|
# | `images` | array (n, channels, height, width), any dtype |
# | `random` | a generator (the line above yours makes one from a seed); draw from nothing else |
# | returns | a new array, same shape and dtype: each picture mirrored with probability `self.p`, on its own |
# | limits | `p=0` mirrors none, `p=1` all; `images` stays as it was |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Which array of n True and False says who is mirrored? It may stand in brackets, on both sides of an assignment. And
# which slice runs backwards?</details>

# %% nbgrader={"grade": false, "grade_id": "flip", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class RandomHorizontalFlip:
    """Mirrors each picture left to right, with probability p."""

    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, images, random=None):
        random = chance(random)
        ### BEGIN SOLUTION
        mirrored = random.random(len(images)) < self.p
        out = images.copy()
        out[mirrored] = images[mirrored, ..., ::-1]
        return out
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-flip-all", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_flip_all(shape, dtype):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    before, kept, turned = x.copy(), RandomHorizontalFlip(p=0)(x, 1), RandomHorizontalFlip(p=1)(x, 1)
    assert np.array_equal(kept, before), f"p=0 should leave\n{before[0]}\nas it is, yours gives\n{kept[0]}"
    want = np.stack([before[..., column] for column in reversed(range(shape[-1]))], axis=-1)
    assert np.array_equal(turned, want), f"p=1: picture\n{before[0]}\nshould become\n{want[0]}\nyours is\n{turned[0]}"
    found = str(turned.dtype), x.tolist()
    assert found == (dtype, before.tolist()), f"expected {dtype} and the old images as before, got {found}"
test_flip_all((2, 1, 2, 3), "float32")
### BEGIN HIDDEN TESTS
test_flip_all((3, 3, 4, 5), "uint8")
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-flip-each", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_flip_each(p, seed):
    flip, x = RandomHorizontalFlip(p), np.arange(1, 2001).reshape(-1, 1, 1, 1) * np.float32([[1, -1], [2, -2]])
    got = flip(x, seed)
    kept, turned = ((got == want).all(axis=(1, 2, 3)) for want in (x, -x))
    assert (kept ^ turned).all(), f"each picture stays or turns as a whole: of 2,000, {sum(kept)} stayed, {sum(turned)} turned"
    assert abs(turned.mean() - p) < 0.05, f"p={p}: expected {p:.0%} of 2,000 pictures mirrored, got {turned.mean():.0%} (one draw each?)"
    again, other = np.array_equal(got, flip(x, seed)), np.array_equal(got, flip(x, seed + 1))
    assert (again, other) == (True, False), f"same pictures with the same seed, with another: expected (True, False), got {again, other}"
test_flip_each(p=0.2, seed=0)
### BEGIN HIDDEN TESTS
for p in (0.5, 0.9): test_flip_each(p, seed=8)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "crop-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# Moving works in two steps: put a rim around the picture, then cut a **window** of the old size out of it. With a rim of
# 1, the 2 x 2 picture `[[1, 2], [3, 4]]` has nine windows, named by how far they are down and to the right:
#
# | window | (0, 0) | (0, 1) | (1, 1) | (2, 1) |
# |---|---|---|---|---|
# | content | `[[0, 0], [0, 1]]` | `[[0, 0], [1, 2]]` | `[[1, 2], [3, 4]]` | `[[3, 4], [0, 0]]` |
#
# ### TODO 10.5: `RandomCrop.__call__`, 5 to 7 lines
#
# | | |
# |---|---|
# | `images` | array (n, channels, height, width), any dtype |
# | `random` | as in 10.4 |
# | returns | a new array, same shape and dtype: of each picture's windows one, each equally likely |
# | rim | `self.padding` pixels on all four sides, made by `np.pad` with `mode=self.mode`: `"constant"` (zeros) or `"reflect"` |
# | limits | both directions are drawn per picture; all channels of a picture move alike |
#
# `np.lib.stride_tricks.sliding_window_view(x, (h, w), axis=(2, 3))` shows all windows without copying: shape
# (n, channels, down, right, h, w). With arrays of n numbers each, `views[a, :, b, c]` picks one window per picture.
#
# <details><summary>Hint, after five minutes of trying</summary>
# How many places are there in each direction, for a rim of 1, and of p? And which numbers must <code>a</code> hold, if picture 0 is to
# get window <code>b[0], c[0]</code>, picture 1 the next, and so on?</details>

# %% nbgrader={"grade": false, "grade_id": "crop", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
class RandomCrop:
    """Moves each picture by up to `padding` pixels, up or down and left or right; zeros or its mirror image enter."""

    def __init__(self, padding, mode="constant"):
        self.padding, self.mode = padding, mode

    def __call__(self, images, random=None):
        random = chance(random)
        ### BEGIN SOLUTION
        n, _, height, width = images.shape
        rim = (self.padding, self.padding)
        padded = np.pad(images, ((0, 0), (0, 0), rim, rim), mode=self.mode)
        views = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
        down, right = random.integers(2 * self.padding + 1, size=(2, n))
        return views[np.arange(n), :, down, right]
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-crop-windows", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_crop_windows(shape, padding, mode, dtype):
    x = np.random.default_rng(padding).integers(1, 200, size=shape).astype(dtype)
    before, got = x.copy(), RandomCrop(padding, mode)(x, 5)
    assert (np.shape(got), str(got.dtype)) == (shape, dtype), f"expected {shape} of {dtype}, got {np.shape(got)} of {got.dtype}"
    for old, new in zip(before, got, strict=True):
        padded = np.pad(old, ((0, 0), (padding, padding), (padding, padding)), mode=mode)
        views = np.lib.stride_tricks.sliding_window_view(padded, shape[1:]).reshape(-1, *shape[1:])
        assert (views == new).all(axis=(1, 2, 3)).any(), f"padding={padding}, mode={mode}: the picture\n{old}\nhas no window\n{new}"
    assert np.array_equal(x, before), f"the images were changed: expected picture 0 as before, got\n{x[0]}"
test_crop_windows((6, 1, 2, 3), 1, "constant", "float32")
test_crop_windows((5, 3, 4, 4), 2, "reflect", "uint8")
### BEGIN HIDDEN TESTS
for args in [((20, 2, 5, 3), 2, "reflect", "float32"), ((4, 3, 4, 6), 3, "constant", "uint8")]: test_crop_windows(*args)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-crop-chance", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_crop_chance(seed, padding):
    crop, x, side = RandomCrop(padding), np.zeros((900, 1, 5, 5), np.float32), 2 * padding + 1
    x[:, :, 2, 2] = 1
    got = crop(x, seed)
    places = {(row, column) for _, row, column in np.argwhere(got[:, 0] == 1).tolist()}
    assert len(places) == side ** 2, f"padding={padding}: 900 dots should move to {side} x {side} places, they moved to {sorted(places)}"
    again, other = np.array_equal(got, crop(x, seed)), np.array_equal(got, crop(x, seed + 1))
    assert (again, other) == (True, False), f"same windows with the same seed, with another: expected (True, False), got {again, other}"
test_crop_chance(seed=0, padding=1)
### BEGIN HIDDEN TESTS
test_crop_chance(seed=4, padding=2)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "worth-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain: what is a view worth?
#
# The digits are put on 12 x 12 pixels of paper, in the middle. A network learns from 1,000 of them and reads about 94 % of the
# others. Tomorrow's scanner is less careful: every unseen digit is moved by up to 2 pixels.
#
# Which percentage will that network read? Commit to a number before you run the cell after it. The cell also trains three
# networks that saw their digits moved, mirrored or both; all take the same 960 steps.

# %% nbgrader={"grade": false, "grade_id": "worth-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_moved = your number of percent
### BEGIN SOLUTION
guess_moved = 80
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-worth-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert 0 <= guess_moved <= 100, f"expected any number of percent, 0 to 100, got {guess_moved}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "worth-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
paper = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
moved = RandomCrop(2)(paper[1000:], 99)
views = {"as they are": None, "moved": RandomCrop(2), "mirrored": RandomHorizontalFlip(),
         "moved and mirrored": Compose(RandomCrop(2), RandomHorizontalFlip())}
for name, transform in views.items():
    loader = DataLoader(paper[:1000], labels[:1000], shuffle=True, transform=transform, seed=0)
    model = learn(network(144), (batch for epoch in range(30) for batch in loader))
    print(f"fed digits {name:18}  centred: {reads(model, paper[1000:]):.0f} % read, moved: {reads(model, moved):.0f} %")
print(f"you said {guess_moved} % for moved ones by the network that was fed digits as they are")

# %% [markdown] nbgrader={"grade": false, "grade_id": "worth-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** A colleague says: augmentation is free data, so switch everything on. Answer
# with your eight numbers. Why does the plain network fail as it does, although each moved digit has the same strokes?
# Mirroring changes as many pixels as moving: why does it not help in the same way? Then decide what to switch on for a
# scanner that centres well, and for one that does not, and what each choice costs.
#
# | points | for |
# |---|---|
# | 2 | your own numbers for at least three of the networks, and how far your guess was off |
# | 2 | what the plain network has learned instead of strokes, and the claim behind mirroring that digits break |
# | 2 | a decision for both scanners, with the percentage points gained and lost |

# %% [markdown] nbgrader={"grade": true, "grade_id": "worth-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. Plain: 94 % of centred digits, 21 % of moved ones; I had said 80. Its first layer has one weight per pixel, so
# it learned which pixels are dark, not which strokes there are; two pixels on, ink meets weights that never saw it. Fed
# moved digits it reads 84 % of centred and 85 % of moved ones: moved digits as such are not harder, which excludes the
# rival explanation. Mirroring claims that a mirrored digit is the same digit; a mirrored 2 or 7 occurs nowhere, so learning
# it costs (93 and 21 %) and gains nothing. Both together: 73 and 76 %, more to learn in the same 960 steps. Careful scanner:
# nothing on, moving would cost 10 points. Careless one: moving alone, 64 points gained. With a share s of moved sheets the
# plain network reads 94 - 73 s, the other 84 + s: moving pays from s = 0.135, one sheet in seven. (One seed, 64 units.
# Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "waiting-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## Who waits for whom (50 minutes)
#
# A step that takes 2 ms is of little use if its batch takes 6 ms to make. To find out, measure both in one pass.
#
# | by hand | batch 0 | batch 1 | together |
# |---|---|---|---|
# | made in | 3 s | 5 s | 8 s |
# | step | 1 s | 1 s | 2 s |
#
# The epoch takes 10 s; in 8 of them the network waits: a share of 0.8.
#
# ### TODO 10.6: `waiting(loader, step, *, clock)`, 5 to 8 lines
#
# | | |
# |---|---|
# | `loader` | anything that `for` can go through, such as a `DataLoader`; each batch is a tuple |
# | `step` | is called with the fields of each batch: `step(x, y)` |
# | `clock` | is called without arguments and gives seconds; `perf_counter` if not given |
# | returns | `share, seconds`: the share of the epoch that was not spent in `step`, and the epoch's seconds |
# | example | the table above gives `(0.8, 10)` |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Between which two moments does a step lie, and between which the whole epoch? Waiting is what remains.</details>

# %% nbgrader={"grade": false, "grade_id": "waiting", "locked": false, "schema_version": 3, "solution": true, "task": false}
from time import perf_counter

def waiting(loader, step, *, clock=perf_counter):
    """One epoch: the share of its time spent waiting for batches, and its seconds."""
    ### BEGIN SOLUTION
    stepping, start = 0.0, clock()
    for batch in loader:
        before = clock()
        step(*batch)
        stepping += clock() - before
    seconds = clock() - start
    return 1 - stepping / seconds, seconds
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-waiting", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_waiting(making, want):
    now, called = [100.0], []
    def feed():
        for number, seconds in enumerate(making): now[0] += seconds; yield number, -number
    def step(x, y): now[0] += 1; called.append((x, y))
    got = waiting(feed(), step, clock=lambda: now[0])
    assert called == [(n, -n) for n in range(len(making))], f"step(0, 0), step(1, -1), ... expected, it was called with {called}"
    assert np.allclose(got, want), f"batches made in {making} s, steps of 1 s: expected share and seconds {want}, got {got}"
test_waiting([3, 5], (0.8, 10))
### BEGIN HIDDEN TESTS
for making, want in [([1, 1, 1], (0.5, 6)), ([0, 0, 0, 0], (0, 4)), ([9], (0.9, 10))]: test_waiting(making, want)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "inorder-todo", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### The next batch, while this one is used
#
# A **thread** runs a part of the program beside the rest, with the same memory. While the main thread takes a step,
# **worker** threads can make the batches to come. Four promises turn that into something one can trust:
#
# | | |
# |---|---|
# | order | results come in the order of the jobs, whoever is ready first |
# | bounded | no job is begun before it is needed soon: a million batches made ahead would fill the memory |
# | errors | what goes wrong in a worker is raised where its result is asked for |
# | end | when the caller stops early, no thread stays behind |
#
# What breaks one of them shows late: in the third epoch, or on a slower machine.
#
# `pool = ThreadPoolExecutor(2)` has two threads. `pool.submit(f, a)` returns at once, with a **future**; `future.result()`
# waits for what `f(a)` returns, or raises what it raised. At the end of a `with` block, the pool's threads end.
#
# ### TODO 10.7: `in_order(make, jobs, workers, *, ahead=2)`, about 7 lines
#
# | | |
# |---|---|
# | `make` | function of one job |
# | `jobs` | anything that `for` can go through, possibly endless |
# | yields | `make(job)` for each job, in order |
# | ahead | when a result is handed out, at least one (if any is left) and at most `ahead * workers` further jobs are submitted |
#
# <details><summary>Hint, after five minutes of trying</summary>
# Keep the futures in a <code>deque</code>: new ones enter on the right, <code>popleft()</code> gives the oldest. When is it time
# to hand one out? And what is left to do when there are no more jobs?</details>

# %% nbgrader={"grade": false, "grade_id": "in-order", "locked": false, "schema_version": 3, "solution": true, "task": false}
#| export
def in_order(make, jobs, workers, *, ahead=2):
    """make(job) for every job, in order, by threads that are at most `ahead` jobs per worker ahead of the caller."""
    ### BEGIN SOLUTION
    waiting = deque()
    with ThreadPoolExecutor(workers) as pool:
        for job in jobs:
            waiting.append(pool.submit(make, job))
            if len(waiting) > ahead * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-in-order", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
def test_in_order(n, workers):
    jobs = [bytes([i % 10]) + bytes(3072) for i in range(n)]
    got, want = [int(classes[0]) for _, classes in in_order(parse_cifar10, jobs, workers)], [i % 10 for i in range(n)]
    assert got == want, f"{n} jobs, {workers} workers: expected the labels {want}, got {got}"
test_in_order(n=9, workers=2)
### BEGIN HIDDEN TESTS
for n, workers in [(1, 3), (30, 1), (0, 2)]: test_in_order(n, workers)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-in-order-bounded", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
def test_in_order_bounded(workers, ahead, asked):
    taken = []
    def jobs():
        while len(taken) < 500: taken.append(len(taken)); yield bytes(3073)
    results, most = in_order(parse_cifar10, jobs(), workers, ahead=ahead), asked + ahead * workers
    for _ in range(asked): next(results)
    begun = len(taken)
    results.close()
    assert asked < begun <= most, f"{asked} results, {workers} workers, ahead={ahead}: {asked + 1} to {most} jobs may be begun, got {begun}"
test_in_order_bounded(workers=2, ahead=2, asked=1)
### BEGIN HIDDEN TESTS
for workers, ahead, asked in [(1, 1, 3), (3, 1, 5)]: test_in_order_bounded(workers, ahead, asked)
### END HIDDEN TESTS

# %% nbgrader={"grade": true, "grade_id": "test-workers", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
import threading
def test_workers(workers):
    x, before = np.arange(80, dtype=np.float32).reshape(20, 1, 2, 2), threading.active_count()
    made = lambda workers, mode="constant": iter(DataLoader(x, None, 3, transform=RandomCrop(1, mode), seed=2, num_workers=workers))
    same = [np.array_equal(a, b) for (a,), (b,) in zip(made(0), made(workers), strict=True)]
    assert all(same), f"{workers} workers should make the batches of none: expected all True, got {same}"
    try: raised = next(made(workers, "no such mode"), 0) is None
    except ValueError: raised = True
    assert raised, f"{workers} workers: expected the ValueError of a worker to reach the caller, got a batch"
    for _ in made(workers): break
    assert threading.active_count() == before, f"a loop was left early: expected {before} threads, got {threading.active_count()}"
test_workers(2)
### BEGIN HIDDEN TESTS
for workers in (1, 4): test_workers(workers)
### END HIDDEN TESTS

# %% [markdown] nbgrader={"grade": false, "grade_id": "share-predict", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ### Predict, measure, explain: the share of waiting
#
# 2,000 pictures of CIFAR-10's size, as bytes. Each batch of 64 is mirrored, moved by up to 4 pixels and normalized, then
# feeds a network with 128 units. One loader does all that picture by picture, the other by whole batches. Both are tried alone
# and with two worker threads. (If two runs differ by half, run again.)
#
# How many times as fast is the picture-by-picture **epoch** with two workers? Commit to a number.

# %% nbgrader={"grade": false, "grade_id": "share-guess", "locked": false, "schema_version": 3, "solution": true, "task": false}
# Replace the two lines below by: guess_workers = your number (2 if you expect half the time)
### BEGIN SOLUTION
guess_workers = 2.0
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test-share-guess", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
assert guess_workers > 0, f"expected any positive number, got {guess_workers}: a wrong guess costs nothing"

# %% nbgrader={"grade": false, "grade_id": "share-measure", "locked": true, "schema_version": 3, "solution": false, "task": false}
x, y = np.random.default_rng(0).integers(256, size=(2000, 3, 32, 32), dtype=np.uint8), np.arange(2000) % 10
whole = Compose(ToFloat(), RandomHorizontalFlip(), RandomCrop(4), Normalize([0.5] * 3, [0.25] * 3))
def each(batch, random): return np.concatenate([whole(batch[i:i + 1], random) for i in range(len(batch))])
class OneByOne(Dataset):
    def __len__(self): return len(x)
    def __getitem__(self, i): return x[i], y[i]

model = layers.Sequential(layers.Flatten(), layers.Linear(3072, 128), activations.ReLU(), layers.Linear(128, 10))
optimizer, loss = optimizers.SGD(model.parameters(), lr=0.01), losses.CrossEntropyLoss()
def step(x, y): optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()

loaders = {f"{name}, {workers} workers": DataLoader(dataset, batch_size=64, transform=transform, num_workers=workers)
           for name, dataset, transform in [("one by one", OneByOne(), each), ("whole batches", TensorDataset(x, y), whole)]
           for workers in (0, 2)}
loaders["made beforehand"] = list(loaders["whole batches, 0 workers"])
shares = {name: min((waiting(loader, step) for _ in range(3)), key=lambda found: found[1]) for name, loader in loaders.items()}
for name, (share, seconds) in shares.items(): print(f"{name:25} {1000 * seconds:4.0f} ms, waiting {share:4.0%} of them")
faster = shares["one by one, 0 workers"][1] / shares["one by one, 2 workers"][1]
print(f"one by one, 2 workers make the epoch {faster:.1f} times as fast; you said {guess_workers}")

# %% nbgrader={"grade": false, "grade_id": "share-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
waited, seconds = np.array([(1000 * share * total, 1000 * total) for share, total in shares.values()]).T
plt.barh(list(shares), waited, label="waiting for a batch")
plt.barh(list(shares), seconds - waited, left=waited, label="in a step")
plt.gca().set(xlabel="ms per epoch", title="Less waiting is not the same as less time")
plt.legend()
plt.show()

# %% [markdown] nbgrader={"grade": false, "grade_id": "share-question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# **Question (150 to 300 words, 6 points).** Explain the five lines to a colleague who says: waiting went down, so the
# workers work. Python runs one line of Python at a time, whatever the number of threads; NumPy lets others run while it is
# inside a large array. What did the step of line 2 wait for? Which line shows that the arithmetic on the pictures is not
# what costs the time? Then decide: workers, whole batches, or both, for an epoch of 50,000 pictures on a machine like yours.
#
# | points | for |
# |---|---|
# | 2 | your own five pairs of numbers, and how far your guess was off |
# | 2 | what became of the waiting in line 2, and the line that clears the arithmetic |
# | 2 | a decision with calculated seconds for 50,000 pictures, for at least two of the four loaders |

# %% [markdown] nbgrader={"grade": true, "grade_id": "share-answer", "locked": false, "points": 6, "schema_version": 3, "solution": true, "task": false}
# ### BEGIN SOLUTION
# Outline. One by one 181 ms (72 % waiting) alone, 203 ms (41 %) with workers; whole batches 98 ms (38 %) and 87 ms (7 %);
# made beforehand 50 ms. I had said twice as fast, it was 0.9 times. In line 2 the waiting did not vanish, it moved: 0.59 *
# 203 = 120 ms in steps instead of 0.28 * 181 = 51. The steps are Python, too, and wait for the workers, who run Python
# almost all the time. Lines 1 and 3 do the same arithmetic on the same pixels in 131 and 37 ms, so arithmetic is not the
# cost; 32 steps times 64 pictures times a dozen calls is: 94 ms / 2,000 = 47 us per picture. 50,000 pictures are 25 times
# as many: 4.5 s one by one, 2.5 s by whole batches, 2.2 s with workers. First whole batches, then perhaps workers. (Two
# busy cores of a server, November 2026. Any machine's figures count.)
# ### END SOLUTION

# %% [markdown] nbgrader={"grade": false, "grade_id": "real-why", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## The data sets themselves (10 minutes)
#
# What you wrote is enough to read two famous data sets: CIFAR-10, and MNIST with its 70,000 digits. The publisher's files
# come over the network once. Given code (`tinytorch/download.py`) goes on where an interrupted transfer stopped, and puts a
# file in its place only when its **checksum**, a fingerprint of all its bytes, is the published one. They stay in the folder
# named by the environment variable `TINYTORCH_DATA`, else in your cache; `download=True` fetches what is missing, and
# `python -m tinytorch.datasets` says what is there.
#
# 50,000 pictures of 3,072 numbers are 614 MB as float32, and 154 MB as bytes. `dtype="uint8"` keeps bytes; then `ToFloat()`
# must come first among the transforms, so that only the batch at hand is float32.

# %% nbgrader={"grade": false, "grade_id": "real", "locked": true, "schema_version": 3, "solution": false, "task": false}
#| export
class CIFAR10Dataset(Pictures, Dataset):
    """50,000 and 10,000 colour pictures of 32 x 32 in 10 classes (A. Krizhevsky, 2009)."""
    classes = CIFAR10_CLASSES

    def read(self, split):
        return zip(*map(parse_cifar10, cifar10_bytes(split, self.folder, self.download)), strict=True)

class MNISTDataset(Pictures, Dataset):
    """60,000 and 10,000 handwritten digits of 28 x 28, one channel (Y. LeCun, C. Cortes, C. Burges)."""
    def read(self, split):
        images, labels = mnist_arrays(split, self.folder, self.download)
        return [images[:, None]], [labels]

# %% nbgrader={"grade": false, "grade_id": "real-see", "locked": true, "schema_version": 3, "solution": false, "task": false}
for dataset in [CIFAR10Dataset, MNISTDataset]:
    try: print(f"{dataset.__name__}: {len(dataset(train=False, dtype='uint8')):,} test pictures are here")
    except FileNotFoundError as missing: print(missing)

# %% [markdown] nbgrader={"grade": false, "grade_id": "end", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## What you can do now
#
# You can say what it takes to feed a network: bytes read by their layout, batches in an order that a seed repeats, views
# that claim only what is true, and a next batch made early enough, in pieces large enough.
#
# `tito module complete 10` makes it part of your framework. It returns in module 11 (text instead of pictures), 15 (a
# profile shows who waits) and 20, and every CIFAR-10 run of yours goes through it.
#
# Two harder tasks, without points:
#
# - A state after half an epoch: let `state_dict` also say how many batches were handed out, and `__iter__` go on there.
# - `MixUp`: each picture becomes a weighted mean of itself and another one, and so does its label. Which part of the
#   loader stands in the way, and which loss can take such labels?
