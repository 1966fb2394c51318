"""`nbgrader autograde` without half a second of imports that it never uses: bin/nbgrader, in a class's terminal and behind its button.

nbgrader's packages and nbconvert's import at once all that is in them: other commands, server extensions, exporters, kernels. Here such
a package is opened without running its `__init__`; a name that somebody asks of it is fetched from the module from which that
`__init__` would import it, and for anything else the whole `__init__` is run then. So nothing is missing, it only comes later or never.
"""

import ast
import atexit
import contextlib
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import sys
import types
from pathlib import Path

PACKAGES = ("nbgrader", "nbgrader.apps", "nbgrader.auth", "nbgrader.converters", "nbgrader.exchange", "nbgrader.plugins",
            "nbgrader.preprocessors", "nbconvert", "nbconvert.exporters", "nbconvert.filters", "nbconvert.preprocessors")
ARCHIVES, UNPACKS = "setuptools.archive_util", ("unpack_archive", "unpack_tarfile", "unpack_zipfile")
FORMATS = ("arrow", "fqdn", "idna", "isoduration", "jsonpointer", "rfc3339_validator", "rfc3986_validator", "rfc3987", "rfc3987_syntax",
           "uri_template", "webcolors")         # of texts in JSON documents, which no notebook has: jsonschema does without


class _Postponed(types.ModuleType):
    """A package whose `__init__` has not been run."""

    def __init__(self, spec: importlib.machinery.ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__dict__.update(__spec__=spec, __path__=spec.submodule_search_locations, __file__=spec.origin, __loader__=spec.loader,
                             __package__=spec.name)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__version__" and name != "__all__":
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        if "__origins__" not in self.__dict__:
            self.__origins__ = _origins(self.__name__, Path(self.__file__ or ""))
        if origin := self.__origins__.get(name):
            value = getattr(importlib.import_module(origin[0]), origin[1])
        elif importlib.util.find_spec(f"{self.__name__}.{name}"):
            value = importlib.import_module(f"{self.__name__}.{name}")
        else:
            self.__class__ = types.ModuleType           # type: ignore[assignment]  # an ordinary one from now on
            assert self.__spec__
            assert self.__spec__.loader
            self.__spec__.loader.exec_module(self)
            return getattr(self, name)
        setattr(self, name, value)
        return value


def _origins(package: str, file: Path) -> dict[str, tuple[str, str]]:
    """Where the names that a package's `__init__` imports from its own modules come from: (module, name there)."""
    found = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.level < 2:
            module = f"{package}.{node.module}" if node.level else node.module
            if module.startswith(f"{package}."):
                found.update({alias.asname or alias.name: (module, alias.name) for alias in node.names if alias.name != "*"})
    return found


def postpone() -> None:
    """Before anything of nbgrader is imported; does nothing for what is imported already."""
    for name in PACKAGES:
        if name not in sys.modules and (spec := importlib.util.find_spec(name)):
            module = sys.modules[name] = _Postponed(spec)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
    if ARCHIVES not in sys.modules:             # all of setuptools, for functions that unpack what is collected
        archives = sys.modules[ARCHIVES] = types.ModuleType(ARCHIVES)
        for name in UNPACKS:
            setattr(archives, name, functools.partial(_unpack, archives, name))
    if "jsonschema" not in sys.modules:
        absent = [name for name in FORMATS if name not in sys.modules]
        sys.modules.update(dict.fromkeys(absent))       # type: ignore[arg-type]  # None: not to be had
        importlib.import_module("jsonschema")
        for name in absent:
            del sys.modules[name]


def _unpack(stand_in: types.ModuleType, name: str, *args: object, **kwargs: object) -> object:
    if sys.modules.get(ARCHIVES) is stand_in:
        del sys.modules[ARCHIVES]
    return getattr(importlib.import_module(ARCHIVES), name)(*args, **kwargs)


def main() -> None:
    """The command `nbgrader`, any of them."""
    if sys.argv[1:2] != ["autograde"]:
        from nbgrader.apps.nbgraderapp import main as nbgrader
        sys.exit(nbgrader())
    gc.disable()                                # nothing of what is imported is garbage
    postpone()
    from nbgrader.apps.autogradeapp import AutogradeApp

    from autograder.marks import nbgrader_plugin  # noqa: F401  every course's configuration wants it
    gc.freeze()
    gc.enable()
    try:
        AutogradeApp.launch_instance(argv=sys.argv[2:])
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        leave(ended.code or 0)
    leave(0)


def leave(code: int) -> None:
    """End without taking the interpreter apart, which would cost a third of the imports; what is to be done at the end is done."""
    atexit._run_exitfuncs()
    logging.shutdown()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
