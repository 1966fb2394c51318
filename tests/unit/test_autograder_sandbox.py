"""Parts of the sandbox that need no sandbox: the system call filter, the command line, what control groups say."""

import errno
import re
import struct
from pathlib import Path

import pytest

from autograder.jobs import Limits
from autograder.sandbox import seccomp
from autograder.sandbox.processes import bubblewrap, cgroup

HEADERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
ALLOW, KILL = seccomp.ALLOW, seccomp.KILL


def decide(machine, number, argument=0, architecture=None):
    """Run the filter as the kernel does: one accumulator, forward jumps."""
    code = [struct.unpack("=HBBI", instruction) for instruction in zip(*[iter(seccomp.program(machine))] * 8, strict=True)
            for instruction in [bytes(instruction)]]
    data = {0: number, 4: seccomp.ARCHITECTURES[machine][0] if architecture is None else architecture, 16: argument}
    accumulator = at = 0
    while True:
        operation, true, false, value = code[at]
        at += 1
        if operation == seccomp.LOAD:
            accumulator = data[value]
        elif operation == seccomp.RETURN:
            return value
        else:
            met = {seccomp.JUMP_EQ: accumulator == value, seccomp.JUMP_GE: accumulator >= value,
                   seccomp.JUMP_SET: accumulator & value != 0}[operation]
            at += true if met else false


@pytest.mark.parametrize("machine", HEADERS)
class TestFilter:
    def test_listed_calls_are_refused_and_the_rest_allowed(self, machine):
        column = seccomp.ARCHITECTURES[machine][1]
        refused = {numbers[column] for numbers in seccomp.CALLS.values() if numbers[column] is not None}
        special = {seccomp.CLONE[column], seccomp.CLONE3[column], seccomp.SOCKET[column]}
        for number in set(range(500)) - special:
            assert decide(machine, number) == (seccomp.REFUSE | errno.EPERM if number in refused else ALLOW), number

    def test_clone_may_start_threads_and_processes_but_no_namespace(self, machine):
        clone, clone3 = (calls[seccomp.ARCHITECTURES[machine][1]] for calls in (seccomp.CLONE, seccomp.CLONE3))
        assert decide(machine, clone, 17) == decide(machine, clone, 0x3D0F00) == ALLOW              # fork, pthread_create
        for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
            assert decide(machine, clone, flag | 17) == seccomp.REFUSE | errno.EPERM
        assert decide(machine, clone3) == seccomp.REFUSE | errno.ENOSYS

    def test_sockets_of_four_families_only(self, machine):
        socket = seccomp.SOCKET[seccomp.ARCHITECTURES[machine][1]]
        assert [family for family in range(50) if decide(machine, socket, family) == ALLOW] == [1, 2, 10, 16]

    def test_a_process_sets_its_own_limits_only(self, machine):
        prlimit = seccomp.PRLIMIT[seccomp.ARCHITECTURES[machine][1]]
        assert decide(machine, prlimit, 0) == ALLOW
        assert {decide(machine, prlimit, pid) for pid in (1, 2, 4242, 0xFFFFFFFF)} == {seccomp.REFUSE | errno.EPERM}

    def test_foreign_architectures_end_the_process(self, machine):
        assert decide(machine, 1, architecture=0x40000003) == KILL
        if machine == "x86_64":
            assert decide(machine, 0x40000000 | 101) == KILL

    def test_numbers_are_those_of_the_kernel(self, machine):
        header = Path(HEADERS[machine])
        if not header.exists():
            pytest.skip(f"{header} is not installed (linux-libc-dev)")
        kernel = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())}
        column = seccomp.ARCHITECTURES[machine][1]
        named = {**seccomp.CALLS, "clone": seccomp.CLONE, "clone3": seccomp.CLONE3, "socket": seccomp.SOCKET, "prlimit64": seccomp.PRLIMIT}
        assert {name: numbers[column] for name, numbers in named.items()} == {name: kernel.get(name) for name in named}


def test_other_machines_get_no_filter():
    assert seccomp.program("riscv64") == b""


def test_the_command_line_holds_no_value_of_the_environment(monkeypatch):
    monkeypatch.setattr(bubblewrap, "find", lambda: "/usr/bin/bwrap")
    words = bubblewrap.command(["python3", "-c", "pass"], env={"TOKEN": "value-of-token"}, readonly=[("/a", "/b")], network=True)
    assert "value-of-token" not in " ".join(words)
    assert words[0] == "/usr/bin/bwrap"
    assert words[-4:] == ["--", "python3", "-c", "pass"]


def test_isolation_is_never_left_out():
    for network in (False, True):
        words = bubblewrap.options(network=network)
        for option in ("--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent"):
            assert option in words
        assert ("--share-net" in words) == network
        assert words[words.index("--cap-drop") + 1] == "ALL"
    assert "--die-with-parent" not in bubblewrap.options(die_with_parent=False)


def test_a_folder_is_mounted_before_what_lies_below_it():
    words = bubblewrap.options(readonly=[("/x", "/tmp/a/b"), ("/y", "/home-like")], writable=[("/z", "/home")], tmpfs={"/home/s": 3})
    order = [words.index(path) for path in ("/tmp", "/tmp/a/b")] + [words.index(path) for path in ("/home", "/home/s")]
    assert order[0] < order[1]
    assert order[2] < order[3]
    assert words[words.index("/home/s") - 2] == str(3 * 2**20)


def test_version_2_groups_are_limited_and_read(tmp_path):
    """The files are those that the kernel documents for version 2; the test machine may have version 1 only."""
    for name in ("memory.max", "memory.swap.max", "pids.max"):
        (tmp_path / name).write_text("max")
    group = cgroup.Version2({"memory": tmp_path})
    group.limit(Limits(memory_mb=100, pids=20))
    assert [(tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")] == [str(100 << 20), "0", "21"]
    (tmp_path / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n")
    (tmp_path / "memory.current").write_text(str(30 << 20))
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    assert group.read() == cgroup.Reading(1.5, 30.0, False, False, False)
    (tmp_path / "memory.peak").write_text(str(99 << 20))
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 2\n")
    (tmp_path / "pids.events").write_text("max 3\n")
    assert group.read() == cgroup.Reading(1.5, 99.0, True, False, True)
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 0\noom 0\noom_kill 1\n")    # another's limit, or the machine's
    assert group.read() == cgroup.Reading(1.5, 99.0, False, True, True)


@pytest.mark.parametrize(("said", "fix"), [("bwrap: Unknown option --size", "0.8 or newer"), ("bwrap: No permissions", "")])
def test_what_bwrap_says_leads_to_a_fix(said, fix):
    assert fix in bubblewrap._fix(said)
    assert bubblewrap._fix(said)
