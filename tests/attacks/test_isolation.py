"""What a hostile program in the sandbox can see, reach and change: nothing but its own work folder."""

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from autograder.jobs import Limits, Verdict
from autograder.sandbox.processes import bubblewrap, cgroup
from tests.attacks.processes import alive, gone


def said(outcome):
    assert outcome.verdict is Verdict.ok, outcome
    return outcome.stdout.decode().strip()


def test_no_network_not_even_to_this_machine(python):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
        name = f"\0listener-{secrets.token_hex(8)}"
        abstract.bind(name)
        abstract.listen()
        socket.create_connection(listener.getsockname(), timeout=2).close()              # the listener itself works
        code = textwrap.dedent(f"""
            import socket
            for family, address in [(socket.AF_INET, {listener.getsockname()!r}), (socket.AF_UNIX, {name!r})]:
                try:
                    socket.socket(family).connect(address); print('reached')
                except OSError as error: print(error.errno)
            print(sorted(name for _, name in socket.if_nameindex()))
        """)
        *reached, interfaces = said(python(code)).splitlines()
    assert reached == ["111", "111"]                                                    # connection refused
    assert interfaces == "['lo']"


def test_gradebook_other_students_and_the_repository_are_invisible(python, tmp_path):
    secret = secrets.token_hex(16)
    gradebook = tmp_path / "gradebook.db"
    gradebook.write_text(secret)
    code = textwrap.dedent(f"""
        import os
        for path in {[str(gradebook), str(Path(__file__)), '/etc/shadow', '/var', '/run', '/sys', '/boot']!r}:
            try: os.stat(path); print('visible', path)
            except OSError: pass
        found = []
        system = ('/proc', '/usr', {sys.base_prefix!r}, {sys.prefix!r})
        for folder, folders, names in os.walk('/'):
            folders[:] = [name for name in folders if os.path.join(folder, name) not in system]
            found += [os.path.join(folder, name) for name in names]
        print(found)
    """)
    lines = said(python(code, files={"own.txt": b""}, output_kb=2**20)).splitlines()
    if python.kind == "docker":                          # it has the image's own /etc and /var; nobody else's
        assert not any(line.startswith("visible") and line.split()[1] in (str(gradebook), str(Path(__file__))) for line in lines)
    else:
        assert len(lines) == 1, lines
    assert "/job/own.txt" in lines[-1]
    assert str(tmp_path) not in lines[-1]


def test_nothing_of_our_environment_and_no_descriptor_gets_in(python, monkeypatch):
    secret = secrets.token_hex(16)
    monkeypatch.setenv("AUTOGRADER_TOKEN", secret)
    read, write = os.pipe()
    os.set_inheritable(write, True)
    code = textwrap.dedent("""
        import glob, os
        for path in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
            try: print(open(path).read())
            except OSError: pass
        print(sorted(os.environ), [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if int(fd) > 2 and
                                   os.path.exists(f'/proc/self/fd/{fd}')])
    """)
    out = said(python(code, env={"GIVEN": "1"}))
    os.close(read)
    os.close(write)
    assert secret not in out
    own = ["HOME", "HOSTNAME"] if python.kind == "docker" else ["PWD"]
    assert out.splitlines()[-1] in (f"{sorted([*own, 'GIVEN', 'LC_CTYPE', 'PATH'])} []", "['GIVEN', 'LC_CTYPE', 'PATH'] []")


def test_variables_that_act_on_bwrap_itself_are_refused(python):
    with pytest.raises(ValueError, match="LD_PRELOAD"):
        python("pass", env={"LD_PRELOAD": "/job/evil.so"})
    with pytest.raises(ValueError, match="LD_LIBRARY_PATH"):
        bubblewrap.command(["true"], env={"LD_LIBRARY_PATH": "/job"})


def test_an_unprivileged_user_without_capabilities(python):
    code = "print(open('/proc/self/status').read())\nimport os; print(os.getresuid(), os.getresgid(), os.getgroups())"
    out = said(python(code))
    for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in out
    assert out.splitlines()[-1] in (f"{(60902,) * 3} {(60902,) * 3} {groups}" for groups in ([], [60902], [65534], [60902, 65534]))


