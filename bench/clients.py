"""Many clients that post one request over and over, each on a connection of its own: the load of ``bench.accepts``.

``python -m bench.clients PORT CLIENTS SECONDS`` with the whole HTTP request on its standard input prints one JSON line:
seconds taken, milliseconds of every answer, answers by status. A process of its own, so that it shares no interpreter
with what it measures; it reads answers no further than it must.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter


async def post_over_and_over(
    port: int, request: bytes, until_s: float, answers_ms: list[float], statuses: Counter[str]
) -> None:
    """Send the request and read its answer until the time is over."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (begun_s := time.perf_counter()) < until_s:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        answers_ms.append((time.perf_counter() - begun_s) * 1e3)
        statuses[head[9:12].decode()] += 1
    writer.close()


async def measure(port: int, clients: int, seconds: float, request: bytes) -> dict[str, object]:
    """Let the clients post and return what came of it."""
    answers_ms: list[float] = []
    statuses: Counter[str] = Counter()
    begun_s = time.perf_counter()
    posting = (post_over_and_over(port, request, begun_s + seconds, answers_ms, statuses) for _ in range(clients))
    await asyncio.gather(*posting)
    return {"seconds": time.perf_counter() - begun_s, "answers_ms": answers_ms, "statuses": statuses}


if __name__ == "__main__":
    port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    sys.stdout.write(json.dumps(asyncio.run(measure(port, clients, seconds, sys.stdin.buffer.read()))) + "\n")
