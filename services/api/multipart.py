"""Splits a multipart/form-data body into its parts. Knows nothing of what the parts mean."""

from __future__ import annotations

from dataclasses import dataclass, field

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from services.errors import RequestError

MAX_PARTS = 64
# Deprecated in forms (RFC 7578, 4.7), and read by nobody: base64 would be taken for the text itself.
_PLAIN_ENCODINGS = frozenset({b"7bit", b"8bit", b"binary"})


@dataclass
class Part:
    """One part: its field name, its file name (None for a plain field) and its bytes."""

    name: str
    filename: str | None
    data: bytes


@dataclass
class _Collector:
    """The parser's callbacks: gathers headers and data of the part at hand."""

    parts: list[Part] = field(default_factory=list)
    finished: bool = False
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _header_name: bytearray = field(default_factory=bytearray)
    _header_value: bytearray = field(default_factory=bytearray)
    _data: bytearray = field(default_factory=bytearray)
    _name: str = ""
    _filename: str | None = None

    def on_part_begin(self) -> None:
        if len(self.parts) >= MAX_PARTS:
            raise _malformed(f"it has more than {MAX_PARTS} parts")
        self._headers, self._data = {}, bytearray()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def on_headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if disposition != b"form-data" or b"name" not in options:
            raise _malformed("a part has no name")
        if self._headers.get(b"content-transfer-encoding", b"binary").strip().lower() not in _PLAIN_ENCODINGS:
            raise _malformed("a part is encoded by Content-Transfer-Encoding, which forms no longer are")
        filename = options.get(b"filename")
        self._name = _decode_text(options[b"name"])
        # The name of a file is never used; that there is one tells a file from a field.
        self._filename = None if filename is None else filename.decode("utf-8", "replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += memoryview(data)[start:end]

    def on_part_end(self) -> None:
        self.parts.append(Part(self._name, self._filename, bytes(self._data)))

    def on_end(self) -> None:
        self.finished = True


def split_multipart(body: bytes, content_type: str) -> list[Part]:
    """Return the parts of a body in their order.

    Raises:
        RequestError: validation-failed for a body that is malformed, cut off, or has too many parts.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise _malformed("its Content-Type has no boundary")
    collector = _Collector()
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": collector.on_part_begin,
                "on_part_data": collector.on_part_data,
                "on_part_end": collector.on_part_end,
                "on_header_field": collector.on_header_field,
                "on_header_value": collector.on_header_value,
                "on_header_end": collector.on_header_end,
                "on_headers_finished": collector.on_headers_finished,
                "on_end": collector.on_end,
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise _malformed("its parts can't be told apart") from error
    if not collector.finished:
        raise _malformed("it ends before its last boundary")
    return collector.parts


def _decode_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed("the name of a part is not UTF-8") from error


def _malformed(why: str) -> RequestError:
    return RequestError(
        "validation-failed",
        f"The multipart body can't be read: {why}.",
        "Let an HTTP library build the form, e.g. `curl -F image=@face.png -F prompt=smiling`.",
    )
