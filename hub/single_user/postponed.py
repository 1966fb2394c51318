"""Imports that a server's start does not need, put off until something of them is used.

JupyterHub's single-user part imports the hub's own pages and database, JupyterLab a client of PyPI, nbgrader the gradebook: more than
half of a start, for functions that a student's server never calls. While `postponed` lasts, such an import gives a stand-in. Whoever
reads an attribute of it later gets the real module's, so a name that is not foreseen here costs time and breaks nothing.
"""

import importlib
import sys
import types
from contextlib import contextmanager


class StandIn(types.ModuleType):
    """A module that is imported when an attribute of it is read."""

    def __getattr__(self, name):
        # asked of every module by whoever goes through them all, as `inspect` does; a path has only a package, for who imports a part
        if name.startswith("__") and (name != "__path__" or "." in self.__name__):
            raise AttributeError(name)
        return getattr(real(self.__name__), name)


def real(module):
    """That module itself."""
    if isinstance(sys.modules.get(module), StandIn):
        del sys.modules[module]
    return importlib.import_module(module)


def when_called(module, *names):
    """Functions and classes of a module by their names, each imported when it is called."""
    def later(name):
        return lambda *args, **kwargs: getattr(real(module), name)(*args, **kwargs)
    return {name: later(name) for name in names}


def put_off(module, names):
    """A stand-in for a module that nobody has imported yet. `names` are what `from module import name` gives meanwhile."""
    if module not in sys.modules:
        sys.modules[module] = StandIn(module)              # its parent is not imported for it: the name is known
        vars(sys.modules[module]).update(names)


@contextmanager
def postponed(modules, without=()):
    """Stand-ins for modules ({its name: its names}) while this lasts; for who takes an ImportError well, none of those in `without`."""
    for module, names in modules.items():
        put_off(module, names)
    blocked = [module for module in without if module not in sys.modules]
    sys.modules.update(dict.fromkeys(blocked))
    try:
        yield
    finally:
        for module in modules:
            if isinstance(sys.modules.get(module), StandIn):
                del sys.modules[module]
        for module in blocked:
            del sys.modules[module]
