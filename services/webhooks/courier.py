"""The courier: takes due deliveries from the outbox, signs them, calls their receivers, writes down how that went.

It lives in the API's process, the only one with a way out; any number of them may run at once. What it holds when it is
killed comes back when its lease lapses, so that an event arrives at least once, under one id. Imports no web framework:
how a job is shown is handed in.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, Self

import structlog

from services.errors import AnimatoError, RequestError
from services.jobs.contract import JobRecord
from services.jobs.deliveries import Delivery, Parcel
from services.jobs.store import JobStore
from services.outbound.client import Answered
from services.settings import Settings
from services.tracing import Span, open_span
from services.webhooks.receivers import Receivers
from services.webhooks.schedule import choose_delay_s
from services.webhooks.signing import sign

POLL_S = 1.0
PAUSE_AFTER_TROUBLE_S = 5.0
# A lease outlasts a call by far, so that only the dead lose one; and it is how long a killed courier's calls wait.
_LEASE_IN_TIMEOUTS = 3

_log = structlog.get_logger(__name__)


class Posts(Protocol):
    """The one method of ``services.outbound.Outbound`` that is needed here."""

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Answered:
        """Send a body and return how it was answered."""


@dataclass(frozen=True)
class _Outcome:
    """What a try came to: why it is no delivery (None: it is one), the receiver's status, and the pause it asks for."""

    fault: str | None
    status: int | None = None
    duration_s: float = 0.0
    wished_s: float | None = None


