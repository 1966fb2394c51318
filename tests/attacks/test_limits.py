"""Every limit ends the program as a whole, in time, and says which limit it was and by how much."""

import secrets
import time

import pytest

from autograder.jobs import Verdict
from tests.attacks.processes import gone

FLOODS = {
    "memory, in small pieces": ("hoard = []\nwhile True: hoard.append(bytearray(b'x') * (1 << 20))", {"memory_mb": 100}, "memory"),
    "memory, all at once": ("bytearray(8 << 30)", {"memory_mb": 100}, "memory"),
    "memory, by many processes": (
        "import os, time\nfor _ in range(8): os.fork() or (bytearray(b'x') * (30 << 20), time.sleep(9), os._exit(0))\ntime.sleep(9)",
        {"memory_mb": 100}, "memory"),
    "fork bomb": ("import os\nwhile True: os.fork()", {"pids": 20}, "pids"),
    "fork bomb, others' words after its own": (
        "import os, sys, time, traceback\ntry:\n    while os.fork(): pass\n    time.sleep(9)\n"
        "except OSError:\n    sys.stderr.write(traceback.format_exc() + 'Traceback (most recent call last):\\n'); sys.exit(1)",
        {"pids": 20}, "pids"),
    "threads": ("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(9,)).start()", {"pids": 20}, "pids"),
    "busy loop": ("while True: pass", {"cpu_seconds": 1}, "cpu"),
    "busy loops in children": ("import os\nos.fork(); os.fork()\nwhile True: pass", {"cpu_seconds": 1}, "cpu"),
    "sleep": ("import time; time.sleep(60)", {"wall_seconds": 1}, "timeout"),
    "signals ignored": ("import signal, time\nfor n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\nwhile True: time.sleep(1)",
                        {"wall_seconds": 1}, "timeout"),
    "output flood": ("while True: print('x' * 1000)", {"output_kb": 100}, "output"),
    "error flood": ("import sys\nwhile True: sys.stderr.write('x' * 1000)", {"output_kb": 100}, "output"),
    "one large file": ("f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20))", {"disk_mb": 10}, "disk"),
    "many files": ("for i in range(100): open(f'x{i}', 'wb').write(bytes(1 << 20))", {"disk_mb": 10}, "disk"),
    "shared memory": ("open('/dev/shm/x', 'wb').write(bytes(1 << 25))", {"disk_mb": 10}, "disk"),
    "empty files": ("i = 0\nwhile True: i += 1; open(f'x{i}', 'w').close()", {"disk_mb": 10, "cpu_seconds": 60}, "disk"),
}
NUMBERS = {"memory": "100 MB", "pids": "20", "cpu": "1 s", "timeout": "1 s", "output": "100 kB", "disk": "10 MB"}


@pytest.mark.parametrize("name", FLOODS)
def test_a_limit_ends_the_program_and_says_so(python, name):
    code, limits, verdict = FLOODS[name]
    begun = time.monotonic()
    outcome = python(code, **{"wall_seconds": 30, **limits})
    assert outcome.verdict == Verdict(verdict), outcome
    assert NUMBERS[verdict] in outcome.sentence or name == "empty files", outcome.sentence
    assert time.monotonic() - begun < 25


def test_usage_is_measured(python):
    outcome = python("import time\nhoard = bytearray(b'x') * (50 << 20)\nend = time.process_time() + 0.5\n"
                     "while time.process_time() < end: pass\nopen('x', 'wb').write(bytes(3 << 20))\nprint('x' * 10240)\ntime.sleep(0.2)")
    assert outcome.verdict is Verdict.ok
    assert (0.2 if python.kind == "docker" else 0.45) < outcome.usage.cpu_seconds < 1.5         # the engine is asked now and then
    assert 0.7 < outcome.usage.wall_seconds < 20
    assert 50 < outcome.usage.memory_mb < 100
    assert 2.9 < outcome.usage.disk_mb < 3.2
    assert 10 <= outcome.usage.output_kb < 11


def test_within_the_limits_nothing_is_said(python):
    outcome = python("print(6 * 7); open('out', 'w').write('result')", files={"in/data.txt": b"x"}, collect=["out", "in/data.txt"])
    assert (outcome.verdict, outcome.sentence, outcome.stdout) == (Verdict.ok, "", b"42\n")
    assert outcome.files == {"out": b"result", "in/data.txt": b"x"}


def test_exit_codes_and_signals(python):
    failed, crashed = python("import sys; sys.exit(3)"), python("import os; os.kill(os.getpid(), 11)")
    assert (failed.verdict, failed.sentence) == (Verdict.error, "the process ended with exit code 3")
    assert (crashed.verdict, crashed.sentence) == (Verdict.crashed, "the process was ended by SIGSEGV")


def test_files_larger_than_the_disk_are_refused(python):
    assert python("pass", files={"x": bytes(3 << 20)}, disk_mb=2).verdict is Verdict.disk


@pytest.mark.parametrize("way", ["exits", "is stopped"])
def test_orphans_end_with_the_sandbox(python, way):
    word = f"orphan-{secrets.token_hex(8)}"
    outcome = python(f"import subprocess, sys, time\n"
                     f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)', {word!r}], start_new_session=True)\n"
                     f"time.sleep(0.3); print('started', flush=True)\n" + ("" if way == "exits" else "time.sleep(60)"),
                     wall_seconds=30 if way == "exits" else 2)
    assert outcome.stdout == b"started\n"
    assert gone(word)
