"""Opens a bundle directory and refuses it where it is not exactly what its manifest says. Standard library only."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.bundle.manifest import MANIFEST_NAME, SHARED_FOLDER, Manifest
from model.errors import BundleError

MAX_MANIFEST_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_FRESH_COPY = "Get a fresh copy of the bundle (in a git checkout: `git checkout -- <bundle>`), or export it again."

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bundle:
    """A verified directory and its manifest."""

    directory: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """Return the bytes of one listed file, checked again as they are read.

        What is returned is what was hashed: a file that changes between verification and use can't slip in.

        Raises:
            BundleError: bundle-missing or bundle-damaged.
        """
        path = _checked_path(self.directory, self.manifest, name)
        data = _read_bytes(path)
        if hashlib.sha256(data).hexdigest() != self.manifest.files[name].sha256:
            raise _damaged(name)
        return data

    def read_graph(self, graph: str) -> bytes:
        """Return the checked bytes of a graph of the manifest (``"synthesis"``, …)."""
        name = self.manifest.graphs[graph]
        assert name is not None, f"the bundle has no {graph} graph"
        return self.read(name)


def read_bundle(path: Path | str) -> Bundle:
    """Open a bundle and verify every listed file: present, inside the directory, of the right size and SHA-256.

    Files in the directory that the manifest does not list are never opened. Takes about 10 ms for 10 MB.

    Raises:
        BundleError: bundle-missing, bundle-invalid, bundle-newer or bundle-damaged, with what to do in its hint.
    """
    directory = Path(path)
    manifest = read_manifest(directory)
    for name, entry in manifest.files.items():
        if _hash_file(_checked_path(directory, manifest, name)) != entry.sha256:
            raise _damaged(name)
    return Bundle(directory, manifest)


def read_manifest(directory: Path | str) -> Manifest:
    """Read and check ``manifest.json`` alone; no other file is opened or hashed.

    Raises:
        BundleError: bundle-missing, bundle-invalid or bundle-newer.
    """
    path = Path(directory) / MANIFEST_NAME
    if not path.is_file():
        raise BundleError(
            "bundle-missing",
            f"There is no model bundle at {directory}: {MANIFEST_NAME} was not found.",
            "Check the path (ANIMATO_BUNDLES_DIR, or --bundle), or export a bundle there first.",
        )
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise BundleError("bundle-invalid", f"{path} is larger than a manifest can be (1 MiB).", _FRESH_COPY)
    data = _read_bytes(path)
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError("bundle-invalid", f"{path} is not JSON ({type(error).__name__}).", _FRESH_COPY) from error
    return Manifest.from_dict(parsed, sha256=hashlib.sha256(data).hexdigest())


def list_bundles(bundles_dir: Path | str) -> list[Manifest]:
    """Return the manifests of all bundles in a folder, the human domain first, then by id. Nothing is hashed.

    A bundle whose manifest can't be used is left out and named in a warning: one bad bundle must not hide the others.
    """
    return [manifest for _, manifest in _scan(Path(bundles_dir))]


def list_faults(bundles_dir: Path | str) -> dict[str, BundleError]:
    """Return what is wrong with each bundle that ``list_bundles`` leaves out, by the folder's name."""
    read = {directory.name: found for directory, found in _read_manifests(Path(bundles_dir))}
    return {name: found for name, found in read.items() if isinstance(found, BundleError)}


def map_bundles(bundles_dir: Path | str) -> dict[str, Path]:
    """Return the directory of every bundle by its id, in the order of ``list_bundles``; the first of equal ids."""
    found: dict[str, Path] = {}
    for directory, manifest in _scan(Path(bundles_dir)):
        found.setdefault(manifest.id, directory)
    return found


def find_bundle(bundles_dir: Path | str, model_id: str) -> Path:
    """Return the directory of the bundle with this id (which need not be the folder's name).

    Raises:
        BundleError: bundle-missing.
    """
    for directory, manifest in _scan(Path(bundles_dir)):
        if manifest.id == model_id:
            return directory
    raise BundleError(
        "bundle-missing",
        f"There is no bundle with the id {model_id!r} in {bundles_dir}.",
        "`animato models` lists what is there; ANIMATO_BUNDLES_DIR says where to look.",
    )


def _scan(bundles_dir: Path) -> list[tuple[Path, Manifest]]:
    usable: list[tuple[Path, Manifest]] = []
    for directory, found in _read_manifests(bundles_dir):
        if isinstance(found, BundleError):
            logger.warning("bundle left out: %s: %s", directory.name, found)
        else:
            usable.append((directory, found))
    return sorted(usable, key=lambda item: (item[1].domain != "human", item[1].id))


def _read_manifests(bundles_dir: Path) -> Iterator[tuple[Path, Manifest | BundleError]]:
    """Yield every bundle's directory by name, with its manifest or with why that can't be used."""
    if not bundles_dir.is_dir():
        return
    for directory in sorted(bundles_dir.iterdir()):
        # Hidden folders are bundles that a writer has not finished.
        if directory.name.startswith(".") or not (directory / MANIFEST_NAME).is_file():
            continue
        try:
            yield directory, read_manifest(directory)
        except BundleError as error:
            yield directory, error


def _checked_path(directory: Path, manifest: Manifest, name: str) -> Path:
    """Return the path of a listed file that is present, regular, inside the directory and of the right size."""
    # resolved first: a folder opened through a link or as "." has the neighbours of the real one
    home = directory.resolve().parent / SHARED_FOLDER if manifest.files[name].shared else directory.resolve()
    path = home / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        place = f" ({SHARED_FOLDER}/{name} beside the bundle)" if manifest.files[name].shared else ""
        raise BundleError("bundle-missing", f"The bundle's file {name} is missing{place}.", _FRESH_COPY) from error
    if not real.is_relative_to(home.resolve()):
        raise BundleError(
            "bundle-invalid",
            f"The bundle's file {name} is a link that leads out of the bundle.",
            "Replace the link by the file itself, then try again.",
        )
    if not real.is_file():
        raise BundleError("bundle-missing", f"The bundle's file {name} is not a regular file.", _FRESH_COPY)
    size, expected = real.stat().st_size, manifest.files[name].bytes
    if size != expected:
        raise BundleError(
            "bundle-damaged",
            f"The bundle's file {name} has {size} bytes where the manifest says {expected}.",
            _FRESH_COPY,
        )
    return real


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path) from error
    return digest.hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> BundleError:
    return BundleError(
        "bundle-missing",
        f"The bundle's file {path.name} can't be read.",
        "Check the permissions of the bundle's folder.",
    )


def _damaged(name: str) -> BundleError:
    return BundleError(
        "bundle-damaged", f"The bundle's file {name} is damaged: its SHA-256 is not the manifest's.", _FRESH_COPY
    )
