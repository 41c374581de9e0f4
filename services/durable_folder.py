"""Files in a local folder that are on disk when their writer is told so: the object store where there is no S3.

Plain system calls. A file of a few kilobytes is written and read in less time than it takes to hand that work to a
thread of obstore's. Keys are checked by ``storage``, and listing, streaming and removing are obstore's.
"""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

SYNCS_AT_ONCE = 32
# Each is lost only if somebody tidies the folder away in the microseconds between its making and the file's.
_TRIES = 100
# Of a file that is still being written, by us or by obstore, which passes it over when it lists.
_UNFINISHED = re.compile(r".+#\d+")


class DurableFolder:
    """A folder whose files are named by keys: ``a/b/c`` is the file ``c`` in its folder ``a/b``. Thread-safe.

    Args:
        root: an existing folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._rooted: set[str] = set()  # what of the folder's own entries is known to be on disk
        self._syncing = ThreadPoolExecutor(SYNCS_AT_ONCE, "sync")

    def write(self, key: str, data: bytes | Path) -> None:
        """Write one file, whole or not at all; not on disk before ``sync``. Raises: OSError.

        Args:
            data: the bytes, or a file that does not change any more.
        """
        path = self.root / key
        unfinished = f"{path}#{random.getrandbits(63)}"
        try:
            _create(unfinished, data)
            os.replace(unfinished, path)
        finally:  # also where both were links to one file: then nothing was renamed
            with suppress(OSError):
                os.unlink(unfinished)

    def sync(self, keys: Sequence[str]) -> None:
        """Force written files and the folders that name them to disk. Raises: OSError."""
        entries = dict.fromkeys(keys)  # in order, each once; the root names few others, always the same
        for key in list(entries):
            *parents, _name = key.split("/")
            entries |= dict.fromkeys("/".join(parents[:depth]) for depth in range(len(parents), 0, -1))
            if key.split("/")[0] not in self._rooted:
                entries[""] = None
        # At once, because a disk takes many syncs in about the time of one.
        list(self._syncing.map(_sync, (self.root / entry for entry in entries)))
        self._rooted.update(key.split("/")[0] for key in keys)

    def read(self, key: str) -> bytes:
        """Return a whole file. Raises: FileNotFoundError, OSError."""
        return (self.root / key).read_bytes()

    def share(self, key: str, path: Path) -> None:
        """Have a whole file at ``path`` as well, to be read only. Raises: FileNotFoundError, OSError."""
        _share(self.root / key, path)

    def list_unfinished(self, folders: Iterable[str]) -> Iterator[Path]:
        """Yield the files of writes that are in hand, or were when their process was killed."""
        for folder in folders:
            for place, _, names in os.walk(self.root / folder):
                yield from (Path(place) / name for name in names if _UNFINISHED.fullmatch(name))


def _create(path: str, data: bytes | Path) -> None:
    for left in reversed(range(_TRIES)):
        try:
            return _fill(path, data)
        except FileNotFoundError:
            if not left:
                raise
        # A new job's folder, or one that another thread has just tidied away because it was empty; who tidies on
        # upwards may take a parent from under this, too.
        with suppress(FileNotFoundError, FileExistsError):
            os.makedirs(os.path.dirname(path), exist_ok=True)


def _fill(path: str, data: bytes | Path) -> None:
    if isinstance(data, Path):
        _share(data, path)
        return
    with open(path, "xb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) :]


def _share(source: Path, target: Path | str) -> None:
    """Give a file that does not change any more a second name, or copy it to where that can't be had.

    A new file is dear: the file system looks for a free inode, and for longer the more files were removed of late.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without such links
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
