"""What Prometheus reads at /metrics: the store's own counts, so that they survive a restart."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from autograder.service.store import BOUNDS, Store

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Jobs(Collector):
    """Collected anew for every request."""

    def __init__(self, store: Store, workers: int) -> None:
        self.store, self.workers = store, workers

    def collect(self) -> Iterator[Metric]:
        now = time.time()
        length = GaugeMetricFamily("autograder_queue_length", "Jobs that wait", labels=["kind", "class"])
        oldest = GaugeMetricFamily("autograder_queue_oldest_seconds", "Age of the oldest job that waits", labels=["kind", "class"])
        for kind, class_, count, created in self.store.ask(
                "SELECT kind, class, count(*), min(created) FROM jobs WHERE state = 'queued' GROUP BY kind, class"):
            length.add_metric([kind, class_], count)
            oldest.add_metric([kind, class_], now - created)
        done = CounterMetricFamily("autograder_jobs", "Finished jobs", labels=["kind", "class", "verdict"])
        for kind, class_, verdict, count in self.store.ask("SELECT kind, class, verdict, count FROM tally"):
            done.add_metric([kind, class_, verdict], count)
        seconds = HistogramMetricFamily("autograder_run_seconds", "Run time of finished jobs", labels=["kind"])
        for (kind,) in self.store.ask("SELECT DISTINCT kind FROM durations"):
            rows = self.store.ask("SELECT bound, count, seconds FROM durations WHERE kind = ?", kind)
            buckets = [(("+Inf" if bound == float("inf") else f"{bound:g}"), sum(n for b, n, _ in rows if b <= bound)) for bound in BOUNDS]
            seconds.add_metric([kind], buckets, sum(spent for *_, spent in rows))
        busy = GaugeMetricFamily("autograder_busy_workers", "Workers that run a job")
        busy.add_metric([], self.store.ask("SELECT count(*) FROM jobs WHERE state = 'running' AND lease_until >= ?", now)[0][0])
        workers = GaugeMetricFamily("autograder_workers", "Workers there are")
        workers.add_metric([], self.workers)
        yield from (length, oldest, done, seconds, busy, workers)


def text(store: Store, workers: int) -> bytes:
    registry = CollectorRegistry()
    registry.register(Jobs(store, workers))
    return generate_latest(registry)
