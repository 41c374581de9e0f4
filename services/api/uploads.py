"""Reads the body of ``POST /v1/animations``: multipart or JSON, the same fields, into options and a clean picture.

Everything that can be wrong with a request is said here, before anything is stored or queued. No store, no storage.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from services.api.multipart import Part, split_multipart
from services.api.problems import list_field_problems, refuse
from services.api.strict_json import decode_text, parse_object
from services.errors import RequestError
from services.jobs.contract import MAX_FRAMES, MAX_WHOLE_PIXELS, AnimationOptions, whole_frame_size
from services.pictures.cleaning import Picture

Fields = TypeVar("Fields", bound=BaseModel)

JSON_TYPE = "application/json"
MULTIPART_TYPE = "multipart/form-data"
# Fields of the JSON form whose value is an object; as multipart fields they are JSON texts.
_OBJECT_FIELDS = frozenset({"output", "metadata", "face", "webhook"})
_INTEGER_FIELDS = frozenset({"frames", "fps", "seed", "deadline_s", "ttl_s"})
_NUMBER_FIELDS = frozenset({"intensity", "duration_s"})
_BOOLEAN_FIELDS = frozenset({"sway"})
_PLAIN_ALPHABET = bytes.maketrans(b"-_", b"+/")
_DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_HINT_FIELDS = "See errors: it names each field that is wrong."
_MOST_HINTS = 3  # to look for what was meant takes a while
_HINTS_UNKNOWN: Mapping[str, str] = {
    "prompts": "Write a sequence as one prompt: `smiling, then winking`.",
}


@dataclass(frozen=True)
class Submission:
    """A request that is in order: its options, its picture (None for a sampled face) and what tells it from others.

    ``body_sha256`` is made of the options and of the picture's bytes as sent, not of the body: the boundary of a
    repeated multipart request differs each time. Of a picture to be fetched it is the URL that counts, so that a
    repeated request need not fetch it again.
    """

    options: AnimationOptions
    picture: Picture | None
    body_sha256: str
    image_url: str | None = None


@dataclass(frozen=True)
class Body:
    """A body that was taken apart: its fields, and its picture as bytes or as a URL."""

    fields: dict[str, Any]
    image: bytes | None
    image_url: str | None
    image_field: str  # where a picture stands in this form


def read_submission(body: bytes, content_type: str, clean: Callable[[bytes], Picture]) -> Submission:
    """Parse and check a whole request body. Waits for a photo to be decoded, so call it off the event loop.

    A submission with an ``image_url`` is not whole yet: ``add_picture`` gives it what was fetched from there.

    Args:
        clean: what makes a clean picture of uploaded bytes: ``PictureCleaner.clean``.

    Raises:
        RequestError: unsupported-media-type, validation-failed, or one of the image codes.
    """
    parts = read_body(body, content_type)
    options = check_options(parts.fields)
    _check_source(options, parts)
    submission = Submission(options, None, _digest(options, parts), parts.image_url)
    return submission if parts.image is None else add_picture(submission, parts.image, clean)


def add_picture(submission: Submission, image: bytes, clean: Callable[[bytes], Picture]) -> Submission:
    """Clean the bytes of a picture, as sent or as fetched, and return the submission with it.

    Raises:
        RequestError: validation-failed, or one of the image codes.
    """
    picture = clean(image)
    _check_whole(submission.options, picture)
    return replace(submission, picture=picture)


def read_body(body: bytes, content_type: str) -> Body:
    """Take a body apart; of its fields only those of the picture mean anything here.

    Raises:
        RequestError: unsupported-media-type, validation-failed.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == MULTIPART_TYPE:
        (fields, image), image_field = _read_multipart(split_multipart(body, content_type)), "image"
    elif media_type == JSON_TYPE:
        (fields, image), image_field = _read_json(body), "image_base64"
    else:
        raise RequestError(
            "unsupported-media-type",
            "The body is neither multipart/form-data nor application/json.",
            "Send a form with a file part `image`, or JSON with `image_base64`, and say so in Content-Type.",
        )
    given = "image_url" in fields
    image_url = fields.pop("image_url", None)
    if given and not isinstance(image_url, str):
        refuse("`image_url` is not a string.", ("image_url",), "Send the picture's https URL.")
    if image_url is not None and image is not None:
        refuse("The request has a picture and the URL of one.", ("image_url",), f"Send `{image_field}` or `image_url`.")
    return Body(fields, image, image_url, image_field)


