"""Following a program while it runs: what it writes is heard at once, what it keeps is taken without being led astray, it can be ended."""

import asyncio
import sys
import time

import pytest

from autograder.jobs import Limits, Verdict
from autograder.sandbox import run
from autograder.sandbox.base import Watch
from autograder.sandbox.processes import bubblewrap
from autograder.service import access


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def followed(request, monkeypatch):
    sandbox = request.getfixturevalue("containers" if request.param == "docker" else "sandbox")
    monkeypatch.setattr(run, "KEEP_SECONDS", 0.2)

    def started(code, watch, **limits):
        return sandbox.run([sys.executable, "-u", "-c", code], {}, bubblewrap.python_paths(), Limits(**limits), {"PATH": "/usr/bin:/bin"},
                           watch=watch)
    return started


def test_output_is_heard_before_the_program_ends(followed):
    heard = []
    done = followed("import time\nfor n in range(3):\n    print(n)\n    time.sleep(0.3)", Watch(lambda chunk: heard.append(
        (time.monotonic(), chunk))))
    assert b"".join(chunk for _, chunk in heard) == done.stdout == b"0\n1\n2\n"
    assert heard[-1][0] - heard[0][0] > 0.4


def test_a_flood_is_heard_no_further_than_its_limit(followed):
    heard = []
    done = followed("while True: print('x' * 10000)", Watch(heard.append), output_kb=100)
    assert done.verdict is Verdict.output
    assert sum(map(len, heard)) <= 100 * 2**10


def test_it_ends_when_told_with_all_its_processes(followed):
    begun = time.monotonic()
    code = "import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)"
    assert followed(code, Watch(stop=lambda: time.monotonic() - begun > 0.5)).verdict is Verdict.cancelled
    assert time.monotonic() - begun < 10


def test_what_is_kept_is_the_last_state_of_regular_files(followed):
    kept = []
    code = "import time\nfor n in range(14):\n    open('state', 'w').write(str(n))\n    time.sleep(0.15)"
    followed(code, Watch(keep=("state", "absent"), kept=kept.append))
    numbers = [int(files["state"]) for files in kept if files["state"]]
    assert len(numbers) >= 3
    assert numbers == sorted(numbers)
    assert all(files.keys() == {"state"} for files in kept)


def test_a_link_a_pipe_and_a_large_file_are_not_kept(followed):
    kept = []
    code = ("import os, time\nos.symlink('/etc/passwd', 'link')\nos.mkfifo('pipe')\nos.symlink('/', 'folder')\n"
            "open('large', 'w').close()\nos.truncate('large', 33 * 2**20)\nopen('small', 'w').write('x')\ntime.sleep(1)")
    done = followed(code, Watch(keep=("link", "pipe", "folder/etc/passwd", "large", "small"), kept=kept.append))
    assert done.verdict is Verdict.ok, done.stderr
    assert kept == [{"small": b"x"}]


def test_a_hub_that_is_not_there_lets_nobody_in():
    door = access.Door("the service's own token", "http://127.0.0.1:9/hub/api")
    with pytest.raises(access.Refused, match="try again in a minute") as refused:
        asyncio.run(door.caller("token 0123456789abcdef"))
    assert refused.value.status == 503
    assert asyncio.run(access.Door("own-token-of-the-service").caller("Bearer own-token-of-the-service")).staff
    for header in ("", "Bearer", "Bearer ", "Basic own-token-of-the-service", "own-token-of-the-service"):
        with pytest.raises(access.Refused):
            asyncio.run(access.Door("own-token-of-the-service").caller(header))
