"""Logging: one JSON object (or one console line) an event, on standard error, for our events and the libraries' alike.

Logs carry no prompt, picture, key or signed URL: fields that are named like one are dropped, texts that look like one
are blanked, and an exception's message is shown only where it can't quote a request. This room imports no other part
but the errors.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import MutableMapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from types import TracebackType
from typing import Any, Literal, TextIO
from uuid import UUID

import structlog

from services.errors import AnimatoError

WITHHELD = "[withheld]"
# Names of fields that would carry what a client sent or what opens a door.
_SECRET_FIELDS = re.compile(
    r"prompt|image|picture|preview|base64|body|options|metadata|authorization|cookie|password|secret|signature|api_?key"
    r"|access_key|credential|idempotency|token$|presigned|signed_url",
    re.IGNORECASE,
)
_SECRET_TEXTS = (
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]*(?=@)"), WITHHELD),  # user:password in a URL
    (re.compile(r"(?i)((?:x-amz|x-goog)-[a-z-]+|sig|signature|token)=[^&\s\"']+"), r"\1=" + WITHHELD),
    (re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}"), r"\1 " + WITHHELD),
    (re.compile(r"\b(ank_[0-9a-f]{16})_[A-Za-z0-9_-]+"), r"\1_" + WITHHELD),  # of an API key its id may be told
    (re.compile(r"(?i)(https?://[^\s?#\"'<>]*)[?#][^\s\"'<>]*"), r"\1?" + WITHHELD),  # where URLs keep their secrets
    (re.compile(r"whsec_[A-Za-z0-9+/=_-]+"), WITHHELD),
    (re.compile(r"data:[a-z]+/[a-z0-9.+-]+;base64,[A-Za-z0-9+/=]+"), WITHHELD),
)
# Whatever one of them matches has one of these, and nearly no text of ours has: one look spares seven.
_SUSPECT_TEXT = re.compile(r"://|=|(?i:bearer|basic)\s|ank_|whsec_|data:")
# Whose exceptions speak of servers, files and memory, never of what a client wrote. The engines hide SQL parameters.
_PLAIN_MODULES = ("redis", "kombu", "amqp", "celery", "billiard", "sqlalchemy", "psycopg", "obstore", "onnxruntime")
_PLAIN_TYPES = (AnimatoError, OSError, ImportError, MemoryError, EOFError)
_MAX_TEXT = 2000
_MAX_DEPTH = 6

Event = MutableMapping[str, Any]


def configure_logging(
    *, service: str, log_format: Literal["json", "console"] = "json", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set structlog and the standard library's logging up for this process; called by the composition roots alone.

    Args:
        service: "api", "worker", … ; stands in every event.
        log_format: "json" for machines, "console" for a terminal.
        level: the lowest level that is written.
        stream: where to; default: standard error.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.PositionalArgumentsFormatter(),
        _add_service(service),
        describe_exception,
        withhold_secrets,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=_describe)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=24)
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery", "alembic"):
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
    # One line a statement, a request or a heartbeat is for whoever debugs these libraries.
    for name in ("sqlalchemy.engine", "kombu", "amqp", "httpx", "httpx2", "httpcore", "urllib3", "PIL", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # A collector that is away would be told with every batch, and a full buffer with every span.
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)


def withhold_secrets(_logger: Any, _method: str, event: Event) -> Event:
    """Drop what a field's name or a text's look gives away as private."""
    for name in list(event):
        if name.startswith("_"):  # structlog's own
            continue
        event[name] = WITHHELD if _is_secret(name) else _clean(event[name], 0)
    return event


@lru_cache(maxsize=1024)
def _is_secret(field: str) -> bool:
    return _SECRET_FIELDS.search(field) is not None


def describe_exception(_logger: Any, _method: str, event: Event) -> Event:
    """Replace ``exc_info`` by types, code places and the messages that are safe to show.

    A traceback of the standard library shows source lines and messages; ours shows neither local values nor messages of
    exceptions that quote their input (pydantic, json, str methods).
    """
    info = event.pop("exc_info", None)
    event.pop("exc_text", None)
    if not info:
        return event
    if info is True:
        error = sys.exc_info()[1]
    elif isinstance(info, BaseException):
        error = info
    else:
        error = info[1]
    chain: list[dict[str, Any]] = []
    seen: set[int] = set()
    while error is not None and id(error) not in seen and len(chain) < _MAX_DEPTH:
        seen.add(id(error))
        chain.append(
            {"type": type(error).__name__, "message": _safe_message(error), "places": _places(error.__traceback__)}
        )
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    event["exception"] = chain
    return event


def _add_service(service: str) -> structlog.typing.Processor:
    def add(_logger: Any, _method: str, event: Event) -> Event:
        event.setdefault("service", service)
        return event

    return add


def _safe_message(error: BaseException) -> str:
    root = type(error).__module__.partition(".")[0]
    if isinstance(error, _PLAIN_TYPES) and not isinstance(error, UnicodeError):
        return str(error)
    return str(error) if root in _PLAIN_MODULES else WITHHELD


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-20:]
    return [f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno} {frame.name}" for frame in frames]


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        if _SUSPECT_TEXT.search(value):
            for pattern, replacement in _SECRET_TEXTS:
                value = pattern.sub(replacement, value)
        return value if len(value) <= _MAX_TEXT else value[:_MAX_TEXT] + "…"
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth < _MAX_DEPTH and isinstance(value, dict):
        return {
            str(name): WITHHELD if _is_secret(str(name)) else _clean(item, depth + 1) for name, item in value.items()
        }
    if depth < _MAX_DEPTH and isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, depth + 1) for item in value]
    return _describe(value)


def _describe(value: Any) -> str:
    """Name an object without quoting it: reprs of requests and bytes are how prompts and pictures leak."""
    if isinstance(value, AnimatoError):
        return f"{value.code}: {value.message}"
    if isinstance(value, PurePath | datetime | UUID | Enum):
        return str(value)
    return f"<{type(value).__name__}>"
