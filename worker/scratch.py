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

PREFIX = f"animato-job-{os.getuid()}-"
_LOCK = ".alive"


@contextmanager
def job_scratch() -> Iterator[Path]:
    """Yield an empty folder in the system's temporary folder (``TMPDIR``)."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / _LOCK).open("w") as lock:
            # Held by this process only (not by children): the kernel lets go of it however the process ends.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
