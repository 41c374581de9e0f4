"""What the lock files are and what stands in them. Imports packaging alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/locks"

# Where the images run; a pin whose marker is false here is in no image.
IMAGE = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_system": "Linux",
    "python_full_version": "3.11.9",
    "python_version": "3.11",
    "sys_platform": "linux",
}


@dataclass(frozen=True)
class Lock:
    """One lock file: the extras of pyproject.toml that it pins, and whether an image is built from it."""

    name: str
    extras: tuple[str, ...]
    image: bool = True

    @property
    def path(self) -> Path:
        """Where it lies."""
        return FOLDER / f"{self.name}.txt"


# The first holds all versions that the tests run with; the others take theirs from it where both name a package.
LOCKS = (
    Lock("development", ("api", "worker", "cpu", "embedded", "cli", "postgres", "train", "dev"), image=False),
    Lock("serving", ("api", "worker", "cpu", "embedded", "cli"), image=False),
    Lock("api", ("api", "postgres", "otel")),
    Lock("worker-cpu", ("worker", "postgres", "otel", "cpu")),
    Lock("worker-cpu-openvino", ("worker", "postgres", "otel", "cpu", "openvino", "ncnn")),
    Lock("worker-cpu-ncnn", ("worker", "postgres", "otel", "cpu", "ncnn")),
    Lock("worker-gpu", ("worker", "postgres", "otel", "gpu")),
)
BY_NAME = {lock.name: lock for lock in LOCKS}
# What builds the project itself where it is installed editable; as hashed as all else (deploy/locks/build.in).
BUILD = FOLDER / "build.in"


@dataclass(frozen=True)
class Pin:
    """One package at one version, with the SHA-256 of every file that may be installed for it."""

    name: str
    version: str
    marker: Marker | None
    hashes: frozenset[str]

    def holds(self, environment: Mapping[str, str]) -> bool:
        """Tell whether it is installed in that environment (marker names → values)."""
        return self.marker is None or self.marker.evaluate(dict(environment))


def read_pins(path: Path) -> tuple[Pin, ...]:
    """Return what a lock file pins, in its order.

    Raises: ValueError for a line that is no exact pin, or one without a hash.
    """
    return tuple(_read(path.name, statement) for statement in _statements(path.read_text(encoding="utf-8")))


def _statements(text: str) -> Iterator[str]:
    """Yield each requirement with its continuation lines joined; comments are left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for statement in re.split(r"(?<!\\)\n", "\n".join(lines)):
        if statement.strip():
            yield statement.replace("\\\n", " ")


def _read(file: str, statement: str) -> Pin:
    head, *hashes = re.split(r"\s+--hash=sha256:", statement.strip())
    requirement = Requirement(head)
    exact = [part.version for part in requirement.specifier if part.operator == "=="]
    if len(exact) != 1 or not hashes:
        raise ValueError(f"{file}: {head!r} is not pinned to one version with hashes. Run `make lock`.")
    return Pin(canonicalize_name(requirement.name), exact[0], requirement.marker, frozenset(hashes))


def image_pins(lock: Lock) -> tuple[Pin, ...]:
    """Return what an image on Linux x86-64 installs of a lock."""
    return tuple(pin for pin in read_pins(lock.path) if pin.holds(IMAGE))


def read_apart() -> tuple[str, ...]:
    """Return what is installed by version alone ("name==version"): torch, and the libraries of TensorRT."""
    torch = re.search(r"^TORCH \?= (torch==\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert torch, "the Makefile names no version of torch"
    lines = [line for path in sorted(FOLDER.glob("apart-*.txt")) for line in path.read_text("utf-8").splitlines()]
    return (torch[1], *(line for line in lines if not line.startswith("#")))
