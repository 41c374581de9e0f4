"""How much disk is left where this service keeps its jobs and pictures. Knows the settings and no room that writes."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.settings import Settings


def measure_free_bytes(settings: Settings) -> int | None:
    """Return the free bytes of the fuller disk of database and objects; None where both are on other machines."""
    free = [_free_bytes(folder) for folder in _local_folders(settings)]
    return min(free) if free else None


def _local_folders(settings: Settings) -> list[Path]:
    folders = []
    database = urlsplit(settings.resolved_database_url)
    if database.scheme == "sqlite":
        folders.append(Path(unquote(database.path.removeprefix("/"))).absolute().parent)
    objects = urlsplit(settings.resolved_storage_url)
    if objects.scheme in {"", "file"}:
        folders.append(Path(unquote(objects.path)))
    return folders


def _free_bytes(folder: Path) -> int:
    """Return what a user may still write there; a folder that is not made yet is on its parent's disk."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
