"""A TCP proxy that a network's faults can be put on: cut, black hole, frozen, slow. Standard library only."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum

CHUNK_BYTES = 64 * 1024
SLOW_CHUNK_BYTES = 4 * 1024
SLOW_PAUSE_S = 0.02

Connect = Callable[[], socket.socket]


class Road(Enum):
    """What becomes of bytes on their way."""

    OPEN = "open"
    CUT = "cut"  # every connection ends, new ones end at once
    BLACK_HOLE = "black hole"  # connections are taken, what is said is thrown away, nothing answers
    FROZEN = "frozen"  # nothing moves, and moves on afterwards
    SLOW = "slow"  # about 200 kB/s, and 20 ms more for every answer


class Proxy:
    """Listens on a free loopback port and carries bytes to ``connect()``, as its road allows.

    Args:
        connect: opens a connection to the server behind; see ``to_port`` and ``to_socket``.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._road = Road.OPEN
        self._changed = threading.Condition()
        self._pairs: set[_Pair] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    @contextmanager
    def made(self, road: Road) -> Iterator[None]:
        """Put a fault on the road for the time of the block."""
        self.set(road)
        try:
            yield
        finally:
            self.set(Road.OPEN)

    def set(self, road: Road) -> None:
        """Change what becomes of bytes from now on. What lost bytes in a black hole is cut when the hole closes."""
        with self._changed:
            self._road = road
            self._changed.notify_all()
            doomed = [pair for pair in self._pairs if pair.lost_bytes or road is Road.CUT]
        for pair in doomed:
            pair.close()

    def close(self) -> None:
        """Stop listening and end every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listener.close()
        self.set(Road.CUT)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._carry, args=(client,), name="proxy-connection", daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        pair = _Pair(client)
        with self._changed:
            self._pairs.add(pair)
        try:
            if not self._pass_on(pair, b""):
                return
            try:
                server = self._connect()
            except OSError:
                return  # refused behind the proxy: the client sees its connection end
            if not pair.join(server):
                return
            back = threading.Thread(target=self._pump, args=(pair, server, client), name="proxy-back", daemon=True)
            back.start()
            self._pump(pair, client, server)
            back.join()
        finally:
            pair.close()
            with self._changed:
                self._pairs.discard(pair)

    def _pump(self, pair: _Pair, source: socket.socket, target: socket.socket) -> None:
        """Carry one direction until either side ends or the road does."""
        try:
            while data := source.recv(SLOW_CHUNK_BYTES if self._road is Road.SLOW else CHUNK_BYTES):
                if self._road is Road.SLOW:
                    time.sleep(SLOW_PAUSE_S)
                if not self._pass_on(pair, data):
                    break
                if not pair.lost_bytes:
                    target.sendall(data)
        except OSError:
            pass
        pair.close()

    def _pass_on(self, pair: _Pair, data: bytes) -> bool:
        """Wait while the road is frozen; tell whether the connection lives on. A black hole takes the bytes."""
        with self._changed:
            self._changed.wait_for(lambda: self._road is not Road.FROZEN)
            if self._road is Road.CUT:
                return False
            if self._road is Road.BLACK_HOLE:
                pair.lost_bytes = True
                if not data:  # a new connection is taken, and that is all
                    self._changed.wait_for(lambda: self._road is not Road.BLACK_HOLE)
                    return False
            return True


class _Pair:
    """The two ends of one connection."""

    def __init__(self, client: socket.socket) -> None:
        self._ends = [client]
        self._closed = False
        self._lock = threading.Lock()
        self.lost_bytes = False

    def join(self, server: socket.socket) -> bool:
        """Add the server's end; False when the connection was ended meanwhile."""
        with self._lock:
            if self._closed:
                server.close()
                return False
            self._ends.append(server)
            return True

    def close(self) -> None:
        """End both sides; who waits in ``recv`` is woken."""
        with self._lock:
            self._closed = True
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


def to_port(port: int) -> Connect:
    """Return how to reach a loopback port."""
    return lambda: socket.create_connection(("127.0.0.1", port), timeout=None)


def to_socket(path: str) -> Connect:
    """Return how to reach a Unix socket."""

    def connect() -> socket.socket:
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(path)
        except OSError:
            end.close()
            raise
        return end

    return connect
