"""The autograder as a small HTTP service: jobs in, results out, so that who asks needs no right to make sandboxes.

    AUTOGRADER_TOKEN=... python -m autograder.service --port 8765 --state .state/autograder

/openapi.json describes it (api.py). The header `Authorization: Bearer TOKEN` says who asks (access.py): the class's formgrader
with AUTOGRADER_TOKEN, a student's server with its token of the hub that JUPYTERHUB_API_URL names. It binds to loopback unless
told otherwise, and answers below --prefix too, which is how the hub's proxy reaches it.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyterhub.services.auth import HubOAuth, HubOAuthCallbackHandler
from pydantic import BaseModel, ValidationError
from tornado.httpserver import HTTPServer
from tornado.ioloop import PeriodicCallback
from tornado.web import Application, HTTPError, RequestHandler

from autograder import runner
from autograder.jobs import sha256
from autograder.quotas import Quotas
from autograder.sandbox import choice
from autograder.sandbox.base import SandboxUnavailable
from autograder.service import access, api, metrics, store, verification
from autograder.service.access import Caller, Refused
from autograder.service.database import Postgres, Unavailable
from autograder.service.presence import Presence
from autograder.service.status_page import StatusPage
from autograder.service.store import Entry, OverQuota, Store, opened
from autograder.service.workers import Workers

MAX_BODY = 96 * 2**20
MAX_WAIT = 30
HOUR_MS = 3600_000
log = logging.getLogger("autograder")


@dataclass
class Parts:
    """What the handlers share."""

    store: Store
    workers: Workers
    door: access.Door
    quotas: Quotas
    prefix: str
    presence: Presence

    def edition_hash(self) -> str | None:
        """Of the student edition; read anew when a build has put another folder in its place."""
        folder = runner.student_edition()
        return _hash_of(folder, folder.stat().st_ino, folder.stat().st_mtime_ns) if folder else None


@functools.lru_cache(4)
def _hash_of(folder: Path, *_state: int) -> str:
    return runner.hash_folder(folder)


class Handler(RequestHandler):
    """Knows who asks before it does anything; every refusal is JSON with one sentence."""

    open = False                            # to whoever asks
    caller = Caller()

    def initialize(self, parts: Parts) -> None:
        self.parts, self.store = parts, parts.store

    async def prepare(self) -> None:
        if not self.open:
            try:
                self.caller = await self.parts.door.caller(self.request.headers.get("Authorization", ""))
                self.admit()
            except Refused as refused:
                self.answer(refused.status, api.Error(error=str(refused)))
                return
            if not await self.parts.presence.comes():
                self.away()

    def admit(self) -> None:
        if not (self.caller.staff or self.caller.name):
            raise Refused(403, "this token may read /metrics and nothing else")

    def answer(self, status: int, content: BaseModel | dict[str, Any]) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(content.model_dump_json(by_alias=True) if isinstance(content, BaseModel) else json.dumps(content))

    def away(self) -> None:
        """The database does not answer. Whoever asks again finds everything as it was."""
        self.set_header("Retry-After", "5")
        self.answer(503, api.Error(error="the autograder's database does not answer now; jobs are kept, try again in a minute"))

    def write_error(self, status_code: int, **about: Any) -> None:
        why = about.get("exc_info", (None, None))[1]
        if isinstance(why, Unavailable):
            self.parts.presence.lost(why)
            self.away()
        else:
            self.answer(status_code, api.Error(error=self._reason))

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:
        if not isinstance(error, Unavailable):              # which is said once, without a trace
            super().log_exception(kind, error, trace)

    def entry(self, id: str) -> Entry | None:
        """The job, if it is the caller's to see. To anybody else it does not exist, and the answer is given."""
        found = self.store.look(id)
        if found and (self.caller.staff or self.caller.owns(found.class_, found.owner)):
            return found
        self.answer(404, api.Error(error=f"you have no job {id}"))
        return None

    def status(self, entry: Entry, whole: bool = True) -> api.Status:
        result = self.store.result(entry.id) if whole else None
        same, differs = verification.compared(self.store, entry, result)
        return api.Status(
            id=entry.id, kind=entry.kind, target=entry.job.target, state=entry.state, verdict=entry.verdict,
            sentence=entry.sentence, created=entry.created, started=entry.started, attempts=entry.attempts,
            finished=entry.changed if entry.state == "done" else None,
            ahead=self.store.ahead(entry.id) if entry.state == "queued" else None,
            verifies=entry.verifies, same=same, differs=differs, result=result)

    async def until(self, happened: Callable[[], bool]) -> bool:
        """Wait for it as long as the request says. False when the request says nonsense, which is answered."""
        step = 0.02 if self.caller.staff else 0.2           # many students may wait at once
        try:
            deadline = time.monotonic() + min(float(self.get_query_argument("wait", "0")), MAX_WAIT)
        except ValueError:
            self.answer(422, api.Error(error="wait: a number of seconds"))
            return False
        while not (self.parts.presence.here.is_set() and self.asked(happened)) and time.monotonic() < deadline:
            await asyncio.sleep(step)
        return True

    def asked(self, happened: Callable[[], bool]) -> bool:
        try:
            return happened()
        except Unavailable as why:
            self.parts.presence.lost(why)
            return False


