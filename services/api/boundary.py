"""The outermost wall of the API: request ids, security headers, the access log, timing, and the last catch of errors.

Pure ASGI, so that streams stream. Knows no route and no room below.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import MutableMapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.limits import RATE_HEADERS
from services.api.metrics import ApiMetrics
from services.api.problems import answer_internal
from services.jobs.contract import is_job_id
from services.tracing import Span, open_span, read_traceparent

_log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
# Asked every few seconds by machines: neither logged nor traced.
_WATCHERS = frozenset({"/livez", "/readyz", "/metrics"})

# Answers of the API are data: nothing in them may run, frame or be read by another origin.
_SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Boundary:
    """ASGI middleware around everything else."""

    def __init__(self, app: ASGIApp, metrics: ApiMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _choose_request_id(headers)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        with _open_request(scope, headers) as span:
            if span.trace_id is not None:
                structlog.contextvars.bind_contextvars(trace_id=span.trace_id)
            await self._serve(scope, headers, receive, send, request_id, span)

    async def _serve(
        self, scope: Scope, headers: Headers, receive: Receive, send: Send, request_id: str, span: Span
    ) -> None:
        started_s = time.perf_counter()
        answer: dict[str, Any] = {"status": 0, "answered_s": 0.0}

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                answer["answered_s"] = time.perf_counter() - started_s
                _mark(message, scope, request_id, span)
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        # The last catch: a bug answers as a problem document that tells nothing, and the log tells everything.
        except Exception as error:
            _log.exception("request_failed", method=scope["method"], route=_name_route(scope))
            span.fail(type(error).__name__)
            if not answer["status"]:
                await answer_internal()(scope, receive, send_marked)
            else:
                raise  # the answer has begun: only a broken connection tells the client
        finally:
            self._record(scope, answer, time.perf_counter() - started_s, span)

    def _record(self, scope: Scope, answer: dict[str, Any], duration_s: float, span: Span) -> None:
        route, method = _name_route(scope), scope["method"]
        status = answer["status"] or 499  # the client went away before an answer
        waited_s = scope.get("state", {}).get("waited_s", 0.0)
        self.metrics.observe(method, route, status, max(0.0, (answer["answered_s"] or duration_s) - waited_s))
        job_id = _find_job_id(scope)
        about = {} if job_id is None else {"job_id": job_id}
        write = _log.debug if route in _WATCHERS else _log.info
        # The route's template and no path, query or body: logs carry no prompt and no key.
        write("request", method=method, route=route, status=status, duration_ms=round(duration_s * 1e3, 1), **about)
        span.rename(f"{method} {route}")
        span.note({"http.request.method": method, "http.route": route, "http.response.status_code": status})
        if job_id is not None:
            span.note({"animato.job.id": job_id})
        if status >= 500 and not span.failed:
            span.fail(str(status))


def _open_request(scope: Scope, headers: Headers) -> AbstractContextManager[Span]:
    """Return the span of a request, below the client's own where it sent one."""
    parent = read_traceparent(headers.get("traceparent"))
    if scope["path"] in _WATCHERS:
        return nullcontext(Span(None, parent))
    return open_span("request", "server", parent=parent)


def _find_job_id(scope: Scope) -> str | None:
    """Return the id of the job that a request was about: it stands in the path, or its route has made the job."""
    found = scope.get("path_params", {}).get("job_id") or scope.get("state", {}).get("job_id")
    return found if isinstance(found, str) and is_job_id(found) else None


def _choose_request_id(headers: Headers) -> str:
    sent = headers.get("x-request-id", "")
    # It opens nothing, so it need not be hard to guess: the kernel's random numbers take longer than all else here.
    return sent if _REQUEST_ID.fullmatch(sent) else f"{random.getrandbits(128):032x}"


def _mark(message: MutableMapping[str, Any], scope: Scope, request_id: str, span: Span) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-ID"] = request_id
    if span.traceparent is not None:
        headers["traceparent"] = span.traceparent
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if scope.get("scheme") == "https":  # browsers ignore it elsewhere, and a service on loopback must not ask for TLS
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    headers.update(scope.get("state", {}).get(RATE_HEADERS, {}))


def _name_route(scope: Scope) -> str:
    """Return the template of the route that was found; never the path itself."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) and path else "unmatched"
