"""The proxy does to a connection what its road says, and no more."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy, Road, to_port

PATIENCE_S = 60.0
SHORT_S = 0.3


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """A proxy before a server that says everything back."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(connection: socket.socket) -> None:
        with connection:
            try:
                while data := connection.recv(1024):
                    connection.sendall(data)
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    running = Proxy(to_port(listener.getsockname()[1]))
    yield running
    running.close()
    listener.close()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S)


def ask(end: socket.socket, words: bytes) -> bytes:
    end.sendall(words)
    return end.recv(1024)


def is_silent(end: socket.socket) -> bool:
    end.settimeout(SHORT_S)
    try:
        end.recv(1024)
    except TimeoutError:
        return True
    finally:
        end.settimeout(PATIENCE_S)
    return False


def ends(end: socket.socket) -> bool:
    try:
        return end.recv(1024) == b""
    except ConnectionError:
        return True


def test_an_open_road_carries_both_ways(proxy: Proxy) -> None:
    with connect(proxy) as end:
        assert ask(end, b"hello") == b"hello"


def test_a_cut_ends_what_is_there_and_what_comes(proxy: Proxy) -> None:
    with connect(proxy) as before:
        assert ask(before, b"1") == b"1"
        with proxy.made(Road.CUT):
            assert ends(before)
            with connect(proxy) as after:
                assert ends(after)
    with connect(proxy) as later:
        assert ask(later, b"2") == b"2"


def test_a_frozen_road_goes_on_where_it_stopped(proxy: Proxy) -> None:
    with connect(proxy) as end:
        assert ask(end, b"1") == b"1"
        with proxy.made(Road.FROZEN):
            end.sendall(b"2")
            assert is_silent(end)
        assert end.recv(1024) == b"2", "nothing was lost"


def test_a_black_hole_takes_everything_and_answers_nothing(proxy: Proxy) -> None:
    with connect(proxy) as before:
        assert ask(before, b"1") == b"1"
        with proxy.made(Road.BLACK_HOLE):
            before.sendall(b"2")
            assert is_silent(before)
            after = connect(proxy)
            after.sendall(b"3")
            assert is_silent(after)
        assert ends(before), "bytes are missing in it: it can't go on"
        assert ends(after)
        after.close()


def test_a_slow_road_loses_nothing(proxy: Proxy) -> None:
    words = bytes(range(256)) * 64
    with proxy.made(Road.SLOW), connect(proxy) as end:
        end.sendall(words)
        heard = b""
        while len(heard) < len(words):
            heard += end.recv(1024)
    assert heard == words


def test_a_dead_server_ends_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    proxy = Proxy(to_port(port))
    with connect(proxy) as end:
        assert ends(end)
    proxy.close()
