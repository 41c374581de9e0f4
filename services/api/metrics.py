"""What ``/metrics`` shows of the API's process, and of the jobs as the job store counts them. Low cardinality only."""

from __future__ import annotations

from collections.abc import Iterator

import structlog
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.api.resources import Resources
from services.errors import AnimatoError
from services.jobs.contract import JobState

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_log = structlog.get_logger(__name__)


class HttpMetrics:
    """Seconds until an answer began, by route template; one registry an app, so that tests stand side by side."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._duration = Histogram(
            "http_request_duration_seconds",
            "Seconds from the request to the first byte of its answer.",
            ("method", "route", "status"),
            buckets=BUCKETS_S,
            registry=self.registry,
        )

    def observe(self, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one answer."""
        known = method if method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS") else "OTHER"
        self._duration.labels(known, route, str(status)).observe(duration_s)


class JobMetrics(Collector):
    """Reads the job store at each scrape, so that every replica tells the same truth."""

    def __init__(self, rooms: Resources) -> None:
        self._rooms = rooms

    def collect(self) -> Iterator[Metric]:
        """Yield the jobs', models' and workers' metrics; nothing of the store while it does not answer."""
        yield self._collect_models()
        try:
            yield from self._collect_jobs()
        except AnimatoError as error:
            _log.warning("metrics_without_store", code=error.code)

    def _collect_models(self) -> Metric:
        info = GaugeMetricFamily(
            "animation_model_info", "The models that are offered; always 1.", labels=("model", "version", "sha256")
        )
        for manifest in self._rooms.catalogue.list_models():
            info.add_metric((manifest.id, manifest.version, manifest.sha256), 1)
        return info

    def _collect_jobs(self) -> Iterator[Metric]:
        store = self._rooms.store
        totals, counts = store.totals(), store.counts()
        jobs = CounterMetricFamily(
            "animation_jobs",
            "Jobs that have ended, by status, error code and model.",
            labels=("status", "code", "model"),
        )
        for status, code, model, number in totals:
            jobs.add_metric((status, code, model), number)
        yield jobs
        yield GaugeMetricFamily("animation_queue_depth", "Jobs that wait.", counts[JobState.QUEUED.value])
        yield GaugeMetricFamily("animation_jobs_in_progress", "Jobs that run.", counts[JobState.RUNNING.value])
        beats = GaugeMetricFamily(
            "animation_worker_last_heartbeat_timestamp_seconds",
            "When a live worker was last heard.",
            labels=("worker",),
        )
        for worker in store.live_workers(600):
            beats.add_metric((worker.name,), worker.beaten_at.timestamp())
        yield beats
