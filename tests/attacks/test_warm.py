"""Forks of a warm template: nothing of one submission reaches the template, the next one, or one that runs at the same time."""

import secrets
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autograder.jobs import Limits, Verdict
from autograder.sandbox.processes import bubblewrap, warm

SECRET = secrets.token_hex(16)


@pytest.fixture
def fork(sandbox, program):
    """Run code in a fork of one and the same template."""
    def run(code, **options):
        outcome = sandbox.run([sys.executable, "-s", "/opt/program.py"], {"main.py": code.encode()},
                              [*bubblewrap.python_paths(), (program, "/opt/program.py")], Limits(**options), {"PATH": "/usr/bin:/bin"},
                              imports=["json", "random"])
        assert warm.broken() == ""
        assert outcome.verdict is Verdict.ok, outcome
        return outcome.stdout.decode().strip()
    return run


LEAVE = {
    "files": ("for path in ('/job/x', '/tmp/x', '/dev/shm/x'): open(path, 'w').write('SECRET')",
              # files, since a site below /tmp has its folders there
              "import os\nprint([p for d in ('/job', '/tmp', '/dev/shm') for p in os.listdir(d) if os.path.isfile(f'{d}/{p}')])", "[]"),
    "a changed library": ("import json\njson.dumps = lambda *a, **k: 'SECRET'\njson.left = 'SECRET'",
                          "import json\nprint(json.dumps([]), hasattr(json, 'left'))", "[] False"),
    "a changed built-in": ("import builtins\nbuiltins.len = lambda x: 0\nbuiltins.left = 'SECRET'",
                           "import builtins\nprint(len('abc'), hasattr(builtins, 'left'))", "3 False"),
    "an import hook": ("import sys\nclass Hook:\n  find_spec = lambda *a: (_ for _ in ()).throw(SystemExit(7))\n"
                       "sys.meta_path.insert(0, Hook())",
                       "import sys, wave\nprint([type(h).__name__ for h in sys.meta_path if type(h).__name__ == 'Hook'])", "[]"),
    "environment and folder": ("import os\nos.environ['LEFT'] = 'SECRET'\nos.chdir('/tmp')\nos.umask(0)",
                               "import os\nprint('LEFT' in os.environ, os.getcwd(), oct(os.umask(0)))", "False /job 0o22"),
    "shared memory": ("from multiprocessing import shared_memory\ns = shared_memory.SharedMemory('left', True, 100)\n"
                      "s.buf[:32] = b'SECRET'\n"
                      "import ctypes\nid = ctypes.CDLL(None).shmget(77, 4096, 0o1666)\nassert id >= 0",
                      "import ctypes, os\nprint(os.listdir('/dev/shm'), ctypes.CDLL(None).shmget(77, 4096, 0))", "[] -1"),
    "a message queue": ("import ctypes\nassert ctypes.CDLL(None).msgget(78, 0o1666) >= 0",
                        "import ctypes\nprint(ctypes.CDLL(None).msgget(78, 0))", "-1"),
    "a random generator": ("import random\nrandom.seed(1)", "import random\nrandom.seed(1)\na = random.random()\nrandom.seed(1)\n"
                           "print(a == random.random())", "True"),
    "a process": ("import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', 'SECRET'], "
                  "start_new_session=True)", "import os\nprint(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))", "[1, 2]"),
    "limits": ("import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))",
               "import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE))", "(1024, 1024)"),
    "signals": ("import signal\nsignal.signal(15, signal.SIG_IGN)\nsignal.pthread_sigmask(0, [10])",
                "import signal\nprint(int(signal.getsignal(15)), signal.pthread_sigmask(0, []))", "0 set()"),
}


@pytest.mark.parametrize("what", LEAVE)
def test_nothing_is_left_for_the_next(fork, what):
    leave, look, expected = LEAVE[what]
    fork("print('first')")
    template = {one.process.pid for one in warm._templates.values()}
    fork(leave.replace("SECRET", SECRET))
    assert fork(look.replace("SECRET", "left")) == expected
    assert {one.process.pid for one in warm._templates.values()} == template       # it was the same one


