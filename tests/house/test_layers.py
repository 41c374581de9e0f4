"""The layer contracts hold, and each of them can fail: a forbidden import put into a copy of the tree is reported."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.house.tree import PACKAGES, ROOT, list_files

CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
}
# Contract → (folder, a line that breaks it).
FORBIDDEN = {
    "torch": ("model", "import torch"),
    "services-below": ("services/jobs", "import worker.video"),
    "worker": ("worker", "from services.api import app"),
    "model": ("model", "import services.errors"),
    "bundle": ("model/bundle", "import numpy"),
    "training": ("training", "import services.errors"),
    "services-layers": ("services/jobs", "import services.api.app"),
    "onnxruntime": ("worker", "import onnxruntime"),
    "openvino": ("worker", "import openvino"),
    "ncnn": ("worker", "import ncnn"),
    "runtime": ("worker", "import model.runtime.tuning"),
    "fastapi": ("cli", "import fastapi"),
    "celery": ("services/jobs", "import celery"),
    "sql": ("worker", "import sqlalchemy"),
    "store": ("worker", "import obstore"),
    "otel": ("worker", "import opentelemetry.trace"),
}


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a tree."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the project's packages."""
    for path in list_files():
        if path.name == "pyproject.toml" or (path.parts[0] in PACKAGES and path.suffix == ".py"):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, tmp_path / path)
    return tmp_path


def test_every_contract_holds() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken" in done.stdout


def test_every_contract_can_break(copied: Path) -> None:
    assert set(FORBIDDEN) == set(CONTRACTS), "a contract without a case here"
    for contract, (folder, line) in FORBIDDEN.items():
        name = "smuggled_" + contract.replace("-", "_")
        (copied / folder / f"{name}.py").write_text(line + "\n", encoding="utf-8")
    done = lint(copied)
    assert done.returncode == 1, done.stdout[-2000:] + done.stderr[-2000:]
    report = done.stdout.partition("Broken contracts")[2]
    for contract, title in CONTRACTS.items():
        section = re.split(r"\n[^\n]+\n-{8,}\n", report.partition(f"\n{title}\n")[2].lstrip("-\n"))[0]
        culprit = "smuggled_" + contract.replace("-", "_")
        assert culprit in section, f"{title}: does not report {culprit}: {section[:500]!r}"
