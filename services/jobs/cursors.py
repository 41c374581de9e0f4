"""Cursors of pages: where a page ended, in a text that clients hand back as it is. No SQL in here."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime

from services.errors import RequestError

_ID = re.compile(r"[a-z]{3}_[0-9a-f]{32}")


def make_cursor(created_at: datetime, row_id: str) -> str:
    """Return the cursor of a page that ends with this row."""
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {row_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[datetime, str]:
    """Return the last row of the page before: when it was made, and its id.

    Raises: RequestError("validation-failed") for a text that ``make_cursor`` did not make.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        created_at, row_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
        moment = datetime.fromisoformat(created_at).astimezone(UTC)
    except (ValueError, OverflowError, binascii.Error):
        row_id = ""
    if not _ID.fullmatch(row_id):
        raise RequestError(
            "validation-failed", "The cursor is not one of this service.", "Use next_cursor of the previous page as is."
        )
    return moment, row_id
