"""What schemathesis must be told about this API, and what it checks besides: loaded by ``SCHEMATHESIS_HOOKS``.

Bad requests are sent as they were made up. In good ones pictures, URLs, models, cursors and the ids of what is only
looked at are real, which no description can make them; nobody waits a minute, and films are short.
"""

from __future__ import annotations

import base64
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.generation.meta import TestPhase

from services.jobs.cursors import make_cursor

# Where the driver serves a picture and takes webhooks.
URL = os.environ.get("CONTRACT_OUTSIDE", "https://example.com/face.png")
PICTURE = Path(os.environ["CONTRACT_PICTURE"]).read_bytes()
BASE64 = base64.b64encode(PICTURE).decode()
# What has ended and was told before the first request.
IDS = {"job_id": os.environ["CONTRACT_JOB"], "delivery_id": os.environ["CONTRACT_DELIVERY"]}
UNKNOWN_JOB = "anm_" + "0" * 32
CURSOR = make_cursor(datetime.now(UTC), UNKNOWN_JOB)
MOST_FRAMES = 6
_PROBLEM_MEMBERS = {"type", "title", "status", "detail", "code", "retryable", "hint"}


# What a form's `image` may be, as its encoding says.
schemathesis.openapi.media_type("image/png", st.just(PICTURE), aliases=["image/jpeg", "image/webp"])


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, **kwargs: Any) -> None:
    """Put into good requests what a description can't know: real pictures, URLs that answer, models, cursors, ids."""
    for name in [name for name in case.headers or {} if name.lower() == "prefer"]:
        case.headers[name] = re.sub(r"[0-9]{2,}", "1", str(case.headers[name]))
    if not is_valid(case):
        keep_lists(case)
        return
    make_real(case)
    # A good request stays good. Judged anew, every edited body with a picture's bytes in it would count as a bad one.
    case._sync_validated_hashes()


def keep_lists(case: schemathesis.Case) -> None:
    """Send a field twice where a bad form has an empty list: that one sends no field at all, which may be in order."""
    if case.media_type == "multipart/form-data" and isinstance(case.body, dict):
        case.body = {name: ["", ""] if value == [] else value for name, value in case.body.items()}


def make_real(case: schemathesis.Case) -> None:
    """Put real things into a good request."""
    replace(case.query, "cursor", CURSOR)
    is_swept = case.meta is not None and case.meta.phase.name is TestPhase.COVERAGE  # what schemas allow, one by one
    for name, real in IDS.items():
        given = case.path_parameters.get(name)
        if case.method == "DELETE" and given == real:
            replace(case.path_parameters, name, UNKNOWN_JOB)  # what all others look at stays
        elif case.method in {"GET", "POST"} and not is_swept and not is_made_by_service(given):
            replace(case.path_parameters, name, real)
    body = case.body
    if not isinstance(body, dict):
        return
    make_fields_real(body)
    if case.operation.label == "POST /v1/animations" and not is_swept:
        settle_picture(body, "image" if case.media_type == "multipart/form-data" else "image_base64")


def make_fields_real(body: dict[str, Any]) -> None:
    """Put real things into the fields of a good request."""
    for name, real in (("image_base64", BASE64), ("image_url", URL), ("model", "tiny")):
        replace(body, name, real)
    replace(body.get("webhook"), "url", URL)
    # Short films: a worker draws all that are accepted.
    if isinstance(body.get("frames"), int) and body["frames"] > MOST_FRAMES:
        body["frames"] = MOST_FRAMES
    if isinstance(body.get("duration_s"), int | float) and body["duration_s"] > 0.5:
        body["duration_s"] = 0.5


def is_valid(case: schemathesis.Case) -> bool:
    """Tell whether a request was made up to be in order."""
    return case.meta is not None and case.meta.generation.mode is schemathesis.GenerationMode.POSITIVE


def is_made_by_service(given: object) -> bool:
    """Tell whether an id came out of an answer: then the request is a link of a chain."""
    return isinstance(given, str) and re.fullmatch(r"(anm|msg)_[0-9a-f]{32}", given) is not None


def settle_picture(body: dict[str, Any], sent: str) -> None:
    """Leave a good request one picture, or none where the face is sampled: a rule that is said in words alone.

    Args:
        body: the request.
        sent: the field that carries a picture itself.
    """
    options = body.get("options")
    if isinstance(options, dict):  # no field may stand in both
        body["options"] = options = {name: value for name, value in options.items() if name not in body}
        make_fields_real(options)
        if "prompt" not in {*body, *options}:
            options["prompt"] = "smiling"
    given = {"source": "image", **(options if isinstance(options, dict) else {}), **body}
    if given["source"] == "sampled":
        unwanted = {sent, "image_url"}
    elif "image_url" in given:
        unwanted = {sent}
    else:
        unwanted = set()
        body.setdefault(sent, PICTURE if sent == "image" else BASE64)
    for name in unwanted:
        body.pop(name, None)


def replace(fields: Any, name: str, real: object) -> None:
    """Put something real in the place of a text that only looks like it."""
    if isinstance(fields, dict) and isinstance(fields.get(name), str | bytes):
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
