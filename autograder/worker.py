"""One worker of the service, a process of its own: claims a job, runs it in a sandbox, writes down what came of it.

    python -m autograder.worker --state .state/autograder --name 1 [--quotas FILE] [--trainings N]

The service speaks to it over stdin, a line each: `look` (there is a new job), `cancel ID`. At the end of its input it gives its
job back and ends, so no worker outlives its service. bwrap ends with the thread that started it, so jobs run in the main thread.
"""

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from autograder import kinds, runner
from autograder.jobs import Job, Result, Verdict
from autograder.quotas import Quotas
from autograder.sandbox.base import SandboxUnavailable, Watch
from autograder.store import LEASE_SECONDS, Claim, Store

IDLE_SECONDS = 1.0                      # until an idle worker looks by itself, for what comes back from another
LOG_BYTES = 8 * 2**20                   # of one job's live log
log = logging.getLogger("autograder")


class Worker:
    """Takes one job after the other until its input ends."""

    def __init__(self, store: Store, name: str, quotas: Quotas, trainings: int) -> None:
        self.store, self.name, self.quotas, self.trainings = store, name, quotas, trainings
        self.news, self.ended, self.stop = threading.Event(), threading.Event(), threading.Event()
        self.claim: Claim | None = None

    def listen(self) -> None:
        for line in sys.stdin:
            word, _, id = line.strip().partition(" ")
            if word == "cancel" and self.claim and self.claim.id == id:
                self.stop.set()
            self.news.set()
        self.ended.set()
        self.stop.set()
        self.news.set()

    def work(self) -> None:
        while not self.ended.is_set():
            self.news.clear()
            try:
                if not self.one():
                    self.news.wait(IDLE_SECONDS)
            except Exception:                                           # a full disk, a locked file: the job is kept
                log.exception("worker %s failed; it goes on in a second", self.name)
                self.ended.wait(1)

    def one(self) -> bool:
        """Run one job, if there is any."""
        claim = self.store.claim(self.name, self.quotas, self.trainings)
        if claim is None:
            return False
        self.stop.clear()
        self.claim = claim
        if self.ended.is_set():
            self.stop.set()
        with self.held(claim), self.followed(claim) as watch:
            result, passing = carry_out(claim, watch)
        self.claim = None
        if self.ended.is_set() and result.verdict is Verdict.cancelled:
            self.store.give_back(claim)
        elif not (passing and self.store.retry(claim)):
            self.store.finish(claim, result)
        return True

    @contextlib.contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Renew the lease while the job runs; stop it when somebody cancelled it or another worker has it."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(LEASE_SECONDS / 4):
                with contextlib.suppress(Exception):                    # a busy disk: there are three more tries
                    if self.store.renew(claim):
                        self.stop.set()

        thread = threading.Thread(target=renew, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    @contextlib.contextmanager
    def followed(self, claim: Claim) -> Iterator[Watch]:
        """What the program writes goes into the job's log at once."""
        if claim.job.kind == "grade":
            yield Watch(stop=self.stop.is_set)
            return
        with open(os.open(self.store.log_file(claim.id), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0) as file:
            def hear(chunk: bytes) -> None:
                if file.tell() + len(chunk) <= LOG_BYTES:
                    file.write(chunk)

            def kept(files: dict[str, bytes]) -> None:
                self.store.keep(claim, files)
            yield Watch(hear, self.stop.is_set, kinds.GOES_ON_FROM.get(claim.job.kind, ()), kept)


def carry_out(claim: Claim, watch: Watch) -> tuple[Result, bool]:
    """Run one job. What goes wrong and is not the student's fault becomes an `infra` result; True when another try may help."""
    job, begun = claim.job, time.monotonic()
    try:
        result, passing = runner.run(job, claim.files, watch=watch, before=claim.before), True
    except runner.BadJob as error:
        result, passing = _fault(job, str(error)), False
    except SandboxUnavailable as error:
        result, passing = _fault(job, str(error)), True
    except Exception as error:
        log.exception("job %s", claim.id)
        result, passing = _fault(job, f"the autograder failed: {type(error).__name__}: {error}"), True
    log.info("%s %s: %s %s(%.2f s)", job.kind, claim.id[:12], result.verdict, result.sentence and result.sentence + " ",
             time.monotonic() - begun)
    return result, passing and result.verdict is Verdict.infra


def _fault(job: Job, sentence: str) -> Result:
    return Result(job=job.id, verdict=Verdict.infra, sentence=sentence, inputs=job.inputs)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m autograder.worker", description="Run jobs of an autograder service.")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--quotas", type=Path)
    parser.add_argument("--trainings", type=int, default=1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    worker = Worker(Store(options.state / "jobs.sqlite"), options.name, Quotas(options.quotas), options.trainings)
    threading.Thread(target=worker.listen, daemon=True).start()
    worker.work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
