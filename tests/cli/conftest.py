"""Runs the ``animato`` command as a person does: a process of its own, judged by its exit code and its words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def environment(tmp_path: Path, tiny_bundle: Path) -> dict[str, str]:
    """The variables of a command that sees one small bundle and writes nothing into the working tree."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANIMATO_")}
    return kept | {
        "ANIMATO_BUNDLES_DIR": str(tiny_bundle.parent),
        "ANIMATO_DATA_DIR": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }


@pytest.fixture
def animato(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*words: object, timeout_s: float = 100, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", *map(str, words)],
            env=environment | variables,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    return run


@pytest.fixture
def face(tmp_path: Path) -> Path:
    """A picture that is no square, in a file whose name holds a space."""
    picture = Image.new("RGB", (160, 120), "#9fc8d8")
    ImageDraw.Draw(picture).ellipse((50, 20, 110, 100), fill="#d9a47c")
    path = tmp_path / "a face.png"
    picture.save(path)
    return path
