"""Spans go to a real OTLP receiver, quote nothing, and cost nothing where nobody asked for them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from services import tracing
from services.tracing import (
    current_traceparent,
    open_span,
    read_traceparent,
    start_span,
    start_tracing,
    stop_tracing,
)
from tests.collector import Collector, running_collector

ROOT = Path(__file__).resolve().parents[2]
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"
CANARY = "c4n4ry"


@pytest.fixture(autouse=True)
def _no_tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    yield
    stop_tracing()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Tracing is on, into this collector; ``stop_tracing`` sends what is buffered."""
    with running_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        assert start_tracing("test")
        yield running


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (PARENT, PARENT),
        (f" {PARENT} ", PARENT),
        (UNSAMPLED, UNSAMPLED),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", PARENT),
        (None, None),
        ("", None),
        (CANARY, None),
        (PARENT.upper(), None),
        (f"{PARENT}-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01\n00-{TRACE}-{SPAN}-01", None),
    ],
)
def test_traceparents_are_read_as_the_standard_says(header: str | None, read: str | None) -> None:
    assert read_traceparent(header) == read


def test_without_a_collector_nothing_is_imported_and_a_clients_trace_is_handed_on() -> None:
    script = (
        "import sys; from services.tracing import *; "
        "assert not start_tracing('api'); "
        f"scope = open_span('request', 'server', parent='{PARENT}'); span = scope.__enter__(); "
        f"assert current_traceparent() == '{PARENT}' and span.trace_id == '{TRACE}'; "
        "scope.__exit__(None, None, None); assert current_traceparent() is None; stop_tracing(); "
        "print([name for name in sys.modules if name.startswith('opentelemetry') or name == 'requests'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "others",
    [{"OTEL_SDK_DISABLED": "TRUE"}, {"OTEL_TRACES_EXPORTER": "none"}],
    ids=["disabled", "no-exporter"],
)
def test_the_standard_variables_can_switch_it_off(monkeypatch: pytest.MonkeyPatch, others: dict[str, str]) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    assert not start_tracing("api")


def test_a_missing_extra_is_told_and_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with capture_logs() as lines:
        assert not start_tracing("api")
    assert [line["event"] for line in lines] == ["tracing_unavailable"]
    assert "[otel]" in lines[0]["advice"]
    with open_span("work"):
        assert current_traceparent() is None


def test_spans_stand_below_each_other_and_below_their_client(collector: Collector) -> None:
    with open_span("request", "server", parent=PARENT) as outer:
        outer.rename("POST /v1/animations")
        outer.note({"http.response.status_code": 202})
        handed_on = current_traceparent()
        with open_span("inside") as inner:
            assert current_traceparent() == inner.traceparent
        assert current_traceparent() == handed_on
    assert handed_on is not None
    with open_span("run animation", "consumer", parent=handed_on, attributes={"animato.attempt": 1}):
        start_span("render").end()
    stop_tracing()
    spans = {span.name: span for span in collector.of_trace(TRACE)}
    assert set(spans) == {"POST /v1/animations", "inside", "run animation", "render"}
    request, run = spans["POST /v1/animations"], spans["run animation"]
    assert (request.parent, request.kind, request.service) == (SPAN, "server", "animato-test")
    assert request.attributes == {"http.response.status_code": 202}
    assert spans["inside"].parent == request.id
    assert (run.parent, run.kind, run.attributes) == (request.id, "consumer", {"animato.attempt": 1})
    assert spans["render"].parent == run.id
    assert not any(span.error for span in spans.values())


def test_every_thread_has_a_trace_of_its_own(collector: Collector) -> None:
    seen: list[str | None] = []
    with open_span("mine"):
        other = threading.Thread(target=lambda: seen.append(current_traceparent()))
        other.start()
        other.join()
    assert seen == [None]


def test_what_a_client_did_not_sample_is_not_recorded_but_handed_on(collector: Collector) -> None:
    with open_span("request", "server", parent=UNSAMPLED) as span:
        assert span.trace_id == TRACE
        assert current_traceparent() is not None
        assert str(current_traceparent()).endswith("-00")
        start_span("inside").end()
    with open_span("another"):
        pass
    stop_tracing()
    assert [span.name for span in collector.spans] == ["another"]


def test_a_failure_is_named_and_not_quoted(collector: Collector) -> None:
    def fail(name: str, code: str | None) -> None:
        with open_span(name) as span:
            if code is not None:
                span.fail(code)
            raise ValueError(CANARY)

    for name, code in (("by class", None), ("by code", "worker-lost")):
        with pytest.raises(ValueError, match=CANARY):
            fail(name, code)
    stop_tracing()
    assert {span.name: span.error for span in collector.spans} == {"by class": "ValueError", "by code": "worker-lost"}
    assert {span.attributes["error.type"] for span in collector.spans} == {"ValueError", "worker-lost"}
    assert CANARY.encode() not in collector.raw


def test_work_can_have_begun_before(collector: Collector) -> None:
    start_span("wait", parent=PARENT, since=datetime.now(UTC) - timedelta(hours=1)).end()
    stop_tracing()
    (span,) = collector.spans
    assert 3600e9 <= span.ended_ns - span.began_ns < 2 * 3600e9


def test_the_services_name_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{running.url}/v1/traces")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "faces")
        assert start_tracing("api")
        start_span("work").end()
        stop_tracing()
        assert [span.service for span in running.spans] == ["faces"]


@pytest.fixture
def black_hole() -> Iterator[Callable[[], str]]:
    """Make addresses that take a connection and never answer."""
    listeners: list[socket.socket] = []

    def make() -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield make
    for listener in listeners:
        listener.close()


def test_a_collector_that_is_silent_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, black_hole: Callable[[], str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", black_hole())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    assert start_tracing("api")
    for _ in range(5000):  # more than the buffer holds
        start_span("work").end()
    # An hour's time-out of the exporter would make this test hang if anything waited for it.
    stop_tracing(patience_s=0.1)
    assert tracing._provider is None


def test_a_second_start_changes_nothing(collector: Collector) -> None:
    assert start_tracing("test")
    start_span("work").end()
    stop_tracing()
    assert len(collector.spans) == 1
