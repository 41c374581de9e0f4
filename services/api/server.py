"""Starts the API: ``python -m services.api.server [--fd N]``. uvicorn, with an end to its patience (``connections``).

``uvicorn --factory services.api.app:create_app`` serves the same app without these limits.
"""

from __future__ import annotations

import argparse
import gc
import resource
import socket
import sys
from contextlib import suppress

import uvicorn

from services.api.connections import PatientProtocol
from services.settings import Settings, load_settings

GRACE_S = 10
# What a process opens beside connections: database, logs, pipes; and with each connection perhaps one file.
_OTHER_FILES = 256
_FAILED_START = 3  # as uvicorn calls it


def limit_connections(settings: Settings) -> int:
    """Return how many connections may be open at once, after raising the limit of open files as far as may be.

    A process that has used up its open files can store no job either: connections must end before that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * settings.max_connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return settings.max_connections
    return max(16, min(settings.max_connections, (soft - _OTHER_FILES) // 2))


class _Server(uvicorn.Server):
    """uvicorn's, that once started lets the collector of garbage forget what is there for good.

    That is some 150,000 objects of libraries; walking them all stops every request for a tenth of a second.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal says to stop."""
    parser = argparse.ArgumentParser(description="Serve the API.")
    parser.add_argument("--fd", type=int, help="a listening socket that was inherited; default: the settings' address")
    parser.add_argument("--grace-s", type=int, default=GRACE_S, help="time that open requests get to end")
    options = parser.parse_args(arguments)
    settings = load_settings()

    class Protocol(PatientProtocol):
        max_connections = limit_connections(settings)

    config = uvicorn.Config(
        "services.api.app:create_app",
        factory=True,
        fd=options.fd,
        host=settings.host,
        port=settings.port,
        http=Protocol,
        ws="none",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=options.grace_s,
    )
    server = _Server(config)
    with suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(_FAILED_START)


if __name__ == "__main__":
    main()
