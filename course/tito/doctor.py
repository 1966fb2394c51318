"""What can be wrong with a workspace or a server, one function each, every failure with its cure."""

import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from course.curriculum import modules
from course.tito import blas, limits
from course.tito.exports import in_step
from course.tito.workspace import Workspace

TOOLS = {"jupyterlab": "jupyterlab", "nbformat": "nbformat", "ipykernel": "ipykernel", "jupytext": "jupytext",
         "nbgrader": "nbgrader", "matplotlib": "matplotlib"}
ENOUGH_DISK = 200 * limits.MIB
PATIENCE = 2               # seconds for a service to answer
INSTALL = "in a checkout: make up; on a hub: tell the instructor that the image lacks it"


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    found: str
    cure: str = ""

    as_dict = asdict


def examine(workspace: Workspace) -> Iterator[Check]:
    """All checks that apply here; a check that itself breaks counts as failed."""
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("Python", python), ("NumPy", numpy), ("BLAS", matrix_products), ("notebook tools", tools),
        ("workspace", lambda: writable(workspace)), ("exports", lambda: exports(workspace)), ("disk", lambda: disk(workspace))]
    if os.environ.get("JUPYTERHUB_API_URL"):
        checks += [("hub", hub), ("exchange", exchange)]
    if os.environ.get("AUTOGRADER_URL"):
        checks += [("autograder", autograder)]
    for name, check in checks:
        try:
            yield check()
        except Exception as error:
            yield Check(name, False, f"{type(error).__name__}: {error}", "please report this with TITO_DEBUG=1 tito system doctor")


def python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer and make the environment again")


def numpy() -> Check:
    try:
        import numpy as np
    except ImportError as error:
        return Check("NumPy", False, str(error), INSTALL)
    major = int(np.__version__.split(".")[0])
    return Check("NumPy", major >= 2, np.__version__, "the course needs NumPy 2: " + INSTALL)


def matrix_products() -> Check:
    library = blas.name()
    if not library:
        return Check("BLAS", False, "NumPy was built without one: matrix products are slow", INSTALL)
    count = blas.threads()
    of = f"{count} of {blas.usable_cpus()} CPUs" if count else f"{blas.usable_cpus()} CPUs"
    return Check("BLAS", True, f"{library}, {of}, {blas.gflops():.0f} GFLOP/s in float32")


def tools() -> Check:
    missing = [package for package, module in TOOLS.items() if find_spec(module) is None]
    if missing:
        return Check("notebook tools", False, f"{', '.join(missing)} cannot be imported", INSTALL)
    return Check("notebook tools", True, ", ".join(f"{package} {_version(package)}" for package in TOOLS))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def writable(workspace: Workspace) -> Check:
    cure = "make the folder writable for you, or set TINYTORCH_WORKSPACE to one that is"
    if not workspace.exists and os.environ.get("COURSE_ROOT"):
        return Check("workspace", True, "none here, and the terminal of a class needs none")
    if not workspace.exists:
        return Check("workspace", False, f"{workspace.root} is not one",
                     "go to your workspace, or make one here with `tito module start 01`")
    try:
        with tempfile.TemporaryFile(dir=workspace.state if workspace.state.is_dir() else workspace.root) as file:
            file.write(b"written")
    except OSError as error:
        return Check("workspace", False, f"{workspace.root}: {error.strerror}", cure)
    return Check("workspace", True, f"{workspace.root} ({workspace.why}), writable")


def exports(workspace: Workspace) -> Check:
    """Exported files say what their notebooks say."""
    steps = {module: in_step(workspace, module) for module in modules() if module.ready and module.export}
    stale = [module for module, step in steps.items() if step is False]
    if stale:
        cure = "python -m course.build" if workspace.is_checkout else "; ".join(f"tito module export {m.number}" for m in stale)
        return Check("exports", False, f"{', '.join(m.slug for m in stale)} went on after the export", cure)
    count = sum(step is True for step in steps.values())
    return Check("exports", True, f"{count} exported, in step with the notebooks" if count else "none yet")


def disk(workspace: Workspace) -> Check:
    free = limits.free_bytes(workspace.root)
    return Check("disk", free >= ENOUGH_DISK, f"{limits.size(free)} left",
                 "delete what you do not need (large outputs, data, the trash under ~/.local/share/Trash)")


def hub() -> Check:
    return _answers("hub", os.environ["JUPYTERHUB_API_URL"].rstrip("/") + "/", "stop and start your server; if that fails, tell the admin")


def exchange() -> Check:
    url = os.environ.get("NGSHARE_URL")
    if not url:
        return Check("exchange", False, "NGSHARE_URL is not set, so assignments cannot be fetched or submitted",
                     "tell the admin: the spawner should set it")
    return _answers("exchange", url.rstrip("/") + "/courses",
                    "your work is safe here; submit again when the exchange is back, tell the instructor if it stays away")


def autograder() -> Check:
    return _answers("autograder", os.environ["AUTOGRADER_URL"].rstrip("/") + "/api/jobs",
                    "jobs cannot be submitted now; restart your server, tell your instructor if that does not help")


def _answers(name: str, url: str, cure: str) -> Check:
    """Ask a service of the hub with this server's own token."""
    request = urllib.request.Request(url, headers={"Authorization": f"token {os.environ.get('JUPYTERHUB_API_TOKEN', '')}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))      # the hub is near: never through a site's web proxy
    try:
        with opener.open(request, timeout=PATIENCE) as response:
            return Check(name, True, f"answers at {_without_query(url)} ({response.status})")
    except urllib.error.HTTPError as error:
        return Check(name, False, f"{_without_query(url)} answers {error.code} {error.reason}", cure)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check(name, False, f"{_without_query(url)} does not answer: {reason}", cure)


def _without_query(url: str) -> str:
    return url.split("?")[0]
