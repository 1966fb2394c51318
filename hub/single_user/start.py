"""Start a single-user server as cheaply as it goes: jupyterhub-singleuser, without what its imports bring and no server uses.

That is the hub's database and pages, PyPI's client and setuptools (a quarter of its memory and a third of the time; postponed.py
puts them off), and Node, which JupyterLab runs to ask yarn for a registry (0.4 s) wherever a `node` is on the PATH.
"""

import importlib
import json
import os
import resource
import sys
from pathlib import Path

from postponed import postponed, put_off, when_called


def set_limits():
    """Resource limits that the spawner asked for; once lowered, nothing that runs here can raise them."""
    for name, value in json.loads(os.environ.pop("TINYTORCH_RLIMITS", "{}")).items():
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))


class NeverRaised(Exception):
    """In place of a database's error: there is no database."""


class NeverServed:
    """In place of the hub's own health page, which its log leaves out."""


def import_server():
    """JupyterHub's single-user server and JupyterLab, without the hub's pages and database and without PyPI's client."""
    pypi = "jupyterlab.extensions.pypi"
    with postponed(
        {"jupyterhub.handlers.pages": {"HealthCheckHandler": NeverServed}, "jupyterhub.orm": {}, "jupyterhub.roles": {},
         "sqlalchemy": {}, "sqlalchemy.exc": {"SQLAlchemyError": NeverRaised}, "requests": {},
         pypi: when_called(pypi, "PyPIExtensionManager")},
        # they check formats; of these a server's schemas have one, the addresses that the packages' own schemas of events go by
        without=("isoduration", "rfc3986_validator", "uri_template", "webcolors")):
        from jupyterhub.singleuser import main as serve
        ask_yarn_nothing()
        importlib.import_module("jupyterlab.labapp")
    return serve


def postpone_setuptools():
    """nbgrader imports all of it for three functions that unpack archives; whatever imports nbgrader, and whenever."""
    module = "setuptools.archive_util"
    put_off(module, when_called(module, "unpack_archive", "unpack_tarfile", "unpack_zipfile"))


def ask_yarn_nothing():
    """JupyterLab's settings of yarn matter to those who build it; here nobody can."""
    from jupyterlab import commands
    commands._yarn_config = lambda logger: {"yarn config": {}, "npm config": {}}


def main():
    set_limits()
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [*(path for path in sys.path if path != here), here]       # our server extensions, after all else
    postpone_setuptools()
    serve = import_server()
    if os.environ.get("TINYTORCH_SOCKETS"):
        import container
        container.prepare(Path(os.environ["TINYTORCH_SOCKETS"]))
    sys.argv[0] = "jupyterhub-singleuser"
    serve()
    # kernels and extensions are shut down; taking the interpreter apart as well would cost half as much as the start
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
