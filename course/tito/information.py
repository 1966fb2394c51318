"""The facts of `system info`: versions, paths, threads, limits."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from course.tito import blas, limits
from course.tito.workspace import CODE, Workspace

PACKAGES = ("numpy", "jupyterlab", "jupyterhub", "nbgrader", "ngshare-exchange", "jupytext", "matplotlib", "click", "rich")
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def gather(workspace: Workspace) -> dict[str, dict[str, str]]:
    return {"versions": versions(), "paths": paths(workspace), "threads": threads(),
            "limits": {**limits.described(), "disk left": limits.size(limits.free_bytes(workspace.root))}}


def versions() -> dict[str, str]:
    import tinytorch
    found = {"tinytorch": tinytorch.__version__, "python": platform.python_version(), "system": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def paths(workspace: Workspace) -> dict[str, str]:
    import tinytorch
    own = sorted(file.stem for file in workspace.core.glob("*.py")) if not workspace.is_checkout else []
    return {"workspace": f"{workspace.root} ({workspace.why})", "course": str(CODE),
            "tinytorch": str(Path(tinytorch.__file__).parent),
            "your exports": f"{workspace.core} ({', '.join(own)}), imported first" if own else "none yet", "python": sys.executable}


def threads() -> dict[str, str]:
    """CPUs and BLAS threads; the variables that set them where they are set."""
    count = blas.threads()
    found = {"CPUs of the machine": str(os.cpu_count()), "CPUs for this process": str(blas.usable_cpus()),
             "BLAS": blas.name() or "none", "BLAS threads": str(count) if count else "not told by the library"}
    return {**found, **{name: os.environ[name] for name in THREAD_VARIABLES if os.environ.get(name)}}