class Courier:
    """Delivers webhooks in the background.

    Args:
        store: where the outbox is.
        outbound: the way out.
        describe: a job as the API shows it.
        concurrency: calls under way at once.
        timeout_s: of one call.
        delays_s: the pauses between the tries of one event.
        on_try: told of each try that was written down: delivered, retried or abandoned.
    """

    def __init__(
        self,
        store: JobStore,
        outbound: Posts,
        *,
        describe: Callable[[JobRecord], dict[str, Any]],
        concurrency: int,
        timeout_s: float,
        delays_s: Sequence[float],
        on_try: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        self._store = store
        self._outbound = outbound
        self._describe = describe
        self._timeout_s = timeout_s
        self._delays_s = tuple(delays_s)
        self._on_try = on_try
        self._receivers = Receivers(concurrency)
        self._closing = threading.Event()
        self._wake = threading.Event()
        self._under_way: set[threading.Thread] = set()
        self._thread = threading.Thread(target=self._loop, name="courier", daemon=True)

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        store: JobStore,
        outbound: Posts,
        *,
        describe: Callable[[JobRecord], dict[str, Any]],
        on_try: Callable[[str], None] = lambda _outcome: None,
    ) -> Self:
        """Return the courier that the settings describe."""
        return cls(
            store,
            outbound,
            describe=describe,
            concurrency=settings.webhook_concurrency,
            timeout_s=settings.webhook_timeout_s,
            delays_s=settings.webhook_delays_s,
            on_try=on_try,
        )

    def start(self) -> None:
        """Begin to deliver, unless the concurrency is 0."""
        if self._receivers.plan().free:
            self._thread.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Begin no more calls and wait for those under way; what takes longer is delivered by the next courier."""
        self._closing.set()
        self._wake.set()
        if self._thread.ident is None:
            return
        deadline_s = time.monotonic() + timeout_s
        for thread in (self._thread, *tuple(self._under_way)):
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _loop(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            pause_s = POLL_S
            try:
                if self._begin_due():
                    continue
            except AnimatoError as error:
                _log.warning("webhooks_wait", code=error.code, reason=error.message)
                pause_s = PAUSE_AFTER_TROUBLE_S
            # Whatever it was, a courier that goes home in silence would be worse.
            except Exception:  # noqa: BLE001
                _log.exception("courier_stumbled")
                pause_s = PAUSE_AFTER_TROUBLE_S
            self._wake.wait(pause_s)  # a call that ends makes room for the next one

    def _begin_due(self) -> int:
        """Begin as many calls as are due and have room; returns how many."""
        plan = self._receivers.plan()
        parcels = self._store.claim_deliveries(
            plan.free,
            _LEASE_IN_TIMEOUTS * self._timeout_s,
            avoid=plan.avoid,
            avoid_owners=plan.avoid_owners,
            admits=plan.admits,
        )
        for parcel in parcels:
            self._receivers.begin(parcel.delivery.address)
            thread = threading.Thread(target=self._deliver, args=(parcel,), name="webhook", daemon=True)
            self._under_way.add(thread)
            try:
                thread.start()
            except RuntimeError:  # no more threads to be had; the lease lapses, and the event is told later
                self._leave(parcel, thread, well=True)
                raise
        return len(parcels)

    def _deliver(self, parcel: Parcel) -> None:
        """Make one try, on a thread of its own."""
        well = True
        try:
            well = self._try(parcel)
        except AnimatoError as error:
            # Our own database is away: the lease lapses, and the event is told again.
            _log.warning("webhook_unsettled", code=error.code, **_name(parcel.delivery))
        # The thread's last catch: a bug is told in the log, and the event again when the lease lapses.
        except Exception:  # noqa: BLE001
            _log.exception("webhook_broken", **_name(parcel.delivery))
        finally:
            self._leave(parcel, threading.current_thread(), well=well)
            self._wake.set()

    def _leave(self, parcel: Parcel, thread: threading.Thread, *, well: bool) -> None:
        """Make room for another call."""
        self._receivers.end(parcel.delivery.address, answered=well)
        self._under_way.discard(thread)

    def _try(self, parcel: Parcel) -> bool:
        """Call the receiver and write down what came of it; returns whether the receiver is well, as far as we know.

        Raises: TemporaryError("not-ready") when the database is away.
        """
        delivery = parcel.delivery
        record = self._store.get(delivery.job_id)
        if record is None:
            return True  # deleted meanwhile, and its deliveries with it
        live = [made.secret for made in self._store.list_webhook_secrets(delivery.owner)]
        if not live:
            self._settle(parcel, _Outcome("there is no secret to sign it with: POST /v1/webhooks/secrets makes one"))
            return True
        outcome = self._call(delivery, record, live)
        self._settle(parcel, outcome)
        return outcome.fault is None

    def _call(self, delivery: Delivery, record: JobRecord, live_secrets: Sequence[str]) -> _Outcome:
        body = render_event(delivery, self._describe(record))
        headers = sign(delivery.id, body, datetime.now(UTC), live_secrets) | {"Content-Type": "application/json"}
        started_s = time.monotonic()
        with _open_span(delivery, record) as span:
            try:
                answered = self._outbound.post(
                    delivery.url, body=body.encode(), headers=headers, timeout_s=self._timeout_s
                )
            except RequestError as error:
                span.fail(error.code)
                return _Outcome(error.message, duration_s=time.monotonic() - started_s)
            fault = _find_fault(answered.status)
            span.note({"http.response.status_code": answered.status})
            if fault is not None:
                span.fail(str(answered.status))
        return _Outcome(fault, answered.status, answered.duration_s, answered.retry_after_s)

    def _settle(self, parcel: Parcel, outcome: _Outcome) -> None:
        delivery, delay_s = parcel.delivery, None
        if outcome.fault is not None:
            age_s = (datetime.now(UTC) - delivery.asked_at).total_seconds()
            delay_s = choose_delay_s(delivery.tries + 1, outcome.status, age_s, self._delays_s, outcome.wished_s)
        settled = self._store.settle_delivery(
            parcel, status=outcome.status, reason=outcome.fault, duration_s=outcome.duration_s, delay_s=delay_s
        )
        # The URL stays out of the log: receivers keep secrets in it.
        write = _log.bind(**_name(delivery), webhook=delivery.event, status=outcome.status)
        if not settled:
            write.warning("webhook_lost", consequence="another courier tells it again, or its job was deleted")
            return
        if outcome.fault is None:
            write.info("webhook_delivered", tries=delivery.tries + 1)
        else:
            write.warning("webhook_failed", tries=delivery.tries + 1, reason=outcome.fault, next_in_s=delay_s)
        self._on_try("delivered" if outcome.fault is None else "abandoned" if delay_s is None else "retried")


def render_event(delivery: Delivery, job: dict[str, Any]) -> str:
    """Return the body that tells an event: the job as the API shows it, with the event's name and time."""
    happened_at = delivery.created_at.isoformat().replace("+00:00", "Z")
    event = {"type": delivery.event, "timestamp": happened_at, "data": job}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


def _name(delivery: Delivery) -> dict[str, str]:
    """Return what every line of the log says about a delivery."""
    return {"job_id": delivery.job_id, "delivery_id": delivery.id}


def _open_span(delivery: Delivery, record: JobRecord) -> AbstractContextManager[Span]:
    """Record a call in the trace of the job's request; without its URL, in which receivers keep secrets."""
    about: dict[str, str | int] = {
        "animato.job.id": record.id,
        "animato.delivery.id": delivery.id,
        "animato.webhook.event": delivery.event,
        "animato.webhook.try": delivery.tries + 1,
    }
    return open_span("deliver webhook", "client", parent=record.traceparent, attributes=about)


def _find_fault(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return "it redirects, and redirects are not followed"
    return "it says that the address is gone for good" if status == 410 else "it answered with an error"
