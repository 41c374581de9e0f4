"""How many jobs an API accepts: posts answered with 202, through HTTP, every one of them on disk before it is answered.

An API process alone with its queue server and no worker. The baseline is the same API whose writers share no commit
(``ANIMATO_COMMIT_BATCH=1``); the two take turns, so that other load on the machine hits both. Beside them stands what
one sync takes on this disk: nothing that is durable can be answered sooner.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from bench.report import Figure
from services.launcher import child_environment
from services.parentage import start_child
from services.queue_server import free_port, plan_queue_server, wait_for_answer
from services.settings import Settings

CLIENTS = 16
ROUNDS = 5
ROUND_S = 3.0
START_PATIENCE_S = 120.0
PICTURE_PX = 128
_BOUNDARY = b"bench-boundary"


@dataclass(frozen=True)
class Round:
    """What one round of posting gave: accepts a second, milliseconds of each answer, processor time an accept."""

    a_second: float
    answers_ms: list[float]
    cpu_ms: float
    client_cpu_ms: float


def measure_accepts(settings: Settings, sample: Path) -> list[Figure]:
    """Return the accept figures: with and without shared commits, for a made-up face and for a picture."""
    figures = [_measure_sync(Path(tempfile.gettempdir()))]
    small = shrink(sample, PICTURE_PX)
    for what, body in (("a made-up face", _made_up_body()), (f"a picture of {PICTURE_PX} px", picture_body(small))):
        with running_api(settings, commit_batch=64) as shared, running_api(settings, commit_batch=1) as alone:
            rounds: dict[Api, list[Round]] = {shared: [], alone: []}
            for number in range(ROUNDS + 1):
                for api, kept in rounds.items():
                    took = post(api, body, ROUND_S)
                    if number:  # the first one warms up
                        kept.append(took)
            figures += _describe(what, rounds[shared], rounds[alone])
    return figures


def _describe(what: str, shared: list[Round], alone: list[Round]) -> list[Figure]:
    def rate(rounds: list[Round]) -> float:
        return statistics.median(taken.a_second for taken in rounds)

    def slowest(rounds: list[Round]) -> float:
        return statistics.quantiles([took for taken in rounds for took in taken.answers_ms], n=100)[98]

    name, baseline = f"{CLIENTS} clients, {what}", "each accept with a commit of its own"
    return [
        Figure(f"accepts a second, {name}", rate(shared), "/s", rate(alone), baseline, "≥ 500"),
        Figure(
            f"99 of 100 accepts are answered within, {name}", slowest(shared), "ms", slowest(alone), baseline, "≤ 50"
        ),
        Figure(
            f"processor time of the API an accept, {name}",
            statistics.median(taken.cpu_ms for taken in shared),
            "ms",
            statistics.median(taken.cpu_ms for taken in alone),
            baseline,
        ),
        Figure(
            f"processor time of the clients an accept, {name}",
            statistics.median(taken.client_cpu_ms for taken in shared),
            "ms",
        ),
    ]


@dataclass(frozen=True)
class Api:
    """A running API."""

    port: int
    pid: int


@contextmanager
def running_api(settings: Settings, **changes: object) -> Iterator[Api]:
    """Run an API with a folder and a queue server of its own, and no worker."""
    with tempfile.TemporaryDirectory(prefix="animato-bench-") as name:
        folder = Path(name)
        plan = plan_queue_server(folder)
        own = settings.model_copy(
            update={
                "data_dir": folder,
                "host": "127.0.0.1",
                "port": free_port(),
                "auth": "off",
                "redis_url": plan.url,
                "queue_limit": 10**7,
                "address_rate_limit": 0,
                **changes,
            }
        )
        with (folder / "log").open("wb") as log:
            quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            ended = threading.Event()
            queue = start_child(list(plan.command), **quiet)
            wait_for_answer(plan.port, START_PATIENCE_S)
            api = start_child(
                [sys.executable, "-m", "services.api.server"],
                on_exit=lambda _code: ended.set(),
                env=child_environment(own),
                **quiet,
            )
            try:
                _wait_alive(own.port, ended, folder / "log")
                yield Api(own.port, api.pid)
            finally:
                api.terminate()
                ended.wait(20.0)
                queue.kill()


def _wait_alive(port: int, ended: threading.Event, log: Path) -> None:
    deadline_s = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline_s and not ended.is_set():
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
        try:
            connection.request("GET", "/livez")
            connection.getresponse()
        except OSError:
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    raise RuntimeError(f"the API did not start: {log.read_text(errors='replace')[-2000:]}")


def post(api: Api, body: tuple[bytes, bytes], seconds: float) -> Round:
    """Let the clients post for some seconds. Raises: RuntimeError when anything but 202 comes back."""
    content_type, content = body
    head = (
        f"POST /v1/animations HTTP/1.1\r\nHost: 127.0.0.1:{api.port}\r\n"
        f"Content-Type: {content_type.decode()}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    before_ms = _cpu_ms(api.pid)
    answer = subprocess.run(
        [sys.executable, "-m", "bench.clients", str(api.port), str(CLIENTS), str(seconds)],
        input=head.encode() + content,
        stdout=subprocess.PIPE,
        check=True,
    )
    used_ms = _cpu_ms(api.pid) - before_ms
    told = json.loads(answer.stdout)
    if set(told["statuses"]) != {"202"}:
        raise RuntimeError(f"not every post was accepted: {told['statuses']}")
    accepted = len(told["answers_ms"])
    return Round(accepted / told["seconds"], told["answers_ms"], used_ms / accepted, told["cpu_ms"])


def _cpu_ms(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e3 / os.sysconf("SC_CLK_TCK")


def _measure_sync(folder: Path) -> Figure:
    """Return what one small write and sync takes on this disk: nothing durable can be answered sooner."""
    took_ms = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        for _ in range(200):
            begun_s = time.perf_counter()
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            took_ms.append((time.perf_counter() - begun_s) * 1e3)
    return Figure("one write of 4 KB with its sync, median", statistics.median(took_ms), "ms")


def _made_up_body() -> tuple[bytes, bytes]:
    return b"application/json", json.dumps({"prompt": "smiling", "source": "sampled", "seed": 7}).encode()


def picture_body(picture: bytes) -> tuple[bytes, bytes]:
    """Return content type and body of a post with this picture."""
    parts = [
        b'Content-Disposition: form-data; name="prompt"\r\n\r\nsmiling',
        b'Content-Disposition: form-data; name="image"; filename="face.png"\r\nContent-Type: image/png\r\n\r\n'
        + picture,
    ]
    content = b"".join(b"--" + _BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts)
    return b"multipart/form-data; boundary=" + _BOUNDARY, content + b"--" + _BOUNDARY + b"--\r\n"


def shrink(sample: Path, edge_px: int) -> bytes:
    """Return a picture as a small PNG."""
    buffer = io.BytesIO()
    with Image.open(sample) as picture:
        picture.resize((edge_px, edge_px)).save(buffer, "PNG")
    return buffer.getvalue()
