"""What a service stands on during chaos: servers of its own, and every road to them through a proxy.

Two grounds, as the service has two: ``embedded`` (SQLite and a folder, on a disk of their own) and ``spread``
(PostgreSQL and S3). Both have a queue server.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from services.settings import Settings
from tests.chaos.proxy import Proxy, to_port, to_socket
from tests.servers import PostgresServer, QueueServer, running_postgres, running_s3

DISK_BYTES = 160 * 1024 * 1024
GROUNDS = ("embedded", "spread")
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000


@dataclass
class Ground:
    """The servers and roads of one service.

    Args:
        disk: where SQLite and the folder lie, if it is a disk of its own that can be filled.
        missing: why there is none.
    """

    name: str
    settings: Settings
    queue: QueueServer
    redis_road: Proxy
    storage_road: Proxy | None = None
    database_road: Proxy | None = None
    postgres: PostgresServer | None = None
    disk: SmallDisk | None = None
    missing: str = ""


@contextmanager
def open_ground(name: str, folder: Path, bundles_dir: Path, *, may_mount: bool, **settings: Any) -> Iterator[Ground]:
    """Start the servers of a ground; all end with the block.

    Args:
        may_mount: what ``mount_alone`` said.
        settings: of the service, beside those that name the servers.
    """
    folder.mkdir()
    with ExitStack() as stack:
        queue = QueueServer(folder)
        stack.callback(queue.stop)
        queue.start()
        redis_road = _proxy(stack, Proxy(to_port(queue.port)))
        common = {"bundles_dir": bundles_dir, "redis_url": _through(redis_road, queue.url), "port": 0, **settings}
        if name == "embedded":
            disk, missing = stack.enter_context(small_disk(folder / "disk", may_mount))
            yield Ground(
                name,
                # No early warning: the disk is to run full under the writes themselves.
                Settings(data_dir=folder / "disk" / "data", **{"min_free_bytes": 0, **common}),
                queue,
                redis_road,
                disk=disk,
                missing=missing,
            )
            return
        postgres = stack.enter_context(running_postgres())
        postgres.execute("CREATE DATABASE animato")
        s3 = stack.enter_context(running_s3(_made(folder / "s3")))
        database_road = _proxy(stack, Proxy(to_socket(str(postgres.socket))))
        storage_road = _proxy(stack, Proxy(to_port(urlsplit(s3.endpoint).port or 0)))
        yield Ground(
            name,
            Settings(
                data_dir=folder / "data",
                database_url=f"postgresql+psycopg://postgres@127.0.0.1:{database_road.port}/animato",
                storage_url="s3://animato",
                s3_endpoint=_through(storage_road, s3.endpoint),
                s3_access_key_id=s3.access_key_id,
                s3_secret_access_key=s3.secret_access_key,
                **common,
            ),
            queue,
            redis_road,
            storage_road,
            database_road,
            postgres,
        )


def _proxy(stack: ExitStack, proxy: Proxy) -> Proxy:
    stack.callback(proxy.close)
    return proxy


def _through(road: Proxy, url: str) -> str:
    return url.replace(f":{urlsplit(url).port}", f":{road.port}")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# -- a disk that can be full ------------------------------------------------------------------------------------------


class SmallDisk:
    """A mounted memory disk; ``full`` leaves no byte of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    @contextmanager
    def full(self) -> Iterator[None]:
        """Fill the disk for the time of the block."""
        try:
            self.top_up()
            yield
        finally:
            self._ballast.unlink(missing_ok=True)

    def top_up(self) -> None:
        """Take what became free since: a full disk stays full."""
        with self._ballast.open("ab", buffering=0) as ballast:
            for piece in (1024 * 1024, 4096, 1):
                try:
                    while ballast.write(bytes(piece)):
                        pass
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise


def mount_alone() -> bool:
    """Give this process mounts of its own, which vanish with it; call before any thread starts.

    Needs root; returns False where the system forbids it.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    alone = libc.unshare(_CLONE_NEWNS) == 0
    return alone and bool(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0)


@contextmanager
def small_disk(folder: Path, may_mount: bool) -> Iterator[tuple[SmallDisk | None, str]]:
    """Mount a small disk on ``folder``, or say why there is none and leave an ordinary folder."""
    folder.mkdir()
    if not may_mount:
        yield None, "mounting a small disk needs root"
        return
    libc = ctypes.CDLL(None, use_errno=True)
    place = os.fsencode(folder)
    if libc.mount(b"chaos", place, b"tmpfs", 0, f"size={DISK_BYTES}".encode()) != 0:
        yield None, f"mounting a small disk failed: {os.strerror(ctypes.get_errno())}"
        return
    try:
        yield SmallDisk(folder), ""
    finally:
        libc.umount2(place, 2)  # 2: also while a process that ends still has a file open
