"""What ``/metrics`` shows of the API's process, and of the jobs as the database counts them. Low cardinality only.

Labels come from closed sets: route templates, states, codes, models, living workers. Never an id, an owner or a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.api.free_space import measure_free_bytes
from services.api.resources import Resources
from services.errors import AnimatoError
from services.jobs.store import JobStore
from services.pictures.cleaner import Death

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# A worker that was not heard for so long is forgotten; alerts have long told of it.
REMEMBERED_S = 600.0

# What a job can fail with: told from nought, because the first failure of a series that begins with it is no rise.
JOB_CODES = (
    "inversion-failed",
    "out-of-memory",
    "deadline-exceeded",
    "worker-lost",
    "storage-failed",
    "encode-failed",
    "internal",
)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_log = structlog.get_logger(__name__)


class ApiMetrics:
    """What this process counts by itself; one registry an app, so that tests stand side by side."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each that nobody reads
        self.registry = CollectorRegistry()
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Seconds from the request to the first byte of its answer, without what it asked to wait.",
            ("method", "route", "status"),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self._webhook_tries = Counter(
            "animation_webhook_tries",
            "Calls of receivers by outcome: delivered, retried later, or abandoned for good.",
            ("outcome",),
            registry=self.registry,
        )
        for outcome in ("delivered", "retried", "abandoned"):
            self._webhook_tries.labels(outcome)  # so that a first failure is a rise from 0
        self._picture_deaths = Counter(
            "animation_picture_child_deaths",
            "Decoding processes that ended and were not told to: crashed, timeout, lied, or killed from outside.",
            ("reason",),
            registry=self.registry,
        )
        for death in Death:
            self._picture_deaths.labels(death.value)
        ProcessCollector(registry=self.registry)

    def observe(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answer."""
        known = method if method in _METHODS else "OTHER"
        self._duration.labels(known, route, str(status)).observe(duration_s)

    def count_webhook_try(self, outcome: str) -> None:
        """Count one call of a receiver: delivered, retried or abandoned."""
        self._webhook_tries.labels(outcome).inc()

    def count_picture_death(self, death: Death) -> None:
        """Count one decoding process that ended and was not told to."""
        self._picture_deaths.labels(death.value).inc()


class ServiceMetrics(Collector):
    """Asks the database at each scrape, so that every replica tells the same truth."""

    def __init__(self, rooms: Resources) -> None:
        self._rooms = rooms

    def collect(self) -> Iterator[Metric]:
        """Yield everything; while the database does not answer, what it would tell is left out rather than guessed."""
        yield self._collect_models()
        yield CounterMetricFamily(
            "animation_hints_dropped",
            "Hints that the queue server did not take; their jobs start at the workers' next look.",
            self._rooms.dispatcher.dropped,
        )
        yield from self._collect_disk()
        answers = 1.0
        try:
            # Whole before the first is told: half a scrape would look like a fall.
            models = [manifest.id for manifest in self._rooms.catalogue.list_models()]
            yield from list(_collect_jobs(self._rooms.store, models))
        except AnimatoError as error:
            answers = 0.0
            _log.warning("metrics_without_database", code=error.code)
        yield GaugeMetricFamily("animation_database_up", "1 while the database answers, else 0.", answers)

    def _collect_models(self) -> Metric:
        info = GaugeMetricFamily(
            "animation_model_info", "The models that are offered; always 1.", labels=("model", "version", "sha256")
        )
        for manifest in self._rooms.catalogue.list_models():
            info.add_metric((manifest.id, manifest.version, manifest.sha256), 1)
        return info

    def _collect_disk(self) -> Iterator[Metric]:
        free = measure_free_bytes(self._rooms.settings)
        if free is not None:
            yield GaugeMetricFamily("animation_disk_free_bytes", "Free disk where jobs or pictures are kept.", free)


def _collect_jobs(store: JobStore, models: Iterable[str]) -> Iterator[Metric]:
    jobs = CounterMetricFamily(
        "animation_jobs",
        "Jobs that have ended, by status, error code and model.",
        labels=("status", "code", "model"),
    )
    known = [("succeeded", ""), *(("failed", code) for code in JOB_CODES)]
    ended = {(status, code, model): 0 for model in models for status, code in known}
    ended |= {(status, code, model): number for status, code, model, number in store.totals()}
    for labels, number in ended.items():
        jobs.add_metric(labels, number)
    yield jobs
    queue = store.queue_facts()
    yield GaugeMetricFamily("animation_queue_depth", "Jobs that wait.", queue.queued)
    yield GaugeMetricFamily("animation_queue_oldest_seconds", "Age of the job that waits longest.", queue.oldest_s)
    yield GaugeMetricFamily("animation_jobs_in_progress", "Jobs that run.", queue.running)
    outbox = store.outbox_facts()
    yield GaugeMetricFamily("animation_webhooks_pending", "Webhooks that are not delivered yet.", outbox.pending)
    yield GaugeMetricFamily(
        "animation_webhooks_overdue_seconds", "How long the latest webhook has been due.", outbox.overdue_s
    )
    beats = GaugeMetricFamily(
        "animation_worker_last_heartbeat_timestamp_seconds",
        "When a live worker was last heard.",
        labels=("worker",),
    )
    for worker in store.live_workers(REMEMBERED_S):
        beats.add_metric((worker.name,), worker.beaten_at.timestamp())
    yield beats
