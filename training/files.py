"""Files of a run: written whole or not at all, with a sentence when the disk is full, and signals held meanwhile.

No torch here.
"""

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from training.errors import DiskFullError

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
SLACK = 1 << 20
"""Bytes that a file may need beyond what it holds: indices, blocks of the file system."""


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 1 << 62  # unknown: let the writing find out


def check_room(path: Path, bytes_needed: int) -> None:
    """Refuse to begin a file that won't fit beside the one that it replaces.

    Raises: DiskFullError with both sizes.
    """
    free = _free_bytes(path)
    if free < bytes_needed + SLACK:
        raise DiskFullError(
            f"{path} needs {bytes_needed / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB left; nothing was written"
            "; free some space and run the same command to go on"
        )


@contextmanager
def tell_full_disk(path: Path) -> Iterator[None]:
    """Turn the system's words for a full disk into ours.

    Raises: DiskFullError that names the path.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise DiskFullError(
            f"{path}: {os.strerror(error.errno or 0)}; free some space and run the same command to go on"
        ) from error


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, flush to the disk, then rename: a reader sees the old file or the whole new one.

    Raises: DiskFullError when there is no room; the old file is still there and the part is removed.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with tell_full_disk(path):
            write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


class PatientFile:
    """A file for writers that hide why a write failed (torch's says no more than that its position is wrong).

    It keeps the first error and takes everything after it as written; `close` raises that error.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write all of the data, or remember why not."""
        rest = memoryview(data).cast("B")
        total = len(rest)
        try:
            while self._error is None and len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        return total

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Close the file.

        Raises: OSError of the first write that failed.
        """
        self._file.close()
        if self._error is not None:
            raise self._error


def _flush_folder(folder: Path) -> None:
    # so that the rename itself outlives a power cut
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class StopSignal:
    """Notes SIGINT and SIGTERM, so that a run ends at a step's boundary."""

    def __init__(self) -> None:
        self.number: int | None = None

    def note(self, number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        self.number = number


@contextmanager
def hold_signals() -> Iterator[StopSignal]:
    """Note SIGINT and SIGTERM instead of dying of them, until the block ends."""
    stop = StopSignal()
    before: dict[int, Any] = {int(n): signal.signal(n, stop.note) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
