"""The one interface of all sandboxes: check whether this machine can isolate, run one program, say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from autograder.jobs import Limits, Usage, Verdict  # not at run time: the spawner needs bubblewrap only

WORK = "/job"                                                # the work folder inside: empty, writable, of limited size
TAMPERING = "tampering: "                                    # how the sentence about a forged reply begins
Talk = Callable[[bytes], bytes | None]
Listen = Callable[[bytes], None]


class SandboxUnavailable(RuntimeError):
    """This machine cannot isolate student code. `reason` says why, `fix` what the administrator can do."""

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}. {fix}")
        self.reason, self.fix = reason, fix


class ForgedReply(Exception):
    """Raised by a `Talk` when the program says what it cannot say; the sandbox ends it as crashed."""


@dataclass
class Watch:
    """Who follows a program while it runs: hears what it writes (stdout and stderr as they come), and may end it early.

    `keep` names files of the work folder that `kept` gets every now and then, whenever one of them has changed: what a long
    program can go on from, should the sandbox or its machine fail.
    """

    hear: Listen = lambda chunk: None
    stop: Callable[[], bool] = lambda: False
    keep: Sequence[str] = ()
    kept: Callable[[dict[str, bytes]], None] = lambda files: None


@dataclass
class Outcome:
    """What came of one program: verdict, one sentence about it, what it wrote (capped) and what it used."""

    verdict: Verdict
    sentence: str
    usage: Usage
    exit_code: int | None = None
    stdout: bytes = b""
    stderr: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)


class Sandbox(Protocol):
    """A place that runs a program without network, secrets or other people's files, under limits, and ends it whole."""

    name: str

    def check(self) -> None:
        """Raise SandboxUnavailable (with reason and fix) unless a program can be isolated here, now."""

    def image(self) -> tuple[str, dict[str, str]] | None:
        """The image that programs run in, by its content, and versions of what is in it; None where that is this machine's Python.
        Before the first run the versions may be unknown."""

    def describe(self) -> list[tuple[str, str, bool]]:
        """Each limit: what it is, how it is enforced here, and whether that is as strong as it can be."""

    def run(self, argv: Sequence[str], files: Mapping[str, bytes], readonly: Sequence[tuple[str | Path, str | Path]],
            limits: Limits, env: Mapping[str, str], collect: Sequence[str] = (), talk: Talk | None = None,
            watch: Watch | None = None, imports: Sequence[str] | None = None, data: tuple[Path, str] | None = None) -> Outcome:
        """Run `argv` in a fresh work folder holding `files`; bring back the files named in `collect`, if regular.

        `readonly`: (place here, place inside) of what the program may read, `data` one more that is too large to be copied: shown as it
        is, also by a sandbox that shows nothing else of this machine.

        `talk` makes it a conversation: called with b"" first and then with each chunk of stdout, it returns what to
        write to stdin, b"" for nothing yet, None for the end of input. Once it has answered something, at most
        `limits.cell_seconds` may pass until its next answer. Without it stdin is empty and stdout is kept.

        `imports`: modules that a Python program may find imported when it starts; `argv` is then [python, "-s", file, ...]. With it
        a backend may fork the program from a process that has them, or take one that has just waited for it.
        """
