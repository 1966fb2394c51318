"""The library that NumPy multiplies matrices with: how many threads it uses, and how to tell it.

Nothing of the framework is imported here, and NumPy only when somebody asks: `tito` looks at a workspace whose code may not run yet.
"""

import contextlib
import ctypes
import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path


def usable_cpus() -> int:
    """CPUs that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _openblas() -> tuple[Callable[[int], None], Callable[[], int]] | None:
    """The functions that set and tell how many threads NumPy's own OpenBLAS uses; None where NumPy came without it."""
    import numpy as np

    numpy = Path(np.__file__).parent
    for folder in (numpy.with_name("numpy.libs"), numpy / ".dylibs"):
        for library in folder.glob("*openblas*"):
            loaded = ctypes.CDLL(str(library))
            for prefix, suffix in (("scipy_openblas", "64_"), ("scipy_openblas", ""), ("openblas", "64_"), ("openblas", "")):
                with contextlib.suppress(AttributeError):
                    return getattr(loaded, f"{prefix}_set_num_threads{suffix}"), getattr(loaded, f"{prefix}_get_num_threads{suffix}")
    return None


def get_blas_threads() -> int | None:
    """How many threads a matrix product uses; None where the BLAS library does not say."""
    found = _openblas()
    return int(found[1]()) if found else None


def set_blas_threads(threads: int) -> bool:
    """Let matrix products use that many threads, in the whole process. False where the BLAS library cannot be told."""
    found = _openblas()
    if found:
        found[0](threads)
    return bool(found)


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
