"""The library that NumPy multiplies matrices with: how many threads it uses, how to tell it, and two sums that NumPy has no function for.

Nothing of the framework is imported here, and NumPy only when somebody asks: `tito` looks at a workspace whose code may not run yet.
"""

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def usable_cpus() -> int:
    """CPUs that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _openblas() -> tuple[ctypes.CDLL, str, str] | None:
    """NumPy's own OpenBLAS and what its functions' names begin and end with; None where NumPy came without it."""
    import numpy as np

    numpy = Path(np.__file__).parent
    for folder in (numpy.with_name("numpy.libs"), numpy / ".dylibs"):
        for library in folder.glob("*openblas*"):
            loaded = ctypes.CDLL(str(library))
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                if hasattr(loaded, f"{prefix}openblas_set_num_threads{suffix}"):
                    return loaded, prefix, suffix
    return None


@functools.cache
def _function(name: str) -> Any:
    """A function of OpenBLAS; None where it has none of this name."""
    library, prefix, suffix = _openblas() or (None, "", "")
    return getattr(library, name.format(prefix, suffix), None)


def get_blas_threads() -> int | None:
    """How many threads a matrix product uses; None where the BLAS library does not say."""
    get = _function("{}openblas_get_num_threads{}")
    return int(get()) if get else None


def set_blas_threads(threads: int) -> bool:
    """Let matrix products use that many threads, in the whole process. False where the BLAS library cannot be told."""
    set_ = _function("{}openblas_set_num_threads{}")
    if set_:
        set_(threads)
    return bool(set_)


@contextlib.contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """That many threads per matrix product inside this block, in the whole process."""
    before = get_blas_threads()
    if before is None or before == threads:
        yield
        return
    set_blas_threads(threads)
    try:
        yield
    finally:
        set_blas_threads(before)


@functools.cache
def kernels() -> str:
    """For which kind of processor OpenBLAS works here, in small letters ("haswell", "skylakex"); "" where it does not say."""
    name = _function("{}openblas_get_corename{}")
    if not name:
        return ""
    name.restype = ctypes.c_char_p
    return (name() or b"").decode().lower()


def address(array: Any) -> int:
    """Where the numbers of a NumPy array begin, in a quarter of the time that `array.ctypes.data` takes."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))
    except (TypeError, ValueError):             # read-only, empty, or with gaps
        return array.ctypes.data


@functools.cache
def axpby() -> Callable[[int, float, int, int, float, int, int], None] | None:
    """axpby()(n, a, x, 1, b, y, 1) makes y = a x + b y of n float32 numbers each, x and y being addresses; None where there is none.

    One walk over memory where NumPy takes three, without Python's lock. Nothing is checked: both arrays must be float32 without gaps.
    """
    function = _function("{}cblas_saxpby{}")
    if function:
        whole = ctypes.c_int64 if (_openblas() or ("",))[-1] else ctypes.c_int32
        numbers = [ctypes.c_float, ctypes.c_void_p, whole]
        function.argtypes, function.restype = [whole, *numbers, *numbers], None
    return function


@functools.cache
def _sgemm() -> Any:
    """cblas_sgemm; None where there is none."""
    function = _function("{}cblas_sgemm{}")
    if function:
        whole = ctypes.c_int64 if (_openblas() or ("",))[-1] else ctypes.c_int32
        matrix = [ctypes.c_void_p, whole]
        function.argtypes = [ctypes.c_int] * 3 + [whole] * 3 + [ctypes.c_float, *matrix, *matrix, ctypes.c_float, *matrix]
        function.restype = None
    return function


def add_product(a: Any, b: Any, out: Any) -> None:
    """out += a @ b, matrices (m, k), (k, n), (m, n): where they lie as BLAS takes them, without an array for the product.

    That is float32, b and out row by row, a row by row or column by column, and NumPy with OpenBLAS. Else NumPy does it.
    """
    gaps = not (b.flags.c_contiguous and out.flags.c_contiguous and (a.flags.c_contiguous or a.flags.f_contiguous))
    sgemm = None if gaps or not (a.size and out.size) or {a.dtype.char, b.dtype.char, out.dtype.char} != {"f"} else _sgemm()
    if sgemm is None:
        out += a @ b
        return
    (m, k), (_, n), turned = a.shape, b.shape, not a.flags.c_contiguous
    rows, as_it_is, transposed = 101, 111, 112          # numbers of cblas.h
    sgemm(rows, transposed if turned else as_it_is, as_it_is, m, n, k,
          1, address(a), m if turned else k, address(b), n, 1, address(out), n)
