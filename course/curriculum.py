"""The curriculum as data: which modules and checkpoints there are, in which order, and who is meant by a name."""

import difflib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

ROOM = Path(__file__).resolve().parent


class UnknownName(ValueError):
    """A module or checkpoint that does not exist; the message lists the nearest ones."""


@dataclass(frozen=True)
class Module:
    number: str                    # "02"
    name: str                      # "tensor"
    title: str
    export: str = ""               # the file of tinytorch/core that it writes, without .py
    graded: bool = True
    ready: bool = False            # its source is in this course

    @property
    def slug(self) -> str:
        """Folder and nbgrader assignment name: `02_tensor`."""
        return f"{self.number}_{self.name}"

    @property
    def source(self) -> Path:
        """The file that a module's author edits."""
        return ROOM / "modules" / "source" / self.slug / f"{self.name}_dev.py"

    @property
    def notebook(self) -> str:
        """The notebook's file name, the same in source, release, workspace and submission."""
        return f"{self.name}.ipynb"


@dataclass(frozen=True)
class Checkpoint:
    number: str
    name: str
    question: str
    after: tuple[str, ...]
    ready: bool = False

    @property
    def test(self) -> Path:
        return ROOM / "checkpoints" / f"checkpoint_{self.number}_{self.name}.py"


@cache
def _document() -> dict:
    return yaml.safe_load((ROOM / "curriculum.yml").read_text())


@cache
def modules() -> tuple[Module, ...]:
    """All modules in teaching order, whether their source is here yet or not."""
    return tuple(Module(**entry) for entry in _document()["modules"])


@cache
def checkpoints() -> tuple[Checkpoint, ...]:
    return tuple(Checkpoint(**{**entry, "after": tuple(entry["after"])}) for entry in _document()["checkpoints"])


def due_week(plan: int, module: Module) -> int | None:
    """In which week of a 4, 8 or 16 week plan the module is due; None for an ungraded one."""
    return _document()["plans"][plan].get(module.number)


def find_module(text: str) -> Module:
    """The module meant by `02_tensor`, `02`, `2`, `tensor` or the older `00_setup`."""
    wanted = text.strip().lower().removesuffix("_dev")
    if not wanted:
        raise UnknownName("which module? Give its number or name, for example 02 or tensor")
    number, _, name = wanted.partition("_") if wanted[:1].isdigit() else ("", "", wanted)
    for module in modules():
        if name == module.name or (not name and number.zfill(2) == module.number):
            return module
    known = [m.slug for m in modules()] + [m.name for m in modules()]
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4) or [m.slug for m in modules() if m.ready]
    raise UnknownName(f"there is no module {text!r}; did you mean {', '.join(near)}?")


def find_checkpoint(text: str) -> Checkpoint:
    """The checkpoint meant by `02`, `2` or `intelligence`."""
    wanted = text.strip().lower()
    if not wanted:
        raise UnknownName("which checkpoint? Give its number or name, for example 02 or intelligence")
    for checkpoint in checkpoints():
        number, name = checkpoint.number, checkpoint.name
        if wanted in (name, f"{number}_{name}", f"checkpoint_{number}_{name}") or wanted.zfill(2) == number:
            return checkpoint
    known = [c.number for c in checkpoints()] + [c.name for c in checkpoints()]
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
    advice = f"did you mean {', '.join(near)}?" if near else f"they are {known[0]} to {checkpoints()[-1].number}"
    raise UnknownName(f"there is no checkpoint {text!r}; {advice}")
