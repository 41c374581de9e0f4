"""What Prometheus reads from a worker: base units, few labels, never a job id or a client's word.

Counts only what this process did; the API counts all jobs from the job store. No SQL, no queue, no models in here.
"""

from __future__ import annotations

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

log = structlog.get_logger(__name__)

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0)


class WorkerMetrics:
    """The metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each that nobody reads
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.jobs = Counter(
            "animation_jobs",
            "Jobs that this worker ended, by outcome.",
            ["status", "code", "model"],
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "animation_jobs_in_progress", "Jobs that this worker is running.", registry=self.registry
        )
        self.queue_wait = Histogram(
            "animation_queue_wait_seconds",
            "Time from accepting a job to its first start.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stage = Histogram(
            "animation_stage_duration_seconds",
            "Time that a job spent in a stage.",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.frames = Counter("animation_frames", "Frames drawn.", registry=self.registry)
        self.model_info = Gauge(
            "animation_model_info",
            "1 for each bundle that is loaded and warm.",
            ["model", "sha256", "provider"],
            registry=self.registry,
        )
        self.provider_fallbacks = Gauge(
            "animation_provider_fallbacks",
            "Execution providers that gave up on a graph of the loaded bundle, so that a lesser one runs it.",
            ["model"],
            registry=self.registry,
        )
        self.heartbeat = Gauge(
            "animation_worker_last_heartbeat_timestamp_seconds",
            "When this worker last told the job store that it lives.",
            registry=self.registry,
        )
        self.child_deaths = Counter(
            "animation_inference_deaths", "Times that the inference child died.", registry=self.registry
        )

    def serve(self, port: int) -> None:
        """Answer Prometheus on ``port``; 0 is off. A port that is taken is told in the log and no reason to stop."""
        if port == 0:
            return
        try:
            start_http_server(port, registry=self.registry)
        except OSError as error:
            log.error("metrics_port_unusable", port=port, reason=error.strerror)  # noqa: TRY400 - the reason says it all