def test_nothing_is_writable_but_three_folders_of_limited_size(python):
    code = textwrap.dedent(f"""
        import os
        for folder in ['/', '/etc', '/usr', '/usr/lib', '/dev', '/proc', '/opt', '/var/tmp', '/run', '/proc/self', {sys.prefix!r}]:
            try: open(os.path.join(folder, 'x'), 'w'); print('writable', folder)
            except OSError: pass
        for path in ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/self/oom_score_adj', '/proc/sysrq-trigger',
                     '/proc/1/oom_score_adj', '/proc/self/uid_map']:
            try: open(path, 'w').write('1'); print('writable', path)
            except OSError: pass
        for line in open('/proc/self/mounts'):
            _, place, kind, options, *_ = line.split()
            if 'rw' in options.split(',') and not (place.startswith('/dev/') and kind in ('devtmpfs', 'devpts')): print(place, kind)
    """)
    listed = sorted(said(python(code, disk_mb=10)).splitlines())
    if python.kind == "docker":                          # mounted for writing, but root's; of /proc only what is about the process itself
        harmless = r"(/dev|/dev/mqueue|/sys/fs/cgroup|/proc(/.*)?) \w+|writable /proc/(self|1)/(oom_score_adj|uid_map)"
        listed = [line for line in listed if not re.fullmatch(harmless, line)]
    assert listed == ["/dev/shm tmpfs", "/job tmpfs", "/tmp tmpfs"]


CALLS = {                                                    # what past escapes used; numbers of x86_64 and aarch64
    "ptrace": (101, 117, "0, 0, 0, 0"), "unshare": (272, 97, "0x10000000"), "keyctl": (250, 219, "0, -3, 0"),
    "io_uring_setup": (425, 425, "8, 0"), "bpf": (321, 280, "0, 0, 0"), "mount": (165, 40, "0, 0, 0, 0, 0"),
    "userfaultfd": (323, 282, "0"), "perf_event_open": (298, 241, "0, 0, 0, 0, 0"), "setns": (308, 268, "0, 0"),
    "clone of a user namespace": (56, 220, "0x10000011, 0, 0, 0, 0"), "process_vm_readv": (310, 270, "1, 0, 0, 0, 0, 0"),
    "sched_setaffinity": (203, 122, "0, 8, 0"),
    "packet socket": (41, 198, "17, 3, 0"), "vsock socket": (41, 198, "40, 1, 0"), "crypto socket": (41, 198, "38, 5, 0"),
}


@pytest.mark.parametrize("name", CALLS)
def test_dangerous_system_calls_are_refused(python, name):
    x86, arm, arguments = CALLS[name]
    number = {"x86_64": x86, "aarch64": arm}.get(os.uname().machine)
    if number is None:
        pytest.skip("no system call filter for this kind of machine")
    out = said(python(f"import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
                      f"print(libc.syscall({number}, {arguments}), ctypes.get_errno())"))
    assert out == "-1 1"                                     # EPERM


def test_threads_and_children_still_work(python):
    out = said(python("import subprocess, threading\nt = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
                      "print(subprocess.run(['echo', 'child'], capture_output=True, text=True).stdout)"))
    assert out == "thread\nchild"


def test_processes_of_the_machine_are_invisible_and_the_init_cannot_be_killed(python):
    out = said(python("import os\nprint(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))\n"
                      "os.kill(1, 9); os.kill(1, 15); print('alive')"))
    assert re.fullmatch(r"\[1, \d+\]\nalive", out)


def test_links_pipes_and_folders_are_not_collected(python, tmp_path):
    (tmp_path / "secret").write_text("secret")
    outcome = python(f"import os\nos.symlink({str(tmp_path / 'secret')!r}, 'link')\nos.symlink('/etc/passwd', 'inside')\n"
                     "os.mkfifo('pipe')\nos.mkdir('folder')\nos.symlink('/etc', 'up')\nopen('big', 'wb').truncate(40 << 20)",
                     collect=["link", "inside", "pipe", "folder", "up/passwd", "big", "../etc/passwd", "absent"], disk_mb=64)
    assert outcome.files == {}


def test_the_sandbox_ends_when_its_supervisor_is_killed(sandbox, tmp_path):
    word = f"inside-{secrets.token_hex(8)}"
    code = ("import sys\nfrom autograder.jobs import Limits\nfrom autograder.sandbox.processes import bubblewrap\n"
            "from autograder.sandbox.processes.process import Process\n"
            f"Process().run([sys.executable, '-c', 'import time; time.sleep(600)', {word!r}], {{}}, bubblewrap.python_paths(),"
            " Limits(), {'PATH': '/usr/bin'})")
    supervisor = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 30
        while len(alive(word)) < 4 and time.monotonic() < deadline:                      # supervisor, bwrap, its init, the program
            time.sleep(0.02)
        assert len(alive(word)) == 4
    finally:
        supervisor.send_signal(signal.SIGKILL)
        supervisor.wait()
    assert gone(word)
    cgroup._sweep.cache_clear()                              # as in a process that is new
    sandbox.run(["/bin/true"], {}, [], Limits(), {})
    assert list(cgroup.ROOT.glob(f"**/sandbox-{supervisor.pid}-*")) == []


def test_nothing_of_one_run_is_left_for_the_next(python):
    places = ["/job/x", "/tmp/x", "/dev/shm/x"]
    said(python(f"for path in {places}: open(path, 'w').write('left')"))
    assert said(python(f"import os; print([path for path in {places} if os.path.exists(path)])")) == "[]"
