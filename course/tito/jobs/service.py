"""Jobs on the site's autograder, over its HTTP API (see /openapi.json there)."""

import json
import os
import urllib.error
import urllib.request
from typing import Any

from course.tito.failure import Failed
from course.tito.jobs.request import Request

SECONDS = 60


class Service:
    """The autograder at AUTOGRADER_URL; who asks is said by the server's own token of the hub."""

    where = "the autograder"

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.token = os.environ.get("AUTOGRADER_TOKEN") or os.environ.get("JUPYTERHUB_API_TOKEN", "")     # the former: staff only

    def submit(self, request: Request) -> dict[str, Any]:
        return self._ask("POST", "/api/jobs", request)

    def mine(self) -> dict[str, Any]:
        return self._ask("GET", "/api/jobs")

    def look(self, id: str, wait: float = 0) -> dict[str, Any]:
        return self._ask("GET", f"/api/jobs/{id}?wait={wait:g}")

    def log(self, id: str, offset: int = 0, wait: float = 0) -> dict[str, Any]:
        return self._ask("GET", f"/api/jobs/{id}/log?offset={offset}&wait={wait:g}")

    def cancel(self, id: str) -> dict[str, Any]:
        return self._ask("DELETE", f"/api/jobs/{id}")

    def verify(self, id: str) -> dict[str, Any]:
        return self._ask("POST", f"/api/jobs/{id}/verify", {})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(self.url + path, method=method, data=None if body is None else json.dumps(body).encode(), headers={
            "Authorization": f"token {self.token}", "Content-Type": "application/json"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))    # a proxy must not see the token
        try:
            with direct.open(request, timeout=SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Failed(_sentence(error)) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Failed(f"the autograder at {self.url} does not answer ({reason}): try again in a minute, then tell your instructor. "
                         "What you have submitted is kept") from None


def _sentence(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        return f"{json.loads(text)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"the autograder answered {error.code}: try again in a minute, then tell your instructor"
