"""Conditional requests: ETags and ``If-None-Match``. Knows headers only."""

from __future__ import annotations

import re

_TAG = re.compile(r'(?:W/)?("[^"]*")')


def make_etag(revision: int, queue_position: int | None = None) -> str:
    """Return the weak ETag of a job's state: its revision, and its place in the queue (which moves without one)."""
    return f'W/"{revision}"' if queue_position is None else f'W/"{revision}.{queue_position}"'


def matches(if_none_match: str | None, etag: str) -> bool:
    """Return whether the client already holds this version (weak comparison of RFC 9110)."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag.removeprefix("W/") in _TAG.findall(if_none_match)
