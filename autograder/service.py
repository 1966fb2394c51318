"""The autograder as a small HTTP service: jobs in, results out, so that who asks needs no right to make sandboxes.

    AUTOGRADER_TOKEN=... python -m autograder.service --port 8765 --state .state/autograder

GET /health; POST /api/jobs with {"job": {...}, "files": {path: base64}}; GET /api/jobs/ID?wait=SECONDS. The latter two
need the header `Authorization: Bearer TOKEN`. It binds to loopback unless told otherwise.
"""

import argparse
import asyncio
import hmac
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from autograder import runner
from autograder.jobs import FilePath, Job, Result, Verdict, sha256
from autograder.sandbox.base import SandboxUnavailable
from autograder.sandbox.process import Process
from autograder.store import Store

MAX_BODY = 96 * 2**20
MAX_WAIT = 30
log = logging.getLogger("autograder")


class Submission(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", val_json_bytes="base64")
    job: Job
    files: dict[FilePath, bytes]


class Pool:
    """Threads that take jobs from the store, one sandbox each. bwrap ends with the thread that started it."""

    def __init__(self, store: Store, workers: int) -> None:
        self.store, self.news = store, threading.Condition()
        for number in range(workers):
            threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()

    def wake(self) -> None:
        with self.news:
            self.news.notify_all()

    def _work(self) -> None:
        while True:
            try:
                claimed = self.store.claim()
                if claimed is None:
                    with self.news:
                        self.news.wait(1)
                    continue
                self.store.finish(claimed if isinstance(claimed, Result) else carry_out(*claimed))
            except Exception:                                           # a full disk, a locked file: the job is kept
                log.exception("a worker failed; it goes on in a second")
                time.sleep(1)


def carry_out(job: Job, files: dict[str, bytes]) -> Result:
    """Run one job. Whatever goes wrong that is not the student's fault becomes an `infra` result."""
    begun = time.monotonic()
    try:
        result = runner.run(job, files)
    except (SandboxUnavailable, runner.BadJob) as error:
        result = Result(job=job.id, verdict=Verdict.infra, sentence=str(error), inputs=job.inputs)
    except Exception as error:
        log.exception("job %s", job.id)
        result = Result(job=job.id, verdict=Verdict.infra, sentence=f"the autograder failed: {type(error).__name__}: {error}",
                        inputs=job.inputs)
    log.info("%s %s: %s %s(%.2f s)", job.kind, job.id[:12], result.verdict, result.sentence and result.sentence + " ",
             time.monotonic() - begun)
    return result


class Handler(RequestHandler):
    def initialize(self, store: Store, pool: Pool, token: str) -> None:
        self.store, self.pool, self.token = store, pool, token

    def authorised(self) -> bool:
        given = self.request.headers.get("Authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self.token.encode()):
            return True
        self.answer(401, error="wrong or no token: send Authorization: Bearer with AUTOGRADER_TOKEN")
        return False

    def answer(self, status: int, **content: Any) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(content))

    def write_error(self, status_code: int, **_: Any) -> None:
        self.answer(status_code, error=self._reason)


class Health(Handler):
    def get(self) -> None:
        sandbox = Process()
        try:
            sandbox.check()
        except SandboxUnavailable as lacking:
            self.answer(503, ok=False, reason=lacking.reason, fix=lacking.fix)
        else:
            self.answer(200, ok=True, sandbox=sandbox.name, image=runner.environment(), jobs=self.store.count())


class Jobs(Handler):
    def post(self) -> None:
        if not self.authorised():
            return
        try:
            submission = Submission.model_validate_json(self.request.body)
        except ValidationError as error:
            self.answer(422, error="; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()[:5]))
            return
        if {path: sha256(content) for path, content in submission.files.items()} != submission.job.inputs:
            self.answer(422, error="the files are not those of the job: their names and hashes differ")
            return
        self.store.accept(submission.job, submission.files, submission.job.image or runner.environment())
        self.pool.wake()
        self.answer(202, id=submission.job.id)


class OneJob(Handler):
    async def get(self, job_id: str) -> None:
        if not self.authorised():
            return
        try:
            deadline = time.monotonic() + min(float(self.get_query_argument("wait", "0")), MAX_WAIT)
        except ValueError:
            self.answer(422, error="wait: a number of seconds")
            return
        found = self.store.look(job_id)
        while found and found[0] != "done" and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            found = self.store.look(job_id)
        if found is None:
            self.answer(404, error=f"no job {job_id}")
        else:
            self.answer(200, id=job_id, state=found[0], result=json.loads(found[1]) if found[1] else None)


def application(store: Store, pool: Pool, token: str) -> Application:
    parts = {"store": store, "pool": pool, "token": token}
    return Application([(r"/health", Health, parts), (r"/api/jobs", Jobs, parts), (r"/api/jobs/([0-9a-f]{64})", OneJob, parts)])


async def serve(host: str, port: int, state: Path, token: str, workers: int) -> None:
    """Serve until SIGTERM or SIGINT. What runs then is done again at the next start."""
    store = Store(state / "jobs.sqlite")
    server = HTTPServer(application(store, Pool(store, workers), token), max_body_size=MAX_BODY, max_buffer_size=MAX_BODY)
    server.listen(port, host)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    log.info("listening on http://%s:%s, %s workers", host, port, workers)
    await ended.wait()
    server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m autograder.service", description="Run autograder jobs over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--state", type=Path, default=Path(os.environ.get("TINYTORCH_STATE", ".state")) / "autograder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    token = os.environ.pop("AUTOGRADER_TOKEN", "")
    if len(token) < 16:
        print("autograder: set AUTOGRADER_TOKEN to a secret of at least 16 characters", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(options.host, options.port, options.state.resolve(), token, options.workers))
    except OSError as error:
        print(f"autograder: cannot listen on {options.host}:{options.port} or write to {options.state}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
