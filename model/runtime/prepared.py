"""Weights as the processor wants them, laid out once, kept in files and mapped by every process that needs them.

Opening a graph folds constants, widens halves and lays weights out in blocks. Each process used to do that for itself
and to keep the outcome in memory of its own. The outcome is the same for all of them, so the first one writes it down;
mapped files are held once however many workers read them, and opening takes a fraction of the time.

What is written depends on the runtime's version and on the processor, so both are part of the folder's name. It is a
cache: it may be deleted at any time, and whatever goes wrong with it, the graph is opened the plain way.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

GRAPH, WEIGHTS, CHECKS = "graph.onnx", "weights.bin", "checks.json"
_FORMAT = "1"  # raised when the same key must lead to other files
_UNUSED_S = 30 * 86_400.0
_UNFINISHED_S = 3600.0

Write = Callable[[Path, str], None]


def prepare(folder: Path, key: str, write: Write) -> Path:
    """Return the path of the prepared graph, made now where it is not there or is damaged.

    Args:
        folder: where prepared graphs are kept; made when it is missing.
        key: all that the outcome depends on, but for this processor.
        write: writes the graph to a path, and the weights beside it under a file name.

    Raises:
        OSError: there is no room, or no permission. Whatever ``write`` raises.
    """
    name = hashlib.sha256(f"{_FORMAT} {key} {describe_processor()}".encode()).hexdigest()[:32]
    place = folder / name
    if not _is_whole(place):
        _make(folder, place, write)
    os.utime(place)  # when it was last used
    return place / GRAPH


def _make(folder: Path, place: Path, write: Write) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _sweep(folder)
    # Workers start together: each writes into a folder of its own, and the first to rename it has made it for all.
    draft = folder / f".{place.name}-{secrets.token_hex(4)}"
    draft.mkdir(mode=0o700)
    try:
        write(draft / GRAPH, WEIGHTS)
        sums = {path.name: _digest(path) for path in sorted(draft.iterdir())}
        (draft / CHECKS).write_text(json.dumps(sums), encoding="utf-8")
        if place.exists() and not _is_whole(place):
            shutil.rmtree(place, ignore_errors=True)
        try:
            draft.rename(place)
        except OSError:
            if not _is_whole(place):
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _is_whole(place: Path) -> bool:
    """Return whether every file is there and is what was written."""
    try:
        sums = json.loads((place / CHECKS).read_text(encoding="utf-8"))
        return GRAPH in sums and all(_digest(place / name) == told for name, told in sums.items())
    except (OSError, ValueError, TypeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sweep(folder: Path) -> None:
    """Remove what a killed process left, and what nobody has opened for a month: older runtimes' and bundles'."""
    for place in folder.iterdir():
        limit_s = _UNFINISHED_S if place.name.startswith(".") else _UNUSED_S
        try:
            if time.time() - place.stat().st_mtime > limit_s:
                shutil.rmtree(place, ignore_errors=True)
        except FileNotFoundError:
            continue  # another process swept it


@cache
def describe_processor() -> str:
    """Return what the layout of weights depends on: the architecture and its instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    told = [line.partition(":")[2].strip() for line in lines if line.startswith(("flags", "Features", "model name"))]
    return f"{platform.machine()} {' '.join(dict.fromkeys(told)) or platform.processor()}"
