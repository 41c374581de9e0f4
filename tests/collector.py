"""A real OTLP receiver for the tests: an HTTP server that keeps every span that it is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class SeenSpan:
    """One span as it came over the wire; ids in hex, ``parent`` empty for a root."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: str
    error: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, object]


class Collector:
    """What was received, and how the server is to answer."""

    def __init__(self) -> None:
        self.spans: list[SeenSpan] = []
        self.raw = b""
        self.url = ""
        self._lock = threading.Lock()

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
        from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.raw += body
            for part in request.resource_spans:
                named = {pair.key: _value(pair.value) for pair in part.resource.attributes}
                self.spans += [
                    SeenSpan(
                        service=str(named["service.name"]),
                        name=span.name,
                        trace=span.trace_id.hex(),
                        id=span.span_id.hex(),
                        parent=span.parent_span_id.hex(),
                        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                        error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else "",
                        began_ns=span.start_time_unix_nano,
                        ended_ns=span.end_time_unix_nano,
                        attributes={pair.key: _value(pair.value) for pair in span.attributes},
                    )
                    for scope in part.scope_spans
                    for span in scope.spans
                ]

    def of_trace(self, trace: str) -> list[SeenSpan]:
        """The spans of one trace, in the order in which they began."""
        with self._lock:
            return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.began_ns)

    def named(self, name: str) -> list[SeenSpan]:
        with self._lock:
            return [span for span in self.spans if span.name == name]


def _value(value: object) -> object:
    kind = value.WhichOneof("value")  # type: ignore[attr-defined]
    return None if kind is None else getattr(value, kind)


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Yield a collector that listens on a loopback port of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if known:
                collector.take(body)
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        try:
            yield collector
        finally:
            server.shutdown()
            serving.join()
