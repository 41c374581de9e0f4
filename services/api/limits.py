"""How often a client may post, and how the answers tell of it (draft-ietf-httpapi-ratelimit-headers-11).

Counted in this process and on its event loop: no request waits for another server to be counted, and none is lost when
one dies. N replicas let N times as much through; what bounds the queue is counted in SQL (``owner_queue_limit``).
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request

from services.api.auth import Client
from services.errors import TemporaryError
from services.settings import Settings

WINDOW_S = 60
RATE_HEADERS = "rate_headers"  # where a request's state keeps them for its answer, whatever that becomes
MAX_CLIENTS = 100_000  # some 20 MB; more addresses than that in a minute are an attack, and the oldest are forgotten


@dataclass
class _Window:
    """One client's minute: it begins with the client's first post."""

    ends_s: float
    used: int = 0


class PostLimiter:
    """Counts posts a minute, for each key or, where no keys are asked for, for each address.

    Args:
        per_key: posts a minute and key; 0 is no limit.
        per_address: the same for each address of clients without keys.
        clock: monotonic seconds; only tests pass one.
    """

    def __init__(self, per_key: int, per_address: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_key = per_key
        self._per_address = per_address
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> PostLimiter:
        """Return the limiter that the settings name."""
        return cls(settings.key_rate_limit, settings.address_rate_limit)

    def count(self, client: Client, address: str) -> tuple[dict[str, str], TemporaryError | None]:
        """Count one post; returns the headers of its answer, and the refusal where it was one too many."""
        quota = self._per_address if client.key_id is None else self._per_key
        if quota == 0:
            return {}, None
        now_s = self._clock()
        window = self._find_window(_name_network(address) if client.key_id is None else client.key_id, now_s)
        too_many = window.used >= quota
        window.used += not too_many
        left_s = max(1, math.ceil(window.ends_s - now_s))
        headers = {
            "RateLimit-Policy": f'"posts";q={quota};w={WINDOW_S}',
            "RateLimit": f'"posts";r={quota - window.used};t={left_s}',
        }
        return headers, _refuse(quota, left_s) if too_many else None

    def _find_window(self, name: str, now_s: float) -> _Window:
        window = self._windows.get(name)
        if window is None or window.ends_s <= now_s:
            # Put in anew, so that the windows stand in the order in which they end.
            self._windows.pop(name, None)
            window = self._windows[name] = _Window(now_s + WINDOW_S)
            self._forget(now_s)
        return window

    def _forget(self, now_s: float) -> None:
        """Drop what has ended, two at a time: the work of a request does not grow with the number of clients."""
        for _ in range(2):
            name, oldest = next(iter(self._windows.items()))
            if oldest.ends_s > now_s and len(self._windows) <= MAX_CLIENTS:
                return
            del self._windows[name]


def read_address(request: Request) -> str:
    """Return the address of the client, as the server or a trusted proxy in front of it tells it."""
    return request.client.host if request.client is not None else ""


def _name_network(address: str) -> str:
    """Return what one client can't change at will: an IPv4 address, the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped or ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _refuse(quota: int, left_s: int) -> TemporaryError:
    return TemporaryError(
        "rate-limited",
        f"More than {quota} posts within {WINDOW_S} seconds.",
        "Wait as long as Retry-After says; RateLimit tells what is left.",
        delay_s=left_s,
    )
