"""How everybody runs a job: through the service when AUTOGRADER_URL names one, else here. The answer is the same."""

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from autograder import runner
from autograder.jobs import Job, Result, Verdict
from autograder.sandbox import choice
from autograder.sandbox.base import SandboxUnavailable

RETRY_SECONDS = (2.0, 4.0)              # after a fault of the sandbox or its machine
RESTART_SECONDS = 30                    # for how long a service that stopped answering may need to come back
FIX = "Start it (make up), or unset AUTOGRADER_URL to grade in this process's own sandbox"


class ServiceError(RuntimeError):
    """The service refused a job. The message is the service's."""


def check() -> None:
    """Raise SandboxUnavailable (with reason and fix) unless jobs can be run, here or by the service."""
    url = service_url()
    if not url:
        choice.sandbox().check()
        return
    try:
        _ask("GET", f"{url}/health")
    except ServiceError as error:
        raise SandboxUnavailable(f"the autograder at {url} cannot isolate: {error}",
                                 "See `python -m autograder check` on its machine") from error
    except OSError as error:
        raise SandboxUnavailable(f"the autograder at {url} does not answer ({error})", FIX) from error


_kept: dict[str, Result] = {}           # results that were fetched ahead, by job


def keep(result: Result) -> None:
    """Remember a result until somebody submits its job."""
    if result.verdict is not Verdict.infra:
        _kept[result.job] = result


def submit(job: Job, files: Mapping[str, bytes], regrade: bool = False) -> Result:
    """Run the job and wait for its result; regrades wait for what is graded for the first time.

    Raises SandboxUnavailable, ServiceError or runner.BadJob.
    """
    if job.id in _kept:
        return _kept.pop(job.id)
    url = service_url()
    if not url:
        return _here(job, files)
    body = {"job": job.model_dump(mode="json"), "class": os.environ.get("COURSE_ID") or None, "regrade": regrade,
            "files": {path: base64.b64encode(content).decode() for path, content in files.items()}}
    lost = None
    while lost is None or time.monotonic() - lost < RESTART_SECONDS:
        try:
            accepted = _ask("POST", f"{url}/api/jobs", body)
            while (answer := _ask("GET", f"{url}/api/jobs/{accepted['id']}?wait=20"))["state"] != "done":
                lost = None
            return Result.model_validate_json(json.dumps(answer["result"]))
        except (OSError, http.client.HTTPException) as error:            # restarting; it keeps what it accepted
            lost, why = lost or time.monotonic(), error
            time.sleep(0.5)
    raise SandboxUnavailable(f"the autograder at {url} does not answer ({why})", FIX)


def _here(job: Job, files: Mapping[str, bytes]) -> Result:
    """In this process's own sandbox; again when that has failed, as the service does."""
    for pause in RETRY_SECONDS:
        if (result := runner.run(job, files)).verdict is not Verdict.infra:
            return result
        time.sleep(pause)
    return runner.run(job, files)


def service_url() -> str:
    return os.environ.get("AUTOGRADER_URL", "").rstrip("/")


def _ask(method: str, url: str, body: Any = None) -> Any:
    request = urllib.request.Request(url, method=method, data=None if body is None else json.dumps(body).encode(), headers={
        "Authorization": f"Bearer {os.environ.get('AUTOGRADER_TOKEN', '')}", "Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))    # a proxy must not see the token
    try:
        with direct.open(request, timeout=60) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        try:
            content = json.loads(said)
            said = content.get("error") or f"{content['reason']}. {content['fix']}"
        except (ValueError, KeyError, AttributeError):
            pass
        if "Retry-After" in error.headers:                      # its database is being restarted: the same as if it were itself
            raise ConnectionError(said) from error
        raise ServiceError(f"{said} (HTTP {error.code})") from error
