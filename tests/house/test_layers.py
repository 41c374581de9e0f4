"""The layer contracts hold, and each of them can fail: a forbidden import put into a copy of the tree is reported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, ROOT, list_files

FORBIDDEN = [
    ("model/smuggled.py", "import torch", "torch"),
    ("services/storage_smuggled.py", "import worker.video", "services-below"),
    ("worker/smuggled.py", "from services.api import app", "worker"),
    ("model/smuggled.py", "import services.errors", "model"),
    ("model/bundle/smuggled.py", "import numpy", "bundle"),
    ("training/smuggled.py", "import services.errors", "training"),
    ("services/jobs/smuggled.py", "import services.api.app", "services-layers"),
    ("worker/smuggled.py", "import onnxruntime", "onnxruntime"),
    ("cli/smuggled.py", "import fastapi", "fastapi"),
    ("services/jobs/smuggled.py", "import celery", "celery"),
    ("worker/smuggled.py", "import sqlalchemy", "sql"),
    ("worker/smuggled.py", "import obstore", "store"),
]


def lint(root: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a tree."""
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, ''); from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    for contract in contracts:
        command += ["--contract", contract]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=150, check=False)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's packages."""
    root = tmp_path_factory.mktemp("tree")
    for path in list_files():
        if path.name == "pyproject.toml" or (path.parts[0] in PACKAGES and path.suffix == ".py"):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, root / path)
    return root


def test_every_contract_holds(copied: Path) -> None:
    done = lint(copied)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(("place", "line", "contract"), FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(copied: Path, place: str, line: str, contract: str) -> None:
    smuggled = copied / place
    smuggled.write_text(line + "\n", encoding="utf-8")
    try:
        done = lint(copied, contract)
    finally:
        smuggled.unlink()
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    assert "0 kept, 1 broken" in done.stdout
    assert smuggled.stem in done.stdout
