"""An API that is killed amid a webhook: the next one tells the event, under the same id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from tests.services.api.conftest import write_model
from tests.services.webhooks.conftest import Call, Receiver, wait_for

ROOT = Path(__file__).parents[3]


class Api:
    """The API as a process of its own, on the same data after each start."""

    def __init__(self, folder: Path, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = (folder / "log").open("a")
        self._environment = {
            **os.environ,
            "ANIMATO_DATA_DIR": str(folder / "data"),
            "ANIMATO_BUNDLES_DIR": str(folder / "bundles"),
            "ANIMATO_REDIS_URL": "redis://127.0.0.1:1/0",  # hints are not needed here
            "ANIMATO_AUTH": "off",
            "ANIMATO_PORT": str(self.port),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def start(self) -> None:
        command = [sys.executable, "-m", "services.api.server"]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        wait_for(self._answers, "the start of the API")

    def kill(self) -> None:
        """Kill the process with all that it has started."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.kill()
        self.http.close()
        self._log.close()

    def _answers(self) -> bool:
        try:
            return self.http.get("/livez").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    write_model(tmp_path / "bundles")
    api = Api(tmp_path, ANIMATO_OUTBOUND_ALLOW="127.0.0.1", ANIMATO_WEBHOOK_TIMEOUT_S="2")
    yield api
    api.close()


def test_killed_amid_a_call(api: Api, open_receiver: Callable[..., Receiver]) -> None:
    arrived, killed = threading.Event(), threading.Event()

    def answer(_: Call) -> int:
        if arrived.is_set():
            return 204
        arrived.set()
        killed.wait(120)
        return 0

    receiver = open_receiver(answer=answer)
    api.start()
    secret = api.http.post("/v1/webhooks/secrets").json()["secret"]
    job = {"prompt": "smiling", "source": "sampled", "webhook": {"url": receiver.url}}
    job_id = api.http.post("/v1/animations", json=job).json()["id"]
    api.http.post(f"/v1/animations/{job_id}/cancel")
    assert arrived.wait(120)
    api.kill()
    killed.set()
    assert receiver.taken == []

    api.start()

    def delivery() -> Any:
        (shown,) = api.http.get(f"/v1/animations/{job_id}/deliveries").json()["data"]
        return shown

    wait_for(lambda: delivery()["state"] == "delivered", "the delivery after the kill")
    assert {call.id for call in receiver.calls} == {delivery()["id"]}
    event = Webhook(secret).verify(receiver.taken[0].body, receiver.taken[0].headers)
    assert event["data"] == api.http.get(f"/v1/animations/{job_id}").json()

    asked = api.http.post(f"/v1/webhooks/deliveries/{delivery()['id']}/redeliver")
    assert asked.status_code == 202
    wait_for(lambda: len(receiver.taken) >= 2, "the redelivery")
    assert len({call.id for call in receiver.calls}) == 1
