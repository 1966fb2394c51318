"""The first program in a container of the docker sandbox: imports what the next one needs, waits for it, runs it, once.

Given to Python as text (`python -s -c TEXT`), so that any image with Python will do. Standard library only. On stdin comes a line of
JSON ({"imports": [...]}), answered by a line on stdout, which tells the versions of "packages" that were asked for; then another one
({"mark", "argv", "env", "work", "collect", "sizes", ...}), where `sizes` are [path, mode, bytes] of files whose contents follow; then
the program's own input. At the program's end a last piece on stderr tells what the container knows: exit code, full disks, collected
files; one on stdout, that nothing follows there. They could be forged by a program that gets hold of this process; they say nothing
that the program could not have brought about itself. While the program runs, the files named in `keep` are said on stderr whenever
they have changed (aside.py takes all of it apart).
A supervisor that is killed ends nothing, so after `seconds`, where they are given, the container ends by itself, with the code 124.
"""

import base64
import contextlib
import importlib
import json
import os
import resource
import signal
import stat
import sys
import time

LARGEST, PIECE = 32 * 2**20, 3000       # bytes of all files that are said; of one piece, which is less than PIPE_BUF in base64, too
LOOK_SECONDS = 0.1                      # between two looks whether a program with such files has ended


def take(size):
    parts = []
    while size:
        part = os.read(0, min(size, 1 << 20))
        if not part:
            os._exit(75)                            # EX_TEMPFAIL: nobody needs this container any more, nothing has run
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def line():
    said = b""
    while not said.endswith(b"\n"):
        said += take(1)
    return json.loads(said)


def regular(path, room):
    """A regular file, opened, or None."""
    with contextlib.suppress(OSError):
        file = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")       # noqa: SIM115  for who called
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_size <= room and os.path.realpath(path) == path:
            return file
        file.close()
    return None


class Keeper:
    """Says what the program can go on from, a piece at a time that a pipe takes whole, so that nothing of the program's gets in between."""

    def __init__(self, wanted):
        self.mark, self.work, self.paths = wanted["mark"].encode(), wanted["work"], wanted.get("keep", [])
        self.every, self.next, self.state = wanted.get("keep_seconds", 3), 0.0, None

    def look(self):
        if time.monotonic() < self.next:
            return
        self.next = time.monotonic() + self.every
        state = []
        for path in self.paths:
            with contextlib.suppress(OSError):
                status = os.lstat(os.path.join(self.work, path))
                state.append((path, status.st_ino, status.st_size, status.st_mtime_ns))
        if not state or state == self.state:
            return
        self.state, room = state, LARGEST
        for path, *_ in state:
            if file := regular(os.path.join(self.work, path), room):
                with file:
                    self.say(b"f" + path.encode())
                    while room > 0 and (piece := file.read(PIECE)):
                        room -= len(piece)
                        self.say(b"d" + base64.b64encode(piece))
        self.say(b"e")
        self.next += (LARGEST - room) / 2**20       # a megabyte a second at most

    def say(self, line):
        os.write(2, self.mark + line + b"\n")


def used():
    """What the control group of the container knows (version 1 or 2): CPU seconds, most memory in bytes, forks refused."""
    def number(path, key=""):
        with contextlib.suppress(OSError, ValueError, StopIteration), open("/sys/fs/cgroup/" + path) as file:
            return next(int(text.split()[-1]) for text in file if text.startswith(key))
        return 0
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = number("cpuacct/cpuacct.usage") / 1e9 or number("cpu.stat", "usage_usec") / 1e6 or own.ru_utime + own.ru_stime
    memory = number("memory/memory.max_usage_in_bytes") or number("memory.peak") or own.ru_maxrss * 1024
    return {"cpu": cpu, "memory": memory, "refused": number("pids/pids.events", "max") or number("pids.events", "max")}


def versions(packages):
    """Of Python and these packages, by what their installation has left on the search path."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                package, _, version = name.removesuffix(".dist-info").rpartition("-")
                if name.endswith(".dist-info") and package.lower() in map(str.lower, packages):
                    found.setdefault(next(one for one in packages if one.lower() == package.lower()), version)
    return found


def run(wanted):
    """The program in this process: what is imported is there."""
    main = type(sys)("__main__")
    options, program = set(), wanted["argv"][1:]
    while program[0] in ("-s", "-P"):
        options.add(program.pop(0))
    if program[0].startswith("-"):                  # not prepared for: the interpreter anew
        os.execvpe(wanted["argv"][0], wanted["argv"], wanted["env"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    main.__file__, sys.argv = program[0], program
    sys.path[:1] = [] if "-P" in options else [os.path.dirname(program[0])]
    sys.modules["__main__"] = main
    with open(program[0], "rb") as file:
        code = compile(file.read(), program[0], "exec")
    exec(code, vars(main))


def main():
    asked = line()
    for name in asked["imports"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    dumpable = lambda yes: None
    with contextlib.suppress(Exception):
        import ctypes
        dumpable = lambda yes: ctypes.CDLL(None).prctl(4, yes, 0, 0, 0)
    os.write(1, json.dumps(versions(asked["packages"])).encode() + b"\n" if "packages" in asked else b"\n")
    wanted = line()
    for path, mode, size in wanted["sizes"]:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(take(size))
        os.chmod(path, mode)
    os.chdir(wanted["work"])
    dumpable(0)                                     # the program may not look into this one, not even in its first moment
    child = os.fork()
    if child == 0:
        ended = 1
        try:
            dumpable(1)
            os.setsid()
            run(wanted)
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)    # for the first process: ignored, like all that it handles by default
    signal.signal(signal.SIGALRM, lambda *_: os._exit(124))
    signal.setitimer(signal.ITIMER_REAL, wanted.get("seconds", 0))
    keeper, ended = Keeper(wanted), 0
    while ended != child:
        ended, status = os.waitpid(-1, os.WNOHANG if keeper.paths else 0)
        if not ended:
            with contextlib.suppress(OSError):      # of a file that is just being written: the next time
                keeper.look()
            time.sleep(LOOK_SECONDS)
    full, disk, room, files = False, 0, LARGEST, {}
    for folder in wanted["disks"]:
        with contextlib.suppress(OSError):
            space = os.statvfs(folder)
            full = full or space.f_bavail == 0 or space.f_ffree == 0
            disk = max(disk, (space.f_blocks - space.f_bfree) * space.f_frsize)
    for name in wanted["collect"]:
        if file := regular(os.path.join(wanted["work"], name), room):
            with file:
                content = file.read(room)
            room -= len(content)
            files[name] = base64.b64encode(content).decode()
    code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    told = json.dumps({"code": code, "full": full, "used": disk, **used(), "files": files})
    mark = wanted["mark"].encode()
    told = mark + told.encode() + b"\n"
    os.write(1, mark + b"\n")                       # shorter than PIPE_BUF: whole
    while told:
        told = told[os.write(2, told):]


main()
