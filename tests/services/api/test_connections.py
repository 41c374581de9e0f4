"""Connections that cost without asking: late heads, clients that do not read, crowds. A real uvicorn, a plain app."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
import uvicorn

from services.api.connections import PatientProtocol
from services.api.server import limit_connections
from services.settings import Settings

PATIENCE_S = 60.0
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LARGE = 32 * 2**20

Serve = Callable[..., int]


class App:
    """Answers at once; /large with many bytes, /held when it is let go."""

    def __init__(self) -> None:
        self.held = 0
        self.go = threading.Event()
        self.large_ended = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b"ok"
        if scope["path"] == "/held":
            self.held += 1
            while not self.go.is_set():
                await asyncio.sleep(0.01)
        if scope["path"] == "/large":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(LARGE // 2**16):
                await send({"type": "http.response.body", "body": b"x" * 2**16, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            self.large_ended.set()
            return
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def serve(app: App) -> Iterator[Serve]:
    """Start a server with some limits changed; returns its port."""
    with ExitStack() as ends:

        def start(**limits: Any) -> int:
            protocol = type("Protocol", (PatientProtocol,), {"head_timeout_s": PATIENCE_S, **limits})
            listener = ends.enter_context(socket.create_server(("127.0.0.1", 0)))
            config = uvicorn.Config(app, http=protocol, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()

            def end() -> None:
                app.go.set()
                server.should_exit = True
                thread.join()

            ends.callback(end)
            while not server.started:
                time.sleep(0.01)
            port: int = listener.getsockname()[1]
            return port

        yield start


def call(port: int, data: bytes = b"", receive_buffer: int | None = None) -> socket.socket:
    client = socket.socket()
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(PATIENCE_S)
    client.connect(("127.0.0.1", port))
    client.sendall(data)
    return client


def read_all(client: socket.socket) -> bytes:
    """Read until the server ends the connection, in whichever way."""
    data = bytearray()
    try:
        while more := client.recv(2**20):
            data += more
    except ConnectionResetError:
        pass
    return bytes(data)


def drip(client: socket.socket, drop: bytes) -> bool:
    """Send a drop again and again; returns whether the server ended that."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        try:
            client.sendall(drop)
        except (ConnectionResetError, BrokenPipeError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
def test_a_head_that_does_not_come_ends_the_connection(serve: Serve, begun: bytes) -> None:
    port = serve(head_timeout_s=0.3)
    with closing(call(port, begun)) as client:
        assert read_all(client) == b""


def test_a_head_that_drips_ends_the_connection(serve: Serve) -> None:
    port = serve(head_timeout_s=0.3)
    with closing(call(port, b"GET / HTTP/1.1\r\n")) as client:
        assert drip(client, b"A: x\r\n")


def test_the_second_head_has_to_come_too(serve: Serve) -> None:
    port = serve(head_timeout_s=0.5)
    with closing(call(port, REQUEST + b"GET / HT")) as client:
        assert read_all(client).count(b"200 OK") == 1


def test_a_body_that_drips_after_its_answer_ends_the_connection(serve: Serve) -> None:
    port = serve(head_timeout_s=0.3)
    with closing(call(port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")) as client:
        assert b"200 OK" in client.recv(1000)
        assert drip(client, b"x")


def test_requests_that_take_longer_than_a_head_may_are_answered(serve: Serve, app: App) -> None:
    port = serve(head_timeout_s=0.2)
    with closing(call(port, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + REQUEST + b"GET / HT")) as client:
        time.sleep(0.5)
        app.go.set()
        assert read_all(client).count(b"200 OK") == 2


def test_a_client_that_does_not_read_is_given_up(serve: Serve, app: App) -> None:
    port = serve(stall_timeout_s=0.3)
    with closing(call(port, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", receive_buffer=4096)) as client:
        assert app.large_ended.wait(PATIENCE_S)  # what is sent to a broken connection goes nowhere
        assert len(read_all(client)) < LARGE


def test_a_client_that_reads_slowly_is_served(serve: Serve) -> None:
    port = serve(stall_timeout_s=2.0, head_timeout_s=0.1)
    request = b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with closing(call(port, request, receive_buffer=2**16)) as client:
        received, pause_s = 0, 0.1
        while more := client.recv(2**22):
            received += len(more)
            time.sleep(pause_s)
            pause_s *= 0.9
        assert received > LARGE


def test_one_more_connection_takes_the_place_of_the_oldest_idle_one(serve: Serve, app: App) -> None:
    port = serve(max_connections=3)
    with ExitStack() as ends:
        held = ends.enter_context(closing(call(port, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")))
        while app.held < 1:
            time.sleep(0.01)
        oldest = ends.enter_context(closing(call(port, b"GET")))
        time.sleep(0.05)
        younger = ends.enter_context(closing(call(port, b"GET")))
        time.sleep(0.05)
        newest = ends.enter_context(closing(call(port, REQUEST)))
        assert b"200 OK" in newest.recv(1000)
        assert read_all(oldest) == b""
        younger.sendall(b" / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in younger.recv(1000)
        app.go.set()
        assert b"200 OK" in held.recv(1000)


def test_a_crowd_that_is_being_served_is_told_of(serve: Serve, app: App) -> None:
    port = serve(max_connections=2)
    with ExitStack() as ends:
        for count in (1, 2):
            ends.enter_context(closing(call(port, b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")))
            while app.held < count:
                time.sleep(0.01)
        with closing(call(port)) as refused:
            head, _, body = read_all(refused).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in head
        assert b'"code":"not-ready"' in body
        app.go.set()
        time.sleep(0.1)
        with closing(call(port, REQUEST)) as client:
            assert b"200 OK" in client.recv(1000)


def test_open_files_bound_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, now: limits.update(now=now))
    assert limit_connections(Settings(max_connections=100)) == 100
    assert limits["now"] == (1024, 4096)
    assert limit_connections(Settings(max_connections=1000)) == 1000
    assert limits["now"] == (2256, 4096)
    assert limit_connections(Settings(max_connections=10_000)) == 1920
    assert limits["now"] == (4096, 4096)
