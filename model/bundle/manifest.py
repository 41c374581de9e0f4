"""``manifest.json`` as a value: parsed, checked in sentences, written back. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from model.errors import BundleError

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SHARED_FOLDER = "shared"
DEFAULT_MOTION_STEPS = 16
GRAPH_NAMES = ("text", "image", "encoder", "motion", "mapping", "synthesis", "quality")
OPTIONAL_GRAPHS = frozenset({"quality"})

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MODEL_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_REMAKE = "Export the bundle again, or get a fresh copy of it."


@dataclass(frozen=True)
class FileEntry:
    """What the manifest knows of one file: its SHA-256 in lower-case hexadecimal and its size in bytes.

    A ``shared`` file lies in the folder ``shared`` beside the bundle, where other bundles use it too.
    """

    sha256: str
    bytes: int
    shared: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"sha256": self.sha256, "bytes": self.bytes, **({"shared": True} if self.shared else {})}


@dataclass(frozen=True)
class Manifest:
    """Everything that serving needs to know of a bundle before it opens a graph.

    Units: ``resolution`` and ``input_resolution`` in px, ``fps`` in frames a second.
    Fields that a later animato adds within the same schema are kept in ``extra`` and written back unchanged.
    ``sha256`` is the digest of the manifest's own bytes; as those name every other file's digest, it names the bundle.
    """

    id: str
    version: str
    domain: str
    kind: str
    resolution: int
    num_ws: int
    w_dim: int
    z_dim: int
    embed_dim: int
    h_dim: int
    fps: int
    opset: int
    input_resolution: int
    max_tokens: int
    files: Mapping[str, FileEntry]
    graphs: Mapping[str, str | None]
    tokenizer: str
    expressions: tuple[str, ...]
    presets: tuple[str, ...]
    license: str
    detector: str | None = None
    parity: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, Any] = field(default_factory=dict)
    card: str | None = None
    language: str | None = None
    motion_steps: int = DEFAULT_MOTION_STEPS
    schema_version: int = SCHEMA_VERSION
    extra: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = field(default="", compare=False)

    @classmethod
    def from_dict(cls, data: object, sha256: str = "") -> Manifest:
        """Build a manifest from parsed JSON.

        Raises:
            BundleError: bundle-newer for a schema this program does not know, bundle-invalid for anything else.
        """
        if not isinstance(data, Mapping):
            raise _invalid("it is not a JSON object")
        _check_schema(data.get("schema_version"))
        known = {f.name for f in fields(cls)} - {"extra", "sha256"}
        manifest = cls(
            id=_text(data, "id", _MODEL_ID),
            version=_text(data, "version"),
            domain=_text(data, "domain"),
            kind=_text(data, "kind"),
            resolution=_count(data, "resolution"),
            num_ws=_count(data, "num_ws"),
            w_dim=_count(data, "w_dim"),
            z_dim=_count(data, "z_dim"),
            embed_dim=_count(data, "embed_dim"),
            h_dim=_count(data, "h_dim"),
            fps=_count(data, "fps"),
            opset=_count(data, "opset"),
            input_resolution=_count(data, "input_resolution"),
            max_tokens=_count(data, "max_tokens", least=3),
            files=_files(data),
            graphs=_graphs(data),
            tokenizer=_text(data, "tokenizer"),
            expressions=_texts(data, "expressions"),
            presets=_texts(data, "presets"),
            license=_text(data, "license"),
            detector=_optional_text(data, "detector"),
            parity=_mapping(data, "parity"),
            made_by=_mapping(data, "made_by"),
            card=_optional_text(data, "card"),
            language=_optional_text(data, "language"),
            motion_steps=_count(data, "motion_steps") if "motion_steps" in data else DEFAULT_MOTION_STEPS,
            extra={key: value for key, value in data.items() if key not in known},
            sha256=sha256,
        )
        manifest._check_references()
        return manifest

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain JSON types, in the order of the documentation."""
        return {
            "schema_version": self.schema_version,
            "id": self.id,
            "version": self.version,
            "domain": self.domain,
            "kind": self.kind,
            "resolution": self.resolution,
            "num_ws": self.num_ws,
            "w_dim": self.w_dim,
            "z_dim": self.z_dim,
            "embed_dim": self.embed_dim,
            "h_dim": self.h_dim,
            "fps": self.fps,
            "opset": self.opset,
            "input_resolution": self.input_resolution,
            "max_tokens": self.max_tokens,
            "motion_steps": self.motion_steps,
            "files": {name: entry.to_dict() for name, entry in sorted(self.files.items())},
            "graphs": dict(self.graphs),
            "tokenizer": self.tokenizer,
            "expressions": list(self.expressions),
            "presets": list(self.presets),
            "detector": self.detector,
            "parity": dict(self.parity),
            "license": self.license,
            "made_by": dict(self.made_by),
            "card": self.card,
            **({} if self.language is None else {"language": self.language}),
            **self.extra,
        }

    def _check_references(self) -> None:
        named = {f"graphs.{graph}": name for graph, name in self.graphs.items() if name is not None}
        named["tokenizer"] = self.tokenizer
        named |= {key: name for key in ("detector", "card", "language") if (name := getattr(self, key)) is not None}
        for place, name in named.items():
            if name not in self.files:
                raise _invalid(f"{place} names {name!r}, which is not listed under files")


