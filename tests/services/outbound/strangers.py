"""Servers of strangers: real sockets on loopback, with or without TLS, that count who comes and answer as they like."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

# What a server sends: the pieces of an answer, as it comes by.
Answer = Callable[[bytes], Iterable[bytes]]


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a whole answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(status, b"", f"Location: {location}")


class Stranger:
    """A server that keeps what it was asked and answers by path."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[bytes] = []
        self.connections = 0
        self.closing = threading.Event()
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def says(self, path: str, *pieces: bytes) -> None:
        self.answers[path] = lambda _: pieces

    def drips(self, path: str, head: bytes, drop: bytes = b"x") -> None:
        """Send a head and then drop by drop for half a minute, always before anybody's patience with one read ends."""

        def drip(_: bytes) -> Iterator[bytes]:
            yield head
            for _ in range(600):
                if self.closing.wait(0.05):
                    return
                yield drop

        self.answers[path] = drip

    def paths(self) -> list[str]:
        return [request.split(b" ", 2)[1].decode("latin-1") for request in self.requests]

    def close(self) -> None:
        self.closing.set()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.settimeout(60)
                wrapped = connection if self._tls is None else self._tls.wrap_socket(connection, server_side=True)
                with wrapped:
                    request = _read_request(wrapped)
                    self.requests.append(request)
                    path = request.split(b" ", 2)[1].decode("latin-1")
                    for piece in self.answers.get(path, lambda _: [answer("404 Not Found")])(request):
                        wrapped.sendall(piece)
            except (OSError, IndexError):
                pass  # the caller has hung up, or never spoke


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return data
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while lengths and len(body) < int(lengths[0]):
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def open_stranger(tls: ssl.SSLContext | None = None) -> Iterator[Stranger]:
    stranger = Stranger(tls)
    try:
        yield stranger
    finally:
        stranger.close()
