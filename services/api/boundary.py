"""The outermost wall of the API: request ids, security headers, the access log, timing, and the last catch of errors.

Pure ASGI, so that streams stream. Knows no route and no room below.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.api.metrics import HttpMetrics
from services.api.problems import answer_error, answer_internal
from services.errors import RequestError

_log = structlog.get_logger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

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

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
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
        structlog.contextvars.bind_contextvars(request_id=request_id, **_read_trace(headers))
        started_s = time.perf_counter()
        answer: dict[str, Any] = {"status": 0, "answered_s": 0.0}

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer["status"] = message["status"]
                answer["answered_s"] = time.perf_counter() - started_s
                _mark(message, request_id)
            await send(message)

        try:
            if scope["method"] not in _SAFE_METHODS and _is_cross_site(headers):
                await answer_error(_cross_site())(scope, receive, send_marked)
            else:
                await self.app(scope, receive, send_marked)
        # The last catch: a bug answers as a problem document that tells nothing, and the log tells everything.
        except Exception:
            _log.exception("request_failed", method=scope["method"], route=_name_route(scope))
            if not answer["status"]:
                await answer_internal()(scope, receive, send_marked)
            else:
                raise  # the answer has begun: only a broken connection tells the client
        finally:
            self._record(scope, answer, time.perf_counter() - started_s)

    def _record(self, scope: Scope, answer: dict[str, Any], duration_s: float) -> None:
        route = _name_route(scope)
        status = answer["status"] or 499  # the client went away before an answer
        self.metrics.observe(scope["method"], route, status, answer["answered_s"] or duration_s)
        write = _log.debug if route in ("/livez", "/readyz", "/metrics") else _log.info
        # The route's template and no path, query or body: logs carry no prompt and no key.
        write("request", method=scope["method"], route=route, status=status, duration_ms=round(duration_s * 1e3, 1))


def _choose_request_id(headers: Headers) -> str:
    sent = headers.get("x-request-id", "")
    return sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _read_trace(headers: Headers) -> dict[str, str]:
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return {} if found is None else {"trace_id": found[1]}


def _mark(message: MutableMapping[str, Any], request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-ID"] = request_id
    for name, value in _SECURITY_HEADERS.items():
        headers.setdefault(name, value)


def _name_route(scope: Scope) -> str:
    """Return the template of the route that was found; never the path itself."""
    route = scope.get("route")
    path = getattr(route, "path", None)
    return path if isinstance(path, str) and path else "unmatched"


def _is_cross_site(headers: Headers) -> bool:
    """Return whether a browser says that another site's page sends this (a page could post to a loopback service)."""
    return headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")


def _cross_site() -> RequestError:
    return RequestError(
        "forbidden",
        "Pages of other sites may not call this service.",
        "Call it from its own page, or from a program.",
    )
