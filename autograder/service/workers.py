"""The service's workers: started, told of new jobs, started again when one ends, and ended with the service."""

import contextlib
import logging
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

from autograder.service.store import Store

log = logging.getLogger("autograder")


def environment() -> dict[str, str]:
    """A worker's: ours without what opens the hub."""
    return {name: value for name, value in os.environ.items() if not name.startswith("JUPYTERHUB_")}


class Workers:
    """As many worker processes as asked for. At least one of them is left to short jobs: trainings take the others."""

    def __init__(self, store: Store, state: Path, quotas: Path | None, count: int) -> None:
        self.store, self.count, self.ending = store, count, False
        self.argv = [sys.executable, "-m", "autograder.service.worker", "--state", str(state), "--trainings", str(max(1, count - 1)),
                     *(["--quotas", str(quotas)] if quotas else [])]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.lock = threading.Lock()
        self.keepers = [threading.Thread(target=self._keep, args=(number,), name=f"keeper-{number}", daemon=True)
                        for number in range(count)]
        for keeper in self.keepers:
            keeper.start()

    def _keep(self, number: int) -> None:
        """Start a worker, wait for its end, start the next. What it held is queued again at once."""
        while not self.ending:
            name = uuid.uuid4().hex[:12]
            process = subprocess.Popen([*self.argv, "--name", name, "--core", str(number)], stdin=subprocess.PIPE, env=environment())
            with self.lock:
                self.processes[name] = process
            code = process.wait()
            with self.lock:
                del self.processes[name]
            if not self.ending:
                log.error("worker %s ended with code %s: its job is queued again, another worker is started", name, code)
                with contextlib.suppress(Exception):
                    self.store.worker_died(name)
                time.sleep(0.2)

    def tell(self, line: str) -> None:
        """Say `look` or `cancel ID` to all of them."""
        with self.lock:
            for process in self.processes.values():
                assert process.stdin
                with contextlib.suppress(OSError):
                    process.stdin.write(line.encode() + b"\n")
                    process.stdin.flush()

    def end(self, seconds: float = 10) -> None:
        """They give their jobs back and end."""
        self.ending = True
        with self.lock:
            for process in self.processes.values():
                assert process.stdin
                with contextlib.suppress(OSError):
                    process.stdin.close()
        for keeper in self.keepers:
            keeper.join(seconds)
