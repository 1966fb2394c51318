"""Can I configure my development environment? Python, NumPy, notebook tools, a workspace, and one's own first export."""

import math
import os
import sys
import tempfile
from importlib.util import find_spec
from itertools import product

import numpy as np

import tinytorch
from course.checkpoints.support import agree, answer, fast, refused
from tinytorch.core.utils import best_ms, broadcast_shape, hello_tinytorch, memory_bytes, one_hot, standardize, sum_to_shape, tiles

SIZES = (0, 1, 2, 5)


def can_run_a_current_python():
    assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}"


def can_multiply_matrices_with_numpy():
    assert int(np.__version__.split(".")[0]) >= 2, f"NumPy 2 is needed, this is {np.__version__}"
    a = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    agree(a @ a, np.einsum("ik,kj->ij", a.astype(np.float64), a), "a product of two 256 x 256 matrices", atol=1e-2, rtol=1e-3)
    fast(lambda: a @ a, lambda: np.einsum("ik,kj->ij", a, a), "a matrix product by NumPy's BLAS, against a loop in C,", times=1)


def can_open_notebooks():
    missing = [tool for tool in ("jupyterlab", "nbformat", "ipykernel", "nbgrader") if find_spec(tool) is None]
    assert not missing, f"{', '.join(missing)} cannot be imported: `tito system doctor` says how to mend it"


def can_write_in_the_workspace():
    folder = os.environ["TINYTORCH_WORKSPACE"]
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"written")
    except OSError as error:
        raise AssertionError(f"{folder} is not writable: {error.strerror}") from None


def can_export_and_import_a_function():
    got, want = hello_tinytorch("Ada"), f"Hello, Ada. This is TinyTorch {tinytorch.__version__}."
    assert got == want, f"hello_tinytorch('Ada') should return {want!r}, it returns {got!r}"
    assert "world" in hello_tinytorch(), f"without a name it should greet the world, it returns {hello_tinytorch()!r}"


def can_count_the_bytes_of_an_array():
    for shape, dtype in product([(3, 32, 32), (7,), (), (0, 5)], [np.uint8, np.float32, np.float64]):
        want, got = np.zeros(shape, dtype).nbytes, memory_bytes(shape, dtype)
        assert got == want, f"an array of shape {shape} and {np.dtype(dtype)} takes {want} bytes, memory_bytes says {got}"
    assert memory_bytes((10,)) == 40, f"without a dtype float32 is meant: 10 numbers take 40 bytes, not {memory_bytes((10,))}"


def can_find_the_shortest_of_several_times():
    now = [1000.0]
    lengths = iter([0.3, 0.2, 0.4, 9.0])

    def work():
        now[0] += next(lengths)

    got = best_ms(work, repeat=3, clock=lambda: now[0])
    assert abs(got - 200) < 1e-6, f"runs of 0.3, 0.2 and 0.4 s are 200 ms at best, best_ms says {got}"
    assert next(lengths) == 9.0, "with repeat=3 the function should run exactly three times"
    assert 0 <= best_ms(lambda: None) < 1000, f"doing nothing should take next to no time, best_ms says {best_ms(lambda: None)} ms"


def can_standardize_along_any_axis():
    rng = np.random.default_rng(1)
    for axis in (0, 1, 2, -1):
        x = rng.normal(3, 2, size=(4, 5, 6)).astype(np.float32)
        before, exact = x.copy(), x.astype(np.float64)
        want = (exact - exact.mean(axis=axis, keepdims=True)) / exact.std(axis=axis, keepdims=True)
        agree(answer(standardize, x, axis=axis), want, f"standardize(array of shape {x.shape}, axis={axis})", atol=1e-4)
        assert np.array_equal(x, before), "standardize changed its input"
    for rows, want in (([[5, 5], [1, 3]], [[0, 0], [-1, 1]]), ([[0.1] * 7], [[0] * 7]), ([[1e-9, 3e-9]], [[-1, 1]])):
        agree(answer(standardize, np.float32(rows), axis=1), want, f"standardize({rows}, axis=1)")