def _invalid(reason: str) -> BundleError:
    return BundleError("bundle-invalid", f"The bundle's {MANIFEST_NAME} can't be used: {reason}.", _REMAKE)


def _check_schema(version: object) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _invalid("schema_version is missing or not a positive whole number")
    if version > SCHEMA_VERSION:
        raise BundleError(
            "bundle-newer",
            f"The bundle was made by a newer animato (its schema is {version}, this program knows {SCHEMA_VERSION}).",
            "Update animato, or ask for an older bundle.",
        )


def _field(data: Mapping[str, Any], key: str) -> Any:
    if key not in data:
        raise _invalid(f"{key} is missing")
    return data[key]


def _text(data: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None = None) -> str:
    value = _field(data, key)
    if not isinstance(value, str) or not value:
        raise _invalid(f"{key} must be a text that is not empty")
    if pattern is not None and not pattern.fullmatch(value):
        raise _invalid(f"{key} is {value!r}; allowed are lower-case letters, digits, '.', '_' and '-', up to 64")
    return value


def _optional_text(data: Mapping[str, Any], key: str) -> str | None:
    return None if data.get(key) is None else _text(data, key)


def _count(data: Mapping[str, Any], key: str, least: int = 1) -> int:
    value = _field(data, key)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise _invalid(f"{key} must be a whole number of at least {least}")
    return value


def _texts(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = _field(data, key)
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) and v for v in value):
        raise _invalid(f"{key} must be a list of texts")
    return tuple(value)


def _mapping(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, Mapping):
        raise _invalid(f"{key} must be an object")
    return dict(value)


def _files(data: Mapping[str, Any]) -> dict[str, FileEntry]:
    value = _field(data, "files")
    if not isinstance(value, Mapping):
        raise _invalid("files must be an object")
    entries: dict[str, FileEntry] = {}
    for name, entry in value.items():
        check_file_name(name)
        if not isinstance(entry, Mapping):
            raise _invalid(f"files[{name!r}] must be an object with sha256 and bytes")
        digest, size = entry.get("sha256"), entry.get("bytes")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise _invalid(f"the sha256 of {name!r} must be 64 lower-case hexadecimal digits")
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise _invalid(f"the bytes of {name!r} must be a whole number")
        shared = entry.get("shared", False)
        if not isinstance(shared, bool):
            raise _invalid(f"shared of {name!r} must be true or false")
        entries[name] = FileEntry(digest, size, shared)
    return entries


def _graphs(data: Mapping[str, Any]) -> dict[str, str | None]:
    value = _field(data, "graphs")
    if not isinstance(value, Mapping):
        raise _invalid("graphs must be an object")
    graphs: dict[str, str | None] = {}
    for graph in GRAPH_NAMES:
        name = value.get(graph)
        if name is None and graph not in OPTIONAL_GRAPHS:
            raise _invalid(f"graphs.{graph} is missing")
        if name is not None and (not isinstance(name, str) or not name):
            raise _invalid(f"graphs.{graph} must be a file name")
        graphs[graph] = name
    return graphs


def check_file_name(name: object) -> None:
    """Refuse every name that is not a plain file name: no folders, no ``..``, nothing hidden.

    Raises:
        BundleError: bundle-invalid.
    """
    if not isinstance(name, str) or not _FILE_NAME.fullmatch(name) or name == MANIFEST_NAME:
        raise BundleError(
            "bundle-invalid",
            f"The bundle's {MANIFEST_NAME} lists the file {name!r}, which is not a plain file name inside the bundle.",
            "Do not use this bundle; get it again from where it was published.",
        )
