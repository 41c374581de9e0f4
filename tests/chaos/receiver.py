"""A receiver of webhooks that fails at the first call of every second event, and keeps what it was told."""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Receiver:
    """What arrived.

    Args:
        told: events that were answered with 204, by job and event id.
        refused: event ids that were answered with 500 once.
    """

    port: int = 0
    told: dict[str, dict[str, str]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        """Where to call."""
        return f"http://127.0.0.1:{self.port}/hook"

    def take(self, event_id: str, body: bytes) -> int:
        """Return the status that this call is answered with."""
        event = json.loads(body)
        with self._lock:
            if zlib.crc32(event_id.encode()) % 2 and event_id not in self.refused:
                self.refused.add(event_id)
                return 500
            self.told.setdefault(event["data"]["id"], {})[event_id] = event["type"]
            return 204


@contextmanager
def open_receiver() -> Iterator[Receiver]:
    """Yield a receiver that listens on loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(receiver.take(self.headers["webhook-id"], body))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
