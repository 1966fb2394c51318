"""No sandbox: runs the program as its user, for a learner alone with code of their own. Never a default, and every result says so.

What a sandbox shows at fixed places is handed to the program at its real ones. Wall time and output are limited, CPU time by the
kernel; memory, processes, disk and network are not.
"""

import contextlib
import os
import re
import resource
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from autograder.jobs import Limits
from autograder.sandbox import run
from autograder.sandbox.base import WORK, Outcome, SandboxUnavailable, Talk, Watch
from autograder.sandbox.processes.pipes import Pipes
from autograder.sandbox.run import TICK, Counted, End, Piece


class NoSandbox:
    """Sandbox backend `none` (see base.Sandbox), for one program without a conversation."""

    name = "none"

    def check(self) -> None:
        """There is nothing that could be missing."""

    def image(self) -> None:
        """This machine's Python."""

    def describe(self) -> list[tuple[str, str, bool]]:
        return [("isolation", "none: the program may do whatever its user may", False)]

    def run(self, argv: Sequence[str], files: Mapping[str, bytes], readonly: Sequence[tuple[str | Path, str | Path]],
            limits: Limits, env: Mapping[str, str], collect: Sequence[str] = (), talk: Talk | None = None,
            watch: Watch | None = None, imports: Sequence[str] | None = None, data: tuple[Path, str] | None = None) -> Outcome:
        """See base.Sandbox.run."""
        if talk:
            raise SandboxUnavailable("grading is never done without a sandbox", "Use the sandbox `process`")
        with tempfile.TemporaryDirectory(prefix="job-") as folder:
            work = Path(folder)
            for path, content in files.items():
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                (work / path).write_bytes(content)
            shown = [*readonly, *([data] if data else [])]
            places = {WORK: folder, **{str(inside): str(host) for host, inside in shown if Path(host) != Path(inside)}}
            outside = {name: _moved(value, places) for name, value in env.items()}
            place = _Started([_moved(word, places) for word in argv], work, outside, limits)
            return run.follow(place, limits, None, watch, collect)


def _moved(text: str, places: Mapping[str, str]) -> str:
    """A word or search path with the sandbox's places replaced by the real ones."""
    for inside in sorted(places, key=len, reverse=True):
        text = places[inside].join(re.split(rf"(?<![\w/]){re.escape(inside)}(?=[/:]|$)", text))
    return text


class _Started:
    """The place of one program: a process of this user, in a session of its own."""

    first = every = TICK

    def __init__(self, argv: list[str], work: Path, env: dict[str, str], limits: Limits) -> None:
        self.work, self.before = work, resource.getrusage(resource.RUSAGE_CHILDREN)
        self.process = subprocess.Popen(argv, cwd=work, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        start_new_session=True)
        assert self.process.stdin
        assert self.process.stdout
        assert self.process.stderr
        self.pipes = Pipes(self.process.stdin, self.process.stdout, self.process.stderr)
        seconds = int(limits.cpu_seconds) + 1
        resource.prlimit(self.process.pid, resource.RLIMIT_CPU, (seconds, seconds))

    def exchange(self, waiting: bytearray, seconds: float) -> tuple[list[Piece], bool]:
        ended = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)     # its group keeps its number
        pieces, _ = self.pipes.exchange(waiting, seconds)
        return pieces, bool(ended and not pieces)                             # what its children still have to say is heard

    def hang_up(self) -> None:
        self.pipes.hang_up()

    def count(self) -> Counted:
        return Counted()                                                # known at the end only

    def collect(self, paths: Sequence[str]) -> dict[str, bytes]:
        return {path: (self.work / path).read_bytes() for path in paths if (self.work / path).is_file()}

    def end(self) -> End:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code, rest = self.process.wait(), self.pipes.close()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - self.before.ru_utime - self.before.ru_stime
        return End(code, rest=rest, counted=Counted(cpu_seconds=spent, memory_mb=after.ru_maxrss / 2**10), limited=False)
