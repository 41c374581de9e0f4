"""What a connection may cost: time to send a request's head, time to take what is sent, and how many there may be.

uvicorn waits for ever for a head that comes drop by drop and for a client that does not read; enough of those and
nobody else is served. A protocol for uvicorn, used by ``services.api.server``; knows no request.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from services.api.joined_writes import JoinedWrites
from services.api.problems import answer_error
from services.errors import TemporaryError

_log = structlog.get_logger(__name__)


class PatientProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with an end to its patience."""

    # From the connection or the last answer to the end of the next head.
    head_timeout_s: ClassVar[float] = 20.0
    # Without a byte taken of what waits to be sent.
    stall_timeout_s: ClassVar[float] = 60.0
    max_connections: ClassVar[int] = 1000

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    @property
    def is_waiting(self) -> bool:
        """Whether no request is being answered: the next one has yet to come, or to come whole."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in the place of one that does nothing."""
        super().connection_made(JoinedWrites(transport, self.loop))
        self._await_head()
        if len(self.connections) > self.max_connections and not self._make_room():
            _log.warning("connection_refused", connections=len(self.connections))
            self.transport.write(_BUSY)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget every timer."""
        self._stop_head_timer()
        self._stop_stall_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; the clock of its head stops when the head is there."""
        if self.transport.is_closing():
            return  # refused
        super().data_received(data)
        if not self.is_waiting:
            self._stop_head_timer()

    def on_response_complete(self) -> None:
        """Wait for the next request, as long as for the first one."""
        self._await_head()
        super().on_response_complete()
        if not self.is_waiting:  # it had come already
            self._stop_head_timer()

    def pause_writing(self) -> None:
        """Watch whether the client takes anything while the answer waits for it."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """The client reads."""
        self._stop_stall_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; one whose client still takes the last answer is not idle."""
        if self.transport.get_write_buffer_size():
            self._watch_writing()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            super().timeout_keep_alive_handler()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _await_head(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self.transport.get_write_buffer_size():  # the last answer is still being taken
            self._watch_writing()
            self._await_head()
        else:
            self.transport.abort()

    def _watch_writing(self) -> None:
        if self._stall_timer is None:
            self._unsent_bytes = self.transport.get_write_buffer_size()
            self._stall_timer = self.loop.call_later(self.stall_timeout_s, self._judge_writing)

    def _judge_writing(self) -> None:
        self._stall_timer = None
        unsent = self.transport.get_write_buffer_size()
        if unsent >= self._unsent_bytes > 0:
            _log.info("connection_stalled", unsent_bytes=unsent)
            self.transport.abort()
        elif unsent:
            self._watch_writing()

    def _make_room(self) -> bool:
        """End the connection that has waited longest for a request; returns whether there was one."""
        waiting = [
            (other._head_timer.when(), id(other), other)
            for other in self.connections
            if isinstance(other, PatientProtocol) and other is not self and other.is_waiting and other._head_timer
        ]
        if not waiting:
            return False
        _, _, longest = min(waiting)
        longest._stop_head_timer()
        longest.connections.discard(longest)
        longest.transport.abort()
        return True


def _write_busy_answer() -> bytes:
    """Return the whole answer of a service that is full, as bytes: no request was read that could be answered."""
    error = TemporaryError("not-ready", "Too many connections are open.", "Try again in some seconds.", delay_s=5.0)
    response = answer_error(error)
    head = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
    return f"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n{head}\r\n".encode() + bytes(response.body)


_BUSY = _write_busy_answer()
