"""Start a single-user server as cheaply as it goes: jupyterhub-singleuser, without two costs of its imports.

Both are paid by every server at every start and used by none: nbgrader imports all of setuptools for functions that
unpack archives (11 MB), and JupyterLab runs Node to ask yarn for a registry (0.4 s) wherever a `node` is on the PATH.
"""

import importlib
import json
import os
import resource
import sys
import types
from pathlib import Path


def set_limits():
    """Resource limits that the spawner asked for; once lowered, nothing that runs here can raise them."""
    for name, value in json.loads(os.environ.pop("TINYTORCH_RLIMITS", "{}")).items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))


def postpone_setuptools():
    """Put a stand-in for setuptools.archive_util in place that imports the real one when a function is called."""
    stand_in = types.ModuleType("setuptools.archive_util")

    def postponed(name):
        def call(*args, **kwargs):
            if sys.modules.get("setuptools.archive_util") is stand_in:
                del sys.modules["setuptools.archive_util"]
            return getattr(importlib.import_module("setuptools.archive_util"), name)(*args, **kwargs)
        return call

    for name in ("unpack_archive", "unpack_tarfile", "unpack_zipfile"):
        setattr(stand_in, name, postponed(name))
    sys.modules["setuptools.archive_util"] = stand_in          # its parent is not imported for it: the name is known


def ask_yarn_nothing():
    """JupyterLab's settings of yarn matter to those who build it; here nobody can."""
    from jupyterlab import commands
    commands._yarn_config = lambda logger: {"yarn config": {}, "npm config": {}}


def main():
    set_limits()
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [*(path for path in sys.path if path != here), here]       # our server extensions, after all else
    postpone_setuptools()
    ask_yarn_nothing()
    if os.environ.get("TINYTORCH_SOCKETS"):
        import container
        container.prepare(Path(os.environ["TINYTORCH_SOCKETS"]))
    from jupyterhub.singleuser import main as serve
    sys.argv[0] = "jupyterhub-singleuser"
    serve()
    # kernels and extensions are shut down; taking the interpreter apart as well would cost half as much as the start
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
