"""Fixtures that several parts share. Servers are in tests/servers.py."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.servers import (  # noqa: F401 - fixtures
    database_url,
    own_queue_server,
    postgres_server,
    postgres_url,
    queue_server,
    s3_server,
)


def pytest_configure() -> None:
    """Let the commands that tests start be interrupted: whoever runs in the background is born deaf to Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a small bundle with random weights (id "tiny", 64 px); its parent is a bundles_dir."""
    from tests.model.tiny_bundle import build_tiny_bundle  # needs onnx, which not every test environment has

    return build_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