def check_options(fields: Mapping[str, Any]) -> AnimationOptions:
    """Validate all fields but the picture, strictly: no text where a number belongs, no unknown field.

    Raises:
        RequestError: validation-failed with a pointer to each field that is wrong.
    """
    fields = dict(fields)
    if isinstance(fields.get("prompt"), str):
        fields["prompt"] = " ".join(fields["prompt"].split())  # a text area sends line breaks
    options = check_fields(AnimationOptions, fields)
    _check_texts(options)
    _check_amounts(options)
    _check_face(options)
    return options


def check_fields(kind: type[Fields], fields: Mapping[str, Any]) -> Fields:
    """Validate fields strictly as one kind of request.

    Raises:
        RequestError: validation-failed with a pointer to each field that is wrong.
    """
    try:
        # JSON text, because strictness means another thing for Python values: an enum is no string there.
        return kind.model_validate_json(json.dumps(fields), strict=True)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)
        unknown = [str(e["loc"][0]) for e in problems if e["type"] == "extra_forbidden" and len(e["loc"]) == 1]
        hints = [hint for name in unknown[:_MOST_HINTS] if (hint := _hint_at(name, kind))]
        raise RequestError(
            "validation-failed",
            "The request has fields that are wrong." if not unknown else "The request has fields that are not known.",
            " ".join(hints) or _HINT_FIELDS,
            errors=list_field_problems(problems),
        ) from error


def _hint_at(unknown: str, kind: type[BaseModel]) -> str | None:
    """Return what somebody may have meant by a field that is not known."""
    near = difflib.get_close_matches(unknown[:80], kind.model_fields, n=1, cutoff=0.75)
    return _HINTS_UNKNOWN.get(unknown) or (f"Did you mean `{near[0]}`?" if near else None)


def _read_multipart(parts: list[Part]) -> tuple[dict[str, Any], bytes | None]:
    fields: dict[str, Any] = {}
    image: bytes | None = None
    seen: set[str] = set()
    for part in parts:
        if part.name in seen:
            refuse("The form has a field twice.", (part.name,), "Send each field once.")
        seen.add(part.name)
        if part.name == "image":
            image = _read_image_part(part)
        elif part.name == "options":
            _merge(fields, parse_object(part.data, "options"))
        elif part.name == "image_base64":
            refuse("A form carries the picture as a file.", (part.name,), "Send it as the file part `image`.")
        else:
            _merge(fields, {part.name: _parse_field(part)})
    return fields, image


def _merge(fields: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name, value in more.items():
        if name in fields:
            refuse("A field stands both by itself and in `options`.", (name,), "Send each field once.")
        fields[name] = value


def _read_image_part(part: Part) -> bytes:
    if part.filename is None and _looks_like_text(part.data):
        refuse("`image` is a text, not a file.", ("image",), "Send the file itself: with curl, `-F image=@face.png`.")
    return part.data


def _looks_like_text(data: bytes) -> bool:
    return len(data) < 4096 and data.isascii() and not data.startswith(b"<")


def _parse_field(part: Part) -> Any:
    """Read a flat field: every value is text, so numbers and truths are recognised by the field's name."""
    if part.name in _OBJECT_FIELDS:
        return parse_object(part.data, part.name)
    text = decode_text(part.data, part.name)
    if part.name in _INTEGER_FIELDS and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text):
        return int(text)
    if part.name in _NUMBER_FIELDS and re.fullmatch(
        r"\s*[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?\s*", text
    ):
        return float(text)
    if part.name in _BOOLEAN_FIELDS and text.strip().lower() in {"true", "false"}:
        return text.strip().lower() == "true"
    return text


def _read_json(body: bytes) -> tuple[dict[str, Any], bytes | None]:
    fields = parse_object(body, None)
    if "image" in fields:
        refuse("JSON carries the picture as text.", ("image",), "Send it as `image_base64`, or send a form.")
    if "options" in fields:
        refuse("`options` belongs to forms.", ("options",), "In JSON every field stands at the top level.")
    if "image_base64" not in fields:
        return fields, None
    encoded = fields.pop("image_base64")
    if not isinstance(encoded, str):
        refuse("`image_base64` is not a string.", ("image_base64",), "Send the picture's bytes as base64.")
    return fields, _decode_base64(encoded)


