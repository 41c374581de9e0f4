"""Many clients that post one request over and over, each on a connection of its own: the load of ``bench.accepts``.

``python -m bench.clients PORT CLIENTS SECONDS`` with the whole HTTP request on its standard input prints one JSON line:
seconds taken, milliseconds of every answer, answers by status, processor time of this process an answer. A process of
its own, so that it shares no interpreter with what it measures; bare sockets and one wait for all of them, because on
a small machine whatever the clients take is missing to the service. Status and length of every answer are read, and
its bytes to the last one.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import Counter

_RECEIVE_BYTES = 65536


class PostingClient:
    """One connection with one request under way."""

    def __init__(self, port: int, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self._answer = b""
        self._begun_s = 0.0

    def send(self) -> None:
        """Send the request."""
        self._answer = b""
        self._begun_s = time.perf_counter()
        self.socket.sendall(self._request)

    def receive(self) -> tuple[str, float] | None:
        """Read what has come; returns status and milliseconds once the answer is whole.

        Raises: ConnectionError when the service hangs up.
        """
        piece = self.socket.recv(_RECEIVE_BYTES)
        if not piece:
            raise ConnectionError("the service hung up amid an answer")
        answer = self._answer = self._answer + piece
        end = answer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = answer[:end].lower()
        length = int(head[head.index(b"\r\ncontent-length:") + 17 :].partition(b"\r\n")[0])
        if len(answer) < end + 4 + length:
            return None
        return head[9:12].decode(), (time.perf_counter() - self._begun_s) * 1e3


def measure(port: int, clients: int, seconds: float, request: bytes) -> dict[str, object]:
    """Let the clients post and return what came of it; what is under way at the end is waited for and counted."""
    posting = {client.socket.fileno(): client for client in (PostingClient(port, request) for _ in range(clients))}
    poll = select.epoll()
    for number in posting:
        poll.register(number, select.EPOLLIN)
    answers_ms: list[float] = []
    statuses: Counter[str] = Counter()
    begun_s, begun_cpu_s = time.perf_counter(), time.process_time()
    for client in posting.values():
        client.send()
    while posting:
        for number, _ in poll.poll():
            answer = posting[number].receive()
            if answer is None:
                continue
            statuses[answer[0]] += 1
            answers_ms.append(answer[1])
            if time.perf_counter() - begun_s < seconds:
                posting[number].send()
            else:
                poll.unregister(number)
                posting.pop(number).socket.close()
    return {
        "seconds": time.perf_counter() - begun_s,
        "answers_ms": answers_ms,
        "statuses": statuses,
        "cpu_ms": (time.process_time() - begun_cpu_s) * 1e3 / len(answers_ms),
    }


if __name__ == "__main__":
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    sys.stdout.write(json.dumps(measure(port, clients, seconds, sys.stdin.buffer.read())) + "\n")
