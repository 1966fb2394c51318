"""A system call filter, as plain BPF bytes and as a profile for container engines.

It refuses what no course work needs and what past escapes from containers used.

Refused with EPERM: tracing other processes, keyrings, io_uring, userfaultfd, perf, bpf, mounting, namespaces, kernel
modules, clocks, raw I/O ports, limits of other processes, a choice of cores, and sockets of other families than unix, inet, inet6 and
netlink.
clone3 hides its flags behind a pointer, so it gets ENOSYS and libc falls back to clone, whose flags are read here. Calls of a foreign
architecture (32 bit, x32) end the process. Other machines than the two below get no filter, and `check` says so.
"""

import errno
import functools
import json
import platform
import struct
from typing import Any

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}          # AUDIT_ARCH_*, column below
CALLS = {                                                                         # name: (x86_64, aarch64)
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "pidfd_getfd": (438, 438), "kcmp": (312, 272), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "bpf": (321, 280),
    "memfd_secret": (447, 447), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "unshare": (272, 97), "setns": (308, 268), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "syslog": (103, 116), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "fanotify_init": (300, 262), "iopl": (172, None), "ioperm": (173, None),
    "modify_ldt": (154, None), "uselib": (134, None), "nfsservctl": (180, 42), "lookup_dcookie": (212, 18),
    "vhangup": (153, 58), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "settimeofday": (164, 170),
    "adjtimex": (159, 171), "sched_setaffinity": (203, 122),
}
CLONE, CLONE3, SOCKET, PRLIMIT = (56, 220), (435, 435), (41, 198), (302, 261)
FAMILIES = (1, 2, 10, 16)                                                         # unix, inet, inet6, netlink
CLONE_NEW = 0x7E020080                                                            # every CLONE_NEW* flag, time included
X32 = 0x40000000

LOAD, JUMP_EQ, JUMP_GE, JUMP_SET, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
KILL, ALLOW, REFUSE = 0x80000000, 0x7FFF0000, 0x00050000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16                                   # offsets in struct seccomp_data


def program(machine: str = platform.machine()) -> bytes:
    """The filter for `bwrap --seccomp`, one 8-byte instruction after the other; empty for an unknown machine."""
    if machine not in ARCHITECTURES:
        return b""
    architecture, column = ARCHITECTURES[machine]
    # Each entry: code, value, jump if true, jump if false (both counted from the next instruction).
    lines = [(LOAD, ARCHITECTURE, 0, 0), (JUMP_EQ, architecture, 1, 0), (RETURN, KILL, 0, 0), (LOAD, NUMBER, 0, 0)]
    if machine == "x86_64":
        lines += [(JUMP_GE, X32, 0, 1), (RETURN, KILL, 0, 0)]
    for numbers in CALLS.values():
        if (number := numbers[column]) is not None:
            lines += [(JUMP_EQ, number, 0, 1), (RETURN, REFUSE | errno.EPERM, 0, 0)]
    lines += [(JUMP_EQ, CLONE3[column], 0, 1), (RETURN, REFUSE | errno.ENOSYS, 0, 0)]
    lines += [(JUMP_EQ, CLONE[column], 0, 4), (LOAD, FIRST_ARGUMENT, 0, 0), (JUMP_SET, CLONE_NEW, 0, 1),
              (RETURN, REFUSE | errno.EPERM, 0, 0), (RETURN, ALLOW, 0, 0)]
    lines += [(JUMP_EQ, PRLIMIT[column], 0, 4), (LOAD, FIRST_ARGUMENT, 0, 0), (JUMP_EQ, 0, 1, 0),         # 0: its own
              (RETURN, REFUSE | errno.EPERM, 0, 0), (RETURN, ALLOW, 0, 0)]
    lines += [(JUMP_EQ, SOCKET[column], 0, len(FAMILIES) + 2), (LOAD, FIRST_ARGUMENT, 0, 0)]
    lines += [(JUMP_EQ, family, len(FAMILIES) - place, 0) for place, family in enumerate(FAMILIES)]
    lines += [(RETURN, REFUSE | errno.EPERM, 0, 0), (RETURN, ALLOW, 0, 0)]
    return b"".join(struct.pack("=HBBI", code, true, false, value) for code, value, true, false in lines)


@functools.cache
def profile(machine: str = platform.machine()) -> str:
    """The same filter as JSON, for `docker run --security-opt seccomp=` and for a kubelet's folder of profiles; empty for an unknown
    machine."""
    if machine not in ARCHITECTURES:
        return ""
    column = ARCHITECTURES[machine][1]

    def refuse(names: list[str], number: int = errno.EPERM, *arguments: dict[str, Any]) -> dict[str, Any]:
        return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, "args": list(arguments)}
    flags = [1 << bit for bit in range(32) if CLONE_NEW >> bit & 1]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        refuse([name for name, numbers in CALLS.items() if numbers[column] is not None]), refuse(["clone3"], errno.ENOSYS),
        *(refuse(["clone"], errno.EPERM, {"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}) for flag in flags),
        refuse(["prlimit64"], errno.EPERM, {"index": 0, "value": 0, "op": "SCMP_CMP_NE"}),
        *(refuse(["socket"], errno.EPERM, {"index": 0, "value": family, "op": "SCMP_CMP_EQ"}) for family in range(64)
          if family not in FAMILIES)]})
