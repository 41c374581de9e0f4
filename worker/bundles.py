"""The bundles that a worker finds in its folder, looked for before every claim: one may be put there, or taken away.

Manifests are read again only when one of them has changed. No SQL, no queue, and no bundle is opened in here.
"""

from __future__ import annotations

from pathlib import Path

from model.bundle.manifest import MANIFEST_NAME
from model.bundle.reader import map_bundles

_Seen = tuple[tuple[str, int, int, int], ...]


class Bundles:
    """A folder of bundles.

    Args:
        bundles_dir: as in the settings.
    """

    def __init__(self, bundles_dir: Path) -> None:
        self._dir = bundles_dir
        self._seen: _Seen | None = None
        self._folders: dict[str, Path] = {}

    def folders(self) -> dict[str, Path]:
        """Return the folder of every bundle that can be named, by model id, the default one first."""
        seen = self._look()
        if seen != self._seen:
            # What changes while it is read is read again: it differs from what was seen before.
            self._folders, self._seen = map_bundles(self._dir), seen
        return self._folders

    def _look(self) -> _Seen:
        """Return what changes with every manifest that is written, replaced or removed."""
        seen = []
        for manifest in self._dir.glob(f"*/{MANIFEST_NAME}"):
            try:
                found = manifest.stat()
            except FileNotFoundError:
                continue
            seen.append((manifest.parent.name, found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(sorted(seen))
