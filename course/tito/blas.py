"""Which BLAS NumPy multiplies matrices with, how many threads it uses, and how fast it is here."""

import ctypes
import os
import time
from pathlib import Path


def name() -> str:
    """As NumPy was built: `scipy-openblas 0.3.31`; empty where NumPy has none."""
    import numpy as np
    details = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    if not details.get("found", bool(details.get("name"))):
        return ""
    return f"{details.get('name', '')} {details.get('version', '')}".strip()


def threads() -> int | None:
    """How many threads this process's OpenBLAS uses; None where the library does not say."""
    import numpy as np
    for library in (Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*"):
        loaded = ctypes.CDLL(str(library))
        for symbol in ("scipy_openblas_get_num_threads64_", "scipy_openblas_get_num_threads", "openblas_get_num_threads"):
            if hasattr(loaded, symbol):
                return int(getattr(loaded, symbol)())
    return None


def usable_cpus() -> int:
    """CPUs that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gflops(size: int = 512) -> float:
    """Billions of operations per second in a float32 matrix product, best of five."""
    import numpy as np
    a = np.ones((size, size), np.float32)
    best = float("inf")
    for _ in range(5):
        before = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - before)
    return 2 * size ** 3 / best / 1e9
