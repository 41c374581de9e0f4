"""The only place where an error becomes an HTTP answer: RFC 9457 problem documents.

Knows codes and statuses; imports no store, no storage and no route.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Never

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from services.errors import AnimatoError, RequestError
from services.jobs.contract import FaceFacts

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:animato:problem:"

_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
# What every code means over HTTP; a code that is not here is a fault of ours and answers 500.
STATUSES: Mapping[str, int] = {
    "validation-failed": 422,
    "model-unknown": 422,
    "image-too-small": 422,
    "image-too-large": 422,
    "image-corrupt": 422,
    "no-face": 422,
    "multiple-faces": 422,
    "face-too-small": 422,
    "face-unusable": 422,
    "source-forbidden-address": 422,
    "source-unreachable": 422,
    "idempotency-mismatch": 422,
    "unsupported-media-type": 415,
    "payload-too-large": 413,
    "result-not-ready": 409,
    "idempotency-conflict": 409,
    "not-cancelable": 409,
    "job-active": 409,
    "unauthorized": 401,
    "forbidden": 403,
    "not-found": 404,
    "method-not-allowed": 405,
    "gone": 410,
    "range-not-satisfiable": 416,
    "bad-request": 400,
    "rate-limited": 429,
    "queue-full": 503,
    "not-ready": 503,
    "storage-failed": 503,
    "internal": 500,
}

TITLES: Mapping[str, str] = {
    "validation-failed": "The request does not follow the API's rules",
    "model-unknown": "There is no such model",
    "image-too-small": "The picture is too small",
    "image-too-large": "The picture has too many pixels",
    "image-corrupt": "The picture can't be decoded",
    "no-face": "There is no such face in the picture",
    "multiple-faces": "Several faces could be meant",
    "face-too-small": "The face is too small",
    "face-unusable": "The face can't be aligned",
    "source-forbidden-address": "The URL leads to an address that may not be called",
    "source-unreachable": "The URL can't be fetched",
    "idempotency-mismatch": "The idempotency key was used for another request",
    "unsupported-media-type": "This media type is not accepted",
    "payload-too-large": "The request body is too large",
    "result-not-ready": "There is no result to fetch",
    "idempotency-conflict": "A request with this idempotency key is being accepted",
    "not-cancelable": "The job has already ended",
    "job-active": "The job has not ended yet",
    "unauthorized": "Credentials are missing or wrong",
    "forbidden": "This is not allowed",
    "not-found": "There is nothing here",
    "method-not-allowed": "This method is not allowed here",
    "gone": "The result has expired",
    "range-not-satisfiable": "The range lies outside the file",
    "bad-request": "The request can't be understood",
    "rate-limited": "Too many requests",
    "queue-full": "The queue is full",
    "not-ready": "The service is not ready",
    "storage-failed": "The object store does not answer",
    "internal": "Something went wrong here",
}

_CODES_OF_STATUSES: Mapping[int, str] = {
    400: "bad-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "payload-too-large",
    415: "unsupported-media-type",
    416: "range-not-satisfiable",
    422: "validation-failed",
}

_HINTS_OF_STATUSES: Mapping[int, str] = {
    404: "GET /openapi.json lists every route.",
    405: "The Allow header lists the methods of this route.",
}

# Not the client's fault for good, though no error of ours: what is outside may have changed by the next try.
_RETRYABLE = frozenset({"idempotency-conflict", "source-unreachable"})

# A small request with thousands of wrong fields shall not make a large answer.
MAX_FIELD_PROBLEMS = 50

INTERNAL_DETAIL = "The service met an error that it did not expect; nothing was changed by this answer."
INTERNAL_HINT = "Try again; if it happens again, report the X-Request-ID header of this answer."


class FieldProblem(BaseModel):
    """One field that is wrong: where it is and why."""

    pointer: str | None = Field(None, description="JSON pointer into the request body, as a URI fragment.")
    parameter: str | None = Field(None, description="Name of the query parameter or header.")
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str = Field(description="A URN that ends with the code.")
    title: str
    status: int
    detail: str = Field(description="What happened, in one sentence.")
    code: str = Field(description="Stable code for programs.")
    retryable: bool = Field(description="True when the same request may succeed later.")
    hint: str = Field(description="What to do about it.")
    errors: list[FieldProblem] | None = Field(None, description="The fields that are wrong.")
    faces: list[FaceFacts] | None = Field(None, description="The faces that were found, where faces are the problem.")


# What an error's details may add to its document; its other members are made here.
_OWN_MEMBERS = (frozenset(Problem.model_fields) | {"challenge"}) - {"errors", "faces"}


def make_problem(
    code: str,
    detail: str,
    hint: str,
    *,
    retryable: bool = False,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """Return the problem document of a code as a response; ``members`` are added to it."""
    status = STATUSES.get(code, 500)
    body = {
        "type": TYPE_PREFIX + code,
        "title": TITLES.get(code, HTTPStatus(status).phrase),
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": retryable,
        "hint": hint,
        **members,
    }
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def answer_error(error: AnimatoError) -> Response:
    """Return the problem document of an error of our own tree."""
    code = error.code if error.code in STATUSES else "internal"
    status = STATUSES[code]
    retryable = error.retryable or status in (429, 503) or code in _RETRYABLE
    headers: dict[str, str] = {}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, round(getattr(error, "delay_s", 5.0))))
    if status in (401, 403) and "challenge" in error.details:
        headers["WWW-Authenticate"] = _make_challenge(error.details["challenge"])
    if status == 416:
        headers["Content-Range"] = f"bytes */{error.details.get('size', 0)}"
    return make_problem(
        code,
        error.message,
        error.hint or INTERNAL_HINT,
        retryable=retryable,
        headers=headers,
        **{name: value for name, value in error.details.items() if name not in _OWN_MEMBERS},
    )


def _make_challenge(parameters: Mapping[str, str]) -> str:
    """Return the WWW-Authenticate header of RFC 6750; 401 answers must have one."""
    return ", ".join(['Bearer realm="animato"', *(f'{name}="{value}"' for name, value in parameters.items())])


def answer_internal() -> Response:
    """Return the answer to an error that nobody foresaw; it says nothing of the error itself."""
    return make_problem("internal", INTERNAL_DETAIL, INTERNAL_HINT, retryable=True)


def make_pointer(parts: Sequence[object]) -> str:
    """Return an RFC 6901 pointer as a URI fragment, e.g. ``#/output/size``; each part is cut at 80 characters."""
    named = (str(part)[:80].encode(errors="replace").decode() for part in parts)  # no half of a character is UTF-8
    return "#" + "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in named)


