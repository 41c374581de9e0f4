"""``Idempotency-Key``: reads the header and keeps the job store's promise that one key makes one job. No routes."""

from __future__ import annotations

import re

from services.errors import RequestError

HEADER = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def read_key(header: str | None) -> str | None:
    """Return the client's key, or None when it sent none.

    Raises:
        RequestError: validation-failed for a key that is empty, longer than 255 characters or not plain ASCII.
    """
    if header is None:
        return None
    key = header.strip()
    if not _KEY.fullmatch(key):
        detail = "The Idempotency-Key must have 1 to 255 printable ASCII characters."
        raise RequestError(
            "validation-failed",
            detail,
            "Send a UUID, a new one for each new job.",
            errors=[{"parameter": HEADER, "detail": detail}],
        )
    return key
