"""`python -m autograder check`: says whether this machine can isolate student code, how, and what falls short."""

import sys

from autograder.sandbox.base import SandboxUnavailable
from autograder.sandbox.process import Process


def check() -> int:
    sandbox = Process()
    try:
        sandbox.check()
    except SandboxUnavailable as lacking:
        print(f"no isolation: {lacking.reason}\nfix: {lacking.fix}")
        return 1
    print(f"sandbox {sandbox.name}: works")
    for what, how, full in sandbox.describe():
        print(f"{what}: {how}{'' if full else ' (falls short)'}")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] != ["check"]:
        print("usage: python -m autograder check", file=sys.stderr)
        sys.exit(2)
    sys.exit(check())