def can_predict_broadcast_shapes():
    shapes = [(), *((n,) for n in SIZES), *product(SIZES, SIZES), (2, 1, 5), (1, 5, 2)]
    for a, b in product(shapes, shapes):
        try:
            want = np.broadcast_shapes(a, b)
        except ValueError:
            said = refused(ValueError, broadcast_shape, a, b)
            clashes = [f"{m} against {n}" for m, n in zip(a[::-1], b[::-1], strict=False) if m != n and 1 not in (m, n)]
            expected = f"the ValueError of broadcast_shape({a}, {b}) should say 'shapes {a} and {b} do not fit: {clashes[0]}'"
            named = f"{a} and {b}" in said and any(clash in said for clash in clashes)
            assert named, f"{expected}, it says {said!r}"
            continue
        got = answer(broadcast_shape, a, b)
        assert got == want, f"broadcast_shape({a}, {b}) should be {want}, it is {got}"


def can_sum_back_to_a_smaller_shape():
    for seed, (shape, wide) in enumerate([((3, 1), (2, 3, 4)), ((4,), (2, 3, 4)), ((1, 1), (3, 2)), ((2, 3), (2, 3)), ((), (2, 2))]):
        x = np.random.default_rng(seed).normal(size=wide).astype(np.float32)
        want = np.zeros(shape)
        for place in np.ndindex(wide):                       # each number goes back to the entry that it was copied from
            home = tuple(0 if n == 1 else i for i, n in zip(place[len(wide) - len(shape):], shape, strict=True))
            want[home] += x[place]
        agree(answer(sum_to_shape, x, shape), want, f"sum_to_shape(array of shape {wide}, {shape})")


def can_turn_labels_into_rows():
    labels = np.random.default_rng(3).integers(0, 6, size=(4, 5))
    agree(answer(one_hot, labels, 6), np.eye(6)[labels], "one_hot(array of shape (4, 5), 6)")
    agree(answer(one_hot, [2, 0], 3), [[0, 0, 1], [1, 0, 0]], "one_hot([2, 0], 3)")
    for label in (3, -1):
        said = refused(ValueError, one_hot, [0, label], 3)
        assert str(label) in said, f"the ValueError of one_hot([0, {label}], 3) should name the label {label}, it says {said!r}"


def can_cut_images_into_tiles():
    for n, height, width, size in ((1, 4, 4, 2), (2, 6, 9, 3), (3, 4, 6, 2)):
        images = np.random.default_rng(size).normal(size=(n, height, width)).astype(np.float32)
        want = np.array([[[image[r:r + size, c:c + size] for c in range(0, width, size)] for r in range(0, height, size)]
                         for image in images])
        got = answer(tiles, images, size)
        agree(got, want, f"tiles(array of shape {images.shape}, {size})")
        assert np.shares_memory(got, images), "tiles should be a view of the images, they are a copy"
    refused(ValueError, tiles, np.zeros((1, 8, 8)), 3)


def can_do_that_at_the_speed_of_numpy():
    x = np.random.default_rng(2).normal(size=(1000, 1000)).astype(np.float32)
    labels = np.random.default_rng(3).integers(0, 10, size=100_000)
    fast(lambda: standardize(x, axis=1), lambda: (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True),
         "standardizing a million numbers", times=4)
    fast(lambda: one_hot(labels, 10), lambda: (labels[:, None] == np.arange(10)).astype(np.float32), "100,000 one-hot rows", times=4)
    fast(lambda: sum_to_shape(x, (1000,)), lambda: x.sum(axis=0), "summing a million numbers back to 1,000", times=4)
    fast(lambda: repeated(tiles, x.reshape(100, 100, 100), 10), lambda: repeated(lambda: x.reshape(100, 10, 10, 10, 10).swapaxes(2, 3)),
         "cutting 100 images into tiles 200 times", times=4, spare=0.0001)
    fast(lambda: repeated(memory_bytes, (9, 9, 9)), lambda: repeated(lambda: math.prod((9, 9, 9)) * np.dtype(np.float32).itemsize),
         "counting bytes 200 times", times=4, spare=0.0001)
    shapes = (5, 1, 3, 1, 7), (4, 1, 2, 1)
    fast(lambda: repeated(broadcast_shape, *shapes), lambda: repeated(np.broadcast_shapes, *shapes),
         "predicting 200 shapes", times=4, spare=0.0001)


def repeated(function, *inputs):
    """Small work 200 times, so that it can be timed."""
    for _ in range(200):
        function(*inputs)
