"""Starts the tests of training on other devices, a process for each file and device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(path.name for path in (ROOT / "tests/training/elsewhere").glob("test_*.py"))


def run_file(name: str, device: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/training/elsewhere/{name}"],
        cwd=ROOT,
        env={**os.environ, "ELSEWHERE": device, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-20_000:] + result.stderr[-2000:]
    assert " passed" in result.stdout


def test_there_are_files() -> None:
    assert FILES == ["test_chains.py", "test_losses.py", "test_pretend_device.py"]


@pytest.mark.parametrize("name", FILES)
def test_on_a_device_that_pretends(name: str) -> None:
    run_file(name, "pretend")


@pytest.mark.parametrize("name", [name for name in FILES if name != "test_pretend_device.py"])
def test_on_a_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU: training on CUDA was NOT tried")
    run_file(name, "cuda")
