"""A canary that is put into everything private must not come out in the logs."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest
import structlog

from services.errors import TemporaryError
from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.store import JobStore
from services.logs import configure_logging

CANARY = "c4n4ry"


@pytest.fixture
def lines() -> Iterator[Any]:
    """Configure logging into a buffer, return a function that reads what was written, and put all back."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    buffer = io.StringIO()
    configure_logging(service="test", level="debug", stream=buffer)
    yield lambda: [json.loads(line) for line in buffer.getvalue().splitlines()]
    root.handlers[:], level = before
    root.setLevel(level)
    structlog.reset_defaults()


def _text(lines: Any) -> str:
    return json.dumps(lines(), ensure_ascii=False)


def test_events_are_one_json_object_a_line(lines: Any) -> None:
    structlog.get_logger("services.test").info("job_accepted", job_id="anm_1", bytes=12, place=Path("a/b"))
    logging.getLogger("library").warning("%s of %d", "half", 2)
    ours, theirs = lines()
    assert (ours["event"], ours["job_id"], ours["bytes"], ours["place"]) == ("job_accepted", "anm_1", 12, "a/b")
    assert (ours["level"], ours["logger"], ours["service"]) == ("info", "services.test", "test")
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["logger"]) == ("half of 2", "library")


def test_private_fields_and_texts_are_withheld(lines: Any) -> None:
    log = structlog.get_logger("x")
    options = AnimationOptions(prompt=CANARY, metadata={"a": CANARY})
    log.info("a", prompt=CANARY, image_base64=CANARY, options=options, request={"prompt": CANARY, "deep": [options]})
    log.info("b", job=options, data=CANARY.encode(), authorization=f"Bearer {CANARY}", idempotency_key=CANARY)
    log.info("c", url=f"https://s3/x?X-Amz-Credential={CANARY}&X-Amz-Signature={CANARY}", token=CANARY)
    log.info(f"d postgresql://animato:{CANARY}@h/d", header=f"Bearer {CANARY}abcdef")
    logging.getLogger("kombu").warning("no connection to redis://:%s@h:1/0", CANARY)
    logging.getLogger("y").warning("data:image/png;base64,%s", CANARY)
    log.info("e", asked=f"GET https://h/v?sig={CANARY} and HTTP://h:1/hook#{CANARY}", signed_with=f"whsec_{CANARY}+/=")
    assert CANARY not in _text(lines)
    assert len(lines()) == 7
    assert "GET https://h/v?[withheld] and HTTP://h:1/hook?[withheld]" in _text(lines), "the rest of a URL may be told"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://animato:{CANARY}@h/d",
        f"x-amz-security-token={CANARY}",
        f"SIG={CANARY}",
        f"bearer {CANARY}abcdef",
        f"said BASIC\t{CANARY}abcdef",
        f"ank_0123456789abcdef_{CANARY}",
        f"http://h/path?{CANARY}",
        f"whsec_{CANARY}",
        f"data:image/png;base64,{CANARY}",
    ],
)
def test_each_kind_of_secret_is_noticed_by_itself(lines: Any, text: str) -> None:
    """Texts that look harmless are not searched: each kind must be noticed without help of another's marks."""
    structlog.get_logger("x").info("a", told=text)
    (line,) = lines()
    assert CANARY not in line["told"]
    assert "[withheld]" in line["told"]


def test_exceptions_tell_where_and_what_but_quote_no_request(lines: Any) -> None:
    log = structlog.get_logger("x")

    def act(prompt: str) -> None:
        try:
            AnimationOptions(prompt=prompt, frames="many")
        except pydantic.ValidationError as error:
            raise ValueError(f"unfit: {prompt}") from error

    try:
        act(CANARY)
    except ValueError:
        log.exception("failed")
        logging.getLogger("library").exception("failed too")
    log.error("told", exc_info=TemporaryError("storage-failed", "The store is away.", "Wait."))
    first, second, third = lines()
    assert CANARY not in _text(lines)
    for event in (first, second):
        assert [link["type"] for link in event["exception"]] == ["ValueError", "ValidationError"]
        assert any("test_logs.py" in place and place.endswith(" act") for place in event["exception"][0]["places"])
    assert third["exception"][0]["message"] == "The store is away."


def test_database_errors_hide_their_parameters(lines: Any, tmp_path: Path) -> None:
    store = JobStore(f"sqlite:///{tmp_path / 'jobs.sqlite3'}")  # not migrated: every statement fails
    try:
        store.accept(
            job_id=make_job_id(),
            owner="me",
            options=AnimationOptions(prompt=CANARY),
            input=InputFacts(),
            seed=1,
            model_id="human",
        )
    except TemporaryError:
        structlog.get_logger("x").exception("failed")
    store.close()
    (event,) = lines()
    assert CANARY not in _text(lines)
    assert "no such table" in json.dumps(event)


def test_warnings_and_levels(lines: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        structlog.get_logger("x").debug("shown")
        logging.getLogger("sqlalchemy.engine").info("a statement")
        logging.getLogger("httpx").info("a request")
    assert [line["event"] for line in lines()] == ["shown"]
