"""The first program in a container of the docker sandbox: imports what the next one needs, waits for it, runs it, once.

Given to Python as text (`python -s -c TEXT`), so that any image with Python will do. Standard library only. On stdin comes a line of
JSON ({"imports": [...]}), answered by a line on stdout; then another one ({"mark", "argv", "env", "work", "collect", "sizes", ...}),
where `sizes` are [path, mode, bytes] of files whose contents follow; then the program's own input. At the program's end a last
piece on stderr tells what the container knows: exit code, full disks, collected files. It could be forged by a program that
gets hold of this process; it says nothing that the program could not have brought about itself. A supervisor that is killed ends
nothing, so after `seconds`, where they are given, the container ends by itself, with the code 124.
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
    """The content of a regular file, or None."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_size <= room and os.path.realpath(path) == path:
                return file.read(room)
    return None


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


def run(wanted):
    """The program in this process: what is imported is there."""
    main = type(sys)("__main__")
    python_options, *rest = wanted["argv"][1:]
    if python_options == "-c":                      # not prepared for: the interpreter anew
        os.execvpe(wanted["argv"][0], wanted["argv"], wanted["env"])
    os.environ.clear()
    os.environ.update(wanted["env"])
    main.__file__, sys.argv, sys.path[0] = rest[0], rest, os.path.dirname(rest[0])
    sys.modules["__main__"] = main
    with open(rest[0], "rb") as file:
        code = compile(file.read(), rest[0], "exec")
    exec(code, vars(main))


def main():
    for name in line()["imports"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    dumpable = lambda yes: None
    with contextlib.suppress(Exception):
        import ctypes
        dumpable = lambda yes: ctypes.CDLL(None).prctl(4, yes, 0, 0, 0)
    os.write(1, b"\n")
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
    while True:
        ended, status = os.wait()
        if ended == child:
            break
    full, disk, room, files = False, 0, 32 * 2**20, {}
    for folder in wanted["disks"]:
        with contextlib.suppress(OSError):
            space = os.statvfs(folder)
            full = full or space.f_bavail == 0 or space.f_ffree == 0
            disk = max(disk, (space.f_blocks - space.f_bfree) * space.f_frsize)
    for name in wanted["collect"]:
        content = regular(os.path.join(wanted["work"], name), room)
        if content is not None:
            room -= len(content)
            files[name] = base64.b64encode(content).decode()
    code = 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    told = json.dumps({"code": code, "full": full, "used": disk, **used(), "files": files})
    told = wanted["mark"].encode() + told.encode() + b"\n"
    while told:
        told = told[os.write(2, told):]


main()
