"""Reads JSON texts strictly: what two readers could take for two things is refused in words. Knows no field by name."""

from __future__ import annotations

import json
import re
from typing import Any, Never

from services.api.problems import refuse, validation_error

_MAX_DEPTH = 16
# Values and texts of a request that is in order need some hundred; base64 has none of these characters.
_MAX_MARKS = 50_000
_MAX_DIGITS = 400  # Python itself refuses to read some thousand, as if they were no JSON
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_object(data: bytes, field: str | None) -> dict[str, Any]:
    """Parse a JSON object; refuses duplicate keys, NaN, infinities, deep nesting and halves of characters.

    Args:
        data: the text.
        field: the part of a form that it is; None: the whole body.

    Raises:
        RequestError: validation-failed.
    """
    where = () if field is None else (field,)
    what = "The body" if field is None else f"The part `{field}`"
    if sum(data.count(mark) for mark in (b",", b":", b"[", b"{")) > _MAX_MARKS:
        # Counted, not parsed: a body full of small values takes seconds and a hundred times its size in memory.
        refuse(f"{what} has too many values.", where, "See /openapi.json for the fields.")
    try:
        value = json.loads(
            decode_text(data, field),
            object_pairs_hook=_refuse_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_parse_float,
            parse_int=_parse_int,
        )
    except (ValueError, RecursionError) as error:
        raise validation_error(f"{what} is not JSON.", where, "Check it with a JSON parser.") from error
    if not isinstance(value, dict):
        refuse(f"{what} is not a JSON object.", where, "Send an object: {…}.")
    if _depth(value) > _MAX_DEPTH:
        refuse(f"{what} is nested too deeply.", where, "See /openapi.json for the fields.")
    if _SURROGATE.search(data):
        _refuse_half_characters(value, where)
    return value


def decode_text(data: bytes, field: str | None) -> str:
    """Decode UTF-8; a whole body may begin with a byte order mark.

    Raises:
        RequestError: validation-failed.
    """
    try:
        return data.decode("utf-8-sig" if field is None else "utf-8")
    except UnicodeDecodeError as error:
        where = () if field is None else (field,)
        raise validation_error("The text is not UTF-8.", where, "Encode texts as UTF-8.") from error


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        refuse("A JSON object has the same key twice.", (), "Send each field once.")
    return fields


def _refuse_constant(_: str) -> Never:
    refuse("NaN and Infinity are not JSON.", (), "Send finite numbers.")


def _parse_float(text: str) -> float | int:
    """Read ``48.0`` as the integer that it is in JSON."""
    number = float(text)
    if number in (float("inf"), float("-inf")):
        refuse("A number is too large.", (), "Send finite numbers.")
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _parse_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        refuse("A number is too large.", (), "Send finite numbers.")
    return int(text)


def _refuse_half_characters(fields: dict[str, Any], where: tuple[str, ...]) -> None:
    r"""Refuse what was written as one half of a pair (``"\ud83d"``): no text that is stored or sent can hold it."""
    for name, value in fields.items():
        try:
            json.dumps({name: value}, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            detail, hint = (
                "A text has half a character.",
                "Send texts as UTF-8, or both halves of a pair: `\\ud83d\\ude00`.",
            )
            raise validation_error(detail, (*where, name), hint) from error


def _depth(value: object) -> int:
    """Return how deep containers are nested, level by level (recursion is what deep documents are made to break)."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = [item for item in inner if isinstance(item, dict | list)]
    return depth
