"""Folders for a job's files.

Removed when the job ends, and after a kill by the next worker that starts on the machine.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PREFIX = f"animato-job-{os.getuid()}-"
_LOCK = ".alive"


@contextmanager
def job_scratch() -> Iterator[Path]:
    """Yield an empty folder in the system's temporary folder (``TMPDIR``)."""
    folder, lock = _make_locked()
    try:
        with lock:
            yield folder
    finally:
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
