"""Writes a bundle directory: hashes, manifest, all or nothing. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.bundle.manifest import MANIFEST_NAME, SCHEMA_VERSION, SHARED_FOLDER, Manifest, check_file_name
from model.errors import BundleError


def write_bundle(
    directory: Path | str,
    manifest_fields: Mapping[str, Any],
    files: Mapping[str, Path | bytes],
    shared: Mapping[str, Path | bytes] | None = None,
) -> Path:
    """Write a bundle and return its directory; an earlier bundle at that place is replaced.

    The bundle is made complete in a hidden folder beside its place and then renamed, so a reader sees the old bundle,
    none for an instant, or the new one, but never half of one.

    Args:
        directory: where the bundle shall stand.
        manifest_fields: the manifest without ``files`` (they are hashed here); ``schema_version`` may be left out.
        files: file name → path to copy, or the bytes themselves.
        shared: the same for files that other bundles use too; they go to the folder ``shared`` beside the bundle. One
            that is there already and differs is never overwritten, as other bundles count on it.

    Raises:
        BundleError: bundle-invalid, before anything is replaced.
    """
    target = Path(directory)
    check_place(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    try:
        entries: dict[str, dict[str, Any]] = {}
        for name, source in files.items():
            check_file_name(name)
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            entries[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            _write_synced(staging / name, data)
        for name, source in (shared or {}).items():
            check_file_name(name)
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            entries[name] = {"sha256": digest, "bytes": len(data), "shared": True}
            _share(target.resolve().parent / SHARED_FOLDER / name, data, digest)
        manifest = Manifest.from_dict({"schema_version": SCHEMA_VERSION, **manifest_fields, "files": entries})
        text = json.dumps(manifest.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        _write_synced(staging / MANIFEST_NAME, text.encode())
        staging.chmod(0o755)  # mkdtemp makes it private; a bundle is read by other users (containers)
        _replace(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def check_place(target: Path) -> None:
    """Refuse a place where something else than a bundle stands; for those who want to know before long work.

    Raises:
        BundleError: bundle-invalid.
    """
    if target.exists() and not (target / MANIFEST_NAME).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(
            "bundle-invalid",
            f"{target} exists and is no bundle; it would be lost.",
            "Name another folder for the bundle, or empty that one first.",
        )


def _share(path: Path, data: bytes, digest: str) -> None:
    if path.exists():
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise BundleError(
                "bundle-invalid",
                f"{path} exists and differs; other bundles may use it.",
                "Export with another name for the shared file, or remove the bundles that use the old one first.",
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.new")
    _write_synced(staging, data)
    staging.replace(path)


def _replace(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    aside.rmdir()
    target.rename(aside)
    try:
        staging.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
