"""Runs inside a bubblewrap sandbox that holds no submission: imports once what programs need, then forks each from there.

    python -s template.py       started by warm.py with a socket as stdin

Standard library only, one thread, and nothing secret ever reaches it: it knows the program, the modules to import and sizes of
tmpfs, the same for everybody. Each fork gets process, mount, IPC, network and user namespaces of its own, empty work folders, a
/proc and pseudo terminals of its own, no capability and the system call filter, all before the program's first line. The fork
that is the init of its process namespace only waits for its children; the program is its child, as it is in bubblewrap.
"""

import ast
import base64
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import platform
import select
import signal
import socket
import struct
import sys
import types

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, BIND, MOVE, REC, PRIVATE, DETACH = 1, 2, 4, 8, 0x1000, 0x2000, 0x4000, 0x40000, 2
SET_DUMPABLE, SET_SECCOMP, CAPBSET_DROP, SET_NO_NEW_PRIVS, CAP_AMBIENT, AMBIENT_CLEAR_ALL = 4, 22, 24, 38, 47, 4
CAPABILITY_VERSION, LAST_CAPABILITY = 0x20080522, 63
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
CLONE = {"x86_64": 56, "aarch64": 220}
LARGEST = 1 << 16

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    """A function of the C library; raises OSError."""
    done = getattr(libc, name)(*(ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments))
    if done < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments[:3]}: {os.strerror(number)}")
    return done


def mount(kind, place, flags, options):
    call("mount", kind.encode(), place.encode(), kind.encode(), flags, options.encode())


def scratch(place, size):
    mount("tmpfs", place, NOSUID | NODEV, f"mode=1777,size={size * 2**20}")


def mount_around(place, paths, stage, size):
    """A new tmpfs at a place in which programs lie, as /tmp for a site below /tmp: made beside it, where they are shown again."""
    scratch(stage, size)
    for path in paths:
        target = stage + path.removeprefix(place)
        os.makedirs(target if os.path.isdir(path) else os.path.dirname(target), exist_ok=True)
        if not os.path.isdir(path):
            open(target, "x").close()
        call("mount", path.encode(), target.encode(), None, BIND | REC, None)
    call("umount2", place.encode(), DETACH)
    call("mount", stage.encode(), place.encode(), None, MOVE, None)


