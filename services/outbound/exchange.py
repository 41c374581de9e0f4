"""One HTTP/1.1 request and its answer on one pinned connection, all of it before a deadline. Judges no address.

h11 keeps the protocol and nothing else: what it does not do (proxies from the environment, cookies, redirects,
decompression, look-ups) can't be forgotten to be switched off.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import h11

from services.outbound.addresses import Address
from services.outbound.guard import Deadline
from services.outbound.urls import Target

MAX_HEAD_BYTES = 32 * 1024
MAX_INTERIM_ANSWERS = 8
# An address that does not answer leaves time for the next one.
CONNECT_PATIENCE_S = 4.0
_READ_BYTES = 64 * 1024

Dial = Callable[[Address, int, float], socket.socket]
Headers = Sequence[tuple[str, str]]


class BodyTooLargeError(Exception):
    """The answer has more bytes than were asked for."""


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer; names are lower-case."""

    status: int
    headers: dict[str, str]


def dial(address: Address, port: int, timeout_s: float) -> socket.socket:
    """Open a TCP connection to an address; nothing is looked up."""
    connection = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect((str(address), port))
    except BaseException:
        connection.close()
        raise
    return connection


def connect(
    target: Target, addresses: Sequence[Address], deadline: Deadline, trust: ssl.SSLContext, dial: Dial
) -> socket.socket:
    """Connect to the first address that answers; over TLS the server must be the one that the URL names.

    Raises:
        OSError: none answers, its certificate is not good (``ssl.SSLError``), or the time is over (``TimeoutError``).
    """
    connection = _dial_one(target.port, addresses, deadline, dial)
    if target.scheme == "http":
        return connection
    try:
        connection.settimeout(deadline.left_s())
        return trust.wrap_socket(connection, server_hostname=target.host)
    except BaseException:
        connection.close()
        raise


def _dial_one(port: int, addresses: Sequence[Address], deadline: Deadline, dial: Dial) -> socket.socket:
    *others, last = addresses
    for address in others:
        try:
            return dial(address, port, min(CONNECT_PATIENCE_S, deadline.left_s()))
        except OSError:
            deadline.left_s()
    return dial(last, port, deadline.left_s())


class Exchange:
    """Sends a request and reads its answer; a context manager that closes the connection."""

    def __init__(self, connection: socket.socket, deadline: Deadline) -> None:
        self._connection = connection
        self._deadline = deadline
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        # No farewell of TLS: a server that does not answer it would hold the thread.
        self._connection.close()

    def ask(self, method: str, target: Target, headers: Headers, body: bytes = b"") -> Head:
        """Send a request and return the head of its answer.

        Raises:
            OSError: the connection broke or the time is over.
            h11.ProtocolError: what came is no HTTP, or its head is too large.
        """
        fields = [("Host", target.authority), *headers, ("Connection", "close")]
        if body:
            fields.append(("Content-Length", str(len(body))))
        request = h11.Request(method=method, target=target.resource, headers=fields)
        pieces = [self._protocol.send(request), self._protocol.send(h11.Data(body)) if body else b""]
        self._send(b"".join(piece or b"" for piece in pieces))
        self._protocol.send(h11.EndOfMessage())
        return self._read_head()

    def read_body(self, max_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            BodyTooLargeError: it has more than ``max_bytes``; no more than these are kept.
            OSError, h11.ProtocolError: as for ``ask``; also for a body that ends too early.
        """
        body = bytearray()
        while True:
            event = self._next_event()
            if isinstance(event, h11.Data):
                if len(body) + len(event.data) > max_bytes:
                    raise BodyTooLargeError
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return bytes(body)
            else:
                raise h11.RemoteProtocolError("the answer ends in its middle")

    def _read_head(self) -> Head:
        for _ in range(MAX_INTERIM_ANSWERS + 1):
            event = self._next_event()
            if isinstance(event, h11.Response):
                return Head(event.status_code, {n.decode("latin-1"): v.decode("latin-1") for n, v in event.headers})
            if not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("the connection ends before the answer")
        raise h11.RemoteProtocolError("the answer is put off again and again")

    def _next_event(self) -> object:
        while True:
            event = self._protocol.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._connection.settimeout(self._deadline.left_s())
            self._protocol.receive_data(self._connection.recv(_READ_BYTES))

    def _send(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self._connection.settimeout(self._deadline.left_s())
            left = left[self._connection.send(left) :]