def validation_error(detail: str, where: Sequence[str], hint: str) -> RequestError:
    """Return the error of one field of a body; ``where`` are the names that lead to it, none for the body itself."""
    return RequestError("validation-failed", detail, hint, errors=[{"pointer": make_pointer(where), "detail": detail}])


def refuse(detail: str, where: Sequence[str], hint: str) -> Never:
    """Raise the error of one field of a body.

    Raises:
        RequestError: validation-failed.
    """
    raise validation_error(detail, where, hint)


def list_field_problems(errors: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Translate pydantic's errors on a body into field problems, without the values that were sent."""
    # The names of union branches and dict keys ("[key]") that pydantic adds are no part of the document.
    return [
        {"pointer": make_pointer([part for part in error["loc"] if part != "[key]"]), "detail": _word(error)}
        for error in errors[:MAX_FIELD_PROBLEMS]
    ]


def _word(fault: Mapping[str, Any]) -> str:
    """Return what pydantic says of a fault, in words that say something to who knows no pydantic."""
    if fault["type"] == "extra_forbidden":
        return "There is no such field or parameter."
    text = str(fault["msg"]).removeprefix("Value error, ")
    return text[:1].upper() + text[1:]


def _place(fault: Mapping[str, Any]) -> dict[str, str]:
    """Translate one error of FastAPI: a fault of the body has a pointer, any other one a parameter."""
    source, *parts = fault["loc"] or ("",)
    detail = _word(fault)
    if source == "body":  # of a text that is no JSON FastAPI tells the offset, which is no part of a document
        return {"pointer": make_pointer([] if fault["type"] == "json_invalid" else parts), "detail": detail}
    return {"parameter": str(parts[-1] if parts else source)[:80], "detail": detail}


def install_problems(app: FastAPI) -> None:
    """Make every error of the app answer as a problem document."""

    async def on_animato_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, AnimatoError)
        return answer_error(error)

    async def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_list_methods(request))
        code = _CODES_OF_STATUSES.get(error.status_code, "internal" if error.status_code >= 500 else "bad-request")
        hint = _HINTS_OF_STATUSES.get(error.status_code, "See the API's description at /openapi.json.")
        detail = TITLES[code] + "."
        return make_problem(code, detail, hint, headers=headers)

    async def on_validation_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = [_place(fault) for fault in error.errors()]
        in_body = any("pointer" in problem for problem in problems)
        detail = "The request's body is wrong." if in_body else "A parameter of the request is wrong."
        return make_problem("validation-failed", detail, "See errors: it names what is wrong.", errors=problems)

    app.add_exception_handler(AnimatoError, on_animato_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)


def _list_methods(request: Request) -> list[str]:
    """Return what may be asked of the request's path: tried out, since each route knows its own methods only."""
    routes = request.app.routes
    scopes = ((method, {**request.scope, "method": method}) for method in _METHODS)
    return [method for method, scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


def describe_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return what a route's description says of its problems, grouped by status, for FastAPI's ``responses``."""
    grouped: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status = STATUSES[code]
        example = {
            "type": TYPE_PREFIX + code,
            "title": TITLES[code],
            "status": status,
            "detail": TITLES[code] + ".",
            "code": code,
            "retryable": status in (429, 503),
            "hint": "What to do about it.",
        }
        described = grouped.setdefault(
            status,
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}},
            },
        )
        described["content"][MEDIA_TYPE]["examples"][code] = {"summary": TITLES[code], "value": example}
        described["description"] = ", ".join(described["content"][MEDIA_TYPE]["examples"])
        if status in (429, 503):
            described["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return grouped
