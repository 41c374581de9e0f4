"""Lists in pages: how an answer leads to the page behind it. Knows neither jobs nor deliveries."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from pydantic import BaseModel

# As openapi.yaml describes it.
LINK_HEADER: dict[str, Any] = {"Link": {"description": 'rel="next"', "schema": {"type": "string"}}}


def link_next(path: str, query: BaseModel, next_cursor: str | None) -> dict[str, str]:
    """Return the header that names the next page, with all that the client asked of this one; none on the last page."""
    if next_cursor is None:
        return {}
    following = query.model_dump(mode="json", exclude_none=True) | {"cursor": next_cursor}
    return {"Link": f'<{path}?{urlencode(following)}>; rel="next"'}
