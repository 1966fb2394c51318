"""One worker of the service, a process of its own: claims a job, runs it in a sandbox, writes down what came of it.

    python -m autograder.service.worker --state .state/autograder --name 1 [--quotas FILE] [--trainings N]

It runs one job at a time, on a core of its own as long as there are enough: what a training or a profile measures is not what others
do. The service speaks to it over stdin, a line each: `look` (there is a new job), `cancel ID`. At the end of its input it gives its
job back and ends, so no worker outlives its service. bwrap ends with the thread that started it, so jobs run in the main thread.
"""

import argparse
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from autograder import kinds, runner
from autograder.jobs import Job, Result, Verdict
from autograder.quotas import Quotas
from autograder.sandbox import choice
from autograder.sandbox.base import SandboxUnavailable, Watch
from autograder.service import database
from autograder.service.database import Unavailable
from autograder.service.store import LEASE_SECONDS, Claim, Store, opened

IDLE_SECONDS = 1.0                      # until an idle worker looks by itself, for what comes back from another
LOG_BYTES = 8 * 2**20                   # of one job's live log
RENEW_SECONDS = LEASE_SECONDS / 4
AWAY_SECONDS = 60.0                     # until a worker says itself that its database is away: the service has said it at once
T = TypeVar("T")
log = logging.getLogger("autograder")


class Worker:
    """Takes one job after the other until its input ends."""

    store: Store

    def __init__(self, open_store: Callable[[], Store], name: str, quotas: Quotas, trainings: int) -> None:
        self.open_store, self.name, self.quotas, self.trainings = open_store, name, quotas, trainings
        self.news, self.ended, self.stop = threading.Event(), threading.Event(), threading.Event()
        self.claim: Claim | None = None
        self.lacking = ""                                               # why nothing can be run now

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
        if (store := self.insist(self.open_store)) is None:
            return
        self.store = store
        while not self.ended.is_set():
            self.news.clear()
            try:
                if not self.one():
                    self.news.wait(IDLE_SECONDS)
            except Unavailable:
                self.insist(self.store.count, waited=True)
            except Exception:                                           # a full disk, a locked file: the job is kept
                log.exception("worker %s failed; it goes on in a second", self.name)
                self.ended.wait(1)

    def insist(self, do: Callable[[], T], waited: bool = False) -> T | None:
        """What has to be done once the database is there again, however long that takes; None when the worker ends meanwhile."""
        begun, said = time.monotonic(), False
        while True:
            try:
                done = do()
                if waited:
                    self.ended.wait(RENEW_SECONDS + 1)                  # others renew the leases of what they still run, before we claim
                return done
            except Unavailable as lost:
                waited = True
                if not said and time.monotonic() - begun > AWAY_SECONDS:
                    log.warning("worker %s has been waiting for %.0f s: %s", self.name, AWAY_SECONDS, lost)
                    said = True
                if self.ended.wait(database.AGAIN_SECONDS):
                    return None

    def one(self) -> bool:
        """Run one job, if there is any. While nothing can be isolated here the jobs wait, none is tried in vain."""
        if not self.isolates():
            return False
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
            self.insist(lambda: self.store.give_back(claim))
        elif (self.insist(lambda: self.store.retry(claim)) if passing else False) is False:     # None: nobody knows, the lease ends it
            self.insist(lambda: self.store.finish(claim, result))
        return True

    def isolates(self) -> bool:
        try:
            choice.sandbox().check()
        except SandboxUnavailable as error:
            if self.lacking != (lacking := str(error)):
                log.error("jobs wait: %s", lacking)
            self.lacking = lacking
            return False
        if self.lacking:
            log.info("jobs are run again")
        self.lacking = ""
        return True

    @contextlib.contextmanager
    def held(self, claim: Claim) -> Iterator[None]:
        """Renew the lease while the job runs; stop it when somebody cancelled it or another worker has it."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(RENEW_SECONDS):
                with contextlib.suppress(Exception):                    # a busy disk, a database away: there are three more tries
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
                with contextlib.suppress(Unavailable):                  # the next time all of it comes again
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
    parser = argparse.ArgumentParser(prog="python -m autograder.service.worker", description="Run jobs of an autograder service.")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--quotas", type=Path)
    parser.add_argument("--trainings", type=int, default=1)
    parser.add_argument("--core", type=int, help="which of the machine's cores, counted from 0; all of them without it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if options.core is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[options.core % len(cores)]})         # also for all that is started from here
    worker = Worker(lambda: opened(options.state), options.name, Quotas(options.quotas), options.trainings)
    threading.Thread(target=worker.listen, daemon=True).start()
    worker.work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
