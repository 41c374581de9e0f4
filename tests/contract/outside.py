"""The rest of the world: serves a picture under every path, takes every call of a webhook and remembers its event."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Outside:
    """A web server that shows one picture and counts who calls.

    Args:
        picture: the bytes of a PNG.
    """

    def __init__(self, picture: bytes) -> None:
        self.picture = picture
        self.address = ""  # host:port, while it serves
        self.pictures_fetched: list[str] = []  # paths; appended to by many threads
        self.webhooks_taken: list[str] = []  # ids of events

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Serve on loopback until the end of the block."""
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                world.pictures_fetched.append(self.path)
                self._answer("image/png", world.picture)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                world.webhooks_taken.append(self.headers["webhook-id"])
                self._answer("text/plain", b"taken")

            def _answer(self, media_type: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", media_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.address = f"127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield
            server.shutdown()

    def figures(self) -> dict[str, int]:
        """Return how often the service came here, and how many events it told more than once."""
        told = Counter(self.webhooks_taken)
        return {
            "pictures_fetched": len(self.pictures_fetched),
            "webhooks_taken": len(self.webhooks_taken),
            "webhooks_told_again": sum(times > 1 for times in told.values()),
        }
