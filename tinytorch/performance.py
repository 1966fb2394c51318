"""Switches that make training faster on a given machine. Nothing is switched on by importing this.

    from tinytorch import performance
    performance.keep_memory()           # before training; what a process has used it keeps
    performance.use_threads(2)          # optimizers; Trainer(threads=2) does it by itself
"""

import ctypes
import sys

from tinytorch.fast.parallel import blas_threads, get_blas_threads, set_blas_threads, usable_cpus, use_threads

__all__ = ["blas_threads", "get_blas_threads", "keep_memory", "memory_kept", "set_blas_threads", "usable_cpus", "use_threads"]

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8          # names and numbers of glibc's malloc.h
LARGEST = 2**31 - 1

memory_kept = False         # whether keep_memory() has arranged it


def keep_memory() -> bool:
    """Keep freed memory for the next array instead of giving it back to the system. True where that could be arranged.

    Every training step makes and frees the same large arrays. Given back and asked for again, each of their pages is a page fault,
    and is filled with zeros by the kernel. Kept, they are simply used again. The price: the process stays as large as it ever was. It
    can not be undone within a process. Needs glibc (Linux, but not Alpine); elsewhere nothing happens and the answer is False.
    """
    global memory_kept
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    # no separate mappings for large arrays, no shrinking of the heap, one heap for all threads (the heaps of others are given back)
    settings = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST), (M_ARENA_MAX, 1))
    memory_kept = all([libc.mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings])
    return memory_kept
