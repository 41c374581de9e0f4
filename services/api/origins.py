"""What browsers may do to the service: which names it answers to, and whose pages may call it.

A page of any site can make a browser send requests to a service on this machine. Three rules keep it out. *Hosts*:
where no keys are asked for, the Host header must not be a name that another site can own (DNS rebinding). *Sites*: what
changes something must come from the service's own page or from a program. *CORS*: other sites read nothing unless
``cors_origins`` names them, and never with credentials: a page must set the header with its key by itself. Pure ASGI.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.api.problems import answer_error
from services.errors import RequestError
from services.settings import Settings, is_loopback

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*))(?::[0-9]*)?")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = ("GET", "HEAD", "POST", "DELETE")
_REQUEST_HEADERS = (
    "Authorization",
    "Idempotency-Key",
    "If-None-Match",
    "Last-Event-ID",
    "Prefer",
    "Range",
    "traceparent",
    "X-API-Key",
    "X-Request-ID",
)
_ANSWER_HEADERS = (
    "Content-Disposition",
    "ETag",
    "Idempotent-Replayed",
    "Link",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "traceparent",
    "WWW-Authenticate",
    "X-Request-ID",
)


class Origins:
    """ASGI middleware that refuses what only a hostile page would send.

    Args:
        app: what is behind it.
        settings: names and sites that are allowed, and how the service is bound.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._hosts = _choose_hosts(settings)
        self._origins = settings.cors_origins
        self._app = _open_cors(app, settings.cors_origins) if settings.cors_origins else app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            refusal = self._judge(scope["method"], Headers(scope=scope))
            if refusal is not None:
                await answer_error(refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _judge(self, method: str, headers: Headers) -> RequestError | None:
        if self._hosts is not None and not all(_is_trusted(host, self._hosts) for host in headers.getlist("host")):
            return RequestError(
                "forbidden",
                "This service does not answer to this host name.",
                "Call it by its address or as localhost, or list the name in ANIMATO_TRUSTED_HOSTS.",
            )
        if method not in _SAFE_METHODS and _is_cross_site(headers) and not self._is_open_to(headers.get("origin")):
            return RequestError(
                "forbidden",
                "Pages of other sites may not call this service.",
                "Call it from its own page or from a program, or list the site in ANIMATO_CORS_ORIGINS.",
            )
        return None

    def _is_open_to(self, origin: str | None) -> bool:
        return origin is not None and (origin in self._origins or "*" in self._origins)


def _choose_hosts(settings: Settings) -> tuple[str, ...] | None:
    """Return the names that the service answers to besides those that nobody else can own; None: to any."""
    if "*" in settings.trusted_hosts:
        return None
    if settings.trusted_hosts:
        return settings.trusted_hosts
    if settings.keys_needed or not is_loopback(settings.host):
        return None  # a key protects it, or whoever put it there without one has something in front of it
    return ()


def _is_trusted(host: str, names: Sequence[str]) -> bool:
    """Return whether no hostile page can have come by this Host header.

    DNS rebinding needs a name in the public DNS: an address is none, and neither is a name without a dot, such as
    ``localhost`` or that of a container beside this one.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = (found[1] or found[2]).rstrip(".").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        return True
    if "." not in name or name.endswith(".localhost"):
        return True
    return any(name == known or (known.startswith("*.") and name.endswith(known[1:])) for known in names)


def _is_cross_site(headers: Headers) -> bool:
    """Return whether a browser says that another site's page sends this."""
    return headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")


def _open_cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    return _Cors(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
    )


class _Cors(CORSMiddleware):
    """Starlette's, with refusals that are problem documents like every other."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        return answer_error(
            RequestError(
                "forbidden",
                "Pages of this site may not send this request.",
                "ANIMATO_CORS_ORIGINS lists the sites; the API's description lists its methods and headers.",
            )
        )
