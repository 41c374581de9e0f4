"""Traces: one job's way through API, queue, worker and webhook, sent by OTLP to the collector that is named.

Off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set; then nothing of OpenTelemetry is even imported, and all that is left
is handing a client's own ``traceparent`` on. Spans carry names, job ids, codes and counts; never a prompt, a picture, a
key, a URL or an exception's message. This room is the sole importer of OpenTelemetry and knows no other part.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider

Kind = Literal["internal", "server", "client", "consumer"]
Attributes = Mapping[str, str | int | float | bool]

FLUSH_PATIENCE_S = 2.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# https://www.w3.org/TR/trace-context/: a later version may add fields behind the four that we know.
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)

_log = structlog.get_logger(__name__)
_provider: TracerProvider | None = None
_tracer: trace.Tracer | None = None
_current: ContextVar[Span | None] = ContextVar("span", default=None)


class Span:
    """One piece of work, recorded or not; what is said of a span that is not recorded goes nowhere.

    ``traceparent`` is what others need to continue the trace here; None where there is no trace.
    """

    def __init__(self, recorded: trace.Span | None, traceparent: str | None) -> None:
        self._recorded = recorded
        self.traceparent = traceparent
        self.failed = False

    @property
    def trace_id(self) -> str | None:
        """The trace's id in hex, for the log."""
        return None if self.traceparent is None else self.traceparent.split("-")[1]

    def rename(self, name: str) -> None:
        """Change the name: a route is known only after its request was read."""
        if self._recorded is not None:
            self._recorded.update_name(name)

    def note(self, attributes: Attributes) -> None:
        """Add attributes."""
        if self._recorded is not None:
            self._recorded.set_attributes(dict(attributes))

    def fail(self, code: str) -> None:
        """Mark the work as failed, with an error code or an exception's class; never with a message."""
        self.failed = True
        if self._recorded is not None:
            from opentelemetry.trace import Status, StatusCode

            self._recorded.set_attribute("error.type", code)
            self._recorded.set_status(Status(StatusCode.ERROR, code))

    def end(self) -> None:
        """Say that the work is over."""
        if self._recorded is not None:
            self._recorded.end()


def start_tracing(service: str) -> bool:
    """Begin to send spans if the environment names a collector; returns whether they are sent.

    Called once a process by the composition roots. All standard ``OTEL_*`` variables of the SDK and its OTLP exporter
    hold. A collector that is away costs spans and nothing else: they wait in a bounded buffer and are sent by a thread.

    Args:
        service: "api" or "worker"; the service's name is ``animato-api`` where ``OTEL_SERVICE_NAME`` says nothing.
    """
    global _provider, _tracer  # noqa: PLW0603 - one exporter a process, as with logging
    if _provider is not None or not _is_wanted():
        return _provider is not None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        _log.warning("tracing_unavailable", advice="Install the extra otel: pip install -e '.[otel]'")
        return False
    named = OTELResourceDetector().detect().attributes
    _provider = TracerProvider(
        resource=Resource.create({"service.name": f"animato-{service}", **named}),
        shutdown_on_exit=False,  # it would wait for half a minute; stop_tracing does not
    )
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("animato")
    _log.info("tracing_on")
    return True


def stop_tracing(patience_s: float = FLUSH_PATIENCE_S) -> None:
    """Send what is left, within ``patience_s``, and stop; harmless where tracing is off."""
    global _provider, _tracer
    provider, _provider, _tracer = _provider, None, None
    if provider is None:
        return
    # The SDK waits 30 s for a collector that is away; a worker's grace period is as long as that.
    sending = threading.Thread(target=provider.shutdown, name="last-spans", daemon=True)
    sending.start()
    sending.join(patience_s)


def read_traceparent(header: str | None) -> str | None:
    """Return a ``traceparent`` header in version 00, or None when there is none that can be used."""
    found = _TRACEPARENT.fullmatch(header.strip()) if header is not None else None
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    if set(found["trace"]) == {"0"} or set(found["span"]) == {"0"}:
        return None
    return f"00-{found['trace']}-{found['span']}-{found['flags']}"


def current_traceparent() -> str | None:
    """Return how the work that is open here is named to others: what a job's row keeps for its worker."""
    span = _current.get()
    return None if span is None else span.traceparent


def start_span(
    name: str,
    kind: Kind = "internal",
    *,
    parent: str | None = None,
    attributes: Attributes | None = None,
    since: datetime | None = None,
) -> Span:
    """Begin a span that the caller ends; prefer ``open_span``.

    Args:
        name: few different ones: no ids.
        parent: a ``traceparent``; without one the span stands below the one that is open here, if any. A parent that
            was not sampled is respected.
        since: when the work began, where that was before now.
    """
    outer = _current.get()
    inherited = parent or (None if outer is None else outer.traceparent)
    if _tracer is None:
        return Span(None, inherited)
    from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

    recorded = _tracer.start_span(
        name,
        context=_context_of(inherited),
        kind=SpanKind[kind.upper()],
        attributes=None if attributes is None else dict(attributes),
        start_time=None if since is None else int(since.timestamp() * 1e9),
    )
    context = recorded.get_span_context()
    ids = f"{format_trace_id(context.trace_id)}-{format_span_id(context.span_id)}"
    return Span(recorded, f"00-{ids}-{context.trace_flags:02x}")


@contextmanager
def open_span(
    name: str, kind: Kind = "internal", *, parent: str | None = None, attributes: Attributes | None = None
) -> Iterator[Span]:
    """Record the block as a span; spans that begin inside it stand below it. See ``start_span``.

    An exception that leaves the block marks the span as failed with the exception's class; OpenTelemetry's own way
    would write its message and source lines into the span.
    """
    span = start_span(name, kind, parent=parent, attributes=attributes)
    token = _current.set(span)
    try:
        yield span
    except Exception as error:
        if not span.failed:
            span.fail(type(error).__name__)
        raise
    finally:
        _current.reset(token)
        span.end()


def _is_wanted() -> bool:
    asked = any(os.environ.get(name) for name in _ENDPOINTS)
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not asked or off or os.environ.get("OTEL_TRACES_EXPORTER", "otlp").strip().lower() not in ("", "otlp"):
        return False
    protocol = next((value for name in _PROTOCOLS if (value := os.environ.get(name))), "http/protobuf")
    if protocol != "http/protobuf":
        _log.warning("tracing_protocol_unknown", protocol=protocol, consequence="spans are sent as http/protobuf")
    return True


def _context_of(traceparent: str | None) -> Context:
    """Return what OpenTelemetry calls the context below a ``traceparent``; an empty one starts a new trace."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    if traceparent is None:
        return Context()
    _, trace_id, span_id, flags = traceparent.split("-")
    context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(context), Context())
