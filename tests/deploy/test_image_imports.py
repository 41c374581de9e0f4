"""What an image's own code imports is in the image's lock: a package that is only there in development fails here."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from deploy.supply.pins import BY_NAME, ROOT, image_pins

COPIED = re.compile(r"^COPY (?!--)(.+) \S+$", re.MULTILINE)
OURS = {"services", "worker", "model", "cli", "deploy"}
RUNTIMES = {"openvino", "ncnn", "onnx", "tensorrt"}
"""Imported where an extra has brought them; each has a lock of its own."""
UNUSED = {"yaml"}
"""``services.api.openapi`` writes openapi.yaml with it, in the repository; no image does that."""
IMAGES = {"api": ("api",), "worker": ("worker-cpu", "worker-cpu-ncnn", "worker-cpu-openvino", "worker-gpu")}


def list_sources(image: str) -> list[Path]:
    """Return the Python files that an image's Dockerfile copies out of the repository."""
    text = (ROOT / "deploy" / f"{image}.Dockerfile").read_text(encoding="utf-8")
    found: list[Path] = []
    for places in COPIED.findall(text):
        for path in (path for place in places.split() for path in ROOT.glob(place)):
            found += path.rglob("*.py") if path.is_dir() else [path]
    return [path for path in found if path.suffix == ".py"]


def list_imports(path: Path) -> Iterator[str]:
    """Yield the first names of what a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(("image", "lock"), [(image, lock) for image, locks in IMAGES.items() for lock in locks])
def test_everything_imported_is_locked(image: str, lock: str) -> None:
    sources = list_sources(image)
    assert len(sources) > 40
    imported = {name for path in sources for name in list_imports(path)} - set(sys.stdlib_module_names) - OURS
    assert {"redis", "pydantic", "structlog"} <= imported
    makers = packages_distributions()
    locked = {pin.name for pin in image_pins(BY_NAME[lock])}
    missing = {
        name
        for name in imported - RUNTIMES - UNUSED
        if not locked & ({canonicalize_name(maker) for maker in makers.get(name, [])} | _others(name))
    }
    assert not missing


def _others(name: str) -> set[str]:
    """Return makers of a module besides the one that is installed here."""
    return {"onnxruntime-gpu"} if name == "onnxruntime" else set()