def isolate(start):
    """Namespaces of our own; this process is the first of its process namespace by now."""
    own = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)        # of the template's /proc, which we can still write to
    call("mount", None, b"/", None, REC | PRIVATE, None)
    kept = {place: [path for path in start["readonly"] if path.startswith(place + "/")] for place in start["tmpfs"]}
    for place in (*(place for place, paths in kept.items() if not paths), "/dev/pts"):
        call("umount2", place.encode(), DETACH)
    for place, paths in kept.items():
        if paths:
            mount_around(place, paths, start["work"], start["tmpfs"][place])
    mount("proc", start["work"], NOSUID | NODEV | NOEXEC | RDONLY, "")
    call("umount2", b"/proc", DETACH)                              # not before: the kernel grants a new one beside an old one only
    call("mount", start["work"].encode(), b"/proc", None, MOVE, None)
    for place, size in start["tmpfs"].items():
        if not kept[place]:
            scratch(place, size)
    mount("devpts", "/dev/pts", NOSUID | NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    os.chdir(start["work"])
    os.setsid()
    uid, gid = os.geteuid(), os.getegid()
    call("unshare", NEWUSER)                                       # below the one that owns our mounts: nothing can be undone
    for name, line in (("setgroups", "deny"), ("uid_map", f"{start['uid']} {uid} 1"), ("gid_map", f"{start['uid']} {gid} 1")):
        with open(os.open(name, os.O_WRONLY, dir_fd=own), "w") as file:
            file.write(line)
    os.close(own)


def give_up_rights(filtered):
    call("prctl", CAP_AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(LAST_CAPABILITY + 1):
        with contextlib.suppress(OSError):                         # more than this kernel knows
            call("prctl", CAPBSET_DROP, number, 0, 0, 0)
    call("capset", struct.pack("Ii", CAPABILITY_VERSION, 0), bytes(24))
    call("prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    code = ctypes.create_string_buffer(filtered, len(filtered))
    program = struct.pack("HxxxxxxP", len(filtered) // 8, ctypes.addressof(code))
    call("prctl", SET_SECCOMP, 2, program, 0, 0)


def program(code, start, streams):
    """The program's own process: its three streams, no other descriptor, and nothing of ours but what it imports."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1 << 16)
    main = types.ModuleType("__main__")
    main.__file__ = start["program"]
    sys.modules["__main__"], sys.argv = main, [start["program"], *start["arguments"]]
    ended = 1
    try:
        exec(code, vars(main))
        ended = 0
    except SystemExit as error:
        ended = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended)


def init(code, start, line, streams):
    """First process of the new namespaces: gets ready, waits for the word to start, and then for its children."""
    try:
        isolate(start)
        give_up_rights(base64.b64decode(start["filter"]))
        line.send(b"ready")
        if line.recv(16) != b"go":
            os._exit(0)
        line.close()
        child = os.fork()
        if child == 0:
            program(code, start, streams)
    except BaseException as error:
        with contextlib.suppress(OSError):
            line.send(f"failed: {error}".encode())
        os._exit(1)
    call("prctl", SET_DUMPABLE, 0, 0, 0, 0)                        # the program may not look into this one
    os.closerange(0, 1 << 16)
    while True:
        ended, status = os.wait()
        if ended == child:
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def fork_apart(flags):
    """os.fork() into new namespaces at once: a fork less than with unshare(), whose process namespace is for children only."""
    ctypes.pythonapi.PyOS_BeforeFork()
    try:
        pid = ctypes.PyDLL(None, use_errno=True).syscall(CLONE[platform.machine()], flags | signal.SIGCHLD, 0, 0, 0, 0)
    finally:
        ctypes.pythonapi.PyOS_AfterFork_Child() if pid == 0 else ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), f"clone: {os.strerror(ctypes.get_errno())}")
    return pid


class Sitter:
    """Starts inits, hands out a descriptor of each, and tells how each ended."""

    def __init__(self, code, start):
        self.code, self.start, self.sat = code, start, {}            # pidfd -> (pid, line)
        self.poll = select.poll()

    def seat(self, word, line, streams):
        try:
            wanted = {**self.start, **json.loads(word)}
            pid = fork_apart(NEWNS | NEWPID | NEWIPC | NEWNET)
            if pid == 0:
                init(self.code, wanted, line, streams)
            handle = os.pidfd_open(pid)
            self.sat[handle] = pid, line
            self.poll.register(handle, select.POLLIN)
            socket.send_fds(line, [b"init"], [handle])
        except OSError as error:
            with contextlib.suppress(OSError):
                line.send(f"failed: {error}".encode())
        for stream in streams:
            os.close(stream)

    def stand_up(self, handle):
        pid, line = self.sat.pop(handle)
        self.poll.unregister(handle)
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            # nothing in its namespace can kill an init: what the program's end was, an init that lives tells by its exit code
            line.send(b"killed %d" % os.WTERMSIG(status) if os.WIFSIGNALED(status) else b"ended %d" % os.WEXITSTATUS(status))
        line.close()
        os.close(handle)


def imported_by(text):
    """Names of the modules that a program imports at its top."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def main():
    control = socket.socket(fileno=os.dup(0))
    start = json.loads(control.recv(LARGEST))
    os.dup2(1, 0)                                                  # /dev/null, as 1 is
    sys.path[0] = os.path.dirname(start["program"])                # as if Python had been started with it
    with open(start["program"], "rb") as file:
        text = file.read()
    for name in (*imported_by(text), *start["imports"]):
        with contextlib.suppress(Exception):                       # the program meets the same, and says so
            importlib.import_module(name)
    sitter = Sitter(compile(text, start["program"], "exec"), start)
    sitter.poll.register(control, select.POLLIN)
    gc.collect()
    gc.freeze()                                                    # a collection in a fork would copy every page
    control.send(b"warm")
    while True:
        for ready, _ in sitter.poll.poll():
            if ready in sitter.sat:
                sitter.stand_up(ready)
                continue
            word, descriptors, *_ = socket.recv_fds(control, LARGEST, 4)
            if not word:
                return                                             # who started this one is gone: with us goes all that runs
            line, *streams = descriptors
            sitter.seat(word, socket.socket(fileno=line), streams)


if __name__ == "__main__":
    main()
