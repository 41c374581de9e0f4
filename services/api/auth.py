"""Who asks: turns a request into the name of an owner. Keys are to come; now every request is the same owner's.

The routes know only ``Authenticator``; another one can be put in its place without touching them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from starlette.requests import Request

from services.errors import PermanentError

ANONYMOUS = "anonymous"

Authenticator = Callable[[Request], str]


def make_authenticator(auth: str, host: str) -> Authenticator:
    """Return the function that names the owner of a request.

    Args:
        auth: ``"off"``, ``"on"``, or ``"auto"`` (off when bound to loopback, on otherwise).
        host: the address that the API is bound to.

    Raises:
        PermanentError: settings-invalid when keys would be needed; it must not start as if it were protected.
    """
    if auth == "on" or (auth == "auto" and not _is_loopback(host)):
        raise PermanentError(
            "settings-invalid",
            "This version has no API keys yet, so it can't start with authentication on"
            f" (ANIMATO_AUTH={auth}, ANIMATO_HOST={host}).",
            "Bind it to 127.0.0.1, or set ANIMATO_AUTH=off if something in front of it decides who may call it.",
        )
    return _name_anonymous


def _name_anonymous(_: Request) -> str:
    return ANONYMOUS


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
