"""No sandbox: runs the program as its user, for a learner alone with code of their own. Never a default, and every result says so.

What a sandbox shows at fixed places is handed to the program at its real ones. Wall time and output are limited, CPU time by the
kernel; memory, processes, disk and network are not.
"""

import os
import re
import resource
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from autograder.jobs import Limits, Usage, Verdict, stopped
from autograder.sandbox.base import WORK, Outcome, SandboxUnavailable, Talk, Watch

TICK = 0.1


class NoSandbox:
    """Sandbox backend `none` (see base.Sandbox), for one program without a conversation."""

    name = "none"

    def check(self) -> None:
        """There is nothing that could be missing."""

    def describe(self) -> list[tuple[str, str, bool]]:
        return [("isolation", "none: the program may do whatever its user may", False)]

    def run(self, argv: Sequence[str], files: Mapping[str, bytes], readonly: Sequence[tuple[str | Path, str | Path]],
            limits: Limits, env: Mapping[str, str], collect: Sequence[str] = (), talk: Talk | None = None,
            watch: Watch | None = None, imports: Sequence[str] | None = None) -> Outcome:
        """See base.Sandbox.run."""
        if talk:
            raise SandboxUnavailable("grading is never done without a sandbox", "Use the sandbox `process`")
        with tempfile.TemporaryDirectory(prefix="job-") as folder:
            work = Path(folder)
            for path, content in files.items():
                (work / path).parent.mkdir(parents=True, exist_ok=True)
                (work / path).write_bytes(content)
            places = {WORK: folder, **{str(inside): str(host) for host, inside in readonly if Path(host) != Path(inside)}}
            outside = {name: _moved(value, places) for name, value in env.items()}
            outcome = _run([_moved(word, places) for word in argv], work, outside, limits, watch or Watch())
            outcome.files = {path: (work / path).read_bytes() for path in collect if (work / path).is_file()}
            return outcome


def _moved(text: str, places: Mapping[str, str]) -> str:
    """A word or search path with the sandbox's places replaced by the real ones."""
    for inside in sorted(places, key=len, reverse=True):
        text = places[inside].join(re.split(rf"(?<![\w/]){re.escape(inside)}(?=[/:]|$)", text))
    return text


def _run(argv: list[str], work: Path, env: dict[str, str], limits: Limits, watch: Watch) -> Outcome:
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    verdict: Verdict | None = None
    process = subprocess.Popen(argv, cwd=work, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               start_new_session=True)
    assert process.stdout
    assert process.stderr
    seconds = int(limits.cpu_seconds) + 1
    resource.prlimit(process.pid, resource.RLIMIT_CPU, (seconds, seconds))
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ, "stdout")
        ready.register(process.stderr, selectors.EVENT_READ, "stderr")
        while ready.get_map() and not verdict:
            for key, _ in ready.select(TICK):
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    ready.unregister(key.fileobj)
                    continue
                kept[key.data] += chunk
                watch.hear(chunk)
            if sum(map(len, kept.values())) > limits.output_kb * 2**10:
                verdict = Verdict.output
            elif time.monotonic() - begun > limits.wall_seconds:
                verdict = Verdict.timeout
            elif watch.stop():
                verdict = Verdict.cancelled
    if verdict:
        os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    process.stdout.close()
    process.stderr.close()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    usage = Usage(cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall_seconds=time.monotonic() - begun,
                  memory_mb=after.ru_maxrss / 2**10, output_kb=sum(map(len, kept.values())) / 2**10)
    if verdict:
        sentence = stopped(verdict, limits, usage)
    elif code in (-signal.SIGXCPU, -signal.SIGKILL) and usage.cpu_seconds > limits.cpu_seconds:
        verdict, sentence = Verdict.cpu, stopped(Verdict.cpu, limits, usage)
    elif code < 0:
        verdict, sentence = Verdict.crashed, f"the process was ended by {signal.Signals(-code).name}"
    else:
        verdict, sentence = (Verdict.error, f"the process ended with exit code {code}") if code else (Verdict.ok, "")
    return Outcome(verdict, sentence, usage, code, bytes(kept["stdout"]), bytes(kept["stderr"]))
