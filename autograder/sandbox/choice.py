"""Which sandbox this site uses: AUTOGRADER_SANDBOX, `process` (the default) or `docker`. One for the whole program."""

import functools
import importlib
import os

from autograder.sandbox.base import Sandbox, SandboxUnavailable

KINDS = {"process": ("autograder.sandbox.processes.process", "Process"), "docker": ("autograder.sandbox.containers.docker", "Docker")}


@functools.cache
def _made(kind: str) -> Sandbox:
    module, name = KINDS[kind]              # only this one is imported: a grading starts with it
    made: Sandbox = getattr(importlib.import_module(module), name)()
    return made


def sandbox() -> Sandbox:
    """Raises SandboxUnavailable for a word that names none: a typing error must not grade without what was asked for."""
    kind = os.environ.get("AUTOGRADER_SANDBOX") or "process"
    if kind not in KINDS:
        raise SandboxUnavailable(f"AUTOGRADER_SANDBOX is {kind!r}", f"Set it to one of: {', '.join(KINDS)}")
    return _made(kind)
