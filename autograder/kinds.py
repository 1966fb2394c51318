"""The kinds of jobs that students submit: what each takes, and the program of ours that carries it out in the sandbox."""

import re
from collections.abc import Mapping
from pathlib import Path

from autograder.jobs import Kind

EDITION = "student"                     # the edition of all of these: the framework without solutions, and our programs
OPTIONS, RECIPE = "options.json", "recipe.yml"
GOES_ON_FROM = {"train": ("run/config.yml", "run/log.jsonl", "run/best.tt", "run/best.last.tt")}   # kept while the job runs
PROGRAMS = Path(__file__).with_name("programs")
LARGEST, MOST = 2 * 2**20, 60           # bytes and number of a student's files
EXPORT = re.compile(r"tinytorch/core/[a-z_][a-z0-9_]{0,60}\.py")
TARGETS = {"checkpoint": (re.compile(r"[0-9]{2}"), "a checkpoint's number, such as 01"),
           "profile": (re.compile(r"[a-z_][a-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){1,2}"), "a name of the framework, such as activations.ReLU"),
           "train": (re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*"), "a recipe's name, such as digits")}
EXTRA = {"checkpoint": set[str](), "profile": {OPTIONS}, "train": {RECIPE}}


class Unfit(ValueError):
    """Not a job of that kind. The message says what it should be."""


def check(kind: Kind, target: str, files: Mapping[str, bytes]) -> None:
    """Raise Unfit unless target and files are what this kind takes from a student."""
    pattern, wanted = TARGETS[kind]
    if not pattern.fullmatch(target):
        raise Unfit(f"job.target: {kind} needs {wanted}, not {target!r}")
    strange = sorted(path for path in files if not EXPORT.fullmatch(path) and path not in EXTRA[kind])
    if strange:
        raise Unfit(f"files: {kind} takes exported modules (tinytorch/core/NAME.py) and nothing like {strange[0]}")
    if len(files) > MOST or sum(map(len, files.values())) > LARGEST:
        raise Unfit(f"files: at most {MOST} files of {LARGEST // 2**20} MB together")


def program(kind: Kind) -> Path:
    return PROGRAMS / f"{kind}.py"
