"""What schemathesis must be told about this API, and what it checks besides: loaded by ``SCHEMATHESIS_HOOKS``.

Requests stay as they were made up but for this: pictures, their URLs, webhooks and cursors are mostly real, so that
what lies behind is reached too; nobody waits a minute; and films are short, as a worker draws all that are accepted.
"""

from __future__ import annotations

import base64
import itertools
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import schemathesis

from services.jobs.cursors import make_cursor

# Where the driver serves a picture and takes webhooks.
URL = os.environ.get("CONTRACT_OUTSIDE", "https://example.com/face.png")
PICTURE = Path(os.environ["CONTRACT_PICTURE"]).read_bytes()
BASE64 = base64.b64encode(PICTURE).decode()
CURSOR = make_cursor(datetime.now(UTC), "anm_" + "0" * 32)
MOST_FRAMES = 6
# One in so many requests keeps what was made up.
KEEP_EVERY = 4
_PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "retryable", "hint"}
_calls = itertools.count(1)


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, **kwargs: Any) -> None:
    """Put in what a description can't: real pictures, URLs that answer, cursors; keep waits and films short."""
    made_up = next(_calls) % KEEP_EVERY == 0 and case.meta is not None and not is_valid(case)
    for name in [name for name in case.headers or {} if name.lower() == "prefer"]:
        case.headers[name] = re.sub(r"[0-9]{2,}", "1", str(case.headers[name]))
    if isinstance((case.query or {}).get("cursor"), str) and not made_up:
        case.query["cursor"] = CURSOR
    body = case.body
    if not isinstance(body, dict):
        return
    replace(body, "image", PICTURE, made_up)
    replace(body, "image_base64", BASE64, made_up)
    replace(body, "image_url", URL, made_up)
    if isinstance(body.get("webhook"), dict):
        replace(body["webhook"], "url", URL, made_up)
    if isinstance(body.get("frames"), int) and body["frames"] > MOST_FRAMES:
        body["frames"] = MOST_FRAMES
    if isinstance(body.get("duration_s"), int | float) and body["duration_s"] > 0.5:
        body["duration_s"] = 0.5


def is_valid(case: schemathesis.Case) -> bool:
    """Tell whether a request was made up to be in order."""
    return case.meta is not None and case.meta.generation.mode is schemathesis.GenerationMode.POSITIVE


def replace(fields: dict[str, Any], name: str, real: object, made_up: bool) -> None:
    """Put something real in the place of a text that only looks like it; what is no text at all stays wrong."""
    if isinstance(fields.get(name), str | bytes) and not made_up:
        fields[name] = real


@schemathesis.check
def failures_are_temporary(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """No 5xx but 503, and that, as 429, says when to come back."""
    status = response.status_code
    assert status < 500 or status == 503, f"{status}: {response.text[:300]}"
    if status in {429, 503} and case.path != "/readyz":
        retry_after = response.headers.get("retry-after", [""])[0]
        assert re.fullmatch(r"[1-9][0-9]*", retry_after), f"{status} without a Retry-After: {retry_after!r}"


@schemathesis.check
def refusals_are_problems(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Whatever is refused is refused by a whole problem document."""
    if response.status_code < 400 or case.method == "HEAD" or case.path == "/readyz":
        return
    kind = response.headers.get("content-type", [""])[0]
    assert kind == "application/problem+json", f"{response.status_code} as {kind!r}"
    problem = response.json()
    assert set(problem) >= _PROBLEM_MEMBERS, f"missing: {sorted(_PROBLEM_MEMBERS - set(problem))}"
    assert problem["status"] == response.status_code
    assert problem["hint"].strip()


@schemathesis.check
def answers_are_fenced(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """Every answer carries an id to ask after, and tells browsers not to guess what it is."""
    assert response.headers.get("x-request-id"), "no X-Request-ID"
    assert response.headers.get("x-content-type-options") == ["nosniff"], "no X-Content-Type-Options"
