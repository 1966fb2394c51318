"""Which BLAS NumPy multiplies matrices with, how many threads it uses, and how fast it is here."""

import time

from tinytorch.fast.blas import get_blas_threads as threads
from tinytorch.fast.blas import usable_cpus

__all__ = ["gflops", "name", "threads", "usable_cpus"]


def name() -> str:
    """As NumPy was built: `scipy-openblas 0.3.31`; empty where NumPy has none."""
    import numpy as np
    details = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    if not details.get("found", bool(details.get("name"))):
        return ""
    return f"{details.get('name', '')} {details.get('version', '')}".strip()


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
