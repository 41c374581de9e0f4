"""Bodies, headers and cursors that nobody sends in good faith: refused as a request may be, or read as they stand."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.conditional import matches
from services.api.idempotency import read_key
from services.api.multipart import MAX_PARTS, split_multipart
from services.api.uploads import read_submission
from services.api.waiting import MAX_WAIT_S, read_wait_s
from services.errors import RequestError
from services.jobs.cursors import make_cursor, read_cursor
from services.pictures.cleaning import Picture, clean_picture
from services.pictures.decoding import decode
from services.pictures.headers import PictureLimits
from tests.fuzz.mutants import blamed, how_many, make_mutants
from tests.services.api.pictures import encode, make_photo

BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
LIMITS = PictureLimits(max_pixels=1_000_000, min_side_px=32)
quick = partial(settings, derandomize=True, deadline=None, database=None)


def form(*parts: tuple[str, bytes]) -> bytes:
    """Return a multipart body; a part's first element is all that stands in its headers."""
    whole = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (BOUNDARY.encode(), head.encode(), data) for head, data in parts)
    return whole + b"--%s--\r\n" % BOUNDARY.encode()


def field(name: str) -> str:
    return f'Content-Disposition: form-data; name="{name}"'


def clean(data: bytes) -> Picture:
    """As the service does, but in this process: damaged pictures are the business of test_pictures."""
    return clean_picture(data, LIMITS, decode)


FACE = encode(make_photo(48, 48))
BODIES = {
    "form": form(
        (field("prompt"), b"smiling"), (field("image") + '; filename="a.png"\r\nContent-Type: image/png', FACE)
    ),
    "form-fields": form((field("source"), b"sampled"), (field("prompt"), b"winks"), (field("seed"), b"7")),
    "form-options": form((field("options"), json.dumps({"prompt": "sad", "source": "sampled"}).encode())),
    "form-nested": form(
        (field("output"), b'{"format": "gif"}'), (field("prompt"), b"x"), (field("source"), b"sampled")
    ),
}
JSONS = {
    "sampled": b'{"prompt": "smiling", "source": "sampled", "seed": 7, "output": {"format": "gif", "poster": true}}',
    "numbers": b'{"prompt":"a","source":"sampled","intensity":1.5,"fps":24,"frames":12,"metadata":{"a":"b"},"ttl_s":9}',
    "face": b'{"prompt":"a","image_base64":"iVBORw0KGgo=","face":{"box":[0,0,10,10]},"align":"none"}',
    "texts": '{"prompt":"lächelt 😀","source":"sampled","webhook":{"url":"https://example.com/a?b=c"}}'.encode(),
}


def test_damaged_forms_split_or_are_refused() -> None:
    split = 0
    for mutant in make_mutants(BODIES, how_many(3_000)):
        with blamed(mutant):
            try:
                parts = split_multipart(mutant.data, MULTIPART)
            except RequestError as error:
                assert error.code == "validation-failed"  # noqa: PT017 - one of two good ends
                continue
        split += 1
        assert len(parts) <= MAX_PARTS
        assert sum(len(part.data) for part in parts) <= len(mutant.data)
    assert split


@pytest.mark.parametrize(("bodies", "content_type"), [(BODIES, MULTIPART), (JSONS, "application/json")])
def test_damaged_bodies_are_submissions_or_refusals(bodies: dict[str, bytes], content_type: str) -> None:
    taken = refused = 0
    for mutant in make_mutants(bodies, how_many(1_000)):
        with blamed(mutant):
            try:
                submission = read_submission(mutant.data, content_type, clean)
            except RequestError as error:
                refused += 1
                assert error.code  # noqa: PT017 - one of two good ends
                json.dumps([error.message, error.hint], ensure_ascii=False).encode()
            else:
                taken += 1
                assert submission.options.prompt.strip()
                # What is accepted must be storable: in UTF-8, without NUL (PostgreSQL refuses it).
                stored = submission.options.model_dump_json().encode()
                assert b"\\u0000" not in stored
    assert taken
    assert refused


@quick(max_examples=how_many(200))
@given(content_type=st.text(max_size=80) | st.just("multipart/form-data; boundary=") | st.just("multipart/form-data"))
def test_any_content_type_is_read_or_refused(content_type: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_submission(b"nothing of the kind", content_type, clean)
    assert refusal.value.code in {"unsupported-media-type", "validation-failed"}


@quick(max_examples=how_many(300))
@given(cursor=st.text(max_size=60))
def test_a_made_up_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(RequestError) as refusal:
        read_cursor(cursor)
    assert refusal.value.code == "validation-failed"


def test_damaged_cursors_are_refused_or_name_a_moment() -> None:
    good = make_cursor(datetime(2026, 11, 23, 1, 2, 3, 456, UTC), "anm_" + "0123456789abcdef" * 2)
    for mutant in make_mutants({"cursor": good.encode()}, how_many(2_000)):
        with blamed(mutant):
            try:
                moment, row_id = read_cursor(mutant.data.decode("latin-1"))
            except RequestError as error:
                assert error.code == "validation-failed"  # noqa: PT017 - one of two good ends
            else:
                assert moment.tzinfo is UTC
                assert len(row_id) == 36


@quick(max_examples=how_many(300))
@given(moment=st.datetimes(timezones=st.just(UTC)), number=st.integers(0, 2**128 - 1))
def test_a_cursor_comes_back_as_it_was_made(moment: datetime, number: int) -> None:
    row_id = f"anm_{number:032x}"
    assert read_cursor(make_cursor(moment, row_id)) == (moment, row_id)


@quick(max_examples=how_many(300))
@given(header=st.text(max_size=300))
def test_an_idempotency_key_is_plain_or_refused(header: str) -> None:
    try:
        key = read_key(header)
    except RequestError as error:
        assert error.code == "validation-failed"  # noqa: PT017 - one of two good ends
    else:
        assert key is not None
        assert 1 <= len(key) <= 255
        assert key.isascii()
        assert key.isprintable()


@quick(max_examples=how_many(300))
@given(lines=st.lists(st.text(alphabet='wait=;, "0123456789x', max_size=40), max_size=3))
def test_prefer_waits_within_bounds_or_not_at_all(lines: list[str]) -> None:
    waited = read_wait_s(lines)
    assert waited is None or 0 <= waited <= MAX_WAIT_S


@quick(max_examples=how_many(200))
@given(tags=st.lists(st.from_regex(r"[!#-~]{0,8}", fullmatch=True), max_size=4), weak=st.booleans())
def test_only_the_tag_itself_matches(tags: list[str], weak: bool) -> None:
    header = ", ".join(f'W/"{tag}"' if weak else f'"{tag}"' for tag in tags)
    assert matches(header, 'W/"1.2"') == ("1.2" in tags)
    assert matches(f'{header}, "1.2"', 'W/"1.2"')


@quick(max_examples=how_many(200))
@given(header=st.text(max_size=60))
def test_any_if_none_match_is_read(header: str) -> None:
    assert matches(header, 'W/"1"') == (header.strip() == "*" or '"1"' in header)
