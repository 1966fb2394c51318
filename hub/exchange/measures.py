"""What the exchange measures of itself, for Prometheus: requests, errors, sizes, latency, and what it stores.

No name of a person, an assignment or a class is in it. Reading it needs a token of the hub with the scope `read:metrics`.
"""

import os
import time
from pathlib import Path

import requests
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from tornado.web import RequestHandler

SCOPE = "read:metrics"
# the first word of a path, as ngshare has them: whatever else somebody asks for must not make a series of its own
KINDS = {"courses", "course", "instructor", "instructors", "student", "students", "assignments", "assignment", "submissions", "submission",
         "feedback", "healthz"}
COUNTED_SECONDS = 300                  # how long the count of stored bytes is believed: it looks at every file

registry = CollectorRegistry()
ProcessCollector(registry=registry)
ANSWERED = Counter("exchange_requests", "Requests answered", ["kind", "method", "status"], registry=registry)
SECONDS = Histogram("exchange_request_seconds", "Time until the answer", ["kind"], registry=registry,
                    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100))
RECEIVED = Histogram("exchange_request_bytes", "Size of what was sent to the exchange", ["kind"], registry=registry,
                     buckets=(1e3, 1e4, 1e5, 1e6, 1e7, 3e7, 1e8, 2e8))
HUB_SECONDS = Histogram("exchange_hub_seconds", "Time until the hub said whose a token is", registry=registry,
                        buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10))
HUB_ERRORS = Counter("exchange_hub_errors", "Questions to which the hub gave no answer", registry=registry)


def observe(handler):
    """Count a request that was answered. For `on_finish` of a handler."""
    kind = handler.request.path[len(handler.application.prefix):].partition("/")[0]
    kind = kind if kind in KINDS else "other"
    ANSWERED.labels(kind, handler.request.method, str(handler.get_status())).inc()
    SECONDS.labels(kind).observe(handler.request.request_time())
    if handler.request.body:
        RECEIVED.labels(kind).observe(len(handler.request.body))


class Stored:
    """Bytes of files and data base, counted now and then, and what is free on their disk."""

    def __init__(self, folder: Path):
        self.folder, self.counted, self.files = folder, float("-inf"), (0, 0)

    def collect(self):
        if time.monotonic() - self.counted > COUNTED_SECONDS:
            sizes = [entry.stat().st_size for entry in os.scandir(self.folder / "files") if entry.is_file()]
            self.files, self.counted = (len(sizes), sum(sizes)), time.monotonic()
        stored = GaugeMetricFamily("exchange_stored_bytes", "What the exchange keeps on its disk", labels=["what"])
        stored.add_metric(["files"], self.files[1])
        stored.add_metric(["database"], (self.folder / "ngshare.db").stat().st_size)
        yield stored
        yield GaugeMetricFamily("exchange_stored_files", "Files of releases, submissions and feedback", value=self.files[0])
        disk = os.statvfs(self.folder)
        yield GaugeMetricFamily("exchange_disk_free_bytes", "Free on the exchange's disk", value=disk.f_bavail * disk.f_frsize)


class Metrics(RequestHandler):
    """/metrics. It is no handler of ngshare's, which would make a user of whoever asks."""

    def get(self):
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        try:
            owner = self.application.identify(token) if scheme.lower() in ("token", "bearer") and token else None
        except requests.RequestException:
            self.set_status(503)
            self.finish("the hub did not answer, so nobody can be identified; try again in a minute\n")
            return
        if owner is None or SCOPE not in owner.get("scopes", []):
            self.set_status(401 if owner is None else 403)
            self.finish(f"metrics need a token of the hub with the scope {SCOPE}\n")
            return
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(generate_latest(registry))
