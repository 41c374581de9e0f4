"""Composition root of the worker (``python -m worker.app``): settings, stores, child, runner, sweeper, Celery.

Imports are inside the function, in this order, for the sake of a quick start: the inference child loads its bundle
while this process imports SQL and Celery.
"""

from __future__ import annotations

import gc
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

import structlog

from model.errors import ModelError
from services.errors import AnimatoError, TemporaryError
from services.logs import configure_logging
from services.settings import Settings, load_settings
from services.tracing import start_tracing, stop_tracing
from worker.bundles import Bundles
from worker.events import ChildOptions
from worker.inference import InferenceChild

log = structlog.get_logger(__name__)

START_PATIENCE_S = 60.0


def main() -> int:
    """Run a worker until SIGTERM; return its exit code."""
    try:
        settings = load_settings()
    except AnimatoError as error:
        sys.stderr.write(f"{error.message} {error.hint}\n")
        return 2
    configure_logging(service="worker", log_format=settings.log_format, level=settings.log_level)
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    structlog.contextvars.bind_contextvars(worker=name)
    # Until Celery puts its own handlers in place, seconds later on a busy machine: a job may be running by then.
    signal.signal(signal.SIGTERM, _leave_early)
    try:
        options = child_options(settings)
        child = InferenceChild(options)
        child.start()
        # After the child's start: whoever asks for traces shall not wait longer for the first film.
        start_tracing("worker")
        try:
            return serve(settings, child, options, name)
        finally:
            child.close()
            stop_tracing()
    except SystemExit:
        return 0
    except (AnimatoError, ModelError) as error:
        log.error("worker_can_not_start", code=error.code, reason=error.message, hint=error.hint)  # noqa: TRY400
        return 1


def child_options(settings: Settings) -> ChildOptions:
    """Return what an inference child needs to know.

    The default bundle is loaded before it is ready, others when a job asks.
    """
    folders = list(Bundles(settings.bundles_dir).folders().values())
    return ChildOptions(
        providers=settings.providers,
        threads=settings.threads,
        warm=tuple(folders[:1]),
        precision=settings.precision,
        cuda_graphs=settings.cuda_graphs,
        cache_dir=settings.resolved_cache_dir,
        log_format=settings.log_format,
        log_level=settings.log_level,
    )


def serve(settings: Settings, child: InferenceChild, options: ChildOptions, name: str) -> int:
    """Put the parts together and serve until told to stop."""
    from celery import signals

    from services.jobs.store import JobStore
    from services.queue import check_broker, make_celery, soft_shutdown_s
    from services.storage import ObjectStore
    from worker.metrics import WorkerMetrics
    from worker.retention import Retention
    from worker.runner import Runner
    from worker.scratch import remove_orphans
    from worker.sweeper import Sweeper
    from worker.tasks import ListeningPool, register_look

    store = JobStore.from_settings(settings)
    _wait_for(store.migrate)
    storage = ObjectStore.from_settings(settings)
    try:
        storage.ensure_bucket()
        check_broker(settings.redis_url)
    except TemporaryError as error:
        log.warning("starting_without", code=error.code, reason=error.message)
    remove_orphans()
    metrics = WorkerMetrics()
    metrics.serve(settings.worker_metrics_port)

    runner = Runner(
        settings, store, storage, child, options, metrics, name=name, finish_s=soft_shutdown_s(settings.grace_s)
    )
    sweeper = Sweeper(settings, store, metrics, ready=lambda: runner.ready, wake=runner.wake, name=name)
    retention = Retention(settings, store, storage)
    celery = make_celery(settings)
    register_look(celery, runner)

    def begin_shutdown(**_facts: Any) -> None:
        runner.begin_shutdown()

    # Celery's own logging set-up would replace ours; connecting anything here switches it off.
    signals.setup_logging.connect(_keep_logging)
    signals.worker_shutting_down.connect(begin_shutdown)
    # One job at a time. A thread, so that the main one keeps talking to the queue server and hears signals.
    served = celery.Worker(
        pool=ListeningPool,
        concurrency=1,
        hostname=f"animato@{name}",
        loglevel=settings.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    try:
        runner.start()
        sweeper.start()
        retention.start()
        # All that was imported stays: a collection that walks through it stops both lanes for a quarter of a second.
        gc.freeze()
        served.start()
    finally:
        runner.begin_shutdown()
        runner.join()
        sweeper.close()
        retention.close()
        store.close()
    log.info("worker_stopped")
    return int(served.exitcode or 0)


def _wait_for(action: Callable[[], None]) -> None:
    """Do something that needs the database, which may still be starting. Raises: TemporaryError after a minute."""
    deadline_s = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            return action()
        except TemporaryError as error:
            if time.monotonic() > deadline_s:
                raise
            log.warning("waiting_to_start", code=error.code, reason=error.message)
            time.sleep(1.0)


def _leave_early(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _keep_logging(**_facts: Any) -> None:
    return None


def leave(exit_code: int) -> NoReturn:
    """End the process at once: all is closed by now, and collecting what these libraries leave takes a second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    leave(main())
