"""Folders for a job's files, used again by the next job where the last one ended well.

Making and removing a folder and its files costs as much processor time as the rest of fetching and storing a small
job. After a job that failed its folder is removed at once: an ffmpeg that outlived its child may still write there.
All are removed when the worker ends, and after a kill by the next worker that starts on the machine.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PREFIX = f"animato-job-{os.getuid()}-"
_LOCK = ".alive"


class Scratch:
    """The folders of one worker, in the system's temporary folder (``TMPDIR``); as many as are in use at once."""

    def __init__(self) -> None:
        self._idle: deque[tuple[Path, IO[str]]] = deque()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a folder that is empty but for its lock. Thread-safe."""
        folder, lock = self._take()
        try:
            yield folder
        except BaseException:
            _remove(folder, lock)
            raise
        if _empty(folder):
            self._idle.append((folder, lock))
        else:
            _remove(folder, lock)

    def close(self) -> None:
        """Remove the folders that no job uses."""
        while self._idle:
            _remove(*self._idle.pop())

    def _take(self) -> tuple[Path, IO[str]]:
        try:
            folder, lock = self._idle.pop()
        except IndexError:
            return _make_locked()
        if (folder / _LOCK).exists():
            return folder, lock
        _remove(folder, lock)  # somebody tidies the temporary folder
        return _make_locked()


def _empty(folder: Path) -> bool:
    """Remove the files in a folder; returns whether all are gone."""
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name != _LOCK:
                    os.unlink(entry.path)
    except OSError:
        return False
    return True


def _remove(folder: Path, lock: IO[str]) -> None:
    lock.close()
    shutil.rmtree(folder, ignore_errors=True)


def _make_locked() -> tuple[Path, IO[str]]:
    """Make a folder and lock it.

    The lock is held by this process only (not by children): the kernel lets go of it however the process ends.
    """
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = (folder / _LOCK).open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / _LOCK).exists():
            return folder, lock
        lock.close()  # a worker that starts took the folder for an orphan, before it was locked


def remove_orphans() -> int:
    """Remove the folders that killed workers left behind and return their number."""
    removed = 0
    for folder in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                removed += 1
        except OSError:
            continue  # alive, or another one is removing it
    return removed
