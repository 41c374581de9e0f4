"""The queue: a Celery application that carries hints by task name, and the check of the server behind it.

Besides ``worker/app.py`` and ``worker/tasks.py`` this is the only importer of Celery. The queue is never asked about
the state of a job: the job store knows.
"""

from __future__ import annotations

import redis
import structlog
from celery import Celery
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.errors import PermanentError, TemporaryError
from services.jobs.dispatch import TASK_LOOK
from services.settings import Settings

__all__ = ["QUEUE", "TASK_LOOK", "HintQueue", "check_broker", "make_celery"]

QUEUE = "animato"
SOCKET_TIMEOUT_S = 2

_log = structlog.get_logger(__name__)


def make_celery(settings: Settings) -> Celery:
    """Return a Celery application for ``HintQueue`` to publish hints, or for ``worker/app.py`` to serve them."""
    celery = Celery("animato", broker=settings.redis_url, set_as_current=False)
    celery.conf.update(
        # A hint is acknowledged before it is handled: a lost one is made good by the sweep, while an unacknowledged one
        # would come back after the visibility timeout, beside the job that still runs.
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        task_default_queue=QUEUE,
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        enable_utc=True,
        timezone="UTC",
        task_publish_retry=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=SOCKET_TIMEOUT_S,
        broker_transport_options={
            "socket_timeout": SOCKET_TIMEOUT_S,
            "socket_connect_timeout": SOCKET_TIMEOUT_S,
            "socket_keepalive": True,
            "retry_on_timeout": False,
            "health_check_interval": 10,
        },
        # Nobody commands workers through the queue server; cancel and drain go through the job store and signals.
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_soft_shutdown_timeout=soft_shutdown_s(settings.grace_s),
    )
    return celery


class HintQueue:
    """The hints in the queue, as the dispatcher sees them. Connects when it is used. Not shared between threads."""

    def __init__(self, settings: Settings) -> None:
        self._celery = make_celery(settings)
        # No second try: who waits behind it is worth more than one hint.
        self._server = redis.Redis.from_url(
            settings.redis_url,
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )

    def publish(self, job_id: str) -> None:
        """Put a hint into the queue. Raises: whatever kombu, redis and sockets fail with."""
        self._celery.send_task(TASK_LOOK, args=(job_id,), ignore_result=True, retry=False)

    def count_unread(self) -> int:
        """Return how many hints no worker has taken yet. Raises: as ``publish``."""
        return int(self._server.llen(QUEUE))

    def close(self) -> None:
        """Close the connections."""
        self._server.close()
        self._celery.close()


def soft_shutdown_s(grace_s: float) -> float:
    """Return how long a worker may finish up after SIGTERM: clearly shorter than the grace period before SIGKILL."""
    return max(0.5, min(grace_s - 5.0, grace_s * 0.6)) if grace_s > 6.0 else grace_s * 0.5


def check_broker(redis_url: str) -> None:
    """Refuse a queue server that evicts keys when its memory is full.

    Raises: PermanentError("broker-evicts"); TemporaryError("not-ready") when the server does not answer.
    """
    client = redis.Redis.from_url(redis_url, socket_timeout=SOCKET_TIMEOUT_S, socket_connect_timeout=SOCKET_TIMEOUT_S)
    try:
        policy = client.config_get("maxmemory-policy").get("maxmemory-policy")
    except (redis.exceptions.ResponseError, redis.exceptions.NoPermissionError):
        # Hosted servers forbid CONFIG; their policy is the operator's to know.
        _log.warning("broker_policy_unknown", advice="make sure that maxmemory-policy is noeviction")
        return
    except (redis.exceptions.RedisError, OSError) as error:
        raise TemporaryError(
            "not-ready",
            "The queue server does not answer.",
            "Start it, or correct ANIMATO_REDIS_URL.",
            delay_s=2.0,
        ) from error
    finally:
        client.close()
    if policy is not None and policy != "noeviction":
        raise PermanentError(
            "broker-evicts",
            f"The queue server drops data when its memory is full (maxmemory-policy is {policy}).",
            "Set maxmemory-policy to noeviction in its configuration, or name another server in ANIMATO_REDIS_URL.",
        )
