"""What goes over the service's HTTP interface, as types, and the OpenAPI document that is made from them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from autograder.jobs import FilePath, Job, Result
from autograder.quotas import Quota, Used


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_bytes="base64", val_json_bytes="base64")


class Submission(Message):
    """A job and the content of its input files (base64). Students may leave owner and class out, or name their own."""

    job: Job
    files: dict[FilePath, bytes]
    owner: str | None = Field(default=None, max_length=200)
    class_: str | None = Field(default=None, alias="class", max_length=100)
    regrade: bool = False               # of a grade job: done after those that are graded for the first time


class Status(Message):
    """A job and how far it is. Times are seconds since 1970. `ahead`: how many would be started before it."""

    id: str
    kind: str
    target: str
    state: str
    verdict: str | None = None
    sentence: str = ""
    created: float
    started: float | None = None
    finished: float | None = None
    attempts: int = 0
    ahead: int | None = None
    verifies: str | None = None
    same: bool | None = None            # of a job that verifies another: whether the result is the same
    differs: list[str] = []             # and what is not
    result: Result | None = None


class Mine(Message):
    """All jobs of who asks, the newest first, without their results, and the quota."""

    jobs: list[Status]
    quota: Quota
    used: Used


class Log(Message):
    """A part of what the program has written so far. `offset`: where the next part begins. `done`: there will be no more."""

    text: str
    offset: int
    done: bool


class Health(Message):
    ok: bool
    sandbox: str = ""
    image: str = ""
    jobs: dict[str, int] = {}
    reason: str = ""
    fix: str = ""


class Error(Message):
    error: str


ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[0-9a-f]{64}$"}}
WAIT = {"name": "wait", "in": "query", "schema": {"type": "number", "maximum": 30},
        "description": "seconds to wait for something new"}
OFFSET = {"name": "offset", "in": "query", "schema": {"type": "integer", "minimum": 0}}
OPERATIONS: list[tuple[str, str, str, type[Message] | None, dict[str, type[Message]], list[dict]]] = [
    ("get", "/health", "Whether jobs can be isolated here", None, {"200": Health, "503": Health}, []),
    ("post", "/api/jobs", "Submit a job; the same content is the same job", Submission,
     {"202": Status, "401": Error, "403": Error, "422": Error, "429": Error}, []),
    ("get", "/api/jobs", "Your jobs and your quota", None, {"200": Mine, "401": Error, "403": Error}, []),
    ("get", "/api/jobs/{id}", "One job, with its result once it is done", None, {"200": Status, "404": Error}, [ID, WAIT]),
    ("delete", "/api/jobs/{id}", "Cancel a job", None, {"200": Status, "404": Error}, [ID]),
    ("get", "/api/jobs/{id}/log", "What the job writes, while it runs", None, {"200": Log, "404": Error}, [ID, OFFSET, WAIT]),
    ("post", "/api/jobs/{id}/verify", "Run a finished job again and compare", None, {"202": Status, "404": Error, "409": Error}, [ID]),
]


def document(prefix: str = "/") -> dict[str, Any]:
    """The OpenAPI 3.1 document of this service."""
    models: set[type[Message]] = {Error, Submission, *(model for operation in OPERATIONS for model in operation[4].values())}
    _, schemas = models_json_schema([(model, "serialization" if model is not Submission else "validation")
                                     for model in sorted(models, key=lambda one: one.__name__)],
                                    ref_template="#/components/schemas/{model}")
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, asked, answers, parameters in OPERATIONS:
        operation: dict[str, Any] = {
            "summary": summary, "operationId": f"{method}{path.replace('/api', '').replace('{id}', 'one').title().replace('/', '')}",
            "responses": {status: {"description": model.__name__, "content": _json(model)} for status, model in answers.items()}}
        if parameters:
            operation["parameters"] = parameters
        if asked:
            operation["requestBody"] = {"required": True, "content": _json(asked)}
        if path != "/health":
            operation["security"] = [{"token": []}]
        paths.setdefault(path, {})[method] = operation
    for path, kind, summary in (("/metrics", "text/plain", "For Prometheus; needs the scope read:metrics of the hub"),
                                ("/status", "text/html", "For those who teach; a browser signs in at the hub")):
        paths[path] = {"get": {"summary": summary, "operationId": path[1:], "responses": {
            "200": {"description": kind, "content": {kind: {"schema": {"type": "string"}}}}}}}
    return {"openapi": "3.1.0", "info": {"title": "TinyTorch autograder", "version": "2"}, "servers": [{"url": prefix}], "paths": paths,
            "components": {"schemas": schemas["$defs"], "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer", "description": "a server's JUPYTERHUB_API_TOKEN, or the service's own token"}}}}


def _json(model: type[Message]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
