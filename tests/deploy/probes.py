"""What a hostile student tries from inside of a container. Run there by test_docker_isolation.py; prints what succeeded, as JSON.

    python probes.py '{"addresses": {"name": ["10.0.0.2", 80]}, ...}'

Standard library only. The same program runs in a container that nothing is refused to: a probe that fails there proves nothing.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER = 0x10000000
MS_BIND = 4096


def worked(probe, *arguments):
    """Whether it succeeded: an exception or a falsy answer is a refusal."""
    try:
        return bool(probe(*arguments))
    except (OSError, subprocess.SubprocessError, ValueError):
        return False


def connects(host, port):
    with socket.create_connection((host, port), timeout=3):
        return True


def engine():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("/var/run/docker.sock")
        connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        return b"200" in connection.recv(64)


def raw(family, kind, protocol):
    socket.socket(family, kind, protocol).close()
    return True


def mounts():
    Path("/tmp/mounted").mkdir(exist_ok=True)
    done = libc.mount(b"none", b"/tmp/mounted", b"tmpfs", 0, None) == 0
    if done:
        libc.umount(b"/tmp/mounted")
    return done


def makes_device():
    Path("/tmp/disk").unlink(missing_ok=True)
    os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0))
    return True


def becomes_root():
    """In a process of its own, since it would stay root."""
    done = subprocess.run([sys.executable, "-c", "import os; os.setuid(0); print(os.getuid())"], capture_output=True, text=True)
    return done.stdout.strip() == "0"


def program_of_root():
    """A program of root with the setuid bit: `su` says who it thinks it is by what it can read."""
    done = subprocess.run([sys.executable, "-c", "import os; os.execv('/bin/su', ['su', '-c', 'id -u', 'root'])"],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10)
    return done.stdout.strip() == "0"


def user_namespace():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.unshare(CLONE_NEWUSER) == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def writes(path):
    probe = Path(path) / "probe"
    probe.write_text("x")
    probe.unlink()
    return True


def opens(path):
    os.close(os.open(path, os.O_WRONLY))
    return True


def replaces_socket(folder):
    """A link in place of the socket on which the site looks for this server."""
    there = Path(folder) / "server.sock"
    there.unlink(missing_ok=True)
    there.symlink_to(f"{folder}/door.sock")
    return there.is_symlink()


def renames_socket(folder):
    os.rename(f"{folder}/door.sock", f"{folder}/moved.sock")
    return True


def main():
    asked = json.loads(sys.argv[1])
    found = {f"reaches {name}": worked(connects, *address) for name, address in asked["addresses"].items()}
    found |= {
        "engine": worked(engine), "raw ICMP": worked(raw, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
        "raw frames": worked(raw, socket.AF_PACKET, socket.SOCK_RAW, 0), "mounts": worked(mounts), "makes a device": worked(makes_device),
        "becomes root": worked(becomes_root), "runs a program of root": worked(program_of_root), "user namespace": worked(user_namespace),
        "kernel settings": worked(opens, "/proc/sys/kernel/hostname"), "cgroup": worked(makes_group),
        "replaces its socket": worked(replaces_socket, "/run/tinytorch"), "renames the door": worked(renames_socket, "/run/tinytorch"),
        **{f"writes {path}": worked(writes, path) for path in ("/", "/usr", "/etc", "/opt/settings", "/opt/tinytorch", "/run/tinytorch")}}
    print(json.dumps(found))


def makes_group():
    """A control group of its own, out of the limits of its container."""
    for root in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup"):
        if os.access(root, os.W_OK):
            os.mkdir(f"{root}/probe")
            os.rmdir(f"{root}/probe")
            return True
    return False


if __name__ == "__main__":
    main()