class Health(Handler):
    open = True

    def get(self) -> None:
        try:
            sandbox = choice.sandbox()
            sandbox.check()
        except SandboxUnavailable as lacking:
            self.answer(503, api.Health(ok=False, reason=lacking.reason, fix=lacking.fix))
            return
        if not self.parts.presence.here.is_set():
            self.answer(503, api.Health(ok=False, reason="the jobs' database does not answer", fix="The autograder's log says why"))
            return
        self.answer(200, api.Health(ok=True, sandbox=sandbox.name, image=runner.image(), jobs=self.store.count()))


class Jobs(Handler):
    def get(self) -> None:
        used = self.store.used(self.caller.class_, self.caller.name, time.time())
        jobs = [self.status(entry, whole=False) for entry in self.store.of_owner(self.caller.class_, self.caller.name)]
        self.answer(200, api.Mine(jobs=jobs, quota=self.parts.quotas.of(self.caller.class_), used=used))

    def post(self) -> None:
        try:
            submission = api.Submission.model_validate_json(self.request.body)
        except ValidationError as error:
            said = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors()[:5])
            self.answer(422, api.Error(error=said))
            return
        if {path: sha256(content) for path, content in submission.files.items()} != submission.job.inputs:
            self.answer(422, api.Error(error="the files are not those of the job: their names and hashes differ"))
            return
        try:
            id = self.accept(submission)
        except Refused as refused:
            self.answer(refused.status, api.Error(error=str(refused)))
        except OverQuota as over:
            self.answer(429, api.Error(error=str(over)))
        else:
            self.parts.workers.tell("look")
            accepted = self.store.look(id)
            assert accepted
            self.answer(202, self.status(accepted, whole=False))

    def accept(self, submission: api.Submission) -> str:
        job, caller = submission.job, self.caller
        if caller.staff:
            tier = store.REGRADE if submission.regrade else store.GRADE
            return self.store.accept(job, submission.files, job.image or runner.image(), class_=submission.class_ or "", tier=tier)
        named = {"owner": submission.owner, "class": submission.class_}
        quota = self.parts.quotas.of(caller.class_)
        job = access.admitted(caller, job, submission.files, named, quota, self.parts.edition_hash())
        return self.store.accept(job, submission.files, runner.image(), id=access.request_id(caller, job), class_=caller.class_,
                                 owner=caller.name, tier=store.STUDENT, quota=quota)


class OneJob(Handler):
    async def get(self, id: str) -> None:
        if self.entry(id) and await self.until(lambda: self.store.state(id) in ("done", None)) and (found := self.entry(id)):
            self.answer(200, self.status(found))

    def delete(self, id: str) -> None:
        if self.entry(id):
            self.store.cancel(id)
            self.parts.workers.tell(f"cancel {id}")
            if found := self.entry(id):
                self.answer(200, self.status(found, whole=False))


class Log(Handler):
    async def get(self, id: str) -> None:
        if not self.entry(id):
            return
        try:
            offset = max(0, int(self.get_query_argument("offset", "0")))
        except ValueError:
            self.answer(422, api.Error(error="offset: a number of bytes"))
            return
        file = self.store.log_file(id)
        if await self.until(lambda: (file.exists() and file.stat().st_size > offset) or self.store.state(id) in ("done", None)):
            done = self.store.state(id) in ("done", None)       # before reading: what is written later is read next time
            content = b""
            if file.exists():
                with file.open("rb") as stream:
                    stream.seek(offset)
                    content = stream.read(2**20)
            content = content if done else whole_characters(content)
            self.answer(200, api.Log(text=content.decode(errors="replace"), offset=offset + len(content),
                                     done=done and len(content) < 2**20))


