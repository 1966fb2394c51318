"""Runs a checkpoint's capability tests one by one in a child process with a time limit, reporting each as it ends."""

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from course.build.run import events
from course.curriculum import Checkpoint

SECONDS = 60                               # for a whole checkpoint; the reference takes two or three
OWN = "the code is your own"


@dataclass(frozen=True)
class Result:
    """One capability. `message` says why it failed; `printed` is what the student's code wrote meanwhile."""

    capability: str
    passed: bool
    message: str = ""
    seconds: float = 0.0
    printed: str = ""

    as_dict = asdict


def functions(checkpoint: Checkpoint) -> list[str]:
    """The names of a checkpoint's tests, in order, without importing them."""
    tree = ast.parse(checkpoint.test.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("can_")]


def capability(function: str) -> str:
    """`can_multiply_matrices` as a person says it."""
    return function.replace("_", " ")


def run(checkpoint: Checkpoint, workspace: Path, timeout: float = SECONDS) -> Iterator[Result]:
    """A Result per test, the first one saying whether the code is the student's own: if not, nothing else is run."""
    names = functions(checkpoint)
    setup = (f"from course.checkpoints import support\n"
             f"support.enter({str(workspace)!r}, {checkpoint.number!r})")
    titles = [OWN, *map(capability, names)]
    sources = [setup, *(f"support.attempt({name!r})" for name in names)]
    cells = [{"id": title, "source": source, "test": True} for title, source in zip(titles, sources, strict=True)]
    yield from _results(titles, events(cells, timeout=timeout, folder=workspace))


def _results(titles: list[str], reports: Iterator[dict]) -> Iterator[Result]:
    running = 0
    for report in reports:
        if report.get("begins"):
            running = report["cell"]
        elif "stopped" in report:
            yield Result(titles[running], False, report["stopped"])
            for title in titles[running + 1:]:
                yield Result(title, False, "not reached")
        else:
            result = Result(titles[report["cell"]], not report["error"], report["message"], report["seconds"], report["printed"])
            yield result
            if report["cell"] == 0 and not result.passed:
                return
            running = report["cell"] + 1
