"""What is written at one go leaves in one piece, in its order, and nothing is lost at the end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from services.api.joined_writes import LARGE_BYTES, JoinedWrites


class Counted(asyncio.Transport):
    """A real transport that remembers its pieces."""

    def __init__(self, inner: asyncio.Transport) -> None:
        super().__init__()
        self.inner = inner
        self.pieces: list[bytes] = []

    def write(self, data: Any) -> None:
        self.pieces.append(bytes(data))
        self.inner.write(data)

    def __getattribute__(self, name: str) -> Any:
        if name in ("write", "pieces", "inner"):
            return super().__getattribute__(name)
        return getattr(super().__getattribute__("inner"), name)


def converse(talk: Callable[[JoinedWrites], Any]) -> tuple[list[bytes], bytes]:
    """Let a talk write to a socket; returns the pieces and what arrived."""

    async def run() -> tuple[list[bytes], bytes]:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=there)
        inner, _ = await loop.connect_accepted_socket(asyncio.Protocol, here)
        counted = Counted(inner)
        transport = JoinedWrites(counted, loop)
        given = talk(transport)
        if given is not None:
            await given
        if not transport.is_closing():
            await asyncio.sleep(0)
            transport.close()
        arrived = await reader.read()
        writer.close()
        return counted.pieces, arrived

    return asyncio.run(run())


def test_head_and_body_are_one_piece() -> None:
    def talk(transport: JoinedWrites) -> None:
        for piece in (b"head", b"", b"body"):
            transport.write(piece)
        assert transport.get_write_buffer_size() == 8

    assert converse(talk) == ([b"headbody"], b"headbody")


def test_two_goes_are_two_pieces() -> None:
    async def talk(transport: JoinedWrites) -> None:
        transport.write(b"one")
        await asyncio.sleep(0)
        assert transport.get_write_buffer_size() == 0
        transport.write(b"two")

    assert converse(talk) == ([b"one", b"two"], b"onetwo")


def test_much_is_not_kept() -> None:
    def talk(transport: JoinedWrites) -> None:
        transport.write(b"small")
        transport.write(b"x" * LARGE_BYTES)
        transport.write(b"last")

    pieces, arrived = converse(talk)
    assert pieces == [b"small" + b"x" * LARGE_BYTES, b"last"]
    assert arrived == b"".join(pieces)


def test_closing_sends_the_rest() -> None:
    def talk(transport: JoinedWrites) -> None:
        transport.write(b"farewell")
        transport.close()

    assert converse(talk) == ([b"farewell"], b"farewell")


def test_an_abort_sends_nothing() -> None:
    def talk(transport: JoinedWrites) -> None:
        transport.write(b"never")
        transport.abort()

    assert converse(talk) == ([], b"")