def test_no_word_of_a_submission_is_in_the_memory_of_the_next(fork):
    fork(f"kept = [{SECRET!r} + str(n) for n in range(10_000)]\nopen('/tmp/x', 'w').write(''.join(kept))")
    look = f"""import re
found, word = 0, {SECRET[:16]!r}
word += {SECRET[16:20]!r}                                # in two parts: the text of this program is not what is looked for
for line in open('/proc/self/maps'):
    place, rights = line.split()[:2]
    if 'r' in rights and '[v' not in line:
        first, last = (int(n, 16) for n in place.split('-'))
        with open('/proc/self/mem', 'rb', 0) as memory:
            memory.seek(first)
            content = memory.read(last - first)
        found += len(re.findall(word.encode() + b'[0-9a-f]{{12}}[0-9]', content))
        del content
print(found)"""
    assert fork(look) == "0"
    assert int(fork(f"kept = {SECRET!r} + '7'\n" + look)) > 0                       # it finds what is there


def test_neither_template_nor_supervisor_nor_its_descriptors_are_in_reach(fork):
    out = fork("import os\nprint(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()), os.getppid())\n"
               "print([fd for fd in os.listdir('/proc/self/fd') if int(fd) > 2 and os.path.exists(f'/proc/self/fd/{fd}')])\n"
               "for path in ('/proc/1/mem', '/proc/1/environ', '/proc/1/root', '/proc/1/cwd'):\n"
               "    try: os.listdir(path) if path.endswith(('root', 'cwd')) else open(path, 'rb', 0).read(1); print('open', path)\n"
               "    except OSError as error: print(type(error).__name__)\n"
               "try: print(os.listdir('/proc/1/fd'))\nexcept OSError: print([])")
    assert out.splitlines() == ["[1, 2] 1", "[]", *["PermissionError"] * 4, "[]"]


def test_the_search_path_is_that_of_a_cold_start(fork, sandbox, program):
    look = "import sys\nprint(sys.path, sys.argv, __name__)"
    cold = sandbox.run([sys.executable, "-s", "/opt/program.py"], {"main.py": look.encode()},
                       [*bubblewrap.python_paths(), (program, "/opt/program.py")], Limits(), {"PATH": "/usr/bin:/bin"})
    assert fork(look) == cold.stdout.decode().strip()


def test_two_at_the_same_time_do_not_see_each_other(fork):
    """Neither files, processes, sockets (abstract ones and loopback), shared memory nor terminals."""
    first = """import ctypes, os, pty, socket, time
listener = socket.create_server(('127.0.0.1', 4242))
a = socket.socket(socket.AF_UNIX)
a.bind('\\0meeting')
a.listen()
open('/dev/shm/x', 'w').write('x')
ctypes.CDLL(None).shmget(79, 4096, 0o1666)
pty.openpty()
print(os.listdir('/dev/pts'))
time.sleep(4)"""
    look = """import ctypes, os, socket
for family, address in ((socket.AF_INET, ('127.0.0.1', 4242)), (socket.AF_UNIX, '\\0meeting')):
    try:
        socket.socket(family).connect(address)
        print('reached')
    except OSError as error:
        print(error.errno)
print(os.listdir('/dev/shm'), os.listdir('/dev/pts'), ctypes.CDLL(None).shmget(79, 4096, 0))
print(len([path for path in os.listdir('/proc') if path.isdigit()]))"""
    said = {}
    other = threading.Thread(target=lambda: said.update(first=fork(first)))
    other.start()
    time.sleep(1.5)
    second = fork(look)
    other.join()
    assert "'0'" in said["first"]
    assert second.splitlines() == ["111", "111", "[] ['ptmx'] -1", "2"]


def test_a_template_that_is_killed_is_replaced_and_ends_with_its_supervisor(fork, program):
    fork("pass")
    for one in list(warm._templates.values()):
        one.process.kill()
    assert fork("print('again')") == "again"
    code = (f"import sys, time\nfrom autograder.jobs import Limits\nfrom autograder.sandbox.processes import bubblewrap, warm\n"
            f"from autograder.sandbox.processes.process import Process\n"
            f"Process().run([sys.executable, '-s', '/opt/program.py'], {{'main.py': b'pass'}}, [*bubblewrap.python_paths(), "
            f"({str(program)!r}, '/opt/program.py')], Limits(), {{'PATH': '/usr/bin'}}, imports=[])\n"
            f"print(next(iter(warm._templates.values())).process.pid, flush=True)\ntime.sleep(60)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as parent:
        template = int(parent.stdout.readline())
        assert Path(f"/proc/{template}").exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{template}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{template}").exists()