def _decode_base64(text: str) -> bytes:
    """Decode base64, with or without a ``data:`` prefix, line breaks or padding, in either alphabet."""
    prefix = _DATA_URL.match(text)
    try:
        packed = (text[prefix.end() :] if prefix else text).encode("ascii")
        packed = packed.translate(_PLAIN_ALPHABET, delete=b" \t\r\n\f\v").rstrip(b"=")
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError):
        refuse(
            "`image_base64` is not base64.",
            ("image_base64",),
            "Encode the file's bytes, e.g. with `base64 -w0 face.png`.",
        )


def _check_texts(options: AnimationOptions) -> None:
    if not any(unicodedata.category(character)[0] in "LNSP" for character in options.prompt):
        refuse("The prompt is blank.", ("prompt",), "Say what the face should do, e.g. `smiling`.")
    texts: list[tuple[tuple[str, ...], str]] = [(("prompt",), options.prompt), (("model",), options.model or "")]
    for key, value in options.metadata.items():
        texts += [(("metadata", key), key), (("metadata", key), value)]
    for where, text in texts:
        # The database can't hold NUL, and no other control character means anything to a reader.
        if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r" for c in text):
            refuse("A text has control characters.", where, "Send printable text.")


def _check_amounts(options: AnimationOptions) -> None:
    if options.frames is not None and options.duration_s is not None:
        refuse("`frames` and `duration_s` are both given.", ("frames",), "Send one of them.")
    if options.duration_s is not None:
        frames = round(options.duration_s * options.fps)
        if not 1 <= frames <= MAX_FRAMES:
            refuse(
                f"`duration_s` × `fps` makes {frames} frames; 1 to {MAX_FRAMES} are possible.",
                ("duration_s",),
                "Change the duration or the frame rate.",
            )
    if options.output.size is not None and options.output.size % 2:
        refuse("`output.size` is odd.", ("output", "size"), "Send an even number of px: video codecs need it.")


def _check_face(options: AnimationOptions) -> None:
    """Refuse what can't be meant: a face to be found where nothing is looked for, a photograph where there is none."""
    if options.face is not None and options.align == "none":
        refuse("A face is chosen, and `align: none` looks for none.", ("face",), "Leave `face` out, or `align: none`.")
    if options.source == "sampled":
        for field, given in (("face", options.face is not None), ("compose", options.compose == "paste_back")):
            if given:
                refuse(
                    f"`{field}` is about a photograph, and a sampled face has none.",
                    (field,),
                    "Send a picture, or leave it out.",
                )


def _check_whole(options: AnimationOptions, picture: Picture) -> None:
    """Bound what a film of a whole photograph costs: its frames pass through a disk and an encoder."""
    if options.compose != "paste_back":
        return
    width, height = whole_frame_size(picture.width, picture.height, options.output.size)
    pixels = options.frames_total * width * height
    if pixels > MAX_WHOLE_PIXELS:
        refuse(
            f"{options.frames_total} frames of {width}×{height} px are too many: at most "
            f"{MAX_WHOLE_PIXELS // (width * height)} of this size are possible.",
            ("output", "size"),
            "Ask for fewer frames or a smaller `output.size`.",
        )


def _check_source(options: AnimationOptions, parts: Body) -> None:
    given = parts.image is not None or parts.image_url is not None
    where = ("image_url" if parts.image_url is not None else parts.image_field,)
    if options.source == "sampled" and given:
        refuse(
            "A sampled face and a picture are both asked for.", where, "Leave the picture out, or leave `source` out."
        )
    if options.source == "image" and not given:
        refuse(
            "The request has no picture.",
            where,
            "Send the picture of a face; or ask for a face sampled from the model with `source: sampled`.",
        )


def _digest(options: AnimationOptions, parts: Body) -> str:
    digest = hashlib.sha256(json.dumps(options.model_dump(mode="json"), sort_keys=True).encode())
    if parts.image_url is not None:
        digest.update(b"url" + hashlib.sha256(parts.image_url.encode("utf-8", "surrogatepass")).digest())
    else:
        digest.update(b"-" if parts.image is None else hashlib.sha256(parts.image).digest())
    return digest.hexdigest()
