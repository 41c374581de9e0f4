"""Runs the ``animato`` command as a person does, judged by its exit code and its words."""

from __future__ import annotations

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import structlog
from PIL import Image, ImageDraw

from cli.app import main

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
def animato(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in this process, through its outermost boundary: dozens of starts would only cost time."""

    def run(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
        said, complained, code = io.StringIO(), io.StringIO(), 0
        handlers = list(logging.root.handlers)
        with monkeypatch.context() as patch, redirect_stdout(said), redirect_stderr(complained):
            for name in set(os.environ) - set(environment):
                patch.delenv(name)
            for name, value in (environment | variables).items():
                patch.setenv(name, value)
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", ["animato", *map(str, words)])
            try:
                main()
            except SystemExit as leaving:
                code = int(leaving.code or 0)
            finally:
                structlog.reset_defaults()
                logging.root.handlers[:] = handlers
        return subprocess.CompletedProcess(words, code, said.getvalue(), complained.getvalue())

    return run


def unboxed(text: str) -> str:
    """Return what typer draws into a box, as one line."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.fixture
def face(tmp_path: Path) -> Path:
    """A picture that is no square, in a file whose name holds a space."""
    picture = Image.new("RGB", (160, 120), "#9fc8d8")
    ImageDraw.Draw(picture).ellipse((50, 20, 110, 100), fill="#d9a47c")
    path = tmp_path / "a face.png"
    picture.save(path)
    return path