def whole_characters(content: bytes) -> bytes:
    """Without a last character of which only the first bytes are there yet."""
    cut = re.search(rb"[\xc0-\xff][\x80-\xbf]{0,2}$", content)
    try:
        (cut[0] if cut else b"").decode()
    except UnicodeDecodeError:
        assert cut
        return content[:cut.start()]
    return content


class Verify(Handler):
    def post(self, id: str) -> None:
        if found := self.entry(id):
            try:
                quota = None if self.caller.staff else self.parts.quotas.of(self.caller.class_)
                again = verification.submit(self.store, found, runner.image(), quota)
            except verification.Impossible as impossible:
                self.answer(409, api.Error(error=str(impossible)))
            except OverQuota as over:
                self.answer(429, api.Error(error=str(over)))
            else:
                self.parts.workers.tell("look")
                self.answer(202, self.status(again, whole=False))


class Metrics(Handler):
    def admit(self) -> None:
        if not (self.caller.staff or access.METRICS in self.caller.scopes):
            raise Refused(403, f"metrics need a token of the hub with the scope {access.METRICS}")

    def get(self) -> None:
        self.set_header("Content-Type", metrics.CONTENT_TYPE)
        self.finish(metrics.text(self.store, self.parts.workers.count))


class OpenApi(Handler):
    open = True

    def get(self) -> None:
        self.answer(200, api.document(self.parts.prefix or "/"))


class Nothing(Handler):
    open = True

    async def prepare(self) -> None:
        raise HTTPError(404, reason="there is nothing here: see openapi.json")


def application(parts: Parts) -> Application:
    one = r"/api/jobs/([0-9a-f]{64})"
    routes = {"/health": Health, "/api/jobs": Jobs, one: OneJob, f"{one}/log": Log, f"{one}/verify": Verify,
              "/metrics": Metrics, "/openapi.json": OpenApi}
    prefix = f"(?:{re.escape(parts.prefix)})?"
    pages: list[tuple] = []
    if os.environ.get("JUPYTERHUB_CLIENT_ID"):             # only a hub can say who looks at a page
        pages = [(f"{prefix}/oauth_callback", HubOAuthCallbackHandler),
                 (f"{prefix}/(?:status)?", StatusPage, {"store": parts.store, "workers": parts.workers.count})]
        HubOAuth.instance()                                # takes its settings from the environment now
    return Application([*((prefix + path, handler, {"parts": parts}) for path, handler in routes.items()), *pages],
                       default_handler_class=Nothing, default_handler_args={"parts": parts}, cookie_secret=os.urandom(32))


async def serve(options: argparse.Namespace, door: access.Door) -> None:
    """Serve until SIGTERM or SIGINT. What runs then is done again at the next start."""
    kept, quotas = opened(options.state), Quotas(options.quotas)
    kept.forget(quotas)
    workers, presence = Workers(kept, options.state, options.quotas, options.workers), Presence(kept)
    watching = asyncio.create_task(presence.watch()) if isinstance(kept.db, Postgres) else None     # a file is always there
    try:
        served = application(Parts(kept, workers, door, quotas, options.prefix.rstrip("/"), presence))
        server = HTTPServer(served, max_body_size=MAX_BODY, max_buffer_size=MAX_BODY)
        server.listen(options.port, options.host)

        def clean() -> None:
            with contextlib.suppress(Unavailable):                          # in an hour, then
                kept.forget(quotas)
        PeriodicCallback(clean, HOUR_MS).start()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        log.info("listening on http://%s:%s, %s workers", options.host, options.port, options.workers)
        await ended.wait()
        server.stop()
    finally:
        if watching:
            watching.cancel()
        workers.end()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m autograder.service", description="Run autograder jobs over HTTP.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--state", type=lambda path: Path(path).resolve(),
                        default=Path(os.environ.get("TINYTORCH_STATE", ".state")).resolve() / "autograder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quotas", type=Path, help="JSON: class id to quota, see quotas.py; read again when it changes")
    parser.add_argument("--prefix", default=os.environ.get("JUPYTERHUB_SERVICE_PREFIX", ""), help="path below which it answers too")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    token, hub_api = os.environ.pop("AUTOGRADER_TOKEN", ""), os.environ.get("JUPYTERHUB_API_URL", "")
    if len(token) < 16:
        print("autograder: set AUTOGRADER_TOKEN to a secret of at least 16 characters", file=sys.stderr)
        return 2
    try:
        asyncio.run(serve(options, access.Door(token, hub_api)))
    except Unavailable as error:
        print(f"autograder: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"autograder: cannot listen on {options.host}:{options.port} or write to {options.state}: {error}", file=sys.stderr)
        return 1
    return 0
