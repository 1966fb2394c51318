"""One run, whatever it runs in: which verdict a program's end gets, and what of a container's stderr is the program's."""

import base64
import itertools
import json
import secrets
import signal
import socket
import struct
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autograder.jobs import Limits, Usage, Verdict
from autograder.sandbox import run
from autograder.sandbox.base import Watch
from autograder.sandbox.containers import engine
from autograder.sandbox.containers.aside import Aside
from autograder.sandbox.containers.container import Container
from autograder.sandbox.none import NoSandbox
from autograder.sandbox.run import Broken, Counted, End
from tests.attacks.processes import gone

LIMITS = Limits(cpu_seconds=10, memory_mb=100, pids=20, disk_mb=10)
MARK = b"0123456789abcdef "


@given(st.binary(max_size=200) | st.sampled_from([MARK[:n] for n in range(len(MARK))]), st.lists(st.integers(0, 400), max_size=8))
def test_the_last_word_is_taken_from_stderr_however_it_is_cut(written, cuts):
    whole = written + MARK + json.dumps({"code": 0}).encode() + b"\n"
    last, told, places = Aside(MARK), b"", [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    for one, other in itertools.pairwise(places):
        told += last.before(whole[one:other])
    at = whole.index(MARK)                       # the program may have written the mark's first letters itself
    assert told == whole[:at]
    assert last.text == whole[at + len(MARK):]
    assert last.whole


@given(st.lists(st.binary(max_size=60), min_size=3, max_size=3), st.binary(max_size=40), st.lists(st.integers(0, 600), max_size=8))
def test_what_is_kept_is_taken_out_of_what_the_program_writes(written, content, cuts):
    """A state that is whole counts; one that breaks off, and nonsense, do not."""
    def say(*lines):
        return b"".join(MARK + line + b"\n" for line in lines)
    half = base64.b64encode(content)
    whole = (written[0] + say(b"fa/b", b"d" + base64.b64encode(b"x" * 9), b"d" + half, b"fc", b"e") + written[1]
             + say(b"d", b"d" + half, b"fa/b", b"d!") + written[2] + MARK + b"{}\n")
    aside, told, places = Aside(MARK), b"", [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    for one, other in itertools.pairwise(places):
        told += aside.before(whole[one:other])
    assume(not any(MARK in text for text in (b"".join(written), *written)))
    assert told == b"".join(written)
    assert aside.kept == {"a/b": b"x" * 9 + content, "c": b""}
    assert (aside.text, aside.whole) == (b"{}\n", True)


@given(st.lists(st.binary(max_size=20) | st.sampled_from([MARK[:n] for n in range(len(MARK))]), max_size=9))
def test_without_a_mark_nothing_is_held_back_for_good(pieces):
    last = Aside(MARK)
    told = b"".join(map(last.before, pieces))
    if MARK not in b"".join(pieces):
        assert told + last.doubtful == b"".join(pieces)
        assert not last.whole


def test_a_container_has_ended_when_both_of_its_streams_have(monkeypatch):
    """The engine carries stdout and stderr over by themselves: under load the last word comes before the rest of what was printed."""
    here, engines = socket.socketpair()
    monkeypatch.setattr(engine, "ask", lambda *words, **options: {"Id": "one"})
    monkeypatch.setattr(engine, "attach", lambda id: here)

    def write(stream, text):
        engines.sendall(struct.pack(">BxxxI", stream, len(text)) + text)
    write(1, b'{"python": "3.12.3"}\n')
    with engines, here:
        container = Container({}, [])
        mark = container.last.mark
        write(1, b"printed, ")
        write(2, b"warned" + mark + b'{"code": 0}\n')
        heard, ended = container.exchange(bytearray(), 1)
        assert (sorted(heard), ended) == ([("stderr", b"warned"), ("stdout", b"printed, ")], False)
        write(1, b"and more" + mark[:7])
        write(1, mark[7:] + b"\n")
        heard, ended = container.exchange(bytearray(), 1)
        assert (b"".join(text for _, text in heard), ended) == (b"and more", True)


ENDS = {
    "well": (End(0), b"Traceback", 0, "ok", ""),
    "with an exit code": (End(3), b"", 0, "error", "the process ended with exit code 3"),
    "by a signal, as Popen says it": (End(-11), b"", 0, "crashed", "the process was ended by SIGSEGV"),
    "by a signal, as a shell says it": (End(139), b"", 0, "crashed", "the process was ended by SIGSEGV"),
    "by no signal that there is": (End(255), b"", 0, "error", "the process ended with exit code 255"),
    "on a full disk": (End(1, full=True), b"MemoryError", 0, "disk", "filled 10 MB of disk, limit 10 MB"),
    "without memory": (End(1), b"...\nMemoryError\n", 0, "memory", "asked for more memory than its limit of 100 MB"),
    "without memory where nothing limits it": (End(1, limited=False), b"MemoryError\n", 0, "error", "the process ended with exit code 1"),
    "without a thread": (End(1), b"RuntimeError: can't start new thread", 0, "pids",
                         "wanted more than 20 processes and threads at once, limit 20"),
    "with a word about memory before others": (End(1), b"MemoryError\nValueError: x\n", 0, "error", "the process ended with exit code 1"),
    "at the kernel's limit on CPU time": (End(-signal.SIGXCPU), b"", 12, "cpu", "used 12 s of CPU, limit 10 s"),
    "killed at that limit": (End(137), b"", 12, "cpu", "used 12 s of CPU, limit 10 s"),
    "killed before": (End(137), b"", 2, "crashed", "the process was ended by SIGKILL"),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_program_that_ends(how):
    end, stderr, cpu, verdict, sentence = ENDS[how]
    assert run.verdict_of(end, stderr, LIMITS, Usage(cpu_seconds=cpu)) == (Verdict(verdict), sentence)


class Failing:
    """A place whose machine fails: after one piece, or while the program is ended."""

    first = every = 0.0

    def __init__(self, when):
        self.when, self.hung_up = when, False

    def exchange(self, waiting, seconds):
        if self.when == "exchange":
            raise Broken("the engine failed: gone")
        return [("stdout", b"x" * 2048)], True

    def hang_up(self):
        self.hung_up = True

    def count(self):
        return Counted(cpu_seconds=1.5)

    def collect(self, paths):
        return {}

    def end(self):
        raise Broken("the container was ended from outside")


@pytest.mark.parametrize("when", ["exchange", "end"])
def test_what_breaks_is_never_the_programs_fault(when):
    outcome = run.follow(Failing(when), LIMITS, None, Watch(), [])
    assert (outcome.verdict, outcome.exit_code) == (Verdict.infra, None)
    assert outcome.sentence in ("the engine failed: gone", "the container was ended from outside")


def test_a_limit_that_was_hit_before_something_broke_stands():
    assert run.follow(Failing("end"), Limits(output_kb=1), None, None, []).verdict is Verdict.output


def test_output_counts_as_one_sum_in_every_sandbox():
    code = "import os\nos.write(1, b'x' * 700)\nos.write(2, b'y' * 700)"
    for kb, verdict in ((1, Verdict.output), (2, Verdict.ok)):
        assert NoSandbox().run([sys.executable, "-c", code], {}, [], Limits(output_kb=kb), {}).verdict is verdict


def test_without_a_sandbox_a_child_that_lives_on_is_ended_too():
    word = f"child-{secrets.token_hex(8)}"
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', {word!r}])"
    assert NoSandbox().run([sys.executable, "-c", code], {}, [], Limits(wall_seconds=30), {}).verdict is Verdict.ok
    assert gone(word)
