"""The idle culler, which ends when the hub does: a killed hub would otherwise leave one more behind at every start."""

import contextlib
import ctypes
import signal
import sys

from jupyterhub_idle_culler import main

PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Linux only; elsewhere an orphaned culler stays, asking with a token that the next hub refuses."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)       # the hub's way to end it; ignored where a shell started the hub
    end_with_parent()
    main()
