"""The receiver of docs/webhooks.md, as it stands there, with a real courier."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.jobs.store import JobStore
from services.webhooks.courier import Courier
from tests.services.webhooks.conftest import End, wait_for, wait_for_state

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


@pytest.fixture
def example(tmp_path: Path, secret: str) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Run the page's Python; yields its URL and what gives the lines that it has printed."""
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script, printed = tmp_path / "receiver.py", tmp_path / "printed"
    script.write_text(code)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
    with printed.open("w") as output:
        child = subprocess.Popen([sys.executable, str(script)], env=environment, stdout=output)
    try:
        wait_for(lambda: _answers(port), "the start of the documented receiver")
        yield f"http://127.0.0.1:{port}/hooks/animato", lambda: printed.read_text().splitlines()
    finally:
        child.kill()
        child.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_documented_receiver(
    store: JobStore, end: End, start_courier: Callable[..., Courier], example: tuple[str, Callable[[], list[str]]]
) -> None:
    url, printed = example
    start_courier()
    record = end(url)
    delivery = wait_for_state(store, record, "delivered")
    told = f"animation.canceled {record.id}"
    assert printed() == [told]

    store.redeliver(delivery.id)
    wait_for(lambda: len(printed()) == 2, "the redelivery")
    assert printed() == [told, "seen before"]

    forged = urllib.request.Request(url, b'{"type":"animation.succeeded"}', {"webhook-id": "msg_1"}, method="POST")
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(forged, timeout=60)
