"""How much memory a piece of work needs on its way, and how much it keeps. (For time, `best_ms` of module 01.)"""

import tracemalloc
from collections.abc import Callable


def peak_bytes(work: Callable[[], object]) -> int:
    """Bytes held at the worst moment of work(), above what was held before; NumPy's arrays count.

    work() runs twice: what it makes once and keeps is not what it needs on its way.
    """
    work()
    measuring = tracemalloc.is_tracing()
    if not measuring:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not measuring:
            tracemalloc.stop()


def memory_of(function: Callable[[], object]) -> tuple[float, float]:
    """MB in use after function() while its result is kept, and the most in use at one time, beyond what was there before."""
    tracemalloc.start()
    try:
        _, (after, peak) = function(), tracemalloc.get_traced_memory()      # _ keeps the result until both are read
    finally:
        tracemalloc.stop()
    return after / 1e6, peak / 1e6
