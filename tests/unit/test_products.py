"""Products of few rows with a large weight: the same numbers as NumPy's, in pieces, and who asks for them. Products added where they go."""

import os
import platform
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinytorch.core import autograd  # noqa: F401   (with it matmul has its rule)
from tinytorch.core.tensor import Tensor, matmul
from tinytorch.fast import blas, products
from tinytorch.fast.blas import blas_threads, get_blas_threads
from tinytorch.testing.memory import peak_bytes


def numbers(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@given(rows=st.integers(0, 40), inner=st.integers(1, 90), columns=st.integers(1, 9), uncopied=st.sampled_from([1, 500, 10 ** 6]),
       seed=st.integers(0, 99))
def test_pieces_make_the_whole(rows, inner, columns, uncopied, seed):
    x, w, grad = numbers(seed, rows, inner), numbers(seed + 1, inner, columns), numbers(seed + 2, rows, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "UNCOPIED", uncopied)
        patch.setattr(products, "FEW", 32)
        patch.setattr(products, "LONG", 20)
        np.testing.assert_allclose(products.forward(x, w), x.astype(float) @ w, rtol=1e-4, atol=1e-4)
        wide = np.full((rows, inner + 2), 7, np.float32)
        products.for_rows(grad, w, out=wide[:, 1:-1])
        np.testing.assert_allclose(wide[:, 1:-1], grad.astype(float) @ w.T, rtol=1e-4, atol=1e-4)
        assert (wide[:, [0, -1]] == 7).all()
        np.testing.assert_allclose(products.for_weight(x, grad, np.empty_like(w)), x.T.astype(float) @ grad, rtol=1e-4, atol=1e-4)


def laid(array, order):
    """The same numbers in another order of memory."""
    if order == "gaps":
        return np.repeat(np.repeat(array, 2, axis=0), 2, axis=1)[::2, ::2]
    return np.array(array, order=order)


@given(m=st.integers(0, 70), k=st.integers(0, 70), n=st.integers(0, 70), orders=st.tuples(*[st.sampled_from(["C", "F", "gaps"])] * 3),
       dtype=st.sampled_from(["f4", "f4", "f8"]), without=st.booleans(), seed=st.integers(0, 99))
def test_a_product_is_added_whatever_the_matrices_look_like(m, k, n, orders, dtype, without, seed):
    a, b, out = (laid(numbers(seed + i, *shape).astype(dtype), order) for i, (shape, order) in
                 enumerate(zip([(m, k), (k, n), (m, n)], orders, strict=True)))
    want = out + a.astype(float) @ b
    with pytest.MonkeyPatch.context() as patch:
        if without:
            patch.setattr(blas, "_sgemm", lambda: None)
        blas.add_product(a, b, out)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-4)


def test_a_product_is_added_without_an_array_on_the_way():
    if blas._sgemm() is None:
        pytest.skip("this NumPy came without OpenBLAS")
    a, b, out = numbers(0, 300, 20), numbers(1, 20, 300), np.zeros((300, 300), np.float32)
    assert peak_bytes(lambda: blas.add_product(a, b, out)) < 20_000 < peak_bytes(lambda: np.add(out, a @ b, out=out))


@pytest.fixture
def asked(monkeypatch):
    """Which products were made in pieces: the rows of each."""
    if get_blas_threads() is None:
        pytest.skip("this NumPy's BLAS does not say how many threads it uses")
    seen = []

    def forward(rows, weight):
        seen.append(len(rows))
        return rows @ weight

    monkeypatch.setattr(products, "LARGE", 200)
    monkeypatch.setattr(products, "FEW", 32)                # whatever the processor
    monkeypatch.setattr(products, "forward", forward)
    return seen


def gradients(rows, threads=1):
    x, w = Tensor(numbers(0, rows, 30), requires_grad=True), Tensor(numbers(1, 30, 10), requires_grad=True)
    with blas_threads(threads):
        out = x @ w
        out.backward(numbers(2, rows, 10))
    np.testing.assert_allclose(out.data, x.data @ w.data, rtol=1e-4, atol=1e-5)
    return x.grad, w.grad


@pytest.mark.parametrize(("rows", "threads", "pieces"), [(1, 1, True), (32, 1, True), (33, 1, False), (8, 2, False)])
def test_few_rows_on_one_core_are_multiplied_in_pieces(asked, rows, threads, pieces):
    got = gradients(rows, threads)
    assert asked == ([rows] if pieces else [])
    grad = numbers(2, rows, 10)
    for one, want in zip(got, (grad @ numbers(1, 30, 10).T, numbers(0, rows, 30).T @ grad), strict=True):
        np.testing.assert_allclose(one, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", ["sign", "nothing", "error"])
def test_whoever_has_another_rule_of_matmul_sees_it_at_work(asked, monkeypatch, wrong):
    """A student's rule decides, for large weights, too: a mistake in it may not hide behind ours."""
    def rule(grad, out, a, b):
        if wrong == "error":
            raise NotImplementedError("not yet")
        return (lambda: -grad @ b.T, lambda: a.T @ grad) if wrong == "sign" else None

    monkeypatch.setattr(matmul, "derivative", rule)
    if wrong == "sign":
        np.testing.assert_allclose(gradients(8)[0], -numbers(2, 8, 10) @ numbers(1, 30, 10).T, rtol=1e-4, atol=1e-5)
    else:
        with pytest.raises(NotImplementedError if wrong == "error" else ValueError):
            gradients(8)
    assert asked == []


def test_other_shapes_are_numpys(asked):
    with blas_threads(1):
        for a, b in [((3, 4, 30), (30, 10)), ((30,), (30, 10)), ((4, 30), (4, 30, 10))]:
            one, other = numbers(0, *a), numbers(1, *b)
            np.testing.assert_allclose((Tensor(one) @ Tensor(other)).data, one @ other, rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match="the inner sizes 29 and 30 must agree"):
            Tensor(numbers(0, 4, 29)) @ Tensor(numbers(1, 30, 10))
    assert asked == []


@pytest.mark.skipif(platform.machine() != "x86_64", reason="these kernels are those of x86_64")
def test_pieces_are_for_processors_whose_kernels_take_them_as_they_lie():
    told = "import tinytorch.fast.products as p, tinytorch.fast.blas as b; print(b.kernels(), p.FEW)"
    done = subprocess.run([sys.executable, "-c", told], env={**os.environ, "OPENBLAS_CORETYPE": "Haswell"}, capture_output=True, text=True)
    assert done.stdout.split() in (["haswell", "1"], ["1"]), done.stderr
