"""Who asks, and what they may: staff by the service's own token, everybody else by the token of their server at the hub.

A hub's token opens this service if it carries the scope `access:services!service=autograder`. In which class it acts is
written in it too: the token of the server `alice/ml101` holds `access:servers!server=alice/ml101`, and acts for alice in
ml101 only. What it submits is checked here, field by field; what is not the student's to say is filled in.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jupyterhub.services.auth import HubAuth
from tornado.web import HTTPError

from autograder import kinds
from autograder.jobs import Job, Kind, Limits, sha256
from autograder.quotas import Quota

SERVICE = "autograder"
SCOPE = f"access:services!service={SERVICE}"
METRICS = "read:metrics"                # the scope that the hub asks for on its own /metrics
IDENTITY_SECONDS = 20                   # how long an answer of the hub about a token is believed


class Refused(Exception):
    """Why not, with the HTTP status that says the same to programs."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Caller:
    """Staff hold the service's token; anybody else is one person in one class."""

    staff: bool = False
    name: str = ""
    class_: str = ""
    scopes: frozenset[str] = frozenset()

    def owns(self, class_: str, owner: str) -> bool:
        return bool(self.name) and (self.class_, self.name) == (class_, owner)


class Door:
    """Identifies whoever knocks. Without a hub only staff enter."""

    def __init__(self, token: str, hub_api: str = "") -> None:
        self.token = token
        self.hub = HubAuth(api_url=hub_api, cache_max_age=IDENTITY_SECONDS) if hub_api else None

    async def caller(self, header: str) -> Caller:
        """Whose `Authorization` header this is. Refused: 401 nobody's, 403 of somebody who may not come here, 503 no hub."""
        given = re.fullmatch(r"(?:token|bearer)\s+(\S+)", header, re.IGNORECASE)
        token = given[1] if given else ""
        if token and hmac.compare_digest(token.encode(), self.token.encode()):
            return Caller(staff=True)
        model = await self._ask(token) if token and self.hub else None
        if model is None:
            raise Refused(401, "wrong or no token: send Authorization: Bearer with AUTOGRADER_TOKEN, "
                               "or on a student's server with JUPYTERHUB_API_TOKEN")
        return person(model)

    async def _ask(self, token: str) -> dict[str, Any] | None:
        assert self.hub
        try:
            return await self.hub.user_for_token(token, sync=False)
        except HTTPError as error:
            raise Refused(503, f"the hub did not answer ({error.log_message or error.status_code}), so nobody can be identified: "
                               "try again in a minute") from None


def person(model: Mapping[str, Any]) -> Caller:
    """The caller of a user model of the hub. Refused unless its token is that of one class's server, or may read metrics."""
    name, scopes = model.get("name", ""), frozenset(model.get("scopes", []))
    marker = f"access:servers!server={name}/"
    classes = {scope[len(marker):] for scope in scopes if scope.startswith(marker)} - {""}
    if METRICS in scopes and len(classes) != 1:
        return Caller(scopes=scopes)
    if model.get("kind") != "user" or not name or SCOPE not in scopes:
        raise Refused(403, f"this token may not use the autograder (it lacks the scope {SCOPE}): restart your server, then try again")
    if len(classes) != 1:
        raise Refused(403, "jobs are submitted from the server of a class: this token is of none, or of several")
    [class_] = classes
    if not {f"nbgrader-{class_}", f"formgrade-{class_}"} & set(model.get("groups", [])):
        raise Refused(403, f"{name} is not in class {class_} any more: ask your instructor")
    return Caller(name=name, class_=class_, scopes=scopes)


def admitted(caller: Caller, job: Job, files: Mapping[str, bytes], named: Mapping[str, str | None], quota: Quota,
             edition_hash: str | None) -> Job:
    """The job as it will be run for a student. Refused for whatever is not theirs to ask for.

    `named`: the owner and class that the request names, if any. `edition_hash`: of the student edition here.
    """
    if job.kind == "grade":
        raise Refused(403, "jobs of kind grade are submitted by the class's formgrader only: hand in with the assignment list")
    if named.get("owner") not in (None, caller.name):
        raise Refused(403, f"this token is {caller.name}'s: leave `owner` out")
    if named.get("class") not in (None, caller.class_):
        raise Refused(403, f"this is the server of class {caller.class_}: open your server of class {named['class']} for that")
    if job.edition not in (None, kinds.EDITION) or job.edition_hash not in (None, edition_hash):
        raise Refused(403, "a student's job runs with the student edition that is served now: leave `edition` and `edition_hash` out")
    if job.image:
        raise Refused(403, "the image is the site's to choose: leave `image` out")
    try:
        kinds.check(job.kind, job.target, files)
    except kinds.Unfit as unfit:
        raise Refused(422, str(unfit)) from None
    return job.model_copy(update={"edition": kinds.EDITION, "edition_hash": edition_hash, "limits": within(job.limits, job.kind, quota)})


def within(limits: Limits, kind: Kind, quota: Quota) -> Limits:
    """The limits asked for; what was left out becomes the default, for a training the quota, and never more than the quota."""
    largest = quota.largest
    over = [f"{name} {getattr(limits, name):g} (at most {getattr(largest, name):g})" for name in limits.model_fields_set
            if getattr(limits, name) > getattr(largest, name)]
    if over:
        raise Refused(403, f"more than your class may ask for: {', '.join(sorted(over))}")
    if kind == "train":
        limits = largest.model_copy(update=limits.model_dump(include=limits.model_fields_set))
    return Limits(**{name: min(getattr(limits, name), getattr(largest, name)) for name in Limits.model_fields})


def request_id(caller: Caller, job: Job) -> str:
    """Two students with the same files have a job each: none sees, cancels or waits for the other's."""
    return sha256(f"{caller.class_}\0{caller.name}\0{job.id}".encode())
