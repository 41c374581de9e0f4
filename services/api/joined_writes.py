"""Sends what is written at one go as one piece: head and body of an answer would else be two.

Each piece is a call of the kernel, a packet, and a wake-up of the client, who may take the processor from us for half
an answer. Used by ``connections``; knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

# As much as this is worth a call by itself, and must not pile up behind our back: the transport's own limits count
# what it has.
LARGE_BYTES = 16 * 1024


class JoinedWrites(asyncio.Transport):
    """A transport that keeps small writes until the loop's next round; all else is the inner one's."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._pieces: list[bytes] = []
        self._kept_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send soon; at once where much is waiting."""
        if not data:
            return
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(bytes(data))
        self._kept_bytes += len(data)
        if self._kept_bytes >= LARGE_BYTES:
            self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces soon."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """Close after all that was written."""
        self._flush()
        self._inner.close()

    def abort(self) -> None:
        """Close at once."""
        self._pieces, self._kept_bytes = [], 0
        self._inner.abort()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are not sent yet."""
        return self._kept_bytes + self._inner.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Return whether it is closed or about to be."""
        return self._inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the inner transport knows."""
        return self._inner.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Stop reading."""
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._inner.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Change the protocol."""
        self._inner.set_protocol(protocol)

    def _flush(self) -> None:
        pieces, self._pieces, self._kept_bytes = self._pieces, [], 0
        if pieces and not self._inner.is_closing():
            self._inner.write(b"".join(pieces))
